//! The JSON that rewards outside of this process read and write.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{RewardError, Sample, Score};

/// What goes out: `{"id", "domain", "question", "reference", "response", "metadata"}`.
#[derive(Debug, Serialize)]
pub(crate) struct Request<'a> {
    id: &'a str,
    domain: &'a str,
    question: &'a str,
    reference: &'a str,
    response: &'a str,
    metadata: &'a Map<String, Value>,
}

impl<'a> From<&'a Sample> for Request<'a> {
    fn from(sample: &'a Sample) -> Self {
        let Sample { id, domain, question, reference, response, metadata, .. } = sample;
        Self { id, domain, question, reference, response, metadata }
    }
}

/// What comes back: `{"reward": 0.5, "parts": {…}, "note": "…"}` or `{"error": "…"}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    reward: Option<f64>,
    error: Option<String>,
    #[serde(default)]
    parts: Map<String, Value>,
    note: Option<String>,
}

impl Reply {
    /// Reads the text of a reply of the reward called `reward`.
    pub(crate) fn parse(reward: &str, text: &[u8]) -> Result<Score, RewardError> {
        let value = serde_json::from_slice(text);
        Self::read(
            reward,
            &value.map_err(|error| {
                bad_reply(reward, &String::from_utf8_lossy(text), error.to_string())
            })?,
        )
    }

    /// Reads a reply of the reward called `reward`.
    pub(crate) fn read(reward: &str, value: &Value) -> Result<Score, RewardError> {
        let bad = |reason| bad_reply(reward, &value.to_string(), reason);
        let reply = Self::deserialize(value).map_err(|error| bad(error.to_string()))?;
        reply.into_score(reward).map_err(|fault| match fault {
            Fault::Said(error) => error,
            Fault::Form(reason) => bad(reason),
        })
    }

    fn into_score(self, reward: &str) -> Result<Score, Fault> {
        let value = match (self.reward, self.error) {
            (Some(value), None) => value,
            (None, Some(message)) => {
                return Err(Fault::Said(RewardError::Reported {
                    reward: reward.to_owned(),
                    message: brief(&message),
                }));
            }
            (None, None) => return Err(Fault::Form("neither `reward` nor `error`".to_owned())),
            (Some(_), Some(_)) => return Err(Fault::Form("both `reward` and `error`".to_owned())),
        };
        let mut score = Score::new(value).map_err(Fault::Said)?;
        for (name, part) in self.parts {
            let part = part
                .as_f64()
                .ok_or_else(|| Fault::Form(format!("part `{name}` is not a number")))?;
            score = score.with_part(name, part).map_err(Fault::Said)?;
        }
        Ok(match self.note {
            Some(note) => score.with_note(note),
            None => score,
        })
    }
}

enum Fault {
    Said(RewardError),
    Form(String),
}

fn bad_reply(reward: &str, text: &str, reason: String) -> RewardError {
    RewardError::BadReply { reward: reward.to_owned(), reply: brief(text), reason }
}

/// At most 200 characters, for an error.
fn brief(text: &str) -> String {
    text.trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::{Reply, Request};
    use crate::Sample;

    #[test]
    fn requests_hold_what_the_contract_lists() {
        let mut sample =
            Sample { id: "7".into(), domain: "law".into(), ..Sample::new("q", "a", "r\n\"é\"") };
        sample.metadata.insert("k".into(), 1.into());
        let line = serde_json::to_string(&Request::from(&sample)).unwrap();
        let expected = r#"{"id":"7","domain":"law","question":"q","reference":"a","response":"r\n\"é\"","metadata":{"k":1}}"#;
        assert_eq!(line, expected);
    }

    #[test]
    fn replies() {
        let score = Reply::parse(
            "r",
            br#"{"reward": 0.5, "parts": {"b": 1, "a": -2.5}, "note": "ok", "more": 1}"#,
        )
        .unwrap();
        assert_eq!((score.value(), score.note()), (0.5, Some("ok")));
        assert_eq!(score.parts(), [("b".to_owned(), 1.0), ("a".to_owned(), -2.5)]);
        let cases: [(&[u8], &str); 12] = [
            (br#"{"error": "no file"}"#, "reported"),
            (br#"{}"#, "bad_reply"),
            (br#"{"reward": 1, "error": "x"}"#, "bad_reply"),
            (br#"{"reward": "1"}"#, "bad_reply"),
            (br#"{"reward": null}"#, "bad_reply"),
            (br#"{"reward": NaN}"#, "bad_reply"),
            (br#"{"reward": true}"#, "bad_reply"),
            (br#"{"reward": 1.5}"#, "invalid_score"),
            (br#"{"reward": -1}"#, "invalid_score"),
            (br#"{"reward": 1, "parts": {"a": "x"}}"#, "bad_reply"),
            (b"1.0", "bad_reply"),
            (b"\xff", "bad_reply"),
        ];
        for (text, cause) in cases {
            assert_eq!(
                Reply::parse("r", text).unwrap_err().cause(),
                cause,
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }
}
