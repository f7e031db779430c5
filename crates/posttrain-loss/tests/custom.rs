//! Closures of the user's as objectives.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]

use posttrain_loss::error::CustomProblem;
use posttrain_loss::{
    Aggregation, CustomLoss, CustomObjective, Head, HeadOptions, LossBatch, LossError, Objective,
    PolicyLoss, PolicyObjective, Scope, Step, TokenAdvantages,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::{Device, Kind, Tensor};

const LOW: f32 = 0.8;
const HIGH: f32 = 1.2;

/// PPO's clipped loss of the mean over tokens, as somebody would write it.
fn ppo(scope: Scope) -> CustomObjective {
    let evaluate = |batch: &LossBatch, logprobs: &[f32]| {
        let sampling = batch.sampling_logprobs.unwrap();
        let Some(TokenAdvantages::PerSequence(advantages)) = batch.advantages else {
            panic!("no advantages")
        };
        let mut loss = CustomLoss { gradient: vec![0.0; logprobs.len()], ..CustomLoss::default() };
        for (span, advantage) in batch.spans().zip(advantages) {
            for entry in span.filter(|entry| batch.weight(*entry) != 0.0) {
                let ratio = (logprobs[entry] - sampling[entry]).exp();
                let free = ratio * advantage;
                let bound = ratio.clamp(LOW, HIGH) * advantage;
                loss.loss_sum -= f64::from(free.min(bound) * batch.weight(entry));
                loss.gradient[entry] = if free > bound { 0.0 } else { -free * batch.weight(entry) };
            }
        }
        loss.named.add("custom/calls", 1.0, 1.0);
        loss
    };
    CustomObjective::new("my ppo", scope, evaluate).with_aggregation(Aggregation::TokenMean {})
}

fn built_in() -> PolicyObjective {
    let loss = PolicyLoss::PpoRatio { clip_low_threshold: LOW, clip_high_threshold: HIGH };
    PolicyObjective { loss, ..PolicyObjective::default() }
}

struct Case {
    lengths: Vec<usize>,
    sampling: Vec<f32>,
    logprobs: Vec<f32>,
    weights: Vec<f32>,
    advantages: Vec<f32>,
}

fn case() -> Case {
    let entries = 60;
    let wave = |entry: usize, speed: f32| (entry as f32 * speed).sin();
    Case {
        lengths: vec![20, 1, 0, 39],
        sampling: (0..entries).map(|entry| -2.0 + wave(entry, 0.7)).collect(),
        logprobs: (0..entries)
            .map(|entry| -2.0 + wave(entry, 0.7) + 0.5 * wave(entry, 1.3))
            .collect(),
        weights: (0..entries).map(|entry| [1.0, 0.0, 1.0, -0.5][entry % 4]).collect(),
        advantages: vec![1.0, -0.5, 3.0, -2.0],
    }
}

impl Case {
    fn batch(&self) -> LossBatch<'_> {
        LossBatch {
            weights: Some(&self.weights),
            sampling_logprobs: Some(&self.sampling),
            advantages: Some(TokenAdvantages::PerSequence(&self.advantages)),
            ..LossBatch::of(&self.lengths)
        }
    }
}

fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 1e-5 * (1.0 + theirs.abs()), "{ours} {theirs}");
    }
}

#[test]
fn a_closure_that_is_ppo_has_ppos_gradient() {
    let case = case();
    let batch = case.batch();
    let totals = batch.totals().unwrap();
    let expected = built_in().evaluate(&batch, &case.logprobs, None, &totals).unwrap();
    assert!(expected.metrics.policy.clipped > 0);
    for scope in [Scope::Token, Scope::Sequence, Scope::Batch] {
        let outcome = ppo(scope).evaluate(&batch, &case.logprobs, None, &totals).unwrap();
        assert_close(&outcome.gradient, &expected.gradient);
        assert!((outcome.loss() - expected.loss()).abs() < 1e-6);
        assert_eq!(outcome.metrics.named.get("custom/calls"), Some(1.0));
    }
}

/// A head, hidden states and targets whose walk cuts sequences into chunks of 7.
fn head() -> (Head, Tensor, Tensor) {
    let wave = |sizes: [i64; 2], speed: f64| {
        let places = Tensor::arange(sizes[0] * sizes[1], (Kind::Float, Device::Cpu));
        (places * speed).sin().view(sizes)
    };
    let head =
        Head::new(&wave([40, 8], 1.7), HeadOptions { chunk_tokens: 7, ..HeadOptions::default() })
            .unwrap();
    let targets = (Tensor::arange(60, (Kind::Int64, Device::Cpu)) * 7).remainder(40);
    (head, wave([60, 8], 0.9), targets)
}

#[test]
fn the_fused_head_walks_with_a_closure_as_with_ppo() {
    let case = case();
    let batch = LossBatch { sampling_logprobs: Some(&[-3.7; 60]), ..case.batch() };
    let totals = batch.totals().unwrap();
    let (head, hidden, targets) = head();
    let step = |objective: &dyn Objective| {
        head.step(&hidden, &targets, Step { objective, batch: &batch, totals: &totals }).unwrap()
    };
    let expected = step(&built_in());
    assert!(expected.outcome.metrics.policy.clipped > 0);
    let walked = step(&ppo(Scope::Token));
    assert_eq!(
        walked.outcome.metrics.named.iter().next().unwrap().1.count,
        9.0,
        "one call per chunk"
    );
    let in_turn = step(&ppo(Scope::Batch));
    assert_eq!(in_turn.outcome.metrics.named.iter().next().unwrap().1.count, 1.0);
    let flat = |tensor: &Tensor| Vec::<f32>::try_from(tensor.reshape([-1])).unwrap();
    for ours in [walked, in_turn] {
        assert_close(&flat(&ours.outcome.gradient), &flat(&expected.outcome.gradient));
        assert_close(&flat(&ours.gradients.hidden), &flat(&expected.gradients.hidden));
    }
}

#[test]
fn a_closure_that_fails_is_an_error_of_that_call_alone() {
    let case = case();
    let batch = case.batch();
    let totals = batch.totals().unwrap();
    let calls = AtomicUsize::new(0);
    let objective = CustomObjective::new("moody", Scope::Token, move |_, logprobs| {
        let gradient = vec![0.0; logprobs.len()];
        let fine = CustomLoss { gradient, ..CustomLoss::default() };
        let spoiled = |value: f32| {
            let mut gradient = vec![0.0; logprobs.len()];
            gradient[4] = value;
            CustomLoss { gradient, ..CustomLoss::default() }
        };
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("not in the mood"),
            1 => CustomLoss { gradient: vec![0.0; 3], ..fine },
            2 => CustomLoss { loss_sum: f64::NAN, ..fine },
            3 => spoiled(f32::INFINITY),
            4 => spoiled(f32::NAN),
            _ => fine,
        }
    });
    let problem = || match objective.evaluate(&batch, &case.logprobs, None, &totals) {
        Err(LossError::Custom { objective, problem }) => {
            assert_eq!(objective, "moody");
            problem
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(), CustomProblem::Panicked { message: "not in the mood".into() });
    assert_eq!(problem(), CustomProblem::GradientLength { expected: 60, got: 3 });
    assert!(matches!(problem(), CustomProblem::Loss { value } if value.is_nan()));
    assert_eq!(problem(), CustomProblem::Gradient { index: 4, value: f32::INFINITY });
    assert!(matches!(problem(), CustomProblem::Gradient { index: 4, value } if value.is_nan()));
    assert!(objective.evaluate(&batch, &case.logprobs, None, &totals).is_ok());
}

#[test]
fn a_panic_within_the_fused_walk_is_an_error_too() {
    let case = case();
    let batch = case.batch();
    let (head, hidden, targets) = head();
    let objective = CustomObjective::new("broken", Scope::Token, |_, _| panic!("{} chunks", 1));
    let totals = batch.totals().unwrap();
    let result = head.step(
        &hidden,
        &targets,
        Step { objective: &objective, batch: &batch, totals: &totals },
    );
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "objective `broken`: panicked: 1 chunks");
    // The same head is as good as before.
    let step = Step { objective: &built_in(), batch: &batch, totals: &totals };
    assert!(head.step(&hidden, &targets, step).is_ok());
}

#[test]
fn whatever_a_closure_says_of_an_entry_that_is_not_trained_on_is_no_gradient() {
    let batch = LossBatch { weights: Some(&[1.0, 0.0]), ..LossBatch::of(&[2]) };
    let objective = CustomObjective::new("careless", Scope::Sequence, |_, logprobs| CustomLoss {
        gradient: logprobs.to_vec(),
        ..CustomLoss::default()
    });
    let outcome =
        objective.evaluate(&batch, &[-1.0, f32::NAN], None, &batch.totals().unwrap()).unwrap();
    assert_eq!(outcome.gradient, [-1.0, 0.0]);
}
