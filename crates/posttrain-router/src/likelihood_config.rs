//! What a `LikelihoodRouter` is made of.

use serde::{Deserialize, Serialize};

use crate::likelihood::LikelihoodRouter;
use crate::likelihood_prompt::PromptMaker;
use crate::{LabelScorer, LabeledQuestion, RouterError, Shots, TrainSet, labels, shots};

/// The form of a [`LikelihoodRouter`]'s prompt.
///
/// ```
/// assert_eq!(posttrain_router::RouterPromptStyle::default(), posttrain_router::RouterPromptStyle::FewShot);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouterPromptStyle {
    /// Plain text: the shots as `Question: …` and `Subject: …`, then the question. What a small
    /// model understands best.
    #[default]
    FewShot,
    /// A conversation: the labels in the system's message, the shots as turns.
    Chat,
}

/// Whether a label's likelihood is measured against what it is after no question at all.
///
/// ```
/// assert_eq!(posttrain_router::Calibration::default(), posttrain_router::Calibration::Prior);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Calibration {
    /// It is not.
    None,
    /// The label's prior is divided out: its probability after the content-free questions under the
    /// same prompt, on average (contextual calibration: Zhao et al., 2021).
    #[default]
    Prior,
}

/// Configuration of a [`LikelihoodRouter`].
///
/// The defaults are what served SmolLM2-135M best on 90 questions of three domains: three shots in
/// plain text, right in 60% as they come and in 89% with the prior divided out; a chat prompt had
/// 33% and 54%.
///
/// ```
/// use posttrain_router::LikelihoodConfig;
///
/// let config = LikelihoodConfig { question_chars: 0, ..LikelihoodConfig::new(["math", "social"]) };
/// assert_eq!(config.validate().unwrap_err().to_string(), "`question_chars` is 0: expected at least 1");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LikelihoodConfig {
    /// The labels, all different. Default: none, which [`fit`](Self::fit) takes for the training
    /// set's.
    pub labels: Vec<String>,
    /// What the model reads for each label and may continue with, all different (`natural sciences`
    /// for `natural`, say). Default: none, for the labels themselves.
    pub names: Vec<String>,
    /// What each label covers, a line of the instructions each. Default: none.
    pub descriptions: Vec<String>,
    /// What the prompt calls a label. Default: `Subject`.
    pub heading: String,
    /// The prompt's form.
    pub style: RouterPromptStyle,
    /// The examples in the prompt.
    pub shots: Shots,
    /// Whether the labels' prior is divided out.
    pub calibration: Calibration,
    /// Questions without content, by which the prior is measured; at least one where it is.
    /// Default: `N/A`, nothing and `[MASK]`, as in Zhao et al.
    pub content_free: Vec<String>,
    /// Divides the scores before they become probabilities, more than 0;
    /// [`tune`](LikelihoodRouter::tune) finds a better one. Default 1.
    pub temperature: f64,
    /// Characters of a question that the model reads at most, at least 1; of a longer one, the
    /// beginning. Default 2000: a page, by which its subject is clear.
    pub question_chars: usize,
}

impl Default for LikelihoodConfig {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            names: Vec::new(),
            descriptions: Vec::new(),
            heading: "Subject".to_owned(),
            style: RouterPromptStyle::default(),
            shots: Shots::default(),
            calibration: Calibration::default(),
            content_free: ["N/A", "", "[MASK]"].map(str::to_owned).to_vec(),
            temperature: 1.0,
            question_chars: 2000,
        }
    }
}

impl LikelihoodConfig {
    /// The defaults, for these labels.
    ///
    /// ```
    /// assert_eq!(posttrain_router::LikelihoodConfig::new(["math", "social"]).labels.len(), 2);
    /// ```
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { labels: labels.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RouterError::InvalidConfig`] naming the first field that is out of its range;
    /// [`RouterError::InvalidLabels`].
    pub fn validate(&self) -> Result<(), RouterError> {
        let labels = labels::checked(&self.labels)?;
        if !self.names.is_empty() {
            labels::checked(&self.names)?;
        }

        for (field, texts) in [("names", &self.names), ("descriptions", &self.descriptions)] {
            if !texts.is_empty() && texts.len() != labels.len() {
                return Err(RouterError::config(
                    field,
                    format!("{texts:?}"),
                    "none, or one a label",
                ));
            }
        }

        if self.heading.trim().is_empty() {
            return Err(RouterError::config("heading", format!("{:?}", self.heading), "a word"));
        }
        if self.calibration == Calibration::Prior && self.content_free.is_empty() {
            return Err(RouterError::config(
                "content_free",
                "empty",
                "at least one text to measure the prior by",
            ));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(RouterError::config(
                "temperature",
                self.temperature,
                "a finite number, more than 0",
            ));
        }
        if self.question_chars == 0 {
            return Err(RouterError::config("question_chars", 0, "at least 1"));
        }

        self.shots.validate(&labels)
    }

    /// A router with shots from the training set (or given ones, if the configuration has them),
    /// and its prior, measured.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate); [`RouterError::OtherLabels`] where the training set's
    /// labels are others; [`RouterError::TooFewExamples`] where it has fewer than the shots asked
    /// for; what the scorer returns.
    pub fn fit<S: LabelScorer>(
        mut self,
        scorer: S,
        train: &TrainSet,
    ) -> Result<LikelihoodRouter<S>, RouterError> {
        if self.labels.is_empty() {
            self.labels = train.labels().to_vec();
        }

        self.validate()?;
        labels::same("the training set", train.labels(), &self.labels)?;
        let shots = shots::from_train(&self.shots, train)?;
        self.with_shots(scorer, &shots)
    }

    /// A router with given shots (or none), and its prior, measured.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate); [`RouterError::InvalidConfig`] where the shots are to be
    /// drawn from a training set; what the scorer returns.
    pub fn build<S: LabelScorer>(self, scorer: S) -> Result<LikelihoodRouter<S>, RouterError> {
        self.validate()?;
        let shots = shots::given(&self.shots)?.to_vec();
        self.with_shots(scorer, &shots)
    }

    fn with_shots<S: LabelScorer>(
        self,
        scorer: S,
        shots: &[LabeledQuestion],
    ) -> Result<LikelihoodRouter<S>, RouterError> {
        let prompts = PromptMaker::new(&self, shots)?;
        LikelihoodRouter::new(self, prompts, scorer)
    }
}
