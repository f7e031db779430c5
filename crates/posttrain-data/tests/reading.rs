//! What the readers take, and how they say what they do not take.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use std::path::PathBuf;

use posttrain_data::{
    Columns, DataError, Dataset, Limits, OtherDomains, ReadConfig, read, read_all,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn file(folder: &TempDir, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Reads these bytes; the folder's name is taken out of an error.
fn read_bytes(bytes: impl AsRef<[u8]>, config: &ReadConfig) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    let prefix = format!("{}/", folder.path().display());
    read(file(&folder, bytes), config).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default()).replace(&prefix, "")
    })
}

fn error(bytes: impl AsRef<[u8]>) -> String {
    read_bytes(bytes, &ReadConfig::default()).unwrap_err()
}

const GOOD: &str = r#"{"id": "a", "domain": "d", "question": "q?", "answer": "x", "group": "g"}"#;

#[test]
fn marks_line_ends_and_blank_lines_are_taken_as_they_come() {
    let other = GOOD.replace("\"a\"", "\"b\"");
    for text in [
        format!("{GOOD}\n{other}\n"),
        format!("{GOOD}\n{other}"),
        format!("\u{feff}{GOOD}\r\n{other}\r\n"),
        format!("\n{GOOD}\n \t\n{other}\n\n"),
    ] {
        let dataset = read_bytes(text, &ReadConfig::default()).unwrap();
        assert_eq!(
            dataset.examples().iter().map(|e| e.id.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(
            (dataset.examples()[0].question.as_str(), dataset.examples()[0].group.as_str()),
            ("q?", "g")
        );
    }
}

#[test]
fn a_broken_line_is_named() {
    assert!(
        error(format!("{GOOD}\n{{\"id\": \n")).starts_with("data.jsonl:2: not valid JSON: EOF")
    );
    assert!(
        error(format!("{GOOD}\n\n[1, 2]"))
            .starts_with("data.jsonl:3: field `(the whole line)`: expected a JSON object")
    );
    assert_eq!(
        error([GOOD.as_bytes(), b"\n\"\xff\""].concat()),
        "data.jsonl:2: not valid UTF-8 from byte 1 on"
    );
    assert!(error("{".repeat(100_000)).starts_with("data.jsonl:1: not valid JSON"));
}

#[test]
fn a_broken_field_is_named_with_what_was_expected_and_what_came() {
    let with = |from: &str, to: &str| error(GOOD.replace(from, to));
    assert_eq!(with("\"x\"", "\" \""), "data.jsonl:1: field `answer`: expected text, got \" \"");
    assert_eq!(with("\"q?\"", "7"), "data.jsonl:1: field `question`: expected text, got 7");
    assert_eq!(
        with("\"answer\"", "\"reply\""),
        "data.jsonl:1: field `answer`: expected an answer, got nothing; \
         the row has `id`, `domain`, `question`, `reply`, `group`"
    );
    assert!(with("\"x\"", "[1, 2]").ends_with("got an array of 2"));
    assert!(with("\"x\"", "123456789012345678901234567890").contains("at most 15 digits"));
    assert_eq!(with("\"d\"", "\"\""), "data.jsonl:1: field `domain`: expected text, got \"\"");
}

#[test]
fn both_places_of_a_duplicate_id_are_named() {
    assert_eq!(
        error(format!("{GOOD}\n\n{GOOD}")),
        "duplicate id \"a\": data.jsonl:1 and data.jsonl:3"
    );
}

#[test]
fn a_duplicate_id_in_another_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.jsonl"), folder.path().join("two.jsonl"));
    std::fs::write(&one, GOOD).unwrap();
    std::fs::write(&two, format!("\n{GOOD}")).unwrap();
    let error = read_all([&one, &two], &ReadConfig::default()).unwrap_err().to_string();
    assert!(error.contains("one.jsonl:1") && error.contains("two.jsonl:2"), "{error}");
}

#[test]
fn answers_may_be_numbers_and_truth_values() {
    for (json, answer) in [
        ("42", "42"),
        ("-1.5", "-1.5"),
        ("true", "true"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        let dataset = read_bytes(GOOD.replace("\"x\"", json), &ReadConfig::default()).unwrap();
        assert_eq!(dataset.examples()[0].answer, answer);
    }
}

#[test]
fn missing_ids_and_groups_are_derived_and_stay_the_same() {
    let row = r#"{"domain": "d", "question": "What is  7+5?", "answer": "12"}"#;
    let other = r#"{"domain": "d", "question": "What is 7+6?", "answer": "13"}"#;
    let dataset = read_bytes(format!("{row}\n{other}\n{row}"), &ReadConfig::default()).unwrap();
    let [first, second, third] = dataset.examples() else { panic!() };
    assert_eq!(first.group, "what is 7 + 5");
    assert_eq!(third.id, format!("{}-2", first.id));
    assert_ne!(first.id, second.id);
    let alone = read_bytes(row, &ReadConfig::default()).unwrap();
    assert_eq!(alone.examples()[0].id, first.id);
}

#[test]
fn columns_are_mapped() {
    let columns = Columns {
        question: "prompt".into(),
        answer: "gold".into(),
        id: Some("key".into()),
        group: Some("document".into()),
        default_domain: Some("law".into()),
        metadata: vec!["level".into()],
        ..Columns::default()
    };
    let document = "a long document ".repeat(20);
    let text = format!(
        r#"{{"prompt": "q", "gold": 3, "key": 17, "document": "{document}", "level": {{"n": 2}}}}"#
    );
    let dataset = read_bytes(&text, &ReadConfig::new(columns.clone())).unwrap();
    let example = &dataset.examples()[0];
    assert_eq!(
        (example.id.as_str(), example.domain.as_str(), example.answer.as_str()),
        ("17", "law", "3")
    );
    assert!(example.group.starts_with("sha256:") && example.group.len() == 71);
    assert_eq!(example.metadata.as_ref().unwrap()["level"]["n"], 2);
    // A column that was named must be there.
    let error =
        read_bytes(text.replace("document\":", "doc\":"), &ReadConfig::new(columns)).unwrap_err();
    assert!(
        error.starts_with("data.jsonl:1: field `document`: expected a group, got nothing"),
        "{error}"
    );
}

#[test]
fn domains_are_mapped_and_others_follow_the_rule() {
    let rows = ["Math", "Coding"]
        .map(|d| format!(r#"{{"domain": "{d}", "question": "q {d}", "answer": "x"}}"#))
        .join("\n");
    let columns = |other_domains| Columns {
        domains: [("Math".to_owned(), "math".to_owned())].into(),
        other_domains,
        ..Columns::default()
    };
    let read = |rule| read_bytes(&rows, &ReadConfig::new(columns(rule)));
    let error = read(OtherDomains::Reject).unwrap_err();
    assert_eq!(error, "data.jsonl:2: unknown domain \"Coding\"; expected one of `Math`");
    let skipped = read(OtherDomains::Skip).unwrap();
    assert_eq!(
        (skipped.len(), skipped.skipped(), skipped.domains()),
        (1, 1, &["math".to_owned()][..])
    );
    assert_eq!(read(OtherDomains::Keep).unwrap().domains(), ["Coding", "math"]);
}

#[test]
fn webscale_rl_is_read_by_its_preset() {
    let row = |domain: &str, persona: &str| {
        format!(
            r#"{{"pretrain_text": "the same document", "domain": "{domain}", "persona": "{persona}",
               "question": "What does the {persona} ask?", "answer": "42"}}"#
        )
        .replace('\n', " ")
    };
    let rows = [
        row("Natural Science", "student"),
        row("Natural Science", "teacher"),
        row("Education", "pupil"),
    ]
    .join("\n");
    let dataset = read_bytes(rows, &ReadConfig::new(Columns::webscale_rl())).unwrap();
    assert_eq!((dataset.domains(), dataset.skipped()), (&["natural".to_owned()][..], 1));
    assert_eq!(dataset.examples()[0].group, dataset.examples()[1].group);
    assert_eq!(dataset.examples()[1].metadata.as_ref().unwrap()["persona"], "teacher");
}

#[test]
fn limits_are_kept_to_the_byte() {
    let limited = |limits| ReadConfig { limits, ..ReadConfig::default() };
    let row_bytes = GOOD.len() as u64;
    let marked = format!("\u{feff}{GOOD}\r\n");
    assert!(read_bytes(&marked, &limited(Limits { row_bytes, ..Limits::default() })).is_ok());
    let error =
        read_bytes(&marked, &limited(Limits { row_bytes: row_bytes - 1, ..Limits::default() }))
            .unwrap_err();
    assert_eq!(error, format!("data.jsonl:1: longer than the limit of {} bytes", row_bytes - 1));
    let two = format!("{GOOD}\n{}", GOOD.replace("\"a\"", "\"b\""));
    let error = read_bytes(two, &limited(Limits { rows: 1, ..Limits::default() })).unwrap_err();
    assert_eq!(error, "data.jsonl:2: the data passes the limit of 1 rows");
}

#[test]
#[cfg(unix)]
fn an_endless_line_ends_at_the_limit() {
    // A device that gives zeros without end; not on every platform.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.jsonl");
    if !std::path::Path::new("/dev/zero").exists()
        || std::os::unix::fs::symlink("/dev/zero", &path).is_err()
    {
        return;
    }
    let limits = Limits { row_bytes: 1 << 16, ..Limits::default() };
    let error = read(&path, &ReadConfig { limits, ..ReadConfig::default() }).unwrap_err();
    assert!(matches!(error, DataError::RowTooLong { limit: 65536, .. }), "{error}");
}

#[test]
fn files_that_are_missing_empty_or_of_another_format_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing =
        read(folder.path().join("missing.jsonl"), &ReadConfig::default()).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open ") && missing.contains("missing.jsonl"), "{missing}");
    let nothing =
        read(folder.path().join("folder"), &ReadConfig::default()).unwrap_err().to_string();
    assert!(nothing.starts_with("cannot open ") && nothing.contains("folder"), "{nothing}");
    let empty = read(file(&folder, "\n"), &ReadConfig::default()).unwrap_err().to_string();
    assert!(empty.ends_with("data.jsonl: expected at least one row, got none"), "{empty}");
    let other =
        read(folder.path().join("data.csv"), &ReadConfig::default()).unwrap_err().to_string();
    assert!(other.contains("data.csv: expected a name that ends in .jsonl"), "{other}");
}

#[test]
fn a_configuration_is_checked_and_read_strictly() {
    let columns = Columns { answer: " ".into(), ..Columns::default() };
    assert!(
        read_bytes(GOOD, &ReadConfig::new(columns))
            .unwrap_err()
            .starts_with("setting `answer`: expected a name")
    );
    let limits = Limits { rows: 0, ..Limits::default() };
    let config = ReadConfig { limits, ..ReadConfig::default() };
    assert_eq!(
        read_bytes(GOOD, &config).unwrap_err(),
        "setting `rows`: expected at least 1, got 0"
    );
    assert!(serde_json::from_str::<ReadConfig>(r#"{"columns": {"anwser": "a"}}"#).is_err());
    let skip: Columns = serde_json::from_str(r#"{"other_domains": "skip"}"#).unwrap();
    assert_eq!(skip.other_domains, OtherDomains::Skip);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_bytes(bytes, &ReadConfig::default());
    }

    #[test]
    fn any_text_comes_back_as_it_was(question in "\\PC{0,20}q\\PC{0,20}", answer in "[^ ]\\PC{0,10}") {
        prop_assume!(!answer.trim().is_empty());
        let row = serde_json::json!({"domain": "d", "question": question, "answer": answer}).to_string();
        let dataset = read_bytes(row, &ReadConfig::default()).unwrap();
        prop_assert_eq!(&dataset.examples()[0].question, &question);
        prop_assert_eq!(&dataset.examples()[0].answer, &answer);
    }
}
