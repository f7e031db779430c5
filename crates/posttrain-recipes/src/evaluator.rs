//! Answers to held-out questions, each with its verdict.

use crate::config::RlConfig;
use crate::evaluation::{Evaluation, EvaluationMode};
use crate::observer::{Observer, Phase};
use crate::prompt::PromptStyle;
use crate::remote::RemoteSampler;
use crate::rollout::{GroupSampler, Rollout, RolloutRequest, ScoredGroup};
use crate::{RecipeError, Reward};
use posttrain_data::Example;
use posttrain_model::TextModel;
use posttrain_rollout::{FinishReason, PolicySnapshot, SamplingParams};
use posttrain_statistics::Share;
use posttrain_train::derive_seed;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A question, and the policy that is asked.
#[derive(Debug, Clone, Copy)]
pub struct PolicyQuestion<'a> {
    /// The question.
    pub example: &'a Example,
    /// The policy; `None` is the base.
    pub policy: Option<&'a PolicySnapshot>,
}

/// How an answer is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// Sampled at temperature 1.
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
    #[must_use]
    pub fn is_right(&self) -> Option<bool> {
        self.reward.map(|reward| reward > 0.5)
    }
}

/// Puts questions to policies over one base and has the answers scored.
///
/// An answer depends on the seed, the question and the policy, and on nothing else: not on the
/// other questions, their order or the policies that are asked beside it, since every question
/// draws from a seed of its own.
pub struct Evaluator {
    pub(crate) sampler: GroupSampler,
    sampling: SamplingParams,
    seed: u64,
}

impl Evaluator {
    /// An evaluator with the sampling, engine, scorer and seed of a run's configuration, whatever
    /// its temperature.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names the first field that is out of range, [`RecipeError::Runtime`]
    /// says why no thread for the rewards can be started.
    pub fn new(
        model: TextModel,
        style: PromptStyle,
        reward: Arc<dyn Reward>,
        config: &RlConfig,
    ) -> Result<Self, RecipeError> {
        config.validate()?;
        let remote = RemoteSampler::of(&config.sampler, &model)?;
        let mut sampler = GroupSampler::new(model, reward)?;
        sampler.remote = remote;
        sampler.style = style;
        sampler.engine = config.engine.clone();
        sampler.scorer = config.scorer.clone();

        let sampling = SamplingParams { temperature: 1.0, ..config.sampling.clone() };
        Ok(Self { sampler, sampling, seed: config.seed })
    }

    /// One answer to each question, in the order of the questions. Questions to several policies
    /// run in one batch.
    ///
    /// # Errors
    /// [`RecipeError::Prompt`] names a question that cannot be asked; else whatever sampling does.
    /// A reward that fails is no error: its answer says so.
    pub fn answers(
        &self,
        questions: &[PolicyQuestion],
        decoding: Decoding,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Answer>, RecipeError> {
        let rollout = self.ask(questions, 1, decoding, observer)?;
        Ok(rollout.groups.into_iter().flat_map(answers).collect())
    }

    /// `samples` sampled answers to each question, in the order of the questions. The same samples
    /// of a question are drawn with the same randomness whichever policy answers.
    ///
    /// # Errors
    /// Those of [`Evaluator::answers`].
    pub fn several_answers(
        &self,
        questions: &[PolicyQuestion],
        samples: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Answer>>, RecipeError> {
        let rollout = self.ask(questions, samples, Decoding::Sampled, observer)?;
        Ok(rollout.groups.into_iter().map(answers).collect())
    }

    /// The accuracy of one policy, or of the base where it is `None`; sampled from `samples`
    /// answers to each question.
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
    ) -> Result<Evaluation, RecipeError> {
        let questions: Vec<_> =
            examples.iter().map(|example| PolicyQuestion { example, policy }).collect();
        let sampled = accuracy(&self.ask(&questions, samples, Decoding::Sampled, observer)?);

        let greedy = match mode {
            EvaluationMode::Sampled => None,
            EvaluationMode::SampledAndGreedy => {
                Some(accuracy(&self.ask(&questions, 1, Decoding::Greedy, observer)?))
            }
        };
        Ok(Evaluation { sampled, greedy })
    }

    fn ask(
        &self,
        questions: &[PolicyQuestion],
        completions: usize,
        decoding: Decoding,
        observer: &mut dyn Observer,
    ) -> Result<Rollout, RecipeError> {
        let examples: Vec<Example> =
            questions.iter().map(|question| question.example.clone()).collect();
        let request = RolloutRequest {
            examples: &examples,
            policies: questions.iter().map(|question| question.policy.cloned()).collect(),
            completions,
            sampling: examples.iter().map(|example| self.sampling_of(example, decoding)).collect(),
            phase: Phase::Evaluating,
        };
        self.sampler.rollout(request, observer)
    }

    fn sampling_of(&self, example: &Example, decoding: Decoding) -> SamplingParams {
        let seed = derive_seed(self.seed, &format!("evaluate {}", example.id), 0, 0);
        let params = SamplingParams { seed, ..self.sampling.clone() };
        match decoding {
            Decoding::Sampled => params,
            Decoding::Greedy => params.greedy(),
        }
    }
}

/// A reward above one half is right; without a reward there is no verdict.
fn accuracy(rollout: &Rollout) -> Share {
    let verdict = |scored: &crate::ScoredCompletion| {
        scored.score.as_ref().ok().map(|score| score.value() > 0.5)
    };
    Share::of_verdicts(&rollout.completions().map(verdict).collect::<Vec<_>>())
}

/// A group's completions as answers.
fn answers(group: ScoredGroup) -> Vec<Answer> {
    let Example { id, domain, question, answer: reference, .. } = group.example;

    let mut answers = Vec::with_capacity(group.completions.len());
    for scored in group.completions {
        let (reward, error) = match scored.score {
            Ok(score) => (Some(score.value()), None),
            Err(failure) => (None, Some(failure.report)),
        };
        answers.push(Answer {
            id: id.clone(),
            domain: domain.clone(),
            question: question.clone(),
            reference: reference.clone(),
            response: scored.completion.text,
            tokens: scored.completion.tokens.len(),
            finish_reason: scored.completion.finish_reason,
            reward,
            error,
        });
    }
    answers
}
