//! Sampling groups and scoring each completion the moment that it is finished.

use crate::observer::{Event, Observer, Phase};
use crate::{PromptStyle, RecipeError, TruncatedCompletions};
use posttrain_data::Example;
use posttrain_loss::{AdvantageConfig, Advantages};
use posttrain_model::TextModel;
use posttrain_reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig};
use posttrain_rollout::{
    Completion, Engine, EngineConfig, FinishReason, Outcome, PolicySnapshot, Request,
    SamplingParams,
};
use posttrain_train::Datum;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// A completion with what its reward said.
#[derive(Debug)]
pub struct ScoredCompletion {
    /// What was sampled.
    pub completion: Completion,
    /// Its score, or why there is none.
    pub score: Result<Score, RewardError>,
}

/// The completions of one example, in the order of their samples.
#[derive(Debug)]
pub struct ScoredGroup {
    /// The example.
    pub example: Example,
    /// Its prompt's token ids.
    pub prompt: Vec<i64>,
    /// Its completions.
    pub completions: Vec<ScoredCompletion>,
}

/// What sampling and scoring a set of examples gave, and took.
#[derive(Debug)]
pub struct Rollout {
    /// A group per example, in the order of the examples.
    pub groups: Vec<ScoredGroup>,
    /// Tokens sampled.
    pub sampled_tokens: usize,
    /// Seconds until the last completion was sampled.
    pub seconds_sampling: f64,
    /// Seconds waited for rewards after that.
    pub seconds_reward: f64,
}

/// Groups to be sampled.
#[derive(Debug)]
pub struct RolloutRequest<'a> {
    /// What is asked.
    pub examples: &'a [Example],
    /// Each example's policy; `None` is the base.
    pub policies: Vec<Option<PolicySnapshot>>,
    /// How many completions each example gets: a group's size, `G`.
    pub completions: usize,
    /// How each example's completions are sampled. Their seeds differ.
    pub sampling: Vec<SamplingParams>,
    /// What it is for, which the observer is told. Activations are recorded for training alone.
    pub phase: Phase,
}

/// Samples groups from a model and has them scored.
///
/// A completion goes to its reward the moment that it is finished, while the others are still
/// sampled.
pub struct GroupSampler {
    model: TextModel,
    reward: Arc<dyn Reward>,
    runtime: tokio::runtime::Runtime,
    /// How a question is put.
    pub style: PromptStyle,
    /// The generation engine.
    pub engine: EngineConfig,
    /// The rewards' runner.
    pub scorer: ScorerConfig,
}

impl GroupSampler {
    /// A sampler of `model`'s answers to questions in their plain chat form, scored by `reward`.
    ///
    /// # Errors
    /// [`RecipeError::Runtime`] says why no thread for the rewards can be started.
    pub fn new(model: TextModel, reward: Arc<dyn Reward>) -> Result<Self, RecipeError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self {
            model,
            reward,
            runtime: runtime.map_err(|source| RecipeError::Runtime { source })?,
            style: PromptStyle::default(),
            engine: EngineConfig::default(),
            scorer: ScorerConfig::default(),
        })
    }

    /// The model that it samples from.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// Samples every example's completions and has them scored.
    ///
    /// # Errors
    /// [`RecipeError::Config`] where policies or sampling are not one for each example;
    /// [`RecipeError::Prompt`] names a question that cannot be asked; else whatever sampling and
    /// the rewards' runner do. A reward that fails is no error: its completion says so.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a request is made for one rollout, as one for an engine is"
    )]
    pub fn rollout(
        &self,
        request: RolloutRequest,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, RecipeError> {
        for (field, got) in
            [("policies", request.policies.len()), ("sampling", request.sampling.len())]
        {
            RecipeError::check(field, got == request.examples.len(), "one for each example", &got)?;
        }

        let started = Instant::now();
        let mut engine = self.engine_for(request.phase)?;
        let mut scorer =
            Scorer::new(self.reward.clone(), &self.scorer, self.runtime.handle().clone())?;
        let prompts = self.submit(&mut engine, &request)?;

        let total = request.examples.len() * request.completions;
        let mut finished: Vec<Placed> = Vec::with_capacity(total);
        let mut failed = None;
        engine.run_while(|outcome| {
            match score(outcome, request.examples, &mut scorer) {
                Ok(placed) => finished.push(placed),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            observer.see(&Event::Progress { phase: request.phase, done: finished.len(), total });
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let seconds_sampling = started.elapsed().as_secs_f64();

        let waiting = Instant::now();
        let scores = scorer.finish()?;
        Ok(Rollout {
            groups: regroup(request.examples, prompts, finished, scores),
            sampled_tokens: engine.stats().sampled_tokens,
            seconds_sampling,
            seconds_reward: waiting.elapsed().as_secs_f64(),
        })
    }

    fn engine_for(&self, phase: Phase) -> Result<Engine, RecipeError> {
        // Nothing is trained on an evaluation's activations.
        let record_mib = if phase == Phase::Sampling { self.engine.record_mib } else { 0 };
        let config = EngineConfig { record_mib, ..self.engine.clone() };
        Ok(Engine::new(self.model.decoder.clone(), Some(self.model.tokenizer.clone()), config)?)
    }

    fn submit(
        &self,
        engine: &mut Engine,
        request: &RolloutRequest,
    ) -> Result<Vec<Vec<i64>>, RecipeError> {
        let mut prompts = Vec::with_capacity(request.examples.len());
        for ((example, params), policy) in
            request.examples.iter().zip(&request.sampling).zip(&request.policies)
        {
            let prompt = self.style.encode(
                &example.question,
                &self.model.tokenizer,
                &self.model.template,
            )?;
            let group = Request::new(prompt.clone(), params.clone()).samples(request.completions);
            engine.submit(group.policy(policy.clone()));
            prompts.push(prompt);
        }
        Ok(prompts)
    }
}

/// A finished completion, and where it belongs.
struct Placed {
    example: usize,
    sample: usize,
    completion: Completion,
}

/// Hands a completion to the reward.
fn score(
    outcome: Outcome,
    examples: &[Example],
    scorer: &mut Scorer,
) -> Result<Placed, RecipeError> {
    let example = &examples[outcome.request];
    let completion =
        outcome.result.map_err(|source| RecipeError::Prompt { id: example.id.clone(), source })?;

    scorer.push(sample(example, &completion))?;
    Ok(Placed { example: outcome.request, sample: outcome.sample, completion })
}

/// What a reward is told of a completion.
fn sample(example: &Example, completion: &Completion) -> Sample {
    let mut sample = Sample::new(&example.question, &example.answer, &completion.text);
    sample.id.clone_from(&example.id);
    sample.domain.clone_from(&example.domain);
    sample.metadata = example.metadata.clone().unwrap_or_default();
    sample.tokens = Some(completion.tokens.len());
    sample.termination = completion.finish_reason;
    sample
}

/// Puts completions back into the order of examples and samples, whatever order they finished in.
fn regroup(
    examples: &[Example],
    prompts: Vec<Vec<i64>>,
    finished: Vec<Placed>,
    scores: Vec<Result<Score, RewardError>>,
) -> Vec<ScoredGroup> {
    let mut ordered: Vec<_> = finished.into_iter().zip(scores).collect();
    ordered.sort_by_key(|(placed, _)| (placed.example, placed.sample));

    let empty = |(example, prompt): (&Example, Vec<i64>)| ScoredGroup {
        example: example.clone(),
        prompt,
        completions: Vec::new(),
    };
    let mut groups: Vec<_> = examples.iter().zip(prompts).map(empty).collect();
    for (placed, score) in ordered {
        groups[placed.example]
            .completions
            .push(ScoredCompletion { completion: placed.completion, score });
    }
    groups
}

impl Rollout {
    /// All completions, group after group.
    pub fn completions(&self) -> impl Iterator<Item = &ScoredCompletion> {
        self.groups.iter().flat_map(|group| &group.completions)
    }

    /// The reward of each completion that counts: `None` where it failed, or where the completion
    /// was cut and `truncated` leaves those out.
    #[must_use]
    pub fn rewards(&self, truncated: TruncatedCompletions) -> Vec<Option<f32>> {
        let usable = |scored: &ScoredCompletion| {
            let cut = scored.completion.finish_reason == FinishReason::Length;
            if cut && truncated == TruncatedCompletions::Exclude {
                return None;
            }
            scored.score.as_ref().ok().map(|score| score.value() as f32)
        };
        self.completions().map(usable).collect()
    }

    /// What each completion is worth beside the others of its group.
    ///
    /// # Errors
    /// [`RecipeError::Loss`] for a configuration out of range.
    pub fn advantages(
        &self,
        config: &AdvantageConfig,
        truncated: TruncatedCompletions,
    ) -> Result<Advantages, RecipeError> {
        let lengths: Vec<usize> = self.groups.iter().map(|group| group.completions.len()).collect();
        Ok(config.advantages(&self.rewards(truncated), &lengths)?)
    }

    /// What a trainer learns from: a datum per completion, its group's prompt shared, scored at the
    /// temperature that it was sampled at.
    #[must_use]
    pub fn datums(&self, advantages: &Advantages, temperature: f64) -> Vec<Datum> {
        let mut values = advantages.values.iter().copied();
        let mut datums = Vec::with_capacity(advantages.values.len());
        for group in &self.groups {
            for scored in &group.completions {
                let advantage = values.next().unwrap_or_default();
                let datum = Datum::sampled(&group.prompt, &scored.completion, advantage);
                datums.push(datum.with_temperature(temperature));
            }
        }
        datums
    }

    /// Completions without a score, counted by cause.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut causes = BTreeMap::new();
        for error in self.completions().filter_map(|scored| scored.score.as_ref().err()) {
            *causes.entry(error.cause().to_owned()).or_insert(0) += 1;
        }
        causes
    }

    /// Lets go of the activations that sampling recorded.
    pub fn release_recordings(&mut self) {
        for scored in self.groups.iter_mut().flat_map(|group| &mut group.completions) {
            scored.completion.recording = None;
        }
    }
}
