//! What every objective promises: its gradient is autograd's, micro-batches and the order of
//! sequences change nothing, and what does not fit is refused by name.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]

use posttrain_loss::distillation::{Distillation, Divergence};
use posttrain_loss::policy::{Correction, CorrectionLevel, PolicyLoss};
use posttrain_loss::preference::{Dpo, Ipo, Kto, Reference, SimPo};
use posttrain_loss::{
    Aggregation, CrossEntropy, LossBatch, LossError, LossOutcome, Objective, ObjectiveConfig,
    PolicyObjective, Scope, StepTotals, TokenAdvantages,
};
use posttrain_tensor::TensorError;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// An even number of sequences; what stands at entries of weight 0 must not be read.
#[derive(Debug, Clone)]
struct Owned {
    lengths: Vec<usize>,
    logprobs: Vec<f32>,
    sampling: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
}

impl Owned {
    fn batch(&self) -> LossBatch<'_> {
        LossBatch {
            weights: Some(&self.weights),
            sampling_logprobs: Some(&self.sampling),
            reference_logprobs: Some(&self.reference),
            advantages: Some(TokenAdvantages::PerSequence(&self.advantages)),
            ..LossBatch::of(&self.lengths)
        }
    }

    fn evaluate(&self, objective: &dyn Objective, totals: &StepTotals) -> LossOutcome {
        objective.evaluate(&self.batch(), &self.logprobs, None, totals).unwrap()
    }

    /// Some of the sequences in some order.
    fn select(&self, sequences: &[usize]) -> Self {
        let spans: Vec<_> = self.batch().spans().collect();
        let entries = |values: &[f32]| -> Vec<f32> {
            sequences
                .iter()
                .flat_map(|sequence| &values[spans[*sequence].clone()])
                .copied()
                .collect()
        };
        Self {
            lengths: sequences.iter().map(|sequence| self.lengths[*sequence]).collect(),
            logprobs: entries(&self.logprobs),
            sampling: entries(&self.sampling),
            reference: entries(&self.reference),
            advantages: sequences.iter().map(|sequence| self.advantages[*sequence]).collect(),
            weights: entries(&self.weights),
        }
    }
}

fn weights() -> impl Strategy<Value = f32> {
    prop_oneof![2 => Just(0.0f32), 7 => Just(1.0f32), 1 => -2f32..2.0]
}

fn pairs_of_lengths() -> impl Strategy<Value = Vec<usize>> {
    let pair = [0usize..30, 0usize..30];
    prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.concat())
}

prop_compose! {
    fn batches()(lengths in pairs_of_lengths())(
        entries in prop::collection::vec((-8f32..-1.0, -1f32..1.0, -1f32..1.0, weights()), lengths.iter().sum::<usize>()),
        advantages in prop::collection::vec(prop_oneof![0.1f32..2.0, -2f32..-0.1], lengths.len()),
        lengths in Just(lengths),
    ) -> Owned {
        let column = |value: fn(&(f32, f32, f32, f32)) -> f32| -> Vec<f32> {
            entries.iter().map(|entry| if entry.3 != 0.0 { value(entry) } else { f32::NAN }).collect()
        };
        Owned {
            logprobs: column(|entry| entry.0),
            sampling: column(|entry| entry.0 + entry.1),
            reference: column(|entry| entry.0 + entry.2),
            weights: entries.iter().map(|entry| entry.3).collect(),
            advantages,
            lengths,
        }
    }
}

/// Every kind of objective but the policy losses, whose own tests these are in the crate.
fn objectives() -> impl Strategy<Value = ObjectiveConfig> {
    let aggregation = || {
        prop_oneof![
            Just(Aggregation::TokenSum {}),
            Just(Aggregation::TokenMean {}),
            Just(Aggregation::SequenceMean {}),
            (1usize..100).prop_map(|tokens| Aggregation::ConstantLength { tokens }),
        ]
    };
    let divergence = prop_oneof![
        Just(Divergence::ForwardKl),
        Just(Divergence::ReverseKl),
        Just(Divergence::SampledReverseKl)
    ];
    let reference = prop_oneof![Just(Reference::Policy), Just(Reference::Uniform)];
    let weight = || 0.1f64..2.0;
    prop_oneof![
        aggregation()
            .prop_map(|aggregation| ObjectiveConfig::CrossEntropy(CrossEntropy { aggregation })),
        (divergence, aggregation()).prop_map(|(divergence, aggregation)| {
            ObjectiveConfig::Distillation(Distillation { divergence, aggregation })
        }),
        (0.01f64..1.0, 0f64..0.49, reference).prop_map(|(beta, label_smoothing, reference)| {
            ObjectiveConfig::Dpo(Dpo { beta, label_smoothing, reference })
        }),
        (0.1f64..1.0).prop_map(|tau| ObjectiveConfig::Ipo(Ipo { tau })),
        (0.1f64..3.0, 0f64..2.0)
            .prop_map(|(beta, gamma)| ObjectiveConfig::SimPo(SimPo { beta, gamma })),
        (0.01f64..1.0, weight(), weight(), 0f64..3.0).prop_map(
            |(beta, desirable_weight, undesirable_weight, reference_point)| {
                ObjectiveConfig::Kto(Kto {
                    beta,
                    desirable_weight,
                    undesirable_weight,
                    reference_point,
                })
            }
        ),
    ]
}

/// Columns of a batch in f64, 0 where not trained on.
struct Columns {
    logprobs: Tensor,
    sampling: Tensor,
    reference: Tensor,
    weights: Tensor,
    /// `[N]`, the sequence of each entry.
    sequence: Tensor,
    /// `[S]`, entries trained on.
    counts: Tensor,
}

impl Columns {
    fn of(owned: &Owned) -> Self {
        let column = |values: &[f32]| {
            let kept = values.iter().zip(&owned.weights).map(|(value, weight)| match weight {
                0.0 => 0.0,
                _ => f64::from(*value),
            });
            Tensor::from_slice(&kept.collect::<Vec<f64>>())
        };
        let sequences =
            owned.batch().spans().enumerate().flat_map(|(s, span)| span.map(move |_| s as i64));
        let sequence = Tensor::from_slice(&sequences.collect::<Vec<_>>());
        let weights = column(&owned.weights);
        let zeros = Tensor::zeros([owned.lengths.len() as i64], (Kind::Double, Device::Cpu));
        Self {
            logprobs: column(&owned.logprobs).set_requires_grad(true),
            sampling: column(&owned.sampling),
            reference: column(&owned.reference),
            counts: zeros.index_add(0, &sequence, &weights.ne(0.0).to_kind(Kind::Double)),
            weights,
            sequence,
        }
    }

    /// `[S]`: weighted sums over sequences, or over the number of their entries.
    fn scores(&self, values: &Tensor, averaged: bool) -> Tensor {
        let sums = self.counts.zeros_like().index_add(0, &self.sequence, &(values * &self.weights));
        if averaged { sums / self.counts.clamp_min(1.0) } else { sums }
    }
}

/// The loss's sum by autograd in f64, written as the papers write it.
fn loss_sum(objective: ObjectiveConfig, columns: &Columns, advantages: &[f32]) -> Tensor {
    let by_entry = |losses: Tensor, aggregation: Aggregation| {
        let losses = losses * &columns.weights;
        let losses = match aggregation {
            Aggregation::SequenceMean {} => {
                losses / columns.counts.index_select(0, &columns.sequence).clamp_min(1.0)
            }
            _ => losses,
        };
        losses.sum(Kind::Double)
    };
    let even = |scores: &Tensor, first: i64| scores.slice(0, first, None, 2);
    let by_pair = |scores: Tensor, loss: &dyn Fn(Tensor) -> Tensor| {
        let losses = loss(even(&scores, 0) - even(&scores, 1));
        let whole = even(&columns.counts, 0).gt(0.0).logical_and(&even(&columns.counts, 1).gt(0.0));
        (losses * whole.to_kind(Kind::Double)).sum(Kind::Double)
    };
    let distance = &columns.logprobs - &columns.reference;
    match objective {
        ObjectiveConfig::CrossEntropy(CrossEntropy { aggregation }) => {
            by_entry(-&columns.logprobs, aggregation)
        }
        ObjectiveConfig::Distillation(Distillation { divergence, aggregation }) => {
            let losses = match divergence {
                Divergence::ForwardKl => columns.reference.exp() * -&distance,
                Divergence::ReverseKl => columns.logprobs.exp() * &distance,
                _ => (&columns.logprobs - &columns.sampling).exp() * distance.detach(),
            };
            by_entry(losses, aggregation)
        }
        ObjectiveConfig::Dpo(Dpo { beta, label_smoothing, reference }) => {
            let scores = match reference {
                Reference::Policy => columns.scores(&distance, false),
                _ => columns.scores(&columns.logprobs, false),
            };
            by_pair(scores, &|d| {
                -(&d * beta).log_sigmoid() * (1.0 - label_smoothing)
                    - (&d * -beta).log_sigmoid() * label_smoothing
            })
        }
        ObjectiveConfig::Ipo(Ipo { tau }) => {
            by_pair(columns.scores(&distance, true), &|d| (d - 1.0 / (2.0 * tau)).square())
        }
        ObjectiveConfig::SimPo(SimPo { beta, gamma }) => {
            by_pair(columns.scores(&columns.logprobs, true), &|d| -(d * beta - gamma).log_sigmoid())
        }
        ObjectiveConfig::Kto(Kto {
            beta,
            desirable_weight,
            undesirable_weight,
            reference_point,
        }) => {
            let sign = Tensor::from_slice(advantages).sign().to_kind(Kind::Double);
            let weight = sign.gt(0.0).to_kind(Kind::Double)
                * (desirable_weight - undesirable_weight)
                + undesirable_weight;
            let score = columns.scores(&distance, false);
            let losses: Tensor =
                weight * (1.0 - (sign * (score - reference_point) * beta).sigmoid());
            (losses * columns.counts.gt(0.0).to_kind(Kind::Double)).sum(Kind::Double)
        }
        _ => unreachable!("a policy loss"),
    }
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-5 * (scale + b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn value_and_gradient_are_those_of_autograd(owned in batches(), config in objectives()) {
        let objective = config.build().unwrap();
        let outcome = owned.evaluate(objective.as_ref(), &owned.batch().totals().unwrap());
        let columns = Columns::of(&owned);
        let loss = loss_sum(config, &columns, &owned.advantages);
        prop_assert!(close(outcome.loss_sum, loss.double_value(&[]), outcome.gradient.len() as f64));
        if !owned.logprobs.is_empty() {
            loss.backward();
            let expected = Vec::<f64>::try_from(&columns.logprobs.grad()).unwrap();
            for (ours, theirs) in outcome.gradient.iter().zip(expected) {
                prop_assert!(close((*ours).into(), theirs, 1.0), "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn micro_batches_and_the_order_of_units_change_no_gradient(
        owned in batches(),
        config in objectives(),
        keys in prop::collection::vec(any::<u32>(), 12),
        cut in 0usize..6,
    ) {
        let objective = config.build().unwrap();
        let totals = owned.batch().totals().unwrap();
        let whole = owned.evaluate(objective.as_ref(), &totals);

        // Pairs stay together, wherever they go.
        let mut pairs: Vec<usize> = (0..owned.lengths.len() / 2).collect();
        pairs.sort_by_key(|pair| keys[*pair]);
        let order: Vec<usize> = pairs.into_iter().flat_map(|pair| [2 * pair, 2 * pair + 1]).collect();
        let (first, second) = order.split_at((2 * cut).min(order.len()));
        let parts = [owned.select(first), owned.select(second)];
        let mut merged_totals = StepTotals::default();
        parts.iter().for_each(|part| merged_totals.merge(&part.batch().totals().unwrap()));
        prop_assert_eq!(merged_totals, totals);

        let [mut merged, second] = parts.map(|part| part.evaluate(objective.as_ref(), &totals));
        merged.gradient.extend(&second.gradient);
        merged.metrics.merge(&second.metrics);
        let spans: Vec<_> = owned.batch().spans().collect();
        let moved: Vec<f32> = order.iter().flat_map(|s| whole.gradient[spans[*s].clone()].to_vec()).collect();
        prop_assert_eq!(&merged.gradient, &moved, "bit for bit");
        prop_assert_eq!(merged.denominator, whole.denominator);
        prop_assert!(close(merged.loss_sum + second.loss_sum, whole.loss_sum, owned.logprobs.len() as f64));
        for (name, mean) in whole.metrics.named.iter() {
            let same = match (merged.metrics.named.get(name), mean.value()) {
                (Some(ours), Some(theirs)) => close(ours, theirs, 1.0),
                (ours, theirs) => ours == theirs,
            };
            prop_assert!(same, "{name}");
        }
    }
}

/// Every serializable objective as a configuration file has it, with what it needs.
const KINDS: [(&str, Scope, bool); 9] = [
    ("{ kind = 'policy' }", Scope::Token, false),
    ("{ kind = 'policy', kl = {} }", Scope::Token, true),
    ("{ kind = 'policy', loss = { kind = 'gspo' } }", Scope::Sequence, false),
    ("{ kind = 'cross_entropy', aggregation = { kind = 'token_sum' } }", Scope::Token, false),
    ("{ kind = 'dpo', beta = 0.1 }", Scope::Pair, true),
    ("{ kind = 'ipo' }", Scope::Pair, true),
    ("{ kind = 'simpo', gamma = 0.5 }", Scope::Pair, false),
    ("{ kind = 'kto' }", Scope::Sequence, true),
    ("{ kind = 'distillation', divergence = 'reverse_kl' }", Scope::Token, true),
];

#[derive(serde::Deserialize, serde::Serialize)]
struct File {
    objective: ObjectiveConfig,
}

fn read(objective: &str) -> Result<ObjectiveConfig, toml::de::Error> {
    toml::from_str::<File>(&format!("objective = {objective}")).map(|file| file.objective)
}

#[test]
fn objectives_read_from_toml_and_write_what_they_read() {
    for (text, scope, needs_reference) in KINDS {
        let config = read(text).unwrap();
        let objective = config.build().unwrap();
        assert_eq!(
            (objective.scope(), objective.needs_reference()),
            (scope, needs_reference),
            "{text}"
        );
        let written = toml::to_string(&File { objective: config }).unwrap();
        assert_eq!(toml::from_str::<File>(&written).unwrap().objective, config, "{written}");
    }
    for (text, ..) in KINDS {
        let unknown = text.replacen(" }", ", bogus = 1 }", 1);
        assert!(read(&unknown).is_err(), "{unknown}");
    }
    assert!(read("{ kind = 'reward_hacking' }").is_err());
}

#[test]
fn settings_out_of_range_are_refused_when_an_objective_is_built() {
    let bad = [
        "{ kind = 'policy', loss = { kind = 'dual_clip', clip_ratio_c = 1.0 } }",
        "{ kind = 'policy', loss = { kind = 'ppo_ratio', clip_low_threshold = 1.1 } }",
        "{ kind = 'policy', loss = { kind = 'cispo', clip_high_threshold = 0.9 } }",
        "{ kind = 'policy', loss = { kind = 'dro', beta = 0.0 } }",
        "{ kind = 'policy', loss = { kind = 'gspo', clip_low = 1.5 } }",
        "{ kind = 'policy', loss = { kind = 'gmpo', clip_high = -0.1 } }",
        "{ kind = 'policy', loss = { kind = 'dppo', mask_low = nan } }",
        "{ kind = 'policy', loss = { kind = 'dppo', ratio_cap = 0.5 } }",
        "{ kind = 'policy', correction = { low = 1.5 } }",
        "{ kind = 'policy', correction = { high = inf } }",
        "{ kind = 'cross_entropy', aggregation = { kind = 'constant_length', tokens = 0 } }",
        "{ kind = 'distillation', aggregation = { kind = 'constant_length', tokens = 0 } }",
        "{ kind = 'dpo', beta = 0.0 }",
        "{ kind = 'dpo', label_smoothing = 0.5 }",
        "{ kind = 'ipo', tau = -1.0 }",
        "{ kind = 'simpo', gamma = -1.0 }",
        "{ kind = 'kto', undesirable_weight = -1.0 }",
        "{ kind = 'kto', reference_point = inf }",
    ];
    for text in bad {
        let config = read(text).unwrap();
        assert!(matches!(config.build(), Err(LossError::Config { .. })), "{text}");
    }
}

#[test]
fn what_an_objective_needs_and_has_not_is_named() {
    let logprobs = [-1.0f32, -2.0];
    let whole = LossBatch {
        sampling_logprobs: Some(&logprobs),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0])),
        reference_logprobs: Some(&logprobs),
        ..LossBatch::of(&[1, 1])
    };
    let totals = whole.totals().unwrap();
    let missing = |text: &str, batch: LossBatch| {
        let objective = read(text).unwrap().build().unwrap();
        assert!(objective.evaluate(&whole, &logprobs, None, &totals).is_ok(), "{text}");
        match objective.evaluate(&batch, &logprobs, None, &totals) {
            Err(LossError::Missing { argument, .. }) => argument,
            other => panic!("{text}: {other:?}"),
        }
    };
    let no_reference = LossBatch { reference_logprobs: None, ..whole };
    for (text, _, needs_reference) in KINDS {
        if needs_reference {
            assert_eq!(missing(text, no_reference), "reference_logprobs");
        }
    }
    assert_eq!(
        missing("{ kind = 'policy' }", LossBatch { sampling_logprobs: None, ..whole }),
        "sampling_logprobs"
    );
    assert_eq!(
        missing("{ kind = 'policy' }", LossBatch { advantages: None, ..whole }),
        "advantages"
    );
    assert_eq!(missing("{ kind = 'kto' }", LossBatch { advantages: None, ..whole }), "advantages");
    let sampled = "{ kind = 'distillation', divergence = 'sampled_reverse_kl' }";
    assert_eq!(
        missing(sampled, LossBatch { sampling_logprobs: None, ..whole }),
        "sampling_logprobs"
    );
}

#[test]
fn a_batch_that_is_all_masked_has_no_loss_whatever_the_objective() {
    let nothing = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
    let batch = LossBatch {
        weights: Some(&[0.0, -0.0, 0.0]),
        sampling_logprobs: Some(&nothing),
        advantages: Some(TokenAdvantages::PerToken(&nothing)),
        reference_logprobs: Some(&nothing),
        ..LossBatch::of(&[1, 2])
    };
    let totals = batch.totals().unwrap();
    for (text, ..) in KINDS {
        let objective = read(text).unwrap().build().unwrap();
        let outcome = objective.evaluate(&batch, &nothing, None, &totals).unwrap();
        assert_eq!(
            (outcome.loss(), outcome.denominator, outcome.gradient),
            (0.0, 1.0, vec![0.0; 3]),
            "{text}"
        );
        assert!(outcome.metrics.named.iter().all(|(_, mean)| mean.value().is_none()), "{text}");
    }
}

#[test]
fn an_empty_batch_is_no_work_whatever_the_objective() {
    let batch = LossBatch {
        sampling_logprobs: Some(&[]),
        advantages: Some(TokenAdvantages::PerSequence(&[])),
        reference_logprobs: Some(&[]),
        ..LossBatch::of(&[])
    };
    for (text, ..) in KINDS {
        let objective = read(text).unwrap().build().unwrap();
        let outcome = objective.evaluate(&batch, &[], None, &batch.totals().unwrap()).unwrap();
        assert_eq!((outcome.loss(), outcome.gradient.len()), (0.0, 0), "{text}");
    }
}

#[test]
fn infinite_log_probabilities_are_named_whatever_the_objective() {
    let fine = [-1.0f32, -2.0, -1.5];
    let batch = LossBatch {
        sampling_logprobs: Some(&fine),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0])),
        reference_logprobs: Some(&fine),
        ..LossBatch::of(&[1, 2])
    };
    let totals = batch.totals().unwrap();
    for (text, ..) in KINDS {
        let objective = read(text).unwrap().build().unwrap();
        let impossible = [-1.0, f32::NEG_INFINITY, -1.5];
        let result = objective.evaluate(&batch, &impossible, None, &totals);
        if text.contains("reverse_kl") {
            // What the policy never says has no part in its divergence from a teacher.
            assert_eq!(result.unwrap().gradient[1], 0.0);
        } else {
            let named =
                matches!(result, Err(LossError::NonFinite { argument: "logprobs", index: 1, .. }));
            assert!(named, "{text}: {result:?}");
        }
        let result = objective.evaluate(&batch, &[-1.0, -1.0, f32::NAN], None, &totals);
        assert!(
            matches!(result, Err(LossError::NonFinite { argument: "logprobs", index: 2, .. })),
            "{text}"
        );
    }

    // A teacher to whom a token is impossible asks nothing of it, unless the policy may say it.
    let teacher = LossBatch { reference_logprobs: Some(&[-1.0, f32::NEG_INFINITY, -1.5]), ..batch };
    let evaluate = |divergence| {
        let distillation = Distillation { divergence, ..Distillation::default() };
        distillation.evaluate(&teacher, &fine, None, &totals)
    };
    assert_eq!(evaluate(Divergence::ForwardKl).unwrap().gradient[1], 0.0);
    let result = evaluate(Divergence::ReverseKl);
    assert!(
        matches!(
            result,
            Err(LossError::NonFinite { argument: "reference_logprobs", index: 1, .. })
        ),
        "{result:?}"
    );
}

#[test]
fn pairs_come_in_twos_and_half_a_pair_does_not_count() {
    let logprobs = [-1.0f32, -2.0, -3.0, -4.0];
    let objective = Dpo { reference: Reference::Uniform, ..Dpo::default() };
    let odd = LossBatch::of(&[1, 1, 2]);
    let result = objective.evaluate(&odd, &logprobs, None, &odd.totals().unwrap());
    assert!(
        matches!(
            result,
            Err(LossError::Length { argument: "sequence_lengths", expected: 4, got: 3 })
        ),
        "{result:?}"
    );

    // The second pair's chosen sequence has nothing to train on.
    let batch = LossBatch { weights: Some(&[1.0, 1.0, 0.0, 1.0]), ..LossBatch::of(&[1, 1, 1, 1]) };
    let totals = batch.totals().unwrap();
    assert_eq!((totals.trained_sequences, totals.trained_pairs), (3, 1));
    let outcome = objective.evaluate(&batch, &logprobs, None, &totals).unwrap();
    let alone = LossBatch::of(&[1, 1]);
    let first = objective.evaluate(&alone, &logprobs[..2], None, &alone.totals().unwrap()).unwrap();
    assert_eq!(outcome.loss(), first.loss());
    assert_eq!(outcome.gradient, [first.gradient, vec![0.0, 0.0]].concat());
}

#[test]
fn preferences_that_are_settled_or_hopeless_stay_finite() {
    let batch = LossBatch::of(&[1, 1]);
    let totals = batch.totals().unwrap();
    for (logprobs, loss, gradient) in [([0.0, -1e5], 0.0, 0.0), ([-1e5, 0.0], 1e4, -0.1)] {
        let objective = Dpo { reference: Reference::Uniform, ..Dpo::default() };
        let outcome = objective.evaluate(&batch, &logprobs, None, &totals).unwrap();
        assert_eq!((outcome.loss(), outcome.gradient), (loss, vec![gradient, -gradient]));
    }
}

#[test]
fn a_sequence_without_a_label_is_refused_by_kto() {
    let batch = LossBatch {
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, 0.0])),
        reference_logprobs: Some(&[-1.0, -1.0]),
        ..LossBatch::of(&[1, 1])
    };
    let result = Kto::default().evaluate(&batch, &[-1.0, -1.0], None, &batch.totals().unwrap());
    assert!(matches!(result, Err(LossError::Unlabelled { sequence: 1, .. })), "{result:?}");
}

/// The table of corrections, by hand: a ratio of 4 to the sampler at one token of two, of 1 at the
/// other.
#[test]
fn corrections_by_hand() {
    let sampling = [-2.0f32, -2.0];
    let old = [-2.0 + 4f32.ln(), -2.0];
    let batch = LossBatch {
        sampling_logprobs: Some(&sampling),
        old_logprobs: Some(&old),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0])),
        ..LossBatch::of(&[2])
    };
    let gradient = |level, rule, high| {
        let correction = Correction { level, rule, low: 0.5, high };
        let objective =
            PolicyObjective { correction: Some(correction), ..PolicyObjective::default() };
        objective.evaluate(&batch, &old, None, &batch.totals().unwrap()).unwrap().gradient
    };
    use posttrain_loss::policy::CorrectionLevel::{Geometric, Sequence, Token};
    use posttrain_loss::policy::CorrectionRule::{Mask, Truncate};
    let cases = [
        (Token, Truncate, 3.0, [-3.0, -1.0]),
        (Token, Mask, 3.0, [0.0, -1.0]),
        (Token, Mask, 5.0, [-4.0, -1.0]),
        (Sequence, Truncate, 3.0, [-3.0, -3.0]),
        (Sequence, Mask, 3.0, [0.0, 0.0]),
        (Geometric, Mask, 3.0, [-2.0, -2.0]),
        (Geometric, Truncate, 1.5, [-1.5, -1.5]),
    ];
    for (level, rule, high, expected) in cases {
        for (ours, expected) in gradient(level, rule, high).into_iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-5, "{level:?} {rule:?} {high}: {ours} {expected}");
        }
    }
}

/// Without old log-probabilities the policy in training stands for the old one: bounded importance
/// weights.
#[test]
fn a_correction_without_old_log_probabilities_is_a_bounded_importance_weight() {
    let batch = LossBatch {
        sampling_logprobs: Some(&[-2.0, -2.0]),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0])),
        ..LossBatch::of(&[2])
    };
    let logprobs = [-2.0 + 4f32.ln(), -2.0 + 1.5f32.ln()];
    let loss = PolicyLoss::PpoClip { clip_low: 0.2, clip_high: 0.2 };
    let correction = Correction { level: CorrectionLevel::Token, ..Correction::default() };
    let objective =
        PolicyObjective { loss, correction: Some(correction), ..PolicyObjective::default() };
    let outcome = objective.evaluate(&batch, &logprobs, None, &batch.totals().unwrap()).unwrap();
    assert!((outcome.gradient[0] - -2.0).abs() < 1e-5 && (outcome.gradient[1] - -1.5).abs() < 1e-5);
    assert_eq!(outcome.metrics.policy.clipped, 1);
}

#[test]
fn zero_advantages_move_nothing_where_an_objective_says_so() {
    let ignores = |text: &str| read(text).unwrap().build().unwrap().ignores_zero_advantages();
    assert!(ignores("{ kind = 'policy' }"));
    assert!(ignores(
        "{ kind = 'policy', loss = { kind = 'gmpo' }, correction = { level = 'sequence' } }"
    ));
    assert!(ignores("{ kind = 'policy', loss = { kind = 'dppo', squared_log_ratio = 0.0 } }"));
    assert!(!ignores("{ kind = 'policy', loss = { kind = 'dppo' } }"));
    assert!(!ignores("{ kind = 'policy', loss = { kind = 'dro' } }"));
    assert!(!ignores("{ kind = 'policy', kl = {} }"));
    assert!(!ignores("{ kind = 'policy', entropy_coefficient = 0.01 }"));
    assert!(!ignores("{ kind = 'cross_entropy' }"));
    assert!(!ignores("{ kind = 'kto' }"));
}

#[test]
fn an_outcome_as_a_scalar_is_the_loss_and_goes_back() {
    let logprobs = Tensor::from_slice(&[-1f32, f32::NEG_INFINITY, -3.0]).set_requires_grad(true);
    let batch = LossBatch { weights: Some(&[1.0, 0.0, 1.0]), ..LossBatch::of(&[3]) };
    let values = Vec::<f32>::try_from(logprobs.detach()).unwrap();
    let outcome =
        CrossEntropy::default().evaluate(&batch, &values, None, &batch.totals().unwrap()).unwrap();
    let scalar = outcome.to_scalar(&logprobs).unwrap();
    assert_eq!(scalar.double_value(&[]), 2.0);
    (scalar * 3.0).backward();
    assert_eq!(Vec::<f32>::try_from(logprobs.grad()).unwrap(), [-1.5, 0.0, -1.5]);
    let result = outcome.to_scalar(&logprobs.narrow(0, 0, 2));
    assert!(matches!(
        result,
        Err(LossError::Tensor(TensorError::Shape { argument: "logprobs", .. }))
    ));
}

#[test]
fn a_gradient_that_f32_cannot_hold_is_an_error_of_every_preference_objective() {
    // Policy and reference agree, so that no sigmoid is saturated.
    let logprobs = [-1.0, -2.0];
    let huge = [1e30, 1.0];
    let batch = LossBatch {
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0])),
        reference_logprobs: Some(&logprobs),
        weights: Some(&huge),
        ..LossBatch::of(&[1, 1])
    };
    let objectives = [
        ObjectiveConfig::Kto(Kto { desirable_weight: 1e12, ..Kto::default() }),
        ObjectiveConfig::Dpo(Dpo { beta: 1e10, ..Dpo::default() }),
    ];
    for objective in objectives {
        let totals = batch.totals().unwrap();
        let error =
            objective.build().unwrap().evaluate(&batch, &logprobs, None, &totals).unwrap_err();
        assert!(matches!(error, LossError::Overflow { .. }), "{error}");
    }
}
