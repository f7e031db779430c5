//! Rewards behind HTTP: the reference server in Python, and servers that fail.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use posttrain_reward::outside::{Batching, Remote, RemoteConfig};
use posttrain_reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// The reference server, which ends with this value.
struct Python {
    child: Child,
    address: String,
}

impl Python {
    fn start() -> Option<Self> {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/remote_reward/server.py");
        assert!(script.is_file(), "{}", script.display());
        let spawned = Command::new("python3")
            .arg(script)
            .arg("0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = spawned else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: the reference server needs python3");
            return None;
        };
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn build(address: &str, batching: Batching) -> Remote {
    let mut config = RemoteConfig { batching, ..RemoteConfig::for_server(address).unwrap() };
    config.client.retry.first_seconds = 0.01;
    config.client.retry.longest_seconds = 0.05;
    config.build().unwrap()
}

fn batched(max_samples: usize) -> Batching {
    Batching::Batched { max_samples, max_wait_seconds: 0.02 }
}

fn score(reward: &Remote, sample: &Sample) -> Result<Score, RewardError> {
    RUNTIME.block_on(reward.score(sample))
}

/// Scores one sample for each number, whose response is the number.
fn score_all(reward: Remote, count: usize) -> Vec<Result<Score, RewardError>> {
    let mut scorer =
        Scorer::new(Arc::new(reward), &ScorerConfig::default(), RUNTIME.handle().clone()).unwrap();
    for number in 0..count {
        scorer.push(Sample::new("?", "1", number.to_string())).unwrap();
    }
    scorer.finish().unwrap()
}

#[test]
fn the_reference_server_scores_one_and_many() {
    let Some(server) = Python::start() else { return };
    for batching in [Batching::Single, batched(8)] {
        let reward = Arc::new(build(&server.address, batching));
        let one = score(&reward, &Sample::new("?", "a b", "b")).unwrap();
        assert_eq!(
            (one.value(), one.note(), one.parts()),
            (0.5, Some("50% of the words"), [("words".to_owned(), 2.0)].as_slice())
        );
        let mut scorer =
            Scorer::new(reward, &ScorerConfig::default(), RUNTIME.handle().clone()).unwrap();
        for number in 0..50 {
            let reference = if number % 10 == 3 { "" } else { "é four" };
            scorer
                .push(Sample::new(
                    "?",
                    reference,
                    if number % 2 == 0 { "four" } else { "é four \n\"}" },
                ))
                .unwrap();
        }
        for (number, score) in scorer.finish().unwrap().into_iter().enumerate() {
            match score {
                Ok(score) => {
                    assert_eq!(score.value(), if number % 2 == 0 { 0.5 } else { 1.0 }, "{number}")
                }
                Err(error) => {
                    assert_eq!((error.cause(), number % 10), ("reported", 3));
                    assert!(
                        error.to_string().contains("ValueError: an empty reference"),
                        "{error}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_reference_server_answers_a_repeated_request_from_memory() {
    let Some(server) = Python::start() else { return };
    let client = posttrain_chat::client::JsonClientConfig::for_server(&server.address)
        .unwrap()
        .build()
        .unwrap();
    let post = |body: Value| RUNTIME.block_on(client.post("score", &body, 0)).unwrap();
    let first = post(json!({"request_id": "x", "reference": "a", "response": "a"}));
    let again = post(json!({"request_id": "x", "reference": "a", "response": "changed meanwhile"}));
    assert_eq!((first["reward"].as_f64(), &again), (Some(1.0), &first));
    assert_eq!(
        post(json!({"request_id": "y", "reference": "a", "response": "b"}))["reward"].as_f64(),
        Some(0.0)
    );
}

#[test]
fn the_reference_server_is_as_short_as_it_says() {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/remote_reward/server.py");
    assert!(std::fs::read_to_string(script).unwrap().lines().count() <= 60);
}

fn serve(respond: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static) -> MockServer {
    RUNTIME.block_on(async {
        let server = MockServer::start().await;
        Mock::given(method("POST")).and(path("/score")).respond_with(respond).mount(&server).await;
        server
    })
}

fn body(request: &Request) -> Value {
    request.body_json().unwrap()
}

fn reward_of(sample: &Value) -> Value {
    let number: f64 = sample["response"].as_str().unwrap().parse().unwrap();
    json!({"reward": number / 1e6})
}

#[test]
fn a_request_holds_what_the_contract_lists() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = serve(move |request| {
        log.lock().unwrap().push(body(request));
        ResponseTemplate::new(200).set_body_json(json!({"reward": 1, "results": [{"reward": 1}]}))
    });
    let mut sample = Sample { id: "7".into(), domain: "law".into(), ..Sample::new("q", "a", "r") };
    sample.metadata.insert("k".into(), json!([1]));
    score(&build(&server.uri(), Batching::Single), &sample).unwrap();
    score(&build(&server.uri(), batched(4)), &sample).unwrap();
    let mut seen = seen.lock().unwrap().clone();
    let names: Vec<Value> = seen
        .iter_mut()
        .map(|body| body.as_object_mut().unwrap().remove("request_id").unwrap())
        .collect();
    assert!(names[0].is_string() && names[0] != names[1]);
    let written = json!({"id": "7", "domain": "law", "question": "q", "reference": "a", "response": "r", "metadata": {"k": [1]}});
    assert_eq!(seen, [written.clone(), json!({"samples": [written]})]);
}

#[test]
fn ten_thousand_through_a_server_that_fails() {
    // One request in ten fails with 500. Counted by what the server let through.
    for (batching, count) in [(Batching::Single, 3_000), (batched(16), 7_000)] {
        let (requests, scored) =
            (AtomicUsize::new(0), Arc::new(Mutex::new(BTreeMap::<String, usize>::new())));
        let log = Arc::clone(&scored);
        let server = serve(move |request| {
            if requests.fetch_add(1, Ordering::SeqCst) % 10 == 7 {
                return ResponseTemplate::new(500);
            }
            let body = body(request);
            let samples = body["samples"].as_array().cloned();
            let all = samples.clone().unwrap_or_else(|| vec![body.clone()]);
            assert!(all.len() <= 16);
            let mut log = log.lock().unwrap();
            all.iter()
                .for_each(|sample| *log.entry(sample["response"].to_string()).or_default() += 1);
            let results: Vec<Value> = all.iter().map(reward_of).collect();
            let reply =
                if samples.is_some() { json!({"results": results}) } else { results[0].clone() };
            ResponseTemplate::new(200).set_body_json(reply)
        });
        let scores = score_all(build(&server.uri(), batching), count);
        assert_eq!(scores.len(), count);
        for (number, score) in scores.into_iter().enumerate() {
            assert_eq!(
                score.unwrap().value(),
                number as f64 / 1e6,
                "none lost, none for another sample"
            );
        }
        let scored = scored.lock().unwrap();
        assert_eq!((scored.len(), scored.values().max()), (count, Some(&1)), "none scored twice");
    }
}

#[test]
fn a_retry_has_the_same_request_id() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ids);
    let server = serve(move |request| {
        let mut ids = log.lock().unwrap();
        ids.push(body(request)["request_id"].clone());
        if ids.len() < 3 {
            ResponseTemplate::new(503)
        } else {
            ResponseTemplate::new(200).set_body_json(json!({"reward": 1}))
        }
    });
    assert_eq!(
        score(&build(&server.uri(), Batching::Single), &Sample::default()).unwrap().value(),
        1.0
    );
    let ids = ids.lock().unwrap();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn failures_are_errors_by_cause() {
    let cases: [(u16, Value, Batching, &str); 9] = [
        (400, json!({}), Batching::Single, "http_400"),
        (404, json!({}), batched(2), "http_404"),
        (200, json!({"error": "no disk"}), Batching::Single, "reported"),
        (200, json!({"reward": 7}), Batching::Single, "invalid_score"),
        (200, json!([1]), Batching::Single, "bad_reply"),
        (200, json!({"reward": 1}), batched(2), "bad_reply"),
        (200, json!({"results": []}), batched(2), "bad_reply"),
        (200, json!({"results": [{"reward": 1}, {"reward": 1}]}), batched(2), "bad_reply"),
        (200, json!({"results": [{"error": "no disk"}]}), batched(2), "reported"),
    ];
    for (status, reply, batching, cause) in cases {
        let shown = reply.to_string();
        let server = serve(move |_| ResponseTemplate::new(status).set_body_json(&reply));
        let error = score(&build(&server.uri(), batching), &Sample::default()).unwrap_err();
        assert_eq!(error.cause(), cause, "{shown}: {error}");
    }
}

#[test]
fn a_batch_that_fails_in_part_costs_its_part() {
    let server = serve(|request| {
        let body = body(request);
        let samples = body["samples"].as_array().unwrap();
        let reply = |sample: &Value| {
            if sample["response"] == "3" { json!({"error": "no"}) } else { reward_of(sample) }
        };
        ResponseTemplate::new(200)
            .set_body_json(json!({"results": samples.iter().map(reply).collect::<Vec<_>>()}))
    });
    let scores = score_all(build(&server.uri(), batched(8)), 8);
    let failed: Vec<usize> = (0..8).filter(|&index| scores[index].is_err()).collect();
    assert_eq!(failed, [3]);
}

#[test]
fn samples_share_requests() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let server = serve(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        let results: Vec<Value> =
            body(request)["samples"].as_array().unwrap().iter().map(reward_of).collect();
        ResponseTemplate::new(200).set_body_json(json!({"results": results}))
    });
    assert!(
        score_all(build(&server.uri(), batched(32)), 256).into_iter().all(|score| score.is_ok())
    );
    let requests = requests.load(Ordering::SeqCst);
    assert!((8..=40).contains(&requests), "{requests} requests for 256 samples by 32");
}

#[test]
fn a_server_that_never_answers_costs_the_time_limit() {
    let server = serve(|_| ResponseTemplate::new(200).set_delay(Duration::from_secs(60)));
    for batching in [Batching::Single, batched(4)] {
        let reward = Arc::new(build(&server.uri(), batching));
        let limits = ScorerConfig { time_limit_seconds: 0.3, ..ScorerConfig::default() };
        let start = Instant::now();
        let mut scorer = Scorer::new(reward, &limits, RUNTIME.handle().clone()).unwrap();
        (0..10).for_each(|_| assert!(scorer.push(Sample::default()).is_ok()));
        let scores = scorer.finish().unwrap();
        assert!(scores.iter().all(|score| score.as_ref().unwrap_err().cause() == "timed_out"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn secrets_that_a_server_repeats_are_not_shown() {
    let server = serve(|request| {
        let key = request.url.query().unwrap_or_default().to_owned();
        ResponseTemplate::new(200).set_body_json(json!({"error": format!("who is {key}?")}))
    });
    let reward = build(&format!("{}?key=hunter2", server.uri()), Batching::Single);
    let error = score(&reward, &Sample::default()).unwrap_err();
    assert!(
        error.cause() == "reported" && !format!("{error} {error:?}").contains("hunter2"),
        "{error}"
    );
}

#[test]
fn configurations_are_read_from_files() {
    let text = "batching = { batched = { max_samples = 8, max_wait_seconds = 0.01 } }\n[client]\nendpoints = ['http://h:1']";
    let config: RemoteConfig = toml::from_str(text).unwrap();
    assert_eq!(config.batching, Batching::Batched { max_samples: 8, max_wait_seconds: 0.01 });
    assert!(config.validate().is_ok());
    assert!(toml::from_str::<RemoteConfig>("batch = 8").is_err());
    assert!(
        toml::from_str::<RemoteConfig>("batching = 'single'").unwrap().validate().is_err(),
        "no server"
    );
}
