//! The binary judge: a language model says whether a response agrees with the reference.

use std::sync::Arc;

use futures::future::BoxFuture;
use posttrain_chat::ChatModel;

use crate::judge::ballot::Ballot;
use crate::judge::case::{data, shown, visible, without_asking};
use crate::judge::panel::{Case, Panel};
use crate::judge::{JudgeConfig, JudgePrompt, JudgeProvenance, NoVerdict, Ties};
use crate::{Reward, RewardError, Sample, Score};

const WORDS: &[&str] = &["correct", "incorrect"];

/// The reward of a model's verdict: 1 for correct, 0 for incorrect.
///
/// What is judged is the response without its thinking (all up to the last `</think>`, whether or
/// not it was opened; a `<think>` that never ends leaves nothing). Where nothing is left, the
/// response is wrong, and nobody is asked.
///
/// The response reaches the judge as data and cannot speak to it: it is a JSON string on one line,
/// with the markup of special tokens taken apart, between marks with a code that occurs in no part
/// of it. (That keeps it from *posing* as anything else. It may still try to persuade; the prompt
/// warns of that, and an [`Audit`](crate::audit::Audit) measures what is left.) The judge answers
/// in JSON, reasoning first, which servers are made to keep to where they can. A refusal, an empty
/// answer, one that is cut off or of another form, or one that may merely quote the response, is an
/// error ([`RewardError::NoVerdict`]), and so is everything that may happen on the way
/// ([`RewardError::Chat`]); no failure is a zero.
///
/// Of several votes more than half must agree; the rest is not waited for once it cannot matter. A
/// failed vote is on no side. The score has the part `agreement`, the share of the votes cast that
/// agree with the verdict, and a note of who said it, under which prompt, and why.
///
/// ```
/// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::judge::JudgeConfig;
/// use std::sync::Arc;
///
/// // A model that finds everything incorrect but what contains the word "four".
/// let model = from_fn("stub", async |request: ChatRequest| {
///     let verdict = if request.messages[1].text().contains("four") { "correct" } else { "incorrect" };
///     Ok(ChatResponse::from_text(format!("{{\"reasoning\": \"…\", \"verdict\": \"{verdict}\"}}")))
/// });
/// let judge = JudgeConfig::default().build(Arc::new(model))?;
/// let judged = |response: &str| futures::executor::block_on(judge.score(&Sample::new("2 + 2?", "4", response)));
/// assert_eq!(judged("It is four.")?.value(), 1.0);
/// assert_eq!(judged("It is five.")?.value(), 0.0);
/// assert_eq!(judged("<think>It is four, I think")?.value(), 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct Judge {
    panel: Panel,
}

impl JudgeConfig {
    /// A binary judge that asks `model`.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`], the prompt and the transcript's file included.
    ///
    /// ```
    /// use posttrain_chat::openai::OpenAiConfig;
    /// use posttrain_reward::Reward;
    /// use posttrain_reward::judge::JudgeConfig;
    ///
    /// let model = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?.build()?;
    /// let judge = JudgeConfig::default().build(std::sync::Arc::new(model))?;
    /// assert_eq!(judge.name(), "judge");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(self, model: Arc<dyn ChatModel>) -> Result<Judge, RewardError> {
        let panel =
            Panel::new(self, model, &JudgePrompt::binary(), Ballot::verdict(WORDS), Vec::new())?;
        Ok(Judge { panel })
    }
}

impl Judge {
    /// What its verdicts depend on beside the sample.
    ///
    /// ```
    /// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
    /// use posttrain_reward::judge::JudgeConfig;
    ///
    /// let model = from_fn("stub", async |_: ChatRequest| Ok(ChatResponse::from_text("")));
    /// let judge = JudgeConfig::default().build(std::sync::Arc::new(model))?;
    /// assert_eq!(judge.provenance().prompt.len(), 16);
    /// # Ok::<(), posttrain_reward::RewardError>(())
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
        let visible = visible(&sample.response);
        let data = data(config, sample, reference, &[("response", visible)]);
        let tally =
            self.panel.ask(&Case { id: &sample.id, data, shown: shown(sample, reference) }).await?;
        let right = match (tally.choices[0], config.ties) {
            (Some(choice), _) => choice == 0,
            (None, Ties::Wrong) => false,
            (None, Ties::Error) => {
                return Err(self.panel.no_verdict(&sample.id, NoVerdict::Tie, &tally.reasoning));
            }
        };
        let votes: usize = tally.counts[0].iter().sum();
        let agreement = tally.counts[0][usize::from(!right)] as f64 / votes.max(1) as f64;
        let score = Score::binary(right).with_part("agreement", agreement)?;
        Ok(score.with_note(self.panel.note(WORDS[usize::from(!right)], &tally)))
    }
}

impl Reward for Judge {
    fn name(&self) -> &str {
        &self.panel.config.name
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(self.judge(sample))
    }
}
