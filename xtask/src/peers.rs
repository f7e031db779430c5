//! The peers' side of a benchmark: Python scripts that do the same work and print one line of JSON
//! each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::Measured;
use crate::workspace::Workspace;

/// Steps that TRL is timed over.
const TRL_STEPS: &str = "3";
/// What `hf_generate.py` samples: 128 sequences of 64 tokens.
const GENERATED_TOKENS: f64 = 128.0 * 64.0;

/// A virtual environment with the peers in it.
pub struct Peers {
    scripts: PathBuf,
    python: PathBuf,
    model: PathBuf,
}

/// Whether a benchmark's memory is that of its whole process, rather than what it adds.
pub fn of_a_process(name: &str) -> bool {
    name.starts_with("rl_step")
}

impl Peers {
    /// Checks that environment and model are there.
    pub fn open(workspace: &Workspace, venv: &Path, model: &Path) -> Result<Self> {
        let python = venv.join("bin/python");
        if !python.is_file() {
            bail!(
                "--peers {}: expected a virtual environment, there is no bin/python in it",
                venv.display()
            );
        }
        if !model.join("config.json").is_file() {
            bail!(
                "--model {}: expected a model in the Hugging Face layout, there is no config.json",
                model.display()
            );
        }
        let model = model.canonicalize().with_context(|| model.display().to_string())?;
        // Not canonicalised: the environment's python is a link, and it is by the link that it
        // knows its packages.
        let python = std::path::absolute(&python).with_context(|| python.display().to_string())?;
        Ok(Self { scripts: workspace.root.join("benches/peers"), python, model })
    }

    /// Runs the scripts whose work is among `only`, or all where that is empty.
    pub fn run(&self, only: &[String]) -> Result<Vec<Measured>> {
        let wanted =
            |names: &[&str]| only.is_empty() || only.iter().any(|o| names.contains(&o.as_str()));
        let mut all = Vec::new();
        if wanted(&["sampler", "advantages", "policy_loss", "head_log_probs"]) {
            all.extend(kernels(&self.script("torch_kernels.py", &[])?)?);
        }
        let model = self.model.display().to_string();
        if wanted(&["decode"]) {
            all.push(generate(&self.script("hf_generate.py", &[&model])?)?);
        }
        if wanted(&["rl_step"]) {
            all.push(grpo(&self.script("trl_grpo.py", &[&model, TRL_STEPS])?)?);
        }
        Ok(all)
    }

    /// The last line that a script prints, which is its result.
    fn script(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        println!("running {name}");
        let mut python = Command::new(&self.python);
        python.arg(self.scripts.join(name)).args(arguments).current_dir(&self.scripts);
        python.env("HF_HUB_OFFLINE", "1").stdin(Stdio::null()).stderr(Stdio::null());
        let output =
            python.output().with_context(|| format!("cannot run {}", self.python.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        match line {
            Some(line) if output.status.success() => {
                serde_json::from_str(line).with_context(|| format!("{name}: {line}"))
            }
            _ => bail!("{name} failed ({}): run it by hand to see why", output.status),
        }
    }
}

fn kernels(result: &Value) -> Result<Vec<Measured>> {
    let benches = result["benches"].as_object().context("torch_kernels.py: no `benches`")?;
    let measured = |(name, figures): (&String, &Value)| {
        let ms = figures["ms"]
            .as_f64()
            .with_context(|| format!("torch_kernels.py: `{name}` has no `ms`"))?;
        let memory = figures["peak_mb"].as_f64().map(|added| (added, 0.0));
        Ok(Measured { name: name.clone(), ms, memory })
    };
    benches.iter().map(measured).collect()
}

fn generate(result: &Value) -> Result<Measured> {
    let rate = median(&result["tokens_per_s"]).context("hf_generate.py: no `tokens_per_s`")?;
    Ok(Measured { name: "decode[128]".into(), ms: GENERATED_TOKENS / rate * 1e3, memory: None })
}

fn grpo(result: &Value) -> Result<Measured> {
    let seconds = median(&result["step_s"]).context("trl_grpo.py: no `step_s`")?;
    let memory = result["peak_rss_gb"].as_f64().map(|gb| (gb * 1e9 / f64::from(1 << 20), 0.0));
    Ok(Measured { name: "rl_step".into(), ms: seconds * 1e3, memory })
}

fn median(values: &Value) -> Option<f64> {
    let mut values: Vec<f64> = values.as_array()?.iter().filter_map(Value::as_f64).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_scripts_print_becomes_milliseconds_and_mebibytes() {
        let kernels =
            kernels(&json!({"benches": {"sampler[128]": {"ms": 165.0, "peak_mb": 60.0}}})).unwrap();
        assert_eq!(
            kernels[0],
            Measured { name: "sampler[128]".into(), ms: 165.0, memory: Some((60.0, 0.0)) }
        );
        assert_eq!(generate(&json!({"tokens_per_s": [400.0, 512.0, 512.5]})).unwrap().ms, 16_000.0);
        let step = grpo(&json!({"step_s": [100.0, 90.0, 120.0], "peak_rss_gb": 1.048576})).unwrap();
        assert_eq!((step.ms, step.memory), (100_000.0, Some((1000.0, 0.0))));
        assert!(grpo(&json!({"step_s": []})).is_err());
    }
}
