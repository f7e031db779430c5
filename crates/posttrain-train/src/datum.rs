//! What a model is trained on: a text, the positions that are scored, and what an objective needs
//! of each.

use crate::TrainError;
use posttrain_loss::{LossError, StepTotals};
use posttrain_rollout::{Completion, Recording};

/// A text to train on, with what is known of each of its scored positions.
///
/// The model reads `input`; at each of `positions` its prediction is scored against `targets`. A
/// completion of a prompt, a conversation with turns that are masked, one half of a preference, a
/// trajectory with observations, a teacher's `K` most probable tokens: all of them are datums, and
/// what is done with their scores is an [`Objective`](posttrain_loss::Objective)'s matter.
///
/// Per-target fields stand in one order: position after position, each with its `K` targets. `S` is
/// the number of positions, `T` that of tokens.
///
/// ```
/// use posttrain_train::Datum;
///
/// // A completion of two tokens after a prompt of three, better than its group's mean.
/// let datum = Datum::completion(&[1, 2, 3], &[7, 8]).with_sampling_logprobs(vec![-0.5, -1.5]).with_advantage(1.0);
/// assert_eq!(datum.input, [1, 2, 3, 7]); // what follows the last token is not scored
/// assert_eq!(datum.positions, [2, 3]);
/// assert_eq!(datum.targets, [7, 8]);
/// assert_eq!(datum.advantages, Some(vec![1.0, 1.0]));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// `[T]` token ids that the model reads, at least one.
    pub input: Vec<i64>,
    /// `[S]` places in `input` whose prediction is scored, rising.
    pub positions: Vec<usize>,
    /// `K`, targets per position, at least 1.
    pub targets_per_position: usize,
    /// `[S·K]` token ids that the predictions are scored against.
    pub targets: Vec<i64>,
    /// `[S·K]`, any sign; `None` is 1 everywhere. A target of weight 0 is scored, and nothing is
    /// trained on it.
    pub weights: Option<Vec<f32>>,
    /// `[S·K]`, what each target's probability is worth to a policy gradient.
    pub advantages: Option<Vec<f32>>,
    /// `[S·K]` nats, under the distribution that sampled the targets.
    pub sampling_logprobs: Option<Vec<f32>>,
    /// `[S·K]` nats, under the trainer's own policy before the step, where it is to be told apart
    /// from the sampler's: ratios are then taken to it, and what corrects for the sampler is its
    /// ratio to the sampler's. `None` where the sampler's stand for both.
    pub old_logprobs: Option<Vec<f32>>,
    /// `[S·K]` nats, under a reference or a teacher. Where an objective needs a reference and there
    /// is none here, it is the base without an adapter, or what `Trainer::with_reference` was given.
    pub reference_logprobs: Option<Vec<f32>>,
    /// What the logits are divided by before they are scored: the temperature that the targets were
    /// sampled at.
    pub temperature: f64,
    /// How many first tokens of `input` this datum shares with its neighbors in a batch. Neighbors
    /// whose first tokens are the same have them computed once: a group's prompt.
    pub shared_prefix: usize,
    /// The activations that it was sampled from: if all texts of a pass have theirs, and the policy
    /// has not moved since, its forward pass is not computed again.
    pub recording: Option<Recording>,
}

impl Datum {
    /// A prompt and its completion, of which every token is scored. The prompt is shared with the
    /// completions that stand beside it.
    #[must_use]
    pub fn completion(prompt: &[i64], tokens: &[i64]) -> Self {
        let read = tokens.len().saturating_sub(1);
        let first = prompt.len().saturating_sub(1);
        Self {
            input: [prompt, &tokens[..read]].concat(),
            positions: (first..first + tokens.len()).collect(),
            targets: tokens.to_vec(),
            shared_prefix: prompt.len(),
            ..Self::empty()
        }
    }

    /// A completion as it came out of an engine, with its log-probabilities, its activations if
    /// they were recorded, and the same advantage for each of its tokens.
    #[must_use]
    pub fn sampled(prompt: &[i64], completion: &Completion, advantage: f32) -> Self {
        let datum = Self::completion(prompt, &completion.tokens)
            .with_sampling_logprobs(completion.logprobs.clone())
            .with_advantage(advantage);
        Self { recording: completion.recording.clone(), ..datum }
    }

    /// A text of `T + 1` tokens, each but the first scored with its weight: `weights` has one for
    /// every token, the first one's without a meaning. Tokens of weight 0 (a system message, a
    /// question, an observation) are read and not scored.
    ///
    /// ```
    /// use posttrain_train::Datum;
    ///
    /// let datum = Datum::text(&[5, 6, 7, 8], &[0.0, 0.0, 1.0, 1.0]);
    /// assert_eq!((datum.input, datum.positions, datum.targets), (vec![5, 6, 7], vec![1, 2], vec![7, 8]));
    /// ```
    #[must_use]
    pub fn text(tokens: &[i64], weights: &[f32]) -> Self {
        let scored: Vec<usize> = (1..tokens.len())
            .filter(|&place| weights.get(place).is_some_and(|w| *w != 0.0))
            .collect();
        Self {
            input: tokens[..tokens.len().saturating_sub(1)].to_vec(),
            positions: scored.iter().map(|place| place - 1).collect(),
            targets: scored.iter().map(|&place| tokens[place]).collect(),
            weights: Some(scored.iter().map(|&place| weights[place]).collect()),
            ..Self::empty()
        }
    }

    /// An input whose every position is scored against `K` targets of its own: `targets: [T·K]`.
    #[must_use]
    pub fn with_targets(input: Vec<i64>, targets: Vec<i64>, targets_per_position: usize) -> Self {
        Self {
            positions: (0..input.len()).collect(),
            input,
            targets,
            targets_per_position,
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Self {
            input: Vec::new(),
            positions: Vec::new(),
            targets_per_position: 1,
            targets: Vec::new(),
            weights: None,
            advantages: None,
            sampling_logprobs: None,
            old_logprobs: None,
            reference_logprobs: None,
            temperature: 1.0,
            shared_prefix: 0,
            recording: None,
        }
    }

    /// Gives every target the same advantage.
    #[must_use]
    pub fn with_advantage(self, advantage: f32) -> Self {
        Self { advantages: Some(vec![advantage; self.targets.len()]), ..self }
    }

    /// Gives every target an advantage of its own, `[S·K]`.
    #[must_use]
    pub fn with_advantages(self, advantages: Vec<f32>) -> Self {
        Self { advantages: Some(advantages), ..self }
    }

    /// Gives every target its weight, `[S·K]`.
    #[must_use]
    pub fn with_weights(self, weights: Vec<f32>) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// Gives the sampler's log-probabilities, `[S·K]` nats.
    #[must_use]
    pub fn with_sampling_logprobs(self, logprobs: Vec<f32>) -> Self {
        Self { sampling_logprobs: Some(logprobs), ..self }
    }

    /// Gives the trainer's own log-probabilities before the step, `[S·K]` nats.
    #[must_use]
    pub fn with_old_logprobs(self, logprobs: Vec<f32>) -> Self {
        Self { old_logprobs: Some(logprobs), ..self }
    }

    /// Gives the reference's or the teacher's log-probabilities, `[S·K]` nats.
    #[must_use]
    pub fn with_reference_logprobs(self, logprobs: Vec<f32>) -> Self {
        Self { reference_logprobs: Some(logprobs), ..self }
    }

    /// Scores under a temperature other than 1.
    #[must_use]
    pub fn with_temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// Shares its first `tokens` tokens with its neighbors in a batch.
    #[must_use]
    pub fn with_shared_prefix(self, tokens: usize) -> Self {
        Self { shared_prefix: tokens, ..self }
    }

    /// The part of the input that neighbors may share.
    pub(crate) fn prefix(&self) -> &[i64] {
        &self.input[..self.shared_prefix]
    }

    /// Whether any target can move the model: one of a weight other than 0 and, where there are
    /// advantages, an advantage other than 0.
    #[must_use]
    pub fn has_signal(&self) -> bool {
        let weighs =
            |place: usize| self.weights.as_ref().is_none_or(|weights| weights[place] != 0.0);
        let counts = |place: usize| {
            self.advantages.as_ref().is_none_or(|advantages| advantages[place] != 0.0)
        };
        (0..self.targets.len()).any(|place| weighs(place) && counts(place))
    }

    /// Checks that all parts fit each other and a vocabulary of `vocab` tokens. `index` is the
    /// datum's place in its batch.
    ///
    /// # Errors
    /// [`TrainError::Datum`] names the field, what was expected and what came.
    pub(crate) fn check(&self, index: usize, vocab: i64) -> Result<(), TrainError> {
        let error = |field, expected: String, got: String| {
            Err(TrainError::Datum { index, field, expected, got })
        };

        if self.input.is_empty() {
            return error("input", "at least one token".into(), "none".into());
        }
        for (field, tokens) in [("input", &self.input), ("targets", &self.targets)] {
            if let Some(token) = tokens.iter().find(|token| !(0..vocab).contains(*token)) {
                return error(field, format!("token ids from 0 below {vocab}"), token.to_string());
            }
        }
        if self.shared_prefix > self.input.len() {
            let expected = format!("at most the input's {} tokens", self.input.len());
            return error("shared_prefix", expected, self.shared_prefix.to_string());
        }
        let rising = self.positions.is_sorted_by(|one, next| one < next);
        if !rising || self.positions.last().is_some_and(|last| *last >= self.input.len()) {
            let expected = format!("rising places below the input's {} tokens", self.input.len());
            return error("positions", expected, format!("{:?}", self.positions));
        }
        if self.targets_per_position == 0 {
            return error("targets_per_position", "at least 1".into(), "0".into());
        }
        let entries = self.positions.len() * self.targets_per_position;
        if self.targets.len() != entries {
            return error(
                "targets",
                format!("{entries}, {} a position", self.targets_per_position),
                self.targets.len().to_string(),
            );
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return error("temperature", "finite and above 0".into(), self.temperature.to_string());
        }
        for (field, values) in self.fields() {
            let Some(values) = values else { continue };
            if values.len() != entries {
                return error(
                    field,
                    format!("{entries} values, one a target"),
                    values.len().to_string(),
                );
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return error(field, "finite values".into(), value.to_string());
            }
        }
        Ok(())
    }

    fn fields(&self) -> [(&'static str, Option<&Vec<f32>>); 5] {
        [
            ("weights", self.weights.as_ref()),
            ("advantages", self.advantages.as_ref()),
            ("sampling_logprobs", self.sampling_logprobs.as_ref()),
            ("old_logprobs", self.old_logprobs.as_ref()),
            ("reference_logprobs", self.reference_logprobs.as_ref()),
        ]
    }
}

/// Checks that all datums have the same fields: what an objective does must not depend on who
/// shares a micro-batch with whom. Weights are 1 where they are not given.
pub(crate) fn check_alike(datums: &[Datum]) -> Result<(), TrainError> {
    let Some(first) = datums.first() else { return Ok(()) };

    for (index, datum) in datums.iter().enumerate() {
        for ((field, values), (_, of_first)) in datum.fields().into_iter().zip(first.fields()) {
            if field == "weights" || values.is_some() == of_first.is_some() {
                continue;
            }
            let [got, expected] =
                [values, of_first].map(|values| if values.is_some() { "values" } else { "none" });
            let expected = format!("{expected}, as datum 0 has");
            return Err(TrainError::Datum { index, field, expected, got: got.into() });
        }
    }
    Ok(())
}

/// Counts what datums hold in all: the totals of a step, where they are all of it.
///
/// # Errors
/// [`TrainError::Loss`] where weights and targets differ in number.
///
/// ```
/// use posttrain_train::{Datum, step_totals};
///
/// let datums = [Datum::completion(&[1], &[2, 3]), Datum::text(&[4, 5, 6], &[0.0, 0.0, 0.0])];
/// let totals = step_totals(&datums)?;
/// assert_eq!((totals.tokens, totals.sequences, totals.trained_sequences), (2, 2, 1));
/// # Ok::<(), posttrain_train::TrainError>(())
/// ```
pub fn step_totals(datums: &[Datum]) -> Result<StepTotals, TrainError> {
    // All at once: what is a pair shows in neighbors alone.
    let lengths: Vec<usize> = datums.iter().map(|datum| datum.targets.len()).collect();
    let mut weights = Vec::with_capacity(lengths.iter().sum());
    for datum in datums {
        match &datum.weights {
            Some(own) if own.len() != datum.targets.len() => {
                return Err(LossError::Length {
                    argument: "weights",
                    expected: datum.targets.len(),
                    got: own.len(),
                }
                .into());
            }
            Some(own) => weights.extend_from_slice(own),
            None => weights.resize(weights.len() + datum.targets.len(), 1.0),
        }
    }
    Ok(StepTotals::count(&lengths, Some(&weights))?)
}
