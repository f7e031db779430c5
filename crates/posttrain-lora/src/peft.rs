//! Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys and configuration are those of PEFT 0.21 (`peft/utils/save_and_load.py`): a tensor of
//! module `M` is `base_model.model.M.lora_A.weight`. The folders load in PEFT, vLLM and
//! transformers.

use crate::config::scale;
use crate::{Adapter, LoraConfig, LoraError, LoraPair, ModuleSpec, TargetModules};
use posttrain_store::replace_file;
use posttrain_tensor::{TensorError, read_tensors, write_tensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Options of PEFT that change what an adapter computes, with the values (as JSON) at which they
/// change nothing.
const NEUTRAL: [(&str, &[&str], &str); 8] = [
    ("peft_type", &["\"LORA\""], "\"LORA\""),
    ("bias", &["\"none\""], "\"none\""),
    ("fan_in_fan_out", &["false"], "false"),
    ("use_dora", &["false"], "false"),
    ("lora_bias", &["false"], "false"),
    ("modules_to_save", &["[]"], "null"),
    ("trainable_token_indices", &["[]", "{}"], "null"),
    ("alora_invocation_tokens", &["[]"], "null"),
];

/// Writes an adapter as a PEFT folder, made if it is not there; `base_model` is the name or path
/// that PEFT will look the base up by.
///
/// # Errors
/// [`LoraError::Io`] names what could not be written.
pub fn save_peft(adapter: &Adapter, dir: &Path, base_model: &str) -> Result<(), LoraError> {
    std::fs::create_dir_all(dir).map_err(|source| LoraError::Io { path: dir.into(), source })?;

    let tensors: Vec<_> =
        adapter.parameters().into_iter().map(|(n, t)| (format!("{PREFIX}{n}"), t)).collect();
    write_tensors(&dir.join(WEIGHTS), &tensors)?;

    let config = format!("{:#}\n", config_json(adapter, base_model));
    Ok(replace_file(&dir.join(CONFIG), config.as_bytes())?)
}

/// Reads a PEFT folder for a model that has `modules`. Ranks may differ from layer to layer
/// (`rank_pattern`).
///
/// # Errors
/// A key that no targeted module takes up, a targeted module without its two tensors, a shape that
/// does not fit, or an option that would change the result is an error naming it: never a silent
/// no-op.
pub fn load_peft(dir: &Path, modules: &[ModuleSpec], device: Device) -> Result<Adapter, LoraError> {
    let file = PeftConfig::read(&dir.join(CONFIG))?;
    let weights = dir.join(WEIGHTS);
    let mut tensors = read_tensors(&weights)?;

    let mut pairs: Vec<Option<LoraPair>> = modules.iter().map(|_| None).collect();
    for index in file.config.select(modules)? {
        let module = &modules[index];
        let a = take(&mut tensors, &weights, &module.path, "A")?;
        let b = take(&mut tensors, &weights, &module.path, "B")?;
        check_factors(&weights, module, file.rank_of(&module.path), [&a, &b])?;
        let scale = file.scale_of(&module.path, a.size()[0]);
        pairs[index] =
            Some(LoraPair { a: a.f_to_device(device)?, b: b.f_to_device(device)?, scale });
    }

    match tensors.into_keys().next() {
        Some(name) => Err(LoraError::UnmatchedTensor { path: weights, name }),
        None => Adapter::from_pairs(file.config, modules, pairs),
    }
}

fn take(
    tensors: &mut BTreeMap<String, Tensor>,
    path: &Path,
    module: &str,
    half: &str,
) -> Result<Tensor, LoraError> {
    let name = format!("{PREFIX}{module}.lora_{half}.weight");
    let missing = TensorError::MissingTensor { path: path.into(), name: name.clone() };
    Ok(tensors.remove(&name).ok_or(missing)?)
}

fn check_factors(
    path: &Path,
    module: &ModuleSpec,
    rank: i64,
    [a, b]: [&Tensor; 2],
) -> Result<(), LoraError> {
    let wanted = [("A", a, [rank, module.in_features]), ("B", b, [module.out_features, rank])];
    for (half, tensor, expected) in wanted {
        if tensor.size() != expected {
            let name = format!("{PREFIX}{}.lora_{half}.weight", module.path);
            return Err(TensorError::StoredTensor {
                path: path.into(),
                name,
                expected: format!("shape {expected:?}"),
                got: format!("shape {:?}", tensor.size()),
            }
            .into());
        }
    }
    Ok(())
}

fn config_json(adapter: &Adapter, base_model: &str) -> Value {
    let config = adapter.config();
    let (ranks, alphas) = patterns(adapter);
    json!({
        "alpha_pattern": alphas,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(config.alpha),
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": target_names(adapter),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.use_rslora,
    })
}

/// PEFT writes a whole α as an integer, and some loaders insist on one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// `all-linear` is written out as the modules' names, as PEFT does: other loaders know only names.
fn target_names(adapter: &Adapter) -> Vec<String> {
    if let TargetModules::Names(names) = &adapter.config().target_modules {
        return names.clone();
    }

    let mut names: Vec<String> = adapter.layers().map(|(m, _)| m.name().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The layers whose rank or α is not the configuration's, by full path.
fn patterns(adapter: &Adapter) -> (Map<String, Value>, Map<String, Value>) {
    let config = adapter.config();
    let mut ranks = Map::new();
    let mut alphas = Map::new();

    for (module, pair) in adapter.layers() {
        let rank = pair.a.size()[0];
        if rank != config.rank {
            ranks.insert(module.path.clone(), json!(rank));
        }
        if pair.scale != scale(config.alpha, rank, config.use_rslora) {
            let divisor = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            alphas.insert(module.path.clone(), number(pair.scale * divisor));
        }
    }
    (ranks, alphas)
}

/// What `adapter_config.json` says.
struct PeftConfig {
    config: LoraConfig,
    ranks: Vec<(regex::Regex, f64)>,
    alphas: Vec<(regex::Regex, f64)>,
}

impl PeftConfig {
    fn read(path: &Path) -> Result<Self, LoraError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoraError::Io { path: path.into(), source })?;
        let fields: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|source| LoraError::Json { path: path.into(), source })?;
        refuse_what_is_not_neutral(path, &fields)?;

        let config = LoraConfig {
            rank: field(path, &fields, "r", "a whole number", Value::as_i64)?,
            alpha: field(path, &fields, "lora_alpha", "a number", Value::as_f64)?,
            use_rslora: optional(path, &fields, "use_rslora", "true or false", Value::as_bool)?
                .unwrap_or(false),
            dropout: optional(path, &fields, "lora_dropout", "a number", Value::as_f64)?
                .unwrap_or(0.0),
            target_modules: targets(path, &fields)?,
        };
        config.validate()?;

        let ranks = patterns_of(path, &fields, "rank_pattern")?;
        Ok(Self { config, ranks, alphas: patterns_of(path, &fields, "alpha_pattern")? })
    }

    fn rank_of(&self, module: &str) -> i64 {
        let special = self.ranks.iter().find(|(pattern, _)| pattern.is_match(module));
        special.map_or(self.config.rank, |&(_, rank)| rank as i64)
    }

    fn scale_of(&self, module: &str, rank: i64) -> f64 {
        let special = self.alphas.iter().find(|(pattern, _)| pattern.is_match(module));
        let alpha = special.map_or(self.config.alpha, |&(_, alpha)| alpha);
        scale(alpha, rank, self.config.use_rslora)
    }
}

fn refuse_what_is_not_neutral(path: &Path, fields: &Map<String, Value>) -> Result<(), LoraError> {
    for (name, neutral, expected) in NEUTRAL {
        if let Some(value) = fields.get(name).filter(|v| !v.is_null())
            && !neutral.contains(&value.to_string().as_str())
        {
            return Err(unsupported(path, name, expected, value));
        }
    }
    Ok(())
}

fn unsupported(path: &Path, field: &str, expected: &'static str, got: &Value) -> LoraError {
    LoraError::Unsupported {
        path: path.into(),
        field: field.into(),
        expected,
        got: got.to_string(),
    }
}

fn optional<'a, T>(
    path: &Path,
    fields: &'a Map<String, Value>,
    name: &str,
    expected: &'static str,
    read: fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, LoraError> {
    match fields.get(name).filter(|v| !v.is_null()) {
        Some(value) => {
            read(value).map(Some).ok_or_else(|| unsupported(path, name, expected, value))
        }
        None => Ok(None),
    }
}

fn field<'a, T>(
    path: &Path,
    fields: &'a Map<String, Value>,
    name: &str,
    expected: &'static str,
    read: fn(&'a Value) -> Option<T>,
) -> Result<T, LoraError> {
    optional(path, fields, name, expected, read)?
        .ok_or_else(|| unsupported(path, name, expected, &Value::Null))
}

fn targets(path: &Path, fields: &Map<String, Value>) -> Result<TargetModules, LoraError> {
    let value = fields.get("target_modules").unwrap_or(&Value::Null);
    let names = "\"all-linear\" or a list of module names";
    let targets = serde_json::from_value(value.clone())
        .map_err(|_| unsupported(path, "target_modules", names, value))?;

    match &targets {
        // A lone string is a regular expression to PEFT; only plain names are taken here.
        TargetModules::Names(list)
            if list.iter().any(|n| n.contains(['*', '(', '|', '\\', '['])) =>
        {
            Err(unsupported(path, "target_modules", names, value))
        }
        _ => Ok(targets),
    }
}

/// PEFT matches a pattern's key as `(.*\.)?(key)$`.
fn patterns_of(
    path: &Path,
    fields: &Map<String, Value>,
    name: &str,
) -> Result<Vec<(regex::Regex, f64)>, LoraError> {
    let expected = "a table of patterns to numbers";
    let Some(table) = optional(path, fields, name, expected, Value::as_object)? else {
        return Ok(Vec::new());
    };

    let mut patterns = Vec::with_capacity(table.len());
    for (key, value) in table {
        let regex = regex::Regex::new(&format!(r"^(.*\.)?({key})$")).ok();
        match regex.zip(value.as_f64()) {
            Some(pattern) => patterns.push(pattern),
            None => return Err(unsupported(path, name, expected, value)),
        }
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<ModuleSpec> {
        vec![
            ModuleSpec::new("model.layers.0.q_proj", 4, 4),
            ModuleSpec::new("model.layers.0.up_proj", 4, 6),
        ]
    }

    fn saved(dir: &Path) -> Adapter {
        let config = LoraConfig { rank: 2, alpha: 3.0, ..LoraConfig::default() };
        let adapter = Adapter::init(&config, &modules(), 1, Device::Cpu).unwrap();
        save_peft(&adapter, dir, "base").unwrap();
        adapter
    }

    fn edit(dir: &Path, field: &str, value: Value) {
        let path = dir.join(CONFIG);
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[field] = value;
        std::fs::write(path, json.to_string()).unwrap();
    }

    fn load_error(dir: &Path) -> String {
        load_peft(dir, &modules(), Device::Cpu).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = saved(dir.path());
        let loaded = load_peft(dir.path(), &modules(), Device::Cpu).unwrap();
        for ((module, p), (_, q)) in adapter.layers().zip(loaded.layers()) {
            assert_eq!((&p.a, &p.b, p.scale), (&q.a, &q.b, q.scale), "{}", module.path);
        }
    }

    #[test]
    fn alpha_patterns_change_the_scale_and_survive_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        edit(dir.path(), "alpha_pattern", json!({"up_proj": 8}));
        let loaded = load_peft(dir.path(), &modules(), Device::Cpu).unwrap();
        let scales = |a: &Adapter| a.layers().map(|(_, p)| p.scale).collect::<Vec<_>>();
        assert_eq!(scales(&loaded), [1.5, 4.0]);
        save_peft(&loaded, dir.path(), "base").unwrap();
        assert_eq!(scales(&load_peft(dir.path(), &modules(), Device::Cpu).unwrap()), [1.5, 4.0]);
    }

    #[test]
    fn options_that_would_change_the_result_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        for (field, value) in [
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
        ] {
            edit(dir.path(), field, value);
            assert!(load_error(dir.path()).contains(field));
            saved(dir.path());
        }
        edit(dir.path(), "r", json!(8));
        assert!(load_error(dir.path()).contains("expected shape [8, 4], got shape [2, 4]"));
        edit(dir.path(), "r", json!("two"));
        assert!(load_error(dir.path()).contains("`r`"));
    }

    #[test]
    fn missing_unmatched_and_misshapen_tensors_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = saved(dir.path());
        let weights = dir.path().join(WEIGHTS);
        let all: Vec<_> =
            adapter.parameters().into_iter().map(|(n, t)| (format!("{PREFIX}{n}"), t)).collect();
        write_tensors(&weights, &all[1..]).unwrap();
        assert!(load_error(dir.path()).contains("q_proj.lora_A.weight` is missing"));

        let mut extra: Vec<_> = all.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        extra.push((
            format!("{PREFIX}model.layers.1.q_proj.lora_A.weight"),
            Tensor::from_slice(&[0f32]),
        ));
        write_tensors(&weights, &extra).unwrap();
        assert!(
            load_error(dir.path())
                .contains("model.layers.1.q_proj.lora_A.weight` matches no layer")
        );

        let mut bent: Vec<_> = all.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        bent[0].1 = bent[0].1.transpose(0, 1);
        write_tensors(&weights, &bent).unwrap();
        assert!(load_error(dir.path()).contains("q_proj.lora_A.weight"));
    }
}
