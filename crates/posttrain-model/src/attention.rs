//! Where keys and values come from: the seam between the decoder and what trains or samples with
//! it.

use crate::attention_graph::NativeAttention;
use crate::block::native;
use crate::packing::{Packing, Span};
use crate::rope::Rotation;
use crate::{Decoder, ModelError, TextCache};
use posttrain_kernel::{Heads, PackedStep, PackedText, SharedText, attend_packed_behind};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Attention over whatever keys and values the caller keeps.
///
/// The decoder calls it once a layer.
pub trait Attend {
    /// The attended values `[N, heads·d]` of layer `layer`, scaled by `1/√d`.
    ///
    /// # Errors
    /// Whatever the implementation's memory or device does.
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError>;
}

/// Queries, keys and values of a layer as its projections give them.
#[derive(Debug)]
pub struct Projected<'a> {
    /// `[N, (heads + 2·kv_heads)·d]`: side by side, not yet rotated to their positions.
    pub qkv: Tensor,
    /// How many heads of which width.
    pub heads: Heads,
    /// The positions.
    pub rotation: &'a Rotation,
}

/// Queries, keys and values apart, queries and keys rotated.
#[derive(Debug)]
pub struct Rotated {
    /// `[N, heads, d]`.
    pub q: Tensor,
    /// `[N, kv_heads, d]`.
    pub k: Tensor,
    /// `[N, kv_heads, d]`.
    pub v: Tensor,
}

impl Projected<'_> {
    /// Turns queries and keys to their positions. Gradients flow.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the shape does not fit or memory fails.
    pub fn rotated(&self) -> Result<Rotated, ModelError> {
        let (query, key_value) = (self.heads.query as i64, self.heads.key_value as i64);
        let qkv = self.qkv.f_reshape([-1, query + 2 * key_value, self.heads.width as i64])?;

        // Queries and keys lie side by side and turn together. Splitting, unlike narrowing, has a
        // backward pass that forms no zeros.
        let parts = qkv.f_split_with_sizes([query + key_value, key_value], 1)?;
        let rotated = self.rotation.apply(&parts[0])?.f_split_with_sizes([query, key_value], 1)?;

        Ok(Rotated {
            q: rotated[0].shallow_clone(),
            k: rotated[1].shallow_clone(),
            v: parts[1].shallow_clone(),
        })
    }
}

/// Attention within a [`Packing`]: prompts causal in themselves, each completion over its prompt
/// and itself.
///
/// A group's prompt is computed once, forward and backward; gradients of all completions meet in
/// its keys and values. With [`PackedAttention::keeping`] the keys and values of every layer stay,
/// for a cache to be filled from.
///
/// On the CPU a native kernel reads the prompt where it stands, and its backward pass is written
/// out ([`posttrain_kernel::attend_packed`], [`posttrain_kernel::attend_packed_backward`]).
/// Elsewhere, and under autograd, libtorch attends group by group.
///
/// With [`PackedAttention::behind`] sequences go on from what was read before; they have no
/// backward pass then.
#[derive(Debug)]
pub struct PackedAttention {
    texts: Arc<[PackedText]>,
    spans: Vec<Span>,
    /// What was read before each sequence; none at all where nothing was.
    before: Vec<TextCache>,
    /// The spans as libtorch takes them, once it has been needed.
    groups: Option<Vec<Group>>,
    kept: Option<Vec<(Tensor, Tensor)>>,
}

/// One sequence of the packing: how many rows its prompt has, and its completions, if there are
/// any.
#[derive(Debug)]
struct Group {
    prompt: i64,
    /// `[P, read + P]` for a prompt behind what was read before.
    mask: Option<Tensor>,
    completions: Option<Completions>,
}

#[derive(Debug)]
struct Completions {
    /// `[G·C]`: the row, counted from the group's first completion, of every place in the padded
    /// block; a place without a token repeats the first row.
    padded_rows: Tensor,
    /// Rows of all completions together.
    rows: i64,
    /// `[tokens]`: the places of the padded block that hold tokens, in packed order.
    places: Tensor,
    /// `[C, P + C]` in the kind of the attention: 0 where a place may look, −∞ where it may not.
    mask: Tensor,
    count: i64,
    longest: i64,
}

impl PackedAttention {
    /// Attention for one forward pass over `packing`.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if a text is longer than the model's context; [`ModelError::Torch`]
    /// when memory fails.
    pub fn new(packing: &Packing, model: &Decoder) -> Result<Self, ModelError> {
        let longest = packing.positions().iter().max().map_or(0, |p| p + 1);
        let context = model.config().max_position_embeddings;
        if longest > context {
            let expected = format!("texts of at most {context} tokens (the model's context)");
            return Err(ModelError::Argument {
                argument: "packing",
                expected,
                got: format!("{longest} tokens"),
            });
        }

        let spans = packing.spans().to_vec();
        Ok(Self {
            texts: spans.iter().map(Span::text).collect(),
            spans,
            before: Vec::new(),
            groups: None,
            kept: None,
        })
    }

    /// The same behind what was read before: every sequence of the packing sees its own of `before`.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if there are not as many as sequences.
    pub fn behind(mut self, before: Vec<TextCache>) -> Result<Self, ModelError> {
        if before.len() != self.spans.len() {
            return Err(ModelError::Argument {
                argument: "before",
                expected: format!("{} texts, one a sequence", self.spans.len()),
                got: before.len().to_string(),
            });
        }
        self.before = before;
        Ok(self)
    }

    /// The same, keeping keys and values.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// Keys and values of every layer so far, `[N, kv_heads, d]` each, if they were kept.
    #[must_use]
    pub fn into_kept(self) -> Vec<(Tensor, Tensor)> {
        self.kept.unwrap_or_default()
    }
}

impl Attend for PackedAttention {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let native = native(&projected.qkv);
        let rotated = if native && self.kept.is_none() { None } else { Some(projected.rotated()?) };
        if let (Some(kept), Some(rotated)) = (&mut self.kept, &rotated) {
            kept.push((rotated.k.shallow_clone(), rotated.v.shallow_clone()));
        }

        match rotated {
            Some(rotated) if !native => self.attend_rotated(layer, &rotated),
            _ if !self.before.is_empty() => self.attend_behind(layer, projected),
            _ => Ok(NativeAttention::forward(projected, self.texts.clone())?.attended.out),
        }
    }
}

impl PackedAttention {
    /// The texts that attend, for a pass that is to be walked back.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if they go on from what was read before: what reaches it would be
    /// lost.
    pub(crate) fn texts(&self) -> Result<Arc<[PackedText]>, ModelError> {
        if !self.before.is_empty() {
            return Err(ModelError::Argument {
                argument: "attention",
                expected: "whole texts, for a backward pass".into(),
                got: "texts behind what was read before".into(),
            });
        }
        Ok(self.texts.clone())
    }

    /// Attention by the native kernel behind what was read before: `[N, heads·d]`.
    fn attend_behind(&self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let mut before: Vec<&SharedText> = Vec::with_capacity(self.before.len());
        for text in &self.before {
            match text {
                TextCache::Native(text) => before.push(text),
                TextCache::Tensors(_) => return Err(other_cache("a native cache", "tensors")),
            }
        }

        let qkv = projected.qkv.f_contiguous()?;
        let [cos, sin] = &projected.rotation.tables()?;
        let step = PackedStep { heads: projected.heads, qkv: &qkv, cos, sin, texts: &self.texts };
        Ok(attend_packed_behind(&step, layer, &before)?.out)
    }

    /// Attention by libtorch: `[N, heads·d]`. Gradients flow.
    fn attend_rotated(
        &mut self,
        layer: usize,
        Rotated { q, k, v }: &Rotated,
    ) -> Result<Tensor, ModelError> {
        let kind = attention_kind(q);
        if self.groups.is_none() {
            let mut groups = Vec::with_capacity(self.spans.len());
            for (index, span) in self.spans.iter().enumerate() {
                let read = self.before.get(index).map_or(0, TextCache::tokens);
                groups.push(Group::new(span, read as i64, kind, q.device())?);
            }
            self.groups = Some(groups);
        }

        let groups = self.groups.as_deref().unwrap_or_default();
        // One split for all groups: its backward pass is one concatenation, where narrowing each
        // group would form and add a whole row of zeros for each.
        let sizes: Vec<i64> = groups.iter().flat_map(Group::sizes).collect();
        let split = |t: &Tensor| t.f_to_kind(kind)?.f_split_with_sizes(sizes.as_slice(), 0);
        let out_kind = q.kind();
        let q = split(q)?;
        let k = split(k)?;
        let v = split(v)?;

        let mut outputs = Vec::with_capacity(q.len());
        for (index, group) in groups.iter().enumerate() {
            let at = outputs.len();
            let (prompt_k, prompt_v) = match self.before.get(index) {
                Some(text) => seen(text, layer, [&k[at], &v[at]])?,
                None => (k[at].shallow_clone(), v[at].shallow_clone()),
            };

            outputs.push(group.attend_prompt(&q[at], &prompt_k, &prompt_v)?);
            if let Some(completions) = &group.completions {
                outputs.push(completions.attend(
                    &q[at + 1],
                    [&prompt_k, &k[at + 1]],
                    [&prompt_v, &v[at + 1]],
                )?);
            }
        }

        Ok(Tensor::f_cat(&outputs, 0)?.f_flatten(1, 2)?.f_to_kind(out_kind)?)
    }
}

/// The kind that libtorch attends in. On the CPU f32 whatever the model computes in: the backward
/// pass of bf16 attention takes 3.5 times as long there (8 completions of 24 tokens after 45: 3.7
/// ms against 1.0 ms), and rounds more.
fn attention_kind(x: &Tensor) -> Kind {
    if x.device() == Device::Cpu { Kind::Float } else { x.kind() }
}

impl Span {
    fn text(&self) -> PackedText {
        PackedText {
            prompt: self.prompt.len(),
            completions: self.completions.iter().map(|rows| rows.len()).collect(),
        }
    }
}

/// Keys and values of a layer that were read before, with those of a prompt behind them.
fn seen(
    before: &TextCache,
    layer: usize,
    [k, v]: [&Tensor; 2],
) -> Result<(Tensor, Tensor), ModelError> {
    let TextCache::Tensors(layers) = before else {
        return Err(other_cache("tensors", "a native cache"));
    };
    // An empty text has no layers.
    let Some((read_k, read_v)) = layers.get(layer) else {
        return Ok((k.shallow_clone(), v.shallow_clone()));
    };

    let joined =
        |read: &Tensor, own: &Tensor| Tensor::f_cat(&[&read.f_to_kind(own.kind())?, own], 0);
    Ok((joined(read_k, k)?, joined(read_v, v)?))
}

fn other_cache(expected: &str, got: &str) -> ModelError {
    ModelError::Argument { argument: "before", expected: expected.into(), got: got.into() }
}

impl Group {
    /// A sequence behind `read` tokens.
    fn new(span: &Span, read: i64, kind: Kind, device: Device) -> Result<Self, ModelError> {
        let prompt = span.prompt.len() as i64;
        let mask = match read {
            0 => None,
            _ => Some(after_prompt_mask(read, prompt, kind, device)?),
        };
        Ok(Self { prompt, mask, completions: Completions::new(span, read, kind, device)? })
    }

    /// Attention of the prompt's queries over what was read before and itself: `[P, heads, d]`.
    fn attend_prompt(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        let batch = |t: &Tensor| t.f_transpose(0, 1)?.f_unsqueeze(0);
        let (q, k, v) = (batch(q)?, batch(k)?, batch(v)?);
        let Some(mask) = &self.mask else {
            let none = None::<&Tensor>;
            let out =
                Tensor::f_scaled_dot_product_attention(&q, &k, &v, none, 0.0, true, None, true)?;
            return Ok(out.f_squeeze_dim(0)?.f_transpose(0, 1)?);
        };

        // As for completions: a masked product of grouped heads has no fused kernel on a GPU.
        let (_, heads, tokens, width) = q.size4()?;
        let kv_heads = k.size()[1];
        let sharing = heads / kv_heads;
        let stacked = q.f_reshape([1, kv_heads, sharing * tokens, width])?;
        let mask = Some(mask.f_repeat([sharing, 1])?);
        let out = Tensor::f_scaled_dot_product_attention(
            &stacked, &k, &v, mask, 0.0, false, None, false,
        )?;
        Ok(out.f_reshape([heads, tokens, width])?.f_transpose(0, 1)?)
    }

    /// The rows of the prompt, then those of the completions.
    fn sizes(&self) -> impl Iterator<Item = i64> {
        [Some(self.prompt), self.completions.as_ref().map(|c| c.rows)].into_iter().flatten()
    }
}

impl Completions {
    fn new(span: &Span, read: i64, kind: Kind, device: Device) -> Result<Option<Self>, ModelError> {
        let longest = span.completions.iter().map(|c| c.len()).max().unwrap_or(0);
        if longest == 0 {
            return Ok(None);
        }

        let first = span.prompt.end;
        let mut padded_rows = Vec::new();
        let mut places = Vec::new();

        for (index, rows) in span.completions.iter().enumerate() {
            places.extend((0..rows.len()).map(|i| (index * longest + i) as i64));
            padded_rows.extend(
                (0..longest)
                    .map(|i| if i < rows.len() { rows.start - first + i } else { 0 } as i64),
            );
        }

        let prompt = read + span.prompt.len() as i64;
        Ok(Some(Self {
            padded_rows: Tensor::f_from_slice(&padded_rows)?.f_to_device(device)?,
            rows: places.len() as i64,
            places: Tensor::f_from_slice(&places)?.f_to_device(device)?,
            mask: after_prompt_mask(prompt, longest as i64, kind, device)?,
            count: span.completions.len() as i64,
            longest: longest as i64,
        }))
    }

    /// Attention of the completions' queries over (prompt's, completions') keys and values.
    fn attend(&self, q: &Tensor, k: [&Tensor; 2], v: [&Tensor; 2]) -> Result<Tensor, ModelError> {
        let (heads, width, kv_heads) = (q.size()[1], q.size()[2], k[0].size()[1]);
        let sharing = heads / kv_heads;
        let longest = self.longest;

        // The query heads that share a key head stand behind each other, as one longer text: no key
        // is repeated, and a masked product of grouped heads has no fused kernel on a GPU.
        let q_block = self.block(q)?.f_reshape([self.count, kv_heads, sharing * longest, width])?;
        let keys = self.with_prompt(k)?;
        let values = self.with_prompt(v)?;
        let mask = Some(self.mask.f_repeat([sharing, 1])?);
        let out = Tensor::f_scaled_dot_product_attention(
            &q_block, &keys, &values, mask, 0.0, false, None, false,
        )?;

        let out = out.f_reshape([self.count, heads, longest, width])?;
        let flat = out.f_transpose(1, 2)?.f_reshape([self.count * longest, heads, width])?;
        Ok(flat.f_index_select(0, &self.places)?)
    }

    /// `[rows, heads, d]` to the padded block `[G, heads, C, d]`.
    fn block(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let rows = x.f_index_select(0, &self.padded_rows)?;
        Ok(rows.f_view([self.count, self.longest, x.size()[1], x.size()[2]])?.f_transpose(1, 2)?)
    }

    /// The prompt's rows before each completion's own: `[G, heads, P + C, d]`.
    fn with_prompt(&self, [prompt, x]: [&Tensor; 2]) -> Result<Tensor, ModelError> {
        let shared =
            prompt.f_transpose(0, 1)?.f_unsqueeze(0)?.f_expand([self.count, -1, -1, -1], false)?;
        Ok(Tensor::f_cat(&[shared, self.block(x)?], 2)?)
    }
}

/// A text's token sees all `prompt` tokens before the text, and the text up to itself.
fn after_prompt_mask(
    prompt: i64,
    longest: i64,
    kind: Kind,
    device: Device,
) -> Result<Tensor, ModelError> {
    let blocked = Tensor::f_full([longest, prompt + longest], f64::NEG_INFINITY, (kind, device))?;
    Ok(blocked.f_triu(prompt + 1)?)
}
