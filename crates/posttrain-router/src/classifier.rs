//! `Classifier`: multinomial logistic regression over an embedder's vectors.

use std::time::Instant;

use ndarray::Array2;

use crate::classifier_config::Trial;
use crate::distribution::softmax;
use crate::logistic::Logistic;
use crate::standardizer::Standardizer;
use crate::{Decision, Embedder, Question, Router, RouterError};

/// Questions that are embedded at the same time.
const BATCH: usize = 1024;

/// Multinomial logistic regression over an embedder's vectors, standardized.
///
/// [`ClassifierConfig::fit`](crate::ClassifierConfig::fit) makes one, [`save`](Self::save) and
/// [`load`](Self::load) keep it. The fit is deterministic, whatever the number of threads.
///
/// ```
/// use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
/// use posttrain_router::{ClassifierConfig, NgramConfig, RouterData, RouterReport};
///
/// let sizes = SplitSizes { train: 100, validation: 20, test: 20 };
/// let splits = split(&sciences::generate(7)?, &SplitConfig { sizes, seed: 7 })?;
/// let data = RouterData::from_splits(&splits, &sciences::DOMAINS)?;
/// let embedder = NgramConfig { dimension: 512, ..NgramConfig::default() }.build()?;
/// let classifier = ClassifierConfig::default().fit(embedder, &data.train, &data.validation)?;
/// assert!(RouterReport::of(&classifier, &data.test)?.accuracy > 0.8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Classifier<E> {
    pub(crate) labels: Vec<String>,
    pub(crate) embedder: E,
    pub(crate) standardizer: Standardizer,
    pub(crate) model: Logistic,
    pub(crate) temperature: f64,
    pub(crate) trials: Vec<Trial>,
}

impl<E> Classifier<E> {
    /// What came of each strength of L2, from the strongest to the weakest; empty of one that was
    /// loaded.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// What scores are divided by before they become probabilities.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }
}

impl<E: Embedder> Classifier<E> {
    fn route_batch(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let start = Instant::now();
        let texts: Vec<&str> = questions.iter().map(|question| question.text.as_str()).collect();
        let features = self.standardizer.apply(embed(&self.embedder, &texts)?);
        let scores = self.model.scores(features.view());
        let probabilities: Vec<Vec<f64>> =
            scores.iter().map(|scores| softmax(scores, self.temperature)).collect();
        let seconds = start.elapsed().as_secs_f64() / questions.len() as f64;

        Ok(probabilities
            .into_iter()
            .map(|probabilities| Decision::most_probable(probabilities, seconds))
            .collect())
    }
}

impl<E: Embedder> Router for Classifier<E> {
    fn name(&self) -> &str {
        "classifier"
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let mut decisions = Vec::with_capacity(questions.len());
        for batch in questions.chunks(BATCH) {
            decisions.extend(self.route_batch(batch)?);
        }
        Ok(decisions)
    }
}

/// The texts' vectors, checked.
pub(crate) fn embed(embedder: &impl Embedder, texts: &[&str]) -> Result<Array2<f32>, RouterError> {
    let vectors = embedder.embed(texts)?;
    let expected = (texts.len(), embedder.dimension());
    if vectors.dim() != expected {
        return Err(RouterError::answer(
            embedder.name(),
            "the vectors' shape",
            format!("{:?}", vectors.dim()),
            format!("{expected:?}"),
        ));
    }

    match vectors.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let got = format!(
                "{} for text {}",
                vectors.iter().nth(at).copied().unwrap_or(f32::NAN),
                at / expected.1 + 1
            );
            Err(RouterError::answer(
                embedder.name(),
                "a vector's component",
                got,
                "a finite number",
            ))
        }
        None => Ok(vectors),
    }
}
