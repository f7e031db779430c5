//! `LikelihoodRouter`: the label that a language model finds most likely.

use std::time::Instant;

use crate::distribution::{log_softmax, log_sum_exp, softmax};
use crate::likelihood_prompt::PromptMaker;
use crate::temperature::fit_temperature;
use crate::{
    Calibration, Decision, LabelQuery, LabelScorer, Likelihood, LikelihoodConfig, Question, Router,
    RouterError, ValidationSet, labels,
};

/// Asks a language model how likely each label is after the question.
///
/// A label's score is `ln p(label | prompt) / tokens − ln prior`, and its probability the softmax
/// of the scores. The prior is what the model says to questions without content: small models name
/// one label whatever is asked, and only what the question adds to that tells labels apart.
/// [`LikelihoodConfig`] makes one and measures the prior, once.
///
/// ```
/// use posttrain_router::{
///     Calibration, LabelQuery, LabelScorer, Likelihood, LikelihoodConfig, Prompt, Question, Router, RouterError, Shots,
/// };
///
/// /// A model that likes to say "math", and finds "social" somewhat less unlikely where a king is asked for.
/// struct Biased;
///
/// impl LabelScorer for Biased {
///     fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
///         let score = |query: &LabelQuery| {
///             let Prompt::Text(text) = &query.prompt else { unreachable!() };
///             let social = if text.contains("king") { -2.0 } else { -4.0 };
///             vec![Likelihood { logprob: -1.0, tokens: 1 }, Likelihood { logprob: social, tokens: 1 }]
///         };
///         Ok(queries.iter().map(score).collect())
///     }
/// }
///
/// let config = LikelihoodConfig { shots: Shots::Given { shots: vec![] }, ..LikelihoodConfig::new(["math", "social"]) };
/// let question = [Question::new("q1", "Who was the last king of France?")];
/// let plain = LikelihoodConfig { calibration: Calibration::None, ..config.clone() }.build(Biased)?;
/// assert_eq!(plain.route(&question)?[0].label, 0);
/// assert_eq!(config.build(Biased)?.route(&question)?[0].label, 1);
/// # Ok::<(), RouterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LikelihoodRouter<S> {
    labels: Vec<String>,
    prompts: PromptMaker,
    log_prior: Vec<f64>,
    temperature: f64,
    scorer: S,
}

impl<S: LabelScorer> LikelihoodRouter<S> {
    pub(crate) fn new(
        config: LikelihoodConfig,
        prompts: PromptMaker,
        scorer: S,
    ) -> Result<Self, RouterError> {
        let labels = config.labels;
        let log_prior = vec![-(labels.len() as f64).ln(); labels.len()];
        let mut router =
            Self { labels, prompts, log_prior, temperature: config.temperature, scorer };

        if config.calibration == Calibration::Prior {
            router.log_prior = router.measure_prior(&config.content_free)?;
        }
        Ok(router)
    }

    /// The probability of each label after no question; uniform where it is not divided out.
    pub fn prior(&self) -> Vec<f64> {
        self.log_prior.iter().map(|log| log.exp()).collect()
    }

    /// What scores are divided by before they become probabilities.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Sets the temperature to the one under which the validation set is most probable, one truth
    /// in `n + 2` taken to be in doubt (Platt, 1999), and returns it. Decisions stay as they are;
    /// only their probabilities change.
    ///
    /// # Errors
    /// [`RouterError::OtherLabels`]; [`RouterError::TooFewExamples`] of an empty set; what the
    /// scorer returns.
    pub fn tune(&mut self, validation: &ValidationSet) -> Result<f64, RouterError> {
        labels::same("the validation set", validation.labels(), &self.labels)?;
        if validation.is_empty() {
            return Err(RouterError::TooFewExamples {
                split: "validation",
                label: "any label".to_owned(),
                needed: 1,
                got: 0,
            });
        }

        let scores =
            self.scores(validation.questions().iter().map(|question| question.text.as_str()))?;
        self.temperature = fit_temperature(&scores, validation.truth());
        Ok(self.temperature)
    }

    /// The logarithm of the labels' average probability over the content-free questions.
    fn measure_prior(&self, content_free: &[String]) -> Result<Vec<f64>, RouterError> {
        let scores = self.scores(content_free.iter().map(String::as_str))?;
        let logs: Vec<Vec<f64>> = scores.iter().map(|scores| log_softmax(scores)).collect();
        let mean = |label: usize| {
            log_sum_exp(&logs.iter().map(|log| log[label]).collect::<Vec<_>>())
                - (logs.len() as f64).ln()
        };
        Ok((0..self.labels.len()).map(mean).collect())
    }

    /// `ln p / tokens − ln prior` of each label for each question.
    fn scores<'q>(
        &self,
        questions: impl Iterator<Item = &'q str>,
    ) -> Result<Vec<Vec<f64>>, RouterError> {
        let queries: Vec<LabelQuery> =
            questions.map(|question| self.prompts.query(question)).collect();
        if queries.is_empty() {
            return Ok(Vec::new());
        }

        let likelihoods = self.scorer.score(&queries)?;
        if likelihoods.len() != queries.len() {
            let expected = format!("{}, one a query", queries.len());
            return Err(RouterError::answer(
                "label scorer",
                "the number of answers",
                likelihoods.len().to_string(),
                expected,
            ));
        }

        likelihoods.iter().map(|likelihoods| self.score(likelihoods)).collect()
    }

    fn score(&self, likelihoods: &[Likelihood]) -> Result<Vec<f64>, RouterError> {
        if likelihoods.len() != self.labels.len() {
            let expected = format!("{}, one a continuation", self.labels.len());
            return Err(RouterError::answer(
                "label scorer",
                "the number of likelihoods",
                likelihoods.len().to_string(),
                expected,
            ));
        }
        if let Some(bad) = likelihoods.iter().find(|one| !one.per_token().is_finite()) {
            let expected = "a finite number of nats over at least one token";
            return Err(RouterError::answer(
                "label scorer",
                "a likelihood",
                format!("{bad:?}"),
                expected,
            ));
        }

        Ok(likelihoods
            .iter()
            .zip(&self.log_prior)
            .map(|(one, log_prior)| one.per_token() - log_prior)
            .collect())
    }
}

impl<S: LabelScorer> Router for LikelihoodRouter<S> {
    fn name(&self) -> &str {
        "likelihood"
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let start = Instant::now();
        let scores = self.scores(questions.iter().map(|question| question.text.as_str()))?;
        let seconds = start.elapsed().as_secs_f64() / questions.len().max(1) as f64;

        Ok(scores
            .iter()
            .map(|scores| Decision::most_probable(softmax(scores, self.temperature), seconds))
            .collect())
    }
}
