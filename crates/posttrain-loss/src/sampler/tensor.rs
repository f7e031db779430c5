//! The sampler in libtorch's own operations, for devices other than the CPU.

use super::{RowDraw, RowSampling};
use crate::error::{LogitProblem, LossError, Operation};
use posttrain_tensor::{TensorError, to_device, to_host};
use tch::{Kind, TchError, Tensor};

/// The same function as the native kernel, for checked arguments.
pub(super) fn sample_each(
    logits: &Tensor,
    rows: &[RowSampling],
) -> Result<Vec<RowDraw>, LossError> {
    if !matches!(logits.kind(), Kind::Float | Kind::BFloat16) {
        return Err(TensorError::Kind {
            argument: "logits",
            expected: "Float or BFloat16",
            got: logits.kind(),
        }
        .into());
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }

    let _guard = tch::no_grad_guard();
    let logits = logits.f_to_kind(Kind::Float).during("widening the logits")?;
    let drawn = Draw::new(&logits, rows)?.draw().during("sampling tokens")?;
    let drawn: Vec<f64> = to_host(&drawn)?;
    // NaN wins a maximum in libtorch, so one number a row shows all that can be wrong with it.
    let of_row = |row: &[f64]| match row[2] as f32 {
        max if max.is_finite() => Ok((row[0] as i64, row[1] as f32)),
        max => Err(LogitProblem::of_max(max)),
    };
    Ok(drawn.chunks_exact(3).map(of_row).collect())
}

/// The rows' parameters cross to the device together, and so does what is drawn on the way back:
/// each crossing waits.
struct Draw<'a> {
    /// `[B, V]` f32.
    logits: &'a Tensor,
    rows: &'a [RowSampling],
    /// `[B, 6]` f64: a row's parameters, in the order of [`Parameter`].
    parameters: Tensor,
}

/// The columns of the parameters.
#[derive(Clone, Copy)]
enum Parameter {
    Temperature,
    Uniform,
    /// 1 for a row that is drawn, 0 for a greedy one.
    Drawn,
    /// The rank of the last logit that top-k keeps, counted from 0.
    LastRank,
    TopP,
    /// The smallest scaled logit that min-p keeps.
    LowestByMinP,
}

impl<'a> Draw<'a> {
    fn new(logits: &'a Tensor, rows: &'a [RowSampling]) -> Result<Self, LossError> {
        let vocab = logits.size()[1] as usize;
        let parameters: Vec<f64> = rows.iter().flat_map(|row| row_parameters(row, vocab)).collect();
        let parameters = to_device(&parameters, logits.device())?;
        let parameters = parameters.f_view([-1, 6]).during("laying out the rows' parameters")?;
        Ok(Self { logits, rows, parameters })
    }

    /// `[B, 3]` f64: the token, its log-probability, the row's largest logit.
    fn draw(&self) -> Result<Tensor, TchError> {
        let max = self.logits.f_amax([-1i64].as_slice(), true)?;
        let scaled = self.logits.f_sub(&max)?.f_to_kind(Kind::Double)?;
        let scaled = scaled.f_div(&self.column(Parameter::Temperature)?)?;
        let mut weights = scaled.f_exp()?;

        if self.rows.iter().any(RowSampling::truncates) {
            let lowest = self.lowest(&scaled, &weights)?;
            weights = weights.f_masked_fill(&scaled.f_lt_tensor(&lowest)?, 0.0)?;
        }

        let running = weights.f_cumsum(-1, Kind::Double)?;
        let total = running.f_narrow(-1, -1, 1)?.f_contiguous()?;
        let target = self.column(Parameter::Uniform)?.f_mul(&total)?;
        // A row without a distribution gives a place beyond the vocabulary, which no device may be
        // asked for.
        let drawn = target.f_searchsorted(&running, false, true, "right", None::<Tensor>)?;
        let drawn = drawn.f_clamp_max(self.logits.size()[1] - 1)?;

        let tokens = match self.rows.iter().any(RowSampling::greedy) {
            true => {
                let first = self.first_maximum(&max)?.f_clamp_max(self.logits.size()[1] - 1)?;
                drawn
                    .f_where_self(&self.column(Parameter::Drawn)?.f_to_kind(Kind::Bool)?, &first)?
            }
            false => drawn,
        };

        let logprobs =
            scaled.f_gather(-1, &tokens, false)?.f_sub(&total.f_log()?)?.f_clamp_max(0.0)?;
        let columns = [tokens.f_to_kind(Kind::Double)?, logprobs, max.f_to_kind(Kind::Double)?];
        Tensor::f_cat(&columns, 1)
    }

    /// A parameter as a column beside the logits, `[B, 1]` f64.
    fn column(&self, parameter: Parameter) -> Result<Tensor, TchError> {
        self.parameters.f_narrow(1, parameter as i64, 1)
    }

    /// The first token with the largest logit: `argmax` promises no order among equals.
    fn first_maximum(&self, max: &Tensor) -> Result<Tensor, TchError> {
        let vocab = self.logits.size()[1];
        let places = Tensor::f_arange(vocab, (Kind::Int64, self.logits.device()))?
            .f_expand_as(self.logits)?;
        places
            .f_masked_fill(&self.logits.f_lt_tensor(max)?, vocab)?
            .f_amin([-1i64].as_slice(), true)
    }

    /// The smallest scaled logit that each row keeps, `[B, 1]`, in the order top-k, top-p of what
    /// is left, min-p.
    fn lowest(&self, scaled: &Tensor, weights: &Tensor) -> Result<Tensor, TchError> {
        let by_min_p = self.column(Parameter::LowestByMinP)?;
        if self.rows.iter().all(|row| row.top_k.is_none() && row.top_p.is_none()) {
            return Ok(by_min_p);
        }

        let (sorted, order) = scaled.f_sort(-1, true)?;
        let by_top_k = sorted.f_gather(
            -1,
            &self.column(Parameter::LastRank)?.f_to_kind(Kind::Int64)?,
            false,
        )?;
        let ordered = weights.f_gather(-1, &order, false)?;
        let ordered = ordered.f_masked_fill(&sorted.f_lt_tensor(&by_top_k)?, 0.0)?;
        by_top_k.f_maximum(&self.nucleus(&sorted, &ordered)?)?.f_maximum(&by_min_p)
    }

    /// The smallest scaled logit of each row's nucleus, -inf for rows without top-p.
    fn nucleus(&self, sorted: &Tensor, ordered: &Tensor) -> Result<Tensor, TchError> {
        let top_p = self.column(Parameter::TopP)?;
        let running = ordered.f_cumsum(-1, Kind::Double)?;
        let target = running.f_narrow(-1, -1, 1)?.f_mul(&top_p)?;

        // A token belongs to the nucleus if those before it do not reach the mass.
        let inside = running.f_sub(ordered)?.f_lt_tensor(&target)?;
        let last =
            inside.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)?.f_sub_scalar(1)?;
        let lowest = sorted.f_gather(-1, &last.f_clamp_min(0)?, false)?;
        lowest.f_masked_fill(&top_p.f_ge(1.0)?, f64::NEG_INFINITY)
    }
}

/// A row's parameters, in the order of [`Parameter`].
fn row_parameters(row: &RowSampling, vocab: usize) -> [f64; 6] {
    let truncates = row.truncates();
    let last_rank = row.top_k.filter(|_| truncates).map_or(vocab, |k| k.min(vocab)) - 1;
    // Just under 1, so that the product with the sum stays under the sum.
    let uniform = row.uniform.min(1.0 - 1e-12);
    let min_p = row.min_p.filter(|_| truncates).unwrap_or(0.0).ln();
    let top_p = row.top_p.filter(|_| truncates).unwrap_or(1.0);

    [row.scoring_temperature(), uniform, f64::from(!row.greedy()), last_rank as f64, top_p, min_p]
}
