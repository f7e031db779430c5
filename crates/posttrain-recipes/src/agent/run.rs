//! A run in environments: episodes, advantages, a step for each policy.

use crate::agent::config::{AgentConfig, RoleConfig};
use crate::agent::episodes::{EpisodeGroup, PlayRequest, play};
use crate::agent::learned::{EpisodeLine, Learned};
use crate::agent::record::{AgentEvaluation, AgentRecord, RoleRecord};
use crate::agent::stage::{EnvironmentBuilder, EpisodeRequest, Stage};
use crate::agent::warm_start::{WarmStartConfig, warm_start};
use crate::checkpoint::{CheckpointConfig, Checkpoints, Resumed, Standing, kept_config};
use crate::metrics::{MetricsLog, lost_steps, now};
use crate::observer::{Event, Observer, Phase};
use crate::run::load_policy;
use crate::start::Start;
use crate::step::teaches;
use crate::{Ranks, RecipeError};
use posttrain_collective::{gather, share};
use posttrain_data::{BatchStream, Example, StreamState};
use posttrain_environment::{Actor, EpisodeError, EpisodePlayer, PolicyActor, Trajectory};
use posttrain_model::TextModel;
use posttrain_rollout::service::{
    SamplingClient, SamplingService, SamplingServiceConfig, Transition,
};
use posttrain_store::{JsonLog, lock_folder};
use posttrain_train::{Trainer, derive_seed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// One or several policies' reinforcement learning in environments, in a folder of its own.
///
/// The folder holds `metrics.jsonl`, `tensorboard/`, `episodes.jsonl` (whole trajectories),
/// `checkpoints/`, and for each trained role `best/` and `last/` (PEFT). Called again on the same
/// folder with the same configuration, a run goes on after its last saved state. The same seed
/// gives the same episodes, as far as environments do, but for rounding: episodes share a batch as
/// they come, which moves the last places of a log-probability.
pub struct AgentRun {
    model: TextModel,
    builder: Arc<dyn EnvironmentBuilder>,
    config: AgentConfig,
    folder: PathBuf,
    base_model: String,
    ranks: Ranks,
    stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

/// Where a run stands, beside the trainers' own states.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentState {
    /// Steps done.
    step: u64,
    /// Where the data stands.
    data: StreamState,
    /// The best step by validation, with its reward.
    best: Option<(u64, f64)>,
}

impl Standing for AgentState {
    fn step(&self) -> u64 {
        self.step
    }

    fn best_step(&self) -> Option<u64> {
        self.best.map(|(step, _)| step)
    }
}

/// What a run writes beside its states.
struct Books {
    metrics: MetricsLog<AgentRecord>,
    episodes: JsonLog<EpisodeLine>,
}

impl Books {
    fn write(&mut self, lines: &[EpisodeLine], record: &AgentRecord) -> Result<(), RecipeError> {
        for line in lines {
            self.episodes.append(line)?;
        }
        self.metrics.append(record)
    }
}

/// What acts in a run.
struct Cast {
    trainers: BTreeMap<String, Trainer>,
    client: SamplingClient,
    stage: Stage,
    /// To drop it is to end sampling.
    _service: SamplingService,
}

impl AgentRun {
    /// A run in `folder`.
    ///
    /// # Errors
    /// The first field of `config` that is out of range is named.
    pub fn new(
        model: TextModel,
        builder: Arc<dyn EnvironmentBuilder>,
        config: AgentConfig,
        folder: &Path,
    ) -> Result<Self, RecipeError> {
        config.validate()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self {
            model,
            builder,
            config,
            folder: folder.into(),
            base_model: String::new(),
            ranks: Ranks::default(),
            stop: Arc::default(),
            runtime: runtime.map_err(|source| RecipeError::Runtime { source })?,
        })
    }

    /// Names the base in the adapters that the run writes.
    #[must_use]
    pub fn with_base_model(self, base_model: impl Into<String>) -> Self {
        Self { base_model: base_model.into(), ..self }
    }

    /// Makes it one of several ranks that make the run together, each in a process of its own: each
    /// plays a share of the tasks and trains on a share of the episodes, and rank 0 keeps the run's
    /// files. A run goes on with another number of ranks than it was begun with.
    ///
    /// # Errors
    /// [`RecipeError::Collective`] where the ranks have other models.
    pub fn with_ranks(self, ranks: Ranks) -> Result<Self, RecipeError> {
        ranks.check_model(&self.model)?;
        Ok(Self { ranks, ..self })
    }

    /// Stops by a flag of the caller's: after the step that it is in, with its state saved.
    #[must_use]
    pub fn with_stop_flag(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// Trains on `train`'s tasks from where the folder stands to the last step; whether all are
    /// done.
    ///
    /// # Errors
    /// Whatever sampling, training or the disk do; [`RecipeError::RewardFailures`] where too many
    /// episodes of a step failed.
    pub fn train(
        &self,
        train: &[Example],
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<bool, RecipeError> {
        let (config, ranks) = (&self.config, &self.ranks);
        let _lock = ranks.led(|| lock_folder(&self.folder).map_err(RecipeError::from))?;
        ranks.check_same("data", &(train, validation))?;
        let mut checkpoints = self.checkpoints()?;
        let mut cast = self.cast()?;
        let trainers = cast.trainers.iter_mut().map(|(role, trainer)| (role.as_str(), trainer));
        let resumed = ranks.agree(checkpoints.load::<AgentState>(trainers, observer))?;
        let Resumed { mut state, .. } = resumed;
        let mut data = BatchStream::new(train, config.batches())?.resume(state.data)?;
        let joined = std::mem::take(&mut cast.trainers).into_iter();
        let joined = joined.map(|(role, trainer)| Ok((role, ranks.join(trainer)?)));
        cast.trainers = joined.collect::<Result<_, RecipeError>>()?;

        let name = self.folder.file_name().map_or("agent".into(), |n| n.to_string_lossy());
        observer.see(&Event::Started { name: &name, step: state.step, steps: config.steps });
        let mut books = ranks.led(|| self.books(state.step, observer))?;
        let mut stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))?;
        while state.step < config.steps && !stopping {
            let tasks = data.next_batch();
            let (mut record, lines) = self.step(state.step, &tasks, &mut cast, observer)?;
            state.step += 1;
            state.data = data.state();

            record.validation = self.validate(&mut state, &cast, validation, observer)?;
            ranks.led(|| {
                if state.best_step() == Some(state.step) {
                    for (role, trainer) in &cast.trainers {
                        checkpoints.keep_best(role, trainer)?;
                    }
                }
                books.iter_mut().try_for_each(|books| books.write(&lines, &record))
            })?;
            observer.see(&Event::AgentStep { record: &record, steps: config.steps });

            stopping = ranks.any(Ok(self.stop.load(Ordering::Relaxed)))?;
            let due = checkpoints.due(config.checkpoint_every, &state);
            if due || stopping || state.step == config.steps {
                let trainers = cast.trainers.iter().map(|(role, trainer)| (role.as_str(), trainer));
                ranks.agree(checkpoints.save(&state, trainers, []))?;
            }
        }
        ranks.led(|| checkpoints.wait())?;
        observer.see(&Event::Finished { step: state.step });
        Ok(state.step >= config.steps)
    }

    /// What a run writes beside its states, open to go on after a step.
    fn books(&self, step: u64, observer: &mut dyn Observer) -> Result<Books, RecipeError> {
        let (metrics, records) = MetricsLog::open(&self.folder, step)?;
        let path = self.folder.join("episodes.jsonl");
        let (episodes, _) = JsonLog::open(&path, |line: &EpisodeLine| line.step <= step)?;
        if let Some(text) = lost_steps(&self.folder, step, records.len() as u64) {
            observer.see(&Event::Note { text: &text });
        }
        Ok(Books { metrics, episodes })
    }

    /// Plays one episode of each task by policies from PEFT folders, by role; a role that has none
    /// plays as the configuration begins it. The same seed gives the same episodes, so that two
    /// policies differ by themselves alone.
    ///
    /// # Errors
    /// [`RecipeError::Lora`] for an adapter that cannot be read; [`RecipeError::RewardFailures`] where
    /// too many episodes failed; [`RecipeError::Stopped`] by the stop flag; else whatever sampling does.
    pub fn evaluate(
        &self,
        adapters: &BTreeMap<String, PathBuf>,
        tasks: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Vec<EpisodeGroup>, RecipeError> {
        self.evaluate_in(self.builder.as_ref(), adapters, tasks, observer)
    }

    /// [`AgentRun::evaluate`] in other environments than those of training: with a tool less, or
    /// harder ones.
    ///
    /// # Errors
    /// Those of [`AgentRun::evaluate`].
    pub fn evaluate_in(
        &self,
        builder: &dyn EnvironmentBuilder,
        adapters: &BTreeMap<String, PathBuf>,
        tasks: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Vec<EpisodeGroup>, RecipeError> {
        let mut cast = self.cast()?;
        for (role, folder) in adapters {
            let Some(player) = cast.stage.players.get_mut(role) else {
                let expected = "of roles that the configuration has";
                return RecipeError::check("adapters", false, expected, role).map(|()| Vec::new());
            };
            let policy = load_policy(folder, &self.model.decoder)?;
            cast.client.publish(role, policy, Transition::Finish);
            // One that is not trained has played as the base so far.
            *player = player.with_actor(Arc::new(PolicyActor::name(cast.client.clone(), role)));
        }
        let stop = Some(&*self.stop);
        let groups = self.play_held_out((builder, stop), &cast, tasks, observer)?;
        self.check_failures(self.config.steps, &groups, &AgentEvaluation::of(&groups))?;
        Ok(groups)
    }

    /// Plays one episode of each task by somebody who knows how: `actor` makes, of a role and a
    /// task, whoever plays it ([`ScriptedActor`](posttrain_environment::ScriptedActor)). A role that it
    /// makes nobody for plays as the configuration begins it.
    ///
    /// # Errors
    /// [`RecipeError::Episode`] of the first task that cannot be played to its end.
    pub fn demonstrate(
        &self,
        tasks: &[Example],
        actor: &dyn Fn(&str, &Example) -> Option<Arc<dyn Actor>>,
    ) -> Result<Vec<Trajectory>, RecipeError> {
        let cast = self.cast()?;
        let role = &self.config.main_role;
        let failed = |source| EpisodeError::Environment { turn: 0, source };
        let mut demonstrations = Vec::with_capacity(tasks.len());
        for task in tasks {
            let players = cast.stage.players.iter().map(|(role, player)| {
                let shown = actor(role, task).map(|actor| player.with_actor(actor));
                (role.clone(), shown.unwrap_or_else(|| player.clone()))
            });
            let stage = Stage { players: players.collect() };
            let episode = EpisodeRequest { task, seed: 0, progress: 1.0, stage: &stage };
            let mut environment = self.builder.environment(episode).map_err(failed)?;
            let player = stage.player(role).map_err(failed)?;
            let played = player.play(environment.as_mut(), role, 0);
            demonstrations.push(self.runtime.block_on(played)?);
        }
        Ok(demonstrations)
    }

    /// Learns what somebody played in a role who knows how ([`AgentRun::demonstrate`]) by cross-entropy,
    /// into an adapter of the role's shape: a PEFT folder at `adapter`, for
    /// [`RoleConfig::adapter`]. One that is there already is left as it is. The losses, step by step; of
    /// several ranks all have the same demonstrations.
    ///
    /// # Errors
    /// [`RecipeError::Config`] where nothing is demonstrated, or there is no such role;
    /// [`RecipeError::Stopped`] by the stop flag; else whatever training and the disk do.
    pub fn warm_start<'a>(
        &self,
        role: &str,
        demonstrations: impl IntoIterator<Item = &'a Trajectory>,
        config: &WarmStartConfig,
        adapter: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f64>, RecipeError> {
        config.validate()?;
        let Some(settings) = self.config.roles.get(role) else {
            let expected = "one of `roles`";
            return RecipeError::check("role", false, expected, role).map(|()| Vec::new());
        };
        if !self.ranks.any(Ok(!adapter.exists()))? {
            return Ok(Vec::new());
        }
        let seed = derive_seed(self.config.seed, "warm start", 0, 0);
        let trainer = self.config.trainer;
        let trainer = Trainer::new(self.model.decoder.clone(), &settings.lora, trainer, seed)?;
        let mut trainer = self.ranks.join(trainer)?;
        let stop = || self.ranks.any(Ok(self.stop.load(Ordering::Relaxed)));
        let how = (config, seed, &stop as &dyn Fn() -> Result<bool, RecipeError>);
        let losses = warm_start(&mut trainer, demonstrations, how, observer)?;
        self.ranks
            .led(|| trainer.save_adapter(adapter, &self.base_model).map_err(RecipeError::from))?;
        Ok(losses)
    }

    /// The folder's saved states. What must be the same when a run goes on is everything but what
    /// is saved when, what is logged, and how many episodes wait beside each other.
    fn checkpoints(&self) -> Result<Checkpoints, RecipeError> {
        // What a role begins with is kept, wherever it came from.
        let mut roles = self.config.roles.clone();
        roles.values_mut().for_each(|role| role.adapter = None);
        let kept = kept_config(&AgentConfig {
            roles,
            checkpoint_every: 1,
            checkpoints: CheckpointConfig::default(),
            logged_episodes: 0,
            in_flight: 1,
            ..self.config.clone()
        })?;
        let (folder, base) = (&self.folder, &self.base_model);
        Checkpoints::open_led(&self.ranks, folder, self.config.checkpoints, base, kept)
    }

    /// Trainers, sampling service and players of every role.
    fn cast(&self) -> Result<Cast, RecipeError> {
        let config = SamplingServiceConfig {
            engine: self.config.engine.clone(),
            ..SamplingServiceConfig::default()
        };
        let tokenizer = Some(self.model.tokenizer.clone());
        let service = SamplingService::start(self.model.decoder.clone(), tokenizer, config)?;
        let client = service.client();

        let mut trainers = BTreeMap::new();
        let mut players = BTreeMap::new();
        for (role, config) in &self.config.roles {
            let folder = self.folder.join(role);
            let seed = derive_seed(self.config.seed, role, 0, 0);
            let start = self.start(config, &folder, seed);
            let policy = if config.trained {
                let trainer = start.trainer(&self.ranks)?;
                let snapshot = trainer.snapshot()?;
                trainers.insert(role.clone(), trainer);
                Some(snapshot)
            } else {
                start.policy(&self.ranks)?
            };

            let actor = match policy {
                Some(policy) => {
                    client.publish(role, policy, Transition::Finish);
                    PolicyActor::name(client.clone(), role)
                }
                None => PolicyActor::base(client.clone()),
            };
            let player = EpisodePlayer::new(
                self.model.clone(),
                Arc::new(actor),
                self.config.episode.clone(),
            )?;
            players.insert(role.clone(), player);
        }
        Ok(Cast { trainers, client, stage: Stage { players }, _service: service })
    }

    /// What a role's policy begins as.
    fn start<'a>(&'a self, role: &'a RoleConfig, folder: &'a Path, seed: u64) -> Start<'a> {
        Start {
            model: &self.model.decoder,
            lora: &role.lora,
            adapter: role.adapter.as_deref(),
            trainer: self.config.trainer,
            seed,
            run: &self.folder,
            folder,
        }
    }

    fn step(
        &self,
        step: u64,
        tasks: &[Example],
        cast: &mut Cast,
        observer: &mut dyn Observer,
    ) -> Result<(AgentRecord, Vec<EpisodeLine>), RecipeError> {
        let config = &self.config;
        let started = Instant::now();
        for (role, trainer) in &cast.trainers {
            cast.client.publish(role, trainer.snapshot()?, Transition::Finish);
        }

        let seed = |row| derive_seed(config.seed, "task", step, row);
        let request = PlayRequest {
            tasks,
            episodes: config.group_size,
            role: &config.main_role,
            seeds: (0..tasks.len() as u64).map(seed).collect(),
            in_flight: config.in_flight,
            progress: step as f64 / (config.steps - 1).max(1) as f64,
            phase: Phase::Sampling,
            stop: None,
        };
        let groups = self.play(request, self.builder.as_ref(), &cast.stage, observer)?;
        let episodes = AgentEvaluation::of(&groups);
        self.check_failures(step + 1, &groups, &episodes)?;
        let seconds_playing = started.elapsed().as_secs_f64();

        let training = Instant::now();
        let mut roles = BTreeMap::new();
        let mut signal = 0.0;
        let mut lines = Vec::new();
        for (role, settings) in &config.roles {
            let learned = Learned::of(role, &groups, &config.advantage)?;
            if *role == config.main_role {
                signal = learned.signal();
                lines = learned.lines(step + 1, config.logged_episodes);
            }
            let due = step % settings.every == settings.offset;
            let Some(trainer) = cast.trainers.get_mut(role).filter(|_| due) else { continue };
            let datums = learned.datums(config);
            if !datums.iter().any(|datum| teaches(&config.objective, datum)) {
                continue;
            }

            observer.see(&Event::Progress { phase: Phase::Training, done: 0, total: datums.len() });
            let passes = trainer.forward_backward(&datums, &config.objective)?;
            let rate = settings.learning_rate * settings.schedule.factor(step, config.steps);
            let params = trainer.adam_params(rate);
            let optim = trainer.optim_step(&params)?;
            roles.insert(role.clone(), RoleRecord::of(&passes, optim, datums.len(), rate));
        }

        let record = AgentRecord {
            step: step + 1,
            episodes,
            groups_with_signal: signal,
            roles,
            validation: None,
            seconds_playing,
            seconds_training: training.elapsed().as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            time: now(),
        };
        Ok((record, lines))
    }

    fn check_failures(
        &self,
        step: u64,
        groups: &[EpisodeGroup],
        episodes: &AgentEvaluation,
    ) -> Result<(), RecipeError> {
        let failed: usize = episodes.failures.values().sum();
        let total = failed + episodes.n;
        if failed as f64 <= self.config.max_failures * total as f64 {
            return Ok(());
        }
        let first = groups.iter().flat_map(|g| &g.episodes).find_map(|e| e.as_ref().err());
        let counts: Vec<String> =
            episodes.failures.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
        let first =
            first.map_or(String::new(), |failure| format!("; the first: {}", failure.report));
        Err(RecipeError::RewardFailures {
            step,
            failed,
            total,
            allowed: self.config.max_failures,
            causes: counts.join(", ") + &first,
        })
    }

    fn validate(
        &self,
        state: &mut AgentState,
        cast: &Cast,
        validation: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Option<AgentEvaluation>, RecipeError> {
        let config = &self.config.evaluation;
        let due = state.step.is_multiple_of(config.every) || state.step == self.config.steps;
        if !due || validation.is_empty() {
            return Ok(None);
        }
        for (role, trainer) in &cast.trainers {
            cast.client.publish(role, trainer.snapshot()?, Transition::Finish);
        }

        let tasks = &validation[..config.tasks.unwrap_or(usize::MAX).min(validation.len())];
        let groups = self.play_held_out((self.builder.as_ref(), None), cast, tasks, observer)?;
        let evaluation = AgentEvaluation::of(&groups);
        self.check_failures(state.step, &groups, &evaluation)?;
        let text = format!("validation after step {}: {}", state.step, evaluation.line());
        observer.see(&Event::Note { text: &text });
        if state.best.is_none_or(|(_, reward)| evaluation.reward > reward) {
            state.best = Some((state.step, evaluation.reward));
        }
        Ok(Some(evaluation))
    }

    /// An episode of each task; the same for the same policies.
    fn play_held_out(
        &self,
        (builder, stop): (&dyn EnvironmentBuilder, Option<&AtomicBool>),
        cast: &Cast,
        tasks: &[Example],
        observer: &mut dyn Observer,
    ) -> Result<Vec<EpisodeGroup>, RecipeError> {
        let seed =
            |task: &Example| derive_seed(self.config.seed, &format!("evaluate {}", task.id), 0, 0);
        let request = PlayRequest {
            tasks,
            episodes: 1,
            role: &self.config.main_role,
            seeds: tasks.iter().map(seed).collect(),
            in_flight: self.config.in_flight,
            progress: 1.0,
            phase: Phase::Evaluating,
            stop,
        };
        self.play(request, builder, &cast.stage, observer)
    }

    /// Plays all tasks' episodes; of several ranks each plays its share of the tasks, and hears of the
    /// others'.
    fn play(
        &self,
        mut request: PlayRequest<'_>,
        builder: &dyn EnvironmentBuilder,
        stage: &Stage,
        observer: &mut dyn Observer,
    ) -> Result<Vec<EpisodeGroup>, RecipeError> {
        let ranks = self.ranks.of(request.phase);
        let own = share(request.tasks.len(), ranks.rank(), ranks.size());
        request.tasks = &request.tasks[own.clone()];
        request.seeds = request.seeds[own].to_vec();
        let played = self.runtime.block_on(play(request, builder, stage, observer));
        Ok(gather(ranks, played)?.into_iter().flatten().collect())
    }
}
