//! A warm start: what somebody who knows how has played is learned by cross-entropy, so that
//! reinforcement has something to reinforce.

use crate::RecipeError;
use crate::agent::episodes::demonstration_datums;
use crate::observer::{Event, Observer, Phase};
use posttrain_environment::Trajectory;
use posttrain_loss::{Aggregation, CrossEntropy};
use posttrain_optim::Schedule;
use posttrain_train::{Trainer, derive_seed};
use serde::{Deserialize, Serialize};

/// Straight down to nothing.
const FALLING: Schedule = Schedule::Linear { warmup_steps: 0, floor: 0.0 };

/// How demonstrations are learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmStartConfig {
    /// Tasks that are demonstrated, 1 and up.
    pub demonstrations: usize,
    /// How often each is learned, 1 and up.
    pub epochs: u64,
    /// Contexts of a role that are learned, 1 and up, evenly among the tasks; all where it is left
    /// out. A role that plays often in one task would else be learned for longer than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contexts: Option<usize>,
    /// Contexts a step, 1 and up.
    pub batch: usize,
    /// The learning rate, above 0; it falls linearly to nothing.
    pub learning_rate: f64,
}

impl Default for WarmStartConfig {
    fn default() -> Self {
        Self { demonstrations: 64, epochs: 2, contexts: None, batch: 8, learning_rate: 2e-4 }
    }
}

impl WarmStartConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("warm_start.demonstrations", self.demonstrations as u64),
            ("warm_start.epochs", self.epochs),
            ("warm_start.contexts", self.contexts.unwrap_or(1) as u64),
            ("warm_start.batch", self.batch as u64),
        ])?;
        RecipeError::check_learning_rate(self.learning_rate)
    }
}

/// Learns demonstrations, unless it is asked to stop; the losses, step by step.
pub(crate) fn warm_start<'a>(
    trainer: &mut Trainer,
    demonstrations: impl IntoIterator<Item = &'a Trajectory>,
    (config, seed, stop): (&WarmStartConfig, u64, &dyn Fn() -> Result<bool, RecipeError>),
    observer: &mut dyn Observer,
) -> Result<Vec<f64>, RecipeError> {
    let mut datums = demonstration_datums(demonstrations);
    if let Some(most) = config.contexts.filter(|most| *most < datums.len()) {
        datums = drawn(&datums, most, seed);
    }
    RecipeError::check("warm_start.demonstrations", !datums.is_empty(), "at least 1", "none")?;

    let objective = CrossEntropy { aggregation: Aggregation::TokenMean {} };
    let a_epoch = datums.len().div_ceil(config.batch) as u64;
    let steps = config.epochs * a_epoch;
    let mut losses = Vec::with_capacity(steps as usize);
    for step in 0..steps {
        if stop()? {
            return Err(RecipeError::Stopped);
        }
        // Another order in each epoch.
        let mut order: Vec<usize> = (0..datums.len()).collect();
        order.sort_by_key(|index| derive_seed(seed, "order", step / a_epoch, *index as u64));
        let from = (step % a_epoch) as usize * config.batch;
        let to = (from + config.batch).min(order.len());
        let batch: Vec<_> = order[from..to].iter().map(|index| datums[*index].clone()).collect();

        let passes = trainer.forward_backward(&batch, &objective)?;
        let rate = config.learning_rate * FALLING.factor(step, steps);
        let params = trainer.adam_params(rate);
        trainer.optim_step(&params)?;
        losses.push(passes.loss());
        let (done, total) = (losses.len(), steps as usize);
        observer.see(&Event::Progress { phase: Phase::Training, done, total });
    }
    Ok(losses)
}

/// So many of all, one of each stretch, by lot: each demonstration has its contexts in the same order, and
/// every n-th would always be its first.
fn drawn<T: Clone>(all: &[T], most: usize, seed: u64) -> Vec<T> {
    let from = |index: usize| index * all.len() / most;
    let stretches = (0..most).map(|index| &all[from(index)..from(index + 1)]);
    let one = |(index, stretch): (usize, &[T])| {
        let place = derive_seed(seed, "context", index as u64, 0) as usize % stretch.len();
        stretch[place].clone()
    };
    stretches.enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_drawn_from_every_demonstration_and_every_place_in_it() {
        let all: Vec<usize> = (0..256).collect();
        let drawn = drawn(&all, 64, 7);
        assert!(drawn.iter().enumerate().all(|(index, place)| place / 4 == index));
        for place in 0..4 {
            let here = drawn.iter().filter(|context| *context % 4 == place).count();
            assert!((8..=26).contains(&here), "{place}: {here} of 64");
        }
    }
}
