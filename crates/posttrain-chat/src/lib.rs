//! Conversations with language models, and models that continue them.
//!
//! A [`Message`] is a turn of a conversation, with tools and their calls ([`Tool`], [`ToolCall`]):
//! the one type for it in the workspace. A [`ToolFormat`] finds calls in what a model wrote. A [`ChatModel`] continues a conversation: a
//! [`ChatRequest`] in, a [`ChatResponse`] out, which says how it ended ([`FinishReason`]).
//! [`from_fn`] makes a model of a function.
//!
//! With the feature `client`, which is on by default, there are models over HTTP, for programs that
//! ask them ten thousand times: [`openai::OpenAiClient`] speaks to every OpenAI-compatible server
//! (vLLM, SGLang, llama.cpp, mistral.rs, hosted services); [`cache::CachedChat`] puts a cache on
//! disk around any model; below them lies [`client::JsonClient`], which posts JSON to anything.
//! Without the feature the crate is types alone, and brings neither tokio nor an HTTP library.
//!
//! # What can go wrong, and what is done about it
//!
//! A training step that waits for a judge waits for the slowest of a thousand calls. So every call
//! is bounded: in time ([`client::Deadlines`]: to connect, between bytes, an attempt, all of it),
//! in bytes, in attempts. What may pass is tried again ([`client::RetryConfig`]): statuses 408,
//! 409, 429 and 5xx, broken connections, silence; with jitter, and as `Retry-After` says. A replica
//! that keeps failing is left alone and probed ([`client::BreakerConfig`]). What will not pass (a
//! wrong key, a prompt that is too long, an answer that is no JSON) is an error at once. Every
//! error is a [`ChatError`] with a [`cause`](ChatError::cause) to count by; none is ever an empty
//! answer.
//!
//! The API key comes from the environment or a file ([`client::KeySource`]), is never part of a
//! configuration, and appears in no error, no log and no `Debug`: not even where a server repeats
//! it, or where it is part of the address ([`client::Endpoint`]).
//!
//! # Example
//!
//! ```
//! use posttrain_chat::openai::OpenAiConfig;
//! use posttrain_chat::{ChatModel, ChatRequest, Message};
//! use std::io::{Read, Write};
//!
//! // A server that fails once and then answers.
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = std::thread::spawn(move || {
//!     for (status, body) in [("503 Busy", "{}"), ("200 OK", r#"{"choices": [{"message": {"content": "4"}}]}"#)] {
//!         let (mut stream, _) = listener.accept().unwrap();
//!         let _ = stream.read(&mut [0; 4096]).unwrap();
//!         let length = body.len();
//!         write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
//!     }
//! });
//!
//! let model = OpenAiConfig::for_server(&format!("http://{address}/v1"), "any")?.build()?;
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let response = runtime.block_on(model.complete(&ChatRequest::new([Message::user("What is 2 + 2?")])))?;
//! assert_eq!(response.text, "4");
//! # server.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "client")]
pub mod cache;
#[cfg(feature = "client")]
pub mod client;
mod content;
mod error;
mod finish;
mod message;
mod model;
#[cfg(feature = "client")]
pub mod openai;
mod request;
mod response;
mod tool;
mod tool_format;

pub use content::Content;
pub use error::{ChatError, Deadline};
pub use finish::FinishReason;
pub use message::{Message, Role};
pub use model::{ChatModel, ChatModelFn, from_fn};
pub use request::{ChatRequest, ResponseFormat};
pub use response::{ChatResponse, TokenLogprob, Usage};
pub use tool::{FunctionCall, FunctionSchema, Tool, ToolCall, ToolKind};
pub use tool_format::{MalformedCall, ToolFormat, ToolReply};
