//! What a policy is trained on: groups of completions with their advantages.

use crate::TrainError;
use posttrain_loss::StepTotals;
use posttrain_rollout::{Completion, Recording};

/// A completion as it was sampled, with what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingCompletion {
    /// Its tokens, at least one.
    pub tokens: Vec<i64>,
    /// Each token's log-probability under the distribution that sampled it, nats.
    pub sampling_logprobs: Vec<f32>,
    /// Its advantage, for every one of its tokens. 0 trains nothing.
    pub advantage: f32,
    /// The activations that it was sampled from: if all texts of a pass have theirs, and the policy has not moved since, its
    /// forward pass is not computed again.
    pub recording: Option<Recording>,
}

impl TrainingCompletion {
    /// A completion as it came out of the engine.
    pub fn sampled(completion: &Completion, advantage: f32) -> Self {
        Self {
            tokens: completion.tokens.clone(),
            sampling_logprobs: completion.logprobs.clone(),
            advantage,
            recording: completion.recording.clone(),
        }
    }
}

/// The completions of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingGroup {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<i64>,
    /// The completions.
    pub completions: Vec<TrainingCompletion>,
}

impl TrainingGroup {
    /// Tokens that a forward pass over the group computes: the prompt once, each completion once.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(|c| c.tokens.len()).sum::<usize>()
    }
}

/// The groups of one optimiser step.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingBatch {
    groups: Vec<TrainingGroup>,
    totals: StepTotals,
}

impl TrainingBatch {
    /// A batch from its groups.
    ///
    /// # Errors
    /// [`TrainError::Batch`] names the first completion without tokens, with another number of log-probabilities than
    /// tokens, or with a value that is not finite.
    pub fn new(groups: Vec<TrainingGroup>) -> Result<Self, TrainError> {
        for (index, group) in groups.iter().enumerate() {
            check_prompt(index, group)?;
            group.completions.iter().enumerate().try_for_each(|(c, completion)| check(index, c, completion))?;
        }
        let lengths: Vec<usize> = groups.iter().flat_map(|g| &g.completions).map(|c| c.tokens.len()).collect();
        let totals = StepTotals::count(&lengths, None)?;
        Ok(Self { groups, totals })
    }

    /// The groups.
    pub fn groups(&self) -> &[TrainingGroup] {
        &self.groups
    }

    /// Tokens and sequences of the whole step, which every micro-batch's loss is divided by.
    pub fn totals(&self) -> &StepTotals {
        &self.totals
    }

    /// Whether any completion has an advantage: without one the policy gradient is zero.
    pub fn has_signal(&self) -> bool {
        self.groups.iter().flat_map(|g| &g.completions).any(|c| c.advantage != 0.0)
    }
}

fn check_prompt(group: usize, g: &TrainingGroup) -> Result<(), TrainError> {
    if g.prompt.is_empty() {
        let (expected, got) = ("a prompt of at least one token", "an empty prompt".into());
        return Err(TrainError::Batch { group, completion: 0, expected, got });
    }
    Ok(())
}

fn check(group: usize, completion: usize, c: &TrainingCompletion) -> Result<(), TrainError> {
    let error = |expected, got: String| Err(TrainError::Batch { group, completion, expected, got });
    if c.tokens.is_empty() {
        return error("at least one token", "none".into());
    }
    if c.tokens.len() != c.sampling_logprobs.len() {
        let got = format!("{} tokens and {} log-probabilities", c.tokens.len(), c.sampling_logprobs.len());
        return error("a log-probability for each token", got);
    }
    if !c.advantage.is_finite() {
        return error("a finite advantage", c.advantage.to_string());
    }
    match c.sampling_logprobs.iter().find(|l| !l.is_finite()) {
        Some(logprob) => error("finite log-probabilities", logprob.to_string()),
        None => Ok(()),
    }
}
