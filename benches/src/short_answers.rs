//! Short sums for whole runs of reinforcement learning: the model, its questions and how they are
//! put.

use anyhow::Result;
use posttrain::data::{Example, SplitConfig, sciences, split};
use posttrain::lora::LoraConfig;
use posttrain::model::{ComputeKind, DeviceChoice, Quantize, TextModel};
use posttrain::recipes::{ModelSource, PromptForm, PromptStyle, RlConfig, Shot};
use posttrain::rollout::SamplingParams;
use std::path::Path;

/// Sums with their answers, and the demonstration model.
pub struct ShortAnswers {
    /// The demonstration model.
    pub model: TextModel,
    /// Trained on.
    pub train: Vec<Example>,
    /// Not trained on.
    pub validation: Vec<Example>,
}

impl ShortAnswers {
    /// Loads them.
    ///
    /// # Errors
    /// If the demonstration model is not installed.
    pub fn load() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../.models/SmolLM2-135M-Instruct.Q4_1.gguf");
        let source = ModelSource {
            path,
            device: DeviceChoice::default(),
            kind: ComputeKind::default(),
            quantize: Quantize::default(),
        };
        let splits =
            split(&sciences::generate(7)?, &SplitConfig { seed: 7, ..SplitConfig::default() })?;
        let own = |examples: Vec<Example>| {
            examples.into_iter().filter(|example| example.domain == sciences::MATH).collect()
        };
        Ok(Self {
            model: source.load()?,
            train: own(splits.train),
            validation: own(splits.validation),
        })
    }

    /// Two sums with their answers, then the question: a line is answered with a line.
    #[must_use]
    pub fn style() -> PromptStyle {
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

    /// Steps of 16 questions with 8 answers each.
    #[must_use]
    pub fn config(seed: u64, steps: u64) -> RlConfig {
        RlConfig {
            seed,
            steps,
            prompts: 16,
            group_size: 8,
            learning_rate: 1e-4,
            checkpoint_every: steps,
            lora: LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() },
            sampling: SamplingParams {
                max_tokens: 12,
                stop: vec!["\n".into()],
                ..SamplingParams::default()
            },
            ..RlConfig::default()
        }
    }
}
