//! Text to token ids and back.

use crate::ModelError;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// A tokenizer as `tokenizer.json` describes it.
///
/// Text of the user's (or a model's, or a dataset's) is never allowed to speak in special tokens:
/// [`TextTokenizer::encode_text`] takes `<|im_end|>` for ten ordinary characters, while
/// [`TextTokenizer::encode_markup`], for what a chat template wrote, takes it for the token.
#[derive(Debug)]
pub struct TextTokenizer {
    markup: Tokenizer,
    text: Tokenizer,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json` for an embedding of `rows` rows.
    ///
    /// # Errors
    /// [`ModelError::Format`] names a file that is not one; [`ModelError::VocabularyMismatch`] one
    /// whose ids go beyond the embedding.
    pub fn from_file(path: &Path, rows: i64) -> Result<Self, ModelError> {
        let bytes =
            std::fs::read(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        Self::from_json(&bytes, path, rows)
    }

    /// The same from the file's contents; `path` is named in errors.
    ///
    /// # Errors
    /// Those of [`TextTokenizer::from_file`].
    pub fn from_json(json: &[u8], path: &Path, rows: i64) -> Result<Self, ModelError> {
        let markup = Tokenizer::from_bytes(json).map_err(|e| ModelError::Format {
            path: path.into(),
            reason: format!("not a tokenizer.json: {e}"),
        })?;

        let highest = markup.get_vocab(true).into_values().max().unwrap_or(0);
        if i64::from(highest) >= rows {
            return Err(ModelError::VocabularyMismatch { path: path.into(), highest, rows });
        }

        let mut text = markup.clone();
        text.set_encode_special_tokens(true);
        Ok(Self { markup, text })
    }

    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn to_json(&self) -> Result<String, ModelError> {
        self.markup.to_string(false).map_err(|e| ModelError::Tokenizer { reason: e.to_string() })
    }

    /// Token ids of ordinary text: a special token's name in it stays text.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn encode_text(&self, text: &str) -> Result<Vec<i64>, ModelError> {
        encode(&self.text, text)
    }

    /// Token ids of text in which special tokens are meant, such as a rendered chat template. None
    /// are added.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn encode_markup(&self, text: &str) -> Result<Vec<i64>, ModelError> {
        encode(&self.markup, text)
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn decode(&self, tokens: &[i64]) -> Result<String, ModelError> {
        self.decoded(tokens, true)
    }

    /// The text of token ids, special tokens shown.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn decode_with_special(&self, tokens: &[i64]) -> Result<String, ModelError> {
        self.decoded(tokens, false)
    }

    /// The id of a token by its text.
    pub fn token_id(&self, token: &str) -> Option<i64> {
        self.markup.token_to_id(token).map(i64::from)
    }

    /// The special tokens' texts.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.markup.get_added_tokens_decoder();
        added.into_values().filter(|t: &AddedToken| t.special).map(|t| t.content).collect()
    }

    fn decoded(&self, tokens: &[i64], skip_special: bool) -> Result<String, ModelError> {
        let ids = tokens.iter().map(|&t| u32::try_from(t)).collect::<Result<Vec<_>, _>>();
        let ids = ids.map_err(|_| ModelError::Tokenizer {
            reason: "a token id is negative or too large".into(),
        })?;

        self.markup
            .decode(&ids, skip_special)
            .map_err(|e| ModelError::Tokenizer { reason: e.to_string() })
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<i64>, ModelError> {
    let encoding = tokenizer.encode_fast(text, false);
    let encoding = encoding.map_err(|e| ModelError::Tokenizer { reason: e.to_string() })?;
    Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
}
