//! Distillation: the policy answers, and a teacher says of each token how likely it is; or a teacher
//! has answered, and left what it held likely.

use super::turns::fitting;
use super::{HeldOut, Lesson, Teacher, TokenAnswer};
use crate::observer::{Phase, Silent};
use crate::prompt::PromptStyle;
use crate::rollout::{GroupSampler, RolloutRequest};
use crate::{Ranks, RecipeError};
use posttrain_data::Example;
use posttrain_loss::Objective;
use posttrain_loss::distillation::{Distillation, Divergence};
use posttrain_model::TextModel;
use posttrain_reward::{Score, from_fn};
use posttrain_rollout::{EngineConfig, SamplingParams};
use posttrain_train::{Datum, Trainer, derive_seed};
use serde::Deserialize;
use std::sync::Arc;

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
        let mut answers = Vec::new();
        for group in &rollout.groups {
            answers.extend(group.completions.iter().map(|scored| TokenAnswer {
                example: &group.example,
                tokens: &scored.completion.tokens,
            }));
        }
        let teacher = self.teacher.logprobs(&answers, self.sampling.temperature, trainer)?;

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

    fn divide(&mut self, ranks: &Ranks) {
        self.sampler.ranks = ranks.clone();
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

/// Off-policy distillation from what a teacher has left behind: each example's metadata has the
/// teacher's `tokens`, and for each of them `top_logprobs`, `K` pairs of a token id and its
/// log-probability, the same `K` throughout. The policy covers what the teacher held likely (forward
/// KL over those `K`). Its held-out measure is `forward_kl`, nats per token.
///
/// Of a teacher that left its answers alone, those are learned as [`Supervised`](super::Supervised)
/// has it.
pub struct OffPolicyDistillation {
    model: TextModel,
    style: PromptStyle,
    objective: Distillation,
}

/// What a teacher left of one answer.
#[derive(Deserialize)]
struct TeacherAnswer {
    tokens: Vec<i64>,
    top_logprobs: Vec<Vec<(i64, f32)>>,
}

impl OffPolicyDistillation {
    /// A lesson for `model`'s policy, which is asked as `style` has it.
    #[must_use]
    pub fn new(model: TextModel, style: PromptStyle) -> Self {
        let objective =
            Distillation { divergence: Divergence::ForwardKl, ..Distillation::default() };
        Self { model, style, objective }
    }

    fn datum(&self, example: &Example) -> Result<Datum, RecipeError> {
        let refused = |reason: String| RecipeError::example(example, format!("metadata {reason}"));
        let metadata = serde_json::Value::Object(example.metadata.clone().unwrap_or_default());
        let answer = TeacherAnswer::deserialize(&metadata)
            .map_err(|error| refused(format!("has no teacher's answer: {error}")))?;
        let entries = answer.top_logprobs.first().map_or(0, Vec::len);
        if entries == 0 || answer.top_logprobs.len() != answer.tokens.len() {
            return Err(refused(format!(
                "`top_logprobs` must have at least one entry for each of {} tokens, got {} lists",
                answer.tokens.len(),
                answer.top_logprobs.len()
            )));
        }
        for (place, top) in answer.top_logprobs.iter().enumerate() {
            let fits = |(_, logprob): &(i64, f32)| logprob.is_finite() && *logprob <= 1e-3;
            if top.len() != entries || !top.iter().all(fits) {
                return Err(refused(format!(
                    "`top_logprobs`, token {place}: expected {entries} pairs of a token id and a \
                     log-probability of at most 0, got {top:?}"
                )));
            }
        }

        let prompt =
            self.style.encode(&example.question, &self.model.tokenizer, &self.model.template)?;
        let top = || answer.top_logprobs.iter().flatten();
        let datum = Datum {
            targets_per_position: entries,
            targets: top().map(|(token, _)| *token).collect(),
            ..Datum::completion(&prompt, &answer.tokens)
        };
        // A token's entries are a sum, and tokens are averaged over.
        let weights = vec![entries as f32; datum.targets.len()];
        let logprobs = top().map(|(_, logprob)| *logprob).collect();
        let datum = datum.with_weights(weights).with_reference_logprobs(logprobs);
        fitting(&self.model, example, datum)
    }
}

impl Lesson for OffPolicyDistillation {
    fn objective(&self) -> &dyn Objective {
        &self.objective
    }

    fn datums(
        &self,
        _step: u64,
        examples: &[Example],
        _trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        examples.iter().map(|example| self.datum(example)).collect()
    }

    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError> {
        let datums = self.datums(0, examples, trainer)?;
        let own = trainer.forward(&datums)?.logprobs;
        let mut sum = 0.0;
        let mut positions = 0;
        for (datum, own) in datums.iter().zip(&own) {
            positions += datum.positions.len();
            for (p, q) in own.iter().zip(datum.reference_logprobs.iter().flatten()) {
                sum += f64::from(q.exp() * (q - p));
            }
        }
        Ok(HeldOut { name: "forward_kl", value: sum / positions.max(1) as f64 })
    }
}
