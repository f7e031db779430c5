//! Preference optimization: of two answers to a question, the better one is made likelier.

use super::{HeldOut, Lesson, answer_datum};
use crate::RecipeError;
use crate::observer::{Observer, Phase};
use crate::prompt::PromptStyle;
use crate::rollout::{GroupSampler, RolloutRequest, ScoredCompletion};
use posttrain_data::Example;
use posttrain_loss::{Objective, ObjectiveConfig, Scope};
use posttrain_model::TextModel;
use posttrain_rollout::{FinishReason, PolicySnapshot, SamplingParams};
use posttrain_train::{Datum, Trainer, derive_seed};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Two answers to an example's question, as an example's metadata has them (TRL's columns).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferencePair {
    /// The better one.
    pub chosen: String,
    /// The worse one.
    pub rejected: String,
}

/// Preference optimization by an objective of pairs: DPO, IPO or SimPO. The reference is what the run
/// began with: the base, or an adapter of another run. Its held-out measure is `preference_accuracy`, the share of pairs whose
/// chosen answer has gained more log-probability over the reference than the rejected one.
pub struct Preference {
    model: TextModel,
    style: PromptStyle,
    objective: Box<dyn Objective>,
    /// The reference's log-probabilities of each answer that was seen, where they are kept.
    kept: Option<Kept>,
}

/// The reference's log-probabilities of answers, by [`key`].
type Kept = Mutex<HashMap<(Vec<i64>, usize), Vec<f32>>>;

impl Preference {
    /// A lesson by `objective`, whose questions are put as `style` has them.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for an objective that is not one of pairs; [`RecipeError::Loss`]
    /// names a setting of it that is out of range.
    pub fn new(
        model: TextModel,
        style: PromptStyle,
        objective: ObjectiveConfig,
    ) -> Result<Self, RecipeError> {
        let objective = objective.build()?;
        let pairs = objective.scope() == Scope::Pair;
        RecipeError::check("objective", pairs, "one of pairs: dpo, ipo or simpo", &"another")?;
        Ok(Self { model, style, objective, kept: None })
    }

    /// Computes the reference's log-probabilities of a pair once, and not in every epoch anew (TRL's
    /// `precompute_ref_log_probs`), and keeps them in memory with the pair's tokens. With one epoch
    /// it saves nothing.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for an objective that has no reference.
    pub fn with_precomputed_reference(self) -> Result<Self, RecipeError> {
        let expected = "left out with an objective that has no reference";
        let has = self.objective.needs_reference();
        RecipeError::check("precompute_reference", has, expected, &true)?;
        Ok(Self { kept: Some(Mutex::default()), ..self })
    }

    /// Chosen, then rejected, of each example.
    fn of(&self, examples: &[Example]) -> Result<Vec<Datum>, RecipeError> {
        let mut datums = Vec::with_capacity(2 * examples.len());
        for example in examples {
            let pair = pair(example)?;
            for answer in [&pair.chosen, &pair.rejected] {
                datums.push(answer_datum(&self.model, &self.style, example, answer)?);
            }
        }
        Ok(datums)
    }
}

/// What a datum is known by: its text, and how much of it is scored.
fn key(datum: &Datum) -> (Vec<i64>, usize) {
    let text = datum.input.iter().chain(datum.targets.last()).copied().collect();
    (text, datum.targets.len())
}

/// Gives datums the reference's log-probabilities, computing those that are not kept yet.
fn with_reference(
    kept: &Kept,
    datums: Vec<Datum>,
    trainer: &Trainer,
) -> Result<Vec<Datum>, RecipeError> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let unseen: Vec<Datum> =
        datums.iter().filter(|datum| !kept.contains_key(&key(datum))).cloned().collect();
    if !unseen.is_empty() {
        let logprobs = trainer.forward_reference(&unseen)?.logprobs;
        kept.extend(unseen.iter().map(key).zip(logprobs));
    }

    let with = |datum: Datum| {
        let reference = kept[&key(&datum)].clone();
        datum.with_reference_logprobs(reference)
    };
    Ok(datums.into_iter().map(with).collect())
}

/// The pair in an example's metadata.
fn pair(example: &Example) -> Result<PreferencePair, RecipeError> {
    let metadata = example.metadata.clone().unwrap_or_default();
    serde_json::from_value(Value::Object(metadata))
        .map_err(|error| RecipeError::example(example, format!("metadata: {error}")))
}

impl Lesson for Preference {
    fn objective(&self) -> &dyn Objective {
        &*self.objective
    }

    fn datums(
        &self,
        _step: u64,
        examples: &[Example],
        trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        let datums = self.of(examples)?;
        match &self.kept {
            Some(kept) => with_reference(kept, datums, trainer),
            None => Ok(datums),
        }
    }

    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError> {
        let datums = self.of(examples)?;
        let policy = trainer.forward(&datums)?.logprobs;
        let reference = trainer.forward_reference(&datums)?.logprobs;

        let sum = |logprobs: &[f32]| logprobs.iter().map(|l| f64::from(*l)).sum::<f64>();
        let gains: Vec<f64> =
            policy.iter().zip(&reference).map(|(own, base)| sum(own) - sum(base)).collect();
        let pairs = gains.chunks_exact(2);
        let right = pairs.clone().filter(|pair| pair[0] > pair[1]).count();
        let value = right as f64 / pairs.len().max(1) as f64;
        Ok(HeldOut { name: "preference_accuracy", value })
    }
}

/// Pairs from what a policy itself answers, the base where there is none: of each example's completions one that scored best and
/// one that scored worst, in the example's metadata; examples whose completions all scored alike are
/// left out. Completions that were cut are neither.
///
/// # Errors
/// Those of [`GroupSampler::rollout`].
pub fn sample_pairs(
    sampler: &GroupSampler,
    policy: Option<&PolicySnapshot>,
    examples: &[Example],
    completions: usize,
    sampling: &SamplingParams,
    observer: &mut dyn Observer,
) -> Result<Vec<Example>, RecipeError> {
    let seeded = |example: &Example| {
        let seed = derive_seed(sampling.seed, &format!("pair {}", example.id), 0, 0);
        SamplingParams { seed, ..sampling.clone() }
    };
    let request = RolloutRequest {
        examples,
        policies: vec![policy.cloned(); examples.len()],
        completions,
        sampling: examples.iter().map(seeded).collect(),
        phase: Phase::Evaluating,
    };
    let rollout = sampler.rollout(request, observer)?;

    let mut paired = Vec::new();
    for group in rollout.groups {
        let whole = |scored: &&ScoredCompletion| {
            scored.completion.finish_reason == FinishReason::Stop
                && !scored.completion.text.trim().is_empty()
        };
        let scored: Vec<(f64, &str)> = group
            .completions
            .iter()
            .filter(whole)
            .filter_map(|scored| {
                let value = scored.score.as_ref().ok()?.value();
                Some((value, scored.completion.text.trim()))
            })
            .collect();

        // The first of equals, on either side.
        let best =
            scored.iter().copied().reduce(|best, next| if next.0 > best.0 { next } else { best });
        let worst = scored
            .iter()
            .copied()
            .reduce(|worst, next| if next.0 < worst.0 { next } else { worst });
        let (Some(best), Some(worst)) = (best, worst) else { continue };
        if best.0 > worst.0 {
            let mut example = group.example;
            let metadata = example.metadata.get_or_insert_default();
            metadata.insert("chosen".into(), best.1.into());
            metadata.insert("rejected".into(), worst.1.into());
            paired.push(example);
        }
    }
    Ok(paired)
}
