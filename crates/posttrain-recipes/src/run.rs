//! Reinforcement learning: sample, score, compare, train; evaluate and keep the best.

use crate::ahead::{BatchRequest, SampledAhead};
use crate::arrivals::{Arrivals, Cursor};
use crate::checkpoint::{BestStep, RunState, kept_config};
use crate::config::RlConfig;
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::evaluator::Evaluator;
use crate::metrics::{MetricsLog, StepRecord, lost_steps};
use crate::mode::{GroupOrder, Mode};
use crate::observer::{Event, Observer, Phase};
use crate::prompt::PromptStyle;
use crate::rollout::{GroupSampler, Rollout, ScoredCompletion, ScoredGroup};
use crate::streamed::streamed;
use crate::{RecipeError, Reward};
use posttrain_data::{BatchStream, Example};
use posttrain_loss::Advantages;
use posttrain_model::{Decoder, TextModel};
use posttrain_optim::AdamParams;
use posttrain_rollout::{FinishReason, PolicySnapshot, SamplingParams};
use posttrain_store::{JsonLog, lock_folder};
use posttrain_train::{Datum, ForwardBackward, OptimStep, Trainer, derive_seed, peak_memory_bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Instant;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    /// Where it stands.
    pub state: RunState,
    /// Whether all its steps are done; if not, it was asked to stop, and goes on when it is called
    /// again.
    pub complete: bool,
}

/// One policy's run of reinforcement learning in a folder of its own.
///
/// The folder holds `metrics.jsonl`, `tensorboard/`, `samples.jsonl`, `best/` and `last/` (PEFT)
/// and `state/`. Called again on the same folder with the same configuration, a run goes on after
/// its last saved state, to the same numbers that it would have reached without a break.
pub struct RlRun {
    name: String,
    evaluator: Evaluator,
    base_model: String,
    config: RlConfig,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
}

/// A line of `samples.jsonl`.
#[derive(Serialize, Deserialize)]
struct SampleLine {
    step: u64,
    id: String,
    question: String,
    answer: String,
    completion: String,
    finish_reason: FinishReason,
    reward: Option<f64>,
    advantage: f32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    error: Option<String>,
}

/// What a step was trained on, and what it gave.
struct Step {
    record: StepRecord,
    rollout: Rollout,
    advantages: Advantages,
}

/// What training on a rollout gave.
struct Trained {
    rollout: Rollout,
    advantages: Advantages,
    passes: ForwardBackward,
    optim: Option<OptimStep>,
    seconds: f64,
}

/// Where a step's groups come from, by the run's mode.
enum Source<'a> {
    /// They are sampled when their step comes.
    InTurn(BatchStream),
    /// They are sampled ahead of it, in the order of the data.
    Ahead(SampledAhead, BatchStream),
    /// They are sampled without a pause.
    Arriving(Box<Arrivals<'a>>),
}

impl RlRun {
    /// A run of `model`'s policy in `folder`.
    ///
    /// # Errors
    /// The first field of `config` that is out of range is named.
    pub fn new(
        model: TextModel,
        reward: Arc<dyn Reward>,
        config: RlConfig,
        folder: &Path,
    ) -> Result<Self, RecipeError> {
        let mut evaluator = Evaluator::new(model, PromptStyle::default(), reward, &config)?;
        if config.mode == Mode::Asynchronous {
            // What is recorded is of an older policy than the one that is trained.
            evaluator.sampler.engine.record_mib = 0;
        }
        let name = folder.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self {
            name,
            evaluator,
            base_model: String::new(),
            config,
            folder: folder.into(),
            stop: Arc::default(),
        })
    }

    /// Puts questions in another way than in plain chat form.
    #[must_use]
    pub fn with_style(mut self, style: PromptStyle) -> Self {
        self.evaluator.sampler.style = style;
        self
    }

    /// Names the base in the adapters that the run writes.
    #[must_use]
    pub fn with_base_model(self, base_model: impl Into<String>) -> Self {
        Self { base_model: base_model.into(), ..self }
    }

    /// Stops by a flag of the caller's, see [`RlRun::stop_flag`].
    #[must_use]
    pub fn with_stop_flag(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// A flag that, once set, ends the run after the step that it is in, with its state saved.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Trains on `train`, evaluating on `validation`, from where the folder stands to the last
    /// step.
    ///
    /// # Errors
    /// Whatever sampling, rewards, training or the disk do; the folder then holds the last saved
    /// state.
    pub fn train(
        &self,
        train: &[Example],
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<RunOutcome, RecipeError> {
        let config = &self.config;
        let _lock = lock_folder(&self.folder)?;
        let model = self.decoder().clone();
        let mut trainer = Trainer::new(model, &config.lora, config.trainer, config.seed)?;

        let kept = self.kept()?;
        let saved = RunState::load(&self.folder, &mut trainer, &kept)?;
        let (mut state, queue) = saved.unwrap_or_default();
        let (mut metrics, records) = MetricsLog::<StepRecord>::open(&self.folder, state.step)?;
        let mut samples = self.samples_log(state.step)?;
        observer.see(&Event::Started { name: &self.name, step: state.step, steps: config.steps });
        if let Some(text) = lost_steps(&records, state.step) {
            observer.see(&Event::Note { text: &text });
        }
        if config.mode == Mode::Asynchronous && config.engine.record_mib > 0 {
            let text = "engine.record_mib has no use in an asynchronous run: what was recorded is \
                        of an older policy than the one that is trained";
            observer.see(&Event::Note { text });
        }

        thread::scope(|scope| {
            let mut source = self.source(scope, train, &state, queue)?;
            let mut stopping = self.stop.load(Ordering::Relaxed);
            while state.step < config.steps && !stopping {
                let started = Instant::now();
                let mut step = self.step(state.step, &mut source, &mut trainer, observer)?;
                state.step += 1;

                step.record.validation = self.validate(&state, &trainer, validation, observer)?;
                self.keep_best(&mut state, &trainer, step.record.validation)?;
                for line in step.sample_lines(state.step).take(config.logged_samples) {
                    samples.append(&line)?;
                }
                metrics.append(&step.record)?;
                observer.see(&Event::Step { record: &step.record, steps: config.steps });

                state.seconds += started.elapsed().as_secs_f64();
                stopping = self.stop.load(Ordering::Relaxed);
                if state.step.is_multiple_of(config.checkpoint_every)
                    || state.step == config.steps
                    || stopping
                {
                    self.save(&mut state, &kept, (&mut source, &trainer), observer)?;
                }
            }
            observer.see(&Event::Finished { step: state.step });
            Ok(RunOutcome { complete: state.step >= config.steps, state })
        })
    }

    /// Evaluates a saved adapter, or the base where `adapter` is `None`, on examples. The same seed
    /// samples the same answers, so that before and after differ by the policy alone.
    ///
    /// # Errors
    /// [`RecipeError::Lora`] for an adapter that cannot be read; else whatever sampling and rewards
    /// do.
    pub fn evaluate(
        &self,
        what: &str,
        adapter: Option<&Path>,
        examples: &[Example],
        mode: EvaluationMode,
        observer: &mut dyn Observer,
    ) -> Result<Evaluation, RecipeError> {
        let snapshot = adapter.map(|path| load_policy(path, self.decoder())).transpose()?;
        let evaluation = self.evaluator.evaluate(snapshot.as_ref(), examples, 1, mode, observer)?;
        observer.see(&Event::Evaluated { what, evaluation: &evaluation });
        Ok(evaluation)
    }

    fn sampler(&self) -> &GroupSampler {
        &self.evaluator.sampler
    }

    fn decoder(&self) -> &Arc<Decoder> {
        &self.sampler().model().decoder
    }

    /// What must be the same when a run goes on: everything but how often a state is saved, and how
    /// many samples are logged.
    fn kept(&self) -> Result<Value, RecipeError> {
        kept_config(&RlConfig { logged_samples: 0, checkpoint_every: 1, ..self.config.clone() })
    }

    /// `samples.jsonl`, open to go on after `step`.
    fn samples_log(&self, step: u64) -> Result<JsonLog<SampleLine>, RecipeError> {
        let path = self.folder.join("samples.jsonl");
        Ok(JsonLog::open(&path, |line: &SampleLine| line.step <= step)?.0)
    }

    /// Where the groups come from, going on from a saved state.
    fn source<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        train: &[Example],
        state: &RunState,
        queue: VecDeque<Rollout>,
    ) -> Result<Source<'scope>, RecipeError> {
        let config = &self.config;
        let data = || Ok::<_, RecipeError>(config.batches(train)?.resume(state.data)?);
        Ok(match (config.mode, config.group_order) {
            (Mode::OnPolicy | Mode::Streaming, _) => Source::InTurn(data()?),
            (Mode::Asynchronous, GroupOrder::Fixed) => {
                Source::Ahead(SampledAhead::start(scope, self.sampler(), queue), data()?)
            }
            (Mode::Asynchronous, GroupOrder::Arrival) => {
                let cursor = Cursor {
                    data: state.data,
                    in_flight: state.in_flight.clone(),
                    submitted: state.submitted,
                };
                let arrivals = Arrivals::start(self.sampler(), config, train, &cursor)?;
                Source::Arriving(Box::new(arrivals))
            }
        })
    }

    /// Saves everything that going on needs: what has been sampled and not trained on included.
    fn save(
        &self,
        state: &mut RunState,
        kept: &Value,
        (source, trainer): (&mut Source<'_>, &Trainer),
        observer: &mut dyn Observer,
    ) -> Result<(), RecipeError> {
        // First: a state that says that a run is at its end has its last adapter beside it.
        trainer.save_adapter(&self.folder.join("last"), &self.base_model)?;

        let folder = self.folder.join("state");
        match source {
            Source::InTurn(data) => {
                state.data = data.state();
                state.save(&folder, trainer, kept, [])?;
            }
            Source::Ahead(ahead, data) => {
                let queue = ahead.settle(observer)?;
                state.data = data.state();
                state.save(&folder, trainer, kept, queue)?;
            }
            Source::Arriving(arrivals) => {
                let cursor = arrivals.cursor();
                state.data = cursor.data;
                state.in_flight = cursor.in_flight;
                state.submitted = cursor.submitted;
                state.save(&folder, trainer, kept, [])?;
            }
        }
        Ok(())
    }

    fn step(
        &self,
        step: u64,
        source: &mut Source<'_>,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Step, RecipeError> {
        let config = &self.config;
        let started = Instant::now();
        let version = trainer.policy_version();
        let mut stale_groups = None;
        let trained = match source {
            Source::InTurn(data) if config.mode == Mode::Streaming => {
                self.stream(step, data, trainer, observer)?
            }
            Source::InTurn(data) => {
                let examples = data.next_batch();
                let request = self.request(step, examples, trainer.snapshot()?);
                let rollout = self.sampler().rollout(request.as_rollout(), observer)?;
                self.train_on(step, rollout, trainer, observer)?
            }
            Source::Ahead(ahead, data) => {
                let last = (step + config.max_staleness).min(config.steps - 1);
                while step + ahead.len() as u64 <= last {
                    let next = step + ahead.len() as u64;
                    ahead.submit(self.request(next, data.next_batch(), trainer.snapshot()?))?;
                }
                let rollout = ahead.next(observer)?;
                self.train_on(step, rollout, trainer, observer)?
            }
            Source::Arriving(arrivals) => {
                arrivals.publish(trainer.snapshot()?);
                let batch = arrivals.next(version, observer)?;
                stale_groups = Some(batch.stale_groups);
                self.train_on(step, batch.rollout, trainer, observer)?
            }
        };

        let oldest = trained.rollout.groups.iter().filter_map(ScoredGroup::oldest_version).min();
        let mut record = StepRecord {
            step: step + 1,
            policy_version: oldest.unwrap_or(version),
            learning_rate: self.learning_rate(step),
            seconds_training: trained.seconds,
            peak_memory_bytes: peak_memory_bytes(),
            stale_groups,
            ..StepRecord::default()
        };
        record.describe_rollout(&trained.rollout, &trained.advantages);
        if config.mode == Mode::Asynchronous {
            record.describe_staleness(&trained.rollout, version);
        }
        let has_reference = config.objective.kl.is_some();
        record.describe_training(&trained.passes, trained.optim, has_reference);
        record.seconds = started.elapsed().as_secs_f64();
        Ok(Step { record, rollout: trained.rollout, advantages: trained.advantages })
    }

    /// A step's groups. Every prompt is sampled by one policy, so that its advantages compare like
    /// with like.
    fn request(&self, step: u64, examples: Vec<Example>, policy: PolicySnapshot) -> BatchRequest {
        let sampling = (0..examples.len() as u64).map(|row| self.sampling_of(step, row)).collect();
        BatchRequest { examples, policy, completions: self.config.group_size, sampling }
    }

    fn sampling_of(&self, step: u64, row: u64) -> SamplingParams {
        let seed = derive_seed(self.config.seed, "sample", step, row);
        SamplingParams { seed, ..self.config.sampling.clone() }
    }

    /// Trains on groups that are all there.
    fn train_on(
        &self,
        step: u64,
        mut rollout: Rollout,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Trained, RecipeError> {
        let config = &self.config;
        self.check_failures(step + 1, &rollout)?;
        let advantages = rollout.advantages(&config.advantage, config.truncated)?;

        let started = Instant::now();
        observer.see(&Event::Progress { phase: Phase::Training, done: 0, total: 1 });
        let datums = rollout.datums(&advantages, config.sampling.temperature);
        let has_signal = datums.iter().any(Datum::has_signal);
        let passes = trainer.forward_backward(&datums, &config.objective)?;
        let optim = self.optim_step(step, trainer, has_signal, 1.0)?;

        // What was recorded has served: a validation that follows needs the memory.
        drop(datums);
        rollout.release_recordings();
        observer.see(&Event::Progress { phase: Phase::Training, done: 1, total: 1 });
        let seconds = started.elapsed().as_secs_f64();
        Ok(Trained { rollout, advantages, passes, optim, seconds })
    }

    /// Trains on each group as soon as its scores are in.
    fn stream(
        &self,
        step: u64,
        data: &mut BatchStream,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Trained, RecipeError> {
        let config = &self.config;
        let request = self.request(step, data.next_batch(), trainer.snapshot()?);
        let streamed = streamed(self.sampler(), request.as_rollout(), trainer, config, observer)?;
        let mut rollout = streamed.rollout;
        if let Err(error) = self.check_failures(step + 1, &rollout) {
            trainer.clear_gradients();
            return Err(error);
        }
        let advantages = rollout.advantages(&config.advantage, config.truncated)?;

        let started = Instant::now();
        let optim = self.optim_step(step, trainer, streamed.has_signal, streamed.gradient_scale)?;
        rollout.release_recordings();
        let seconds = streamed.seconds_training + started.elapsed().as_secs_f64();
        Ok(Trained { rollout, advantages, passes: streamed.passes, optim, seconds })
    }

    /// Applies the collected gradient. A step without any signal takes no optimizer step: momentum
    /// alone would move the policy.
    fn optim_step(
        &self,
        step: u64,
        trainer: &mut Trainer,
        has_signal: bool,
        gradient_scale: f64,
    ) -> Result<Option<OptimStep>, RecipeError> {
        let objective = &self.config.objective;
        if !has_signal && objective.kl.is_none() && objective.entropy_coefficient == 0.0 {
            trainer.clear_gradients();
            return Ok(None);
        }
        let params = AdamParams { gradient_scale, ..trainer.adam_params(self.learning_rate(step)) };
        Ok(Some(trainer.optim_step(&params)?))
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.config.learning_rate * self.config.schedule.factor(step, self.config.steps)
    }

    fn check_failures(&self, step: u64, rollout: &Rollout) -> Result<(), RecipeError> {
        let causes = rollout.failures();
        let total = rollout.completions().count();
        let failed: usize = causes.values().sum();
        let allowed = self.config.max_reward_failures;
        if failed as f64 <= allowed * total as f64 {
            return Ok(());
        }

        let causes =
            causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ");
        Err(RecipeError::RewardFailures { step, failed, total, allowed, causes })
    }

    fn validate(
        &self,
        state: &RunState,
        trainer: &Trainer,
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>, RecipeError> {
        let config = &self.config.evaluation;
        let due = state.step.is_multiple_of(config.every) || state.step == self.config.steps;
        if !due || validation.is_empty() {
            return Ok(None);
        }

        let examples = &validation[..config.examples.unwrap_or(usize::MAX).min(validation.len())];
        let snapshot = trainer.snapshot()?;
        let mode = EvaluationMode::Sampled;
        let evaluation =
            self.evaluator.evaluate(Some(&snapshot), examples, config.samples, mode, observer)?;

        let what = format!("validation after step {}", state.step);
        observer.see(&Event::Evaluated { what: &what, evaluation: &evaluation });
        Ok(Some(evaluation))
    }

    fn keep_best(
        &self,
        state: &mut RunState,
        trainer: &Trainer,
        evaluation: Option<Evaluation>,
    ) -> Result<(), RecipeError> {
        let Some(accuracy) = evaluation.map(|e| e.sampled.share) else { return Ok(()) };
        if state.best.is_none_or(|best| accuracy > best.accuracy) {
            state.best = Some(BestStep { step: state.step, accuracy });
            trainer.save_adapter(&self.folder.join("best"), &self.base_model)?;
        }
        Ok(())
    }
}

/// A policy from a PEFT folder, as version 0.
///
/// # Errors
/// [`RecipeError::Lora`] for an adapter that cannot be read or does not fit the model.
pub fn load_policy(folder: &Path, model: &Decoder) -> Result<PolicySnapshot, RecipeError> {
    let adapter = model.load_adapter(folder)?;
    Ok(PolicySnapshot::new(adapter.snapshot(model.kind())?, 0))
}

impl Step {
    /// Its completions, as they are written down.
    fn sample_lines(&self, number: u64) -> impl Iterator<Item = SampleLine> {
        let groups = self.rollout.groups.iter();
        let all =
            groups.flat_map(|group| group.completions.iter().map(move |scored| (group, scored)));
        let worth = all.zip(&self.advantages.values);
        worth.map(move |((group, scored), &advantage)| {
            SampleLine::new(number, group, scored, advantage)
        })
    }
}

impl SampleLine {
    fn new(step: u64, group: &ScoredGroup, scored: &ScoredCompletion, advantage: f32) -> Self {
        Self {
            step,
            id: group.example.id.clone(),
            question: group.example.question.clone(),
            answer: group.example.answer.clone(),
            completion: scored.completion.text.clone(),
            finish_reason: scored.completion.finish_reason,
            reward: scored.score.as_ref().ok().map(|s| s.value()),
            advantage,
            error: scored.score.as_ref().err().map(|failure| failure.report.clone()),
        }
    }
}
