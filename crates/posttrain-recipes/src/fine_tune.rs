//! Fine-tuning: epochs over examples that say what is right, in a folder that a run resumes from.

use crate::checkpoint::{
    ALONE, BestStep, CheckpointConfig, Checkpoints, Resumed, RunState, kept_config,
};
use crate::config::{EvaluationConfig, RlConfig};
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::evaluator::{Answer, Decoding, Evaluator, PolicyQuestion};
use crate::lesson::{HeldOut, Lesson};
use crate::metrics::{MetricsLog, MetricsRecord, lost_steps, now};
use crate::observer::{Event, Observer, Phase};
use crate::prompt::PromptStyle;
use crate::run::{RunOutcome, load_policy};
use crate::start::Start;
use crate::{Ranks, RecipeError, Reward};
use posttrain_data::{BatchConfig, BatchStream, Example, LastBatch};
use posttrain_lora::LoraConfig;
use posttrain_model::TextModel;
use posttrain_optim::Schedule;
use posttrain_reward::ScorerConfig;
use posttrain_rollout::{EngineConfig, PolicySnapshot, SamplingParams};
use posttrain_store::lock_folder;
use posttrain_train::{Trainer, TrainerConfig, derive_seed, peak_memory_bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tracing::info_span;

/// A fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineTuneConfig {
    /// Seed of everything: data order, adapter, dropout, sampling.
    pub seed: u64,
    /// How often every example is seen, 1 and up. TRL's `SFTTrainer`: 3.
    pub epochs: u64,
    /// Steps after which it ends sooner.
    pub steps: Option<u64>,
    /// Examples a step, 1 and up (pairs, for preferences). TRL: 8.
    pub batch: u64,
    /// The learning rate, above 0. Thinking Machines ("LoRA Without Regret", 2025): ten times that
    /// of full fine-tuning, whatever the rank.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// A PEFT folder that the policy begins with, of the layers, ranks and scales that `lora`
    /// describes: what supervised fine-tuning has taught, for one. It is the reference, too, where
    /// the objective has one, and is copied into the run's folder. Left out, the policy begins as the
    /// base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// The adapter.
    pub lora: LoraConfig,
    /// Passes and optimizer.
    pub trainer: TrainerConfig,
    /// How answers are sampled, in evaluations and by lessons that sample.
    pub sampling: SamplingParams,
    /// The generation engine.
    pub engine: EngineConfig,
    /// The rewards' runner, in evaluations.
    pub scorer: ScorerConfig,
    /// When to evaluate.
    pub evaluation: EvaluationConfig,
    /// Steps between saved states, 1 and up.
    pub checkpoint_every: u64,
    /// Which saved states are kept.
    pub checkpoints: CheckpointConfig,
}

impl Default for FineTuneConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            epochs: 3,
            steps: None,
            batch: 8,
            learning_rate: 2e-4,
            schedule: Schedule::Constant,
            adapter: None,
            lora: LoraConfig::default(),
            trainer: TrainerConfig::default(),
            sampling: SamplingParams::default(),
            engine: EngineConfig::default(),
            scorer: ScorerConfig::default(),
            evaluation: EvaluationConfig::default(),
            checkpoint_every: 10,
            checkpoints: CheckpointConfig::default(),
        }
    }
}

/// Above this a learning rate is one for LoRA; a tenth of it and less is what full fine-tuning is
/// done with, by which an adapter learns next to nothing.
pub(crate) const FULL_FINE_TUNING_RATE: f64 = 2e-5;

impl FineTuneConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("epochs", self.epochs),
            ("steps", self.steps.unwrap_or(1)),
            ("batch", self.batch),
            ("evaluation.every", self.evaluation.every),
            ("evaluation.samples", self.evaluation.samples as u64),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        RecipeError::check_learning_rate(self.learning_rate)?;
        self.schedule.validate()?;
        self.lora.validate()?;
        self.scorer.validate()?;
        self.checkpoints.validate()?;
        Ok(self.trainer.validate()?)
    }

    /// Steps of a run on `examples` examples.
    #[must_use]
    pub fn total_steps(&self, examples: usize) -> u64 {
        let whole = (examples as u64).saturating_mul(self.epochs).div_ceil(self.batch.max(1));
        self.steps.map_or(whole, |steps| steps.min(whole))
    }

    /// What a person should hear about it before it runs.
    fn warning(&self) -> Option<String> {
        rate_warning(self.learning_rate, FULL_FINE_TUNING_RATE)
    }
}

/// What a person should hear of a rate that is at most what a whole model is tuned at.
pub(crate) fn rate_warning(learning_rate: f64, whole_model: f64) -> Option<String> {
    (learning_rate <= whole_model).then(|| {
        format!(
            "learning_rate {learning_rate} is one for full fine-tuning; an adapter needs about ten \
             times as much, whatever its rank"
        )
    })
}

/// One line of a fine-tuning run's `metrics.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuneRecord {
    /// The step, from 1.
    pub step: u64,
    /// Epochs begun and ended before it, as a number of examples over their count.
    pub epoch: f64,
    /// The loss.
    pub loss: f64,
    /// What the objective tells, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
    /// Tokens that were learned, or scored.
    pub tokens: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The lesson's own measure on the validation examples, where it was taken, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub held_out: BTreeMap<String, f64>,
    /// Accuracy on the validation examples, where it was taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<Evaluation>,
    /// Seconds of the step, evaluation left out.
    pub seconds: f64,
    /// When it was, seconds since 1970; 0 in records of earlier releases.
    #[serde(default)]
    pub time: f64,
    /// Largest memory of the process so far, bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_memory_bytes: Option<u64>,
}

impl FineTuneRecord {
    /// The record without what depends on the machine and the moment: equal for equal seeds.
    #[must_use]
    pub fn reproducible(&self) -> Self {
        Self { seconds: 0.0, time: 0.0, peak_memory_bytes: None, ..self.clone() }
    }
}

impl MetricsRecord for FineTuneRecord {
    fn step(&self) -> u64 {
        self.step
    }

    fn time(&self) -> f64 {
        self.time
    }

    fn scalars(&self) -> Vec<(Cow<'static, str>, f64)> {
        let mut scalars: Vec<(Cow<'static, str>, f64)> = vec![
            ("train/loss".into(), self.loss),
            ("optim/grad_norm".into(), self.grad_norm),
            ("optim/learning_rate".into(), self.learning_rate),
            ("time/step".into(), self.seconds),
        ];
        let named = self.metrics.iter().map(|(name, value)| (format!("train/{name}"), *value));
        let held_out =
            self.held_out.iter().map(|(name, value)| (format!("validation/{name}"), *value));
        scalars.extend(named.chain(held_out).map(|(name, value)| (name.into(), value)));
        scalars.extend(self.validation.map(|v| ("validation/accuracy".into(), v.sampled.share)));
        scalars
    }
}

/// One policy's fine-tuning in a folder of its own.
///
/// The folder holds `metrics.jsonl`, `tensorboard/`, `best/` and `last/` (PEFT) and `checkpoints/`.
/// Called again on the same folder with the same configuration, a run goes on after its last saved
/// state, to the same numbers that it would have reached without a break.
pub struct FineTuneRun<L> {
    name: String,
    lesson: L,
    model: TextModel,
    evaluator: Option<Evaluator>,
    base_model: String,
    config: FineTuneConfig,
    /// Whatever else the run's numbers depend on, in a form that can be compared.
    about: Value,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    ranks: Ranks,
}

impl<L: Lesson> FineTuneRun<L> {
    /// A run of `lesson` in `folder`.
    ///
    /// # Errors
    /// The first field of `config` that is out of range is named.
    pub fn new(
        model: TextModel,
        lesson: L,
        config: FineTuneConfig,
        folder: &Path,
    ) -> Result<Self, RecipeError> {
        config.validate()?;
        let name = folder.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self {
            name,
            lesson,
            model,
            evaluator: None,
            base_model: String::new(),
            config,
            about: Value::Null,
            folder: folder.into(),
            stop: Arc::default(),
            ranks: Ranks::default(),
        })
    }

    /// Measures accuracy, too, by `reward` on answers to questions put as `style` has them; the best
    /// checkpoint is then the one with the highest.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names a field of the sampling that is out of range;
    /// [`RecipeError::Runtime`] says why no thread for the rewards can be started.
    pub fn with_accuracy(
        mut self,
        style: PromptStyle,
        reward: Arc<dyn Reward>,
    ) -> Result<Self, RecipeError> {
        let config = &self.config;
        let asking = RlConfig {
            seed: config.seed,
            sampling: config.sampling.clone(),
            engine: EngineConfig { record_mib: 0, ..config.engine.clone() },
            scorer: config.scorer.clone(),
            ..RlConfig::default()
        };
        let mut evaluator = Evaluator::new(self.model.clone(), style, reward, &asking)?;
        evaluator.sampler.ranks = self.ranks.clone();
        self.evaluator = Some(evaluator);
        Ok(self)
    }

    /// Names the base in the adapters that the run writes.
    #[must_use]
    pub fn with_base_model(self, base_model: impl Into<String>) -> Self {
        Self { base_model: base_model.into(), ..self }
    }

    /// Adds to what a saved state is compared by: the lesson's configuration.
    #[must_use]
    pub fn with_lesson_config(self, about: Value) -> Self {
        Self { about, ..self }
    }

    /// Makes it one of several ranks that make the run together, each in a process of its own: each
    /// computes a share of every step's passes, of what the lesson samples, and of an evaluation's
    /// answers. The leader alone writes into the folder, which all can read. The numbers are those
    /// of one rank up to rounding, and a run goes on with another number of ranks than it was begun
    /// with.
    ///
    /// # Errors
    /// [`RecipeError::Collective`] where the ranks have other models.
    pub fn with_ranks(mut self, ranks: Ranks) -> Result<Self, RecipeError> {
        ranks.check_model(&self.model)?;
        self.lesson.divide(&ranks);
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.sampler.ranks = ranks.clone();
        }
        Ok(Self { ranks, ..self })
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
    /// Whatever the lesson, training or the disk do; the folder then holds the last saved state.
    pub fn train(
        &self,
        train: &[Example],
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<RunOutcome, RecipeError> {
        let config = &self.config;
        let steps = config.total_steps(train.len());
        let ranks = &self.ranks;
        let _lock = ranks.led(|| lock_folder(&self.folder).map_err(RecipeError::from))?;
        ranks.check_same("data", &(train, validation))?;
        let mut trainer = self.start().trainer(ranks)?;

        let (kept, base) = (self.kept()?, &self.base_model);
        let mut checkpoints =
            Checkpoints::open_led(ranks, &self.folder, config.checkpoints, base, kept)?;
        let alone = [(ALONE, &mut trainer)];
        let resumed = ranks.agree(checkpoints.load::<RunState>(alone, observer))?;
        let Resumed { mut state, .. } = resumed;
        let mut data = self.batches(train)?.resume(state.data)?;
        let mut trainer = ranks.join(trainer)?;
        observer.see(&Event::Started { name: &self.name, step: state.step, steps });
        let mut metrics = ranks.led(|| self.metrics(state.step, observer))?;

        let mut stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))?;
        while state.step < steps && !stopping {
            let started = Instant::now();
            let mut record =
                self.step(state.step, steps, &data.next_batch(), &mut trainer, observer)?;
            state.step += 1;
            state.data = data.state();
            record.epoch = (state.step * config.batch) as f64 / train.len() as f64;

            self.validate(&mut record, steps, &trainer, validation, observer)?;
            let kept = keep_best(&mut state, &checkpoints, &trainer, &record);
            let written = kept.and_then(|()| match &mut metrics {
                Some(metrics) => metrics.append(&record),
                None => Ok(()),
            });
            ranks.agree(written)?;
            observer.see(&Event::FineTuneStep { record: &record, steps });

            state.seconds += started.elapsed().as_secs_f64();
            stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))?;
            let due = checkpoints.due(config.checkpoint_every, &state);
            if due || state.step == steps || stopping {
                ranks.agree(checkpoints.save(&state, [(ALONE, &trainer)], []))?;
            }
        }
        ranks.led(|| checkpoints.wait())?;
        observer.see(&Event::Finished { step: state.step });
        Ok(RunOutcome { complete: state.step >= steps, state })
    }

    /// `metrics.jsonl`, open to go on after a step, and what a person should hear before it.
    fn metrics(
        &self,
        step: u64,
        observer: &mut dyn Observer,
    ) -> Result<MetricsLog<FineTuneRecord>, RecipeError> {
        let (metrics, records) = MetricsLog::open(&self.folder, step)?;
        let lost = lost_steps(&self.folder, step, records.len() as u64);
        for text in self.config.warning().into_iter().chain(lost) {
            observer.see(&Event::Note { text: &text });
        }
        Ok(metrics)
    }

    /// What the policy begins as.
    fn start(&self) -> Start<'_> {
        let config = &self.config;
        Start {
            model: &self.model.decoder,
            lora: &config.lora,
            adapter: config.adapter.as_deref(),
            trainer: config.trainer,
            seed: config.seed,
            run: &self.folder,
            folder: &self.folder,
        }
    }

    /// A saved adapter's policy, or what the run begins with.
    fn policy(&self, adapter: Option<&Path>) -> Result<Option<PolicySnapshot>, RecipeError> {
        match adapter {
            Some(path) => Ok(Some(load_policy(path, &self.model.decoder)?)),
            None => self.start().policy(&self.ranks),
        }
    }

    /// Evaluates a saved adapter, or what the run begins with where `adapter` is `None`, on examples,
    /// by the reward. The same seed samples the same answers.
    ///
    /// # Errors
    /// [`RecipeError::Config`] of a run without [`FineTuneRun::with_accuracy`];
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
        let snapshot = self.policy(adapter)?;
        let evaluation =
            self.evaluator()?.evaluate(snapshot.as_ref(), examples, 1, mode, observer)?;
        observer.see(&Event::Evaluated { what, evaluation: &evaluation });
        Ok(evaluation)
    }

    /// One answer to each question, sampled, by a saved adapter, or by what the run begins with.
    ///
    /// # Errors
    /// Those of [`FineTuneRun::evaluate`].
    pub fn answers(
        &self,
        adapter: Option<&Path>,
        examples: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Answer>, RecipeError> {
        let policy = self.policy(adapter)?;
        let question = |example| PolicyQuestion { example, policy: policy.as_ref() };
        let questions: Vec<_> = examples.iter().map(question).collect();
        self.evaluator()?.answers(&questions, Decoding::Sampled, observer)
    }

    /// The lesson's own measure of a saved adapter, or of what the run begins with.
    ///
    /// # Errors
    /// [`RecipeError::Config`] without examples; [`RecipeError::Lora`] for an adapter that cannot be
    /// read; else what the lesson does.
    pub fn held_out(
        &self,
        adapter: Option<&Path>,
        examples: &[Example],
    ) -> Result<HeldOut, RecipeError> {
        let count = examples.len();
        RecipeError::check("examples", count > 0, "at least one to measure", &count)?;

        let mut trainer = self.start().trainer(&self.ranks)?;
        if let Some(path) = adapter {
            trainer.load_weights(path)?;
        }
        self.lesson.held_out(examples, &trainer)
    }

    fn evaluator(&self) -> Result<&Evaluator, RecipeError> {
        self.evaluator.as_ref().ok_or_else(|| RecipeError::Config {
            field: "reward",
            expected: "one, given by `with_accuracy`",
            got: "none".into(),
        })
    }

    /// What must be the same when a run goes on.
    fn kept(&self) -> Result<Value, RecipeError> {
        let free = FineTuneConfig {
            checkpoint_every: 1,
            checkpoints: CheckpointConfig::default(),
            scorer: ScorerConfig::default(),
            ..self.config.clone()
        };
        let mut kept = kept_config(&free)?;
        if let Value::Object(fields) = &mut kept {
            fields.insert("lesson".into(), self.about.clone());
        }
        Ok(kept)
    }

    fn batches(&self, train: &[Example]) -> Result<BatchStream, RecipeError> {
        let seed = derive_seed(self.config.seed, "data", 0, 0);
        let config = BatchConfig { prompts: self.config.batch, seed, last: LastBatch::Carry };
        Ok(BatchStream::new(train.to_vec(), config)?)
    }

    fn step(
        &self,
        step: u64,
        steps: u64,
        examples: &[Example],
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<FineTuneRecord, RecipeError> {
        let config = &self.config;
        let started = Instant::now();
        observer.see(&Event::Progress { phase: Phase::Sampling, done: 0, total: 1 });
        let datums = info_span!("data", step)
            .in_scope(|| self.ranks.agree(self.lesson.datums(step, examples, trainer)))?;

        observer.see(&Event::Progress { phase: Phase::Training, done: 0, total: 1 });
        let passes = info_span!("training", step)
            .in_scope(|| trainer.forward_backward(&datums, self.lesson.objective()))?;
        let learning_rate = config.learning_rate * config.schedule.factor(step, steps);
        let params = trainer.adam_params(learning_rate);
        let optim = info_span!("optimizer", step).in_scope(|| trainer.optim_step(&params))?;
        observer.see(&Event::Progress { phase: Phase::Training, done: 1, total: 1 });

        let named = passes.metrics.named.iter();
        Ok(FineTuneRecord {
            step: step + 1,
            loss: passes.loss(),
            metrics: named
                .filter_map(|(name, mean)| Some((name.to_owned(), mean.value()?)))
                .collect(),
            grad_norm: optim.grad_norm,
            tokens: datums.iter().map(|datum| datum.targets.len() as u64).sum(),
            learning_rate,
            seconds: started.elapsed().as_secs_f64(),
            time: now(),
            peak_memory_bytes: peak_memory_bytes(),
            ..FineTuneRecord::default()
        })
    }

    fn validate(
        &self,
        record: &mut FineTuneRecord,
        steps: u64,
        trainer: &Trainer,
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<(), RecipeError> {
        let config = &self.config.evaluation;
        let due = record.step.is_multiple_of(config.every) || record.step == steps;
        if !due || validation.is_empty() {
            return Ok(());
        }

        let _span = info_span!("evaluation", step = record.step).entered();
        let examples = &validation[..config.examples.unwrap_or(usize::MAX).min(validation.len())];
        let HeldOut { name, value } = self.lesson.held_out(examples, trainer)?;
        record.held_out.insert(name.to_owned(), value);

        let Some(evaluator) = &self.evaluator else { return Ok(()) };
        let snapshot = trainer.snapshot()?;
        let mode = EvaluationMode::Sampled;
        let evaluation =
            evaluator.evaluate(Some(&snapshot), examples, config.samples, mode, observer)?;
        let what = format!("validation after step {}: {name} {value:.3}", record.step);
        observer.see(&Event::Evaluated { what: &what, evaluation: &evaluation });
        record.validation = Some(evaluation);
        Ok(())
    }
}

fn keep_best(
    state: &mut RunState,
    checkpoints: &Checkpoints,
    trainer: &Trainer,
    record: &FineTuneRecord,
) -> Result<(), RecipeError> {
    let Some(accuracy) = record.validation.map(|e| e.sampled.share) else { return Ok(()) };
    if state.best.is_none_or(|best| accuracy > best.accuracy) {
        state.best = Some(BestStep { step: state.step, accuracy });
        checkpoints.keep_best(ALONE, trainer)?;
    }
    Ok(())
}
