//! Several ranks make one trainer's steps: the same scores, the same gradient, the same policy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_collective::{Collective, Threads};
use posttrain_lora::LoraConfig;
use posttrain_loss::preference::Dpo;
use posttrain_loss::{
    Aggregation, CrossEntropy, LossBatch, LossError, LossOutcome, Objective, PolicyObjective,
    Scope, StepTotals,
};
use posttrain_model::{Decoder, ModelConfig};
use posttrain_train::{Datum, TrainError, Trainer, TrainerConfig};
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

fn model() -> Arc<Decoder> {
    let config = ModelConfig { num_hidden_layers: 2, ..ModelConfig::tiny() };
    Arc::new(Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap())
}

fn trainer(seed: u64) -> Trainer {
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    Trainer::new(model(), &lora, TrainerConfig::default(), seed).unwrap()
}

/// Groups of (prompt tokens, completion lengths, whether their advantages differ).
fn batch(shapes: &[(usize, &[usize], bool)]) -> Vec<Datum> {
    let token = |i: usize| ((i * 7 + 3) % 64) as i64;
    let mut datums = Vec::new();
    for (g, (prompt, lengths, alive)) in shapes.iter().enumerate() {
        let prompt: Vec<i64> = (0..*prompt).map(|i| token(i + 3 * g)).collect();
        for (c, &length) in lengths.iter().enumerate() {
            let tokens: Vec<i64> = (0..length).map(|t| token(t * 5 + c * 11 + g)).collect();
            let advantage = if c.is_multiple_of(2) { 1.0 } else { -0.7 };
            let logprobs = (0..length).map(|t| -3.9 - 0.1 * (t + c) as f32).collect();
            let datum = Datum::completion(&prompt, &tokens).with_sampling_logprobs(logprobs);
            datums.push(datum.with_advantage(if *alive { advantage } else { 0.0 }));
        }
    }
    datums
}

/// What a few steps came to.
#[derive(Debug)]
struct Came {
    losses: Vec<f64>,
    norms: Vec<f64>,
    logprobs: Vec<Vec<f32>>,
    tokens: Vec<usize>,
    adapter: Vec<Tensor>,
}

fn steps(mut trainer: Trainer, datums: &[Datum], objective: &dyn Objective) -> Came {
    let mut came = Came {
        losses: Vec::new(),
        norms: Vec::new(),
        logprobs: Vec::new(),
        tokens: Vec::new(),
        adapter: Vec::new(),
    };
    for _ in 0..3 {
        let passes = trainer.forward_backward(datums, objective).unwrap();
        came.losses.push(passes.loss());
        came.tokens.push(passes.computed_tokens);
        let params = trainer.adam_params(1e-3);
        came.norms.push(trainer.optim_step(&params).unwrap().grad_norm);
    }
    came.logprobs = trainer.forward(datums).unwrap().logprobs;
    came.adapter = trainer.adapter().parameters().into_iter().map(|(_, p)| p.copy()).collect();
    came
}

/// The same on so many ranks, each a thread with a model of its own.
fn on_ranks(size: usize, datums: &[Datum], objective: &(dyn Objective + Sync)) -> Vec<Came> {
    std::thread::scope(|scope| {
        let work = |rank: Threads| {
            let ranks = rank.channel("training").unwrap();
            steps(trainer(5).with_ranks(ranks).unwrap(), datums, objective)
        };
        let ranks = Threads::of(size, Duration::from_secs(60));
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn close(one: f64, other: f64, within: f64) -> bool {
    (one - other).abs() <= within * one.abs().max(other.abs()).max(1e-9)
}

fn check(datums: &[Datum], objective: &(dyn Objective + Sync)) {
    let alone = steps(trainer(5), datums, objective);
    for size in [2, 3, 5] {
        let all = on_ranks(size, datums, objective);
        for came in &all {
            for (one, other) in alone.losses.iter().zip(&came.losses) {
                assert!(close(*one, *other, 1e-6), "{size} ranks: loss {one} and {other}");
            }
            for (one, other) in alone.norms.iter().zip(&came.norms) {
                assert!(close(*one, *other, 1e-6), "{size} ranks: norm {one} and {other}");
            }
            let (ours, theirs) = (alone.logprobs.concat(), came.logprobs.concat());
            assert_eq!(ours.len(), theirs.len());
            assert!(ours.iter().zip(&theirs).all(|(one, other)| (one - other).abs() < 1e-4));
            assert_eq!(alone.logprobs.len(), came.logprobs.len());
            // All ranks are one policy to the last bit, and all tell of the whole step.
            assert_eq!(came.tokens, all[0].tokens);
            assert!(came.adapter.iter().zip(&all[0].adapter).all(|(one, other)| one.equal(other)));
        }
    }
}

const SHAPES: [(usize, &[usize], bool); 5] = [
    (4, &[3, 5, 2, 2], true),
    (2, &[6, 1, 4, 3], false),
    (7, &[2, 2, 2, 9], true),
    (3, &[1, 1, 5, 2], true),
    (3, &[8, 1, 1, 2], false),
];

#[test]
fn a_policy_loss_is_one_trainers() {
    check(&batch(&SHAPES), &PolicyObjective::default());
    let mean = Aggregation::SequenceMean {};
    check(&batch(&SHAPES), &PolicyObjective { aggregation: mean, ..PolicyObjective::default() });
}

/// One prompt for all ranks, and a batch in which most of them have nothing to learn from.
#[test]
fn some_ranks_may_have_nothing() {
    check(&batch(&SHAPES[..1]), &PolicyObjective::default());
    check(&batch(&[SHAPES[1], SHAPES[4], SHAPES[0]]), &PolicyObjective::default());
    check(&batch(&[(4, &[3], true)]), &PolicyObjective::default());
}

#[test]
fn pairs_stay_together_and_texts_are_divided() {
    check(&batch(&SHAPES), &Dpo::default());
    check(&batch(&SHAPES), &CrossEntropy::default());
}

/// `(Σ logprob)² / 100`: its gradient needs all of the batch.
struct Square;

impl Objective for Square {
    fn validate(&self) -> Result<(), LossError> {
        Ok(())
    }

    fn scope(&self) -> Scope {
        Scope::Batch
    }

    fn denominator(&self, _: &StepTotals) -> f64 {
        1.0
    }

    fn evaluate(
        &self,
        _: &LossBatch,
        logprobs: &[f32],
        _: Option<&[f32]>,
        _: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        let sum: f64 = logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
        let gradient = vec![(sum / 50.0) as f32; logprobs.len()];
        Ok(LossOutcome::new(sum * sum / 100.0, 1.0, gradient))
    }
}

#[test]
fn an_objective_of_the_whole_batch_is_one_trainers() {
    check(&batch(&SHAPES), &Square);
}

/// A policy loss that has no gradient for completions of nine tokens, which one group has.
struct NoNine;

impl Objective for NoNine {
    fn validate(&self) -> Result<(), LossError> {
        Ok(())
    }

    fn scope(&self) -> Scope {
        Scope::Sequence
    }

    fn denominator(&self, _: &StepTotals) -> f64 {
        1.0
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        _: Option<&[f32]>,
        _: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        let nine = batch.sequence_lengths.contains(&9);
        let entries = if nine { 0 } else { logprobs.len() };
        Ok(LossOutcome::new(0.0, 1.0, vec![0.1; entries]))
    }
}

#[test]
fn other_adapters_and_a_rank_that_fails_are_named() {
    std::thread::scope(|scope| {
        for rank in Threads::of(2, Duration::from_secs(60)) {
            scope.spawn(move || {
                let own = rank.rank() as u64;
                let other = trainer(own).with_ranks(rank.channel("others").unwrap());
                let error = other.unwrap_err().to_string();
                assert!(error.contains("rank 1 differs from rank 0 in its adapter"), "{error}");

                let mut same = trainer(5).with_ranks(rank.channel("same").unwrap()).unwrap();
                // Rank 1's own share has what the objective refuses.
                let error = same.forward_backward(&batch(&SHAPES), &NoNine).unwrap_err();
                match own {
                    0 => assert!(
                        matches!(&error, TrainError::Collective(_))
                            && error.to_string().contains("rank 1 failed"),
                        "{error}"
                    ),
                    _ => assert!(!matches!(&error, TrainError::Collective(_)), "{error}"),
                }
                // Nothing is left of it, on any rank, and they go on.
                assert!(!same.adapter().has_gradients().unwrap());
                assert!(
                    same.forward_backward(&batch(&SHAPES), &PolicyObjective::default()).is_ok()
                );
            });
        }
    });
}
