//! Batches that are sampled ahead of the trainer, on a thread of their own, in the data's order.

use crate::RecipeError;
use crate::observer::{Event, Observer, Phase};
use crate::rollout::{GroupSampler, Rollout, RolloutRequest};
use posttrain_data::Example;
use posttrain_rollout::{PolicySnapshot, SamplingParams};
use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread::Scope;
use tracing::info_span;

/// A batch to be sampled.
pub(crate) struct BatchRequest {
    pub examples: Vec<Example>,
    pub policy: PolicySnapshot,
    pub completions: usize,
    pub sampling: Vec<SamplingParams>,
}

/// Samples batches, one after the other, while its owner trains.
pub(crate) struct SampledAhead {
    requests: mpsc::Sender<BatchRequest>,
    news: mpsc::Receiver<News>,
    /// Batches that are here, oldest first.
    ready: VecDeque<Rollout>,
    /// Batches that were asked for and are not here.
    under_way: usize,
}

enum News {
    Progress { done: usize, total: usize },
    Batch(Result<Rollout, RecipeError>),
}

impl SampledAhead {
    /// Starts the thread, with batches that a saved state held.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        sampler: &'scope GroupSampler,
        ready: VecDeque<Rollout>,
    ) -> Self {
        let (requests, asked) = mpsc::channel::<BatchRequest>();
        let (send, news) = mpsc::channel();
        let threads = tch::get_num_threads();
        scope.spawn(move || {
            posttrain_kernel::set_threads(threads);
            let mut teller = Teller(send);
            for request in asked {
                let rollout = info_span!("sampling")
                    .in_scope(|| sampler.rollout(request.as_rollout(), &mut teller));
                // Nobody listens any more: the run has ended, or failed.
                if teller.0.send(News::Batch(rollout)).is_err() {
                    break;
                }
            }
        });
        Self { requests, news, ready, under_way: 0 }
    }

    /// Batches that are here or under way.
    pub fn len(&self) -> usize {
        self.ready.len() + self.under_way
    }

    /// Asks for a batch.
    pub fn submit(&mut self, request: BatchRequest) -> Result<(), RecipeError> {
        self.under_way += 1;
        self.requests.send(request).map_err(|_| RecipeError::SamplerEnded)
    }

    /// The oldest batch, once it is here.
    pub fn next(&mut self, observer: &mut dyn Observer) -> Result<Rollout, RecipeError> {
        loop {
            if let Some(rollout) = self.ready.pop_front() {
                return Ok(rollout);
            }
            self.receive(observer)?;
        }
    }

    /// Waits for what is under way.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<(), RecipeError> {
        while self.under_way > 0 {
            self.receive(observer)?;
        }
        Ok(())
    }

    /// Batches that are here, oldest first.
    pub fn ready(&self) -> &VecDeque<Rollout> {
        &self.ready
    }

    fn receive(&mut self, observer: &mut dyn Observer) -> Result<(), RecipeError> {
        match self.news.recv().map_err(|_| RecipeError::SamplerEnded)? {
            News::Progress { done, total } => {
                observer.see(&Event::Progress { phase: Phase::Sampling, done, total });
            }
            News::Batch(rollout) => {
                self.under_way -= 1;
                self.ready.push_back(rollout?);
            }
        }
        Ok(())
    }
}

impl BatchRequest {
    /// The same, for a sampler.
    pub fn as_rollout(&self) -> RolloutRequest<'_> {
        RolloutRequest {
            examples: &self.examples,
            policies: vec![Some(self.policy.clone()); self.examples.len()],
            completions: self.completions,
            sampling: self.sampling.clone(),
            phase: Phase::Sampling,
        }
    }
}

/// An observer that passes progress on to another thread.
struct Teller(mpsc::Sender<News>);

impl Observer for Teller {
    fn see(&mut self, event: &Event<'_>) {
        if let Event::Progress { done, total, .. } = *event {
            // Nobody listens any more: the batch is given up with the thread.
            let _ = self.0.send(News::Progress { done, total });
        }
    }
}
