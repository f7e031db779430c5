//! The loop: sample, score, compare, train; evaluate and keep the best.

use crate::TrainError;
use crate::batch::{TrainingBatch, TrainingCompletion, TrainingGroup};
use crate::checkpoint::{BestStep, RunState};
use crate::config::{RlConfig, TrainerConfig, TruncatedCompletions};
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::evaluator::Evaluator;
use crate::folder::lock_folder;
use crate::memory::peak_memory_bytes;
use crate::metrics::{MetricsLog, StepRecord, append_line, keep_lines};
use crate::observer::{Event, Observer, Phase};
use crate::policy::{Policy, PromptStyle};
use crate::rollout::{Rollout, Scored, ScoredGroup, Wanted};
use crate::seed::derive_seed;
use crate::trainer::{ForwardBackward, OptimStep, PolicySnapshot, Trainer};
use posttrain_data::Example;
use posttrain_loss::Advantages;
use posttrain_reward::Reward;
use posttrain_rollout::{FinishReason, SamplingParams};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    /// Where it stands.
    pub state: RunState,
    /// Whether all its steps are done; if not, it was asked to stop, and goes on when it is called again.
    pub complete: bool,
}

/// One policy's run of reinforcement learning in a folder of its own.
///
/// The folder holds `metrics.jsonl`, `tensorboard/`, `samples.jsonl`, `best/` and `last/` (PEFT) and `state/`. Called
/// again on the same folder with the same configuration, a run goes on after its last saved state, to the same numbers
/// that it would have reached without a break.
pub struct RlRun<'m> {
    name: String,
    evaluator: Evaluator<'m>,
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

impl<'m> RlRun<'m> {
    /// A run of `policy` in `folder`. `base_model` is the name that the written adapters give their base.
    ///
    /// # Errors
    /// The first field of `config` that is out of range is named.
    pub fn new(
        policy: Policy<'m>,
        reward: Arc<dyn Reward>,
        config: RlConfig,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let evaluator = Evaluator::new(policy, PromptStyle::default(), reward, &config)?;
        let name = folder.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, evaluator, base_model: String::new(), config, folder: folder.into(), stop: Arc::default() })
    }

    /// The same with another way of putting questions.
    pub fn with_style(mut self, style: PromptStyle) -> Self {
        self.evaluator.style = style;
        self
    }

    /// The same with the base's name in the adapters that it writes.
    pub fn with_base_model(self, base_model: impl Into<String>) -> Self {
        Self { base_model: base_model.into(), ..self }
    }

    /// The same with a flag of the caller's, see [`RlRun::stop_flag`].
    pub fn with_stop_flag(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// A flag that, once set, ends the run after the step that it is in, with its state saved.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Trains on `train`, evaluating on `validation`, from where the folder stands to the last step.
    ///
    /// # Errors
    /// Whatever sampling, rewards, training or the disk do; the folder then holds the last saved state.
    pub fn train(
        &self,
        train: &[Example],
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<RunOutcome, TrainError> {
        let config = &self.config;
        let _lock = lock_folder(&self.folder)?;
        let trainer_config = TrainerConfig { temperature: config.sampling.temperature, ..config.trainer };
        let mut trainer = Trainer::new(self.evaluator.policy.model, &config.lora, trainer_config, config.seed)?;
        let state_folder = self.folder.join("state");
        let mut state = RunState::load(&state_folder, &mut trainer, config)?.unwrap_or_default();
        let mut data = config.batches(train)?.resume(state.data)?;
        let (mut metrics, _) = MetricsLog::open(&self.folder, state.step)?;
        let mut samples = self.samples_file(state.step)?;
        observer.see(&Event::Started { name: &self.name, step: state.step, steps: config.steps });
        let mut stopping = self.stop.load(Ordering::Relaxed);
        while state.step < config.steps && !stopping {
            let started = Instant::now();
            let (mut record, rollout, advantages) = self.step(state.step, &mut trainer, data.next_batch(), observer)?;
            state.step += 1;
            state.data = data.state();
            record.validation = self.validate(&state, &trainer, validation, observer)?;
            self.keep_best(&mut state, &trainer, record.validation)?;
            self.log_samples(&mut samples, state.step, &rollout, &advantages)?;
            metrics.append(&record)?;
            observer.see(&Event::Step { record: &record, steps: config.steps });
            state.seconds += started.elapsed().as_secs_f64();
            stopping = self.stop.load(Ordering::Relaxed);
            if state.step.is_multiple_of(config.checkpoint_every) || state.step == config.steps || stopping {
                state.save(&state_folder, &trainer, config)?;
                trainer.save_adapter(&self.folder.join("last"), &self.base_model)?;
            }
        }
        observer.see(&Event::Finished { step: state.step });
        Ok(RunOutcome { complete: state.step >= config.steps, state })
    }

    /// Evaluates a saved adapter, or the base where `adapter` is `None`, on examples. The same seed samples the same
    /// answers, so that before and after differ by the policy alone.
    ///
    /// # Errors
    /// [`TrainError::Lora`] for an adapter that cannot be read; else whatever sampling and rewards do.
    pub fn evaluate(
        &self,
        what: &str,
        adapter: Option<&Path>,
        examples: &[Example],
        mode: EvaluationMode,
        observer: &mut dyn Observer,
    ) -> Result<Evaluation, TrainError> {
        let model = self.evaluator.policy.model;
        let snapshot = adapter.map(|path| PolicySnapshot::load(path, model)).transpose()?;
        let evaluation = self.evaluator.evaluate(snapshot.as_ref(), examples, 1, mode, observer)?;
        observer.see(&Event::Evaluated { what, evaluation: &evaluation });
        Ok(evaluation)
    }

    fn step(
        &self,
        step: u64,
        trainer: &mut Trainer,
        examples: Vec<Example>,
        observer: &mut dyn Observer,
    ) -> Result<(StepRecord, Rollout, Advantages), TrainError> {
        let started = Instant::now();
        let snapshot = trainer.snapshot()?;
        let seeded = |row| SamplingParams {
            seed: derive_seed(self.config.seed, "sample", step, row),
            ..self.config.sampling.clone()
        };
        let params = (0..examples.len() as u64).map(seeded).collect();
        let (samples, phase) = (self.config.group_size, Phase::Sampling);
        let policies = vec![Some(&snapshot); examples.len()];
        let wanted = Wanted { policies, examples, samples, params, phase };
        let mut rollout = self.evaluator.sampling().run(wanted, observer)?;
        self.check_failures(step + 1, &rollout)?;
        let advantages = self.advantages(&rollout)?;

        let training = Instant::now();
        observer.see(&Event::Progress { phase: Phase::Training, done: 0, total: 1 });
        let learning_rate = self.config.learning_rate * self.config.schedule.factor(step, self.config.steps);
        let batch = training_batch(&rollout, &advantages)?;
        let (passes, optim) = self.train_on(trainer, &batch, learning_rate)?;
        // What was recorded has served: a validation that follows needs the memory.
        drop(batch);
        rollout.groups.iter_mut().flat_map(|g| &mut g.completions).for_each(|c| c.completion.recording = None);
        observer.see(&Event::Progress { phase: Phase::Training, done: 1, total: 1 });

        let mut record = StepRecord {
            step: step + 1,
            policy_version: snapshot.version,
            learning_rate,
            seconds_training: training.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
            ..StepRecord::default()
        };
        describe_rollout(&mut record, &rollout, &advantages);
        describe_training(&mut record, &passes, optim, self.config.objective.kl.is_some());
        record.seconds = started.elapsed().as_secs_f64();
        Ok((record, rollout, advantages))
    }

    /// A step without any signal takes no optimiser step: momentum alone would move the policy.
    fn train_on(
        &self,
        trainer: &mut Trainer,
        batch: &TrainingBatch,
        learning_rate: f64,
    ) -> Result<(ForwardBackward, Option<OptimStep>), TrainError> {
        let passes = trainer.forward_backward(batch, &self.config.objective)?;
        let objective = &self.config.objective;
        let moves = batch.has_signal() || objective.kl.is_some() || objective.entropy_coefficient > 0.0;
        let optim = if moves { Some(trainer.optim_step(learning_rate)?) } else { None };
        Ok((passes, optim))
    }

    fn advantages(&self, rollout: &Rollout) -> Result<Advantages, TrainError> {
        let rewards: Vec<Option<f32>> =
            rollout.groups.iter().flat_map(|g| &g.completions).map(|c| self.usable_reward(c)).collect();
        let lengths: Vec<usize> = rollout.groups.iter().map(|g| g.completions.len()).collect();
        Ok(self.config.advantage.advantages(&rewards, &lengths)?)
    }

    fn usable_reward(&self, scored: &Scored) -> Option<f32> {
        let cut = scored.completion.finish_reason == FinishReason::Length;
        if cut && self.config.truncated == TruncatedCompletions::Exclude {
            return None;
        }
        scored.score.as_ref().ok().map(|s| s.value() as f32)
    }

    fn check_failures(&self, step: u64, rollout: &Rollout) -> Result<(), TrainError> {
        let causes = failures(rollout);
        let total = rollout.groups.iter().map(|g| g.completions.len()).sum::<usize>();
        let (failed, allowed) = (causes.values().sum::<usize>(), self.config.max_reward_failures);
        if failed as f64 > allowed * total as f64 {
            let causes = causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ");
            return Err(TrainError::RewardFailures { step, failed, total, allowed, causes });
        }
        Ok(())
    }

    fn validate(
        &self,
        state: &RunState,
        trainer: &Trainer,
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>, TrainError> {
        let due = state.step.is_multiple_of(self.config.evaluation.every) || state.step == self.config.steps;
        if !due || validation.is_empty() {
            return Ok(None);
        }
        let examples = &validation[..self.config.evaluation.examples.unwrap_or(usize::MAX).min(validation.len())];
        let (snapshot, samples) = (trainer.snapshot()?, self.config.evaluation.samples);
        let evaluation =
            self.evaluator.evaluate(Some(&snapshot), examples, samples, EvaluationMode::Sampled, observer)?;
        let what = format!("validation after step {}", state.step);
        observer.see(&Event::Evaluated { what: &what, evaluation: &evaluation });
        Ok(Some(evaluation))
    }

    fn keep_best(
        &self,
        state: &mut RunState,
        trainer: &Trainer,
        evaluation: Option<Evaluation>,
    ) -> Result<(), TrainError> {
        let Some(accuracy) = evaluation.map(|e| e.sampled.accuracy) else { return Ok(()) };
        if state.best.is_none_or(|best| accuracy > best.accuracy) {
            state.best = Some(BestStep { step: state.step, accuracy });
            trainer.save_adapter(&self.folder.join("best"), &self.base_model)?;
        }
        Ok(())
    }

    fn samples_file(&self, step: u64) -> Result<(std::fs::File, PathBuf), TrainError> {
        let path = self.folder.join("samples.jsonl");
        keep_lines(&path, |line: &SampleLine| line.step <= step)?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(TrainError::io(&path))?;
        Ok((file, path))
    }

    fn log_samples(
        &self,
        (file, path): &mut (std::fs::File, PathBuf),
        step: u64,
        rollout: &Rollout,
        advantages: &Advantages,
    ) -> Result<(), TrainError> {
        let all = rollout.groups.iter().flat_map(|g| g.completions.iter().map(move |c| (g, c)));
        for ((group, scored), &advantage) in all.zip(&advantages.values).take(self.config.logged_samples) {
            append_line(file, path, &sample_line(step, group, scored, advantage))?;
        }
        Ok(())
    }
}

fn sample_line(step: u64, group: &ScoredGroup, scored: &Scored, advantage: f32) -> SampleLine {
    SampleLine {
        step,
        id: group.example.id.clone(),
        question: group.example.question.clone(),
        answer: group.example.answer.clone(),
        completion: scored.completion.text.clone(),
        finish_reason: scored.completion.finish_reason,
        reward: scored.score.as_ref().ok().map(|s| s.value()),
        advantage,
        error: scored.score.as_ref().err().map(ToString::to_string),
    }
}

fn training_batch(rollout: &Rollout, advantages: &Advantages) -> Result<TrainingBatch, TrainError> {
    let mut values = advantages.values.iter().copied();
    let mut groups = Vec::with_capacity(rollout.groups.len());
    for group in &rollout.groups {
        let completion =
            |scored: &Scored| TrainingCompletion::sampled(&scored.completion, values.next().unwrap_or(0.0));
        groups.push(TrainingGroup {
            prompt: group.prompt.clone(),
            completions: group.completions.iter().map(completion).collect(),
        });
    }
    TrainingBatch::new(groups)
}

fn failures(rollout: &Rollout) -> BTreeMap<String, usize> {
    let errors = rollout.groups.iter().flat_map(|g| &g.completions).filter_map(|c| c.score.as_ref().err());
    errors.fold(BTreeMap::new(), |mut causes, error| {
        *causes.entry(error.cause().to_string()).or_insert(0) += 1;
        causes
    })
}

fn describe_rollout(record: &mut StepRecord, rollout: &Rollout, advantages: &Advantages) {
    let completions = || rollout.groups.iter().flat_map(|g| &g.completions);
    let rewards: Vec<f64> = completions().filter_map(|c| c.score.as_ref().ok()).map(|s| s.value()).collect();
    let count = completions().count();
    let lengths = || completions().map(|c| c.completion.tokens.len());
    let share = |n: usize, of: usize| if of == 0 { 0.0 } else { n as f64 / of as f64 };
    record.reward = mean(&rewards);
    record.reward_std = mean(&rewards.iter().map(|r| (r - record.reward).powi(2)).collect::<Vec<_>>()).sqrt();
    record.groups_with_signal = share(advantages.counts.groups_with_signal, advantages.counts.groups);
    record.reward_failures = failures(rollout);
    record.completions = count;
    record.completion_tokens = share(lengths().sum(), count);
    record.completion_tokens_max = lengths().max().unwrap_or(0);
    record.truncated =
        share(completions().filter(|c| c.completion.finish_reason == FinishReason::Length).count(), count);
    record.seconds_sampling = rollout.seconds_sampling;
    record.seconds_reward = rollout.seconds_reward;
    record.sampled_tokens_per_second = rollout.sampled_tokens as f64 / rollout.seconds_sampling.max(1e-9);
}

fn describe_training(record: &mut StepRecord, passes: &ForwardBackward, optim: Option<OptimStep>, has_reference: bool) {
    let m = &passes.metrics;
    record.loss = passes.loss;
    record.recorded = passes.recorded_tokens as f64 / passes.computed_tokens.max(1) as f64;
    record.logprob_gap = m.logprob_gap().unwrap_or(0.0);
    record.logprob_gap_max = f64::from(m.gap_max);
    record.ratio_mean = m.ratio_mean().unwrap_or(1.0);
    record.ratio_range = if m.tokens == 0 { [1.0, 1.0] } else { [f64::from(m.ratio_min), f64::from(m.ratio_max)] };
    record.clipped = m.clipped_share().unwrap_or(0.0);
    record.kl = m.kl_k3_mean().unwrap_or(0.0);
    record.reference_kl = m.reference_kl_mean().filter(|_| has_reference);
    record.entropy = m.entropy_mean().unwrap_or(0.0);
    record.grad_norm = optim.map(|o| o.grad_norm);
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
