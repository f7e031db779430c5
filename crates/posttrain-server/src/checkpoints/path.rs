//! What a checkpoint is for, and how clients name it.

use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckpointKind {
    /// To go on training from: adapter and optimizer.
    Weights,
    /// To sample from: the adapter alone.
    SamplerWeights,
    /// To take away: the adapter as a PEFT folder.
    ExternalWeights,
}

impl CheckpointKind {
    pub(super) const ALL: [Self; 3] = [Self::Weights, Self::SamplerWeights, Self::ExternalWeights];

    /// The request that writes one.
    pub fn request(self) -> &'static str {
        match self {
            Self::Weights => "save_weights",
            Self::SamplerWeights => "save_weights_for_sampler",
            Self::ExternalWeights => "save_weights_external",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::SamplerWeights => "sampler_weights",
            Self::ExternalWeights => "external_weights",
        }
    }

    /// The word that the SDK knows it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weights => "training",
            Self::SamplerWeights => "sampler",
            Self::ExternalWeights => "external",
        }
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a checkpoint is, as clients write it: `tinker://RUN/KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CheckpointPath {
    pub run: String,
    pub kind: CheckpointKind,
    pub name: String,
}

impl CheckpointPath {
    /// A path whose name may be a folder's.
    pub fn new(run: &str, kind: CheckpointKind, name: &str) -> Result<Self, Refusal> {
        check_name("path", name)?;
        check_name("training run", run)?;
        Ok(Self { run: run.into(), kind, name: name.into() })
    }

    /// The part of it that the SDK calls a checkpoint's id.
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for CheckpointPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tinker://{}/{}/{}", self.run, self.kind.as_str(), self.name)
    }
}

impl FromStr for CheckpointPath {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let expected =
            "tinker://RUN/KIND/NAME, of the kinds weights, sampler_weights and external_weights";
        let wrong = || Refusal::field("path", expected, text);
        let rest = text.strip_prefix("tinker://").ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [run, kind, name] = parts.as_slice() else { return Err(wrong()) };
        Self::new(run, CheckpointKind::read(kind).ok_or_else(wrong)?, name)
    }
}

/// A folder's name: nothing that leaves its folder, hides, or is too long.
fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if name.is_empty() || name.len() > 160 || name.starts_with('.') || !name.bytes().all(plain) {
        let expected = "1 to 160 of the characters a-z, A-Z, 0-9, -, _, . and :, none of them a . at the beginning";
        return Err(Refusal::field(field, expected, format!("{name:?}")));
    }
    // Names that the store itself gives.
    if name.ends_with(".old") {
        return Err(Refusal::field(field, "a name that does not end in .old", format!("{name:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_is_written_and_none_leaves_the_folder() {
        let path: CheckpointPath = "tinker://a:train:0/weights/000010".parse().unwrap();
        assert_eq!(path.to_string(), "tinker://a:train:0/weights/000010");
        assert_eq!(path.id(), "weights/000010");
        for wrong in [
            "tinker://a/weights/..",
            "tinker://../weights/x",
            "tinker://a/weights/.hidden",
            "tinker://a/weights/x.old",
            "tinker://a/weights/x/y",
            "tinker://a/other/x",
            "tinker://a/weights/",
            "tinker://a/weights/\u{0}",
            "a/weights/x",
        ] {
            assert!(wrong.parse::<CheckpointPath>().is_err(), "{wrong}");
        }
    }
}
