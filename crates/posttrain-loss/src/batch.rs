//! A training batch of entries: flat, ragged, without padding.

use crate::aggregate::StepTotals;
use crate::error::{LossError, check_len};
use std::ops::Range;

/// Advantages of a batch.
#[derive(Debug, Clone, Copy)]
pub enum TokenAdvantages<'a> {
    /// `[S]`, one per sequence, the same for each of its entries.
    PerSequence(&'a [f32]),
    /// `[N]`, one per entry.
    PerToken(&'a [f32]),
}

/// What is known of `N` entries before an objective is evaluated on them.
///
/// An entry is a target at a position. Where every position has one target, an entry is a token;
/// with `K` targets per position (distillation, soft labels) a position is `K` entries in a row.
/// The entries of `S` sequences stand one after the other. No gradient flows into any of it.
///
/// An objective that needs a field which is `None` says so by [`LossError::Missing`].
///
/// ```
/// use posttrain_loss::LossBatch;
///
/// let weights = [0.0, 1.0, 1.0]; // the first token is an observation: nothing is learned of it
/// let batch = LossBatch { weights: Some(&weights), ..LossBatch::of(&[2, 1]) };
/// assert_eq!(batch.totals()?.tokens, 2);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct LossBatch<'a> {
    /// `[S]`, entries of each sequence; they add up to `N`. A sequence is never cut between
    /// micro-batches.
    pub sequence_lengths: &'a [usize],
    /// `[N]`, what each entry's loss is multiplied with, of either sign; `None` for 1 everywhere.
    /// An entry of weight 0 is not trained on, and nothing else that stands at it is ever read.
    pub weights: Option<&'a [f32]>,
    /// `[N]`, log-probability of each entry under the policy that sampled it, nats.
    pub sampling_logprobs: Option<&'a [f32]>,
    /// `[N]`, log-probability of each entry under the trainer's own policy before the step, nats,
    /// where it is to be told apart from the sampler's: the ratio of a policy loss is then taken to
    /// it, and a [`Correction`](crate::policy::Correction) is its ratio to the sampler. `None`
    /// where the sampler's stand for both.
    pub old_logprobs: Option<&'a [f32]>,
    /// Advantages, of a sequence or of an entry.
    pub advantages: Option<TokenAdvantages<'a>>,
    /// `[N]`, log-probability of each entry under the reference (or the teacher), nats.
    pub reference_logprobs: Option<&'a [f32]>,
}

impl<'a> LossBatch<'a> {
    /// A batch of sequences of the given numbers of entries, of which nothing else is known.
    #[must_use]
    pub fn of(sequence_lengths: &'a [usize]) -> Self {
        LossBatch { sequence_lengths, ..LossBatch::default() }
    }

    /// Entries of the batch, `N`.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.sequence_lengths.iter().sum()
    }

    /// What the batch holds, to be merged over a step's micro-batches before the first is
    /// evaluated.
    ///
    /// # Errors
    /// [`LossError::Length`] when the weights do not fit the lengths.
    pub fn totals(&self) -> Result<StepTotals, LossError> {
        StepTotals::count(self.sequence_lengths, self.weights)
    }

    /// Checks every length against the number of entries.
    ///
    /// # Errors
    /// [`LossError::Length`] names the first field that does not fit `sequence_lengths`.
    pub fn check(&self) -> Result<(), LossError> {
        let entries = self.entries();
        let fields = [
            ("weights", self.weights),
            ("sampling_logprobs", self.sampling_logprobs),
            ("old_logprobs", self.old_logprobs),
            ("reference_logprobs", self.reference_logprobs),
        ];
        for (argument, values) in fields {
            check_len(argument, values.map_or(entries, <[f32]>::len), entries)?;
        }

        match self.advantages {
            Some(TokenAdvantages::PerSequence(values)) => {
                check_len("advantages", values.len(), self.sequence_lengths.len())
            }
            Some(TokenAdvantages::PerToken(values)) => {
                check_len("advantages", values.len(), entries)
            }
            None => Ok(()),
        }
    }

    /// Where each sequence's entries stand.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> + 'a {
        self.sequence_lengths.iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        })
    }

    /// The weight of an entry.
    #[must_use]
    pub fn weight(&self, entry: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[entry])
    }

    /// Calls a function with some of the entries as a batch of their own, sequences cut where they
    /// end.
    pub(crate) fn with_entries<T>(
        &self,
        entries: Range<usize>,
        call: impl FnOnce(&LossBatch) -> T,
    ) -> T {
        let mut lengths = Vec::new();
        let mut sequences = Vec::new();
        for (sequence, span) in self.spans().enumerate() {
            let length = span.end.min(entries.end).saturating_sub(span.start.max(entries.start));
            if length > 0 {
                lengths.push(length);
                sequences.push(sequence);
            }
        }

        let part = |values: Option<&'a [f32]>| values.map(|values| &values[entries.clone()]);
        let own: Vec<f32>;
        let advantages = match self.advantages {
            Some(TokenAdvantages::PerSequence(values)) => {
                own = sequences.iter().map(|sequence| values[*sequence]).collect();
                Some(TokenAdvantages::PerSequence(&own))
            }
            Some(TokenAdvantages::PerToken(values)) => {
                Some(TokenAdvantages::PerToken(&values[entries.clone()]))
            }
            None => None,
        };

        call(&LossBatch {
            sequence_lengths: &lengths,
            weights: part(self.weights),
            sampling_logprobs: part(self.sampling_logprobs),
            old_logprobs: part(self.old_logprobs),
            advantages,
            reference_logprobs: part(self.reference_logprobs),
        })
    }
}

/// A field that an objective cannot do without.
pub(crate) fn needed<T>(
    field: Option<T>,
    argument: &'static str,
    needed_by: &'static str,
) -> Result<T, LossError> {
    field.ok_or(LossError::Missing { argument, needed_by })
}
