//! Sampling by servers elsewhere, played by a stand-in that speaks vLLM's protocol over the small
//! model: a run learns from what they sample, goes on where they die, and refuses one that serves
//! another policy than it says. (`cargo xtask test --servers` asks a real vLLM the same.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_lora::LoraConfig;
use posttrain_recipes::{
    EvaluationMode, RecipeError, RlConfig, RunOutcome, SamplerConfig, Silent, VllmConfig,
    load_policy,
};
use posttrain_rollout::{Engine, EngineConfig, PolicySnapshot, Request, SamplingParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Respond, ResponseTemplate};
use world::{World, config, examples, records, reward};

/// What a stand-in does beside what it should.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It says that it has loaded a policy, and goes on with the first.
    KeepsTheFirst,
    /// It forgets its policies at every fifth request, as one that is started anew.
    Forgets,
    /// Every third request ends in a 503.
    Breaks,
    /// It samples from another base.
    AnotherBase,
    /// It takes no policies.
    NoAdapters,
    /// Its answers lack what was asked for.
    NoTokenIds,
}

struct StandIn {
    world: World,
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    adapters: BTreeMap<String, PolicySnapshot>,
    /// Every name that it was ever given.
    names: Vec<String>,
    unloaded: usize,
    requests: usize,
    base_requests: usize,
}

impl StandIn {
    fn answer(&self, called: &str, body: &Value) -> ResponseTemplate {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        let n = state.requests;
        match self.fault {
            Fault::Breaks if n.is_multiple_of(3) => return ResponseTemplate::new(503),
            Fault::Forgets if n.is_multiple_of(5) => state.adapters.clear(),
            _ => {}
        }
        let name = |field: &str| body[field].as_str().map(str::to_owned);
        match called {
            "/v1/load_lora_adapter" if self.fault == Fault::NoAdapters => {
                ResponseTemplate::new(404)
            }
            "/v1/load_lora_adapter" => {
                let name = name("lora_name").unwrap();
                let folder = body["lora_path"].as_str().unwrap();
                let policy = load_policy(folder.as_ref(), &self.world.model.decoder).unwrap();
                let first = state.adapters.values().next().cloned();
                let policy = match self.fault {
                    Fault::KeepsTheFirst => first.unwrap_or(policy),
                    _ => policy,
                };
                state.names.push(name.clone());
                state.adapters.insert(name, policy);
                ResponseTemplate::new(200).set_body_string("Success: LoRA adapter added")
            }
            "/v1/unload_lora_adapter" => {
                state.unloaded += 1;
                state.adapters.remove(&name("lora_name").unwrap());
                ResponseTemplate::new(200).set_body_string("Success: LoRA adapter removed")
            }
            _ => {
                let policy = match name("model") {
                    None => {
                        state.base_requests += 1;
                        None
                    }
                    Some(name) => match state.adapters.get(&name) {
                        Some(policy) => Some(policy.clone()),
                        None => return ResponseTemplate::new(404),
                    },
                };
                drop(state);
                ResponseTemplate::new(200).set_body_json(self.complete(body, policy))
            }
        }
    }

    fn complete(&self, body: &Value, policy: Option<PolicySnapshot>) -> Value {
        let number = |field: &str| body[field].as_u64().unwrap();
        let prompt: Vec<i64> =
            body["prompt"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        let params = SamplingParams {
            max_tokens: number("max_tokens") as usize,
            min_tokens: number("min_tokens") as usize,
            temperature: body["temperature"].as_f64().unwrap(),
            seed: number("seed"),
            ..SamplingParams::default()
        };
        let tokenizer = Some(self.world.model.tokenizer.clone());
        let decoder = self.world.model.decoder.clone();
        let mut engine = Engine::new(decoder, tokenizer, EngineConfig::default()).unwrap();
        let request = Request::new(prompt, params).samples(number("n") as usize);
        engine.submit(request.policy(policy));
        let mut choices = Vec::new();
        engine
            .run_while(|outcome| {
                let completion = outcome.result.unwrap();
                let ids = (self.fault != Fault::NoTokenIds).then_some(&completion.tokens);
                choices.push(json!({
                    "index": outcome.sample,
                    // It lies: the reward is for the tokens.
                    "text": "7 7 7",
                    "finish_reason": if completion.finish_reason.is_truncated() { "length" } else { "stop" },
                    "token_ids": ids,
                    "logprobs": {"token_logprobs": completion.logprobs},
                }));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        json!({"choices": choices})
    }
}

struct Wire(Arc<StandIn>);

impl Respond for Wire {
    fn respond(&self, request: &wiremock::Request) -> ResponseTemplate {
        let body = serde_json::from_slice(&request.body).unwrap();
        self.0.answer(request.url.path(), &body)
    }
}

/// Servers with these faults, for as long as they live.
struct Servers {
    servers: Vec<(MockServer, Arc<StandIn>)>,
    _runtime: tokio::runtime::Runtime,
}

impl Servers {
    fn start(faults: &[Fault]) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let servers = faults.iter().map(|&fault| {
            let world = match fault {
                Fault::AnotherBase => World::of_seed(2),
                _ => World::new(),
            };
            let stand_in = Arc::new(StandIn { world, fault, state: Mutex::default() });
            let server = runtime.block_on(async {
                let server = MockServer::start().await;
                for called in ["completions", "load_lora_adapter", "unload_lora_adapter"] {
                    let given = Mock::given(method("POST")).and(path(format!("/v1/{called}")));
                    given.respond_with(Wire(stand_in.clone())).mount(&server).await;
                }
                server
            });
            (server, stand_in)
        });
        Self { servers: servers.collect(), _runtime: runtime }
    }

    fn sampler(&self) -> SamplerConfig {
        SamplerConfig::Vllm(VllmConfig {
            urls: self.servers.iter().map(|(server, _)| format!("{}/v1", server.uri())).collect(),
            patience_seconds: 12.0,
            ..VllmConfig::default()
        })
    }

    fn train(&self, steps: u64, folder: &Path) -> Result<RunOutcome, RecipeError> {
        let lora = LoraConfig { dropout: 0.0, ..config(1).lora };
        let config = RlConfig { lora, sampler: self.sampler(), ..config(steps) };
        let world = World::new();
        world.run(config, folder, reward()).train(&examples(0..40), &examples(40..60), &mut Silent)
    }
}

#[test]
fn a_run_learns_from_what_servers_sample() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::start(&[Fault::None, Fault::None]);
    assert!(servers.train(12, &dir.path().join("run")).unwrap().complete);
    let written = records(&dir.path().join("run"));
    assert_eq!(written.len(), 12);
    let mean = |some: &[posttrain_recipes::StepRecord]| {
        some.iter().map(|record| record.reward).sum::<f64>() / some.len() as f64
    };
    assert!(mean(&written[9..]) > mean(&written[..3]) + 0.2, "{written:?}");
    // What was sampled elsewhere is what is trained on, to f32's rounding.
    assert!(written.iter().all(|record| record.logprob_gap < 1e-4));

    for (_, stand_in) in &servers.servers {
        let state = stand_in.state.lock().unwrap();
        // A name is a policy's own, old ones are let go of, and both are asked.
        assert_eq!(state.names.iter().collect::<BTreeSet<_>>().len(), state.names.len());
        assert!(state.names.len() >= 4, "{:?}", state.names);
        assert!(state.unloaded + 3 >= state.names.len(), "{} {:?}", state.unloaded, state.names);
        assert!(state.adapters.len() <= 3, "{:?}", state.adapters.keys());
    }

    // The base is asked for without a name.
    let sampler = servers.sampler();
    let world = World::new();
    let run = world.run(RlConfig { sampler, ..config(1) }, &dir.path().join("other"), reward());
    let mode = EvaluationMode::Sampled;
    let base = run.evaluate("base", None, &examples(40..60), mode, &mut Silent).unwrap();
    assert_eq!(base.sampled.n, 20);
    let asked = |s: &(MockServer, Arc<StandIn>)| s.1.state.lock().unwrap().base_requests;
    assert_eq!(servers.servers.iter().map(asked).sum::<usize>(), 20);
}

#[test]
fn servers_that_break_or_start_anew_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, faults) in [
        ("forgets", vec![Fault::Forgets, Fault::None]),
        ("breaks", vec![Fault::Breaks, Fault::None]),
        ("refused", vec![Fault::AnotherBase, Fault::None]),
        ("no-ids", vec![Fault::NoTokenIds, Fault::None]),
    ] {
        let servers = Servers::start(&faults);
        let folder = dir.path().join(name);
        assert!(servers.train(3, &folder).unwrap().complete, "{name}");
        let written = records(&folder);
        assert_eq!(written.len(), 3);
        assert!(written.iter().all(|record| record.logprob_gap < 1e-4), "{name}: {written:?}");
    }
}

#[test]
fn a_server_that_serves_another_policy_than_it_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |fault: Fault, name: &str| {
        let servers = Servers::start(&[fault]);
        servers.train(3, &dir.path().join(name)).unwrap_err().to_string()
    };
    let old = refused(Fault::KeepsTheFirst, "old");
    assert!(old.contains("it still serves that one") || old.contains("another policy"), "{old}");
    assert!(old.contains("no server was of use for 12 s"), "{old}");
    let other = refused(Fault::AnotherBase, "base");
    assert!(other.contains("it serves another base"), "{other}");
    let none = refused(Fault::NoAdapters, "none");
    assert!(none.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"), "{none}");
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let of = |vllm: VllmConfig| {
        let sampler = SamplerConfig::Vllm(vllm);
        RlConfig { sampler, ..config(1) }.validate().unwrap_err().to_string()
    };
    let urls = vec!["http://127.0.0.1:1/v1".to_owned()];
    let fine = VllmConfig { urls, ..VllmConfig::default() };
    assert!(of(VllmConfig::default()).contains("sampler.urls"));
    assert!(
        of(VllmConfig { urls: vec!["no address".into()], ..fine.clone() }).contains("sampler.urls")
    );
    assert!(of(VllmConfig { in_flight: 0, ..fine.clone() }).contains("sampler.in_flight"));
    assert!(of(VllmConfig { tolerance: 0.0, ..fine.clone() }).contains("sampler.tolerance"));
    assert!(of(VllmConfig { seconds: f64::NAN, ..fine.clone() }).contains("sampler.seconds"));
    let other_engine = RlConfig {
        sampler: SamplerConfig::Vllm(fine),
        engine: EngineConfig { max_rows: 4, ..EngineConfig::default() },
        ..config(1)
    };
    assert!(other_engine.validate().unwrap_err().to_string().contains("`engine` must be left out"));
}
