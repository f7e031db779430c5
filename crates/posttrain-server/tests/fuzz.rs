//! Bodies that are nearly right, in whatever way: the protobuf and JSON of every request with bytes
//! and fields changed at random. Each is taken or refused in words, the server lives, and nobody else
//! notices. For longer by `POSTTRAIN_FUZZ_SECONDS` (3), by another beginning with `POSTTRAIN_FUZZ_SEED`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::wire::{self, ForwardBackwardRequest};
use common::{Client, Running};
use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    /// A few bytes changed, cut off, put in or said twice.
    fn bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 => {
                    let more = bytes[at..].to_vec();
                    bytes.extend(more);
                }
                3 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => bytes.push(0xff),
            }
        }
        bytes
    }

    /// A value that nobody expects.
    fn value(&mut self) -> Value {
        match self.below(14) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(0),
            4 => json!(1e308),
            5 => json!(u64::MAX),
            6 => json!(0.5),
            7 => json!(""),
            8 => json!("\u{0}\u{202e}../../etc/passwd"),
            9 => json!("x".repeat(3000)),
            10 => json!([]),
            11 => json!({}),
            12 => (0..60).fold(json!([]), |deep, _| json!([deep])),
            _ => json!(vec![self.next() % 100; self.below(300)]),
        }
    }

    /// A value at some depth replaced, left out, or put in by another name.
    fn change(&mut self, value: &mut Value) {
        let children = match value {
            Value::Object(map) => map.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if children == 0 || self.below(4) == 0 {
            *value = self.value();
            return;
        }
        let at = self.below(children);
        match value {
            Value::Object(map) => {
                let name = map.keys().nth(at).unwrap().clone();
                match self.below(5) {
                    0 => drop(map.remove(&name)),
                    1 => {
                        let other = self.value();
                        map.insert(format!("{name}s"), other);
                    }
                    _ => self.change(&mut map[&name]),
                }
            }
            Value::Array(items) => match self.below(5) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => self.change(&mut items[at]),
            },
            _ => {}
        }
    }

    /// Fields of a pass that are well-formed, and wrong.
    fn pass(&mut self, request: &ForwardBackwardRequest) -> Vec<u8> {
        let mut request = request.clone();
        let datum = &mut request.data[0];
        let name = ["target_tokens", "weights", "advantages", "logprobs", "x"][self.below(5)];
        let numbers: Vec<f32> =
            [0.0, -1.0, f32::NAN, f32::INFINITY, 1e38, 0.5][..=self.below(6).min(5)].to_vec();
        match self.below(7) {
            0 => drop(datum.loss_fn_inputs.remove(name)),
            1 => drop(datum.loss_fn_inputs.insert(name.into(), wire::floats(&numbers))),
            2 => {
                let ids: Vec<i64> = (0..self.below(9)).map(|_| self.next() as i64).collect();
                datum.loss_fn_inputs.insert(name.into(), wire::integers(&ids));
            }
            3 => {
                if let Some(tensor) = datum.loss_fn_inputs.get_mut(name) {
                    tensor.shape = vec![self.next() as i64 >> self.below(64); self.below(4)];
                    tensor.dtype = self.below(5) as i32 - 1;
                }
            }
            4 => {
                let ids: Vec<i32> = (0..self.below(40)).map(|_| self.next() as i32).collect();
                datum.model_input = vec![wire::chunk(&ids)];
            }
            5 => datum.model_input.clear(),
            _ => {
                let losses = ["ppo", "cispo", "dro", "gspo", "importance_sampling", "none", ""];
                request.loss_fn = losses[self.below(losses.len())].into();
                request.loss_fn_config.insert("beta".into(), f64::from(numbers[numbers.len() - 1]));
            }
        }
        request.seq_id = 1 + self.below(4) as i32 - self.below(2) as i32;
        request.encode_to_vec()
    }
}

/// Requests that are taken as they stand, or were once.
fn requests(
    client: &Client,
    running: &Running,
    model: &str,
    session: &str,
) -> Vec<(String, Value)> {
    let name = running.model();
    let tinker = |path: &str, body: Value| (format!("/api/v1/{path}"), body);
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let tools = json!([{ "type": "function", "function": { "name": "add", "parameters": { "type": "object" } } }]);
    let prompt = json!({ "chunks": [{ "type": "encoded_text", "tokens": [3, 4, 5] }] });
    let sampling = json!({ "max_tokens": 3, "seed": 1, "temperature": 1.0, "stop": ["a"], "top_k": 5, "top_p": 0.9 });
    let made = client.done(
        "/api/v1/create_sampling_session",
        &json!({
        "session_id": session, "sampling_session_seq_id": 0, "base_model": name }),
    );
    let sampler = made["sampling_session_id"].clone();
    let episode = client.done("/episodes", &json!({}));
    let episode = episode["id"].as_str().unwrap();
    vec![
        tinker(
            "create_session",
            json!({ "tags": ["a"], "user_metadata": { "a": "b" }, "sdk_version": "0.38.0" }),
        ),
        tinker("session_heartbeat", json!({ "session_id": session })),
        tinker(
            "create_model",
            json!({ "session_id": session, "model_seq_id": 7, "base_model": name,
            "lora_config": { "rank": 4, "seed": 3, "train_attn": true, "train_mlp": true } }),
        ),
        tinker("get_info", json!({ "model_id": model })),
        tinker(
            "optim_step",
            json!({ "model_id": model, "seq_id": 2, "adam_params": { "learning_rate": 0.01, "beta1": 0.9 } }),
        ),
        tinker(
            "save_weights_for_sampler",
            json!({ "model_id": model, "seq_id": 3, "path": "one" }),
        ),
        tinker(
            "asample",
            json!({ "sampling_session_id": sampler, "seq_id": 1, "prompt": prompt,
            "num_samples": 2, "sampling_params": sampling, "prompt_logprobs": true }),
        ),
        tinker("weights_info", json!({ "tinker_path": "tinker://x/weights/one" })),
        tinker("sessions/search", json!({ "query": "a" })),
        tinker("retrieve_future", json!({ "request_id": "none" })),
        tinker("telemetry", json!({ "events": [], "platform": "x" })),
        (
            "/v1/chat/completions".into(),
            json!({ "model": name, "messages": messages, "max_tokens": 3, "n": 2,
            "seed": 1, "logprobs": true, "top_logprobs": 2, "stop": "a", "tools": tools }),
        ),
        (
            "/v1/chat/completions".into(),
            json!({ "model": name, "messages": messages, "max_tokens": 3, "stream": true }),
        ),
        (
            "/v1/completions".into(),
            json!({ "model": name, "prompt": "abc", "max_tokens": 3, "echo": true, "logprobs": 1 }),
        ),
        (
            "/v1/messages".into(),
            json!({ "model": name, "max_tokens": 3, "system": "s", "stop_sequences": ["a"], "top_k": 3,
            "tools": [{ "name": "t", "description": "d", "input_schema": { "type": "object" } }],
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "assistant", "content": [
                    { "type": "text", "text": "b" }, { "type": "tool_use", "id": "c", "name": "t", "input": { "x": 1 } },
                ] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c", "content": "d", "is_error": true }] },
            ] }),
        ),
        (
            format!("/episodes/{episode}/v1/messages"),
            json!({ "model": name, "max_tokens": 3, "stream": true, "messages": [{ "role": "user", "content": "a" }] }),
        ),
        ("/v1/load_lora_adapter".into(), json!({ "lora_name": "a", "lora_path": "/nowhere" })),
        ("/episodes".into(), json!({ "role": "agent" })),
        (
            format!("/episodes/{episode}/v1/chat/completions"),
            json!({ "model": name, "messages": messages, "max_tokens": 3 }),
        ),
        (format!("/episodes/{episode}/reward"), json!({ "reward": 0.5 })),
    ]
}

/// What the server's process holds, in MiB, where the system tells.
fn resident(running: &Running) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[test]
fn whatever_comes_is_taken_or_refused_in_words_and_nobody_else_notices() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    // Somebody else, whose numbers stay what they are.
    let other = client.create_model(&client.session(), 0, &running.model());
    let before = client.pass(&other, 1, true);

    let session = client.session();
    let model = client.create_model(&session, 0, &running.model());
    let all = requests(&client, &running, &model, &session);
    let good = wire::request(&model, 1, vec![wire::datum(&[3, 4, 5, 6, 7])]);
    let mut random = Random(variable("POSTTRAIN_FUZZ_SEED", 7));
    let until = Instant::now() + Duration::from_secs(variable("POSTTRAIN_FUZZ_SECONDS", 3));
    let held = resident(&running);
    let (mut sent, mut taken) = (0, 0);
    while Instant::now() < until {
        let (path, kind, body) = match random.below(4) {
            0 => (
                "/api/v1/forward_backward".to_owned(),
                PROTOBUF,
                random.bytes(&good.encode_to_vec()),
            ),
            1 => ("/api/v1/forward_backward".to_owned(), PROTOBUF, random.pass(&good)),
            choice => {
                let (path, body) = &all[random.below(all.len())];
                let mut body = body.clone();
                random.change(&mut body);
                let text = body.to_string().into_bytes();
                (path.clone(), JSON, if choice == 2 { random.bytes(&text) } else { text })
            }
        };
        let (status, answer) = client.send("POST", &path, kind, &body, None);
        let said = String::from_utf8_lossy(&answer).into_owned();
        let tell = || format!("{path} {}: {status} {said}", String::from_utf8_lossy(&body));
        assert!(status == 200 || (400..500).contains(&status), "{}", tell());
        assert!(!said.contains("panicked"), "{}", tell());
        let value: Value = serde_json::from_str(&said).unwrap_or(Value::Null);
        if status != 200 {
            let words =
                [&value["detail"], &value["error"]["message"], &value["error"], &value["message"]];
            let told = words.iter().any(|words| words.as_str().is_some_and(|text| text.len() > 3));
            assert!(told, "{}", tell());
        } else if let Some(id) = value["request_id"].as_str() {
            let (status, result) = client.result(id);
            let result = String::from_utf8_lossy(&result).into_owned();
            assert!(status == 200, "{} -> {status} {result}", tell());
            let result: Value = serde_json::from_str(&result).unwrap_or(Value::Null);
            // What came of it is the client's doing, if it is an error.
            let category = result["category"].as_str().unwrap_or("user");
            assert_eq!(category, "user", "{} -> {result}", tell());
        }
        sent += 1;
        taken += u64::from(status == 200);
        // Below what a key may send in a second.
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{sent} sent, {taken} taken; MiB held: {held:?}, {:?}", resident(&running));

    assert!(sent > 50, "{sent}");
    assert_eq!(client.get("/health").0, 200);
    assert_eq!(client.pass(&other, 2, true), before);
    if let (Some(held), Some(holds)) = (held, resident(&running)) {
        assert!(holds < held + 300, "{held} {holds}");
    }
}
