//! What a model has read of a text: keys and values in every layer.

use crate::{Decoder, ModelError};
use posttrain_kernel::{KeyValues, SharedText};
use tch::{Device, Kind, Tensor};

/// Keys and values of a text in every layer of a model, for other texts to go on from.
///
/// ```
/// use posttrain_lora::RowAdapters;
/// use posttrain_model::{Decoder, ModelConfig, PackedAttention, Packing, Sequence, TextCache};
/// use tch::{Device, Kind};
///
/// let _guard = tch::no_grad_guard();
/// let model = Decoder::random(&ModelConfig::tiny(), 7, Kind::Float, Device::Cpu)?;
/// let prompt = |tokens: &[i64]| Sequence { prompt: tokens.to_vec(), completions: vec![] };
///
/// let packing = Packing::new(&[prompt(&[1, 2, 3])])?;
/// let mut attention = PackedAttention::new(&packing, &model)?.keeping();
/// model.forward(&packing.input(Device::Cpu)?, &mut attention, &RowAdapters::none())?;
/// let read = TextCache::empty(&model).followed_by(&model, &attention.into_kept())?;
/// assert_eq!(read.tokens(), 3);
///
/// // Another token behind the first two of them.
/// let packing = Packing::behind(&[prompt(&[9])], &[2])?;
/// let mut attention = PackedAttention::new(&packing, &model)?.behind(vec![read.beginning(2)?])?;
/// let hidden = model.forward(&packing.input(Device::Cpu)?, &mut attention, &RowAdapters::none())?;
/// assert_eq!(hidden.size()[0], 1);
/// # Ok::<(), posttrain_model::ModelError>(())
/// ```
#[derive(Debug)]
pub enum TextCache {
    /// In the layout of the native kernels: f32 and bf16 on the CPU.
    Native(SharedText),
    /// `[T, kv_heads, d]` each, rotated keys and values of every layer; none for an empty text.
    Tensors(Vec<(Tensor, Tensor)>),
}

impl Clone for TextCache {
    /// The same keys and values, held once.
    fn clone(&self) -> Self {
        match self {
            Self::Native(text) => Self::Native(text.clone()),
            Self::Tensors(layers) => Self::Tensors(
                layers.iter().map(|(k, v)| (k.shallow_clone(), v.shallow_clone())).collect(),
            ),
        }
    }
}

impl TextCache {
    /// A text of which nothing has been read.
    #[must_use]
    pub fn empty(model: &Decoder) -> Self {
        let native =
            model.device() == Device::Cpu && matches!(model.kind(), Kind::Float | Kind::BFloat16);
        match native {
            true => Self::Native(SharedText::default()),
            false => Self::Tensors(Vec::new()),
        }
    }

    /// Tokens that have been read.
    #[must_use]
    pub fn tokens(&self) -> usize {
        match self {
            Self::Native(text) => text.tokens(),
            Self::Tensors(layers) => layers.first().map_or(0, |(keys, _)| keys.size()[0] as usize),
        }
    }

    /// The first `tokens` tokens, or all of them if there are no more.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if libtorch refuses to narrow a tensor.
    pub fn beginning(&self, tokens: usize) -> Result<Self, ModelError> {
        let tokens = tokens.min(self.tokens());
        match self {
            Self::Native(text) => Ok(Self::Native(text.beginning(tokens))),
            Self::Tensors(layers) => {
                let first = |tensor: &Tensor| tensor.f_narrow(0, 0, tokens as i64);
                let layers = layers.iter().map(|(k, v)| Ok((first(k)?, first(v)?)));
                Ok(Self::Tensors(layers.collect::<Result<_, ModelError>>()?))
            }
        }
    }

    /// The text with further tokens behind it: `layers[layer]` has their keys, rotated to their
    /// positions, and values, `[T, kv_heads, d]` each. This one is as it was.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] or [`ModelError::Torch`] for tensors that do not fit the model.
    pub fn followed_by(
        &self,
        model: &Decoder,
        layers: &[(Tensor, Tensor)],
    ) -> Result<Self, ModelError> {
        match self {
            Self::Native(text) => {
                let mut next = KeyValues::new(model.heads(), layers.len(), model.kind())?;
                for (layer, (keys, values)) in layers.iter().enumerate() {
                    next.extend(layer, keys, values)?;
                }
                Ok(Self::Native(text.followed_by(next)?))
            }
            Self::Tensors(read) => {
                let mut both = Vec::with_capacity(layers.len());
                for (layer, (keys, values)) in layers.iter().enumerate() {
                    // A copy in either case: the tokens are mostly a part of a larger pass.
                    both.push(match read.get(layer) {
                        Some((read_k, read_v)) => (
                            Tensor::f_cat(&[read_k, keys], 0)?,
                            Tensor::f_cat(&[read_v, values], 0)?,
                        ),
                        None => (Tensor::f_cat(&[keys], 0)?, Tensor::f_cat(&[values], 0)?),
                    });
                }
                Ok(Self::Tensors(both))
            }
        }
    }
}
