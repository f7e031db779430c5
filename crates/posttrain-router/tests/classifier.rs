//! The classifier: what it learns, keeps and refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sciences;

use std::fs;

use ndarray::Array2;
use posttrain_data::{Example, SplitConfig, Splits, split};
use posttrain_router::{
    Classifier, ClassifierConfig, Embedder, HashedNgrams, NgramConfig, Question, Router,
    RouterData, RouterError, RouterReport,
};
use sciences::data;

fn small() -> HashedNgrams {
    NgramConfig { dimension: 256, ..NgramConfig::default() }.build().unwrap()
}

fn fitted() -> Classifier<HashedNgrams> {
    ClassifierConfig::default().fit(small(), &data().train, &data().validation).unwrap()
}

#[test]
fn the_built_in_set_is_routed_right_in_95_of_100() {
    let dataset = posttrain_data::sciences::generate(7).unwrap();
    let splits = split(&dataset, &SplitConfig { seed: 7, ..SplitConfig::default() }).unwrap();
    let data = RouterData::from_splits(&splits, &posttrain_data::sciences::DOMAINS).unwrap();
    let classifier = ClassifierConfig::default()
        .fit(HashedNgrams::default(), &data.train, &data.validation)
        .unwrap();
    for trial in classifier.trials() {
        assert!(trial.converged, "{trial:?}");
    }
    let report = RouterReport::of(&classifier, &data.test).unwrap();
    println!("{:#?}\n{report}", classifier.trials());
    assert_eq!((data.train.len(), report.n), (6000, 750));
    assert!(report.accuracy >= 0.95 && report.ece < 0.05, "{report}");
}

#[test]
fn the_same_data_give_the_same_numbers() {
    let (first, second) = (fitted(), fitted());
    let questions = data().test.questions();
    let probabilities = |classifier: &Classifier<HashedNgrams>| {
        let decisions = classifier.route(questions).unwrap();
        decisions.into_iter().map(|decision| decision.probabilities).collect::<Vec<_>>()
    };
    assert_eq!(probabilities(&first), probabilities(&second));
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(probabilities(&one_thread.install(fitted)), probabilities(&first));
}

#[test]
fn what_was_saved_is_what_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("router.safetensors");
    let classifier = fitted();
    classifier.save(&path).unwrap();
    classifier.save(&path).unwrap(); // over the old one
    let loaded = Classifier::load(&path, small()).unwrap();
    assert_eq!(loaded.labels(), classifier.labels());
    assert_eq!(loaded.temperature(), classifier.temperature());
    let questions = data().test.questions();
    let (kept, made) = (loaded.route(questions).unwrap(), classifier.route(questions).unwrap());
    assert!(kept.iter().zip(&made).all(|(kept, made)| kept.probabilities == made.probabilities));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_not_loaded_beside_another_embedder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("router.safetensors");
    fitted().save(&path).unwrap();
    let load = |config: NgramConfig| {
        Classifier::load(&path, config.build().unwrap()).err().unwrap().to_string()
    };
    let larger = load(NgramConfig::default());
    assert!(larger.ends_with("`embedder_dimension` is \"256\": expected \"4096\""), "{larger}");
    let other = load(NgramConfig { seed: 1, dimension: 256, ..NgramConfig::default() });
    assert!(other.contains("`embedder_settings` is \"dimension=256"), "{other}");
    let nothing = Classifier::load(&path, Named("a model", 256)).err().unwrap().to_string();
    assert!(nothing.contains("`embedder` is \"hashed-ngrams\": expected \"a model\""), "{nothing}");
}

#[test]
fn what_is_no_classifier_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("router.safetensors");
    assert!(matches!(Classifier::load(&path, small()), Err(RouterError::Io { .. })));
    fitted().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(
            matches!(Classifier::load(&path, small()), Err(RouterError::NotSafetensors { .. })),
            "{cut}"
        );
    }
    let fixture = "tests/fixtures/logistic/a_row_a_label.safetensors";
    let error = Classifier::load(fixture, small()).err().unwrap().to_string();
    assert!(
        error.ends_with("`format` is missing: expected \"posttrain-router classifier 1\""),
        "{error}"
    );
    // The last eight bytes are some tensor's last value.
    let mut broken = whole;
    let end = broken.len();
    broken[end - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
    fs::write(&path, &broken).unwrap();
    let error = Classifier::load(&path, small()).err().unwrap().to_string();
    assert!(error.ends_with("is NaN: expected finite numbers"), "{error}");
}

/// Gives zeros of some shape.
struct Named(&'static str, usize);

impl Embedder for Named {
    fn embed(&self, texts: &[&str]) -> Result<Array2<f32>, RouterError> {
        Ok(Array2::zeros((texts.len(), 256)))
    }

    fn dimension(&self) -> usize {
        self.1
    }

    fn name(&self) -> &str {
        self.0
    }
}

#[test]
fn an_embedder_that_tells_nothing_gives_equal_chances() {
    let boxed: Box<dyn Embedder> = Box::new(Named("zeros", 256));
    let classifier =
        ClassifierConfig::default().fit(boxed, &data().train, &data().validation).unwrap();
    let decisions = classifier.route(data().test.questions()).unwrap();
    assert!(decisions[0].probabilities.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6));
}

#[test]
fn an_embedder_that_answers_otherwise_than_agreed_is_named() {
    let fit = |embedder: Named| {
        ClassifierConfig::default().fit(embedder, &data().train, &data().validation)
    };
    let error = fit(Named("zeros", 7)).err().unwrap().to_string();
    assert_eq!(error, "`zeros`: the vectors' shape is (600, 256): expected (600, 7)");
}

#[test]
fn hostile_questions_are_routed_all_the_same() {
    let huge = "the capital of a country ".repeat(40_000);
    let texts = ["", "\u{0}", "🦀🦀🦀", &huge];
    let questions: Vec<Question> = texts.iter().map(|text| Question::new("q", *text)).collect();
    let decisions = fitted().route(&questions).unwrap();
    for decision in &decisions {
        assert!((decision.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
    assert_eq!(fitted().labels()[decisions[3].label], "social");
}

fn splits(domains: &[&str]) -> Splits {
    let rows = |split: &str, n: usize| {
        let row = |at: usize| {
            let domain = domains[at % domains.len()];
            Example::new(format!("{split}{at}"), domain, format!("{split} {domain} {at}"), "1")
        };
        (0..n).map(row).collect()
    };
    Splits {
        train: rows("train", 12),
        validation: rows("validation", 6),
        test: rows("test", 6),
        left_over: vec![],
    }
}

#[test]
fn one_label_is_certain() {
    let data = RouterData::from_splits(&splits(&["math"]), &["math"]).unwrap();
    let classifier =
        ClassifierConfig::default().fit(small(), &data.train, &data.validation).unwrap();
    assert_eq!(RouterReport::of(&classifier, &data.test).unwrap().confusion, [[6]]);
}

#[test]
fn a_label_without_examples_and_an_empty_validation_set_are_refused() {
    let fit = |splits: &Splits, labels: &[&str]| {
        let data = RouterData::from_splits(splits, labels).unwrap();
        ClassifierConfig::default()
            .fit(small(), &data.train, &data.validation)
            .err()
            .unwrap()
            .to_string()
    };
    let error = fit(&splits(&["math"]), &["math", "art"]);
    assert_eq!(error, "the training set has 0 examples of `art`: expected at least 1");
    let error = fit(&Splits { validation: vec![], ..splits(&["math"]) }, &["math"]);
    assert_eq!(error, "the validation set has 0 examples of `any label`: expected at least 1");
}
