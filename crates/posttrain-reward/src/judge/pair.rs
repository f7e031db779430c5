//! The pairwise judge: which of two responses is better, asked in both orders.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join};
use posttrain_chat::ChatModel;
use serde::{Deserialize, Serialize};

use crate::judge::ballot::Ballot;
use crate::judge::case::{data, shown, visible, without_asking};
use crate::judge::panel::{Case, Panel, Tally};
use crate::judge::{JudgeConfig, JudgePrompt, JudgeProvenance};
use crate::{Reward, RewardError, Sample, Score};

const WORDS: &[&str] = &["first", "second", "tie"];
/// Places in [`WORDS`].
const FIRST: usize = 0;
const SECOND: usize = 1;
const TIE: usize = 2;

/// What a response is compared with, where the comparison is a reward.
///
/// ```
/// assert_eq!(posttrain_reward::judge::Opponent::default(), posttrain_reward::judge::Opponent::Metadata("baseline".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Opponent {
    /// The text in this field of the sample's metadata: another model's response, say.
    Metadata(String),
    /// The reference answer, which is then not shown as such.
    Reference,
}

impl Default for Opponent {
    fn default() -> Self {
        Self::Metadata("baseline".into())
    }
}

/// Configuration of a [`PairJudge`].
///
/// ```
/// use posttrain_reward::judge::{Opponent, PairConfig};
///
/// let config: PairConfig = toml::from_str("opponent = \"reference\"")?;
/// assert_eq!(config.opponent, Opponent::Reference);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairConfig {
    /// What a response is compared with. Default: the metadata's `baseline`.
    pub opponent: Opponent,
    /// What it has in common with other judges. Its votes are asked in each order.
    pub judge: JudgeConfig,
}

/// How two responses compare.
///
/// ```
/// use posttrain_reward::judge::Preference;
///
/// let preference = Preference { first: 0.5, consistent: false, note: String::new() };
/// assert_eq!(preference.first, 0.5);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// What the first response wins: the mean over both orders of 1 for a win, ½ for a tie, 0 for a
    /// loss.
    pub first: f64,
    /// Whether both orders say the same. A judge that prefers whatever stands first does not.
    pub consistent: bool,
    /// Who said it, under which prompt, and why.
    pub note: String,
}

/// Compares two responses, and as a reward one with an [`Opponent`]: 1 for better, ½ for neither, 0
/// for worse.
///
/// Judges prefer the response that stands first (or last), so each pair is asked in both orders;
/// where these contradict each other, each response wins half. Of several votes in an order more
/// than half must agree, else it is a tie there. Everything else is as in a
/// [`Judge`](crate::judge::Judge). After [MT-Bench](https://arxiv.org/abs/2306.05685), section 3.4.
///
/// ```
/// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
/// use posttrain_reward::Sample;
/// use posttrain_reward::judge::PairConfig;
/// use std::sync::Arc;
///
/// // A judge that prefers what stands first, whatever it is.
/// let biased = from_fn("biased", async |_: ChatRequest| {
///     Ok(ChatResponse::from_text(r#"{"reasoning": "…", "verdict": "first"}"#))
/// });
/// let judge = PairConfig::default().build(Arc::new(biased))?;
/// let preference = futures::executor::block_on(judge.compare(&Sample::new("2 + 2?", "4", "It is 4."), "It is 5."))?;
/// assert_eq!((preference.first, preference.consistent), (0.5, false));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct PairJudge {
    panel: Panel,
    opponent: Opponent,
}

impl PairConfig {
    /// A pairwise judge that asks `model`.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`], the prompt and the transcript's file included.
    ///
    /// ```
    /// use posttrain_chat::openai::OpenAiConfig;
    /// use posttrain_reward::Reward;
    /// use posttrain_reward::judge::PairConfig;
    ///
    /// let model = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?.build()?;
    /// assert_eq!(PairConfig::default().build(std::sync::Arc::new(model))?.name(), "judge");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(mut self, model: Arc<dyn ChatModel>) -> Result<PairJudge, RewardError> {
        if self.opponent == Opponent::Reference {
            self.judge.reference = crate::judge::ReferenceUse::Hidden;
        }
        let panel = Panel::new(
            self.judge,
            model,
            &JudgePrompt::pair(),
            Ballot::verdict(WORDS),
            Vec::new(),
        )?;
        Ok(PairJudge { panel, opponent: self.opponent })
    }
}

impl PairJudge {
    /// Compares the sample's response (the first) with another one.
    ///
    /// # Errors
    /// As in [`Reward::score`]; a vote that fails in one order fails the pair.
    ///
    /// ```
    /// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
    /// use posttrain_reward::Sample;
    /// use posttrain_reward::judge::PairConfig;
    ///
    /// let model = from_fn("stub", async |request: ChatRequest| {
    ///     let first = request.messages[1].text().find("It is 4.") < request.messages[1].text().find("It is 5.");
    ///     let verdict = if first { "first" } else { "second" };
    ///     Ok(ChatResponse::from_text(format!("{{\"reasoning\": \"…\", \"verdict\": \"{verdict}\"}}")))
    /// });
    /// let judge = PairConfig::default().build(std::sync::Arc::new(model))?;
    /// let preference = futures::executor::block_on(judge.compare(&Sample::new("2 + 2?", "4", "It is 4."), "It is 5."))?;
    /// assert_eq!((preference.first, preference.consistent), (1.0, true));
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub async fn compare(&self, sample: &Sample, other: &str) -> Result<Preference, RewardError> {
        let reference = self.panel.config.reference(sample)?;
        let (ours, theirs) = (visible(&sample.response), visible(other));
        let order = |first, second| {
            let responses = [("first_response", first), ("second_response", second)];
            let data = data(&self.panel.config, sample, reference, &responses);
            let shown = [shown(sample, reference), vec![other]].concat();
            Case { id: &sample.id, data, shown }
        };
        let (straight, swapped) = (order(ours, theirs), order(theirs, ours));
        let (straight, swapped) =
            try_join(self.panel.ask(&straight), self.panel.ask(&swapped)).await?;
        let (one, two) = (share(&straight, FIRST), share(&swapped, SECOND));
        let note = self.panel.note(WORDS[straight.choices[0].unwrap_or(TIE)], &straight);
        Ok(Preference { first: (one + two) / 2.0, consistent: one == two, note })
    }

    /// What its verdicts depend on beside the sample.
    ///
    /// ```no_run
    /// # fn show(judge: posttrain_reward::judge::PairJudge) {
    /// println!("{:?}", judge.provenance());
    /// # }
    /// ```
    pub fn provenance(&self) -> &JudgeProvenance {
        self.panel.provenance()
    }

    fn opponent<'s>(&self, sample: &'s Sample) -> Result<&'s str, RewardError> {
        match &self.opponent {
            Opponent::Reference => sample.checked_reference(),
            Opponent::Metadata(field) => {
                let text = sample.metadata.get(field).and_then(|value| value.as_str());
                text.ok_or_else(|| RewardError::NoOpponent {
                    id: sample.id.clone(),
                    field: field.clone(),
                })
            }
        }
    }

    async fn judge(&self, sample: &Sample) -> Result<Score, RewardError> {
        let opponent = self.opponent(sample)?;
        if let Some(score) = without_asking(&self.panel.config, sample) {
            return Ok(score);
        }
        let preference = self.compare(sample, opponent).await?;
        let score = Score::new(preference.first)?;
        let consistent = f64::from(u8::from(preference.consistent));
        Ok(score.with_part("consistent", consistent)?.with_note(preference.note))
    }
}

impl Reward for PairJudge {
    fn name(&self) -> &str {
        &self.panel.config.name
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(self.judge(sample))
    }
}

/// What `ours` wins in one order.
fn share(tally: &Tally, ours: usize) -> f64 {
    match tally.choices[0] {
        Some(choice) if choice == ours => 1.0,
        Some(TIE) | None => 0.5,
        Some(_) => 0.0,
    }
}
