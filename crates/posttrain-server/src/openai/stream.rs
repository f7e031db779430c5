//! Completions token by token, as server-sent events.

use super::adapters::Target;
use super::chat::Dialect;
use super::job::{finish_word, now, stopped_by, submit, usage};
use super::logprobs::{chat_token, text_form};
use super::text::GrowingText;
use super::tools::spoken;
use crate::anthropic::Events;
use crate::app::App;
use crate::gateway::Episode;
use crate::learn::Captured;
use crate::refusal::Refusal;
use crate::tinker::Scored;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use posttrain_environment::CapturedCall;
use posttrain_rollout::service::{SampleEvent, SampleStream};
use posttrain_rollout::{Outcome, SampledToken, SamplingParams};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

/// A request that is answered by a stream.
pub(crate) struct Streamed {
    /// The response's id.
    pub id: String,
    /// Where its completions are taken down, where the policy that learns is asked.
    pub learned: Option<Captured>,
    pub target: Target,
    pub prompt: Vec<i64>,
    pub params: SamplingParams,
    /// The stop texts that the client gave.
    pub stops: Vec<String>,
    pub samples: usize,
    /// Whether tokens' log-probabilities are told.
    pub logprobs: Option<usize>,
    pub include_usage: bool,
    pub form: Form,
    pub dialect: Dialect,
    /// Where the turn of an episode is taken down.
    pub captured: Option<(Arc<Episode>, CapturedCall)>,
}

/// Which endpoint's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Of a chat: with `tools` the text is held back until it is known to be no call.
    Chat { tools: bool },
    /// Of a completion.
    Text,
}

/// Where a stream stands.
struct State {
    app: Arc<App>,
    events: SampleStream,
    texts: Vec<GrowingText>,
    /// What is to be sent, with an event's name where the dialect has names.
    ready: VecDeque<(Option<&'static str>, Value)>,
    /// Where the events stand, in a dialect of its own.
    anthropic: Option<Events>,
    stops: Vec<String>,
    id: String,
    model: String,
    form: Form,
    logprobs: bool,
    include_usage: bool,
    prompt: usize,
    written: usize,
    /// Samples that are not finished.
    left: usize,
    ended: bool,
    /// Where completions are taken down, with what they were sampled from.
    learned: Option<(Captured, Vec<i64>, SamplingParams)>,
    captured: Option<(Arc<Episode>, CapturedCall)>,
    _answering: Arc<()>,
}

/// Begins to draw, and streams what is drawn.
pub(crate) async fn stream(
    app: &Arc<App>,
    request: Streamed,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Refusal> {
    if request.logprobs.is_some_and(|top| top > 0) {
        let expected =
            "0 with `stream`: the most probable tokens are known once a completion is whole";
        return Err(Refusal::field("top_logprobs", expected, "more"));
    }
    let texts = (0..request.samples).map(|_| GrowingText::new(&request.params.stop)).collect();
    let prompt = request.prompt.len();
    let of = (&request.prompt, &request.params);
    let learned = request.learned.map(|learned| (learned, of.0.clone(), of.1.clone()));
    let events =
        submit(app, &request.target, &request.prompt, request.params, request.samples, true)
            .await?;

    let mut state = State {
        app: app.clone(),
        events,
        texts,
        ready: VecDeque::new(),
        anthropic: (request.dialect == Dialect::Anthropic).then(Events::default),
        stops: request.stops,
        id: request.id,
        learned,
        model: request.target.name,
        form: request.form,
        logprobs: request.logprobs.is_some(),
        include_usage: request.include_usage,
        prompt,
        written: 0,
        left: request.samples,
        ended: false,
        _answering: app.answering.clone(),
        captured: request.captured,
    };
    state.begin(request.samples);
    let events = stream::unfold(state, next).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn next(mut state: State) -> Option<(Event, State)> {
    loop {
        if let Some((name, value)) = state.ready.pop_front() {
            let event = name.into_iter().fold(Event::default(), Event::event);
            return Some((event.data(value.to_string()), state));
        }
        if state.ended {
            return None;
        }
        if state.left == 0 {
            state.ended = true;
            state.app.counters.sample_call(true);
            state.app.counters.sampled(state.written);
            if state.anthropic.is_some() {
                return None;
            }
            return Some((Event::default().data("[DONE]"), state));
        }
        match state.events.next().await {
            Some(SampleEvent::Token(token)) => state.token(&token),
            Some(SampleEvent::Finished(outcome)) => state.finished(&outcome),
            None => state.cut_off(),
        }
    }
}

impl State {
    /// Has a chunk sent, in the words of the dialect.
    fn tell(&mut self, chunk: Value) {
        match &mut self.anthropic {
            None => self.ready.push_back((None, chunk)),
            Some(events) => {
                let events = events.of(&chunk, self.prompt);
                self.ready.extend(events.into_iter().map(|(name, data)| (Some(name), data)));
            }
        }
    }

    /// A chat's first events say who speaks.
    fn begin(&mut self, samples: usize) {
        if self.form == Form::Text {
            return;
        }
        for index in 0..samples {
            let delta = json!({ "role": "assistant", "content": "" });
            let chunk = self.chunk(
                &json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }),
            );
            self.tell(chunk);
        }
    }

    fn token(&mut self, token: &SampledToken) {
        self.written += 1;
        let tokenizer = self.app.model.tokenizer.clone();
        let Some(text) = self.texts.get_mut(token.sample) else { return };
        // What a tokenizer cannot decode now comes with the whole text.
        let fresh = text.push(&tokenizer, token.token).unwrap_or_default();
        let logprobs = self.logprobs.then(|| self.token_logprobs(token));
        // Whether it is a call shows when it is whole.
        if self.form == (Form::Chat { tools: true }) || fresh.is_empty() && logprobs.is_none() {
            return;
        }
        let choice = self.choice(token.sample, &fresh, logprobs.as_ref(), None);
        let chunk = self.chunk(&choice);
        self.tell(chunk);
    }

    fn token_logprobs(&self, token: &SampledToken) -> Value {
        match self.form {
            Form::Chat { .. } => chat_token(&self.app, token),
            Form::Text => {
                let scored = Scored { logprobs: vec![token.logprob], ..Scored::default() };
                text_form(&self.app, &[token.token], &scored, 0, 0)
            }
        }
    }

    /// Whoever waits for more hears that none comes.
    fn cut_off(&mut self) {
        self.left = 0;
        let message = "the server ended this completion before its end";
        self.tell(json!({ "error": { "message": message, "type": "server_error" } }));
    }

    fn finished(&mut self, outcome: &Outcome) {
        self.left -= 1;
        let completion = match &outcome.result {
            Ok(completion) => completion,
            Err(error) => {
                let message = error.to_string();
                self.tell(json!({ "error": { "message": message, "type": "server_error" } }));
                return;
            }
        };

        let index = outcome.sample;
        if let Some((learned, prompt, params)) = &self.learned {
            learned.take(&self.app, (prompt, params), index, completion);
        }
        let mut reason = finish_word(completion.finish_reason);
        let held = self.form == (Form::Chat { tools: true });
        let calls = if held { spoken(&completion.text).calls } else { Vec::new() };
        if let Some((episode, call)) = self.captured.take() {
            let mut message = json!({ "role": "assistant", "content": completion.text });
            if !calls.is_empty() {
                message["content"] = json!(spoken(&completion.text).content);
                message["tool_calls"] = Value::Array(calls.clone());
            }
            episode.record(call, completion, message);
        }
        if calls.is_empty() {
            let rest = match self.texts.get(index) {
                Some(text) if !held => text.finish(&completion.text),
                _ => completion.text.clone(),
            };
            if !rest.is_empty() {
                let chunk = self.chunk(&self.choice(index, &rest, None, None));
                self.tell(chunk);
            }
        } else {
            reason = "tool_calls";
            let mut delta = json!({ "tool_calls": numbered(calls) });
            let content = spoken(&completion.text).content;
            if !content.is_empty() {
                delta["content"] = json!(content);
            }
            let choice =
                json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            let chunk = self.chunk(&choice);
            self.tell(chunk);
        }

        let mut last = self.choice(index, "", None, Some(reason));
        if self.form != Form::Text {
            last["stop_reason"] = json!(stopped_by(&self.app, &self.stops, completion));
        }
        let last = self.chunk(&last);
        self.tell(last);
        if self.left == 0 && self.include_usage {
            let mut chunk = self.chunk(&Value::Null);
            chunk["choices"] = json!([]);
            chunk["usage"] = usage(self.prompt, self.written);
            self.tell(chunk);
        }
    }

    fn choice(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<&Value>,
        reason: Option<&str>,
    ) -> Value {
        match self.form {
            Form::Text => {
                json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason })
            }
            Form::Chat { .. } => {
                let delta = if reason.is_some() { json!({}) } else { json!({ "content": text }) };
                json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason })
            }
        }
    }

    fn chunk(&self, choice: &Value) -> Value {
        let object =
            if self.form == Form::Text { "text_completion" } else { "chat.completion.chunk" };
        json!({
            "id": self.id,
            "object": object,
            "created": now(),
            "model": self.model,
            "choices": [choice],
        })
    }
}

/// Calls in a stream have a number each.
fn numbered(calls: Vec<Value>) -> Vec<Value> {
    let with_number = |(index, mut call): (usize, Value)| {
        call["index"] = json!(index);
        call
    };
    calls.into_iter().enumerate().map(with_number).collect()
}
