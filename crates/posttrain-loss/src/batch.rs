//! A training batch of tokens: flat, ragged, without padding.

use crate::aggregate::StepTotals;
use crate::error::{LossError, check_len};

/// Advantages of a batch.
#[derive(Debug, Clone, Copy)]
pub enum TokenAdvantages<'a> {
    /// `[S]`, one a sequence, the same for each of its tokens.
    PerSequence(&'a [f32]),
    /// `[N]`, one a token.
    PerToken(&'a [f32]),
}

/// What is known of `N` completion tokens before the policy is evaluated on them.
///
/// The tokens of `S` sequences stand one after the other. No gradient flows into any of it.
#[derive(Debug, Clone, Copy)]
pub struct PolicyBatch<'a> {
    /// `[S]`, tokens of each sequence; they add up to `N`. A sequence is never cut between micro-batches.
    pub sequence_lengths: &'a [usize],
    /// `[N]`, log-probability of each token under the policy that sampled it, nats.
    pub sampling_logprobs: &'a [f32],
    /// Advantages, a sequence's or a token's.
    pub advantages: TokenAdvantages<'a>,
    /// `[N]`, true where a token is trained on; `None` for all of them. What stands at other tokens is never read.
    pub loss_mask: Option<&'a [bool]>,
    /// `[N]`, log-probability of each token under the reference, nats; needed by a KL penalty only.
    pub reference_logprobs: Option<&'a [f32]>,
}

impl PolicyBatch<'_> {
    /// Tokens of the batch.
    pub fn tokens(&self) -> usize {
        self.sampling_logprobs.len()
    }

    /// What the batch holds, to be merged over a step's micro-batches before the first is evaluated.
    ///
    /// # Errors
    /// [`LossError::Length`] when the lengths do not fit each other.
    pub fn totals(&self) -> Result<StepTotals, LossError> {
        self.check()?;
        StepTotals::count(self.sequence_lengths, self.loss_mask)
    }

    /// Checks every length against the number of tokens.
    pub(crate) fn check(&self) -> Result<(), LossError> {
        let tokens = self.tokens();
        check_len("sampling_logprobs", tokens, self.sequence_lengths.iter().sum())?;
        match self.advantages {
            TokenAdvantages::PerSequence(values) => {
                check_len("advantages", values.len(), self.sequence_lengths.len())?;
            }
            TokenAdvantages::PerToken(values) => check_len("advantages", values.len(), tokens)?,
        }
        check_len("loss_mask", self.loss_mask.map_or(tokens, <[bool]>::len), tokens)?;
        check_len("reference_logprobs", self.reference_logprobs.map_or(tokens, <[f32]>::len), tokens)
    }
}
