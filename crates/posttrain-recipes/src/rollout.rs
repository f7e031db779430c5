//! Sampling groups and scoring each completion the moment that it is finished.

use crate::observer::{Event, Observer, Phase};
use crate::ranks::{Ranks, gathered};
use crate::remote::{RemoteGroup, RemoteSampler};
use crate::{PromptStyle, RecipeError, RewardShaping};
use posttrain_collective::share;
use posttrain_data::Example;
use posttrain_loss::{AdvantageConfig, Advantages};
use posttrain_model::TextModel;
use posttrain_reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig};
use posttrain_rollout::{
    Completion, Engine, EngineConfig, Outcome, PolicySnapshot, Request, SamplingParams,
};
use posttrain_train::Datum;
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// A completion with what its reward said.
#[derive(Debug)]
pub struct ScoredCompletion {
    /// What was sampled.
    pub completion: Completion,
    /// Its score, or why there is none.
    pub score: Result<Score, ScoreFailure>,
}

/// Why a completion has no score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreFailure {
    /// The short key that failures are counted by ([`RewardError::cause`]).
    pub cause: String,
    /// The error with everything below it, in one line.
    pub report: String,
}

impl From<RewardError> for ScoreFailure {
    fn from(error: RewardError) -> Self {
        Self { cause: error.cause().to_owned(), report: error.report() }
    }
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

/// What sampling and scoring a set of examples gave.
#[derive(Debug, Default)]
pub struct Rollout {
    /// A group per example, in the order of the examples.
    pub groups: Vec<ScoredGroup>,
    /// What they took.
    pub cost: RolloutCost,
}

/// What sampling and scoring took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutCost {
    /// Tokens sampled.
    pub sampled_tokens: usize,
    /// Seconds until the last completion was sampled.
    pub seconds_sampling: f64,
    /// Seconds waited for rewards after that.
    pub seconds_reward: f64,
}

impl RolloutCost {
    /// Adds what came after it.
    pub fn add(&mut self, other: Self) {
        self.sampled_tokens += other.sampled_tokens;
        self.seconds_sampling += other.seconds_sampling;
        self.seconds_reward += other.seconds_reward;
    }
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

impl<'a> RolloutRequest<'a> {
    fn check(&self) -> Result<(), RecipeError> {
        for (field, got) in [("policies", self.policies.len()), ("sampling", self.sampling.len())] {
            RecipeError::check(field, got == self.examples.len(), "one for each example", &got)?;
        }
        let completions = self.completions;
        RecipeError::check("completions", completions >= 1, "at least 1", &completions)
    }

    /// The same for some of the examples.
    fn part(&self, own: Range<usize>) -> Self {
        Self {
            examples: &self.examples[own.clone()],
            policies: self.policies[own.clone()].to_vec(),
            completions: self.completions,
            sampling: self.sampling[own].to_vec(),
            phase: self.phase,
        }
    }
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
    /// Servers that sample in the engine's place.
    pub(crate) remote: Option<RemoteSampler>,
    /// Those that divide what is sampled: each rank samples its share of a rollout's examples, and
    /// all are given all of it.
    pub ranks: Ranks,
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
            remote: None,
            ranks: Ranks::default(),
        })
    }

    /// The model that it samples from.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// Samples every example's completions and has them scored; of several ranks each does so for
    /// its share of the examples.
    ///
    /// # Errors
    /// [`RecipeError::Config`] where policies or sampling are not one for each example;
    /// [`RecipeError::Prompt`] names a question that cannot be asked; else whatever sampling and
    /// the rewards' runner do. A reward that fails is no error: its completion says so.
    pub fn rollout(
        &self,
        request: RolloutRequest<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, RecipeError> {
        let ranks = self.ranks.of(request.phase);
        if ranks.size() == 1 {
            return self.rollout_alone(request, observer);
        }
        request.check()?;
        let own = share(request.examples.len(), ranks.rank(), ranks.size());
        let own = match own.is_empty() {
            true => Ok(Rollout::default()),
            false => self.rollout_alone(request.part(own), observer),
        };
        gathered(ranks, own)
    }

    fn rollout_alone(
        &self,
        request: RolloutRequest<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, RecipeError> {
        let mut groups: Vec<_> = request.examples.iter().map(|_| None).collect();
        let cost = self.stream(request, observer, &mut |index, group| {
            groups[index] = Some(group);
            Ok(())
        })?;
        Ok(Rollout { groups: groups.into_iter().flatten().collect(), cost })
    }

    /// Samples every example's completions, has them scored, and hands each group on, with its
    /// place among the examples, the moment that its last score is in: while others are still
    /// sampled and scored. Where `on_group` fails, nothing more is sampled. Ranks divide nothing of
    /// it: there is no order in which they could.
    ///
    /// # Errors
    /// Those of [`GroupSampler::rollout`], and what `on_group` returns.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a request is made for one rollout, as one for an engine is"
    )]
    pub fn stream(
        &self,
        request: RolloutRequest<'_>,
        observer: &mut dyn Observer,
        on_group: &mut GroupSink<'_>,
    ) -> Result<RolloutCost, RecipeError> {
        request.check()?;
        let started = Instant::now();
        let prompts = request.examples.iter().map(|example| self.prompt(example));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let (scorer, runtime) = (self.scorer()?, self.runtime().clone());
        let mut groups = OpenGroups::new(&request, prompts.clone(), scorer, runtime);

        let total = request.examples.len() * request.completions;
        let mut done = 0;
        let mut failed = None;
        let sampled_tokens = self.sample(&request, prompts, |outcome| {
            let taken = groups.take(outcome).and_then(|()| groups.hand_on_ready(on_group));
            if let Err(error) = taken {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            done += 1;
            observer.see(&Event::Progress { phase: request.phase, done, total });
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let seconds_sampling = started.elapsed().as_secs_f64();

        let waiting = Instant::now();
        groups.hand_on_rest(on_group)?;
        Ok(RolloutCost {
            sampled_tokens,
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

    /// The token ids that put an example's question to the model.
    pub(crate) fn prompt(&self, example: &Example) -> Result<Vec<i64>, RecipeError> {
        self.style.encode(&example.question, &self.model.tokenizer, &self.model.template)
    }

    /// A scorer on the sampler's own threads.
    pub(crate) fn scorer(&self) -> Result<Scorer, RecipeError> {
        Ok(Scorer::new(self.reward.clone(), &self.scorer, self.runtime.handle().clone())?)
    }

    /// The threads that wait for rewards.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Samples by the servers, or else by an engine, and hands completions on as they come, until
    /// `watch` breaks off; the tokens that were sampled.
    fn sample(
        &self,
        request: &RolloutRequest<'_>,
        prompts: Vec<Vec<i64>>,
        watch: impl FnMut(Outcome) -> ControlFlow<()>,
    ) -> Result<usize, RecipeError> {
        let asked = prompts.into_iter().zip(&request.sampling).zip(&request.policies);
        if let Some(remote) = &self.remote {
            let group = |((prompt, params), policy): ((Vec<i64>, &SamplingParams), &Option<_>)| {
                let (samples, params) = (request.completions, params.clone());
                RemoteGroup { prompt, policy: policy.clone(), samples, params }
            };
            return remote.run(asked.map(group).collect(), self.runtime(), watch);
        }

        let mut engine = self.engine_for(request.phase)?;
        for ((prompt, params), policy) in asked {
            let group = Request::new(prompt, params.clone()).samples(request.completions);
            engine.submit(group.policy(policy.clone()));
        }
        engine.run_while(watch)?;
        Ok(engine.stats().sampled_tokens)
    }
}

/// What takes groups as they come, each with its place among the examples.
pub type GroupSink<'a> = dyn FnMut(usize, ScoredGroup) -> Result<(), RecipeError> + 'a;

/// Groups whose completions, or scores, are not all there yet.
struct OpenGroups<'a> {
    examples: &'a [Example],
    completions: usize,
    open: Vec<OpenGroup>,
    scorer: Scorer,
    runtime: tokio::runtime::Handle,
    /// Waits for the scores of groups that are sampled; to drop it is to give them up.
    waiting: tokio::task::JoinSet<()>,
    send: mpsc::Sender<(usize, Scores)>,
    scored: mpsc::Receiver<(usize, Scores)>,
    /// Groups that have not been handed on.
    left: usize,
}

type Scores = Vec<Result<Score, RewardError>>;

/// A group that is being sampled, or scored.
struct OpenGroup {
    prompt: Vec<i64>,
    /// Its completions so far: sample, place in the scorer, what was sampled.
    finished: Vec<(usize, usize, Completion)>,
}

impl<'a> OpenGroups<'a> {
    fn new(
        request: &RolloutRequest<'a>,
        prompts: Vec<Vec<i64>>,
        scorer: Scorer,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let (send, scored) = mpsc::channel();
        let open = |prompt| OpenGroup { prompt, finished: Vec::with_capacity(request.completions) };
        Self {
            examples: request.examples,
            completions: request.completions,
            left: prompts.len(),
            open: prompts.into_iter().map(open).collect(),
            scorer,
            runtime,
            waiting: tokio::task::JoinSet::new(),
            send,
            scored,
        }
    }

    /// Hands a completion to the reward, and a group that is whole to whoever waits for its scores.
    fn take(&mut self, outcome: Outcome) -> Result<(), RecipeError> {
        let index = outcome.request;
        let example = &self.examples[index];
        let refused = |source| RecipeError::Prompt { id: example.id.clone(), source };
        let completion = outcome.result.map_err(refused)?;

        let place = self.scorer.push(sample(example, &completion))?;
        let group = &mut self.open[index];
        group.finished.push((outcome.sample, place, completion));
        if group.finished.len() == self.completions {
            // Back into the order of samples, whatever order they were finished in.
            group.finished.sort_by_key(|(sample, ..)| *sample);
            let places: Vec<usize> = group.finished.iter().map(|(_, place, _)| *place).collect();
            let pending = self.scorer.take(&places);
            let send = self.send.clone();
            let wait = async move {
                // Nobody receives once the rollout has failed.
                let _ = send.send((index, pending.wait().await));
            };
            self.waiting.spawn_on(wait, &self.runtime);
        }
        Ok(())
    }

    /// Hands on what has all its scores by now.
    fn hand_on_ready(&mut self, on_group: &mut GroupSink<'_>) -> Result<(), RecipeError> {
        while let Ok((index, scores)) = self.scored.try_recv() {
            self.hand_on(index, scores, on_group)?;
        }
        Ok(())
    }

    /// Waits for the rest.
    fn hand_on_rest(&mut self, on_group: &mut GroupSink<'_>) -> Result<(), RecipeError> {
        while self.left > 0 {
            // A sender lives in `self`: what is waited for always comes.
            let Ok((index, scores)) = self.scored.recv() else { break };
            self.hand_on(index, scores, on_group)?;
        }
        Ok(())
    }

    fn hand_on(
        &mut self,
        index: usize,
        scores: Scores,
        on_group: &mut GroupSink<'_>,
    ) -> Result<(), RecipeError> {
        let group = &mut self.open[index];
        let prompt = std::mem::take(&mut group.prompt);
        let completions = std::mem::take(&mut group.finished).into_iter().map(|(.., c)| c);
        let scored = ScoredGroup::of(self.examples[index].clone(), prompt, completions, scores);

        self.left -= 1;
        on_group(index, scored)
    }
}

/// What a reward is told of a completion.
pub(crate) fn sample(example: &Example, completion: &Completion) -> Sample {
    let mut sample = Sample::new(&example.question, &example.answer, &completion.text);
    sample.id.clone_from(&example.id);
    sample.domain.clone_from(&example.domain);
    sample.metadata = example.metadata.clone().unwrap_or_default();
    sample.tokens = Some(completion.tokens.len());
    sample.termination = completion.finish_reason;
    sample
}

impl ScoredGroup {
    /// Completions and their scores, in the same order.
    pub(crate) fn of(
        example: Example,
        prompt: Vec<i64>,
        completions: impl IntoIterator<Item = Completion>,
        scores: Vec<Result<Score, RewardError>>,
    ) -> Self {
        let scored = completions.into_iter().zip(scores).map(|(completion, score)| {
            ScoredCompletion { completion, score: score.map_err(ScoreFailure::from) }
        });
        Self { example, prompt, completions: scored.collect() }
    }

    /// The version of the oldest policy that wrote any of its tokens.
    #[must_use]
    pub fn oldest_version(&self) -> Option<u64> {
        let versions = self.completions.iter().flat_map(|scored| &scored.completion.token_versions);
        versions.copied().min()
    }

    /// The mean reward of its completions that have one; `None` where none has.
    #[must_use]
    pub fn solve_rate(&self) -> Option<f64> {
        let scores = self.completions.iter().filter_map(|scored| scored.score.as_ref().ok());
        let rewards: Vec<f64> = scores.map(Score::value).collect();
        (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64)
    }

    /// How far apart its best and worst completion are by their advantages: 0 where it teaches
    /// nothing.
    ///
    /// # Errors
    /// [`RecipeError::Loss`] for a configuration out of range, or a reward that is not finite.
    pub fn advantage_range(
        &self,
        config: &AdvantageConfig,
        shaping: &RewardShaping,
    ) -> Result<f32, RecipeError> {
        let rewards = shaping.rewards(self);
        let advantages = config.advantages(&rewards, &[rewards.len()])?.values;
        let most = advantages.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = advantages.iter().copied().fold(f32::INFINITY, f32::min);
        Ok((most - least).max(0.0))
    }

    /// What a trainer learns from: a datum per completion, the prompt shared, scored at the
    /// temperature that it was sampled at. `advantages` has one for each completion. Those without a
    /// reward that counts have no weight: they are in no sum and no denominator, be it the loss's,
    /// the penalty's or the entropy's.
    #[must_use]
    pub fn datums(
        &self,
        advantages: &[f32],
        shaping: &RewardShaping,
        temperature: f64,
    ) -> Vec<Datum> {
        let rewards = shaping.rewards(self);
        let each = self.completions.iter().zip(advantages).zip(rewards);
        let datum = |((scored, &advantage), reward): ((&ScoredCompletion, &f32), Option<f32>)| {
            let datum = Datum::sampled(&self.prompt, &scored.completion, advantage)
                .with_temperature(temperature);
            match reward {
                Some(_) => datum,
                None => datum.with_weights(vec![0.0; scored.completion.tokens.len()]),
            }
        };
        each.map(datum).collect()
    }
}

impl Rollout {
    /// Adds what was sampled after it.
    pub fn append(&mut self, other: Self) {
        self.groups.extend(other.groups);
        self.cost.add(other.cost);
    }

    /// All completions, group after group.
    pub fn completions(&self) -> impl Iterator<Item = &ScoredCompletion> {
        self.groups.iter().flat_map(|group| &group.completions)
    }

    /// The reward of each completion that counts, group after group.
    #[must_use]
    pub fn rewards(&self, shaping: &RewardShaping) -> Vec<Option<f32>> {
        self.groups.iter().flat_map(|group| shaping.rewards(group)).collect()
    }

    /// What each completion is worth beside the others of its group.
    ///
    /// # Errors
    /// [`RecipeError::Loss`] for a configuration out of range.
    pub fn advantages(
        &self,
        config: &AdvantageConfig,
        shaping: &RewardShaping,
    ) -> Result<Advantages, RecipeError> {
        let lengths: Vec<usize> = self.groups.iter().map(|group| group.completions.len()).collect();
        Ok(config.advantages(&self.rewards(shaping), &lengths)?)
    }

    /// What a trainer learns from, group after group, as [`ScoredGroup::datums`].
    #[must_use]
    pub fn datums(
        &self,
        advantages: &Advantages,
        shaping: &RewardShaping,
        temperature: f64,
    ) -> Vec<Datum> {
        let mut values = advantages.values.as_slice();
        let mut datums = Vec::with_capacity(values.len());
        for group in &self.groups {
            let (own, others) = values.split_at(group.completions.len().min(values.len()));
            datums.extend(group.datums(own, shaping, temperature));
            values = others;
        }
        datums
    }

    /// Lets go of the activations that sampling recorded.
    pub fn release_recordings(&mut self) {
        for scored in self.groups.iter_mut().flat_map(|group| &mut group.completions) {
            scored.completion.recording = None;
        }
    }
}
