//! A run's metrics: `metrics.jsonl`, a line a step, and TensorBoard's scalars.

use crate::event_file::EventFile;
use crate::{Evaluation, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of `metrics.jsonl`.
///
/// Times, rates and memory differ from run to run; everything else is the same for the same seed on the same machine,
/// device and kind.
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
    /// The gradient's norm before clipping; absent where no group had a signal and no step was taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grad_norm: Option<f64>,
    /// Share of the tokens trained on whose forward pass was the sampler's own.
    #[serde(default)]
    pub recorded: f64,
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
    /// Sampled tokens a second of sampling.
    pub sampled_tokens_per_second: f64,
    /// Largest memory of the process so far, bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_memory_bytes: Option<u64>,
}

impl StepRecord {
    /// The record without what depends on the machine and the moment: equal for equal seeds.
    pub fn reproducible(&self) -> Self {
        Self {
            seconds_sampling: 0.0,
            seconds_reward: 0.0,
            seconds_training: 0.0,
            seconds: 0.0,
            sampled_tokens_per_second: 0.0,
            peak_memory_bytes: None,
            ..self.clone()
        }
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
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
        scalars.extend(self.reference_kl.map(|kl| ("policy/reference_kl", kl)));
        scalars.extend(self.validation.map(|v| ("validation/accuracy", v.sampled.accuracy)));
        scalars
    }
}

/// The steps of a model's folder that are on record; none where it has no `metrics.jsonl`. Nothing is written, so that a
/// run may go on meanwhile: a last line that is being written is left out.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::Json`] with the line that is damaged.
pub fn read_metrics(folder: &Path) -> Result<Vec<StepRecord>, TrainError> {
    let path = folder.join("metrics.jsonl");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(&path).map_err(TrainError::io(&path))?;
    let whole = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let read = |(index, line)| {
        serde_json::from_slice(line).map_err(|source| TrainError::Json { path: path.clone(), line: index + 1, source })
    };
    whole.enumerate().map(read).collect()
}

/// The open metrics of a run.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    events: EventFile,
}

impl MetricsLog {
    /// Opens `metrics.jsonl` and `tensorboard/` of a model's folder to go on after `step`: what a killed run wrote beyond
    /// its last saved state is dropped, for it will be written again.
    ///
    /// # Errors
    /// [`TrainError::Io`], or [`TrainError::Json`] with the line of a file that is damaged before `step`.
    pub fn open(folder: &Path, step: u64) -> Result<(Self, Vec<StepRecord>), TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let path = folder.join("metrics.jsonl");
        let records = keep_lines(&path, |record: &StepRecord| record.step <= step)?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(TrainError::io(&path))?;
        let mut events = EventFile::create(&folder.join("tensorboard"), now())?;
        for record in &records {
            events.scalars(record.step, now(), &record.scalars())?;
        }
        Ok((Self { path, file, events }, records))
    }

    /// Appends a step.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn append(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        append_line(&mut self.file, &self.path, record)?;
        self.events.scalars(record.step, now(), &record.scalars())
    }
}

/// Appends a value as a line of JSON.
pub(crate) fn append_line(file: &mut File, path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let line =
        serde_json::to_string(value).map_err(|source| TrainError::Json { path: path.into(), line: 0, source })?;
    file.write_all((line + "\n").as_bytes()).map_err(TrainError::io(path))
}

/// Cuts a file of JSON lines after the last line that is to be kept, and returns what was kept. A line that was being
/// written when the process died is dropped; one that is damaged further up is an error.
pub(crate) fn keep_lines<T: serde::de::DeserializeOwned>(
    path: &Path,
    keep: impl Fn(&T) -> bool,
) -> Result<Vec<T>, TrainError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    // Bytes, not text: the last line may be torn within a character.
    let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
    let (mut kept, mut end) = (Vec::new(), 0);
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_slice::<T>(line) {
            Ok(value) if line.ends_with(b"\n") && keep(&value) => {
                kept.push(value);
                end += line.len();
            }
            Err(source) if lines.peek().is_some() => {
                return Err(TrainError::Json { path: path.into(), line: index + 1, source });
            }
            _ => break,
        }
    }
    let file = OpenOptions::new().write(true).open(path).map_err(TrainError::io(path))?;
    file.set_len(end as u64).map_err(TrainError::io(path))?;
    Ok(kept)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_dropped_and_later_steps_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, none) = MetricsLog::open(dir.path(), 0).unwrap();
        assert!(none.is_empty());
        for step in 1..=3 {
            log.append(&StepRecord { step, ..StepRecord::default() }).unwrap();
        }
        let path = dir.path().join("metrics.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"step\":4,\"\xe6"); // torn within a character
        std::fs::write(&path, &bytes).unwrap();
        let steps = |(_, records): (MetricsLog, Vec<StepRecord>)| records.iter().map(|r| r.step).collect::<Vec<_>>();
        assert_eq!(steps(MetricsLog::open(dir.path(), 9).unwrap()), [1, 2, 3]);
        assert_eq!(steps(MetricsLog::open(dir.path(), 2).unwrap()), [1, 2]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn damage_further_up_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let line = serde_json::to_string(&StepRecord { step: 1, ..StepRecord::default() }).unwrap();
        std::fs::write(dir.path().join("metrics.jsonl"), format!("{line}\nbroken\n{line}\n")).unwrap();
        assert!(MetricsLog::open(dir.path(), 9).unwrap_err().to_string().contains("line 2"));
    }
}
