//! A workbook that a policy edits by programs, trying them before it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Message;
use posttrain_reward::spreadsheet::SpreadsheetCode;
use posttrain_reward::{Reward, Sample, Score};

use crate::tools::cut;
use crate::{Action, Environment, EnvironmentError, EpisodeEnd, Opening, Step};

/// Bytes of a program's output that the policy reads.
const OUTPUT_BYTES: usize = 2048;

/// A spreadsheet task in several turns: each turn's program (its last block of code) is run on the first
/// case's workbook, and the policy reads what it said and whether it left a workbook. A turn without
/// a program ends the episode, and so does the budget; the last program is then scored on all cases,
/// softly and hard, as [`SpreadsheetCode`] does. Who wrote none earns 0.
pub struct SpreadsheetTask {
    messages: Vec<Message>,
    sample: Sample,
    reward: Arc<SpreadsheetCode>,
    programs: usize,
    failed: usize,
    score: Option<Score>,
}

impl SpreadsheetTask {
    /// A task as the policy reads it, and as the reward does: `sample` has the range and the cases
    /// in its metadata, and no response.
    #[must_use]
    pub fn new(messages: Vec<Message>, sample: Sample, reward: Arc<SpreadsheetCode>) -> Self {
        Self { messages, sample, reward, programs: 0, failed: 0, score: None }
    }

    /// Tries a turn's program; nothing where it has none.
    async fn try_out(&mut self, text: &str) -> Result<Option<String>, EnvironmentError> {
        let turn = Sample { response: text.to_owned(), ..self.sample.clone() };
        let Some(run) = self.reward.try_out(&turn).await? else { return Ok(None) };
        self.sample.response = turn.response;
        self.programs += 1;
        let mut said = cut(run.output, OUTPUT_BYTES);
        match (run.exit, run.ended_by) {
            (_, Some(reason)) => said += &format!("\n[{reason}]"),
            (Some(0), None) if run.kept => said += "\n[it left a workbook]",
            (Some(0), None) => said += "\n[it left no workbook]",
            (exit, None) => said += &format!("\n[exit code {}]", exit.unwrap_or_default()),
        }
        if run.exit != Some(0) || !run.kept {
            self.failed += 1;
        }
        Ok(Some(said))
    }

    async fn end(&mut self) -> Result<f64, EnvironmentError> {
        // Without a program it is 0, and a row that is none is an error all the same.
        let score = self.reward.score(&self.sample).await?;
        let value = score.value();
        self.score = Some(score);
        Ok(value)
    }
}

impl Environment for SpreadsheetTask {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        std::future::ready(Ok(Opening::new(self.messages.clone()))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            match self.try_out(action.text).await? {
                Some(said) => Ok(Step::next(Message::user(said))),
                None => Ok(Step::done(self.end().await?)),
            }
        }
        .boxed()
    }

    /// What was written until then counts.
    fn cut(&mut self, _: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        self.end().boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics: BTreeMap<String, f64> = BTreeMap::from([
            ("programs".to_owned(), self.programs as f64),
            ("failed_programs".to_owned(), self.failed as f64),
        ]);
        for name in ["soft", "hard"] {
            let parts = self.score.iter().flat_map(Score::parts);
            let part = parts.filter(|(part, _)| part == name).map(|(_, value)| *value).next();
            // Whoever writes no program edits nothing.
            metrics.insert(name.to_owned(), part.unwrap_or(0.0));
        }
        metrics
    }
}
