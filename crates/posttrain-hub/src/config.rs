//! Where the hub is, where its files are kept, and who asks.

use crate::HubError;
use secrecy::SecretString;
use std::path::PathBuf;

/// How the hub is reached. Printed for debugging, it shows no token.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The hub's address.
    pub endpoint: String,
    /// The cache, in the layout of Python's `huggingface_hub`, which shares it.
    pub cache: PathBuf,
    /// Whether nothing may be asked of the network.
    pub offline: bool,
    /// Files that come at the same time, 1 and up.
    pub parallel: usize,
    /// Attempts after the first, for a file whose connection broke; each goes on where the last
    /// ended.
    pub retries: usize,
    /// The user's token.
    pub token: Option<SecretString>,
    /// Which of a model's files are brought.
    pub files: Files,
}

/// Which of a model's files are brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Files {
    /// All that a model is loaded from.
    #[default]
    All,
    /// Configuration, tokenizer and chat template: what a run is planned by. The branch is not
    /// recorded in the cache then, since it leads only to commits that are whole.
    BesideWeights,
}

impl HubConfig {
    /// A cache at `cache`, the public hub, no token.
    ///
    /// ```
    /// let config = posttrain_hub::HubConfig::new("/tmp/hub".into());
    /// assert_eq!(config.endpoint, "https://huggingface.co");
    /// ```
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache,
            offline: false,
            parallel: 4,
            retries: 3,
            token: None,
            files: Files::All,
        }
    }

    /// From the variables that `huggingface_hub` reads: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`
    /// (by default `~/.cache/huggingface`), `HF_HUB_OFFLINE`, `HF_TOKEN`, and without that the file
    /// `token` in `HF_HOME`.
    ///
    /// # Errors
    /// [`HubError::Environment`] names a variable that makes no sense.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|v| !v.trim().is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let home = || {
            let own = get("HF_HOME").map(PathBuf::from);
            own.or_else(|| {
                Some(
                    PathBuf::from(get("HOME").or_else(|| get("USERPROFILE"))?)
                        .join(".cache/huggingface"),
                )
            })
        };

        let cache = get("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(home()?.join("hub")))
            .ok_or_else(|| HubError::Environment {
                variable: "HF_HOME",
                expected: "a folder",
                got: String::new(),
            })?;

        let mut config = Self::new(cache);
        if let Some(endpoint) = get("HF_ENDPOINT") {
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                return Err(HubError::Environment {
                    variable: "HF_ENDPOINT",
                    expected: "an address",
                    got: endpoint,
                });
            }
            config.endpoint = endpoint.trim_end_matches('/').into();
        }

        config.offline = get("HF_HUB_OFFLINE")
            .is_some_and(|v| ["1", "on", "yes", "true"].contains(&&*v.to_lowercase()));

        let token = get("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(home()?.join("token")).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        config.token = token.map(SecretString::from);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        let find =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        HubConfig::from_variables(find)
    }

    #[test]
    fn the_variables_are_pythons() {
        let config = read(&[("HOME", "/home/a"), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert_eq!(config.cache, PathBuf::from("/home/a/.cache/huggingface/hub"));
        assert!(!config.offline && config.token.is_some());
        assert!(!format!("{config:?}").contains("hf_secret"));
        let config =
            read(&[("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://x:1/")])
                .unwrap();
        assert_eq!(
            (config.cache, config.endpoint.as_str(), config.offline),
            ("/hf/hub".into(), "http://x:1", true)
        );
        assert_eq!(read(&[("HF_HUB_CACHE", "/c")]).unwrap().cache, PathBuf::from("/c"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(read(&[]).unwrap_err().to_string().contains("HF_HOME"));
        assert!(
            read(&[("HOME", "/a"), ("HF_ENDPOINT", "hub")])
                .unwrap_err()
                .to_string()
                .contains("HF_ENDPOINT")
        );
    }
}
