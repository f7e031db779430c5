//! Several rewards as one, by weight.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};

use crate::{Reward, RewardError, Sample, Score};

/// `Σ wᵢ·rᵢ / Σ wᵢ`, the terms scored at the same time; each term's value is a part under its
/// reward's name.
///
/// A term that fails fails the sum: with a term missing it would be a different reward.
///
/// ```
/// use posttrain_reward::{Reward, Sample, Score, Verifier, from_fn};
/// use posttrain_reward::compose::WeightedSum;
/// use posttrain_reward::verifiers::ExactMatch;
/// use std::sync::Arc;
///
/// let brief = from_fn("brief", |sample: &Sample| Ok(Score::binary(sample.response.len() < 20)));
/// let sum = WeightedSum::new([(3.0, Arc::new(ExactMatch.into_reward()) as Arc<dyn Reward>), (1.0, Arc::new(brief))])?;
/// let score = futures::executor::block_on(sum.score(&Sample::new("2 + 2?", "4", "five")))?;
/// assert_eq!(score.value(), 0.25);
/// assert_eq!(score.parts(), [("exact".to_owned(), 0.0), ("brief".to_owned(), 1.0)]);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Clone)]
pub struct WeightedSum {
    terms: Vec<(f64, Arc<dyn Reward>)>,
}

impl WeightedSum {
    /// A sum of `(weight, reward)` terms.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] where a weight is negative or not finite, or none is
    /// positive.
    ///
    /// ```
    /// use posttrain_reward::compose::WeightedSum;
    ///
    /// assert_eq!(WeightedSum::new([]).err().unwrap().cause(), "invalid_config");
    /// ```
    pub fn new(
        terms: impl IntoIterator<Item = (f64, Arc<dyn Reward>)>,
    ) -> Result<Self, RewardError> {
        let terms: Vec<_> = terms.into_iter().collect();
        let weights: Vec<f64> = terms.iter().map(|term| term.0).collect();
        let total: f64 = weights.iter().sum();
        if weights.iter().any(|&weight| weight < 0.0) || !total.is_finite() || total <= 0.0 {
            let expected = "finite weights, none negative, of a positive sum";
            return Err(RewardError::InvalidConfig {
                field: "weights",
                got: format!("{weights:?}"),
                expected,
            });
        }
        Ok(Self { terms })
    }
}

impl Reward for WeightedSum {
    fn name(&self) -> &str {
        "weighted_sum"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let scores =
                try_join_all(self.terms.iter().map(|(_, reward)| reward.score(sample))).await?;
            let total: f64 = self.terms.iter().map(|(weight, _)| weight).sum();
            let sum: f64 = self
                .terms
                .iter()
                .zip(&scores)
                .map(|((weight, _), score)| weight / total * score.value())
                .sum();
            // Rounding may leave a sum of ones a hair above 1.
            let whole = Score::new(sum.min(1.0))?;
            self.terms.iter().zip(&scores).try_fold(whole, |whole, ((_, reward), score)| {
                whole.with_part(reward.name(), score.value())
            })
        })
    }
}
