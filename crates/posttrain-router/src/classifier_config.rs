//! How a `Classifier` is fitted.

use std::time::Instant;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::classifier::{Classifier, embed};
use crate::lbfgs::Stop;
use crate::logistic::{Logistic, Problem};
use crate::standardizer::Standardizer;
use crate::temperature::{fit_temperature, nll};
use crate::{Embedder, Question, RouterError, TrainSet, ValidationSet, labels};

/// Configuration of a [`Classifier`].
///
/// ```
/// use posttrain_router::ClassifierConfig;
///
/// let config = ClassifierConfig { l2: vec![-1.0], ..ClassifierConfig::default() };
/// assert_eq!(config.validate().unwrap_err().to_string(), "`l2` is [-1.0]: expected at least one, all finite and more than 0");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The strengths of L2 that are tried, each more than 0:
    /// `1/N Σ −ln p(truth) + l2/2 · ‖weights‖²`. Default: 10 to 0.001 in powers of ten.
    pub l2: Vec<f64>,
    /// A fit has converged where no component of the gradient is larger, more than 0. Default 10⁻⁵.
    pub tolerance: f64,
    /// Steps of a fit at most, at least 1. Default 500.
    pub max_iterations: usize,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self { l2: vec![10.0, 1.0, 0.1, 0.01, 0.001], tolerance: 1e-5, max_iterations: 500 }
    }
}

/// What came of one strength of L2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The strength.
    pub l2: f64,
    /// The temperature that suits the validation set best.
    pub temperature: f64,
    /// The mean of `−ln p(truth)` on the validation set under it, nats, with one truth in `n + 2`
    /// in doubt (Platt, 1999).
    pub validation_nll: f64,
    /// The share of the validation set that is right.
    pub validation_accuracy: f64,
    /// Steps that the fit took.
    pub iterations: usize,
    /// Whether the gradient vanished in them.
    pub converged: bool,
    /// How long the fit took.
    pub seconds: f64,
}

/// A fit with what came of it.
struct Tried {
    trial: Trial,
    model: Logistic,
}

impl ClassifierConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RouterError::InvalidConfig`] naming the first field that is out of its range.
    pub fn validate(&self) -> Result<(), RouterError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.l2.is_empty() || !self.l2.iter().all(|l2| positive(*l2)) {
            return Err(RouterError::config(
                "l2",
                format!("{:?}", self.l2),
                "at least one, all finite and more than 0",
            ));
        }

        if !positive(self.tolerance) {
            return Err(RouterError::config(
                "tolerance",
                self.tolerance,
                "a finite number, more than 0",
            ));
        }

        if self.max_iterations == 0 {
            return Err(RouterError::config("max_iterations", 0, "at least 1"));
        }
        Ok(())
    }

    /// Fits on the training set, and chooses strength and temperature by the validation set's
    /// log-likelihood.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate); [`RouterError::OtherLabels`] where the sets are of two
    /// datasets; [`RouterError::TooFewExamples`] of a label without training examples or an empty
    /// validation set; what the embedder returns.
    pub fn fit<E: Embedder>(
        &self,
        embedder: E,
        train: &TrainSet,
        validation: &ValidationSet,
    ) -> Result<Classifier<E>, RouterError> {
        self.validate()?;
        check_sets(train, validation)?;

        let raw = embed(&embedder, &texts(train.questions()))?;
        let standardizer = Standardizer::fit(&raw);
        let features = standardizer.apply(raw);
        let held_out = standardizer.apply(embed(&embedder, &texts(validation.questions()))?);

        let problem = Problem {
            features: features.view(),
            truth: train.truth(),
            labels: train.labels().len(),
        };
        let (best, trials) = self.try_all(problem, &held_out, validation.truth());

        let temperature = best.trial.temperature;
        let labels = train.labels().to_vec();
        Ok(Classifier { labels, embedder, standardizer, model: best.model, temperature, trials })
    }

    /// From the strongest to the weakest, each from where the one before ended; of equals the
    /// stronger one.
    fn try_all(
        &self,
        problem: Problem<'_>,
        held_out: &Array2<f32>,
        truth: &[usize],
    ) -> (Tried, Vec<Trial>) {
        let mut strengths = self.l2.clone();
        strengths.sort_by(|left, right| right.total_cmp(left));

        let start = Logistic::zero(problem.labels, problem.features.ncols());
        let mut best = self.try_one(strengths[0], start, problem, held_out, truth);
        let mut last = best.model.clone();
        let mut trials = vec![best.trial];

        for &l2 in &strengths[1..] {
            let tried = self.try_one(l2, last, problem, held_out, truth);
            trials.push(tried.trial);
            last = tried.model.clone();
            if tried.trial.validation_nll < best.trial.validation_nll {
                best = tried;
            }
        }
        (best, trials)
    }

    fn try_one(
        &self,
        l2: f64,
        from: Logistic,
        problem: Problem<'_>,
        held_out: &Array2<f32>,
        truth: &[usize],
    ) -> Tried {
        let start = Instant::now();
        let stop = Stop { tolerance: self.tolerance, max_iterations: self.max_iterations };
        let fitted = from.fit(problem, l2, stop);
        let seconds = start.elapsed().as_secs_f64();

        let scores = fitted.model.scores(held_out.view());
        let temperature = fit_temperature(&scores, truth);

        let trial = Trial {
            l2,
            temperature,
            validation_nll: nll(&scores, truth, temperature),
            validation_accuracy: accuracy(&scores, truth),
            iterations: fitted.iterations,
            converged: fitted.converged,
            seconds,
        };
        Tried { trial, model: fitted.model }
    }
}

fn texts(questions: &[Question]) -> Vec<&str> {
    questions.iter().map(|question| question.text.as_str()).collect()
}

fn accuracy(scores: &[Vec<f64>], truth: &[usize]) -> f64 {
    let right = |(scores, truth): &(&Vec<f64>, &usize)| {
        scores.iter().all(|score| *score <= scores[**truth])
    };
    scores.iter().zip(truth).filter(right).count() as f64 / truth.len() as f64
}

fn check_sets(train: &TrainSet, validation: &ValidationSet) -> Result<(), RouterError> {
    labels::same("the validation set", validation.labels(), train.labels())?;
    let few = |split, label: &str| RouterError::TooFewExamples {
        split,
        label: label.to_owned(),
        needed: 1,
        got: 0,
    };

    let missing = (0..train.labels().len()).find(|label| !train.truth().contains(label));
    if let Some(label) = missing {
        return Err(few("training", &train.labels()[label]));
    }
    if validation.is_empty() {
        return Err(few("validation", "any label"));
    }
    Ok(())
}
