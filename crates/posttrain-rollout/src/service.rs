//! Sampling as a service: engines on threads of their own, spoken to through a client.

mod client;
mod queue;
mod worker;

pub use client::{SampleEvent, SampleRequest, SampleStream, SamplingClient};

use crate::kept::KeptTexts;
use crate::{EngineConfig, PolicySnapshot, RolloutError, Workers};
use posttrain_model::{Decoder, TextTokenizer};
use queue::{Queue, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::thread::JoinHandle;
use tch::Device;
use worker::Worker;

/// How a sampling service works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingServiceConfig {
    /// Rows, kept tokens, recorded activations and threads of all its engines together.
    pub engine: EngineConfig,
    /// Samples that may wait or run at a time, 1 and up: who submits more waits for room
    /// (back-pressure), and so does what would pile up in memory. A request of more samples than
    /// that has the service to itself.
    pub max_pending: usize,
}

impl Default for SamplingServiceConfig {
    /// 4,096 samples, which keep 128 rows busy through 32 rounds.
    fn default() -> Self {
        Self { engine: EngineConfig::default(), max_pending: 4096 }
    }
}

impl SamplingServiceConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RolloutError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), RolloutError> {
        if self.max_pending == 0 {
            return Err(RolloutError::Config {
                field: "max_pending",
                expected: "at least 1",
                got: "0".into(),
            });
        }
        self.engine.validate()
    }
}

/// What becomes of the rows of a policy whose place another one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// They finish on the policy that they began with.
    #[default]
    Finish,
    /// They go on under the new one from their next token on ([`crate::Engine::replace_policy`]).
    Follow,
}

/// Engines on threads of their own.
///
/// A request is submitted while others run, and its completions come by a stream, token by token
/// where that is asked for. Each of its samples is answered exactly once: by a completion, or by
/// the reason why there is none. On the CPU there is an engine a worker, and a request of many
/// samples is divided among them; a device has one.
///
/// [`crate::Engine`] is the same without threads, and gives the same tokens: a sample follows from
/// its request's seed and its own index, whatever runs beside it (up to rounding, which may differ
/// with the batch).
///
/// ```
/// use posttrain_lora::{Adapter, LoraConfig};
/// use posttrain_model::{Decoder, ModelConfig};
/// use posttrain_rollout::service::{SampleRequest, SamplingService, SamplingServiceConfig, Transition};
/// use posttrain_rollout::{PolicySnapshot, Request, SamplingParams};
/// use std::sync::Arc;
///
/// let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
/// let service = SamplingService::start(model.clone(), None, SamplingServiceConfig::default())?;
/// let client = service.client();
///
/// let params = SamplingParams { max_tokens: 5, seed: 1, ..SamplingParams::default() };
/// let request = Request::new(vec![1, 2, 3], params).samples(2);
/// let outcomes = client.submit_blocking(SampleRequest::new(request.clone()))?.wait();
/// assert_eq!(outcomes.len(), 2);
/// assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
///
/// // A policy under a name: requests by the name get the version that it has when they come.
/// let lora = LoraConfig { rank: 4, alpha: 4.0, ..LoraConfig::default() };
/// let adapter = Adapter::init(&lora, model.modules(), 1, tch::Device::Cpu)?;
/// client.publish("student", PolicySnapshot::new(adapter.snapshot(model.kind())?, 3), Transition::Finish);
/// let outcomes = client.submit_blocking(SampleRequest::new(request).policy_name("student"))?.wait();
/// assert_eq!(outcomes[0].result.as_ref().unwrap().policy_version, 3);
/// service.shut_down();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SamplingService {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl SamplingService {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`RolloutError::Config`] names a field that is out of range; [`RolloutError::Thread`] where
    /// the system gives none.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a service is handed what it samples with, and whoever starts it lets go of it"
    )]
    pub fn start(
        model: Arc<Decoder>,
        tokenizer: Option<Arc<TextTokenizer>>,
        config: SamplingServiceConfig,
    ) -> Result<Self, RolloutError> {
        config.validate()?;
        let threads = tch::get_num_threads().max(1);
        let workers = workers(&model, &config.engine, threads as usize);
        let queue = Arc::new(Queue::new(workers, config.max_pending));

        let engine = EngineConfig {
            max_rows: config.engine.max_rows.div_ceil(workers),
            record_mib: config.engine.record_mib.div_ceil(workers),
            workers: Workers::Count(1),
            ..config.engine
        };
        let mut service = Self { queue: queue.clone(), threads: Vec::with_capacity(workers) };
        let kept = KeptTexts::new(engine.keep_tokens);
        let (ready, all_ready) = std::sync::mpsc::channel();
        for index in 0..workers {
            let worker = Worker::new(
                queue.clone(),
                index,
                model.clone(),
                tokenizer.clone(),
                engine.clone(),
                kept.clone(),
            );
            // Rows are divided, so that each engine's operations stay on one thread's share of the
            // cores.
            let share = (threads / workers as i32).max(1);
            let ready = ready.clone();
            let run = move || {
                posttrain_kernel::set_threads(share);
                drop(ready);
                worker.run();
            };
            let name = format!("sampling-{index}");
            let spawned = std::thread::Builder::new().name(name).spawn(run);
            service.threads.push(spawned.map_err(|source| RolloutError::Thread { source })?);
        }

        // The workers' setting is what threads born later would begin with: once all have made it,
        // it is undone.
        drop(ready);
        let _: Result<(), _> = all_ready.recv();
        tch::set_num_threads(threads);
        Ok(service)
    }

    /// A client of it. Clients are cheap to clone and go to any thread.
    #[must_use]
    pub fn client(&self) -> SamplingClient {
        SamplingClient::new(self.queue.clone())
    }

    /// How many engines it has: those of [`SamplingClient::stats`], together.
    #[must_use]
    pub fn engines(&self) -> usize {
        self.threads.len()
    }

    /// Takes nothing more, finishes everything that it has accepted, and ends.
    pub fn shut_down(mut self) {
        self.end(State::Draining);
    }

    fn end(&mut self, state: State) {
        self.queue.end(state);
        for thread in self.threads.drain(..) {
            // A worker catches what panics in its engine, so there is nothing to hear from it.
            let _ = thread.join();
        }
    }
}

/// What is still waiting or running is answered with [`crate::RequestError::Cancelled`].
impl Drop for SamplingService {
    fn drop(&mut self) {
        self.end(State::Stopped);
    }
}

/// How many engines there are: one a thread on the CPU, one on a device.
fn workers(model: &Decoder, config: &EngineConfig, threads: usize) -> usize {
    match config.workers {
        _ if model.device() != Device::Cpu => 1,
        Workers::Count(count) => count.min(config.max_rows),
        Workers::Auto => threads.min(config.max_rows),
    }
}

/// A policy's name and its present version, as a service knows it.
#[derive(Debug, Clone)]
pub struct Published {
    /// The name that requests give.
    pub name: String,
    /// The version that they get.
    pub policy: PolicySnapshot,
}
