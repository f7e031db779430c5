//! Tools: whatever they do, the policy reads an answer, and the episode goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::{Message, Tool, ToolCall, ToolFormat};
use posttrain_environment::{
    EnvironmentError, EpisodeConfig, EpisodeError, EpisodePlayer, ScriptedActor, ToolError,
    ToolFailure, ToolLimits, ToolTask, Toolkit, Tools, Trajectory, tool_fn,
};
use posttrain_reward::{Sample, Score, from_fn};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::model;
use tokio::runtime::Runtime;

/// Tools of every kind.
struct Odd(Vec<Tool>);

impl Odd {
    fn new() -> Self {
        let number = json!({"type": "object", "properties": {"a": {"type": "integer"}},
                            "required": ["a"], "additionalProperties": false});
        let tools = ["double", "hang", "panic", "long", "gone", "refuse"];
        Self(tools.map(|name| Tool::new(name, "", number.clone())).to_vec())
    }
}

impl Toolkit for Odd {
    fn tools(&self) -> &[Tool] {
        &self.0
    }

    fn call<'a>(
        &'a self,
        name: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        async move {
            match name {
                "double" => Ok((2 * arguments["a"].as_i64().unwrap()).to_string()),
                "hang" => std::future::pending().await,
                "panic" => panic!("as it is wont to"),
                "long" => Ok("é".repeat(5_000_000)),
                "refuse" => Err(ToolError::refused("not this one")),
                _ => Err(ToolError::failed("the server closed its pipe")),
            }
        }
        .boxed()
    }
}

fn tools(limits: ToolLimits) -> Tools {
    Tools::new(vec![Arc::new(Odd::new())], limits).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn short() -> ToolLimits {
    ToolLimits { seconds: 0.05, result_bytes: 101, ..ToolLimits::default() }
}

#[test]
fn every_call_has_an_answer_in_words() {
    let tools = tools(short());
    let cases = [
        ("double", json!({"a": 21}), "42"),
        ("double", json!({"a": "x"}), "Error: /a: \"x\" is not of type \"integer\""),
        ("double", json!({}), "Error: \"a\" is a required property"),
        ("double", json!({"a": 1, "b": 2}), "Error: Additional properties are not allowed"),
        ("halve", json!({"a": 1}), "Error: there is no tool `halve`; there are: double, gone"),
        ("hang", json!({"a": 1}), "Error: no answer within 0.05 s"),
        ("panic", json!({"a": 1}), "Error: it panicked"),
        ("gone", json!({"a": 1}), "Error: the server closed its pipe"),
        ("refuse", json!({"a": 1}), "Error: not this one"),
    ];
    for (name, arguments, expected) in cases {
        let answer = runtime().block_on(tools.answer(&ToolCall::new("c", name, arguments)));
        let answer = answer.unwrap();
        assert!(answer.text().starts_with(expected), "{name}: {}", answer.text());
        assert_eq!(answer.tool_call_id.as_deref(), Some("c"));
        assert_eq!(answer.name.as_deref(), Some(name));
    }

    let long = runtime().block_on(tools.answer(&ToolCall::new("c", "long", json!({"a": 1}))));
    let long = long.unwrap();
    // A letter is not cut in two.
    assert_eq!(long.text(), format!("{}\n[cut: 100 of 10000000 bytes]", "é".repeat(50)));
}

#[test]
fn a_long_error_is_cut_and_a_panic_before_the_answer_takes_its_call_alone() {
    let schema = json!({"type": "object"});
    let wordy = tool_fn(Tool::new("wordy", "", schema.clone()), async |_| {
        Err(ToolError::refused("no ".repeat(100_000)))
    });
    let hasty = tool_fn(Tool::new("hasty", "", schema), |arguments: Value| {
        let a = arguments["a"].as_i64().unwrap();
        async move { Ok(a.to_string()) }
    });
    let tools = Tools::new(vec![Arc::new(wordy), Arc::new(hasty)], short()).unwrap();
    let answer = |name: &str, arguments| {
        runtime().block_on(tools.answer(&ToolCall::new("c", name, arguments))).unwrap()
    };
    let cut = answer("wordy", json!({}));
    assert!(cut.text().len() < 150 && cut.text().contains("[cut: "), "{}", cut.text());
    assert_eq!(answer("hasty", json!({"a": 1e30})).text(), "Error: it panicked");
    assert_eq!(answer("hasty", json!({"a": 7})).text(), "7");
    assert!(Tools::new(Vec::new(), ToolLimits { seconds: -1.0, ..short() }).is_err());
}

#[test]
fn a_failure_ends_the_episode_where_that_is_asked_for_and_a_refusal_never_does() {
    let tools = tools(ToolLimits { failure: ToolFailure::Fail, ..short() });
    let answer =
        |name: &str| runtime().block_on(tools.answer(&ToolCall::new("c", name, json!({"a": 1}))));
    for name in ["hang", "panic", "gone"] {
        let error = answer(name).unwrap_err();
        assert!(matches!(&error, EnvironmentError::Tool { tool, .. } if tool == name), "{error}");
    }
    assert!(answer("refuse").is_ok());
    assert!(answer("double").is_ok());
}

#[test]
fn a_turn_has_so_many_calls_and_they_run_beside_each_other() {
    let limits = ToolLimits { seconds: 0.2, calls_a_turn: 3, ..ToolLimits::default() };
    let tools = tools(limits);
    let text = ToolFormat::Hermes.write(&vec![ToolCall::new("", "hang", json!({"a": 1})); 4]);
    let reply = ToolFormat::Hermes.parse(&(text + "<tool_call>{</tool_call>"));
    let answers = |left| runtime().block_on(tools.answers(&reply, left)).unwrap();

    let told: Vec<String> = answers(None).iter().map(|m| m.text().into_owned()).collect();
    assert_eq!(told[..3], vec!["Error: no answer within 0.2 s"; 3]);
    assert_eq!(told[3], "Error: not called: a turn may have 3 calls");
    assert!(told[4].starts_with("Error: the call cannot be read: it is no JSON"), "{}", told[4]);

    let left = answers(Some(0));
    assert_eq!(left[0].text(), "Error: not called: 0 calls were left");
    assert_eq!(left.len(), 5);
}

#[test]
fn tools_that_cannot_stand_together_are_refused_by_name() {
    let twice = Tools::new(vec![Arc::new(Odd::new()), Arc::new(Odd::new())], short());
    assert!(twice.err().unwrap().to_string().contains("tool `double`: it is offered twice"));

    let schema = json!({"type": "no such type"});
    let broken = tool_fn(Tool::new("f", "", schema), async |_| Ok(String::new()));
    let broken = Tools::new(vec![Arc::new(broken)], short());
    assert!(broken.err().unwrap().to_string().contains("tool `f`: its `parameters`"));

    assert!(ToolLimits { seconds: 0.0, ..ToolLimits::default() }.validate().is_err());
    assert!(ToolLimits { calls_a_turn: 0, ..ToolLimits::default() }.validate().is_err());
}

fn play(script: &'static [&'static str], format: ToolFormat) -> Result<Trajectory, EpisodeError> {
    let model = model();
    let reward =
        from_fn("exact", |sample: &Sample| Ok(Score::binary(sample.response == sample.reference)));
    let mut task = ToolTask::new(
        vec![Message::system("Be brief."), Message::user("What is twice 21?")],
        Arc::new(tools(short())),
        Sample::new("What is twice 21?", "42", ""),
        Arc::new(reward),
    );
    let actor = ScriptedActor::new(model.clone(), |turn, _: &[Message]| {
        script.get(turn).map(|text| (*text).to_owned())
    });
    let config = EpisodeConfig { tool_format: format, ..EpisodeConfig::default() };
    let player = EpisodePlayer::new(model, Arc::new(actor), config)?;
    runtime().block_on(player.play(&mut task, "policy", 7))
}

#[test]
fn a_task_is_answered_by_the_first_turn_without_a_call() {
    let right = play(
        &["I ask: <tool_call>{\"name\": \"double\", \"arguments\": {\"a\": 21}}</tool_call>", "42"],
        ToolFormat::Hermes,
    )
    .unwrap();
    assert_eq!((right.reward(), right.tool_calls(), right.turns.len()), (1.0, 1, 2));
    assert_eq!(right.turns[0].answer[0].text(), "42");

    let model = model();
    let text = model.tokenizer.decode_with_special(&right.segments[0].tokens).unwrap();
    // The template knows no tools, so the system message tells of them.
    assert!(text.contains("<|im_start|>system\nBe brief.\n\nTo call a tool, write:"), "{text}");
    assert!(
        text.contains("\"name\":\"double\"") && text.contains("<|im_start|>tool\n42<|im_end|>")
    );

    let malformed =
        play(&["<tool_call>{\"name\": \"double\"</tool_call>", "41"], ToolFormat::Hermes);
    let malformed = malformed.unwrap();
    assert_eq!((malformed.reward(), malformed.turns[0].malformed_calls), (0.0, 1));
    assert!(malformed.turns[0].answer[0].text().contains("cannot be read"));
    assert_eq!(malformed.metrics["malformed_calls"], 1.0);

    let llama =
        play(&["{\"name\": \"double\", \"parameters\": {\"a\": 21}}", "42"], ToolFormat::Llama3);
    assert_eq!(llama.unwrap().reward(), 1.0);
    // A script that does not go on is no zero.
    let error = play(&["<tool_call>{}</tool_call>"], ToolFormat::Hermes).unwrap_err();
    assert!(matches!(error, EpisodeError::Actor { turn: 1, .. }), "{error}");
}

#[test]
fn a_tool_that_waits_holds_nobody_up() {
    // Two hundred tasks whose tool takes a twentieth of a second each, on one thread.
    let model = model();
    let waiting = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, seen) = (waiting, most.clone());
    let slow = tool_fn(Tool::new("wait", "", json!({"type": "object"})), move |_| {
        let (now, seen) = (now.clone(), seen.clone());
        async move {
            seen.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            Ok("done".into())
        }
    });
    let tools = Arc::new(Tools::new(vec![Arc::new(slow)], ToolLimits::default()).unwrap());
    let reward: Arc<dyn posttrain_reward::Reward> =
        Arc::new(from_fn("any", |_: &Sample| Ok(Score::binary(true))));
    let actor = ScriptedActor::new(model.clone(), |turn, _: &[Message]| {
        Some(
            if turn == 0 {
                "<tool_call>{\"name\": \"wait\", \"arguments\": {}}</tool_call>"
            } else {
                "ok"
            }
            .into(),
        )
    });
    let player = EpisodePlayer::new(model, Arc::new(actor), EpisodeConfig::default()).unwrap();
    let play = |seed| {
        let (player, tools, reward) = (player.clone(), tools.clone(), reward.clone());
        async move {
            let sample = Sample::new("?", "!", "");
            let mut task = ToolTask::new(vec![Message::user("?")], tools, sample, reward);
            player.play(&mut task, "policy", seed).await
        }
    };
    let all = runtime().block_on(futures::future::join_all((0..200).map(play)));
    let waited: f64 = all.iter().map(|t| t.as_ref().unwrap().turns[0].seconds_acting).sum();
    assert!(waited >= 200.0 * 0.05);
    // One after another only one would wait at a time.
    assert!(most.load(Ordering::Relaxed) > 20, "{most:?}");
}
