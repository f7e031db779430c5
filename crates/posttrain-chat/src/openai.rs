//! The client for OpenAI-compatible servers.

mod delta;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cache::{CacheConfig, CachedChat};
use crate::client::exchange::{Order, ReadJson, refuses};
use crate::client::{JsonClient, JsonClientConfig};
use crate::{ChatError, ChatModel, ChatRequest, ChatResponse, ResponseFormat};
use delta::{DeltaReader, Gather};
use wire::{body, choose, constraint, read_answer};

pub use delta::{ChatDelta, ToolCallDelta};

/// The path behind the endpoint's address.
const PATH: &str = "chat/completions";

/// How a server is told the form of an answer ([`ResponseFormat`]).
///
/// ```
/// assert_eq!(posttrain_chat::openai::StructuredOutput::default(), posttrain_chat::openai::StructuredOutput::JsonSchema);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StructuredOutput {
    /// `response_format: {"type": "json_schema", …}`: OpenAI, vLLM, SGLang, llama.cpp's own server,
    /// mistral.rs. A choice is sent as an object with one field.
    #[default]
    JsonSchema,
    /// `response_format: {"type": "json_object", "schema": …}`: llama-cpp-python.
    JsonObject,
    /// `structured_outputs: {"json": …}` or `{"choice": …}`: vLLM from 0.11.
    StructuredOutputs,
    /// `guided_json` or `guided_choice`: vLLM before 0.12.
    Guided,
    /// Not at all: the prompt alone asks for it.
    Unconstrained,
}

/// How an answer is transferred.
///
/// ```
/// assert_eq!(posttrain_chat::openai::Transfer::default(), posttrain_chat::openai::Transfer::Whole);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transfer {
    /// In one piece.
    #[default]
    Whole,
    /// As a stream that is put together again: proxies that close silent connections see bytes, and
    /// the read deadline means the time between tokens. Costs more processor time on both sides.
    Streamed,
}

/// Which field limits the answer's tokens.
///
/// ```
/// assert_eq!(posttrain_chat::openai::TokenLimit::default(), posttrain_chat::openai::TokenLimit::MaxTokens);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenLimit {
    /// `max_tokens`, which every server knows.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's reasoning models insist on.
    MaxCompletionTokens,
}

/// Configuration of an [`OpenAiClient`].
///
/// ```
/// use posttrain_chat::openai::OpenAiConfig;
///
/// let config: OpenAiConfig = toml::from_str(r#"
///     model = "Qwen/Qwen3-30B-A3B"
///     extra_body = { chat_template_kwargs = { enable_thinking = false } }
///     [http]
///     endpoints = ["http://localhost:8000/v1"]
/// "#)?;
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The model's name on the server, not empty.
    pub model: String,
    /// How the form of an answer is asked for. By default as OpenAI has it. A server that refuses
    /// it (status 400, 422 or 501, or an error that names the field) is asked in the next way (JSON
    /// schema, JSON object, not at all), and so from then on.
    pub structured_output: StructuredOutput,
    /// How answers are transferred; by default in one piece.
    pub transfer: Transfer,
    /// Which field limits the answer's tokens; by default `max_tokens`.
    pub token_limit: TokenLimit,
    /// Fields that are added to every request, in place of ours of the same name; `null` takes a
    /// field away. For what only some servers have, such as `chat_template_kwargs`. Must hold no
    /// secret.
    pub extra_body: Map<String, Value>,
    /// Addresses, key, limits, deadlines.
    pub http: JsonClientConfig,
}

impl OpenAiConfig {
    /// The defaults for one server without a key, whose base address ends in `/v1` as a rule.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] where `endpoint` is not an address.
    ///
    /// ```
    /// let config = posttrain_chat::openai::OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?;
    /// assert_eq!(config.model, "Qwen/Qwen3-30B-A3B");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn for_server(endpoint: &str, model: &str) -> Result<Self, ChatError> {
        Ok(Self {
            model: model.to_owned(),
            http: JsonClientConfig::for_server(endpoint)?,
            ..Self::default()
        })
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// assert!(posttrain_chat::openai::OpenAiConfig::default().validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), ChatError> {
        if self.model.trim().is_empty() {
            return Err(ChatError::invalid_config(
                "model",
                "empty",
                "the model's name on the server",
            ));
        }
        if self.extra_body.contains_key("stream") {
            return Err(ChatError::invalid_config(
                "extra_body",
                "one with `stream`",
                "`transfer` to say that",
            ));
        }
        self.http.validate()
    }

    /// A client of this configuration; the key is fetched here.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`]; [`ChatError::NoKey`]; [`ChatError::Setup`].
    ///
    /// ```
    /// use posttrain_chat::ChatModel;
    /// use posttrain_chat::openai::OpenAiConfig;
    ///
    /// let client = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?.build()?;
    /// assert_eq!(client.name(), "Qwen/Qwen3-30B-A3B");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn build(self) -> Result<OpenAiClient, ChatError> {
        self.validate()?;
        let http = self.http.clone().build()?;
        Ok(OpenAiClient { http, config: Arc::new(self), step: Arc::default() })
    }

    /// A client of this configuration, with its answers kept where there is a `cache`.
    ///
    /// # Errors
    /// As [`build`](Self::build), and [`ChatError::Cache`].
    ///
    /// ```
    /// use posttrain_chat::openai::OpenAiConfig;
    ///
    /// let config = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?;
    /// assert_eq!(config.build_cached(None)?.name(), "Qwen/Qwen3-30B-A3B");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn build_cached(self, cache: Option<CacheConfig>) -> Result<Arc<dyn ChatModel>, ChatError> {
        let client = Arc::new(self.build()?);

        Ok(match cache {
            Some(cache) => Arc::new(CachedChat::new(client, cache)?),
            None => client,
        })
    }
}

/// A [`ChatModel`] behind `/v1/chat/completions`: vLLM, SGLang, llama.cpp, mistral.rs, hosted
/// services.
///
/// How it behaves when a server fails is described at [`JsonClient`]. Clones share their limits.
///
/// ```no_run
/// use posttrain_chat::{ChatModel, ChatRequest, Message};
/// use posttrain_chat::openai::OpenAiConfig;
///
/// # async fn call() -> Result<(), posttrain_chat::ChatError> {
/// let model = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?.build()?;
/// let response = model.complete(&ChatRequest::new([Message::user("What is 2 + 2?")])).await?;
/// println!("{} ({} tokens)", response.text, response.usage.total());
/// # Ok::<(), posttrain_chat::ChatError>(())
/// # }
/// ```
#[derive(Clone)]
pub struct OpenAiClient {
    http: JsonClient,
    config: Arc<OpenAiConfig>,
    /// How far down the [`ladder`] the server made us go.
    step: Arc<AtomicUsize>,
}

impl OpenAiClient {
    /// Continues a conversation, piece by piece. The call keeps its place among `in_flight` until
    /// the stream is dropped.
    ///
    /// # Errors
    /// As in [`ChatModel::complete`], before the first piece and in the stream. An error ends the
    /// stream, which is not begun again: its pieces are in the caller's hands.
    ///
    /// ```no_run
    /// use futures::StreamExt;
    /// use posttrain_chat::{ChatRequest, Message};
    ///
    /// # async fn call(model: posttrain_chat::openai::OpenAiClient) -> Result<(), posttrain_chat::ChatError> {
    /// let mut pieces = model.stream(&ChatRequest::new([Message::user("What is 2 + 2?")])).await?;
    /// while let Some(piece) = pieces.next().await {
    ///     print!("{}", piece?.text);
    /// }
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// # }
    /// ```
    pub async fn stream(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<ChatDelta, ChatError>>, ChatError> {
        request.validate()?;
        let open =
            |order: Order<'static>| async move { self.http.open_events(&order).await }.boxed();
        let events = self.constrained(request, Transfer::Streamed, open).await?;
        let reader = DeltaReader::new(events, self.http.clone());
        let pieces =
            stream::unfold(
                reader,
                |mut reader| async move { Some((reader.next().await?, reader)) },
            );

        // A server may repeat what it was sent.
        let http = self.http.clone();
        Ok(pieces
            .map(move |piece| {
                piece.map(|piece| piece.map_texts(&|text| http.without_secrets(text)))
            })
            .boxed())
    }

    async fn answer(&self, request: &ChatRequest) -> Result<ChatResponse, ChatError> {
        request.validate()?;
        let response = match self.config.transfer {
            Transfer::Whole => {
                let post = |order: Order<'static>| {
                    async move { self.http.post_and_read(&order, &ReadJson).await }.boxed()
                };
                read_answer(&self.constrained(request, Transfer::Whole, post).await?, &self.http)?
            }
            Transfer::Streamed => {
                let reader = Gather { http: self.http.clone() };
                let reader = &reader;
                let post = |order: Order<'static>| {
                    async move { self.http.post_and_read(&order, reader).await }.boxed()
                };
                self.constrained(request, Transfer::Streamed, post).await?
            }
        };
        // A server may repeat what it was sent, and answers are kept and shown.
        let mut response = response.map_texts(&|text| self.http.without_secrets(text));
        if let ResponseFormat::Choice(choices) = &request.format {
            response.text = choose(response.text, choices);
        }
        if response.usage.total() > 0 {
            self.http.correct_tokens(request.expected_tokens(), response.usage.total());
        }
        Ok(response)
    }

    /// Sends the request with its form; in another way, and at last without, where the server does
    /// not know this one.
    async fn constrained<'a, T>(
        &self,
        request: &ChatRequest,
        transfer: Transfer,
        send: impl Fn(Order<'static>) -> BoxFuture<'a, Result<T, ChatError>>,
    ) -> Result<T, ChatError> {
        let ladder = ladder(self.config.structured_output);
        let mut step = match request.format {
            ResponseFormat::Text => ladder.len() - 1,
            _ => self.step.load(Ordering::Relaxed),
        };
        let mut refusal = None;
        loop {
            let (order, field) = self.order(request, ladder[step], transfer);
            match send(order).await {
                Err(error) if refuses(field, &error) => {
                    refusal.get_or_insert(error);
                    step += 1;
                }
                Ok(answer) => {
                    self.remember(step, refusal);
                    return Ok(answer);
                }
                // The refusal had another reason, which holds without the form, too.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }

    /// Begins where an answer came, from now on.
    fn remember(&self, step: usize, refusal: Option<ChatError>) {
        if let Some(refused) = refusal
            && self.step.fetch_max(step, Ordering::Relaxed) < step
        {
            let now = ladder(self.config.structured_output)[step];
            tracing::warn!(model = self.config.model, %refused, "the server is asked for forms by {now:?} from now on");
        }
    }

    /// The request with its form as `structured` says, and the field that the server may not know.
    fn order(
        &self,
        request: &ChatRequest,
        structured: StructuredOutput,
        transfer: Transfer,
    ) -> (Order<'static>, Option<&'static str>) {
        let unknown = constraint(&request.format, structured).map(|(field, _)| field);
        let body = body(&self.config, request, structured, transfer);
        (Order { unknown, ..Order::new(PATH, &body, request.expected_tokens()) }, unknown)
    }
}

/// The ways to ask for a form, one after the other.
fn ladder(first: StructuredOutput) -> &'static [StructuredOutput] {
    use StructuredOutput::{Guided, JsonObject, JsonSchema, StructuredOutputs, Unconstrained};
    match first {
        JsonSchema => &[JsonSchema, JsonObject, Unconstrained],
        JsonObject => &[JsonObject, Unconstrained],
        StructuredOutputs => &[StructuredOutputs, Unconstrained],
        Guided => &[Guided, Unconstrained],
        Unconstrained => &[Unconstrained],
    }
}

impl ChatModel for OpenAiClient {
    fn name(&self) -> &str {
        &self.config.model
    }

    fn identity(&self) -> String {
        let mut endpoints: Vec<String> =
            self.config.http.endpoints.iter().map(ToString::to_string).collect();
        endpoints.sort();
        let OpenAiConfig { model, structured_output, token_limit, extra_body, .. } = &*self.config;
        json!({
            "endpoints": endpoints, "model": model, "structured_output": structured_output,
            "token_limit": token_limit, "extra_body": extra_body,
        })
        .to_string()
    }

    fn complete<'a>(
        &'a self,
        request: &'a ChatRequest,
    ) -> BoxFuture<'a, Result<ChatResponse, ChatError>> {
        self.answer(request).boxed()
    }
}

impl fmt::Debug for OpenAiClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OpenAiClient({} at {:?})", self.config.model, self.config.http.endpoints)
    }
}
