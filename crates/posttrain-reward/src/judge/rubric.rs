//! The rubric judge: several criteria, each met or not, by weight.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use posttrain_chat::ChatModel;
use serde::{Deserialize, Serialize};

use crate::judge::ballot::{Ballot, Field, REASONING};
use crate::judge::case::{data, shown, visible, without_asking};
use crate::judge::panel::{Case, Panel};
use crate::judge::{JudgeConfig, JudgePrompt, JudgeProvenance, NoVerdict, Ties};
use crate::{Reward, RewardError, Sample, Score};

const WORDS: &[&str] = &["met", "unmet"];

/// One of the things that a response is to be.
///
/// ```
/// use posttrain_reward::judge::Criterion;
///
/// let criterion = Criterion::new("units", 1.0, "States the unit of every quantity.");
/// assert_eq!(criterion.weight, 1.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Its name, of lower-case letters, digits and `_`, and not `reasoning`.
    pub name: String,
    /// Its weight among the criteria, more than 0.
    pub weight: f64,
    /// What the response must be to meet it, in a sentence for the judge. Must not come from the
    /// policy.
    pub description: String,
}

impl Criterion {
    /// A criterion.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::judge::Criterion::new("brief", 0.5, "At most three sentences.").name, "brief");
    /// ```
    pub fn new(name: impl Into<String>, weight: f64, description: impl Into<String>) -> Self {
        Self { name: name.into(), weight, description: description.into() }
    }
}

/// Configuration of a [`RubricJudge`].
///
/// ```
/// use posttrain_reward::judge::RubricConfig;
///
/// let config: RubricConfig = toml::from_str(r#"
///     criteria = [
///         { name = "right", weight = 3.0, description = "Arrives at the reference answer." },
///         { name = "shown", weight = 1.0, description = "Shows every step." },
///     ]
///     judge = { name = "rubric" }
/// "#)?;
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RubricConfig {
    /// The criteria, from 1 to 50. Many at once blur a judge's verdicts: a handful is usual.
    pub criteria: Vec<Criterion>,
    /// What it has in common with other judges. Votes are counted for each criterion by itself.
    pub judge: JudgeConfig,
}

impl RubricConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// assert!(posttrain_reward::judge::RubricConfig::default().validate().is_err(), "no criteria");
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid = |got: String, expected| {
            Err(RewardError::InvalidConfig { field: "criteria", got, expected })
        };
        if !(1..=50).contains(&self.criteria.len()) {
            return invalid(format!("{} criteria", self.criteria.len()), "from 1 to 50");
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let mut seen = BTreeSet::new();
        for Criterion { name, weight, .. } in &self.criteria {
            if name.is_empty() || name == REASONING || !name.chars().all(fits) || !seen.insert(name)
            {
                return invalid(
                    format!("{name:?}"),
                    "different names of a-z, 0-9 and `_`, none of them `reasoning`",
                );
            }
            if !weight.is_finite() || *weight <= 0.0 {
                return invalid(
                    format!("`{name}` of weight {weight}"),
                    "finite weights, more than 0",
                );
            }
        }
        self.judge.validate()
    }

    /// A rubric judge that asks `model`.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`], the prompt and the transcript's file included.
    ///
    /// ```
    /// use posttrain_chat::openai::OpenAiConfig;
    /// use posttrain_reward::Reward;
    /// use posttrain_reward::judge::{Criterion, RubricConfig};
    ///
    /// let model = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?.build()?;
    /// let criteria = vec![Criterion::new("right", 1.0, "Arrives at the reference answer.")];
    /// let judge = RubricConfig { criteria, ..RubricConfig::default() }.build(std::sync::Arc::new(model))?;
    /// assert_eq!(judge.name(), "judge");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(self, model: Arc<dyn ChatModel>) -> Result<RubricJudge, RewardError> {
        self.validate()?;
        let fields = self
            .criteria
            .iter()
            .map(|criterion| Field { name: criterion.name.clone(), words: WORDS });
        let ballot = Ballot { fields: fields.collect() };
        let panel =
            Panel::new(self.judge, model, &JudgePrompt::rubric(), ballot, self.criteria.clone())?;
        Ok(RubricJudge { panel, criteria: self.criteria })
    }
}

/// The reward of a rubric: `Σ wᵢ·metᵢ / Σ wᵢ`, each criterion a part of the score, 1 where it is
/// met.
///
/// Everything else is as in a [`Judge`](crate::judge::Judge).
///
/// ```
/// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::judge::{Criterion, RubricConfig};
/// use std::sync::Arc;
///
/// let model = from_fn("stub", async |_: ChatRequest| {
///     Ok(ChatResponse::from_text(r#"{"reasoning": "…", "right": "met", "shown": "unmet"}"#))
/// });
/// let criteria = vec![
///     Criterion::new("right", 3.0, "Arrives at the reference answer."),
///     Criterion::new("shown", 1.0, "Shows every step."),
/// ];
/// let judge = RubricConfig { criteria, ..RubricConfig::default() }.build(Arc::new(model))?;
/// let score = futures::executor::block_on(judge.score(&Sample::new("2 + 2?", "4", "4")))?;
/// assert_eq!(score.value(), 0.75);
/// assert_eq!(score.parts(), [("right".to_owned(), 1.0), ("shown".to_owned(), 0.0)]);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct RubricJudge {
    panel: Panel,
    criteria: Vec<Criterion>,
}

impl RubricJudge {
    /// What its verdicts depend on beside the sample.
    ///
    /// ```no_run
    /// # fn show(judge: posttrain_reward::judge::RubricJudge) {
    /// println!("{:?}", judge.provenance());
    /// # }
    /// ```
    pub fn provenance(&self) -> &JudgeProvenance {
        self.panel.provenance()
    }

    async fn judge(&self, sample: &Sample) -> Result<Score, RewardError> {
        let config = &self.panel.config;
        let reference = config.reference(sample)?;
        if let Some(score) = without_asking(config, sample) {
            return Ok(score);
        }
        let data = data(config, sample, reference, &[("response", visible(&sample.response))]);
        let tally =
            self.panel.ask(&Case { id: &sample.id, data, shown: shown(sample, reference) }).await?;
        if config.ties == Ties::Error && tally.choices.contains(&None) {
            return Err(self.panel.no_verdict(&sample.id, NoVerdict::Tie, &tally.reasoning));
        }
        let met: Vec<f64> =
            tally.choices.iter().map(|choice| f64::from(u8::from(*choice == Some(0)))).collect();
        let total: f64 = self.criteria.iter().map(|criterion| criterion.weight).sum();
        let sum: f64 = self
            .criteria
            .iter()
            .zip(&met)
            .map(|(criterion, met)| criterion.weight / total * met)
            .sum();
        // Rounding may leave a sum of ones a hair above 1.
        let score = Score::new(sum.min(1.0))?;
        let mut named = self.criteria.iter().zip(met);
        let score = named
            .try_fold(score, |score, (criterion, met)| score.with_part(&criterion.name, met))?;
        Ok(score.with_note(self.panel.note("graded", &tally)))
    }
}

impl Reward for RubricJudge {
    fn name(&self) -> &str {
        &self.panel.config.name
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(self.judge(sample))
    }
}
