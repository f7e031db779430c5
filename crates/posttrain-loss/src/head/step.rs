//! Head and objective in one call: where the objective is one of token scope, in one walk, in which
//! each chunk's logits are computed once and become their gradient at once.

use super::pass::{Arithmetic, Chunk, Pass};
use super::{Head, HeadGradients, TokenGradients, TokenScores};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, Operation, check_len};
use crate::objective::{LossOutcome, LossSums, Objective, Scope, Stretch, TokenEvaluator};
use std::borrow::Cow;
use tch::{Device, Kind, TchError, Tensor};

/// What a micro-batch is trained on.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The objective.
    pub objective: &'a dyn Objective,
    /// What is known of the micro-batch's entries.
    pub batch: &'a LossBatch<'a>,
    /// The totals of the whole step.
    pub totals: &'a StepTotals,
}

/// Everything that one step at the head gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeadStep {
    /// Log-probabilities and entropies.
    pub scores: TokenScores,
    /// Loss, its derivative by the scores, metrics.
    pub outcome: LossOutcome<Tensor>,
    /// The derivative of the step's loss, `loss_sum / denominator`, by what enters the head.
    pub gradients: HeadGradients,
}

impl Head {
    /// Scores, loss and gradient by the hidden states of a micro-batch.
    ///
    /// The same results as [`scores`](Self::scores), [`Objective::evaluate_scores`] and
    /// [`backward`](Self::backward) in turn. For an objective of [`Scope::Token`] on the CPU it is
    /// one walk, with two products over the vocabulary instead of three: the loss of an entry needs
    /// no other entry's log-probability, so its gradient is known while its logits are still there.
    ///
    /// `hidden: [N, H]`, `targets: [N]` or `[N, K]` i64, as in [`scores`](Self::scores);
    /// `step.batch` has an entry for each target, `N · K` in row order. The objective sees a row's
    /// entropy at each of its `K` entries, and the derivative by the row's entropy is the sum of
    /// theirs: the outcome's gradient has `N · K` elements, its entropy gradient `N`.
    ///
    /// # Errors
    /// Those of the three.
    pub fn step(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        step: Step,
    ) -> Result<HeadStep, LossError> {
        let _guard = tch::no_grad_guard();
        let pass = self.pass(hidden, targets)?;
        check_len("batch", step.batch.entries(), pass.entries())?;

        if self.arithmetic == Arithmetic::Native
            && step.objective.scope() == Scope::Token
            && let Some(evaluator) = step.objective.by_token(step.batch)?
        {
            return in_one_walk(pass, evaluator.as_ref(), step.objective.denominator(step.totals));
        }
        in_turn(self, hidden, targets, step)
    }
}

fn in_turn(
    head: &Head,
    hidden: &Tensor,
    targets: &Tensor,
    step: Step,
) -> Result<HeadStep, LossError> {
    let scores = head.scores(hidden, targets)?;
    let mut outcome = match scores.targets_per_row() {
        1 => step.objective.evaluate_scores(step.batch, &scores, step.totals)?,
        each => {
            let by_entry = scores.by_entry(each).during("laying entropies out by entry")?;
            step.objective.evaluate_scores(step.batch, &by_entry, step.totals)?
        }
    };
    let rows = scores.entropy.size()[0];
    let by_row = outcome.entropy_gradient.map(|gradient| sum_by_row(&gradient, rows)).transpose();
    outcome.entropy_gradient = by_row.during("adding up the entropies' gradients")?;

    let gradients = head.backward(hidden, targets, &scores, &outcome.token_gradients()?)?;
    Ok(HeadStep { scores, outcome, gradients })
}

impl TokenScores {
    fn targets_per_row(&self) -> i64 {
        self.logprobs.numel() as i64 / (self.entropy.numel() as i64).max(1)
    }

    /// The same with each row's entropy at each of its entries.
    fn by_entry(&self, targets_per_row: i64) -> Result<Self, TchError> {
        let entropy = self
            .entropy
            .f_unsqueeze(-1)?
            .f_expand([-1, targets_per_row], false)?
            .f_reshape([-1])?;
        Ok(Self { logprobs: self.logprobs.shallow_clone(), entropy })
    }
}

fn sum_by_row(by_entry: &Tensor, rows: i64) -> Result<Tensor, TchError> {
    let entries = by_entry.size()[0];
    if entries == rows {
        return Ok(by_entry.shallow_clone());
    }
    by_entry.f_view([rows, entries / rows])?.f_sum_dim_intlist(
        [-1i64].as_slice(),
        false,
        Kind::Float,
    )
}

fn in_one_walk(
    mut pass: Pass,
    evaluator: &dyn TokenEvaluator,
    denominator: f64,
) -> Result<HeadStep, LossError> {
    let each = pass.targets_per_row;
    let has_entropy_gradient = evaluator.has_entropy_gradient();
    let mut by_logprob = vec![0.0; pass.entries()];
    let mut by_entropy = has_entropy_gradient.then(|| vec![0.0; pass.rows()]);
    let mut sums = LossSums::default();
    let mut parts = Vec::new();
    let by_hidden = pass.empty_gradient()?;

    for chunk in pass.chunks() {
        let logits = pass.logits(chunk)?;
        let scores = pass.chunk_scores(&logits, chunk)?;
        let (logprobs, entropy) = scores.to_vecs()?;
        let entropy = repeat_each(&entropy, each);
        let gradient = &mut by_logprob[chunk.start * each..(chunk.start + chunk.len) * each];
        let mut entry_entropy = has_entropy_gradient.then(|| vec![0.0; gradient.len()]);

        sums.merge(&evaluator.evaluate(Stretch {
            start: chunk.start * each,
            logprobs: &logprobs,
            entropy: Some(&entropy),
            gradient,
            entropy_gradient: entry_entropy.as_deref_mut(),
        })?);

        if let (Some(by_entropy), Some(by_entry)) = (&mut by_entropy, entry_entropy) {
            let rows = &mut by_entropy[chunk.start..chunk.start + chunk.len];
            for (row, entries) in rows.iter_mut().zip(by_entry.chunks(each)) {
                *row = entries.iter().sum();
            }
        }

        let gradients = TokenGradients {
            logprobs: scaled(gradient, denominator)?,
            entropy: chunk_of(by_entropy.as_deref(), chunk)
                .map(|rows| scaled(rows, denominator))
                .transpose()?,
        };
        pass.chunk_backward(logits, chunk, (&scores, &gradients), &by_hidden)?;
        parts.push(scores);
    }

    let scores = pass.join(&parts)?;
    let outcome =
        LossOutcome::of(sums, denominator, by_logprob, by_entropy).into_tensors(Device::Cpu)?;
    Ok(HeadStep { scores, outcome, gradients: pass.finish(by_hidden) })
}

/// Each value `times` times in a row.
fn repeat_each(values: &[f32], times: usize) -> Cow<'_, [f32]> {
    match times {
        1 => Cow::Borrowed(values),
        _ => values.iter().flat_map(|value| std::iter::repeat_n(*value, times)).collect(),
    }
}

fn chunk_of(rows: Option<&[f32]>, chunk: Chunk) -> Option<&[f32]> {
    rows.map(|rows| &rows[chunk.start..chunk.start + chunk.len])
}

/// A chunk's part of the gradient of the step's loss.
fn scaled(values: &[f32], denominator: f64) -> Result<Tensor, LossError> {
    let scaled = Tensor::f_from_slice(values).and_then(|values| values.f_div_scalar(denominator));
    scaled.during("scaling the token gradients")
}
