//! The likelihood router, on a language model that is made up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sciences;

use std::cell::Cell;
use std::error::Error;

use posttrain_router::{
    Calibration, LabelQuery, LabelScorer, LabeledQuestion, Likelihood, LikelihoodConfig,
    LikelihoodRouter, Prompt, Question, Router, RouterError, RouterPromptStyle, RouterReport,
    Shots,
};
use proptest::prelude::*;
use sciences::data;

/// Likes its labels in this order, three nats apart, whatever is asked; two nats more for a label
/// whose word is in the question. Every label has as many tokens as words.
struct Biased {
    words: [&'static str; 3],
    calls: Cell<usize>,
}

impl Biased {
    fn new() -> Self {
        Self { words: ["number", "element", "country"], calls: Cell::new(0) }
    }

    fn likelihood(&self, asked: &str, place: usize, continuation: &str) -> Likelihood {
        let tokens = continuation.split_whitespace().count();
        let per_token =
            -1.0 - 1.5 * place as f64 + if asked.contains(self.words[place]) { 2.0 } else { 0.0 };
        Likelihood { logprob: per_token * tokens as f64, tokens }
    }
}

impl LabelScorer for Biased {
    fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
        self.calls.set(self.calls.get() + 1);
        let score = |query: &LabelQuery| {
            let asked = match &query.prompt {
                Prompt::Text(text) => text.rsplit("Question:").next().unwrap().to_owned(),
                Prompt::Chat(messages) => messages.last().unwrap().text().into_owned(),
            };
            query
                .continuations
                .iter()
                .enumerate()
                .map(|(at, text)| self.likelihood(&asked, at, text))
                .collect()
        };
        Ok(queries.iter().map(score).collect())
    }
}

fn config(calibration: Calibration, style: RouterPromptStyle) -> LikelihoodConfig {
    let names = ["mathematics", "natural sciences", "social sciences"].map(str::to_owned).to_vec();
    LikelihoodConfig { names, calibration, style, ..LikelihoodConfig::default() }
}

fn questions() -> Vec<Question> {
    let texts = ["Which number is it?", "Which element is it?", "Which country is it?"];
    texts.iter().map(|text| Question::new(*text, *text)).collect()
}

fn chosen(router: &impl Router) -> Vec<usize> {
    router.route(&questions()).unwrap().iter().map(|decision| decision.label).collect()
}

#[test]
fn only_with_the_prior_divided_out_does_a_biased_model_route() {
    for style in [RouterPromptStyle::FewShot, RouterPromptStyle::Chat] {
        let train = &data().train;
        let plain = config(Calibration::None, style).fit(Biased::new(), train).unwrap();
        assert_eq!(chosen(&plain), [0, 1, 0], "{style:?}");
        let calibrated = config(Calibration::Prior, style).fit(Biased::new(), train).unwrap();
        assert_eq!(chosen(&calibrated), [0, 1, 2], "{style:?}");
    }
}

#[test]
fn the_prior_is_what_the_model_says_to_nothing_and_is_measured_once() {
    let scorer = Biased::new();
    let router =
        config(Calibration::Prior, RouterPromptStyle::FewShot).fit(&scorer, &data().train).unwrap();
    let weights = [1.0, (-1.5f64).exp(), (-3f64).exp()];
    let total: f64 = weights.iter().sum();
    for (prior, weight) in router.prior().iter().zip(weights) {
        assert!((prior - weight / total).abs() < 1e-12);
    }
    chosen(&router);
    chosen(&router);
    assert_eq!(scorer.calls.get(), 3);
}

#[test]
fn shots_come_from_the_training_set_by_seed() {
    struct Recorder(std::cell::RefCell<String>);
    impl LabelScorer for Recorder {
        fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
            let Prompt::Text(text) = &queries[0].prompt else { panic!("a chat") };
            self.0.replace(text.clone());
            Ok(vec![vec![Likelihood { logprob: -1.0, tokens: 1 }; 3]; queries.len()])
        }
    }
    let prompt = |seed| {
        let recorder = Recorder(std::cell::RefCell::default());
        let shots = Shots::Drawn { per_label: 2, seed };
        LikelihoodConfig { shots, ..LikelihoodConfig::default() }
            .fit(&recorder, &data().train)
            .unwrap();
        recorder.0.into_inner()
    };
    let text = prompt(1);
    assert_eq!(text, prompt(1));
    assert_ne!(text, prompt(2));
    let labels: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("Subject: ")).collect();
    assert_eq!(labels, ["math", "natural", "social", "math", "natural", "social"]);
    let asked: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("Question: ")).collect();
    let train: Vec<&str> =
        data().train.questions().iter().map(|question| question.text.as_str()).collect();
    assert!(asked[..6].iter().all(|question| train.contains(question)), "{asked:?}");
}

#[test]
fn tuning_makes_probabilities_honest_and_changes_no_decision() {
    let mut router = config(Calibration::Prior, RouterPromptStyle::FewShot)
        .fit(Biased::new(), &data().train)
        .unwrap();
    let before = RouterReport::of(&router, &data().test).unwrap();
    let temperature = router.tune(&data().validation).unwrap();
    let after = RouterReport::of(&router, &data().test).unwrap();
    assert_eq!(router.temperature(), temperature);
    assert_eq!(before.confusion, after.confusion);
    assert!(after.nll < before.nll, "{} {}", after.nll, before.nll);
}

fn given(shots: Vec<LabeledQuestion>) -> LikelihoodConfig {
    LikelihoodConfig {
        shots: Shots::Given { shots },
        ..LikelihoodConfig::new(["math", "natural", "social"])
    }
}

#[test]
fn hostile_questions_are_cut_and_answered() {
    let router = given(vec![]).build(Biased::new()).unwrap();
    let huge = "element ".repeat(1 << 17);
    let decisions =
        router.route(&[Question::new("empty", ""), Question::new("huge", huge)]).unwrap();
    assert_eq!(decisions[1].label, 1);
    let third = decisions[0].probabilities[0];
    assert!((third - 1.0 / 3.0).abs() < 1e-9, "nothing is as likely as the prior says: {third}");
    assert!(router.route(&[]).unwrap().is_empty());
}

#[test]
fn one_label_is_certain() {
    let config = LikelihoodConfig { labels: vec!["math".into()], ..given(vec![]) };
    assert_eq!(
        config.build(Biased::new()).unwrap().route(&questions()).unwrap()[2].probabilities,
        [1.0]
    );
}

fn problem(built: Result<LikelihoodRouter<Biased>, RouterError>) -> String {
    built.err().unwrap().to_string()
}

#[test]
fn bad_configurations_say_what_is_wrong() {
    let build = |config: LikelihoodConfig| problem(config.build(Biased::new()));
    assert!(
        build(LikelihoodConfig { labels: vec![], ..given(vec![]) })
            .starts_with("labels []: expected at least one")
    );
    let twice = LikelihoodConfig { labels: vec!["a".into(), "a".into()], ..given(vec![]) };
    assert!(build(twice).contains("all different"));
    assert!(
        build(LikelihoodConfig { content_free: vec![], ..given(vec![]) })
            .starts_with("`content_free` is empty")
    );
    assert!(
        build(LikelihoodConfig { temperature: 0.0, ..given(vec![]) })
            .starts_with("`temperature` is 0")
    );
    assert!(
        build(LikelihoodConfig { names: vec!["a".into()], ..given(vec![]) })
            .starts_with("`names` is [\"a\"]")
    );
    assert!(build(LikelihoodConfig::new(["a", "b"])).starts_with("`shots` is drawn"));
    let shot = LabeledQuestion { question: "?".into(), label: "art".into() };
    assert!(build(given(vec![shot])).starts_with("shot 1: unknown label \"art\""));
    let many = LikelihoodConfig {
        shots: Shots::Drawn { per_label: 1000, seed: 0 },
        ..LikelihoodConfig::default()
    };
    assert!(
        problem(many.fit(Biased::new(), &data().train))
            .starts_with("the training set has 200 examples of `math`")
    );
    let others = LikelihoodConfig::new(["math", "art"]);
    assert!(
        problem(others.fit(Biased::new(), &data().train))
            .starts_with("`the training set` has the labels")
    );
}

/// Answers what it is told to.
struct Says(Vec<Vec<Likelihood>>);

impl LabelScorer for Says {
    fn score(&self, _: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_scorer_that_answers_otherwise_than_agreed_is_named() {
    let uncalibrated = LikelihoodConfig { calibration: Calibration::None, ..given(vec![]) };
    let route = |answer| {
        let router = uncalibrated.clone().build(Says(answer)).unwrap();
        router.route(&[Question::new("q", "?")]).unwrap_err().to_string()
    };
    let good = Likelihood { logprob: -1.0, tokens: 1 };
    assert!(route(vec![]).starts_with("`label scorer`: the number of answers is 0: expected 1"));
    assert!(route(vec![vec![good; 2]]).contains("the number of likelihoods is 2: expected 3"));
    for bad in [Likelihood { logprob: f64::NAN, ..good }, Likelihood { tokens: 0, ..good }] {
        assert!(route(vec![vec![good, good, bad]]).contains("a likelihood"), "{bad:?}");
    }
}

#[test]
fn a_scorers_own_error_is_the_source() {
    struct Broken;
    impl LabelScorer for Broken {
        fn score(&self, _: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
            Err(RouterError::foreign("local model", std::io::Error::other("out of memory")))
        }
    }
    let error = given(vec![]).build(Broken).err().unwrap();
    assert_eq!(error.source().unwrap().to_string(), "out of memory");
}

proptest! {
    #[test]
    fn probabilities_add_up_to_one(logprobs in prop::collection::vec(-1e4..0.0f64, 3), tokens in 1usize..5) {
        let uncalibrated = LikelihoodConfig { calibration: Calibration::None, ..given(vec![]) };
        let answer = logprobs.iter().map(|&logprob| Likelihood { logprob, tokens }).collect();
        let decision = &uncalibrated.build(Says(vec![answer])).unwrap().route(&[Question::new("q", "?")]).unwrap()[0];
        prop_assert!((decision.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        prop_assert!(decision.probabilities.iter().all(|p| *p <= decision.confidence()));
    }
}
