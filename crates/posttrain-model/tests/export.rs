//! A model with an adapter folded in, written as a folder and read again, computes what it did with
//! the adapter beside it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{Adapter, LoraConfig, LoraPair, RowAdapters};
use posttrain_model::{
    Checkpoint, Decoder, ModelError, PackedAttention, Packing, Quantize, Sequence,
};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// An adapter on every layer that changes what the model says.
fn adapter(model: &Decoder) -> Adapter {
    let config = LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() };
    let fresh = Adapter::init(&config, model.modules(), 5, Device::Cpu).unwrap();
    let pairs = (0..model.modules().len()).map(|index| {
        fresh.pair(index).map(|pair| {
            let numbers = Tensor::arange(pair.b.numel() as i64, (Kind::Float, Device::Cpu));
            let b = (numbers * 0.7).sin().view_as(&pair.b) * 0.2;
            LoraPair { a: pair.a.detach(), b, scale: pair.scale }
        })
    });
    Adapter::from_pairs(config, model.modules(), pairs.collect()).unwrap()
}

fn logits(model: &Decoder, adapter: Option<&Adapter>) -> Tensor {
    let text: Vec<i64> = (1..12).map(|token| token * 5 % 60).collect();
    let packing = Packing::new(&[Sequence { prompt: text, completions: Vec::new() }]).unwrap();
    let view = adapter.map(|adapter| adapter.snapshot(Kind::Float).unwrap());
    let adapters = RowAdapters::all(view.as_ref());
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    let hidden =
        model.forward(&packing.input(Device::Cpu).unwrap(), &mut attention, &adapters).unwrap();
    model.logits(&hidden, &adapters).unwrap()
}

#[test]
fn a_merged_folder_computes_what_the_adapter_beside_the_base_does() {
    let families = ["qwen2", "qwen3", "qwen3_yarn", "qwen3_moe_mixed", "llama3"]
        .map(|name| format!("families/{name}"));
    for case in ["llama_tiny".to_owned(), "llama_untied".to_owned()].into_iter().chain(families) {
        let checkpoint = Checkpoint::open(&fixtures().join(&case)).unwrap();
        let model = checkpoint.decoder(Kind::Float, Device::Cpu).unwrap();
        let adapter = adapter(&model);
        let dir = tempfile::tempdir().unwrap();
        checkpoint.export_merged(&model, &adapter, dir.path()).unwrap();

        let merged = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(merged.config(), checkpoint.config(), "{case}");
        let merged = merged.decoder(Kind::Float, Device::Cpu).unwrap();
        let (beside, inside, base) =
            (logits(&model, Some(&adapter)), logits(&merged, None), logits(&model, None));
        let size = beside.abs().max().double_value(&[]);
        let off = (&beside - inside).abs().max().double_value(&[]);
        assert!(off < 1e-4 * size, "{case}: off by {off} of {size}");
        assert!(
            (beside - base).abs().max().double_value(&[]) > 1e-2 * size,
            "{case}: the adapter does nothing"
        );
    }
}

#[test]
fn a_quantized_base_has_no_place_for_an_update() {
    let checkpoint = Checkpoint::open(&fixtures().join("llama_tiny")).unwrap();
    let model = checkpoint.decoder_quantized(Quantize::Int8, Kind::Float, Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = checkpoint.export_merged(&model, &adapter(&model), dir.path()).unwrap_err();
    assert!(
        matches!(error, ModelError::Argument { .. }) && error.to_string().contains("quantized"),
        "{error}"
    );
}
