//! What was acknowledged is there, however the process ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running, wait_until, wire};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_kill_takes_no_checkpoint_and_what_is_gone_is_told() {
    let mut running = Running::start(&[]);
    let client = Client::new(&running.url);
    let session = client.session();
    let model = client.create_model(&session, 0, &running.model());
    client.pass(&model, 1, false);
    client.step(&model, 2);
    let saved = client.pass(&model, 3, true);
    let path = client.save(&model, 4, "one")["path"].as_str().unwrap().to_owned();
    client.pass(&model, 5, false);
    client.step(&model, 6);
    running.kill();

    running.again();
    let client = Client::new(&running.url);
    // The request whose answer may have been lost has it still.
    assert_eq!(client.json_result(&format!("{model}:request:4"))["path"], json!(path));
    assert_eq!(client.post("/api/v1/session_heartbeat", &json!({ "session_id": session })).0, 200);
    let body = json!({ "model_id": model, "seq_id": 7, "adam_params": {} });
    let (status, answer) = client.post("/api/v1/optim_step", &body);
    assert!(
        status == 410 && answer["detail"].as_str().unwrap().contains(&path),
        "{status} {answer}"
    );

    let body = json!({ "session_id": session, "model_seq_id": 1, "path": path, "optimizer": true });
    let answer = client.done("/api/v1/load_weights", &body);
    client.json_result(answer["request_id"].as_str().unwrap());
    let resumed = answer["model_id"].as_str().unwrap();
    let scores = client.pass(resumed, 1, true);
    assert!(saved.iter().zip(&scores).all(|(a, b)| (a - b).abs() < 1e-5), "{saved:?} {scores:?}");
}

#[test]
fn an_interrupt_keeps_models_in_training_and_ends_with_130() {
    let mut running = Running::start(&[]);
    let client = Client::new(&running.url);
    let session = client.session();
    let model = client.create_model(&session, 0, &running.model());
    client.pass(&model, 1, false);
    client.step(&model, 2);
    client.pass(&model, 3, true);
    let trained = client.pass(&model, 4, true);
    // Its result is not fetched before the end.
    let late = client.taken(&wire::cross_entropy(&model, 5, &[3, 4, 5], true));
    running.interrupt();
    assert_eq!(running.wait().code(), Some(130));

    running.again();
    let client = Client::new(&running.url);
    assert_eq!(wire::logprobs(&client.result(&late).1).len(), 2);
    let resumed = client.pass(&model, 6, true);
    assert!(trained.iter().zip(&resumed).all(|(a, b)| (a - b).abs() < 1e-5));
    // What was applied before the end is not applied again, and the optimizer goes on.
    let answer = client
        .done("/api/v1/optim_step", &json!({ "model_id": model, "seq_id": 2, "adam_params": {} }));
    assert!(client.json_result(answer["request_id"].as_str().unwrap())["metrics"].is_null());
    client.pass(&model, 7, false);
    assert!(client.step(&model, 8)["metrics"]["unclipped_grad_l2:mean"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_interrupt_between_two_passes_loses_neither() {
    let mut running = Running::start(&[]);
    let client = Client::new(&running.url);
    let session = client.session();
    // Two of the same seed, one of which is interrupted.
    let whole = client.create_model(&session, 0, &running.model());
    let cut = client.create_model(&session, 1, &running.model());
    let texts: [&[i32]; 2] = [&[3, 4, 5], &[6, 7, 8, 9]];
    let pass = |client: &Client, model: &str, seq: i32| {
        let id = client.taken(&wire::cross_entropy(model, seq, texts[seq as usize - 1], false));
        client.result(&id);
    };
    let norm = |client: &Client, model: &str| {
        client.step(model, 3)["metrics"]["unclipped_grad_l2:mean"].as_f64().unwrap()
    };
    pass(&client, &whole, 1);
    pass(&client, &whole, 2);
    let expected = norm(&client, &whole);

    pass(&client, &cut, 1);
    running.interrupt();
    assert_eq!(running.wait().code(), Some(130));
    running.again();
    let client = Client::new(&running.url);
    pass(&client, &cut, 2);
    let got = norm(&client, &cut);
    assert!((got / expected - 1.0).abs() < 1e-5, "{got} {expected}");
}

/// Trains a model and saves it under three names in turn, as fast as it goes, until the server is
/// killed in between.
struct Saver {
    client: Client,
    model: String,
    /// The number of the last call.
    seq: i32,
    /// Where the last call of JSON went, and what it said.
    last: Option<(String, Value)>,
    /// Path and log-probabilities of what was acknowledged under each name.
    acknowledged: BTreeMap<String, (String, Vec<f32>)>,
    /// The name and the log-probabilities of a save of which nothing was heard.
    unheard: Option<(String, Vec<f32>)>,
}

impl Saver {
    fn new(client: Client, model: String) -> Self {
        Self { client, model, seq: 0, last: None, acknowledged: BTreeMap::new(), unheard: None }
    }

    fn run(mut self) -> Self {
        while self.round().is_some() {}
        self
    }

    /// A step, and what it came to saved; nothing once the server is gone.
    fn round(&mut self) -> Option<()> {
        self.pass(false)?;
        let params = json!({ "learning_rate": 0.02 });
        self.call("/api/v1/optim_step", json!({ "adam_params": params }))?;
        let scores = self.pass(true)?;

        let name = format!("c{}", self.seq / 4 % 3);
        self.unheard = Some((name.clone(), scores.clone()));
        let body = json!({ "path": name, "overwrite": true });
        let saved = self.call("/api/v1/save_weights", body)?;
        let path = saved["path"].as_str()?.to_owned();
        self.acknowledged.insert(name, (path, scores));
        self.unheard = None;
        Some(())
    }

    fn pass(&mut self, forward_only: bool) -> Option<Vec<f32>> {
        self.seq += 1;
        let body = wire::cross_entropy(&self.model, self.seq, &[3, 4, 5, 6, 7], forward_only);
        let path = "/api/v1/forward_backward";
        let (status, answer) = self.client.post_bytes(path, "application/x-protobuf", &body);
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        let (fetched, bytes) = self.client.result(answer["request_id"].as_str()?);
        (status == 200 && fetched == 200).then(|| wire::logprobs(&bytes))
    }

    fn call(&mut self, path: &str, mut body: Value) -> Option<Value> {
        self.seq += 1;
        body["model_id"] = json!(self.model);
        body["seq_id"] = json!(self.seq);
        self.last = Some((path.to_owned(), body.clone()));
        let (status, answer) = self.client.post(path, &body);
        let (fetched, bytes) = self.client.result(answer["request_id"].as_str()?);
        (status == 200 && fetched == 200).then(|| serde_json::from_slice(&bytes).ok())?
    }

    /// Checks, at the server that was started again, that everything is there and whole, and that
    /// the last call is not made twice.
    fn check(&self, client: &Client) {
        let session = client.session();
        for (number, (name, (path, scores))) in self.acknowledged.iter().enumerate() {
            let body = json!({ "session_id": session, "model_seq_id": number, "path": path, "optimizer": true });
            let answer = client.done("/api/v1/load_weights", &body);
            let loaded = client.json_result(answer["request_id"].as_str().unwrap());
            assert_eq!(loaded["path"], json!(path), "{loaded}");

            // As it was acknowledged, or as the save would have left it that the kill cut off.
            let got = client.pass(answer["model_id"].as_str().unwrap(), 1, true);
            let unheard = self.unheard.iter().filter(|unheard| unheard.0 == *name);
            let near =
                |expected: &[f32]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            let is = unheard.map(|unheard| &unheard.1).chain([scores]).any(|own| near(own));
            assert!(is, "{path}: {got:?}, acknowledged {scores:?}, unheard {:?}", self.unheard);
        }
        let reason = json!({ "reason": { "type": "success" } });
        let (status, _) = client.post(&format!("/api/v1/sessions/{session}/finish"), &reason);
        assert_eq!(status, 204);

        // What was done has its result still; what was not is refused in words, not done now.
        let Some((path, body)) = &self.last else { return };
        let (status, answer) = client.post(path, body);
        let request = answer["request_id"].as_str().map(|request| client.result(request));
        let words = answer["detail"].as_str().unwrap_or_default();
        let words = words.contains("checkpoint") || words.contains("never saved");
        assert!(
            request.is_some_and(|(status, _)| status == 200) || (status == 410 && words),
            "{path} {body}: {status} {answer}"
        );
    }
}

/// For more by `POSTTRAIN_KILLS` (6).
#[test]
fn kills_at_any_moment_leave_checkpoints_whole() {
    let kills: u64 = std::env::var("POSTTRAIN_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut running = Running::start(&[]);
    let mut paths: Vec<String> = Vec::new();
    for round in 0..kills {
        let client = Client::new(&running.url);
        let model = client.create_model(&client.session(), 0, &running.model());
        let saver = Saver::new(client, model);
        let saver = std::thread::spawn(|| saver.run());
        // Moments that have nothing to do with each other.
        let moment = 150 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 400;
        std::thread::sleep(Duration::from_millis(moment));
        running.kill();
        let saver = saver.join().unwrap();

        running.again();
        saver.check(&Client::new(&running.url));
        paths.extend(saver.acknowledged.into_values().map(|(path, _)| path));
    }
    assert!(!paths.is_empty(), "nothing was ever saved");
    println!("{kills} kills, {} checkpoints", paths.len());

    let client = Client::new(&running.url);
    for path in &paths {
        let answer = client.post("/api/v1/weights_info", &json!({ "tinker_path": path }));
        assert_eq!(answer.0, 200, "{path}");
    }
}

#[test]
fn a_session_without_a_heartbeat_ends_and_its_models_with_it() {
    let running = Running::start(&["--session-timeout", "2"]);
    let client = Client::new(&running.url);
    let session = client.session();
    let model = client.create_model(&session, 0, &running.model());
    assert_eq!(client.get("/page.json").1["models"].as_array().unwrap().len(), 1);
    wait_until(|| client.get("/page.json").1["models"] == json!([]));
    let (status, answer) = client.post("/api/v1/get_info", &json!({ "model_id": model }));
    assert!(
        status == 410 && answer["detail"].as_str().unwrap().contains("never saved"),
        "{answer}"
    );
}
