//! A language model on this machine as a router sees it: likelihoods of labels, and texts as
//! vectors.

use ndarray::Array2;
use posttrain_lora::RowAdapters;
use posttrain_loss::{Head, HeadOptions};
use posttrain_model::{ModelError, PackedAttention, Packing, Sequence, TextModel};
use posttrain_router::{Embedder, LabelQuery, LabelScorer, Likelihood, Prompt, RouterError};
use posttrain_train::TrainError;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// Tokens of a pass.
const PASS: usize = 2048;

/// A base model, without any adapter, that scores labels. What it has scored once it remembers, so
/// that a calibrated router and an uncalibrated one cost one pass.
pub struct LocalLabels {
    model: TextModel,
    known: Mutex<HashMap<Text, Likelihood>>,
}

/// A base model, without any adapter, whose last hidden states, averaged over a text's tokens, are
/// the text's vector.
pub struct HiddenStates {
    model: TextModel,
    name: String,
}

/// A prompt's tokens and a continuation's.
type Text = (Vec<i64>, Vec<i64>);

/// A prompt's tokens with those of each continuation.
type Tokens = (Vec<i64>, Vec<Vec<i64>>);

impl LocalLabels {
    /// Labels scored by a model.
    #[must_use]
    pub fn new(model: TextModel) -> Self {
        Self { model, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Text, Likelihood>> {
        // What was remembered before a panic is right all the same.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self, query: &LabelQuery) -> Result<Tokens, ModelError> {
        let TextModel { tokenizer, template, .. } = &self.model;
        let prompt = match &query.prompt {
            Prompt::Text(text) => tokenizer.encode_prompt(text)?,
            Prompt::Chat(messages) => template.encode(tokenizer, messages, true)?,
        };
        if prompt.is_empty() {
            return Err(argument("a prompt of at least one token", "an empty one"));
        }

        let continuations =
            query.continuations.iter().map(|text| match tokenizer.encode_text(text)? {
                tokens if tokens.is_empty() => {
                    Err(argument("continuations of at least one token", text))
                }
                tokens => Ok(tokens),
            });
        Ok((prompt, continuations.collect::<Result<_, _>>()?))
    }

    /// Scores what is not known yet, the prompts' common beginning computed once a pass.
    fn learn(&self, queries: &[Tokens]) -> Result<(), TrainError> {
        let mut known = self.known();
        let mut fresh: Vec<Text> = Vec::new();
        for (prompt, continuations) in queries {
            let pairs =
                continuations.iter().map(|continuation| (prompt.clone(), continuation.clone()));
            fresh.extend(pairs.filter(|pair| !known.contains_key(pair)));
        }

        let shared = shared_prefix(&fresh);
        let mut rest = fresh.as_slice();
        while !rest.is_empty() {
            let (pass, later) = rest.split_at(pass_length(rest, shared));
            // A pass of one text shares all of its prompt with nobody.
            let scores = self.pass(pass, if shared == 0 { pass[0].0.len() } else { shared })?;
            known.extend(pass.iter().cloned().zip(scores));
            rest = later;
        }

        Ok(())
    }

    /// One pass over texts whose first `shared` tokens are the same.
    fn pass(&self, pairs: &[Text], shared: usize) -> Result<Vec<Likelihood>, TrainError> {
        let _guard = tch::no_grad_guard();
        let model = &*self.model.decoder;

        // Neighbors with the same prompt and labels of one token each stand in one text: only its
        // end is looked at.
        let mut texts: Vec<Vec<i64>> = Vec::new();
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        let mut start = shared;
        let mut last: Option<(&[i64], usize)> = None;
        for (prompt, continuation) in pairs {
            let same =
                last.filter(|(before, _)| *before == prompt.as_slice() && continuation.len() == 1);
            let own = if let Some((_, own)) = same {
                own
            } else {
                let text = [&prompt[shared..], &continuation[..continuation.len() - 1]].concat();
                let own = start;
                start += text.len();
                texts.push(text);
                last = (continuation.len() == 1).then_some((prompt.as_slice(), own));
                own
            };

            let first = own + prompt.len() - shared - 1;
            rows.extend((0..continuation.len()).map(|place| (first + place) as i64));
            targets.extend(continuation);
        }

        let packing = Packing::new(&[Sequence {
            prompt: pairs[0].0[..shared].to_vec(),
            completions: texts,
        }])?;
        let mut attention = PackedAttention::new(&packing, model)?;
        let hidden =
            model.forward(&packing.input(model.device())?, &mut attention, &RowAdapters::none())?;

        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(model.device());
        let hidden = hidden.f_index_select(0, &on_device(&rows)?)?;
        let scores = Head::new(model.head(), HeadOptions::default())?
            .scores(&hidden, &on_device(&targets)?)?;

        let (logprobs, _) = scores.to_vecs()?;
        let mut logprobs = logprobs.into_iter().map(f64::from);
        let sum =
            |tokens: usize| Likelihood { logprob: logprobs.by_ref().take(tokens).sum(), tokens };
        Ok(pairs.iter().map(|(_, continuation)| continuation.len()).map(sum).collect())
    }
}

impl LabelScorer for LocalLabels {
    fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
        let tokens: Result<Vec<Tokens>, ModelError> =
            queries.iter().map(|query| self.tokens(query)).collect();
        let tokens = tokens.map_err(|e| RouterError::foreign("tokenizer", e))?;
        self.learn(&tokens).map_err(|e| RouterError::foreign("local model", e))?;

        let known = self.known();
        let of = |(prompt, continuations): Tokens| {
            let each =
                continuations.into_iter().filter_map(|c| known.get(&(prompt.clone(), c)).copied());
            each.collect()
        };
        Ok(tokens.into_iter().map(of).collect())
    }
}

impl HiddenStates {
    /// Vectors of a model, which is called `name`.
    pub fn new(model: TextModel, name: impl Into<String>) -> Self {
        Self { model, name: name.into() }
    }

    fn pass(&self, texts: &[Vec<i64>]) -> Result<Vec<f32>, TrainError> {
        let _guard = tch::no_grad_guard();
        let model = &*self.model.decoder;

        let sequences: Vec<Sequence> = texts
            .iter()
            .map(|text| Sequence { prompt: text.clone(), completions: Vec::new() })
            .collect();
        let packing = Packing::new(&sequences)?;
        let mut attention = PackedAttention::new(&packing, model)?;
        let hidden =
            model.forward(&packing.input(model.device())?, &mut attention, &RowAdapters::none())?;

        let mut means = Vec::with_capacity(texts.len() * self.dimension());
        for rows in packing.prompt_rows() {
            let own = hidden.f_narrow(0, rows.start as i64, rows.len() as i64)?;
            let mean = own.f_mean_dim(0i64, false, Kind::Float)?.f_to_device(tch::Device::Cpu)?;
            means.extend(Vec::<f32>::try_from(&mean).map_err(ModelError::from)?);
        }
        Ok(means)
    }
}

impl Embedder for HiddenStates {
    fn embed(&self, texts: &[&str]) -> Result<Array2<f32>, RouterError> {
        let encoded: Result<Vec<_>, _> =
            texts.iter().map(|text| self.model.tokenizer.encode_prompt(text)).collect();
        let mut encoded = encoded.map_err(|e| RouterError::foreign("tokenizer", e))?;

        let context = self.model.decoder.config().max_position_embeddings as usize;
        for tokens in &mut encoded {
            tokens.truncate(context.min(PASS));
            // A text without a token has the vector of the first one in the vocabulary: any would
            // do, none would not.
            if tokens.is_empty() {
                tokens.push(0);
            }
        }

        let mut rest = encoded.as_slice();
        let mut values = Vec::with_capacity(texts.len() * self.dimension());
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|text| {
                tokens += text.len();
                tokens <= PASS
            });
            let (pass, later) = rest.split_at(fits.count().max(1));
            values.extend(self.pass(pass).map_err(|e| RouterError::foreign("local model", e))?);
            rest = later;
        }

        Array2::from_shape_vec((texts.len(), self.dimension()), values)
            .map_err(|e| RouterError::foreign("local model", e))
    }

    fn dimension(&self) -> usize {
        self.model.decoder.config().hidden_size as usize
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> String {
        "mean of the last hidden states".into()
    }
}

fn argument(expected: &str, got: &str) -> ModelError {
    ModelError::Argument { argument: "query", expected: expected.into(), got: got.into() }
}

/// How many first tokens all prompts share, at least one token of each left for itself, and at
/// least one shared: texts that have none in common are scored one a pass.
fn shared_prefix(pairs: &[Text]) -> usize {
    let Some((first, _)) = pairs.first() else { return 0 };
    let common = |(prompt, _): &Text| {
        let same = first.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        same.min(prompt.len() - 1)
    };
    pairs.iter().map(common).min().unwrap_or(0)
}

/// How many of the texts go into one pass.
fn pass_length(pairs: &[Text], shared: usize) -> usize {
    if shared == 0 {
        return 1;
    }
    let mut tokens = shared;
    let fits = pairs.iter().take_while(|(prompt, continuation)| {
        tokens += prompt.len() - shared + continuation.len();
        tokens <= PASS
    });
    fits.count().max(1)
}
