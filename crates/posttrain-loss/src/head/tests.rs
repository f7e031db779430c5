//! The head held to the dense computation, by autograd in f64.

use super::*;
use crate::aggregate::StepTotals;
use crate::batch::{LossBatch, TokenAdvantages};
use crate::error::LogitProblem;
use crate::objective::Objective;
use crate::policy::{PolicyLoss, PolicyObjective};
use posttrain_tensor::TensorError;
use tch::{Device, IndexOp};

const OPTIONS: HeadOptions = HeadOptions { temperature: 0.7, chunk_tokens: 7 };

struct Case {
    hidden: Tensor,
    weight: Tensor,
    /// `[N]`, or `[N, K]`.
    targets: Tensor,
    gradients: TokenGradients,
}

/// Values between -1 and 1, the same everywhere.
fn noise(sizes: &[i64], seed: f64) -> Tensor {
    let count: i64 = sizes.iter().product();
    let places = Tensor::arange(count, (Kind::Double, Device::Cpu));
    ((places * 12.9898 + seed).sin() * 43_758.547).frac().to_kind(Kind::Float).view(sizes)
}

fn case(tokens: i64, vocab: i64, kind: Kind) -> Case {
    let width = 24;
    let targets =
        (noise(&[tokens], 3.0).abs() * vocab as f64).floor().clamp_max((vocab - 1) as f64);
    // Every third token is masked.
    let mask =
        Tensor::arange(tokens, (Kind::Int64, Device::Cpu)).remainder(3).gt(0).to_kind(Kind::Float);
    Case {
        hidden: (noise(&[tokens, width], 1.0) * 2.0).to_kind(kind),
        weight: noise(&[vocab, width], 2.0).to_kind(kind),
        targets: targets.to_kind(Kind::Int64),
        gradients: TokenGradients {
            logprobs: noise(&[tokens], 4.0) * &mask,
            entropy: Some(noise(&[tokens], 5.0) * &mask),
        },
    }
}

/// The same with `each` targets per row, of which the second is the first again, and the third
/// masked in every row.
fn with_targets(case: Case, each: i64, vocab: i64) -> Case {
    let rows = case.hidden.size()[0];
    let targets =
        (noise(&[rows, each], 8.0).abs() * vocab as f64).floor().clamp_max((vocab - 1) as f64);
    let targets = targets.to_kind(Kind::Int64);
    let by_logprob = noise(&[rows, each], 9.0)
        * case.gradients.logprobs.ne(0.0).to_kind(Kind::Float).unsqueeze(-1);
    if each > 1 {
        targets.i((.., 1)).copy_(&targets.i((.., 0)));
    }
    if each > 2 {
        let _ = by_logprob.i((.., 2)).zero_();
    }
    let gradients =
        TokenGradients { logprobs: by_logprob.reshape([-1]), entropy: case.gradients.entropy };
    Case { targets, gradients, ..case }
}

fn adapter(vocab: i64) -> HeadAdapter {
    HeadAdapter { a: noise(&[3, 24], 6.0), b: noise(&[vocab, 3], 7.0), scale: 0.5 }
}

/// Scores and gradients of the dense computation, by autograd in f64: log-probabilities, entropies,
/// and the gradients by hidden states, A and B.
fn dense(case: &Case, options: HeadOptions, adapter: Option<&HeadAdapter>) -> [Tensor; 5] {
    let leaf = |tensor: &Tensor| tensor.to_kind(Kind::Double).set_requires_grad(true);
    let hidden = leaf(&case.hidden);
    let mut logits = hidden.mm(&case.weight.to_kind(Kind::Double).tr());
    let matrices = adapter.map(|adapter| (leaf(&adapter.a), leaf(&adapter.b), adapter.scale));
    if let Some((a, b, scale)) = &matrices {
        logits += hidden.mm(&a.tr()).mm(&b.tr()) * *scale;
    }
    let all = (logits / options.temperature).log_softmax(-1, Kind::Double);
    let logprobs =
        all.gather(-1, &case.targets.view([case.hidden.size()[0], -1]), false).reshape([-1]);
    let entropy = -(all.exp() * &all).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let loss = (&logprobs * &case.gradients.logprobs).sum(Kind::Double);
    let loss = loss + (&entropy * case.gradients.entropy.as_ref().unwrap()).sum(Kind::Double);
    loss.backward();
    let empty = || Tensor::zeros([0], (Kind::Double, Device::Cpu));
    let (a, b) = matrices.map_or_else(|| (empty(), empty()), |(a, b, _)| (a.grad(), b.grad()));
    [logprobs.detach(), entropy.detach(), hidden.grad(), a, b]
}

fn ours(head: &Head, case: &Case) -> [Tensor; 5] {
    let scores = head.scores(&case.hidden, &case.targets).unwrap();
    let gradients = head.backward(&case.hidden, &case.targets, &scores, &case.gradients).unwrap();
    let empty = || Tensor::zeros([0], (Kind::Double, Device::Cpu));
    let (a, b) =
        gradients.adapter.map_or_else(|| (empty(), empty()), |adapter| (adapter.a, adapter.b));
    [scores.logprobs, scores.entropy, gradients.hidden, a, b]
}

/// Each tensor within a tolerance, relative to its largest value.
fn assert_close(ours: &[Tensor], theirs: &[Tensor], tolerance: f64) {
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.size(), theirs.size());
        if ours.numel() > 0 {
            let error = (ours.to_kind(Kind::Double) - theirs.to_kind(Kind::Double))
                .abs()
                .max()
                .double_value(&[]);
            let size = theirs.abs().max().double_value(&[]);
            assert!(error <= tolerance * size, "result {i}: {error} of {size}");
        }
    }
}

fn both(weight: &Tensor, options: HeadOptions) -> [Head; 2] {
    let native = Head::new(weight, options).unwrap();
    let libtorch = Head { arithmetic: Arithmetic::Libtorch, ..Head::new(weight, options).unwrap() };
    [native, libtorch]
}

#[test]
fn scores_and_gradients_are_those_of_the_dense_computation() {
    for (tokens, vocab) in [(1, 1), (1, 300), (20, 15), (20, 16), (33, 1500), (9, 2500)] {
        let case = case(tokens, vocab, Kind::Float);
        let expected = dense(&case, OPTIONS, None);
        for head in both(&case.weight, OPTIONS) {
            if vocab == 1 {
                assert_close(&ours(&head, &case)[..1], &[Tensor::from_slice(&[0f32])], 0.0);
            } else {
                assert_close(&ours(&head, &case), &expected, 2e-5);
            }
        }
    }
}

#[test]
fn several_targets_per_row_share_its_normalizer() {
    for (rows, vocab, each) in [(1, 8, 2), (20, 16, 1), (20, 16, 5), (33, 1500, 3), (9, 2500, 64)] {
        let case = with_targets(case(rows, vocab, Kind::Float), each, vocab);
        let expected = dense(&case, OPTIONS, Some(&adapter(vocab)));
        for head in both(&case.weight, OPTIONS) {
            let head = head.with_adapter(adapter(vocab)).unwrap();
            assert_close(&ours(&head, &case), &expected, 2e-5);
        }
    }
}

#[test]
fn one_target_per_row_is_the_same_in_either_shape() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let flat = case(33, 600, kind);
        let shaped = Case { targets: flat.targets.unsqueeze(-1), ..case(33, 600, kind) };
        let head = Head::new(&flat.weight, OPTIONS).unwrap();
        for (ours, theirs) in ours(&head, &shaped).iter().zip(ours(&head, &flat)) {
            assert_eq!(ours, &theirs, "bit for bit");
        }
    }
}

#[test]
fn bf16_rounds_a_doubled_target_once() {
    let case = with_targets(case(40, 1100, Kind::BFloat16), 4, 1100);
    let expected = dense(&case, OPTIONS, Some(&adapter(1100)));
    for head in both(&case.weight, OPTIONS) {
        let head = head.with_adapter(adapter(1100)).unwrap();
        assert_close(&ours(&head, &case), &expected, 0.03);
    }
}

#[test]
fn a_masked_target_beside_others_may_be_impossible() {
    let mut case = case(3, 50, Kind::Float);
    case.hidden = case.hidden.abs() + 0.1;
    case.targets = Tensor::from_slice(&[7i64, 1, 1, 7, 2, 3]).view([3, 2]);
    let impossible = case.weight.index_fill(0, &Tensor::from_slice(&[7i64]), f64::NEG_INFINITY);
    for head in both(&impossible, OPTIONS) {
        let scores = head.scores(&case.hidden, &case.targets).unwrap();
        assert_eq!(scores.logprobs.double_value(&[0]), f64::NEG_INFINITY);
        assert_eq!(scores.logprobs.double_value(&[3]), f64::NEG_INFINITY);
        let finite = Head {
            arithmetic: head.arithmetic,
            ..Head::new(&case.weight.clamp_min(-1e30), OPTIONS).unwrap()
        };
        let gradients = TokenGradients {
            logprobs: Tensor::from_slice(&[0f32, 1.0, 1.0, 0.0, 1.0, 1.0]),
            entropy: None,
        };
        let gradients = finite.backward(&case.hidden, &case.targets, &scores, &gradients).unwrap();
        assert!(gradients.hidden.isfinite().all().int64_value(&[]) == 1);
        assert!(gradients.hidden.i(0).abs().max().double_value(&[]) > 0.0);
    }
    // Where the impossible one is trained on, it is named by its entry.
    let head = Head::new(&impossible, OPTIONS).unwrap();
    let scores = head.scores(&case.hidden, &case.targets).unwrap();
    let gradients = TokenGradients {
        logprobs: Tensor::from_slice(&[0f32, 1.0, 1.0, 1.0, 1.0, 1.0]),
        entropy: None,
    };
    let error = head.backward(&case.hidden, &case.targets, &scores, &gradients).unwrap_err();
    assert!(
        matches!(error, LossError::NonFinite { argument: "scores.logprobs", index: 3, .. }),
        "{error}"
    );
}

/// Rows of three targets each, the entropy bonus on; what the walk gives is what the three calls
/// give, and autograd.
#[test]
fn a_step_with_several_targets_per_row_is_the_three_calls_in_turn() {
    let rows = 33;
    let case = with_targets(case(rows, 600, Kind::Float), 3, 600);
    let entries = 3 * rows as usize;
    let sampling: Vec<f32> = (0..entries).map(|i| -6.0 - 0.01 * i as f32).collect();
    let weights: Vec<f32> = (0..entries).map(|i| [1.0, 0.5, 0.0, 2.0][i % 4]).collect();
    let batch = LossBatch {
        weights: Some(&weights),
        sampling_logprobs: Some(&sampling),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, 2.0, -1.0])),
        ..LossBatch::of(&[30, 60, 9])
    };
    let objective = PolicyObjective { entropy_coefficient: 0.1, ..PolicyObjective::default() };
    let totals = batch.totals().unwrap();
    let step = Step { objective: &objective, batch: &batch, totals: &totals };
    let [native, libtorch] = both(&case.weight, OPTIONS)
        .map(|head| head.step(&case.hidden, &case.targets, step).unwrap());
    for step in [&native, &libtorch] {
        assert_eq!(step.scores.logprobs.size(), [99]);
        assert_eq!(step.scores.entropy.size(), [33]);
        assert_eq!(step.outcome.gradient.size(), [99]);
        let by_entropy = step.outcome.entropy_gradient.as_ref().unwrap();
        let expected: Vec<f32> =
            weights.chunks(3).map(|weights| -0.1 * weights.iter().sum::<f32>()).collect();
        assert_close(&[by_entropy.shallow_clone()], &[Tensor::from_slice(&expected)], 1e-6);
    }
    assert!((native.outcome.loss() - libtorch.outcome.loss()).abs() < 1e-5);
    assert_close(&[native.gradients.hidden.shallow_clone()], &[libtorch.gradients.hidden], 2e-5);

    // Autograd through the dense logits, the ratios' loss and the entropies.
    let gradients = native.outcome.token_gradients().unwrap();
    let dense = dense(&Case { gradients, ..case }, OPTIONS, None);
    assert_close(&[native.gradients.hidden], &dense[2..3], 2e-5);
}

/// Preferences need whole sequences: scores, loss and gradient in turn.
#[test]
fn a_step_of_pairs_is_the_three_calls_in_turn() {
    let case = case(33, 600, Kind::Float);
    let reference = [-6.0f32; 33];
    let batch =
        LossBatch { reference_logprobs: Some(&reference), ..LossBatch::of(&[10, 5, 3, 15]) };
    let totals = batch.totals().unwrap();
    let objective = crate::preference::Dpo::default();
    for head in both(&case.weight, OPTIONS) {
        let step = Step { objective: &objective, batch: &batch, totals: &totals };
        let step = head.step(&case.hidden, &case.targets, step).unwrap();
        let (logprobs, entropy) = step.scores.to_vecs().unwrap();
        let outcome = objective.evaluate(&batch, &logprobs, Some(&entropy), &totals).unwrap();
        assert_eq!(Vec::<f32>::try_from(&step.outcome.gradient).unwrap(), outcome.gradient);
        assert_eq!(step.outcome.metrics, outcome.metrics);
        let gradients = outcome.token_gradients().unwrap();
        let gradients =
            head.backward(&case.hidden, &case.targets, &step.scores, &gradients).unwrap();
        assert_eq!(step.gradients.hidden, gradients.hidden);
    }
}

#[test]
fn an_adapter_on_the_head_has_its_gradients_too() {
    let case = case(20, 700, Kind::Float);
    let expected = dense(&case, OPTIONS, Some(&adapter(700)));
    for head in both(&case.weight, OPTIONS) {
        let head = head.with_adapter(adapter(700)).unwrap();
        assert_close(&ours(&head, &case), &expected, 2e-5);
    }
}

/// bf16 keeps eight bits: logits of up to 10 are off by up to 0.03, and their gradient by 0.4%
/// each.
#[test]
fn bf16_stays_within_its_rounding() {
    let case = case(40, 1100, Kind::BFloat16);
    let expected = dense(&case, OPTIONS, Some(&adapter(1100)));
    for head in both(&case.weight, OPTIONS) {
        let head = head.with_adapter(adapter(1100)).unwrap();
        assert_close(&ours(&head, &case), &expected, 0.03);
    }
}

#[test]
fn the_size_of_a_chunk_changes_nothing() {
    let case = case(33, 600, Kind::Float);
    let whole = ours(
        &Head::new(&case.weight, HeadOptions { chunk_tokens: 1000, ..OPTIONS }).unwrap(),
        &case,
    );
    for chunk_tokens in [1, 2, 32, 33] {
        let head = Head::new(&case.weight, HeadOptions { chunk_tokens, ..OPTIONS }).unwrap();
        // libtorch's product sums in another order for another number of rows.
        assert_close(&ours(&head, &case), &whole, 1e-5);
    }
}

#[test]
fn masked_tokens_have_no_gradient_even_where_the_target_is_impossible() {
    let mut case = case(4, 50, Kind::Float);
    case.weight = case.weight.index_fill(0, &Tensor::from_slice(&[7i64]), f64::NEG_INFINITY);
    case.hidden = case.hidden.abs() + 0.1;
    case.targets = Tensor::from_slice(&[7i64, 1, 2, 7]);
    let head = Head::new(&case.weight, OPTIONS).unwrap();
    let scores = head.scores(&case.hidden, &case.targets).unwrap();
    assert_eq!(scores.logprobs.double_value(&[0]), f64::NEG_INFINITY);
    assert!(scores.entropy.isfinite().all().int64_value(&[]) == 1);
    let gradients =
        TokenGradients { logprobs: Tensor::from_slice(&[0f32, 1.0, 1.0, 0.0]), entropy: None };
    case.weight = case.weight.clamp_min(-1e30);
    let finite = Head::new(&case.weight, OPTIONS).unwrap();
    let gradients = finite.backward(&case.hidden, &case.targets, &scores, &gradients).unwrap();
    assert_eq!(gradients.hidden.i(0).abs().max().double_value(&[]), 0.0);
    assert!(gradients.hidden.i(1).abs().max().double_value(&[]) > 0.0);
    let gradients =
        TokenGradients { logprobs: Tensor::from_slice(&[1f32, 1.0, 1.0, 0.0]), entropy: None };
    let error = finite.backward(&case.hidden, &case.targets, &scores, &gradients).unwrap_err();
    assert!(
        matches!(error, LossError::NonFinite { argument: "scores.logprobs", index: 0, .. }),
        "{error}"
    );
}

#[test]
fn the_fused_step_is_the_three_calls_in_turn() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let case = case(33, 600, kind);
        let sampling: Vec<f32> = (0..33).map(|i| -5.0 - 0.1 * i as f32).collect();
        let weights: Vec<f32> = (0..33).map(|i| if i % 4 != 1 { 1.0 } else { 0.0 }).collect();
        let batch = LossBatch {
            weights: Some(&weights),
            sampling_logprobs: Some(&sampling),
            advantages: Some(TokenAdvantages::PerSequence(&[1.0, 2.0, -1.0, 0.5])),
            ..LossBatch::of(&[10, 0, 20, 3])
        };
        let loss = PolicyLoss::ImportanceSampling { ratio_cap: Some(3.0) };
        let objective =
            PolicyObjective { loss, entropy_coefficient: 0.1, ..PolicyObjective::default() };
        let totals = StepTotals { tokens: 100, ..batch.totals().unwrap() };
        let step = Step { objective: &objective, batch: &batch, totals: &totals };
        let head = || Head::new(&case.weight, OPTIONS).unwrap().with_adapter(adapter(600)).unwrap();
        let fused = head().step(&case.hidden, &case.targets, step).unwrap();
        let scores = head().scores(&case.hidden, &case.targets).unwrap();
        let outcome = objective.evaluate_scores(&batch, &scores, &totals).unwrap();
        let by_token = outcome.token_gradients().unwrap();
        let gradients = head().backward(&case.hidden, &case.targets, &scores, &by_token).unwrap();
        assert_eq!(fused.scores.to_vecs().unwrap(), scores.to_vecs().unwrap());
        assert_eq!(fused.outcome.metrics.policy.tokens, outcome.metrics.policy.tokens);
        assert!((fused.outcome.loss() - outcome.loss()).abs() < 1e-9);
        let (ours, theirs) = (fused.gradients.adapter.unwrap(), gradients.adapter.unwrap());
        assert_close(
            &[fused.gradients.hidden, ours.a, ours.b],
            &[gradients.hidden, theirs.a, theirs.b],
            1e-6,
        );
    }
}

#[test]
fn the_surrogate_has_the_gradient_that_it_is_given() {
    let hidden = noise(&[3, 4], 1.0).to_kind(Kind::BFloat16).set_requires_grad(true);
    let gradient = noise(&[3, 4], 2.0).to_kind(Kind::BFloat16);
    surrogate(&hidden, &gradient).unwrap().backward();
    assert_eq!(hidden.grad(), gradient);
}

#[test]
fn no_tokens_are_no_work() {
    let case = case(0, 50, Kind::Float);
    for head in both(&case.weight, OPTIONS) {
        assert_eq!(ours(&head, &case)[2].size(), [0, 24]);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let case = case(4, 50, Kind::Float);
    let head = Head::new(&case.weight, OPTIONS).unwrap();
    let scores = |hidden: &Tensor, targets: &Tensor| head.scores(hidden, targets).unwrap_err();
    let error = scores(&case.hidden.narrow(1, 0, 5), &case.targets);
    assert!(matches!(error, LossError::Tensor(TensorError::Shape { argument: "hidden", .. })));
    let error = scores(&case.hidden, &case.targets.narrow(0, 0, 3));
    assert!(matches!(error, LossError::Tensor(TensorError::Shape { argument: "targets", .. })));
    let error = scores(&case.hidden.to_kind(Kind::BFloat16), &case.targets);
    assert!(matches!(error, LossError::Tensor(TensorError::Kind { argument: "hidden", .. })));
    let error = scores(&case.hidden, &Tensor::from_slice(&[0i64, 1, 50, 2]));
    assert!(matches!(error, LossError::Target { index: 2, token: 50, vocab: 50 }));
    let error = Head::new(&case.weight, HeadOptions { chunk_tokens: 0, ..OPTIONS }).unwrap_err();
    assert!(matches!(error, LossError::Config { field: "chunk_tokens", .. }));
    let error = Head::new(&case.weight, OPTIONS).unwrap().with_adapter(adapter(49)).unwrap_err();
    assert!(matches!(error, LossError::Tensor(TensorError::Shape { argument: "adapter.b", .. })));
}

#[test]
fn a_row_of_logits_without_a_distribution_is_named() {
    let mut case = case(20, 50, Kind::Float);
    case.hidden = case.hidden.index_fill(0, &Tensor::from_slice(&[11i64]), f64::NAN);
    for head in both(&case.weight, OPTIONS) {
        let error = head.scores(&case.hidden, &case.targets).unwrap_err();
        assert!(
            matches!(error, LossError::Logits { row: 11, problem: LogitProblem::Nan }),
            "{error}"
        );
    }
}
