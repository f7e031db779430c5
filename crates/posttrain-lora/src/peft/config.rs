//! `adapter_config.json`: every field of PEFT's `LoraConfig` is honored, known to change nothing, or
//! refused by its name.

use super::targets::Targets;
use crate::config::scale;
use crate::{LoraConfig, LoraError};
use fancy_regex::Regex;
use serde_json::{Map, Value};
use std::path::Path;

/// The fields that are read.
const HONORED: [&str; 10] = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
];

/// Where an adapter comes from, how its training began, and on what it ran: at any value they change
/// nothing of what it computes.
const IMMATERIAL: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Options that change what an adapter computes, with the values (as JSON) at which they change
/// nothing.
const NEUTRAL: [(&str, &[&str], &str); 23] = [
    ("peft_type", &["\"LORA\""], "\"LORA\""),
    ("task_type", &["\"CAUSAL_LM\""], "\"CAUSAL_LM\" or null"),
    ("bias", &["\"none\""], "\"none\""),
    ("fan_in_fan_out", &["false"], "false"),
    // The others take something out of the base's weights before anything is trained.
    (
        "init_lora_weights",
        &["true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\"", "\"mica\""],
        "true, false, \"gaussian\", \"orthogonal\", \"eva\" or \"mica\", which leave the base as it is",
    ),
    ("use_dora", &["false"], "false"),
    ("lora_bias", &["false"], "false"),
    ("modules_to_save", &["[]"], "null"),
    ("trainable_token_indices", &["[]", "{}"], "null"),
    ("alora_invocation_tokens", &["[]"], "null"),
    ("layer_replication", &["[]"], "null: the base's own layers, each once"),
    (
        "target_parameters",
        &["[]"],
        "null: experts that are adapted all at once, as one parameter, are not read; those with a pair for each expert's layer are",
    ),
    ("use_qalora", &["false"], "false"),
    ("use_bdlora", &["false"], "null"),
    ("arrow_config", &[], "null"),
    ("kasa_config", &[], "null"),
    ("velora_config", &[], "null"),
    ("monteclora_config", &[], "null"),
    ("megatron_config", &[], "null"),
    ("ensure_weight_tying", &["false"], "false"),
    ("enable_lora", &[], "null"),
    ("num_virtual_tokens", &[], "null"),
    ("token_dim", &[], "null"),
];

/// What `adapter_config.json` says.
pub(super) struct PeftConfig {
    /// Everything but the targets.
    pub config: LoraConfig,
    pub targets: Targets,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
}

impl PeftConfig {
    pub fn read(path: &Path) -> Result<Self, LoraError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoraError::Io { path: path.into(), source })?;
        let map: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|source| LoraError::Json { path: path.into(), source })?;
        let fields = Fields { path, map };
        fields.refuse_what_is_not_neutral()?;

        let config = LoraConfig {
            rank: fields.field("r", "a whole number", Value::as_i64)?,
            alpha: fields.field("lora_alpha", "a number", Value::as_f64)?,
            use_rslora: fields
                .optional("use_rslora", "true or false", Value::as_bool)?
                .unwrap_or(false),
            dropout: fields.optional("lora_dropout", "a number", Value::as_f64)?.unwrap_or(0.0),
            ..LoraConfig::default()
        };
        config.validate()?;

        Ok(Self {
            config,
            targets: Targets::read(&fields)?,
            ranks: fields.patterns("rank_pattern")?,
            alphas: fields.patterns("alpha_pattern")?,
        })
    }

    pub fn rank_of(&self, module: &str) -> Result<i64, LoraError> {
        Ok(special(&self.ranks, module)?.map_or(self.config.rank, |rank| rank as i64))
    }

    pub fn scale_of(&self, module: &str, rank: i64) -> Result<f64, LoraError> {
        let alpha = special(&self.alphas, module)?.unwrap_or(self.config.alpha);
        Ok(scale(alpha, rank, self.config.use_rslora))
    }
}

/// The value of the first pattern that a module's path matches.
fn special(patterns: &[(Regex, f64)], module: &str) -> Result<Option<f64>, LoraError> {
    for (pattern, value) in patterns {
        if pattern.is_match(module).map_err(LoraError::pattern(pattern.as_str()))? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// The fields of the file, with errors that name it and them.
pub(super) struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    /// A field that is there and not null, which is PEFT's word for a field that is not set.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub fn unsupported(&self, field: &str, expected: &'static str) -> LoraError {
        let got = self.get(field).unwrap_or(&Value::Null).to_string();
        LoraError::Unsupported { path: self.path.into(), field: field.into(), expected, got }
    }

    pub fn optional<'a, T>(
        &'a self,
        name: &str,
        expected: &'static str,
        read: fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoraError> {
        match self.get(name) {
            Some(value) => read(value).map(Some).ok_or_else(|| self.unsupported(name, expected)),
            None => Ok(None),
        }
    }

    fn field<'a, T>(
        &'a self,
        name: &str,
        expected: &'static str,
        read: fn(&'a Value) -> Option<T>,
    ) -> Result<T, LoraError> {
        self.optional(name, expected, read)?.ok_or_else(|| self.unsupported(name, expected))
    }

    fn refuse_what_is_not_neutral(&self) -> Result<(), LoraError> {
        for (name, value) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            let name = name.as_str();
            if HONORED.contains(&name) || IMMATERIAL.contains(&name) {
                continue;
            }

            match NEUTRAL.iter().find(|(known, ..)| *known == name) {
                Some((_, neutral, _))
                    if neutral.contains(&value.to_string().to_lowercase().as_str())
                        || neutral.contains(&value.to_string().as_str()) => {}
                Some((_, _, expected)) => return Err(self.unsupported(name, expected)),
                None => {
                    return Err(self.unsupported(name, "absent: what it changes is not known"));
                }
            }
        }
        Ok(())
    }

    /// PEFT matches a pattern's key as `(.*\.)?(key)$`.
    fn patterns(&self, name: &str) -> Result<Vec<(Regex, f64)>, LoraError> {
        let expected = "a table of patterns to numbers above 0";
        let Some(table) = self.optional(name, expected, Value::as_object)? else {
            return Ok(Vec::new());
        };

        let pattern = |(key, value): (&String, &Value)| {
            let regex = Regex::new(&format!(r"^(.*\.)?({key})$")).ok()?;
            Some((regex, value.as_f64().filter(|value| *value > 0.0)?))
        };
        let patterns: Option<Vec<_>> = table.iter().map(pattern).collect();
        patterns.ok_or_else(|| self.unsupported(name, expected))
    }
}
