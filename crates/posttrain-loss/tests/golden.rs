//! Numbers of other people's: TRL's advantages, the objectives of verl, TRL, Tinker and prime-rl
//! with their gradients, the warpers of `transformers`.
//!
//! Each fixture lies beside the script that made it, with the versions, the seed and the tolerance.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]

use posttrain_loss::head::TokenGradients;
use posttrain_loss::preference::{Dpo, Kto};
use posttrain_loss::{
    AdvantageConfig, Head, HeadAdapter, HeadOptions, LossBatch, LossOutcome, Objective,
    ObjectiveConfig, PolicyObjective, RowSampling, StepTotals, TokenAdvantages, sample,
};
use serde::Deserialize;
use std::collections::HashMap;
use tch::{Kind, Tensor};

struct Fixture {
    tensors: HashMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

impl Fixture {
    fn read(path: &str) -> Self {
        let path = format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        Self {
            tensors: Tensor::read_safetensors(&path).unwrap().into_iter().collect(),
            metadata: header.metadata().clone().unwrap(),
        }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        Vec::try_from(&self.tensors[name].to_kind(Kind::Float)).unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().unwrap()
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, key: &str) -> T {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }
}

/// Within a tolerance of the expected values, relative to the largest of them.
fn assert_close(ours: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(ours.size(), expected.size(), "{what}");
    let (ours, expected) = (ours.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let size = expected.abs().max().double_value(&[]);
    let error = (ours - expected).abs().max().double_value(&[]);
    assert!(error <= tolerance * size.max(1e-30), "{what}: off by {error} of {size}");
}

#[test]
fn advantages_are_those_of_trl() {
    for name in ["groups", "one_completion"] {
        let fixture = Fixture::read(&format!("advantages/{name}.safetensors"));
        let rewards: Vec<Option<f32>> = fixture
            .floats("rewards")
            .into_iter()
            .map(|reward| (!reward.is_nan()).then_some(reward))
            .collect();
        let (group, epsilon) = (fixture.number("group") as usize, fixture.number("epsilon"));
        let kinds = [
            ("group_mean", AdvantageConfig::GroupMean {}),
            ("group_normalised", AdvantageConfig::GroupNormalized { epsilon }),
            ("leave_one_out", AdvantageConfig::LeaveOneOut {}),
            ("batch_normalised", AdvantageConfig::BatchNormalized { epsilon }),
        ];
        for (kind, config) in kinds {
            let advantages =
                config.advantages(&rewards, &vec![group; rewards.len() / group]).unwrap();
            assert_close(
                &Tensor::from_slice(&advantages.values),
                &fixture.tensors[kind],
                1e-5,
                kind,
            );
        }
    }
}

#[test]
fn policy_losses_and_gradients_are_those_of_autograd() {
    let fixture = Fixture::read("policy/policy.safetensors");
    let lengths: Vec<usize> = fixture.json("lengths");
    let objectives: Vec<PolicyObjective> = fixture.json("objectives");
    let [sampling, train, reference, entropy, advantages] =
        ["sampling", "train", "reference", "entropy", "advantages"]
            .map(|name| fixture.floats(name));
    for masked in ["some", "all"] {
        let weights = fixture.floats(&format!("mask.{masked}"));
        let batch = LossBatch {
            weights: Some(&weights),
            sampling_logprobs: Some(&sampling),
            advantages: Some(TokenAdvantages::PerSequence(&advantages)),
            reference_logprobs: Some(&reference),
            ..LossBatch::of(&lengths)
        };
        let totals: StepTotals = batch.totals().unwrap();
        for (i, objective) in objectives.iter().enumerate() {
            let outcome = objective.evaluate(&batch, &train, Some(&entropy), &totals).unwrap();
            let gradients = outcome.token_gradients().unwrap();
            let expected = |name: &str| &fixture.tensors[&format!("{masked}.{i}.{name}")];
            let what = format!("{masked} masked, {objective:?}");
            assert_close(&Tensor::from_slice(&[outcome.loss()]), expected("loss"), 1e-5, &what);
            assert_close(&gradients.logprobs, expected("gradient"), 1e-5, &what);
            let by_entropy = gradients.entropy.unwrap_or_else(|| gradients.logprobs.zeros_like());
            assert_close(&by_entropy, expected("by_entropy"), 1e-5, &what);
        }
    }
}

/// An objective of a fixture, with its name there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    objective: ObjectiveConfig,
}

/// The fields of a fixture's batch.
struct Fields {
    lengths: Vec<usize>,
    logprobs: Vec<f32>,
    weights: Vec<f32>,
    advantages: Vec<f32>,
    sampling: Vec<f32>,
    old: Option<Vec<f32>>,
    reference: Option<Vec<f32>>,
}

impl Fields {
    fn of(fixture: &Fixture) -> Self {
        let flat = |name: &str| -> Option<Vec<f32>> {
            let tensor = fixture.tensors.get(name)?;
            Some(Vec::try_from(&tensor.reshape([-1])).unwrap())
        };
        Self {
            lengths: fixture.json("lengths"),
            logprobs: flat("logprobs").unwrap(),
            weights: flat("weights").unwrap(),
            advantages: flat("advantages").unwrap(),
            sampling: flat("sampling_logprobs").unwrap(),
            old: flat("old_logprobs"),
            reference: flat("reference_logprobs"),
        }
    }

    fn batch(&self) -> LossBatch<'_> {
        LossBatch {
            weights: Some(&self.weights),
            sampling_logprobs: Some(&self.sampling),
            old_logprobs: self.old.as_deref(),
            advantages: Some(TokenAdvantages::PerToken(&self.advantages)),
            reference_logprobs: self.reference.as_deref(),
            ..LossBatch::of(&self.lengths)
        }
    }

    fn evaluate(&self, objective: ObjectiveConfig) -> LossOutcome {
        let batch = self.batch();
        objective
            .build()
            .unwrap()
            .evaluate(&batch, &self.logprobs, None, &batch.totals().unwrap())
            .unwrap()
    }
}

/// Compares each case of a fixture, and returns how many there were.
fn assert_cases(fixture: &Fixture, fields: impl Fn(&Case) -> Fields) -> usize {
    let cases: Vec<Case> = fixture.json("cases");
    for case in &cases {
        let outcome = fields(case).evaluate(case.objective);
        let gradients = outcome.token_gradients().unwrap();
        let expected = fixture.tensors[&format!("{}.grad", case.name)].reshape([-1]);
        assert_close(&gradients.logprobs, &expected, 1e-5, &case.name);
        if let Some(loss) = fixture.tensors.get(&format!("{}.loss", case.name)) {
            assert_close(&Tensor::from_slice(&[outcome.loss()]), loss, 1e-5, &case.name);
        }
    }
    cases.len()
}

#[test]
fn policy_losses_and_corrections_are_those_of_verl() {
    let fixture = Fixture::read("verl/verl.safetensors");
    assert_eq!(assert_cases(&fixture, |_| Fields::of(&fixture)), 27);
}

#[test]
fn policy_losses_corrections_and_preferences_are_those_of_trl() {
    let fixture = Fixture::read("trl/trl.safetensors");
    let fields = |case: &Case| {
        let mut fields = Fields::of(&fixture);
        if let ObjectiveConfig::Kto(_) = case.objective {
            let length = fields.lengths[0];
            let labels = fixture.floats("labels");
            fields.advantages =
                labels.into_iter().flat_map(|label| std::iter::repeat_n(label, length)).collect();
        }
        fields
    };
    assert_eq!(assert_cases(&fixture, fields), 14);
}

#[test]
fn preferences_report_what_trl_reports() {
    let fixture = Fixture::read("trl/trl.safetensors");
    let outcome = Fields::of(&fixture).evaluate(ObjectiveConfig::Dpo(Dpo::default()));
    for name in
        ["preference/accuracy", "preference/margin", "preference/chosen", "preference/rejected"]
    {
        let ours = Tensor::from_slice(&[outcome.metrics.named.get(name).unwrap()]);
        assert_close(&ours, &fixture.tensors[&format!("dpo.{name}")], 1e-5, name);
    }
}

#[test]
fn the_reference_point_is_that_of_trl() {
    let fixture = Fixture::read("trl/trl.safetensors");
    let mut fields = Fields::of(&fixture);
    fields.reference = Some(
        Vec::try_from(&fixture.tensors["mismatched_reference_logprobs"].reshape([-1])).unwrap(),
    );
    let logprobs =
        Vec::<f32>::try_from(&fixture.tensors["mismatched_logprobs"].reshape([-1])).unwrap();
    let point = Kto::reference_point(&fields.batch(), &logprobs).unwrap();
    assert_close(
        &Tensor::from_slice(&[point]),
        &fixture.tensors["kto.reference_point"],
        1e-5,
        "reference point",
    );
}

#[test]
fn published_formulas_are_these() {
    let fixture = Fixture::read("formulas/formulas.safetensors");
    assert_eq!(assert_cases(&fixture, |_| Fields::of(&fixture)), 9);
}

#[test]
fn head_scores_and_gradients_are_those_of_the_dense_computation() {
    for (name, tolerance) in [("f32", 2e-5), ("one_token", 2e-5), ("bf16", 0.02)] {
        let fixture = Fixture::read(&format!("head/{name}.safetensors"));
        let tensor = |name: &str| &fixture.tensors[name];
        let options = HeadOptions { temperature: fixture.number("temperature"), chunk_tokens: 5 };
        let adapter = HeadAdapter {
            a: tensor("a").shallow_clone(),
            b: tensor("b").shallow_clone(),
            scale: fixture.number("scale"),
        };
        let head = Head::new(tensor("weight"), options).unwrap().with_adapter(adapter).unwrap();
        let (hidden, targets) = (tensor("hidden"), tensor("targets"));
        let scores = head.scores(hidden, targets).unwrap();
        let gradients = TokenGradients {
            logprobs: tensor("by_logprob").shallow_clone(),
            entropy: Some(tensor("by_entropy").shallow_clone()),
        };
        let gradients = head.backward(hidden, targets, &scores, &gradients).unwrap();
        let adapter = gradients.adapter.unwrap();
        let results = [
            ("logprobs", &scores.logprobs),
            ("entropy", &scores.entropy),
            ("grad_hidden", &gradients.hidden),
            ("grad_a", &adapter.a),
            ("grad_b", &adapter.b),
        ];
        for (result, ours) in results {
            assert_close(ours, tensor(result), tolerance, &format!("{name}: {result}"));
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
}

#[test]
fn tokens_are_drawn_from_the_distribution_of_transformers() {
    let fixture = Fixture::read("sampler/sampler.safetensors");
    let settings: Vec<Setting> = fixture.json("settings");
    for (i, Setting { temperature, top_k, top_p, min_p }) in settings.into_iter().enumerate() {
        let uniforms = Vec::<f64>::try_from(&fixture.tensors[&format!("{i}.uniform")]).unwrap();
        let row = |uniform| RowSampling { temperature, top_k, top_p, min_p, uniform };
        let drawn =
            sample(&fixture.tensors["logits"], &uniforms.into_iter().map(row).collect::<Vec<_>>())
                .unwrap();
        let tokens = Vec::<i64>::try_from(&fixture.tensors[&format!("{i}.tokens")]).unwrap();
        assert_eq!(drawn.tokens, tokens, "setting {i}");
        for (ours, expected) in drawn.logprobs.iter().zip(fixture.floats(&format!("{i}.logprobs")))
        {
            assert!((ours - expected).abs() <= 1e-5, "setting {i}: {ours} for {expected}");
        }
    }
}
