//! The side of a sampling service that requests come from.

use super::queue::{Queue, Room, Submission, Ticket};
use super::{Published, Transition};
use crate::{Outcome, PolicySnapshot, Request, SampledToken, SamplingStats, ServiceError};
use futures::Stream;
use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::stream::StreamExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A request to a service.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// What is sampled.
    pub request: Request,
    /// The name of the policy that samples ([`SamplingClient::publish`]), in place of the request's
    /// own. Its version is the one that is published when the request is accepted.
    pub policy_name: Option<String>,
    /// How long it may take, from its acceptance on; samples that are not finished then are given
    /// up with [`crate::RequestError::DeadlinePassed`].
    pub deadline: Option<Duration>,
    /// Whether tokens are told as they are drawn.
    pub tokens: bool,
}

impl SampleRequest {
    /// A request for completions alone, without a deadline.
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self { request, policy_name: None, deadline: None, tokens: false }
    }

    /// Samples from the policy that is published under a name.
    #[must_use]
    pub fn policy_name(self, name: impl Into<String>) -> Self {
        Self { policy_name: Some(name.into()), ..self }
    }

    /// Gives samples up that take longer.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Has tokens told as they are drawn.
    #[must_use]
    pub fn with_tokens(self) -> Self {
        Self { tokens: true, ..self }
    }
}

/// What a stream tells. Requests are numbered by the service's engines, so `request` means nothing
/// here.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleEvent {
    /// A token was drawn.
    Token(SampledToken),
    /// A sample is finished, or given up: its last event.
    Finished(Outcome),
}

/// Speaks to a service: `Send`, `Sync` and cheap to clone.
#[derive(Clone)]
pub struct SamplingClient {
    queue: Arc<Queue>,
}

/// A request's events as they come. To drop it before its end is to cancel the request.
pub struct SampleStream {
    queue: Arc<Queue>,
    ticket: Ticket,
    /// Samples that have not come yet.
    left: usize,
    events: mpsc::UnboundedReceiver<SampleEvent>,
}

impl SamplingClient {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Submits a request, waiting for room where the service has too much to do.
    ///
    /// # Errors
    /// [`ServiceError::Closed`] once the service takes nothing more;
    /// [`ServiceError::UnknownPolicy`] for a name that nobody has published.
    pub async fn submit(&self, request: SampleRequest) -> Result<SampleStream, ServiceError> {
        let request = self.resolved(request)?;
        match self.queue.room(request.request.samples) {
            Room::Granted => Ok(self.accepted(request)),
            Room::Later(granted) => {
                let granted = Granted {
                    queue: &self.queue,
                    samples: request.request.samples,
                    receiver: granted,
                };
                granted.wait().await?;
                Ok(self.accepted(request))
            }
            Room::Closed => Err(ServiceError::Closed),
        }
    }

    /// [`SamplingClient::submit`] for a thread that can wait.
    ///
    /// # Errors
    /// Those of [`SamplingClient::submit`].
    pub fn submit_blocking(&self, request: SampleRequest) -> Result<SampleStream, ServiceError> {
        block_on(self.submit(request))
    }

    /// Submits a request if there is room now.
    ///
    /// # Errors
    /// [`ServiceError::Full`] where there is none; else those of [`SamplingClient::submit`].
    pub fn try_submit(&self, request: SampleRequest) -> Result<SampleStream, ServiceError> {
        let request = self.resolved(request)?;
        match self.queue.room_now(request.request.samples) {
            Room::Granted => Ok(self.accepted(request)),
            Room::Later(_) => Err(ServiceError::Full { pending: self.queue.pending() }),
            Room::Closed => Err(ServiceError::Closed),
        }
    }

    /// Puts a policy under a name, in place of the one that has it. Requests that come by the name
    /// get it from now on; what runs under the old one finishes on it or follows, as `transition`
    /// says.
    pub fn publish(&self, name: &str, policy: PolicySnapshot, transition: Transition) {
        self.queue.publish(name, policy, transition);
    }

    /// Takes a name back and returns its policy. What runs under it finishes.
    #[must_use]
    pub fn retire(&self, name: &str) -> Option<PolicySnapshot> {
        self.queue.retire(name)
    }

    /// The policies that have a name, sorted by it.
    #[must_use]
    pub fn policies(&self) -> Vec<Published> {
        self.queue.policies()
    }

    /// Samples that the service has accepted and not answered yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.pending()
    }

    /// What the service's engines have done since it started.
    #[must_use]
    pub fn stats(&self) -> SamplingStats {
        self.queue.stats()
    }

    /// A request with the policy that its name stands for now. When there is room, which may be
    /// later, the queue takes the policy that the name stands for then.
    fn resolved(&self, mut request: SampleRequest) -> Result<SampleRequest, ServiceError> {
        if let Some(name) = &request.policy_name {
            let Some(policy) = self.queue.policy(name) else {
                let known =
                    self.queue.policies().into_iter().map(|published| published.name).collect();
                return Err(ServiceError::UnknownPolicy { name: name.clone(), known });
            };
            request.request.policy = Some(policy);
        }
        Ok(request)
    }

    /// Hands a request over that there is room for.
    fn accepted(&self, request: SampleRequest) -> SampleStream {
        let (send, events) = mpsc::unbounded();
        let left = request.request.samples;
        // A time that no clock can tell never comes.
        let deadline = request.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let submission = Submission {
            request: request.request,
            policy_name: request.policy_name,
            deadline,
            tokens: request.tokens,
        };
        let ticket = self.queue.submit(submission, &send);
        SampleStream { queue: self.queue.clone(), ticket, left, events }
    }
}

/// Room that will be granted; whoever stops waiting gives back what was granted meanwhile.
struct Granted<'a> {
    queue: &'a Queue,
    samples: usize,
    receiver: oneshot::Receiver<()>,
}

impl Granted<'_> {
    async fn wait(mut self) -> Result<(), ServiceError> {
        let granted = (&mut self.receiver).await;
        // Used now, or never granted: nothing is to be given back.
        self.samples = 0;
        granted.map_err(|oneshot::Canceled| ServiceError::Closed)
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if self.samples > 0 && matches!(self.receiver.try_recv(), Ok(Some(()))) {
            self.queue.give_back(self.samples);
        }
    }
}

impl SampleStream {
    /// Gives up what is not finished. Each of those samples still comes, with
    /// [`crate::RequestError::Cancelled`].
    pub fn cancel(&self) {
        self.queue.cancel(self.ticket);
    }

    /// The outcomes of all samples, in the order of their samples.
    pub async fn outcomes(mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(self.left);
        while let Some(event) = self.next().await {
            if let SampleEvent::Finished(outcome) = event {
                outcomes.push(outcome);
            }
        }
        outcomes.sort_by_key(|outcome| outcome.sample);
        outcomes
    }

    /// [`SampleStream::outcomes`] for a thread that can wait.
    #[must_use]
    pub fn wait(self) -> Vec<Outcome> {
        block_on(self.outcomes())
    }
}

/// Ends when every sample has come.
impl Stream for SampleStream {
    type Item = SampleEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SampleEvent>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let event = Pin::new(&mut self.events).poll_next(context);
        if let Poll::Ready(Some(SampleEvent::Finished(_))) = &event {
            self.left -= 1;
        }
        event
    }
}

impl Drop for SampleStream {
    fn drop(&mut self) {
        if self.left > 0 {
            self.cancel();
        }
    }
}
