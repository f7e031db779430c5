//! Whether a server serves the policy that it was given.

use crate::RecipeError;
use posttrain_model::Decoder;
use posttrain_rollout::{Completion, PolicySnapshot};
use posttrain_train::{TopRequest, top_logprobs};

/// A difference that rounding alone gives.
const NOISE: f64 = 1e-4;

/// What a server said of a few tokens, beside what this process computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Proof {
    /// Root mean square of the differences, nats, to the policy that it was given.
    pub own: f64,
    /// To the policy before it, where there is one.
    pub before: Option<f64>,
}

impl Proof {
    /// Compares what a server drew.
    pub fn of(
        model: &Decoder,
        (own, before): (Option<&PolicySnapshot>, Option<&PolicySnapshot>),
        prompt: &[i64],
        drawn: &[Completion],
        temperature: f64,
    ) -> Result<Self, RecipeError> {
        let request = TopRequest { first: prompt.len(), top: 1, temperature };
        let distance = |policy: Option<&PolicySnapshot>| -> Result<f64, RecipeError> {
            let adapter = policy.map(|policy| &*policy.adapter);
            let (mut sum, mut tokens) = (0.0, 0);
            for drawn in drawn {
                let text = [prompt, &drawn.tokens].concat();
                let computed = top_logprobs(model, adapter, &text, request)?.logprobs;
                let squares = computed.iter().zip(&drawn.logprobs);
                sum += squares.map(|(one, other)| f64::from(one - other).powi(2)).sum::<f64>();
                tokens += computed.len();
            }
            Ok((sum / tokens.max(1) as f64).sqrt())
        };
        let before = before.map(|policy| distance(Some(policy))).transpose()?;
        Ok(Self { own: distance(own)?, before })
    }

    /// Why it is none, in words.
    pub fn refusal(&self, tolerance: f64, how_to_start: &str) -> Option<String> {
        let Self { own, before } = *self;
        if own.is_nan() || own > tolerance {
            return Some(format!(
                "its log-probabilities are {own:.4} nats from the policy's, {tolerance} are allowed: \
                 it serves another base, another policy, or was not started with {how_to_start}"
            ));
        }
        // It serves what it was given before, and says it is the new one.
        before.filter(|before| own > NOISE && *before < own / 2.0).map(|before| {
            format!(
                "its log-probabilities are {own:.4} nats from the policy's, and {before:.4} from \
                 those of the policy before: it still serves that one"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearer_to_the_policy_before_is_refused() {
        let refused = |own, before| Proof { own, before }.refusal(0.1, "`--this`");
        assert_eq!(refused(0.02, None), None);
        assert_eq!(refused(0.02, Some(0.02)), None);
        assert_eq!(refused(1e-5, Some(1e-6)), None);
        assert!(refused(0.2, None).unwrap().contains("0.2000 nats"));
        assert!(refused(f64::NAN, None).is_some());
        assert!(refused(0.02, Some(0.001)).unwrap().contains("still serves"));
    }
}
