//! Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys and configuration are those of PEFT 0.21 (`peft/utils/save_and_load.py`): a tensor of
//! module `M` is `base_model.model.M.lora_A.weight`. The folders load in PEFT, vLLM and
//! transformers.

mod config;
mod targets;

use crate::config::scale;
use crate::{Adapter, LoraConfig, LoraError, LoraPair, ModuleSpec, TargetModules};
use config::PeftConfig;
use posttrain_store::replace_file;
use posttrain_tensor::{TensorError, read_tensors, write_tensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

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
/// (`rank_pattern`), targets may be names or a regular expression (`target_modules`,
/// `exclude_modules`, `layers_to_transform`, with PEFT's meaning).
///
/// # Errors
/// A key that no targeted module takes up, a targeted module without its two tensors, a shape that
/// does not fit, or a field that changes the result and is not computed is an error naming it: never
/// a silent no-op.
pub fn load_peft(dir: &Path, modules: &[ModuleSpec], device: Device) -> Result<Adapter, LoraError> {
    load_peft_on(dir, modules, device, |_| None)
}

/// [`load_peft`], for a model whose weights `base` gives by the path of their module.
///
/// Beside an adapter on the head PEFT saves the base's own weight. It is taken for what it is where
/// it equals the model's.
///
/// # Errors
/// Those of [`load_peft`], and [`LoraError::OtherBase`] for a weight that is not the model's.
pub fn load_peft_on<'a>(
    dir: &Path,
    modules: &[ModuleSpec],
    device: Device,
    base: impl Fn(&str) -> Option<&'a Tensor>,
) -> Result<Adapter, LoraError> {
    let file = PeftConfig::read(&dir.join(CONFIG))?;
    let weights = dir.join(WEIGHTS);
    let mut tensors = read_tensors(&weights)?;

    let selected = file.targets.select(modules)?;
    let target_modules = file.targets.as_names(&selected, modules);
    let mut pairs: Vec<Option<LoraPair>> = modules.iter().map(|_| None).collect();
    for index in selected {
        let module = &modules[index];
        let a = take(&mut tensors, &weights, &module.path, "A")?;
        let b = take(&mut tensors, &weights, &module.path, "B")?;
        check_factors(&weights, module, file.rank_of(&module.path)?, [&a, &b])?;
        let scale = file.scale_of(&module.path, a.size()[0])?;
        pairs[index] =
            Some(LoraPair { a: a.f_to_device(device)?, b: b.f_to_device(device)?, scale });
    }

    for (name, tensor) in tensors {
        match base_path(&name).and_then(&base) {
            Some(weight) => check_base(&weights, &name, &tensor, weight)?,
            None => return Err(LoraError::UnmatchedTensor { path: weights, name }),
        }
    }
    Adapter::from_pairs(LoraConfig { target_modules, ..file.config }, modules, pairs)
}

/// The path of the module that a weight of the base beside an adapter is of.
fn base_path(name: &str) -> Option<&str> {
    let path = name.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    Some(path.strip_suffix(".base_layer").unwrap_or(path))
}

/// Checks that a stored weight is the model's, in the kind that the model keeps it in.
fn check_base(path: &Path, name: &str, stored: &Tensor, weight: &Tensor) -> Result<(), LoraError> {
    let differing = if stored.size() == weight.size() {
        let stored = stored.f_to_device(weight.device())?.f_to_kind(weight.kind())?;
        stored.f_ne_tensor(weight)?.f_count_nonzero(None)?.f_int64_value(&[])? as usize
    } else {
        stored.numel()
    };

    match differing {
        0 => Ok(()),
        _ => Err(LoraError::OtherBase { path: path.into(), name: name.into(), differing }),
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
            ("init_lora_weights", json!("pissa")),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("corda")),
            ("init_lora_weights", json!("loftq")),
            ("init_lora_weights", json!("lora_ga")),
            ("layer_replication", json!([[0, 2]])),
            ("use_qalora", json!(true)),
            ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
            ("use_bdlora", json!({"nblocks": 2})),
            ("arrow_config", json!({"top_k": 3})),
            ("kasa_config", json!({})),
            ("velora_config", json!({})),
            ("monteclora_config", json!({})),
            ("megatron_config", json!({})),
            ("alora_invocation_tokens", json!([1, 2])),
            ("trainable_token_indices", json!([1])),
            ("lora_bias", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("ensure_weight_tying", json!(true)),
            ("peft_type", json!("ADALORA")),
            ("task_type", json!("SEQ_CLS")),
            ("a_field_of_tomorrow", json!(1)),
            ("exclude_modules", json!("(")),
            ("layers_to_transform", json!("first")),
            ("layers_pattern", json!("layers")),
            ("target_modules", json!([])),
            ("target_modules", json!(".*(q_proj")),
            ("target_modules", json!("q_proj)|(up_proj")),
            ("rank_pattern", json!({"q_proj": -2})),
        ] {
            edit(dir.path(), field, value.clone());
            let error = load_error(dir.path());
            assert!(error.contains(&format!("`{field}`")), "{field} = {value}: {error}");
            saved(dir.path());
        }
        edit(dir.path(), "r", json!(8));
        assert!(load_error(dir.path()).contains("expected shape [8, 4], got shape [2, 4]"));
        edit(dir.path(), "r", json!("two"));
        assert!(load_error(dir.path()).contains("`r`"));
    }

    /// What PEFT 0.21.2 writes of a plain adapter, and how its training may have begun.
    #[test]
    fn options_that_change_nothing_are_read_past() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        for (field, value) in [
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!("orthogonal")),
            ("init_lora_weights", json!(false)),
            ("qalora_group_size", json!(16)),
            ("megatron_core", json!("megatron.core")),
            ("loftq_config", json!({})),
            ("eva_config", json!({"rho": 2.0})),
            ("auto_mapping", json!({"base_model_class": "PeftModel", "unsloth_fixed": true})),
            ("peft_version", json!("0.21.2")),
            ("a_field_of_tomorrow", Value::Null),
            ("layers_to_transform", json!([])),
        ] {
            edit(dir.path(), field, value);
            load_peft(dir.path(), &modules(), Device::Cpu).unwrap();
        }
    }

    fn stack() -> Vec<ModuleSpec> {
        let blocks = (0..3).flat_map(|layer| {
            ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"]
                .map(|name| ModuleSpec::new(format!("model.layers.{layer}.{name}"), 4, 4))
        });
        blocks.chain([ModuleSpec::new("lm_head", 4, 9).head()]).collect()
    }

    /// The paths that a configuration of these fields targets, shortened: `1.q` for layer 1's query.
    fn targeted(fields: &Value) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 2});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();

        let config = PeftConfig::read(&dir.path().join(CONFIG)).unwrap();
        let modules = stack();
        let selected = config.targets.select(&modules).unwrap();
        // What is written back targets the same.
        let target_modules = config.targets.as_names(&selected, &modules);
        let names = LoraConfig { target_modules, ..LoraConfig::default() };
        assert_eq!(names.select(&modules).unwrap(), selected, "{fields}");

        let short = |path: &str| {
            let layer = path.split('.').nth(2).unwrap_or("head");
            format!("{layer}.{}", &path.rsplit('.').next().unwrap()[..1])
        };
        selected.iter().map(|&index| short(&modules[index].path)).collect()
    }

    #[test]
    fn targets_are_pefts() {
        let cases = [
            (json!({"target_modules": "all-linear"}), "0.q 0.o 0.u 1.q 1.o 1.u 2.q 2.o 2.u"),
            (json!({"target_modules": ["q_proj", "lm_head"]}), "0.q 1.q 2.q head.l"),
            // A regular expression matches a path as a whole.
            (json!({"target_modules": r".*\.(q|up)_proj"}), "0.q 0.u 1.q 1.u 2.q 2.u"),
            (json!({"target_modules": r"model\.layers\.[12]\..*proj"}), "1.q 1.o 1.u 2.q 2.o 2.u"),
            (json!({"target_modules": r"^(?!.*mlp).*\.(?:q_proj|up_proj)$"}), "0.q 1.q 2.q"),
            (
                json!({"target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|o_proj)))"}),
                "0.q 0.o 1.q 1.o 2.q 2.o",
            ),
            (
                json!({"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["mlp.up_proj"]}),
                "0.q 1.q 2.q",
            ),
            (
                json!({"target_modules": "all-linear", "exclude_modules": r".*layers\.0\..*"}),
                "1.q 1.o 1.u 2.q 2.o 2.u",
            ),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [0, 2]}), "0.q 2.q"),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}),
                "1.q",
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": ["h"]}),
                "",
            ),
            // A path that is written out is meant whatever its layer.
            (
                json!({"target_modules": ["model.layers.0.self_attn.q_proj", "up_proj"], "layers_to_transform": [1]}),
                "0.q 1.u",
            ),
        ];
        for (fields, expected) in cases {
            assert_eq!(targeted(&fields).join(" "), expected, "{fields}");
        }
    }

    #[test]
    fn a_pattern_of_no_module_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        edit(dir.path(), "target_modules", json!("q_proj"));
        assert!(load_error(dir.path()).contains("target module `q_proj` matches no linear layer"));
    }

    /// As PEFT saves an adapter on a head that is not the embedding.
    #[test]
    fn the_base_s_weight_beside_an_adapter_is_taken_where_it_is_the_model_s() {
        let dir = tempfile::tempdir().unwrap();
        let modules = [ModuleSpec::new("lm_head", 2, 3).head()];
        let config = LoraConfig {
            rank: 1,
            target_modules: TargetModules::Names(vec!["lm_head".into()]),
            ..LoraConfig::default()
        };
        let adapter = Adapter::init(&config, &modules, 1, Device::Cpu).unwrap();
        save_peft(&adapter, dir.path(), "base").unwrap();

        let head = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([3, 2]);
        let weights = dir.path().join(WEIGHTS);
        let mut tensors: Vec<_> = read_tensors(&weights).unwrap().into_iter().collect();
        let name = "base_model.model.lm_head.base_layer.weight";
        tensors.push((name.into(), head.shallow_clone()));
        write_tensors(&weights, &tensors).unwrap();

        let load = |head: &Tensor| {
            let base = |path: &str| (path == "lm_head").then_some(head);
            load_peft_on(dir.path(), &modules, Device::Cpu, base).map(|_| ())
        };
        load(&head).unwrap();
        load(&head.to_kind(tch::Kind::BFloat16)).unwrap();
        let other = load(&(&head + Tensor::from_slice(&[0f32, 1.0]))).unwrap_err().to_string();
        assert!(other.contains(name) && other.contains("3 of its values differ"), "{other}");
        assert!(load(&head.narrow(0, 0, 2)).is_err());

        let alone = load_peft(dir.path(), &modules, Device::Cpu).unwrap_err().to_string();
        assert!(alone.contains(name), "{alone}");
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
