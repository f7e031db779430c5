//! Tinker's losses as objectives of this workspace.

use super::datum::Inputs;
use super::wire::{ForwardBackwardRequest, LossConfig};
use crate::refusal::Refusal;
use posttrain_loss::{
    Aggregation, CrossEntropy, LossBatch, LossError, Objective, PolicyLoss, PolicyObjective,
    TokenAdvantages,
};
use posttrain_train::{Datum, DatumScores, TrainError, step_totals};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A loss with what it reads of a datum.
#[derive(Clone)]
pub(crate) struct Loss {
    pub objective: Arc<dyn Objective>,
    pub inputs: Inputs,
}

const KNOWN: &str = "cross_entropy, importance_sampling, ppo, cispo, dro or gspo";

/// The settings that a request gives a loss, each taken once.
struct Settings {
    numbers: BTreeMap<String, f64>,
}

impl Settings {
    /// The newer form where it is there: the SDK writes both.
    fn of(request: &ForwardBackwardRequest) -> Result<Self, Refusal> {
        let mut numbers: BTreeMap<String, f64> =
            request.loss_fn_config.iter().map(|(name, value)| (name.clone(), *value)).collect();
        for (name, value) in &request.loss_fn_config_v2 {
            match &value.value {
                Some(LossConfig::Number(number)) => {
                    numbers.insert(name.clone(), *number);
                }
                Some(LossConfig::Text(text)) => {
                    return Err(Refusal::field(
                        &format!("loss_fn_config.{name}"),
                        "a number",
                        format!("{text:?}"),
                    ));
                }
                None => {
                    return Err(Refusal::field(
                        &format!("loss_fn_config.{name}"),
                        "a number",
                        "nothing",
                    ));
                }
            }
        }
        Ok(Self { numbers })
    }

    fn take(&mut self, name: &str, usual: f64) -> Result<f32, Refusal> {
        let value = self.numbers.remove(name).unwrap_or(usual);
        if value.is_finite() {
            Ok(value as f32)
        } else {
            Err(Refusal::field(&format!("loss_fn_config.{name}"), "a finite number", value))
        }
    }

    /// Refuses what no loss has taken.
    fn finish(self, loss: &str) -> Result<(), Refusal> {
        match self.numbers.into_keys().next() {
            Some(name) => {
                let expected = format!("settings of {loss}");
                Err(Refusal::field("loss_fn_config", &expected, format!("`{name}`")))
            }
            None => Ok(()),
        }
    }
}

/// The loss that a request names.
pub(crate) fn loss_of(request: &ForwardBackwardRequest) -> Result<Loss, Refusal> {
    let name = request.loss_fn.as_str();
    let mut settings = Settings::of(request)?;
    let loss = match name {
        "cross_entropy" => {
            settings.finish(name)?;
            let objective = CrossEntropy { aggregation: Aggregation::TokenSum {} };
            return Ok(Loss { objective: Arc::new(objective), inputs: Inputs::Weights });
        }
        "importance_sampling" => PolicyLoss::ImportanceSampling { ratio_cap: None },
        "ppo" => PolicyLoss::PpoRatio {
            clip_low_threshold: settings.take("clip_low_threshold", 0.8)?,
            clip_high_threshold: settings.take("clip_high_threshold", 1.2)?,
        },
        "cispo" => PolicyLoss::Cispo {
            clip_low_threshold: settings.take("clip_low_threshold", 0.0)?,
            clip_high_threshold: settings.take("clip_high_threshold", 4.0)?,
        },
        "dro" => PolicyLoss::Dro { beta: settings.take("beta", 0.05)? },
        // Tinker bounds the ratio itself, as in `ppo`.
        "gspo" => PolicyLoss::Gspo {
            clip_low: 1.0 - settings.take("clip_low_threshold", 0.8)?,
            clip_high: settings.take("clip_high_threshold", 1.2)? - 1.0,
        },
        "stable_reinforce" => {
            let detail = format!(
                "`loss_fn`: expected {KNOWN}, got stable_reinforce, whose formula is not published"
            );
            return Err(Refusal::invalid(detail));
        }
        "custom" => {
            let detail = "`loss_fn`: a loss of one's own runs in the client (`forward_backward_custom` with a function); this server takes no uploaded losses";
            return Err(Refusal::invalid(detail));
        }
        other => return Err(Refusal::field("loss_fn", KNOWN, format!("{other:?}"))),
    };
    settings.finish(name)?;

    let objective = PolicyObjective {
        loss,
        aggregation: Aggregation::TokenSum {},
        ..PolicyObjective::default()
    };
    objective.validate().map_err(|error| config_refusal(&error))?;
    let inputs = if name == "gspo" { Inputs::MaskedPolicy } else { Inputs::Policy };
    Ok(Loss { objective: Arc::new(objective), inputs })
}

fn config_refusal(error: &LossError) -> Refusal {
    Refusal::invalid(format!("`loss_fn_config`: {error}"))
}

/// The sum of a loss over datums that have been scored, without a gradient.
pub(crate) fn loss_of_scores(
    objective: &dyn Objective,
    datums: &[Datum],
    scores: &DatumScores,
) -> Result<f64, TrainError> {
    let lengths: Vec<usize> = datums.iter().map(|datum| datum.targets.len()).collect();
    let weights = flat(datums, |datum| datum.weights.as_ref(), Some(1.0));
    let sampling = flat(datums, |datum| datum.sampling_logprobs.as_ref(), None);
    let advantages = flat(datums, |datum| datum.advantages.as_ref(), None);
    let batch = LossBatch {
        weights: weights.as_deref(),
        sampling_logprobs: sampling.as_deref(),
        advantages: advantages.as_deref().map(TokenAdvantages::PerToken),
        ..LossBatch::of(&lengths)
    };
    let logprobs = scores.logprobs.concat();
    let outcome = objective.evaluate(&batch, &logprobs, None, &step_totals(datums)?)?;
    Ok(outcome.loss_sum)
}

/// A field of all datums, one after the other; `usual` stands where one of them has none.
fn flat(
    datums: &[Datum],
    field: impl Fn(&Datum) -> Option<&Vec<f32>>,
    usual: Option<f32>,
) -> Option<Vec<f32>> {
    if datums.iter().all(|datum| field(datum).is_none()) {
        return None;
    }
    let mut values = Vec::new();
    for datum in datums {
        match field(datum) {
            Some(own) => values.extend_from_slice(own),
            None => values.resize(values.len() + datum.targets.len(), usual?),
        }
    }
    Some(values)
}
