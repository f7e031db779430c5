//! What a policy acts in: several turns, tools, budgets, contexts that are rewritten, sub-agents.
//!
//! An [`Environment`] opens an episode and answers what the policy writes, turn by turn; an
//! [`Actor`] writes: a policy behind a sampling service ([`PolicyActor`]), or a script
//! ([`ScriptedActor`]). An [`EpisodePlayer`] plays the two against each other within a [`Budget`],
//! and gives a [`Trajectory`]: every token exactly as it was sampled or read, with log-probabilities
//! and versions, in one [`Segment`] for each context that the policy had. No environment sees a
//! tensor.
//!
//! [`QuestionEnvironment`] is a question with a reward; [`ToolTask`] a question with [`Tools`], which
//! come from [`Toolkit`]s: functions ([`tool_fn`]), an environment's own, and with the feature `mcp`
//! the tools of any MCP server (`mcp::McpToolkit`); [`SpreadsheetTask`] a workbook that is edited by
//! programs. A [`Capture`] joins the calls of an agent program that
//! nobody here wrote to a trajectory. With the feature `openenv`, environments of OpenEnv servers are
//! acted in (`openenv::OpenEnv`); with `harbor`, task folders in Harbor's format (`harbor::HarborTask`).
//!
//! ```
//! use std::sync::Arc;
//! use posttrain_chat::{Message, Tool};
//! use posttrain_environment::{
//!     EpisodeConfig, EpisodePlayer, ScriptedActor, ToolTask, Tools, tool_fn,
//! };
//! # use posttrain_model::{ChatTemplate, Decoder, ModelConfig, TextModel, TextTokenizer};
//! use posttrain_reward::{Sample, Score, from_fn};
//! use serde_json::{Value, json};
//!
//! # let vocab = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "<e>": 1}, "unk_token": "a"}, "pre_tokenizer": {"type": "Whitespace"}}"#;
//! # let tokenizer = TextTokenizer::from_json(vocab.as_bytes(), "tokenizer.json".as_ref(), 64)?;
//! # let template = ChatTemplate::new("{% for m in messages %}{{ m.role }} {{ m.content }} <e>{% endfor %}")?;
//! # let decoder = Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?;
//! # let model = TextModel::new(decoder, tokenizer, template);
//! // A tool, and a question that it helps with.
//! let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
//! let double = tool_fn(Tool::new("double", "Doubles a number.", schema), async |arguments: Value| {
//!     Ok((2 * arguments["a"].as_i64().unwrap_or(0)).to_string())
//! });
//! let tools = Arc::new(Tools::new(vec![Arc::new(double)], Default::default())?);
//! let reward = from_fn("exact", |sample: &Sample| Ok(Score::binary(sample.response == sample.reference)));
//! let mut task = ToolTask::new(
//!     vec![Message::user("What is twice 21?")],
//!     tools,
//!     Sample::new("What is twice 21?", "42", ""),
//!     Arc::new(reward),
//! );
//!
//! // Somebody who knows how to play: calls the tool, and says what it says.
//! let script = ScriptedActor::new(model.clone(), |turn, read: &[Message]| match turn {
//!     0 => Some("<tool_call>{\"name\": \"double\", \"arguments\": {\"a\": 21}}</tool_call>".into()),
//!     _ => Some(read.last()?.text().into_owned()),
//! });
//! let player = EpisodePlayer::new(model, Arc::new(script), EpisodeConfig::default())?;
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! let trajectory = runtime.block_on(player.play(&mut task, "policy", 7))?;
//! assert_eq!((trajectory.turns.len(), trajectory.reward()), (2, 1.0));
//! assert_eq!(trajectory.turns[0].answer[0].text(), "42");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod actor;
mod budget;
mod capture;
mod environment;
mod episode;
mod error;
#[cfg(all(unix, feature = "harbor"))]
pub mod harbor;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "openenv")]
pub mod openenv;
mod question;
#[cfg(feature = "search")]
pub mod search;
#[cfg(unix)]
mod spreadsheet_task;
mod tool_task;
mod tools;
mod trajectory;
mod turn_text;

pub use actor::{Actor, PolicyActor, ScriptedActor, TurnRequest};
pub use budget::{Budget, BudgetLeft, BudgetPart};
pub use capture::{Capture, CapturedCall};
pub use environment::{Action, Environment, Observation, Opening, Step};
pub use episode::{EpisodeConfig, EpisodePlayer};
pub use error::{EnvironmentError, EpisodeError, ToolError};
pub use question::QuestionEnvironment;
#[cfg(unix)]
pub use spreadsheet_task::SpreadsheetTask;
pub use tool_task::ToolTask;
pub use tools::{ToolFailure, ToolFn, ToolLimits, Toolkit, Tools, tool_fn};
pub use trajectory::{EpisodeEnd, Place, Segment, Trajectory, Turn};
