//! The primitives' promises, on a small random model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::LoraConfig;
use posttrain_loss::PolicyObjective;
use posttrain_model::{Decoder, ModelConfig};
use posttrain_train::{DeadGroups, Trainer, TrainerConfig, TrainingBatch, TrainingCompletion, TrainingGroup};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn model() -> Decoder {
    let config = ModelConfig { num_hidden_layers: 2, ..ModelConfig::tiny() };
    Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap()
}

fn trainer(model: &Decoder, micro_batch_tokens: usize) -> Trainer<'_> {
    let config = TrainerConfig { micro_batch_tokens, ..TrainerConfig::default() };
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model, &lora, config, 5).unwrap();
    // A step away from the start, where B is zero and A has no gradient.
    trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &PolicyObjective::default()).unwrap();
    trainer.optim_step(1e-2).unwrap();
    trainer
}

/// Groups of (prompt tokens, completion lengths) with alternating advantages.
fn batch(shapes: &[(usize, Vec<usize>)]) -> TrainingBatch {
    let token = |i: usize| ((i * 7 + 3) % 64) as i64;
    let completion = |g: usize, c: usize, length: usize| TrainingCompletion {
        tokens: (0..length).map(|t| token(t * 5 + c * 11 + g)).collect(),
        sampling_logprobs: vec![-4.1; length],
        advantage: if c.is_multiple_of(2) { 1.0 } else { -0.7 },
        recording: None,
    };
    let group = |(g, (prompt, lengths)): (usize, &(usize, Vec<usize>))| TrainingGroup {
        prompt: (0..*prompt).map(|i| token(i + g)).collect(),
        completions: lengths.iter().enumerate().map(|(c, &l)| completion(g, c, l)).collect(),
    };
    TrainingBatch::new(shapes.iter().enumerate().map(group).collect()).unwrap()
}

fn gradients(trainer: &mut Trainer, batch: &TrainingBatch) -> Vec<Tensor> {
    trainer.forward_backward(batch, &PolicyObjective::default()).unwrap();
    trainer.adapter().parameters().into_iter().map(|(_, p)| p.grad().copy()).collect()
}

fn relative_difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    let largest = |t: &[Tensor]| t.iter().map(|t| t.abs().max().double_value(&[])).fold(0.0, f64::max);
    let differences: Vec<Tensor> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    largest(&differences) / largest(a)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// k micro-batches, with prompts shared within each, give the gradient of one; so does every completion on its own.
    #[test]
    fn any_cut_gives_the_same_gradient(
        shapes in prop::collection::vec((1usize..6, prop::collection::vec(1usize..6, 1..4)), 1..4),
        budget in 1usize..40,
    ) {
        let (model, batch) = (model(), batch(&shapes));
        let whole = gradients(&mut trainer(&model, 100_000), &batch);
        let cut = gradients(&mut trainer(&model, budget), &batch);
        prop_assert!(relative_difference(&whole, &cut) < 1e-4);
        let groups = batch.groups().iter();
        let alone = groups.flat_map(|g| g.completions.iter().map(|c| TrainingGroup { prompt: g.prompt.clone(), completions: vec![c.clone()] }));
        let alone = TrainingBatch::new(alone.collect()).unwrap();
        let unshared = gradients(&mut trainer(&model, 100_000), &alone);
        prop_assert!(relative_difference(&whole, &unshared) < 1e-4);
    }
}

#[test]
fn skipping_what_has_no_advantage_changes_no_gradient() {
    let model = model();
    let mut groups = batch(&[(3, vec![4, 2]), (2, vec![3, 3])]).groups().to_vec();
    groups[1].completions.iter_mut().for_each(|c| c.advantage = 0.0);
    let batch = TrainingBatch::new(groups).unwrap();
    let with = |dead_groups| {
        let config = TrainerConfig { dead_groups, ..TrainerConfig::default() };
        let mut trainer = Trainer::new(&model, &LoraConfig { rank: 4, ..LoraConfig::default() }, config, 5).unwrap();
        let outcome = trainer.forward_backward(&batch, &PolicyObjective::default()).unwrap();
        let gradients: Vec<_> = trainer.adapter().parameters().iter().map(|(_, p)| p.grad().copy()).collect();
        (outcome.metrics.tokens, gradients)
    };
    let ((skipped, a), (computed, b)) = (with(DeadGroups::Skip), with(DeadGroups::Compute));
    assert_eq!((skipped, computed), (6, 12));
    assert!(relative_difference(&a, &b) < 1e-5);
}

#[test]
fn a_positive_advantage_makes_its_completion_likelier() {
    let model = model();
    let mut trainer = trainer(&model, 4096);
    let batch = batch(&[(3, vec![4, 4])]);
    let texts: Vec<Vec<i64>> = batch.groups()[0]
        .completions
        .iter()
        .map(|c| [batch.groups()[0].prompt.clone(), c.tokens.clone()].concat())
        .collect();
    let total = |trainer: &Trainer| -> Vec<f32> {
        let view = trainer.adapter().snapshot(Kind::Float).unwrap();
        let scores = posttrain_train::score_texts(&model, Some(&view), &texts).unwrap();
        scores.iter().map(|s| s.logprobs[2..].iter().sum()).collect()
    };
    let before = total(&trainer);
    for _ in 0..5 {
        trainer.forward_backward(&batch, &PolicyObjective::default()).unwrap();
        trainer.optim_step(1e-2).unwrap();
    }
    let after = total(&trainer);
    assert!(after[0] > before[0] && after[1] < before[1], "{before:?} {after:?}");
}

#[test]
fn a_loaded_state_goes_on_to_the_same_numbers() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let batches: Vec<_> = (1..5).map(|n| batch(&[(n, vec![n + 1, 3]), (2, vec![1, n])])).collect();
    let train = |trainer: &mut Trainer, batches: &[TrainingBatch]| {
        for batch in batches {
            trainer.forward_backward(batch, &PolicyObjective::default()).unwrap();
            trainer.optim_step(1e-2).unwrap();
        }
    };
    let mut whole = trainer(&model, 4096);
    train(&mut whole, &batches[..2]);
    whole.save_state(dir.path()).unwrap();
    train(&mut whole, &batches[2..]);

    let mut resumed = trainer(&model, 4096);
    resumed.load_state(dir.path()).unwrap();
    train(&mut resumed, &batches[2..]);
    assert_eq!(resumed.policy_version(), whole.policy_version());
    for ((name, a), (_, b)) in whole.adapter().parameters().iter().zip(resumed.adapter().parameters()) {
        assert_eq!(a, &b, "{name}");
    }
    let other = LoraConfig { rank: 8, ..LoraConfig::default() };
    let mut other = Trainer::new(&model, &other, TrainerConfig::default(), 5).unwrap();
    assert!(other.load_state(dir.path()).unwrap_err().to_string().contains("another rank"));
}

#[test]
fn a_gradient_that_is_not_a_number_takes_no_step() {
    let model = model();
    let mut trainer = trainer(&model, 4096);
    assert!(trainer.optim_step(1.0).unwrap_err().to_string().contains("no gradient"));
    let before: Vec<_> = trainer.adapter().parameters().iter().map(|(_, p)| p.detach().copy()).collect();
    trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &PolicyObjective::default()).unwrap();
    let (_, first) = &trainer.adapter().parameters()[0];
    let _ = tch::no_grad(|| first.grad().fill_(f64::NAN));
    assert!(trainer.optim_step(1.0).unwrap_err().to_string().contains("NaN"));
    for (kept, (name, now)) in before.iter().zip(trainer.adapter().parameters()) {
        assert_eq!(kept, &now.detach(), "{name}");
    }
}

#[test]
fn batches_that_do_not_fit_together_are_named() {
    let completion =
        TrainingCompletion { tokens: vec![1, 2], sampling_logprobs: vec![-1.0], advantage: 0.0, recording: None };
    let group = TrainingGroup { prompt: vec![1], completions: vec![completion] };
    let error = TrainingBatch::new(vec![group]).unwrap_err().to_string();
    assert!(error.contains("completion 0 of group 0") && error.contains("2 tokens and 1"), "{error}");
}
