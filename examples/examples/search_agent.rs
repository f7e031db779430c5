//! A searcher that edits its own context: it searches a corpus of 5,000 passages within a small
//! context, prunes what is of no use, and answers with the passages that a question needs.
//!
//! ```text
//! cargo run --release -p examples --example search_agent -- --config examples/configs/search_agent.toml --out runs/search
//! ```
//!
//! After Chroma's Context-1 and Harness-1, at a size for a laptop: the corpus is of made-up people, five
//! passages each; a question needs one passage of several people; the context holds what two or
//! three searches find. A few demonstrations by a script warm the policy up. What is reported is
//! recall on held-out questions in the same budget: of a policy that may prune; of one that was shown
//! and trained without `prune`; and of the first when the tool is taken from it.

use anyhow::Result;
use clap::Parser;
use examples::{
    AgentFile, AgentTasks, Arm, PEOPLE, RunArgs, Shown, mean_of, name, over_seeds, task_seed,
    train_agents,
};
use posttrain::chat::{Message, Role, ToolCall, ToolFormat};
use posttrain::data::Example;
use posttrain::environment::search::{Corpus, Passage, SearchConfig, SearchTask};
use posttrain::environment::{Actor, Environment, EnvironmentError, ScriptedActor, Trajectory};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{EnvironmentBuilder, EpisodeRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The environment's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchFile {
    /// People in the corpus, five passages each.
    people: usize,
    /// People that a question asks about.
    asked: usize,
    /// How a policy may search.
    search: SearchConfig,
}

/// What is told of people: the words of a question and of a search, and a passage's.
const FACTS: [(&str, &str, &str, &[&str]); 5] = [
    (
        "were born",
        "born",
        "was born in",
        &["Ostrava", "Leeds", "Turin", "Malaga", "Gdansk", "Bergen"],
    ),
    ("work", "works", "works as a", &["baker", "glazier", "pilot", "tailor", "surgeon", "notary"]),
    ("studied", "studied", "studied in", &["Padua", "Uppsala", "Leiden", "Coimbra", "Vienna"]),
    ("sing", "sings", "sings in the", &["choir", "opera", "kitchen", "garden", "bath"]),
    ("sailed", "sailed", "sailed to", &["Madeira", "Iceland", "Corsica", "Malta", "Crete"]),
];

/// Passage `fact` of a person has this number.
fn number(person: usize, fact: usize) -> u32 {
    (person * FACTS.len() + fact) as u32
}

fn corpus(people: usize) -> Result<Corpus, EnvironmentError> {
    let passage = |person: usize, fact: usize| {
        let (_, _, verb, places) = FACTS[fact];
        let place = places[task_seed(0, verb, person as u64) as usize % places.len()];
        Passage { id: number(person, fact), text: format!("{} {verb} {place}.", name(person)) }
    };
    let all = (0..people).flat_map(|person| (0..FACTS.len()).map(move |fact| (person, fact)));
    Corpus::new(all.map(|(person, fact)| passage(person, fact)).collect())
}

/// The run of a policy that may prune, and of one that may not.
const PRUNING: &str = "prune";
const KEEPING: &str = "without_prune";
/// What the first is shown.
const SHOWN_PRUNING: &str = "warm-start";

struct Builder {
    corpus: Arc<Corpus>,
    config: SearchConfig,
}

/// What a task's metadata says.
fn field(task: &Example, name: &str) -> Value {
    task.metadata.as_ref().and_then(|metadata| metadata.get(name)).cloned().unwrap_or_default()
}

fn wanted(task: &Example) -> Vec<u32> {
    serde_json::from_value(field(task, "wanted")).unwrap_or_default()
}

impl EnvironmentBuilder for Builder {
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        let reward = self.config.reward.at(episode.progress);
        let (corpus, config) =
            (self.corpus.clone(), SearchConfig { reward, ..self.config.clone() });
        let task = episode.task;
        Ok(Box::new(SearchTask::new(corpus, config, &task.question, wanted(task))))
    }
}

fn tasks(config: &AgentFile<SearchFile>, seed: u64) -> Result<AgentTasks> {
    let environment = &config.environment;
    environment.search.validate()?;
    if environment.asked == 0 || environment.asked > environment.people {
        anyhow::bail!("`environment.asked`: expected from 1 to `environment.people`");
    }
    if environment.people > PEOPLE {
        anyhow::bail!("`environment.people`: expected at most {PEOPLE}");
    }
    let draw = |split: &str, count: usize| -> Vec<Example> {
        let task = |index: u64| {
            let below = |what: &str, most: usize| {
                task_seed(seed, &format!("{split} {what}"), index) as usize % most
            };
            let fact = below("fact", FACTS.len());
            let mut people = BTreeSet::new();
            for draw in 0.. {
                if people.len() == environment.asked {
                    break;
                }
                people.insert(below(&format!("person {draw}"), environment.people));
            }
            let names: Vec<String> = people.iter().map(|person| name(*person)).collect();
            let wanted: Vec<u32> = people.iter().map(|person| number(*person, fact)).collect();
            let (asked, searched, ..) = FACTS[fact];
            let question = format!("Where or as what {asked}: {}?", names.join(", "));
            let metadata = json!({ "names": names, "searched": searched, "wanted": wanted });
            let id = format!("{split}-{index}");
            let answer = format!("{wanted:?}");
            Example {
                metadata: metadata.as_object().cloned(),
                ..Example::new(id, "search", question, answer)
            }
        };
        (0..count as u64).map(task).collect()
    };
    let corpus = Arc::new(corpus(environment.people)?);
    let arm = |name, shown, prune| Arm {
        name,
        shown,
        builder: Arc::new(Builder {
            corpus: corpus.clone(),
            config: SearchConfig { prune, ..environment.search.clone() },
        }),
    };
    Ok(AgentTasks {
        train: draw("train", config.tasks.train),
        validation: draw("validation", config.tasks.validation),
        test: draw("test", config.tasks.test),
        arms: vec![
            arm(PRUNING, SHOWN_PRUNING, true),
            arm(KEEPING, "warm-start-without-prune", false),
        ],
    })
}

/// Searches for one person after another, prunes what is not asked for where it may, and answers with
/// what it has found: when it has asked for all, or when its context is full.
fn demonstrator(model: &TextModel, shown: Shown<'_>) -> Option<Arc<dyn Actor>> {
    let Shown { name: arm, task, .. } = shown;
    let prunes = arm == SHOWN_PRUNING;
    let names: Vec<String> = serde_json::from_value(field(task, "names")).unwrap_or_default();
    let searched = field(task, "searched").as_str().unwrap_or_default().to_owned();
    let wanted: BTreeSet<u32> = wanted(task).into_iter().collect();
    let left = Mutex::new((names.into_iter(), BTreeSet::new()));
    Some(Arc::new(ScriptedActor::new(model.clone(), move |_, read: &[Message]| {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let (names, found) = &mut *left;
        let text: Vec<_> = read.iter().map(|message| message.text().into_owned()).collect();
        let ids: Vec<u32> = text.iter().flat_map(|text| passages(text)).collect();
        found.extend(ids.iter().copied().filter(|id| wanted.contains(id)));

        let searched_now = read.last().is_some_and(|message| message.role == Role::Tool);
        let useless: Vec<u32> = ids.into_iter().filter(|id| !wanted.contains(id)).collect();
        let full = text.iter().any(|text| text.contains("answer soon"));
        let call = if prunes && searched_now && !useless.is_empty() {
            ToolCall::new("", "prune", json!({ "ids": useless }))
        } else if let Some(name) = names.next().filter(|_| !full) {
            ToolCall::new("", "search", json!({ "query": format!("{name} {searched}") }))
        } else {
            ToolCall::new("", "answer", json!({ "ids": found }))
        };
        Some(ToolFormat::Hermes.write(&[call]))
    })))
}

/// The numbers of the passages that a text shows.
fn passages(text: &str) -> Vec<u32> {
    text.lines()
        .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
        .collect()
}

/// What a run's policy reached.
#[derive(Serialize, Deserialize)]
struct Reached {
    seed: u64,
    arm: String,
    /// Questions.
    n: usize,
    recall: f64,
    /// In an environment that has no `prune`.
    recall_tool_removed: f64,
    warm_start: f64,
    prune_accuracy: Option<f64>,
    /// Of what searches showed, what nobody asked for: what pruning without a look would get right.
    unwanted: f64,
    precision: f64,
    turns: f64,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let config: AgentFile<SearchFile> = examples::read_config(&args.config)?;
    let corpus = Arc::new(corpus(config.environment.people)?);
    let search = SearchConfig { prune: false, ..config.environment.search };
    let without = Builder { corpus, config: search };

    let reports = train_agents(&args, tasks, &demonstrator, |seed, learned, console| {
        let test = &learned.tasks.test;
        let metric =
            |name: &'static str| move |t: &Trajectory| t.metrics.get(name).copied().unwrap_or(0.0);
        let after = learned.run.evaluate(&learned.after, test, console)?;
        let before = learned.run.evaluate(&learned.before, test, console)?;
        let removed = match learned.arm {
            PRUNING => Some(learned.run.evaluate_in(&without, &learned.after, test, console)?),
            _ => None,
        };
        // Of the episodes in which anything was pruned, if it was in any.
        let pruned: f64 = mean_of(&after, metric("pruned"));
        let rightly =
            mean_of(&after, |t| metric("pruned")(t) * metric("prune_accuracy")(t)) / pruned;
        Ok(Reached {
            seed,
            arm: learned.arm.to_owned(),
            n: test.len(),
            recall: mean_of(&after, metric("recall")),
            recall_tool_removed: mean_of(removed.as_ref().unwrap_or(&after), metric("recall")),
            warm_start: mean_of(&before, metric("recall")),
            unwanted: mean_of(&after, metric("unwanted")),
            prune_accuracy: Some(rightly).filter(|rightly| rightly.is_finite()),
            precision: mean_of(&after, metric("precision")),
            turns: mean_of(&after, |t| t.turns.len() as f64),
        })
    })?;
    let Some(reports) = reports else { return Ok(()) };

    let of = |arm: &str, value: fn(&Reached) -> f64| -> Vec<f64> {
        reports.iter().filter(|report| report.arm == arm).map(value).collect()
    };
    let mean = |arm: &str, value| over_seeds(&of(arm, value)).0;
    let pairs = of(PRUNING, |r| r.recall).into_iter().zip(of(KEEPING, |r| r.recall));
    let (difference, low, high) = over_seeds(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>());
    let removed = over_seeds(&of(PRUNING, |r| r.recall - r.recall_tool_removed));
    let pruned: Vec<f64> = reports.iter().filter_map(|r| r.prune_accuracy).collect();
    let table = |arm: &str| {
        json!({
            "recall": mean(arm, |r| r.recall),
            "recall_after_warm_start": mean(arm, |r| r.warm_start),
            "precision": mean(arm, |r| r.precision),
            "unwanted": mean(arm, |r| r.unwanted),
            "turns": mean(arm, |r| r.turns),
        })
    };
    examples::write_summary(
        &args.out,
        &json!({
            "seeds": reports.iter().map(|r| r.seed).collect::<BTreeSet<_>>(),
            "n": reports.first().map(|r| r.n),
            "recall": mean(PRUNING, |r| r.recall),
            "recall_without_prune": mean(KEEPING, |r| r.recall),
            // Of the recalls: may prune less trained without.
            "difference": difference,
            "low": low,
            "high": high,
            "prune_accuracy": (!pruned.is_empty()).then(|| over_seeds(&pruned).0),
            "seeds_that_prune": pruned.len(),
            // The policy that has learned to prune, without the tool.
            "tool_removed": {
                "recall": mean(PRUNING, |r| r.recall_tool_removed),
                "difference": removed.0,
                "low": removed.1,
                "high": removed.2,
            },
            PRUNING: table(PRUNING),
            KEEPING: table(KEEPING),
        }),
    )
}
