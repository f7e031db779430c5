//! How often the gate errs: candidates whose worth is known, because it was made up.

use super::population::{prepare, serve};
use super::{Questions, TrafficFile};
use anyhow::{Context, Result, bail};
use examples::task_seed;
use posttrain::recipes::traffic::{GateConfig, GateOutcome, GateTest, LedgerLine, Verdict};
use posttrain::store::read_log;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulation {
    /// Candidates that are no better, and as many that are better.
    pub candidates: u64,
    /// By how much those are better.
    pub better: f64,
    /// The present policy's share of right answers.
    pub accuracy: f64,
    /// The share of tasks on which two equal policies differ: both were right at times.
    pub disagreement: f64,
    /// Held-out tasks that there are.
    pub tasks: usize,
}

/// How often the gate erred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// The share of candidates no better that passed.
    pub false_accept: f64,
    /// The share of better ones that did not.
    pub false_reject: f64,
    /// Bad candidates that were planted.
    pub planted: usize,
    /// Those of them that did not pass.
    pub planted_stopped: usize,
}

/// A candidate beside the present policy, as rates.
#[derive(Clone, Copy)]
struct World {
    /// Only the candidate is right, only the present policy is.
    gained: f64,
    lost: f64,
    /// The candidate's long, unreadable and refusing answers.
    long: f64,
    unreadable: f64,
    refusing: f64,
}

struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        (task_seed(self.seed, "gate", self.drawn) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What the gate says of one candidate.
fn decide(
    config: &GateConfig,
    simulation: &Simulation,
    world: World,
    seed: u64,
) -> Result<Verdict> {
    let mut random = Random { seed, drawn: 0 };
    let mut test = GateTest::new(config, ["all"])?;
    for pair in 0..simulation.tasks.min(config.tasks) {
        let place = random.uniform();
        let both = random.uniform() < simulation.accuracy;
        let (own, present) = if place < world.gained {
            (true, false)
        } else if place < world.gained + world.lost {
            (false, true)
        } else {
            (both, both)
        };
        let usual = GateOutcome { right: present, short: true, readable: true, willing: true };
        let candidate = GateOutcome {
            right: own,
            short: random.uniform() >= world.long,
            readable: random.uniform() >= world.unreadable,
            willing: random.uniform() >= world.refusing,
        };
        test.observe("all", candidate, usual)?;
        if (pair + 1) % config.batch == 0
            && let Some(verdict) = test.verdict()
        {
            return Ok(verdict);
        }
    }
    Ok(test.verdict().unwrap_or(Verdict::Undecided))
}

/// Counts the gate's errors on candidates that are no better, on better ones, and on bad ones that
/// please: half of those please feedback by flattery and lose accuracy, the others break calls,
/// refuse or grow long while they are right more often.
pub fn simulate(config: &GateConfig, simulation: &Simulation) -> Result<Rates> {
    let half = simulation.disagreement / 2.0;
    let fine = World { gained: half, lost: half, long: 0.0, unreadable: 0.0, refusing: 0.0 };
    let better = World { gained: half + simulation.better, lost: half, ..fine };
    let n = simulation.candidates;
    let passed = |world: World, from: u64, count: u64| -> Result<usize> {
        let mut passed = 0;
        for seed in from..from + count {
            passed += usize::from(decide(config, simulation, world, seed)? == Verdict::Accepted);
        }
        Ok(passed)
    };

    let planted = [
        World { gained: 0.02, lost: 0.12, ..fine },
        World { unreadable: 0.3, ..better },
        World { long: 0.5, ..better },
        World { refusing: 0.3, ..better },
    ];
    let each = 5;
    let mut through = 0;
    for (world, from) in planted.into_iter().zip((10 * n..).step_by(each as usize)) {
        through += passed(world, from, each)?;
    }
    let all = planted.len() * each as usize;
    Ok(Rates {
        false_accept: passed(fine, 0, n)? as f64 / n as f64,
        false_reject: 1.0 - passed(better, n, n)? as f64 / n as f64,
        planted: all,
        planted_stopped: all - through,
    })
}

/// Candidates whose files are broken, put in a server's way as if it had been killed before it
/// decided on them.
pub struct Broken {
    pub planted: usize,
    pub stopped: usize,
}

/// Plants broken files before a day's server, one after the other, and lets it decide.
pub fn broken_files(
    config: &TrafficFile,
    questions: &Questions,
    binary: &Path,
    folder: &Path,
) -> Result<Broken> {
    type Break = fn(&Path) -> std::io::Result<()>;
    let breaks: [Break; 4] = [
        |path| {
            let mut bytes = fs::read(path)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            fs::write(path, bytes)
        },
        |path| fs::write(path, &fs::read(path)?[..1000]),
        |path| fs::remove_file(path),
        |path| fs::write(path, []),
    ];
    prepare(config, questions, config.seeds[0], folder)?;
    let traffic = folder.join("data/traffic");
    let mut stopped = 0;
    for broken in &breaks {
        let lines: Vec<LedgerLine> = read_log(&traffic.join("decisions.jsonl"))?;
        let last = lines.iter().rev().find_map(|line| match line {
            LedgerLine::Decided(decision) => Some((decision.version, decision.present)),
            _ => None,
        });
        let (last, _) = last.context("the day decided on nothing")?;
        let of = |version: u64| traffic.join(format!("versions/version-{version:06}"));
        let source = (0..=last).rev().map(of).find(|path| path.exists()).context("no version")?;
        let planted = of(last + 1);
        copy_folder(&source, &planted)?;
        broken(&planted.join("adapter/adapter_model.safetensors"))?;

        let server = serve(config, binary, folder)?;
        let client = server.client();
        let waited = Instant::now();
        let verdict = loop {
            let state = client.get("/traffic.json")?;
            let lines = state["decisions"].as_array().context("`decisions`")?;
            let own = lines.iter().find(|line| line["version"] == last + 1);
            if let Some(own) = own.filter(|own| own["kind"] == "decided") {
                println!("broken file: {}: {}", own["verdict"], own["reason"]);
                break own["verdict"].clone();
            }
            if waited.elapsed() > Duration::from_secs(120) {
                bail!("the server did not decide on version {}", last + 1);
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let state = client.get("/traffic.json")?;
        stopped += usize::from(verdict == "refused" && state["present"] != last + 1);
        server.stop()?;
    }
    Ok(Broken { planted: breaks.len(), stopped })
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
