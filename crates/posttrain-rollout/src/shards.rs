//! The waiting requests divided among threads, each an engine with rows of its own.

use crate::deal::{Dealt, Offer, deal};
use crate::engine::Waiting;
use crate::row::{Group, same_adapter};
use crate::{Engine, EngineConfig, Outcome, RolloutError, SamplingParams, SamplingStats, Workers};
use posttrain_kernel::on_workers;
use posttrain_lora::AdapterView;
use posttrain_model::{Decoder, TextTokenizer};
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

/// What one thread samples. Everything in it may go to another thread: tensors are shared by handles of their own, and
/// adapters stand in a list that requests point into.
struct Shard {
    model: Decoder,
    adapters: Vec<AdapterView>,
    requests: Vec<SharedRequest>,
    config: EngineConfig,
    outcomes: Sender<Result<Outcome, RolloutError>>,
}

struct SharedRequest {
    id: usize,
    prompt: Vec<i64>,
    params: SamplingParams,
    samples: Range<usize>,
    adapter: Option<usize>,
    policy_version: u64,
}

/// Runs everything that waits in `engine` on `workers` threads; `each` sees the outcomes on the caller's.
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
    let shards = shards(engine, workers, &send);
    drop(send);
    let (stop, tokenizer, mut failed) = (AtomicBool::new(false), engine.tokenizer, None);
    let work = |shard| sample(shard, tokenizer, &stop);
    let stats = on_workers(shards, work, || {
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
    });
    stats.iter().for_each(|stats| engine.stats.add(stats));
    failed.map_or(Ok(()), Err)
}

/// One thread's work.
fn sample(shard: Shard, tokenizer: Option<&TextTokenizer>, stop: &AtomicBool) -> SamplingStats {
    let Shard { model, adapters, requests, config, outcomes } = shard;
    let adapters: Vec<Rc<AdapterView>> = adapters.into_iter().map(Rc::new).collect();
    let mut engine = match Engine::new(&model, tokenizer, config) {
        Ok(engine) => engine,
        Err(error) => return refuse(error, &outcomes),
    };
    engine.waiting = requests.into_iter().map(|request| request.waiting(&adapters)).collect();
    while !engine.is_idle() && !stop.load(Ordering::Relaxed) {
        match engine.step() {
            // A receiver that has gone away wants no more.
            Ok(done) => done.into_iter().for_each(|outcome| drop(outcomes.send(Ok(outcome)))),
            Err(error) => return refuse(error, &outcomes),
        }
    }
    engine.stats()
}

fn refuse(error: RolloutError, outcomes: &Sender<Result<Outcome, RolloutError>>) -> SamplingStats {
    let _ = outcomes.send(Err(error));
    SamplingStats::default()
}

impl SharedRequest {
    fn waiting(self, adapters: &[Rc<AdapterView>]) -> Waiting {
        let adapter = self.adapter.map(|index| adapters[index].clone());
        let Self { id, prompt, params, samples, policy_version, .. } = self;
        let group = Rc::new(Group { request: id, prompt, params, adapter, policy_version });
        Waiting { group, samples, prefix: None }
    }
}

/// Deals what waits out to `workers` threads.
fn shards(engine: &mut Engine, workers: usize, outcomes: &Sender<Result<Outcome, RolloutError>>) -> Vec<Shard> {
    let rows = engine.config.max_rows.div_ceil(workers);
    let record_mib = engine.config.record_mib.div_ceil(workers);
    let config = EngineConfig { max_rows: rows, workers: Workers::Count(1), record_mib, ..engine.config.clone() };
    let waiting = std::mem::take(&mut engine.waiting);
    let hands = deal(&offers(&waiting), workers);
    let shard = |hand: Vec<Dealt>| {
        let hand = hand.into_iter().map(|dealt| (waiting[dealt.offer].group.clone(), dealt.samples));
        let (adapters, requests) = shared(hand);
        Shard { model: engine.model.share(), adapters, requests, config: config.clone(), outcomes: outcomes.clone() }
    };
    hands.into_iter().filter(|hand| !hand.is_empty()).map(shard).collect()
}

/// What waits, to be dealt; an adapter's number is that of the first request that wants it.
fn offers(waiting: &VecDeque<Waiting>) -> Vec<Offer> {
    let mut first: Vec<usize> = Vec::new();
    let mut offers = Vec::with_capacity(waiting.len());
    for (place, next) in waiting.iter().enumerate() {
        let known = first.iter().copied().find(|&other| same_adapter(&waiting[other].group, &next.group));
        let adapter = known.unwrap_or(place);
        if known.is_none() {
            first.push(place);
        }
        offers.push(Offer { adapter, samples: next.samples.clone() });
    }
    offers
}

/// Requests as they may go to another thread, and the adapters that they point to.
fn shared(hand: impl Iterator<Item = (Rc<Group>, Range<usize>)>) -> (Vec<AdapterView>, Vec<SharedRequest>) {
    let mut known: Vec<Rc<AdapterView>> = Vec::new();
    let mut requests = Vec::new();
    for (group, samples) in hand {
        let adapter = group.adapter.as_ref().map(|adapter| {
            known.iter().position(|other| Rc::ptr_eq(other, adapter)).unwrap_or_else(|| {
                known.push(adapter.clone());
                known.len() - 1
            })
        });
        let Group { request: id, prompt, params, policy_version, .. } = &*group;
        let (prompt, params) = (prompt.clone(), params.clone());
        requests.push(SharedRequest { id: *id, prompt, params, samples, adapter, policy_version: *policy_version });
    }
    (known.iter().map(|adapter| adapter.share()).collect(), requests)
}

impl SamplingStats {
    fn add(&mut self, other: &Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.sampled_tokens += other.sampled_tokens;
        self.steps += other.steps;
    }
}
