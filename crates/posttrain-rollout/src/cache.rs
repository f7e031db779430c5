//! The keys and values of the running rows: native on the CPU, tensors elsewhere.

use crate::device_cache::DeviceCache;
use crate::native_cache::NativeCache;
use crate::order::Move;
use posttrain_model::{Attend, Decoder, ModelError, Projected, TextCache};
use tch::Tensor;

/// The running rows' keys and values, in the order of the rows.
#[derive(Debug)]
pub(crate) enum Cache {
    Native(NativeCache),
    Device(DeviceCache),
}

/// Rows that join a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joining<'a> {
    /// What they follow.
    pub prompt: &'a TextCache,
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
        Ok(match TextCache::empty(model) {
            TextCache::Native(_) => Self::Native(NativeCache::new(model)),
            TextCache::Tensors(_) => Self::Device(DeviceCache::new(model, rows)?),
        })
    }

    /// Adds rows after a prompt.
    pub fn join(&mut self, rows: Joining) -> Result<(), ModelError> {
        match (self, rows.prompt) {
            (Self::Native(cache), TextCache::Native(prompt)) => {
                Ok(cache.join(prompt, rows.count, rows.moves)?)
            }
            (Self::Device(cache), TextCache::Tensors(layers)) => {
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
    pub fn text(&self, row: usize) -> Result<TextCache, ModelError> {
        Ok(match self {
            Self::Native(cache) => TextCache::Native(cache.text(row)?),
            Self::Device(cache) => TextCache::Tensors(cache.text(row)?),
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
