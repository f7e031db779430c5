//! `cargo xtask bench`: every benchmark, beside the peers where they are given, and one report of
//! both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::form::Wanted;
use crate::peers::{self, Peers};
use crate::workspace::{Workspace, make_folder, remove_folder};
use crate::{exit_code, setup};

/// What to run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run this benchmark alone, such as `decode`; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// A virtual environment with torch, transformers, trl and peft (benches/peers/README.md): runs
    /// the peers as well
    #[arg(long, value_name = "VENV", requires = "model")]
    peers: Option<PathBuf>,
    /// The demonstration model in the Hugging Face layout, for the peers
    #[arg(long, value_name = "DIR", requires = "peers")]
    model: Option<PathBuf>,
}

/// A benchmark's result.
#[derive(Debug, PartialEq)]
pub struct Measured {
    pub name: String,
    /// Median of a run, milliseconds.
    pub ms: f64,
    /// The process's peak and what it held before, MiB.
    pub memory: Option<(f64, f64)>,
}

/// Runs the benchmarks, then the peers, and writes `target/bench/report.json`.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    setup::run(workspace, Wanted::Whatever)?;
    let peers = match (&arguments.peers, &arguments.model) {
        (Some(venv), Some(model)) => Some(Peers::open(workspace, venv, model)?),
        _ => None,
    };
    let (criterion, bench) =
        (workspace.root.join("target/criterion"), workspace.root.join("target/bench"));
    // What an earlier run left would pass for this one's.
    remove_folder(&criterion)?;
    remove_folder(&bench)?;
    make_folder(&bench)?;
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "-p", "benches"]);
    for name in &arguments.only {
        cargo.args(["--bench", name]);
    }
    let status = cargo.stdin(Stdio::null()).status().context("cannot run cargo")?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    let ours = collect(&criterion, &bench.join("memory"))?;
    if ours.is_empty() {
        bail!("no benchmark has run: {} holds no result", criterion.display());
    }
    let theirs = peers.map(|peers| peers.run(&arguments.only)).transpose()?.unwrap_or_default();
    let report = report(&ours, &theirs);
    let path = bench.join("report.json");
    let text = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    print(&ours, &theirs);
    println!("report: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The results that criterion has written, by name.
fn collect(criterion: &Path, memory: &Path) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    let mut folders = vec![criterion.to_owned()];
    while let Some(folder) = folders.pop() {
        let new = folder.join("new");
        if new.join("estimates.json").is_file() {
            all.push(measured(&new, memory)?);
            continue;
        }
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        folders.extend(
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()),
        );
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn measured(new: &Path, memory: &Path) -> Result<Measured> {
    let benchmark = read(&new.join("benchmark.json"))?;
    let name = benchmark["function_id"].as_str().or(benchmark["group_id"].as_str());
    let name = name.with_context(|| format!("{}: no name", new.display()))?.to_owned();
    let nanoseconds = read(&new.join("estimates.json"))?["median"]["point_estimate"].as_f64();
    let ms = nanoseconds.with_context(|| format!("{}: no median", new.display()))? / 1e6;
    let memory = read(&memory.join(format!("{name}.json"))).ok();
    let memory = memory.and_then(|m| Some((m["peak_mb"].as_f64()?, m["before_mb"].as_f64()?)));
    Ok(Measured { name, ms, memory })
}

fn read(path: &Path) -> Result<Value> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Both sides' figures, and the peer's time ÷ ours where both have measured the same work.
fn report(ours: &[Measured], theirs: &[Measured]) -> Value {
    let mut ratios = Map::new();
    for (ours, theirs) in pairs(ours, theirs) {
        ratios.insert(ours.name.clone(), json!(theirs.ms / ours.ms));
        if let Some(ratio) = memory_ratio(ours, theirs) {
            ratios.insert(format!("{} memory", ours.name), json!(ratio));
        }
    }
    json!({"machine": machine(), "benches": figures(ours), "peers": figures(theirs), "ratios": ratios})
}

fn pairs<'a>(
    ours: &'a [Measured],
    theirs: &'a [Measured],
) -> impl Iterator<Item = (&'a Measured, &'a Measured)> {
    ours.iter().filter_map(|o| Some((o, theirs.iter().find(|t| t.name == o.name)?)))
}

/// A whole step's memory is that of its process; a kernel's is what it adds.
fn memory_ratio(ours: &Measured, theirs: &Measured) -> Option<f64> {
    let ((our_peak, our_before), (their_peak, their_before)) = (ours.memory?, theirs.memory?);
    if peers::of_a_process(&ours.name) {
        return Some(their_peak / our_peak);
    }
    // Less than a page more than before says nothing.
    let added = our_peak - our_before;
    (added > 1.0).then(|| (their_peak - their_before) / added)
}

fn figures(all: &[Measured]) -> Value {
    let figure = |m: &Measured| {
        let mut figure = json!({"ms": m.ms});
        if let Some((peak, before)) = m.memory {
            figure["peak_mb"] = json!(peak);
            figure["added_mb"] = json!(peak - before);
        }
        (m.name.clone(), figure)
    };
    Value::Object(all.iter().map(figure).collect())
}

fn machine() -> Value {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = Command::new("uname").arg("-sr").output().ok();
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": field("/proc/meminfo", "MemTotal"),
        "system": kernel.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn print(ours: &[Measured], theirs: &[Measured]) {
    println!("\n{:<28} {:>12} {:>10} {:>12} {:>8}", "", "ms", "peak MiB", "peer ms", "ratio");
    for measured in ours {
        let peak = measured.memory.map_or("-".to_owned(), |(peak, _)| format!("{peak:.0}"));
        let peer = theirs.iter().find(|t| t.name == measured.name);
        let (peer_ms, ratio) = match peer {
            Some(peer) => (format!("{:.1}", peer.ms), format!("{:.1}×", peer.ms / measured.ms)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        println!("{:<28} {:>12.2} {peak:>10} {peer_ms:>12} {ratio:>8}", measured.name, measured.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, ms: f64, memory: Option<(f64, f64)>) -> Measured {
        Measured { name: name.into(), ms, memory }
    }

    #[test]
    fn criterions_results_are_found_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let (criterion, memory) = (folder.path().join("criterion"), folder.path().join("memory"));
        fs::create_dir_all(&memory).unwrap();
        fs::write(memory.join("decode[16].json"), r#"{"before_mb": 10.0, "peak_mb": 30.0}"#)
            .unwrap();
        for (place, ids) in [
            ("decode/decode[16]", r#""decode", "function_id": "decode[16]""#),
            ("loss", r#""loss", "function_id": null"#),
        ] {
            let new = criterion.join(place).join("new");
            fs::create_dir_all(&new).unwrap();
            fs::write(new.join("benchmark.json"), format!(r#"{{"group_id": {ids}}}"#)).unwrap();
            fs::write(new.join("estimates.json"), r#"{"median": {"point_estimate": 2500000.0}}"#)
                .unwrap();
        }
        let found = collect(&criterion, &memory).unwrap();
        assert_eq!(
            found,
            [measured("decode[16]", 2.5, Some((30.0, 10.0))), measured("loss", 2.5, None)]
        );
    }

    #[test]
    fn ratios_are_the_peers_time_and_memory_by_ours() {
        let ours = [
            measured("rl_step", 10.0, Some((100.0, 90.0))),
            measured("head_log_probs[4096]", 5.0, Some((60.0, 40.0))),
        ];
        let theirs = [
            measured("rl_step", 40.0, Some((300.0, 0.0))),
            measured("head_log_probs[4096]", 20.0, Some((500.0, 300.0))),
        ];
        let report = report(&ours, &theirs);
        assert_eq!(report["ratios"]["rl_step"], 4.0);
        assert_eq!(report["ratios"]["rl_step memory"], 3.0);
        assert_eq!(report["ratios"]["head_log_probs[4096] memory"], 10.0);
        assert_eq!(report["benches"]["rl_step"]["added_mb"], 10.0);
    }
}
