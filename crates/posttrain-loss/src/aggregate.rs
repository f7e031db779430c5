//! How token losses become one number: a weight for each token, and a denominator that the whole
//! step shares.

use crate::error::{LossError, check_field, check_len};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How the losses of a step's tokens are averaged: `loss = Σ_t weight_t · loss_t / denominator`.
///
/// The sum and the denominator stay apart until the whole step is known: the denominator comes from
/// the [`StepTotals`] of *all* micro-batches, so that `k` of them add up to the gradient of one.
///
/// | kind | weight of a token | denominator | also known as |
/// | --- | --- | --- | --- |
/// | `token_sum` | 1 | 1 | Tinker |
/// | `token_mean` | 1 | tokens trained on in the step | DAPO, TRL's `dapo`, verl's `token-mean` |
/// | `sequence_mean` | 1 / tokens trained on in its sequence | sequences with such a token | GRPO, TRL's `grpo` |
/// | `constant_length` | 1 | sequences × `tokens` | Dr. GRPO, TRL's `dr_grpo` |
///
/// "Trained on" is an entry whose own weight ([`LossBatch::weights`](crate::LossBatch)) is not 0:
/// the weights above and the denominators share that one mask, whatever the entries' weights are. A
/// denominator of 0 (nothing to train on) counts as 1, so that the loss is 0. Where a position has
/// `K` targets, "tokens" are its `K` entries.
///
/// In a configuration file: `{ kind = "constant_length", tokens = 512 }`.
// Every variant has braces: serde refuses unknown fields only of variants that can have some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Aggregation {
    /// The sum over tokens.
    TokenSum {},
    /// The mean over the step's tokens.
    TokenMean {},
    /// The mean over sequences of the mean over their tokens.
    SequenceMean {},
    /// The sum over tokens, over sequences times a constant length.
    ConstantLength {
        /// Tokens that a sequence counts as, at least 1; usually the longest completion allowed.
        tokens: usize,
    },
}

/// What a step holds in all, counted before it is cut into micro-batches.
///
/// ```
/// use posttrain_loss::{Aggregation, StepTotals};
///
/// let weights = [1.0, 0.0, 1.0, -0.5, 0.0];
/// let totals = StepTotals::count(&[2, 2, 1], Some(&weights))?;
/// assert_eq!((totals.tokens, totals.sequences, totals.trained_sequences), (3, 3, 2));
/// assert_eq!(Aggregation::TokenMean {}.denominator(&totals), 3.0);
/// assert_eq!(Aggregation::ConstantLength { tokens: 10 }.denominator(&totals), 30.0);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepTotals {
    /// Entries trained on: tokens, where a position has one target.
    pub tokens: u64,
    /// Sequences, those without a token to train on included.
    pub sequences: u64,
    /// Sequences with at least one token to train on.
    pub trained_sequences: u64,
    /// Pairs of neighboring sequences (the first and the second, the third and the fourth, ...)
    /// both of which have at least one token to train on.
    pub trained_pairs: u64,
}

impl StepTotals {
    /// Counts sequences of the given lengths. `weights: [N]`, not 0 where an entry is trained on;
    /// `None` for all of them.
    ///
    /// # Errors
    /// [`LossError::Length`] when the lengths do not add up to the weights'.
    pub fn count(sequence_lengths: &[usize], weights: Option<&[f32]>) -> Result<Self, LossError> {
        if let Some(weights) = weights {
            check_len("weights", weights.len(), sequence_lengths.iter().sum())?;
        }

        let trained = trained_tokens(sequence_lengths, weights);
        let (pairs, _) = trained.as_chunks::<2>();
        Ok(Self {
            tokens: trained.iter().map(|tokens| *tokens as u64).sum(),
            sequences: trained.len() as u64,
            trained_sequences: trained.iter().filter(|tokens| **tokens > 0).count() as u64,
            trained_pairs: pairs.iter().filter(|pair| pair.iter().all(|tokens| *tokens > 0)).count()
                as u64,
        })
    }

    /// Adds the totals of another part of the step.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.sequences += other.sequences;
        self.trained_sequences += other.trained_sequences;
        self.trained_pairs += other.trained_pairs;
    }
}

impl Default for Aggregation {
    /// `TokenMean`, the default of TRL, verl, prime-rl and SkyRL.
    fn default() -> Self {
        Self::TokenMean {}
    }
}

impl Aggregation {
    /// Checks that a constant length is at least 1.
    pub fn validate(&self) -> Result<(), LossError> {
        match *self {
            Self::ConstantLength { tokens } => {
                check_field("tokens", tokens as f64, tokens > 0, "at least 1")
            }
            _ => Ok(()),
        }
    }

    /// What the weighted sum over the whole step is divided by; at least 1.
    #[must_use]
    pub fn denominator(&self, totals: &StepTotals) -> f64 {
        let denominator = match *self {
            Self::TokenSum {} => 1.0,
            Self::TokenMean {} => totals.tokens as f64,
            Self::SequenceMean {} => totals.trained_sequences as f64,
            Self::ConstantLength { tokens } => totals.sequences as f64 * tokens as f64,
        };
        denominator.max(1.0)
    }

    /// The weight of each sequence's entries, before their own: `[S]`.
    pub(crate) fn weights(&self, sequence_lengths: &[usize], weights: Option<&[f32]>) -> Vec<f32> {
        match self {
            Self::SequenceMean {} => {
                let trained = trained_tokens(sequence_lengths, weights);
                trained.into_iter().map(|tokens| 1.0 / tokens.max(1) as f32).collect()
            }
            _ => vec![1.0; sequence_lengths.len()],
        }
    }
}

/// Entries trained on in each sequence.
fn trained_tokens(sequence_lengths: &[usize], weights: Option<&[f32]>) -> Vec<usize> {
    let Some(weights) = weights else { return sequence_lengths.to_vec() };

    let ends = sequence_lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    let spans: Vec<_> = ends.zip(sequence_lengths).map(|(end, length)| end - length..end).collect();
    spans.into_par_iter().with_min_len(64).map(|span| nonzero(&weights[span])).collect()
}

fn nonzero(weights: &[f32]) -> usize {
    // Counts of 32 bits add up in vectors as wide as the weights', where those of 64 would not.
    let parts = weights.chunks(u32::MAX as usize);
    parts
        .map(|part| part.iter().map(|weight| u32::from(*weight != 0.0)).sum::<u32>() as usize)
        .sum()
}
