//! The waiting requests divided among threads, each an engine with rows of its own.

use crate::assignment::{Assigned, Demand, assign};
use crate::row::same_adapter;
use crate::waiting::Waiting;
use crate::{Engine, EngineConfig, Outcome, RolloutError, SamplingStats, Workers};
use posttrain_kernel::on_workers;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

/// What one thread samples, and where its outcomes go.
struct Shard {
    engine: Engine,
    outcomes: Sender<Result<Outcome, RolloutError>>,
}

/// Runs everything that waits in `engine` on `workers` threads; `each` sees the outcomes on the
/// caller's.
pub(crate) fn run(
    engine: &mut Engine,
    workers: usize,
    mut each: impl FnMut(Outcome) -> ControlFlow<()>,
) -> Result<(), RolloutError> {
    for outcome in std::mem::take(&mut engine.refused) {
        if each(outcome).is_break() {
            engine.waiting.clear();
            return Ok(());
        }
    }

    let (send, receive) = channel();
    let shards = shards(engine, workers, &send)?;
    drop(send);

    let stop = AtomicBool::new(false);
    let mut failed = None;
    let collect = || {
        for result in receive {
            match result {
                Ok(outcome) if !stop.load(Ordering::Relaxed) => {
                    stop.fetch_or(each(outcome).is_break(), Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
            }
        }
    };
    let stats = on_workers(shards, |shard| sample(shard, &stop), collect);

    stats.iter().for_each(|stats| engine.stats.add(stats));
    failed.map_or(Ok(()), Err)
}

/// One thread's work.
fn sample(shard: Shard, stop: &AtomicBool) -> SamplingStats {
    let Shard { mut engine, outcomes } = shard;

    while !engine.is_idle() && !stop.load(Ordering::Relaxed) {
        match engine.step() {
            // A receiver that has gone away wants no more.
            Ok(done) => done.into_iter().for_each(|outcome| drop(outcomes.send(Ok(outcome)))),
            Err(error) => {
                let _ = outcomes.send(Err(error));
                return SamplingStats::default();
            }
        }
    }
    engine.stats()
}

/// Deals what waits out to `workers` threads.
fn shards(
    engine: &mut Engine,
    workers: usize,
    outcomes: &Sender<Result<Outcome, RolloutError>>,
) -> Result<Vec<Shard>, RolloutError> {
    let config = EngineConfig {
        max_rows: engine.config.max_rows.div_ceil(workers),
        workers: Workers::Count(1),
        record_mib: engine.config.record_mib.div_ceil(workers),
        ..engine.config.clone()
    };
    engine.waiting.order(BTreeMap::new());
    let waiting = engine.waiting.take();
    let loads = assign(&demands(&waiting), workers);

    let mut shards = Vec::with_capacity(loads.len());
    for load in loads.into_iter().filter(|load| !load.is_empty()) {
        let mut own = Engine::new(engine.model.clone(), engine.tokenizer.clone(), config.clone())?;
        own.waiting = load.into_iter().map(|assigned| assigned.of(&waiting)).collect();
        shards.push(Shard { engine: own, outcomes: outcomes.clone() });
    }
    Ok(shards)
}

impl Assigned {
    /// The samples assigned, as they wait in a worker's own engine.
    fn of(self, waiting: &[Waiting]) -> Waiting {
        Waiting::new(waiting[self.demand].group.clone(), self.samples)
    }
}

/// What waits, to be assigned; an adapter's number is that of the first request that wants it.
fn demands(waiting: &[Waiting]) -> Vec<Demand> {
    let mut first: Vec<usize> = Vec::new();
    let mut demands = Vec::with_capacity(waiting.len());
    for (place, next) in waiting.iter().enumerate() {
        let known =
            first.iter().copied().find(|&other| same_adapter(&waiting[other].group, &next.group));
        if known.is_none() {
            first.push(place);
        }
        demands.push(Demand { adapter: known.unwrap_or(place), samples: next.samples.clone() });
    }
    demands
}
