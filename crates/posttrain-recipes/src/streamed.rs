//! A step that trains on groups as soon as their scores are in, some at a time.

use crate::groups::StepGroups;
use crate::mode::GroupOrder;
use crate::rollout::{GroupSampler, Rollout, RolloutCost, ScoredGroup};
use crate::shaping::RewardShaping;
use crate::step::{StepTrainer, Trained, boundary, merged};
use crate::{Observer, RecipeError};
use posttrain_loss::{Objective, StepTotals};
use posttrain_train::{Datum, DeadGroups, ForwardBackward, OptimStep, Trainer, step_totals};
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use tracing::info_span;

/// Passes that a step's groups are trained on in, where none is left out.
const PASSES: usize = 4;

/// Samples and scores groups, and collects and applies their gradient on another thread meanwhile.
///
/// What the sum of the losses is divided by is known when the last group of an optimizer step is
/// in; the parts are therefore divided by that of a step of two tokens, and the sum is scaled in the
/// end. An error leaves no gradient behind.
pub(crate) fn streamed(
    sampler: &GroupSampler,
    mut requests: StepGroups<'_>,
    trainer: &mut Trainer,
    step: &StepTrainer<'_>,
    observer: &mut dyn Observer,
) -> Result<Trained, RecipeError> {
    let threads = tch::get_num_threads();
    let (send, parts) = mpsc::channel();
    let mut groups = Groups::new(step, send);

    let (sampled, trained) = thread::scope(|scope| {
        let training = scope.spawn(|| {
            posttrain_kernel::set_threads(threads);
            train(trainer, parts, step)
        });
        let sampled = match sample(sampler, &mut requests, &mut groups, observer) {
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
    let ((cost, ended), applied) = collected?;

    let config = step.config;
    let mut rollout = Rollout { groups: ended.trained, cost };
    rollout.release_recordings();
    let advantages = rollout.advantages(&config.advantage, &RewardShaping::of(config))?;
    let passes = merged(applied.passes)?;
    let mut logprobs = vec![Vec::new(); rollout.completions().count()];
    let computed = passes.scores.logprobs.chunks(config.group_size);
    for (place, of_group) in ended.sent.iter().zip(computed) {
        let start = place * config.group_size;
        logprobs[start..start + of_group.len()].clone_from_slice(of_group);
    }
    let Applied { optim, seconds, .. } = applied;
    let replaced = ended.replaced;
    let versions = Vec::new();
    Ok(Trained { rollout, replaced, advantages, passes, logprobs, versions, optim, seconds })
}

/// Samples a step's groups, and those that come in the place of others.
fn sample(
    sampler: &GroupSampler,
    requests: &mut StepGroups<'_>,
    groups: &mut Groups<'_>,
    observer: &mut dyn Observer,
) -> Result<RolloutCost, RecipeError> {
    let mut cost = RolloutCost::default();
    let mut first = 0;
    while let Some(request) = requests.next(groups.trained.len()) {
        let _span = info_span!("sampling", step = groups.step.step).entered();
        let part = sampler.stream(request.as_rollout(), observer, &mut |index, group| {
            groups.take(first + index, group)
        })?;
        first += request.examples.len();
        cost.add(part);
    }
    Ok(cost)
}

/// What goes to the thread that trains.
enum Part {
    /// Its gradient is to be collected.
    Datums(Vec<Datum>),
    /// What was collected is to be applied, with these totals.
    Step { totals: StepTotals, has_signal: bool },
}

/// What that thread did.
#[derive(Default)]
struct Applied {
    /// What the passes of each optimizer step gave.
    passes: Vec<ForwardBackward>,
    optim: Vec<OptimStep>,
    /// Seconds that it took, most of them beside sampling.
    seconds: f64,
}

/// Collects and applies gradients until there are no more parts.
fn train(
    trainer: &mut Trainer,
    parts: mpsc::Receiver<Part>,
    step: &StepTrainer<'_>,
) -> Result<Applied, RecipeError> {
    let objective = &step.config.objective;
    let unit = StepTotals::count(&[1, 1], None)?;
    let mut applied = Applied::default();
    let mut collected: Option<ForwardBackward> = None;
    for part in parts {
        let started = Instant::now();
        match part {
            Part::Datums(datums) => {
                let _span = info_span!("training", step = step.step).entered();
                let passes = trainer.forward_backward_of(&datums, objective, &unit)?;
                match &mut collected {
                    Some(collected) => collected.merge(passes),
                    None => collected = Some(passes),
                }
            }
            Part::Step { totals, has_signal } => {
                let denominator = objective.denominator(&totals);
                let scale = objective.denominator(&unit) / denominator;
                applied.optim.extend(step.optim_step(trainer, has_signal, scale)?);
                let passes = collected.take();
                applied.passes.extend(passes.map(|p| ForwardBackward { denominator, ..p }));
            }
        }
        applied.seconds += started.elapsed().as_secs_f64();
    }
    Ok(applied)
}

/// Groups on their way from sampling to training.
struct Groups<'a> {
    step: &'a StepTrainer<'a>,
    send: mpsc::Sender<Part>,
    /// The place whose turn it is, in a fixed order.
    turn: usize,
    /// Groups that are here before their turn.
    early: BTreeMap<usize, ScoredGroup>,
    /// Groups that had their turn and are trained on, with their places.
    trained: Vec<(usize, ScoredGroup)>,
    /// Those that are not worth it.
    replaced: Vec<(usize, ScoredGroup)>,
    /// The places of the groups whose datums were sent, as they were sent.
    sent: Vec<usize>,
    /// Datums that wait until there are enough for a pass: one of a single group costs nearly as
    /// much as one of several.
    waiting: Vec<Datum>,
    /// How many groups they are of.
    waiting_groups: usize,
    /// Of the optimizer step under way: its groups, their totals, whether one has a signal.
    counted: usize,
    totals: StepTotals,
    has_signal: bool,
    /// Optimizer steps sent.
    steps: usize,
}

/// All groups, once they have had their turn.
struct Ended {
    trained: Vec<ScoredGroup>,
    replaced: Vec<ScoredGroup>,
    /// Which of those trained on were sent, as they were sent.
    sent: Vec<usize>,
}

impl<'a> Groups<'a> {
    fn new(step: &'a StepTrainer<'a>, send: mpsc::Sender<Part>) -> Self {
        Self {
            step,
            send,
            turn: 0,
            early: BTreeMap::new(),
            trained: Vec::new(),
            replaced: Vec::new(),
            sent: Vec::new(),
            waiting: Vec::new(),
            waiting_groups: 0,
            counted: 0,
            totals: StepTotals::default(),
            has_signal: false,
            steps: 0,
        }
    }

    fn take(&mut self, place: usize, group: ScoredGroup) -> Result<(), RecipeError> {
        if self.step.config.group_order == GroupOrder::Arrival {
            return self.train(place, group);
        }
        self.early.insert(place, group);
        while let Some(group) = self.early.remove(&self.turn) {
            self.train(self.turn, group)?;
            self.turn += 1;
        }
        Ok(())
    }

    /// Hands a group's datums to the trainer, unless they cannot move anything.
    fn train(&mut self, place: usize, group: ScoredGroup) -> Result<(), RecipeError> {
        let config = self.step.config;
        if !config.teaches(&group)? {
            self.replaced.push((place, group));
            return Ok(());
        }

        let datums = self.count(&group)?;
        let skipped = !datums.iter().any(|datum| self.step.teaches(datum))
            && config.trainer.dead_groups == DeadGroups::Skip
            && config.objective.ignores_zero_advantages();
        if !skipped {
            self.collect(place, datums)?;
        }
        self.trained.push((place, group));

        let (prompts, steps) = (config.prompts as usize, config.optimizer_steps as usize);
        let ends = boundary(prompts, steps, self.steps + 1);
        if self.trained.len() == ends && self.steps + 1 < steps {
            self.apply()?;
        }
        Ok(())
    }

    /// The end of the step. One without any signal is computed all the same: every step measures
    /// how far sampler and trainer are apart.
    fn end(mut self) -> Result<Ended, RecipeError> {
        let all = self.trained.iter().chain(&self.replaced).map(|(_, group)| group);
        self.step.check_failures(all)?;

        let untaught = self.trained.is_empty();
        let mut trained = std::mem::take(&mut self.trained);
        if untaught {
            trained = std::mem::take(&mut self.replaced);
        }
        trained.sort_by_key(|(place, _)| *place);
        if self.sent.is_empty() {
            for (place, group) in &trained {
                // What is trained on has been counted already, unless nothing is.
                let datums = if untaught { self.count(group)? } else { self.datums(group)? };
                self.collect(*place, datums)?;
            }
        }
        if self.counted > 0 {
            self.apply()?;
        }

        self.replaced.sort_by_key(|(place, _)| *place);
        let among = |place: &usize| trained.iter().position(|(own, _)| own == place);
        let sent = self.sent.iter().filter_map(among).collect();
        let groups =
            |placed: Vec<(usize, ScoredGroup)>| placed.into_iter().map(|(_, g)| g).collect();
        let replaced = groups(std::mem::take(&mut self.replaced));
        Ok(Ended { sent, trained: groups(trained), replaced })
    }

    /// A group's datums, counted into the optimizer step under way.
    fn count(&mut self, group: &ScoredGroup) -> Result<Vec<Datum>, RecipeError> {
        let datums = self.datums(group)?;
        self.counted += 1;
        self.totals.merge(&step_totals(&datums)?);
        self.has_signal |= datums.iter().any(|datum| self.step.teaches(datum));
        Ok(datums)
    }

    fn datums(&self, group: &ScoredGroup) -> Result<Vec<Datum>, RecipeError> {
        let config = self.step.config;
        let shaping = RewardShaping::of(config);
        let rewards = shaping.rewards(group);
        let advantages = config.advantage.advantages(&rewards, &[rewards.len()])?;
        Ok(group.datums(&advantages.values, &shaping, config.sampling.temperature))
    }

    /// Has a group's datums trained on, with those that wait, once they are of a quarter of the
    /// step's groups. A number of groups, whatever the time, so that a fixed order gives the same
    /// passes each time.
    fn collect(&mut self, place: usize, datums: Vec<Datum>) -> Result<(), RecipeError> {
        self.waiting.extend(datums);
        self.waiting_groups += 1;
        self.sent.push(place);
        let enough = (self.step.config.prompts as usize).div_ceil(PASSES);
        if self.waiting_groups >= enough { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RecipeError> {
        let datums = std::mem::take(&mut self.waiting);
        self.waiting_groups = 0;
        if datums.is_empty() { Ok(()) } else { self.hand_on(Part::Datums(datums)) }
    }

    fn apply(&mut self) -> Result<(), RecipeError> {
        self.flush()?;
        self.steps += 1;
        self.counted = 0;
        let totals = std::mem::take(&mut self.totals);
        let has_signal = std::mem::take(&mut self.has_signal);
        self.hand_on(Part::Step { totals, has_signal })
    }

    fn hand_on(&self, part: Part) -> Result<(), RecipeError> {
        self.send.send(part).map_err(|_| RecipeError::TrainerEnded)
    }
}
