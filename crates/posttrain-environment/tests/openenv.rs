//! Environments of an OpenEnv server, which is the official Python package's.
//! `cargo xtask test --servers` installs it; without it the tests say that they are skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Message;
use posttrain_environment::openenv::{OpenEnv, OpenEnvAction, OpenEnvConfig};
use posttrain_environment::{
    Actor, EpisodeConfig, EpisodeError, EpisodePlayer, ScriptedActor, Trajectory, TurnRequest,
};
use posttrain_rollout::Completion;
use serde_json::{Map, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The Python that has the package.
const PYTHON: &str = "POSTTRAIN_SDK_PYTHON";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A server, ended when it is dropped.
struct Served {
    child: Child,
    url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(kind: &str, sessions: usize) -> Option<Served> {
    serve_with(kind, &[&sessions.to_string()])
}

fn serve_with(kind: &str, more: &[&str]) -> Option<Served> {
    let Ok(python) = std::env::var(PYTHON) else {
        println!("SKIPPED: `cargo xtask test --servers` installs what it needs ({PYTHON})");
        return None;
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openenv/server.py");
    let child = Command::new(python)
        .arg(script)
        .args([&port.to_string(), kind])
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let served = Served { child, url: format!("http://127.0.0.1:{port}") };
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(served);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the server does not listen");
}

fn config(url: &str, action: OpenEnvAction) -> OpenEnvConfig {
    let config = OpenEnvConfig {
        url: url.into(),
        action,
        observation: Some("hint".into()),
        instructions: None,
        reset: Map::new(),
        connect_seconds: 20.0,
        observation_bytes: 1000,
    };
    config.validate().unwrap();
    config
}

/// Plays an episode whose turns are written in advance.
async fn play(mut environment: OpenEnv, turns: &[String]) -> Result<Trajectory, EpisodeError> {
    let model = support::model();
    let turns = turns.to_vec();
    let script = move |turn: usize, _: &[Message]| turns.get(turn).cloned();
    let actor = Arc::new(ScriptedActor::new(model.clone(), script));
    let player = EpisodePlayer::new(model, actor, EpisodeConfig::default()).unwrap();
    player.play(&mut environment, "policy", 1).await
}

fn guess(number: i64) -> String {
    json!({ "number": number }).to_string()
}

fn wanted(number: i64) -> Map<String, serde_json::Value> {
    json!({ "wanted": number }).as_object().unwrap().clone()
}

#[test]
fn a_servers_environment_is_acted_in() {
    let Some(served) = serve("guess", 64) else { return };
    let runtime = runtime();
    let config = config(&served.url, OpenEnvAction::Json {});

    // What the policy reads, what a turn earns, and the end are the server's.
    let environment = OpenEnv::new(config.clone(), 0, wanted(5));
    let turns = [guess(2), "five".into(), r#"{"number": "five"}"#.into(), guess(97), guess(5)];
    let played = runtime.block_on(play(environment, &turns)).unwrap();
    let read = |turn: usize| played.turns[turn].answer[0].text().into_owned();
    assert_eq!(played.opening[0].text(), "a number below 8");
    assert_eq!((read(0).as_str(), read(1).as_str()), ("higher", "Error: write a JSON object."));
    assert!(read(2).contains("number") && read(2).contains("valid integer"), "{}", read(2));
    assert!(read(3).ends_with("[cut: 1000 of 100000 bytes]"));
    assert!((played.reward() - (1.0 - 0.1)).abs() < 1e-9, "{}", played.reward());
    assert_eq!((played.metrics["steps"], played.metrics["refused"]), (4.0, 2.0));

    // Sessions do not see each other, and a seed is the episode's own.
    let together = (0..24u64).map(|seed| {
        let config = config.clone();
        let turns: Vec<String> = (0..8).map(guess).collect();
        async move { play(OpenEnv::new(config, seed << 33, Map::new()), &turns).await.unwrap() }
    });
    let played = runtime.block_on(futures::future::join_all(together));
    for (seed, trajectory) in played.iter().enumerate() {
        assert_eq!(trajectory.turns.len(), seed % 8 + 1, "{seed}");
    }
}

#[test]
fn a_server_without_a_free_session_is_waited_for() {
    let Some(served) = serve("guess", 2) else { return };
    let runtime = runtime();
    let config = config(&served.url, OpenEnvAction::Json {});
    let together = (0..8).map(|number| {
        let environment = OpenEnv::new(config.clone(), 0, wanted(number));
        let turns: Vec<String> = (0..8).map(guess).collect();
        async move { play(environment, &turns).await.unwrap().turns.len() as i64 }
    });
    let turns = runtime.block_on(futures::future::join_all(together));
    assert_eq!(turns, (1..=8).collect::<Vec<i64>>());
}

/// A policy that takes its time, while the server wants to know whether anybody is there.
struct Slow(ScriptedActor<fn(usize, &[Message]) -> Option<String>>, Duration);

impl Actor for Slow {
    fn write<'a>(
        &'a self,
        turn: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>> {
        async move {
            tokio::time::sleep(self.1).await;
            self.0.write(turn).await
        }
        .boxed()
    }
}

#[test]
fn a_policy_may_take_its_time() {
    // The server pings each second, and hangs up where nobody answers within one.
    let Some(served) = serve_with("guess", &["64", "1"]) else { return };
    let config = config(&served.url, OpenEnvAction::Json {});
    let model = support::model();
    let script: fn(usize, &[Message]) -> Option<String> = |turn, _| Some(guess(turn as i64));
    let actor = Slow(ScriptedActor::new(model.clone(), script), Duration::from_secs(4));
    let player = EpisodePlayer::new(model, Arc::new(actor), EpisodeConfig::default()).unwrap();
    let mut environment = OpenEnv::new(config, 0, wanted(1));
    let played = runtime().block_on(player.play(&mut environment, "policy", 1)).unwrap();
    assert_eq!((played.turns.len(), played.turns[0].answer[0].text().as_ref()), (2, "higher"));
}

#[test]
fn what_the_server_does_not_show_is_named() {
    let Some(served) = serve("guess", 64) else { return };
    let config = OpenEnvConfig {
        observation: Some("hints".into()),
        ..config(&served.url, OpenEnvAction::Json {})
    };
    let environment = OpenEnv::new(config, 0, wanted(1));
    let error = runtime().block_on(play(environment, &[guess(1)])).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("expected one of hint, got `hints`"), "{reason}");
}

#[test]
fn what_breaks_on_a_server_is_no_zero() {
    let Some(mut served) = serve("guess", 64) else { return };
    let runtime = runtime();
    let config = config(&served.url, OpenEnvAction::Text { field: "number".into() });
    let fails = |turns: &[&str]| {
        let turns: Vec<String> = turns.iter().map(|turn| (*turn).to_owned()).collect();
        let environment = OpenEnv::new(config.clone(), 0, wanted(5));
        let error = runtime.block_on(play(environment, &turns)).unwrap_err();
        assert!(matches!(error, EpisodeError::Environment { turn: 1, .. }), "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert!(fails(&["1", "99"]).contains("EXECUTION_ERROR: the game is broken"));
    let gone = fails(&["1", "98"]);
    assert!(gone.contains("OpenEnv server http://127.0.0.1"), "{gone}");
    served.child.wait().unwrap();

    let environment = OpenEnv::new(config.clone(), 0, wanted(5));
    let error = runtime.block_on(play(environment, &["1".into()])).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn a_servers_tools_are_called() {
    let Some(served) = serve("tools", 64) else { return };
    let runtime = runtime();
    let config =
        OpenEnvConfig { observation: None, ..config(&served.url, OpenEnvAction::Tools {}) };
    let call = |arguments: &str| {
        format!("<tool_call>{{\"name\": \"add\", \"arguments\": {arguments}}}</tool_call>")
    };
    let turns = [call(r#"{"a": 2, "b": 40}"#), call(r#"{"a": "x", "b": 1}"#), "42".to_owned()];
    let played = runtime.block_on(play(OpenEnv::new(config, 0, Map::new()), &turns)).unwrap();
    let read = |turn: usize| played.turns[turn].answer[0].text().into_owned();
    assert!(read(0).contains("42") && read(0).contains("\"error\":null"), "{}", read(0));
    assert!(read(1).contains("integer") && !read(1).contains("\"error\":null"), "{}", read(1));
    assert_eq!(played.turns.len(), 3);
}
