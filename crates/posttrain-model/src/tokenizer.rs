//! Text to token ids and back.

mod charsmap;
mod check;

use crate::ModelError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::{AddedToken, Encoding, PostProcessor, Token, Tokenizer};

/// A tokenizer as `tokenizer.json` describes it.
///
/// Text of the user's (or a model's, or a dataset's) is never allowed to speak in special tokens:
/// [`TextTokenizer::encode_text`] takes `<|im_end|>` for ten ordinary characters, while
/// [`TextTokenizer::encode_markup`], for what a chat template wrote, takes it for the token.
///
/// A file's `truncation` and `padding` are not: they are what somebody's last call asked for, and a
/// prompt is never cut or filled up here. What the file is computed by is checked first, so that a
/// hostile one is refused in words.
#[derive(Debug)]
pub struct TextTokenizer {
    markup: Tokenizer,
    text: Tokenizer,
    beginning: Vec<i64>,
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
        let format = |reason: String| ModelError::Format { path: path.into(), reason };
        check::check(json).map_err(|e| format(format!("not a tokenizer.json: {e}")))?;
        let mut markup = guarded(|| Tokenizer::from_bytes(json))
            .map_err(|e| format(format!("not a tokenizer.json: {e}")))?;
        markup.with_padding(None);
        guarded(|| markup.with_truncation(None).map(|_| ())).map_err(format)?;

        let beginning =
            guarded(|| beginning(&markup)).map_err(|e| format(format!("`post_processor`: {e}")))?;
        let highest = markup.get_vocab(true).into_values().chain(beginning.iter().copied()).max();
        let highest = highest.unwrap_or(0);
        if i64::from(highest) >= rows {
            return Err(ModelError::VocabularyMismatch { path: path.into(), highest, rows });
        }

        let mut text = markup.clone();
        text.set_encode_special_tokens(true);
        Ok(Self { markup, text, beginning: beginning.into_iter().map(i64::from).collect() })
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

    /// Token ids of a plain text from its beginning: [`TextTokenizer::encode_text`] behind the
    /// tokens that `tokenizer.json`'s post-processor puts before one (Llama 3's
    /// `<|begin_of_text|>`). What it puts behind one (an end) is left out, for a prompt goes on.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the tokenizer's answer.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<i64>, ModelError> {
        Ok([self.beginning.clone(), self.encode_text(text)?].concat())
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

        guarded(|| self.markup.decode(&ids, skip_special))
            .map_err(|reason| ModelError::Tokenizer { reason })
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<i64>, ModelError> {
    let encoding = guarded(|| tokenizer.encode_fast(text, false))
        .map_err(|reason| ModelError::Tokenizer { reason })?;
    Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
}

/// The tokens that the post-processor puts before a text, seen by having it process one.
fn beginning(tokenizer: &Tokenizer) -> tokenizers::Result<Vec<u32>> {
    let Some(processor) = tokenizer.get_post_processor() else { return Ok(Vec::new()) };
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, "a".into(), (0, 1))], 0);
    let mut ids = processor.process(text, None, true)?.get_ids().to_vec();

    ids.truncate(ids.iter().position(|id| *id == u32::MAX).unwrap_or(0));
    Ok(ids)
}

/// An answer of the tokenizers crate's. It panics on a file that fits together badly, which is that
/// file's error.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("its parts do not fit together".into()),
    }
}
