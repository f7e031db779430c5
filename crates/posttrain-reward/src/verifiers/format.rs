//! A term for format: the tags that a response must consist of, or a pattern that it must match.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score, Verifier};

/// Memory that a compiled pattern may take, bytes: enough for any format, and an end to
/// `(a{999}){999}`.
const PATTERN_BYTES: usize = 1 << 20;

/// Where the first tag is opened: by the policy or by its prompt.
///
/// Chat templates of reasoning models end the prompt with `<think>`, so that the response begins
/// inside it. A term that insists on the opening tag is then always 0, and nothing shows it (TRL
/// issue 6966).
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{FormatConfig, Opening};
///
/// let value = |opening, response: &str| {
///     let tags = vec!["think".to_owned(), "answer".to_owned()];
///     let term = FormatConfig::Tags { tags, opening }.build()?;
///     term.verify(&Sample::new("?", "4", response)).map(|score| score.value())
/// };
/// let (written, prefilled) = ("<think>2 + 2</think><answer>4</answer>", "2 + 2</think>\n<answer>4</answer>");
/// assert_eq!([value(Opening::Written, written)?, value(Opening::Written, prefilled)?], [1.0, 0.0]);
/// assert_eq!([value(Opening::Prefilled, written)?, value(Opening::Prefilled, prefilled)?], [0.0, 1.0]);
/// assert_eq!([value(Opening::Either, written)?, value(Opening::Either, prefilled)?], [1.0, 1.0]);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// The response must open the first tag.
    Written,
    /// The prompt has opened it; the response must not open it again.
    Prefilled,
    /// The response may open it or leave it out.
    #[default]
    Either,
}

/// The format that a response must have: 1 where it has, else 0.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::FormatConfig;
///
/// let term = FormatConfig::default().build()?;
/// let value = |response: &str| term.verify(&Sample::new("?", "4", response)).map(|score| score.value());
/// assert_eq!(value("<think>\n2 + 2\n</think>\n\n<answer>4</answer>\n")?, 1.0);
/// assert_eq!(value("<think>2 + 2</think><answer>4</answer> I hope this helps!")?, 0.0);
/// assert_eq!(value("<think>2 + 2</think><answer></answer>")?, 0.0);
/// assert_eq!(value("<think>a<think>b</think><answer>4</answer>")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FormatConfig {
    /// The response is these tags in this order, each once and with something in it, and white
    /// space between them.
    Tags {
        /// The tags' names: letters, digits, `_` and `-`; none twice. DeepSeek-R1
        /// (<https://arxiv.org/abs/2501.12948>) has `think`, `answer`.
        tags: Vec<String>,
        /// Where the first one is opened.
        #[serde(default)]
        opening: Opening,
    },
    /// The whole response matches a regular expression in the syntax of the `regex` crate (linear
    /// time, no back-references); `(?s)` lets `.` match new lines.
    Pattern(String),
}

impl Default for FormatConfig {
    /// `<think>…</think><answer>…</answer>`, the opening tag written or prefilled.
    fn default() -> Self {
        Self::Tags {
            tags: vec!["think".to_owned(), "answer".to_owned()],
            opening: Opening::default(),
        }
    }
}

impl FormatConfig {
    /// Checks the tags' names, or that the pattern compiles within 1 MiB.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the field.
    ///
    /// ```
    /// use posttrain_reward::verifiers::FormatConfig;
    ///
    /// assert!(FormatConfig::Pattern("Answer: .*".into()).validate().is_ok());
    /// assert!(FormatConfig::Pattern("(".into()).validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        match self {
            Self::Tags { tags, .. } => validate_tags(tags),
            Self::Pattern(pattern) => compile(pattern).map(|_| ()),
        }
    }

    /// The term.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{Sample, Verifier};
    /// use posttrain_reward::verifiers::FormatConfig;
    ///
    /// let term = FormatConfig::Pattern(r"(?s).*\nAnswer: \d+".into()).build()?;
    /// assert_eq!(term.verify(&Sample::new("?", "4", "2 + 2\nAnswer: 4"))?.value(), 1.0);
    /// assert_eq!(term.verify(&Sample::new("?", "4", "Answer: 4"))?.value(), 0.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<FormatTerm, RewardError> {
        self.validate()?;
        Ok(FormatTerm {
            shape: match self {
                Self::Tags { tags, opening } => Shape::Tags(tags, opening),
                Self::Pattern(pattern) => Shape::Pattern(compile(&pattern)?),
            },
        })
    }
}

fn validate_tags(tags: &[String]) -> Result<(), RewardError> {
    let is_name = |tag: &String| {
        !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    let repeats = tags.iter().enumerate().any(|(at, tag)| tags[..at].contains(tag));
    if tags.is_empty() || repeats || !tags.iter().all(is_name) {
        let expected = "at least one name of letters, digits, `_` and `-`, none twice";
        return Err(RewardError::InvalidConfig {
            field: "tags",
            got: format!("{tags:?}"),
            expected,
        });
    }
    Ok(())
}

fn compile(pattern: &str) -> Result<Regex, RewardError> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    // Alone first: `a)|(b` is only balanced inside of other parentheses.
    let whole = build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z")));
    whole.map_err(|error| RewardError::InvalidConfig {
        field: "pattern",
        got: format!("{pattern:?} ({error})"),
        expected: "a regular expression of at most 1 MiB",
    })
}

/// The term that [`FormatConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::FormatConfig;
///
/// let score = FormatConfig::default().build()?.verify(&Sample::new("?", "4", "<answer>4</answer>"))?;
/// assert_eq!((score.value(), score.note()), (0.0, Some("no </think>")));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FormatTerm {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Tags(Vec<String>, Opening),
    Pattern(Regex),
}

impl Verifier for FormatTerm {
    fn name(&self) -> &str {
        "format"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        Ok(match &self.shape {
            Shape::Pattern(pattern) => Score::binary(pattern.is_match(&sample.response)),
            Shape::Tags(tags, opening) => match check_tags(&sample.response, tags, *opening) {
                Ok(()) => Score::binary(true),
                Err(fault) => Score::binary(false).with_note(fault),
            },
        })
    }
}

/// What is wrong with `response`, in words.
fn check_tags(response: &str, tags: &[String], opening: Opening) -> Result<(), String> {
    let mut rest = response.trim_start();
    for (index, tag) in tags.iter().enumerate() {
        let opening = if index == 0 { opening } else { Opening::Written };
        rest = after_opening(rest, tag, opening)?;
        let (contents, after) =
            rest.split_once(&format!("</{tag}>")).ok_or_else(|| format!("no </{tag}>"))?;
        check_contents(contents, tag, tags)?;
        rest = after.trim_start();
    }
    if rest.is_empty() { Ok(()) } else { Err("text after the last tag".to_owned()) }
}

fn after_opening<'t>(text: &'t str, tag: &str, opening: Opening) -> Result<&'t str, String> {
    match (text.strip_prefix(&format!("<{tag}>")), opening) {
        (Some(_), Opening::Prefilled) => {
            Err(format!("<{tag}> again, where the prompt has opened it"))
        }
        (Some(rest), _) => Ok(rest),
        (None, Opening::Written) => Err(format!("no <{tag}> where one must begin")),
        (None, _) => Ok(text),
    }
}

fn check_contents(contents: &str, tag: &str, tags: &[String]) -> Result<(), String> {
    if contents.trim().is_empty() {
        return Err(format!("nothing in <{tag}>"));
    }
    let stray = |other: &&String| {
        contents.contains(&format!("<{other}>")) || contents.contains(&format!("</{other}>"))
    };
    tags.iter().find(stray).map_or(Ok(()), |other| Err(format!("a tag `{other}` inside <{tag}>")))
}
