//! Sampling by servers elsewhere, played by a stand-in that speaks vLLM's or SGLang's protocol over
//! the small model: a run learns from what they sample, goes on where they die, and refuses one that serves
//! another policy than it says. (`cargo xtask test --servers` asks a real vLLM the same.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_lora::LoraConfig;
use posttrain_recipes::{
    EvaluationMode, RecipeError, RlConfig, RunOutcome, SamplerConfig, ServersConfig, Silent,
    load_policy,
};
use posttrain_rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, SamplingParams,
};
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
    /// It gives every fourth request up.
    Aborts,
}

/// Whose protocol it speaks.
#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Vllm,
    Sglang,
}

struct StandIn {
    world: World,
    protocol: Protocol,
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
        let refused = match self.protocol {
            Protocol::Vllm => ResponseTemplate::new(404),
            Protocol::Sglang => ResponseTemplate::new(400),
        };
        match called.trim_start_matches("/v1") {
            "/load_lora_adapter" if self.fault == Fault::NoAdapters => refused,
            "/load_lora_adapter" => {
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
            "/unload_lora_adapter" => {
                state.unloaded += 1;
                state.adapters.remove(&name("lora_name").unwrap());
                ResponseTemplate::new(200).set_body_string("Success: LoRA adapter removed")
            }
            _ => {
                let field = if self.protocol == Protocol::Vllm { "model" } else { "lora_path" };
                let policy = match name(field) {
                    None => {
                        state.base_requests += 1;
                        None
                    }
                    Some(name) => match state.adapters.get(&name) {
                        Some(policy) => Some(policy.clone()),
                        None => return refused.set_body_string(format!("{name} is not loaded")),
                    },
                };
                drop(state);
                let answer = match self.protocol {
                    Protocol::Vllm => self.complete(body, policy),
                    Protocol::Sglang => self.generate(body, policy, n),
                };
                ResponseTemplate::new(200).set_body_json(answer)
            }
        }
    }

    fn complete(&self, body: &Value, policy: Option<PolicySnapshot>) -> Value {
        let params = SamplingParams {
            max_tokens: number(body, "max_tokens"),
            min_tokens: number(body, "min_tokens"),
            temperature: body["temperature"].as_f64().unwrap(),
            seed: number(body, "seed") as u64,
            ..SamplingParams::default()
        };
        let choice = |(sample, completion): (usize, Completion)| {
            let ids = (self.fault != Fault::NoTokenIds).then_some(&completion.tokens);
            json!({
                "index": sample,
                // It lies: the reward is for the tokens.
                "text": "7 7 7",
                "finish_reason": finish_word(&completion),
                "token_ids": ids,
                "logprobs": {"token_logprobs": completion.logprobs},
            })
        };
        let drawn = self.draw(&body["prompt"], number(body, "n"), params, policy);
        json!({"choices": drawn.into_iter().map(choice).collect::<Vec<_>>()})
    }

    fn generate(&self, body: &Value, policy: Option<PolicySnapshot>, request: usize) -> Value {
        assert_eq!(body["return_logprob"], true);
        let sampling = &body["sampling_params"];
        let params = SamplingParams {
            max_tokens: number(sampling, "max_new_tokens"),
            min_tokens: number(sampling, "min_new_tokens"),
            temperature: sampling["temperature"].as_f64().unwrap(),
            // It has no seeds.
            seed: request as u64,
            ..SamplingParams::default()
        };
        // A list of prompts that are all one group's.
        let prompts = body["input_ids"].as_array().unwrap();
        assert!(prompts.iter().all(|prompt| *prompt == prompts[0]));
        let mut drawn = self.draw(&prompts[0], prompts.len(), params, policy);
        drawn.sort_by_key(|(sample, _)| *sample);
        let sample = |(_, completion): (usize, Completion)| {
            let gives_up = self.fault == Fault::Aborts && request.is_multiple_of(4);
            let token = |(logprob, id): (&f32, &i64)| json!([logprob, id, null]);
            let tokens = completion.logprobs.iter().zip(&completion.tokens).map(token);
            let reason = if gives_up { "abort" } else { finish_word(&completion) };
            let mut meta = json!({ "finish_reason": { "type": reason } });
            if self.fault != Fault::NoTokenIds {
                meta["output_token_logprobs"] = tokens.collect();
            }
            json!({ "text": "7 7 7", "meta_info": meta })
        };
        drawn.into_iter().map(sample).collect()
    }

    fn draw(
        &self,
        prompt: &Value,
        samples: usize,
        params: SamplingParams,
        policy: Option<PolicySnapshot>,
    ) -> Vec<(usize, Completion)> {
        let prompt = prompt.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        let tokenizer = Some(self.world.model.tokenizer.clone());
        let decoder = self.world.model.decoder.clone();
        let mut engine = Engine::new(decoder, tokenizer, EngineConfig::default()).unwrap();
        engine.submit(Request::new(prompt, params).samples(samples).policy(policy));
        let mut drawn = Vec::new();
        engine.run(|outcome| drawn.push((outcome.sample, outcome.result.unwrap()))).unwrap();
        drawn
    }
}

fn number(body: &Value, field: &str) -> usize {
    body[field].as_u64().unwrap() as usize
}

fn finish_word(completion: &Completion) -> &'static str {
    if completion.finish_reason.is_truncated() { "length" } else { "stop" }
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
    protocol: Protocol,
    _runtime: tokio::runtime::Runtime,
}

impl Servers {
    fn start(protocol: Protocol, faults: &[Fault]) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let servers = faults.iter().map(|&fault| {
            let world = match fault {
                Fault::AnotherBase => World::of_seed(2),
                _ => World::new(),
            };
            let stand_in = Arc::new(StandIn { world, protocol, fault, state: Mutex::default() });
            let server = runtime.block_on(async {
                let server = MockServer::start().await;
                let called = match protocol {
                    Protocol::Vllm => {
                        ["/v1/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]
                    }
                    Protocol::Sglang => ["/generate", "/load_lora_adapter", "/unload_lora_adapter"],
                };
                for called in called {
                    let given = Mock::given(method("POST")).and(path(called));
                    given.respond_with(Wire(stand_in.clone())).mount(&server).await;
                }
                server
            });
            (server, stand_in)
        });
        Self { servers: servers.collect(), protocol, _runtime: runtime }
    }

    fn sampler(&self) -> SamplerConfig {
        let of = |path: &str| ServersConfig {
            urls: self.servers.iter().map(|(server, _)| server.uri() + path).collect(),
            patience_seconds: 12.0,
            ..ServersConfig::default()
        };
        match self.protocol {
            Protocol::Vllm => SamplerConfig::Vllm(of("/v1")),
            Protocol::Sglang => SamplerConfig::Sglang(of("")),
        }
    }

    fn train(&self, steps: u64, folder: &Path) -> Result<RunOutcome, RecipeError> {
        let lora = LoraConfig { dropout: 0.0, ..config(1).lora };
        let config = RlConfig { lora, sampler: self.sampler(), ..config(steps) };
        let world = World::new();
        world.run(config, folder, reward()).train(&examples(0..40), &examples(40..60), &mut Silent)
    }
}

#[test]
fn a_run_learns_from_what_vllm_samples() {
    learns(Protocol::Vllm);
}

#[test]
fn a_run_learns_from_what_sglang_samples() {
    learns(Protocol::Sglang);
}

fn learns(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::start(protocol, &[Fault::None, Fault::None]);
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
    for (name, protocol, fault) in [
        ("forgets", Protocol::Vllm, Fault::Forgets),
        ("forgets-too", Protocol::Sglang, Fault::Forgets),
        ("breaks", Protocol::Vllm, Fault::Breaks),
        ("refused", Protocol::Vllm, Fault::AnotherBase),
        ("no-ids", Protocol::Vllm, Fault::NoTokenIds),
        ("no-tokens", Protocol::Sglang, Fault::NoTokenIds),
        ("aborts", Protocol::Sglang, Fault::Aborts),
    ] {
        let servers = Servers::start(protocol, &[fault, Fault::None]);
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
    let refused_by = |protocol: Protocol, fault: Fault, name: &str| {
        let servers = Servers::start(protocol, &[fault]);
        servers.train(3, &dir.path().join(name)).unwrap_err().to_string()
    };
    let refused = |fault, name| refused_by(Protocol::Vllm, fault, name);
    let old = refused(Fault::KeepsTheFirst, "old");
    assert!(old.contains("it still serves that one") || old.contains("another policy"), "{old}");
    assert!(old.contains("no server was of use for 12 s"), "{old}");
    let other = refused(Fault::AnotherBase, "base");
    assert!(other.contains("it serves another base"), "{other}");
    let none = refused(Fault::NoAdapters, "none");
    assert!(none.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"), "{none}");
    let none = refused_by(Protocol::Sglang, Fault::NoAdapters, "none-either");
    assert!(none.contains("`--lora-target-modules all`"), "{none}");
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let of = |vllm: ServersConfig| {
        let sampler = SamplerConfig::Vllm(vllm);
        RlConfig { sampler, ..config(1) }.validate().unwrap_err().to_string()
    };
    let urls = vec!["http://127.0.0.1:1/v1".to_owned()];
    let fine = ServersConfig { urls, ..ServersConfig::default() };
    assert!(of(ServersConfig::default()).contains("sampler.urls"));
    assert!(
        of(ServersConfig { urls: vec!["no address".into()], ..fine.clone() })
            .contains("sampler.urls")
    );
    assert!(of(ServersConfig { in_flight: 0, ..fine.clone() }).contains("sampler.in_flight"));
    assert!(of(ServersConfig { tolerance: 0.0, ..fine.clone() }).contains("sampler.tolerance"));
    assert!(of(ServersConfig { seconds: f64::NAN, ..fine.clone() }).contains("sampler.seconds"));
    let masked = RlConfig {
        sampler: SamplerConfig::Sglang(fine.clone()),
        sampling: SamplingParams { min_tokens: 2, ..config(1).sampling },
        ..config(1)
    };
    let refused = masked.validate().unwrap_err().to_string();
    assert!(refused.contains("sampling.min_tokens"), "{refused}");
    let other_engine = RlConfig {
        sampler: SamplerConfig::Vllm(fine),
        engine: EngineConfig { max_rows: 4, ..EngineConfig::default() },
        ..config(1)
    };
    assert!(other_engine.validate().unwrap_err().to_string().contains("`engine` must be left out"));
}
