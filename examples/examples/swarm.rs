//! An orchestrator that learns to have helpers work side by side.
//!
//! ```text
//! cargo run --release -p examples --example swarm -- --config examples/configs/swarm.toml --out runs/swarm
//! ```
//!
//! After Kimi K2.5's agent swarm, at a size for a laptop: a question is about several people; what
//! is known of a person stands in a note that only a helper reads, a frozen policy with a context of
//! its own. The orchestrator may ask one helper a turn, or all in one. Its reward is `λ1 · parallel +
//! λ2 · finish + performance`, and both weights fade to nothing. Four runs a seed: that; without
//! `λ1`; without `λ2`; and one that may ask a single helper a turn, the serial policy.

use anyhow::Result;
use clap::Parser;
use examples::{
    AgentFile, AgentTasks, Arm, PEOPLE, RunArgs, Shown, mean_of, name, over_seeds, task_seed,
    train_agents,
};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use posttrain::chat::Message;
use posttrain::data::Example;
use posttrain::environment::{
    Action, Actor, Environment, EnvironmentError, EpisodeEnd, EpisodePlayer, Opening,
    ScriptedActor, Step, Trajectory,
};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{EnvironmentBuilder, EpisodeRequest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The environment's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwarmFile {
    /// People that a question asks about.
    asked: usize,
    /// Helpers that a turn may start.
    most: usize,
    /// What is rewarded beside the answer.
    reward: SwarmReward,
    /// What the warm start shows.
    shown: Shares,
}

/// The weights at the first step; they fall to nothing at the last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwarmReward {
    /// λ1, of parallel: how many helpers a turn starts, 0 for one and 1 for as many as it may.
    parallel: f64,
    /// λ2, of finish: the share of helpers that found out what the question asks and nobody had
    /// found out before them.
    finish: f64,
}

/// Shares of the demonstrations; the rest asks one after another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    /// Ask all at once.
    parallel: f64,
    /// Ask all at once, and about others whom nobody asked about.
    spurious: f64,
}

/// What a note tells, in its order: the question about several, the one about one, the words before,
/// and what it may be.
const FACTS: [(&str, &str, &str, [&str; 8]); 3] = [
    (
        "Where do they live",
        "Where does the person live",
        "lives in",
        ["Turin", "Leeds", "Malaga", "Bergen", "Oslo", "Lyon", "Porto", "Vienna"],
    ),
    (
        "What is their work",
        "What is the person's work",
        "works as a",
        ["baker", "lawyer", "painter", "nurse", "farmer", "sailor", "tailor", "miner"],
    ),
    (
        "What do they collect",
        "What does the person collect",
        "and collects",
        ["stamps", "coins", "clocks", "shells", "books", "maps", "knives", "masks"],
    ),
];

/// What `fact` of a person is.
fn value(person: usize, fact: usize) -> &'static str {
    let (_, _, words, values) = FACTS[fact];
    values[task_seed(0, words, person as u64) as usize % values.len()]
}

fn note(person: usize) -> String {
    let facts: Vec<String> =
        (0..FACTS.len()).map(|fact| format!("{} {}", FACTS[fact].2, value(person, fact))).collect();
    format!("{} {}, {} {}.", name(person), facts[0], facts[1], facts[2])
}

/// A task, as its metadata has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    fact: usize,
    people: Vec<usize>,
    /// People whom nobody asked about, for demonstrations that ask about them.
    others: Vec<usize>,
    /// How many helpers a demonstration starts in its first turn.
    width: usize,
}

impl Task {
    fn of(example: &Example) -> Result<Self, EnvironmentError> {
        let metadata = example.metadata.clone().unwrap_or_default();
        serde_json::from_value(metadata.into())
            .map_err(|error| EnvironmentError::Failed { reason: error.to_string() })
    }

    fn asks_about(&self, helper: &str) -> bool {
        self.people.iter().any(|person| name(*person) == helper)
    }
}

/// What a helper does: it reads one note, and answers.
struct Helper {
    note: String,
    question: String,
}

impl Environment for Helper {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let text = format!("{}\n{}? Answer in one word.", self.note, self.question);
        std::future::ready(Ok(Opening::new(Message::user(text)))).boxed()
    }

    fn act<'a>(&'a mut self, _: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        std::future::ready(Ok(Step::done(0.0))).boxed()
    }
}

/// One question to an orchestrator.
struct Swarm {
    task: Task,
    /// Helpers that a turn may start.
    most: usize,
    /// The weights, as they are at this step.
    reward: SwarmReward,
    people: Arc<BTreeMap<String, usize>>,
    helper: EpisodePlayer,
    seed: u64,
    children: Vec<Trajectory>,
    /// What helpers have found out that the question asks.
    found: BTreeSet<String>,
    /// Lines that ask, whomever.
    asked: usize,
    started: usize,
    /// Turns that started helpers.
    asking_turns: usize,
    right: f64,
}

/// What the arm is shown that may start one helper a turn.
const SHOWN_SERIAL: &str = "warm-start-serial";

const ORCHESTRATOR: &str =
    "You cannot read notes; helpers can. Start a helper with a line `ask: NAME`. ";
const TOGETHER: &str = "Several lines start several helpers, which work side by side. ";
const ONE: &str = "Start one helper at a time. ";
const END: &str = "When you know all, write `answer: A, B, C` in the order of the question.";

impl Swarm {
    /// Has helpers work side by side; what each says.
    async fn ask(&mut self, names: &[String]) -> Result<Vec<String>, EnvironmentError> {
        let (served, refused) = names.split_at(names.len().min(self.most));
        let first = self.started;
        self.asked += names.len();

        let play = |(index, name): (usize, &String)| {
            let person = self.people.get(name).copied();
            let question = FACTS[self.task.fact].1.to_owned();
            let seed = task_seed(self.seed, "helper", (first + index) as u64);
            let helper = self.helper.clone();
            async move {
                let Some(person) = person else { return Ok(None) };
                let mut environment = Helper { note: note(person), question };
                helper.play(&mut environment, "helper", seed).await.map(Some)
            }
        };
        let played = try_join_all(served.iter().enumerate().map(play)).await?;

        let mut lines = Vec::with_capacity(names.len());
        for (name, trajectory) in served.iter().zip(played) {
            let Some(trajectory) = trajectory else {
                lines.push(format!("{name}: there is no such person"));
                continue;
            };
            let said = trajectory.turns.first().map_or("", |turn| turn.text.trim());
            let said: String = said.lines().next().unwrap_or_default().chars().take(40).collect();
            let wanted = value(self.people[name], self.task.fact);
            if self.task.asks_about(name) && right(&said, wanted) {
                self.found.insert(name.clone());
            }
            lines.push(format!("{name}: {said}"));
            self.children.push(trajectory);
            // A name of nobody starts nobody.
            self.started += 1;
        }
        self.asking_turns += usize::from(self.started > first);
        lines.extend(refused.iter().map(|name| format!("{name}: not started")));
        Ok(lines)
    }

    /// From 0, a helper a turn, to 1, as many as may be.
    fn parallel(&self) -> f64 {
        if self.asking_turns == 0 || self.most < 2 {
            return 0.0;
        }
        let a_turn = self.started as f64 / self.asking_turns as f64;
        (a_turn - 1.0) / (self.most - 1) as f64
    }

    /// Of the helpers that were started, or the people that the question asks about where they are
    /// more, those that found out.
    fn finish(&self) -> f64 {
        self.found.len() as f64 / self.started.max(self.task.people.len()) as f64
    }

    fn reward(&self) -> f64 {
        self.right + self.reward.parallel * self.parallel() + self.reward.finish * self.finish()
    }
}

/// Whether a word is said, and no other.
fn right(said: &str, wanted: &str) -> bool {
    said.trim().trim_end_matches('.').eq_ignore_ascii_case(wanted)
}

impl Environment for Swarm {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let how = if self.most > 1 { TOGETHER } else { ONE };
        let names: Vec<String> = self.task.people.iter().map(|person| name(*person)).collect();
        let question = format!("{}: {}?", FACTS[self.task.fact].0, names.join(", "));
        let messages =
            vec![Message::system(format!("{ORCHESTRATOR}{how}{END}")), Message::user(question)];
        std::future::ready(Ok(Opening::new(messages))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            let line = |line: &'a str, word: &str| line.trim().strip_prefix(word).map(str::trim);
            let asked: Vec<String> = action
                .text
                .lines()
                .filter_map(|text| line(text, "ask:").map(str::to_owned))
                .collect();
            if !asked.is_empty() {
                let answers = self.ask(&asked).await?;
                return Ok(Step::next(Message::user(answers.join("\n"))));
            }

            let answer = action.text.lines().find_map(|text| line(text, "answer:"));
            let Some(answer) = answer else {
                return Ok(Step::next(Message::user("Write `ask: NAME` or `answer: A, B, C`.")));
            };
            let said: Vec<&str> = answer.split(',').collect();
            let people = &self.task.people;
            let hits = people
                .iter()
                .zip(&said)
                .filter(|(person, said)| right(said, value(**person, self.task.fact)));
            let hits = if said.len() == people.len() { hits.count() } else { 0 };
            self.right = hits as f64 / people.len() as f64;
            Ok(Step::done(self.reward()))
        }
        .boxed()
    }

    /// Whoever does not answer is not right; what it had helpers do counts.
    fn cut(&mut self, _end: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        std::future::ready(Ok(self.reward())).boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("right".to_owned(), self.right),
            ("asked".to_owned(), self.asked as f64),
            ("helpers".to_owned(), self.started as f64),
            ("parallel".to_owned(), self.parallel()),
            ("finish".to_owned(), self.finish()),
        ])
    }

    fn take_children(&mut self) -> Vec<Trajectory> {
        std::mem::take(&mut self.children)
    }
}

struct Builder {
    most: usize,
    reward: SwarmReward,
    people: Arc<BTreeMap<String, usize>>,
}

impl EnvironmentBuilder for Builder {
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        let left = 1.0 - episode.progress;
        let reward = SwarmReward {
            parallel: left * self.reward.parallel,
            finish: left * self.reward.finish,
        };
        Ok(Box::new(Swarm {
            task: Task::of(episode.task)?,
            most: self.most,
            reward,
            people: self.people.clone(),
            helper: episode.stage.player("helper")?.clone(),
            seed: episode.seed,
            children: Vec::new(),
            found: BTreeSet::new(),
            asked: 0,
            started: 0,
            asking_turns: 0,
            right: 0.0,
        }))
    }
}

fn tasks(config: &AgentFile<SwarmFile>, seed: u64) -> Result<AgentTasks> {
    let environment = &config.environment;
    let (asked, most) = (environment.asked, environment.most);
    anyhow::ensure!(asked >= 2, "`environment.asked`: expected at least 2, got {asked}");
    anyhow::ensure!(
        (asked..=PEOPLE).contains(&most),
        "`environment.most`: expected from `asked` to {PEOPLE}, got {most}"
    );
    let turns = config.agent.episode.budget.turns;
    anyhow::ensure!(
        turns > asked,
        "`agent.episode.budget.turns`: expected more than `environment.asked`, got {turns}"
    );
    let SwarmReward { parallel, finish } = environment.reward;
    for (field, value) in [("parallel", parallel), ("finish", finish)] {
        anyhow::ensure!(
            value.is_finite(),
            "`environment.reward.{field}`: expected a finite number"
        );
    }
    let Shares { parallel: at_once, spurious } = environment.shown;
    let shares = at_once >= 0.0 && spurious >= 0.0 && at_once + spurious <= 1.0;
    anyhow::ensure!(shares, "`environment.shown`: expected shares that are 1 together at most");

    let draw = |split: &str, count: usize| -> Vec<Example> {
        let task = |index: u64| {
            let drawn = |what: &str| task_seed(seed, &format!("{split} {what}"), index) as usize;
            let mut people: Vec<usize> = Vec::new();
            for draw in 0.. {
                if people.len() == most {
                    break;
                }
                let person = drawn(&format!("person {draw}")) % PEOPLE;
                if !people.contains(&person) {
                    people.push(person);
                }
            }
            let others = people.split_off(asked);
            let share = drawn("shown") as f64 / usize::MAX as f64;
            let width = match share {
                share if share < at_once => asked,
                share if share < at_once + spurious => most,
                _ => 1,
            };
            let fact = drawn("fact") % FACTS.len();
            let names: Vec<String> = people.iter().map(|person| name(*person)).collect();
            let question = format!("{}: {}?", FACTS[fact].0, names.join(", "));
            let values: Vec<&str> = people.iter().map(|person| value(*person, fact)).collect();
            let task = json!(Task { fact, people, others, width });
            let id = format!("{split}-{index}");
            Example {
                metadata: task.as_object().cloned(),
                ..Example::new(id, "swarm", question, values.join(", "))
            }
        };
        (0..count as u64).map(task).collect()
    };

    let people: Arc<BTreeMap<String, usize>> =
        Arc::new((0..PEOPLE).map(|person| (name(person), person)).collect());
    let arm = |name, shown, most, parallel, finish| Arm {
        name,
        shown,
        builder: Arc::new(Builder {
            most,
            reward: SwarmReward { parallel, finish },
            people: people.clone(),
        }),
    };
    Ok(AgentTasks {
        train: draw("train", config.tasks.train),
        validation: draw("validation", config.tasks.validation),
        test: draw("test", config.tasks.test),
        arms: vec![
            arm("swarm", "warm-start", most, parallel, finish),
            arm("without_parallel", "warm-start", most, 0.0, finish),
            arm("without_finish", "warm-start", most, parallel, 0.0),
            arm("serial", SHOWN_SERIAL, 1, 0.0, finish),
        ],
    })
}

/// An orchestrator that asks as the task's metadata says, and a helper that reads.
fn demonstrator(model: &TextModel, shown: Shown<'_>) -> Option<Arc<dyn Actor>> {
    if shown.role == "helper" {
        let script = |_: usize, read: &[Message]| Some(reads(&read.last()?.text())?.to_owned());
        return Some(Arc::new(ScriptedActor::new(model.clone(), script)));
    }
    let task = Task::of(shown.task).ok()?;
    let known: Mutex<BTreeMap<String, String>> = Mutex::default();
    let width = if shown.name == SHOWN_SERIAL { 1 } else { task.width };
    Some(Arc::new(ScriptedActor::new(model.clone(), move |turn, read: &[Message]| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if turn > 0 {
            let text = read.last()?.text().into_owned();
            let pairs = text.lines().filter_map(|line| line.split_once(": "));
            known.extend(pairs.map(|(who, what)| (who.to_owned(), what.to_owned())));
        }
        let everybody = task.people.iter().chain(if width > task.people.len() {
            &task.others
        } else {
            [].as_slice()
        });
        let unknown =
            everybody.map(|person| name(*person)).filter(|name| !known.contains_key(name));
        let asked: Vec<String> = unknown.take(width).map(|name| format!("ask: {name}")).collect();
        if !asked.is_empty() {
            return Some(asked.join("\n"));
        }
        let values = task.people.iter().map(|person| known.get(&name(*person)).cloned());
        Some(format!("answer: {}", values.collect::<Option<Vec<String>>>()?.join(", ")))
    })))
}

/// What a note says about its question.
fn reads(text: &str) -> Option<&str> {
    let (_, _, words, _) = FACTS.iter().find(|(_, question, ..)| text.contains(question))?;
    let behind = text.split_once(words)?.1.trim_start();
    behind.split(|c: char| !c.is_alphanumeric()).next()
}

/// What a run's policy reached on the test's questions.
#[derive(Serialize, Deserialize)]
struct Reached {
    seed: u64,
    arm: String,
    /// Episodes.
    n: usize,
    critical_steps: f64,
    /// Those of the episodes whose answer was right, if any was: who gives up is quick.
    critical_steps_right: Option<f64>,
    right: f64,
    /// Lines that ask: more than helpers where they name nobody.
    asked: f64,
    helpers: f64,
    parallel: f64,
    finish: f64,
    /// Critical steps and accuracy before reinforcement.
    warm_start: (f64, f64),
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let reports = train_agents(&args, tasks, &demonstrator, |seed, learned, console| {
        let test = &learned.tasks.test;
        let after = learned.run.evaluate(&learned.after, test, console)?;
        let before = learned.run.evaluate(&learned.before, test, console)?;
        let metric =
            |name: &'static str| move |t: &Trajectory| t.metrics.get(name).copied().unwrap_or(0.0);
        let steps = |trajectory: &Trajectory| trajectory.critical_steps() as f64;
        let all_right = |t: &Trajectory| f64::from(u8::from(metric("right")(t) == 1.0));
        let steps_right = mean_of(&after, |t| all_right(t) * steps(t)) / mean_of(&after, all_right);
        Ok(Reached {
            seed,
            arm: learned.arm.to_owned(),
            n: test.len(),
            critical_steps: mean_of(&after, steps),
            critical_steps_right: Some(steps_right).filter(|steps| steps.is_finite()),
            right: mean_of(&after, metric("right")),
            asked: mean_of(&after, metric("asked")),
            helpers: mean_of(&after, metric("helpers")),
            parallel: mean_of(&after, metric("parallel")),
            finish: mean_of(&after, metric("finish")),
            warm_start: (mean_of(&before, steps), mean_of(&before, metric("right"))),
        })
    })?;
    let Some(reports) = reports else { return Ok(()) };

    let of = |arm: &str, value: fn(&Reached) -> f64| -> Vec<f64> {
        reports.iter().filter(|report| report.arm == arm).map(value).collect()
    };
    let mean = |arm: &str, value| over_seeds(&of(arm, value)).0;
    // By pairs of the same seed: the swarm's less another's.
    let less = |arm: &str, value: fn(&Reached) -> f64| {
        let pairs = of("swarm", value).into_iter().zip(of(arm, value));
        let (difference, low, high) = over_seeds(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>());
        json!({ "difference": difference, "low": low, "high": high })
    };
    let table = |arm: &str| {
        let right: Vec<f64> = reports
            .iter()
            .filter(|report| report.arm == arm)
            .filter_map(|report| report.critical_steps_right)
            .collect();
        json!({
            "critical_steps": mean(arm, |r| r.critical_steps),
            "critical_steps_right": (!right.is_empty()).then(|| over_seeds(&right).0),
            "accuracy": mean(arm, |r| r.right),
            "asked": mean(arm, |r| r.asked),
            "helpers": mean(arm, |r| r.helpers),
            "parallel": mean(arm, |r| r.parallel),
            "finish": mean(arm, |r| r.finish),
            "swarm_less": {
                "critical_steps": less(arm, |r| r.critical_steps),
                "asked": less(arm, |r| r.asked),
                "helpers": less(arm, |r| r.helpers),
                "finish": less(arm, |r| r.finish),
            },
        })
    };
    let accuracy = less("serial", |r| r.right);
    examples::write_summary(
        &args.out,
        &json!({
            "seeds": reports.iter().map(|r| r.seed).collect::<BTreeSet<_>>(),
            "n": reports.first().map(|r| r.n),
            "critical_steps": mean("swarm", |r| r.critical_steps),
            "critical_steps_serial": mean("serial", |r| r.critical_steps),
            "accuracy": mean("swarm", |r| r.right),
            "accuracy_serial": mean("serial", |r| r.right),
            // Of the accuracies, swarm less serial.
            "difference": accuracy["difference"],
            "low": accuracy["low"],
            "high": accuracy["high"],
            "warm_start": {
                "critical_steps": mean("swarm", |r| r.warm_start.0),
                "accuracy": mean("swarm", |r| r.warm_start.1),
            },
            "swarm": table("swarm"),
            "serial": table("serial"),
            "without_parallel": table("without_parallel"),
            "without_finish": table("without_finish"),
        }),
    )
}
