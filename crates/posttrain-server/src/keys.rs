//! Keys, and whom a request belongs to.

use crate::ServerError;
use crate::refusal::Refusal;
use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// Whose sessions, models and checkpoints a request may see: a name that follows from the key and
/// does not tell it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner(Arc<str>);

impl Owner {
    /// The owner of everything on a server without keys.
    pub fn local() -> Self {
        Self("local".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What one of its sessions is in the sharing of rows ([`posttrain_rollout::Request::client`]);
    /// the empty one is what comes without a session.
    pub fn client(&self, session: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self, session).hash(&mut hasher);
        hasher.finish()
    }

    /// The owner whose folder has this name.
    pub fn of_folder(name: &str) -> Self {
        Self(name.into())
    }

    fn of(digest: &[u8]) -> Self {
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self(name.into())
    }
}

/// The keys that a server takes. Only their digests are kept, and nothing prints them.
///
/// ```
/// use posttrain_server::Keys;
///
/// let file = tempfile::NamedTempFile::new().unwrap();
/// std::fs::write(file.path(), "# one a line\ntml-first-of-twenty-letters\n").unwrap();
/// let keys = Keys::read(file.path())?;
/// assert_eq!(format!("{keys:?}"), "Keys(1)");
/// # Ok::<(), posttrain_server::ServerError>(())
/// ```
#[derive(Clone)]
pub struct Keys {
    digests: Vec<[u8; 32]>,
    operators: Vec<Owner>,
}

/// What stands before an operator's key.
const OPERATOR: &str = "operator ";

/// Characters of a key at least: a short one is guessed.
const SHORTEST: usize = 16;

impl Keys {
    /// Reads a file with a key a line; empty lines and those that begin with `#` are left out. A line
    /// `operator KEY` has the key of somebody who may also say which version of a policy serves. The
    /// Tinker SDK takes only keys that begin with `tml-`.
    ///
    /// # Errors
    /// [`ServerError::Io`], or [`ServerError::Keys`] with the line that is none.
    pub fn read(path: &Path) -> Result<Self, ServerError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ServerError::Io { path: path.into(), source })?;
        let wrong = |line, expected| ServerError::Keys { path: path.into(), line, expected };

        let (mut digests, mut operators) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            let operator = key.strip_prefix(OPERATOR).map(str::trim);
            let key = operator.unwrap_or(key);
            if key.len() < SHORTEST || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong(index + 1, "a key of at least 16 visible ASCII characters"));
            }
            let digest = digest(key.as_bytes());
            operators.extend(operator.map(|_| Owner::of(&digest)));
            digests.push(digest);
        }

        if digests.is_empty() {
            return Err(wrong(1, "at least one key"));
        }
        Ok(Self { digests, operators })
    }

    /// Whether an owner is an operator.
    pub(crate) fn is_operator(&self, owner: &Owner) -> bool {
        self.operators.contains(owner)
    }

    /// The owner that a key belongs to. Every key is compared, each in constant time.
    fn owner(&self, key: &[u8]) -> Option<Owner> {
        let given = digest(key);
        let mut known = Choice::from(0);
        for digest in &self.digests {
            known |= digest.ct_eq(&given);
        }
        bool::from(known).then(|| Owner::of(&given))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Keys({})", self.digests.len())
    }
}

/// Whom a request belongs to: by `X-API-Key`, as the Tinker SDK sends it, or by
/// `Authorization: Bearer`, as OpenAI's clients do.
pub(crate) fn owner(keys: Option<&Keys>, headers: &HeaderMap) -> Result<Owner, Refusal> {
    let Some(keys) = keys else { return Ok(Owner::local()) };
    let bearer =
        headers.get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let key = headers.get("x-api-key").map(|value| value.as_bytes()).or(bearer);

    let Some(key) = key else {
        return Err(Refusal::unauthorized(
            "a key is needed: `X-API-Key` or `Authorization: Bearer`",
        ));
    };
    keys.owner(key).ok_or_else(|| Refusal::unauthorized("the key is not known here"))
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, ServerError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Keys::read(file.path())
    }

    fn asked(keys: &Keys, name: &'static str, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        owner(Some(keys), &headers).ok().map(|owner| owner.as_str().to_owned())
    }

    #[test]
    fn a_key_is_known_in_either_header_and_two_are_two_owners() {
        let keys = keys("tml-one-one-one-one\n\n# a comment\ntml-two-two-two-two\n").unwrap();
        let one = asked(&keys, "x-api-key", "tml-one-one-one-one").unwrap();
        let bearer = asked(&keys, "authorization", "Bearer tml-one-one-one-one").unwrap();
        let two = asked(&keys, "x-api-key", "tml-two-two-two-two").unwrap();
        assert_eq!(one, bearer);
        assert_ne!(one, two);

        for wrong in ["tml-one-one-one-on", "tml-one-one-one-one ", "# a comment", ""] {
            assert_eq!(asked(&keys, "x-api-key", wrong), None, "{wrong:?}");
        }
        assert!(owner(Some(&keys), &HeaderMap::new()).is_err());
    }

    #[test]
    fn an_operator_is_who_is_said_to_be_one() {
        let keys = keys("tml-one-one-one-one\noperator tml-two-two-two-two\n").unwrap();
        let is_operator = |key: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", key.parse().unwrap());
            keys.is_operator(&owner(Some(&keys), &headers).unwrap())
        };
        assert!(is_operator("tml-two-two-two-two") && !is_operator("tml-one-one-one-one"));
        assert!(super::tests::keys("operator short\n").is_err());
    }

    #[test]
    fn neither_an_error_nor_debug_tells_a_key() {
        let error = keys("tml-good-good-good\nshort\n").unwrap_err();
        assert!(matches!(error, ServerError::Keys { line: 2, .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("short"));
        assert!(keys("# none\n").is_err());
        let keys = keys("tml-secret-secret-secret").unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(1)");
    }
}
