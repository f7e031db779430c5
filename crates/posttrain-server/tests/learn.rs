//! A policy that learns from what it serves, over the wire.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running, learn, wait_until};
use serde_json::{Value, json};
use std::path::Path;

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "model": "ours",
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 6,
        "user": "ada",
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
        (&json!("local:ada"), &json!("c1"), &json!("greeting"), &json!(1.0))
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
    let id = ask(&client, "ada");
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

    assert_eq!(client.delete("/users/ada"), 200);
    let text = std::fs::read_to_string(running.data().join("traffic/log/traffic-000001.jsonl"));
    assert!(!text.unwrap().contains("ada"));
    running.interrupt();
    assert_eq!(running.wait().code(), Some(130));
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
