//! A server's address, which may carry secrets and never shows them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ChatError;

/// Stands for what is not shown.
const HIDDEN: &str = "***";

/// A server's base address, such as `http://localhost:8000/v1`.
///
/// It may carry a user and password (sent as basic authentication) and query parameters (sent with
/// every request), both of which may be secrets: `Debug`, `Display` and `Serialize` show neither,
/// and reading back a hidden one is an error.
///
/// ```
/// use posttrain_chat::client::Endpoint;
///
/// let endpoint: Endpoint = "https://me:secret@host/v1?key=secret".parse()?;
/// assert_eq!(endpoint.to_string(), "https://***@host/v1?key=***");
/// assert!(endpoint.to_string().parse::<Endpoint>().is_err());
/// assert!("localhost:8000".parse::<Endpoint>().is_err(), "without http:// it is not an address");
/// # Ok::<(), posttrain_chat::ChatError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// The address with `path` behind it, without the user information.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!(
            "{}/{}",
            self.url.path().trim_end_matches('/'),
            path.trim_start_matches('/')
        ));
        url.set_fragment(None);
        // Only an address without a host refuses these, and parsing has refused it first.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }

    /// User and password, percent-decoded.
    pub(crate) fn user(&self) -> Option<(String, String)> {
        let decode = |text: &str| percent_decoded(text);
        let given = !self.url.username().is_empty() || self.url.password().is_some();
        given
            .then(|| (decode(self.url.username()), decode(self.url.password().unwrap_or_default())))
    }

    /// Every text in the address that might be a secret, as written and decoded.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = self.url.password().map(str::to_owned).into_iter().collect();
        secrets.extend(
            [self.url.username().to_owned()].into_iter().filter(|_| self.url.password().is_none()),
        );
        secrets.extend(self.user().map(|(_, password)| password));
        secrets.extend(self.url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.extend(self.url.query().unwrap_or_default().split('&').filter_map(|pair| {
            let (_, value) = pair.split_once('=')?;
            Some(value.to_owned())
        }));
        secrets
    }

    /// Whether the server is this machine, by its address or by the name `localhost`.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    pub(crate) fn as_url(&self) -> &Url {
        &self.url
    }
}

fn percent_decoded(text: &str) -> String {
    let pair = format!("http://x/?x={}", text.replace('+', "%2B"));
    let decoded = Url::parse(&pair)
        .ok()
        .and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()));
    decoded.unwrap_or_else(|| text.to_owned())
}

impl FromStr for Endpoint {
    type Err = ChatError;

    fn from_str(text: &str) -> Result<Self, ChatError> {
        // What came is not shown: it may be a secret in the wrong place.
        let wrong =
            |expected| ChatError::invalid_config("endpoint", "another text (not shown)", expected);
        let url = Url::parse(text.trim())
            .map_err(|_| wrong("an address such as http://localhost:8000/v1"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("an address that begins with http:// or https:// and names a host"));
        }
        let hidden =
            url.username() == HIDDEN || url.query_pairs().any(|(_, value)| value == HIDDEN);
        if hidden {
            return Err(wrong("an address in full: this one was written without its secrets"));
        }
        Ok(Self { url })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.user().is_some() { "***@" } else { "" };
        write!(out, "{}://{user}{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(out, ":{port}")?;
        }
        out.write_str(self.url.path().trim_end_matches('/'))?;
        for (index, (name, value)) in self.url.query_pairs().enumerate() {
            // A parameter without a value may be the secret itself.
            let shown = if value.is_empty() { HIDDEN.into() } else { format!("{name}={HIDDEN}") };
            write!(out, "{}{shown}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Endpoint({self})")
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_behind_the_base_and_the_query_kept() {
        let endpoint: Endpoint =
            "http://me:p%40ss@localhost:8000/v1/?api-version=7".parse().unwrap();
        assert_eq!(
            endpoint.join("/chat/completions").as_str(),
            "http://localhost:8000/v1/chat/completions?api-version=7"
        );
        assert_eq!(endpoint.user(), Some(("me".into(), "p@ss".into())));
        assert!(endpoint.is_loopback());
        let bare: Endpoint = "http://[::1]:9".parse().unwrap();
        assert_eq!(bare.join("x").as_str(), "http://[::1]:9/x");
        assert!(bare.is_loopback() && bare.user().is_none());
        assert_eq!(bare.to_string(), "http://[::1]:9");
    }

    #[test]
    fn secrets_are_listed_raw_and_decoded_and_never_shown() {
        let endpoint: Endpoint = "https://user:p%40ss@h/v1?key=a%2Fb&flag".parse().unwrap();
        let secrets = endpoint.secrets();
        for secret in ["p%40ss", "p@ss", "a/b", "a%2Fb"] {
            assert!(secrets.iter().any(|s| s == secret), "{secret} in {secrets:?}");
        }
        let shown =
            format!("{endpoint} {endpoint:?} {}", serde_json::to_string(&endpoint).unwrap());
        assert!(!secrets.iter().filter(|s| !s.is_empty()).any(|s| shown.contains(s)), "{shown}");
        assert!(!shown.contains("flag") && !shown.contains("user"), "{shown}");
    }

    #[test]
    fn a_mistake_does_not_show_what_came() {
        for text in ["sk-123456", "ftp://sk-123456@host", "sk-123456:8000", ""] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sk-123456"), "{error}");
        }
    }
}
