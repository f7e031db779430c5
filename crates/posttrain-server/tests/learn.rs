//! A policy that learns from what it serves, over the wire.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running, learn, learn_by, wait_until};
use posttrain_recipes::traffic::{LedgerLine, TrafficLine, Verdict};
use posttrain_store::read_log;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "model": "ours",
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 6,
        "user": "lovelace",
        "metadata": { "conversation": "c1", "route": "greeting" },
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The lines of the log.
fn log(data: &Path) -> Vec<Value> {
    let path = data.join("traffic/log/traffic-000001.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn served(data: &Path, id: &str) -> Value {
    let lines = log(data);
    let own = lines.iter().find(|line| line["kind"] == "served" && line["id"] == id);
    own.unwrap_or_else(|| panic!("{id} is not in {lines:?}")).clone()
}

#[test]
fn whatever_is_served_is_kept_under_the_id_that_its_client_was_given() {
    let (_folder, path) = learn(1000);
    let running = Running::start(&["--learn", &path]);
    let client = Client::new(&running.url);
    let names = client.get("/v1/models").1["data"].to_string();
    assert!(names.contains("\"ours\""), "{names}");

    let body = chat(&json!({ "seed": 5, "logprobs": true }));
    let (status, headers, answer) = client.post_with_headers("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(headers["x-posttrain-version"], "0");
    let kept = served(&running.data(), answer["id"].as_str().unwrap());
    let told = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(kept["tokens"].as_array().unwrap().len(), told.len());
    for (kept, told) in kept["logprobs"].as_array().unwrap().iter().zip(told) {
        let (kept, told) = (kept.as_f64().unwrap(), told["logprob"].as_f64().unwrap());
        assert!((kept - told).abs() < 1e-4, "{kept} {told}");
    }
    assert_eq!(kept["text"], answer["choices"][0]["message"]["content"]);
    assert_eq!(
        (&kept["user"], &kept["conversation"], &kept["route"], &kept["propensity"]),
        (&json!("local:lovelace"), &json!("c1"), &json!("greeting"), &json!(1.0))
    );

    // The same draw, streamed.
    let body = chat(&json!({ "seed": 5, "stream": true }));
    let bytes = body.to_string();
    let (_, events) =
        client.post_bytes("/v1/chat/completions", "application/json", bytes.as_bytes());
    let events = String::from_utf8(events).unwrap();
    let first = events.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let id = serde_json::from_str::<Value>(first).unwrap()["id"].clone();
    let streamed = served(&running.data(), id.as_str().unwrap());
    assert_eq!((&streamed["tokens"], &streamed["prompt"]), (&kept["tokens"], &kept["prompt"]));

    // Several completions have an id each, of texts too.
    let body = json!({ "model": "ours", "prompt": "ab", "max_tokens": 3, "n": 2 });
    let (_, answer) = client.post("/v1/completions", &body);
    let id = answer["id"].as_str().unwrap();
    for n in 0..2 {
        let kept = served(&running.data(), &format!("{id}-{n}"));
        assert_eq!(kept["text"], answer["choices"][n]["text"]);
    }

    // Another model's are nobody's business.
    let before = log(&running.data()).len();
    client.post("/v1/chat/completions", &chat(&json!({ "model": running.model() })));
    assert_eq!(log(&running.data()).len(), before);
    let (status, refused) = client.post("/v1/chat/completions", &chat(&json!({ "user": 3 })));
    assert_eq!(status, 400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("`user`"), "{refused}");
}

#[test]
fn feedback_is_checked_joined_and_learned_from_and_survives_a_kill() {
    let (_folder, path) = learn(4);
    let mut running = Running::start(&["--learn", &path]);
    let client = Client::new(&running.url);
    let ask = |client: &Client, user: &str| {
        let (_, answer) = client.post("/v1/chat/completions", &chat(&json!({ "user": user })));
        answer["id"].as_str().unwrap().to_owned()
    };
    let id = ask(&client, "lovelace");
    let refused = [
        (json!({ "id": "chatcmpl-none", "score": 1.0 }), 404),
        (json!({ "id": id, "score": 1.5 }), 400),
        (json!({ "id": id }), 400),
        (json!({ "id": id, "score": 1.0, "edit": "kept" }), 400),
        (json!({ "id": id, "edit": "liked" }), 400),
        (json!({ "id": id, "follow_up": "thanks" }), 400),
        (json!({ "id": id, "score": 1.0, "mood": 3 }), 400),
    ];
    for (body, expected) in refused {
        let (status, answer) = client.post("/feedback", &body);
        assert_eq!(status, expected, "{body}: {answer}");
    }
    assert!(log(&running.data()).iter().all(|line| line["kind"] == "served"));

    let (status, answer) = client.post("/feedback", &json!({ "id": id, "edit": "reverted" }));
    assert_eq!((status, &answer["value"]), (200, &json!(0.0)), "{answer}");
    // Killed at once: what was acknowledged is there.
    running.kill();
    running.again();
    let client = Client::new(&running.url);
    assert_eq!(client.get("/traffic.json").1["ready"], 1);

    for n in 0..3 {
        let id = ask(&client, "emil");
        client.post("/feedback", &json!({ "id": id, "score": f64::from(n % 2) }));
    }
    let decided = || client.get("/traffic.json").1["decisions"].as_array().unwrap().len();
    wait_until(|| decided() == 1);
    let state = client.get("/traffic.json").1;
    let decision = &state["decisions"][0];
    // Two policies that are never right differ in nothing.
    assert_eq!((&decision["verdict"], &state["present"]), (&json!("undecided"), &json!(0)));
    assert_eq!(decision["learned"]["completions"], 4);
    assert_eq!(
        client.post("/feedback", &json!({ "id": id, "score": 1.0 })).1["learned_from"],
        "late"
    );

    // What did not pass cannot be put into service, by nobody.
    let body = json!({ "version": 1, "reason": "why not" });
    assert_eq!(client.post("/traffic/reinstate", &body).0, 400);
    assert_eq!(client.post("/traffic/roll_back", &json!({ "reason": "back" })).0, 400);
    assert_eq!(client.get_bytes("/traffic").0, 200);

    assert_eq!(client.delete("/users/lovelace"), 200);
    let text = std::fs::read_to_string(running.data().join("traffic/log/traffic-000001.jsonl"));
    assert!(!text.unwrap().contains("lovelace"));
    running.interrupt();
    assert_eq!(running.wait().code(), Some(130));
}

/// Asks and says whether an `e` was in the answer, until the server is gone: the completions whose
/// feedback was acknowledged, each with the version that its client was told.
fn ask_until_it_is_gone(client: &Client, user: usize) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        // None of the held-out ones.
        let question = format!("{}!", n % 20);
        let body = json!({
            "model": "ours",
            "messages": [{ "role": "user", "content": question }],
            "max_tokens": 4,
            "user": format!("user-{user}"),
        });
        // No faster than the server allows.
        std::thread::sleep(Duration::from_millis(8));
        let Ok((status, headers, answer)) = client.try_post("/v1/chat/completions", &body) else {
            break;
        };
        assert_eq!(status, 200, "{answer}");
        let id = answer["id"].as_str().unwrap().to_owned();
        let version = headers["x-posttrain-version"].parse().unwrap();

        let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        let score = f64::from(u8::from(text.contains('e')));
        let Ok((status, _, said)) =
            client.try_post("/feedback", &json!({ "id": id, "score": score }))
        else {
            break;
        };
        assert_eq!(status, 200, "{said}");
        acknowledged.push((id, version));
    }
    acknowledged
}

#[test]
fn only_an_operator_says_who_serves_and_sees_how_others_fared() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let text = "tml-a-key-of-a-client\noperator tml-a-key-of-an-operator\n";
    std::fs::write(keys.path(), text).unwrap();
    let (_folder, path) = learn(1000);
    let running = Running::start(&["--learn", &path, "--keys", keys.path().to_str().unwrap()]);
    let none = Client::new(&running.url);
    let client = none.with_key("tml-a-key-of-a-client");
    let operator = none.with_key("tml-a-key-of-an-operator");

    let (_, answer) = client.post("/v1/chat/completions", &chat(&json!({})));
    let said = json!({ "id": answer["id"], "score": 1.0 });
    assert_eq!(client.post("/feedback", &said).0, 200);
    let back = json!({ "reason": "why not" });
    let again = json!({ "version": 0, "reason": "why not" });
    for (path, body) in [("/traffic/roll_back", &back), ("/traffic/reinstate", &again)] {
        let (status, refused) = client.post(path, body);
        assert_eq!(status, 403, "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains("operator"), "{refused}");
        // There is nothing to go back to.
        assert_eq!(operator.post(path, body).0, 400);
    }
    assert_eq!((client.get("/traffic.json").0, operator.get("/traffic.json").0), (403, 200));

    // A user of another key's, by the name that the log has.
    let lines = log(&running.data());
    let owner = lines[0]["user"].as_str().unwrap().strip_suffix(":lovelace").unwrap().to_owned();
    let path = format!("/users/lovelace?owner={owner}");
    assert_eq!((client.delete(&path), operator.delete(&path)), (403, 200));
    assert!(log(&running.data()).is_empty());
}

const KILLS: &str = "POSTTRAIN_TRAFFIC_KILLS";

#[test]
fn killed_at_any_moment_it_loses_no_feedback_and_serves_nothing_that_did_not_pass() {
    let kills = std::env::var(KILLS).ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let (_folder, path) = learn_by(
        ("e", 200),
        r#"
        lora = { rank = 4, alpha = 4.0 }
        learn = { completions = 128, batch = 32, learning_rate = 0.02 }
        gate = { tasks = 200, batch = 20, margin = 0.3, guard_margin = 0.3 }
        [held_out]
        reward = { kind = "regex" }
        "#,
    );
    let mut running = Running::start(&["--learn", &path]);
    let mut acknowledged = Vec::new();
    let mut seed = 5u64;
    for kill in 0..kills {
        if kill > 0 {
            running.again();
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = 0.5 + 4.0 * (seed >> 33) as f64 / (1u64 << 31) as f64;
        let client = Client::new(&running.url);
        std::thread::scope(|scope| {
            let users = [0, 1, 2].map(|user| {
                let client = &client;
                scope.spawn(move || ask_until_it_is_gone(client, user))
            });
            std::thread::sleep(Duration::from_secs_f64(wait));
            running.kill();
            acknowledged.extend(users.into_iter().flat_map(|user| user.join().unwrap()));
        });
    }

    let folder = running.data().join("traffic");
    let (mut served, mut said) = (HashSet::new(), HashSet::new());
    for file in std::fs::read_dir(folder.join("log")).unwrap() {
        for line in read_log::<TrafficLine>(&file.unwrap().path()).unwrap() {
            match line {
                TrafficLine::Served(own) => served.insert((own.id, own.version)),
                TrafficLine::Feedback(feedback) => said.insert(feedback.id),
            };
        }
    }
    let decisions: Vec<LedgerLine> = read_log(&folder.join("decisions.jsonl")).unwrap_or_default();
    let accepted = decisions.iter().filter_map(|line| match line {
        LedgerLine::Decided(d) if d.verdict == Verdict::Accepted => Some(d.version),
        _ => None,
    });
    let passed: HashSet<u64> = std::iter::once(0).chain(accepted).collect();
    println!(
        "{kills} kills, {} acknowledged, {} decisions, {} versions passed",
        acknowledged.len(),
        decisions.len(),
        passed.len()
    );
    assert!(!acknowledged.is_empty());
    for (id, version) in acknowledged {
        assert!(said.contains(&id), "{id} was acknowledged");
        assert!(served.contains(&(id.clone(), version)), "{id} was by version {version}");
        assert!(passed.contains(&version), "version {version} served, {passed:?} had passed");
    }
}

#[test]
fn a_server_that_does_not_learn_says_so() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let (status, answer) = client.post("/feedback", &json!({ "id": "x", "score": 1.0 }));
    assert_eq!(status, 404);
    assert!(answer["detail"].as_str().unwrap().contains("--learn"), "{answer}");
    assert_eq!(client.get("/traffic.json").0, 404);
}
