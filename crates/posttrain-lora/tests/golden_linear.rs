//! A single adapted layer against PEFT's: output, merged weight and gradients
//! (`fixtures/peft_tiny/linear.safetensors`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{
    AdaptedLinear, Adapter, LoraConfig, LoraPair, ModuleSpec, RowAdapters, merged_weight,
};
use posttrain_tensor::read_tensors;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// The largest error relative to the largest value.
fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    let scale = expected.abs().max().double_value(&[]);
    (got - expected).abs().max().double_value(&[]) / scale
}

fn golden() -> BTreeMap<String, Tensor> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft_tiny");
    read_tensors(&folder.join("linear.safetensors")).unwrap()
}

fn adapter(golden: &BTreeMap<String, Tensor>, use_rslora: bool) -> Adapter {
    let config = LoraConfig { rank: 3, alpha: 5.0, use_rslora, ..LoraConfig::default() };
    let (a, b) = (golden["lora_a"].shallow_clone(), golden["lora_b"].shallow_clone());
    let pair = LoraPair { a, b, scale: config.scale() };
    Adapter::from_pairs(config, &[ModuleSpec::new("linear", 8, 6)], vec![Some(pair)]).unwrap()
}

#[test]
fn output_merge_and_gradients_are_pefts_for_both_scales() {
    let golden = golden();
    for (name, use_rslora) in [("lora", false), ("rslora", true)] {
        let expected = |what: &str| &golden[&format!("{name}.{what}")];
        let adapter = adapter(&golden, use_rslora);
        let (weight, bias) = (golden["weight"].shallow_clone(), golden["bias"].shallow_clone());
        let layer = AdaptedLinear::new(weight.shallow_clone(), Some(bias), vec![(0, 6)]).unwrap();
        let x = golden["x"].reshape([6, 8]).set_requires_grad(true);

        let view = adapter.view(Kind::Float).unwrap();
        let y = layer.forward(&x, &RowAdapters::all(Some(&view))).unwrap();
        assert!(relative_error(&y.view([2, 3, 6]), expected("y")) < 1e-5);

        (&y * golden["upstream"].reshape([6, 6])).sum(Kind::Float).backward();
        let pair = adapter.pair(0).unwrap();
        assert!(relative_error(&x.grad().view([2, 3, 8]), expected("grad_x")) < 1e-5);
        assert!(relative_error(&pair.a.grad(), expected("grad_a")) < 1e-5);
        assert!(relative_error(&pair.b.grad(), expected("grad_b")) < 1e-5);
        assert!(relative_error(&merged_weight(&weight, pair).unwrap(), expected("merged")) < 1e-5);
    }
}
