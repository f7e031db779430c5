//! Several rewards as one, multiplied: each is a gate for the others.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};

use crate::{Reward, RewardError, Sample, Score};

/// `Π rᵢ`, the factors scored at the same time; each factor's value is a part under its reward's
/// name.
///
/// Where a sum lets a policy earn by format alone, a product does not: a wrong answer in the right
/// format is worth 0. A factor that fails fails the product, even beside a factor of 0, so that
/// failures do not depend on what is multiplied.
///
/// ```
/// use posttrain_reward::{Reward, Sample, Score, Verifier, from_fn};
/// use posttrain_reward::compose::Product;
/// use posttrain_reward::verifiers::ExactMatch;
/// use std::sync::Arc;
///
/// let brief = from_fn("brief", |sample: &Sample| Score::new(if sample.response.len() < 4 { 1.0 } else { 0.5 }));
/// let product = Product::new([Arc::new(ExactMatch.into_reward()) as Arc<dyn Reward>, Arc::new(brief)])?;
/// let value = |reference: &str, response: &str| {
///     let sample = Sample::new("?", reference, response);
///     futures::executor::block_on(product.score(&sample)).map(|score| score.value())
/// };
/// assert_eq!(value("4", "4")?, 1.0);
/// assert_eq!(value("four", "four")?, 0.5);
/// assert_eq!(value("4", "5")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Clone)]
pub struct Product {
    factors: Vec<Arc<dyn Reward>>,
}

impl Product {
    /// A product of rewards.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] where there is no factor: every completion would be worth 1.
    ///
    /// ```
    /// use posttrain_reward::compose::Product;
    ///
    /// assert_eq!(Product::new([]).err().unwrap().cause(), "invalid_config");
    /// ```
    pub fn new(factors: impl IntoIterator<Item = Arc<dyn Reward>>) -> Result<Self, RewardError> {
        let factors: Vec<_> = factors.into_iter().collect();
        if factors.is_empty() {
            return Err(RewardError::InvalidConfig {
                field: "factors",
                got: "none".to_owned(),
                expected: "at least one",
            });
        }
        Ok(Self { factors })
    }
}

impl Reward for Product {
    fn name(&self) -> &str {
        "product"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let scores =
                try_join_all(self.factors.iter().map(|factor| factor.score(sample))).await?;
            let product = Score::new(scores.iter().map(Score::value).product())?;
            self.factors.iter().zip(&scores).try_fold(product, |product, (factor, score)| {
                product.with_part(factor.name(), score.value())
            })
        })
    }
}
