//! The softmax arithmetic over a chunk of logits in libtorch's own operations, for devices other
//! than the CPU.

use super::{TokenGradients, TokenScores};
use tch::{Kind, TchError, Tensor};

/// The scores of a chunk: `logits: [C, V]`, `targets: [C, K]` within the vocabulary.
pub(super) fn scores(
    logits: &Tensor,
    targets: &Tensor,
    temperature: f64,
) -> Result<TokenScores, TchError> {
    let all = log_softmax(logits, temperature)?;
    let logprobs = all.f_gather(-1, targets, false)?.f_view([-1])?;
    let entropy =
        information(&all)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?.f_neg()?;
    Ok(TokenScores { logprobs, entropy })
}

/// The loss's derivative by the logits of a chunk, in their kind.
pub(super) fn gradients(
    logits: &Tensor,
    targets: &Tensor,
    temperature: f64,
    scores: &TokenScores,
    gradients: &TokenGradients,
) -> Result<Tensor, TchError> {
    let all = log_softmax(logits, temperature)?;
    let p = all.f_exp()?;
    let by_logprob = gradients.logprobs.f_view_as(targets)?;
    let by_all = by_logprob.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?;

    let mut slopes = p.f_mul(&by_all.f_neg()?)?;
    let _ = slopes.f_scatter_add_(-1, targets, &by_logprob)?;

    if let Some(by_entropy) = &gradients.entropy {
        let inner = information(&all)?.f_add(&p.f_mul(&scores.entropy.f_unsqueeze(-1)?)?)?;
        slopes = slopes.f_sub(&inner.f_mul(&by_entropy.f_unsqueeze(-1)?)?)?;
    }

    slopes.f_div_scalar(temperature)?.f_to_kind(logits.kind())
}

fn log_softmax(logits: &Tensor, temperature: f64) -> Result<Tensor, TchError> {
    logits.f_to_kind(Kind::Float)?.f_div_scalar(temperature)?.f_log_softmax(-1, Kind::Float)
}

/// `p · ln p`, 0 where p is 0.
fn information(logprobs: &Tensor) -> Result<Tensor, TchError> {
    logprobs.f_exp()?.f_mul(&logprobs.f_clamp_min(-1e4)?)
}
