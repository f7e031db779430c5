//! Who watches a run.

use crate::agent::AgentRecord;
use crate::{Evaluation, FineTuneRecord, StepRecord};

/// What a run is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Sampling and scoring completions for a step.
    Sampling,
    /// Computing gradients.
    Training,
    /// Sampling and scoring an evaluation.
    Evaluating,
}

/// What a run tells of itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A run begins, or goes on, after `step` of `steps`.
    Started {
        /// The model's name.
        name: &'a str,
        /// The last step that is done.
        step: u64,
        /// Steps in all.
        steps: u64,
    },
    /// Work within a step: `done` of `total` completions, or passes.
    Progress {
        /// What is being done.
        phase: Phase,
        /// How much of it is done.
        done: usize,
        /// How much there is.
        total: usize,
    },
    /// A step is done.
    Step {
        /// Its metrics.
        record: &'a StepRecord,
        /// Steps in all.
        steps: u64,
    },
    /// A step of fine-tuning is done.
    FineTuneStep {
        /// Its metrics.
        record: &'a FineTuneRecord,
        /// Steps in all.
        steps: u64,
    },
    /// A step in environments is done.
    AgentStep {
        /// Its metrics.
        record: &'a AgentRecord,
        /// Steps in all.
        steps: u64,
    },
    /// An evaluation is done.
    Evaluated {
        /// What was evaluated: a split's name, or what the caller called it.
        what: &'a str,
        /// The result.
        evaluation: &'a Evaluation,
    },
    /// Something worth telling a person.
    Note {
        /// What.
        text: &'a str,
    },
    /// A run ends: all its steps are done, or it was asked to stop.
    Finished {
        /// The last step that is done.
        step: u64,
    },
}

/// Sees what a run tells. It steers nothing.
pub trait Observer {
    /// Sees an event.
    fn see(&mut self, event: &Event);
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn see(&mut self, _event: &Event) {}
}
