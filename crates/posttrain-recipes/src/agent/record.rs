//! What a step in environments tells.

use crate::agent::episodes::EpisodeGroup;
use crate::metrics::MetricsRecord;
use posttrain_environment::Trajectory;
use posttrain_train::{ForwardBackward, OptimStep};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One line of such a run's `metrics.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRecord {
    /// The step, from 1.
    pub step: u64,
    /// What the step's episodes were like.
    pub episodes: AgentEvaluation,
    /// Groups of the main role whose episodes earned differently: the others teach nothing.
    pub groups_with_signal: f64,
    /// The policies that were trained.
    pub roles: BTreeMap<String, RoleRecord>,
    /// What the validation tasks' episodes were like, where they were played.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<AgentEvaluation>,
    /// Seconds in which episodes were played.
    pub seconds_playing: f64,
    /// Seconds in training.
    pub seconds_training: f64,
    /// Seconds in all, evaluation left out.
    pub seconds: f64,
    /// When it was, seconds since 1970; 0 in records of earlier releases.
    #[serde(default)]
    pub time: f64,
}

/// What training one policy gave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRecord {
    /// Contexts that it was trained on.
    pub datums: usize,
    /// Tokens of its own in them.
    pub tokens: usize,
    /// The loss.
    pub loss: f64,
    /// Mean |train − sampling| log-probability, nats.
    pub logprob_gap: f64,
    /// The largest, nats.
    pub logprob_gap_max: f64,
    /// Mean importance ratio.
    pub ratio_mean: f64,
    /// KL(sampling ‖ train), k3 estimate, nats.
    pub kl: f64,
    /// Mean entropy over its tokens, nats.
    pub entropy: f64,
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
}

/// What a set of episodes was like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEvaluation {
    /// Episodes that have a reward.
    pub n: usize,
    /// Their mean reward.
    pub reward: f64,
    /// Its deviation.
    pub reward_std: f64,
    /// Episodes that failed, by cause.
    pub failures: BTreeMap<String, usize>,
    /// Mean turns.
    pub turns: f64,
    /// Mean critical steps: turns one after another, where sub-agents run beside each other.
    pub critical_steps: f64,
    /// Mean tokens that the policy wrote.
    pub sampled_tokens: f64,
    /// Mean tokens that it read.
    pub observed_tokens: f64,
    /// Mean calls of tools.
    pub tool_calls: f64,
    /// Mean calls that could not be read.
    pub malformed_calls: f64,
    /// Share that a budget ended.
    pub out_of_budget: f64,
    /// Means of what the environments told.
    pub metrics: BTreeMap<String, f64>,
}

impl AgentEvaluation {
    /// Of these groups' episodes.
    #[must_use]
    pub fn of(groups: &[EpisodeGroup]) -> Self {
        let episodes = || groups.iter().flat_map(|group| &group.episodes);
        let played: Vec<&Trajectory> = episodes().filter_map(|e| e.as_ref().ok()).collect();
        let mut evaluation = Self { n: played.len(), ..Self::default() };
        for failure in episodes().filter_map(|episode| episode.as_ref().err()) {
            *evaluation.failures.entry(failure.cause.clone()).or_insert(0) += 1;
        }
        if played.is_empty() {
            return evaluation;
        }

        let mean = |of: &dyn Fn(&Trajectory) -> f64| {
            played.iter().map(|played| of(played)).sum::<f64>() / played.len() as f64
        };
        let reward = mean(&Trajectory::reward);
        evaluation.reward = reward;
        evaluation.reward_std = mean(&|t| (t.reward() - reward).powi(2)).sqrt();
        evaluation.turns = mean(&|t| t.turns.len() as f64);
        evaluation.critical_steps = mean(&|t| t.critical_steps() as f64);
        evaluation.sampled_tokens = mean(&|t| t.sampled_tokens() as f64);
        evaluation.observed_tokens = mean(&|t| t.observed_tokens() as f64);
        evaluation.tool_calls = mean(&|t| t.tool_calls() as f64);
        evaluation.malformed_calls =
            mean(&|t| t.turns.iter().map(|turn| turn.malformed_calls).sum::<usize>() as f64);
        evaluation.out_of_budget =
            mean(&|t| f64::from(u8::from(t.end != posttrain_environment::EpisodeEnd::Done)));
        evaluation.metrics = metrics(&played);
        evaluation
    }
}

impl AgentEvaluation {
    /// The main numbers on one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let named = self.metrics.iter().map(|(name, value)| format!(" {name} {value:.3}"));
        let failed: usize = self.failures.values().sum();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!(
            "reward {:.3} turns {:.1} tokens {:.0} calls {:.1} malformed {:.2}{} n = {}{failed}",
            self.reward,
            self.turns,
            self.sampled_tokens,
            self.tool_calls,
            self.malformed_calls,
            named.collect::<String>(),
            self.n
        )
    }
}

/// The mean of each number over the episodes that tell it.
fn metrics(played: &[&Trajectory]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (name, value) in played.iter().flat_map(|trajectory| &trajectory.metrics) {
        let (sum, count) = sums.entry(name).or_default();
        *sum += value;
        *count += 1;
    }
    sums.into_iter().map(|(name, (sum, count))| (name.to_owned(), sum / count as f64)).collect()
}

impl RoleRecord {
    pub(crate) fn of(passes: &ForwardBackward, optim: OptimStep, datums: usize, rate: f64) -> Self {
        let policy = &passes.metrics.policy;
        Self {
            datums,
            tokens: policy.tokens as usize,
            loss: passes.loss(),
            logprob_gap: policy.logprob_gap().unwrap_or(0.0),
            logprob_gap_max: f64::from(policy.gap_max),
            ratio_mean: policy.ratio_mean().unwrap_or(1.0),
            kl: policy.kl_k3_mean().unwrap_or(0.0),
            entropy: policy.entropy_mean().unwrap_or(0.0),
            grad_norm: optim.grad_norm,
            learning_rate: rate,
        }
    }
}

impl AgentRecord {
    /// The record without what depends on the machine and the moment.
    #[must_use]
    pub fn reproducible(&self) -> Self {
        Self {
            seconds_playing: 0.0,
            seconds_training: 0.0,
            seconds: 0.0,
            time: 0.0,
            ..self.clone()
        }
    }
}

impl MetricsRecord for AgentRecord {
    fn step(&self) -> u64 {
        self.step
    }

    fn time(&self) -> f64 {
        self.time
    }

    fn scalars(&self) -> Vec<(Cow<'static, str>, f64)> {
        let mut scalars: Vec<(Cow<'static, str>, f64)> = vec![
            ("reward/mean".into(), self.episodes.reward),
            ("reward/std".into(), self.episodes.reward_std),
            ("reward/groups_with_signal".into(), self.groups_with_signal),
            ("episodes/failed".into(), self.episodes.failures.values().sum::<usize>() as f64),
            ("episodes/turns".into(), self.episodes.turns),
            ("episodes/critical_steps".into(), self.episodes.critical_steps),
            ("episodes/sampled_tokens".into(), self.episodes.sampled_tokens),
            ("episodes/observed_tokens".into(), self.episodes.observed_tokens),
            ("episodes/tool_calls".into(), self.episodes.tool_calls),
            ("episodes/malformed_calls".into(), self.episodes.malformed_calls),
            ("episodes/out_of_budget".into(), self.episodes.out_of_budget),
            ("time/playing".into(), self.seconds_playing),
            ("time/training".into(), self.seconds_training),
        ];
        for (name, value) in &self.episodes.metrics {
            scalars.push((format!("environment/{name}").into(), *value));
        }
        for (role, record) in &self.roles {
            let of = |name: &str| Cow::from(format!("{role}/{name}"));
            scalars.push((of("loss"), record.loss));
            scalars.push((of("logprob_gap"), record.logprob_gap));
            scalars.push((of("entropy"), record.entropy));
            scalars.push((of("grad_norm"), record.grad_norm));
        }
        if let Some(validation) = &self.validation {
            scalars.push(("validation/reward".into(), validation.reward));
            for (name, value) in &validation.metrics {
                scalars.push((format!("validation/{name}").into(), *value));
            }
        }
        scalars
    }
}
