//! What each fault of a judge's server does to a reward, on a real socket: a verdict after all, or
//! an error; never a zero.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../posttrain-chat/tests/support/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use posttrain_chat::client::{BreakerConfig, Deadlines, JsonClientConfig, RetryConfig};
use posttrain_chat::openai::OpenAiConfig;
use posttrain_reward::judge::{Judge, JudgeConfig};
use posttrain_reward::{Reward, RewardError, Sample, Score};
use serde_json::json;
use server::{Reply, Server};
use tokio::time::{Instant, sleep};

fn verdict(word: &str) -> String {
    json!({"reasoning": "It says 4, and the reference is 4.", "verdict": word}).to_string()
}

fn right() -> Reply {
    Reply::chat(&verdict("correct"))
}

/// Beyond what an answer takes on a busy machine.
const PATIENT: Deadlines = Deadlines {
    connect_seconds: 20.0,
    read_seconds: 20.0,
    attempt_seconds: 20.0,
    total_seconds: 60.0,
};
/// For servers that do not end an answer.
const HASTY: Deadlines = Deadlines { read_seconds: 2.0, attempt_seconds: 2.0, ..PATIENT };

/// A judge that asks these servers, quick to try again.
fn judge(servers: &[&Server], deadlines: Deadlines) -> Judge {
    let http = JsonClientConfig {
        endpoints: servers.iter().map(|server| server.url().parse().unwrap()).collect(),
        deadlines,
        retry: RetryConfig { retries: 3, first_seconds: 0.02, longest_seconds: 0.1 },
        breaker: BreakerConfig { failures: 3, pause_seconds: 0.3 },
        in_flight: 16,
        max_response_bytes: 1 << 20,
        ..JsonClientConfig::default()
    };
    let model =
        OpenAiConfig { model: "stub".into(), http, ..OpenAiConfig::default() }.build().unwrap();
    JudgeConfig::default().build(Arc::new(model)).unwrap()
}

async fn score(judge: &Judge) -> Result<Score, RewardError> {
    judge.score(&Sample::new("What is 2 + 2?", "4", "It is 4.")).await
}

/// The first request meets the fault, the next one an answer: the verdict is the answer's, after
/// two requests.
async fn assert_survived(fault: Reply, deadlines: Deadlines) -> Duration {
    let server =
        Server::start(move |index, _| if index == 0 { fault.clone() } else { right() }).await;
    let start = Instant::now();
    let score = score(&judge(&[&server], deadlines)).await.unwrap();
    assert_eq!((score.value(), server.count()), (1.0, 2));
    start.elapsed()
}

/// Every request meets the fault: an error of this cause after so many requests.
async fn assert_error(fault: Reply, cause: &str, requests: usize) {
    assert_error_within(PATIENT, fault, cause, requests).await;
}

async fn assert_error_within(deadlines: Deadlines, fault: Reply, cause: &str, requests: usize) {
    let server = Server::start(move |_, _| fault.clone()).await;
    let error = score(&judge(&[&server], deadlines)).await.unwrap_err();
    assert_eq!((error.cause(), server.count()), (cause, requests), "{error}");
}

#[tokio::test]
async fn a_429_without_retry_after() {
    assert_survived(Reply::status(429, "slow down"), PATIENT).await;
    assert_error(Reply::status(429, "slow down"), "http_429", 4).await;
}

#[tokio::test]
async fn a_429_with_retry_after() {
    let waited =
        assert_survived(Reply::status(429, "slow down").with("retry-after", "1"), PATIENT).await;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn a_500_and_then_success() {
    assert_survived(Reply::status(500, "oops"), PATIENT).await;
    assert_error(Reply::status(500, "oops"), "http_500", 4).await;
}

#[tokio::test]
async fn a_connection_reset_half_way_through_a_body() {
    assert_survived(Reply::ResetHalfWay(verdict("incorrect").repeat(20)), PATIENT).await;
    assert_error(Reply::ResetHalfWay(verdict("incorrect").repeat(20)), "broken_connection", 4)
        .await;
}

#[tokio::test]
async fn a_server_that_never_answers() {
    assert_survived(Reply::Silence, HASTY).await;
    assert_error_within(HASTY, Reply::Silence, "timed_out", 4).await;
}

#[tokio::test]
async fn a_server_that_trickles_a_byte_a_second() {
    // Whole and right in the end, which nobody waits for. The byte a second is inside of the
    // deadline for reading.
    let body = verdict("correct").bytes().map(|byte| vec![byte]).collect();
    let trickle = Reply::Pieces { pieces: body, pause: Duration::from_millis(950), complete: true };
    let took = assert_survived(trickle.clone(), HASTY).await;
    assert!((Duration::from_millis(1900)..Duration::from_secs(30)).contains(&took), "{took:?}");
    assert_error_within(HASTY, trickle, "timed_out", 4).await;
}

#[tokio::test]
async fn an_endless_body() {
    // It would not end the next time either.
    assert_error(Reply::Endless, "too_large", 1).await;
}

#[tokio::test]
async fn invalid_json() {
    for body in ["<html>Bad gateway</html>", "{\"choices\": [{\"message\"", "", "\u{0}"] {
        assert_error(Reply::ok(body), "invalid_json", 1).await;
    }
    assert_error(Reply::ok("{\"choices\": []}"), "unexpected_answer", 1).await;
}

#[tokio::test]
async fn an_empty_verdict() {
    for text in ["", " \n"] {
        assert_error(Reply::chat(text), "judge_empty", 1).await;
    }
    assert_error(Reply::chat("<think>Hm.</think>"), "judge_unreadable", 1).await;
    assert_error(Reply::chat("{\"reasoning\": \"It agrees.\"}"), "judge_unreadable", 1).await;
    assert_error(Reply::chat(&verdict("")), "judge_unreadable", 1).await;
}

#[tokio::test]
async fn a_refused_verdict() {
    let message =
        json!({"role": "assistant", "content": null, "refusal": "I cannot help with that."});
    let refusal = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    assert_error(Reply::ok(refusal.to_string()), "judge_refused", 1).await;
    assert_error(Reply::chat("I cannot help with that."), "judge_unreadable", 1).await;
}

#[tokio::test]
async fn a_verdict_inside_of_three_hundred_kilobytes() {
    let long = "Let me see. ".repeat(25_000);
    for (text, value) in [
        (format!("{long}\n{}", verdict("correct")), 1.0),
        (format!("<think>{long}</think>{}", verdict("incorrect")), 0.0),
        (json!({"reasoning": long, "verdict": "correct"}).to_string(), 1.0),
    ] {
        assert!(text.len() > 300_000);
        let server = Server::start(move |_, _| Reply::chat(&text)).await;
        assert_eq!(score(&judge(&[&server], PATIENT)).await.unwrap().value(), value);
    }
    // Behind the verdict it may be the response that speaks.
    let behind = format!("{}\n{long}", verdict("correct"));
    let server = Server::start(move |_, _| Reply::chat(&behind)).await;
    assert_eq!(score(&judge(&[&server], PATIENT)).await.unwrap_err().cause(), "judge_unreadable");
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_of_a_run() {
    let slow = || right().after(Duration::from_millis(10));
    let (stable, dying) =
        (Server::start(move |_, _| slow()).await, Server::start(move |_, _| slow()).await);
    let judge = Arc::new(judge(&[&stable, &dying], PATIENT));
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let judge = Arc::clone(&judge);
            tokio::spawn(async move { score(&judge).await })
        })
        .collect();
    while dying.count() < 50 {
        sleep(Duration::from_millis(1)).await;
    }
    drop(dying);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().value(), 1.0);
    }
    assert!(stable.count() >= 150, "{}", stable.count());
}
