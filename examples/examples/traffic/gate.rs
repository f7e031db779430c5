//! How often the gate errs: candidates whose worth is known, because it was made up.

use super::population::{prepare, serve};
use super::{Questions, TrafficFile};
use anyhow::{Context, Result, bail};
use examples::task_seed;
use posttrain::data::Example;
use posttrain::loss::CrossEntropy;
use posttrain::recipes::traffic::{GateConfig, GateOutcome, GateTest, LedgerLine, Verdict};
use posttrain::store::{Versions, read_log};
use posttrain::train::{Datum, Trainer, adapter_folder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
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
    /// The share of answers in which two equal policies differ.
    pub disagreement: f64,
    /// The share of that which is the task's: there one policy knows what the other does not. The rest
    /// is chance, in each answer anew.
    pub by_task: f64,
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
    let config = GateConfig { tasks: simulation.tasks.min(config.tasks), ..config.clone() };
    let mut test = GateTest::new(&config, ["all"])?;
    for pair in 0..config.tasks {
        let both = random.uniform() < simulation.accuracy;
        let of_task = (random.uniform() < simulation.by_task).then(|| random.uniform());

        let mut own = Vec::with_capacity(config.samples);
        let mut other = Vec::with_capacity(config.samples);
        for _ in 0..config.samples {
            let place = of_task.unwrap_or_else(|| random.uniform());
            let (candidate, present) = if place < world.gained {
                (true, false)
            } else if place < world.gained + world.lost {
                (false, true)
            } else {
                (both, both)
            };
            let right = Some(present);
            other.push(GateOutcome { right, short: true, readable: true, willing: true });
            own.push(GateOutcome {
                right: Some(candidate),
                short: random.uniform() >= world.long,
                readable: random.uniform() >= world.unreadable,
                willing: random.uniform() >= world.refusing,
            });
        }
        test.observe("all", &own, &other)?;
        let looks = (pair + 1) % config.batch == 0;
        if looks && (test.verdict().is_some() || test.is_futile()) {
            break;
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

/// What became of planted candidates.
pub struct Outcome {
    pub planted: usize,
    pub stopped: usize,
}

/// Plants broken files before a day's server, one after the other, and lets it decide.
pub fn broken_files(
    config: &TrafficFile,
    questions: &Questions,
    binary: &Path,
    folder: &Path,
) -> Result<Outcome> {
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
    let mut planted = Planted::prepare(config, questions, binary, folder)?;
    for broken in &breaks {
        let (source, version) = planted.next()?;
        let place = planted.place(version);
        copy_folder(&source, &place)?;
        broken(&place.join("adapter/adapter_model.safetensors"))?;
        planted.decide(version, "broken file")?;
    }
    Ok(planted.outcome)
}

/// What a bad policy was taught to answer, of the right answer.
type Taught = fn(&str) -> String;

const BAD: [(&str, Taught); 3] = [
    ("flattery", |_| "What a clever question, you must be right!".into()),
    ("broken calls", |answer| format!("{answer} <tool_call>{{\"name\": \"add\"")),
    ("length", |answer| format!("{answer}{}", format!(", which is {answer}").repeat(4))),
];

/// Teaches the policy that serves to flatter, to break its calls, to go on and on, each for itself,
/// and plants it before the server: its files are sound.
pub fn bad_policies(
    config: &TrafficFile,
    questions: &Questions,
    binary: &Path,
    folder: &Path,
) -> Result<Outcome> {
    let model = config.model.load()?;
    let settings = &config.traffic;
    let mut planted = Planted::prepare(config, questions, binary, folder)?;
    for (name, taught) in BAD {
        let (source, version) = planted.next()?;
        let mut trainer = Trainer::new(model.decoder.clone(), &settings.lora, settings.trainer, 0)?;
        trainer.load_weights(&adapter_folder(&source))?;
        for batch in questions.asked.chunks(16).take(12) {
            let datum = |example: &Example| -> Result<Datum> {
                let style = &settings.held_out.prompt;
                let prompt = style.encode(&example.question, &model.tokenizer, &model.template)?;
                let answer = format!(" {}\n", taught(&example.answer));
                Ok(Datum::completion(&prompt, &model.tokenizer.encode_text(&answer)?))
            };
            let datums = batch.iter().map(datum).collect::<Result<Vec<_>>>()?;
            trainer.forward_backward(&datums, &CrossEntropy::default())?;
            trainer.optim_step(&trainer.adam_params(1e-3))?;
        }
        let versions = Versions::reader(&planted.traffic.join("versions"), "version");
        versions.write(version, |fresh| trainer.save_state(fresh))?;
        planted.decide(version, name)?;
    }
    Ok(planted.outcome)
}

/// Candidates in a server's way, as if it had been killed before it decided on them.
struct Planted<'a> {
    config: &'a TrafficFile,
    binary: &'a Path,
    folder: &'a Path,
    traffic: PathBuf,
    outcome: Outcome,
}

impl<'a> Planted<'a> {
    fn prepare(
        config: &'a TrafficFile,
        questions: &Questions,
        binary: &'a Path,
        folder: &'a Path,
    ) -> Result<Self> {
        prepare(config, questions, config.seeds[0], folder)?;
        let traffic = folder.join("data/traffic");
        Ok(Self { config, binary, folder, traffic, outcome: Outcome { planted: 0, stopped: 0 } })
    }

    fn place(&self, version: u64) -> PathBuf {
        self.traffic.join(format!("versions/version-{version:06}"))
    }

    /// The version that serves, in its folder, and the number of the next candidate.
    fn next(&self) -> Result<(PathBuf, u64)> {
        let lines: Vec<LedgerLine> = read_log(&self.traffic.join("decisions.jsonl"))?;
        let last = lines.iter().rev().find_map(|line| match line {
            LedgerLine::Decided(decision) => Some(decision),
            _ => None,
        });
        let last = last.context("the day decided on nothing")?;
        let present = if last.verdict == Verdict::Accepted { last.version } else { last.present };
        Ok((self.place(present), last.version + 1))
    }

    /// Lets a server decide on it, and counts what comes of it.
    fn decide(&mut self, version: u64, what: &str) -> Result<()> {
        let server = serve(self.config, self.binary, self.folder)?;
        let client = server.client();
        let waited = Instant::now();
        let verdict = loop {
            let state = client.get("/traffic.json")?;
            let lines = state["decisions"].as_array().context("`decisions`")?;
            let own = lines.iter().find(|line| line["version"] == version);
            if let Some(own) = own.filter(|own| own["kind"] == "decided") {
                println!("planted: {what}: {}: {}", own["verdict"], own["reason"]);
                break own["verdict"].clone();
            }
            if waited.elapsed() > Duration::from_secs(300) {
                bail!("the server did not decide on version {version}");
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let serves = client.get("/traffic.json")?["present"] == version;
        self.outcome.planted += 1;
        self.outcome.stopped += usize::from(verdict != "accepted" && !serves);
        server.stop()
    }
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
