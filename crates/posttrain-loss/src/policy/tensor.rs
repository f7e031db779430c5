//! The objective in libtorch's own operations, for scores that lie on another device than the CPU.

use super::clip::Clip;
use super::importance_sampling::ImportanceSampling;
use super::plan::{Partial, Plan};
use super::{PolicyLoss, PolicyObjective};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, Operation};
use crate::head::TokenScores;
use crate::kl::{KlEstimator, KlPenalty};
use crate::metrics::PolicyMetrics;
use crate::objective::{LossOutcome, Objective};
use tch::{Kind, TchError, Tensor};

/// A policy loss of all entries at once.
pub(super) trait TensorLoss {
    /// Losses, derivatives by the log-probabilities, and which are clipped, of `[N]` ratios and
    /// advantages.
    fn terms(&self, ratio: &Tensor, advantages: &Tensor) -> Result<[Tensor; 3], TchError>;
}

/// The same function as the native kernel, for checked scores; `None` for an objective that has
/// only that one.
pub(super) fn evaluate(
    objective: &PolicyObjective,
    batch: &LossBatch,
    scores: &TokenScores,
    totals: &StepTotals,
) -> Result<Option<LossOutcome<Tensor>>, LossError> {
    let loss: &dyn TensorLoss = match objective.loss {
        _ if batch.old_logprobs.is_some() || objective.correction.is_some() => return Ok(None),
        PolicyLoss::ImportanceSampling { ratio_cap } => {
            &ImportanceSampling { cap: ratio_cap.unwrap_or(f32::INFINITY) }
        }
        PolicyLoss::PpoClip { clip_low, clip_high } => &Clip::around_one(clip_low, clip_high),
        PolicyLoss::PpoRatio { clip_low_threshold, clip_high_threshold } => {
            &Clip { low: clip_low_threshold, high: clip_high_threshold }
        }
        _ => return Ok(None),
    };

    let plan = Plan::new(objective, batch)?;
    let _guard = tch::no_grad_guard();
    let inputs = Inputs::new(&plan, scores).during("copying the batch to the scores' device")?;
    let (sum, gradient) = inputs.evaluate(loss, objective).during("evaluating the policy loss")?;
    if !sum.is_finite() {
        let host = |tensor: &Tensor| Vec::<f32>::try_from(tensor).during("copying the scores");
        return Err(plan.culprit(0, &host(&scores.logprobs)?, Some(&host(&scores.entropy)?)));
    }

    let eta = objective.entropy_coefficient;
    let entropy_gradient = (eta > 0.0).then(|| inputs.weights.f_mul_scalar(-eta)).transpose();
    let entropy_gradient = entropy_gradient.during("scaling the entropy's gradient")?;
    Ok(Some(LossOutcome::of(sum.sums(), objective.denominator(totals), gradient, entropy_gradient)))
}

/// `[N]` f32 tensors on the scores' device, 0 where masked.
struct Inputs {
    weights: Tensor,
    live: Tensor,
    advantages: Tensor,
    log_ratio: Tensor,
    distance: Option<Tensor>,
    entropy: Tensor,
}

impl Inputs {
    fn new(plan: &Plan, scores: &TokenScores) -> Result<Self, TchError> {
        let device = scores.logprobs.device();
        let upload = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);

        let weights = upload(&plan.entry_weights())?;
        let live = weights.f_ne(0.0)?;
        let masked = |tensor: Tensor| tensor.f_masked_fill(&live.f_logical_not()?, 0.0);

        let distance =
            plan.layout.batch.reference_logprobs.map(|reference| -> Result<Tensor, TchError> {
                masked(scores.logprobs.f_sub(&upload(reference)?)?)
            });

        Ok(Self {
            advantages: masked(upload(&plan.entry_advantages())?)?,
            log_ratio: masked(scores.logprobs.f_sub(&upload(plan.sampling)?)?)?,
            distance: distance.transpose()?,
            entropy: masked(scores.entropy.shallow_clone())?,
            live,
            weights,
        })
    }

    fn evaluate(
        &self,
        loss: &dyn TensorLoss,
        objective: &PolicyObjective,
    ) -> Result<(Partial, Tensor), TchError> {
        let ratio = self.log_ratio.f_exp()?;
        let [mut losses, mut slopes, clipped] = loss.terms(&ratio, &self.advantages)?;

        let mut reference_kl = 0.0;
        if let (Some(kl), Some(distance)) = (objective.kl, &self.distance) {
            let [values, gradients] = estimate(kl, distance)?;
            reference_kl = sum(&values)?;
            losses = losses.f_add(&values.f_mul_scalar(kl.coefficient)?)?;
            slopes = slopes.f_add(&gradients.f_mul_scalar(kl.coefficient)?)?;
        }

        losses = losses.f_sub(&self.entropy.f_mul_scalar(objective.entropy_coefficient)?)?;

        let metrics =
            PolicyMetrics { reference_kl, clipped: sum(&clipped)? as u64, ..self.metrics(&ratio)? };
        Ok((
            Partial { loss: sum(&losses.f_mul(&self.weights)?)?, metrics },
            slopes.f_mul(&self.weights)?,
        ))
    }

    fn metrics(&self, ratio: &Tensor) -> Result<PolicyMetrics, TchError> {
        let tokens = sum(&self.live)? as u64;
        let log_ratio = sum(&self.log_ratio)?;
        let gap = self.log_ratio.f_abs()?;
        let excess = sum(&self.log_ratio.f_to_kind(Kind::Double)?.f_expm1()?)?;

        let among = |fill: f64| ratio.f_masked_fill(&self.live.f_logical_not()?, fill);
        let empty = self.live.numel() == 0;
        let extreme = |tensor: Result<Tensor, TchError>, otherwise: f32| match empty {
            true => Ok(otherwise),
            false => tensor?.f_double_value(&[]).map(|value| value as f32),
        };

        Ok(PolicyMetrics {
            tokens,
            ratio_excess: excess,
            ratio_min: extreme(
                among(f64::INFINITY).and_then(|ratio| ratio.f_min()),
                f32::INFINITY,
            )?,
            ratio_max: extreme(among(0.0).and_then(|ratio| ratio.f_max()), 0.0)?,
            kl_k1: -log_ratio,
            kl_k3: excess - log_ratio,
            gap: sum(&gap)?,
            gap_max: extreme(gap.f_max(), 0.0)?,
            entropy: sum(&self.entropy)?,
            entropy_tokens: tokens,
            ..PolicyMetrics::default()
        })
    }
}

fn sum(tensor: &Tensor) -> Result<f64, TchError> {
    tensor.f_sum(Kind::Double)?.f_double_value(&[])
}

/// Values and derivatives of the KL estimates.
fn estimate(kl: KlPenalty, distance: &Tensor) -> Result<[Tensor; 2], TchError> {
    Ok(match kl.estimator {
        KlEstimator::K1 => [distance.shallow_clone(), distance.f_ones_like()?],
        KlEstimator::K2 => [distance.f_square()?.f_mul_scalar(0.5)?, distance.shallow_clone()],
        KlEstimator::K3 => {
            let excess = distance.f_neg()?.f_expm1()?;
            [excess.f_add(distance)?, excess.f_neg()?]
        }
    })
}
