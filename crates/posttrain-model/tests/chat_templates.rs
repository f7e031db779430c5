//! Templates of the Qwen3 and Llama 3 families against transformers (`fixtures/chat_templates`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_model::{ChatTemplate, Message, Start, Thinking, split_thinking};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_templates")
}

fn template(name: &str) -> ChatTemplate {
    let source = std::fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap();
    let begin = name.starts_with("llama3").then(|| "<|begin_of_text|>".to_owned());
    ChatTemplate::new(&source)
        .unwrap()
        .with_tokens(begin.or(Some(String::new())), Some(String::new()))
}

fn thinking(value: &Value) -> Thinking {
    match value.as_bool() {
        None => Thinking::AsTemplate,
        Some(true) => Thinking::On,
        Some(false) => Thinking::Off,
    }
}

#[test]
fn every_conversation_renders_as_in_transformers() {
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(folder().join("chats.json")).unwrap())
            .unwrap();
    let chats = golden["chats"].as_array().unwrap();
    assert!(chats.len() > 250, "{}", chats.len());
    for case in chats {
        let name = case["template"].as_str().unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let template = template(name).with_thinking(thinking(&case["thinking"]));
        let text =
            template.render(&messages, case["add_generation_prompt"].as_bool().unwrap()).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{name} {}", case["name"]);
    }
}

#[test]
fn a_template_that_opens_the_block_itself_is_seen() {
    let start = |name: &str, thinking| template(name).with_thinking(thinking).start().unwrap();
    assert_eq!(start("qwen3_thinking_2507", Thinking::AsTemplate), Start::Inside);
    for (name, thinking) in [
        ("qwen3", Thinking::AsTemplate),
        ("qwen3", Thinking::On),
        ("qwen3", Thinking::Off), // opened and closed
        ("qwen3_instruct_2507", Thinking::AsTemplate),
        ("llama3", Thinking::AsTemplate),
    ] {
        assert_eq!(start(name, thinking), Start::Outside, "{name}");
    }
    let reply =
        split_thinking("7 + 5\n</think>\n\n12", start("qwen3_thinking_2507", Thinking::AsTemplate));
    assert_eq!((reply.thinking, reply.answer, reply.finished), (Some("7 + 5"), "12", true));
}

/// What users of other engines have reported, with the text that transformers renders.
#[test]
fn reported_templates_render_as_in_transformers() {
    let rows = std::fs::read_to_string(folder().join("reported.jsonl")).unwrap();
    for row in rows.lines() {
        let case: Value = serde_json::from_str(row).unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let begin = case["bos_token"].as_str().map(str::to_owned);
        let template =
            ChatTemplate::new(case["template"].as_str().unwrap()).unwrap().with_tokens(begin, None);
        assert_eq!(
            template.render(&messages, false).unwrap(),
            case["expected"].as_str().unwrap(),
            "{}",
            case["id"]
        );
    }
}
