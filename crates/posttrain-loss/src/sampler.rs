//! The token sampler: one token a row of logits, and its log-probability under the distribution
//! that it came from.

mod choice;
mod columns;
mod row;
mod tensor;
mod truncation;

pub use row::RowSampling;

use crate::error::{LogitProblem, LossError, Operation, check_len};
use posttrain_tensor::{Element, TensorError, Values, check_shape, values};
use rayon::prelude::*;
use tch::{Device, Tensor};

/// A token for each row of logits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sampled {
    /// `[B]`, the token of each row.
    pub tokens: Vec<i64>,
    /// `[B]`, its log-probability in nats under the processed distribution (temperature,
    /// truncation, renormalized). For a greedy row: under the softmax of the logits as they are
    /// (temperature 1, nothing truncated).
    pub logprobs: Vec<f32>,
}

/// Draws one token a row.
///
/// `logits: [B, V]`, f32 or bf16, any device, no gradient flows; `rows: [B]`. A logit of -inf is
/// never drawn.
///
/// With `z = logits / temperature`, truncated in the order of `transformers` (top-k, then top-p of
/// what top-k left, then min-p), a row's token is the first, in the order of the vocabulary, at
/// which the cumulative probability exceeds `uniform`. The caller supplies the uniform, so the
/// function is pure: the same row gives the same token whatever else is in the batch.
///
/// On the CPU a native kernel reads each row once (in f32, sums of blocks in f64) and never sorts
/// it; elsewhere libtorch computes the same function.
///
/// # Errors
/// [`LossError::Tensor`] and [`LossError::Length`] for arguments that do not fit;
/// [`LossError::Config`] for a row's parameter out of range; [`LossError::Logits`] naming the first
/// row with NaN, +inf or nothing but -inf.
///
/// ```
/// use posttrain_loss::{RowSampling, sample};
/// use tch::Tensor;
///
/// // Probabilities 1/4, 1/4 and 1/2.
/// let logits = Tensor::from_slice(&[1f32, 1.0, 2.0]).log().view([1, 3]);
/// let drawn = sample(&logits, &[RowSampling { uniform: 0.3, ..RowSampling::default() }])?;
/// assert_eq!(drawn.tokens, [1]);
/// assert!((drawn.logprobs[0] - 0.25f32.ln()).abs() < 1e-6);
///
/// let likeliest = sample(&logits, &[RowSampling { top_k: Some(1), ..RowSampling::default() }])?;
/// assert_eq!((likeliest.tokens[0], likeliest.logprobs[0]), (2, 0.0));
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
pub fn sample(logits: &Tensor, rows: &[RowSampling]) -> Result<Sampled, LossError> {
    whole(sample_each(logits, rows)?)
}

/// A row's token and its log-probability, or why it has none.
pub type RowDraw = Result<(i64, f32), LogitProblem>;

/// [`sample`] of rows that have nothing to do with each other: one without a distribution fails
/// alone.
///
/// # Errors
/// Those of [`sample`] for arguments that do not fit.
///
/// ```
/// use posttrain_loss::error::LogitProblem;
/// use posttrain_loss::{RowSampling, sample_each};
/// use tch::Tensor;
///
/// let logits = Tensor::from_slice(&[f32::NAN, 0.0, 0.0, 9.0]).view([2, 2]);
/// let greedy = RowSampling { temperature: 0.0, ..RowSampling::default() };
/// let drawn = sample_each(&logits, &[greedy; 2])?;
/// assert_eq!(drawn[0], Err(LogitProblem::Nan));
/// assert_eq!(drawn[1].unwrap().0, 1);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
pub fn sample_each(logits: &Tensor, rows: &[RowSampling]) -> Result<Vec<RowDraw>, LossError> {
    let vocab = check(logits, rows)?;
    if logits.device() != Device::Cpu {
        return tensor::sample_each(logits, rows);
    }

    let _guard = tch::no_grad_guard();
    let transposed = logits.f_transpose(0, 1).during("transposing the logits")?;
    Ok(if transposed.is_contiguous() && !logits.is_contiguous() {
        match values("logits", &transposed)? {
            Values::F32(logits) => columns::sample(logits, rows),
            Values::Bf16(logits) => columns::sample(logits, rows),
        }
    } else {
        match values("logits", &logits.f_contiguous().during("copying the logits")?)? {
            Values::F32(logits) => sample_rows(logits, vocab, rows),
            Values::Bf16(logits) => sample_rows(logits, vocab, rows),
        }
    })
}

/// Every row's token; an error names the first row that has none.
fn whole(drawn: Vec<RowDraw>) -> Result<Sampled, LossError> {
    let named = drawn.into_iter().enumerate();
    let named =
        named.map(|(row, result)| result.map_err(|problem| LossError::Logits { row, problem }));
    let drawn: Vec<_> = named.collect::<Result<_, _>>()?;
    let (tokens, logprobs) = drawn.into_iter().unzip();
    Ok(Sampled { tokens, logprobs })
}

fn check(logits: &Tensor, rows: &[RowSampling]) -> Result<usize, LossError> {
    check_shape("logits", logits, &[-1, -1])?;
    let (batch, vocab) = (logits.size()[0] as usize, logits.size()[1] as usize);
    check_len("rows", rows.len(), batch)?;
    rows.iter().try_for_each(RowSampling::validate)?;
    if vocab == 0 && batch > 0 {
        return Err(TensorError::Shape {
            argument: "logits",
            expected: vec![batch as i64, 1],
            got: logits.size(),
        }
        .into());
    }
    Ok(vocab)
}

fn sample_rows<E: Element>(logits: &[E], vocab: usize, rows: &[RowSampling]) -> Vec<RowDraw> {
    let drawn = logits
        .par_chunks_exact(vocab.max(1))
        .zip(rows)
        .map_init(choice::Scratch::default, |scratch, (row, how)| choice::draw(row, how, scratch));
    drawn.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use posttrain_tensor::crossings;
    use proptest::prelude::*;
    use tch::Kind;

    fn uniform(uniform: f64) -> RowSampling {
        RowSampling { uniform, ..RowSampling::default() }
    }

    fn row(logits: &[f32]) -> Tensor {
        Tensor::from_slice(logits).view([1, -1])
    }

    /// All implementations, which have to agree wherever the other tests look.
    fn both(logits: &Tensor, rows: &[RowSampling]) -> Sampled {
        let (native, before) = (sample(logits, rows).unwrap(), crossings());
        let libtorch = whole(tensor::sample_each(logits, rows).unwrap()).unwrap();
        assert_eq!(crossings() - before, 2, "sampling waits for the device");
        let columns = sample(&logits.tr().contiguous().tr(), rows).unwrap();
        assert_eq!(native.tokens, libtorch.tokens);
        assert_eq!(native.tokens, columns.tokens);
        let others = libtorch.logprobs.iter().zip(&columns.logprobs);
        for (native, (libtorch, columns)) in native.logprobs.iter().zip(others) {
            assert_abs_diff_eq!(native, libtorch, epsilon = 2e-6 * (1.0 + libtorch.abs()));
            assert_abs_diff_eq!(native, columns, epsilon = 2e-6 * (1.0 + libtorch.abs()));
        }
        native
    }

    /// Pseudo-random logits, the same everywhere.
    fn noise(len: usize, seed: u32, width: f32) -> Vec<f32> {
        let hash = |i: usize| (i as u32 ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (0..len)
            .map(|i| {
                hash(i).rotate_left(13).wrapping_mul(0xc2b2_ae35) as f32 / u32::MAX as f32 * width
            })
            .collect()
    }

    /// How often each token of a row comes in `n` evenly spaced draws.
    fn counts(logits: &Tensor, how: RowSampling, n: usize) -> Vec<usize> {
        let rows: Vec<_> =
            (0..n).map(|i| RowSampling { uniform: (i as f64 + 0.5) / n as f64, ..how }).collect();
        let mut counts = vec![0; logits.size()[1] as usize];
        let drawn = both(&logits.expand([n as i64, -1], false), &rows);
        drawn.tokens.iter().for_each(|token| counts[*token as usize] += 1);
        counts
    }

    /// The processed distribution in f64, by sorting.
    fn expected(logits: &[f32], how: RowSampling) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut p: Vec<f64> =
            logits.iter().map(|x| (f64::from(x - max) / how.temperature).exp()).collect();
        let sorted = |p: &[f64]| {
            let mut sorted = p.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted
        };
        if let Some(k) = how.top_k {
            let lowest = sorted(&p)[k.min(p.len()) - 1];
            p.iter_mut().filter(|p| **p < lowest).for_each(|p| *p = 0.0);
        }
        if let Some(top_p) = how.top_p {
            let (order, target) = (sorted(&p), top_p * p.iter().sum::<f64>());
            let mut running = 0.0;
            let last = order.iter().position(|p| {
                running += p;
                running >= target
            });
            let lowest = order[last.unwrap_or(p.len() - 1)];
            p.iter_mut().filter(|p| **p < lowest).for_each(|p| *p = 0.0);
        }
        if let Some(min_p) = how.min_p {
            p.iter_mut().filter(|p| **p < min_p).for_each(|p| *p = 0.0);
        }
        let total: f64 = p.iter().sum();
        p.iter().map(|p| p / total).collect()
    }

    #[test]
    fn evenly_spaced_draws_give_every_token_its_share() {
        let logits = noise(37, 3, 4.0);
        let filters = [
            uniform(0.0),
            RowSampling { temperature: 0.7, ..uniform(0.0) },
            RowSampling { top_k: Some(5), ..uniform(0.0) },
            RowSampling { top_p: Some(0.8), ..uniform(0.0) },
            RowSampling { min_p: Some(0.2), ..uniform(0.0) },
            RowSampling {
                temperature: 1.5,
                top_k: Some(20),
                top_p: Some(0.9),
                min_p: Some(0.1),
                uniform: 0.0,
            },
        ];
        for how in filters {
            let n = 20_000;
            let counts = counts(&row(&logits), how, n);
            for (count, p) in counts.iter().zip(expected(&logits, how)) {
                assert!(
                    (*count as f64 - p * n as f64).abs() <= 2.0,
                    "{count} of {n} for {p} under {how:?}"
                );
                assert!(p > 0.0 || *count == 0);
            }
        }
    }

    #[test]
    fn the_vocabulary_need_not_fill_its_blocks() {
        for vocab in [1, 2, 15, 16, 17, 63, 65, 1023, 1024, 1025, 2049, 5000] {
            let logits = noise(vocab, 5, 3.0);
            let how = RowSampling { top_p: Some(0.95), top_k: Some(100), ..uniform(0.0) };
            for how in [uniform(0.0), how] {
                let p = expected(&logits, how);
                let (mut running, last) = (0.0, p.iter().rposition(|p| *p > 0.0).unwrap());
                for (token, p) in
                    p.iter().enumerate().filter(|(_, p)| **p > 0.0).step_by(1 + vocab / 50)
                {
                    running = expected(&logits, how)[..token].iter().sum::<f64>().max(running);
                    let drawn =
                        both(&row(&logits), &[RowSampling { uniform: running + p / 2.0, ..how }]);
                    assert_eq!(drawn.tokens[0] as usize, token, "vocabulary of {vocab}");
                    assert_abs_diff_eq!(f64::from(drawn.logprobs[0]), p.ln(), epsilon = 3e-6);
                }
                let drawn = both(
                    &row(&logits),
                    &[RowSampling { uniform: 1.0 - f64::EPSILON / 2.0, ..how }],
                );
                assert_eq!(drawn.tokens[0] as usize, last);
            }
        }
    }

    #[test]
    fn a_greedy_row_takes_the_first_maximum_and_scores_it_at_temperature_one() {
        let mut logits = noise(3000, 1, 2.0);
        (logits[1500], logits[2999]) = (5.0, 5.0);
        let how = RowSampling {
            temperature: 0.0,
            top_k: Some(1),
            top_p: Some(0.1),
            min_p: Some(1.0),
            uniform: 0.9,
        };
        let drawn = both(&row(&logits), &[how]);
        assert_eq!(drawn.tokens, [1500]);
        assert_abs_diff_eq!(
            f64::from(drawn.logprobs[0]),
            expected(&logits, uniform(0.0))[1500].ln(),
            epsilon = 2e-6
        );
    }

    #[test]
    fn extreme_logits_and_temperatures_stay_finite() {
        let logits = row(&[1e4, -1e4, 1e4, f32::NEG_INFINITY, 9_999.0]);
        for (temperature, p) in [
            (1e-3, 0.5),
            (1.0, 1.0 / (2.0 + (-1f64).exp())),
            (100.0, 1.0 / (2.0 + (-0.01f64).exp())),
        ] {
            let drawn = both(&logits, &[RowSampling { temperature, ..uniform(p + 1e-4) }]);
            assert_eq!(drawn.tokens, [2]);
            assert_abs_diff_eq!(f64::from(drawn.logprobs[0]), p.ln(), epsilon = 1e-6);
        }
        let drawn = both(&row(&[-1e30, 1e30, -1e30]), &[uniform(0.999_999)]);
        assert_eq!((drawn.tokens[0], drawn.logprobs[0]), (1, 0.0));
    }

    #[test]
    fn minus_infinity_is_never_drawn() {
        let mut logits = vec![f32::NEG_INFINITY; 4000];
        (logits[1024], logits[3071]) = (0.0, 0.0);
        for how in [
            uniform(0.0),
            RowSampling { top_k: Some(3), ..uniform(0.0) },
            RowSampling { top_p: Some(0.99), ..uniform(0.0) },
        ] {
            for (uniform, token) in
                [(0.0, 1024), (0.499, 1024), (0.501, 3071), (1.0 - f64::EPSILON / 2.0, 3071)]
            {
                assert_eq!(both(&row(&logits), &[RowSampling { uniform, ..how }]).tokens, [token]);
            }
        }
    }

    #[test]
    fn a_tiny_nucleus_is_the_likeliest_token_with_its_equals() {
        let how = RowSampling { top_p: Some(1e-9), ..uniform(0.75) };
        assert_eq!(
            both(&row(&[1.0, 3.0, 2.0]), &[how]),
            Sampled { tokens: vec![1], logprobs: vec![0.0] }
        );
        let equals = both(&row(&[3.0, 1.0, 3.0]), &[how]);
        assert_eq!(equals.tokens, [2]);
        assert_abs_diff_eq!(equals.logprobs[0], 0.5f32.ln());
    }

    #[test]
    fn a_row_without_a_distribution_is_named() {
        let good = [0.0; 1500];
        let problems = [
            (f32::NAN, LogitProblem::Nan),
            (f32::from_bits(0x7fc0_0001), LogitProblem::Nan),
            (f32::INFINITY, LogitProblem::PositiveInfinity),
        ];
        for (value, expected) in problems {
            for place in [0, 1499] {
                let mut bad = good;
                bad[place] = value;
                let logits = Tensor::cat(&[row(&good), row(&bad)], 0);
                let columns = logits.tr().contiguous().tr();
                let how = [uniform(0.5); 2];
                let results = [
                    sample_each(&logits, &how),
                    sample_each(&columns, &how),
                    tensor::sample_each(&logits, &how),
                ];
                for result in results {
                    let drawn = result.unwrap();
                    assert!(drawn[0].is_ok());
                    assert_eq!(drawn[1], Err(expected));
                    let error = whole(drawn).unwrap_err();
                    assert!(
                        matches!(error, LossError::Logits { row: 1, problem } if problem == expected)
                    );
                }
            }
        }
        let none = row(&[f32::NEG_INFINITY; 20]);
        let result = sample(&none, &[uniform(0.5)]);
        assert!(matches!(
            result,
            Err(LossError::Logits { row: 0, problem: LogitProblem::NoToken })
        ));
        let mut hidden = [f32::NEG_INFINITY; 20];
        hidden[3] = f32::NAN;
        let result = sample(&row(&hidden), &[uniform(0.5)]);
        assert!(matches!(result, Err(LossError::Logits { row: 0, problem: LogitProblem::Nan })));
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let logits = row(&[0.0, 1.0]);
        assert!(matches!(
            sample(&logits.view([2]), &[]),
            Err(LossError::Tensor(TensorError::Shape { argument: "logits", .. }))
        ));
        assert!(matches!(
            sample(&logits, &[]),
            Err(LossError::Length { argument: "rows", expected: 1, got: 0 })
        ));
        assert!(matches!(
            sample(&logits.to_kind(Kind::Double), &[uniform(0.0)]),
            Err(LossError::Tensor(TensorError::Kind { .. }))
        ));
        let empty = Tensor::zeros([1, 0], (Kind::Float, Device::Cpu));
        assert!(matches!(
            sample(&empty, &[uniform(0.0)]),
            Err(LossError::Tensor(TensorError::Shape { .. }))
        ));
        let bad = [
            RowSampling { temperature: -1.0, ..uniform(0.0) },
            RowSampling { temperature: f64::NAN, ..uniform(0.0) },
            RowSampling { temperature: 1e-6, ..uniform(0.0) },
            RowSampling { top_k: Some(0), ..uniform(0.0) },
            RowSampling { top_p: Some(0.0), ..uniform(0.0) },
            RowSampling { min_p: Some(1.5), ..uniform(0.0) },
            uniform(1.0),
        ];
        for how in bad {
            assert!(matches!(sample(&logits, &[how]), Err(LossError::Config { .. })), "{how:?}");
        }
    }

    #[test]
    fn strided_and_bf16_logits_are_read_as_they_are() {
        let logits = Tensor::from_slice(&noise(6000, 9, 5.0)).view([3000, 2]);
        let rows = [uniform(0.3), uniform(0.6)];
        assert_eq!(both(&logits.tr(), &rows), both(&logits.tr().contiguous(), &rows));
        let narrow = logits.tr().to_kind(Kind::BFloat16);
        assert_eq!(both(&narrow, &rows), both(&narrow.to_kind(Kind::Float), &rows));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_token_has_its_processed_probability(
            vocab in 1usize..3000, seed in 0u32..1000, u in 0.0..1.0f64, temperature in 0.05..5.0f64,
            top_k in prop::option::of(1usize..3000), top_p in prop::option::of(0.01..1.0f64), min_p in prop::option::of(0.0..1.0f64),
        ) {
            let logits = noise(vocab, seed, 8.0);
            let how = RowSampling { temperature, top_k, top_p, min_p, uniform: u };
            let drawn = sample(&row(&logits), &[how]).unwrap();
            let p = expected(&logits, how);
            // A token at the edge of the nucleus or of min-p may fall on either side of it by a
            // rounding.
            let edge = p.iter().copied().filter(|p| *p > 0.0).fold(1.0, f64::min);
            let own = p[drawn.tokens[0] as usize];
            prop_assert!((f64::from(drawn.logprobs[0]) - own.ln()).abs() < 1e-5 + 1.1 * edge);
        }

        #[test]
        fn a_row_does_not_feel_its_neighbors(seed in 0u32..1000, u in 0.0..1.0f64) {
            let logits = Tensor::from_slice(&noise(5 * 2000, seed, 6.0)).view([5, 2000]);
            let together = sample(&logits, &[uniform(u); 5]).unwrap();
            for i in 0..5 {
                let alone = sample(&logits.narrow(0, i, 1), &[uniform(u)]).unwrap();
                prop_assert_eq!(alone.tokens[0], together.tokens[i as usize]);
                prop_assert_eq!(alone.logprobs[0], together.logprobs[i as usize]);
            }
        }
    }
}
