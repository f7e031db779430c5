//! The hand-written backward pass against autograd through the same model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{Adapter, AdapterGradients, LoraConfig, LoraPair, RowAdapters, TargetModules};
use posttrain_model::{
    AttentionBias, Decoder, ExpertsConfig, Keep, ModelConfig, PackedAttention, Packing,
    RopeScaling, Sequence, Tape,
};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// An adapter whose `B` is not zero, so that every path carries a gradient.
fn adapter(model: &Decoder, config: LoraConfig) -> Adapter {
    let fresh = Adapter::init(&config, model.modules(), 3, Device::Cpu).unwrap();
    let pair = |index: usize| {
        let pair = fresh.pair(index)?;
        let b = Tensor::randn(pair.b.size(), CPU) * 0.3;
        Some(LoraPair { a: pair.a.detach().copy(), b, scale: pair.scale })
    };
    let pairs = (0..model.modules().len()).map(pair).collect();
    Adapter::from_pairs(config, model.modules(), pairs).unwrap()
}

fn packing() -> Packing {
    let sequence = |prompt: Vec<i64>, completions: Vec<Vec<i64>>| Sequence { prompt, completions };
    Packing::new(&[
        sequence(vec![1, 2, 3, 4], vec![vec![5, 6], vec![7], vec![8, 9, 10]]),
        sequence(vec![11], vec![vec![12, 13]]),
        sequence(vec![14, 15], vec![]),
    ])
    .unwrap()
}

fn by_autograd(
    model: &Decoder,
    adapter: &Adapter,
    dropout: f64,
    weights: &Tensor,
) -> (Tensor, Vec<Tensor>) {
    let packing = packing();
    let view = adapter.view(model.kind()).unwrap().with_dropout(dropout, 5);
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    let input = packing.input(Device::Cpu).unwrap();
    let hidden = model.forward(&input, &mut attention, &RowAdapters::all(Some(&view))).unwrap();
    (&hidden * weights).sum(model.kind()).backward();
    (hidden.detach(), take_gradients(adapter))
}

fn by_tape(
    model: &Decoder,
    adapter: &Adapter,
    dropout: f64,
    weights: &Tensor,
    keep: Keep,
) -> (Tensor, Vec<Tensor>) {
    let view = adapter.snapshot(Kind::Float).unwrap().with_dropout(dropout, 5);
    let (hidden, tape) =
        Tape::forward(model, RowAdapters::all(Some(&view)), &packing(), keep).unwrap();
    let mut gradients = [AdapterGradients::default()];
    tape.backward(weights, &mut gradients).unwrap();
    adapter.add_gradients(&gradients[0]).unwrap();
    (hidden, take_gradients(adapter))
}

fn take_gradients(adapter: &Adapter) -> Vec<Tensor> {
    let take = |(_, mut leaf): (String, Tensor)| {
        // An expert without a token has none.
        let gradient = if leaf.grad().defined() { leaf.grad().copy() } else { leaf.zeros_like() };
        leaf.zero_grad();
        gradient
    };
    adapter.parameters().into_iter().map(take).collect()
}

/// How far a tensor is from what it should be, relative to that.
fn off(got: &Tensor, exact: &Tensor) -> f64 {
    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
    norm(&(got - exact)) / (norm(exact) + 1e-6)
}

/// As near to the gradient in f64 as autograd in f32 is, but for a factor: where a softmax is all
/// but certain, both lose digits.
fn assert_close(what: &str, got: &Tensor, by_autograd: &Tensor, exact: &Tensor) {
    let (off, bound) = (off(got, exact), 1e-5 + 4.0 * off(by_autograd, exact));
    assert!(off < bound, "{what}: off by {off} from f64, where {bound} is allowed");
}

fn families() -> Vec<ModelConfig> {
    let experts = ExpertsConfig {
        count: 5,
        a_token: 2,
        intermediate_size: 12,
        normalized: true,
        layers: vec![1],
    };
    let plain = ExpertsConfig { normalized: false, layers: vec![0], ..experts };
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.2,
        original: 16.0,
        truncate: true,
    };
    let tiny = ModelConfig::tiny;
    vec![
        tiny(),
        ModelConfig { head_norms: true, rope_scaling: yarn, ..tiny() },
        ModelConfig { attention_bias: AttentionBias::QueryKeyValue, ..tiny() },
        ModelConfig { attention_bias: AttentionBias::All, tie_word_embeddings: false, ..tiny() },
        ModelConfig { head_norms: true, experts: Some(experts), num_hidden_layers: 2, ..tiny() },
        ModelConfig { experts: Some(plain), ..tiny() },
    ]
}

#[test]
fn the_tape_gives_autograds_gradients_whatever_it_keeps_drops_or_adapts() {
    // The one test of this program: nobody else draws.
    tch::manual_seed(11);
    for config in families() {
        let models = [Kind::Float, Kind::Double]
            .map(|kind| Decoder::random(&config, 7, kind, Device::Cpu).unwrap());
        let everywhere = LoraConfig { rank: 3, alpha: 5.0, ..LoraConfig::default() };
        let names = TargetModules::Names(
            ["q_proj", "v_proj", "up_proj", "down_proj"].map(String::from).to_vec(),
        );
        let somewhere = LoraConfig { target_modules: names, ..everywhere.clone() };
        for config in [everywhere, somewhere] {
            compare(&models, &adapter(&models[0], config));
        }
    }
}

fn compare([model, exact]: &[Decoder; 2], adapter: &Adapter) {
    let weights = Tensor::randn([packing().tokens().len() as i64, model.config().hidden_size], CPU);
    for dropout in [0.0, 0.3] {
        let (hidden, autograds) = by_autograd(model, adapter, dropout, &weights);
        let (exact_hidden, exact) = by_autograd(exact, adapter, dropout, &weights);
        for keep in [Keep::Everything, Keep::Inputs] {
            let (got, gradients) = by_tape(model, adapter, dropout, &weights, keep);
            assert_close("hidden states", &got, &hidden, &exact_hidden);
            for (index, (name, _)) in adapter.parameters().iter().enumerate() {
                let (autograds, exact) = (&autograds[index], &exact[index]);
                let idle = autograds.abs().max().double_value(&[]) == 0.0;
                assert!(!idle || name.contains("experts"), "{name} gets no gradient");
                assert_close(name, &gradients[index], autograds, exact);
            }
        }
    }
}
