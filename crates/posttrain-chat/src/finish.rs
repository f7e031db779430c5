//! How a text ended.

use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

/// How a completion, or a chat model's answer, ended.
///
/// In JSON one word, such as `"stop"`. It holds nothing of what a server says: a word that is not
/// known is [`Other`](Self::Other).
///
/// ```
/// use posttrain_chat::FinishReason;
///
/// assert_eq!(serde_json::to_string(&FinishReason::Length)?, "\"length\"");
/// assert_eq!(FinishReason::default(), FinishReason::Stop);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it: an end token, a stop token or a stop text.
    #[default]
    Stop,
    /// The token limit or the context ran out.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The server withheld it.
    ContentFilter,
    /// The sampler gave it up (a deadline, a shutdown).
    Aborted,
    /// Something else, or nothing that was said.
    Other,
}

impl FinishReason {
    /// Whether text may be missing at the end.
    ///
    /// ```
    /// use posttrain_chat::FinishReason;
    ///
    /// assert!(FinishReason::Length.is_truncated() && FinishReason::Aborted.is_truncated());
    /// assert!(!FinishReason::Stop.is_truncated());
    /// ```
    #[must_use]
    pub fn is_truncated(self) -> bool {
        matches!(self, Self::Length | Self::ContentFilter | Self::Aborted)
    }

    /// What a server's word means: those of OpenAI, and of servers that have others for the same.
    ///
    /// ```
    /// use posttrain_chat::FinishReason;
    ///
    /// assert_eq!(FinishReason::from_word("end_turn"), FinishReason::Stop);
    /// assert_eq!(FinishReason::from_word("recitation"), FinishReason::Other);
    /// ```
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "stop" | "eos" | "end_turn" => Self::Stop,
            "length" | "max_tokens" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            "aborted" | "abort" => Self::Aborted,
            _ => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for FinishReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor)
    }
}

struct WordVisitor;

impl<'de> Visitor<'de> for WordVisitor {
    type Value = FinishReason;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("`stop`, `length`, `tool_calls`, `content_filter`, `aborted` or `other`")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<FinishReason, E> {
        match word {
            "stop" => Ok(FinishReason::Stop),
            "length" => Ok(FinishReason::Length),
            "tool_calls" => Ok(FinishReason::ToolCalls),
            "content_filter" => Ok(FinishReason::ContentFilter),
            "aborted" => Ok(FinishReason::Aborted),
            "other" => Ok(FinishReason::Other),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    /// `{"other": "…"}`: how a word that was not known stands in the caches of earlier versions.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FinishReason, A::Error> {
        match map.next_entry::<String, IgnoredAny>()? {
            Some((key, _)) if key == "other" => Ok(FinishReason::Other),
            _ => Err(de::Error::invalid_value(Unexpected::Map, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FinishReason;

    #[test]
    fn every_reason_is_read_as_it_is_written() {
        use FinishReason::{Aborted, ContentFilter, Length, Other, Stop, ToolCalls};
        for reason in [Stop, Length, ToolCalls, ContentFilter, Aborted, Other] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<FinishReason>(&json).unwrap(), reason, "{json}");
        }
        assert_eq!(
            serde_json::from_str::<FinishReason>(r#"{"other": "recitation"}"#).unwrap(),
            Other
        );
        assert!(serde_json::from_str::<FinishReason>("\"recitation\"").is_err());
    }
}
