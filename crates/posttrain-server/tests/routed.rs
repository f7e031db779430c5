//! An experiment's specialists behind its router, served as one model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running};
use posttrain_lora::{Adapter, LoraConfig, save_peft};
use posttrain_model::ModelConfig;
use serde_json::{Value, json};

const CONFIG: &str = r#"
seed = 7

[model]
path = "unused"

[data]
dataset = "sciences"
seed = 7
sizes = { train = 64, validation = 16, test = 16 }

[prompt]
form = "plain"

[rl]
steps = 4
prompts = 16

[rl.sampling]
max_tokens = 8
stop = ["\n"]

[routing]
used = "ngrams"

[[routing.routers]]
name = "ngrams"
kind = "ngrams"
"#;

#[test]
fn a_question_goes_to_the_specialist_that_the_router_names() {
    let run = tempfile::tempdir().unwrap();
    std::fs::write(run.path().join("config.toml"), CONFIG).unwrap();
    for (seed, arm) in ["math", "natural", "social", "generalist"].into_iter().enumerate() {
        let config = LoraConfig { rank: 2, ..LoraConfig::default() };
        let modules = ModelConfig::tiny().modules();
        let adapter = Adapter::init(&config, &modules, seed as u64, tch::Device::Cpu).unwrap();
        // Each of them says something else.
        for (name, parameter) in adapter.parameters() {
            let _ = tch::no_grad(|| parameter.detach().fill_(0.02 * (seed as f64 + 1.0)));
            assert!(name.contains("lora"));
        }
        save_peft(&adapter, &run.path().join(arm).join("last"), "tiny").unwrap();
    }

    let running = Running::start(&["--experiment", run.path().to_str().unwrap()]);
    let client = Client::new(&running.url);
    let names = client.get("/v1/models").1.to_string();
    for name in ["routed", "math", "natural", "social", "generalist"] {
        assert!(names.contains(&format!("\"{name}\"")), "{name}: {names}");
    }

    let ask = |model: &str, question: &str| {
        let body = json!({
            "model": model, "max_tokens": 6, "temperature": 0,
            "messages": [{ "role": "user", "content": question }],
        });
        let (status, headers, answer) = client.post_with_headers("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let words: Value = answer["choices"][0]["message"]["content"].clone();
        (words, headers.get("x-posttrain-route").cloned())
    };
    for (question, domain) in [
        ("What is 17 + 25?", "math"),
        ("What is the capital of Kenya?", "social"),
        ("What is the chemical symbol of Copper?", "natural"),
    ] {
        let (routed, route) = ask("routed", question);
        assert_eq!(route.as_deref(), Some(domain), "{question}");
        let (own, none) = ask(domain, question);
        assert_eq!((routed, none), (own, None), "{question}");
    }
}
