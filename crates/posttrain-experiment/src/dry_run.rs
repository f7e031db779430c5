//! What an experiment would do, and what would stop it: everything but the weights.

use crate::{Arm, ExperimentConfig, ExperimentError, RouterConfig, RouterKind, plan};
use posttrain_chat::openai::OpenAiConfig;
use posttrain_chat::{ChatRequest, Message};
use posttrain_data::{Example, Splits};
use posttrain_model::{Checkpoint, ModelSize, select_device, select_kind};
use posttrain_recipes::{ModelSource, RecipeError};
use posttrain_reward::audit::ReferenceCheck;
use posttrain_reward::{Sample, Scorer};
use posttrain_train::{MemoryPlan, PlanRequest};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// An experiment that has been gone through without its weights.
#[derive(Debug)]
pub struct DryRun {
    /// Training, validation and test questions.
    pub questions: [usize; 3],
    /// The arms.
    pub arms: Vec<Arm>,
    /// The routers, by name.
    pub routers: Vec<String>,
    /// The one that stands before the specialists.
    pub router_used: String,
    /// The base, where its description could be had.
    pub model: Option<PlannedModel>,
    /// What the reward's verifier makes of the data's own references, by domain; nothing where the
    /// reward has none.
    pub references: BTreeMap<String, ReferenceCheck>,
    /// What would stop a run on this machine, as it is now.
    pub problems: Vec<String>,
}

/// A model that has not been loaded.
#[derive(Debug, Clone, Copy)]
pub struct PlannedModel {
    /// How large it is.
    pub size: ModelSize,
    /// What a run holds in memory.
    pub memory: MemoryPlan,
    /// Tokens of the longest prompt, all splits taken together.
    pub longest_prompt: usize,
    /// Tokens that the model's positions are good for.
    pub context: i64,
}

impl DryRun {
    /// Goes through an experiment: data and arms; the model's configuration, tokenizer and template
    /// (fetched where they are on the hub), every prompt put into tokens; the reward, which is
    /// asked about one reference answer a domain; its verifier, if it has one, on every reference
    /// answer, against itself and another row's; the servers of routers and of the judge of test
    /// answers, which are asked one question each.
    ///
    /// # Errors
    /// What is wrong with configuration or data. What is wrong with the machine, a file that is not
    /// there or a server that does not answer is in [`DryRun::problems`].
    pub fn of(config: &ExperimentConfig) -> Result<Self, ExperimentError> {
        let config = config.clone().resolved();
        config.validate()?;
        let (splits, arms) = plan(&config)?;

        let mut problems = Vec::new();
        let model = match planned(&config, &splits) {
            Ok(model) => Some(model),
            Err(error) => {
                problems.push(format!("model: {error}"));
                None
            }
        };
        problems.extend(model.and_then(|model| model.problem(&config)));

        if let Some(Err(error)) = config.routing.model.as_ref().map(ModelSource::without_weights) {
            problems.push(format!("routing.model: {error}"));
        }

        let runtime = tokio::runtime::Runtime::new()
            .map_err(ExperimentError::io(Path::new("the servers' threads")))?;
        problems.extend(unrewarded(&config, &splits, &runtime)?);

        let references = references(&config, &splits)?;
        problems.extend(references.iter().filter_map(|(domain, check)| misfit(domain, check)));

        for (name, server) in servers(&config) {
            problems.extend(silent(server, &runtime).map(|error| format!("{name}: {error}")));
        }

        let routers =
            config.routing.routers.iter().map(|router| router.name().to_owned()).collect();
        Ok(Self {
            questions: [splits.train.len(), splits.validation.len(), splits.test.len()],
            arms,
            routers,
            router_used: config.routing.used,
            model,
            references,
            problems,
        })
    }
}

impl PlannedModel {
    fn problem(&self, config: &ExperimentConfig) -> Option<String> {
        let prompt = self.longest_prompt;
        let completion = config.rl.sampling.max_tokens;
        ((prompt + completion) as i64 > self.context).then(|| {
            format!(
                "model: a prompt of {prompt} tokens and `rl.sampling.max_tokens` of {completion} do not fit its {} positions",
                self.context
            )
        })
    }
}

fn planned(config: &ExperimentConfig, splits: &Splits) -> Result<PlannedModel, ExperimentError> {
    let checkpoint = config.model.without_weights()?;
    let device = select_device(config.model.device).map_err(RecipeError::from)?;
    let kind = select_kind(config.model.kind, device);
    let longest_prompt = longest_prompt(config, splits, &checkpoint)?;

    let model = checkpoint.config();
    let rl = &config.rl;
    let workers = if device.is_cuda() { 1 } else { tch::get_num_threads().max(1) as usize };
    let memory = MemoryPlan::of(&PlanRequest {
        model,
        quantize: config.model.quantize,
        kind,
        device,
        lora: &rl.lora,
        trainer: rl.trainer,
        workers,
        rows: rl.engine.max_rows,
        prompt_tokens: longest_prompt,
        completion_tokens: rl.sampling.max_tokens,
        group_size: rl.group_size,
        record_mib: rl.engine.record_mib,
    });

    let size = ModelSize::of(model, config.model.quantize, kind);
    Ok(PlannedModel { size, memory, longest_prompt, context: model.max_position_embeddings })
}

fn longest_prompt(
    config: &ExperimentConfig,
    splits: &Splits,
    checkpoint: &Checkpoint,
) -> Result<usize, ExperimentError> {
    let wrong = RecipeError::from;
    let tokenizer = checkpoint.tokenizer().map_err(wrong)?;
    let template = checkpoint.chat_template().map_err(wrong)?;

    let mut longest = 0;
    for example in splits.train.iter().chain(&splits.validation).chain(&splits.test) {
        longest =
            longest.max(config.prompt.encode(&example.question, &tokenizer, &template)?.len());
    }
    Ok(longest)
}

/// What the reward says of a reference answer of each domain, where it does not say that it is
/// right.
fn unrewarded(
    config: &ExperimentConfig,
    splits: &Splits,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<String>, ExperimentError> {
    let mut first: BTreeMap<&str, &Example> = BTreeMap::new();
    for example in &splits.train {
        first.entry(&example.domain).or_insert(example);
    }

    let mut scorer =
        Scorer::new(config.reward.build()?, &config.rl.scorer, runtime.handle().clone())?;
    for example in first.values() {
        let mut sample = Sample::new(&example.question, &example.answer, &example.answer);
        sample.id = example.id.clone();
        sample.domain = example.domain.clone();
        scorer.push(sample)?;
    }

    let scores = scorer.finish()?;
    Ok(first
        .values()
        .zip(scores)
        .filter_map(|(example, score)| match score {
            Ok(score) if score.value() > 0.5 => None,
            Ok(score) => Some(format!(
                "reward: {} for the reference answer of question {} itself",
                score.value(),
                example.id
            )),
            Err(error) => {
                Some(format!("reward: no score for question {}: {}", example.id, error.report()))
            }
        })
        .collect())
}

/// The reward's verifier on each domain's own references.
fn references(
    config: &ExperimentConfig,
    splits: &Splits,
) -> Result<BTreeMap<String, ReferenceCheck>, ExperimentError> {
    let mut rows: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    for example in splits.train.iter().chain(&splits.validation).chain(&splits.test) {
        let mut sample = Sample::new(&example.question, &example.answer, "");
        sample.id.clone_from(&example.id);
        sample.domain.clone_from(&example.domain);
        sample.metadata = example.metadata.clone().unwrap_or_default();
        rows.entry(&example.domain).or_default().push(sample);
    }

    let mut checks = BTreeMap::new();
    for (domain, rows) in rows {
        if let Some(verifier) = config.reward.first_verifier(domain)? {
            checks.insert(domain.to_owned(), ReferenceCheck::of(&*verifier, &rows));
        }
    }
    Ok(checks)
}

/// The share of references that may be unreachable before a run is not worth beginning: a
/// twentieth.
const UNREACHABLE: f64 = 0.05;

/// Why a domain's references and its verifier do not fit each other.
fn misfit(domain: &str, check: &ReferenceCheck) -> Option<String> {
    let unreachable = check.unreachable.len();
    let first = check
        .unreachable
        .first()
        .filter(|_| unreachable as f64 > UNREACHABLE * check.rows as f64)?;

    Some(format!(
        "reward: {unreachable} of {} references of `{domain}` are not right against themselves, as {first}",
        check.rows
    ))
}

/// The servers that are asked beside the reward's.
fn servers(config: &ExperimentConfig) -> Vec<(String, &OpenAiConfig)> {
    let mut all: Vec<(String, &OpenAiConfig)> =
        config.routing.routers.iter().flat_map(asked).collect();
    all.extend(config.judge.iter().map(|judge| ("judge".into(), &judge.server)));
    all
}

fn asked(router: &RouterConfig) -> Vec<(String, &OpenAiConfig)> {
    match &router.kind {
        RouterKind::Chat { server, .. } => vec![(format!("router `{}`", router.name()), server)],
        RouterKind::Cascade { first, second, .. } => [asked(first), asked(second)].concat(),
        _ => Vec::new(),
    }
}

/// Why a server gives no answer, if it gives none.
fn silent(server: &OpenAiConfig, runtime: &tokio::runtime::Runtime) -> Option<String> {
    let request = ChatRequest { max_tokens: 1, ..ChatRequest::new([Message::user("Say yes.")]) };
    match server.clone().build_cached(None) {
        Ok(model) => {
            runtime.block_on(model.complete(&request)).err().map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation, test] = self.questions;
        writeln!(f, "{train} training, {validation} validation and {test} test questions")?;

        for arm in &self.arms {
            let rl = &arm.rl;
            let domains = arm.domains.join(", ");
            let [steps, prompts, group] = [rl.steps, rl.prompts, rl.group_size as u64];
            writeln!(
                f,
                "{}: {steps} steps of {prompts} prompts x {group} completions, on {domains}",
                arm.name
            )?;
        }

        writeln!(
            f,
            "routers: {}; `{}` stands before the specialists",
            self.routers.join(", "),
            self.router_used
        )?;

        if let Some(model) = &self.model {
            let prompt = model.longest_prompt;
            let context = model.context;
            writeln!(
                f,
                "model: {}; prompts of up to {prompt} tokens, {context} positions",
                model.size
            )?;
            write!(f, "{}", model.memory)?;
        }

        for (domain, check) in &self.references {
            writeln!(f, "{domain}: {} reference answers checked by the verifier", check.rows)?;
            write!(f, "{check}")?;
        }

        self.problems.iter().try_for_each(|problem| writeln!(f, "PROBLEM: {problem}"))
    }
}
