//! Log-probabilities of texts that are there already.

use crate::micro_batch::{MicroBatch, clusters, distribute, micro_batches, pack};
use crate::pass::{on_device, target_tensor};
use crate::{Datum, TrainError};
use posttrain_kernel::on_workers;
use posttrain_lora::{AdapterView, RowAdapters};
use posttrain_loss::{Head, HeadAdapter, HeadOptions};
use posttrain_model::{Decoder, ModelError, PackedAttention, Packing, Sequence};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What a model says of a batch's targets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatumScores {
    /// Of each datum its targets' log-probabilities, `[S·K]` nats at the datum's temperature; empty
    /// for one that was not computed.
    pub logprobs: Vec<Vec<f32>>,
    /// Of each datum its positions' entropies, `[S]` nats.
    pub entropy: Vec<Vec<f32>>,
}

impl DatumScores {
    /// Room for a batch of `datums` datums.
    pub(crate) fn of(datums: usize) -> Self {
        Self { logprobs: vec![Vec::new(); datums], entropy: vec![Vec::new(); datums] }
    }

    /// Adds the scores of further datums.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.logprobs.append(&mut other.logprobs);
        self.entropy.append(&mut other.entropy);
    }

    /// Puts a micro-batch's flat scores to its datums.
    pub(crate) fn take_from(
        &mut self,
        micro: &MicroBatch,
        (logprobs, entropy): &(Vec<f32>, Vec<f32>),
    ) {
        let mut logprobs = logprobs.as_slice();
        let mut entropy = entropy.as_slice();
        for placed in micro.datums() {
            let (own, later) = logprobs.split_at(placed.datum.targets.len());
            self.logprobs[placed.place] = own.to_vec();
            logprobs = later;

            let (own, later) = entropy.split_at(placed.datum.positions.len());
            self.entropy[placed.place] = own.to_vec();
            entropy = later;
        }
    }

    /// Takes up what another worker has computed.
    pub(crate) fn merge(&mut self, other: Self) {
        let columns = [(&mut self.logprobs, other.logprobs), (&mut self.entropy, other.entropy)];
        for (own, others) in columns {
            for (own, other) in own.iter_mut().zip(others).filter(|(_, other)| !other.is_empty()) {
                *own = other;
            }
        }
    }
}

/// One text's log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct TextScores {
    /// Of each token but the first, given all before it, nats.
    pub logprobs: Vec<f32>,
    /// Of each token's distribution, nats.
    pub entropy: Vec<f32>,
}

/// Scores whole texts under a model with an adapter or without, at temperature 1. No gradient
/// flows.
///
/// # Errors
/// [`TrainError::Model`] for an empty text, or one over the context; [`TrainError::Datum`] for a
/// token beyond the vocabulary.
///
/// ```
/// use posttrain_model::{Decoder, ModelConfig};
/// use posttrain_train::score_texts;
/// let model = Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?;
/// let scores = score_texts(&model, None, &[vec![1, 2, 3], vec![4]])?;
/// assert_eq!((scores[0].logprobs.len(), scores[1].logprobs.len()), (2, 0));
/// assert!(scores[0].logprobs.iter().all(|l| (l + 64f32.ln()).abs() < 1.0)); // near uniform over 64 tokens
/// # Ok::<(), posttrain_train::TrainError>(())
/// ```
pub fn score_texts(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    texts: &[Vec<i64>],
) -> Result<Vec<TextScores>, TrainError> {
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        if text.is_empty() {
            let expected = "texts of at least one token".into();
            return Err(ModelError::Argument {
                argument: "texts",
                expected,
                got: "an empty one".into(),
            }
            .into());
        }
        if text.len() == 1 {
            all.push(TextScores { logprobs: Vec::new(), entropy: Vec::new() });
            continue;
        }
        let datum = Datum::completion(&text[..1], &text[1..]);
        let mut scores = score_datums(model, adapter, &[datum], Budget::ONE)?;
        let (logprobs, entropy) = (scores.logprobs.remove(0), scores.entropy.remove(0));
        all.push(TextScores { logprobs, entropy });
    }
    Ok(all)
}

/// What a model says of a text's tokens, and which tokens it would sooner have read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopScores {
    /// `[S]` nats, of each scored token.
    pub logprobs: Vec<f32>,
    /// `[S·K]`, the most probable tokens in each one's place, the most probable first.
    pub top_tokens: Vec<i64>,
    /// `[S·K]` nats, theirs.
    pub top_logprobs: Vec<f32>,
}

/// Scores the tokens of a text from place `first` on, `S` of them, under a model with an adapter or
/// without, and finds the `top` most probable tokens (`K`, at most the vocabulary) in each one's
/// place. `temperature` divides the logits. No gradient flows; logits exist for 256 places at a
/// time.
///
/// # Errors
/// [`TrainError::Datum`] for a text that does not fit the vocabulary, a `first` that leaves nothing
/// to score or has nothing before it, or a temperature out of range; [`TrainError::Model`] for one
/// over the context.
///
/// ```
/// use posttrain_model::{Decoder, ModelConfig};
/// use posttrain_train::{TopRequest, top_logprobs};
/// let model = Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?;
/// let scores = top_logprobs(&model, None, &[1, 2, 3], TopRequest { first: 1, top: 64, temperature: 1.0 })?;
/// assert_eq!((scores.logprobs.len(), scores.top_tokens.len()), (2, 128));
/// // All tokens together are certain, and the second is among them.
/// let sum: f32 = scores.top_logprobs[..64].iter().map(|l| l.exp()).sum();
/// assert!((sum - 1.0).abs() < 1e-5 && scores.top_logprobs[..64].contains(&scores.logprobs[0]));
/// # Ok::<(), posttrain_train::TrainError>(())
/// ```
pub fn top_logprobs(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    text: &[i64],
    request: TopRequest,
) -> Result<TopScores, TrainError> {
    let TopRequest { first, top, temperature } = request;
    if first == 0 || first >= text.len() {
        let expected = format!("from 1 below the text's {} tokens", text.len());
        return Err(TrainError::Datum {
            index: 0,
            field: "first",
            expected,
            got: first.to_string(),
        });
    }
    let datum = Datum::completion(&text[..first], &text[first..]).with_temperature(temperature);
    datum.check(0, model.config().vocab_size)?;

    let _guard = tch::no_grad_guard();
    let sequence = Sequence { prompt: datum.input, completions: Vec::new() };
    let packing = Packing::new(&[sequence])?;
    let mut attention = PackedAttention::new(&packing, model)?;
    let adapters = RowAdapters::all(adapter);
    let hidden = model.forward(&packing.input(model.device())?, &mut attention, &adapters)?;

    let top = (top as i64).min(model.config().vocab_size);
    let mut scores = TopScores::default();
    let mut places = &text[first..];
    let mut row = first as i64 - 1;
    while !places.is_empty() {
        let (chunk, later) = places.split_at(places.len().min(PLACES));
        let rows = hidden.f_narrow(0, row, chunk.len() as i64)?;
        let logits = model.logits(&rows, &adapters)?.f_to_kind(Kind::Float)?;
        let logprobs = logits.f_div_scalar(temperature)?.f_log_softmax(-1, Kind::Float)?;
        scores.add(&logprobs, chunk, top)?;

        row += chunk.len() as i64;
        places = later;
    }
    Ok(scores)
}

/// Which tokens of a text are scored, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopRequest {
    /// The place of the first scored token, at least 1.
    pub first: usize,
    /// `K`, how many of the most probable tokens are wanted.
    pub top: usize,
    /// What the logits are divided by, finite and above 0.
    pub temperature: f64,
}

/// Places whose logits exist at a time.
const PLACES: usize = 256;

impl TopScores {
    /// Adds what `logprobs: [N, V]` say of `N` tokens.
    fn add(&mut self, logprobs: &Tensor, tokens: &[i64], top: i64) -> Result<(), TrainError> {
        let targets = Tensor::f_from_slice(tokens)?.f_to_device(logprobs.device())?;
        let own = logprobs.f_gather(-1, &targets.f_unsqueeze(-1)?, false)?;
        self.logprobs.extend(Vec::<f32>::try_from(own.f_flatten(0, -1)?)?);

        let (values, tokens) = logprobs.f_topk(top, -1, true, true)?;
        self.top_logprobs.extend(Vec::<f32>::try_from(values.f_flatten(0, -1)?)?);
        self.top_tokens.extend(Vec::<i64>::try_from(tokens.f_flatten(0, -1)?)?);
        Ok(())
    }
}

/// How much is scored at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Tokens of a pass.
    pub tokens: usize,
    /// Threads.
    pub workers: usize,
}

impl Budget {
    /// One pass over everything, on the caller's thread.
    const ONE: Self = Self { tokens: usize::MAX, workers: 1 };
}

/// Scores datums under a model with an adapter or without. No gradient flows.
pub(crate) fn score_datums(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    datums: &[Datum],
    budget: Budget,
) -> Result<DatumScores, TrainError> {
    for (index, datum) in datums.iter().enumerate() {
        datum.check(index, model.config().vocab_size)?;
    }
    let micro = micro_batches(&clusters(datums, 1, |_| true), budget.tokens, budget.workers);
    let loads = distribute(micro, budget.workers, MicroBatch::tokens);
    let score = |load: Vec<MicroBatch>| -> Result<DatumScores, TrainError> {
        let mut scores = DatumScores::of(datums.len());
        for micro in &load {
            scores.take_from(micro, &score_rows(model, adapter, micro)?);
        }
        Ok(scores)
    };

    let mut all = DatumScores::of(datums.len());
    for scores in on_workers(loads, score, || ()) {
        all.merge(scores?);
    }
    Ok(all)
}

/// The log-probabilities `[rows · K]` and entropies `[rows]` of a micro-batch.
pub(crate) fn score_rows(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    micro: &MicroBatch,
) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
    let _guard = tch::no_grad_guard();
    let (packing, scored) = pack(&[micro])?;
    let mut attention = PackedAttention::new(&packing, model)?;
    let input = packing.input(model.device())?;
    let all = model.forward(&input, &mut attention, &RowAdapters::all(adapter))?;

    let rows: Vec<i64> = scored.iter().flat_map(|scored| &scored.rows).copied().collect();
    let hidden = all.f_index_select(0, &on_device(&rows, model)?)?;
    let targets: Vec<i64> = scored.into_iter().flat_map(|scored| scored.targets).collect();
    let targets = target_tensor(&targets, micro, model)?;
    Ok(head(model, adapter, micro.temperature())?.scores(&hidden, &targets)?.to_vecs()?)
}

/// The model's head, with what an adapter has beside it.
pub(crate) fn head(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    temperature: f64,
) -> Result<Head, TrainError> {
    let head = Head::new(model.head(), HeadOptions { temperature, ..HeadOptions::default() })?;
    match adapter.zip(model.head_module()).and_then(|(view, module)| view.pair(module)) {
        // The view's B holds the scale.
        Some((a, b)) => Ok(head.with_adapter(HeadAdapter {
            a: a.shallow_clone(),
            b: b.shallow_clone(),
            scale: 1.0,
        })?),
        None => Ok(head),
    }
}
