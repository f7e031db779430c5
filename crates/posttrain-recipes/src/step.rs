//! One step: what it trains on, and what that gives.

use crate::RecipeError;
use crate::config::RlConfig;
use crate::observer::{Event, Observer, Phase};
use crate::rollout::{Rollout, ScoredGroup};
use crate::shaping::RewardShaping;
use posttrain_loss::{Advantages, PolicyObjective};
use posttrain_optim::AdamParams;
use posttrain_train::{Datum, ForwardBackward, OptimStep, Trainer};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;
use tracing::info_span;

/// What a step was trained on, and what it gave.
pub(crate) struct Trained {
    /// What was trained on.
    pub rollout: Rollout,
    /// Groups that were sampled besides, and are not worth training on.
    pub replaced: Vec<ScoredGroup>,
    /// What each completion of the rollout is worth.
    pub advantages: Advantages,
    /// What the passes gave.
    pub passes: ForwardBackward,
    /// Of each completion of the rollout the trainer's log-probabilities; empty where they were not
    /// computed.
    pub logprobs: Vec<Vec<f32>>,
    /// Of each completion of the rollout the version that was trained on it; empty where groups are
    /// trained on as they come.
    pub versions: Vec<u64>,
    /// The optimizer steps that were taken.
    pub optim: Vec<OptimStep>,
    /// Seconds that training took.
    pub seconds: f64,
}

impl Trained {
    /// Everything that was sampled.
    pub fn sampled(&self) -> impl Iterator<Item = &ScoredGroup> {
        self.rollout.groups.iter().chain(&self.replaced)
    }
}

/// How a step of a run is trained.
pub(crate) struct StepTrainer<'a> {
    pub config: &'a RlConfig,
    /// The step, from 0.
    pub step: u64,
}

impl StepTrainer<'_> {
    /// Trains on groups that are all there.
    pub fn train_on(
        &self,
        rollout: Rollout,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Trained, RecipeError> {
        let config = self.config;
        self.check_failures(&rollout.groups)?;
        let (groups, replaced) = config.select(rollout.groups)?;
        let mut rollout = Rollout { groups, cost: rollout.cost };
        let shaping = RewardShaping::of(config);
        let advantages = rollout.advantages(&config.advantage, &shaping)?;

        let started = Instant::now();
        observer.see(&Event::Progress { phase: Phase::Training, done: 0, total: 1 });
        let datums = rollout.datums(&advantages, &shaping, config.sampling.temperature);
        let mut parts = Vec::new();
        let mut versions = Vec::with_capacity(datums.len());
        let mut optim = Vec::new();
        for part in parts_of(&rollout.groups, config.optimizer_steps as usize) {
            let part = &datums[part];
            versions.extend(std::iter::repeat_n(trainer.policy_version(), part.len()));
            let has_signal = part.iter().any(|datum| self.teaches(datum));
            let passes = info_span!("training", step = self.step)
                .in_scope(|| trainer.forward_backward(part, &config.objective))?;
            parts.push(passes);
            optim.extend(self.optim_step(trainer, has_signal, 1.0)?);
        }

        // What was recorded has served: a validation that follows needs the memory.
        drop(datums);
        rollout.release_recordings();
        observer.see(&Event::Progress { phase: Phase::Training, done: 1, total: 1 });
        let seconds = started.elapsed().as_secs_f64();
        let mut passes = merged(parts)?;
        let logprobs = std::mem::take(&mut passes.scores.logprobs);
        Ok(Trained { rollout, replaced, advantages, passes, logprobs, versions, optim, seconds })
    }

    /// Whether a datum has a gradient.
    pub fn teaches(&self, datum: &Datum) -> bool {
        teaches(&self.config.objective, datum)
    }

    /// Applies the collected gradient. One without any signal takes no optimizer step: momentum
    /// alone would move the policy.
    pub fn optim_step(
        &self,
        trainer: &mut Trainer,
        has_signal: bool,
        gradient_scale: f64,
    ) -> Result<Option<OptimStep>, RecipeError> {
        if !has_signal {
            trainer.clear_gradients();
            return Ok(None);
        }
        let params = AdamParams { gradient_scale, ..trainer.adam_params(self.learning_rate()) };
        info_span!("optimizer").in_scope(|| Ok(Some(trainer.optim_step(&params)?)))
    }

    /// The step's learning rate.
    pub fn learning_rate(&self) -> f64 {
        let config = self.config;
        config.learning_rate * config.schedule.factor(self.step, config.steps)
    }

    /// `Ok` where few enough rewards failed for the step to mean anything.
    pub fn check_failures<'a>(
        &self,
        groups: impl IntoIterator<Item = &'a ScoredGroup>,
    ) -> Result<(), RecipeError> {
        let mut causes = BTreeMap::new();
        let mut total = 0;
        for scored in groups.into_iter().flat_map(|group| &group.completions) {
            total += 1;
            if let Err(failure) = &scored.score {
                *causes.entry(&failure.cause).or_insert(0) += 1;
            }
        }
        let failed: usize = causes.values().sum();
        let allowed = self.config.max_reward_failures;
        if failed as f64 <= allowed * total as f64 {
            return Ok(());
        }

        let causes =
            causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ");
        Err(RecipeError::RewardFailures { step: self.step + 1, failed, total, allowed, causes })
    }
}

/// The completions of each of `count` parts of the groups, which are as equal as they can be.
fn parts_of(groups: &[ScoredGroup], count: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::with_capacity(count);
    let mut start = 0;
    for part in 0..count {
        let groups =
            &groups[boundary(groups.len(), count, part)..boundary(groups.len(), count, part + 1)];
        let end = start + groups.iter().map(|group| group.completions.len()).sum::<usize>();
        if end > start {
            parts.push(start..end);
        }
        start = end;
    }
    parts
}

/// How many of `groups` groups lie before part `part` of `count`.
pub(crate) fn boundary(groups: usize, count: usize, part: usize) -> usize {
    groups * part / count
}

/// What a step's parts gave: of several the loss is the mean.
pub(crate) fn merged(parts: Vec<ForwardBackward>) -> Result<ForwardBackward, RecipeError> {
    let count = parts.len();
    let mean = parts.iter().map(ForwardBackward::loss).sum::<f64>() / count as f64;
    let mut parts = parts.into_iter();
    let mut all =
        parts.next().ok_or(RecipeError::Train(posttrain_train::TrainError::NoGradient))?;
    for part in parts {
        all.merge(part);
    }
    if count > 1 {
        all.loss_sum = mean;
        all.denominator = 1.0;
    }
    Ok(all)
}

/// Whether a datum has a gradient: by its advantage, or by the objective's other terms, which every
/// token that counts has.
pub(crate) fn teaches(objective: &PolicyObjective, datum: &Datum) -> bool {
    if objective.kl.is_none() && objective.entropy_coefficient == 0.0 {
        return datum.has_signal();
    }
    datum.weights.as_ref().is_none_or(|weights| weights.iter().any(|weight| *weight != 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_data::Example;

    #[test]
    fn parts_are_whole_groups_and_as_equal_as_they_can_be() {
        let group = |n: usize| {
            let example = Example::new(n.to_string(), "d", "q", "a");
            ScoredGroup::of(
                example,
                vec![1],
                (0..n).map(|_| completion()),
                (0..n).map(|_| Ok(score())).collect(),
            )
        };
        let groups: Vec<_> = [2, 2, 3, 2, 2].into_iter().map(group).collect();
        assert_eq!(parts_of(&groups, 1), vec![0..11]);
        assert_eq!(parts_of(&groups, 2), vec![0..4, 4..11]);
        assert_eq!(parts_of(&groups, 5), vec![0..2, 2..4, 4..7, 7..9, 9..11]);
        assert_eq!(parts_of(&groups[..1], 3), vec![0..2]);
    }

    fn completion() -> posttrain_rollout::Completion {
        posttrain_rollout::Completion {
            tokens: vec![1],
            logprobs: vec![0.0],
            text: String::new(),
            finish_reason: posttrain_rollout::FinishReason::Stop,
            policy_version: 0,
            token_versions: vec![0],
            recording: None,
        }
    }

    fn score() -> posttrain_reward::Score {
        posttrain_reward::Score::binary(true)
    }
}
