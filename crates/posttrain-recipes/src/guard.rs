//! What a run warns of, or stops at, before it is wasted.

use crate::RecipeError;
use crate::metrics::StepRecord;
use serde::{Deserialize, Serialize};

/// What happens where a guard's limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    /// Nothing.
    Ignore,
    /// It is told, with what may be done about it.
    Warn,
    /// The run saves its state and stops. Started again, it goes on.
    Stop,
}

/// A limit on one of a run's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The limit. Which side of it is bad, the guard's place says.
    pub limit: f64,
    /// Steps in a row (evaluations, where the number comes of one) that pass it, 1 and up.
    pub steps: u64,
    /// What then happens.
    pub action: GuardAction,
}

/// What a run is watched for. A loss or gradient that is not a number is an error whatever stands
/// here; a reward that is none counts as failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// The share of completions that were cut, above the limit.
    pub truncated: Guard,
    /// The policy's mean entropy, nats, below the limit.
    pub entropy: Guard,
    /// The mean |trainer − sampler| log-probability, nats, above the limit. Of an asynchronous
    /// run the policies do differ.
    pub logprob_gap: Guard,
    /// The share of groups with signal, below the limit.
    pub groups_with_signal: Guard,
    /// The share of completions whose reward failed, above the limit.
    pub reward_failures: Guard,
    /// How far validation accuracy lies below its best while the mean reward is no less than it was
    /// then, above the limit: the policy pleases the reward, and no longer the questions.
    pub reward_without_accuracy: Guard,
}

impl Default for GuardConfig {
    /// Warnings, at limits where a run is hardly ever healthy.
    fn default() -> Self {
        let warn = |limit, steps| Guard { limit, steps, action: GuardAction::Warn };
        Self {
            truncated: warn(0.5, 5),
            entropy: warn(0.01, 5),
            logprob_gap: warn(0.2, 3),
            groups_with_signal: warn(0.05, 5),
            reward_failures: warn(0.1, 1),
            reward_without_accuracy: warn(0.1, 2),
        }
    }
}

impl GuardConfig {
    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        for watch in WATCHES {
            let guard = (watch.guard)(self);
            RecipeError::check(watch.field, guard.limit.is_finite(), "finite", &guard.limit)?;
            RecipeError::check(watch.field, guard.steps >= 1, "of at least 1 step", &guard.steps)?;
        }
        Ok(())
    }
}

/// A number that is watched, step by step.
struct Watch {
    field: &'static str,
    what: &'static str,
    remedy: &'static str,
    guard: fn(&GuardConfig) -> &Guard,
    side: Side,
    value: fn(&StepRecord, &Accuracy) -> Option<f64>,
}

/// The bad side of a limit.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Above,
    Below,
}

const WATCHES: [Watch; 6] = [
    Watch {
        field: "guards.truncated",
        what: "the share of completions cut at the token limit",
        remedy: "raise `sampling.max_tokens`, ask for shorter answers, or penalize length \
                 (`overlong_penalty`)",
        guard: |guards| &guards.truncated,
        side: Side::Above,
        value: |record, _| Some(record.truncated),
    },
    Watch {
        field: "guards.entropy",
        what: "the policy's mean entropy, nats,",
        remedy: "the policy no longer tries anything: begin another run, with a lower \
                 `learning_rate`, `objective.entropy_coefficient` or a KL term; `best` is what this one had",
        guard: |guards| &guards.entropy,
        side: Side::Below,
        value: |record, _| Some(record.entropy),
    },
    Watch {
        field: "guards.logprob_gap",
        what: "the mean distance of trainer and sampler, nats,",
        remedy: "begin another run, with a lower `max_staleness` or `learning_rate`, or correct for \
                 it (`objective.correction`)",
        guard: |guards| &guards.logprob_gap,
        side: Side::Above,
        value: |record, _| Some(record.logprob_gap),
    },
    Watch {
        field: "guards.groups_with_signal",
        what: "the share of groups with signal",
        remedy: "the examples are too easy or too hard: begin another run, with more completions \
                 (`group_size`), other examples (`curriculum.solve_rate`), or `dynamic_sampling`",
        guard: |guards| &guards.groups_with_signal,
        side: Side::Below,
        value: |record, _| Some(record.groups_with_signal),
    },
    Watch {
        field: "guards.reward_failures",
        what: "the share of completions whose reward failed",
        remedy: "`reward_failures` in metrics.jsonl counts the causes; `scorer.retries` tries again, and may be changed when the \
                 run goes on",
        guard: |guards| &guards.reward_failures,
        side: Side::Above,
        value: |record, _| {
            let failed: usize = record.reward_failures.values().sum();
            Some(failed as f64 / record.completions.max(1) as f64)
        },
    },
    Watch {
        field: "guards.reward_without_accuracy",
        what: "validation accuracy below its best, while the reward holds,",
        remedy: "the policy has learnt to please the reward: read samples.jsonl, and take `best`",
        guard: |guards| &guards.reward_without_accuracy,
        side: Side::Above,
        value: |_, accuracy| accuracy.lost,
    },
];

/// Validation beside the reward.
#[derive(Default)]
struct Accuracy {
    /// Rewards of the steps since the last evaluation: their sum and count.
    rewards: (f64, u64),
    /// Of the best evaluation: accuracy, and the mean reward of the steps before it.
    best: Option<(f64, f64)>,
    /// What was lost since, of an evaluation just made.
    lost: Option<f64>,
}

impl Accuracy {
    fn see(&mut self, record: &StepRecord) {
        self.lost = None;
        self.rewards = (self.rewards.0 + record.reward, self.rewards.1 + 1);
        let Some(validation) = &record.validation else { return };

        let accuracy = validation.sampled.share;
        let reward = self.rewards.0 / self.rewards.1 as f64;
        self.rewards = (0.0, 0);
        match self.best {
            Some((best, with)) if accuracy <= best => {
                self.lost = Some(if reward >= with { best - accuracy } else { 0.0 });
            }
            _ => {
                self.best = Some((accuracy, reward));
                self.lost = Some(0.0);
            }
        }
    }
}

/// The guards of a run.
pub(crate) struct Guards<'a> {
    config: &'a GuardConfig,
    /// Steps in a row that each limit was passed.
    passed: [u64; WATCHES.len()],
    accuracy: Accuracy,
}

/// A limit that has been passed for long enough.
#[derive(Debug)]
pub(crate) struct Alarm {
    pub action: GuardAction,
    pub text: String,
}

impl<'a> Guards<'a> {
    /// The guards of a run that has these steps behind it.
    pub fn new(config: &'a GuardConfig, records: &[StepRecord]) -> Self {
        let mut guards = Self { config, passed: [0; WATCHES.len()], accuracy: Accuracy::default() };
        for record in records {
            guards.see(record);
        }
        guards
    }

    /// What a step gives alarm for. A limit that goes on being passed gives none again.
    pub fn see(&mut self, record: &StepRecord) -> Vec<Alarm> {
        self.accuracy.see(record);
        let mut alarms = Vec::new();
        for (watch, passed) in WATCHES.iter().zip(&mut self.passed) {
            let guard = (watch.guard)(self.config);
            let Some(value) = (watch.value)(record, &self.accuracy) else { continue };
            let (bad, side) = match watch.side {
                Side::Above => (value > guard.limit, "above"),
                Side::Below => (value < guard.limit, "below"),
            };
            *passed = if bad { *passed + 1 } else { 0 };
            if *passed == guard.steps && guard.action != GuardAction::Ignore {
                let Guard { limit, steps, action } = *guard;
                let text = format!(
                    "{} is {value:.3}, {side} {limit}, for {steps} in a row ({}): {}",
                    watch.what, watch.field, watch.remedy
                );
                alarms.push(Alarm { action, text });
            }
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Evaluation;
    use posttrain_statistics::Share;

    fn healthy() -> StepRecord {
        StepRecord { entropy: 1.0, groups_with_signal: 0.5, completions: 8, ..Default::default() }
    }

    fn alarms(guards: &mut Guards<'_>, record: &StepRecord) -> Vec<String> {
        guards.see(record).into_iter().map(|alarm| alarm.text).collect()
    }

    #[test]
    fn each_number_gives_alarm_once_after_as_many_steps_in_a_row_as_its_guard_says() {
        let config = GuardConfig::default();
        let cases: [(&str, u64, StepRecord); 5] = [
            ("guards.truncated", 5, StepRecord { truncated: 0.6, ..healthy() }),
            ("guards.entropy", 5, StepRecord { entropy: 0.001, ..healthy() }),
            ("guards.logprob_gap", 3, StepRecord { logprob_gap: 0.3, ..healthy() }),
            ("guards.groups_with_signal", 5, StepRecord { groups_with_signal: 0.0, ..healthy() }),
            (
                "guards.reward_failures",
                1,
                StepRecord { reward_failures: [("timed_out".into(), 2)].into(), ..healthy() },
            ),
        ];
        for (field, steps, bad) in cases {
            let mut guards = Guards::new(&config, &[]);
            assert!(alarms(&mut guards, &healthy()).is_empty());
            for step in 1..=2 * steps {
                let seen = alarms(&mut guards, &bad);
                assert_eq!(
                    seen.len(),
                    usize::from(step == steps),
                    "{field}, step {step}: {seen:?}"
                );
                assert!(seen.iter().all(|text| text.contains(field)), "{seen:?}");
            }
            alarms(&mut guards, &healthy());
            let again: usize = (0..steps).map(|_| alarms(&mut guards, &bad).len()).sum();
            assert_eq!(again, 1, "{field}");
        }
    }

    /// A run that goes on is as far as one that was not broken off.
    #[test]
    fn steps_on_record_count() {
        let config = GuardConfig::default();
        let bad = StepRecord { logprob_gap: 0.3, ..healthy() };
        let mut guards = Guards::new(&config, &[bad.clone(), bad.clone()]);
        assert_eq!(alarms(&mut guards, &bad).len(), 1);
    }

    #[test]
    fn a_reward_that_holds_while_accuracy_falls_gives_alarm_and_one_that_falls_with_it_does_not() {
        let config = GuardConfig::default();
        let evaluated = |reward: f64, right: usize| StepRecord {
            reward,
            validation: Some(Evaluation { sampled: Share::of(right, 100), greedy: None }),
            ..healthy()
        };
        let run = |steps: &[(f64, usize)]| {
            let mut guards = Guards::new(&config, &[]);
            let seen = steps.iter().map(|(reward, right)| guards.see(&evaluated(*reward, *right)));
            seen.map(|alarms| alarms.len()).collect::<Vec<_>>()
        };
        assert_eq!(run(&[(0.3, 30), (0.5, 50), (0.6, 35), (0.7, 30)]), [0, 0, 0, 1]);
        assert_eq!(run(&[(0.3, 30), (0.5, 50), (0.4, 35), (0.3, 30)]), [0, 0, 0, 0]);
        assert_eq!(run(&[(0.3, 30), (0.5, 50), (0.6, 45), (0.7, 44)]), [0, 0, 0, 0]);
    }

    #[test]
    fn an_action_that_ignores_is_silent_and_ranges_are_checked() {
        let silent = Guard { limit: 0.5, steps: 1, action: GuardAction::Ignore };
        let config = GuardConfig { truncated: silent, ..GuardConfig::default() };
        let mut guards = Guards::new(&config, &[]);
        assert!(alarms(&mut guards, &StepRecord { truncated: 1.0, ..healthy() }).is_empty());

        let never = Guard { steps: 0, ..silent };
        let error = GuardConfig { entropy: never, ..config }.validate().unwrap_err();
        assert!(error.to_string().contains("guards.entropy"), "{error}");
    }
}
