//! What a message says.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The content of a message, in the forms that chat templates tell apart.
///
/// In JSON: a text, a list of parts, `null`, or nothing at all. A part that is not text (an image,
/// audio) is refused by its name.
///
/// ```
/// use posttrain_chat::Content;
///
/// let parts: Content = serde_json::from_str(r#"[{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]"#)?;
/// assert_eq!(parts.text(), "2 + 2?");
/// assert_eq!(serde_json::from_str::<Content>("null")?, Content::Null);
///
/// let image = serde_json::from_str::<Content>(r#"[{"type": "image_url"}]"#).unwrap_err();
/// assert!(image.to_string().contains("`image_url`"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Content {
    /// A text.
    Text(String),
    /// Texts, which templates see one by one.
    Parts(Vec<String>),
    /// Nothing, said as `null`: an assistant's message that only calls tools.
    Null,
    /// Nothing, not even `null`.
    #[default]
    Absent,
}

impl Content {
    /// The whole text: parts joined without a space, nothing as the empty text.
    ///
    /// ```
    /// use posttrain_chat::Content;
    ///
    /// assert_eq!(Content::Parts(vec!["a".into(), "b".into()]).text(), "ab");
    /// assert_eq!(Content::Null.text(), "");
    /// ```
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Parts(parts) => Cow::Owned(parts.concat()),
            Self::Null | Self::Absent => Cow::Borrowed(""),
        }
    }

    /// The content with every text changed by `change`, in the same form.
    ///
    /// ```
    /// use posttrain_chat::Content;
    ///
    /// let loud = Content::from("Hello.").map(|text| text.to_uppercase());
    /// assert_eq!(loud, Content::from("HELLO."));
    /// ```
    #[must_use]
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Text(text) => Self::Text(change(text)),
            Self::Parts(parts) => Self::Parts(parts.iter().map(|part| change(part)).collect()),
            Self::Null => Self::Null,
            Self::Absent => Self::Absent,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

impl<T: Into<String>> From<T> for Content {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// A part, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part<'t> {
    #[serde(rename = "type")]
    kind: Cow<'t, str>,
    text: Option<Cow<'t, str>>,
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Parts(parts) => {
                serializer.collect_seq(parts.iter().map(|text| Part {
                    kind: Cow::Borrowed("text"),
                    text: Some(Cow::Borrowed(text)),
                }))
            }
            Self::Null | Self::Absent => serializer.serialize_unit(),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text, a list of parts of text, or null")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::from(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut texts = Vec::new();
        while let Some(part) = parts.next_element::<serde_json::Value>()? {
            texts.push(text_of(&part).map_err(de::Error::custom)?);
        }

        Ok(Content::Parts(texts))
    }
}

/// The text of a part. What is no text is named before its other fields are looked at.
fn text_of(part: &serde_json::Value) -> Result<String, String> {
    let kind = part["type"].as_str().unwrap_or("none");
    if kind != "text" {
        return Err(format!(
            "a content part of type `{kind}`: only parts of type `text` can be read"
        ));
    }

    let part = Part::deserialize(part)
        .map_err(|error| format!("a content part of type `text`: {error}"))?;
    part.text
        .map(Cow::into_owned)
        .ok_or_else(|| "a content part of type `text` without `text`".to_owned())
}
