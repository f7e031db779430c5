//! A thread of a sampling service: an engine, and whom its tokens and outcomes belong to.

use super::client::SampleEvent;
use super::queue::{Command, Job, Queue, State, Ticket};
use crate::kept::KeptTexts;
use crate::{
    Engine, EngineConfig, Outcome, PolicySnapshot, RequestError, RequestId, SampledToken,
    SamplingStats,
};
use futures::channel::mpsc::UnboundedSender;
use posttrain_model::{Decoder, TextTokenizer};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// A request that an engine works on.
struct Running {
    ticket: Ticket,
    /// Which of the request's samples are not answered yet.
    left: Vec<usize>,
    deadline: Option<Instant>,
    tokens: bool,
    events: UnboundedSender<SampleEvent>,
}

/// One engine and its requests.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    index: usize,
    model: Arc<Decoder>,
    tokenizer: Option<Arc<TextTokenizer>>,
    config: EngineConfig,
    kept: KeptTexts,
    engine: Engine,
    /// What engines that failed had done.
    past: SamplingStats,
    running: BTreeMap<RequestId, Running>,
}

impl Worker {
    pub fn new(
        queue: Arc<Queue>,
        index: usize,
        model: Arc<Decoder>,
        tokenizer: Option<Arc<TextTokenizer>>,
        config: EngineConfig,
        kept: KeptTexts,
    ) -> Self {
        let engine =
            Engine::sharing(model.clone(), tokenizer.clone(), config.clone(), kept.clone());
        Self {
            queue,
            index,
            model,
            tokenizer,
            config,
            kept,
            engine,
            past: SamplingStats::default(),
            running: BTreeMap::new(),
        }
    }

    /// Works until the service ends.
    pub fn run(mut self) {
        loop {
            let idle = self.running.is_empty();
            let (commands, end) = self.queue.commands(self.index, idle);
            commands.into_iter().for_each(|command| self.obey(command));

            match end {
                Some(State::Stopped) => return self.give_up(&RequestError::Cancelled),
                Some(_) => return,
                None => {}
            }
            self.pass_deadlines();
            self.step();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(job) => self.submit(*job),
            Command::Cancel(ticket) => self.cancel(ticket, &RequestError::Cancelled),
            Command::Replace { old, new } => self.replace(old.as_ref(), &new),
        }
    }

    fn submit(&mut self, job: Job) {
        let left: Vec<usize> = job.samples.clone().collect();
        let id = self.engine.submit_samples(job.request, job.samples);
        let running = Running {
            ticket: job.ticket,
            left,
            deadline: job.deadline,
            tokens: job.tokens,
            events: job.events,
        };
        if !running.left.is_empty() {
            self.running.insert(id, running);
        }
    }

    fn replace(&mut self, old: Option<&PolicySnapshot>, new: &PolicySnapshot) {
        self.engine.replace_policy(old, new);
    }

    fn cancel(&mut self, ticket: Ticket, reason: &RequestError) {
        let theirs =
            |(id, running): (&RequestId, &Running)| (running.ticket == ticket).then_some(*id);
        let ids: Vec<RequestId> = self.running.iter().filter_map(theirs).collect();
        self.cancel_all(&ids, reason);
    }

    fn pass_deadlines(&mut self) {
        if self.running.values().all(|running| running.deadline.is_none()) {
            return;
        }
        let now = Instant::now();
        let passed = |(id, running): (&RequestId, &Running)| {
            running.deadline.filter(|at| *at <= now).map(|_| *id)
        };
        let ids: Vec<RequestId> = self.running.iter().filter_map(passed).collect();
        self.cancel_all(&ids, &RequestError::DeadlinePassed);
    }

    fn cancel_all(&mut self, ids: &[RequestId], reason: &RequestError) {
        for id in ids {
            if let Err(error) = self.engine.cancel(*id, reason) {
                self.begin_anew(&error.to_string());
                return;
            }
        }
    }

    /// One step of the engine. Where it fails, or panics, its requests hear why, and a new one
    /// takes its place.
    fn step(&mut self) {
        let running = &self.running;
        let mut tell = |token: SampledToken| {
            if let Some(running) = running.get(&token.request).filter(|running| running.tokens) {
                // Whoever has stopped listening has cancelled the request, which arrives with the
                // next commands.
                let _ = running.events.unbounded_send(SampleEvent::Token(token));
            }
        };
        let engine = &mut self.engine;
        let stepped = catch_unwind(AssertUnwindSafe(|| engine.step_with(&mut tell)));
        let mut stats = self.past;
        stats.add(&self.engine.stats());
        self.queue.worked(self.index, stats);

        match stepped {
            Ok(Ok(outcomes)) => outcomes.into_iter().for_each(|outcome| self.answer(&outcome)),
            Ok(Err(error)) => self.begin_anew(&error.to_string()),
            Err(panic) => self.begin_anew(&panic_text(&*panic)),
        }
    }

    /// Hands an outcome to its request. A request that was refused as a whole has one outcome for
    /// all its samples.
    fn answer(&mut self, outcome: &Outcome) {
        let Some(running) = self.running.get_mut(&outcome.request) else { return };
        let refused = outcome.result.as_ref().is_err_and(RequestError::is_refusal);
        let samples =
            if refused { std::mem::take(&mut running.left) } else { vec![outcome.sample] };

        running.left.retain(|sample| !samples.contains(sample));
        for sample in samples {
            let own = Outcome { request: outcome.request, sample, result: outcome.result.clone() };
            // First, so that whoever has heard of it finds it counted.
            self.queue.answered(self.index);
            let _ = running.events.unbounded_send(SampleEvent::Finished(own));
        }
        if running.left.is_empty() {
            self.running.remove(&outcome.request);
        }
    }

    /// Answers everything with a reason.
    fn give_up(&mut self, reason: &RequestError) {
        for (request, running) in std::mem::take(&mut self.running) {
            for sample in running.left {
                let outcome = Outcome { request, sample, result: Err(reason.clone()) };
                self.queue.answered(self.index);
                let _ = running.events.unbounded_send(SampleEvent::Finished(outcome));
            }
        }
    }

    fn begin_anew(&mut self, reason: &str) {
        tracing::warn!("an engine failed, and its requests with it: {reason}");
        self.give_up(&RequestError::EngineFailed { reason: reason.to_owned() });
        self.past.add(&self.engine.stats());
        // It may be one of them that the engine failed of.
        self.kept.clear();
        self.engine = Engine::sharing(
            self.model.clone(),
            self.tokenizer.clone(),
            self.config.clone(),
            self.kept.clone(),
        );
    }
}

/// What a panic says.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
