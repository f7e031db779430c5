//! The page: every part is there, whatever is missing, and nothing foreign becomes markup.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod markup;

use markup::{Tag, tags};
use posttrain_experiment::{AnswerSample, MissingModel, Report, RouterSummary};
use proptest::prelude::*;
use serde_json::Value;

const FIXTURE: &str = include_str!("fixtures/report/report.json");
const SECTIONS: [&str; 11] = [
    "conclusions",
    "outcome",
    "rewards",
    "validation",
    "cross",
    "routing",
    "time",
    "dynamics",
    "health",
    "samples",
    "origin",
];

fn fixture() -> Report {
    Report::from_json(FIXTURE).unwrap()
}

fn sections(tags: &[Tag]) -> Vec<String> {
    let id = |tag: &Tag| tag.attributes.split('"').nth(1).unwrap().to_owned();
    tags.iter().filter(|tag| tag.name == "section").map(id).collect()
}

/// The tags of a page that must hold whatever the report says.
fn checked(report: &Report) -> Vec<Tag> {
    let page = report.to_html();
    let tags = tags(&page);
    for hidden in ["NaN", "inf%", "Infinity", "null"] {
        assert!(
            !page.contains(hidden),
            "{hidden} at: {}",
            &page[page.find(hidden).unwrap().saturating_sub(90)..][..100]
        );
    }
    let allowed = "a article body caption circle dd desc details div dl dt em code figcaption figure footer g h1 h2 h3 head \
                   header html li line link main meta nav p path pre rect section small span strong style summary svg \
                   table tbody td text th thead title tr ul";
    let allowed: Vec<&str> = allowed.split_whitespace().collect();
    for tag in &tags {
        assert!(allowed.contains(&tag.name.as_str()), "<{}>", tag.name);
        for (name, value) in tag.attributes() {
            assert!(
                !name.starts_with("on") && !["src", "srcset", "data", "action"].contains(&name),
                "{tag:?}"
            );
            assert!(name != "href" || value.starts_with('#') || value == "data:,", "{tag:?}");
            assert!(name != "style" || value.starts_with("--v:"), "{tag:?}");
        }
    }
    let levels: Vec<u8> =
        tags.iter().filter_map(|tag| tag.name.strip_prefix('h')?.parse().ok()).collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(
        levels[0] == 1 && levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "headings skip a level: {levels:?}"
    );
    tags
}

#[test]
fn the_json_has_the_contracts_keys_and_comes_back_the_same() {
    let report = fixture();
    let text = report.to_json().unwrap();
    assert_eq!(Report::from_json(&text).unwrap(), report);
    let json: Value = serde_json::from_str(&text).unwrap();
    let paths = [
        "/config",
        "/data/per_domain/math/train",
        "/data/examples_seen/generalist",
        "/models/math/steps",
        "/models/math/seconds",
        "/models/math/best_step",
        "/models/math/validation/0/1",
        "/models/math/dynamics/mean_abs_step_change",
        "/models/math/dynamics/reward_std",
        "/models/math/dynamics/steps_to_plateau",
        "/models/math/test/social/accuracy",
        "/models/math/test/social/low",
        "/models/math/test/social/high",
        "/models/math/test/social/n",
        "/base/test/math/accuracy",
        "/router/classifier/accuracy",
        "/router/classifier/confusion/0/0",
        "/router/classifier/ece",
        "/head_to_head/routed/accuracy",
        "/head_to_head/oracle/low",
        "/head_to_head/generalist/n",
        "/head_to_head/difference",
        "/head_to_head/low",
        "/head_to_head/high",
        "/head_to_head/mcnemar_p",
        "/wall_clock/generalist_s",
        "/wall_clock/specialists_total_s",
        "/wall_clock/specialists_critical_path_s",
        "/wall_clock/ratio",
        "/judge",
    ];
    for path in paths {
        assert!(json.pointer(path).is_some(), "{path}");
    }
    assert!(serde_json::to_value(Report::default()).unwrap()["judge"].is_null());
}

#[test]
fn every_section_is_there_with_what_it_promises() {
    let page = fixture().to_html();
    assert_eq!(sections(&checked(&fixture())), SECTIONS);
    for id in SECTIONS {
        assert!(page.contains(&format!("href=\"#{id}\"")), "no link to {id}");
    }
    for words in [
        "This run cannot tell the two apart.",
        "57.6% [54.0, 61.1]",
        "[−1.9, +5.1]",
        "p&nbsp;= 0.412",
        "perfect routing",
        "Seed 9",
        "instruct, calibrated",
        "went to a wrong specialist",
        "logprob_gap",
        "✗ not as the source found",
        "reward `answer` gave no score within 2.5 s",
        "Both sides saw the same amount of data: 1,920 examples.",
        "&quot;rank&quot;: 128",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn every_figure_and_table_speaks() {
    let page = fixture().to_html();
    let tags = tags(&page);
    let figures: Vec<usize> = tags
        .iter()
        .enumerate()
        .filter(|(_, t)| t.name == "svg" && t.attributes.contains("role=\"img\""))
        .map(|(i, _)| i)
        .collect();
    assert!(figures.len() >= 16, "{}", figures.len());
    for figure in figures {
        assert_eq!(
            (tags[figure + 1].name.as_str(), tags[figure + 2].name.as_str()),
            ("title", "desc")
        );
    }
    // Any other drawing is an ornament, and says so, or a part of a figure.
    let silent = tags.iter().filter(|t| {
        t.name == "svg" && !t.attributes.contains("role=") && !t.attributes.contains("aria-hidden")
    });
    assert!(
        silent.clone().all(|t| t.attributes.starts_with("y=")),
        "{:?}",
        silent.collect::<Vec<_>>()
    );
    let tables: Vec<usize> =
        tags.iter().enumerate().filter(|(_, t)| t.name == "table").map(|(i, _)| i).collect();
    assert!(tables.len() >= 8 && tables.iter().all(|i| tags[i + 1].name == "caption"));
    assert!(tags.iter().any(|t| t.name == "html" && t.attributes == "lang=\"en\""));
}

#[test]
fn ids_are_unique() {
    let ids: Vec<String> = tags(&fixture().to_html())
        .iter()
        .filter_map(|t| Some(t.attributes.split("id=\"").nth(1)?.split('"').next()?.to_owned()))
        .collect();
    let unique: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[test]
fn optional_parts_may_be_absent_one_by_one() {
    let whole: Value = serde_json::from_str(FIXTURE).unwrap();
    for key in whole.as_object().unwrap().keys() {
        let mut part = whole.clone();
        part.as_object_mut().unwrap().remove(key);
        checked(&Report::from_json(&part.to_string()).unwrap());
    }
    for key in ["domains", "validation", "test", "test_greedy", "curve"] {
        let mut part = whole.clone();
        part["models"].as_object_mut().unwrap().values_mut().for_each(|model| {
            model.as_object_mut().unwrap().remove(key);
        });
        checked(&Report::from_json(&part.to_string()).unwrap());
    }
}

#[test]
fn an_empty_report_and_one_model_without_samples_have_pages() {
    assert_eq!(sections(&checked(&Report::default())), ["conclusions", "origin"]);
    let mut report = fixture();
    report.models.retain(|name, _| name == "math");
    (report.samples, report.head_to_head, report.wall_clock) = (Vec::new(), None, None);
    let reason = "killed by signal 9".to_owned();
    report.missing = vec![MissingModel { model: "generalist".into(), reason, last_step: Some(31) }];
    let sections = sections(&checked(&report));
    assert!(!sections.contains(&"samples".to_owned()) && !sections.contains(&"outcome".to_owned()));
    let page = report.to_html();
    assert!(page.contains("Without generalist there is no head-to-head."));
    assert!(page.contains("ended after step 31: killed by signal 9"));
}

#[test]
fn numbers_that_are_none_are_dashes_and_are_not_written() {
    let mut report = fixture();
    report.models.get_mut("math").unwrap().curve[3].reward = f64::NAN;
    report.models.get_mut("math").unwrap().curve[4].logprob_gap = f64::INFINITY;
    report.models.get_mut("social").unwrap().seconds = f64::NAN;
    report.router.get_mut("constant").unwrap().accuracy = f64::NAN;
    report.wall_clock.as_mut().unwrap().generalist_s = f64::INFINITY;
    report.head_to_head.as_mut().unwrap().low = f64::NEG_INFINITY;
    report.timeline[2].end_s = f64::NAN;
    checked(&report);
    let error = report.to_json().unwrap_err().to_string();
    assert!(error.contains("`models.math.curve[3].reward`"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(posttrain_experiment::write_report(folder.path(), &report).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

/// A report that says `hostile` wherever it can.
fn saying(hostile: &str) -> Report {
    let mut report = fixture();
    let own = || hostile.to_owned();
    report.samples = vec![
        AnswerSample {
            model: own(),
            domain: own(),
            question: own(),
            reference: own(),
            response: own(),
            verdict: None,
            error: Some(own()),
        };
        12
    ];
    let mut model = report.models.remove("math").unwrap();
    model.domains = vec![own()];
    model.test.insert(own(), model.test["social"]);
    report.models.insert(own(), model);
    report.data.examples_seen.insert(own(), 3);
    report.data.per_domain.insert(own(), Default::default());
    report.router_used = Some(own());
    report.router.insert(
        own(),
        RouterSummary::from_confusion(&[own(), own()], vec![vec![1, 2], vec![0, 4]]).unwrap(),
    );
    report.config = serde_json::json!({ hostile: hostile });
    report.timeline.iter_mut().for_each(|span| span.model = own());
    report
        .findings
        .iter_mut()
        .for_each(|finding| (finding.question, finding.answer) = (own(), own()));
    report.missing = vec![MissingModel { model: own(), reason: own(), last_step: None }];
    report.judge.as_mut().unwrap().model = own();
    (report.machine.device, report.machine.kind, report.machine.name) = (own(), own(), Some(own()));
    report.provenance.version = own();
    report
}

#[test]
fn hostile_text_stays_text() {
    for hostile in [
        "</script><img src=x onerror=alert(1)>",
        "]]></style></title></svg><script>alert(1)</script>",
        "\" onload=\"alert(1)",
        "'><iframe src=javascript:alert(1)>",
        "&#60;script&#62;",
        "<!--",
        "a\u{202e}b\u{2066}c\0d\x1b[2J\u{9b}e\u{feff}",
    ] {
        let page = saying(hostile).to_html();
        checked(&saying(hostile));
        assert!(!page.contains(hostile), "{hostile}");
        assert!(!page.contains(['\u{202e}', '\u{2066}', '\0', '\x1b', '\u{9b}', '\u{feff}']));
    }
}

#[test]
fn a_long_response_is_cut_and_a_long_report_stays_small() {
    let page = saying(&"<long> ".repeat(100_000 / 7)).to_html();
    assert!(page.len() < 900_000, "{} bytes", page.len());
    assert!(page.contains("characters more in report.json"));
    let mut report = fixture();
    for model in report.models.values_mut() {
        let point = model.curve[0];
        model.curve =
            (1..=50_000).map(|step| posttrain_experiment::CurvePoint { step, ..point }).collect();
    }
    checked(&report);
    assert!(report.to_html().len() < 900_000, "{} bytes", report.to_html().len());
}

#[test]
fn an_odd_confusion_matrix_is_drawn_all_the_same() {
    let mut report = fixture();
    let router = report.router.get_mut("classifier").unwrap();
    (router.labels, router.precision, router.recall) = (Vec::new(), Vec::new(), Vec::new());
    router.confusion = vec![vec![3], vec![], vec![1, 2, 3, 4, 5]];
    checked(&report);
}

#[test]
fn both_files_are_written_whole_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("runs/one");
    posttrain_experiment::write_report(&deep, &Report::default()).unwrap();
    posttrain_experiment::write_report(&deep, &fixture()).unwrap();
    assert_eq!(Report::read(&deep).unwrap(), fixture());
    assert_eq!(std::fs::read_to_string(deep.join("report.html")).unwrap(), fixture().to_html());
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 2, "something lies beside them");
    std::fs::write(deep.join("report.json"), "{\n\"models\": {\"m\": {\"steps\": -1}}}").unwrap();
    let error = Report::read(&deep).unwrap_err().to_string();
    assert!(error.contains("report.json: `models.m.steps`, line 2"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_text_becomes_markup(hostile in "[<>&\"'/a-z =!\\-\\]\\[\\x00-\\x1f\u{202e}é]{0,40}") {
        checked(&saying(&hostile));
    }
}
