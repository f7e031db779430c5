//! SmolLM2-135M-Instruct from its GGUF against transformers (`fixtures/smollm2_logits`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod demo;

use posttrain_lora::RowAdapters;
use posttrain_model::{Decoder, GgufFile, Message, PackedAttention, Packing, Sequence, Weights};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(0.0)).collect()
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
}

fn logits(model: &Decoder, tokens: &[i64]) -> Tensor {
    let packing =
        Packing::new(&[Sequence { prompt: tokens.to_vec(), completions: vec![] }]).unwrap();
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    let hidden = model
        .forward(&packing.input(Device::Cpu).unwrap(), &mut attention, &RowAdapters::none())
        .unwrap();
    model.logits(&hidden, &RowAdapters::none()).unwrap().to_kind(Kind::Float)
}

fn logprobs(logits: &Tensor, tokens: &[i64]) -> Vec<f64> {
    let next = Tensor::from_slice(&tokens[1..]).unsqueeze(1);
    let all = logits.narrow(0, 0, tokens.len() as i64 - 1).log_softmax(-1, Kind::Float);
    Vec::<f64>::try_from(all.gather(1, &next, false).squeeze_dim(1).to_kind(Kind::Double)).unwrap()
}

#[test]
fn prompts_logits_and_logprobs_in_f32() {
    let Some(checkpoint) = demo::checkpoint() else { return };
    let model = checkpoint.decoder(Kind::Float, Device::Cpu).unwrap();
    let (tokenizer, template) =
        (checkpoint.tokenizer().unwrap(), checkpoint.chat_template().unwrap());
    for case in demo::json("smollm2_logits/expected.json")["prompts"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let tokens = template.encode(&tokenizer, &messages, true).unwrap();
        assert_eq!(tokens, ids(&case["tokens"]));
        let logits = logits(&model, &tokens);
        let last = logits.get(-1);
        let expected = floats(&case["top_logits_f64"]);
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (id, expected) in ids(&case["top_ids"]).into_iter().zip(expected) {
            assert!((last.double_value(&[id]) - expected).abs() / largest < 1e-4);
        }
        for (got, expected) in
            logprobs(&logits, &tokens).iter().zip(&floats(&case["logprobs_f64"])[1..])
        {
            assert!((got - expected).abs() < 1e-3, "{got} {expected}");
        }
    }
}

#[test]
fn greedy_continuations_in_f32_are_transformers_token_for_token() {
    let Some(checkpoint) = demo::checkpoint() else { return };
    let model = checkpoint.decoder(Kind::Float, Device::Cpu).unwrap();
    for case in demo::json("smollm2_logits/expected.json")["prompts"].as_array().unwrap() {
        let mut text = ids(&case["tokens"]);
        let start = text.len();
        for _ in 0..24 {
            text.push(logits(&model, &text).get(-1).argmax(-1, false).int64_value(&[]));
        }
        assert_eq!(text[start..], ids(&case["greedy_f32"]));
    }
}

/// bf16 rounds; transformers' own mean error on these prompts is 0.07 nats, its greatest 0.29.
#[test]
fn logprobs_in_bf16_stay_as_close_as_transformers() {
    let Some(checkpoint) = demo::checkpoint() else { return };
    let model = checkpoint.decoder(Kind::BFloat16, Device::Cpu).unwrap();
    let (mut errors, mut count) = (0.0, 0);
    for case in demo::json("smollm2_logits/expected.json")["prompts"].as_array().unwrap() {
        let tokens = ids(&case["tokens"]);
        for (got, expected) in logprobs(&logits(&model, &tokens), &tokens)
            .iter()
            .zip(&floats(&case["logprobs_f64"])[1..])
        {
            assert!((got - expected).abs() < 0.6, "{got} {expected}");
            errors += (got - expected).abs();
            count += 1;
        }
    }
    let mean = errors / f64::from(count);
    println!("mean error of bf16 log-probabilities: {mean:.4} nats over {count} tokens");
    assert!(mean < 0.12, "{mean}");
}

#[test]
fn dequantized_weights_have_the_checksums_of_ggufs_own_reader() {
    let Some(checkpoint) = demo::checkpoint() else { return };
    let file = GgufFile::open(checkpoint.path()).unwrap();
    let mut weights = Weights::from_gguf(file, Kind::Double, Device::Cpu);
    let golden = demo::json("smollm2_logits/expected.json");
    for (name, expected) in golden["parameters"].as_object().unwrap() {
        let weight = weights.take(name, &ids(&expected["shape"])).unwrap();
        let places =
            Tensor::arange(weight.numel() as i64, (Kind::Double, Device::Cpu)).remainder(251.0);
        let sums = [
            (weight.sum(Kind::Double), "sum"),
            (weight.abs().sum(Kind::Double), "sum_abs"),
            ((weight.view(-1) * places).sum(Kind::Double), "sum_weighted"),
        ];
        for (sum, what) in sums {
            let (got, expected) = (sum.double_value(&[]), expected[what].as_f64().unwrap());
            assert!(
                (got - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{name} {what}: {got} {expected}"
            );
        }
    }
}
