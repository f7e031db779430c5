//! Both services together: whatever is submitted, cancelled, trained, snapshotted and swapped, in
//! whatever order, each call and each sample is answered once, and the numbers are those of the
//! same calls without threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::FutureExt;
use posttrain_lora::{LoraConfig, TargetModules};
use posttrain_loss::{PolicyObjective, Scope};
use posttrain_model::{Decoder, ModelConfig};
use posttrain_optim::AdamParams;
use posttrain_rollout::service::{
    SampleRequest, SampleStream, SamplingService, SamplingServiceConfig, Transition,
};
use posttrain_rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, RequestError, SamplingParams,
    Workers,
};
use posttrain_train::{
    Datum, Pending, TrainError, Trainer, TrainerConfig, TrainingClient, TrainingService,
    TrainingServiceConfig,
};
use proptest::prelude::*;
use std::sync::Arc;
use support::Wrong;
use tch::{Device, Kind, Tensor};

const NAMES: [&str; 2] = ["low", "high"];

fn model() -> Arc<Decoder> {
    Arc::new(Decoder::random(&ModelConfig::tiny(), 3, Kind::Float, Device::Cpu).unwrap())
}

/// Two adapters that have nothing in common.
fn lora(arm: usize) -> LoraConfig {
    match arm {
        0 => LoraConfig { rank: 2, alpha: 8.0, ..LoraConfig::default() },
        _ => LoraConfig {
            rank: 5,
            target_modules: TargetModules::Names(vec!["q_proj".into(), "down_proj".into()]),
            ..LoraConfig::default()
        },
    }
}

fn config() -> TrainerConfig {
    TrainerConfig { workers: posttrain_train::Workers::Count(1), ..TrainerConfig::default() }
}

fn of_queue(max_queued: usize) -> TrainingServiceConfig {
    TrainingServiceConfig { max_queued, ..TrainingServiceConfig::default() }
}

/// Whose trainers share passes, or not: then their numbers are those of lone ones to the bit.
fn training(model: &Arc<Decoder>, share_passes: bool) -> TrainingService {
    let config = TrainingServiceConfig { share_passes, ..TrainingServiceConfig::default() };
    TrainingService::with_config(model.clone(), config).unwrap()
}

/// Steps that are smooth in the gradient, so that rounding turns no sign.
fn step() -> AdamParams {
    AdamParams { eps: 1.0, ..config().adam_params(1.0) }
}

fn start(model: &Arc<Decoder>, workers: usize, max_rows: usize) -> SamplingService {
    let engine =
        EngineConfig { workers: Workers::Count(workers), max_rows, ..EngineConfig::default() };
    let config = SamplingServiceConfig { engine, max_pending: 200 };
    SamplingService::start(model.clone(), None, config).unwrap()
}

fn request(number: u64) -> Request {
    let params = SamplingParams {
        max_tokens: 1 + number as usize % 6,
        seed: number,
        ..SamplingParams::default()
    };
    Request::new(vec![number as i64 % 60 + 1, 2, 3], params).samples(1 + number as usize % 5)
}

fn datums(number: u64) -> Vec<Datum> {
    let token = |place: u64| ((number * 7 + place * 11) % 63) as i64 + 1;
    let completion = |start: u64, advantage: f32| {
        let tokens: Vec<i64> = (start..start + 3).map(token).collect();
        Datum::completion(&[token(0), 5], &tokens)
            .with_sampling_logprobs(vec![-4.1; 3])
            .with_advantage(advantage)
    };
    vec![completion(1, 1.0), completion(4, -0.5)]
}

/// Something that is asked of the services.
#[derive(Debug, Clone)]
enum Action {
    Sample { number: u64, arm: Option<usize> },
    Cancel { which: usize },
    Accumulate { number: u64, arm: usize },
    Step { arm: usize },
    Swap { arm: usize, follow: bool },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let arm = || 0usize..2;
    let action = prop_oneof![
        4 => (0u64..300, prop::option::of(arm())).prop_map(|(number, arm)| Action::Sample { number, arm }),
        1 => (0usize..30).prop_map(|which| Action::Cancel { which }),
        3 => (0u64..50, arm()).prop_map(|(number, arm)| Action::Accumulate { number, arm }),
        2 => arm().prop_map(|arm| Action::Step { arm }),
        2 => (arm(), any::<bool>()).prop_map(|(arm, follow)| Action::Swap { arm, follow }),
    ];
    prop::collection::vec(action, 1..20)
}

/// A call to a trainer, to be made again without threads.
#[derive(Debug, Clone, Copy)]
enum Call {
    Accumulate(u64),
    Step,
}

struct Sent {
    request: Request,
    stream: SampleStream,
    cancelled: bool,
    follows: bool,
}

/// Everything that an interleaving leaves behind.
struct Played {
    calls: [Vec<Call>; 2],
    adapters: Vec<Vec<(String, Tensor)>>,
    sent: Vec<Sent>,
}

fn play(
    model: &Arc<Decoder>,
    actions: &[Action],
    workers: usize,
    max_rows: usize,
    share_passes: bool,
) -> Played {
    let sampling = start(model, workers, max_rows);
    let training = training(model, share_passes);
    let client = sampling.client();
    let trainers: Vec<TrainingClient> =
        (0..2).map(|arm| training.create(&lora(arm), config(), arm as u64).unwrap()).collect();
    let mut published: Vec<PolicySnapshot> =
        trainers.iter().map(|t| t.snapshot().wait().unwrap()).collect();
    for (name, policy) in NAMES.iter().zip(&published) {
        client.publish(name, policy.clone(), Transition::Finish);
    }

    let mut played =
        Played { calls: [Vec::new(), Vec::new()], adapters: Vec::new(), sent: Vec::new() };
    let mut waiting: Vec<Box<dyn FnOnce()>> = Vec::new();
    let mut has_gradient = [false; 2];
    for action in actions {
        match *action {
            Action::Sample { number, arm } => {
                let mut asked = SampleRequest::new(request(number));
                if let Some(arm) = arm {
                    asked = asked.policy_name(NAMES[arm]);
                }
                let policy = arm.map(|arm| published[arm].clone());
                let stream = client.submit_blocking(asked).unwrap();
                let request = request(number).policy(policy);
                played.sent.push(Sent { request, stream, cancelled: false, follows: false });
            }
            Action::Cancel { which } if !played.sent.is_empty() => {
                let place = which % played.sent.len();
                played.sent[place].stream.cancel();
                played.sent[place].cancelled = true;
            }
            Action::Cancel { .. } => {}
            Action::Accumulate { number, arm } => {
                let pending = trainers[arm]
                    .forward_backward(datums(number), Arc::new(PolicyObjective::default()));
                waiting.push(Box::new(move || drop(pending.wait().unwrap())));
                played.calls[arm].push(Call::Accumulate(number));
                has_gradient[arm] = true;
            }
            Action::Step { arm } => {
                let pending = trainers[arm].optim_step(step());
                if std::mem::take(&mut has_gradient[arm]) {
                    waiting
                        .push(Box::new(move || assert!(pending.wait().unwrap().grad_norm > 0.0)));
                    played.calls[arm].push(Call::Step);
                } else {
                    waiting.push(Box::new(move || {
                        assert!(matches!(pending.wait(), Err(TrainError::NoGradient)))
                    }));
                }
            }
            Action::Swap { arm, follow } => {
                let next = trainers[arm].snapshot().wait().unwrap();
                let transition = if follow { Transition::Follow } else { Transition::Finish };
                client.publish(NAMES[arm], next.clone(), transition);
                let old = std::mem::replace(&mut published[arm], next);
                if follow {
                    let theirs = |s: &&mut Sent| {
                        s.follows || s.request.policy.as_ref().is_some_and(|p| p.is(&old))
                    };
                    played.sent.iter_mut().filter(theirs).for_each(|sent| sent.follows = true);
                }
            }
        }
    }

    waiting.into_iter().for_each(|wait| wait());
    for trainer in &trainers {
        played.adapters.push(trainer.call(|trainer| Ok(parameters(trainer))).wait().unwrap());
    }
    sampling.shut_down();
    training.shut_down();
    assert_eq!(client.pending(), 0);
    played
}

fn parameters(trainer: &Trainer) -> Vec<(String, Tensor)> {
    trainer
        .adapter()
        .parameters()
        .into_iter()
        .map(|(name, leaf)| (name, leaf.detach().copy()))
        .collect()
}

/// The same calls without threads.
fn replay(model: &Arc<Decoder>, arm: usize, calls: &[Call]) -> Vec<(String, Tensor)> {
    let mut trainer = Trainer::new(model.clone(), &lora(arm), config(), arm as u64).unwrap();
    for call in calls {
        match call {
            Call::Accumulate(number) => {
                trainer.forward_backward(&datums(*number), &PolicyObjective::default()).unwrap();
            }
            Call::Step => {
                trainer.optim_step(&step()).unwrap();
            }
        }
    }
    parameters(&trainer)
}

fn alone(model: &Arc<Decoder>, request: &Request) -> Vec<Completion> {
    let mut engine = Engine::new(model.clone(), None, EngineConfig::default()).unwrap();
    engine.submit(request.clone());
    let mut completions = vec![None; request.samples];
    engine.run(|outcome| completions[outcome.sample] = Some(outcome.result.unwrap())).unwrap();
    completions.into_iter().map(Option::unwrap).collect()
}

fn check_samples(model: &Arc<Decoder>, sent: Sent) {
    let expected = alone(model, &sent.request);
    let own = sent.request.policy.as_ref().map_or(0, |policy| policy.version);
    let outcomes = sent.stream.wait();
    assert_eq!(outcomes.len(), sent.request.samples, "a sample is lost");
    for (outcome, expected) in outcomes.into_iter().zip(expected) {
        match outcome.result {
            Err(error) => assert!(sent.cancelled && error == RequestError::Cancelled, "{error}"),
            // A policy that follows another of the same version is the same policy.
            Ok(completion) => {
                let same =
                    completion.token_versions.iter().take_while(|version| **version == own).count();
                assert!(sent.follows || same == completion.tokens.len());
                assert!(completion.token_versions.is_sorted());
                assert_eq!(completion.tokens[..same], expected.tokens[..same]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn any_interleaving_gives_the_numbers_of_the_same_calls_without_threads(
        actions in actions(),
        workers in 1usize..3,
        max_rows in 2usize..12,
        share_passes in any::<bool>(),
    ) {
        let model = model();
        let played = play(&model, &actions, workers, max_rows, share_passes);
        for (arm, adapter) in played.adapters.iter().enumerate() {
            for ((name, ours), (_, theirs)) in adapter.iter().zip(replay(&model, arm, &played.calls[arm])) {
                let off = (ours - &theirs).abs().max().double_value(&[]);
                let as_good = if share_passes { off < 1e-4 } else { *ours == theirs };
                prop_assert!(as_good, "{} of {}: off by {}", name, NAMES[arm], off);
            }
        }
        played.sent.into_iter().for_each(|sent| check_samples(&model, sent));
    }
}

/// What the process holds, in bytes, pages of files left out; `None` where the system does not
/// tell.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
}

#[test]
fn memory_does_not_grow_with_what_has_been_done() {
    let model = model();
    let rounds = |count: u64| {
        for round in 0..count {
            let numbers = round * 3..round * 3 + 3;
            let sample = numbers
                .clone()
                .map(|number| Action::Sample { number, arm: Some(number as usize % 2) });
            let train = numbers.flat_map(|number| {
                let arm = number as usize % 2;
                [
                    Action::Accumulate { number, arm },
                    Action::Step { arm },
                    Action::Swap { arm, follow: true },
                ]
            });
            let actions: Vec<_> = sample.chain(train).collect();
            play(&model, &actions, 2, 8, round % 2 == 0)
                .sent
                .into_iter()
                .for_each(|sent| drop(sent.stream.wait()));
        }
    };
    rounds(60);
    let Some(before) = resident() else {
        println!("skipped: this system does not tell what a process holds");
        return;
    };
    rounds(300);
    let grown = resident().unwrap().saturating_sub(before);
    assert!(grown < 24 << 20, "{} MiB more after 300 rounds", grown >> 20);
}

/// The calls before and after one that fails are as if it had not been made.
#[test]
fn an_error_is_its_calls_alone() {
    let model = model();
    let service = TrainingService::start(model.clone()).unwrap();
    let client = service.create(&lora(0), config(), 0).unwrap();
    let good = || client.forward_backward(datums(1), Arc::new(PolicyObjective::default()));
    let mut pending: Vec<Pending<_>> = vec![good()];
    for wrong in ["panic", "nan"] {
        pending.push(
            client.forward_backward(datums(2), Arc::new(Wrong { how: wrong, scope: Scope::Batch })),
        );
    }
    pending.push(client.forward_backward(
        vec![Datum::completion(&[1], &[9999])],
        Arc::new(PolicyObjective::default()),
    ));
    let step = client.optim_step(step());
    let results: Vec<_> = pending.into_iter().map(Pending::wait).collect();
    assert!(results[0].is_ok());
    let error = |place: usize| results[place].as_ref().err().unwrap().to_string();
    assert!(error(1).contains("a user's loss panicked"), "{}", error(1));
    assert!(error(2).contains("finite"), "{}", error(2));
    assert!(error(3).contains("9999"), "{}", error(3));
    step.wait().unwrap();

    let trained = client.call(|trainer| Ok(parameters(trainer))).wait().unwrap();
    for ((name, ours), (_, theirs)) in
        trained.iter().zip(replay(&model, 0, &[Call::Accumulate(1), Call::Step]))
    {
        assert_eq!(ours, &theirs, "{name}");
    }
}

#[test]
fn sixty_four_clients_on_threads_train_each_its_own() {
    let model = model();
    let service = TrainingService::start(model.clone()).unwrap();
    // A thread is born with what another test's service has last set, and a sum that is divided
    // otherwise is rounded otherwise.
    let threads = tch::get_num_threads();
    std::thread::scope(|scope| {
        for number in 0..64u64 {
            let client = service.create(&lora(0), config(), 0).unwrap();
            let model = model.clone();
            scope.spawn(move || {
                posttrain_kernel::set_threads(threads);
                for round in 0..3 {
                    drop(client.forward_backward(
                        datums(number + round),
                        Arc::new(PolicyObjective::default()),
                    ));
                    drop(client.optim_step(step()));
                }
                let ours = client.call(|trainer| Ok(parameters(trainer))).wait().unwrap();
                let calls: Vec<Call> = (0..3)
                    .flat_map(|round| [Call::Accumulate(number + round), Call::Step])
                    .collect();
                for ((name, ours), (_, theirs)) in ours.iter().zip(replay(&model, 0, &calls)) {
                    assert_eq!(ours, &theirs, "{name} of client {number}");
                }
            });
        }
    });
    // Trainers end with their clients.
    assert_eq!(service.trainers(), 0);
}

#[test]
fn what_was_called_for_is_done_before_the_service_ends() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let service = TrainingService::start(model).unwrap();
    let client = service.create(&lora(0), config(), 0).unwrap();
    drop(client.forward_backward(datums(1), Arc::new(PolicyObjective::default())));
    let step = client.optim_step(step());
    let saved = client.save_state(dir.path().join("state"));
    service.shut_down();
    step.wait().unwrap();
    saved.wait().unwrap();
    assert!(dir.path().join("state/trainer.json").is_file());
    assert!(matches!(client.snapshot().wait(), Err(TrainError::ServiceClosed)));
}

#[test]
fn a_client_that_never_waits_is_refused_and_loses_nothing_that_was_taken() {
    let service = TrainingService::with_config(model(), of_queue(3)).unwrap();
    let client = service.create(&lora(0), config(), 7).unwrap();

    // The first call holds the thread until it is told to go on.
    let (go, held) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let first = client.call(move |_| {
        begun.send(()).unwrap();
        Ok(held.recv().is_ok())
    });
    has_begun.recv().unwrap();
    let queued: Vec<_> = (0..3).map(|call| client.call(move |_| Ok(call))).collect();
    let refused = client.call(|_| Ok(()));
    // At once: the thread is held, and whoever was taken would wait for ever.
    let refused = refused.now_or_never();
    assert!(matches!(refused, Some(Err(TrainError::QueueFull { queued: 3 }))));

    go.send(()).unwrap();
    assert!(first.wait().unwrap());
    let done: Vec<i32> = queued.into_iter().map(|call| call.wait().unwrap()).collect();
    assert_eq!(done, [0, 1, 2]);
    assert_eq!(client.call(|_| Ok(4)).wait().unwrap(), 4);

    let error = TrainingService::with_config(model(), of_queue(0));
    assert!(error.err().unwrap().to_string().contains("`max_queued` must be at least 1"));
}
