//! Steps of reinforcement learning whose reward takes its time, as a judge's does: log-normal, 200
//! ms at the median, seconds in the tail. `after_the_batch` scores when the last completion is
//! sampled, `at_once` has rewards that take no time: what sampling and training cost alone. The
//! others are the modes of `RlConfig`. What is printed is each mode's median step. The steps are the
//! math specialist's (`examples/configs/rlvr-math.toml`), or with `short` those of short answers by a
//! small adapter, which cost less than the wait.
//!
//! ```text
//! cargo bench -p benches --bench modes
//! cargo bench -p benches --bench modes -- short after_the_batch "streaming, arrival"
//! ```

use anyhow::Result;
use benches::ShortAnswers;
use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain::lora::LoraConfig;
use posttrain::recipes::{
    GroupOrder, MetricsLog, Mode, PromptStyle, RlConfig, RlRun, Silent, StepRecord,
};
use posttrain::reward::{Reward, RewardError, Sample, Score};
use posttrain::rollout::SamplingParams;
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const STEPS: u64 = 9;
const MEDIAN: f64 = 0.2; // seconds
const SPREAD: f64 = 1.2; // of the logarithm

/// Answers that have the right one in them, after a while that depends on the sample alone.
struct Slow {
    /// Closed until a batch is sampled, where scoring waits for it.
    gate: Option<Arc<Semaphore>>,
    /// Whether it takes its time.
    waits: bool,
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
            if self.waits {
                tokio::time::sleep(Self::latency(sample)).await;
            }
            Ok(Score::binary(sample.response.contains(&sample.reference)))
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

/// What a step is made of.
struct Workload {
    config: RlConfig,
    style: PromptStyle,
}

impl Workload {
    fn specialist() -> Self {
        let short = ShortAnswers::config(7, STEPS);
        Self {
            config: RlConfig {
                lora: LoraConfig { rank: 128, alpha: 128.0, ..short.lora.clone() },
                sampling: SamplingParams { max_tokens: 24, ..SamplingParams::default() },
                ..short
            },
            style: PromptStyle {
                suffix: " Answer with only the final answer.".into(),
                ..PromptStyle::default()
            },
        }
    }

    fn short() -> Self {
        Self { config: ShortAnswers::config(7, STEPS), style: ShortAnswers::style() }
    }

    fn config(&self, mode: Mode, group_order: GroupOrder) -> RlConfig {
        RlConfig { mode, group_order, max_staleness: 1, ..self.config.clone() }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A mode's median step, seconds, the first left out.
fn measure(work: &ShortAnswers, style: &PromptStyle, config: RlConfig, name: &str) -> Result<f64> {
    let dir = std::env::temp_dir().join(format!("posttrain-modes-{}", std::process::id()));
    let gate = (name == "after_the_batch").then(|| Arc::new(Semaphore::new(0)));
    let total = config.prompts as usize * config.group_size;
    let reward = Arc::new(Slow { gate: gate.clone(), waits: name != "at_once" });
    let run = RlRun::new(work.model.clone(), reward, config, &dir)?.with_style(style.clone());
    match gate {
        Some(gate) => run.train(&work.train, &[], &mut Gatekeeper { gate, total })?,
        None => run.train(&work.train, &[], &mut Silent)?,
    };
    let (_, records) = MetricsLog::<StepRecord>::open(&dir, u64::MAX)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(median(records[1..].iter().map(|record| record.seconds).collect()))
}

fn main() -> Result<()> {
    let work = ShortAnswers::load()?;
    let cases = [
        ("after_the_batch", Mode::OnPolicy, GroupOrder::Fixed),
        ("at_once", Mode::OnPolicy, GroupOrder::Fixed),
        ("on_policy", Mode::OnPolicy, GroupOrder::Fixed),
        ("streaming, fixed", Mode::Streaming, GroupOrder::Fixed),
        ("streaming, arrival", Mode::Streaming, GroupOrder::Arrival),
        ("asynchronous, fixed", Mode::Asynchronous, GroupOrder::Fixed),
        ("asynchronous, arrival", Mode::Asynchronous, GroupOrder::Arrival),
    ];
    let mut first = None;
    // `cargo bench` adds an option of its own.
    let mut only: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let short = only.iter().any(|word| word == "short");
    only.retain(|word| word != "short");
    let steps = if short { Workload::short() } else { Workload::specialist() };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|own| own == name);
    for (name, mode, order) in cases.into_iter().filter(|(name, ..)| wanted(name)) {
        let seconds = measure(&work, &steps.style, steps.config(mode, order), name)?;
        let against = *first.get_or_insert(seconds);
        println!(
            "{}",
            json!({ "mode": name, "median_step_seconds": seconds, "of_after_the_batch": seconds / against })
        );
    }
    Ok(())
}
