//! Teachers elsewhere than in this process, several of them, and what a teacher left in a file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_chat::client::JsonClientConfig;
use posttrain_data::Example;
use posttrain_recipes::lesson::{
    Lesson, OffPolicyDistillation, Supervised, Teacher, TeacherConfig, TokenAnswer,
};
use posttrain_recipes::{FineTuneConfig, FineTuneRun, PromptStyle, RecipeError, Silent};
use posttrain_train::{Datum, Trainer, TrainerConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};
use world::{World, examples};

fn trainer(world: &World) -> Trainer {
    let lora = posttrain_lora::LoraConfig { rank: 2, ..Default::default() };
    Trainer::new(world.model.decoder.clone(), &lora, TrainerConfig::default(), 3).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Reads as the model itself does: a server that answers what a local teacher would.
struct Reads(std::sync::Mutex<Trainer>);

impl Respond for Reads {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body: Value = request.body_json().unwrap();
        assert_eq!((&body["echo"], &body["model"]), (&json!(true), &json!("bigger")));
        let text: Vec<i64> = serde_json::from_value(body["prompt"].clone()).unwrap();
        let read = Datum::completion(&text[..1], &text[1..]);
        let scores = self.0.lock().unwrap().forward_reference(&[read]).unwrap();
        let mut logprobs = vec![Value::Null];
        logprobs.extend(scores.logprobs[0].iter().map(|logprob| json!(logprob)));
        logprobs.push(json!(-3.0)); // of the token that it wrote itself
        let choice = json!({"text": "", "logprobs": {"token_logprobs": logprobs}});
        ResponseTemplate::new(200).set_body_json(json!({ "choices": [choice] }))
    }
}

fn serve(runtime: &tokio::runtime::Runtime, respond: impl Respond + 'static) -> MockServer {
    let server = runtime.block_on(MockServer::start());
    let mock = Mock::given(method("POST")).and(path("/v1/completions")).respond_with(respond);
    runtime.block_on(mock.mount(&server));
    server
}

fn client(server: &MockServer) -> TeacherConfig {
    let client = JsonClientConfig::for_server(&format!("{}/v1", server.uri())).unwrap();
    TeacherConfig::Server { model: "bigger".into(), client: Box::new(client) }
}

fn shots() -> PromptStyle {
    let shot = posttrain_recipes::Shot { question: "1".into(), answer: "7".into() };
    PromptStyle { shots: vec![shot], ..PromptStyle::default() }
}

fn answers(examples: &[Example]) -> Vec<TokenAnswer<'_>> {
    let of = |example| TokenAnswer { example, tokens: &[9, 4, 0] };
    examples.iter().map(of).collect()
}

#[test]
fn a_teacher_behind_a_server_reads_what_a_local_one_reads() {
    let (world, runtime) = (World::new(), runtime());
    let server = serve(&runtime, Reads(trainer(&world).into()));
    let style = PromptStyle::default();
    let remote = client(&server).build(&world.model, &style).unwrap();
    let local = TeacherConfig::Prompted { prompt: style.clone() };
    let local = local.build(&world.model, &style).unwrap();

    let (own, asked) = (trainer(&world), examples(0..5));
    let remote = remote.logprobs(&answers(&asked), 1.0, &own).unwrap();
    let local = local.logprobs(&answers(&asked), 1.0, &own).unwrap();
    assert_eq!(remote.len(), 5);
    for (remote, local) in remote.iter().flatten().zip(local.iter().flatten()) {
        assert!((remote - local).abs() < 1e-4, "{remote} {local}");
    }
}

#[test]
fn an_answer_about_another_text_is_refused_and_a_key_is_in_no_error() {
    let (world, runtime) = (World::new(), runtime());
    let replies = [
        json!({"choices": [{"logprobs": {"token_logprobs": [null, -1.0]}}]}),
        json!({"choices": [{"logprobs": null}]}),
        json!({"choices": []}),
    ];
    for reply in replies {
        let server = serve(&runtime, ResponseTemplate::new(200).set_body_json(reply));
        let teacher = client(&server).build(&world.model, &PromptStyle::default()).unwrap();
        let error = teacher.logprobs(&answers(&examples(0..1)), 1.0, &trainer(&world)).unwrap_err();
        assert!(matches!(&error, RecipeError::TeacherReply { .. }), "{error}");
        assert!(error.to_string().contains("log"), "{error}");
    }
    let server = serve(&runtime, ResponseTemplate::new(401).set_body_string("no"));
    let teacher = client(&server).build(&world.model, &PromptStyle::default()).unwrap();
    let error = teacher.logprobs(&answers(&examples(0..1)), 1.0, &trainer(&world)).unwrap_err();
    assert!(matches!(&error, RecipeError::Chat(_)), "{error}");
}

#[test]
fn a_teacher_reads_at_the_temperature_that_was_drawn_at() {
    let (world, runtime) = (World::new(), runtime());
    let style = PromptStyle::default();
    let base = TeacherConfig::Prompted { prompt: style.clone() };
    let base = base.build(&world.model, &style).unwrap();
    let (own, asked) = (trainer(&world), examples(0..3));
    // A teacher that is the policy itself has nothing to teach, whatever the temperature.
    for temperature in [0.5, 1.0, 2.0] {
        let read = base.logprobs(&answers(&asked), temperature, &own).unwrap().concat();
        let datum = |answer: TokenAnswer<'_>| {
            let (tokenizer, template) = (&world.model.tokenizer, &world.model.template);
            let prompt = style.encode(&answer.example.question, tokenizer, template).unwrap();
            Datum::completion(&prompt, answer.tokens).with_temperature(temperature)
        };
        let datums: Vec<Datum> = answers(&asked).into_iter().map(datum).collect();
        let policy = own.forward(&datums).unwrap().logprobs.concat();
        for (read, policy) in read.iter().zip(&policy) {
            assert!((read - policy).abs() < 1e-5, "{temperature}: {read} {policy}");
        }
    }

    let server = serve(&runtime, Reads(trainer(&world).into()));
    let remote = client(&server).build(&world.model, &style).unwrap();
    let error = remote.logprobs(&answers(&asked), 0.5, &own).unwrap_err().to_string();
    assert!(error.contains("sampling.temperature"), "{error}");
}

#[test]
fn each_domain_has_its_teacher() {
    let world = World::new();
    let style = PromptStyle::default();
    let plain = TeacherConfig::Prompted { prompt: style.clone() };
    let shots = TeacherConfig::Prompted { prompt: shots() };
    let teachers: BTreeMap<String, TeacherConfig> =
        [("a".to_owned(), plain.clone()), ("b".to_owned(), shots.clone())].into();
    let both = TeacherConfig::ByDomain { teachers }.build(&world.model, &style).unwrap();
    let domains = ["b", "a", "b", "a"];
    let asked: Vec<Example> = examples(0..4)
        .into_iter()
        .zip(domains)
        .map(|(example, domain)| Example { domain: domain.into(), ..example })
        .collect();

    let own = trainer(&world);
    let read = |teacher: &Teacher| teacher.logprobs(&answers(&asked), 1.0, &own).unwrap();
    let mixed = read(&both);
    let plain = read(&plain.build(&world.model, &style).unwrap());
    let shots = read(&shots.build(&world.model, &style).unwrap());
    assert_ne!(plain[0], shots[0]);
    for (place, domain) in domains.iter().enumerate() {
        let expected = if *domain == "a" { &plain[place] } else { &shots[place] };
        for (one, other) in mixed[place].iter().zip(expected) {
            assert!((one - other).abs() < 1e-5, "{place}");
        }
    }

    let other = [Example { domain: "c".into(), ..examples(7..8).remove(0) }];
    let error = both.logprobs(&answers(&other), 1.0, &own).unwrap_err().to_string();
    assert!(error.contains("example `7`") && error.contains("there are: a, b"), "{error}");
}

/// What a teacher that answers "7" held likely.
fn left_behind(range: std::ops::Range<u32>) -> Vec<Example> {
    let metadata = json!({
        "tokens": [9, 0],
        "top_logprobs": [[[9, -0.1], [4, -2.5]], [[0, -0.05], [9, -3.5]]],
    });
    let of = |example| Example { metadata: metadata.as_object().cloned(), ..example };
    examples(range).into_iter().map(of).collect()
}

#[test]
fn what_a_teacher_left_in_a_file_is_covered() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let lesson = || OffPolicyDistillation::new(world.model.clone(), PromptStyle::default());
    let config = FineTuneConfig { learning_rate: 2e-3, epochs: 4, ..FineTuneConfig::default() };
    let run = FineTuneRun::new(world.model.clone(), lesson(), config, dir.path()).unwrap();
    run.train(&left_behind(0..40), &[], &mut Silent).unwrap();

    let last = dir.path().join("last");
    let before = run.held_out(None, &left_behind(40..60)).unwrap();
    let after = run.held_out(Some(&last), &left_behind(40..60)).unwrap();
    assert_eq!(before.name, "forward_kl");
    assert!(after.value < 0.1 * before.value, "{before:?} {after:?}");

    // Not only the likeliest token is learned.
    let mut trained = trainer(&world);
    trained = Trainer::with_adapter(
        world.model.decoder.clone(),
        posttrain_lora::load_peft(&last, world.model.decoder.modules(), tch::Device::Cpu).unwrap(),
        *trained.config(),
        3,
    )
    .unwrap();
    let datums = lesson().datums(0, &left_behind(40..41), &trained).unwrap();
    let own = trained.forward(&datums).unwrap().logprobs.remove(0);
    for (own, teacher) in own.iter().zip([-0.1f32, -2.5, -0.05, -3.5]) {
        assert!((own - teacher).abs() < 1.0, "{own} for {teacher}");
    }
}

#[test]
fn a_damaged_file_of_a_teacher_is_named_by_its_example() {
    let world = World::new();
    let lesson = OffPolicyDistillation::new(world.model.clone(), PromptStyle::default());
    let refused = |metadata: Value| {
        let metadata = metadata.as_object().cloned();
        let example = Example { metadata, ..Example::new("row", "digits", "1", "7") };
        lesson.datums(0, &[example], &trainer(&world)).unwrap_err().to_string()
    };
    for (metadata, expected) in [
        (json!({}), "missing field `tokens`"),
        (json!({"tokens": [9], "top_logprobs": []}), "at least one entry for each of 1 tokens"),
        (json!({"tokens": [9], "top_logprobs": [[[9, 0.5]]]}), "at most 0"),
        (
            json!({"tokens": [9, 0], "top_logprobs": [[[9, -0.5]], [[0, -0.5], [1, -1.0]]]}),
            "token 1: expected 1 pairs",
        ),
    ] {
        let error = refused(metadata);
        assert!(error.starts_with("example `row`") && error.contains(expected), "{error}");
    }
    let beyond = json!({"tokens": [9], "top_logprobs": [[[99, -0.5]]]});
    let example = Example {
        metadata: beyond.as_object().cloned(),
        ..Example::new("row", "digits", "1", "7")
    };
    let datums = lesson.datums(0, &[example], &trainer(&world)).unwrap();
    let error = trainer(&world).forward_backward(&datums, lesson.objective()).unwrap_err();
    assert!(error.to_string().contains("99"), "{error}");
}

/// Of a teacher that left its answers alone, those are learned.
#[test]
fn a_boxed_lesson_is_a_lesson() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let lesson: Box<dyn Lesson> = Box::new(Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: Default::default(),
    });
    let config = FineTuneConfig { steps: Some(2), ..FineTuneConfig::default() };
    let run = FineTuneRun::new(world.model, lesson, config, Path::new(dir.path())).unwrap();
    assert!(run.train(&examples(0..40), &[], &mut Silent).unwrap().complete);
}
