//! What evaluating an objective gives.

use crate::error::{LossError, Operation};
use crate::head::TokenGradients;
use crate::metrics::PolicyMetrics;
use tch::Tensor;

/// The loss of a micro-batch as a sum and a denominator, its gradient, and the metrics.
///
/// `G` is `Vec<f32>` from [`evaluate`](crate::PolicyObjective::evaluate) and a tensor from
/// [`evaluate_scores`](crate::PolicyObjective::evaluate_scores).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicyOutcome<G = Vec<f32>> {
    /// `Σ_t weight_t · (loss_t + β · KL_t − η · entropy_t)` over the micro-batch.
    pub loss_sum: f64,
    /// The whole step's denominator, at least 1: the same for each of its micro-batches.
    pub denominator: f64,
    /// `[N]`, the derivative of `loss_sum` by each `train_logprob`; 0 where masked.
    pub gradient: G,
    /// `[N]`, the derivative of `loss_sum` by each token's entropy; `None` without an entropy bonus.
    pub entropy_gradient: Option<G>,
    /// What the tokens say of the two policies.
    pub metrics: PolicyMetrics,
}

impl<G> PolicyOutcome<G> {
    /// The micro-batch's part of the step's loss: `loss_sum / denominator`.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.denominator
    }
}

impl PolicyOutcome {
    /// The gradient of the step's loss, for [`Head::backward`](crate::Head::backward): divided by the denominator.
    ///
    /// # Errors
    /// [`LossError::Torch`] when libtorch has no memory.
    pub fn token_gradients(&self) -> Result<TokenGradients, LossError> {
        self.to_tensors()?.token_gradients()
    }

    /// The same outcome with its gradients in tensors on the CPU.
    pub(crate) fn to_tensors(&self) -> Result<PolicyOutcome<Tensor>, LossError> {
        let tensor = |values: &Vec<f32>| Tensor::f_from_slice(values).during("copying the token gradients");
        Ok(PolicyOutcome {
            loss_sum: self.loss_sum,
            denominator: self.denominator,
            gradient: tensor(&self.gradient)?,
            entropy_gradient: self.entropy_gradient.as_ref().map(tensor).transpose()?,
            metrics: self.metrics,
        })
    }
}

impl PolicyOutcome<Tensor> {
    /// The gradient of the step's loss, for [`Head::backward`](crate::Head::backward): divided by the denominator.
    ///
    /// # Errors
    /// [`LossError::Torch`] when libtorch has no memory.
    pub fn token_gradients(&self) -> Result<TokenGradients, LossError> {
        let scaled = |gradient: &Tensor| gradient.f_div_scalar(self.denominator).during("scaling the token gradients");
        let entropy = self.entropy_gradient.as_ref().map(scaled).transpose()?;
        Ok(TokenGradients { logprobs: scaled(&self.gradient)?, entropy })
    }
}
