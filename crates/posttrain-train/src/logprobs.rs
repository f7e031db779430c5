//! Log-probabilities of texts that are there already.

use crate::TrainError;
use posttrain_lora::{AdapterView, RowAdapters};
use posttrain_loss::{Head, HeadAdapter, HeadOptions, TokenScores};
use posttrain_model::{Decoder, ModelError, PackedAttention, Packing, Sequence};
use tch::Tensor;

/// One text's log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct TextScores {
    /// Of each token but the first, given all before it, nats.
    pub logprobs: Vec<f32>,
    /// Of each token's distribution, nats.
    pub entropy: Vec<f32>,
}

/// The log-probabilities of whole texts under a model with an adapter or without, at temperature 1. No gradient flows.
///
/// # Errors
/// [`TrainError::Model`] for an empty text, one over the context, or a token beyond the vocabulary.
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
    let vocab = model.config().vocab_size;
    for text in texts {
        if let Some(token) = text.iter().find(|t| !(0..vocab).contains(*t)) {
            let (expected, got) = (format!("token ids from 0 below {vocab}"), token.to_string());
            return Err(ModelError::Argument { argument: "texts", expected, got }.into());
        }
        let (first, rest) = text.split_at(text.len().min(1));
        let packing = Packing::new(&[Sequence { prompt: first.to_vec(), completions: vec![rest.to_vec()] }])?;
        let (logprobs, entropy) = match rest.is_empty() {
            true => Default::default(),
            false => score_sequences(model, adapter, &packing, 1.0)?.to_vecs()?,
        };
        all.push(TextScores { logprobs, entropy });
    }
    Ok(all)
}

/// The scores of a packing's completion tokens, in packed order.
pub(crate) fn score_sequences(
    model: &Decoder,
    adapter: Option<&AdapterView>,
    packing: &Packing,
    temperature: f64,
) -> Result<TokenScores, TrainError> {
    let _guard = tch::no_grad_guard();
    let mut attention = PackedAttention::new(packing, model)?;
    let hidden = model.forward(&packing.input(model.device())?, &mut attention, &RowAdapters::all(adapter))?;
    let device = |values: Vec<i64>| Tensor::f_from_slice(&values)?.f_to_device(model.device());
    let hidden = hidden.f_index_select(0, &device(packing.predicting_rows())?)?;
    Ok(head(model, adapter, temperature)?.scores(&hidden, &device(packing.targets().to_vec())?)?)
}

/// The model's head, with what an adapter has beside it.
pub(crate) fn head(model: &Decoder, adapter: Option<&AdapterView>, temperature: f64) -> Result<Head, TrainError> {
    let head = Head::new(model.head(), HeadOptions { temperature, ..HeadOptions::default() })?;
    match adapter.zip(model.head_module()).and_then(|(view, module)| view.pair(module)) {
        // The view's B holds the scale.
        Some((a, b)) => {
            Ok(head.with_adapter(HeadAdapter { a: a.shallow_clone(), b: b.shallow_clone(), scale: 1.0 })?)
        }
        None => Ok(head),
    }
}
