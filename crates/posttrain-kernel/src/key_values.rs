//! The keys and values of one text, laid out for the attention of a decoding step.

use crate::{Heads, KernelError};
use posttrain_tensor::{Bf16, Element, TensorError, Values, values};
use tch::{Kind, Tensor};

/// Tokens whose keys lie side by side: a vector of the kernel.
pub(crate) const TOKENS: usize = 16;

/// Keys and values of some tokens of one text in every layer: a prompt, shared by its completions,
/// or what a completion has so far. Grows at its end and never moves more than its own vectors do.
#[derive(Debug, Clone)]
pub struct KeyValues {
    pub(crate) heads: Heads,
    pub(crate) layers: Layers,
}

#[derive(Debug, Clone)]
pub(crate) enum Layers {
    F32(Vec<Layer<f32>>),
    Bf16(Vec<Layer<Bf16>>),
}

/// One layer's, in blocks of [`TOKENS`] tokens. Keys stand as `[block][kv_head][d][token]`, so that
/// the scores of a block are sums of whole vectors; values as `[block][kv_head][token][d]`. A
/// head's share of a block is one run of memory in both.
#[derive(Debug, Clone)]
pub(crate) struct Layer<E> {
    pub keys: Vec<E>,
    pub values: Vec<E>,
    pub tokens: usize,
}

/// The first tokens of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning<'a, E> {
    pub layer: &'a Layer<E>,
    /// At most as many as the layer has.
    pub tokens: usize,
}

/// Elements that keys and values can be made of.
pub(crate) trait Cached: Element {
    fn layer(text: &KeyValues, layer: usize) -> Option<&Layer<Self>>;
    fn layer_mut(text: &mut KeyValues, layer: usize) -> Option<&mut Layer<Self>>;
}

impl Cached for f32 {
    fn layer(text: &KeyValues, layer: usize) -> Option<&Layer<Self>> {
        if let Layers::F32(layers) = &text.layers { layers.get(layer) } else { None }
    }

    fn layer_mut(text: &mut KeyValues, layer: usize) -> Option<&mut Layer<Self>> {
        if let Layers::F32(layers) = &mut text.layers { layers.get_mut(layer) } else { None }
    }
}

impl Cached for Bf16 {
    fn layer(text: &KeyValues, layer: usize) -> Option<&Layer<Self>> {
        if let Layers::Bf16(layers) = &text.layers { layers.get(layer) } else { None }
    }

    fn layer_mut(text: &mut KeyValues, layer: usize) -> Option<&mut Layer<Self>> {
        if let Layers::Bf16(layers) = &mut text.layers { layers.get_mut(layer) } else { None }
    }
}

impl KeyValues {
    /// No tokens yet, in `layers` layers of a model that computes in `kind` (f32 or bf16).
    ///
    /// # Errors
    /// [`TensorError::Kind`] for another kind.
    ///
    /// ```
    /// use posttrain_kernel::{Heads, KeyValues};
    ///
    /// let heads = Heads { query: 4, key_value: 2, width: 8 };
    /// assert_eq!(KeyValues::new(heads, 3, tch::Kind::BFloat16)?.tokens(), 0);
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn new(heads: Heads, layers: usize, kind: Kind) -> Result<Self, KernelError> {
        let layers = match kind {
            Kind::Float => Layers::F32(vec![Layer::empty(); layers]),
            Kind::BFloat16 => Layers::Bf16(vec![Layer::empty(); layers]),
            got => {
                return Err(TensorError::Kind {
                    argument: "kind",
                    expected: "Float or BFloat16",
                    got,
                }
                .into());
            }
        };
        Ok(Self { heads, layers })
    }

    /// The tokens that every layer has.
    ///
    /// ```
    /// use posttrain_kernel::{Heads, KeyValues};
    /// use tch::{Device, Kind, Tensor};
    ///
    /// let mut cache = KeyValues::new(Heads { query: 1, key_value: 1, width: 2 }, 1, Kind::Float)?;
    /// let token = Tensor::zeros([1, 1, 2], (Kind::Float, Device::Cpu));
    /// cache.extend(0, &token, &token)?;
    /// assert_eq!(cache.tokens(), 1);
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    #[must_use]
    pub fn tokens(&self) -> usize {
        match &self.layers {
            Layers::F32(layers) => layers.iter().map(|l| l.tokens).min().unwrap_or(0),
            Layers::Bf16(layers) => layers.iter().map(|l| l.tokens).min().unwrap_or(0),
        }
    }

    /// Adds tokens to a layer: `keys` (rotated to their positions) and `values`,
    /// `[tokens, kv_heads, d]` each.
    ///
    /// # Errors
    /// [`TensorError::Shape`] or [`TensorError::Kind`] for tensors that do not fit.
    ///
    /// ```
    /// use posttrain_kernel::{Heads, KeyValues};
    /// use tch::{Device, Kind, Tensor};
    ///
    /// let mut cache = KeyValues::new(Heads { query: 1, key_value: 1, width: 2 }, 1, Kind::Float)?;
    /// let wrong = Tensor::zeros([1, 1, 3], (Kind::Float, Device::Cpu));
    /// assert!(cache.extend(0, &wrong, &wrong).is_err());
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn extend(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(), KernelError> {
        let expected = vec![-1, self.heads.key_value as i64, self.heads.width as i64];
        for (argument, tensor) in [("keys", keys), ("values", values)] {
            let got = tensor.size();
            if got.len() != 3 || got[1..] != expected[1..] || got[0] != keys.size()[0] {
                return Err(TensorError::Shape { argument, expected, got }.into());
            }
        }

        let keys = keys.f_contiguous()?;
        let values = values.f_contiguous()?;
        self.extend_contiguous(layer, &keys, &values)
    }

    /// Adds another text's tokens behind this one's, in every layer.
    ///
    /// # Errors
    /// [`KernelError::Tensor`] for a text of another kind, or with other heads or layers.
    ///
    /// ```
    /// use posttrain_kernel::{Heads, KeyValues};
    /// use tch::{Device, Kind, Tensor};
    ///
    /// let empty = || KeyValues::new(Heads { query: 1, key_value: 1, width: 2 }, 1, Kind::Float);
    /// let tokens = Tensor::ones([3, 1, 2], (Kind::Float, Device::Cpu));
    /// let (mut text, mut end) = (empty()?, empty()?);
    /// text.extend(0, &tokens, &tokens)?;
    /// end.extend(0, &tokens, &tokens)?;
    /// text.append(&end)?;
    /// assert_eq!(text.tokens(), 6);
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn append(&mut self, other: &Self) -> Result<(), KernelError> {
        self.check_alike(other)?;

        let width = self.heads.width;
        match (&mut self.layers, &other.layers) {
            (Layers::F32(own), Layers::F32(other)) => {
                own.iter_mut().zip(other).for_each(|(a, b)| a.append(width, b))
            }
            (Layers::Bf16(own), Layers::Bf16(other)) => {
                own.iter_mut().zip(other).for_each(|(a, b)| a.append(width, b))
            }
            _ => unreachable!("the kinds have been compared"),
        }
        Ok(())
    }

    /// Checks that another text's tokens can stand behind this one's.
    pub(crate) fn check_alike(&self, other: &Self) -> Result<(), KernelError> {
        let shape = |text: &Self| {
            vec![text.layer_count() as i64, text.heads.key_value as i64, text.heads.width as i64]
        };
        if shape(self) != shape(other) {
            return Err(TensorError::Shape {
                argument: "other",
                expected: shape(self),
                got: shape(other),
            }
            .into());
        }

        match (&self.layers, &other.layers) {
            (Layers::F32(_), Layers::Bf16(_)) => Err(other_kind("Float", Kind::BFloat16)),
            (Layers::Bf16(_), Layers::F32(_)) => Err(other_kind("BFloat16", Kind::Float)),
            _ => Ok(()),
        }
    }

    /// A copy of the first tokens, of which there are at least so many.
    pub(crate) fn beginning(&self, tokens: usize) -> Self {
        let width = self.heads.key_value * self.heads.width;
        let layers = match &self.layers {
            Layers::F32(layers) => {
                Layers::F32(layers.iter().map(|layer| layer.beginning(width, tokens)).collect())
            }
            Layers::Bf16(layers) => {
                Layers::Bf16(layers.iter().map(|layer| layer.beginning(width, tokens)).collect())
            }
        };
        Self { heads: self.heads, layers }
    }

    /// One layer, of a text that must have `heads`; `argument` is what the text is called.
    pub(crate) fn layer_of<E: Cached>(
        &self,
        argument: &'static str,
        layer: usize,
        heads: Heads,
    ) -> Result<&Layer<E>, TensorError> {
        self.check_heads(heads)?;
        E::layer(self, layer).ok_or_else(|| heads.misfit(argument, vec![layer as i64]))
    }

    /// The same, to be written.
    pub(crate) fn layer_of_mut<E: Cached>(
        &mut self,
        argument: &'static str,
        layer: usize,
        heads: Heads,
    ) -> Result<&mut Layer<E>, TensorError> {
        self.check_heads(heads)?;
        E::layer_mut(self, layer).ok_or_else(|| heads.misfit(argument, vec![layer as i64]))
    }

    fn check_heads(&self, heads: Heads) -> Result<(), TensorError> {
        if self.heads == heads {
            return Ok(());
        }
        let own = [self.heads.key_value as i64, self.heads.width as i64];
        Err(heads.misfit("rows", own.to_vec()))
    }

    fn layer_count(&self) -> usize {
        match &self.layers {
            Layers::F32(layers) => layers.len(),
            Layers::Bf16(layers) => layers.len(),
        }
    }

    fn extend_contiguous(
        &mut self,
        layer: usize,
        keys: &Tensor,
        new: &Tensor,
    ) -> Result<(), KernelError> {
        let heads = self.heads;
        match (&mut self.layers, values("keys", keys)?, values("values", new)?) {
            (Layers::F32(layers), Values::F32(k), Values::F32(v)) => {
                layers[layer].extend(heads, k, v)
            }
            (Layers::Bf16(layers), Values::Bf16(k), Values::Bf16(v)) => {
                layers[layer].extend(heads, k, v)
            }
            _ => {
                return Err(TensorError::Kind {
                    argument: "keys",
                    expected: "the cache's kind",
                    got: keys.kind(),
                }
                .into());
            }
        }
        Ok(())
    }
}

impl Heads {
    fn misfit(self, argument: &'static str, got: Vec<i64>) -> TensorError {
        let expected = vec![self.key_value as i64, self.width as i64];
        TensorError::Shape { argument, expected, got }
    }
}

fn other_kind(expected: &'static str, got: Kind) -> KernelError {
    TensorError::Kind { argument: "other", expected, got }.into()
}

impl<E: Element> Layer<E> {
    /// Adds another layer's tokens behind this one's.
    fn append(&mut self, width: usize, other: &Self) {
        let features = other.keys.len() / other.tokens.next_multiple_of(TOKENS).max(1);
        let mut keys = vec![E::narrow(0.0); features];
        let mut values = vec![E::narrow(0.0); features];

        for token in 0..other.tokens {
            let block = token / TOKENS * features * TOKENS;
            let place = token % TOKENS;
            for (feature, key) in keys.iter_mut().enumerate() {
                *key = other.keys[block + feature * TOKENS + place];
            }
            for (head, values) in values.chunks_exact_mut(width).enumerate() {
                values.copy_from_slice(
                    &other.values[block + (head * TOKENS + place) * width..][..width],
                );
            }

            self.push(width, &keys, &values);
        }
    }

    /// A copy of the first tokens: of whole blocks, the last of which is written over from its
    /// first free place on.
    fn beginning(&self, width: usize, tokens: usize) -> Self {
        let stored = tokens.next_multiple_of(TOKENS) * width;
        Self { keys: self.keys[..stored].to_vec(), values: self.values[..stored].to_vec(), tokens }
    }

    /// A token's key of one head.
    #[inline(always)]
    pub fn key(&self, heads: Heads, token: usize, head: usize, to: &mut [f32]) {
        let block = token / TOKENS * heads.key_value + head;
        let keys = &self.keys[block * heads.width * TOKENS..][..heads.width * TOKENS];
        for (to, tokens) in to.iter_mut().zip(keys.chunks_exact(TOKENS)) {
            *to = tokens[token % TOKENS].widen();
        }
    }

    /// A token's value of one head.
    #[inline(always)]
    pub fn value(&self, heads: Heads, token: usize, head: usize, to: &mut [f32]) {
        let block = token / TOKENS * heads.key_value + head;
        let values = &self.values[(block * TOKENS + token % TOKENS) * heads.width..];
        to.iter_mut().zip(values).for_each(|(to, value)| *to = value.widen());
    }

    fn empty() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), tokens: 0 }
    }

    fn extend(&mut self, heads: Heads, keys: &[E], values: &[E]) {
        let width = (heads.key_value * heads.width).max(1);
        for (keys, values) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
            self.push(heads.width, keys, values);
        }
    }

    /// Adds a token's keys and values, `[kv_heads·width]` each.
    #[inline(always)]
    pub fn push(&mut self, width: usize, keys: &[E], values: &[E]) {
        let place = self.tokens % TOKENS;
        if place == 0 {
            let room = self.keys.len() + keys.len() * TOKENS;
            self.keys.resize(room, E::narrow(0.0));
            self.values.resize(room, E::narrow(0.0));
        }

        let block = self.keys.len() - keys.len() * TOKENS;
        for (slot, key) in self.keys[block..].chunks_exact_mut(TOKENS).zip(keys) {
            slot[place] = *key;
        }

        let heads = self.values[block..].chunks_exact_mut(TOKENS * width);
        for (head, value) in heads.zip(values.chunks_exact(width)) {
            head[place * width..][..width].copy_from_slice(value);
        }

        self.tokens += 1;
    }
}
