//! Fine-tuning's promises on a small random model: each lesson improves its own held-out measure,
//! runs repeat and resume to the same numbers, and what cannot be learned is refused by name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::preference::{Dpo, SimPo};
use posttrain_loss::{CrossEntropy, ObjectiveConfig};
use posttrain_model::{ChatTemplate, TextModel};
use posttrain_recipes::lesson::{
    Lesson, OnPolicyDistillation, Preference, Supervised, TeacherConfig, conversation_datum,
    sample_pairs,
};
use posttrain_recipes::{
    EvaluationConfig, EvaluationMode, Event, FineTuneConfig, FineTuneRecord, FineTuneRun,
    GroupSampler, MetricsLog, Observer, PromptStyle, RecipeError, Silent,
};
use posttrain_rollout::SamplingParams;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use world::{World, examples, reward};

fn config() -> FineTuneConfig {
    FineTuneConfig {
        seed: 5,
        epochs: 2,
        batch: 8,
        learning_rate: 5e-3,
        lora: LoraConfig { rank: 4, alpha: 8.0, dropout: 0.1, ..LoraConfig::default() },
        sampling: SamplingParams { max_tokens: 3, ..SamplingParams::default() },
        evaluation: EvaluationConfig { every: 4, ..EvaluationConfig::default() },
        checkpoint_every: 3,
        ..FineTuneConfig::default()
    }
}

fn supervised(world: &World) -> Supervised {
    Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: CrossEntropy::default(),
    }
}

fn run<L: Lesson>(world: &World, lesson: L, config: FineTuneConfig, dir: &Path) -> FineTuneRun<L> {
    FineTuneRun::new(world.model.clone(), lesson, config, dir)
        .unwrap()
        .with_accuracy(PromptStyle::default(), reward())
        .unwrap()
}

fn records(folder: &Path) -> Vec<FineTuneRecord> {
    let (_, records) = MetricsLog::<FineTuneRecord>::open(folder, u64::MAX).unwrap();
    records.iter().map(FineTuneRecord::reproducible).collect()
}

struct DieAt(u64);

impl Observer for DieAt {
    fn see(&mut self, event: &Event<'_>) {
        if let Event::FineTuneStep { record, .. } = event {
            assert!(record.step < self.0, "killed");
        }
    }
}

#[test]
fn answers_are_learned_and_a_killed_run_is_as_if_it_had_not_been() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let whole = dir.path().join("whole");
    let own = run(&world, supervised(&world), config(), &whole);
    let before = own.held_out(None, &examples(40..60)).unwrap();
    assert!(own.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap().complete);

    let best = whole.join("best");
    let after = own.held_out(Some(&best), &examples(40..60)).unwrap();
    assert_eq!((before.name, after.name), ("nll", "nll"));
    assert!(after.value < 0.5 * before.value, "{before:?} {after:?}");
    let mode = EvaluationMode::Sampled;
    let accuracy = own.evaluate("best", Some(&best), &examples(40..60), mode, &mut Silent);
    assert!(accuracy.unwrap().sampled.share > 0.8);

    let written = records(&whole);
    assert_eq!(written.len(), 10); // 40 examples, twice, by eight
    assert_eq!(written[9].epoch, 2.0);
    assert!(written[3].held_out.contains_key("nll") && written[3].validation.is_some());
    assert!(written[9].metrics["nll"] < written[0].metrics["nll"]);

    for death in [1, 5, 8] {
        let folder = dir.path().join(format!("killed-{death}"));
        let killed = run(&world, supervised(&world), config(), &folder);
        let killed = AssertUnwindSafe(|| {
            killed.train(&examples(0..40), &examples(40..60), &mut DieAt(death))
        });
        assert!(catch_unwind(killed).is_err());
        let again = run(&world, supervised(&world), config(), &folder);
        again.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap();
        assert_eq!(records(&folder), written, "killed at step {death}");
        let adapter = |root: &Path| std::fs::read(root.join("last/adapter_model.safetensors"));
        assert!(adapter(&folder).unwrap() == adapter(&whole).unwrap(), "killed at {death}");
    }
}

#[test]
fn the_better_answer_is_made_likelier() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let paired = |example: Example| {
        let metadata = json!({"chosen": "7", "rejected": "3"});
        Example { metadata: metadata.as_object().cloned(), ..example }
    };
    let pairs = |range| examples(range).into_iter().map(paired).collect::<Vec<_>>();
    let objective = ObjectiveConfig::Dpo(Dpo::default());
    let lesson = Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap();
    let own = run(&world, lesson, config(), dir.path());
    own.train(&pairs(0..40), &pairs(40..60), &mut Silent).unwrap();

    let last = dir.path().join("last");
    assert_eq!(own.held_out(None, &pairs(40..60)).unwrap().value, 0.0); // no gain on either side
    assert!(own.held_out(Some(&last), &pairs(40..60)).unwrap().value > 0.9);
    let written = records(dir.path());
    assert!(written[9].metrics["preference/margin"] > written[0].metrics["preference/margin"]);
}

#[test]
fn a_reference_that_is_kept_is_the_one_that_is_computed() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let paired = |example: Example| {
        let metadata = json!({ "chosen": "7 7", "rejected": "1 2 3" });
        Example { metadata: metadata.as_object().cloned(), ..example }
    };
    let pairs: Vec<Example> = examples(0..16).into_iter().map(paired).collect();
    let lesson = || {
        let objective = ObjectiveConfig::Dpo(Dpo::default());
        Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap()
    };
    // Every pair is seen three times.
    let config = FineTuneConfig { epochs: 3, steps: None, ..config() };
    let folders = ["computed", "kept"].map(|name| dir.path().join(name));
    run(&world, lesson(), config.clone(), &folders[0]).train(&pairs, &[], &mut Silent).unwrap();
    let kept = lesson().with_precomputed_reference().unwrap();
    run(&world, kept, config, &folders[1]).train(&pairs, &[], &mut Silent).unwrap();

    let [computed, kept] = folders.map(|folder| records(&folder));
    assert!(computed.len() > 3 && computed.len() == kept.len());
    for (computed, kept) in computed.iter().zip(&kept) {
        assert!((computed.loss - kept.loss).abs() < 1e-5, "{computed:?} {kept:?}");
        assert!((computed.grad_norm - kept.grad_norm).abs() < 1e-4, "{computed:?} {kept:?}");
    }

    let objective = ObjectiveConfig::SimPo(SimPo::default());
    let without = Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap();
    let error = without.with_precomputed_reference().err().unwrap().to_string();
    assert!(error.contains("precompute_reference"), "{error}");
}

#[test]
fn pairs_are_a_right_and_a_wrong_answer_of_the_base() {
    let world = World::new();
    let sampler = GroupSampler::new(world.model, reward()).unwrap();
    // Answers end at some digits: one that is cut is neither right nor wrong.
    let stop = ["1", "4", "8"].map(str::to_owned).to_vec();
    let sampling = SamplingParams { max_tokens: 12, seed: 3, stop, ..SamplingParams::default() };
    let pairs = sample_pairs(&sampler, None, &examples(0..30), 12, &sampling, &mut Silent).unwrap();
    assert!(!pairs.is_empty());
    for pair in &pairs {
        let metadata = pair.metadata.as_ref().unwrap();
        let right =
            |field: &str| metadata[field].as_str().unwrap().split(' ').take(2).any(|w| w == "7");
        assert!(right("chosen") && !right("rejected"), "{metadata:?}");
    }
    assert_eq!(
        sample_pairs(&sampler, None, &examples(0..30), 12, &sampling, &mut Silent).unwrap(),
        pairs
    );
}

#[test]
fn a_policy_comes_nearer_to_its_teacher() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let teacher = dir.path().join("teacher");
    let own = run(&world, supervised(&world), config(), &teacher);
    own.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap();

    let style = PromptStyle::default();
    let path = teacher.join("best");
    let teacher = || TeacherConfig::Adapter { path: path.clone() }.build(&world.model, &style);
    let lesson = || {
        let sampling = SamplingParams { seed: 5, ..config().sampling };
        let (model, teacher) = (world.model.clone(), teacher().unwrap());
        OnPolicyDistillation::new(model, style.clone(), teacher, (4, sampling)).unwrap()
    };
    let student = || FineTuneConfig { epochs: 6, ..config() };
    let folders = [dir.path().join("a"), dir.path().join("b")];
    for folder in &folders {
        let own = run(&world, lesson(), student(), folder);
        own.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap();
    }
    assert_eq!(records(&folders[0]), records(&folders[1]));

    let own = run(&world, lesson(), student(), &folders[0]);
    let before = own.held_out(None, &examples(40..60)).unwrap();
    let after = own.held_out(Some(&folders[0].join("last")), &examples(40..60)).unwrap();
    assert!(after.value < 0.3 * before.value, "{before:?} {after:?}");
    let mode = EvaluationMode::Sampled;
    let accuracy =
        own.evaluate("last", Some(&folders[0].join("last")), &examples(40..60), mode, &mut Silent);
    assert!(accuracy.unwrap().sampled.share > 0.6);
}

/// A template with marks of its own, and an end of each turn.
fn marked() -> TextModel {
    let world = World::new();
    let source = "{% for m in messages %}{% if m.role == 'user' %}ask {{ m.content }} {% else %}\
                  0 {{ m.content }} <end> 9 {% endif %}{% endfor %}\
                  {% if add_generation_prompt %}0 {% endif %}";
    TextModel { template: ChatTemplate::new(source).unwrap().into(), ..world.model }
}

#[test]
fn of_a_conversation_the_turns_with_a_weight_are_learned_up_to_their_end() {
    let model = marked();
    let messages = json!({"messages": [
        {"role": "user", "content": "1 2"},
        {"role": "assistant", "content": "3", "weight": 0},
        {"role": "user", "content": "4"},
        {"role": "assistant", "content": "5 6"},
    ]});
    let example = Example {
        metadata: messages.as_object().cloned(),
        ..Example::new("talk", "digits", "?", "-")
    };
    let datum = conversation_datum(&model, &PromptStyle::default(), &example).unwrap();
    let text = |tokens: &[i64]| model.tokenizer.decode_with_special(tokens).unwrap();
    // The call to answer (0) and what the template writes after the end (9) are read.
    assert_eq!(text(&datum.targets), "5 6 <end>");
    assert!(text(&datum.input).starts_with("ask 1 2 0 3 <end> 9 ask 4 0 5 6"));

    let plain = Example::new("plain", "digits", "1 2", "5");
    let datum = conversation_datum(&model, &PromptStyle::default(), &plain).unwrap();
    assert_eq!(text(&datum.targets), "5 <end>");
}

#[test]
fn what_cannot_be_learned_is_refused_by_its_example() {
    let (world, model) = (World::new(), marked());
    let refused = |messages: serde_json::Value| {
        let example = Example {
            metadata: json!({ "messages": messages }).as_object().cloned(),
            ..Example::new("talk", "digits", "?", "-")
        };
        conversation_datum(&model, &PromptStyle::default(), &example).unwrap_err().to_string()
    };
    let error = refused(json!([{"role": "user", "content": "1"}]));
    assert!(error.starts_with("example `talk`: no assistant's message"), "{error}");
    let error = refused(json!([{"role": "nobody", "content": "1"}]));
    assert!(error.starts_with("example `talk`: metadata `messages`: message 1 "), "{error}");
    let said = |more: (&str, serde_json::Value)| {
        let mut message = json!({"role": "assistant", "content": "1"});
        message[more.0] = more.1;
        json!([{"role": "user", "content": "1"}, message])
    };
    let error = refused(said(("weight", json!(0.5))));
    assert!(error.contains("message 2 has a `weight` that is neither 0 nor 1"), "{error}");
    let error = refused(said(("wieght", json!(0))));
    assert!(error.contains("message 2 cannot be read: unknown field `wieght`"), "{error}");
    let error = refused(json!([{"role": "user", "content": "1", "weight": 1}]));
    assert!(error.contains("message 1 has a `weight`, and is no assistant's"), "{error}");

    let objective = ObjectiveConfig::CrossEntropy(CrossEntropy::default());
    let error = Preference::new(world.model.clone(), PromptStyle::default(), objective);
    assert!(error.err().unwrap().to_string().contains("one of pairs"));

    let dir = tempfile::tempdir().unwrap();
    let objective = ObjectiveConfig::Dpo(Dpo::default());
    let lesson = Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap();
    let error = run(&world, lesson, config(), dir.path())
        .train(&examples(0..40), &[], &mut Silent)
        .unwrap_err();
    assert!(matches!(&error, RecipeError::Example { .. }), "{error}");
    assert!(error.to_string().contains("missing field `chosen`"), "{error}");

    for (config, field) in [
        (FineTuneConfig { batch: 0, ..config() }, "`batch`"),
        (FineTuneConfig { epochs: 0, ..config() }, "`epochs`"),
        (FineTuneConfig { learning_rate: -1.0, ..config() }, "`learning_rate`"),
    ] {
        assert!(config.validate().unwrap_err().to_string().contains(field));
    }
}

#[test]
fn a_rate_of_full_fine_tuning_is_told() {
    struct Notes(Vec<String>);
    impl Observer for Notes {
        fn see(&mut self, event: &Event<'_>) {
            if let Event::Note { text } = event {
                self.0.push((*text).to_owned());
            }
        }
    }
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    for (rate, told) in [(2e-5, 1), (2e-4, 0)] {
        let config = FineTuneConfig { learning_rate: rate, steps: Some(1), ..config() };
        let mut notes = Notes(Vec::new());
        let folder = dir.path().join(rate.to_string());
        let own = run(&world, supervised(&world), config, &folder);
        own.train(&examples(0..40), &[], &mut notes).unwrap();
        assert_eq!(notes.0.len(), told, "{:?}", notes.0);
    }
}
