//! `cargo xtask mutants`: faults put into the server on purpose, one after another, in a copy of the
//! tree. The server's tests must catch each.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::form::Wanted;
use crate::workspace::{Workspace, make_folder, remove_folder};
use crate::{sdk, setup};

/// A fault: a text of a file that is there once, and what stands in its place. The file is one of
/// the server's sources, or lies beside them.
struct Mutant {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn mutant(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { name, file, from, to }
}

const MUTANTS: &[Mutant] = &[
    mutant(
        "cross_entropy is a mean",
        "tinker/loss.rs",
        "CrossEntropy { aggregation: Aggregation::TokenSum {} }",
        "CrossEntropy { aggregation: Aggregation::TokenMean {} }",
    ),
    mutant(
        "policy losses are means",
        "tinker/loss.rs",
        "loss,\n        aggregation: Aggregation::TokenSum {},",
        "loss,\n        aggregation: Aggregation::TokenMean {},",
    ),
    mutant(
        "ppo clips from 0.9",
        "tinker/loss.rs",
        "clip_low_threshold: settings.take(\"clip_low_threshold\", 0.8)?,\n            clip_high_threshold: settings.take(\"clip_high_threshold\", 1.2)?,",
        "clip_low_threshold: settings.take(\"clip_low_threshold\", 0.9)?,\n            clip_high_threshold: settings.take(\"clip_high_threshold\", 1.1)?,",
    ),
    mutant(
        "cispo clips at 1.2",
        "tinker/loss.rs",
        "settings.take(\"clip_high_threshold\", 4.0)",
        "settings.take(\"clip_high_threshold\", 1.2)",
    ),
    mutant(
        "dro's beta is not read",
        "tinker/loss.rs",
        "PolicyLoss::Dro { beta: settings.take(\"beta\", 0.05)? }",
        "PolicyLoss::Dro { beta: 0.0 * settings.take(\"beta\", 0.05)? }",
    ),
    mutant(
        "gspo's lower bound is its distance from 1",
        "tinker/loss.rs",
        "clip_low: 1.0 - settings.take(\"clip_low_threshold\", 0.8)?",
        "clip_low: settings.take(\"clip_low_threshold\", 0.8)?",
    ),
    mutant(
        "an unknown setting of a loss is ignored",
        "tinker/loss.rs",
        "match self.numbers.into_keys().next() {",
        "match self.numbers.into_keys().next().filter(|_| false) {",
    ),
    mutant(
        "weights are not read",
        "tinker/datum.rs",
        "Inputs::Weights => read.weights = floats(\"weights\")?",
        "Inputs::Weights => drop(floats(\"weights\")?)",
    ),
    mutant(
        "gspo's mask is not read",
        "tinker/datum.rs",
        "read.weights = Some(mask);",
        "drop(mask);",
    ),
    mutant(
        "a sparse value stands in the first column",
        "tinker/datum.rs",
        "dense[row * width + column] = listed[place];",
        "dense[row * width + 0 * column] = listed[place];",
    ),
    mutant(
        "not a number is let in",
        "tinker/datum.rs",
        "position(|value| !value.is_finite())",
        "position(|value| value.is_infinite())",
    ),
    mutant(
        "targets of several columns come back flat",
        "tinker/training.rs",
        "trailing_shape: trailing.into_iter().collect(),",
        "trailing_shape: trailing.into_iter().skip(1).collect(),",
    ),
    mutant(
        "forward leaves a gradient",
        "tinker/training.rs",
        "let scores = trainer.forward(&datums)?;",
        "let scores = trainer.forward_backward(&datums, &*loss.objective)?.scores;",
    ),
    mutant(
        "a request that comes twice is done twice",
        "tinker/training.rs",
        "if !begin(app, model, seq, kind)? {",
        "if !begin(app, model, seq, kind)? && false {",
    ),
    mutant(
        "beta2 is not read",
        "tinker/training.rs",
        "beta2: self.beta2,",
        "beta2: 0.95 + 0.0 * self.beta2,",
    ),
    mutant(
        "epsilon is not read",
        "tinker/training.rs",
        "eps: self.eps,",
        "eps: 1e-12 + 0.0 * self.eps,",
    ),
    mutant(
        "weight decay is not read",
        "tinker/training.rs",
        "weight_decay: self.weight_decay,",
        "weight_decay: 0.0 * self.weight_decay,",
    ),
    mutant(
        "gradients are not clipped",
        "tinker/training.rs",
        "max_grad_norm: self.grad_clip_norm,",
        "max_grad_norm: 0.0 * self.grad_clip_norm,",
    ),
    mutant(
        "an adapter's seed is not read",
        "tinker/models.rs",
        "lora.seed.map_or_else(random_seed, |seed| seed as u64)",
        "lora.seed.map_or_else(random_seed, |_| random_seed())",
    ),
    mutant(
        "train_mlp is not read",
        "tinker/models.rs",
        "train_mlp: lora.train_mlp,",
        "train_mlp: lora.train_mlp || lora.train_attn,",
    ),
    mutant(
        "a gradient is lost where a server ends in order",
        "tinker/models.rs",
        "    trainer.load_gradient(&state)?;\n",
        "",
    ),
    mutant(
        "the optimizer's state is not loaded",
        "tinker/weights.rs",
        "if optimizer { trainer.load_state(state) } else { trainer.load_weights(adapter) }",
        "if optimizer && state.is_file() { trainer.load_state(state) } else { trainer.load_weights(adapter) }",
    ),
    mutant(
        "the optimizer's state is loaded unasked",
        "tinker/weights.rs",
        "if optimizer { trainer.load_state(state) } else { trainer.load_weights(adapter) }",
        "if optimizer || state.is_dir() { trainer.load_state(state) } else { trainer.load_weights(adapter) }",
    ),
    mutant(
        "a checkpoint that is replaced is sampled from as it was",
        "tinker/weights.rs",
        "        app_of_job.registry().loaded.remove(&(owner.clone(), path.to_string()));\n",
        "",
    ),
    mutant(
        "a snapshot follows the model",
        "tinker/weights.rs",
        "SamplerKind::Snapshot => Weights::Policy(policy),\n            SamplerKind::Inflight => {",
        "SamplerKind::Snapshot | SamplerKind::Inflight => {",
    ),
    mutant(
        "a seed is not read",
        "tinker/sampling.rs",
        "self.seed.map_or_else(super::models::random_seed, |seed| seed as u64)",
        "self.seed.map_or_else(super::models::random_seed, |_| super::models::random_seed())",
    ),
    mutant(
        "stop tokens are dropped",
        "tinker/sampling.rs",
        "params.stop_token_ids.clone_from(tokens)",
        "drop(tokens.clone())",
    ),
    mutant(
        "stop texts are dropped",
        "tinker/sampling.rs",
        "params.stop.clone_from(texts)",
        "drop(texts.clone())",
    ),
    mutant(
        "temperature is 1",
        "tinker/sampling.rs",
        "temperature: self.temperature,",
        "temperature: self.temperature.max(1.0),",
    ),
    mutant(
        "top_k is not read",
        "tinker/sampling.rs",
        "            top_k,\n            top_p:",
        "            top_k: top_k.filter(|_| false),\n            top_p:",
    ),
    mutant(
        "a prompt's log-probabilities are one place off",
        "tinker/sampling.rs",
        "all.extend_from_slice(&scored.logprobs);",
        "all.extend_from_slice(&scored.logprobs);\n        all.rotate_left(1);",
    ),
    mutant(
        "whoever stopped ran out of tokens",
        "tinker/sampling.rs",
        "completion.finish_reason != FinishReason::Stop",
        "completion.finish_reason == FinishReason::Stop",
    ),
    mutant(
        "another key's results are given out",
        "promises.rs",
        "let known = inner.promises.get(id).filter(|promise| promise.owner == *owner);",
        "let known = inner.promises.get(id).filter(|promise| promise.owner == *owner || true);",
    ),
    mutant(
        "a checkpoint is replaced unasked",
        "tinker/weights.rs",
        "if !overwrite && app.checkpoints.has(owner, path) {",
        "if !overwrite && app.checkpoints.has(owner, path) && false {",
    ),
    mutant(
        "an adapter's scale is its rank's",
        "checkpoints/record.rs",
        "alpha: ALPHA,",
        "alpha: self.rank as f64 + 0.0 * ALPHA,",
    ),
    mutant(
        "who shares a pass is read by the first one's adapter",
        "../../posttrain-train/src/pass.rs",
        "adapter: Some(view) });",
        "adapter: Some(view).and(views.first()) });",
    ),
    mutant(
        "who shares a pass gets another one's gradient",
        "../../posttrain-train/src/pass.rs",
        "for (share, own) in shares.iter().zip(own) {",
        "for (share, own) in shares.iter().zip(own.into_iter().rev()) {",
    ),
];

/// The suites that must catch them.
const SUITES: [&str; 6] = ["tinker", "openai", "durability", "gateway", "routed", "sdk"];

/// How long a build or a run of the suites may take: a fault that hangs them is caught.
const LONGEST: Duration = Duration::from_secs(40 * 60);

const SOURCE: &str = "crates/posttrain-server/src";

/// Puts in those whose names have `filter` in them, one after another; whether the tests failed for
/// each.
pub fn run_all(workspace: &Workspace, filter: &str) -> Result<ExitCode> {
    setup::run(workspace, Wanted::Whatever)?;
    let python = sdk::ensure(workspace)?;
    let tree = copy(workspace)?;
    let bench = Bench { workspace, tree, python };

    let chosen: Vec<&Mutant> =
        MUTANTS.iter().filter(|mutant| mutant.name.contains(filter)).collect();
    ensure!(!chosen.is_empty(), "no mutant has {filter:?} in its name");
    for mutant in &chosen {
        bench.mutated(mutant)?;
    }
    println!("first without any of them");
    ensure!(bench.builds()?, "the copy of the tree does not build");
    ensure!(bench.passes()?, "the tests fail without a mutant");

    let mut survived = Vec::new();
    for (index, mutant) in chosen.iter().enumerate() {
        let path = bench.path(mutant);
        let (before, after) = bench.mutated(mutant)?;
        let started = Instant::now();
        write(&path, &after)?;
        let outcome = bench.builds().and_then(|builds| {
            ensure!(builds, "the mutant {:?} does not build", mutant.name);
            bench.passes()
        });
        write(&path, &before)?;
        let passes = outcome?;
        let said = if passes { "SURVIVED" } else { "caught" };
        let (number, seconds) = (index + 1, started.elapsed().as_secs());
        println!("{number:2}/{} {said:8} {} ({seconds} s)", chosen.len(), mutant.name);
        if passes {
            survived.push(mutant.name);
        }
    }
    println!("{} of {} caught", chosen.len() - survived.len(), chosen.len());
    match survived.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => bail!("survived: {}", survived.join("; ")),
    }
}

/// A copy of the tree as it is, what git ignores left out, with this one's libtorch and model.
fn copy(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.root.join("target/mutants");
    let tree = place.join("tree");
    remove_folder(&tree)?;
    let mut git = Command::new("git");
    git.current_dir(&workspace.root).args(["ls-files", "-z", "--cached", "--others"]);
    let listed = git.arg("--exclude-standard").output().context("cannot run git")?;
    ensure!(listed.status.success(), "git failed: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).context("a file's name is no text")?;
    for name in listed.split_terminator('\0') {
        let (from, to) = (workspace.root.join(name), tree.join(name));
        // One that was removed is still in the list.
        if !from.is_file() {
            continue;
        }
        to.parent().map(make_folder).transpose()?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }

    // Binaries look for libtorch two folders above their own.
    for link in [tree.join(".libtorch"), tree.join(".models"), place.join(".libtorch")] {
        let of = link.file_name().map(|name| workspace.root.join(name));
        if let (false, Some(of)) = (link.exists(), of) {
            std::os::unix::fs::symlink(of, &link)
                .with_context(|| format!("cannot write {}", link.display()))?;
        }
    }
    Ok(tree)
}

struct Bench<'a> {
    workspace: &'a Workspace,
    tree: PathBuf,
    python: PathBuf,
}

impl Bench<'_> {
    fn path(&self, mutant: &Mutant) -> PathBuf {
        self.tree.join(SOURCE).join(mutant.file)
    }

    /// The file without the fault and with it.
    fn mutated(&self, mutant: &Mutant) -> Result<(String, String)> {
        let path = self.path(mutant);
        let before =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let places = before.matches(mutant.from).count();
        ensure!(
            places == 1,
            "the mutant {:?}: its text is in {} {places} times, expected once",
            mutant.name,
            path.display()
        );
        Ok((before.clone(), before.replacen(mutant.from, mutant.to, 1)))
    }

    /// `cargo test` of the suites; its output goes to a file.
    fn cargo(&self, more: &[&str]) -> Result<bool> {
        let place = self.workspace.root.join("target/mutants");
        let log = place.join("log");
        let file =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut cargo = self.workspace.cargo();
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", place.join("target"));
        cargo.env("POSTTRAIN_SDK_PYTHON", &self.python).env("CARGO_TERM_COLOR", "never");
        cargo.args(["test", "--workspace", "--features", "examples/kubernetes"]);
        cargo.args(SUITES.iter().flat_map(|suite| ["--test", suite])).args(more);
        cargo.stdout(file.try_clone().context("cannot open the log twice")?).stderr(file);
        let mut child = cargo.process_group(0).spawn().context("cannot run cargo")?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for cargo")? {
                return Ok(status.success());
            }
            if started.elapsed() > LONGEST {
                // Its tests and their servers with it.
                let group = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
                    .context("cannot end cargo")?;
                child.wait().context("cannot wait for cargo")?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn builds(&self) -> Result<bool> {
        self.cargo(&["--no-run"])
    }

    fn passes(&self) -> Result<bool> {
        self.cargo(&[])
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_its_place_in_the_code() {
        let workspace = Workspace::find().unwrap();
        let tree = workspace.root.clone();
        let bench = Bench { workspace: &workspace, tree, python: PathBuf::new() };
        for mutant in MUTANTS {
            let (before, after) = bench.mutated(mutant).unwrap();
            assert_ne!(before, after, "{}", mutant.name);
        }
    }
}
