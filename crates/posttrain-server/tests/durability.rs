//! What was acknowledged is there, however the process ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running, wait_until, wire};
use serde_json::{Value, json};

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

#[test]
fn kills_at_any_moment_leave_checkpoints_whole() {
    let mut running = Running::start(&[]);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..6 {
        let client = Client::new(&running.url);
        for path in &acknowledged {
            assert_eq!(
                client.post("/api/v1/weights_info", &json!({ "tinker_path": path })).0,
                200,
                "{path}"
            );
        }
        let session = client.session();
        let model = client.create_model(&session, 0, &running.model());

        // Saved as fast as it goes, replaced again and again, until the kill comes in between.
        let url = running.url.clone();
        let saver = std::thread::spawn(move || {
            let client = Client::new(&url);
            let mut done: Vec<String> = Vec::new();
            for seq in 1i64.. {
                let name = format!("c{}", seq % 3);
                let body =
                    json!({ "model_id": model, "seq_id": seq, "path": name, "overwrite": true });
                let (status, answer) = client.post("/api/v1/save_weights", &body);
                if status != 200 {
                    break;
                }
                let body = json!({ "request_id": answer["request_id"] });
                let (status, answer) = client.post("/api/v1/retrieve_future", &body);
                match answer.get("path").and_then(Value::as_str) {
                    Some(path) if status == 200 => done.push(path.to_owned()),
                    _ => break,
                }
            }
            done
        });
        std::thread::sleep(std::time::Duration::from_millis(60 + 37 * round));
        running.kill();
        acknowledged.extend(saver.join().unwrap());
        acknowledged.sort();
        acknowledged.dedup();
        running.again();
    }
    assert!(acknowledged.len() >= 6, "{acknowledged:?}");

    // Each of them loads, optimizer and all.
    let client = Client::new(&running.url);
    let session = client.session();
    for (number, path) in acknowledged.iter().enumerate() {
        let body = json!({ "session_id": session, "model_seq_id": number, "path": path, "optimizer": true });
        let answer = client.done("/api/v1/load_weights", &body);
        let loaded = client.json_result(answer["request_id"].as_str().unwrap());
        assert_eq!(loaded["path"], json!(path), "{loaded}");
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
