//! The output head fused with its log-probabilities: tokens' scores and the gradient by the hidden
//! states, in chunks.
//!
//! [`Head::scores`] gives log-probabilities and entropies, [`Head::backward`] takes a loss's
//! derivatives by them to the hidden states, and [`Head::step`] does both around an objective.

mod adapter;
mod chunks;
mod pass;
mod rows;
mod step;
mod tensor;
#[cfg(test)]
mod tests;

pub use adapter::{HeadAdapter, HeadAdapterGradients};
pub use step::{HeadStep, Step};

use crate::error::{LossError, Operation, check_field};
use pass::Arithmetic;
use posttrain_tensor::{TensorError, check_shape};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How the head is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadOptions {
    /// What the logits are divided by, finite and at least 1e-5: the temperature that the tokens
    /// were sampled at. 1 by default.
    pub temperature: f64,
    /// Tokens whose logits exist at a time, at least 1. Memory is `chunk_tokens · V` elements,
    /// whatever `N` is. 256 by default: at a vocabulary of 49,152 in bf16, 50 MB, and larger chunks
    /// were no faster.
    pub chunk_tokens: usize,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { temperature: 1.0, chunk_tokens: 256 }
    }
}

impl HeadOptions {
    /// Checks each field against its range.
    pub fn validate(&self) -> Result<(), LossError> {
        let warm = self.temperature.is_finite() && self.temperature >= 1e-5;
        check_field("temperature", self.temperature, warm, "a finite number from 1e-5")?;
        check_field("chunk_tokens", self.chunk_tokens as f64, self.chunk_tokens > 0, "at least 1")
    }
}

/// What the policy says of `N` rows, each with `K` targets. No gradient flows; [`Head::backward`]
/// forms it.
#[derive(Debug)]
#[non_exhaustive]
pub struct TokenScores {
    /// `[N · K]` f32, log-probability of each target in row order, nats.
    pub logprobs: Tensor,
    /// `[N]` f32, entropy of each row's distribution, nats.
    pub entropy: Tensor,
}

impl TokenScores {
    /// Log-probabilities and entropies as vectors on the host.
    ///
    /// # Errors
    /// [`LossError::Torch`] when the device fails.
    pub fn to_vecs(&self) -> Result<(Vec<f32>, Vec<f32>), LossError> {
        let host =
            |tensor: &Tensor| Vec::<f32>::try_from(tensor).during("copying the token scores");
        Ok((host(&self.logprobs)?, host(&self.entropy)?))
    }
}

/// The derivative of a loss by the scores of `N` rows, each with `K` targets.
#[derive(Debug)]
pub struct TokenGradients {
    /// `[N · K]` f32, by the log-probabilities in row order.
    pub logprobs: Tensor,
    /// `[N]` f32, by the rows' entropies; `None` for 0.
    pub entropy: Option<Tensor>,
}

/// The derivative of a loss by what enters the head.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeadGradients {
    /// `[N, H]`, by the hidden states and of their kind.
    pub hidden: Tensor,
    /// By the adapter's two matrices, where the head has one.
    pub adapter: Option<HeadAdapterGradients>,
}

/// A frozen output head, `logits = hidden · weightᵀ / temperature`, with or without a low-rank
/// adapter beside it.
///
/// Neither the `[N, V]` logits nor their gradient ever exist: both passes go chunk by chunk, and
/// the backward pass computes the logits again. On the CPU the softmax statistics and the logits'
/// gradient are a native vectorized pass over the chunk; elsewhere they are libtorch's.
///
/// Products are libtorch's, of the weight's kind, bf16 or f32. In bf16 the logits are rounded to
/// eight bits, as they are in the sampler's own forward pass (a logit of 20 is off by up to 0.06),
/// and so is their gradient; everything between is f32, sums over the vocabulary f64.
///
/// ```
/// use posttrain_loss::{Head, HeadOptions, head::TokenGradients, surrogate};
/// use tch::{Device, Kind, Tensor};
///
/// // Two tokens: logits (ln 3, 0) for the first state, (0, 0) for the second.
/// let weight = Tensor::from_slice(&[1f32, 0.0]).view([2, 1]);
/// let hidden = Tensor::from_slice(&[3f32.ln(), 0.0]).view([2, 1]).set_requires_grad(true);
/// let targets = Tensor::from_slice(&[0i64, 1]);
///
/// let head = Head::new(&weight, HeadOptions::default())?;
/// let scores = head.scores(&hidden, &targets)?;
/// let (logprobs, entropy) = scores.to_vecs()?;
/// assert!((logprobs[0] - 0.75f32.ln()).abs() < 1e-6);
/// assert!((entropy[1] - 2f32.ln()).abs() < 1e-6);
///
/// // The loss −Σ logprob has the gradient −(1 − p) · weight by a state whose target is token 0.
/// let gradients = TokenGradients { logprobs: Tensor::from_slice(&[-1f32, -1.0]), entropy: None };
/// let gradients = head.backward(&hidden, &targets, &scores, &gradients)?;
/// surrogate(&hidden, &gradients.hidden)?.backward();
/// assert!((hidden.grad().double_value(&[0, 0]) - -0.25).abs() < 1e-6);
/// assert!((hidden.grad().double_value(&[1, 0]) - 0.5).abs() < 1e-6);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    adapter: Option<HeadAdapter>,
    options: HeadOptions,
    arithmetic: Arithmetic,
}

impl Head {
    /// A head of `weight: [V, H]`, f32 or bf16. The weight is shared, not copied.
    ///
    /// # Errors
    /// [`LossError::Tensor`], [`LossError::Config`].
    pub fn new(weight: &Tensor, options: HeadOptions) -> Result<Self, LossError> {
        options.validate()?;
        check_shape("weight", weight, &[-1, -1])?;
        if !matches!(weight.kind(), Kind::Float | Kind::BFloat16) {
            return Err(TensorError::Kind {
                argument: "weight",
                expected: "Float or BFloat16",
                got: weight.kind(),
            }
            .into());
        }
        let arithmetic = Arithmetic::of(weight.device());
        Ok(Self { weight: tch::no_grad(|| weight.detach()), adapter: None, options, arithmetic })
    }

    /// The same head with a low-rank adapter beside it, whose gradients
    /// [`backward`](Self::backward) then forms too.
    ///
    /// # Errors
    /// [`LossError::Tensor`] when the adapter does not fit the weight.
    pub fn with_adapter(mut self, adapter: HeadAdapter) -> Result<Self, LossError> {
        adapter.check(&self.weight)?;
        self.adapter = Some(adapter);
        Ok(self)
    }

    /// Log-probabilities of the targets and entropy of each row.
    ///
    /// `hidden: [N, H]` of the weight's kind and device; `targets` i64, `[N]`, the token that
    /// followed each state, or `[N, K]`, the `K` tokens whose log-probabilities are wanted there. A
    /// row has one normalizer, whatever `K` is, and its hidden state is multiplied once.
    ///
    /// # Errors
    /// [`LossError::Tensor`] for arguments that do not fit; [`LossError::Target`] naming a target
    /// outside of the vocabulary; [`LossError::Logits`] naming a row with no distribution;
    /// [`LossError::Torch`] when memory runs out.
    pub fn scores(&self, hidden: &Tensor, targets: &Tensor) -> Result<TokenScores, LossError> {
        let _guard = tch::no_grad_guard();
        self.pass(hidden, targets)?.scores()
    }

    /// The derivative by the hidden states (and by the adapter) of a loss with the given derivative
    /// by the scores.
    ///
    /// With `p` a row's distribution, `H` its entropy and `g_k`, `g_H` the loss's derivatives by
    /// the log-probability of its `k`-th target and by its entropy, the derivative by logit `j` is
    /// `(Σ_k g_k · (1[j = target_k] − p_j) − g_H · p_j · (ln p_j + H)) / temperature`; a target
    /// that stands twice in a row counts twice. `scores` are those of the same hidden states. Rows
    /// whose `g` and `g_H` are 0 cost no softmax.
    ///
    /// # Errors
    /// As [`scores`](Self::scores); [`LossError::NonFinite`] naming a token with a gradient whose
    /// log-probability is not finite.
    pub fn backward(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        scores: &TokenScores,
        gradients: &TokenGradients,
    ) -> Result<HeadGradients, LossError> {
        let _guard = tch::no_grad_guard();
        self.pass(hidden, targets)?.backward(scores, gradients)
    }
}

/// A scalar whose gradient by `values` is `gradient`: `Σ (values · gradient)` in f32.
///
/// `values` of any shape (hidden states, log-probabilities, entropies) with its graph, `gradient`
/// of the same, taken as a constant. `backward()` of the result continues into the model what
/// [`Head::backward`] began; its value means nothing.
///
/// # Errors
/// [`LossError::Tensor`] when the two differ in shape; [`LossError::Torch`].
pub fn surrogate(values: &Tensor, gradient: &Tensor) -> Result<Tensor, LossError> {
    check_shape("gradient", gradient, &values.size())?;
    let product =
        || values.f_to_kind(Kind::Float)?.f_mul(&gradient.f_detach()?.f_to_kind(Kind::Float)?);
    product().and_then(|product| product.f_sum(Kind::Float)).during("summing the surrogate")
}
