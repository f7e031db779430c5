//! Whoever writes the turns: a policy that is sampled from, or a script.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::{FinishReason, Message};
use posttrain_model::TextModel;
use posttrain_rollout::service::{SampleRequest, SamplingClient};
use posttrain_rollout::{Completion, PolicySnapshot, Request, SamplingParams};

use crate::EpisodeError;

/// What a turn is written from.
#[derive(Debug, Clone)]
pub struct TurnRequest<'a> {
    /// The turn, from 0.
    pub turn: usize,
    /// Everything that the policy has in its context.
    pub tokens: &'a [i64],
    /// What it has read since it last wrote, where that came as messages.
    pub observed: &'a [Message],
    /// How the turn is drawn.
    pub params: SamplingParams,
    /// How long it may take.
    pub deadline: Option<Duration>,
}

/// Writes turns.
pub trait Actor: Send + Sync {
    /// Writes the next turn.
    ///
    /// # Errors
    /// Whatever keeps it from a turn.
    fn write<'a>(
        &'a self,
        request: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>>;
}

/// A policy behind a sampling service. Episodes that run beside each other share its batch, and a
/// conversation's keys and values are kept between its turns as far as the service's
/// [`keep_tokens`](posttrain_rollout::EngineConfig::keep_tokens) allows.
#[derive(Clone)]
pub struct PolicyActor {
    client: SamplingClient,
    policy: Policy,
}

#[derive(Clone)]
enum Policy {
    Base,
    Snapshot(PolicySnapshot),
    /// Whatever is published under the name when a turn begins.
    Name(String),
}

impl PolicyActor {
    /// The base alone.
    #[must_use]
    pub fn base(client: SamplingClient) -> Self {
        Self { client, policy: Policy::Base }
    }

    /// One version of a policy, in every turn of an episode.
    #[must_use]
    pub fn snapshot(client: SamplingClient, policy: PolicySnapshot) -> Self {
        Self { client, policy: Policy::Snapshot(policy) }
    }

    /// The policy that is published under a name: each turn by its version of the moment.
    #[must_use]
    pub fn name(client: SamplingClient, name: impl Into<String>) -> Self {
        Self { client, policy: Policy::Name(name.into()) }
    }
}

impl Actor for PolicyActor {
    fn write<'a>(
        &'a self,
        turn: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>> {
        async move {
            let mut sampled = Request::new(turn.tokens.to_vec(), turn.params);
            if let Policy::Snapshot(policy) = &self.policy {
                sampled = sampled.policy(policy.clone());
            }
            let mut request = SampleRequest::new(sampled);
            if let Policy::Name(name) = &self.policy {
                request = request.policy_name(name);
            }
            if let Some(deadline) = turn.deadline {
                request = request.deadline(deadline);
            }

            let outcomes = self.client.submit(request).await?.outcomes().await;
            let outcome = outcomes.into_iter().next().map(|outcome| outcome.result);
            let completion = outcome.unwrap_or(Err(posttrain_rollout::RequestError::Cancelled));
            completion.map_err(|source| EpisodeError::Sampling { turn: turn.turn, source })
        }
        .boxed()
    }
}

/// A script that writes turns as somebody who knows the task would: for demonstrations, on which a
/// policy is warmed up. Its turns have no log-probabilities.
pub struct ScriptedActor<F> {
    model: TextModel,
    script: F,
}

impl<F> ScriptedActor<F>
where
    F: Fn(usize, &[Message]) -> Option<String> + Send + Sync,
{
    /// A script for this model's tokenizer: from the turn's number and what was just read to the
    /// turn's text; `None` where it does not know how to go on.
    pub fn new(model: TextModel, script: F) -> Self {
        Self { model, script }
    }
}

impl<F> Actor for ScriptedActor<F>
where
    F: Fn(usize, &[Message]) -> Option<String> + Send + Sync,
{
    fn write<'a>(
        &'a self,
        turn: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>> {
        let written = (self.script)(turn.turn, turn.observed)
            .ok_or_else(|| EpisodeError::Actor {
                turn: turn.turn,
                reason: "the script does not go on from here".into(),
            })
            .and_then(|text| completion(&self.model, text, turn.turn));
        std::future::ready(written).boxed()
    }
}

/// A text as if it had been sampled, with its end token.
fn completion(model: &TextModel, text: String, turn: usize) -> Result<Completion, EpisodeError> {
    let mut tokens =
        model.tokenizer.encode_text(&text).map_err(|source| EpisodeError::Text { turn, source })?;
    tokens.extend(turn_end(model));
    Ok(Completion {
        tokens,
        logprobs: Vec::new(),
        text,
        finish_reason: FinishReason::Stop,
        policy_version: 0,
        token_versions: Vec::new(),
        recording: None,
    })
}

/// The token that ends a turn: the one that the template writes behind an answer, if it is one of
/// the model's end tokens.
fn turn_end(model: &TextModel) -> Option<i64> {
    let eos = &model.decoder.config().eos_token_ids;
    let behind =
        model.template.encode_continuation(&model.tokenizer, &[Message::user("?")]).ok()?;
    behind.first().filter(|token| eos.contains(token)).or(eos.first()).copied()
}

impl<A: Actor + ?Sized> Actor for Arc<A> {
    fn write<'a>(
        &'a self,
        request: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>> {
        (**self).write(request)
    }
}
