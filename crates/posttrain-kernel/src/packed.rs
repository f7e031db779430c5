//! Attention of whole texts laid end to end, a group's prompt standing once: forward and backward.

use crate::attention::Heads;
use crate::key_values::{Beginning, Cached};
use crate::packed_attention::{self, Forward};
use crate::packed_attention_backward::{self, Backward};
use crate::packed_rows::Projections;
use crate::simd::dispatch;
use crate::{KernelError, SharedText};
use posttrain_tensor::{
    Element, TensorError, Values, ValuesMut, check_shape, floats, floats_mut, values, values_mut,
};
use tch::{Kind, Tensor};

/// A prompt's tokens and those of its completions, which lie after it one behind another. Any of
/// them may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedText {
    /// Tokens of the prompt, causal in themselves.
    pub prompt: usize,
    /// Tokens of each completion, which sees the prompt and itself up to each token.
    pub completions: Vec<usize>,
}

/// A packing's projections in one layer.
#[derive(Debug, Clone, Copy)]
pub struct PackedStep<'a> {
    /// How many heads of which width.
    pub heads: Heads,
    /// `[N, (query + 2·key_value)·d]`, f32 or bf16, contiguous: queries, keys and values side by
    /// side, not yet rotated.
    pub qkv: &'a Tensor,
    /// `[N, d/2]` f32, contiguous: the cosines of each row's position.
    pub cos: &'a Tensor,
    /// `[N, d/2]` f32, contiguous: the sines.
    pub sin: &'a Tensor,
    /// The texts, `N` tokens together.
    pub texts: &'a [PackedText],
}

/// What attention over a packing gives.
#[derive(Debug)]
pub struct PackedOutput {
    /// `[N, query·d]`, contiguous, in the kind of the projections.
    pub out: Tensor,
    /// `[N, query]` f32, nats: the logarithm of each query's sum of exponentials, for the backward
    /// pass.
    pub log_sums: Tensor,
}

/// Turns queries and keys to their positions and attends: `softmax(q·Kᵀ/√d)·V` for every query
/// head, each token over its text up to itself.
///
/// A completion reads its prompt's keys and values where they stand. Scores and sums are f32.
/// Nothing is kept but the output and `N·query` logarithms; working memory is linear in the longest
/// text. The thread of the caller does it all.
///
/// # Errors
/// [`KernelError`] names the argument that does not fit.
///
/// ```
/// use posttrain_kernel::{Heads, PackedStep, PackedText, attend_packed};
/// use tch::{Device, Kind, Tensor};
///
/// // Two texts that begin with the same token: all scores are 0, so values are averaged over what is seen.
/// let texts = [PackedText { prompt: 1, completions: vec![1, 1] }];
/// let qkv = Tensor::from_slice(&[0f32, 0., 0., 0., 2., 4., 0., 0., 0., 0., 4., 0., 0., 0., 0., 0., 6., 2.]).view([3, 6]);
/// let table = Tensor::ones([3, 1], (Kind::Float, Device::Cpu));
/// let heads = Heads { query: 1, key_value: 1, width: 2 };
/// let step = PackedStep { heads, qkv: &qkv, cos: &table, sin: &table.zeros_like(), texts: &texts };
/// let attended = attend_packed(&step)?;
/// assert_eq!(Vec::<f32>::try_from(attended.out.view([-1])).unwrap(), [2.0, 4.0, 3.0, 2.0, 4.0, 3.0]);
/// assert!((attended.log_sums.double_value(&[2, 0]) - 2f64.ln()).abs() < 1e-6);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn attend_packed(step: &PackedStep) -> Result<PackedOutput, KernelError> {
    attend(step, 0, &[])
}

/// Does what [`attend_packed`] does for texts that begin with what was read before: `before[i]` is
/// seen by every token of `step.texts[i]`, in layer `layer`. Positions go on from it.
///
/// # Errors
/// [`KernelError`] names the argument that does not fit.
///
/// ```
/// use posttrain_kernel::{Heads, KeyValues, PackedStep, PackedText, SharedText, attend_packed_behind};
/// use tch::{Device, Kind, Tensor};
///
/// let heads = Heads { query: 1, key_value: 1, width: 2 };
/// let mut read = KeyValues::new(heads, 1, Kind::Float)?;
/// let zeros = Tensor::zeros([1, 1, 2], (Kind::Float, Device::Cpu));
/// read.extend(0, &zeros, &(&zeros + 3.0))?;
/// let before = SharedText::default().followed_by(read)?;
///
/// // A token behind one whose value is 3: with equal scores their mean.
/// let qkv = Tensor::from_slice(&[0f32, 0., 0., 0., 5., 7.]).view([1, 6]);
/// let table = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
/// let texts = [PackedText { prompt: 1, completions: vec![] }];
/// let step = PackedStep { heads, qkv: &qkv, cos: &table, sin: &table.zeros_like(), texts: &texts };
/// let attended = attend_packed_behind(&step, 0, &[&before])?;
/// assert_eq!(Vec::<f32>::try_from(attended.out.view([-1])).unwrap(), [4.0, 5.0]);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn attend_packed_behind(
    step: &PackedStep,
    layer: usize,
    before: &[&SharedText],
) -> Result<PackedOutput, KernelError> {
    if before.len() != step.texts.len() {
        return Err(TensorError::Shape {
            argument: "before",
            expected: vec![step.texts.len() as i64],
            got: vec![before.len() as i64],
        }
        .into());
    }
    attend(step, layer, before)
}

/// Attention behind `before`, of which there are none or as many as texts.
fn attend(
    step: &PackedStep,
    layer: usize,
    before: &[&SharedText],
) -> Result<PackedOutput, KernelError> {
    let sizes = step.check()?;

    let mut out = Tensor::f_empty(sizes.out(), (step.qkv.kind(), step.qkv.device()))?;
    let mut log_sums = Tensor::f_empty(sizes.log_sums(), (Kind::Float, step.qkv.device()))?;
    let sums = floats_mut("log_sums", &mut log_sums)?;

    match (values("qkv", step.qkv)?, values_mut("out", &mut out)?) {
        (Values::F32(qkv), ValuesMut::F32(out)) => {
            step.forward(qkv, &step.read(layer, before)?, out, sums)?;
        }
        (Values::Bf16(qkv), ValuesMut::Bf16(out)) => {
            step.forward(qkv, &step.read(layer, before)?, out, sums)?;
        }
        _ => unreachable!("the result was made of the argument's kind"),
    }

    Ok(PackedOutput { out, log_sums })
}

/// The gradient by `qkv`, in its shape and kind, from `gradient: [N, query·d]`, that by the output:
/// with weights `P` and `D = Σ out∘gradient`, `dV = Pᵀ·gradient`, `dS = P∘(gradient·Vᵀ − D)/√d`,
/// `dQ = dS·K`, `dK = dSᵀ·Q`, rotated back.
///
/// `attended` is what [`attend_packed`] gave for the same step. Weights are formed anew. The
/// gradients of all completions meet in the prompt's keys and values, in f32.
///
/// # Errors
/// [`KernelError`] names the argument that does not fit.
///
/// ```
/// use posttrain_kernel::{Heads, PackedStep, PackedText, attend_packed, attend_packed_backward};
/// use tch::{Device, Kind, Tensor};
///
/// let texts = [PackedText { prompt: 2, completions: vec![] }];
/// let qkv = Tensor::zeros([2, 6], (Kind::Float, Device::Cpu));
/// let table = Tensor::ones([2, 1], (Kind::Float, Device::Cpu));
/// let heads = Heads { query: 1, key_value: 1, width: 2 };
/// let step = PackedStep { heads, qkv: &qkv, cos: &table, sin: &table.zeros_like(), texts: &texts };
/// let attended = attend_packed(&step)?;
/// let by_qkv = attend_packed_backward(&step, &attended, &Tensor::ones([2, 2], (Kind::Float, Device::Cpu)))?;
/// // The first value has a share of 1 in its own output and of 1/2 in the next.
/// assert_eq!(by_qkv.double_value(&[0, 4]), 1.5);
/// assert_eq!(by_qkv.double_value(&[1, 4]), 0.5);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn attend_packed_backward(
    step: &PackedStep,
    attended: &PackedOutput,
    gradient: &Tensor,
) -> Result<Tensor, KernelError> {
    let sizes = step.check()?;
    check_shape("out", &attended.out, &sizes.out())?;
    check_shape("log_sums", &attended.log_sums, &sizes.log_sums())?;
    check_shape("gradient", gradient, &sizes.out())?;

    let log_sums = floats("log_sums", &attended.log_sums)?;
    let mut by_qkv = Tensor::f_empty(step.qkv.size(), (step.qkv.kind(), step.qkv.device()))?;
    let qkv = values("qkv", step.qkv)?;
    let out = values("out", &attended.out)?;
    match (qkv, out, values("gradient", gradient)?, values_mut("by_qkv", &mut by_qkv)?) {
        (Values::F32(qkv), Values::F32(out), Values::F32(gradient), ValuesMut::F32(by_qkv)) => {
            step.backward(qkv, &Outcome { out, gradient, log_sums }, by_qkv)?;
        }
        (Values::Bf16(qkv), Values::Bf16(out), Values::Bf16(gradient), ValuesMut::Bf16(by_qkv)) => {
            step.backward(qkv, &Outcome { out, gradient, log_sums }, by_qkv)?;
        }
        _ => {
            let (argument, got) = if gradient.kind() == step.qkv.kind() {
                ("out", &attended.out)
            } else {
                ("gradient", gradient)
            };
            return Err(
                TensorError::Kind { argument, expected: "that of `qkv`", got: got.kind() }.into()
            );
        }
    }

    Ok(by_qkv)
}

impl PackedText {
    /// Tokens of prompt and completions, as many as can be counted.
    pub(crate) fn tokens(&self) -> usize {
        self.completions.iter().fold(self.prompt, |sum, &tokens| sum.saturating_add(tokens))
    }

    /// Tokens of the prompt and its longest completion.
    fn longest(&self) -> usize {
        self.prompt + self.completions.iter().max().copied().unwrap_or(0)
    }
}

/// What a step's tensors must measure.
struct Sizes {
    rows: i64,
    query: i64,
    width: i64,
}

impl Sizes {
    fn out(&self) -> [i64; 2] {
        [self.rows, self.query * self.width]
    }

    fn log_sums(&self) -> [i64; 2] {
        [self.rows, self.query]
    }
}

/// What came of the forward pass.
struct Outcome<'a, E> {
    out: &'a [E],
    gradient: &'a [E],
    log_sums: &'a [f32],
}

impl PackedStep<'_> {
    fn check(&self) -> Result<Sizes, KernelError> {
        let features = self.heads.checked_features()?;

        // Places in a text are counted in 32 bits; no tensor has as many rows as texts that do not
        // fit.
        let tokens = self.texts.iter().fold(0usize, |sum, text| sum.saturating_add(text.tokens()));
        let rows = tokens.min(u32::MAX as usize) as i64;

        let half = self.heads.width as i64 / 2;
        for (argument, tensor, width) in
            [("qkv", self.qkv, features), ("cos", self.cos, half), ("sin", self.sin, half)]
        {
            check_shape(argument, tensor, &[rows, width])?;
        }

        Ok(Sizes { rows, query: self.heads.query as i64, width: self.heads.width as i64 })
    }

    /// The layer's keys and values of what was read before each text.
    fn read<'a, E: Cached>(
        &self,
        layer: usize,
        before: &[&'a SharedText],
    ) -> Result<Vec<Vec<Beginning<'a, E>>>, TensorError> {
        let mut read = Vec::with_capacity(before.len());
        for text in before {
            let mut beginnings = Vec::new();
            text.layer("before", layer, self.heads, &mut beginnings)?;
            read.push(beginnings);
        }
        Ok(read)
    }

    fn forward<E: Element>(
        &self,
        qkv: &[E],
        before: &[Vec<Beginning<E>>],
        out: &mut [E],
        log_sums: &mut [f32],
    ) -> Result<(), KernelError> {
        let tokens = |text: &Vec<Beginning<E>>| text.iter().map(|part| part.tokens).sum::<usize>();
        let read = before.iter().map(tokens).max().unwrap_or(0);

        let scratch = &mut packed_attention::Scratch::new(read + self.longest(), self.heads.width);
        let input = self.projections(qkv)?;
        dispatch(Forward { input, texts: self.texts, before, out, log_sums, scratch });
        Ok(())
    }

    fn backward<E: Element>(
        &self,
        qkv: &[E],
        outcome: &Outcome<E>,
        by_qkv: &mut [E],
    ) -> Result<(), KernelError> {
        let &Outcome { out, gradient, log_sums } = outcome;
        let scratch =
            &mut packed_attention_backward::Scratch::new(self.longest(), self.heads.width);
        let input = self.projections(qkv)?;
        dispatch(Backward { input, texts: self.texts, out, gradient, log_sums, by_qkv, scratch });
        Ok(())
    }

    fn projections<'a, E>(&'a self, qkv: &'a [E]) -> Result<Projections<'a, E>, KernelError> {
        Ok(Projections {
            qkv,
            cos: floats("cos", self.cos)?,
            sin: floats("sin", self.sin)?,
            heads: self.heads,
        })
    }

    fn longest(&self) -> usize {
        self.texts.iter().map(PackedText::longest).max().unwrap_or(0)
    }
}

impl Heads {
    /// Features of the fused projection, for heads that can be shared out.
    pub(crate) fn checked_features(self) -> Result<i64, KernelError> {
        let Self { query, key_value, width } = self;
        let features =
            key_value.checked_mul(2).and_then(|heads| heads.checked_add(query)?.checked_mul(width));
        let features = features.and_then(|features| i64::try_from(features).ok());

        let shared = query > 0 && key_value > 0 && query % key_value == 0;
        let fits = features.filter(|_| shared && width > 0 && width % 2 == 0);

        let size = |n: Option<usize>| n.and_then(|n| i64::try_from(n).ok()).unwrap_or(i64::MAX);
        let fits = fits.ok_or_else(|| TensorError::Shape {
            argument: "heads",
            expected: vec![
                size(query.max(1).checked_next_multiple_of(key_value.max(1))),
                size(Some(key_value.max(1))),
                size(width.max(1).checked_next_multiple_of(2)),
            ],
            got: [query, key_value, width].map(|n| size(Some(n))).to_vec(),
        })?;
        Ok(fits)
    }
}
