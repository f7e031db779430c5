//! Log-probabilities of texts that are there already.

use crate::micro_batch::{MicroBatch, Packed, clusters, distribute, micro_batches};
use crate::pass::{on_device, target_tensor};
use crate::{Datum, TrainError};
use posttrain_kernel::on_workers;
use posttrain_lora::{AdapterView, RowAdapters};
use posttrain_loss::{Head, HeadAdapter, HeadOptions};
use posttrain_model::{Decoder, ModelError, PackedAttention};

/// What a model says of a batch's targets.
#[derive(Debug, Clone, Default, PartialEq)]
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
    let loads = distribute(micro, budget.workers);
    let score = |load: Vec<MicroBatch>| -> Result<DatumScores, TrainError> {
        let mut scores = DatumScores::of(datums.len());
        for micro in &load {
            scores.take_from(micro, &score_rows(model, adapter, &micro.pack()?, micro)?);
        }
        Ok(scores)
    };

    let mut all = DatumScores::of(datums.len());
    for scores in on_workers(loads, score, || ()) {
        all.merge(scores?);
    }
    Ok(all)
}

/// The log-probabilities `[rows · K]` and entropies `[rows]` of a packed micro-batch.
pub(crate) fn score_rows(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    packed: &Packed,
    micro: &MicroBatch,
) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
    let _guard = tch::no_grad_guard();
    let mut attention = PackedAttention::new(&packed.packing, model)?;
    let input = packed.packing.input(model.device())?;
    let hidden = model.forward(&input, &mut attention, &RowAdapters::all(adapter))?;
    let hidden = hidden.f_index_select(0, &on_device(&packed.rows, model)?)?;
    let targets = target_tensor(packed, micro, model)?;
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
