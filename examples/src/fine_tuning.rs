//! What the examples of fine-tuning share: configuration, evaluation before and after, the page.

use crate::page::{Curve, Page, PageSample};
use crate::run_folder::{RunArgs, Summary, begin, check_name, evaluated_once, read_config, write};
use crate::{console, join_ranks, log_and_trace, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use posttrain::data::{Example, Split};
use posttrain::experiment::DataConfig;
use posttrain::model::TextModel;
use posttrain::recipes::lesson::{HeldOut, Lesson};
use posttrain::recipes::{
    EvaluationMode, Event, FineTuneConfig, FineTuneRecord, FineTuneRun, ModelSource, PromptStyle,
    Ranks, RunOutcome,
};
use posttrain::reward::RewardConfig;
use posttrain::store::read_log;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// A configuration file of a fine-tuning run, whose lesson is configured by a `T`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuneFile<T> {
    /// The name of the model's folder within the run's.
    pub name: String,
    /// The domain that is trained on and tested; all of them where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The base.
    pub model: ModelSource,
    /// The data.
    pub data: DataConfig,
    /// How a question is put.
    #[serde(default)]
    pub prompt: PromptStyle,
    /// What says whether an answer is right, in evaluations (and where pairs are sampled).
    #[serde(default)]
    pub reward: RewardConfig,
    /// What is learned.
    pub lesson: T,
    /// The run.
    #[serde(default)]
    pub fine_tune: FineTuneConfig,
}

/// The examples of a run.
pub struct RunExamples {
    /// What is learned from.
    pub train: Vec<Example>,
    /// What checkpoints are chosen by.
    pub validation: Vec<Example>,
    /// What is reported.
    pub test: Vec<Example>,
}

impl<T> FineTuneFile<T> {
    fn examples(&self) -> Result<RunExamples> {
        let splits = self.data.splits()?;
        if let Some(domain) = &self.domain
            && !splits.domains().contains(&domain.as_str())
        {
            let known = splits.domains().join(", ");
            bail!("domain `{domain}` is not in the dataset; there are: {known}");
        }
        let part = |which| {
            let all = match which {
                Split::Train => &splits.train,
                Split::Validation => &splits.validation,
                Split::Test => &splits.test,
            };
            let own =
                |example: &&Example| self.domain.as_ref().is_none_or(|d| *d == example.domain);
            all.iter().filter(own).cloned().collect()
        };
        Ok(RunExamples {
            train: part(Split::Train),
            validation: part(Split::Validation),
            test: part(Split::Test),
        })
    }
}

/// Runs a lesson from a configuration file: evaluates the base on the test split, trains, evaluates
/// the chosen checkpoint on the same questions with the same seeds, and writes `summary.json` and
/// `report.html`. Interrupted or killed, it goes on when it is started again.
///
/// `lesson` makes the lesson; it may change the examples, as one of preferences does, which needs
/// pairs. Started by torchrun, several processes make the run together.
///
/// # Errors
/// Whatever is wrong with the configuration, the data or the model, by name.
pub fn fine_tune<T, L>(
    args: &RunArgs,
    lesson: impl FnOnce(&FineTuneFile<T>, &TextModel, &mut RunExamples, Place<'_>) -> Result<L>,
) -> Result<()>
where
    T: Serialize + DeserializeOwned,
    L: Lesson,
{
    let _trace = log_and_trace(args.trace.as_deref())?;
    let config: FineTuneFile<T> = read_config(&args.config)?;
    let named = || args.config.display().to_string();
    config.fine_tune.validate().with_context(|| format!("{}: [fine_tune]", named()))?;
    check_name(&args.config, &config.name)?;
    let mut data = config.examples().with_context(named)?;
    if data.train.is_empty() {
        bail!("{}: `data.sizes.train` must be at least 1: nothing can be learned", named());
    }
    if data.test.is_empty() {
        bail!("{}: `data.sizes.test` must be at least 1: there is nothing to report", named());
    }
    let (ranks, device) = join_ranks(args.rank_timeout, config.model.device)?;
    let model = ModelSource { device, ..config.model.clone() }.load();
    let model = model.with_context(|| format!("{}: [model]: cannot be opened", named()))?;
    config.fine_tune.lora.select(model.decoder.modules())?;
    let _lock = begin(args, &config, &ranks)?;

    let test = data.test.clone();
    let folder = args.out.join(&config.name);
    let preparing = Instant::now();
    let lesson = lesson(&config, &model, &mut data, Place { out: &args.out, ranks: &ranks })?;
    let prepared = kept_seconds(&args.out.join("prepared.json"), &ranks, preparing)?;
    let run = FineTuneRun::new(model, lesson, config.fine_tune.clone(), &folder)?
        .with_base_model(config.model.path.display().to_string())
        .with_lesson_config(serde_json::to_value(&config.lesson)?)
        .with_accuracy(config.prompt.clone(), config.reward.build()?)?
        .with_ranks(ranks.clone())?;
    stop_on_interrupt(run.stop_flag())?;
    let mut console = console(&ranks);

    let mode = EvaluationMode::SampledAndGreedy;
    let before = evaluated_once(&args.out.join("test_before.json"), &ranks, || {
        run.evaluate("test before", None, &test, mode, &mut *console)
    })?;
    let RunOutcome { state, complete } = run.train(&data.train, &data.validation, &mut *console)?;
    if !complete {
        let text = format!("stopped after step {}; start it again to go on", state.step);
        console.see(&Event::Note { text: &text });
        return Ok(());
    }

    let best = folder.join(if state.best.is_some() { "best" } else { "last" });
    let started = Instant::now();
    let after = run.evaluate("test after", Some(&best), &test, mode, &mut *console)?;
    let answers = run.answers(Some(&best), &test[..test.len().min(24)], &mut *console)?;
    let held_out = match data.validation.as_slice() {
        [] => "no validation examples, and so no measure of the lesson's own".to_owned(),
        examples => lead([run.held_out(None, examples)?, run.held_out(Some(&best), examples)?]),
    };
    let summary = Summary {
        best_step: state.best.map(|best| best.step),
        seconds: prepared + before.seconds + state.seconds + started.elapsed().as_secs_f64(),
        ..Summary::of(before.evaluation, after, state.step)
    };
    if !ranks.is_leader() {
        return Ok(());
    }
    summary.write(&args.out)?;

    let records: Vec<FineTuneRecord> = read_log(&folder.join("metrics.jsonl"))?;
    let samples = answers.into_iter().map(|answer| PageSample {
        question: answer.question,
        reference: answer.reference,
        answer: answer.response,
        reward: answer.reward,
        advantage: None,
        tokens: Vec::new(),
    });
    let page = Page {
        title: format!("{}: {} steps", config.name, state.step),
        lead: held_out.clone(),
        accuracies: vec![("before".into(), summary.before), ("after".into(), summary.after)],
        curves: curves(&records),
        samples: samples.collect(),
        conversations: Vec::new(),
    };
    page.write(&args.out.join("report.html"))?;
    summary.print(&args.out);
    println!("{held_out}");
    Ok(())
}

/// How long the examples took to prepare, over all starts of the run; the leader's, who tells it.
fn kept_seconds(path: &Path, ranks: &Ranks, since: Instant) -> Result<f64> {
    let kept = std::fs::read_to_string(path).ok();
    let kept: Option<f64> = kept.and_then(|text| serde_json::from_str(&text).ok());
    let seconds = kept.unwrap_or(0.0) + since.elapsed().as_secs_f64();
    ranks.led(|| write(path, &serde_json::to_string(&seconds)?))?;
    Ok(seconds)
}

/// The lesson's own measure, before and after.
fn lead([before, after]: [HeldOut; 2]) -> String {
    format!(
        "{} on the validation examples: {:.3} before, {:.3} after",
        before.name, before.value, after.value
    )
}

fn curves(records: &[FineTuneRecord]) -> Vec<Curve> {
    let over = |title: &str, value: &dyn Fn(&FineTuneRecord) -> Option<f64>| Curve {
        title: title.to_owned(),
        points: records.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect(),
    };
    let mut curves = vec![over("Loss", &|r| Some(r.loss))];
    let names = |of: fn(&FineTuneRecord) -> Vec<&String>| {
        let mut names: Vec<String> = records.iter().flat_map(of).cloned().collect();
        names.sort();
        names.dedup();
        names
    };
    for name in names(|r| r.metrics.keys().collect()) {
        curves.push(over(&name, &|r| r.metrics.get(&name).copied()));
    }
    for name in names(|r| r.held_out.keys().collect()) {
        curves.push(over(&format!("{name}, validation"), &|r| r.held_out.get(&name).copied()));
    }
    curves.push(over("Validation accuracy", &|r| Some(r.validation.as_ref()?.sampled.share)));
    curves.push(over("Gradient norm", &|r| Some(r.grad_norm)));
    curves
}

/// Where a run is, and who makes it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its folder.
    pub out: &'a Path,
    /// Its ranks.
    pub ranks: &'a Ranks,
}

/// Examples that an earlier start of the same run kept, or those that `make` makes, of several ranks
/// on each; the leader keeps them.
///
/// # Errors
/// What `make` returns, or why the file cannot be read or written.
pub fn kept_examples(
    path: &Path,
    ranks: &Ranks,
    make: impl FnOnce() -> Result<Vec<Example>>,
) -> Result<Vec<Example>> {
    // All ranks make them, or none does.
    if ranks.any(Ok(!path.exists()))? {
        let examples = make()?;
        ranks.led(|| {
            let line = |example| Ok(serde_json::to_string(example)? + "\n");
            write(path, &examples.iter().map(line).collect::<Result<String>>()?)
        })?;
        return Ok(examples);
    }
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    text.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(named)
}
