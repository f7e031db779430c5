//! What evaluating an objective gives.

use super::LossSums;
use crate::error::{LossError, Operation};
use crate::head::{TokenGradients, TokenScores, surrogate};
use crate::metrics::LossMetrics;
use posttrain_tensor::{TensorError, Values, check_shape, values};
use tch::{Device, Kind, Tensor};

/// The loss of a micro-batch as a sum and a denominator, its gradient, and the metrics.
///
/// `G` is `Vec<f32>` from [`Objective::evaluate`](crate::Objective::evaluate) and a tensor from
/// [`Objective::evaluate_scores`](crate::Objective::evaluate_scores) and
/// [`Head::step`](crate::Head::step).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LossOutcome<G = Vec<f32>> {
    /// The loss of the micro-batch, weighted and summed, before the denominator.
    pub loss_sum: f64,
    /// The whole step's denominator, at least 1: the same for each of its micro-batches.
    pub denominator: f64,
    /// `[N]`, the derivative of `loss_sum` by each entry's log-probability; 0 where its weight is
    /// 0.
    pub gradient: G,
    /// `[N]`, the derivative of `loss_sum` by each entry's entropy (by each row's, in a
    /// [`HeadStep`](crate::head::HeadStep)); `None` without an entropy bonus.
    pub entropy_gradient: Option<G>,
    /// What the entries say of the policy.
    pub metrics: LossMetrics,
}

impl<G> LossOutcome<G> {
    /// An outcome without an entropy bonus and without metrics.
    pub fn new(loss_sum: f64, denominator: f64, gradient: G) -> Self {
        Self {
            loss_sum,
            denominator,
            gradient,
            entropy_gradient: None,
            metrics: LossMetrics::default(),
        }
    }

    pub(crate) fn of(
        sums: LossSums,
        denominator: f64,
        gradient: G,
        entropy_gradient: Option<G>,
    ) -> Self {
        Self { loss_sum: sums.loss, denominator, gradient, entropy_gradient, metrics: sums.metrics }
    }

    /// The micro-batch's part of the step's loss: `loss_sum / denominator`.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.denominator
    }
}

impl LossOutcome {
    /// The gradient of the step's loss, for [`Head::backward`](crate::Head::backward): divided by
    /// the denominator.
    ///
    /// # Errors
    /// [`LossError::Torch`] when libtorch has no memory.
    pub fn token_gradients(&self) -> Result<TokenGradients, LossError> {
        self.clone().into_tensors(Device::Cpu)?.token_gradients()
    }

    /// The loss as a scalar whose `backward()` goes on into the graph behind `logprobs: [N]`, of
    /// any floating kind and on any device, whose values were evaluated.
    ///
    /// Its value is [`loss`](Self::loss), its gradient by the log-probabilities
    /// `gradient / denominator`. An entropy bonus has a gradient of its own: add
    /// [`surrogate`](crate::surrogate) of the entropies and their gradient.
    ///
    /// # Errors
    /// [`LossError::Tensor`] when the log-probabilities are not those of the outcome;
    /// [`LossError::Torch`].
    pub fn to_scalar(&self, logprobs: &Tensor) -> Result<Tensor, LossError> {
        check_shape("logprobs", logprobs, &[self.gradient.len() as i64])?;
        let gradient = self.token_gradients()?.logprobs;
        let gradient =
            gradient.f_to_device(logprobs.device()).during("copying the token gradients")?;

        // An entry that is not trained on may be impossible, and 0 · −∞ is no number.
        let trained = gradient.f_eq(0.0).and_then(|ignored| logprobs.f_masked_fill(&ignored, 0.0));
        let product = surrogate(&trained.during("masking the log-probabilities")?, &gradient)?;

        // Only the value is the loss's; a constant has no part in the gradient.
        let scalar =
            product.f_detach().and_then(|value| product.f_sub(&value)?.f_add_scalar(self.loss()));
        scalar.during("making the loss a scalar")
    }

    /// The same outcome with its gradients in tensors on a device.
    pub(crate) fn into_tensors(self, device: Device) -> Result<LossOutcome<Tensor>, LossError> {
        let tensor = |values: Vec<f32>| {
            let tensor =
                Tensor::f_from_slice(&values).and_then(|tensor| tensor.f_to_device(device));
            tensor.during("copying the token gradients")
        };

        Ok(LossOutcome {
            loss_sum: self.loss_sum,
            denominator: self.denominator,
            gradient: tensor(self.gradient)?,
            entropy_gradient: self.entropy_gradient.map(tensor).transpose()?,
            metrics: self.metrics,
        })
    }
}

impl LossOutcome<Tensor> {
    /// The gradient of the step's loss, for [`Head::backward`](crate::Head::backward): divided by
    /// the denominator.
    ///
    /// # Errors
    /// [`LossError::Torch`] when libtorch has no memory.
    pub fn token_gradients(&self) -> Result<TokenGradients, LossError> {
        let scaled = |gradient: &Tensor| {
            gradient.f_div_scalar(self.denominator).during("scaling the token gradients")
        };
        let entropy = self.entropy_gradient.as_ref().map(scaled).transpose()?;
        Ok(TokenGradients { logprobs: scaled(&self.gradient)?, entropy })
    }
}

/// Evaluates scores that lie anywhere by a function over slices: in place on the CPU, else on
/// copies.
pub(crate) fn evaluate_on_host(
    scores: &TokenScores,
    evaluate: impl FnOnce(&[f32], &[f32]) -> Result<LossOutcome, LossError>,
) -> Result<LossOutcome<Tensor>, LossError> {
    let _guard = tch::no_grad_guard();
    let device = scores.logprobs.device();
    let host = |tensor: &Tensor| {
        let host = tensor.f_to_device(Device::Cpu).and_then(|tensor| tensor.f_contiguous());
        host.during("copying the token scores")
    };
    let logprobs = host(&scores.logprobs)?;
    let entropy = host(&scores.entropy)?;

    let outcome = evaluate(floats("logprobs", &logprobs)?, floats("entropy", &entropy)?)?;
    outcome.into_tensors(device)
}

fn floats<'a>(argument: &'static str, tensor: &'a Tensor) -> Result<&'a [f32], LossError> {
    match values(argument, tensor)? {
        Values::F32(values) => Ok(values),
        Values::Bf16(_) => {
            Err(TensorError::Kind { argument, expected: "Float", got: tensor.kind() }.into())
        }
    }
}

impl TokenScores {
    /// Checks that there is a log-probability and an entropy in f32 for each entry.
    pub(crate) fn check(&self, entries: usize) -> Result<(), LossError> {
        for (argument, tensor) in [("logprobs", &self.logprobs), ("entropy", &self.entropy)] {
            check_shape(argument, tensor, &[entries as i64])?;
            if tensor.kind() != Kind::Float {
                return Err(
                    TensorError::Kind { argument, expected: "Float", got: tensor.kind() }.into()
                );
            }
        }
        Ok(())
    }
}
