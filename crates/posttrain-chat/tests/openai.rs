//! The OpenAI-compatible client: streaming, structured output, fallbacks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use futures::StreamExt;
use posttrain_chat::client::{Deadlines, JsonClientConfig, RetryConfig};
use posttrain_chat::openai::{OpenAiClient, OpenAiConfig, StructuredOutput, Transfer};
use posttrain_chat::{
    ChatError, ChatModel, ChatRequest, FinishReason, Message, ResponseFormat, Usage,
};
use serde_json::{Value, json};
use server::{Reply, Server};
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn config(url: &str) -> OpenAiConfig {
    let http = JsonClientConfig {
        // Beyond what an answer takes on a busy machine.
        deadlines: Deadlines {
            connect_seconds: 20.0,
            read_seconds: 20.0,
            attempt_seconds: 20.0,
            total_seconds: 60.0,
        },
        retry: RetryConfig { retries: 2, first_seconds: 0.01, longest_seconds: 0.02 },
        ..JsonClientConfig::for_server(url).unwrap()
    };
    OpenAiConfig { model: "m".into(), http, ..OpenAiConfig::default() }
}

fn streamed(server: &Server) -> OpenAiClient {
    OpenAiConfig { transfer: Transfer::Streamed, ..config(&server.url()) }.build().unwrap()
}

fn request() -> ChatRequest {
    ChatRequest::new([Message::user("2 + 2?")])
}

fn piece(delta: &Value) -> String {
    format!("data: {}\n\n", json!({"model": "stub-1", "choices": [{"delta": delta}]}))
}

/// A whole answer in events, with everything that servers put between.
fn answer() -> String {
    let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}});
    format!(
        "{}: keep-alive\n\n{}{}{}data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n",
        piece(&json!({"role": "assistant", "content": null})),
        piece(&json!({"reasoning_content": "2 und 2 …"})),
        piece(&json!({"content": "vier ≈ "})),
        piece(&json!({"content": "４😀"})),
    )
}

#[tokio::test]
async fn a_stream_is_the_same_however_it_is_cut() {
    for cut in [1, 2, 3, 7, 64, 4096] {
        let server = Server::start(move |_, _| Reply::events(&answer(), cut)).await;
        let response = streamed(&server).complete(&request()).await.unwrap();
        assert_eq!(
            (response.text.as_str(), response.reasoning.as_deref()),
            ("vier ≈ ４😀", Some("2 und 2 …"))
        );
        assert_eq!(
            (response.finish_reason, response.model.as_str()),
            (FinishReason::Stop, "stub-1")
        );
        assert_eq!(response.usage, Usage { prompt_tokens: 5, completion_tokens: 4 });
        assert_eq!(server.requests.lock().unwrap()[0].json()["stream"], true);
    }
}

#[tokio::test]
async fn pieces_come_one_by_one() {
    let server = Server::start(|_, _| Reply::events(&answer(), 5)).await;
    let model = config(&server.url()).build().unwrap();
    let pieces: Vec<_> =
        model.stream(&request()).await.unwrap().map(Result::unwrap).collect().await;
    let texts: Vec<&str> =
        pieces.iter().map(|piece| piece.text.as_str()).filter(|text| !text.is_empty()).collect();
    assert_eq!(texts, ["vier ≈ ", "４😀"]);
    assert_eq!(pieces.last().unwrap().usage.unwrap().total(), 9);
}

#[tokio::test]
async fn an_open_stream_keeps_its_place_and_gives_it_back() {
    let server = Server::start(|_, _| Reply::events(&answer(), 5)).await;
    let mut config = config(&server.url());
    config.http.in_flight = 1;
    let model = config.build().unwrap();
    let stream = model.stream(&request()).await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(100), model.stream(&request())).await;
    assert!(second.is_err());
    drop(stream);
    assert!(model.stream(&request()).await.is_ok());
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_one() {
    let error = format!(
        "{}data: {{\"error\": {{\"message\": \"out of memory\"}}}}\n\n",
        piece(&json!({"content": "4"}))
    );
    let server = Server::start(move |_, _| Reply::events(&error, 9)).await;
    let error = streamed(&server).complete(&request()).await.unwrap_err();
    assert!(
        matches!(&error, ChatError::Reported { message, .. } if message == "out of memory"),
        "{error}"
    );
    let model = config(&server.url()).build().unwrap();
    let pieces: Vec<_> = model.stream(&request()).await.unwrap().collect().await;
    assert!(pieces.len() == 2 && pieces[0].as_ref().unwrap().text == "4" && pieces[1].is_err());
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_begun_again_or_an_error() {
    let cut = || Reply::Pieces {
        pieces: vec![piece(&json!({"content": "4"})).into()],
        pause: Duration::ZERO,
        complete: false,
    };
    let ended = || Reply::events(&piece(&json!({"content": "4"})), 9);
    let server = Server::start(move |index, _| match index {
        0 => cut(),
        1 => ended(),
        _ => Reply::events(&answer(), 9),
    })
    .await;
    assert_eq!(streamed(&server).complete(&request()).await.unwrap().text, "vier ≈ ４😀");
    assert_eq!(server.count(), 3);
    let server = Server::start(move |_, _| ended()).await;
    assert_eq!(streamed(&server).complete(&request()).await.unwrap_err().cause(), "cut_stream");
    let model = config(&server.url()).build().unwrap();
    let pieces: Vec<_> = model.stream(&request()).await.unwrap().collect().await;
    assert_eq!(pieces[1].as_ref().unwrap_err().cause(), "cut_stream");
}

#[tokio::test]
async fn a_stream_that_falls_silent_or_never_ends_is_cut_off() {
    let pieces = vec![piece(&json!({"content": "4"})).into(); 100];
    let slow =
        Reply::Pieces { pieces: pieces.clone(), pause: Duration::from_millis(400), complete: true };
    let server = Server::start(move |_, _| slow.clone()).await;
    let mut quick = config(&server.url());
    (quick.transfer, quick.http.retry.retries) = (Transfer::Streamed, 0);
    (quick.http.deadlines.read_seconds, quick.http.deadlines.attempt_seconds) = (0.3, 1.0);
    assert_eq!(quick.build().unwrap().complete(&request()).await.unwrap_err().cause(), "timed_out");

    let text = piece(&json!({"content": "4"})).repeat(10_000);
    let server = Server::start(move |_, _| Reply::events(&text, 100_000)).await;
    let mut small = config(&server.url());
    (small.transfer, small.http.max_response_bytes) = (Transfer::Streamed, 50_000);
    assert_eq!(small.build().unwrap().complete(&request()).await.unwrap_err().cause(), "too_large");
}

#[tokio::test]
async fn events_that_are_no_json_are_an_error() {
    let server = Server::start(|_, _| Reply::events("data: {oops\n\n", 3)).await;
    assert_eq!(streamed(&server).complete(&request()).await.unwrap_err().cause(), "invalid_json");
}

fn choice() -> ChatRequest {
    ChatRequest {
        format: ResponseFormat::Choice(vec!["right".into(), "wrong".into()]),
        ..request()
    }
}

fn chat(text: &str) -> Value {
    json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
}

#[tokio::test]
async fn a_choice_comes_back_bare() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("content-type", "application/json"))
        .and(body_partial_json(json!({"response_format": {"type": "json_schema"}})))
        .respond_with(ResponseTemplate::new(200).set_body_json(chat("{\"choice\": \"wrong\"}")))
        .expect(1)
        .mount(&server)
        .await;
    let model = config(&format!("{}/v1", server.uri())).build().unwrap();
    assert_eq!(model.complete(&choice()).await.unwrap().text, "wrong");
}

#[tokio::test]
async fn a_server_that_knows_no_forms_is_asked_without_from_then_on() {
    let server = MockServer::start().await;
    Mock::given(body_partial_json(json!({"response_format": {"type": "json_schema"}})))
        .respond_with(ResponseTemplate::new(422).set_body_string("response_format: unknown"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(body_partial_json(
        json!({"response_format": {"type": "json_object", "schema": {}}}),
    ))
    .respond_with(ResponseTemplate::new(400).set_body_string("response_format: unknown"))
    .expect(1)
    .mount(&server)
    .await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_json(chat("Right!")))
        .expect(3)
        .mount(&server)
        .await;
    let model = config(&format!("{}/v1", server.uri())).build().unwrap();
    for _ in 0..3 {
        assert_eq!(
            model.complete(&choice()).await.unwrap().choice(&["right", "wrong"]).unwrap(),
            "right"
        );
    }
}

#[tokio::test]
async fn a_server_that_fails_over_one_way_is_asked_in_the_next() {
    // llama-cpp-python answers 500 to what it does not know, which would be tried again.
    let server = MockServer::start().await;
    Mock::given(body_partial_json(json!({"response_format": {"type": "json_schema"}})))
        .respond_with(
            ResponseTemplate::new(500)
                .set_body_string("validation error: ('body', 'response_format', 'type')"),
        )
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .and(body_partial_json(json!({"response_format": {"type": "json_object"}})))
        .respond_with(ResponseTemplate::new(200).set_body_json(chat("right")))
        .expect(2)
        .mount(&server)
        .await;
    let model = config(&format!("{}/v1", server.uri())).build().unwrap();
    for _ in 0..2 {
        assert_eq!(model.complete(&choice()).await.unwrap().text, "right");
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_anyway_does_not_cost_the_forms() {
    let server = MockServer::start().await;
    let forms = StructuredOutput::StructuredOutputs;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_string("the prompt is too long"))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(body_partial_json(json!({"structured_outputs": {"choice": ["right", "wrong"]}})))
        .respond_with(ResponseTemplate::new(200).set_body_json(chat("wrong")))
        .expect(1)
        .mount(&server)
        .await;
    let config =
        OpenAiConfig { structured_output: forms, ..config(&format!("{}/v1", server.uri())) };
    let model = config.build().unwrap();
    let error = model.complete(&choice()).await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(model.complete(&choice()).await.unwrap().text, "wrong");
}

#[tokio::test]
async fn a_bad_request_is_not_sent() {
    let server = Server::start(|_, _| Reply::chat("4")).await;
    let model = config(&server.url()).build().unwrap();
    for bad in [
        ChatRequest { max_tokens: 0, ..request() },
        ChatRequest { temperature: f64::NAN, ..request() },
        ChatRequest { top_p: Some(0.0), ..request() },
        ChatRequest { logprobs: Some(21), ..request() },
        ChatRequest { stop: vec![String::new()], ..request() },
        ChatRequest { format: ResponseFormat::Choice(vec!["a".into(), "a ".into()]), ..request() },
        ChatRequest {
            format: ResponseFormat::JsonSchema { name: "a b".into(), schema: json!({}) },
            ..request()
        },
        ChatRequest {
            format: ResponseFormat::JsonSchema { name: "a".into(), schema: json!([]) },
            ..request()
        },
        ChatRequest::new([]),
    ] {
        assert_eq!(model.complete(&bad).await.unwrap_err().cause(), "invalid_request", "{bad:?}");
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn a_bad_configuration_is_named() {
    type Change = fn(&mut OpenAiConfig);
    let wrong: [(&str, Change); 9] = [
        ("model", |config| config.model.clear()),
        ("extra_body", |config| drop(config.extra_body.insert("stream".into(), json!(true)))),
        ("in_flight", |config| config.http.in_flight = 0),
        ("max_response_bytes", |config| config.http.max_response_bytes = 0),
        ("requests_per_minute", |config| config.http.requests_per_minute = Some(0.0)),
        ("tokens_per_minute", |config| config.http.tokens_per_minute = Some(f64::INFINITY)),
        ("deadlines.connect_seconds", |config| config.http.deadlines.connect_seconds = -1.0),
        ("retry.first_seconds", |config| config.http.retry.first_seconds = f64::NAN),
        ("breaker.failures", |config| config.http.breaker.failures = 0),
    ];
    for (field, change) in wrong {
        let mut config = config("http://localhost:1/v1");
        change(&mut config);
        let error = config.build().unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    assert!(toml::from_str::<OpenAiConfig>("modle = \"m\"").is_err());
}
