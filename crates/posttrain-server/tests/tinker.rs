//! Tinker's API over real HTTP, in front of a random model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::wire::{self, ForwardBackwardOutput, ForwardBackwardRequest};
use common::{Client, Running};
use prost::Message;
use serde_json::{Value, json};

fn close(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[test]
fn a_model_learns_and_a_request_that_comes_twice_is_one() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let session = client.session();
    let model = client.create_model(&session, 0, &running.model());
    assert_eq!(model, format!("{session}:train:0"));

    let before = client.pass(&model, 1, false);
    assert_eq!(before.len(), 4);
    assert!(before.iter().all(|logprob| (logprob + 64f32.ln()).abs() < 1.0), "{before:?}");
    // The same number again: the gradient is not added a second time.
    assert_eq!(client.pass(&model, 1, false), before);
    let step = client.step(&model, 2);
    let norm = step["metrics"]["unclipped_grad_l2:mean"].as_f64().unwrap();
    assert_eq!(client.step(&model, 2), step);

    let after = client.pass(&model, 3, true);
    assert!(after.iter().sum::<f32>() > before.iter().sum::<f32>() + 0.01, "{before:?} {after:?}");

    // Once more from the beginning, without the repetition: the same numbers.
    let other = client.create_model(&session, 1, &running.model());
    assert!(close(&client.pass(&other, 1, false), &before));
    let again = client.step(&other, 2)["metrics"]["unclipped_grad_l2:mean"].as_f64().unwrap();
    assert!((again - norm).abs() < 1e-6 * norm.max(1.0), "{again} {norm}");
    assert!(close(&client.pass(&other, 3, true), &after));

    // A number that was a step already is no pass.
    let (status, _) = client.post_bytes(
        "/api/v1/forward_backward",
        "application/x-protobuf",
        &wire::cross_entropy(&model, 2, &[3, 4], false),
    );
    assert_eq!(status, 400);
}

#[test]
fn forward_touches_no_gradient_and_a_step_without_one_is_refused() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    client.pass(&model, 1, true);
    let refused = client.step(&model, 2);
    assert_eq!(refused["category"], "user");
    assert!(refused["error"].as_str().unwrap().contains("gradient"), "{refused}");
}

#[test]
fn models_of_different_rank_and_layers_train_side_by_side() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let session = client.session();
    let create = |number: i64, lora: Value| {
        let body = json!({ "session_id": session, "model_seq_id": number, "base_model": running.model(), "lora_config": lora });
        client
            .json_result(client.done("/api/v1/create_model", &body)["request_id"].as_str().unwrap())
    };
    for (number, lora) in [
        json!({ "rank": 2, "seed": 1 }),
        json!({ "rank": 16, "train_mlp": false }),
        json!({ "rank": 4, "train_attn": false }),
    ]
    .into_iter()
    .enumerate()
    {
        let made = create(number as i64, lora);
        let model = made["model_id"].as_str().unwrap_or_else(|| panic!("{made}"));
        let before: f32 = client.pass(model, 1, false).iter().sum();
        client.step(model, 2);
        assert!(client.pass(model, 3, true).iter().sum::<f32>() > before);
    }

    // The random model's unembedding is its embedding.
    let alone = create(7, json!({ "rank": 4, "train_attn": false, "train_mlp": false }));
    assert_eq!(alone["category"], "user", "{alone}");
    assert!(alone["error"].as_str().unwrap().contains("train_unembed"));
    let (status, answer) = client.post(
        "/api/v1/create_model",
        &json!({ "session_id": session, "model_seq_id": 8, "base_model": running.model(), "lora_config": { "rank": 0 } }),
    );
    assert!(
        status == 400 && answer["detail"].as_str().unwrap().contains("lora_config.rank"),
        "{answer}"
    );
}

#[test]
fn what_is_wrong_with_the_data_is_told_and_spends_its_number() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    let good = || wire::datum(&[3, 4, 5]);
    let mut seq = 0;
    let mut refused = |change: &dyn Fn(&mut ForwardBackwardRequest), words: &str| {
        seq += 1;
        let mut request = wire::request(&model, seq, vec![good()]);
        change(&mut request);
        let answer = client.json_result(&client.taken(&request.encode_to_vec()));
        assert_eq!(answer["category"], "user", "{words}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{words}: {answer}");
    };

    refused(&|request| request.data.clear(), "at least one datum");
    refused(&|request| request.data[0].model_input = vec![wire::chunk(&[3, 64])], "64");
    refused(&|request| request.data[0].model_input = vec![wire::chunk(&[-1, 4])], "-1");
    refused(&|request| request.data[0].model_input = vec![wire::chunk(&[3; 300])], "256");
    refused(&|request| request.data[0].model_input.clear(), "model_input");
    refused(
        &|request| {
            request.data[0].model_input[0] =
                wire::Chunk { encoded_text: None, image: Some(vec![1]) };
        },
        "text alone",
    );
    for (name, tensor, words) in [
        ("weights", wire::floats(&[1.0, f32::NAN]), "weights[1]"),
        ("weights", wire::floats(&[1.0, f32::INFINITY]), "weights[1]"),
        ("weights", wire::floats(&[1.0]), "2 values"),
        ("weights", wire::Tensor { dtype: 9, ..wire::floats(&[1.0, 1.0]) }, "float32"),
        (
            "weights",
            wire::Tensor { dense: Some(vec![0; 7]), ..wire::floats(&[1.0, 1.0]) },
            "multiple of 4",
        ),
        ("target_tokens", wire::integers(&[4, -5]), "-5"),
        ("target_tokens", wire::integers(&[4, i64::MAX]), "below 64"),
        (
            "target_tokens",
            wire::Tensor { shape: vec![2, i64::MAX], ..wire::integers(&[4, 5]) },
            "entries",
        ),
        ("target_tokens", wire::Tensor { shape: vec![-2], ..wire::integers(&[4, 5]) }, "rows"),
        ("mask", wire::floats(&[1.0, 1.0]), "`mask`"),
    ] {
        refused(
            &|request| {
                request.data[0].loss_fn_inputs.insert(name.into(), tensor.clone());
            },
            words,
        );
    }
    refused(&|request| request.loss_fn = "ppo".into(), "`weights`");
    refused(&|request| request.loss_fn = "stable_reinforce".into(), "not published");
    refused(&|request| request.loss_fn = "nonsense".into(), "nonsense");
    refused(
        &|request| {
            request.loss_fn_config.insert("beta".into(), 1.0);
        },
        "beta",
    );

    // None of it stays in the gradient, and the model goes on.
    assert!(client.step(&model, 100)["error"].as_str().unwrap().contains("gradient"));
    assert_eq!(client.pass(&model, 101, false).len(), 4);
}

#[test]
fn bodies_that_are_none_are_refused_and_nobody_else_notices() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    let passes = |body: &[u8]| {
        client.post_bytes("/api/v1/forward_backward", "application/x-protobuf", body).0
    };

    let whole = wire::cross_entropy(&model, 1, &[3, 4, 5], false);
    assert_eq!(passes(&[]), 400);
    assert_eq!(passes(&[0xff; 64]), 400);
    assert_eq!(passes(&whole[..whole.len() - 1]), 400);
    assert_eq!(passes(&[whole.as_slice(), &[0x48, 1]].concat()), 400, "field 9 is unknown");
    assert_eq!(passes(&wire::cross_entropy(&model, -1, &[3, 4], false)), 400);
    assert_eq!(passes(&wire::cross_entropy("another", 1, &[3, 4], false)), 404);
    assert_eq!(client.post_bytes("/api/v1/forward_backward", "application/json", &whole).0, 400);

    let json =
        |path: &str, body: &str| client.post_bytes(path, "application/json", body.as_bytes()).0;
    assert_eq!(json("/api/v1/create_session", "{"), 400);
    assert_eq!(json("/api/v1/create_session", r#"{"tags": [], "unknown": 1}"#), 400);
    assert_eq!(json("/api/v1/create_session", &"[".repeat(100_000)), 400);
    assert_eq!(
        json("/api/v1/optim_step", r#"{"model_id": "x", "seq_id": -1, "adam_params": {}}"#),
        400
    );
    assert_eq!(json("/api/v1/retrieve_future", r#"{"request_id": "nothing"}"#), 410);
    let other_type = client.post_bytes("/api/v1/create_session", "text/plain", b"{\"tags\": []}").0;
    assert_eq!(other_type, 400, "a page of another site can post this");

    // Over the limit of 64 MiB: refused by its size, or cut off while it is sent.
    let long = vec![b' '; 65 << 20];
    assert!(
        [0, 400, 413].contains(
            &Client::new(&running.url)
                .post_bytes("/api/v1/create_session", "application/json", &long)
                .0
        )
    );

    for params in [
        json!({ "learning_rate": -1.0 }),
        json!({ "learning_rate": 1e-3, "beta1": 1.0 }),
        json!({ "learning_rate": 1e-3, "eps": 0.0 }),
    ] {
        client.pass(&model, 50, false);
        let body =
            json!({ "model_id": model, "seq_id": params.to_string().len(), "adam_params": params });
        let answer = client.done("/api/v1/optim_step", &body);
        assert_eq!(client.json_result(answer["request_id"].as_str().unwrap())["category"], "user");
    }
    assert_eq!(client.get("/health").0, 200);
    assert_eq!(client.pass(&model, 1000, false).len(), 4);
}

#[test]
fn each_key_sees_its_own_and_no_others() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "tml-the-first-key-of-two\ntml-the-second-key-of-two\n").unwrap();
    let running = Running::start(&["--keys", keys.path().to_str().unwrap()]);
    let none = Client::new(&running.url);
    let first = none.with_key("tml-the-first-key-of-two");
    let second = none.with_key("tml-the-second-key-of-two");
    assert_eq!(none.get("/api/v1/training_runs").0, 401);
    assert_eq!(none.with_key("tml-the-third-key-of-two").get("/v1/models").0, 401);
    assert_eq!(none.get("/health").0, 200);

    let session = first.session();
    let model = first.create_model(&session, 0, &running.model());
    let before = first.pass(&model, 1, false);
    let path = first.save(&model, 2, "mine")["path"].as_str().unwrap().to_owned();

    let body = wire::cross_entropy(&model, 3, &[3, 4], false);
    assert_eq!(
        second.post_bytes("/api/v1/forward_backward", "application/x-protobuf", &body).0,
        404
    );
    assert_eq!(second.result(&format!("{model}:request:1")).0, 410);
    assert_eq!(second.post("/api/v1/get_info", &json!({ "model_id": model })).0, 404);
    assert_eq!(second.post("/api/v1/weights_info", &json!({ "tinker_path": path })).0, 404);
    assert_eq!(second.post("/api/v1/session_heartbeat", &json!({ "session_id": session })).0, 404);
    let own = second.session();
    let steal = json!({ "session_id": own, "model_seq_id": 0, "path": path, "optimizer": true });
    assert_eq!(second.post("/api/v1/load_weights", &steal).0, 404);
    let steal = json!({ "session_id": own, "sampling_session_seq_id": 0, "model_path": path });
    assert_eq!(second.post("/api/v1/create_sampling_session", &steal).0, 404);
    assert_eq!(
        second.delete(&format!("/api/v1/training_runs/{model}/checkpoints/weights/mine")),
        404
    );
    assert_eq!(second.get("/api/v1/training_runs").1["training_runs"], json!([]));
    assert_eq!(second.get("/page.json").1["models"], json!([]));

    assert_eq!(first.pass(&model, 1, false), before);
    assert_eq!(first.get("/api/v1/training_runs").1["training_runs"].as_array().unwrap().len(), 1);
}

#[test]
fn one_key_leaves_room_for_others_models() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "tml-the-first-key-of-two\ntml-the-second-key-of-two\n").unwrap();
    let running = Running::start(&["--keys", keys.path().to_str().unwrap()]);
    let client = Client::new(&running.url);
    let first = client.with_key("tml-the-first-key-of-two");
    let session = first.session();
    for number in 0..32 {
        first.create_model(&session, number, &running.model());
    }
    let body = json!({
        "session_id": session, "model_seq_id": 32, "base_model": running.model(),
        "lora_config": { "rank": 4, "seed": 3 },
    });
    let (status, answer) = first.post("/api/v1/create_model", &body);
    let (status, words) = match answer["request_id"].as_str() {
        Some(request) => first.result(request),
        None => (status, answer.to_string().into_bytes()),
    };
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(words.contains("32 models of this key"), "{status} {words}");

    let second = client.with_key("tml-the-second-key-of-two");
    second.create_model(&second.session(), 0, &running.model());
}

#[test]
fn an_address_that_others_reach_needs_keys() {
    let folder = tempfile::tempdir().unwrap();
    common::model(1.0).write(&folder.path().join("model"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_posttrain-server"));
    command
        .arg("--model")
        .arg(folder.path().join("model"))
        .arg("--data")
        .arg(folder.path().join("data"));
    let output = command.args(["--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--keys"));
}

#[test]
fn outputs_of_several_widths_come_back_in_order() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    let narrow = wire::datum(&[3, 4, 5]);
    let mut wide = wire::datum(&[3, 4, 5]);
    let shaped = |tensor: wire::Tensor| wire::Tensor { shape: vec![2, 2], ..tensor };
    wide.loss_fn_inputs.insert("target_tokens".into(), shaped(wire::integers(&[4, 9, 5, 9])));
    wide.loss_fn_inputs.insert("weights".into(), shaped(wire::floats(&[1.0, 0.0, 1.0, 0.0])));

    let request = wire::request(&model, 1, vec![narrow.clone(), wide, narrow]);
    let request = ForwardBackwardRequest { forward_only: true, ..request };
    let answer = client.result(&client.taken(&request.encode_to_vec())).1;
    let output = ForwardBackwardOutput::decode(answer.as_slice()).unwrap();
    let shapes: Vec<(Vec<i64>, i64)> = output
        .loss_fn_outputs
        .iter()
        .map(|record| (record.fields["logprobs"].trailing_shape.clone(), record.num_datums))
        .collect();
    assert_eq!(shapes, [(vec![], 1), (vec![2], 1), (vec![], 1)]);
    let all = wire::logprobs(&answer);
    assert!(close(&[all[2], all[4]], &all[..2]) && close(&all[6..], &all[..2]), "{all:?}");
    assert!((output.metrics["loss:sum"] + f64::from(3.0 * (all[0] + all[1]))).abs() < 1e-3);
}
