//! Which model, at which revision.

use crate::HubError;
use std::fmt;

/// A model of the hub at a revision: a branch, a tag, or a commit, which alone is pinned for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `owner/name`.
    pub id: String,
    /// The revision.
    pub revision: String,
}

impl HubModel {
    /// From `owner/name`, at `main`, or `owner/name@revision`.
    ///
    /// # Errors
    /// [`HubError::Name`] for anything else.
    ///
    /// ```
    /// use posttrain_hub::HubModel;
    ///
    /// let model = HubModel::parse("Qwen/Qwen3-8B@refs/pr/1")?;
    /// assert_eq!((model.id.as_str(), model.revision.as_str()), ("Qwen/Qwen3-8B", "refs/pr/1"));
    /// assert_eq!(HubModel::parse("Qwen/Qwen3-8B")?.revision, "main");
    /// assert!(HubModel::parse("../Qwen3-8B").is_err());
    /// # Ok::<(), posttrain_hub::HubError>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self, HubError> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let plain = |part: &str| {
            let letters = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            letters && part.chars().any(|c| c.is_ascii_alphanumeric()) && !part.contains("..")
        };

        let named = id.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name));
        if named && !revision.is_empty() && revision.split('/').all(plain) {
            return Ok(Self { id: id.into(), revision: revision.into() });
        }
        Err(HubError::Name { name: name.into() })
    }

    /// Whether the revision is a commit.
    pub(crate) fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.chars().all(|c| c.is_ascii_hexdigit())
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.revision)
    }
}
