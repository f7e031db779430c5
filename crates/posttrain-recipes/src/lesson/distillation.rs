//! On-policy distillation: the policy answers, and a teacher says of each token how likely it is.

use super::{HeldOut, Lesson};
use crate::RecipeError;
use crate::model_source::ModelSource;
use crate::observer::{Phase, Silent};
use crate::prompt::PromptStyle;
use crate::rollout::{GroupSampler, Rollout, RolloutRequest};
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::Objective;
use posttrain_loss::distillation::{Distillation, Divergence};
use posttrain_model::TextModel;
use posttrain_reward::{Score, from_fn};
use posttrain_rollout::{EngineConfig, SamplingParams};
use posttrain_train::{Datum, Trainer, TrainerConfig, derive_seed};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Who the teacher is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TeacherConfig {
    /// The base itself, which reads another prompt than the policy does: shots, instructions.
    Prompted {
        /// How the teacher is asked.
        prompt: PromptStyle,
    },
    /// A policy on the same base.
    Adapter {
        /// Its PEFT folder.
        path: PathBuf,
    },
    /// Another model with the same tokenizer.
    Model {
        /// Which.
        model: ModelSource,
    },
}

/// Says how likely tokens are behind a question.
pub struct Teacher {
    reader: Reader,
    style: PromptStyle,
    model: TextModel,
}

/// Whose log-probabilities are asked.
enum Reader {
    /// The trainer's own base.
    Base,
    /// An adapter on the same base.
    Adapter(Trainer),
    /// Another base.
    Model(Trainer),
}

impl TeacherConfig {
    /// The teacher of a policy over `model` that is asked in the style `style`.
    ///
    /// # Errors
    /// [`RecipeError::Lora`] or [`RecipeError::Model`] for files that cannot be read;
    /// [`RecipeError::Config`] for a model with another tokenizer.
    pub fn build(&self, model: &TextModel, style: &PromptStyle) -> Result<Teacher, RecipeError> {
        let lora = LoraConfig { rank: 1, ..LoraConfig::default() };
        let config = TrainerConfig::default();
        Ok(match self {
            Self::Prompted { prompt } => {
                Teacher { reader: Reader::Base, style: prompt.clone(), model: model.clone() }
            }
            Self::Adapter { path } => {
                let base = &model.decoder;
                let adapter = base.load_adapter(path)?;
                let reader = Trainer::with_adapter(base.clone(), adapter, config, 0)?;
                let reader = Reader::Adapter(reader);
                Teacher { reader, style: style.clone(), model: model.clone() }
            }
            Self::Model { model: source } => {
                let other = source.load()?;
                let same = other.tokenizer.to_json()? == model.tokenizer.to_json()?;
                let expected = "a model with the policy's tokenizer: token is compared with token";
                RecipeError::check("teacher.model", same, expected, &source.path.display())?;
                let reader = Trainer::new(other.decoder.clone(), &lora, config, 0)?;
                Teacher { reader: Reader::Model(reader), style: style.clone(), model: other }
            }
        })
    }
}

impl Teacher {
    /// Each completion's tokens' log-probabilities, nats, group after group.
    fn logprobs(&self, rollout: &Rollout, own: &Trainer) -> Result<Vec<Vec<f32>>, RecipeError> {
        let mut read = Vec::new();
        for group in &rollout.groups {
            let question = &group.example.question;
            let prompt =
                self.style.encode(question, &self.model.tokenizer, &self.model.template)?;
            for scored in &group.completions {
                read.push(Datum::completion(&prompt, &scored.completion.tokens));
            }
        }
        Ok(match &self.reader {
            Reader::Base => own.forward_reference(&read)?.logprobs,
            Reader::Adapter(teacher) => teacher.forward(&read)?.logprobs,
            Reader::Model(teacher) => teacher.forward_reference(&read)?.logprobs,
        })
    }
}

/// On-policy distillation (arXiv 2306.13649; Thinking Machines, 2025): the policy samples answers,
/// and each token is made likelier or less likely by how much the teacher prefers it,
/// `ln q − ln p`. Its held-out measure is `reverse_kl`, the mean of `ln p − ln q` over sampled
/// tokens, nats per token.
pub struct OnPolicyDistillation {
    /// What samples. Nothing is scored: the teacher is all that is asked.
    sampler: GroupSampler,
    teacher: Teacher,
    completions: usize,
    sampling: SamplingParams,
    seed: u64,
    objective: Distillation,
}

impl OnPolicyDistillation {
    /// A lesson in which `model`'s policy gives `completions` answers to each question, which is put
    /// as `style` has it. `sampling` has the seed that the draws follow from.
    ///
    /// # Errors
    /// [`RecipeError::Config`] without completions; [`RecipeError::Runtime`] where no thread can be
    /// started.
    pub fn new(
        model: TextModel,
        style: PromptStyle,
        teacher: Teacher,
        (completions, sampling): (usize, SamplingParams),
    ) -> Result<Self, RecipeError> {
        RecipeError::check("completions", completions >= 1, "at least 1", &completions)?;
        let unscored = from_fn("unscored", |_| Ok(Score::binary(false)));
        let mut sampler = GroupSampler::new(model, Arc::new(unscored))?;
        sampler.style = style;

        let seed = sampling.seed;
        let objective =
            Distillation { divergence: Divergence::SampledReverseKl, ..Distillation::default() };
        Ok(Self { sampler, teacher, completions, sampling, seed, objective })
    }

    /// Samples by a generation engine of another configuration.
    #[must_use]
    pub fn with_engine(mut self, engine: EngineConfig) -> Self {
        self.sampler.engine = engine;
        self
    }

    fn sample(
        &self,
        step: u64,
        examples: &[Example],
        trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        let seeded = |row| SamplingParams {
            seed: derive_seed(self.seed, "distill", step, row),
            ..self.sampling.clone()
        };
        let request = RolloutRequest {
            examples,
            policies: vec![Some(trainer.snapshot()?); examples.len()],
            completions: self.completions,
            sampling: (0..examples.len() as u64).map(seeded).collect(),
            phase: Phase::Sampling,
        };
        let rollout = self.sampler.rollout(request, &mut Silent)?;
        let teacher = self.teacher.logprobs(&rollout, trainer)?;

        let groups = rollout.groups.iter();
        let sampled = groups.flat_map(|group| {
            group.completions.iter().map(move |scored| (&group.prompt, &scored.completion))
        });
        let datum = |((prompt, completion), teacher): ((&Vec<i64>, _), Vec<f32>)| {
            Datum::sampled(prompt, completion, 0.0)
                .with_temperature(self.sampling.temperature)
                .with_reference_logprobs(teacher)
        };
        Ok(sampled.zip(teacher).map(datum).collect())
    }
}

impl Lesson for OnPolicyDistillation {
    fn objective(&self) -> &dyn Objective {
        &self.objective
    }

    fn datums(
        &self,
        step: u64,
        examples: &[Example],
        trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        self.sample(step, examples, trainer)
    }

    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError> {
        // The same draws each time, so that before and after differ by the policy alone.
        let datums = self.sample(u64::MAX, examples, trainer)?;
        let own = datums.iter().filter_map(|datum| datum.sampling_logprobs.as_ref()).flatten();
        let teacher = datums.iter().filter_map(|datum| datum.reference_logprobs.as_ref()).flatten();
        let distances: Vec<f64> = own.zip(teacher).map(|(p, q)| f64::from(p - q)).collect();
        let value = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
        Ok(HeldOut { name: "reverse_kl", value })
    }
}
