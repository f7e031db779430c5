//! Attention of a decoding step: one new token a row, over the row's prompt and completion.

use crate::key_values::{Beginning, Cached, Layer, TOKENS};
use crate::layout::{Layout, lying};
use crate::simd::{Kernel, LANES, dispatch, exp2, larger, mul_add};
use crate::{KernelError, KeyValues, SharedText};
use posttrain_tensor::{Element, TensorError, Values, ValuesMut, check_shape, values, values_mut};
use tch::Tensor;

/// How many heads of which width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, a multiple of `key_value`.
    pub query: usize,
    /// Key heads, and value heads; each serves `query / key_value` query heads.
    pub key_value: usize,
    /// Numbers a head, `d`, even.
    pub width: usize,
}

/// A row of a decoding step: what it attends to.
#[derive(Debug)]
pub struct StepRow<'a> {
    /// The tokens before the completion, which other rows may share.
    pub prompt: &'a SharedText,
    /// The completion's tokens so far; the new one is added.
    pub own: &'a mut KeyValues,
}

/// A decoding step's projections in one layer.
#[derive(Debug, Clone, Copy)]
pub struct AttentionStep<'a> {
    /// The layer.
    pub layer: usize,
    /// `[rows, (query + 2·key_value)·d]`: queries, keys and values side by side, not yet rotated;
    /// in either layout.
    pub qkv: &'a Tensor,
    /// `[rows, d/2]` f32, contiguous: the cosines of each row's position.
    pub cos: &'a Tensor,
    /// `[rows, d/2]` f32, contiguous: the sines.
    pub sin: &'a Tensor,
}

/// Turns queries and keys to their positions, adds the new keys and values to the rows, and
/// attends: `softmax(q·Kᵀ/√d)·V` for every query head over prompt and completion, the new token
/// included.
///
/// Gives `[rows, query·d]`, contiguous, in the kind of `qkv`. Scores and sums are f32. A key head
/// is read once for the query heads that share it.
///
/// # Errors
/// [`KernelError`] names the tensor that does not fit; nothing has been added then.
///
/// ```
/// use posttrain_kernel::{AttentionStep, Heads, KeyValues, SharedText, StepRow, attend_step};
/// use tch::{Device, Kind, Tensor};
///
/// let heads = Heads { query: 1, key_value: 1, width: 2 };
/// let prompt = SharedText::default();
/// let mut own = KeyValues::new(heads, 1, Kind::Float)?;
/// // A first token sees itself alone: its value comes out.
/// let qkv = Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0, 7.0, 8.0]).view([1, 6]);
/// let (cos, sin) = (Tensor::ones([1, 1], (Kind::Float, Device::Cpu)), Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)));
/// let step = AttentionStep { layer: 0, qkv: &qkv, cos: &cos, sin: &sin };
/// let out = attend_step(step, heads, &mut [StepRow { prompt: &prompt, own: &mut own }])?;
/// assert_eq!(Vec::<f32>::try_from(out.view([-1])).unwrap(), [7.0, 8.0]);
/// assert_eq!(own.tokens(), 1);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn attend_step(
    step: AttentionStep,
    heads: Heads,
    rows: &mut [StepRow],
) -> Result<Tensor, KernelError> {
    let count = rows.len() as i64;
    check_shape("qkv", step.qkv, &[count, heads.checked_features()?])?;
    for (argument, table) in [("cos", step.cos), ("sin", step.sin)] {
        check_shape(argument, table, &[count, heads.width as i64 / 2])?;
    }

    let (layout, qkv) = lying("qkv", step.qkv)?;
    let mut out =
        Tensor::f_empty([count, (heads.query * heads.width) as i64], (qkv.kind(), qkv.device()))?;

    let (Values::F32(cos), Values::F32(sin)) = (values("cos", step.cos)?, values("sin", step.sin)?)
    else {
        return Err(TensorError::Kind {
            argument: "cos",
            expected: "Float, as `sin`",
            got: step.cos.kind(),
        }
        .into());
    };

    let turn = Turn { cos, sin };
    match (values("qkv", &qkv)?, values_mut("out", &mut out)?) {
        (Values::F32(qkv), ValuesMut::F32(out)) => {
            let mut rows = texts(step.layer, heads, rows)?;
            run(layout, qkv, turn, heads, &mut rows, out);
        }
        (Values::Bf16(qkv), ValuesMut::Bf16(out)) => {
            let mut rows = texts(step.layer, heads, rows)?;
            run(layout, qkv, turn, heads, &mut rows, out);
        }
        _ => unreachable!("the result was made of the argument's kind"),
    }

    Ok(out)
}

impl Heads {
    /// Features of the fused projection.
    fn features(self) -> usize {
        (self.query + 2 * self.key_value) * self.width
    }
}

/// The rotary tables, `[rows][d/2]`.
#[derive(Clone, Copy)]
struct Turn<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
}

/// What a row attends to in one layer.
struct Text<'a, E> {
    prompt: Vec<Beginning<'a, E>>,
    own: &'a mut Layer<E>,
}

/// The rows' texts in a layer, once all are known to fit.
fn texts<'a, E: Cached>(
    layer: usize,
    heads: Heads,
    rows: &'a mut [StepRow],
) -> Result<Vec<Text<'a, E>>, TensorError> {
    let mut texts = Vec::with_capacity(rows.len());
    for StepRow { prompt, own } in rows {
        let mut beginnings = Vec::new();
        prompt.layer("prompt", layer, heads, &mut beginnings)?;
        texts.push(Text { prompt: beginnings, own: own.layer_of_mut("own", layer, heads)? });
    }
    Ok(texts)
}

fn run<E: Element>(
    layout: Layout,
    qkv: &[E],
    turn: Turn,
    heads: Heads,
    rows: &mut [Text<E>],
    out: &mut [E],
) {
    let features = heads.features();
    let half = heads.width / 2;
    let count = rows.len();
    let mut scratch = Scratch::new(heads, features);

    let outs = out.chunks_exact_mut(heads.query * heads.width);
    for (index, (row, out)) in rows.iter_mut().zip(outs).enumerate() {
        if index % TILE == 0 {
            gather(layout, qkv, index..count.min(index + TILE), count, features, &mut scratch.tile);
        }

        let Scratch { tile, scores, sums, new } = &mut scratch;
        let projected = &mut tile[index % TILE * features..][..features];
        let (cos, sin) = (&turn.cos[index * half..][..half], &turn.sin[index * half..][..half]);
        dispatch(RowStep { heads, projected, cos, sin, row, scores, sums, new, out });
    }
}

/// Rows that are brought together before they are worked on: a cache line of bf16 features, at
/// least.
const TILE: usize = 16;

/// Memory that is kept from row to row.
struct Scratch<E> {
    /// `[TILE][features]`.
    tile: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    new: Vec<E>,
}

impl<E: Element> Scratch<E> {
    fn new(heads: Heads, features: usize) -> Self {
        let new = vec![E::narrow(0.0); 2 * heads.key_value * heads.width];
        Self { tile: vec![0.0; TILE * features], scores: Vec::new(), sums: Vec::new(), new }
    }
}

/// Widens some rows of `qkv` into a tile, row by row.
fn gather<E: Element>(
    layout: Layout,
    qkv: &[E],
    rows: std::ops::Range<usize>,
    count: usize,
    features: usize,
    tile: &mut [f32],
) {
    match layout {
        Layout::Rows => {
            let from = &qkv[rows.start * features..rows.end * features];
            tile.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
        }
        Layout::Columns => {
            for (feature, column) in qkv.chunks_exact(count).enumerate() {
                for (row, value) in column[rows.clone()].iter().enumerate() {
                    tile[row * features + feature] = value.widen();
                }
            }
        }
    }
}

/// One row's step.
struct RowStep<'a, 'b, E> {
    heads: Heads,
    projected: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    row: &'a mut Text<'b, E>,
    scores: &'a mut Vec<f32>,
    sums: &'a mut Vec<f32>,
    new: &'a mut [E],
    out: &'a mut [E],
}

impl<E: Element> Kernel for RowStep<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Heads { query, key_value, width } = self.heads;
        for head in self.projected[..(query + key_value) * width].chunks_exact_mut(width) {
            turn(head, self.cos, self.sin);
        }

        let (queries, new) = self.projected.split_at(query * width);
        for (to, from) in self.new.iter_mut().zip(new) {
            *to = E::narrow(*from);
        }
        let (keys, values) = self.new.split_at(key_value * width);
        self.row.own.push(width, keys, values);

        let own = Beginning { layer: &*self.row.own, tokens: self.row.own.tokens };
        let texts = self.row.prompt.iter().copied().chain([own]);

        // Each part's scores begin at a multiple of the block, with room for its last block.
        let mut row = 0;
        for text in texts.clone() {
            row += text.tokens.next_multiple_of(TOKENS);
        }

        self.scores.clear();
        self.scores.resize(query * row, f32::NEG_INFINITY);
        let mut at = 0;
        for text in texts.clone() {
            scores::<E, FMA>(self.heads, text, queries, self.scores, row, at);
            at += text.tokens.next_multiple_of(TOKENS);
        }

        let slope = std::f32::consts::LOG2_E / (width as f32).sqrt();
        for scores in self.scores.chunks_exact_mut(row) {
            soften::<FMA>(scores, slope);
        }

        self.sums.clear();
        self.sums.resize(query * width, 0.0);
        let mut at = 0;
        for text in texts {
            weigh::<E, FMA>(self.heads, text, self.scores, row, at, self.sums);
            at += text.tokens.next_multiple_of(TOKENS);
        }

        for (out, sum) in self.out.iter_mut().zip(self.sums.iter()) {
            *out = E::narrow(*sum);
        }
    }
}

/// Turns dimension `i` with dimension `i + d/2`.
#[inline(always)]
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Query heads that share a key head, at most four of them: as many as there are registers for.
#[inline(always)]
fn shares(heads: Heads, kv_head: usize) -> impl Iterator<Item = (usize, usize)> {
    let group = heads.query / heads.key_value;
    (0..group).step_by(4).map(move |first| (kv_head * group + first, (group - first).min(4)))
}

/// `q·k` of every token of a part of a text, from `at` on in each query head's row of scores.
#[inline(always)]
fn scores<E: Element, const FMA: bool>(
    heads: Heads,
    text: Beginning<E>,
    queries: &[f32],
    scores: &mut [f32],
    row: usize,
    at: usize,
) {
    let Heads { key_value, width, .. } = heads;

    // Block by block and head by head is the order in which they lie in memory.
    let blocks = text.layer.keys.chunks_exact(key_value * width * TOKENS);
    for (index, block) in blocks.enumerate().take(text.tokens.div_ceil(TOKENS)) {
        let filled = (text.tokens - index * TOKENS).min(TOKENS);
        for (kv_head, keys) in block.chunks_exact(width * TOKENS).enumerate() {
            for (first, many) in shares(heads, kv_head) {
                let queries = &queries[first * width..(first + many) * width];
                let scores = &mut scores[first * row + at + index * TOKENS..];
                match many {
                    1 => block_scores::<E, 1, FMA>(keys, queries, scores, row, filled),
                    2 => block_scores::<E, 2, FMA>(keys, queries, scores, row, filled),
                    3 => block_scores::<E, 3, FMA>(keys, queries, scores, row, filled),
                    _ => block_scores::<E, 4, FMA>(keys, queries, scores, row, filled),
                }
            }
        }
    }
}

/// The scores of a block's first `filled` tokens, `keys: [d][token]`, for `G` query heads.
#[inline(always)]
fn block_scores<E: Element, const G: usize, const FMA: bool>(
    keys: &[E],
    queries: &[f32],
    scores: &mut [f32],
    row: usize,
    filled: usize,
) {
    let width = queries.len() / G;
    let queries: [&[f32]; G] =
        std::array::from_fn(|head| &queries[head * width..(head + 1) * width]);

    let mut sums = [[0f32; TOKENS]; G];
    for (dimension, keys) in keys.as_chunks::<TOKENS>().0.iter().enumerate().take(width) {
        let keys: [f32; TOKENS] = std::array::from_fn(|token| keys[token].widen());
        for head in 0..G {
            let query = queries[head][dimension];
            for token in 0..TOKENS {
                sums[head][token] = mul_add::<FMA>(query, keys[token], sums[head][token]);
            }
        }
    }

    for (head, sums) in sums.iter().enumerate() {
        scores[head * row..][..filled].copy_from_slice(&sums[..filled]);
    }
}

/// Adds `weight·value` of every token of a part of a text to `sums: [heads][d]`.
#[inline(always)]
fn weigh<E: Element, const FMA: bool>(
    heads: Heads,
    text: Beginning<E>,
    weights: &[f32],
    row: usize,
    at: usize,
    sums: &mut [f32],
) {
    let Heads { key_value, width, .. } = heads;
    let blocks = text.layer.values.chunks_exact(key_value * TOKENS * width);
    for (index, block) in blocks.enumerate().take(text.tokens.div_ceil(TOKENS)) {
        let filled = (text.tokens - index * TOKENS).min(TOKENS);
        for (kv_head, values) in block.chunks_exact(TOKENS * width).enumerate() {
            let values = &values[..filled * width];
            for (first, many) in shares(heads, kv_head) {
                let weights = &weights[first * row + at + index * TOKENS..];
                let sums = &mut sums[first * width..(first + many) * width];
                match many {
                    1 => block_sums::<E, 1, FMA>(values, weights, row, sums),
                    2 => block_sums::<E, 2, FMA>(values, weights, row, sums),
                    3 => block_sums::<E, 3, FMA>(values, weights, row, sums),
                    _ => block_sums::<E, 4, FMA>(values, weights, row, sums),
                }
            }
        }
    }
}

/// Adds the weighted values of a block, `values: [token][d]`, to the sums of `G` query heads.
#[inline(always)]
fn block_sums<E: Element, const G: usize, const FMA: bool>(
    values: &[E],
    weights: &[f32],
    row: usize,
    sums: &mut [f32],
) {
    let width = sums.len() / G;
    let weights: [&[f32]; G] = std::array::from_fn(|head| &weights[head * row..][..TOKENS]);
    let whole = width / LANES * LANES;

    for start in (0..whole).step_by(LANES) {
        let mut totals = [[0f32; LANES]; G];
        for (token, values) in values.chunks_exact(width).enumerate().take(TOKENS) {
            let values = &values[start..start + LANES];
            let values: [f32; LANES] = std::array::from_fn(|lane| values[lane].widen());
            for head in 0..G {
                let weight = weights[head][token];
                for lane in 0..LANES {
                    totals[head][lane] = mul_add::<FMA>(weight, values[lane], totals[head][lane]);
                }
            }
        }

        for (head, totals) in totals.iter().enumerate() {
            let sums = &mut sums[head * width + start..][..LANES];
            sums.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
        }
    }

    for (token, values) in values.chunks_exact(width).enumerate() {
        for (dimension, value) in values.iter().enumerate().skip(whole) {
            for (head, weights) in weights.iter().enumerate() {
                sums[head * width + dimension] += weights[token] * value.widen();
            }
        }
    }
}

/// The softmax of scores times `slope` (which holds log2 e) in place. A place without a token has a
/// score of -inf and gets (nearly) nothing, which no value is multiplied with.
#[inline(always)]
fn soften<const FMA: bool>(scores: &mut [f32], slope: f32) {
    let mut lanes = [f32::NEG_INFINITY; TOKENS];
    for chunk in scores.as_chunks::<TOKENS>().0 {
        for lane in 0..TOKENS {
            lanes[lane] = larger(chunk[lane], lanes[lane]);
        }
    }
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, larger);

    let mut sums = [0f32; TOKENS];
    for chunk in scores.as_chunks_mut::<TOKENS>().0 {
        for lane in 0..TOKENS {
            chunk[lane] = exp2::<FMA>((chunk[lane] - max) * slope);
            sums[lane] += chunk[lane];
        }
    }

    let scale = 1.0 / sums.iter().sum::<f32>();
    scores.iter_mut().for_each(|score| *score *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// The same by libtorch's operations: a row's queries over all its keys and values so far.
    fn reference(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads) -> Tensor {
        let group = (heads.query / heads.key_value) as i64;
        let (k, v) = (
            k.repeat_interleave_self_int(group, 1, None),
            v.repeat_interleave_self_int(group, 1, None),
        );
        let scores = (q.unsqueeze(0) * k).sum_dim_intlist(-1, false, Kind::Float)
            / (heads.width as f64).sqrt();
        (scores.softmax(0, Kind::Float).unsqueeze(-1) * v).sum_dim_intlist(0, false, Kind::Float)
    }

    fn rotated(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
        let halves = x.chunk(2, -1);
        Tensor::cat(&[&halves[0] * cos - &halves[1] * sin, &halves[1] * cos + &halves[0] * sin], -1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn steps_agree_with_attention_over_everything(
            group in 1usize..7, key_value in 1usize..3, half in 1usize..20, rows in 1usize..20, prompt in 0i64..200,
            cut in 0i64..150, unused in 0i64..90, steps in 1usize..20, seed in 0i64..1000, columns in proptest::bool::ANY,
        ) {
            tch::manual_seed(seed);
            let heads = Heads { query: group * key_value, key_value, width: 2 * half };
            let (kv, width) = (key_value as i64, 2 * half as i64);
            let shared = [Tensor::randn([prompt, kv, width], CPU), Tensor::randn([prompt, kv, width], CPU)];
            // The prompt in two parts, of which the first is the beginning of a longer text.
            let cut = cut.min(prompt);
            let part = |from: i64, tokens: i64| {
                let mut part = KeyValues::new(heads, 1, Kind::Float).unwrap();
                part.extend(0, &shared[0].narrow(0, from, tokens), &shared[1].narrow(0, from, tokens)).unwrap();
                part
            };
            let longer = SharedText::default().followed_by(part(0, prompt.min(cut + unused))).unwrap();
            let cache = longer.beginning(cut as usize).followed_by(part(cut, prompt - cut)).unwrap();
            prop_assert_eq!(cache.tokens(), prompt as usize);
            let mut own: Vec<_> = (0..rows).map(|_| KeyValues::new(heads, 1, Kind::Float).unwrap()).collect();
            let mut seen: Vec<[Tensor; 2]> = (0..rows).map(|_| shared.each_ref().map(Tensor::shallow_clone)).collect();
            for _ in 0..steps {
                let qkv = Tensor::randn([rows as i64, heads.features() as i64], CPU);
                let angles = Tensor::randn([rows as i64, half as i64], CPU);
                let (cos, sin) = (angles.cos(), angles.sin());
                let laid = if columns { qkv.tr().contiguous().tr() } else { qkv.shallow_clone() };
                let step = AttentionStep { layer: 0, qkv: &laid, cos: &cos, sin: &sin };
                let mut pairs: Vec<_> = own.iter_mut().map(|own| StepRow { prompt: &cache, own }).collect();
                let out = attend_step(step, heads, &mut pairs).unwrap();
                for (row, seen) in seen.iter_mut().enumerate() {
                    let parts = qkv.get(row as i64).view([-1, width]).split_with_sizes([group as i64 * kv, kv, kv], 0);
                    let (cos, sin) = (cos.get(row as i64), sin.get(row as i64));
                    let new = [rotated(&parts[1], &cos, &sin), parts[2].shallow_clone()];
                    for (seen, new) in seen.iter_mut().zip(new) {
                        *seen = Tensor::cat(&[&*seen, &new.unsqueeze(0)], 0);
                    }
                    let expected = reference(&rotated(&parts[0], &cos, &sin), &seen[0], &seen[1], heads);
                    let off = (out.get(row as i64).view([-1, width]) - expected).abs().max().double_value(&[]);
                    prop_assert!(off < 1e-4, "off by {off}");
                }
            }
        }
    }

    #[test]
    fn bf16_is_f32_to_its_precision() {
        let heads = Heads { query: 6, key_value: 2, width: 32 };
        let prompt = [Tensor::randn([21, 2, 32], CPU), Tensor::randn([21, 2, 32], CPU)];
        let qkv = Tensor::randn([5, 320], CPU);
        let outputs = [Kind::Float, Kind::BFloat16].map(|kind| {
            let qkv = qkv.to_kind(kind);
            let mut cache = KeyValues::new(heads, 1, kind).unwrap();
            cache.extend(0, &prompt[0].to_kind(kind), &prompt[1].to_kind(kind)).unwrap();
            let cache = SharedText::default().followed_by(cache).unwrap();
            let mut own: Vec<_> = (0..5).map(|_| KeyValues::new(heads, 1, kind).unwrap()).collect();
            let mut rows: Vec<_> =
                own.iter_mut().map(|own| StepRow { prompt: &cache, own }).collect();
            let (cos, sin) = (Tensor::ones([5, 16], CPU), Tensor::zeros([5, 16], CPU));
            let step = AttentionStep { layer: 0, qkv: &qkv, cos: &cos, sin: &sin };
            attend_step(step, heads, &mut rows).unwrap().to_kind(Kind::Float)
        });
        let off = (&outputs[0] - &outputs[1]).abs().max().double_value(&[]);
        assert!(off > 0.0 && off < 0.05, "off by {off}");
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_added() {
        let heads = Heads { query: 2, key_value: 1, width: 4 };
        let prompt = KeyValues::new(heads, 1, Kind::Float).unwrap();
        let prompt = SharedText::default().followed_by(prompt).unwrap();
        let mut own = KeyValues::new(heads, 1, Kind::Float).unwrap();
        let (cos, sin) = (Tensor::ones([1, 2], CPU), Tensor::zeros([1, 2], CPU));
        let mut refused = |qkv: &Tensor, layer| {
            let step = AttentionStep { layer, qkv, cos: &cos, sin: &sin };
            attend_step(step, heads, &mut [StepRow { prompt: &prompt, own: &mut own }])
                .unwrap_err()
                .to_string()
        };
        let qkv = Tensor::zeros([1, 16], CPU);
        assert!(refused(&Tensor::zeros([1, 15], CPU), 0).starts_with("`qkv` has shape [1, 15]"));
        assert!(refused(&qkv.to_kind(Kind::Double), 0).starts_with("`qkv` is of kind Double"));
        assert!(refused(&qkv.to_kind(Kind::BFloat16), 0).starts_with("`prompt`"));
        assert!(refused(&qkv, 1).starts_with("`prompt`"));
        assert_eq!(own.tokens(), 0);
    }

    #[test]
    fn heads_that_cannot_be_shared_out_are_refused_and_not_attended_with() {
        let ones = Tensor::ones([1, 2], CPU);
        for heads in [
            Heads { query: 0, key_value: 1, width: 4 },
            Heads { query: 1, key_value: 0, width: 4 },
            Heads { query: 3, key_value: 2, width: 4 },
            Heads { query: 1, key_value: 1, width: 0 },
        ] {
            let qkv = Tensor::zeros([1, (heads.query + 2 * heads.key_value) as i64 * 4], CPU);
            let step = AttentionStep { layer: 0, qkv: &qkv, cos: &ones, sin: &ones };
            let error = attend_step(step, heads, &mut []).unwrap_err().to_string();
            assert!(error.starts_with("`heads` has shape"), "{error}");

            let norms = crate::HeadNorms { heads, query: &ones, key: &ones, eps: 0.0 };
            let error = norms.forward(&qkv).unwrap_err().to_string();
            assert!(error.starts_with("`heads` has shape"), "{error}");
        }
    }

    #[test]
    fn rows_of_other_heads_are_told_by_their_own() {
        let (heads, other) = (
            Heads { query: 2, key_value: 1, width: 4 },
            Heads { query: 2, key_value: 2, width: 6 },
        );
        let prompt = KeyValues::new(heads, 1, Kind::Float).unwrap();
        let prompt = SharedText::default().followed_by(prompt).unwrap();
        let mut own = KeyValues::new(other, 1, Kind::Float).unwrap();
        let (qkv, table) = (Tensor::zeros([1, 16], CPU), Tensor::ones([1, 2], CPU));
        let step = AttentionStep { layer: 0, qkv: &qkv, cos: &table, sin: &table };
        let rows = &mut [StepRow { prompt: &prompt, own: &mut own }];
        let error = attend_step(step, heads, rows).unwrap_err().to_string();
        assert!(error.starts_with("`rows` has shape [2, 6], expected [1, 4]"), "{error}");
    }
}
