//! A session that is longer than the context: the policy writes the summary that it goes on from.
//!
//! ```text
//! cargo run --release -p examples --example summaries -- --config examples/configs/summaries.toml --out runs/summaries
//! ```
//!
//! After Composer 2's self-summarization, at a size for a laptop: notes come in parts, and before
//! each next part the context is thrown away but for what the policy wrote to remember. At the end
//! it is asked where two things are now. The one reward is whether that is right, less what the
//! summaries' tokens cost; it is the summaries' reward as well, since they are turns of the same
//! episode. Compared with the base, which is prompted for the same summaries.

use anyhow::Result;
use clap::Parser;
use examples::{
    AgentFile, AgentTasks, Arm, RunArgs, Shown, mean_of, over_seeds, task_seed, train_agents,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain::chat::Message;
use posttrain::data::Example;
use posttrain::environment::{
    Action, Actor, Environment, EnvironmentError, EpisodeEnd, Opening, ScriptedActor, Step,
    Trajectory,
};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{EnvironmentBuilder, EpisodeRequest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The environment's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SummariesFile {
    /// Parts that the notes come in.
    parts: usize,
    /// Notes a part that matter, and as many that do not.
    notes: usize,
    /// What a token of a summary costs.
    token_cost: f64,
}

const PEOPLE: [&str; 8] = ["Anna", "Boris", "Clara", "David", "Elsa", "Felix", "Greta", "Hugo"];
const THINGS: [&str; 10] =
    ["key", "lamp", "drum", "map", "rope", "clock", "hammer", "letter", "basket", "ladder"];
const PLACES: [&str; 8] =
    ["attic", "cellar", "barn", "kitchen", "garden", "garage", "library", "tower"];
const CHATTER: [&str; 8] = [
    "says that the weather will be fine tomorrow",
    "tells a long story about a train",
    "asks when dinner is ready",
    "sings a song that nobody knows",
    "is tired and wants to go home",
    "reads the newspaper aloud",
    "laughs about an old joke",
    "looks out of the window for a while",
];

/// A session: its notes by parts, what is asked, and what is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    parts: Vec<String>,
    /// What a good memory holds behind each part: the asked things are among it.
    remembered: Vec<String>,
    asked: [String; 2],
    places: [String; 2],
}

impl Session {
    fn draw(config: &SummariesFile, draw: &dyn Fn(&str) -> usize) -> Self {
        let pick = |what: &str, from: &'static [&'static str]| from[draw(what) % from.len()];
        // What moves goes to the end: a memory is the last one, with what is new behind it.
        let mut now: Vec<(&str, &str)> = Vec::new();
        let (mut parts, mut remembered) = (Vec::new(), Vec::new());
        for part in 0..config.parts {
            let mut lines = Vec::new();
            for note in 0..config.notes {
                let of = |what: &str| format!("{what} {part} {note}");
                let thing = pick(&of("thing"), &THINGS);
                let place = pick(&of("place"), &PLACES);
                now.retain(|(known, _)| *known != thing);
                now.push((thing, place));
                lines.push(format!(
                    "{} puts the {thing} in the {place}.",
                    pick(&of("who"), &PEOPLE)
                ));
                let (who, what) = (pick(&of("other"), &PEOPLE), pick(&of("chatter"), &CHATTER));
                lines.push(format!("{who} {what}."));
            }
            parts.push(lines.join("\n"));
            let all: Vec<String> =
                now.iter().map(|(thing, place)| format!("{thing} {place}")).collect();
            remembered.push(all.join(", "));
        }
        let first = draw("first asked") % now.len();
        let second = (first + 1 + draw("second asked") % (now.len() - 1).max(1)) % now.len();
        let asked = [now[first], now[second]];
        Self {
            parts,
            remembered,
            places: asked.map(|(_, place)| place.to_owned()),
            asked: asked.map(|(thing, _)| thing.to_owned()),
        }
    }

    fn of(example: &Example) -> Result<Self, EnvironmentError> {
        let metadata = example.metadata.clone().unwrap_or_default();
        serde_json::from_value(metadata.into())
            .map_err(|error| EnvironmentError::Failed { reason: error.to_string() })
    }

    fn question(&self) -> String {
        let [one, other] = &self.asked;
        format!("Where is the {one} now, and where is the {other}? Answer with the two places.")
    }

    /// The share of the two places that an answer names, in their order, and no others.
    fn right(&self, answer: &str) -> f64 {
        let words = answer.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        let named: Vec<String> = words.filter(|word| PLACES.contains(&word.as_str())).collect();
        if named.len() != 2 {
            return 0.0;
        }
        let hits = named.iter().zip(&self.places).filter(|(said, place)| said == place);
        hits.count() as f64 / 2.0
    }
}

/// One session.
struct Summaries {
    session: Session,
    token_cost: f64,
    /// Parts that were read.
    read: usize,
    summary: String,
    tokens: usize,
    right: f64,
}

const TASK: &str = "Notes come in parts. You forget each part but for the summary that you write: \
                    what is where. At the end you are asked where things are now.";

impl Summaries {
    fn context(&self) -> Vec<Message> {
        let mut text = String::new();
        if self.read > 0 {
            text += &format!("Your summary: {}\n", self.summary);
        }
        match self.session.parts.get(self.read) {
            Some(part) => text += &format!("New notes:\n{part}\nWrite the summary."),
            None => text += &self.session.question(),
        }
        vec![Message::system(TASK), Message::user(text)]
    }
}

impl Environment for Summaries {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        std::future::ready(Ok(Opening::new(self.context()))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        let step = if self.read < self.session.parts.len() {
            self.read += 1;
            self.tokens += action.tokens;
            action.text.trim().clone_into(&mut self.summary);
            let observation = self.context().into();
            let reward = -self.token_cost * action.tokens as f64;
            Step::Rewritten { observation, reward }
        } else {
            self.right = self.session.right(action.text);
            Step::done(self.right)
        };
        std::future::ready(Ok(step)).boxed()
    }

    fn cut(&mut self, _end: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        std::future::ready(Ok(0.0)).boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("right".to_owned(), self.right),
            ("summary_tokens".to_owned(), self.tokens as f64 / self.read.max(1) as f64),
        ])
    }
}

struct Builder {
    token_cost: f64,
}

impl EnvironmentBuilder for Builder {
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        Ok(Box::new(Summaries {
            session: Session::of(episode.task)?,
            token_cost: self.token_cost,
            read: 0,
            summary: String::new(),
            tokens: 0,
            right: 0.0,
        }))
    }
}

fn tasks(config: &AgentFile<SummariesFile>, seed: u64) -> Result<AgentTasks> {
    let environment = &config.environment;
    anyhow::ensure!(environment.parts >= 1, "`environment.parts`: expected at least 1, got 0");
    anyhow::ensure!(environment.notes >= 2, "`environment.notes`: expected at least 2");
    let (turns, parts) = (config.agent.episode.budget.turns, environment.parts);
    anyhow::ensure!(
        turns > parts,
        "`agent.episode.budget.turns`: expected more than `environment.parts`, got {turns}"
    );
    let cost = environment.token_cost;
    anyhow::ensure!(
        cost.is_finite() && cost >= 0.0,
        "`environment.token_cost`: expected 0 or more, got {cost}"
    );
    let draw = |split: &str, count: usize| -> Vec<Example> {
        let task = |index: u64| {
            // Sessions in which one thing alone moves about ask nothing of a memory.
            let session = (0..).map(|attempt| {
                let drawn = |what: &str| {
                    task_seed(seed, &format!("{split} {attempt} {what}"), index) as usize
                };
                Session::draw(environment, &drawn)
            });
            let mut session = session.skip_while(|session| session.asked[0] == session.asked[1]);
            let session = session.next().unwrap_or_else(|| unreachable!("draws never end"));
            Example {
                metadata: json!(session).as_object().cloned(),
                ..Example::new(
                    format!("{split}-{index}"),
                    "summaries",
                    session.question(),
                    session.places.join(", "),
                )
            }
        };
        (0..count as u64).map(task).collect()
    };
    Ok(AgentTasks {
        train: draw("train", config.tasks.train),
        validation: draw("validation", config.tasks.validation),
        test: draw("test", config.tasks.test),
        arms: Arm::only(Arc::new(Builder { token_cost: environment.token_cost })),
    })
}

/// Remembers everything that matters in the fewest words, and answers.
fn demonstrator(model: &TextModel, shown: Shown<'_>) -> Option<Arc<dyn Actor>> {
    let session = Session::of(shown.task).ok()?;
    let left = Mutex::new(session.remembered.clone().into_iter());
    Some(Arc::new(ScriptedActor::new(model.clone(), move |_, _: &[Message]| {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
        Some(next.unwrap_or_else(|| session.places.join(", ")))
    })))
}

/// What a policy reached on the test's sessions.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Reached {
    error: f64,
    tokens: f64,
}

/// What a seed's policies reached.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seed {
    seed: u64,
    n: usize,
    prompted: Reached,
    warm_start: Reached,
    trained: Reached,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let reports = train_agents(&args, tasks, &demonstrator, |seed, learned, console| {
        let metric =
            |name: &'static str| move |t: &Trajectory| t.metrics.get(name).copied().unwrap_or(0.0);
        let mut reached = |run: &posttrain::recipes::agent::AgentRun, adapters: &_| {
            let played = run.evaluate(adapters, &learned.tasks.test, console)?;
            Ok::<_, anyhow::Error>(Reached {
                error: 1.0 - mean_of(&played, metric("right")),
                tokens: mean_of(&played, metric("summary_tokens")),
            })
        };
        let prompted = reached(&learned.base, &BTreeMap::new())?;
        let warm_start = reached(learned.run, &learned.before)?;
        let trained = reached(learned.run, &learned.after)?;
        Ok(Seed { seed, n: learned.tasks.test.len(), prompted, warm_start, trained })
    })?;
    let Some(reports) = reports else { return Ok(()) };

    let mean = |value: fn(&Seed) -> f64| over_seeds(&reports.iter().map(value).collect::<Vec<_>>());
    let (difference, low, high) = mean(|r| r.prompted.error - r.trained.error);
    let reinforced = mean(|r| r.warm_start.error - r.trained.error);
    examples::write_summary(
        &args.out,
        &json!({
            "seeds": reports.iter().map(|r| r.seed).collect::<Vec<_>>(),
            "n": reports.first().map(|r| r.n),
            "error": mean(|r| r.trained.error).0,
            "error_prompted": mean(|r| r.prompted.error).0,
            "tokens": mean(|r| r.trained.tokens).0,
            "tokens_prompted": mean(|r| r.prompted.tokens).0,
            // Of the errors, prompted less trained.
            "difference": difference,
            "low": low,
            "high": high,
            "warm_start": {
                "error": mean(|r| r.warm_start.error).0,
                "tokens": mean(|r| r.warm_start.tokens).0,
            },
            // What reinforcement took off the warm start's error.
            "reinforced": { "difference": reinforced.0, "low": reinforced.1, "high": reinforced.2 },
        }),
    )
}
