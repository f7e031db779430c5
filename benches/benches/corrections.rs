//! What an objective makes of samples that are several versions old: accuracy over the steps, on
//! policy and at a staleness of eight, without a correction and with some. A line a run and an
//! evaluation.
//!
//! ```text
//! cargo bench -p benches --bench corrections -- --seeds 3 --steps 40 --rate 3e-4
//! ```

use anyhow::{Context, Result, bail};
use benches::ShortAnswers;
use posttrain::loss::PolicyObjective;
use posttrain::loss::policy::{Correction, CorrectionLevel, CorrectionRule, PolicyLoss};
use posttrain::recipes::{
    EvaluationConfig, GuardAction, MetricsLog, Mode, RlConfig, RlRun, Silent, StepRecord,
};
use posttrain::reward::{Reward, Sample, Score, from_fn};
use serde_json::json;
use std::sync::Arc;

struct Arm {
    name: &'static str,
    staleness: u64,
    objective: PolicyObjective,
}

fn arms() -> Vec<Arm> {
    // A weight of 1 whatever the ratio is: as if the samples were the policy's own.
    let uncorrected = PolicyObjective {
        loss: PolicyLoss::Cispo { clip_low_threshold: 1.0, clip_high_threshold: 1.0 },
        ..PolicyObjective::default()
    };
    let token = Correction::default();
    let mask = Correction {
        level: CorrectionLevel::Sequence,
        rule: CorrectionRule::Mask,
        low: 0.0,
        high: 3.0,
    };
    let corrected =
        |correction| PolicyObjective { correction: Some(correction), ..PolicyObjective::default() };
    vec![
        Arm { name: "on policy", staleness: 0, objective: PolicyObjective::default() },
        Arm { name: "stale, uncorrected", staleness: 8, objective: uncorrected },
        Arm { name: "stale, importance sampling", staleness: 8, objective: Default::default() },
        Arm { name: "stale, truncated by token", staleness: 8, objective: corrected(token) },
        Arm { name: "stale, masked by sequence", staleness: 8, objective: corrected(mask) },
    ]
}

struct Options {
    first: u64,
    seeds: u64,
    steps: u64,
    rate: f64,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { first: 1, seeds: 3, steps: 40, rate: 3e-4 };
        // `cargo bench` adds an option of its own.
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} lacks its value"))?;
            match name.as_str() {
                "--first" => options.first = value.parse().context("--first")?,
                "--seeds" => options.seeds = value.parse().context("--seeds")?,
                "--steps" => options.steps = value.parse().context("--steps")?,
                "--rate" => options.rate = value.parse().context("--rate")?,
                _ => bail!("{name}: expected --first, --seeds, --steps or --rate"),
            }
        }
        Ok(options)
    }
}

fn run(work: &ShortAnswers, arm: &Arm, seed: u64, options: &Options) -> Result<Vec<StepRecord>> {
    let dir = std::env::temp_dir().join(format!("posttrain-corrections-{}", std::process::id()));
    let mut config = RlConfig {
        learning_rate: options.rate,
        max_staleness: arm.staleness.max(1),
        mode: if arm.staleness == 0 { Mode::OnPolicy } else { Mode::Asynchronous },
        objective: arm.objective,
        evaluation: EvaluationConfig { every: 10, examples: Some(200), samples: 1 },
        ..ShortAnswers::config(seed, options.steps)
    };
    config.guards.logprob_gap.action = GuardAction::Ignore;
    let right = |sample: &Sample| Ok(Score::binary(sample.response.trim() == sample.reference));
    let reward: Arc<dyn Reward> = Arc::new(from_fn("exact", right));
    let run =
        RlRun::new(work.model.clone(), reward, config, &dir)?.with_style(ShortAnswers::style());
    run.train(&work.train, &work.validation, &mut Silent)?;
    let (_, records) = MetricsLog::<StepRecord>::open(&dir, u64::MAX)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(records)
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let work = ShortAnswers::load()?;
    for seed in options.first..options.first + options.seeds {
        for arm in arms() {
            let records = run(&work, &arm, seed, &options)?;
            let gap = records.iter().map(|record| record.logprob_gap).fold(0.0, f64::max);
            let accuracy: Vec<_> = records
                .iter()
                .filter_map(|record| Some((record.step, record.validation?.sampled.share)))
                .collect();
            let entropy = records.last().map(|record| record.entropy);
            println!(
                "{}",
                json!({ "seed": seed, "arm": arm.name, "accuracy": accuracy, "largest_gap": gap, "last_entropy": entropy })
            );
        }
    }
    Ok(())
}
