//! Adapters of rank 8, 32 and 128 with different targets on one base, trained interleaved: each is
//! what it is alone, to the last bit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{LoraConfig, TargetModules};
use posttrain_loss::PolicyObjective;
use posttrain_model::{Decoder, ModelConfig};
use posttrain_train::{Datum, Trainer, TrainerConfig};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

fn loras() -> [LoraConfig; 3] {
    let names =
        |names: &[&str]| TargetModules::Names(names.iter().map(ToString::to_string).collect());
    [
        LoraConfig {
            rank: 8,
            alpha: 16.0,
            target_modules: names(&["q_proj", "v_proj"]),
            ..LoraConfig::default()
        },
        LoraConfig { rank: 32, dropout: 0.2, ..LoraConfig::default() },
        LoraConfig {
            rank: 128,
            use_rslora: true,
            target_modules: names(&["down_proj"]),
            ..LoraConfig::default()
        },
    ]
}

fn datums(arm: usize, step: usize) -> Vec<Datum> {
    let token = |place: usize| ((arm * 13 + step * 5 + place * 7) % 63) as i64 + 1;
    let completion = |start: usize, advantage: f32| {
        let tokens: Vec<i64> = (start..start + 6).map(token).collect();
        let prompt: Vec<i64> = (0..4).map(token).collect();
        Datum::completion(&prompt, &tokens)
            .with_sampling_logprobs(vec![-4.1; 6])
            .with_advantage(advantage)
    };
    vec![completion(1, 1.0), completion(9, -0.4), completion(20, 0.3)]
}

fn step(trainer: &mut Trainer, arm: usize, step: usize) {
    trainer.forward_backward(&datums(arm, step), &PolicyObjective::default()).unwrap();
    let params = trainer.adam_params(1e-2 / (arm + 1) as f64);
    trainer.optim_step(&params).unwrap();
}

fn parameters(trainer: &Trainer) -> Vec<(String, Tensor)> {
    trainer
        .adapter()
        .parameters()
        .into_iter()
        .map(|(name, leaf)| (name, leaf.detach().copy()))
        .collect()
}

#[test]
fn adapters_that_are_trained_interleaved_are_each_as_alone() {
    let config = ModelConfig { num_hidden_layers: 2, ..ModelConfig::tiny() };
    let model = Arc::new(Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap());
    let trainer = |arm: usize| {
        Trainer::new(model.clone(), &loras()[arm], TrainerConfig::default(), arm as u64).unwrap()
    };

    let alone: Vec<_> = (0..3)
        .map(|arm| {
            let mut trainer = trainer(arm);
            (0..5).for_each(|number| step(&mut trainer, arm, number));
            parameters(&trainer)
        })
        .collect();

    let mut together: Vec<Trainer> = (0..3).map(trainer).collect();
    for number in 0..5 {
        for arm in [2, 0, 1] {
            step(&mut together[arm], arm, number);
        }
        // One more comes and goes while the others train.
        let mut passing = trainer(number % 3);
        step(&mut passing, 1, number);
    }
    for (arm, alone) in alone.iter().enumerate() {
        assert!(
            alone.iter().any(
                |(name, value)| name.contains("lora_B") && value.norm().double_value(&[]) > 0.0
            )
        );
        for ((name, alone), (_, together)) in alone.iter().zip(parameters(&together[arm])) {
            assert_eq!(alone, &together, "{name} of rank {}", loras()[arm].rank);
        }
    }
}
