//! Questions whose domains differ in symbols alone, and questions without blanks: both route.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_data::{
    Columns, ReadConfig, SplitConfig, SplitSizes, normalize_question, read, split,
};
use posttrain_router::{
    ClassifierConfig, HashedNgrams, KeywordConfig, Question, Router, RouterData, RouterReport,
};
use std::collections::BTreeSet;

const FILES: [(&str, &[&str]); 2] =
    [("route-cjk", &["law", "medicine"]), ("route-symbols", &["c", "cpp", "csharp"])];

fn data(file: &str, domains: &[&str]) -> RouterData {
    let path = format!("{}/tests/fixtures/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let dataset = read(path, &ReadConfig::new(Columns::default())).unwrap();
    let questions: BTreeSet<String> =
        dataset.examples().iter().map(|example| normalize_question(&example.question)).collect();
    assert_eq!(questions.len(), dataset.examples().len(), "{file}: questions fall together");

    let sizes = SplitSizes { train: 7, validation: 1, test: 2 };
    let splits = split(&dataset, &SplitConfig { sizes, seed: 7 }).unwrap();
    RouterData::from_splits(&splits, domains).unwrap()
}

fn accuracy(router: &dyn Router, data: &RouterData) -> f64 {
    RouterReport::of(router, &data.test).unwrap().accuracy
}

#[test]
fn keywords_tell_symbols_and_scripts_without_blanks_apart() {
    // Of so few questions, more words than a domain has tell nothing.
    for ((file, domains), per_label) in FILES.into_iter().zip([20, 1]) {
        let data = data(file, domains);
        let router = KeywordConfig::learn(&data.train, per_label).build().unwrap();
        assert!(accuracy(&router, &data) >= 0.99, "{file}: {}", accuracy(&router, &data));
    }
}

#[test]
fn n_grams_tell_them_apart() {
    for (file, domains) in FILES {
        let data = data(file, domains);
        let classifier = ClassifierConfig::default()
            .fit(HashedNgrams::default(), &data.train, &data.validation)
            .unwrap();
        assert!(accuracy(&classifier, &data) >= 0.99, "{file}: {}", accuracy(&classifier, &data));
    }
}

#[test]
fn a_keyword_may_be_of_several_characters_in_a_row() {
    let config = KeywordConfig {
        keywords: vec![
            vec!["合同".into(), "C++".into()],
            vec!["发烧".into(), "blood pressure".into()],
        ],
        ..KeywordConfig::new(["law", "medicine"], "law")
    };
    let router = config.clone().build().unwrap();
    let label = |text: &str| router.route(&[Question::new("q", text)]).unwrap()[0].label;
    assert_eq!(label("请问第1次合同应该怎样处理才好"), 0);
    assert_eq!(label("请问第11次发烧应该怎样处理才好"), 1);
    assert_eq!(label("My Blood Pressure is high"), 1);
    assert_eq!(label("blood under pressure in C++"), 0);

    for keyword in ["", "?!", "one two three four five six seven eight nine"] {
        let keywords = vec![vec![keyword.to_owned()], vec![]];
        let error = KeywordConfig { keywords, ..config.clone() }.build().err().unwrap();
        assert!(error.to_string().contains("keywords"), "{error}");
    }
}
