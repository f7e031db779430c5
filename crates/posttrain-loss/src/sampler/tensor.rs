//! The sampler in libtorch's own operations, for devices other than the CPU.

use super::{RowSampling, Sampled};
use crate::error::{LogitProblem, LossError, Operation};
use tch::{Kind, TchError, Tensor};

/// The same function as the native kernel, for checked arguments.
pub(super) fn sample(logits: &Tensor, rows: &[RowSampling]) -> Result<Sampled, LossError> {
    if !matches!(logits.kind(), Kind::Float | Kind::BFloat16) {
        let (argument, expected) = ("logits", "Float or BFloat16");
        return Err(LossError::Kind { argument, expected, got: logits.kind() });
    }
    if rows.is_empty() {
        return Ok(Sampled { tokens: Vec::new(), logprobs: Vec::new() });
    }
    let _guard = tch::no_grad_guard();
    let logits = logits.f_to_kind(Kind::Float).during("widening the logits")?;
    check_rows(&logits)?;
    Draw { logits: &logits, rows }.draw().during("sampling tokens")
}

fn check_rows(logits: &Tensor) -> Result<(), LossError> {
    // NaN wins a maximum in libtorch, so one number a row shows all three problems.
    let max = logits.f_amax([-1i64].as_slice(), false).and_then(|max| Vec::<f32>::try_from(&max));
    let max = max.during("taking the largest logits")?;
    let bad = max.iter().position(|max| !max.is_finite());
    bad.map_or(Ok(()), |row| Err(LossError::Logits { row, problem: LogitProblem::of_max(max[row]) }))
}

struct Draw<'a> {
    /// `[B, V]` f32, every row with a distribution.
    logits: &'a Tensor,
    rows: &'a [RowSampling],
}

impl Draw<'_> {
    fn draw(&self) -> Result<Sampled, TchError> {
        let max = self.logits.f_amax([-1i64].as_slice(), true)?;
        let scaled = self.logits.f_sub(&max)?.f_to_kind(Kind::Double)?;
        let scaled = scaled.f_div(&self.column(|row| row.scoring_temperature())?)?;
        let mut weights = scaled.f_exp()?;
        if self.rows.iter().any(RowSampling::truncates) {
            let lowest = self.lowest(&scaled, &weights)?;
            weights = weights.f_masked_fill(&scaled.f_lt_tensor(&lowest)?, 0.0)?;
        }
        let running = weights.f_cumsum(-1, Kind::Double)?;
        let total = running.f_narrow(-1, -1, 1)?.f_contiguous()?;
        // Just under 1, so that the product with the sum stays under the sum.
        let target = self.column(|row| row.uniform.min(1.0 - 1e-12))?.f_mul(&total)?;
        let drawn = target.f_searchsorted(&running, false, true, "right", None::<Tensor>)?;
        let tokens = drawn.f_where_self(&self.mask(|row| !row.greedy())?, &self.first_maximum(&max)?)?;
        let logprobs = scaled.f_gather(-1, &tokens, false)?.f_sub(&total.f_log()?)?.f_clamp_max(0.0)?;
        let logprobs = logprobs.f_to_kind(Kind::Float)?.f_view([-1])?;
        Ok(Sampled { tokens: Vec::try_from(&tokens.f_view([-1])?)?, logprobs: Vec::try_from(&logprobs)? })
    }

    /// A row's parameter as a column beside the logits, f64.
    fn column(&self, value: impl Fn(&RowSampling) -> f64) -> Result<Tensor, TchError> {
        let values: Vec<f64> = self.rows.iter().map(value).collect();
        Tensor::f_from_slice(&values)?.f_view([-1, 1])?.f_to_device(self.logits.device())
    }

    fn mask(&self, value: impl Fn(&RowSampling) -> bool) -> Result<Tensor, TchError> {
        self.column(|row| f64::from(value(row)))?.f_to_kind(Kind::Bool)
    }

    /// The first token with the largest logit: `argmax` promises no order among equals.
    fn first_maximum(&self, max: &Tensor) -> Result<Tensor, TchError> {
        let vocab = self.logits.size()[1];
        let places = Tensor::f_arange(vocab, (Kind::Int64, self.logits.device()))?.f_expand_as(self.logits)?;
        places.f_masked_fill(&self.logits.f_lt_tensor(max)?, vocab)?.f_amin([-1i64].as_slice(), true)
    }

    /// The smallest scaled logit that each row keeps, `[B, 1]`, in the order top-k, top-p of what is left, min-p.
    fn lowest(&self, scaled: &Tensor, weights: &Tensor) -> Result<Tensor, TchError> {
        let by_min_p = self.column(|row| row.min_p.filter(|_| row.truncates()).unwrap_or(0.0).ln())?;
        if self.rows.iter().all(|row| row.top_k.is_none() && row.top_p.is_none()) {
            return Ok(by_min_p);
        }
        let (sorted, order) = scaled.f_sort(-1, true)?;
        let by_top_k = sorted.f_gather(-1, &self.ranks()?, false)?;
        let ordered = weights.f_gather(-1, &order, false)?;
        let ordered = ordered.f_masked_fill(&sorted.f_lt_tensor(&by_top_k)?, 0.0)?;
        by_top_k.f_maximum(&self.nucleus(&sorted, &ordered)?)?.f_maximum(&by_min_p)
    }

    /// The rank of the last logit that top-k keeps, counted from 0.
    fn ranks(&self) -> Result<Tensor, TchError> {
        let vocab = self.logits.size()[1] as usize;
        let rank = |row: &RowSampling| row.top_k.filter(|_| row.truncates()).map_or(vocab, |k| k.min(vocab)) - 1;
        self.column(|row| rank(row) as f64)?.f_to_kind(Kind::Int64)
    }

    /// The smallest scaled logit of each row's nucleus, -inf for rows without top-p.
    fn nucleus(&self, sorted: &Tensor, ordered: &Tensor) -> Result<Tensor, TchError> {
        let top_p = self.column(|row| row.top_p.filter(|_| row.truncates()).unwrap_or(1.0))?;
        let running = ordered.f_cumsum(-1, Kind::Double)?;
        let target = running.f_narrow(-1, -1, 1)?.f_mul(&top_p)?;
        // A token belongs to the nucleus if those before it do not reach the mass.
        let inside = running.f_sub(ordered)?.f_lt_tensor(&target)?;
        let last = inside.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)?.f_sub_scalar(1)?;
        let lowest = sorted.f_gather(-1, &last.f_clamp_min(0)?, false)?;
        lowest.f_masked_fill(&top_p.f_ge(1.0)?, f64::NEG_INFINITY)
    }
}
