//! Answers to held-out questions, each with its verdict.

use crate::TrainError;
use crate::accuracy::Accuracy;
use crate::config::RlConfig;
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::observer::{Observer, Phase};
use crate::policy::{Policy, PromptStyle};
use crate::rollout::{Rollout, Sampling, Scored, Wanted};
use crate::seed::derive_seed;
use crate::trainer::PolicySnapshot;
use posttrain_data::Example;
use posttrain_reward::{Reward, ScorerConfig};
use posttrain_rollout::{EngineConfig, FinishReason, SamplingParams};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A question, and the policy that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The question.
    pub example: &'a Example,
    /// The policy; `None` is the base.
    pub policy: Option<&'a PolicySnapshot>,
}

/// How an answer is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawing {
    /// At temperature 1.
    Sampled,
    /// The most probable token each time.
    Greedy,
}

/// What a policy answered, and what its reward said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The example's id.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// What was asked.
    pub question: String,
    /// The reference answer.
    pub reference: String,
    /// What was answered.
    pub response: String,
    /// Its tokens.
    pub tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The reward, in [0, 1]; absent where it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reward: Option<f64>,
    /// Why the reward failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl Answer {
    /// Whether the answer is right: a reward above one half. `None` where there is no verdict.
    pub fn is_right(&self) -> Option<bool> {
        self.reward.map(|reward| reward > 0.5)
    }
}

/// Puts questions to policies over one base and has the answers scored.
///
/// An answer depends on the seed, the question and the policy, and on nothing else: not on the other questions, their
/// order or the policies that are asked beside it, since every question draws from a seed of its own.
pub struct Evaluator<'m> {
    pub(crate) policy: Policy<'m>,
    pub(crate) style: PromptStyle,
    pub(crate) reward: Arc<dyn Reward>,
    pub(crate) runtime: tokio::runtime::Runtime,
    sampling: SamplingParams,
    engine: EngineConfig,
    scorer: ScorerConfig,
    seed: u64,
}

impl<'m> Evaluator<'m> {
    /// An evaluator with the sampling, engine, scorer and seed of a run's configuration, whatever its temperature.
    ///
    /// # Errors
    /// [`TrainError::Config`] names the first field that is out of range, [`TrainError::Runtime`] says why no thread for
    /// the rewards can be started.
    pub fn new(
        policy: Policy<'m>,
        style: PromptStyle,
        reward: Arc<dyn Reward>,
        config: &RlConfig,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self {
            policy,
            style,
            reward,
            runtime: runtime.map_err(|source| TrainError::Runtime { source })?,
            sampling: SamplingParams { temperature: 1.0, ..config.sampling.clone() },
            engine: config.engine.clone(),
            scorer: config.scorer.clone(),
            seed: config.seed,
        })
    }

    /// One answer to each question, in the order of the questions. Questions to several policies run in one batch.
    ///
    /// # Errors
    /// [`TrainError::Prompt`] names a question that cannot be asked; else whatever sampling does. A reward that fails is
    /// no error: its answer says so.
    pub fn answers(
        &self,
        asked: &[Asked],
        drawing: Drawing,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Answer>, TrainError> {
        Ok(answers(self.draw(asked, 1, drawing, observer)?))
    }

    /// The accuracy of one policy, or of the base where it is `None`; sampled from `samples` answers to each question.
    ///
    /// # Errors
    /// Those of [`Evaluator::answers`].
    pub fn evaluate(
        &self,
        policy: Option<&PolicySnapshot>,
        examples: &[Example],
        samples: usize,
        mode: EvaluationMode,
        observer: &mut dyn Observer,
    ) -> Result<Evaluation, TrainError> {
        let asked: Vec<_> = examples.iter().map(|example| Asked { example, policy }).collect();
        let sampled = accuracy(&self.draw(&asked, samples, Drawing::Sampled, observer)?);
        let greedy = match mode {
            EvaluationMode::Sampled => None,
            EvaluationMode::SampledAndGreedy => Some(accuracy(&self.draw(&asked, 1, Drawing::Greedy, observer)?)),
        };
        Ok(Evaluation { sampled, greedy })
    }

    fn draw(
        &self,
        asked: &[Asked],
        samples: usize,
        drawing: Drawing,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, TrainError> {
        let params = asked.iter().map(|a| self.params(a.example, drawing)).collect();
        let examples = asked.iter().map(|a| a.example.clone()).collect();
        let policies = asked.iter().map(|a| a.policy).collect();
        let wanted = Wanted { policies, examples, samples, params, phase: Phase::Evaluating };
        self.sampling().run(wanted, observer)
    }

    pub(crate) fn sampling(&self) -> Sampling<'_> {
        Sampling {
            policy: self.policy,
            style: &self.style,
            engine: &self.engine,
            reward: &self.reward,
            scorer: &self.scorer,
            runtime: &self.runtime,
        }
    }

    fn params(&self, example: &Example, drawing: Drawing) -> SamplingParams {
        let seed = derive_seed(self.seed, &format!("evaluate {}", example.id), 0, 0);
        let params = SamplingParams { seed, ..self.sampling.clone() };
        match drawing {
            Drawing::Sampled => params,
            Drawing::Greedy => params.greedy(),
        }
    }
}

/// A reward above one half is right; without a reward there is no verdict.
fn accuracy(rollout: &Rollout) -> Accuracy {
    let scores = rollout.groups.iter().flat_map(|group| &group.completions).map(|completion| &completion.score);
    Accuracy::of(&scores.map(|score| score.as_ref().ok().map(|s| s.value() > 0.5)).collect::<Vec<_>>())
}

fn answers(rollout: Rollout) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(rollout.groups.len());
    for group in rollout.groups {
        let Example { id, domain, question, answer: reference, .. } = group.example;
        let Some(Scored { completion, score }) = group.completions.into_iter().next() else { continue };
        let (reward, error) = match score {
            Ok(score) => (Some(score.value()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (tokens, finish_reason, response) = (completion.tokens.len(), completion.finish_reason, completion.text);
        answers.push(Answer { id, domain, question, reference, response, tokens, finish_reason, reward, error });
    }
    answers
}
