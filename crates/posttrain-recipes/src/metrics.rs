//! A run's metrics: `metrics.jsonl`, a line a step, and TensorBoard's scalars.

use crate::config::RlConfig;
use crate::step::Trained;
use crate::{Evaluation, RecipeError};
use posttrain_rollout::FinishReason;
use posttrain_store::{JsonLog, read_log};
use posttrain_train::EventFile;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of `metrics.jsonl`.
///
/// Times, rates and memory differ from run to run; everything else is the same for the same seed on
/// the same machine, device and kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// The step, from 1.
    pub step: u64,
    /// The version of the policy that sampled.
    pub policy_version: u64,
    /// Mean reward of the completions that have one.
    pub reward: f64,
    /// Deviation of those rewards.
    pub reward_std: f64,
    /// Share of groups with unequal rewards: the others teach nothing.
    pub groups_with_signal: f64,
    /// Groups that were sampled and not trained on, others being sampled in their place; absent
    /// without dynamic sampling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced_groups: Option<usize>,
    /// Completions without a reward, counted by cause.
    pub reward_failures: BTreeMap<String, usize>,
    /// Completions sampled.
    pub completions: usize,
    /// Mean tokens of a completion.
    pub completion_tokens: f64,
    /// Tokens of the longest.
    pub completion_tokens_max: usize,
    /// Share of completions that were cut.
    pub truncated: f64,
    /// The loss.
    pub loss: f64,
    /// Mean |train − sampling| log-probability, nats: how far apart trainer and sampler are.
    pub logprob_gap: f64,
    /// The largest, nats.
    pub logprob_gap_max: f64,
    /// Mean importance ratio.
    pub ratio_mean: f64,
    /// The smallest and largest importance ratio.
    pub ratio_range: [f64; 2],
    /// Share of tokens whose ratio was clipped.
    pub clipped: f64,
    /// KL(sampling ‖ train), k3 estimate, nats.
    pub kl: f64,
    /// KL(policy ‖ reference), nats; absent without a penalty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference_kl: Option<f64>,
    /// Mean entropy of the policy over the tokens trained on, nats.
    pub entropy: f64,
    /// The gradient's norm before clipping, the mean where a step has several optimizer steps;
    /// absent where no group had a signal and none was taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grad_norm: Option<f64>,
    /// Share of the tokens trained on whose forward pass was the sampler's own.
    #[serde(default)]
    pub recorded: f64,
    /// How far the trainer was ahead of the policy that wrote a token, in versions: the mean over
    /// tokens; absent where sampling and training take turns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub staleness: Option<f64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub staleness_max: Option<u64>,
    /// Groups that were sampled or being sampled ahead of the step when it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queued_groups: Option<usize>,
    /// Groups that were too stale to be trained on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stale_groups: Option<usize>,
    /// The learning rate.
    pub learning_rate: f64,
    /// Validation after this step, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<Evaluation>,
    /// Seconds in sampling.
    pub seconds_sampling: f64,
    /// Seconds waited for rewards after the last completion.
    pub seconds_reward: f64,
    /// Seconds in training.
    pub seconds_training: f64,
    /// Seconds in all, evaluation left out.
    pub seconds: f64,
    /// When it was, seconds since 1970; 0 in records of earlier releases.
    #[serde(default)]
    pub time: f64,
    /// Sampled tokens a second of sampling.
    pub sampled_tokens_per_second: f64,
    /// Largest memory of the process so far, bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_memory_bytes: Option<u64>,
}

impl StepRecord {
    /// The record without what depends on the machine and the moment: equal for equal seeds.
    #[must_use]
    pub fn reproducible(&self) -> Self {
        Self {
            seconds_sampling: 0.0,
            seconds_reward: 0.0,
            seconds_training: 0.0,
            seconds: 0.0,
            time: 0.0,
            sampled_tokens_per_second: 0.0,
            peak_memory_bytes: None,
            ..self.clone()
        }
    }

    /// Takes down what was sampled, what was not trained on included, and what it was worth.
    pub(crate) fn describe_rollout(&mut self, trained: &Trained, config: &RlConfig) {
        let completions = || trained.sampled().flat_map(|group| &group.completions);
        let scores = completions().filter_map(|scored| scored.score.as_ref().ok());
        let rewards: Vec<f64> = scores.map(|score| score.value()).collect();
        let lengths: Vec<usize> =
            completions().map(|scored| scored.completion.tokens.len()).collect();
        let cut =
            completions().filter(|s| s.completion.finish_reason == FinishReason::Length).count();
        for failure in completions().filter_map(|scored| scored.score.as_ref().err()) {
            *self.reward_failures.entry(failure.cause.clone()).or_insert(0) += 1;
        }

        self.reward = mean(&rewards);
        self.reward_std =
            mean(&rewards.iter().map(|r| (r - self.reward).powi(2)).collect::<Vec<_>>()).sqrt();
        self.groups_with_signal =
            share(trained.advantages.counts.groups_with_signal, trained.sampled().count());
        self.replaced_groups = config.dynamic_sampling.map(|_| trained.replaced.len());
        self.completions = lengths.len();
        self.completion_tokens = share(lengths.iter().sum(), lengths.len());
        self.completion_tokens_max = lengths.iter().copied().max().unwrap_or(0);
        self.truncated = share(cut, lengths.len());
        let cost = trained.rollout.cost;
        self.seconds_sampling = cost.seconds_sampling;
        self.seconds_reward = cost.seconds_reward;
        self.sampled_tokens_per_second =
            cost.sampled_tokens as f64 / cost.seconds_sampling.max(1e-9);
    }

    /// Takes down how far the trainer was ahead of what was sampled. Of several optimizer steps the
    /// later ones are further ahead.
    pub(crate) fn describe_staleness(&mut self, trained: &Trained) {
        let mut behind: Vec<u64> = Vec::new();
        for (scored, version) in trained.rollout.completions().zip(&trained.versions) {
            let written = &scored.completion.token_versions;
            behind.extend(written.iter().map(|written| version.saturating_sub(*written)));
        }
        self.staleness = Some(share(behind.iter().sum::<u64>() as usize, behind.len()));
        self.staleness_max = Some(behind.iter().copied().max().unwrap_or(0));
    }

    /// Takes down what training gave.
    pub(crate) fn describe_training(&mut self, trained: &Trained, has_reference: bool) {
        let passes = &trained.passes;
        let policy = &passes.metrics.policy;
        self.loss = passes.loss();
        self.recorded = passes.recorded_tokens as f64 / passes.computed_tokens.max(1) as f64;
        self.logprob_gap = policy.logprob_gap().unwrap_or(0.0);
        self.logprob_gap_max = f64::from(policy.gap_max);
        self.ratio_mean = policy.ratio_mean().unwrap_or(1.0);
        if policy.tokens == 0 {
            self.ratio_range = [1.0, 1.0];
        } else {
            self.ratio_range = [f64::from(policy.ratio_min), f64::from(policy.ratio_max)];
        }
        self.clipped = policy.clipped_share().unwrap_or(0.0);
        self.kl = policy.kl_k3_mean().unwrap_or(0.0);
        self.reference_kl = policy.reference_kl_mean().filter(|_| has_reference);
        self.entropy = policy.entropy_mean().unwrap_or(0.0);
        let norms: Vec<f64> = trained.optim.iter().map(|step| step.grad_norm).collect();
        self.grad_norm = (!norms.is_empty()).then(|| mean(&norms));
        self.seconds_training = trained.seconds;
    }

    fn named(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("reward/mean", self.reward),
            ("reward/std", self.reward_std),
            ("reward/groups_with_signal", self.groups_with_signal),
            ("completions/tokens", self.completion_tokens),
            ("completions/truncated", self.truncated),
            ("policy/loss", self.loss),
            ("policy/logprob_gap", self.logprob_gap),
            ("policy/recorded", self.recorded),
            ("policy/ratio_mean", self.ratio_mean),
            ("policy/kl", self.kl),
            ("policy/entropy", self.entropy),
            ("policy/clipped", self.clipped),
            ("optim/learning_rate", self.learning_rate),
            ("time/sampling", self.seconds_sampling),
            ("time/reward", self.seconds_reward),
            ("time/training", self.seconds_training),
            ("time/sampled_tokens_per_second", self.sampled_tokens_per_second),
        ];
        scalars.extend(self.grad_norm.map(|norm| ("optim/grad_norm", norm)));
        scalars.extend(self.staleness.map(|staleness| ("policy/staleness", staleness)));
        scalars.extend(self.staleness_max.map(|most| ("policy/staleness_max", most as f64)));
        scalars.extend(self.replaced_groups.map(|n| ("reward/replaced_groups", n as f64)));
        scalars.extend(self.queued_groups.map(|n| ("policy/queued_groups", n as f64)));
        scalars.extend(self.stale_groups.map(|groups| ("policy/stale_groups", groups as f64)));
        scalars.extend(self.reference_kl.map(|kl| ("policy/reference_kl", kl)));
        scalars.extend(self.validation.map(|v| ("validation/accuracy", v.sampled.share)));
        scalars
    }
}

/// The steps of a model's folder that are on record; none where it has no `metrics.jsonl`. Nothing
/// is written, so that a run may go on meanwhile: a last line that is being written is left out.
///
/// # Errors
/// [`RecipeError::Store`], with the line that is damaged.
pub fn read_metrics(folder: &Path) -> Result<Vec<StepRecord>, RecipeError> {
    Ok(read_log(&folder.join("metrics.jsonl"))?)
}

/// A line of `metrics.jsonl`.
pub trait MetricsRecord: Serialize + DeserializeOwned {
    /// The step that it is of, from 1.
    fn step(&self) -> u64;

    /// When it was, seconds since 1970; 0 where that is not known.
    fn time(&self) -> f64;

    /// Its numbers as TensorBoard shows them.
    fn scalars(&self) -> Vec<(Cow<'static, str>, f64)>;
}

impl MetricsRecord for StepRecord {
    fn step(&self) -> u64 {
        self.step
    }

    fn time(&self) -> f64 {
        self.time
    }

    fn scalars(&self) -> Vec<(Cow<'static, str>, f64)> {
        self.named().into_iter().map(|(name, value)| (name.into(), value)).collect()
    }
}

/// The open metrics of a run.
#[derive(Debug)]
pub struct MetricsLog<R = StepRecord> {
    log: JsonLog<R>,
    events: EventFile,
}

impl<R: MetricsRecord> MetricsLog<R> {
    /// Opens `metrics.jsonl` and `tensorboard/` of a model's folder to go on after `step`: what a
    /// killed run wrote beyond its last saved state is dropped, for it will be written again.
    ///
    /// # Errors
    /// [`RecipeError::Store`], with the line of a file that is damaged before `step`.
    pub fn open(folder: &Path, step: u64) -> Result<(Self, Vec<R>), RecipeError> {
        let path = folder.join("metrics.jsonl");
        let (log, records) = JsonLog::open(&path, |record: &R| record.step() <= step)?;
        let events = EventFile::create(&folder.join("tensorboard"), now())?;
        let mut metrics = Self { log, events };
        for record in &records {
            metrics.show(record)?;
        }
        Ok((metrics, records))
    }

    /// Appends a step.
    ///
    /// # Errors
    /// [`RecipeError::Store`] names the file.
    pub fn append(&mut self, record: &R) -> Result<(), RecipeError> {
        self.log.append(record)?;
        self.show(record)
    }

    fn show(&mut self, record: &R) -> Result<(), RecipeError> {
        let scalars = record.scalars();
        let values: Vec<(&str, f64)> =
            scalars.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        let time = Some(record.time()).filter(|time| *time > 0.0).unwrap_or_else(now);
        Ok(self.events.scalars(record.step(), time, &values)?)
    }
}

/// What a person should hear where `metrics.jsonl` has other steps than those that are done.
pub(crate) fn lost_steps(folder: &Path, done: u64, on_record: u64) -> Option<String> {
    let path = folder.join("metrics.jsonl");
    (on_record != done).then(|| {
        format!(
            "{}: has {on_record} of the {done} steps that are done; the others are lost",
            path.display()
        )
    })
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_dropped_and_later_steps_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, none) = MetricsLog::<StepRecord>::open(dir.path(), 0).unwrap();
        assert!(none.is_empty());
        for step in 1..=3 {
            log.append(&StepRecord { step, ..StepRecord::default() }).unwrap();
        }
        let path = dir.path().join("metrics.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"step\":4,\"\xe6"); // torn within a character
        std::fs::write(&path, &bytes).unwrap();
        let steps = |(_, records): (MetricsLog, Vec<StepRecord>)| {
            records.iter().map(|r| r.step).collect::<Vec<_>>()
        };
        assert_eq!(steps(MetricsLog::open(dir.path(), 9).unwrap()), [1, 2, 3]);
        assert_eq!(steps(MetricsLog::open(dir.path(), 2).unwrap()), [1, 2]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_step_keeps_its_time_where_a_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let shown = |log: (MetricsLog, Vec<StepRecord>)| {
            drop(log);
            let mut files = std::fs::read_dir(dir.path().join("tensorboard")).unwrap();
            std::fs::read(files.next().unwrap().unwrap().path()).unwrap()
        };
        let opened = || MetricsLog::<StepRecord>::open(dir.path(), 9).unwrap();
        let (mut log, _) = opened();
        log.append(&StepRecord { step: 1, time: 1e9, ..StepRecord::default() }).unwrap();
        drop(log);
        // The event's field 1, a double, is its time.
        let event = [&[9], 1e9f64.to_le_bytes().as_slice()].concat();
        let bytes = shown(opened());
        assert!(bytes.windows(event.len()).any(|part| part == event));
    }

    #[test]
    fn damage_further_up_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let line = serde_json::to_string(&StepRecord { step: 1, ..StepRecord::default() }).unwrap();
        std::fs::write(dir.path().join("metrics.jsonl"), format!("{line}\nbroken\n{line}\n"))
            .unwrap();
        assert!(
            MetricsLog::<StepRecord>::open(dir.path(), 9)
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
    }
}
