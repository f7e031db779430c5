//! Policies in environments: they learn, they go on where they were killed, they learn by roles.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Message;
use posttrain_collective::Threads;
use posttrain_data::Example;
use posttrain_environment::{
    Action, Actor, Budget, Environment, EnvironmentError, EpisodeConfig, EpisodePlayer, Opening,
    ScriptedActor, Step, Trajectory,
};
use posttrain_lora::LoraConfig;
use posttrain_recipes::agent::{
    AgentConfig, AgentEvaluationConfig, AgentRecord, AgentRun, EnvironmentBuilder, EpisodeRequest,
    RoleConfig, WarmStartConfig,
};
use posttrain_recipes::{Event, MetricsLog, Observer, Ranks, RecipeError, Silent};
use posttrain_rollout::SamplingParams;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{World, examples};

/// Two turns, each worth a half if a 7 is said in it; between them a digit is read.
struct Sevens {
    question: String,
    turn: usize,
}

fn seven(text: &str) -> f64 {
    if text.split(' ').take(2).any(|word| word == "7") { 0.5 } else { 0.0 }
}

impl Environment for Sevens {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let opening = Opening::new(Message::user(&self.question));
        async move { Ok(opening) }.boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        self.turn += 1;
        let reward = seven(action.text);
        let step = match self.turn {
            1 => Step::Next { observation: Message::user("3 5").into(), reward },
            _ => Step::done(reward),
        };
        async move { Ok(step) }.boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([("turns_seen".to_owned(), self.turn as f64)])
    }
}

fn sevens(episode: EpisodeRequest<'_>) -> Result<Box<dyn Environment>, EnvironmentError> {
    Ok(Box::new(Sevens { question: episode.task.question.clone(), turn: 0 }))
}

fn role() -> RoleConfig {
    RoleConfig {
        learning_rate: 5e-3,
        lora: LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() },
        ..RoleConfig::default()
    }
}

fn config(steps: u64) -> AgentConfig {
    AgentConfig {
        seed: 3,
        steps,
        tasks: 4,
        group_size: 6,
        roles: BTreeMap::from([("policy".to_owned(), role())]),
        episode: EpisodeConfig {
            sampling: SamplingParams { max_tokens: 4, ..SamplingParams::default() },
            budget: Budget::default(),
            ..EpisodeConfig::default()
        },
        checkpoint_every: 2,
        evaluation: AgentEvaluationConfig { every: 4, tasks: Some(8) },
        ..AgentConfig::default()
    }
}

fn run(
    world: &World,
    builder: Arc<dyn EnvironmentBuilder>,
    config: AgentConfig,
    folder: &Path,
) -> AgentRun {
    AgentRun::new(world.model.clone(), builder, config, folder).unwrap()
}

fn records(folder: &Path) -> Vec<AgentRecord> {
    let (_, records) = MetricsLog::open(folder, u64::MAX).unwrap();
    records.iter().map(AgentRecord::reproducible).collect()
}

#[test]
fn a_policy_learns_in_turns_and_trains_on_what_it_sampled() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let run = run(&world, Arc::new(sevens), config(24), dir.path());
    assert!(run.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap());

    let records = records(dir.path());
    let mean = |records: &[AgentRecord]| {
        records.iter().map(|r| r.episodes.reward).sum::<f64>() / records.len() as f64
    };
    let (first, last) = (mean(&records[..4]), mean(&records[20..]));
    assert!(last > first + 0.2, "{first} {last}");
    for record in &records {
        assert_eq!((record.episodes.n, record.episodes.turns), (24, 2.0));
        assert_eq!(record.episodes.metrics["turns_seen"], 2.0);
    }
    // A step whose groups all earn the same trains nobody.
    let trained: Vec<_> = records.iter().filter_map(|record| record.roles.get("policy")).collect();
    assert!(trained.len() > 4, "{}", trained.len());
    for policy in trained {
        // The very tokens that were sampled, in the very context.
        assert!(policy.logprob_gap_max < 1e-4, "{policy:?}");
        assert!((policy.ratio_mean - 1.0).abs() < 1e-4);
    }
    assert!(records[23].validation.as_ref().unwrap().reward > first);
    assert!(dir.path().join("policy/best/adapter_config.json").exists());
    assert!(dir.path().join("policy/last/adapter_config.json").exists());
}

/// Dies at a step, before anything of it is saved.
struct DieAt(u64);

impl Observer for DieAt {
    fn see(&mut self, event: &Event) {
        if let Event::AgentStep { record, .. } = event {
            assert!(record.step < self.0, "killed");
        }
    }
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_numbers() {
    let world = World::new();
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |folder: &Path, observer: &mut dyn Observer| {
        let run = run(&world, Arc::new(sevens), config(7), folder);
        run.train(&examples(0..40), &examples(40..50), observer)
    };
    train(whole.path(), &mut Silent).unwrap();
    for step in [3, 6] {
        let died = catch_unwind(AssertUnwindSafe(|| train(killed.path(), &mut DieAt(step))));
        assert!(died.is_err());
    }
    train(killed.path(), &mut Silent).unwrap();

    // Episodes share a batch as they come, which moves the last places of a log-probability.
    let (one, other) = (records(whole.path()), records(killed.path()));
    assert_eq!(one.len(), 7);
    same(&one, &other);
    let lines = |folder: &Path| {
        std::fs::read_to_string(folder.join("episodes.jsonl")).unwrap().lines().count()
    };
    assert_eq!(lines(whole.path()), lines(killed.path()));

    // Another configuration does not go on with it.
    let other = AgentConfig { group_size: 4, ..config(9) };
    let error = run(&world, Arc::new(sevens), other, killed.path())
        .train(&examples(0..40), &[], &mut Silent)
        .unwrap_err();
    assert!(matches!(error, RecipeError::OtherRun { .. }), "{error}");
}

/// That two runs are one up to rounding.
fn same(one: &[AgentRecord], other: &[AgentRecord]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert_eq!((one.step, &one.episodes), (other.step, &other.episodes));
        assert_eq!(one.validation, other.validation);
        assert_eq!(one.roles.len(), other.roles.len());
        for (role, one) in &one.roles {
            let other = &other.roles[role];
            assert!((one.loss - other.loss).abs() < 1e-5, "{one:?} {other:?}");
            assert!((one.grad_norm - other.grad_norm).abs() < 1e-4, "{one:?} {other:?}");
        }
    }
}

#[test]
fn several_ranks_make_one_run_and_go_on_as_another_number() {
    let dir = tempfile::tempdir().unwrap();
    let warm = WarmStartConfig { epochs: 2, learning_rate: 5e-3, ..WarmStartConfig::default() };
    let learn = |folder: &Path, stop: u64, ranks: Ranks| {
        let world = World::new();
        let begun = |name: &str| {
            let folder = folder.join(name);
            run(&world, Arc::new(sevens), config(6), &folder).with_ranks(ranks.clone())
        };
        let script = |_: &str, _: &Example| Some(says(&world, ["7 1", "2 7"]));
        let shown = begun("shown")?;
        let played = shown.demonstrate(&examples(0..8), &script)?;
        let losses =
            shown.warm_start("policy", &played, &warm, &folder.join("warm"), &mut Silent)?;

        let flag = Arc::new(AtomicBool::new(false));
        let run = begun("run")?.with_stop_flag(flag.clone());
        let observer = &mut StopAt(flag.clone(), stop);
        let trained = run.train(&examples(0..41), &examples(41..46), observer)?;
        flag.store(false, Ordering::Relaxed);
        let adapters = BTreeMap::from([("policy".to_owned(), folder.join("warm"))]);
        let groups = run.evaluate(&adapters, &examples(50..57), &mut Silent)?;
        let rewards: Vec<f64> =
            groups.iter().map(|group| group.episodes[0].as_ref().unwrap().reward()).collect();
        Ok((trained, losses, rewards))
    };
    let together = |size: usize, folder: &Path, stop: u64| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = Threads::of(size, Duration::from_secs(120))
                .into_iter()
                .map(|rank| {
                    let learn = &learn;
                    scope.spawn(move || learn(folder, stop, Ranks::new(Arc::new(rank))?))
                })
                .collect();
            let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
            outcomes.collect::<Result<Vec<_>, RecipeError>>().unwrap()
        })
    };

    let alone = dir.path().join("alone");
    let (complete, losses, rewards) = learn(&alone, u64::MAX, Ranks::default()).unwrap();
    assert!(complete && losses.len() == 2 && rewards.len() == 7);
    for size in [2, 3] {
        let folder = dir.path().join(format!("{size}"));
        // Stopped by one of them, and gone on with as another number.
        assert!(together(size, &folder, 3).iter().all(|(complete, ..)| !complete));
        for (complete, again, own) in together(5 - size, &folder, u64::MAX) {
            assert!(complete && again.is_empty());
            assert_eq!(own, rewards);
        }
        same(&records(&alone.join("run")), &records(&folder.join("run")));
        let lines = std::fs::read_to_string(folder.join("run/episodes.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 6 * 4);
    }
}

#[test]
fn a_warm_start_and_a_test_are_stopped_with_nothing_kept() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let run = run(&world, Arc::new(sevens), config(2), &dir.path().join("run"));
    let run = run.with_stop_flag(stop.clone());
    let played = run.demonstrate(&examples(0..4), &|_, _| Some(says(&world, ["7 1", "2 7"])));
    let adapter = dir.path().join("warm");
    let warm = || {
        let config = WarmStartConfig::default();
        run.warm_start("policy", played.as_ref().unwrap(), &config, &adapter, &mut Silent)
    };
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(warm(), Err(RecipeError::Stopped)) && !adapter.exists());
    let tested = run.evaluate(&BTreeMap::new(), &examples(0..4), &mut Silent);
    assert!(matches!(tested, Err(RecipeError::Stopped)));
    stop.store(false, Ordering::Relaxed);
    assert!(warm().is_ok() && adapter.exists());
}

/// Asks a run to stop after a step, as an interrupt does.
struct StopAt(Arc<AtomicBool>, u64);

impl Observer for StopAt {
    fn see(&mut self, event: &Event) {
        match event {
            Event::AgentStep { record, .. } if record.step == self.1 => {
                self.0.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// Asks a worker, and is worth what the worker is.
struct Asks {
    worker: EpisodePlayer,
    seed: u64,
    question: String,
    children: Vec<Trajectory>,
}

impl Environment for Asks {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let opening = Opening::new(Message::user(&self.question));
        async move { Ok(opening) }.boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            let mut task = Sevens { question: self.question.clone(), turn: 0 };
            let child = self.worker.play(&mut task, "worker", self.seed).await?;
            let reward = child.reward() + seven(action.text);
            self.children = vec![child];
            Ok(Step::done(reward))
        }
        .boxed()
    }

    fn take_children(&mut self) -> Vec<Trajectory> {
        std::mem::take(&mut self.children)
    }
}

fn asking(episode: EpisodeRequest<'_>) -> Result<Asks, EnvironmentError> {
    Ok(Asks {
        worker: episode.stage.player("worker")?.clone(),
        seed: episode.seed,
        question: episode.task.question.clone(),
        children: Vec::new(),
    })
}

fn asks(episode: EpisodeRequest<'_>) -> Result<Box<dyn Environment>, EnvironmentError> {
    Ok(Box::new(asking(episode)?))
}

fn two_roles(steps: u64) -> AgentConfig {
    let turn = |offset| RoleConfig { every: 2, offset, ..role() };
    AgentConfig {
        main_role: "asker".into(),
        roles: BTreeMap::from([("asker".to_owned(), turn(0)), ("worker".to_owned(), turn(1))]),
        ..config(steps)
    }
}

#[test]
fn two_roles_learn_by_turns_each_by_its_own_reward() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let run = run(&world, Arc::new(asks), two_roles(8), dir.path());
    run.train(&examples(0..40), &[], &mut Silent).unwrap();
    let mut trained = [0, 0];
    for record in records(dir.path()) {
        let (due, other) =
            if record.step % 2 == 1 { ("asker", "worker") } else { ("worker", "asker") };
        assert!(!record.roles.contains_key(other), "{record:?}");
        trained[(record.step % 2) as usize] += usize::from(record.roles.contains_key(due));
        assert_eq!(record.episodes.critical_steps, 3.0);
        for role in record.roles.values() {
            assert!(role.logprob_gap_max < 1e-4, "{role:?}");
        }
    }
    assert!(trained.iter().all(|steps| *steps > 0), "{trained:?}");
    for role in ["asker", "worker"] {
        assert!(dir.path().join(role).join("last/adapter_config.json").exists());
    }
}

/// Asks a worker, which earns by sevens, and earns by a two of its own alone.
struct Apart(Asks);

impl Environment for Apart {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        self.0.start()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            self.0.act(action).await?;
            let two = action.text.split(' ').take(2).any(|word| word == "2");
            Ok(Step::done(f64::from(u8::from(two))))
        }
        .boxed()
    }

    fn take_children(&mut self) -> Vec<Trajectory> {
        self.0.take_children()
    }
}

#[test]
fn each_role_learns_what_it_earns_by() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let apart = |episode: EpisodeRequest<'_>| -> Result<Box<dyn Environment>, EnvironmentError> {
        Ok(Box::new(Apart(asking(episode)?)))
    };
    let roles = ["asker", "worker"].map(|name| (name.to_owned(), role()));
    let config = AgentConfig { roles: BTreeMap::from(roles), ..two_roles(24) };
    let run = run(&world, Arc::new(apart), config, dir.path());
    let earned = |adapters: &BTreeMap<_, _>| {
        let groups = run.evaluate(adapters, &examples(40..80), &mut Silent).unwrap();
        let played = || groups.iter().map(|group| group.episodes[0].as_ref().unwrap());
        let own: f64 = played().map(Trajectory::reward).sum();
        let workers: f64 = played().flat_map(Trajectory::children).map(Trajectory::reward).sum();
        [own / 40.0, workers / 40.0]
    };
    let before = earned(&BTreeMap::new());
    run.train(&examples(0..40), &[], &mut Silent).unwrap();
    let last = |name: &str| (name.to_owned(), dir.path().join(name).join("last"));
    let after = earned(&BTreeMap::from([last("asker"), last("worker")]));
    assert!(after[0] > before[0] + 0.2 && after[1] > before[1] + 0.2, "{before:?} {after:?}");
}

#[test]
fn a_role_that_is_not_trained_stays_what_it_is() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut config = two_roles(2);
    config.roles.insert("worker".to_owned(), RoleConfig { trained: false, ..role() });
    let run = run(&world, Arc::new(asks), config, dir.path());
    run.train(&examples(0..40), &[], &mut Silent).unwrap();
    assert!(records(dir.path()).iter().all(|record| !record.roles.contains_key("worker")));
    assert!(!dir.path().join("worker").exists());
}

#[test]
fn an_episode_that_fails_is_no_zero_and_too_many_end_the_run_in_words() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    let breaks = move |episode: EpisodeRequest<'_>| {
        // Every sixth.
        if made.fetch_add(1, Ordering::Relaxed).is_multiple_of(6) {
            return Err(EnvironmentError::Failed { reason: "the disk is full".into() });
        }
        sevens(episode)
    };
    let run = run(&world, Arc::new(breaks), config(2), dir.path());
    run.train(&examples(0..40), &[], &mut Silent).unwrap();
    let record = &records(dir.path())[0];
    assert_eq!((record.episodes.n, record.episodes.failures["environment"]), (20, 4));

    let dir = tempfile::tempdir().unwrap();
    let never =
        |_: EpisodeRequest<'_>| Err(EnvironmentError::Failed { reason: "the disk is full".into() });
    let run = AgentRun::new(world.model, Arc::new(never), config(2), dir.path()).unwrap();
    let error = run.train(&examples(0..40), &[], &mut Silent).unwrap_err().to_string();
    assert!(error.contains("24 of 24") && error.contains("the disk is full"), "{error}");
}

/// Somebody who says one thing, and then the other.
fn says(world: &World, texts: [&'static str; 2]) -> Arc<dyn Actor> {
    let script = move |turn: usize, _: &[Message]| texts.get(turn).map(|&text| text.to_owned());
    Arc::new(ScriptedActor::new(world.model.clone(), script))
}

#[test]
fn each_role_is_shown_what_is_its_own() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let run = run(&world, Arc::new(asks), two_roles(1), dir.path());
    let tasks = examples(0..3);

    let both = |role: &str, _: &Example| match role {
        "asker" => Some(says(&world, ["7 2", ""])),
        _ => Some(says(&world, ["7 1", "2 7"])),
    };
    let played = run.demonstrate(&tasks, &both).unwrap();
    assert!(played.iter().all(|trajectory| trajectory.reward() == 1.5));
    let worker = played[0].children().next().unwrap();
    assert_eq!((worker.turns[0].text.as_str(), worker.turns[1].text.as_str()), ("7 1", "2 7"));

    // A role that is not shown plays by itself: it samples.
    let one = |role: &str, _: &Example| (role == "asker").then(|| says(&world, ["7 2", ""]));
    let played = run.demonstrate(&tasks, &one).unwrap();
    let sampled =
        |trajectory: &Trajectory| trajectory.turns.iter().all(|turn| !turn.logprobs.is_empty());
    assert!(played.iter().all(|t| !sampled(t) && t.children().all(sampled)));
}

#[test]
fn an_environment_is_told_how_far_the_run_is() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<Vec<f64>>> = Arc::default();
    let seen = told.clone();
    let builder = move |episode: EpisodeRequest<'_>| {
        seen.lock().unwrap().push(episode.progress);
        sevens(episode)
    };
    let run = run(&world, Arc::new(builder), config(4), dir.path());
    run.train(&examples(0..40), &examples(40..42), &mut Silent).unwrap();
    let mut told = told.lock().unwrap().clone();
    told.dedup();
    assert_eq!(told, [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
}

#[test]
fn a_demonstration_is_learned_before_anything_is_reinforced() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let run = run(&world, Arc::new(sevens), config(1), &dir.path().join("run"));
    let script = |_: &str, _: &Example| Some(says(&world, ["7 1", "2 7"]));
    let tasks = examples(0..20);
    let played = run.demonstrate(&tasks, &script).unwrap();
    assert!(played.iter().all(|trajectory| trajectory.reward() == 1.0));

    let warm = WarmStartConfig { epochs: 20, learning_rate: 5e-3, ..WarmStartConfig::default() };
    let adapter = dir.path().join("warm");
    let losses = run.warm_start("policy", &played, &warm, &adapter, &mut Silent).unwrap();
    assert!(losses.last().unwrap() < &(losses[0] / 2.0), "{losses:?}");

    let reward = |adapters: BTreeMap<_, _>| {
        let groups = run.evaluate(&adapters, &examples(40..80), &mut Silent).unwrap();
        let all = groups.iter().map(|group| group.episodes[0].as_ref().unwrap().reward());
        all.sum::<f64>() / 40.0
    };
    let before = reward(BTreeMap::new());
    let after = reward(BTreeMap::from([("policy".to_owned(), adapter)]));
    assert!(after > 0.8 && before < 0.6, "{before} {after}");
}

#[test]
fn what_is_out_of_range_is_named() {
    let field = |config: AgentConfig| match config.validate() {
        Err(RecipeError::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(AgentConfig { group_size: 1, ..config(1) }), "group_size");
    assert_eq!(field(AgentConfig { main_role: "nobody".into(), ..config(1) }), "main_role");
    assert_eq!(field(AgentConfig { max_failures: 2.0, ..config(1) }), "max_failures");
    let nobody = RoleConfig { trained: false, ..role() };
    let roles = BTreeMap::from([("policy".to_owned(), nobody)]);
    assert_eq!(field(AgentConfig { roles, ..config(1) }), "roles");
    let sampled = |sampling: SamplingParams| {
        let episode = EpisodeConfig { sampling, ..config(1).episode };
        AgentConfig { episode, ..config(1) }
    };
    let cut = SamplingParams { top_p: Some(0.9), ..SamplingParams::default() };
    assert_eq!(field(sampled(cut)), "episode.sampling");
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    assert_eq!(field(sampled(greedy)), "episode.sampling");
    let late = RoleConfig { every: 2, offset: 2, ..role() };
    let roles = BTreeMap::from([("policy".to_owned(), late)]);
    assert_eq!(field(AgentConfig { roles, ..config(1) }), "roles.offset");
}
