//! Head and policy loss in one walk: each chunk's logits are computed once, and become their gradient at once.

use super::pass::{Arithmetic, Chunk, Pass};
use super::{Head, HeadGradients, TokenGradients, TokenScores};
use crate::aggregate::StepTotals;
use crate::batch::PolicyBatch;
use crate::error::{LossError, Operation, check_len};
use crate::policy::{Partial, Plan, PolicyObjective, PolicyOutcome};
use tch::Tensor;

/// What a micro-batch of tokens is trained on.
#[derive(Debug, Clone, Copy)]
pub struct PolicyStep<'a> {
    /// The objective.
    pub objective: &'a PolicyObjective,
    /// The tokens.
    pub batch: &'a PolicyBatch<'a>,
    /// The totals of the whole step.
    pub totals: &'a StepTotals,
}

/// Everything that one walk over the head gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeadStep {
    /// Log-probabilities and entropies.
    pub scores: TokenScores,
    /// Loss, its derivative by the scores, metrics.
    pub outcome: PolicyOutcome<Tensor>,
    /// The derivative of the step's loss, `loss_sum / denominator`, by what enters the head.
    pub gradients: HeadGradients,
}

impl Head {
    /// Scores, policy loss and gradient by the hidden states in one walk.
    ///
    /// The same results as [`scores`](Self::scores), [`PolicyObjective::evaluate_scores`] and
    /// [`backward`](Self::backward) in turn, with two products over the vocabulary instead of three: the loss of a token
    /// needs no other token's log-probability, so its gradient is known while its logits are still there.
    ///
    /// # Errors
    /// Those of the three.
    pub fn policy_step(&self, hidden: &Tensor, targets: &Tensor, step: PolicyStep) -> Result<HeadStep, LossError> {
        let _guard = tch::no_grad_guard();
        let pass = self.pass(hidden, targets)?;
        check_len("batch", step.batch.tokens(), pass.tokens())?;
        if self.arithmetic == Arithmetic::Libtorch {
            return in_turn(self, hidden, targets, step);
        }
        fused(pass, step)
    }
}

fn in_turn(head: &Head, hidden: &Tensor, targets: &Tensor, step: PolicyStep) -> Result<HeadStep, LossError> {
    let scores = head.scores(hidden, targets)?;
    let outcome = step.objective.evaluate_scores(step.batch, &scores, step.totals)?;
    let gradients = head.backward(hidden, targets, &scores, &outcome.token_gradients()?)?;
    Ok(HeadStep { scores, outcome, gradients })
}

fn fused(mut pass: Pass, step: PolicyStep) -> Result<HeadStep, LossError> {
    let plan = Plan::new(step.objective, step.batch)?;
    let denominator = step.objective.aggregation.denominator(step.totals);
    let by_entropy = step.objective.entropy_gradient(&plan);
    let mut by_logprob = vec![0.0; pass.tokens()];
    let (mut sum, mut parts) = (Partial::default(), Vec::new());
    let by_hidden = pass.empty_gradient()?;
    for chunk in pass.chunks() {
        let logits = pass.logits(chunk)?;
        let scores = pass.chunk_scores(&logits, chunk)?;
        let (logprobs, entropy) = scores.to_vecs()?;
        let gradient = &mut by_logprob[chunk.start..chunk.start + chunk.len];
        sum.merge(&plan.tokens(chunk.start, &logprobs, Some(&entropy), gradient)?);
        let gradients = token_gradients(chunk, gradient, by_entropy.as_deref(), denominator)?;
        pass.chunk_backward(logits, chunk, (&scores, &gradients), &by_hidden)?;
        parts.push(scores);
    }
    let scores = pass.join(&parts)?;
    let outcome = sum.outcome(denominator, by_logprob, by_entropy).to_tensors()?;
    Ok(HeadStep { scores, outcome, gradients: pass.finish(by_hidden) })
}

/// A chunk's part of the gradient of the step's loss.
fn token_gradients(
    chunk: Chunk,
    by_logprob: &[f32],
    by_entropy: Option<&[f32]>,
    denominator: f64,
) -> Result<TokenGradients, LossError> {
    let scaled = |values: &[f32]| {
        let scaled = Tensor::f_from_slice(values).and_then(|values| values.f_div_scalar(denominator));
        scaled.during("scaling the token gradients")
    };
    let by_entropy = by_entropy.map(|values| scaled(&values[chunk.start..chunk.start + chunk.len]));
    Ok(TokenGradients { logprobs: scaled(by_logprob)?, entropy: by_entropy.transpose()? })
}
