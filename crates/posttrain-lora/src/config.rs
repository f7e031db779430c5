//! What an adapter is: rank, scale, dropout, targets.

use crate::{LoraError, ModuleSpec};
use serde::{Deserialize, Serialize};

/// Which linear layers carry an adapter.
///
/// In a file either the string `"all-linear"` or a list of names; a name matches a module whose
/// path is it or ends in `.name` (PEFT's rule).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TargetModules {
    /// Every linear layer but the head, as PEFT's `all-linear`; the head's name in a list
    /// (`lm_head`) targets it.
    #[default]
    AllLinear,
    /// The modules of these names.
    Names(Vec<String>),
}

impl TargetModules {
    /// Whether a module is targeted.
    ///
    /// ```
    /// use posttrain_lora::{ModuleSpec, TargetModules};
    /// let q = ModuleSpec::new("model.layers.0.self_attn.q_proj", 4, 4);
    /// assert!(TargetModules::AllLinear.matches(&q));
    /// assert!(TargetModules::Names(vec!["q_proj".into()]).matches(&q));
    /// assert!(!TargetModules::Names(vec!["proj".into()]).matches(&q));
    /// let head = ModuleSpec::new("lm_head", 4, 9).head();
    /// assert!(!TargetModules::AllLinear.matches(&head));
    /// assert!(TargetModules::Names(vec!["lm_head".into()]).matches(&head));
    /// ```
    #[must_use]
    pub fn matches(&self, module: &ModuleSpec) -> bool {
        match self {
            Self::AllLinear => !module.head,
            Self::Names(names) => names.iter().any(|name| is_suffix(&module.path, name)),
        }
    }
}

/// `path` is `name` or ends in `.name`.
pub(crate) fn is_suffix(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

impl Serialize for TargetModules {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str("all-linear"),
            Self::Names(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TargetModules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            Names(Vec<String>),
        }

        match Form::deserialize(deserializer)? {
            Form::Word(word) if word == "all-linear" => Ok(Self::AllLinear),
            Form::Word(word) => Ok(Self::Names(vec![word])),
            Form::Names(names) => Ok(Self::Names(names)),
        }
    }
}

/// The shape of an adapter.
///
/// Defaults follow tinker-cookbook (`rl/train.py`: rank 32, α 32, no dropout, every linear layer).
/// Since `s = α/R`, a good learning rate hardly depends on the rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank `R` of the update, 1 and up.
    pub rank: i64,
    /// α of the scale, above 0.
    pub alpha: f64,
    /// `s = α/√R` in place of `α/R` (rank-stabilized LoRA, <https://arxiv.org/abs/2312.03732>).
    pub use_rslora: bool,
    /// Probability of dropping an input of `A` in training, in `[0, 1)`.
    pub dropout: f64,
    /// The layers adapted.
    pub target_modules: TargetModules,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            alpha: 32.0,
            use_rslora: false,
            dropout: 0.0,
            target_modules: TargetModules::AllLinear,
        }
    }
}

impl LoraConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`LoraError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), LoraError> {
        check("rank", self.rank >= 1 && self.rank <= 65_536, "from 1 to 65536", &self.rank)?;
        check(
            "alpha",
            self.alpha.is_finite() && self.alpha > 0.0,
            "finite and above 0",
            &self.alpha,
        )?;
        check(
            "dropout",
            (0.0..1.0).contains(&self.dropout),
            "at least 0 and below 1",
            &self.dropout,
        )?;

        match &self.target_modules {
            TargetModules::Names(names) => {
                check("target_modules", !names.is_empty(), "at least one name", "[]")
            }
            TargetModules::AllLinear => Ok(()),
        }
    }

    /// The scale `s`: `α/R`, or `α/√R` with `use_rslora`.
    ///
    /// ```
    /// use posttrain_lora::LoraConfig;
    /// let config = LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() };
    /// assert_eq!(config.scale(), 2.0);
    /// assert_eq!(LoraConfig { use_rslora: true, ..config }.scale(), 8.0);
    /// ```
    #[must_use]
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.rank, self.use_rslora)
    }

    /// The indices of the targeted modules.
    ///
    /// # Errors
    /// [`LoraError::UnknownTarget`] if a name matches nothing: an adapter that silently adapts less
    /// is a defect.
    pub fn select(&self, modules: &[ModuleSpec]) -> Result<Vec<usize>, LoraError> {
        if let TargetModules::Names(names) = &self.target_modules {
            for name in names {
                if !modules.iter().any(|m| is_suffix(&m.path, name)) {
                    return Err(unknown_target(name, modules));
                }
            }
        }

        Ok((0..modules.len()).filter(|&i| self.target_modules.matches(&modules[i])).collect())
    }
}

/// `α/R`, or `α/√R` where rank-stabilized.
pub(crate) fn scale(alpha: f64, rank: i64, use_rslora: bool) -> f64 {
    if use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
}

fn check(
    field: &'static str,
    ok: bool,
    expected: &'static str,
    got: &(impl ToString + ?Sized),
) -> Result<(), LoraError> {
    if ok { Ok(()) } else { Err(LoraError::Config { field, expected, got: got.to_string() }) }
}

pub(crate) fn unknown_target(target: &str, modules: &[ModuleSpec]) -> LoraError {
    let mut known: Vec<&str> = modules.iter().map(ModuleSpec::name).collect();
    known.sort_unstable();
    known.dedup();
    LoraError::UnknownTarget { target: target.into(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_matches_nothing_is_an_error() {
        let modules = [ModuleSpec::new("model.layers.0.mlp.up_proj", 2, 2)];
        let config = LoraConfig {
            target_modules: TargetModules::Names(vec!["w1".into()]),
            ..LoraConfig::default()
        };
        let error = config.select(&modules).unwrap_err().to_string();
        assert!(error.contains("`w1`") && error.contains("up_proj"), "{error}");
    }

    #[test]
    fn ranges_are_checked_by_field() {
        for (config, field) in [
            (LoraConfig { rank: 0, ..LoraConfig::default() }, "rank"),
            (LoraConfig { alpha: f64::NAN, ..LoraConfig::default() }, "alpha"),
            (LoraConfig { dropout: 1.0, ..LoraConfig::default() }, "dropout"),
            (
                LoraConfig {
                    target_modules: TargetModules::Names(vec![]),
                    ..LoraConfig::default()
                },
                "target_modules",
            ),
        ] {
            assert!(config.validate().unwrap_err().to_string().contains(field));
        }
    }

    #[test]
    fn targets_read_and_write_as_in_peft() {
        let all: TargetModules = serde_json::from_str("\"all-linear\"").unwrap();
        assert_eq!(all, TargetModules::AllLinear);
        let names: TargetModules = serde_json::from_str("[\"q_proj\"]").unwrap();
        assert_eq!(serde_json::to_string(&names).unwrap(), "[\"q_proj\"]");
    }
}
