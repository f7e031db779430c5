//! A small random model whose words are digits, two domains of questions, and an experiment on
//! them.

#[path = "../../../posttrain-recipes/tests/digits/mod.rs"]
mod digits;

use posttrain_experiment::{Experiment, ExperimentConfig, Report, assemble};
use posttrain_model::{Decoder, ModelConfig, TextModel};
use posttrain_reward::{Reward, Sample, Score, from_fn};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

pub struct World {
    model: TextModel,
}

impl World {
    pub fn new() -> Self {
        let config = ModelConfig {
            vocab_size: digits::WORDS,
            hidden_size: 64,
            num_hidden_layers: 2,
            ..ModelConfig::tiny()
        };
        let decoder = Decoder::random(&config, 1, Kind::Float, Device::Cpu).unwrap();
        Self { model: TextModel::new(decoder, digits::tokenizer(), digits::template()) }
    }

    pub fn model(&self) -> TextModel {
        self.model.clone()
    }

    pub fn experiment(&self, config: ExperimentConfig, folder: &Path) -> Experiment {
        Experiment::new(config, self.model(), "random", folder).unwrap().with_reward(reward())
    }
}

/// Right where the answer's digit is among the response's first two.
fn reward() -> Arc<dyn Reward> {
    let score =
        |s: &Sample| Ok(Score::binary(s.response.split(' ').take(2).any(|w| w == s.reference)));
    Arc::new(from_fn("digit", score))
}

/// Questions of low digits are answered by 3, those of high digits by 7.
fn questions() -> String {
    let mut lines = String::new();
    for (domain, digits, answer) in [("high", 5..10, 7), ("low", 0..5, 3)] {
        for n in 0..40 {
            let digit = |place: usize| digits.start + (n / 5_usize.pow(place as u32)) % 5;
            let question = format!("{} {} {}", digit(0), digit(1), digit(2));
            writeln!(
                lines,
                r#"{{"id": "{domain}-{n}", "domain": "{domain}", "question": "{question}", "answer": "{answer}"}}"#
            )
            .unwrap();
        }
    }
    lines
}

/// An experiment of a few seconds, whose questions lie in `folder`.
pub fn config(folder: &Path) -> ExperimentConfig {
    let dataset = folder.join("questions.jsonl");
    // Whole at once: processes of one run write it side by side.
    let unfinished = folder.join(format!("questions.{}", std::process::id()));
    std::fs::write(&unfinished, questions()).unwrap();
    std::fs::rename(&unfinished, &dataset).unwrap();
    let text = format!(
        r#"
        seed = 5
        [model]
        path = "random"
        [data]
        dataset = "{}"
        sizes = {{ train = 16, validation = 6, test = 10 }}
        [rl]
        steps = 4
        prompts = 4
        group_size = 4
        learning_rate = 5e-3
        checkpoint_every = 2
        lora = {{ rank = 4, alpha = 8.0, dropout = 0.1 }}
        sampling = {{ max_tokens = 4 }}
        evaluation = {{ every = 2 }}
        [routing]
        used = "keywords"
        [[routing.routers]]
        name = "keywords"
        kind = "keywords"
        [[routing.routers]]
        name = "likelihood"
        kind = "likelihood"
        prompt = {{ names = ["1", "2"] }}
        [[routing.routers]]
        name = "hidden"
        kind = "hidden_states"
        [test]
        greedy = true
        "#,
        dataset.display()
    );
    toml::from_str(&text).unwrap()
}

/// The report without what depends on the machine and the moment.
pub fn reproducible(folder: &Path) -> Value {
    let mut report = assemble(folder).unwrap();
    report.timeline.clear();
    report.wall_clock = None;
    report.models.values_mut().for_each(|model| {
        model.seconds = 0.0;
        model.curve.iter_mut().for_each(|point| point.seconds = 0.0);
    });
    report.router.values_mut().for_each(|router| router.seconds_per_question = None);
    serde_json::to_value(Report { machine: Default::default(), ..report }).unwrap()
}
