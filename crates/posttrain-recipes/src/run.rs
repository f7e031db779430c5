//! Reinforcement learning: sample, score, compare, train; evaluate and keep the best.

use crate::ahead::SampledAhead;
use crate::arrivals::{Arrivals, Cursor};
use crate::checkpoint::{
    ALONE, BestStep, CheckpointConfig, Checkpoints, Resumed, RunState, kept_config,
};
use crate::config::RlConfig;
use crate::curriculum::Curriculum;
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::evaluator::Evaluator;
use crate::fine_tune::{FULL_FINE_TUNING_RATE, rate_warning};
use crate::groups::StepGroups;
use crate::guard::{GuardAction, GuardConfig, Guards};
use crate::metrics::{MetricsLog, StepRecord, lost_steps, now};
use crate::mode::{GroupOrder, Mode};
use crate::observer::{Event, Observer};
use crate::prompt::PromptStyle;
use crate::ranks::Ranks;
use crate::remote::SamplerConfig;
use crate::rollout::{GroupSampler, Rollout, ScoredGroup};
use crate::samples::SampleLine;
use crate::start::Start;
use crate::step::{StepTrainer, Trained};
use crate::streamed::streamed;
use crate::{RecipeError, Reward};
use posttrain_data::Example;
use posttrain_model::{Decoder, TextModel};
use posttrain_reward::ScorerConfig;
use posttrain_rollout::PolicySnapshot;
use posttrain_store::{JsonLog, lock_folder, read_json_if_there, write_json};
use posttrain_train::{Trainer, peak_memory_bytes};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Instant;
use tracing::info_span;

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
/// and `checkpoints/`. Called again on the same folder with the same configuration, a run goes on after
/// its last saved state, to the same numbers that it would have reached without a break.
pub struct RlRun {
    name: String,
    evaluator: Evaluator,
    base_model: String,
    config: RlConfig,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
}

/// What a run writes down, and what watches it; of several ranks the leader's.
struct Books<'a> {
    metrics: MetricsLog,
    samples: JsonLog<SampleLine>,
    guards: Guards<'a>,
}

/// Which step `best/` is of.
const BEST: &str = "best.json";

/// What a step was trained on, and what it gave.
struct Step {
    record: StepRecord,
    trained: Trained,
}

/// Where a step's groups come from, by the run's mode.
enum Source<'a> {
    /// They are sampled when their step comes.
    InTurn(Curriculum),
    /// They are sampled ahead of it, in the order of the data.
    Ahead(SampledAhead, Curriculum),
    /// They are sampled without a pause.
    Arriving(Box<Arrivals<'a>>),
}

impl Source<'_> {
    fn curriculum(&mut self) -> &mut Curriculum {
        match self {
            Source::InTurn(curriculum) | Source::Ahead(_, curriculum) => curriculum,
            Source::Arriving(arrivals) => arrivals.curriculum(),
        }
    }
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

    /// Makes it one of several ranks that make the run together, each in a process of its own: each
    /// samples, scores and trains a share of every step. The leader alone writes into the folder,
    /// which all can read. The numbers are those of one rank up to rounding, and a run goes on with
    /// another number of ranks than it was begun with.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for a mode in which groups come in no order of the data: several
    /// ranks need one. [`RecipeError::Collective`] where the ranks have other models.
    pub fn with_ranks(mut self, ranks: Ranks) -> Result<Self, RecipeError> {
        let config = &self.config;
        let ordered = match config.mode {
            Mode::OnPolicy => true,
            Mode::Streaming => false,
            Mode::Asynchronous => config.group_order == GroupOrder::Fixed,
        };
        let expected = "on_policy, or asynchronous in a fixed order, with several ranks";
        let got = format!("{:?}", config.mode).to_lowercase();
        RecipeError::check("mode", ordered || ranks.size() == 1, expected, &got)?;
        ranks.check_model(self.sampler().model())?;
        self.evaluator.sampler.ranks = ranks;
        Ok(self)
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
        let ranks = &self.sampler().ranks;
        let _lock = ranks.led(|| lock_folder(&self.folder).map_err(RecipeError::from))?;
        ranks.check_same("data", &(train, validation))?;
        let mut trainer = self.start().trainer(ranks)?;

        let mut checkpoints = self.checkpoints()?;
        let alone = [(ALONE, &mut trainer)];
        let resumed = ranks.agree(checkpoints.load::<RunState>(alone, observer))?;
        let Resumed { mut state, queue } = resumed;
        self.forget_lost_best(&mut state, observer)?;
        let mut trainer = ranks.join(trainer)?;
        observer.see(&Event::Started { name: &self.name, step: state.step, steps: config.steps });
        let mut books = ranks.led(|| self.books(state.step, observer))?;

        thread::scope(|scope| {
            let mut source = self.source(scope, train, &state, queue)?;
            let mut stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))?;
            let mut alarmed: Option<String> = None;
            while state.step < config.steps && !stopping {
                let started = Instant::now();
                let mut step = self.step(state.step, &mut source, &mut trainer, observer)?;
                source.curriculum().observe(step.trained.sampled());
                state.step += 1;

                step.record.validation = self.validate(&state, &trainer, validation, observer)?;
                let kept = self.keep_best(
                    &mut state,
                    &checkpoints,
                    &trainer,
                    step.record.validation,
                    validation,
                );
                let written = kept.and_then(|()| match &mut books {
                    Some(books) => self.write_down(books, &state, &step, observer),
                    None => Ok(None),
                });
                alarmed = ranks.told(ranks.agree(written)?)?;

                state.seconds += started.elapsed().as_secs_f64();
                stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))? || alarmed.is_some();
                if checkpoints.due(config.checkpoint_every, &state)
                    || state.step == config.steps
                    || stopping
                {
                    let parts = (&mut source, &trainer);
                    ranks.agree(save(&mut state, &mut checkpoints, parts, observer))?;
                }
            }
            ranks.led(|| checkpoints.wait())?;
            if let Some(reason) = alarmed {
                return Err(RecipeError::Guard { step: state.step, reason });
            }
            observer.see(&Event::Finished { step: state.step });
            Ok(RunOutcome { complete: state.step >= config.steps, state })
        })
    }

    /// Evaluates a saved adapter, or what the run begins with where `adapter` is `None`, on examples.
    /// The same seed samples the same answers, so that before and after differ by the policy alone.
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
        let snapshot = match adapter {
            Some(path) => Some(load_policy(path, self.decoder())?),
            None => self.start().policy(&self.sampler().ranks)?,
        };
        let evaluation = self.evaluator.evaluate(snapshot.as_ref(), examples, 1, mode, observer)?;
        observer.see(&Event::Evaluated { what, evaluation: &evaluation });
        Ok(evaluation)
    }

    /// What the policy begins as.
    fn start(&self) -> Start<'_> {
        let config = &self.config;
        Start {
            model: self.decoder(),
            lora: &config.lora,
            adapter: config.adapter.as_deref(),
            trainer: config.trainer,
            seed: config.seed,
            run: &self.folder,
            folder: &self.folder,
        }
    }

    fn sampler(&self) -> &GroupSampler {
        &self.evaluator.sampler
    }

    fn decoder(&self) -> &Arc<Decoder> {
        &self.sampler().model().decoder
    }

    /// The folder's saved states. What must be the same when a run goes on is everything but what
    /// is saved when, what is logged, what is watched, how patiently rewards are asked for, and who
    /// samples.
    fn checkpoints(&self) -> Result<Checkpoints, RecipeError> {
        let kept = kept_config(&RlConfig {
            logged_samples: 0,
            checkpoint_every: 1,
            checkpoints: CheckpointConfig::default(),
            guards: GuardConfig::default(),
            scorer: ScorerConfig::default(),
            sampler: SamplerConfig::default(),
            ..self.config.clone()
        })?;
        let config = self.config.checkpoints;
        Checkpoints::open_led(&self.sampler().ranks, &self.folder, config, &self.base_model, kept)
    }

    /// What a person should hear before the first step.
    fn notes(&self, step: u64, on_record: u64) -> Vec<String> {
        let config = &self.config;
        let mut notes = Vec::new();
        if config.mode == Mode::Asynchronous && config.engine.record_mib > 0 {
            notes.push(
                "engine.record_mib has no use in an asynchronous run: what was recorded is of an \
                 older policy than the one that is trained"
                    .to_owned(),
            );
        }
        // A policy is tuned at a tenth of what whole models are fine-tuned at.
        notes.extend(rate_warning(config.learning_rate, FULL_FINE_TUNING_RATE / 10.0));
        notes.extend(lost_steps(&self.folder, step, on_record));
        notes
    }

    /// What is written down, open to go on after `step`.
    fn books(&self, step: u64, observer: &mut dyn Observer) -> Result<Books<'_>, RecipeError> {
        let (metrics, records) = MetricsLog::open(&self.folder, step)?;
        let path = self.folder.join("samples.jsonl");
        let (samples, _) = JsonLog::open(&path, |line: &SampleLine| line.step <= step)?;
        for text in self.notes(step, records.len() as u64) {
            observer.see(&Event::Note { text: &text });
        }
        Ok(Books { metrics, samples, guards: Guards::new(&self.config.guards, &records) })
    }

    /// Writes a step down; why the run is to stop, if it is.
    fn write_down(
        &self,
        books: &mut Books<'_>,
        state: &RunState,
        step: &Step,
        observer: &mut dyn Observer,
    ) -> Result<Option<String>, RecipeError> {
        for line in self.sample_lines(state.step, &step.trained) {
            books.samples.append(&line)?;
        }
        books.metrics.append(&step.record)?;
        observer.see(&Event::Step { record: &step.record, steps: self.config.steps });
        let mut alarmed = None;
        for alarm in books.guards.see(&step.record) {
            let text = format!("step {}: {}", state.step, alarm.text);
            observer.see(&Event::Note { text: &text });
            if alarm.action == GuardAction::Stop {
                alarmed = Some(alarm.text);
            }
        }
        Ok(alarmed)
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
        let curriculum = Curriculum::new(config, train, state.data, state.curriculum.clone())?;
        Ok(match (config.mode, config.group_order) {
            (Mode::OnPolicy | Mode::Streaming, _) => Source::InTurn(curriculum),
            (Mode::Asynchronous, GroupOrder::Fixed) => {
                Source::Ahead(SampledAhead::start(scope, self.sampler(), queue), curriculum)
            }
            (Mode::Asynchronous, GroupOrder::Arrival) => {
                let cursor =
                    Cursor { in_flight: state.in_flight.clone(), submitted: state.submitted };
                let arrivals =
                    Arrivals::start(self.sampler(), config, (train, curriculum), &cursor)?;
                Source::Arriving(Box::new(arrivals))
            }
        })
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
        let train = StepTrainer { config, step };
        let mut queued_groups = None;
        let mut stale_groups = None;
        let trained = match source {
            Source::InTurn(curriculum) => {
                let groups = StepGroups::new(config, curriculum, step, trainer.snapshot()?);
                if config.mode == Mode::Streaming {
                    streamed(self.sampler(), groups, trainer, &train, observer)?
                } else {
                    let rollout = self.rollout(groups, observer)?;
                    train.train_on(rollout, trainer, observer)?
                }
            }
            Source::Ahead(ahead, curriculum) => {
                queued_groups = Some(ahead.len() * config.prompts as usize);
                let last = (step + config.steps_ahead()).min(config.steps - 1);
                while step + ahead.len() as u64 <= last {
                    let next = step + ahead.len() as u64;
                    let snapshot = trainer.snapshot()?;
                    let request = StepGroups::new(config, curriculum, next, snapshot).next(0);
                    request.map_or(Ok(()), |request| ahead.submit(request))?;
                }
                let rollout = info_span!("waiting", step).in_scope(|| ahead.next(observer))?;
                train.train_on(rollout, trainer, observer)?
            }
            Source::Arriving(arrivals) => {
                queued_groups = Some(arrivals.queued());
                arrivals.publish(trainer.snapshot()?);
                let batch =
                    info_span!("waiting", step).in_scope(|| arrivals.next(version, observer))?;
                stale_groups = Some(batch.stale_groups);
                train.train_on(batch.rollout, trainer, observer)?
            }
        };

        let oldest = trained.rollout.groups.iter().filter_map(ScoredGroup::oldest_version).min();
        let mut record = StepRecord {
            step: step + 1,
            policy_version: oldest.unwrap_or(version),
            learning_rate: train.learning_rate(),
            peak_memory_bytes: peak_memory_bytes(),
            queued_groups,
            stale_groups,
            ..StepRecord::default()
        };
        record.describe_rollout(&trained, config);
        if config.mode == Mode::Asynchronous {
            record.describe_staleness(&trained);
        }
        record.describe_training(&trained, config.objective.kl.is_some());
        record.seconds = started.elapsed().as_secs_f64();
        record.time = now();
        Ok(Step { record, trained })
    }

    /// Samples and scores a step's groups, and those that come in the place of others.
    fn rollout(
        &self,
        mut requests: StepGroups<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, RecipeError> {
        let mut rollout = Rollout::default();
        let mut taught = 0;
        while let Some(request) = requests.next(taught) {
            let sampled = info_span!("sampling")
                .in_scope(|| self.sampler().rollout(request.as_rollout(), observer))?;
            for group in &sampled.groups {
                taught += usize::from(self.config.teaches(group)?);
            }
            rollout.append(sampled);
        }
        Ok(rollout)
    }

    /// A step's completions, as they are written down.
    fn sample_lines(&self, step: u64, trained: &Trained) -> Vec<SampleLine> {
        let tokenizer = &self.sampler().model().tokenizer;
        let groups = trained.rollout.groups.iter();
        let all =
            groups.flat_map(|group| group.completions.iter().map(move |scored| (group, scored)));
        let told = all.zip(&trained.advantages.values).zip(&trained.logprobs);
        told.take(self.config.logged_samples)
            .map(|(((group, scored), &advantage), logprobs)| {
                SampleLine::new(step, group, scored, advantage, (tokenizer, logprobs))
            })
            .collect()
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

        let _span = info_span!("evaluation", step = state.step).entered();
        let examples = &validation[..config.examples.unwrap_or(usize::MAX).min(validation.len())];
        let snapshot = trainer.snapshot()?;
        let mode = EvaluationMode::Sampled;
        let evaluation =
            self.evaluator.evaluate(Some(&snapshot), examples, config.samples, mode, observer)?;

        let what = format!("validation after step {}", state.step);
        observer.see(&Event::Evaluated { what: &what, evaluation: &evaluation });
        Ok(Some(evaluation))
    }

    /// Whether enough of an evaluation's answers have a verdict for it to choose by.
    fn is_judged(&self, evaluation: &Evaluation, validation: &[Example]) -> bool {
        let config = &self.config.evaluation;
        let examples = config.examples.unwrap_or(usize::MAX).min(validation.len());
        let asked = examples * config.samples;
        let failed = asked.saturating_sub(evaluation.sampled.n);
        failed as f64 <= self.config.max_reward_failures * asked as f64
    }

    fn keep_best(
        &self,
        state: &mut RunState,
        checkpoints: &Checkpoints,
        trainer: &Trainer,
        evaluation: Option<Evaluation>,
        validation: &[Example],
    ) -> Result<(), RecipeError> {
        let Some(evaluation) = evaluation else { return Ok(()) };
        let accuracy = evaluation.sampled.share;
        let best_so_far = state.best.is_none_or(|best| accuracy > best.accuracy);
        if best_so_far && self.is_judged(&evaluation, validation) {
            let best = BestStep { step: state.step, accuracy };
            state.best = Some(best);
            if self.sampler().ranks.is_leader() {
                write_json(&self.folder.join(BEST), &best)?;
            }
            checkpoints.keep_best(ALONE, trainer)?;
        }
        Ok(())
    }

    /// Where no run repeats another, `best` may be of a step that was lost with its process, and
    /// that nothing will write again: then the next validation's is the best.
    fn forget_lost_best(
        &self,
        state: &mut RunState,
        observer: &mut dyn Observer,
    ) -> Result<(), RecipeError> {
        let in_order =
            self.config.mode == Mode::OnPolicy || self.config.group_order == GroupOrder::Fixed;
        // A server's numbers, and those of another number of ranks, are the same but for rounding.
        let repeats = in_order && self.config.sampler.is_local();
        let kept: Option<BestStep> = read_json_if_there(&self.folder.join(BEST))?;
        let Some(kept) = kept.filter(|kept| !repeats && kept.step > state.step) else {
            return Ok(());
        };
        state.best = None;
        let text = format!(
            "best/ is of step {}, which was lost: the next validation chooses it anew",
            kept.step
        );
        observer.see(&Event::Note { text: &text });
        Ok(())
    }
}

/// Saves everything that going on needs: what has been sampled and not trained on included.
fn save(
    state: &mut RunState,
    checkpoints: &mut Checkpoints,
    (source, trainer): (&mut Source<'_>, &Trainer),
    observer: &mut dyn Observer,
) -> Result<(), RecipeError> {
    let _span = info_span!("checkpoint", step = state.step).entered();
    if let Source::Ahead(ahead, _) = source {
        ahead.settle(observer)?;
    }
    if let Source::Arriving(arrivals) = source {
        let cursor = arrivals.cursor();
        state.in_flight = cursor.in_flight;
        state.submitted = cursor.submitted;
    }
    (state.data, state.curriculum) = source.curriculum().state();

    let nothing = VecDeque::new();
    let queue = if let Source::Ahead(ahead, _) = source { ahead.ready() } else { &nothing };
    checkpoints.save(state, [(ALONE, trainer)], queue)
}

/// A policy from a PEFT folder, as version 0.
///
/// # Errors
/// [`RecipeError::Lora`] for an adapter that cannot be read or does not fit the model.
pub fn load_policy(folder: &Path, model: &Decoder) -> Result<PolicySnapshot, RecipeError> {
    let adapter = model.load_adapter(folder)?;
    Ok(PolicySnapshot::new(adapter.snapshot(model.kind())?, 0))
}
