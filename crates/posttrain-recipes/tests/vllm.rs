//! A run whose sampling is all done by a real vLLM on the CPU, which dies in the middle of it.
//!
//! `POSTTRAIN_VLLM_PYTHON` names a Python that has vLLM; without it the test says that it is
//! skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use posttrain_data::Example;
use posttrain_lora::{Adapter, LoraConfig};
use posttrain_model::{Checkpoint, Quantize, TextModel};
use posttrain_recipes::{
    EvaluationConfig, Event, MetricsLog, Observer, PromptStyle, RlConfig, RlRun, SamplerConfig,
    ServersConfig, StepRecord,
};
use posttrain_reward::{Sample, Score, from_fn};
use posttrain_rollout::SamplingParams;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind};

const PYTHON: &str = "POSTTRAIN_VLLM_PYTHON";
const MODEL: &str = "../../.models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// A server, for as long as it lives.
struct Vllm {
    child: Child,
    python: String,
    model: std::path::PathBuf,
    port: u16,
}

impl Vllm {
    fn start(python: &str, model: &Path, port: u16) -> Self {
        let child = Self::command(python, model, port).spawn().unwrap();
        Self { child, python: python.into(), model: model.into(), port }
    }

    fn command(python: &str, model: &Path, port: u16) -> Command {
        let mut command = Command::new(python);
        command.args(["-m", "vllm.entrypoints.openai.api_server", "--model"]).arg(model);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--dtype", "float32"]);
        command.args(["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"]);
        command.args(["--max-cpu-loras", "4", "--max-model-len", "512", "--enforce-eager"]);
        command.args(["--logprobs-mode", "processed_logprobs"]);
        for (name, value) in [
            ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1"),
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
            ("VLLM_CPU_OMP_THREADS_BIND", "0-1"),
            ("OMP_NUM_THREADS", "2"),
            ("HF_HUB_OFFLINE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("DO_NOT_TRACK", "1"),
        ] {
            command.env(name, value);
        }
        // A group of its own, which is ended as a whole.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "vLLM ended");
            assert!(started.elapsed() < Duration::from_secs(600), "vLLM is not up");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-9", "--", &group]).status());
        drop(self.child.wait());
    }

    fn again(&mut self) {
        self.kill();
        self.child = Self::command(&self.python, &self.model, self.port).spawn().unwrap();
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills the server after a step, and starts it again.
struct KillsAfter<'a> {
    step: u64,
    server: &'a mut Vllm,
}

impl Observer for KillsAfter<'_> {
    fn see(&mut self, event: &Event<'_>) {
        if let Event::Step { record, .. } = event
            && record.step == self.step
        {
            self.server.again();
        }
    }
}

#[test]
fn a_real_vllm_samples_for_a_run_and_is_killed_in_it() {
    let Ok(python) = std::env::var(PYTHON) else {
        println!("SKIPPED: {PYTHON} names no Python that has vLLM");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(MODEL.as_ref()).unwrap();
    let model = TextModel::load(&checkpoint, Quantize::None, Kind::Float, Device::Cpu).unwrap();
    let exported = dir.path().join("model");
    let lora = LoraConfig { rank: 8, alpha: 8.0, ..LoraConfig::default() };
    // Nothing is folded in: a fresh adapter adds nothing.
    let fresh = Adapter::init(&lora, model.decoder.modules(), 1, Device::Cpu).unwrap();
    checkpoint.export_merged(&model.decoder, &fresh, &exported).unwrap();

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Vllm::start(&python, &exported, port);
    server.wait();
    let sampler = SamplerConfig::Vllm(ServersConfig {
        urls: vec![format!("http://127.0.0.1:{port}/v1")],
        // What rounding alone gives, many times over.
        tolerance: 0.01,
        ..ServersConfig::default()
    });
    let config = RlConfig {
        seed: 7,
        steps: 4,
        prompts: 4,
        group_size: 2,
        learning_rate: 1e-3,
        lora,
        sampler,
        sampling: SamplingParams { max_tokens: 8, ..SamplingParams::default() },
        evaluation: EvaluationConfig { every: 4, ..EvaluationConfig::default() },
        ..RlConfig::default()
    };
    let digits = |s: &Sample| Ok(Score::binary(s.response.chars().any(|c| c.is_ascii_digit())));
    let questions = (0..20).map(|n| {
        Example::new(n.to_string(), "math", format!("What is {n} + 2?"), (n + 2).to_string())
    });
    let questions: Vec<Example> = questions.collect();
    let folder = dir.path().join("run");
    let run = RlRun::new(model, Arc::new(from_fn("digits", digits)), config, &folder).unwrap();
    let run = run.with_style(PromptStyle::default());
    let mut kills = KillsAfter { step: 2, server: &mut server };
    let outcome = run.train(&questions[..16], &questions[16..], &mut kills).unwrap();
    assert!(outcome.complete);

    let (_, records) = MetricsLog::<StepRecord>::open(&folder, 4).unwrap();
    assert_eq!(records.len(), 4);
    for record in &records {
        println!(
            "step {}: reward {:.2}, |trainer - vLLM| {:.1e} nats, sampling {:.1} s",
            record.step, record.reward, record.logprob_gap, record.seconds_sampling
        );
        assert!(record.logprob_gap < 1e-3, "{record:?}");
    }
}
