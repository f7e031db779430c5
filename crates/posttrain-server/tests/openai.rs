//! OpenAI's API over real HTTP, in front of a random model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running};
use posttrain_chat::client::JsonClientConfig;
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_model::{Checkpoint, Quantize, TextModel};
use posttrain_recipes::PromptStyle;
use posttrain_recipes::lesson::{TeacherConfig, TokenAnswer};
use posttrain_train::{Trainer, TrainerConfig};
use serde_json::{Value, json};
use tch::{Device, Kind};

fn chat(client: &Client, model: &str, more: &Value) -> (u16, Value) {
    let mut body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 6,
        "seed": 3,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    client.post("/v1/chat/completions", &body)
}

/// The data of server-sent events.
fn events(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(bytes);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut events: Vec<&str> = data.collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[test]
fn a_chat_is_answered_whole_and_by_a_stream_with_the_same_words() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = running.model();
    let (status, whole) =
        chat(&client, &model, &json!({ "n": 2, "logprobs": true, "top_logprobs": 3 }));
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
    for choice in choices {
        for token in choice["logprobs"]["content"].as_array().unwrap() {
            let top = token["top_logprobs"].as_array().unwrap();
            assert_eq!(top.len(), 3);
            assert!(
                top[0]["logprob"].as_f64().unwrap() >= token["logprob"].as_f64().unwrap() - 1e-4
            );
        }
    }
    let written = whole["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(whole["usage"]["prompt_tokens"].as_u64().unwrap() > 5 && (2..=12).contains(&written));

    let body = json!({
        "model": model, "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 6, "seed": 3,
        "n": 2, "stream": true, "stream_options": { "include_usage": true },
    });
    let (status, bytes) =
        client.post_bytes("/v1/chat/completions", "application/json", body.to_string().as_bytes());
    assert_eq!(status, 200);
    let events = events(&bytes);
    for (index, choice) in choices.iter().enumerate() {
        let own = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
        let own: Vec<&Value> = own.filter(|choice| choice["index"] == json!(index)).collect();
        let text: String = own.iter().filter_map(|own| own["delta"]["content"].as_str()).collect();
        assert_eq!(json!(text), choice["message"]["content"]);
        assert_eq!(own.last().unwrap()["finish_reason"], choice["finish_reason"]);
    }
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
}

#[test]
fn a_chat_says_which_text_of_its_clients_stopped_it() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = running.model();
    let long = json!({ "max_tokens": 24, "temperature": 1.5 });
    let (_, free) = chat(&client, &model, &long);
    assert_eq!(free["choices"][0]["stop_reason"], Value::Null, "{free}");
    let text = free["choices"][0]["message"]["content"].as_str().unwrap();
    let letters: Vec<char> = text.chars().collect();
    let stop: String = letters[2..4].iter().collect();
    let at = text.find(&stop).unwrap();
    assert!(at > 0, "{text:?}");

    let stopped = json!({ "max_tokens": 24, "temperature": 1.5, "stop": ["never said", stop] });
    let (_, answer) = chat(&client, &model, &stopped);
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["stop_reason"], &choice["message"]["content"]),
        (&json!(stop), &json!(text[..at]))
    );
}

#[test]
fn completions_take_texts_and_tokens_and_stop_where_they_are_told() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = running.model();
    let complete = |more: Value| {
        let mut body = json!({ "model": model, "max_tokens": 24, "seed": 1, "temperature": 1.5 });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        client.post("/v1/completions", &body)
    };
    let (status, free) = complete(json!({ "prompt": "abc", "logprobs": 2 }));
    assert_eq!(status, 200, "{free}");
    let text = free["choices"][0]["text"].as_str().unwrap().to_owned();
    let letters: Vec<char> = text.chars().collect();
    assert!(letters.len() > 4, "{text:?}");
    assert_eq!(
        free["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(),
        free["usage"]["completion_tokens"].as_u64().unwrap() as usize
    );

    // "a", "b" and "c" are tokens 3, 4 and 5.
    let (_, tokens) = complete(json!({ "prompt": [3, 4, 5] }));
    assert_eq!(tokens["choices"][0]["text"], json!(text));
    let stop: String = letters[2..4].iter().collect();
    let (_, stopped) = complete(json!({ "prompt": "abc", "stop": [stop] }));
    let at = text.find(&stop).unwrap();
    assert_eq!(stopped["choices"][0]["text"], json!(&text[..at]));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let body = json!({ "model": model, "max_tokens": 24, "seed": 1, "temperature": 1.5, "prompt": "abc", "stop": stop, "stream": true });
    let (_, bytes) =
        client.post_bytes("/v1/completions", "application/json", body.to_string().as_bytes());
    let streamed: String =
        events(&bytes).iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(streamed, text[..at]);

    let (_, several) = complete(json!({ "prompt": ["abc", "abd"], "n": 2 }));
    assert_eq!(several["choices"].as_array().unwrap().len(), 4);
}

#[test]
fn a_prompt_is_echoed_with_what_its_tokens_are_worth() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let ask = |more: Value| {
        let mut body = json!({ "model": running.model(), "seed": 1, "logprobs": 2 });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        client.done("/v1/completions", &body)["choices"][0].clone()
    };
    let drawn = ask(json!({ "prompt": "abc", "max_tokens": 6, "ignore_eos": true, "echo": true }));
    let told = &drawn["logprobs"];
    let texts: Vec<&str> =
        told["tokens"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!((texts.len(), &texts[..3]), (9, &["a", "b", "c"][..]));
    assert!(drawn["text"].as_str().unwrap().starts_with("abc"), "{drawn}");

    // The same text, read alone: whatever was drawn has the log-probability that it was drawn with.
    let ids: Vec<i64> = {
        let file = std::fs::read(running.folder.path().join("model/tokenizer.json")).unwrap();
        let vocab = serde_json::from_slice::<Value>(&file).unwrap()["model"]["vocab"].clone();
        texts.iter().map(|text| vocab[*text].as_i64().unwrap()).collect()
    };
    let read = ask(json!({ "prompt": ids, "max_tokens": 0, "echo": true }));
    assert_eq!(read["finish_reason"], "length");
    let logprobs =
        |choice: &Value| choice["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    let (drawn, read) = (logprobs(&drawn), logprobs(&read));
    assert_eq!((drawn.len(), read.len()), (9, 9));
    assert_eq!((&drawn[0], &read[0]), (&Value::Null, &Value::Null));
    for (drawn, read) in drawn[1..].iter().zip(&read[1..]) {
        let (drawn, read) = (drawn.as_f64().unwrap(), read.as_f64().unwrap());
        assert!((drawn - read).abs() < 1e-4, "{drawn} {read}");
    }
    let tops = told["top_logprobs"].as_array().unwrap();
    assert_eq!(tops.len(), 9);
    assert!(tops[0].is_null() && tops[1..].iter().all(|own| own.as_object().unwrap().len() == 2));

    // More completions than one request may have, and a prompt of nothing.
    for (more, words) in [
        (json!({ "prompt": vec![3; 250], "n": 1024 }), "1024 completions of all prompts"),
        (json!({ "prompt": ["a", ""] }), "at least one token"),
    ] {
        let mut body = json!({ "model": running.model(), "max_tokens": 0, "echo": true });
        for (name, value) in more.as_object().unwrap() {
            // Within a request's own limits: so many prompts of the kind.
            let many = name == "prompt" && value[0].is_number();
            body[name] = if many { json!(vec![value; 2]) } else { value.clone() };
        }
        let (status, refused) = client.post("/v1/completions", &body);
        assert_eq!(status, 400, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(words), "{refused}");
    }

    let alone = ask(json!({ "prompt": "a", "max_tokens": 0, "echo": true }));
    assert_eq!(logprobs(&alone), [Value::Null]);
    let body = json!({ "model": running.model(), "prompt": "a", "echo": true, "stream": true });
    let (status, refused) = client.post("/v1/completions", &body);
    assert_eq!(status, 400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("`echo`"), "{refused}");
}

/// The lesson of `posttrain-recipes` that asks a server, with this one as the server.
#[test]
fn a_teacher_behind_this_server_reads_what_it_reads_beside_the_policy() {
    let running = Running::start(&[]);
    let checkpoint = Checkpoint::open(&running.folder.path().join("model")).unwrap();
    let model = TextModel::load(&checkpoint, Quantize::None, Kind::Float, Device::Cpu).unwrap();
    let style = PromptStyle::default();
    let client = JsonClientConfig::for_server(&format!("{}/v1", running.url)).unwrap();
    let remote = TeacherConfig::Server { model: running.model(), client: Box::new(client) };
    let local = TeacherConfig::Prompted { prompt: style.clone() };

    let lora = LoraConfig { rank: 2, ..Default::default() };
    let own = Trainer::new(model.decoder.clone(), &lora, TrainerConfig::default(), 3).unwrap();
    let examples: Vec<Example> =
        (0..12).map(|n| Example::new(n.to_string(), "all", format!("{n} and {n}"), "")).collect();
    let asked: Vec<TokenAnswer<'_>> =
        examples.iter().map(|example| TokenAnswer { example, tokens: &[9, 4, 30, 0] }).collect();
    let read = |teacher: &TeacherConfig| {
        teacher.build(&model, &style).unwrap().logprobs(&asked, 1.0, &own).unwrap().concat()
    };
    let (remote, local) = (read(&remote), read(&local));
    assert_eq!((remote.len(), local.len()), (48, 48));
    for (remote, local) in remote.iter().zip(&local) {
        assert!((remote - local).abs() < 1e-4, "{remote} {local}");
    }
}

#[test]
fn what_is_not_served_is_refused_by_its_field() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = running.model();
    for (more, words) in [
        (json!({ "unknown_field": 1 }), "unknown_field"),
        (json!({ "frequency_penalty": 0.5 }), "frequency_penalty"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_p": 0 }), "top_p"),
        (json!({ "n": 0 }), "`n`"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "top_logprobs": 3 }), "logprobs"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "nobody", "content": "x" }] }), "messages[0]"),
        (json!({ "stop_token_ids": [-4] }), "-4"),
        (json!({ "seed": "one" }), "`seed`"),
        (json!({ "stream_options": { "usage": 1 } }), "stream_options.usage"),
    ] {
        let (status, answer) = chat(&client, &model, &more);
        assert_eq!(status, 400, "{more} {answer}");
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(said.contains(words), "{words}: {said}");
    }
    for field in ["unknown_field", "temperature", "seed", "n"] {
        let (_, answer) = chat(&client, &model, &json!({ field: [] }));
        assert_eq!(answer["error"]["param"], field, "{answer}");
    }
    assert_eq!(chat(&client, "another", &json!({})).0, 404);
    let neutral = json!({ "frequency_penalty": 0, "user": "me", "response_format": { "type": "text" }, "top_k": -1 });
    assert_eq!(chat(&client, &model, &neutral).0, 200);
}

/// A model that has made a step of this rate, as a sampler's checkpoint; its path.
fn stepped(client: &Client, base: &str, number: i64, rate: f64) -> String {
    let model = client.create_model(&client.session(), number, base);
    client.pass(&model, 1, false);
    let params = json!({ "learning_rate": rate });
    let body = json!({ "model_id": model, "seq_id": 2, "adam_params": params });
    let step = client.done("/api/v1/optim_step", &body);
    client.json_result(step["request_id"].as_str().unwrap());
    let body = json!({ "model_id": model, "seq_id": 3, "path": "stepped" });
    let saved = client.done("/api/v1/save_weights_for_sampler", &body);
    let saved = client.json_result(saved["request_id"].as_str().unwrap());
    saved["path"].as_str().unwrap().to_owned()
}

#[test]
fn an_adapter_that_has_diverged_is_its_owners_trouble_alone() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let broken = stepped(&client, &running.model(), 0, 1e30);
    let whole = stepped(&client, &running.model(), 1, 1e-2);
    let long = json!({ "max_tokens": 40, "temperature": 1 });
    let (status, alone) = chat(&client, &whole, &long);
    assert_eq!(status, 200, "{alone}");

    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (status, answer) = chat(&client, &broken, &long);
                let words = answer["error"]["message"].as_str().unwrap_or_default();
                assert!(status == 400 && words.contains("diverged"), "{status} {answer}");
                asked += 1;
            }
            asked
        });
        for _ in 0..20 {
            let (status, answer) = chat(&client, &whole, &long);
            assert_eq!((status, &answer["choices"]), (200, &alone["choices"]), "{answer}");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(beside.join().unwrap() > 0);
    });
}

#[test]
fn parts_of_text_are_one_text() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let (_, whole) = chat(&client, &running.model(), &json!({}));
    let part = |text: &str| json!({ "type": "text", "text": text });
    let parts = json!([{ "role": "user", "content": [part("hel"), part("lo")] }]);
    let (status, answer) = chat(&client, &running.model(), &json!({ "messages": parts }));
    assert_eq!((status, &answer["choices"]), (200, &whole["choices"]), "{answer}");
}

#[test]
fn checkpoints_and_adapters_answer_by_their_names() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    for step in 0..5 {
        client.pass(&model, 2 * step + 1, false);
        client.step(&model, i64::from(2 * step + 2));
    }
    let body = json!({ "model_id": model, "seq_id": 50, "path": "trained" });
    let saved = client.done("/api/v1/save_weights_for_sampler", &body);
    let saved = client.json_result(saved["request_id"].as_str().unwrap());
    let path = saved["path"].as_str().unwrap();

    let greedy = json!({ "temperature": 0 });
    let words = |name: &str| {
        let (status, answer) = chat(&client, name, &greedy);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["message"]["content"].clone()
    };
    let names = client.get("/v1/models").1.to_string();
    assert!(names.contains(path) && names.contains(&running.model()), "{names}");
    let trained = words(path);
    assert_ne!(trained, words(&running.model()));

    let load = json!({ "lora_name": "mine", "lora_path": path });
    assert_eq!(client.post("/v1/load_lora_adapter", &load).0, 200);
    assert_eq!(client.post("/v1/load_lora_adapter", &load).0, 400, "it is there already");
    assert_eq!(words("mine"), trained);
    assert_eq!(client.post("/v1/unload_lora_adapter", &json!({ "lora_name": "mine" })).0, 200);
    assert_eq!(chat(&client, "mine", &greedy).0, 404);

    // As a PEFT folder, which loads like any other.
    let (status, tar) = client.get_bytes(&format!(
        "/api/v1/training_runs/{model}/checkpoints/sampler_weights/trained/archive"
    ));
    assert_eq!(status, 200);
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(tar.as_slice()).unpack(folder.path()).unwrap();
    let load = json!({ "lora_name": "unpacked", "lora_path": folder.path().join("trained") });
    assert_eq!(client.post("/v1/load_lora_adapter", &load).0, 200);
    assert_eq!(words("unpacked"), trained);
}

#[test]
fn the_page_and_the_metrics_tell_what_goes_on() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    client.pass(&model, 1, false);
    client.step(&model, 2);
    client.save(&model, 3, "one");
    chat(&client, &running.model(), &json!({}));

    let page = String::from_utf8(client.get_bytes("/").1).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    for outside in ["http://", "https://", "src="] {
        let rest = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!rest.contains(outside), "{outside}");
    }
    let state = client.get("/page.json").1;
    assert_eq!(state["models"][0]["steps"], 1);
    let loss = state["models"][0]["history"][0]["loss"].as_f64().unwrap();
    assert!((loss - 64f64.ln()).abs() < 1.0, "{loss}");
    assert_eq!(state["checkpoints"][0]["id"], "weights/one");

    let metrics = String::from_utf8(client.get_bytes("/metrics").1).unwrap();
    for line in [
        "posttrain_models 1",
        "posttrain_checkpoints_written_total 1",
        "posttrain_training_calls_total{kind=\"optim_step\",outcome=\"done\"} 1",
        "posttrain_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}\n{metrics}");
    }
}
