//! Against a server that nobody here wrote: llama-cpp-python with the demonstration model, which
//! `cargo xtask judge-server` starts. Without it these tests say that they are skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/real.rs"]
mod real;

use std::sync::Arc;

use futures::StreamExt;
use posttrain_chat::cache::{CacheConfig, CachedChat};
use posttrain_chat::openai::{OpenAiClient, OpenAiConfig, StructuredOutput, Transfer};
use posttrain_chat::{ChatModel, ChatRequest, ChatResponse, FinishReason, Message, ResponseFormat};
use real::server;
use serde_json::json;

fn config(url: &str) -> OpenAiConfig {
    let structured_output = StructuredOutput::JsonObject;
    OpenAiConfig {
        structured_output,
        ..OpenAiConfig::for_server(url, "smollm2-135m-instruct").unwrap()
    }
}

fn model(url: &str) -> OpenAiClient {
    config(url).build().unwrap()
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest { max_tokens: 24, seed: Some(1), ..ChatRequest::new([Message::user(text)]) }
}

fn verdict_format() -> ResponseFormat {
    let schema = json!({
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": ["correct", "incorrect"]}},
        "required": ["verdict"],
        "additionalProperties": false,
    });
    ResponseFormat::JsonSchema { name: "verdict".into(), schema }
}

fn verdict(response: &ChatResponse) -> String {
    response.json().unwrap()["verdict"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn it_answers() {
    let Some(url) = server() else { return };
    let response = model(&url).complete(&ask("What is the capital of France?")).await.unwrap();
    assert!(response.text.contains("Paris"), "{response:?}");
    assert!(
        response.usage.prompt_tokens > 5 && response.usage.completion_tokens > 0,
        "{response:?}"
    );
    let cut = ChatRequest { max_tokens: 2, ..ask("Count to one hundred.") };
    assert_eq!(model(&url).complete(&cut).await.unwrap().finish_reason, FinishReason::Length);
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_whole() {
    let Some(url) = server() else { return };
    let request = ask("What is the capital of France?");
    let whole = model(&url).complete(&request).await.unwrap();
    let mut pieces = model(&url).stream(&request).await.unwrap();
    let (mut text, mut count) = (String::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.unwrap();
        count += usize::from(!piece.text.is_empty());
        text.push_str(&piece.text);
    }
    assert!(count > 1 && text == whole.text, "{text:?} in {count} pieces, whole {:?}", whole.text);
    let streamed = OpenAiConfig { transfer: Transfer::Streamed, ..config(&url) }.build().unwrap();
    let gathered = streamed.complete(&request).await.unwrap();
    assert_eq!((gathered.text, gathered.finish_reason), (whole.text, whole.finish_reason));
}

#[tokio::test]
async fn it_keeps_to_a_form() {
    let Some(url) = server() else { return };
    for question in
        ["Is 2 + 2 = 4?", "Write a poem about the sea.", "Say nothing but the word banana."]
    {
        let request = ChatRequest { format: verdict_format(), ..ask(question) };
        let response = model(&url).complete(&request).await.unwrap();
        assert!(
            ["correct", "incorrect"].contains(&verdict(&response).as_str()),
            "{}",
            response.text
        );
        let choices = ["red".to_owned(), "blue".to_owned()];
        let request =
            ChatRequest { format: ResponseFormat::Choice(choices.to_vec()), ..ask(question) };
        let response = model(&url).complete(&request).await.unwrap();
        assert!(choices.contains(&response.text), "{}", response.text);
    }
}

#[tokio::test]
async fn the_way_that_it_knows_is_found() {
    let Some(url) = server() else { return };
    // This server knows no `json_schema`, and answers 500 to it.
    let structured_output = StructuredOutput::JsonSchema;
    let model = OpenAiConfig { structured_output, ..config(&url) }.build().unwrap();
    let request = ChatRequest { format: verdict_format(), ..ask("What is the capital of France?") };
    for _ in 0..2 {
        let response = model.complete(&request).await.unwrap();
        assert!(
            ["correct", "incorrect"].contains(&verdict(&response).as_str()),
            "{}",
            response.text
        );
    }
}

#[tokio::test]
async fn it_gives_log_probabilities() {
    let Some(url) = server() else { return };
    let request =
        ChatRequest { logprobs: Some(2), max_tokens: 4, ..ask("What is the capital of France?") };
    let response = model(&url).complete(&request).await.unwrap();
    let logprobs = response.logprobs.unwrap();
    assert_eq!(logprobs.len() as u64, response.usage.completion_tokens);
    assert!(
        logprobs.iter().all(|token| token.logprob <= 0.0 && token.top.len() == 2),
        "{logprobs:?}"
    );
    assert_eq!(
        logprobs.iter().map(|token| token.token.as_str()).collect::<String>(),
        response.text
    );
}

#[tokio::test]
async fn its_answers_are_kept() {
    let Some(url) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = CacheConfig { folder: folder.path().into(), ..CacheConfig::default() };
    let cached = CachedChat::new(Arc::new(model(&url)), config).unwrap();
    let request = ChatRequest { format: verdict_format(), ..ask("Is 2 + 2 = 4?") };
    let first = cached.complete(&request).await.unwrap();
    assert_eq!(cached.complete(&request).await.unwrap(), first);
    assert_eq!((cached.counts().misses, cached.counts().hits), (1, 1));
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let Some(url) = server() else { return };
    let model = model(&url);
    let requests: Vec<_> = (0..12)
        .map(|n| ChatRequest { max_tokens: 4, ..ask(&format!("What is {n} + 1?")) })
        .collect();
    let answers =
        futures::future::join_all(requests.iter().map(|request| model.complete(request))).await;
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| !answer.text.is_empty())),
        "{answers:?}"
    );
}
