//! The chat router, before models that answer, garble, fail and panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use posttrain_chat::{
    ChatError, ChatModel, ChatRequest, ChatResponse, ResponseFormat, TokenLogprob, from_fn,
};
use posttrain_router::{
    AnswerForm, ChatConfidence, ChatRouter, ChatRouterConfig, Question, Router, RouterError,
};
use tokio::runtime::Runtime;

fn config() -> ChatRouterConfig {
    ChatRouterConfig::new(["math", "natural", "social"])
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn build(
    config: ChatRouterConfig,
    model: impl ChatModel + 'static,
    runtime: &Runtime,
) -> ChatRouter {
    config.build(Arc::new(model), runtime.handle().clone()).unwrap()
}

/// Says what it is asked.
fn parrot() -> impl ChatModel {
    from_fn("parrot", async |request: ChatRequest| {
        Ok(ChatResponse::from_text(request.messages[1].text().into_owned()))
    })
}

/// Questions whose text is what the parrot will say.
fn questions(texts: &[&str]) -> Vec<Question> {
    texts.iter().enumerate().map(|(at, text)| Question::new(format!("q{at}"), *text)).collect()
}

#[test]
fn answers_come_back_in_the_order_of_the_questions() {
    let slow_first = from_fn("slow", async |request: ChatRequest| {
        let text = request.messages[1].text().into_owned();
        tokio::time::sleep(Duration::from_millis(if text == "math" { 60 } else { 1 })).await;
        Ok(ChatResponse::from_text(text))
    });
    let runtime = runtime();
    let router = build(config(), slow_first, &runtime);
    let decisions =
        router.route(&questions(&["math", "Social.", r#"{"label": "natural"}"#])).unwrap();
    assert_eq!(decisions.iter().map(|decision| decision.label).collect::<Vec<_>>(), [0, 2, 1]);
    assert_eq!(decisions[1].probabilities, [0.0, 0.0, 1.0]);
    assert!(decisions[0].seconds >= 0.06);
}

#[test]
fn what_names_no_label_is_an_error_of_its_own_question() {
    let runtime = runtime();
    let router = build(config(), parrot(), &runtime);
    let results = router.ask(&questions(&["math", "", "math or social", "art", "{\"label\": 7}"]));
    assert_eq!(results[0].as_ref().unwrap().label, 0);
    for result in &results[1..] {
        assert!(matches!(result, Err(RouterError::Unreadable { .. })), "{result:?}");
    }
    let error = router.route(&questions(&["math", "art"])).unwrap_err().to_string();
    let expected = r#"question `q1`: model `parrot` answered "art": expected one of ["math", "natural", "social"]"#;
    assert_eq!(error, expected);
}

#[test]
fn a_fallback_is_taken_counted_and_unsure() {
    let runtime = runtime();
    let config = ChatRouterConfig { fallback: Some("social".into()), ..config() };
    let router = build(config, parrot(), &runtime);
    let decisions = router.route(&questions(&["math", "no idea", "???"])).unwrap();
    assert_eq!(decisions.iter().map(|decision| decision.label).collect::<Vec<_>>(), [0, 2, 2]);
    assert!(decisions[1].probabilities.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-12));
    assert_eq!(router.fallbacks(), 2);
}

#[test]
fn a_failing_server_and_a_panic_are_errors_even_with_a_fallback() {
    let broken =
        from_fn("broken", async |request: ChatRequest| match request.messages[1].text().as_ref() {
            "panic" => panic!("on purpose"),
            "fail" => Err(ChatError::Failed {
                model: "broken".into(),
                cause: "down",
                message: "the server is down".into(),
            }),
            text => Ok(ChatResponse::from_text(text)),
        });
    let runtime = runtime();
    let router =
        build(ChatRouterConfig { fallback: Some("math".into()), ..config() }, broken, &runtime);
    let results = router.ask(&questions(&["fail", "panic", "social"]));
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "question `q0`: model `broken` gave no answer");
    assert!(error.source().unwrap().to_string().contains("the server is down"));
    assert!(matches!(results[1], Err(RouterError::Cancelled { .. })));
    assert_eq!(results[2].as_ref().unwrap().label, 2);
    assert_eq!(router.fallbacks(), 0);
}

#[test]
fn no_more_are_asked_at_the_same_time_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, highest) = (Arc::clone(&now), Arc::clone(&most));
    let counting = from_fn("counting", move |_: ChatRequest| {
        let (now, most) = (Arc::clone(&inside), Arc::clone(&highest));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(ChatResponse::from_text("math"))
        }
    });
    let runtime = runtime();
    let router = build(ChatRouterConfig { in_flight: 4, ..config() }, counting, &runtime);
    assert_eq!(router.route(&questions(&["?"; 40])).unwrap().len(), 40);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[test]
fn the_form_is_asked_for() {
    let runtime = runtime();
    let form_of = |form: AnswerForm| {
        let teller = from_fn("teller", async |request: ChatRequest| {
            let label = match &request.format {
                ResponseFormat::Choice(names) if names == &["maths", "nature", "society"] => {
                    "maths"
                }
                ResponseFormat::JsonSchema { schema, .. }
                    if schema["properties"]["label"]["enum"][1] == "nature" =>
                {
                    "nature"
                }
                ResponseFormat::Text => "society",
                _ => "something else",
            };
            Ok(ChatResponse::from_text(label))
        });
        let names = ["maths", "nature", "society"].map(str::to_owned).to_vec();
        let router = build(ChatRouterConfig { form, names, ..config() }, teller, &runtime);
        router.route(&questions(&["?"])).unwrap()[0].label
    };
    assert_eq!(
        [AnswerForm::Choice, AnswerForm::JsonSchema, AnswerForm::Text].map(form_of),
        [0, 1, 2]
    );
}

#[test]
fn confidence_is_the_product_of_the_tokens_probabilities() {
    let runtime = runtime();
    let confidence_of = |logprobs: &'static [f64]| {
        let model = from_fn("logprobs", async |request: ChatRequest| {
            assert_eq!(request.logprobs, Some(0));
            let token =
                |logprob: &f64| TokenLogprob { token: "t".into(), logprob: *logprob, top: vec![] };
            let logprobs = Some(logprobs.iter().map(token).collect());
            Ok(ChatResponse { logprobs, ..ChatResponse::from_text("natural") })
        });
        let router = build(
            ChatRouterConfig { confidence: ChatConfidence::Logprobs, ..config() },
            model,
            &runtime,
        );
        router.route(&questions(&["?"])).unwrap()[0].probabilities.clone()
    };
    let probabilities = confidence_of(&[-std::f64::consts::LN_2, 0.0]);
    assert!((probabilities[1] - 0.5).abs() < 1e-12 && (probabilities[0] - 0.25).abs() < 1e-12);
    assert!(confidence_of(&[-50.0]).iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-12));
}

#[test]
fn hostile_questions_are_cut() {
    let runtime = runtime();
    let lengths = from_fn("lengths", async |request: ChatRequest| {
        assert!(request.messages[1].text().chars().count() <= 8001);
        Ok(ChatResponse::from_text("math"))
    });
    let router = build(config(), lengths, &runtime);
    let huge = "x".repeat(1 << 20);
    assert_eq!(router.route(&questions(&["", &huge])).unwrap().len(), 2);
    assert!(router.route(&[]).unwrap().is_empty());
}

#[test]
fn one_label_is_not_asked_about() {
    let never = from_fn("never", async |_: ChatRequest| panic!("asked"));
    let runtime = runtime();
    let router = build(ChatRouterConfig::new(["math"]), never, &runtime);
    assert_eq!(router.route(&questions(&["?"])).unwrap()[0].probabilities, [1.0]);
}

#[test]
fn it_may_be_called_where_blocking_would_panic() {
    let runtime = runtime();
    let router = build(config(), parrot(), &runtime);
    let decisions = runtime.block_on(async { router.route(&questions(&["math"])) });
    assert_eq!(decisions.unwrap()[0].label, 0);
    let one_worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let router = build(config(), parrot(), &one_worker);
    let task =
        one_worker.spawn(async move { router.route(&questions(&["social"])).unwrap()[0].label });
    assert_eq!(one_worker.block_on(task).unwrap(), 2);
}

#[test]
fn a_runtime_that_is_gone_is_an_error_and_no_wait() {
    let runtime = runtime();
    let router = build(config(), parrot(), &runtime);
    runtime.shutdown_background();
    assert!(matches!(router.ask(&questions(&["math"]))[0], Err(RouterError::Cancelled { .. })));
}

#[test]
fn bad_configurations_say_what_is_wrong() {
    let runtime = runtime();
    let problem = |config: ChatRouterConfig| {
        config.build(Arc::new(parrot()), runtime.handle().clone()).err().unwrap().to_string()
    };
    assert!(problem(ChatRouterConfig::default()).starts_with("labels []"));
    assert!(problem(ChatRouterConfig::new(["a", "a"])).contains("all different"));
    assert!(
        problem(ChatRouterConfig { fallback: Some("art".into()), ..config() })
            .contains("unknown label \"art\"")
    );
    assert!(
        problem(ChatRouterConfig { names: vec!["x".into()], ..config() }).starts_with("`names` is")
    );
    assert!(
        problem(ChatRouterConfig { max_tokens: 0, ..config() }).starts_with("`max_tokens` is 0")
    );
    let one_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = config().build(Arc::new(parrot()), one_thread.handle().clone()).err().unwrap();
    assert!(error.to_string().starts_with("`runtime` is of the current thread"));
}
