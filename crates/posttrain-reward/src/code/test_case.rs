//! The tests of a task, as they stand in a dataset row.

use serde::Deserialize;
use serde_json::Value;

use crate::{RewardError, Sample};

/// The key of the metadata that holds a task's tests.
const KEY: &str = "tests";
const EXPECTED: &str = r#"a list of {"stdin": "…", "stdout": "…"} and {"assert": "…"}"#;

/// A task's tests, by kind.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    /// What is to be written for what is read.
    pub(crate) streams: Vec<Streams>,
    /// Python statements that raise where the program is wrong.
    pub(crate) asserts: Vec<String>,
    /// Names of the program's that may stand for Python's own.
    pub(crate) entry_points: Vec<String>,
}

/// Standard input and the standard output that it must give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Streams {
    #[serde(default)]
    pub(crate) stdin: String,
    pub(crate) stdout: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TestCase {
    Streams(Streams),
    Assert(Assert),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assert {
    assert: String,
}

impl Tests {
    /// The tests of `sample`, of which there must be at least one and at most `limit`.
    pub(crate) fn of(sample: &Sample, limit: usize) -> Result<Self, RewardError> {
        let value = sample.metadata.get(KEY).ok_or_else(|| sample.missing(KEY, EXPECTED))?;
        let bad = |reason: String| RewardError::BadTask {
            id: sample.id.clone(),
            key: KEY,
            reason,
            expected: EXPECTED,
        };
        let cases = value.as_array().ok_or_else(|| bad("not a list".to_owned()))?;
        if cases.is_empty() || cases.len() > limit {
            return Err(bad(format!("{} tests, of which there must be 1 to {limit}", cases.len())));
        }
        let mut tests = Self { entry_points: entry_points(sample)?, ..Self::default() };
        for (index, case) in cases.iter().enumerate() {
            match TestCase::deserialize(case)
                .map_err(|_| bad(format!("test {index} is of another form")))?
            {
                TestCase::Streams(streams) => tests.streams.push(streams),
                TestCase::Assert(Assert { assert }) => tests.asserts.push(assert),
            }
        }
        Ok(tests)
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len() + self.asserts.len()
    }
}

fn entry_points(sample: &Sample) -> Result<Vec<String>, RewardError> {
    match sample.metadata.get("entry_point") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name.clone()]),
        Some(other) => Err(RewardError::BadTask {
            id: sample.id.clone(),
            key: "entry_point",
            reason: format!("{other}"),
            expected: "a function's name",
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Tests;
    use crate::Sample;

    fn read(tests: Value) -> Result<(usize, usize), &'static str> {
        let mut sample = Sample::default();
        sample.metadata.insert("tests".into(), tests);
        let read = Tests::of(&sample, 3).map_err(|error| error.cause())?;
        Ok((read.streams.len(), read.asserts.len()))
    }

    #[test]
    fn forms() {
        assert_eq!(
            read(json!([{"stdin": "1", "stdout": "2"}, {"stdout": "2"}, {"assert": "assert 1"}])),
            Ok((2, 1))
        );
        let bad = [
            json!([]),
            json!({}),
            json!("assert 1"),
            json!([{"stdin": "1"}]),
            json!([{"stdin": 1, "stdout": "1"}]),
            json!([{"stdout": "1", "more": 1}]),
            json!([{"assert": "a", "stdout": "1"}]),
            json!([{"stdout": "1"}, {"stdout": "1"}, {"stdout": "1"}, {"stdout": "1"}]),
        ];
        for tests in bad {
            assert_eq!(read(tests.clone()), Err("bad_task"), "{tests}");
        }
        assert_eq!(Tests::of(&Sample::default(), 3).unwrap_err().cause(), "missing_field");
    }
}
