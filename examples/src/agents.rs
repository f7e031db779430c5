//! What the examples of environments share: seeds, a warm start, training, a test of what was
//! learned, the page.

use crate::page::{Conversation, Curve, Page, Said};
use crate::run_folder::{RunArgs, begin, check_name, read_config, write};
use crate::{console, join_ranks, log_and_trace, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use posttrain::data::Example;
use posttrain::environment::{Actor, Trajectory};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{
    AgentConfig, AgentRecord, AgentRun, EnvironmentBuilder, EpisodeGroup, WarmStartConfig,
};
use posttrain::recipes::{Event, MetricsLog, ModelSource, Observer, Ranks, RecipeError};
use posttrain::rollout::derive_seed;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A configuration file of policies in an environment that is configured by a `T`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFile<T> {
    /// The run's name.
    pub name: String,
    /// A run for each: their spread is the result's interval.
    pub seeds: Vec<u64>,
    /// The base.
    pub model: ModelSource,
    /// Tasks.
    pub tasks: TaskCounts,
    /// The environment.
    pub environment: T,
    /// What is learned from demonstrations first; nothing where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmStartConfig>,
    /// The run. Its seed is each of `seeds`.
    pub agent: AgentConfig,
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCounts {
    /// To learn from.
    pub train: usize,
    /// That checkpoints are chosen by.
    pub validation: usize,
    /// That are reported.
    pub test: usize,
}

/// What one seed's run is made of.
pub struct AgentTasks {
    /// To learn from.
    pub train: Vec<Example>,
    /// That checkpoints are chosen by.
    pub validation: Vec<Example>,
    /// That are reported.
    pub test: Vec<Example>,
    /// Whatever is compared: each is a run of its own on the same tasks.
    pub arms: Vec<Arm>,
}

/// A run of a seed.
pub struct Arm {
    /// Its name, and that of its folder.
    pub name: &'static str,
    /// Environments of the tasks.
    pub builder: Arc<dyn EnvironmentBuilder>,
    /// The name of its warm start: arms that are shown the same share one.
    pub shown: &'static str,
}

impl Arm {
    /// The one run of an example that compares none.
    #[must_use]
    pub fn only(builder: Arc<dyn EnvironmentBuilder>) -> Vec<Self> {
        vec![Self { name: "run", builder, shown: "warm-start" }]
    }
}

/// What is to be shown.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The arm's [`Arm::shown`].
    pub name: &'a str,
    /// The role.
    pub role: &'a str,
    /// The task.
    pub task: &'a Example,
}

/// Whoever plays a role in a task and knows how; nobody, where a role is not shown.
pub type Demonstrator<'a> = &'a dyn Fn(&TextModel, Shown<'_>) -> Option<Arc<dyn Actor>>;

/// What a run has learned, and how to play with it.
pub struct Learned<'a> {
    /// The arm's name.
    pub arm: &'static str,
    /// The run.
    pub run: &'a AgentRun,
    /// The same with nothing learned: its roles play as the base does that is prompted.
    pub base: AgentRun,
    /// The seed's tasks.
    pub tasks: &'a AgentTasks,
    /// The adapters before reinforcement, by role: the warm start's.
    pub before: BTreeMap<String, PathBuf>,
    /// The adapters behind it.
    pub after: BTreeMap<String, PathBuf>,
}

/// Trains each seed's policies, arm by arm, hands what they have learned to `report`, and writes
/// the page. Interrupted or killed, it goes on when it is started again; what `report` said of an arm
/// is kept.
///
/// # Errors
/// Whatever is wrong with the configuration or the model, by name.
pub fn train_agents<T, R>(
    args: &RunArgs,
    tasks: impl Fn(&AgentFile<T>, u64) -> Result<AgentTasks>,
    demonstrator: Demonstrator<'_>,
    mut report: impl FnMut(u64, &Learned<'_>, &mut dyn Observer) -> Result<R>,
) -> Result<Option<Vec<R>>>
where
    T: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    let _trace = log_and_trace(args.trace.as_deref())?;
    match train_all(args, &tasks, demonstrator, &mut report) {
        Err(error) if matches!(error.downcast_ref(), Some(RecipeError::Stopped)) => {
            eprintln!("stopped; start it again to go on");
            Ok(None)
        }
        outcome => outcome,
    }
}

fn train_all<T, R>(
    args: &RunArgs,
    tasks: &impl Fn(&AgentFile<T>, u64) -> Result<AgentTasks>,
    demonstrator: Demonstrator<'_>,
    report: &mut impl FnMut(u64, &Learned<'_>, &mut dyn Observer) -> Result<R>,
) -> Result<Option<Vec<R>>>
where
    T: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    let config: AgentFile<T> = read_config(&args.config)?;
    let named = || args.config.display().to_string();
    config.agent.validate().with_context(|| format!("{}: [agent]", named()))?;
    if let Some(warm) = &config.warm_start {
        warm.validate().with_context(named)?;
        let given = config.agent.roles.iter().find(|(_, role)| role.adapter.is_some());
        if let Some((role, _)) = given {
            bail!("{}: `agent.roles.{role}.adapter`: a warm start makes one of its own", named());
        }
    }
    check_name(&args.config, &config.name)?;
    let distinct: BTreeSet<u64> = config.seeds.iter().copied().collect();
    if distinct.len() < config.seeds.len() {
        bail!("{}: `seeds`: one stands twice", named());
    }
    if config.seeds.is_empty() || config.tasks.train == 0 || config.tasks.test == 0 {
        bail!("{}: `seeds`, `tasks.train` and `tasks.test` must not be empty", named());
    }
    let (ranks, device) = join_ranks(args.rank_timeout, config.model.device)?;
    let model = ModelSource { device, ..config.model.clone() }.load();
    let model = model.with_context(|| format!("{}: [model]: cannot be opened", named()))?;
    let _lock = begin(args, &config, &ranks)?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone())?;

    let mut console = console(&ranks);
    let mut reports = Vec::new();
    let mut curves = Vec::new();
    let mut conversations = Vec::new();
    for &seed in &config.seeds {
        let tasks = tasks(&config, seed)?;
        // A role that is not trained is the same in all arms.
        let mut frozen: BTreeMap<String, PathBuf> = BTreeMap::new();
        for arm in &tasks.arms {
            if ranks.any(Ok(stop.load(Ordering::Relaxed)))? {
                tell(&mut *console, "stopped; start it again to go on");
                return Ok(None);
            }
            let place = args.out.join(format!("seed-{seed}"));
            let folder = place.join(arm.name);
            let mut agent = AgentConfig { seed, ..config.agent.clone() };
            let begun = |agent: &AgentConfig, folder: &Path| -> Result<AgentRun> {
                let run = AgentRun::new(model.clone(), arm.builder.clone(), agent.clone(), folder)?;
                let run = run.with_base_model(config.model.path.display().to_string());
                Ok(run.with_ranks(ranks.clone())?.with_stop_flag(stop.clone()))
            };
            let base = begun(&agent, &place.join("base"))?;
            let mut before = BTreeMap::new();
            if let Some(warm) = &config.warm_start {
                let place = place.join(arm.shown);
                // Whoever demonstrates has the environment and nothing of the run's folder.
                let run = begun(&agent, &place.with_extension("run"))?;
                let actor = |role: &str, task: &Example| {
                    demonstrator(&model, Shown { name: arm.shown, role, task })
                };
                let known = (tasks.train.as_slice(), &frozen);
                before =
                    warm_up((&run, &agent, &ranks), (warm, &actor), known, &place, &mut *console)?;
                for (role, adapter) in &before {
                    if let Some(settings) = agent.roles.get_mut(role) {
                        settings.adapter = Some(adapter.clone());
                        if !settings.trained {
                            frozen.insert(role.clone(), adapter.clone());
                        }
                    }
                }
            }

            let roles = agent.roles.iter().filter(|(_, role)| role.trained);
            let trained: Vec<String> = roles.map(|(name, _)| name.clone()).collect();
            let run = begun(&agent, &folder)?;
            tell(&mut *console, &format!("seed {seed}, {}", arm.name));
            if !run.train(&tasks.train, &tasks.validation, &mut *console)? {
                tell(&mut *console, "stopped; start it again to go on");
                return Ok(None);
            }
            let after = trained.into_iter().map(|role| {
                let best = folder.join(&role).join("best");
                let last = folder.join(&role).join("last");
                (role, if best.exists() { best } else { last })
            });
            let after = after.collect();
            let learned = Learned { arm: arm.name, run: &run, base, tasks: &tasks, before, after };
            let kept = folder.join("reached.json");
            // All ranks play the test, or none does.
            reports.push(if ranks.any(Ok(!kept.exists()))? {
                let reached = report(seed, &learned, &mut *console)?;
                ranks.led(|| write(&kept, &serde_json::to_string_pretty(&reached)?))?;
                reached
            } else {
                read_json(&kept)?
            });
            if !ranks.is_leader() {
                continue;
            }

            let (_, records) = MetricsLog::<AgentRecord>::open(&folder, u64::MAX)?;
            let title = match tasks.arms.len() {
                1 => format!("seed {seed}"),
                _ => format!("seed {seed}, {}", arm.name),
            };
            curves.extend(curves_of(&title, &records));
            conversations.extend(logged(&folder, &title)?);
        }
    }
    if !ranks.is_leader() {
        return Ok(None);
    }
    write_page(args, &config.name, curves, conversations)?;
    Ok(Some(reports))
}

fn tell(observer: &mut dyn Observer, text: &str) {
    observer.see(&Event::Note { text });
}

/// The adapters of the roles that are shown something, in `place`, and of those that are `frozen`.
fn warm_up(
    (run, agent, ranks): (&AgentRun, &AgentConfig, &Ranks),
    (warm, actor): (&WarmStartConfig, &dyn Fn(&str, &Example) -> Option<Arc<dyn Actor>>),
    (train, frozen): (&[Example], &BTreeMap<String, PathBuf>),
    place: &Path,
    console: &mut dyn Observer,
) -> Result<BTreeMap<String, PathBuf>> {
    // Which roles were shown something, once all of them have learned it.
    let done = place.join("roles.json");
    let with_frozen = |roles: &[String]| -> BTreeMap<String, PathBuf> {
        let own = roles.iter().map(|role| (role.clone(), place.join(role)));
        own.chain(frozen.clone()).collect()
    };
    if !ranks.any(Ok(!done.exists()))? {
        return Ok(with_frozen(&read_json::<Vec<String>>(&done)?));
    }

    let played = run.demonstrate(&train[..warm.demonstrations.min(train.len())], actor)?;
    let reward = played.iter().map(Trajectory::reward).sum::<f64>() / played.len().max(1) as f64;
    tell(console, &format!("warm start: {} demonstrations, reward {reward:.3}", played.len()));
    let its = |role: &str| {
        let all = played.iter().flat_map(Trajectory::with_children);
        all.filter(|trajectory| trajectory.role == role).collect::<Vec<_>>()
    };
    // A role that an arm has nothing to do for is shown nothing; one that is frozen has been shown all.
    let knows = |role: &&String| {
        !frozen.contains_key(*role) && actor(role, &train[0]).is_some() && !its(role).is_empty()
    };
    let roles: Vec<String> = agent.roles.keys().filter(knows).cloned().collect();
    for role in &roles {
        let losses = run.warm_start(role, its(role), warm, &place.join(role), console)?;
        if let (Some(first), Some(last)) = (losses.first(), losses.last()) {
            let steps = losses.len();
            tell(console, &format!("{role}: {steps} steps, loss {first:.3} -> {last:.3}"));
        }
    }
    ranks.led(|| {
        std::fs::create_dir_all(place).with_context(|| place.display().to_string())?;
        write(&done, &serde_json::to_string(&roles)?)
    })?;
    Ok(with_frozen(&roles))
}

fn read_json<R: DeserializeOwned>(path: &Path) -> Result<R> {
    let named = || format!("{}: what an earlier start kept", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    serde_json::from_str(&text).with_context(named)
}

fn curves_of(run: &str, records: &[AgentRecord]) -> Vec<Curve> {
    let over = |title: &str, value: &dyn Fn(&AgentRecord) -> Option<f64>| Curve {
        title: format!("{title}, {run}"),
        points: records.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect(),
    };
    let mut curves = vec![
        over("Reward", &|r| Some(r.episodes.reward)),
        over("Validation reward", &|r| Some(r.validation.as_ref()?.reward)),
        over("Turns", &|r| Some(r.episodes.turns)),
        over("Critical steps", &|r| Some(r.episodes.critical_steps)),
        over("Malformed calls", &|r| Some(r.episodes.malformed_calls)),
    ];
    let names: BTreeSet<&String> = records.iter().flat_map(|r| r.episodes.metrics.keys()).collect();
    for name in names {
        curves.push(over(name, &|r| r.episodes.metrics.get(name).copied()));
    }
    curves
}

/// A line of a run's `episodes.jsonl`, as far as a page shows it.
#[derive(Deserialize)]
struct Logged {
    step: u64,
    task: String,
    advantage: f32,
    trajectory: Trajectory,
}

/// A run's first and last episodes on record.
fn logged(folder: &Path, run: &str) -> Result<Vec<Conversation>> {
    let lines: Vec<Logged> = posttrain::store::read_log(&folder.join("episodes.jsonl"))?;
    let (first, last) = (lines.first().map(|l| l.step), lines.last().map(|l| l.step));
    let shown = lines.iter().filter(|line| Some(line.step) == first || Some(line.step) == last);
    Ok(shown.map(|line| conversation(line, run)).collect())
}

fn conversation(line: &Logged, run: &str) -> Conversation {
    let trajectory = &line.trajectory;
    Conversation {
        title: format!(
            "{run}, {}, step {}, {}: reward {:.2}, advantage {:+.2}",
            folder_name(&line.task),
            line.step,
            trajectory.role,
            trajectory.reward(),
            line.advantage
        ),
        said: said(trajectory, 0),
    }
}

fn folder_name(task: &str) -> &str {
    task.rsplit('/').next().unwrap_or(task)
}

/// A whole conversation: what was read is masked, what was written is trained on.
fn said(trajectory: &Trajectory, depth: usize) -> Vec<Said> {
    let read = |message: &posttrain::chat::Message| Said {
        who: message.role.to_string(),
        text: message.text().into_owned(),
        written: false,
        depth,
    };
    let mut all: Vec<Said> = trajectory.opening.iter().map(read).collect();
    let mut segment = 0;
    for turn in &trajectory.turns {
        if turn.place.segment != segment {
            segment = turn.place.segment;
            let text = "the context begins anew".into();
            all.push(Said { who: "context".into(), text, written: false, depth });
        }
        let reward = (turn.reward != 0.0).then(|| format!(" ({:+.2})", turn.reward));
        let who = format!("{}{}", trajectory.role, reward.unwrap_or_default());
        all.push(Said { who, text: turn.text.clone(), written: true, depth });
        for child in &turn.children {
            all.extend(said(child, depth + 1));
        }
        all.extend(turn.answer.iter().map(read));
    }
    all
}

fn write_page(
    args: &RunArgs,
    name: &str,
    curves: Vec<Curve>,
    conversations: Vec<Conversation>,
) -> Result<()> {
    let page = Page {
        title: name.to_owned(),
        lead: "What a policy wrote is green, and trained on; what it read is not.".into(),
        accuracies: Vec::new(),
        curves,
        samples: Vec::new(),
        conversations,
    };
    page.write(&args.out.join("report.html"))
}

/// Mean and interval of a number over seeds: Student's, 95%.
#[must_use]
pub fn over_seeds(values: &[f64]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, f64::NEG_INFINITY, f64::INFINITY);
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = student_975(values.len() - 1) * (variance / n).sqrt();
    (mean, mean - half, mean + half)
}

/// The 97.5% quantile of Student's t (tables; the normal one's beyond).
fn student_975(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    TABLE.get(freedom - 1).copied().unwrap_or(1.96)
}

/// The mean of a number over one episode of each task; those that failed have none.
#[must_use]
pub fn mean_of(groups: &[EpisodeGroup], value: impl Fn(&Trajectory) -> f64) -> f64 {
    let played: Vec<f64> = groups
        .iter()
        .flat_map(|g| &g.episodes)
        .filter_map(|e| e.as_ref().ok())
        .map(value)
        .collect();
    // A sum of nothing is -0.
    if played.is_empty() {
        f64::NAN
    } else {
        played.iter().sum::<f64>() / played.len() as f64 + 0.0
    }
}

/// A seed of its own for one purpose of a run.
#[must_use]
pub fn task_seed(seed: u64, what: &str, index: u64) -> u64 {
    derive_seed(seed, what, index, 0)
}

/// Writes a run's `summary.json`. What is not known is `null`: an interval of one seed, for one.
///
/// # Errors
/// Names the file.
pub fn write_summary(out: &Path, summary: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(summary)?;
    println!("{text}");
    write(&out.join("summary.json"), &(text + "\n"))
}
