//! Further tokens of a text whose keys and values are there already.

use crate::cache::PromptCache;
use crate::native_cache;
use posttrain_kernel::{AttentionStep, KeyValues, StepRow, attend_step};
use posttrain_lora::{AdapterView, RowAdapters};
use posttrain_model::{Attend, Decoder, Input, ModelError, Projected, Rotated};
use posttrain_tensor::to_device;
use std::sync::Arc;
use tch::Tensor;

/// Reads `tokens` behind a text of `read` tokens: the whole text's keys and values, and the logits
/// `[V]` of what follows.
pub(crate) fn continue_text(
    model: &Decoder,
    text: &PromptCache,
    read: usize,
    tokens: &[i64],
    adapter: Option<&AdapterView>,
) -> Result<(PromptCache, Tensor), ModelError> {
    let positions: Vec<i64> = (read..read + tokens.len()).map(|position| position as i64).collect();
    let input = Input {
        tokens: to_device(tokens, model.device())?,
        positions: to_device(&positions, model.device())?,
    };
    let adapters = RowAdapters::all(adapter);

    let (hidden, cache) = match text {
        PromptCache::Native(text) => {
            let own = native_cache::empty(model)?;
            let mut attention = NativeContinuation { text, own };
            let hidden = model.forward(&input, &mut attention, &adapters)?;
            let mut whole = (**text).clone();
            whole.append(&attention.own)?;
            (hidden, PromptCache::Native(Arc::new(whole)))
        }
        PromptCache::Device(layers) => {
            let mut attention =
                DeviceContinuation { text: layers, own: Vec::with_capacity(layers.len()) };
            let hidden = model.forward(&input, &mut attention, &adapters)?;
            (hidden, text.followed_by(&attention.own)?)
        }
    };
    let last = hidden.f_narrow(0, -1, 1)?;
    Ok((cache, model.logits(&last, &adapters)?.f_squeeze_dim(0)?))
}

/// Attention of tokens behind a text, token after token: each sees the text, those before it and
/// itself.
struct NativeContinuation<'a> {
    text: &'a KeyValues,
    own: KeyValues,
}

impl Attend for NativeContinuation<'_> {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let qkv = projected.qkv.f_contiguous()?;
        let [cos, sin] = projected.rotation.tables()?;

        let mut attended = Vec::new();
        for token in 0..qkv.size()[0] {
            let row = |table: &Tensor| table.f_narrow(0, token, 1);
            let (qkv, cos, sin) = (row(&qkv)?, row(&cos)?, row(&sin)?);
            let step = AttentionStep { layer, qkv: &qkv, cos: &cos, sin: &sin };
            let mut rows = [StepRow { prompt: self.text, own: &mut self.own }];
            attended.push(attend_step(step, projected.heads, &mut rows)?);
        }
        Ok(Tensor::f_cat(&attended, 0)?)
    }
}

/// The same by libtorch, all tokens at once.
struct DeviceContinuation<'a> {
    text: &'a [(Tensor, Tensor)],
    /// Keys and values of the tokens so far, `[N, kv_heads, d]` each.
    own: Vec<(Tensor, Tensor)>,
}

impl Attend for DeviceContinuation<'_> {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let Rotated { q, k, v } = projected.rotated()?;
        let (keys, values) = &self.text[layer];
        let seen = keys.size()[0];
        let tokens = q.size()[0];

        // [1, heads, tokens, d]: a batch of one text.
        let batch = |t: &Tensor| t.f_transpose(0, 1)?.f_unsqueeze(0);
        let blocked =
            Tensor::f_full([tokens, seen + tokens], f64::NEG_INFINITY, (q.kind(), q.device()))?;
        let mask = blocked.f_triu(seen + 1)?;
        let attended = Tensor::f_scaled_dot_product_attention(
            &batch(&q)?,
            &batch(&Tensor::f_cat(&[keys, &k], 0)?)?,
            &batch(&Tensor::f_cat(&[values, &v], 0)?)?,
            Some(&mask),
            0.0,
            false,
            None,
            true,
        )?;
        self.own.push((k, v));
        Ok(attended.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_flatten(1, 2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_lora::{Adapter, LoraConfig};
    use posttrain_model::{ModelConfig, PackedAttention, Packing, Sequence};
    use tch::{Device, Kind};

    /// A text read in two parts is the text read at once, by either cache, with an adapter and
    /// without.
    #[test]
    fn a_text_in_two_parts_is_the_text_at_once() {
        let config = ModelConfig {
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            hidden_size: 32,
            ..ModelConfig::tiny()
        };
        let model = Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap();
        let adapter =
            Adapter::init(&LoraConfig::default(), model.modules(), 1, Device::Cpu).unwrap();
        let adapter = adapter.snapshot(Kind::Float).unwrap();
        let text: Vec<i64> = (0..45).map(|i| (i * 7 + 3) % 63 + 1).collect();

        let _guard = tch::no_grad_guard();
        for (read, adapter) in [(1, None), (16, Some(&adapter)), (17, None), (44, None)] {
            let at_once = read_whole(&model, &text, adapter);
            let (layers, _) = read_whole(&model, &text[..read], adapter);
            let native = native_cache::prompt(&model, &layers).unwrap();
            for cache in [PromptCache::Native(Arc::new(native)), PromptCache::Device(layers)] {
                let (whole, logits) =
                    continue_text(&model, &cache, read, &text[read..], adapter).unwrap();
                let off = (&logits - &at_once.1).abs().max().double_value(&[]);
                assert!(off < 1e-5, "{read}: {off}");
                // What comes behind the whole is right as well.
                let (_, next) =
                    continue_text(&model, &whole, text.len(), &[9, 8], adapter).unwrap();
                let expected = read_whole(&model, &[&text[..], &[9, 8]].concat(), adapter).1;
                assert!((next - expected).abs().max().double_value(&[]) < 1e-5, "{read}");
            }
        }
    }

    /// Keys and values of every layer, and the logits of what follows.
    fn read_whole(
        model: &Decoder,
        text: &[i64],
        adapter: Option<&AdapterView>,
    ) -> (Vec<(Tensor, Tensor)>, Tensor) {
        let packing =
            Packing::new(&[Sequence { prompt: text.to_vec(), completions: Vec::new() }]).unwrap();
        let mut attention = PackedAttention::new(&packing, model).unwrap().keeping();
        let input = packing.input(Device::Cpu).unwrap();
        let hidden = model.forward(&input, &mut attention, &RowAdapters::all(adapter)).unwrap();
        let logits = model.logits(&hidden.narrow(0, -1, 1), &RowAdapters::all(adapter)).unwrap();
        (attention.into_kept(), logits.squeeze_dim(0))
    }
}
