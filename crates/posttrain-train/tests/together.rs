//! Batches of several trainers in the same passes: each gets what it gets alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_lora::{LoraConfig, TargetModules};
use posttrain_loss::preference::Dpo;
use posttrain_loss::{CrossEntropy, Objective, PolicyObjective, Scope};
use posttrain_model::{Decoder, ExpertsConfig, ModelConfig};
use posttrain_train::{
    Datum, ForwardBackward, GradientCheckpointing, TrainError, Trainer, TrainerCall, TrainerConfig,
    TrainingService, TrainingServiceConfig, Workers, forward_backward_together,
};
use std::sync::{Arc, mpsc};
use support::Wrong;
use tch::{Device, Kind};

fn model(config: &ModelConfig) -> Arc<Decoder> {
    Arc::new(Decoder::random(config, 3, Kind::Float, Device::Cpu).unwrap())
}

/// A router sends each trainer's rows to some of the experts.
fn with_experts() -> ModelConfig {
    let experts = ExpertsConfig {
        count: 5,
        a_token: 2,
        intermediate_size: 16,
        normalized: true,
        layers: vec![0, 1],
    };
    ModelConfig { experts: Some(experts), ..ModelConfig::tiny() }
}

/// Adapters that have little in common: the last ones drop, or adapt the head.
fn lora(number: i64) -> LoraConfig {
    let names =
        |names: &[&str]| TargetModules::Names(names.iter().map(ToString::to_string).collect());
    match number % 4 {
        0 => LoraConfig { rank: 2, alpha: 8.0, ..LoraConfig::default() },
        1 => LoraConfig {
            rank: 5,
            target_modules: names(&["q_proj", "down_proj"]),
            ..LoraConfig::default()
        },
        2 => LoraConfig { rank: 3, dropout: 0.25, ..LoraConfig::default() },
        _ => LoraConfig {
            rank: 4,
            target_modules: names(&["k_proj", "lm_head"]),
            ..LoraConfig::default()
        },
    }
}

/// Groups of two completions of a prompt, in training at a temperature of their own; the third
/// trainer's have two targets a position.
fn datums(number: i64, groups: i64) -> Vec<Datum> {
    let token = |place: i64| (number * 7 + place * 11) % 63 + 1;
    let completion = |group: i64, start: i64| {
        let length = 2 + number % 3;
        let tokens: Vec<i64> = (start..start + length).map(|place| token(place + group)).collect();
        if number == 2 {
            let targets = tokens.iter().flat_map(|token| [*token, 5]).collect();
            return Datum::with_targets(tokens, targets, 2);
        }
        Datum::completion(&[token(group), 5, 6], &tokens)
            .with_temperature(if number == 1 { 0.7 } else { 1.0 })
            .with_sampling_logprobs(vec![-4.1; tokens.len()])
            .with_advantage(if start == 1 { 1.0 } else { -0.5 })
    };
    (0..groups).flat_map(|group| [completion(group, 1), completion(group, 4)]).collect()
}

/// Policy losses for the even ones but the third, whose targets are no samples.
fn objective(number: i64) -> Arc<dyn Objective> {
    match number {
        0 | 4 => Arc::new(PolicyObjective::default()),
        _ => Arc::new(CrossEntropy::default()),
    }
}

fn trainer(model: &Arc<Decoder>, number: i64, config: TrainerConfig) -> Trainer {
    let mut trainer = Trainer::new(model.clone(), &lora(number), config, number as u64).unwrap();
    // So that B is not zero any more, and every gradient is something.
    trainer.forward_backward(&datums(number, 1), &*objective(number)).unwrap();
    trainer.optim_step(&trainer.adam_params(1e-1)).unwrap();
    trainer
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * other.abs().max(1e-3)
}

fn assert_alike(name: &str, one: &ForwardBackward, other: &ForwardBackward) {
    assert!(near(one.loss_sum, other.loss_sum), "{name}: {} {}", one.loss_sum, other.loss_sum);
    assert_eq!(one.denominator, other.denominator, "{name}");
    assert_eq!(one.computed_tokens, other.computed_tokens, "{name}");
    let (ours, theirs) = (one.scores.logprobs.concat(), other.scores.logprobs.concat());
    assert_eq!(ours.len(), theirs.len(), "{name}");
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4), "{name}");
}

/// The gradients of two trainers, tensor by tensor.
fn assert_same_gradients(name: &str, one: &Trainer, other: &Trainer) {
    let (ours, theirs) = (one.adapter().gradients().unwrap(), other.adapter().gradients().unwrap());
    let mut some = 0;
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours.is_some(), theirs.is_some(), "{name}, tensor {index}");
        let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
        let off = (ours - theirs).abs().max().double_value(&[]);
        let size = theirs.abs().max().double_value(&[]);
        assert!(off <= 1e-4 * size.max(1e-3), "{name}, tensor {index}: off by {off} of {size}");
        some += usize::from(size > 0.0);
    }
    assert!(some > 0, "{name}: no gradient at all");
}

/// Makes calls together.
fn made<'a>(
    trainers: &'a mut [Trainer],
    batches: &'a [Vec<Datum>],
    objectives: &'a [Arc<dyn Objective>],
) -> Vec<Result<ForwardBackward, TrainError>> {
    let mut calls: Vec<TrainerCall> = trainers
        .iter_mut()
        .zip(batches)
        .zip(objectives)
        .map(|((trainer, datums), objective)| TrainerCall {
            trainer,
            datums,
            objective: &**objective,
        })
        .collect();
    forward_backward_together(&mut calls)
}

#[test]
fn each_gets_what_it_gets_alone() {
    let one = TrainerConfig { workers: Workers::Count(1), ..TrainerConfig::default() };
    let configs = [
        ("one pass", one, 1),
        ("several passes", TrainerConfig { micro_batch_tokens: 25, ..one }, 1),
        ("two workers", TrainerConfig { workers: Workers::Count(2), ..one }, 1),
        // Together worth two threads, alone one each.
        ("as many workers as pay", TrainerConfig { workers: Workers::Auto, ..one }, 12),
        ("checkpointing", TrainerConfig { checkpointing: GradientCheckpointing::Blocks, ..one }, 1),
    ];
    for (architecture, of) in [("dense", ModelConfig::tiny()), ("experts", with_experts())] {
        let model = model(&ModelConfig { tie_word_embeddings: false, ..of });
        for (name, config, times) in configs {
            let mut trainers: Vec<Trainer> = (0..5).map(|n| trainer(&model, n, config)).collect();
            let batches: Vec<Vec<Datum>> = (0..5).map(|n| datums(n, times * (1 + n))).collect();
            let objectives: Vec<Arc<dyn Objective>> = (0..5).map(objective).collect();
            let outcomes = made(&mut trainers, &batches, &objectives);

            for (n, outcome) in outcomes.into_iter().enumerate() {
                let name = format!("{architecture}, {name}, trainer {n}");
                let mut alone = trainer(&model, n as i64, config);
                let expected = alone.forward_backward(&batches[n], &*objectives[n]).unwrap();
                assert_alike(&name, &outcome.unwrap(), &expected);
                assert_same_gradients(&name, &trainers[n], &alone);
            }
        }
    }
}

fn is_its_own(wrong: &str, error: &TrainError) -> bool {
    match wrong {
        "datum" => matches!(error, TrainError::Datum { index: 1, .. }),
        "not finite" => matches!(error, TrainError::Loss(_)),
        _ => matches!(error, TrainError::Panicked { reason } if reason.contains("panicked")),
    }
}

#[test]
fn who_fails_fails_alone() {
    let model = model(&ModelConfig::tiny());
    let config = TrainerConfig::default();
    for wrong in ["datum", "not finite", "panic", "scope"] {
        let mut trainers: Vec<Trainer> = (0..3).map(|n| trainer(&model, n, config)).collect();
        let mut batches: Vec<Vec<Datum>> = (0..3).map(|n| datums(n, 2)).collect();
        let mut objectives: Vec<Arc<dyn Objective>> = (0..3).map(objective).collect();
        match wrong {
            "datum" => batches[1][1].targets[0] = 64,
            _ => objectives[1] = Arc::new(Wrong { how: wrong, scope: Scope::Sequence }),
        }
        let outcomes = made(&mut trainers, &batches, &objectives);
        let error = outcomes[1].as_ref().unwrap_err();
        assert!(is_its_own(wrong, error), "{wrong}: {error}");

        for n in [0, 2] {
            let mut alone = trainer(&model, n as i64, config);
            let expected = alone.forward_backward(&batches[n], &*objectives[n]).unwrap();
            assert_alike(wrong, outcomes[n].as_ref().unwrap(), &expected);
            assert_same_gradients(wrong, &trainers[n], &alone);
        }
        let step = trainers[1].optim_step(&config.adam_params(1e-3));
        assert!(matches!(step, Err(TrainError::NoGradient)), "{wrong}: {step:?}");
    }
}

/// A service whose trainers share passes.
fn sharing(model: &Arc<Decoder>) -> TrainingService {
    let config = TrainingServiceConfig { share_passes: true, ..TrainingServiceConfig::default() };
    TrainingService::with_config(model.clone(), config).unwrap()
}

/// Holds a service's thread until what it returns is dropped, so that calls come to wait.
fn hold(service: &TrainingService) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel::<()>();
    let client = service.create(&lora(0), TrainerConfig::default(), 9).unwrap();
    drop(client.call(move |_| {
        begun.send(()).unwrap();
        let _ = held.recv();
        Ok(())
    }));
    begins.recv().unwrap();
    release
}

#[test]
fn waiting_calls_share_a_pass_and_large_ones_do_not() {
    let model = model(&ModelConfig::tiny());
    let service = sharing(&model);
    let config = TrainerConfig { micro_batch_tokens: 64, ..TrainerConfig::default() };
    let numbers = [0, 1, 4, 5];
    let clients = numbers.map(|n| service.add(trainer(&model, n, config)).unwrap());
    // The last one's passes are more than a micro-batch by themselves.
    let batches = numbers.map(|n| datums(n, if n == 5 { 8 } else { 1 }));

    let release = hold(&service);
    let pending: Vec<_> = clients
        .iter()
        .zip(&batches)
        .map(|(client, batch)| client.forward_backward(batch.clone(), objective(0)))
        .collect();
    drop(release);
    for ((n, client), (pending, batch)) in
        numbers.into_iter().zip(&clients).zip(pending.into_iter().zip(&batches))
    {
        let mut alone = trainer(&model, n, config);
        let expected = alone.forward_backward(batch, &*objective(0)).unwrap();
        assert_alike(&format!("trainer {n}"), &pending.wait().unwrap(), &expected);
        let step = client.optim_step(config.adam_params(1e-3)).wait().unwrap();
        let expected = alone.optim_step(&config.adam_params(1e-3)).unwrap();
        assert!(near(step.grad_norm, expected.grad_norm), "{step:?} {expected:?}");
    }
    assert_eq!(service.shared_calls(), 3);
}

#[test]
fn a_service_outlives_whoever_goes_wrong_beside_others() {
    let model = model(&ModelConfig::tiny());
    let service = sharing(&model);
    let config = TrainerConfig::default();
    let clients = [0, 1, 4].map(|n| service.add(trainer(&model, n, config)).unwrap());
    for wrong in ["not finite", "panic", "scope"] {
        let release = hold(&service);
        let losses: [Arc<dyn Objective>; 3] =
            [objective(0), Arc::new(Wrong { how: wrong, scope: Scope::Sequence }), objective(0)];
        let pending: Vec<_> = clients
            .iter()
            .zip(losses)
            .map(|(client, loss)| client.forward_backward(datums(0, 1), loss))
            .collect();
        drop(release);
        let outcomes: Vec<_> = pending.into_iter().map(|pending| pending.wait()).collect();
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{wrong}: {outcomes:?}");
        assert!(is_its_own(wrong, outcomes[1].as_ref().unwrap_err()), "{wrong}: {outcomes:?}");
    }
    for client in &clients {
        assert!(client.forward(datums(0, 1)).wait().is_ok());
    }
}

#[test]
fn pairs_are_not_mixed_with_others() {
    let model = model(&ModelConfig::tiny());
    let config = TrainerConfig::default();
    let mut trainers: Vec<Trainer> = (0..2).map(|n| trainer(&model, n, config)).collect();
    let (pairs, others) = (datums(0, 1), datums(1, 1));
    let (dpo, cross_entropy) = (Dpo::default(), CrossEntropy::default());
    let [one, other] = trainers.as_mut_slice() else { panic!() };
    let outcomes = forward_backward_together(&mut [
        TrainerCall { trainer: one, datums: &pairs, objective: &dpo },
        TrainerCall { trainer: other, datums: &others, objective: &cross_entropy },
    ]);
    let mut alone = trainer(&model, 0, config);
    let expected = alone.forward_backward(&pairs, &dpo).unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().loss_sum, expected.loss_sum);
    assert!(outcomes[1].is_ok());
}
