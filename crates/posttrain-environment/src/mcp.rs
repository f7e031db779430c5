//! Tools of MCP servers: programs that are spoken to by their standard streams, or servers over
//! HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Tool;
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::{ToolError, Toolkit};

/// Where an MCP server is. What its environment and its address say beyond where it is (keys, for
/// one) is not shown by `Debug`, nor in any error.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum McpConfig {
    /// A program, spoken to by its standard streams. It is ended with the toolkit.
    Program {
        /// The program.
        command: String,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// Variables of its environment, beside this process's own.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// A server over streamable HTTP.
    Http {
        /// Its address, such as `http://127.0.0.1:8000/mcp`.
        url: String,
    },
}

impl McpConfig {
    /// Where it is, for people.
    fn place(&self) -> &str {
        match self {
            Self::Program { command, .. } => command,
            // Behind a question mark, or before an at sign, there may be a key.
            Self::Http { url } => {
                let url = url.split(['?', '#']).next().unwrap_or_default();
                url.rsplit_once('@').map_or(url, |(_, host)| host)
            }
        }
    }

    /// A text without what is not to be shown.
    fn without_secrets(&self, text: &str) -> String {
        match self {
            Self::Program { .. } => text.to_owned(),
            Self::Http { url } => {
                let (_, query) = url.split_once('?').unwrap_or_default();
                let (user, _) = url.rsplit_once('@').unwrap_or_default();
                let secrets = [url, query, user].into_iter().filter(|secret| !secret.is_empty());
                secrets.fold(text.to_owned(), |text, secret| text.replace(secret, self.place()))
            }
        }
    }
}

impl fmt::Debug for McpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { command, args, env } => f
                .debug_struct("Program")
                .field("command", command)
                .field("args", &args.len())
                .field("env", &env.keys())
                .finish(),
            Self::Http { .. } => f.debug_struct("Http").field("url", &self.place()).finish(),
        }
    }
}

/// How long a server may take until it has said what tools there are.
const START: Duration = Duration::from_secs(60);

/// The most that one answer over HTTP may have; what a policy reads of it is less
/// ([`crate::ToolLimits::result_bytes`]).
const ANSWER_BYTES: usize = 16 << 20;

type Connection = RunningService<RoleClient, ()>;

/// The tools of an MCP server. Where it has died, the next call starts it, or connects, anew: a
/// call under way fails, and nothing else is lost.
pub struct McpToolkit {
    config: McpConfig,
    tools: Vec<Tool>,
    connection: Mutex<Option<Connection>>,
}

impl McpToolkit {
    /// Asks the server for the tools that there are, and ends the connection: the first call makes
    /// one of its own, on the runtime that it is made on.
    ///
    /// # Errors
    /// [`ToolError::Failed`] says why the server cannot be started, reached or understood;
    /// [`ToolError::TimedOut`] where it says nothing for a minute.
    pub async fn connect(config: McpConfig) -> Result<Self, ToolError> {
        let list = async {
            let connection = connect(&config).await?;
            let listed = connection.list_all_tools().await;
            drop(connection.cancel().await);
            listed.map_err(|error| failed(&config, &error))
        };
        let late = |_| Err(ToolError::TimedOut { seconds: START.as_secs_f64() });
        let listed = tokio::time::timeout(START, list).await.unwrap_or_else(late)?;
        let tools = listed.into_iter().map(|tool| {
            let description = tool.description.unwrap_or_default();
            let parameters = Value::Object(tool.input_schema.as_ref().clone());
            Tool::new(tool.name, description, parameters)
        });
        Ok(Self { tools: tools.collect(), config, connection: Mutex::new(None) })
    }

    /// Makes a call over the connection, or over a new one where that has ended.
    async fn request(&self, params: CallToolRequestParams) -> Result<CallToolResult, ToolError> {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_none_or(|open| open.peer().is_transport_closed()) {
            *connection = Some(connect(&self.config).await?);
        }
        let Some(open) = connection.as_ref() else {
            return Err(ToolError::failed("the server cannot be reached"));
        };
        let peer = open.peer().clone();
        // Calls run beside each other: only making a connection is done one at a time.
        drop(connection);
        peer.call_tool(params).await.map_err(|error| failed(&self.config, &error))
    }
}

impl Toolkit for McpToolkit {
    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn call<'a>(
        &'a self,
        name: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        async move {
            let mut params = CallToolRequestParams::new(name.to_owned());
            if let Value::Object(arguments) = arguments {
                params = params.with_arguments(arguments.clone());
            }
            let result = self.request(params).await?;
            let text = text(&result);
            match result.is_error {
                // What the tool itself calls an error is the policy's to read.
                Some(true) => Err(ToolError::refused(text)),
                _ => Ok(text),
            }
        }
        .boxed()
    }
}

async fn connect(config: &McpConfig) -> Result<Connection, ToolError> {
    match config {
        McpConfig::Program { command, args, env } => {
            let mut program = Command::new(command);
            program.args(args).envs(env);
            let (process, _) = TokioChildProcess::builder(program)
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| failed(config, &error))?;
            ().serve(process).await.map_err(|error| failed(config, &error))
        }
        McpConfig::Http { url } => {
            // An application's own choice of provider, made earlier, stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client =
                reqwest::Client::builder().build().map_err(|error| failed(config, &error))?;
            let settings = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                .max_json_response_size(ANSWER_BYTES)
                .max_sse_event_size(ANSWER_BYTES);
            let transport = StreamableHttpClientTransport::with_client(client, settings);
            ().serve(transport).await.map_err(|error| failed(config, &error))
        }
    }
}

/// The texts of a result; what is no text is named.
fn text(result: &CallToolResult) -> String {
    let parts = result.content.iter().map(|content| match content {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(_) => "[an image]".to_owned(),
        ContentBlock::Audio(_) => "[audio]".to_owned(),
        ContentBlock::Resource(_) | ContentBlock::ResourceLink(_) => "[a resource]".to_owned(),
        _ => "[something else]".to_owned(),
    });
    let parts: Vec<String> = parts.collect();
    match (&result.structured_content, parts.is_empty()) {
        (Some(value), true) => value.to_string(),
        _ => parts.join("\n"),
    }
}

fn failed(config: &McpConfig, error: &dyn std::error::Error) -> ToolError {
    let mut reason = format!("{error}");
    let mut below = error.source();
    while let Some(source) = below {
        reason += &format!(": {source}");
        below = source.source();
    }
    let reason = config.without_secrets(&reason);
    ToolError::Failed { reason: format!("MCP server {}: {reason}", config.place()) }
}
