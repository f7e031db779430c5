//! A text that has been read, in parts that other texts may share.

use crate::key_values::{Beginning, Cached};
use crate::{Heads, KernelError, KeyValues};
use posttrain_tensor::TensorError;
use std::sync::Arc;

/// Tokens below which a last part is copied into what follows it. To share fewer would save little
/// memory, and every decoding step would pay for another part.
const SHORT: usize = 64;

/// Keys and values of a text, in parts: each is the beginning of [`KeyValues`] that other texts may
/// hold, too.
///
/// Conversations with one system message, or a prompt and what was written behind it, hold the
/// keys and values of their common beginning once.
///
/// ```
/// use posttrain_kernel::{Heads, KeyValues, SharedText};
/// use tch::{Device, Kind, Tensor};
///
/// let heads = Heads { query: 1, key_value: 1, width: 2 };
/// let read = |tokens: i64| -> Result<KeyValues, posttrain_kernel::KernelError> {
///     let mut part = KeyValues::new(heads, 1, Kind::Float)?;
///     let keys = Tensor::ones([tokens, 1, 2], (Kind::Float, Device::Cpu));
///     part.extend(0, &keys, &keys)?;
///     Ok(part)
/// };
/// let system = SharedText::default().followed_by(read(100)?)?;
/// let question = system.beginning(90).followed_by(read(20)?)?;
/// assert_eq!(question.tokens(), 110);
/// assert!(question.parts().next().is_some_and(|part| std::ptr::eq(part, system.parts().next().unwrap())));
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct SharedText {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    text: Arc<KeyValues>,
    /// How many of its first tokens belong to the text; it has at least as many.
    tokens: usize,
}

impl SharedText {
    /// Tokens of all parts.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.parts.iter().map(|part| part.tokens).sum()
    }

    /// The keys and values that the text holds, of which the last tokens of each may be another
    /// text's alone.
    pub fn parts(&self) -> impl Iterator<Item = &KeyValues> {
        self.parts.iter().map(|part| &*part.text)
    }

    /// The text's first `tokens` tokens, or all of them if there are no more. A small share of a
    /// part is copied, so that it does not keep the rest in memory.
    #[must_use]
    pub fn beginning(&self, tokens: usize) -> Self {
        let mut left = tokens;
        let mut parts = Vec::new();

        for part in &self.parts {
            let taken = part.tokens.min(left);
            left -= taken;
            if taken == 0 {
                break;
            }

            let text = match taken * 2 < part.text.tokens() {
                true => Arc::new(part.text.beginning(taken)),
                false => part.text.clone(),
            };
            parts.push(Part { text, tokens: taken });
        }
        Self { parts }
    }

    /// The text in memory that holds nothing else: parts that are longer than what belongs to the
    /// text are copied.
    #[must_use]
    pub fn to_size(&self) -> Self {
        let mut parts = self.parts.clone();
        for part in &mut parts {
            if part.tokens < part.text.tokens() {
                part.text = Arc::new(part.text.beginning(part.tokens));
            }
        }
        Self { parts }
    }

    /// The text with further tokens behind it. This one is as it was; what both share is held once
    /// but for a short last part, which is copied.
    ///
    /// # Errors
    /// [`KernelError::Tensor`] for tokens of another kind, or with other heads or layers.
    pub fn followed_by(&self, next: KeyValues) -> Result<Self, KernelError> {
        if let Some(first) = self.parts.first() {
            first.text.check_alike(&next)?;
        }

        let mut parts = self.parts.clone();
        let next = match parts.pop_if(|last| last.tokens < SHORT) {
            Some(last) => {
                let mut joined = last.text.beginning(last.tokens);
                joined.append(&next)?;
                joined
            }
            None => next,
        };

        parts.push(Part { tokens: next.tokens(), text: Arc::new(next) });
        Ok(Self { parts })
    }

    /// The parts' keys and values in one layer, added to `beginnings`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if a part has other heads, is of another kind, or lacks the layer;
    /// `argument` is what the text is called.
    pub(crate) fn layer<'a, E: Cached>(
        &'a self,
        argument: &'static str,
        layer: usize,
        heads: Heads,
        beginnings: &mut Vec<Beginning<'a, E>>,
    ) -> Result<(), TensorError> {
        for part in &self.parts {
            let layer = part.text.layer_of(argument, layer, heads)?;
            beginnings.push(Beginning { layer, tokens: part.tokens });
        }
        Ok(())
    }
}
