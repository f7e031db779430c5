//! Preference optimization from a configuration file: of two answers the better one is made
//! likelier.
//!
//! ```text
//! cargo run --release -p examples --example dpo -- --config examples/configs/dpo.toml --out runs/dpo
//! ```
//!
//! The pairs are the data's own (metadata with `chosen` and `rejected`, TRL's columns), or, with
//! `lesson.completions`, what the policy itself answers at first: the best and the worst of so many answers by
//! the reward.

use anyhow::{Result, bail};
use clap::Parser;
use examples::{FineTuneFile, RunArgs, fine_tune, kept_examples};
use posttrain::data::Example;
use posttrain::loss::ObjectiveConfig;
use posttrain::model::TextModel;
use posttrain::recipes::lesson::{Preference, sample_pairs};
use posttrain::recipes::{Console, GroupSampler, Ranks, load_policy};
use posttrain::rollout::SamplingParams;
use serde::{Deserialize, Serialize};

/// What is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreferenceLesson {
    /// `dpo`, `ipo` or `simpo`, with its settings.
    objective: ObjectiveConfig,
    /// Answers that the policy is asked for at first, to be paired; without it the data have pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completions: Option<usize>,
    /// Whether the reference's log-probabilities of a pair are computed once, for all epochs.
    #[serde(default)]
    precompute_reference: bool,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    fine_tune::<PreferenceLesson, _>(&RunArgs::parse(), |config, model, data, place| {
        // The objective is checked before anything is sampled.
        let mut lesson =
            Preference::new(model.clone(), config.prompt.clone(), config.lesson.objective)?;
        if config.lesson.precompute_reference {
            lesson = lesson.with_precomputed_reference()?;
        }
        match config.lesson.completions {
            None => check_pairs(&data.train)?,
            Some(completions) if completions < 2 => {
                bail!(
                    "`lesson.completions` must be at least 2, to pair two answers; got {completions}"
                )
            }
            Some(completions) => {
                for (name, examples) in
                    [("train", &mut data.train), ("validation", &mut data.validation)]
                {
                    let path = place.out.join(format!("pairs_{name}.jsonl"));
                    let own = std::mem::take(examples);
                    let make = || pairs(config, model, (&own, completions), place.ranks);
                    *examples = kept_examples(&path, place.ranks, make)?;
                    eprintln!("{name}: {} of {} questions have a pair", examples.len(), own.len());
                }
                if data.train.is_empty() {
                    bail!("no question of the train split has a better and a worse answer");
                }
            }
        }
        Ok(lesson)
    })
}

/// Whether the data have pairs of their own.
fn check_pairs(examples: &[Example]) -> Result<()> {
    let has = |example: &Example, field: &str| {
        example.metadata.as_ref().is_some_and(|metadata| metadata.contains_key(field))
    };
    let lacking = examples.iter().find(|e| !has(e, "chosen") || !has(e, "rejected"));
    if let Some(example) = lacking {
        bail!(
            "`lesson.completions` is left out, and example `{}` has no `chosen` and `rejected` in \
             its metadata: set `lesson.completions`, or give rows with pairs",
            example.id
        );
    }
    Ok(())
}

/// The best and worst answers of what the run begins with.
fn pairs(
    config: &FineTuneFile<PreferenceLesson>,
    model: &TextModel,
    (examples, completions): (&[Example], usize),
    ranks: &Ranks,
) -> Result<Vec<Example>> {
    let mut sampler = GroupSampler::new(model.clone(), config.reward.build()?)?;
    sampler.style = config.prompt.clone();
    sampler.ranks = ranks.clone();
    sampler.engine = config.fine_tune.engine.clone();
    let sampling =
        SamplingParams { seed: config.fine_tune.seed, ..config.fine_tune.sampling.clone() };
    let begins = config.fine_tune.adapter.as_deref();
    let policy = begins.map(|folder| load_policy(folder, &model.decoder)).transpose()?;
    let console = &mut Console::default();
    Ok(sample_pairs(&sampler, policy.as_ref(), examples, completions, &sampling, console)?)
}
