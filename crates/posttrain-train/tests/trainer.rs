//! The primitives' promises, on a small random model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::LoraConfig;
use posttrain_loss::preference::Dpo;
use posttrain_loss::{
    Aggregation, CrossEntropy, LossBatch, LossError, LossOutcome, Objective, PolicyObjective,
    Scope, StepTotals,
};
use posttrain_model::{Decoder, ModelConfig};
use posttrain_optim::AdamParams;
use posttrain_train::{Datum, DeadGroups, Trainer, TrainerConfig};
use proptest::prelude::*;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

fn model() -> Arc<Decoder> {
    let config = ModelConfig { num_hidden_layers: 2, ..ModelConfig::tiny() };
    Arc::new(Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap())
}

fn step(trainer: &mut Trainer, lr: f64) {
    let params = trainer.adam_params(lr);
    trainer.optim_step(&params).unwrap();
}

fn trainer(model: &Arc<Decoder>, micro_batch_tokens: usize) -> Trainer {
    let config = TrainerConfig { micro_batch_tokens, ..TrainerConfig::default() };
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.clone(), &lora, config, 5).unwrap();
    // A step away from the start, where B is zero and A has no gradient.
    trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &PolicyObjective::default()).unwrap();
    step(&mut trainer, 1e-2);
    trainer
}

/// Groups of (prompt tokens, completion lengths) with alternating advantages.
fn batch(shapes: &[(usize, Vec<usize>)]) -> Vec<Datum> {
    let token = |i: usize| ((i * 7 + 3) % 64) as i64;
    let mut datums = Vec::new();
    for (g, (prompt, lengths)) in shapes.iter().enumerate() {
        let prompt: Vec<i64> = (0..*prompt).map(|i| token(i + g)).collect();
        for (c, &length) in lengths.iter().enumerate() {
            let tokens: Vec<i64> = (0..length).map(|t| token(t * 5 + c * 11 + g)).collect();
            let advantage = if c.is_multiple_of(2) { 1.0 } else { -0.7 };
            let datum =
                Datum::completion(&prompt, &tokens).with_sampling_logprobs(vec![-4.1; length]);
            datums.push(datum.with_advantage(advantage));
        }
    }
    datums
}

fn gradients(trainer: &mut Trainer, batch: &[Datum]) -> Vec<Tensor> {
    trainer.forward_backward(batch, &PolicyObjective::default()).unwrap();
    trainer.adapter().parameters().into_iter().map(|(_, p)| p.grad().copy()).collect()
}

fn relative_difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    let largest =
        |t: &[Tensor]| t.iter().map(|t| t.abs().max().double_value(&[])).fold(0.0, f64::max);
    let differences: Vec<Tensor> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    largest(&differences) / largest(a)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// k micro-batches, with prompts shared within each, give the gradient of one; so does every
    /// completion on its own.
    #[test]
    fn any_cut_gives_the_same_gradient(
        shapes in prop::collection::vec((1usize..6, prop::collection::vec(1usize..6, 1..4)), 1..4),
        budget in 1usize..40,
    ) {
        let (model, batch) = (model(), batch(&shapes));
        let whole = gradients(&mut trainer(&model, 100_000), &batch);
        let cut = gradients(&mut trainer(&model, budget), &batch);
        prop_assert!(relative_difference(&whole, &cut) < 1e-4);
        let alone: Vec<Datum> = batch.iter().map(|datum| datum.clone().with_shared_prefix(0)).collect();
        let unshared = gradients(&mut trainer(&model, 100_000), &alone);
        prop_assert!(relative_difference(&whole, &unshared) < 1e-4);
    }
}

#[test]
fn skipping_what_has_no_advantage_changes_no_gradient() {
    let model = model();
    let mut batch = batch(&[(3, vec![4, 2]), (2, vec![3, 3])]);
    batch[2..].iter_mut().for_each(|datum| datum.advantages = Some(vec![0.0; 3]));
    let with = |dead_groups| {
        let config = TrainerConfig { dead_groups, ..TrainerConfig::default() };
        let mut trainer = Trainer::new(
            model.clone(),
            &LoraConfig { rank: 4, ..LoraConfig::default() },
            config,
            5,
        )
        .unwrap();
        let outcome = trainer.forward_backward(&batch, &PolicyObjective::default()).unwrap();
        let gradients: Vec<_> =
            trainer.adapter().parameters().iter().map(|(_, p)| p.grad().copy()).collect();
        (outcome.metrics.policy.tokens, gradients)
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
    let total = |trainer: &Trainer| -> Vec<f32> {
        let scores = trainer.forward(&batch).unwrap();
        scores.logprobs.iter().map(|logprobs| logprobs.iter().sum()).collect()
    };
    let before = total(&trainer);
    for _ in 0..5 {
        trainer.forward_backward(&batch, &PolicyObjective::default()).unwrap();
        step(&mut trainer, 1e-2);
    }
    let after = total(&trainer);
    assert!(after[0] > before[0] && after[1] < before[1], "{before:?} {after:?}");
}

#[test]
fn a_loaded_state_goes_on_to_the_same_numbers() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let batches: Vec<_> = (1..5).map(|n| batch(&[(n, vec![n + 1, 3]), (2, vec![1, n])])).collect();
    let train = |trainer: &mut Trainer, batches: &[Vec<Datum>]| {
        for batch in batches {
            trainer.forward_backward(batch, &PolicyObjective::default()).unwrap();
            step(trainer, 1e-2);
        }
    };
    let mut whole = trainer(&model, 4096);
    train(&mut whole, &batches[..2]);
    whole.save_state(dir.path()).unwrap();
    let state = whole.state().unwrap();
    train(&mut whole, &batches[2..]);
    // A copy is of its moment, whenever it is written.
    let copied = tempfile::tempdir().unwrap();
    state.save(copied.path()).unwrap();

    for dir in [dir.path(), copied.path()] {
        let mut resumed = trainer(&model, 4096);
        resumed.load_state(dir).unwrap();
        train(&mut resumed, &batches[2..]);
        assert_eq!(resumed.policy_version(), whole.policy_version());
        for ((name, a), (_, b)) in
            whole.adapter().parameters().iter().zip(resumed.adapter().parameters())
        {
            assert_eq!(a, &b, "{name}");
        }
    }
    let other = LoraConfig { rank: 8, ..LoraConfig::default() };
    let mut other = Trainer::new(model, &other, TrainerConfig::default(), 5).unwrap();
    assert!(other.load_state(dir.path()).unwrap_err().to_string().contains("another rank"));
}

#[test]
fn a_gradient_that_is_not_a_number_takes_no_step() {
    let model = model();
    let mut trainer = trainer(&model, 4096);
    let params = trainer.adam_params(1.0);
    assert!(trainer.optim_step(&params).unwrap_err().to_string().contains("no gradient"));
    let before: Vec<_> =
        trainer.adapter().parameters().iter().map(|(_, p)| p.detach().copy()).collect();
    trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &PolicyObjective::default()).unwrap();
    let (_, first) = &trainer.adapter().parameters()[0];
    let _ = tch::no_grad(|| first.grad().fill_(f64::NAN));
    assert!(trainer.optim_step(&params).unwrap_err().to_string().contains("NaN"));
    for (kept, (name, now)) in before.iter().zip(trainer.adapter().parameters()) {
        assert_eq!(kept, &now.detach(), "{name}");
    }
}

#[test]
fn datums_that_do_not_fit_are_named_and_leave_nothing_behind() {
    let model = model();
    let mut trainer = trainer(&model, 4096);
    let good = || {
        Datum::completion(&[1, 2], &[3, 4])
            .with_sampling_logprobs(vec![-4.1; 2])
            .with_advantage(1.0)
    };
    let bad = [
        (
            Datum { input: vec![], positions: vec![], targets: vec![], shared_prefix: 0, ..good() },
            "`input`",
        ),
        (Datum { input: vec![1, 64, 3], ..good() }, "token ids from 0 below 64, got 64"),
        (Datum { targets: vec![3, -1], ..good() }, "token ids from 0 below 64, got -1"),
        (Datum { targets: vec![3], ..good() }, "`targets`: expected 2"),
        (Datum { positions: vec![2, 1], ..good() }, "`positions`"),
        (Datum { positions: vec![1, 3], ..good() }, "`positions`"),
        (good().with_sampling_logprobs(vec![-1.0]), "`sampling_logprobs`: expected 2 values"),
        (
            good().with_advantages(vec![1.0, f32::NAN]),
            "`advantages`: expected finite values, got NaN",
        ),
        (good().with_weights(vec![1.0; 3]), "`weights`"),
        (good().with_temperature(0.0), "`temperature`"),
        (good().with_shared_prefix(4), "`shared_prefix`"),
    ];
    for (datum, expected) in bad {
        let error = trainer
            .forward_backward(&[good(), datum], &PolicyObjective::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("datum 1") && error.contains(expected), "{error}");
        let params = trainer.adam_params(1e-2);
        assert!(trainer.optim_step(&params).is_err(), "a call that failed left a gradient");
    }
}

/// What is known of one datum and of no other is no field of the batch; a missing one is named by
/// the objective.
#[test]
fn what_an_objective_lacks_is_named() {
    let mut trainer = trainer(&model(), 4096);
    let datum = Datum::completion(&[1, 2], &[3, 4]).with_advantage(1.0);
    let error =
        trainer.forward_backward(&[datum], &PolicyObjective::default()).unwrap_err().to_string();
    assert!(error.contains("sampling_logprobs"), "{error}");
}

/// Which datums share a micro-batch must not decide what an objective is told.
#[test]
fn a_field_that_only_some_datums_have_is_named() {
    let mut trainer = trainer(&model(), 4096);
    let whole = batch(&[(3, vec![4, 2])]);
    let cases = [
        ("sampling_logprobs", Datum { sampling_logprobs: None, ..whole[1].clone() }, "got none"),
        ("advantages", Datum { advantages: None, ..whole[1].clone() }, "got none"),
        (
            "old_logprobs",
            Datum { old_logprobs: Some(vec![-4.0; 2]), ..whole[1].clone() },
            "got values",
        ),
        (
            "reference_logprobs",
            whole[1].clone().with_reference_logprobs(vec![-4.0; 2]),
            "got values",
        ),
    ];
    for (field, other, got) in cases {
        let error = trainer
            .forward_backward(&[whole[0].clone(), other], &PolicyObjective::default())
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("datum 1: `{field}`")) && error.ends_with(got),
            "{error}"
        );
    }
    let weighed = whole[1].clone().with_weights(vec![1.0, 0.5]);
    trainer.forward_backward(&[whole[0].clone(), weighed], &PolicyObjective::default()).unwrap();
}

/// A batch's objective that gives more, or less, than can be taken.
struct Odd {
    short: bool,
}

impl Objective for Odd {
    fn validate(&self) -> Result<(), LossError> {
        Ok(())
    }

    fn scope(&self) -> Scope {
        Scope::Batch
    }

    fn denominator(&self, _totals: &StepTotals) -> f64 {
        1.0
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        _logprobs: &[f32],
        _entropy: Option<&[f32]>,
        _totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        let entries = batch.entries();
        let gradient = vec![0.1; entries - usize::from(self.short)];
        let mut outcome = LossOutcome::new(0.0, 1.0, gradient);
        outcome.entropy_gradient = (!self.short).then(|| vec![0.1; entries]);
        Ok(outcome)
    }
}

#[test]
fn what_a_batchs_objective_gives_is_taken_whole_or_refused() {
    let mut trainer = trainer(&model(), 4096);
    let batch = batch(&[(3, vec![4, 2])]);
    for (short, word) in
        [(true, "`gradient` has 5 elements, expected 6"), (false, "by the entropies")]
    {
        let error = trainer.forward_backward(&batch, &Odd { short }).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_warm_start_takes_the_weights_and_nothing_else() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let mut first = trainer(&model, 4096);
    first.save_adapter(dir.path(), "base").unwrap();
    let mut second = Trainer::new(
        model,
        &LoraConfig { rank: 4, ..LoraConfig::default() },
        TrainerConfig::default(),
        9,
    )
    .unwrap();
    second.load_weights(dir.path()).unwrap();
    assert_eq!(second.policy_version(), 0);
    for ((name, a), (_, b)) in
        first.adapter().parameters().iter().zip(second.adapter().parameters())
    {
        assert_eq!(a, &b, "{name}");
    }

    // The moments are not taken over, so that the same gradient moves it otherwise.
    let batch = batch(&[(3, vec![4, 2])]);
    for trainer in [&mut first, &mut second] {
        trainer.forward_backward(&batch, &PolicyObjective::default()).unwrap();
        step(trainer, 1e-2);
    }
    assert_ne!(first.adapter().parameters()[0].1, second.adapter().parameters()[0].1);
}

#[test]
fn one_version_has_one_snapshot_which_does_not_move() {
    let mut trainer = trainer(&model(), 4096);
    let (one, same) = (trainer.snapshot().unwrap(), trainer.snapshot().unwrap());
    assert!(one.is(&same) && one.version == 1);
    let before = one.adapter.pair(0).unwrap().1.copy();
    trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &PolicyObjective::default()).unwrap();
    step(&mut trainer, 1e-2);
    let next = trainer.snapshot().unwrap();
    assert!(!next.is(&one) && next.version == 2);
    assert_eq!(one.adapter.pair(0).unwrap().1, &before);
    assert_ne!(next.adapter.pair(0).unwrap().1, &before);
}

#[test]
fn pairs_are_divided_by_their_number_in_any_cut() {
    let batch = batch(&[(3, vec![4, 2]), (2, vec![1, 3]), (5, vec![2, 2])]);
    for micro_batch_tokens in [1, 100_000] {
        let config = TrainerConfig { micro_batch_tokens, ..TrainerConfig::default() };
        let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
        let mut fresh = Trainer::new(model(), &lora, config, 5).unwrap();

        // A fresh adapter is its own reference: every pair costs ln 2, and so does their mean.
        let passes = fresh.forward_backward(&batch, &Dpo::default()).unwrap();
        assert_eq!(passes.denominator, 3.0);
        assert!((passes.loss() - 2f64.ln()).abs() < 1e-6, "{}", passes.loss());
    }
}

/// The parts of a step, each with the whole step's totals, give the gradient of the step; so do
/// sums that are divided in the end.
#[test]
fn parts_of_a_step_add_up_to_it() {
    let model = model();
    let batch = batch(&[(3, vec![4, 2]), (2, vec![3, 1]), (5, vec![2])]);
    let whole = gradients(&mut trainer(&model, 4096), &batch);
    let totals = posttrain_train::step_totals(&batch).unwrap();

    let mut parts = trainer(&model, 4096);
    for part in batch.chunks(2) {
        parts.forward_backward_of(part, &PolicyObjective::default(), &totals).unwrap();
    }
    let parts: Vec<_> =
        parts.adapter().parameters().into_iter().map(|(_, p)| p.grad().copy()).collect();
    assert!(relative_difference(&whole, &parts) < 1e-5);

    let sums =
        PolicyObjective { aggregation: Aggregation::TokenSum {}, ..PolicyObjective::default() };
    let mut divided = trainer(&model, 4096);
    batch.chunks(2).for_each(|part| drop(divided.forward_backward(part, &sums).unwrap()));
    let params =
        AdamParams { gradient_scale: 1.0 / totals.tokens as f64, ..divided.adam_params(1e-2) };
    divided.optim_step(&params).unwrap();
    let mut at_once = trainer(&model, 4096);
    at_once.forward_backward(&batch, &PolicyObjective::default()).unwrap();
    step(&mut at_once, 1e-2);
    let parameters = |trainer: &Trainer| {
        trainer
            .adapter()
            .parameters()
            .into_iter()
            .map(|(_, p)| p.detach().copy())
            .collect::<Vec<_>>()
    };
    assert!(relative_difference(&parameters(&at_once), &parameters(&divided)) < 1e-4);
}

/// Gradients that add up over calls are those of one step: no two of its micro-batches drop the
/// same.
#[test]
fn each_call_of_a_step_draws_its_own_dropout() {
    let lora = LoraConfig { rank: 4, dropout: 0.5, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model(), &lora, TrainerConfig::default(), 5).unwrap();
    let loss = |trainer: &mut Trainer| {
        let passes = trainer.forward_backward(&batch(&[(3, vec![4, 2])]), &CrossEntropy::default());
        passes.unwrap().loss()
    };
    // A step away from the start, where B is zero and nothing that is dropped counts.
    loss(&mut trainer);
    step(&mut trainer, 1e-1);

    let first = loss(&mut trainer);
    let second = loss(&mut trainer);
    assert_ne!(first, second);
    trainer.clear_gradients();
    assert_eq!(loss(&mut trainer), first);
}
