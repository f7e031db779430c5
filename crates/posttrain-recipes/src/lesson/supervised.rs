//! Supervised fine-tuning: answers, or an assistant's turns, are learned as they stand.

use super::{HeldOut, Lesson, conversation_datum};
use crate::RecipeError;
use crate::prompt::PromptStyle;
use posttrain_data::Example;
use posttrain_loss::{CrossEntropy, Objective};
use posttrain_model::TextModel;
use posttrain_train::{Datum, Trainer};

/// Supervised fine-tuning by cross-entropy. Its held-out measure is `nll`, the mean negative
/// log-likelihood of the tokens to be learned, nats per token.
pub struct Supervised {
    /// The model whose template and tokenizer are used.
    pub model: TextModel,
    /// How a question is put.
    pub style: PromptStyle,
    /// The loss.
    pub objective: CrossEntropy,
}

impl Supervised {
    fn of(&self, examples: &[Example]) -> Result<Vec<Datum>, RecipeError> {
        let datum = |example| conversation_datum(&self.model, &self.style, example);
        examples.iter().map(datum).collect()
    }
}

impl Lesson for Supervised {
    fn objective(&self) -> &dyn Objective {
        &self.objective
    }

    fn datums(
        &self,
        _step: u64,
        examples: &[Example],
        _trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        self.of(examples)
    }

    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError> {
        let logprobs = trainer.forward(&self.of(examples)?)?.logprobs.concat();
        let sum: f64 = logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
        Ok(HeldOut { name: "nll", value: -sum / logprobs.len().max(1) as f64 })
    }
}
