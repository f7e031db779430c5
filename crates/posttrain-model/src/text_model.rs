//! A decoder with what turns text into its tokens and back.

use crate::{ChatTemplate, Checkpoint, Decoder, ModelError, Quantize, TextTokenizer};
use std::sync::Arc;
use tch::{Device, Kind};

/// A decoder with its tokenizer and its chat template: everything that a text needs. Clones share
/// the memory.
#[derive(Debug, Clone)]
pub struct TextModel {
    /// The decoder.
    pub decoder: Arc<Decoder>,
    /// Its tokenizer.
    pub tokenizer: Arc<TextTokenizer>,
    /// Its chat template.
    pub template: Arc<ChatTemplate>,
}

impl TextModel {
    /// Puts the three together.
    pub fn new(
        decoder: impl Into<Arc<Decoder>>,
        tokenizer: impl Into<Arc<TextTokenizer>>,
        template: impl Into<Arc<ChatTemplate>>,
    ) -> Self {
        Self { decoder: decoder.into(), tokenizer: tokenizer.into(), template: template.into() }
    }

    /// Reads all three from a checkpoint, the frozen layers in the bits that `quantize` says.
    ///
    /// # Errors
    /// [`ModelError`] names the file, weight or template that is wrong.
    pub fn load(
        checkpoint: &Checkpoint,
        quantize: Quantize,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        Ok(Self::new(
            checkpoint.decoder_quantized(quantize, kind, device)?,
            checkpoint.tokenizer()?,
            checkpoint.chat_template()?,
        ))
    }
}
