//! Properties and edges of the policy losses.

use super::*;
use crate::batch::TokenAdvantages;
use crate::kl::KlEstimator;
use crate::metrics::PolicyMetrics;
use approx::assert_relative_eq;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// A ragged batch with weights, entries of weight 0 holding what must not be read.
#[derive(Debug, Clone)]
struct Owned {
    lengths: Vec<usize>,
    train: Vec<f32>,
    sampling: Vec<f32>,
    old: Option<Vec<f32>>,
    reference: Vec<f32>,
    entropy: Vec<f32>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
}

impl Owned {
    fn batch(&self) -> LossBatch<'_> {
        LossBatch {
            weights: Some(&self.weights),
            sampling_logprobs: Some(&self.sampling),
            old_logprobs: self.old.as_deref(),
            advantages: Some(TokenAdvantages::PerSequence(&self.advantages)),
            reference_logprobs: Some(&self.reference),
            ..LossBatch::of(&self.lengths)
        }
    }

    fn scores(&self) -> TokenScores {
        TokenScores {
            logprobs: Tensor::from_slice(&self.train),
            entropy: Tensor::from_slice(&self.entropy),
        }
    }

    /// Some of the sequences in some order, as a micro-batch of their own.
    fn select(&self, sequences: &[usize]) -> Self {
        let spans: Vec<_> = self.batch().spans().collect();
        let tokens = |values: &[f32]| -> Vec<f32> {
            sequences
                .iter()
                .flat_map(|sequence| &values[spans[*sequence].clone()])
                .copied()
                .collect()
        };
        Self {
            lengths: sequences.iter().map(|sequence| self.lengths[*sequence]).collect(),
            train: tokens(&self.train),
            sampling: tokens(&self.sampling),
            old: self.old.as_deref().map(tokens),
            reference: tokens(&self.reference),
            entropy: tokens(&self.entropy),
            advantages: sequences.iter().map(|sequence| self.advantages[*sequence]).collect(),
            weights: tokens(&self.weights),
        }
    }
}

/// What stands at one entry.
#[derive(Debug, Clone, Copy)]
struct TokenCase {
    sampling: f32,
    /// Distances from the sampler's log-probability.
    train: f32,
    old: f32,
    reference: f32,
    entropy: f32,
    weight: f32,
}

/// A fifth of the entries masked; of the others one in eight with a weight of its own.
fn weights() -> impl Strategy<Value = f32> {
    prop_oneof![2 => Just(0.0f32), 7 => Just(1.0f32), 1 => -2f32..2.0]
}

prop_compose! {
    fn tokens()(
        sampling in -12f32..0.0,
        train in -1f32..1.0,
        old in -0.5f32..0.5,
        reference in -2f32..2.0,
        entropy in 0f32..10.0,
        weight in weights(),
    ) -> TokenCase {
        // No probability is above 1.
        TokenCase { sampling, train: train.min(-sampling), old: old.min(-sampling), reference, entropy, weight }
    }
}

prop_compose! {
    fn batches()(lengths in prop::collection::vec(0usize..90, 0..12))(
        tokens in prop::collection::vec(tokens(), lengths.iter().sum::<usize>()),
        advantages in prop::collection::vec(prop_oneof![9 => -3f32..3.0, 1 => Just(0.0)], lengths.len()),
        has_old in any::<bool>(),
        lengths in Just(lengths),
    ) -> Owned {
        let column = |value: fn(&TokenCase) -> f32| -> Vec<f32> {
            tokens.iter().map(|t| if t.weight != 0.0 { value(t) } else { f32::NAN }).collect()
        };
        Owned {
            train: column(|t| t.sampling + t.train),
            sampling: column(|t| t.sampling),
            old: has_old.then(|| column(|t| t.sampling + t.old)),
            reference: column(|t| t.sampling + t.reference),
            entropy: column(|t| t.entropy),
            weights: tokens.iter().map(|t| t.weight).collect(),
            advantages,
            lengths,
        }
    }
}

fn losses() -> impl Strategy<Value = PolicyLoss> {
    let clips = || (0f32..0.5, 0f32..0.5);
    let caps = || prop::option::of(1f32..2.0);
    prop_oneof![
        caps().prop_map(|ratio_cap| PolicyLoss::ImportanceSampling { ratio_cap }),
        clips().prop_map(|(clip_low, clip_high)| PolicyLoss::PpoClip { clip_low, clip_high }),
        clips().prop_map(|(low, high)| PolicyLoss::PpoRatio {
            clip_low_threshold: 1.0 - low,
            clip_high_threshold: 1.0 + high,
        }),
        (clips(), 1.1f32..2.0).prop_map(|((clip_low, clip_high), clip_ratio_c)| {
            PolicyLoss::DualClip { clip_low, clip_high, clip_ratio_c }
        }),
        clips().prop_map(|(low, high)| PolicyLoss::Cispo {
            clip_low_threshold: 1.0 - low,
            clip_high_threshold: 1.0 + high,
        }),
        (0.01f32..1.0).prop_map(|beta| PolicyLoss::Dro { beta }),
        (0f32..0.1, 0f32..0.1)
            .prop_map(|(clip_low, clip_high)| PolicyLoss::Gspo { clip_low, clip_high }),
        clips().prop_map(|(clip_low, clip_high)| PolicyLoss::Gmpo { clip_low, clip_high }),
        (clips(), 0f32..0.1, caps(), any::<bool>()).prop_map(
            |((mask_low, mask_high), squared_log_ratio, ratio_cap, kl)| PolicyLoss::Dppo {
                divergence: if kl { DppoDivergence::Kl } else { DppoDivergence::TotalVariation },
                mask_low,
                mask_high,
                squared_log_ratio,
                ratio_cap,
            }
        ),
    ]
}

fn corrections() -> impl Strategy<Value = Correction> {
    let levels = prop_oneof![
        Just(CorrectionLevel::Token),
        Just(CorrectionLevel::Sequence),
        Just(CorrectionLevel::Geometric)
    ];
    let rules = prop_oneof![Just(CorrectionRule::Truncate), Just(CorrectionRule::Mask)];
    (levels, rules, prop_oneof![Just(0.0f32), 0f32..1.0], 1f32..3.0)
        .prop_map(|(level, rule, low, high)| Correction { level, rule, low, high })
}

fn objectives() -> impl Strategy<Value = PolicyObjective> {
    let aggregation = prop_oneof![
        Just(Aggregation::TokenSum {}),
        Just(Aggregation::TokenMean {}),
        Just(Aggregation::SequenceMean {}),
        (1usize..100).prop_map(|tokens| Aggregation::ConstantLength { tokens }),
    ];
    let estimator =
        prop_oneof![Just(KlEstimator::K1), Just(KlEstimator::K2), Just(KlEstimator::K3)];
    let kl = prop::option::of(
        (estimator, 0f64..0.5)
            .prop_map(|(estimator, coefficient)| KlPenalty { estimator, coefficient }),
    );
    let eta = prop_oneof![Just(0.0), 0f64..0.1];
    (losses(), aggregation, kl, eta, prop::option::of(corrections())).prop_map(
        |(loss, aggregation, kl, entropy_coefficient, correction)| PolicyObjective {
            loss,
            aggregation,
            kl,
            entropy_coefficient,
            correction,
        },
    )
}

/// Loss and gradient by autograd in f64, written as the papers write it.
struct Dense {
    loss_sum: f64,
    gradient: Vec<f64>,
    /// The sum of the entries' magnitudes.
    size: f64,
    /// How close a value comes to a bound behind which the gradient is another: within rounding,
    /// either is right.
    to_bound: f64,
}

/// The entries trained on, of a batch, and their sequences.
struct Kept {
    places: Vec<usize>,
    /// `[M]`, the sequence of each.
    sequence: Tensor,
    /// `[S]`, entries of each sequence.
    counts: Tensor,
}

impl Kept {
    fn of(owned: &Owned) -> Self {
        let sequences =
            owned.batch().spans().enumerate().flat_map(|(s, span)| span.map(move |_| s as i64));
        let sequences: Vec<i64> = sequences.collect();
        let places: Vec<usize> =
            (0..sequences.len()).filter(|i| owned.weights[*i] != 0.0).collect();
        let sequence =
            Tensor::from_slice(&places.iter().map(|i| sequences[*i]).collect::<Vec<_>>());
        let zeros = Tensor::zeros([owned.lengths.len() as i64], (Kind::Double, Device::Cpu));
        let ones = Tensor::ones([places.len() as i64], (Kind::Double, Device::Cpu));
        let counts = zeros.index_add(0, &sequence, &ones);
        Self { places, sequence, counts }
    }

    fn column(&self, values: &[f32]) -> Tensor {
        Tensor::from_slice(&self.places.iter().map(|i| f64::from(values[*i])).collect::<Vec<_>>())
    }

    /// `[M]`: the sum over each entry's sequence.
    fn sums(&self, values: &Tensor) -> Tensor {
        self.counts
            .zeros_like()
            .index_add(0, &self.sequence, values)
            .index_select(0, &self.sequence)
    }

    /// `[M]`: the mean over each entry's sequence.
    fn means(&self, values: &Tensor) -> Tensor {
        self.sums(values) / self.counts.index_select(0, &self.sequence)
    }
}

fn by_autograd(objective: &PolicyObjective, owned: &Owned) -> Dense {
    let kept = Kept::of(owned);
    let mut to_bound = f64::INFINITY;
    let mut bounds = |values: &Tensor, low: f32, high: f32| {
        for bound in [low, high] {
            if values.numel() > 0 {
                let distance = (values.detach() - f64::from(bound)).abs().min().double_value(&[]);
                to_bound = to_bound.min(distance);
            }
        }
    };
    let clamp =
        |values: &Tensor, low: f32, high: f32| values.clamp(f64::from(low), f64::from(high));

    let advantages = kept.column(&owned.batch().spans().zip(&owned.advantages).fold(
        Vec::new(),
        |mut all, (span, advantage)| {
            all.extend(span.map(|_| *advantage));
            all
        },
    ));
    let train = kept.column(&owned.train).set_requires_grad(true);
    let sampling = kept.column(&owned.sampling);
    let old = match (&owned.old, objective.correction) {
        (Some(old), _) => kept.column(old),
        (None, Some(_)) => train.detach(),
        (None, None) => sampling.shallow_clone(),
    };
    let log_ratio = &train - &old;
    let ratio = log_ratio.exp();
    let pushed_up = advantages.gt(0.0);

    let mut clipped = |ratio: &Tensor, low: f32, high: f32| {
        bounds(ratio, low, high);
        -(ratio * &advantages).minimum(&(clamp(ratio, low, high) * &advantages))
    };
    let mut loss = match objective.loss {
        PolicyLoss::ImportanceSampling { ratio_cap } => {
            let cap = ratio_cap.map_or(f64::INFINITY, f64::from);
            let truncated = ratio.detach().clamp_max(cap) / ratio.detach();
            -(truncated * &ratio * &advantages)
        }
        PolicyLoss::PpoClip { clip_low, clip_high } => {
            clipped(&ratio, 1.0 - clip_low, 1.0 + clip_high)
        }
        PolicyLoss::PpoRatio { clip_low_threshold, clip_high_threshold } => {
            clipped(&ratio, clip_low_threshold, clip_high_threshold)
        }
        PolicyLoss::DualClip { clip_low, clip_high, clip_ratio_c } => {
            let single = clipped(&ratio, 1.0 - clip_low, 1.0 + clip_high);
            bounds(&ratio, clip_ratio_c, clip_ratio_c);
            let dual = single.minimum(&(&advantages * -f64::from(clip_ratio_c)));
            dual.where_self(&advantages.lt(0.0), &single)
        }
        PolicyLoss::Cispo { clip_low_threshold, clip_high_threshold } => {
            -(clamp(&ratio, clip_low_threshold, clip_high_threshold).detach()
                * &advantages
                * &train)
        }
        PolicyLoss::Dro { beta } => {
            -(&train * &advantages - log_ratio.square() * (0.5 * f64::from(beta)))
        }
        PolicyLoss::Gspo { clip_low, clip_high } => {
            let level = kept.means(&log_ratio).detach();
            let ratio = (level + &train - train.detach()).exp();
            clipped(&ratio, 1.0 - clip_low, 1.0 + clip_high)
        }
        PolicyLoss::Gmpo { clip_low, clip_high } => {
            bounds(&log_ratio, -clip_low, clip_high);
            let sign = advantages.sign();
            let bound = clamp(&log_ratio, -clip_low, clip_high);
            let counted = (&sign * &log_ratio).minimum(&(&sign * bound)) * &sign;
            // The published loss of a sequence is its ratio; divided among its tokens, each carries
            // its own gradient.
            let level = kept.means(&counted).detach();
            -((level + &counted - counted.detach()).exp() * &advantages)
        }
        PolicyLoss::Dppo { divergence, mask_low, mask_high, squared_log_ratio, ratio_cap } => {
            let (new, before) = (train.detach().exp(), old.exp());
            let moved = match divergence {
                DppoDivergence::TotalVariation => (&new - &before).abs(),
                DppoDivergence::Kl => {
                    let rest: Tensor = (1.0 - &before + 1e-8) / (1.0 - &new + 1e-8);
                    &before * (&old - train.detach()) + (1.0 - &before) * rest.log()
                }
            };
            bounds(&moved, mask_low, mask_high);
            let up = pushed_up
                .logical_and(&new.gt_tensor(&before))
                .logical_and(&moved.gt(f64::from(mask_high)));
            let down = pushed_up.logical_not().logical_and(&new.lt_tensor(&before));
            let masked = up.logical_or(&down.logical_and(&moved.gt(f64::from(mask_low))));
            let cap = ratio_cap.map_or(f64::INFINITY, f64::from);
            let truncated = ratio.detach().clamp_max(cap) / ratio.detach();
            let push = -(truncated * &ratio * &advantages).masked_fill(&masked, 0.0);
            push + log_ratio.square() * f64::from(squared_log_ratio)
        }
    };

    if let Some(Correction { level, rule, low, high }) = objective.correction {
        let to_sampler =
            if owned.old.is_some() { &old - &sampling } else { train.detach() - &sampling };
        let ratio = match level {
            CorrectionLevel::Token => to_sampler,
            CorrectionLevel::Sequence => kept.sums(&to_sampler),
            CorrectionLevel::Geometric => kept.means(&to_sampler),
        };
        let ratio = ratio.exp();
        bounds(&ratio, low, high);
        loss *= match rule {
            CorrectionRule::Truncate => clamp(&ratio, low, high),
            CorrectionRule::Mask => {
                let outside = ratio.lt(f64::from(low)).logical_or(&ratio.gt(f64::from(high)));
                ratio.masked_fill(&outside, 0.0)
            }
        };
    }
    if let Some(kl) = objective.kl {
        let d = &train - kept.column(&owned.reference);
        let value = match kl.estimator {
            KlEstimator::K1 => d.shallow_clone(),
            KlEstimator::K2 => d.square() / 2.0,
            KlEstimator::K3 => (-&d).exp() - 1.0 + &d,
        };
        loss += value * kl.coefficient;
    }
    loss -= kept.column(&owned.entropy) * objective.entropy_coefficient;

    loss *= kept.column(&owned.weights);
    if objective.aggregation == (Aggregation::SequenceMean {}) {
        loss /= kept.counts.index_select(0, &kept.sequence);
    }
    let size = loss.abs().sum(Kind::Double).double_value(&[]);
    let loss = loss.sum(Kind::Double);
    let mut gradient = vec![0.0; owned.weights.len()];
    if !kept.places.is_empty() {
        loss.backward();
        let grads = Vec::<f64>::try_from(&train.grad()).unwrap();
        kept.places.iter().zip(grads).for_each(|(i, g)| gradient[*i] = g);
    }
    Dense { loss_sum: loss.double_value(&[]), gradient, size, to_bound }
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 3e-6 * (scale + b.abs())
}

fn assert_agree(a: &LossOutcome, b: &LossOutcome, loss_size: f64) {
    let size = a.metrics.policy.tokens as f64;
    assert!(close(a.loss_sum, b.loss_sum, size + loss_size), "{} {}", a.loss_sum, b.loss_sum);
    assert_eq!(a.denominator, b.denominator);
    a.gradient
        .iter()
        .zip(&b.gradient)
        .for_each(|(a, b)| assert!(close((*a).into(), (*b).into(), 1.0), "{a} {b}"));
    assert_eq!(a.entropy_gradient, b.entropy_gradient);
    let (m, n) = (&a.metrics.policy, &b.metrics.policy);
    assert_eq!((m.tokens, m.entropy_tokens), (n.tokens, n.entropy_tokens));
    // A ratio within a rounding of its bound may count on either side of it.
    assert!(m.clipped.abs_diff(n.clipped) <= 1);
    let sums = [
        (m.ratio_excess, n.ratio_excess),
        (m.kl_k1, n.kl_k1),
        (m.kl_k3, n.kl_k3),
        (m.gap, n.gap),
        (m.reference_kl, n.reference_kl),
        (m.entropy, n.entropy),
    ];
    sums.iter().for_each(|(a, b)| assert!(close(*a, *b, size), "{m:?} {n:?}"));
    assert_relative_eq!(m.ratio_min, n.ratio_min, max_relative = 1e-6);
    assert_relative_eq!(m.ratio_max, n.ratio_max, max_relative = 1e-6);
    assert_eq!(m.gap_max, n.gap_max);
}

fn to_vecs(outcome: LossOutcome<Tensor>) -> LossOutcome {
    let host = |tensor: &Tensor| Vec::<f32>::try_from(tensor).unwrap();
    LossOutcome {
        loss_sum: outcome.loss_sum,
        denominator: outcome.denominator,
        gradient: host(&outcome.gradient),
        entropy_gradient: outcome.entropy_gradient.as_ref().map(host),
        metrics: outcome.metrics,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn value_and_gradient_are_those_of_autograd(owned in batches(), objective in objectives()) {
        let dense = by_autograd(&objective, &owned);
        prop_assume!(dense.to_bound > 1e-5);
        let batch = owned.batch();
        let outcome = objective.evaluate(&batch, &owned.train, Some(&owned.entropy), &batch.totals().unwrap()).unwrap();
        let tokens = outcome.metrics.policy.tokens as f64;
        let loss_sum = outcome.loss_sum;
        prop_assert!(close(loss_sum, dense.loss_sum, tokens + dense.size), "{loss_sum} {}", dense.loss_sum);
        for (ours, theirs) in outcome.gradient.iter().zip(dense.gradient) {
            prop_assert!(close((*ours).into(), theirs, 1.0), "{ours} {theirs}");
        }
    }

    #[test]
    fn the_libtorch_form_agrees_with_the_native_one(owned in batches(), objective in objectives()) {
        let (batch, scores) = (owned.batch(), owned.scores());
        let totals = batch.totals().unwrap();
        let native = objective.evaluate_scores(&batch, &scores, &totals).unwrap();
        if let Some(libtorch) = tensor::evaluate(&objective, &batch, &scores, &totals).unwrap() {
            assert_agree(&to_vecs(native), &to_vecs(libtorch), 1.0);
        }
    }

    #[test]
    fn micro_batches_give_the_gradient_of_one_batch(owned in batches(), objective in objectives(), cut in 0usize..12) {
        let all: Vec<usize> = (0..owned.lengths.len()).collect();
        let (first, second) = all.split_at(cut.min(all.len()));
        let parts = [owned.select(first), owned.select(second)];
        let mut totals = StepTotals::default();
        parts.iter().for_each(|part| totals.merge(&part.batch().totals().unwrap()));
        let batch = owned.batch();
        // Pairs add up where none is cut, which no policy loss cares for.
        totals.trained_pairs = batch.totals().unwrap().trained_pairs;
        prop_assert_eq!(totals, batch.totals().unwrap());

        let whole = objective.evaluate(&batch, &owned.train, Some(&owned.entropy), &totals).unwrap();
        let parts = parts.map(|part| {
            objective.evaluate(&part.batch(), &part.train, Some(&part.entropy), &totals).unwrap()
        });
        let mut merged = parts[0].clone();
        merged.loss_sum += parts[1].loss_sum;
        merged.metrics.merge(&parts[1].metrics);
        merged.gradient.extend(&parts[1].gradient);
        if let (Some(merged), Some(other)) = (&mut merged.entropy_gradient, &parts[1].entropy_gradient) {
            merged.extend(other);
        }
        prop_assert_eq!(&merged.gradient, &whole.gradient, "bit for bit");
        assert_agree(&merged, &whole, by_autograd(&objective, &owned).size);
    }

    #[test]
    fn the_order_of_sequences_changes_no_gradient(
        owned in batches(),
        objective in objectives(),
        keys in prop::collection::vec(any::<u32>(), 12),
    ) {
        let mut order: Vec<usize> = (0..owned.lengths.len()).collect();
        order.sort_by_key(|sequence| keys[*sequence]);
        let totals = owned.batch().totals().unwrap();
        let evaluate = |owned: &Owned| {
            objective.evaluate(&owned.batch(), &owned.train, Some(&owned.entropy), &totals).unwrap()
        };
        let there = evaluate(&owned.select(&order));
        let here = evaluate(&owned);

        let spans: Vec<_> = owned.batch().spans().collect();
        let moved: Vec<f32> = order.iter().flat_map(|s| here.gradient[spans[*s].clone()].to_vec()).collect();
        prop_assert_eq!(moved, there.gradient, "bit for bit");
        let size = by_autograd(&objective, &owned).size + here.metrics.policy.tokens as f64;
        prop_assert!(close(here.loss_sum, there.loss_sum, size));
    }

    #[test]
    fn what_ignores_zero_advantages_has_no_gradient_at_one(owned in batches(), objective in objectives()) {
        let batch = owned.batch();
        let outcome = objective.evaluate(&batch, &owned.train, Some(&owned.entropy), &batch.totals().unwrap()).unwrap();
        for (span, advantage) in batch.spans().zip(&owned.advantages) {
            if *advantage == 0.0 && objective.ignores_zero_advantages() {
                prop_assert!(outcome.gradient[span].iter().all(|gradient| *gradient == 0.0));
            }
        }
    }
}

fn one_token<'a>(sampling: &'a [f32], weights: Option<&'a [f32]>) -> LossBatch<'a> {
    LossBatch {
        weights,
        sampling_logprobs: Some(sampling),
        advantages: Some(TokenAdvantages::PerToken(&[1.0])),
        ..LossBatch::of(&[1])
    }
}

fn evaluate(batch: &LossBatch, train: &[f32]) -> Result<LossOutcome, LossError> {
    PolicyObjective::default().evaluate(batch, train, None, &StepTotals::default())
}

#[test]
fn equal_policies_have_a_ratio_of_exactly_one() {
    let outcome = evaluate(&one_token(&[-3.7], None), &[-3.7]).unwrap();
    assert_eq!((outcome.loss_sum, outcome.gradient[0]), (-1.0, -1.0));
    let metrics = outcome.metrics.policy;
    assert_eq!((metrics.ratio_mean(), metrics.ratio_min, metrics.ratio_max), (Some(1.0), 1.0, 1.0));
    assert_eq!(
        (metrics.kl_k1_mean(), metrics.kl_k3_mean(), metrics.logprob_gap()),
        (Some(0.0), Some(0.0), Some(0.0))
    );
}

#[test]
fn a_batch_that_is_all_masked_has_no_loss_and_no_metrics() {
    let outcome = evaluate(&one_token(&[f32::NAN], Some(&[0.0])), &[f32::NEG_INFINITY]).unwrap();
    assert_eq!((outcome.loss(), outcome.denominator, outcome.gradient), (0.0, 1.0, vec![0.0]));
    assert_eq!(
        (outcome.metrics.policy, outcome.metrics.policy.ratio_mean()),
        (PolicyMetrics::default(), None)
    );
}

#[test]
fn ppo_clips_only_what_the_advantage_already_pushed() {
    let objective = PolicyObjective {
        loss: PolicyLoss::PpoClip { clip_low: 0.2, clip_high: 0.3 },
        ..PolicyObjective::default()
    };
    let ratios = [0.5f32, 0.5, 2.0, 2.0, 1.25];
    let train: Vec<f32> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let batch = LossBatch {
        sampling_logprobs: Some(&[0.0; 5]),
        advantages: Some(TokenAdvantages::PerToken(&[1.0, -1.0, 1.0, -1.0, 1.0])),
        ..LossBatch::of(&[5])
    };
    let outcome = objective.evaluate(&batch, &train, None, &batch.totals().unwrap()).unwrap();
    assert_relative_eq!(
        outcome.gradient.as_slice(),
        [-0.5, 0.0, 0.0, 2.0, -1.25].as_slice(),
        max_relative = 1e-6
    );
    assert_relative_eq!(outcome.loss_sum, -0.5 + 0.8 - 1.3 + 2.0 - 1.25, max_relative = 1e-6);
    assert_eq!(outcome.metrics.policy.clipped_share(), Some(0.4));
}

#[test]
fn values_that_are_not_finite_are_named() {
    let error = evaluate(&one_token(&[-1.0], None), &[f32::NAN]).unwrap_err();
    assert!(
        matches!(error, LossError::NonFinite { argument: "logprobs", index: 0, .. }),
        "{error}"
    );
    let error = evaluate(&one_token(&[f32::NEG_INFINITY], None), &[-1.0]).unwrap_err();
    assert!(
        matches!(error, LossError::NonFinite { argument: "sampling_logprobs", index: 0, .. }),
        "{error}"
    );
    let error = evaluate(&one_token(&[-100.0], None), &[-1.0]).unwrap_err();
    assert!(
        matches!(error, LossError::RatioOverflow { index: 0, logprob: -1.0, sampling: -100.0 }),
        "{error}"
    );
    let batch = LossBatch {
        advantages: Some(TokenAdvantages::PerToken(&[f32::NAN])),
        ..one_token(&[-1.0], None)
    };
    assert!(matches!(
        evaluate(&batch, &[-1.0]),
        Err(LossError::NonFinite { argument: "advantages", .. })
    ));
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let batch = one_token(&[-1.0], None);
    assert!(matches!(evaluate(&batch, &[]), Err(LossError::Length { argument: "logprobs", .. })));
    let batch = LossBatch { sequence_lengths: &[2], ..batch };
    assert!(matches!(
        evaluate(&batch, &[-1.0]),
        Err(LossError::Length { argument: "sampling_logprobs", .. })
    ));
    let batch = LossBatch {
        advantages: Some(TokenAdvantages::PerSequence(&[])),
        ..one_token(&[-1.0], None)
    };
    assert!(matches!(
        evaluate(&batch, &[-1.0]),
        Err(LossError::Length { argument: "advantages", .. })
    ));
    let batch = one_token(&[-1.0], None);
    let objective =
        PolicyObjective { kl: Some(KlPenalty::default()), ..PolicyObjective::default() };
    let result = objective.evaluate(&batch, &[-1.0], None, &StepTotals::default());
    assert!(matches!(result, Err(LossError::Missing { argument: "reference_logprobs", .. })));
    let objective = PolicyObjective { entropy_coefficient: 0.1, ..PolicyObjective::default() };
    let result = objective.evaluate(&batch, &[-1.0], None, &StepTotals::default());
    assert!(matches!(result, Err(LossError::Missing { argument: "entropy", .. })));
}

#[test]
fn settings_out_of_range_are_refused() {
    let bad = [
        PolicyObjective {
            loss: PolicyLoss::ImportanceSampling { ratio_cap: Some(0.5) },
            ..Default::default()
        },
        PolicyObjective {
            loss: PolicyLoss::PpoClip { clip_low: 1.5, clip_high: 0.2 },
            ..Default::default()
        },
        PolicyObjective {
            loss: PolicyLoss::PpoClip { clip_low: 0.2, clip_high: -0.1 },
            ..Default::default()
        },
        PolicyObjective {
            aggregation: Aggregation::ConstantLength { tokens: 0 },
            ..Default::default()
        },
        PolicyObjective {
            kl: Some(KlPenalty { coefficient: -1.0, ..Default::default() }),
            ..Default::default()
        },
        PolicyObjective { entropy_coefficient: f64::NAN, ..Default::default() },
    ];
    for objective in bad {
        assert!(matches!(objective.validate(), Err(LossError::Config { .. })), "{objective:?}");
    }
}

#[test]
fn an_objective_reads_from_toml() {
    let text = "loss = { kind = 'ppo_clip', clip_high = 0.28 }\naggregation = { kind = 'constant_length', tokens = 64 }\nkl = { estimator = 'k2' }";
    let expected = PolicyObjective {
        loss: PolicyLoss::PpoClip { clip_low: 0.2, clip_high: 0.28 },
        aggregation: Aggregation::ConstantLength { tokens: 64 },
        kl: Some(KlPenalty { estimator: KlEstimator::K2, coefficient: 1e-3 }),
        entropy_coefficient: 0.0,
        correction: None,
    };
    assert_eq!(toml::from_str::<PolicyObjective>(text).unwrap(), expected);
    assert!(toml::from_str::<PolicyObjective>("loss = { kind = 'ppo_clip', clip = 0.2 }").is_err());
    assert!(
        toml::from_str::<PolicyObjective>("aggregation = { kind = 'token_mean', tokens = 2 }")
            .is_err()
    );
}
