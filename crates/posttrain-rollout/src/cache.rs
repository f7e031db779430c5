//! The keys and values of the running rows: native on the CPU, tensors elsewhere.

use crate::device_cache::DeviceCache;
use crate::native_cache::{self, NativeCache};
use crate::order::Move;
use posttrain_kernel::KeyValues;
use posttrain_model::{Attend, Decoder, ModelError, Projected};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The running rows' keys and values, in the order of the rows.
#[derive(Debug)]
pub(crate) enum Cache {
    Native(NativeCache),
    Device(DeviceCache),
}

/// A prompt's keys and values, to be shared by its rows.
#[derive(Debug)]
pub(crate) enum PromptCache {
    Native(Arc<KeyValues>),
    Device(Vec<(Tensor, Tensor)>),
}

/// Whether the native kernel serves a model.
fn native(model: &Decoder) -> bool {
    model.device() == Device::Cpu && matches!(model.kind(), Kind::Float | Kind::BFloat16)
}

impl PromptCache {
    /// A prompt's cache from its keys and values in every layer, `[P, kv_heads, d]` each.
    pub fn new(model: &Decoder, layers: Vec<(Tensor, Tensor)>) -> Result<Self, ModelError> {
        if native(model) {
            return Ok(Self::Native(Arc::new(native_cache::prompt(model, &layers)?)));
        }
        Ok(Self::Device(layers))
    }

    /// The same text with further tokens behind it; what both share is copied.
    pub fn followed_by(&self, layers: &[(Tensor, Tensor)]) -> Result<Self, ModelError> {
        let joined = |(one, next): (&Tensor, &Tensor)| Tensor::f_cat(&[one, next], 0);
        match self {
            Self::Native(text) => {
                Ok(Self::Native(Arc::new(native_cache::extended((**text).clone(), layers)?)))
            }
            Self::Device(text) => {
                let both = text.iter().zip(layers);
                let both = both.map(|((k, v), (next_k, next_v))| {
                    Ok((joined((k, next_k))?, joined((v, next_v))?))
                });
                Ok(Self::Device(both.collect::<Result<_, ModelError>>()?))
            }
        }
    }
}

/// Rows that join a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joining<'a> {
    /// What they follow.
    pub prompt: &'a PromptCache,
    /// How many.
    pub count: usize,
    /// The first one's place, once `moves` have made room for them.
    pub at: usize,
    /// The moves of the rows behind that place.
    pub moves: &'a [Move],
}

impl Cache {
    /// An empty cache for at most `rows` rows.
    pub fn new(model: &Decoder, rows: usize) -> Result<Self, ModelError> {
        if native(model) {
            return Ok(Self::Native(NativeCache::new(model)));
        }
        Ok(Self::Device(DeviceCache::new(model, rows)?))
    }

    /// Adds rows after a prompt.
    pub fn join(&mut self, rows: Joining) -> Result<(), ModelError> {
        match (self, rows.prompt) {
            (Self::Native(cache), PromptCache::Native(prompt)) => {
                Ok(cache.join(prompt, rows.count, rows.moves)?)
            }
            (Self::Device(cache), PromptCache::Device(layers)) => {
                cache.join(layers, rows.at..rows.at + rows.count, rows.moves)
            }
            _ => unreachable!("both were made for the same model"),
        }
    }

    /// Takes out the row that stands last after some moves.
    pub fn leave(&mut self, moves: &[Move]) -> Result<(), ModelError> {
        match self {
            Self::Native(cache) => cache.leave(moves),
            Self::Device(cache) => cache.leave(moves)?,
        }
        Ok(())
    }

    /// What a row has read, as the prompt of a text that goes on from it.
    pub fn text(&self, row: usize) -> Result<PromptCache, ModelError> {
        Ok(match self {
            Self::Native(cache) => PromptCache::Native(Arc::new(cache.text(row)?)),
            Self::Device(cache) => PromptCache::Device(cache.text(row)?),
        })
    }

    /// Makes sure that there is room for the next token.
    pub fn make_room(&mut self) -> Result<(), ModelError> {
        match self {
            Self::Native(_) => Ok(()),
            Self::Device(cache) => cache.make_room(),
        }
    }

    /// Ends a decoding step: every row is a token longer.
    pub fn advance(&mut self) {
        match self {
            Self::Native(cache) => cache.advance(),
            Self::Device(cache) => cache.advance(),
        }
    }
}

impl Attend for Cache {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        match self {
            Self::Native(cache) => cache.attend(layer, projected),
            Self::Device(cache) => cache.attend(layer, projected),
        }
    }
}
