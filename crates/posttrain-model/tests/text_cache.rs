//! Texts that are read in parts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{Adapter, AdapterView, LoraConfig, LoraPair, RowAdapters};
use posttrain_model::{Decoder, ModelConfig, PackedAttention, Packing, Sequence, TextCache};
use tch::{Device, Kind, Tensor};

fn model(kind: Kind) -> Decoder {
    let config = ModelConfig {
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        hidden_size: 32,
        ..ModelConfig::tiny()
    };
    Decoder::random(&config, 3, kind, Device::Cpu).unwrap()
}

/// An adapter that does something.
fn adapter(model: &Decoder) -> AdapterView {
    let config = LoraConfig { rank: 2, ..LoraConfig::default() };
    let fresh = Adapter::init(&config, model.modules(), 1, Device::Cpu).unwrap();

    let mut pairs = Vec::new();
    for (_, pair) in fresh.layers() {
        let b = (Tensor::ones_like(&pair.b.detach()) * 0.3).detach();
        pairs.push(Some(LoraPair { a: pair.a.detach(), b, scale: pair.scale }));
    }
    let adapter = Adapter::from_pairs(config, model.modules(), pairs).unwrap();
    adapter.snapshot(model.kind()).unwrap()
}

/// Reads sequences behind texts that were read before: what is read then of each one's prompt, and
/// the logits behind every row.
fn read(
    model: &Decoder,
    before: &[TextCache],
    sequences: &[Sequence],
    adapter: Option<&AdapterView>,
) -> (Vec<TextCache>, Tensor) {
    let counts: Vec<usize> = before.iter().map(TextCache::tokens).collect();
    let packing = Packing::behind(sequences, &counts).unwrap();
    let mut attention = PackedAttention::new(&packing, model).unwrap().keeping();
    attention = attention.behind(before.to_vec()).unwrap();

    let input = packing.input(Device::Cpu).unwrap();
    let adapters = RowAdapters::all(adapter);
    let hidden = model.forward(&input, &mut attention, &adapters).unwrap();
    let logits = model.logits(&hidden, &adapters).unwrap();

    let layers = attention.into_kept();
    let mut texts = Vec::new();
    for (before, rows) in before.iter().zip(packing.prompt_rows()) {
        let part = |t: &Tensor| t.narrow(0, rows.start as i64, rows.len() as i64);
        let own: Vec<_> = layers.iter().map(|(k, v)| (part(k), part(v))).collect();
        texts.push(before.followed_by(model, &own).unwrap());
    }
    (texts, logits)
}

fn prompt(tokens: &[i64]) -> Sequence {
    Sequence { prompt: tokens.to_vec(), completions: Vec::new() }
}

/// By the native kernels in f32, and by libtorch in f64; with an adapter and without; several texts
/// in one pass, of which one is read for the first time and one has completions.
#[test]
fn a_text_in_parts_is_the_text_at_once() {
    let _guard = tch::no_grad_guard();
    let text: Vec<i64> = (0..205).map(|i| (i * 7 + 3) % 63 + 1).collect();

    for kind in [Kind::Float, Kind::Double] {
        let model = model(kind);
        let adapter = adapter(&model);
        let empty = TextCache::empty(&model);
        assert_eq!(matches!(empty, TextCache::Native(_)), kind == Kind::Float);

        for (cut, adapter) in
            [(1, None), (16, Some(&adapter)), (17, None), (100, Some(&adapter)), (204, None)]
        {
            let whole = |tokens: &[i64]| {
                let logits =
                    read(&model, std::slice::from_ref(&empty), &[prompt(tokens)], adapter).1;
                logits.get(-1)
            };
            let longer =
                &read(&model, std::slice::from_ref(&empty), &[prompt(&text)], adapter).0[0];
            let beginning = longer.beginning(cut).unwrap();
            assert_eq!(beginning.tokens(), cut);

            let with_completions =
                Sequence { prompt: vec![5, 6], completions: vec![vec![7], vec![8, 9]] };
            let before = [empty.clone(), beginning.clone(), beginning.clone()];
            let sequences = [prompt(&text[..3]), prompt(&text[cut..]), with_completions];
            let (texts, logits) = read(&model, &before, &sequences, adapter);

            let rest = (text.len() - cut) as i64;
            let own = |end: &[i64]| whole(&[&text[..cut], end].concat());
            for (row, expected) in [
                (2, whole(&text[..3])),
                (3 + rest - 1, whole(&text)),
                (3 + rest + 1, own(&[5, 6])),
                (3 + rest + 2, own(&[5, 6, 7])),
                (3 + rest + 4, own(&[5, 6, 8, 9])),
            ] {
                let off = (logits.get(row) - expected).abs().max().double_value(&[]);
                assert!(off < 1e-5, "{kind:?}, cut at {cut}, row {row}: {off}");
            }

            // What comes behind the parts is right as well, and the parts are as they were.
            let (_, next) = read(&model, &texts[1..2], &[prompt(&[9, 8])], adapter);
            let expected = whole(&[&text[..], &[9, 8]].concat());
            assert!((next.get(1) - expected).abs().max().double_value(&[]) < 1e-5, "{cut}");
            assert_eq!((beginning.tokens(), longer.tokens()), (cut, text.len()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let _guard = tch::no_grad_guard();
    let model = model(Kind::Float);
    let packing = Packing::new(&[prompt(&[1, 2])]).unwrap();

    let error = Packing::behind(&[prompt(&[1])], &[]).unwrap_err().to_string();
    assert!(error.contains("`read`"), "{error}");
    let error = PackedAttention::new(&packing, &model).unwrap().behind(vec![]).unwrap_err();
    assert!(error.to_string().contains("`before`"), "{error}");

    // A cache of the other form, and one of another model.
    let tensors = Tensor::zeros([1, 2, 8], (Kind::Float, Device::Cpu));
    let layers = (0..3).map(|_| (tensors.shallow_clone(), tensors.shallow_clone())).collect();
    let other = Decoder::random(&ModelConfig::tiny(), 3, Kind::Float, Device::Cpu).unwrap();
    let one_head = [(tensors.narrow(1, 0, 1), tensors.narrow(1, 0, 1))];
    let foreign = TextCache::empty(&other).followed_by(&other, &one_head).unwrap();
    for before in [TextCache::Tensors(layers), foreign] {
        let mut attention =
            PackedAttention::new(&packing, &model).unwrap().behind(vec![before]).unwrap();
        let input = packing.input(Device::Cpu).unwrap();
        assert!(model.forward(&input, &mut attention, &RowAdapters::none()).is_err());
    }
}
