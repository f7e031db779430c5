//! A step that trains on each group as soon as its scores are in.

use crate::config::RlConfig;
use crate::mode::GroupOrder;
use crate::rollout::{GroupSampler, Rollout, RolloutRequest, ScoredGroup};
use crate::{Observer, RecipeError};
use posttrain_loss::{Objective, PolicyObjective, StepTotals};
use posttrain_train::{Datum, DeadGroups, ForwardBackward, TrainError, Trainer, step_totals};
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// What a step gave whose gradient is collected and not yet applied.
pub(crate) struct Streamed {
    pub rollout: Rollout,
    pub passes: ForwardBackward,
    /// What the collected gradient has to be multiplied with.
    pub gradient_scale: f64,
    /// Whether any group had a signal.
    pub has_signal: bool,
    /// Seconds that the passes took, most of them beside sampling.
    pub seconds_training: f64,
}

/// Samples and scores groups, and collects the gradient of each on another thread meanwhile.
///
/// What the sum of the losses is divided by is known when the last group is in; the parts are
/// therefore divided by that of a step of two tokens, and the sum is scaled in the end. An error
/// leaves no gradient behind.
pub(crate) fn streamed(
    sampler: &GroupSampler,
    request: RolloutRequest<'_>,
    trainer: &mut Trainer,
    config: &RlConfig,
    observer: &mut dyn Observer,
) -> Result<Streamed, RecipeError> {
    let unit = StepTotals::count(&[1, 1], None)?;
    let examples = request.examples.len();
    let threads = tch::get_num_threads();
    let (send, parts) = mpsc::channel();
    let mut groups = Groups::new(config, examples, send);

    let (sampled, trained) = thread::scope(|scope| {
        let training = scope.spawn(|| {
            posttrain_kernel::set_threads(threads);
            train(trainer, parts, &config.objective, &unit)
        });
        let sampled =
            sampler.stream(request, observer, &mut |index, group| groups.take(index, group));
        let sampled = match sampled {
            Ok(cost) => groups.end().map(|ended| (cost, ended)),
            Err(error) => {
                drop(groups);
                Err(error)
            }
        };
        // Nothing more can be sent by now, so that training ends.
        let trained = training.join().unwrap_or_else(|panic| resume_unwind(panic));
        (sampled, trained)
    });
    let collected = match sampled {
        Ok(sampled) => trained.map(|trained| (sampled, trained)),
        // A group cannot be handed on to a trainer that is gone: why it is gone is the error.
        Err(RecipeError::TrainerEnded) => Err(trained.err().unwrap_or(RecipeError::TrainerEnded)),
        Err(error) => Err(error),
    };
    if collected.is_err() {
        trainer.clear_gradients();
    }
    let ((cost, ended), (mut passes, seconds_training)) = collected?;

    let gradient_scale =
        config.objective.denominator(&unit) / config.objective.denominator(&ended.totals);
    passes.denominator = config.objective.denominator(&ended.totals);
    let rollout = Rollout { groups: ended.groups, cost };
    let has_signal = ended.has_signal;
    Ok(Streamed { rollout, passes, gradient_scale, has_signal, seconds_training })
}

/// Collects the gradients of parts until there are no more; and how many seconds that took.
fn train(
    trainer: &mut Trainer,
    parts: mpsc::Receiver<Vec<Datum>>,
    objective: &PolicyObjective,
    unit: &StepTotals,
) -> Result<(ForwardBackward, f64), RecipeError> {
    let mut all: Option<ForwardBackward> = None;
    let mut seconds = 0.0;
    for datums in parts {
        let started = Instant::now();
        let passes = trainer.forward_backward_of(&datums, objective, unit)?;
        seconds += started.elapsed().as_secs_f64();
        match &mut all {
            Some(all) => all.merge(passes),
            None => all = Some(passes),
        }
    }
    let passes = all.ok_or(RecipeError::Train(TrainError::NoGradient))?;
    Ok((passes, seconds))
}

/// Groups on their way from sampling to training.
struct Groups<'a> {
    config: &'a RlConfig,
    send: mpsc::Sender<Vec<Datum>>,
    /// The place whose turn it is, in a fixed order.
    turn: usize,
    /// Groups that are here before their turn.
    early: BTreeMap<usize, ScoredGroup>,
    /// Groups that had their turn, by place.
    done: Vec<Option<ScoredGroup>>,
    totals: StepTotals,
    has_signal: bool,
    sent: bool,
}

/// All groups, once they have had their turn.
struct Ended {
    groups: Vec<ScoredGroup>,
    totals: StepTotals,
    has_signal: bool,
}

impl<'a> Groups<'a> {
    fn new(config: &'a RlConfig, examples: usize, send: mpsc::Sender<Vec<Datum>>) -> Self {
        Self {
            config,
            send,
            turn: 0,
            early: BTreeMap::new(),
            done: (0..examples).map(|_| None).collect(),
            totals: StepTotals::default(),
            has_signal: false,
            sent: false,
        }
    }

    fn take(&mut self, index: usize, group: ScoredGroup) -> Result<(), RecipeError> {
        if self.config.group_order == GroupOrder::Arrival {
            return self.train(index, group);
        }
        self.early.insert(index, group);
        while let Some(group) = self.early.remove(&self.turn) {
            self.train(self.turn, group)?;
            self.turn += 1;
        }
        Ok(())
    }

    /// Hands a group's datums to the trainer, unless they cannot move anything.
    fn train(&mut self, index: usize, group: ScoredGroup) -> Result<(), RecipeError> {
        let datums = self.datums(&group)?;
        self.totals.merge(&step_totals(&datums)?);
        self.done[index] = Some(group);

        let has_signal = datums.iter().any(Datum::has_signal);
        self.has_signal |= has_signal;
        let skipped = !has_signal
            && self.config.trainer.dead_groups == DeadGroups::Skip
            && self.config.objective.ignores_zero_advantages();
        if !skipped {
            self.hand_on(datums)?;
        }
        Ok(())
    }

    /// The end of the step. One without any signal is computed all the same: every step measures
    /// how far sampler and trainer are apart.
    fn end(mut self) -> Result<Ended, RecipeError> {
        let groups: Vec<_> = std::mem::take(&mut self.done).into_iter().flatten().collect();
        if !self.sent {
            let mut datums = Vec::new();
            for group in &groups {
                datums.extend(self.datums(group)?);
            }
            self.hand_on(datums)?;
        }
        Ok(Ended { groups, totals: self.totals, has_signal: self.has_signal })
    }

    fn datums(&self, group: &ScoredGroup) -> Result<Vec<Datum>, RecipeError> {
        let rewards = group.rewards(self.config.truncated);
        let advantages = self.config.advantage.advantages(&rewards, &[rewards.len()])?;
        Ok(group.datums(&advantages.values, self.config.sampling.temperature))
    }

    fn hand_on(&mut self, datums: Vec<Datum>) -> Result<(), RecipeError> {
        self.sent = true;
        self.send.send(datums).map_err(|_| RecipeError::TrainerEnded)
    }
}
