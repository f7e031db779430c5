//! Steps of supervised fine-tuning and of preference optimization, as a user runs them:
//! `FineTuneRun` on 16 texts, or 16 pairs, a step, LoRA of rank 128 on every linear layer. What is
//! printed is the median step and the process's largest memory, a line a lesson; the twin is
//! `peers/trl_fine_tune.py`.
//!
//! ```text
//! cargo bench -p benches --bench fine_tune -- sft
//! cargo bench -p benches --bench fine_tune -- dpo
//! ```

use anyhow::{Result, bail};
use benches::ShortAnswers;
use posttrain::data::Example;
use posttrain::lora::LoraConfig;
use posttrain::loss::{CrossEntropy, ObjectiveConfig};
use posttrain::recipes::lesson::{Lesson, Preference, Supervised};
use posttrain::recipes::{
    EvaluationConfig, FineTuneConfig, FineTuneRecord, FineTuneRun, MetricsLog, PromptStyle, Silent,
};
use posttrain::train::peak_memory_bytes;
use serde_json::{Map, json};

const STEPS: u64 = 8;
/// Sums of an answer that is learned, and of one of a pair.
const LEARNED: usize = 24;
const PAIRED: usize = 12;

/// Sums, the `n`-th answer's; each off by `off`. As `peers/workload.py` makes them.
fn sums(n: usize, count: usize, off: usize) -> String {
    let sum = |place: usize| {
        let (a, b) = ((n * 7 + place * 13) % 90 + 10, (n * 11 + place * 5) % 90 + 10);
        format!("{a} + {b} = {}.", a + b + off)
    };
    (0..count).map(sum).collect::<Vec<_>>().join(" ")
}

fn examples(count: usize) -> Vec<Example> {
    let example = |n: usize| {
        let metadata = json!({ "chosen": sums(n, PAIRED, 0), "rejected": sums(n, PAIRED, 1) });
        let metadata: Option<Map<_, _>> = metadata.as_object().cloned();
        let question = format!("Write down the sums of page {n}.");
        Example { metadata, ..Example::new(n.to_string(), "sums", question, sums(n, LEARNED, 0)) }
    };
    (0..count).map(example).collect()
}

/// Without its metadata an example is a question and an answer.
fn without_pairs(examples: Vec<Example>) -> Vec<Example> {
    examples.into_iter().map(|example| Example { metadata: None, ..example }).collect()
}

fn config() -> FineTuneConfig {
    FineTuneConfig {
        seed: 7,
        epochs: 1,
        batch: 16,
        learning_rate: 1e-4,
        lora: LoraConfig { rank: 128, alpha: 128.0, ..LoraConfig::default() },
        evaluation: EvaluationConfig { every: STEPS, ..EvaluationConfig::default() },
        checkpoint_every: STEPS,
        ..FineTuneConfig::default()
    }
}

fn measure<L: Lesson>(name: &str, work: &ShortAnswers, lesson: L, train: &[Example]) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("posttrain-fine-tune-{}", std::process::id()));
    let run = FineTuneRun::new(work.model.clone(), lesson, config(), &dir)?;
    run.train(train, &[], &mut Silent)?;
    let (_, records) = MetricsLog::<FineTuneRecord>::open(&dir, u64::MAX)?;
    std::fs::remove_dir_all(&dir)?;

    let mut seconds: Vec<f64> = records[1..].iter().map(|record| record.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let losses: Vec<f64> = records.iter().map(|record| record.loss).collect();
    let memory = peak_memory_bytes().map(|bytes| bytes as f64 / 1e9);
    println!(
        "{}",
        json!({ "lesson": name, "median_step_seconds": seconds[seconds.len() / 2], "peak_memory_gb": memory, "losses": losses })
    );
    Ok(())
}

fn main() -> Result<()> {
    // `cargo bench` adds an option of its own.
    let names: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let names = if names.is_empty() { vec!["sft".into(), "dpo".into()] } else { names };
    let work = ShortAnswers::load()?;
    let style = PromptStyle::default();
    let examples = examples(16 * STEPS as usize);
    for name in names {
        let model = work.model.clone();
        match name.as_str() {
            "sft" => {
                let objective = CrossEntropy::default();
                let lesson = Supervised { model, style: style.clone(), objective };
                measure(&name, &work, lesson, &without_pairs(examples.clone()))?;
            }
            "dpo" => {
                let objective: ObjectiveConfig =
                    serde_json::from_value(json!({ "kind": "dpo", "beta": 0.1 }))?;
                let lesson = Preference::new(model, style.clone(), objective)?;
                measure(&name, &work, lesson, &examples)?;
            }
            other => bail!("{other}: expected sft or dpo"),
        }
    }
    Ok(())
}
