//! Ten thousand completions through a judge on a real socket that fails a tenth of the time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../posttrain-chat/tests/support/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use posttrain_chat::client::{BreakerConfig, JsonClientConfig, RetryConfig};
use posttrain_chat::openai::OpenAiConfig;
use posttrain_reward::judge::JudgeConfig;
use posttrain_reward::{RewardError, Sample, Scorer, ScorerConfig};
use serde_json::{Value, json};
use server::{Reply, Request, Server};
use tokio::sync::Barrier;

const COMPLETIONS: usize = 10_000;

/// The number of the completion that is asked about; the even ones are correct.
fn number(request: &Request) -> usize {
    let body = request.json();
    let content = body["messages"][1]["content"].as_str().unwrap();
    let data: Value = serde_json::from_str(content.split('\n').nth(1).unwrap()).unwrap();
    data["response"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

fn verdict(number: usize) -> String {
    let verdict = if number.is_multiple_of(2) { "correct" } else { "incorrect" };
    json!({"reasoning": "…", "verdict": verdict}).to_string()
}

/// A well-mixed number for the request's place, so that failures come in no order.
fn mixed(index: usize) -> u64 {
    let mut x = (index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Resident memory in bytes, where the system tells.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_none_is_scored_twice_and_no_failure_is_a_zero() {
    let answered: Arc<Vec<AtomicU32>> =
        Arc::new((0..COMPLETIONS).map(|_| AtomicU32::new(0)).collect());
    let faults = Arc::new(AtomicUsize::new(0));
    let (count, failed) = (Arc::clone(&answered), Arc::clone(&faults));
    let server = Server::start_forgetful(move |index, request| {
        let number = number(request);
        let random = mixed(index);
        if random.is_multiple_of(10) {
            failed.fetch_add(1, Ordering::SeqCst);
            return match random / 10 % 4 {
                0 => Reply::status(500, "internal error"),
                1 => Reply::status(429, "too many requests").with("retry-after", "0"),
                2 => Reply::ResetHalfWay(verdict(number).repeat(20)),
                _ => Reply::ok("{\"choices\": [{\"message\""),
            };
        }
        count[number].fetch_add(1, Ordering::SeqCst);
        Reply::chat(&verdict(number))
    })
    .await;
    let http = JsonClientConfig {
        in_flight: 128,
        retry: RetryConfig { retries: 12, first_seconds: 0.002, longest_seconds: 0.05 },
        breaker: BreakerConfig { failures: 5, pause_seconds: 0.05 },
        ..JsonClientConfig::for_server(&server.url()).unwrap()
    };
    let model =
        OpenAiConfig { model: "stub".into(), http, ..OpenAiConfig::default() }.build().unwrap();
    let judge = JudgeConfig::default().build(Arc::new(model)).unwrap();
    let runtime = tokio::runtime::Handle::current();
    let config = ScorerConfig { in_flight: 256, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(Arc::new(judge), &config, runtime).unwrap();
    let samples = |index| Sample {
        id: format!("s-{index}"),
        ..Sample::new("?", "yes", format!("It is {index}"))
    };
    let mut early = None;
    for index in 0..COMPLETIONS {
        if index == COMPLETIONS / 4 {
            early = memory();
        }
        assert_eq!(scorer.submit(samples(index)).await.unwrap(), index);
    }
    let late = memory();
    let scores = scorer.collect().await;

    assert_eq!(scores.len(), COMPLETIONS, "none is lost");
    let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, score) in scores.iter().enumerate() {
        let answers = answered[index].load(Ordering::SeqCst);
        match score {
            Ok(score) => {
                assert_eq!(
                    score.value(),
                    if index % 2 == 0 { 1.0 } else { 0.0 },
                    "no failure is a wrong answer"
                );
                assert_eq!(answers, 1, "s-{index} was scored once");
            }
            Err(error) => {
                assert!(matches!(error, RewardError::Chat { .. }), "{error}");
                assert_eq!(answers, 0, "s-{index} has no verdict that was thrown away");
                *causes.entry(error.cause()).or_default() += 1;
            }
        }
    }
    let faults = faults.load(Ordering::SeqCst);
    assert!((900..1400).contains(&faults), "{faults}");
    let invalid = causes.get("invalid_json").copied().unwrap_or_default();
    assert_eq!(
        causes.values().sum::<usize>(),
        invalid,
        "only what is not tried again fails: {causes:?}"
    );
    assert!((150..400).contains(&invalid), "{invalid}");
    if let (Some(early), Some(late)) = (early, late) {
        // Results are kept, a kilobyte or so each; requests and answers are not.
        assert!(late < early + 24_000_000, "memory grew from {early} to {late} bytes");
    }
}

/// The number of requests that are in flight, and that is all: times are measured by an example.
/// The first 256 are answered when the last of them is there, so that it does not depend on the
/// machine; then a judge that asks for more would be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_fifty_six_requests_are_in_flight() {
    let barrier = Arc::new(Barrier::new(256));
    let server = Server::start_forgetful(move |index, request| {
        let reply = Reply::chat(&verdict(number(request)));
        if index < 256 {
            return Reply::Together(
                Arc::clone(&barrier),
                Box::new(reply.after(Duration::from_millis(300))),
            );
        }
        reply
    })
    .await;
    let model = OpenAiConfig::for_server(&server.url(), "stub").unwrap().build().unwrap();
    let judge = JudgeConfig::default().build(Arc::new(model)).unwrap();
    let runtime = tokio::runtime::Handle::current();
    let mut scorer = Scorer::new(Arc::new(judge), &ScorerConfig::default(), runtime).unwrap();
    for index in 0..1000 {
        scorer.submit(Sample::new("?", "yes", format!("It is {index}"))).await.unwrap();
    }
    let scores = scorer.collect().await;
    assert_eq!(scores.iter().find_map(|score| score.as_ref().err()).map(ToString::to_string), None);
    assert_eq!((server.count(), server.most.load(Ordering::SeqCst)), (1000, 256));
}
