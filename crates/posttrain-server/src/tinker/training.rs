//! Forward, backward, and steps of the optimizer.

use super::datum::{DatumBounds, ShapedDatum, read_datums};
use super::loss::{loss_of, loss_of_scores};
use super::sessions::Json200;
use super::wire::{
    ArrayRecord, BatchedTensor, DType, ForwardBackwardOutput, encoded, floats_to_bytes,
    read_forward_backward,
};
use crate::app::{App, Model};
use crate::keys::Owner;
use crate::promises::{Outcome, Taken};
use crate::refusal::Refusal;
use crate::request::{Json, Protobuf, Sequence};
use axum::extract::State;
use bytes::Bytes;
use posttrain_optim::AdamParams;
use posttrain_train::{Datum, ForwardBackward, Pending, TrainError, Trainer, TrainingClient};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

pub(crate) async fn forward_backward(
    State(app): State<Arc<App>>,
    owner: Owner,
    Protobuf(body): Protobuf,
) -> Result<Json200, Refusal> {
    let request = read_forward_backward(&body)?;
    let seq = i64::from(request.seq_id);
    if seq < 1 {
        return Err(Refusal::field("seq_id", "a number from 1", seq));
    }
    let model = app.model(&owner, &request.model_id)?;
    let bounds = DatumBounds {
        context: app.context(),
        vocab: app.vocab(),
        entries: app.config.limits.entries,
    };

    let forward_only = request.forward_only;
    let kind = if forward_only { "forward" } else { "forward_backward" };
    // What is wrong with the data is the job's failure: its number is spent either way, and the
    // calls behind it go on.
    let read = loss_of(&request)
        .and_then(|loss| Ok((read_datums(&request.data, loss.inputs, bounds)?, loss)));
    let (datums, loss) = match read {
        Ok(read) => read,
        Err(refusal) => return refused(&app, &model, seq, kind, refusal).map(Json200),
    };

    let (shapes, datums): (Vec<_>, Vec<_>) =
        datums.into_iter().map(|ShapedDatum { datum, trailing }| (trailing, datum)).unzip();
    if forward_only {
        let work = move |trainer: &mut Trainer| {
            let scores = trainer.forward(&datums)?;
            let sum = loss_of_scores(&*loss.objective, &datums, &scores)?;
            Ok(Outcome::Proto(output(&shapes, &scores.logprobs, sum)))
        };
        return submit_work(&app, &model, seq, kind, work).map(Json200);
    }

    let counted = model.clone();
    let entries: u64 = datums.iter().map(trained_entries).sum();
    let then = move |passes: ForwardBackward| {
        let mut progress = counted.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.loss += passes.loss_sum;
        progress.entries += entries;
        Outcome::Proto(output(&shapes, &passes.scores.logprobs, passes.loss_sum))
    };
    let call = |client: &TrainingClient| client.forward_backward_then(datums, loss.objective, then);
    submit(&app, &model, seq, kind, call).map(Json200)
}

/// Entries that the loss is a sum over: those of a weight, or of an advantage, other than 0.
fn trained_entries(datum: &Datum) -> u64 {
    let values = datum.advantages.as_ref().or(datum.weights.as_ref());
    let counted = values.map(|values| values.iter().filter(|value| **value != 0.0).count());
    counted.unwrap_or(datum.targets.len()) as u64
}

/// The answer of a call: each datum's log-probabilities in the shape of its targets, and the loss.
/// A run of neighbors of one width is one record.
fn output(shapes: &[Option<i64>], logprobs: &[Vec<f32>], loss: f64) -> Bytes {
    let mut records = Vec::new();
    let mut start = 0;
    while start < shapes.len() {
        let trailing = shapes[start];
        let alike = shapes[start..].iter().take_while(|shape| **shape == trailing).count();
        records.push(record(&logprobs[start..start + alike], trailing));
        start += alike;
    }
    encoded(&ForwardBackwardOutput {
        loss_fn_output_type: "ArrayRecord".into(),
        loss_fn_outputs: records,
        metrics: HashMap::from([("loss:sum".to_owned(), loss)]),
    })
}

fn record(logprobs: &[Vec<f32>], trailing: Option<i64>) -> ArrayRecord {
    let mut offsets = vec![0i64];
    for own in logprobs {
        let end = offsets.last().copied().unwrap_or_default() + 4 * own.len() as i64;
        offsets.push(end);
    }
    let tensor = BatchedTensor {
        data: floats_to_bytes(&logprobs.concat()),
        offsets: offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect(),
        dtype: DType::Float32 as i32,
        trailing_shape: trailing.into_iter().collect(),
    };
    ArrayRecord {
        type_tag: "ArrayRecord".into(),
        fields: HashMap::from([("logprobs".to_owned(), tensor)]),
        num_datums: logprobs.len() as i64,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OptimStep {
    model_id: String,
    seq_id: Sequence,
    #[serde(default)]
    adam_params: Option<AdamRequest>,
    #[serde(default)]
    optimizer_params: Option<Value>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

/// Tinker's defaults (`types/optimizer.py`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AdamRequest {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    grad_clip_norm: f64,
}

impl Default for AdamRequest {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-12,
            weight_decay: 0.0,
            grad_clip_norm: 0.0,
        }
    }
}

impl AdamRequest {
    fn params(&self) -> AdamParams {
        AdamParams {
            learning_rate: self.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            max_grad_norm: self.grad_clip_norm,
            ..AdamParams::default()
        }
    }
}

pub(crate) async fn optim_step(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<OptimStep>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let seq = request.seq_id.0;
    let params = match (&request.adam_params, &request.optimizer_params) {
        (Some(adam), None) => adam.params(),
        (None, Some(other)) => {
            let got = other.get("type").and_then(Value::as_str).unwrap_or("no type");
            let expected = "AdamW's constants, the optimizer that this server has";
            let refusal = Refusal::field("optimizer_params.type", expected, got);
            return refused(&app, &model, seq, "optim_step", refusal).map(Json200);
        }
        _ => {
            let refusal = Refusal::field("adam_params", "AdamW's constants, once", "none or two");
            return refused(&app, &model, seq, "optim_step", refusal).map(Json200);
        }
    };

    let counted = model.clone();
    let work = move |trainer: &mut Trainer| {
        let step = trainer.optim_step(&params)?;
        let mut progress = counted.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.step(step.grad_norm);
        Ok(Outcome::Json(json!({
            "metrics": {
                "unclipped_grad_l2:mean": step.grad_norm,
                "learning_rate:mean": params.learning_rate,
            },
        })))
    };
    submit_work(&app, &model, seq, "optim_step", work).map(Json200)
}

/// The id of a model's request: it follows from its number, so that a request that comes twice is
/// one.
pub(crate) fn request_id(model: &str, seq: i64) -> String {
    format!("{model}:request:{seq}")
}

/// Does anything with a model's trainer when its turn comes: [`submit`].
pub(crate) fn submit_work(
    app: &Arc<App>,
    model: &Arc<Model>,
    seq: i64,
    kind: &'static str,
    work: impl FnOnce(&mut Trainer) -> Result<Outcome, TrainError> + Send + 'static,
) -> Result<Value, Refusal> {
    submit(app, model, seq, kind, |client| client.call(work))
}

/// Has a model do something when its turn comes, unless a request of this number came before. A
/// model's calls are done in the order of their coming.
fn submit(
    app: &Arc<App>,
    model: &Arc<Model>,
    seq: i64,
    kind: &'static str,
    call: impl FnOnce(&TrainingClient) -> Pending<Outcome>,
) -> Result<Value, Refusal> {
    let id = request_id(&model.id, seq);
    if !begin(app, model, seq, kind)? {
        return Ok(json!({ "request_id": id, "model_id": model.id }));
    }

    model.waiting.fetch_add(1, Ordering::Relaxed);
    let pending = call(&model.client);
    let app = app.clone();
    let model = model.clone();
    let promise = id.clone();
    let model_id = model.id.clone();
    tokio::spawn(async move {
        let outcome = pending.await.map_err(Refusal::from);
        model.waiting.fetch_sub(1, Ordering::Relaxed);
        app.counters.training_call(kind, outcome.is_ok());
        if let Err(refusal) = &outcome {
            let mut progress = model.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.failed = Some(format!("{kind}: {}", refusal.detail));
        }
        app.promises.keep(&promise, Outcome::from(outcome));
        app.checkpoints.touch(&model.owner, &model.id);
    });
    Ok(json!({ "request_id": id, "model_id": model_id }))
}

/// Answers a request whose content is wrong by a job that has failed.
pub(crate) fn refused(
    app: &Arc<App>,
    model: &Arc<Model>,
    seq: i64,
    kind: &'static str,
    refusal: Refusal,
) -> Result<Value, Refusal> {
    let id = request_id(&model.id, seq);
    if begin(app, model, seq, kind)? {
        app.counters.training_call(kind, false);
        app.promises.keep(&id, Outcome::Failed(refusal));
    }
    Ok(json!({ "request_id": id, "model_id": model.id }))
}

/// Whether a request of this number comes for the first time.
fn begin(app: &App, model: &Model, seq: i64, kind: &'static str) -> Result<bool, Refusal> {
    if app.is_stopping() {
        return Err(Refusal::stopping());
    }
    if model.waiting.load(Ordering::Relaxed) >= app.config.limits.pending as u64 {
        return Err(Refusal::busy("too many calls of this model wait already"));
    }
    let id = request_id(&model.id, seq);
    let mut applied = model.applied.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = app.promises.take(&id, &model.owner, kind)?;
    if taken == Taken::Again {
        return Ok(false);
    }
    if !applied.insert(seq) {
        let detail = "this request was done already, and its result is kept no longer";
        app.promises.keep(&id, Outcome::Failed(Refusal::gone(detail)));
        return Ok(false);
    }
    Ok(true)
}
