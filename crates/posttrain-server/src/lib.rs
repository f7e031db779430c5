//! A local server that speaks Tinker's API, OpenAI's and Anthropic's: adapters of one base model, trained and
//! sampled over HTTP, in one binary.
//!
//! A [`Server`] takes a [`TextModel`](posttrain_model::TextModel) and a [`ServerConfig`], and serves
//! a listener until it is told to stop. It is a client of the workspace's two services and holds no
//! algorithm: a request is checked, turned into a call, and answered by an id that its result is
//! fetched by.
//!
//! - `/api/v1` is what the Tinker SDK speaks: sessions, models of any rank side by side, forward and
//!   backward passes of every published loss, steps of AdamW, checkpoints, samplers.
//! - `/v1` is what OpenAI's clients speak: chats and completions by the base, by a checkpoint, by an
//!   adapter that was loaded, or by an experiment's specialists behind their router.
//! - `/episodes` gives an agent program that nobody here wrote an address of its own that speaks
//!   OpenAI's protocol; what is sampled there is kept token for token, with its reward.
//! - `/feedback` takes what is said of completions of a policy that learns from what it serves, and
//!   `/traffic` shows its operator what the gate decided.
//! - `/` is a page for a person, `/metrics` one for Prometheus, `/health` says that it serves.
//!
//! A checkpoint is acknowledged once it is on the disk, whole. [`Keys`] divide a server among
//! owners, none of whom sees another's; [`Limits`] bound what each may ask of it.
//!
//! ```
//! use posttrain_model::{ChatTemplate, Decoder, ModelConfig, TextModel, TextTokenizer};
//! use posttrain_server::{Server, ServerConfig};
//! use std::io::{Read, Write};
//!
//! # let vocab = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
//! // A random model, with a tokenizer of one word.
//! let decoder = Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?;
//! let tokenizer = TextTokenizer::from_json(vocab.as_bytes(), "tokenizer.json".as_ref(), 64)?;
//! let model = TextModel::new(decoder, tokenizer, ChatTemplate::new("a")?);
//!
//! let data = tempfile::tempdir()?;
//! let runtime = tokio::runtime::Runtime::new()?;
//! runtime.block_on(async {
//!     let server = Server::start(model, ServerConfig::new("tiny", data.path()), None)?;
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     let asked = tokio::task::spawn_blocking(move || {
//!         let mut stream = std::net::TcpStream::connect(address)?;
//!         stream.write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
//!         let mut answer = String::new();
//!         stream.read_to_string(&mut answer).map(|_| answer)
//!     });
//!
//!     // It serves until the question is answered.
//!     let mut answer = None;
//!     server.serve(listener, async { answer = Some(asked.await) }).await?;
//!     let answer = answer.expect("it was asked")??;
//!     assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""model":"tiny""#));
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod anthropic;
mod app;
mod checkpoints;
mod config;
mod counters;
mod error;
mod gateway;
mod http;
mod keys;
mod learn;
mod openai;
mod page;
mod promises;
mod refusal;
mod request;
mod routed;
mod server;
mod signatures;
mod tinker;

pub use config::{Limits, ServerConfig};
pub use error::ServerError;
pub use keys::Keys;
pub use server::Server;
