//! The API key: where it comes from, how it is sent, and how it is kept out of everything that
//! people read.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::ChatError;
use crate::client::Endpoint;

/// Bytes of a key file at most; the path may by mistake name a device or a model.
const KEY_FILE_BYTES: u64 = 65_536;

/// Where the API key comes from. The key itself is never part of a configuration.
///
/// ```
/// use posttrain_chat::client::KeySource;
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     api_key: KeySource,
/// }
/// let config: Config = toml::from_str("api_key = { environment = \"OPENAI_API_KEY\" }")?;
/// assert_eq!(config.api_key, KeySource::Environment("OPENAI_API_KEY".into()));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeySource {
    /// The server needs none.
    #[default]
    None,
    /// The environment variable of this name.
    Environment(String),
    /// The file at this path; white space around the key is dropped.
    File(PathBuf),
}

/// How the key is sent.
///
/// ```
/// assert_eq!(posttrain_chat::client::KeyHeader::default(), posttrain_chat::client::KeyHeader::Bearer);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`, as OpenAI and most others have it.
    #[default]
    Bearer,
    /// A header of this name, such as Azure's `api-key`, whose value is the key.
    Named(String),
}

/// A key in memory: wiped when it is dropped, and without a way to print it.
pub(crate) struct ApiKey(SecretString);

impl KeySource {
    /// Fetches the key.
    pub(crate) fn load(&self) -> Result<Option<ApiKey>, ChatError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Environment(variable) => {
                std::env::var(variable).map_err(|error| match error {
                    std::env::VarError::NotPresent => self.problem("the variable is not set"),
                    std::env::VarError::NotUnicode(_) => self.problem("it is not text"),
                })?
            }
            Self::File(path) => {
                let mut text = String::new();
                let file =
                    File::open(path).map_err(|_| self.problem("the file cannot be opened"))?;
                let read = file.take(KEY_FILE_BYTES + 1).read_to_string(&mut text);
                read.map_err(|_| self.problem("the file cannot be read, or is not text"))?;
                text
            }
        };
        let key = text.trim();
        if key.is_empty() {
            return Err(self.problem("it is empty"));
        }
        if key.len() as u64 > KEY_FILE_BYTES
            || key.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(self.problem("it is no key: too long, or of several words or lines"));
        }
        Ok(Some(ApiKey(SecretString::from(key.to_owned()))))
    }

    fn problem(&self, problem: &'static str) -> ChatError {
        let origin = match self {
            Self::None => "nowhere".to_owned(),
            Self::Environment(variable) => format!("the environment variable `{variable}`"),
            Self::File(path) => format!("the file {}", path.display()),
        };
        ChatError::NoKey { origin, problem }
    }
}

impl KeyHeader {
    /// The header's name, and its value with `key`.
    pub(crate) fn build(&self, key: &ApiKey) -> Result<(HeaderName, HeaderValue), ChatError> {
        let key = key.0.expose_secret();
        let (name, value) = match self {
            Self::Bearer => (AUTHORIZATION, format!("Bearer {key}")),
            Self::Named(name) => {
                let expected = "the name of an HTTP header";
                let wrong =
                    |_| ChatError::invalid_config("key_header", format!("{name:?}"), expected);
                (HeaderName::from_bytes(name.as_bytes()).map_err(wrong)?, key.to_owned())
            }
        };
        Ok((name, sensitive(&value)?))
    }
}

/// Basic authentication for the user in an endpoint.
pub(crate) fn basic_header(
    endpoint: &Endpoint,
) -> Result<Option<(HeaderName, HeaderValue)>, ChatError> {
    let Some((user, password)) = endpoint.user() else { return Ok(None) };
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    Ok(Some((AUTHORIZATION, sensitive(&value)?)))
}

fn sensitive(value: &str) -> Result<HeaderValue, ChatError> {
    let expected = "characters that an HTTP header may have";
    let value = HeaderValue::from_str(value);
    let mut value = value
        .map_err(|_| ChatError::invalid_config("api_key", "another text (not shown)", expected))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Every secret of a client, to clear texts of.
#[derive(Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(crate) fn new(key: Option<&ApiKey>, endpoints: &[Endpoint]) -> Self {
        let key = key.map(|key| key.0.expose_secret().to_owned());
        let basic = endpoints.iter().filter_map(Endpoint::user);
        let basic = basic.map(|(user, password)| STANDARD.encode(format!("{user}:{password}")));
        // One or two characters are no secret, and replacing them would leave no text standing.
        let plain =
            key.into_iter().chain(basic).chain(endpoints.iter().flat_map(Endpoint::secrets));
        let plain = plain.filter(|secret| secret.len() > 2);
        let mut texts: Vec<String> = plain.flat_map(|secret| spellings(&secret)).collect();
        // A longer secret may contain a shorter one.
        texts.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(texts.into_iter().map(SecretString::from).collect())
    }

    /// `text` with every secret replaced.
    pub(crate) fn clear(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[secret]"))
    }

    /// The beginning of `text` on one line, cleared: at most `characters`.
    pub(crate) fn excerpt(&self, text: &str, characters: usize) -> String {
        let cleared = self.clear(text);
        let mut excerpt: String = cleared.trim().chars().take(characters).collect();
        if excerpt.len() < cleared.trim().len() {
            excerpt.push('…');
        }
        if excerpt.is_empty() {
            "(empty)".into()
        } else {
            excerpt.replace(|c: char| c.is_control(), " ")
        }
    }
}

/// A secret in the spellings in which a server may repeat it: as it is, in JSON, in an address, in
/// base64.
fn spellings(secret: &str) -> Vec<String> {
    let percent = |keep: &dyn Fn(u8) -> bool, upper: bool| -> String {
        let bytes = secret.bytes().map(|byte| match (keep(byte), upper) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        });
        bytes.collect()
    };
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let unicode = |secret: &str| -> String {
        let escaped = secret.chars().map(|c| {
            if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\u{:04x}", c as u32) }
        });
        escaped.collect()
    };

    let json = serde_json::Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let mut spellings = vec![
        secret.to_owned(),
        json.replace('/', "\\/"),
        json,
        unicode(secret),
        percent(&is_unreserved, true),
        percent(&is_unreserved, false),
        percent(&|_| false, true),
        percent(&|_| false, false),
    ];

    // With a word before it, the same bytes have other letters: all three places in a group of
    // three bytes.
    for before in ["", "x", "xx"] {
        let encoded = STANDARD.encode(format!("{before}{secret}"));
        let start = (before.len() * 4).div_ceil(3);
        let end = (before.len() + secret.len()) * 4 / 3;
        let inner = encoded.get(start..end).unwrap_or_default();
        if inner.len() > 5 {
            spellings.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
        }
    }

    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_trimmed_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (text, problem) in [
            ("", "empty"),
            ("\n", "empty"),
            ("two words", "several words"),
            ("a\nb", "several words"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = KeySource::File(path.clone()).load().err().unwrap().to_string();
            assert!(error.contains(problem) && error.contains("key"), "{error}");
        }
        std::fs::write(&path, "  sk-1\n").unwrap();
        let key = KeySource::File(path).load().unwrap().unwrap();
        let (name, value) = KeyHeader::Bearer.build(&key).unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer sk-1"));
        assert!(!format!("{value:?}").contains("sk-1"));
        assert_eq!(
            KeyHeader::Named("api-key".into()).build(&key).unwrap().1.to_str().unwrap(),
            "sk-1"
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error =
            KeySource::Environment("POSTTRAIN_NO_SUCH_VARIABLE".into()).load().err().unwrap();
        assert!(error.to_string().contains("POSTTRAIN_NO_SUCH_VARIABLE"), "{error}");
        let error = KeySource::File("/no/such/key".into()).load().err().unwrap();
        assert_eq!(error.cause(), "no_key");
        assert!(error.to_string().contains("/no/such/key"), "{error}");
        assert!(KeySource::None.load().unwrap().is_none());
    }

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "sk/a+b-1234";
        let key = ApiKey(SecretString::from(secret.to_owned()));
        let secrets = Secrets::new(Some(&key), &[]);
        let spelled = [
            "sk/a+b-1234".to_owned(),
            "sk\\/a+b-1234".to_owned(),
            "sk\\u002fa\\u002bb\\u002d1234".to_owned(),
            "sk%2Fa%2Bb-1234".to_owned(),
            "sk%2fa%2bb-1234".to_owned(),
            "%73%6B%2F%61%2B%62%2D%31%32%33%34".to_owned(),
            STANDARD.encode(secret),
            STANDARD.encode(format!("Bearer {secret}")),
            STANDARD.encode(format!("token: {secret}, and more")),
            STANDARD.encode(format!("a {secret}")).replace('+', "-").replace('/', "_"),
        ];
        for text in spelled {
            let cleared = secrets.clear(&format!("<{text}>"));
            assert!(cleared.contains("[secret]"), "{text}: {cleared}");
        }
    }

    #[test]
    fn texts_are_cleared_of_every_secret() {
        let key = ApiKey(SecretString::from("sk-1234".to_owned()));
        let endpoints =
            ["http://me:hunter2@h/".parse().unwrap(), "http://h/?k=tok%2Fen".parse().unwrap()];
        let secrets = Secrets::new(Some(&key), &endpoints);
        let text = "Bearer sk-1234, Basic bWU6aHVudGVyMg==, hunter2, tok/en, tok%2Fen, sk-12";
        assert_eq!(
            secrets.clear(text),
            "Bearer [secret], Basic [secret], [secret], [secret], [secret], sk-12"
        );
        assert_eq!(secrets.excerpt("  a\nsk-1234 b", 10), "a [secret]…");
    }
}
