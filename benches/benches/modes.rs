//! Steps of reinforcement learning whose reward takes its time, as a judge's does: log-normal, 200
//! ms at the median, seconds in the tail. `after_the_batch` scores when the last completion is
//! sampled; the others are the modes of `RlConfig`. What is printed is each mode's median step.
//!
//! ```text
//! cargo bench -p benches --bench modes
//! ```

use anyhow::Result;
use benches as _; // its allocator
use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain::data::{Example, SplitConfig, sciences, split};
use posttrain::lora::LoraConfig;
use posttrain::model::{ComputeKind, DeviceChoice, Quantize, TextModel};
use posttrain::recipes::{
    GroupOrder, MetricsLog, Mode, ModelSource, PromptForm, PromptStyle, RlConfig, RlRun, Shot,
    Silent, StepRecord,
};
use posttrain::reward::{Reward, RewardError, Sample, Score};
use posttrain::rollout::SamplingParams;
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const STEPS: u64 = 9;
const MEDIAN: f64 = 0.2; // seconds
const SPREAD: f64 = 1.2; // of the logarithm

/// Right answers, after a while that depends on the sample alone.
struct Slow {
    /// Closed until a batch is sampled, where scoring waits for it.
    gate: Option<Arc<Semaphore>>,
}

impl Slow {
    fn latency(sample: &Sample) -> Duration {
        // Two numbers from 0 to 1 make a normal one (Box and Muller).
        let uniform = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, &sample.id, &sample.response).hash(&mut hasher);
            (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
        };
        let radius = (-2.0 * uniform(1).max(1e-12).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * uniform(2)).cos();
        Duration::from_secs_f64(MEDIAN * (SPREAD * normal).exp())
    }
}

impl Reward for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        async move {
            if let Some(gate) = &self.gate {
                gate.acquire().await.map(|permit| permit.forget()).unwrap_or_default();
            }
            tokio::time::sleep(Self::latency(sample)).await;
            Ok(Score::binary(sample.response.trim() == sample.reference))
        }
        .boxed()
    }
}

/// Opens the gate when all of a batch is sampled.
struct Gatekeeper {
    gate: Arc<Semaphore>,
    total: usize,
}

impl posttrain::recipes::Observer for Gatekeeper {
    fn see(&mut self, event: &posttrain::recipes::Event<'_>) {
        use posttrain::recipes::{Event, Phase};
        if let Event::Progress { phase: Phase::Sampling, done, total } = *event
            && done == total
            && total == self.total
        {
            self.gate.add_permits(total);
        }
    }
}

fn config(mode: Mode, group_order: GroupOrder) -> RlConfig {
    RlConfig {
        seed: 7,
        steps: STEPS,
        mode,
        group_order,
        max_staleness: 1,
        prompts: 16,
        group_size: 8,
        learning_rate: 1e-4,
        checkpoint_every: STEPS,
        lora: LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() },
        sampling: SamplingParams {
            max_tokens: 12,
            stop: vec!["\n".into()],
            ..SamplingParams::default()
        },
        ..RlConfig::default()
    }
}

fn style() -> PromptStyle {
    let shot = |question: &str, answer: &str| Shot {
        question: question.to_owned(),
        answer: answer.to_owned(),
    };
    PromptStyle {
        form: PromptForm::Plain,
        shots: vec![shot("What is 3 + 4?", "7"), shot("What is 5 less than 14?", "9")],
        ..PromptStyle::default()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A mode's median step, seconds, the first left out.
fn measure(
    model: &TextModel,
    examples: &[Example],
    config: RlConfig,
    after_the_batch: bool,
) -> Result<f64> {
    let dir = std::env::temp_dir().join(format!("posttrain-modes-{}", std::process::id()));
    let gate = after_the_batch.then(|| Arc::new(Semaphore::new(0)));
    let total = config.prompts as usize * config.group_size;
    let reward = Arc::new(Slow { gate: gate.clone() });
    let run = RlRun::new(model.clone(), reward, config, &dir)?.with_style(style());
    match gate {
        Some(gate) => run.train(examples, &[], &mut Gatekeeper { gate, total })?,
        None => run.train(examples, &[], &mut Silent)?,
    };
    let (_, records) = MetricsLog::<StepRecord>::open(&dir, u64::MAX)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(median(records[1..].iter().map(|record| record.seconds).collect()))
}

fn main() -> Result<()> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let source = ModelSource {
        path,
        device: DeviceChoice::default(),
        kind: ComputeKind::default(),
        quantize: Quantize::default(),
    };
    let model = source.load()?;
    let splits =
        split(&sciences::generate(7)?, &SplitConfig { seed: 7, ..SplitConfig::default() })?;
    let examples: Vec<Example> =
        splits.train.into_iter().filter(|example| example.domain == sciences::MATH).collect();

    let cases = [
        ("after_the_batch", Mode::OnPolicy, GroupOrder::Fixed),
        ("on_policy", Mode::OnPolicy, GroupOrder::Fixed),
        ("streaming, fixed", Mode::Streaming, GroupOrder::Fixed),
        ("streaming, arrival", Mode::Streaming, GroupOrder::Arrival),
        ("asynchronous, fixed", Mode::Asynchronous, GroupOrder::Fixed),
        ("asynchronous, arrival", Mode::Asynchronous, GroupOrder::Arrival),
    ];
    let mut first = None;
    for (name, mode, order) in cases {
        let batch = name == "after_the_batch";
        let seconds = measure(&model, &examples, config(mode, order), batch)?;
        let against = *first.get_or_insert(seconds);
        println!(
            "{}",
            json!({ "mode": name, "median_step_seconds": seconds, "of_after_the_batch": seconds / against })
        );
    }
    Ok(())
}
