//! Tools of an MCP server, which is the official Python package's: over standard streams and HTTP.
//! `cargo xtask test --servers` installs it; without it the tests say that they are skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_chat::ToolCall;
use posttrain_environment::mcp::{McpConfig, McpToolkit};
use posttrain_environment::{ToolLimits, Toolkit, Tools};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// The Python that has the package.
const PYTHON: &str = "POSTTRAIN_SDK_PYTHON";

fn python() -> Option<String> {
    let python = std::env::var(PYTHON).ok();
    if python.is_none() {
        println!("SKIPPED: `cargo xtask test --servers` installs what it needs ({PYTHON})");
    }
    python
}

fn script() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/server.py");
    path.to_string_lossy().into_owned()
}

fn program(python: String) -> McpConfig {
    McpConfig::Program { command: python, args: vec![script()], env: Default::default() }
}

fn connect(runtime: &Runtime, config: McpConfig) -> Tools {
    let toolkit = runtime.block_on(McpToolkit::connect(config)).unwrap();
    let names: Vec<&str> = toolkit.tools().iter().map(|t| t.function.name.as_str()).collect();
    assert_eq!(names, ["add", "refuse", "long", "hang", "die", "process"]);
    let schema = toolkit.tools()[0].function.parameters.clone().unwrap();
    assert_eq!(schema["properties"]["a"]["type"], "integer");
    let limits = ToolLimits { seconds: 5.0, result_bytes: 1000, ..ToolLimits::default() };
    Tools::new(vec![Arc::new(toolkit)], limits).unwrap()
}

fn answer(runtime: &Runtime, tools: &Tools, name: &str, arguments: Value) -> String {
    let call = ToolCall::new("c", name, arguments);
    runtime.block_on(tools.answer(&call)).unwrap().text().into_owned()
}

/// What every server does, however it is reached.
fn check(runtime: &Runtime, tools: &Tools) {
    let say = |name, arguments| answer(runtime, tools, name, arguments);
    assert_eq!(say("add", json!({"a": 2, "b": 40})), "42");
    assert!(say("add", json!({"a": "two", "b": 40})).starts_with("Error: /a: "));
    let refused = say("refuse", json!({}));
    assert!(refused.starts_with("Error: ") && refused.contains("refuse"), "{refused}");
    let long = say("long", json!({"megabytes": 1}));
    assert!(long.ends_with("[cut: 1000 of 1048576 bytes]"), "{}", long.len());
    // Said twice in one message, which is more than is taken.
    let longer = say("long", json!({"megabytes": 10}));
    assert!(longer.starts_with("Error: ") && longer.len() < 500, "{}", longer.len());
    assert_eq!(say("hang", json!({})), "Error: no answer within 5 s");
    // Whoever hangs holds nobody up, and calls run beside each other.
    let calls = (0..20).map(|n| ToolCall::new("c", "add", json!({"a": n, "b": 1})));
    let calls: Vec<ToolCall> = calls.collect();
    let together = futures::future::join_all(calls.iter().map(|call| tools.answer(call)));
    for (n, answer) in runtime.block_on(together).into_iter().enumerate() {
        assert_eq!(answer.unwrap().text(), (n + 1).to_string());
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_program_is_spoken_to_and_started_again_where_it_has_died() {
    let Some(python) = python() else { return };
    let runtime = runtime();
    let tools = connect(&runtime, program(python));
    check(&runtime, &tools);

    let before = answer(&runtime, &tools, "process", json!({}));
    assert!(answer(&runtime, &tools, "die", json!({})).starts_with("Error: MCP server"));
    let after = answer(&runtime, &tools, "process", json!({}));
    assert_ne!(before, after);
    assert!(after.parse::<u32>().is_ok(), "{after}");

    // From outside, too.
    let killed = Command::new("kill").args(["-9", &after]).status().unwrap();
    assert!(killed.success());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(answer(&runtime, &tools, "add", json!({"a": 1, "b": 1})), "2");
}

/// A server over HTTP, ended when it is dropped.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_over_http_is_spoken_to() {
    let Some(python) = python() else { return };
    let runtime = runtime();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let served = Command::new(python)
        .args([script(), port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _served = Served(served);
    let url = format!("http://127.0.0.1:{port}/mcp");
    for _ in 0..300 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    check(&runtime, &connect(&runtime, McpConfig::Http { url }));
}

#[test]
fn what_cannot_be_reached_is_named() {
    let runtime = runtime();
    let failed = |config| runtime.block_on(McpToolkit::connect(config)).err().unwrap().to_string();
    let missing = McpConfig::Program {
        command: "/no/such/program".into(),
        args: Vec::new(),
        env: Default::default(),
    };
    assert!(failed(missing).contains("/no/such/program"));
    let silent =
        McpConfig::Program { command: "true".into(), args: Vec::new(), env: Default::default() };
    assert!(failed(silent).contains("MCP server true"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let keyed = McpConfig::Http { url: format!("http://127.0.0.1:{port}/mcp?key=hunter2") };
    assert!(!format!("{keyed:?}").contains("hunter2"));
    let told = failed(keyed);
    assert!(!told.contains("hunter2") && told.contains("127.0.0.1"), "{told}");
    let nobody = McpConfig::Http { url: format!("http://127.0.0.1:{port}/mcp") };
    assert!(failed(nobody).contains(&port.to_string()));
}
