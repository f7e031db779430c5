//! When a response lists what the reference lists.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::extraction::{USUAL_ORDER, extract};
use crate::json::{JsonValue, read};
use crate::number::Numeric;
use crate::reference::checked_reference;
use crate::response::{ending, without_thinking};
use crate::text::Normalizer;
use crate::{AnswerError, Extraction};

/// The most members of a list; a longer one is wrong, or a bad reference.
const MAX_MEMBERS: usize = 256;
/// The longest response that is looked at, in bytes; of a longer one, the end.
const MAX_BYTES: usize = 64 * 1024;

/// Whether the order of a list counts.
///
/// ```
/// use posttrain_answer::list::{List, ListOrder};
///
/// let set = List { order: ListOrder::Any, ..List::default() };
/// let sequence = List { order: ListOrder::Kept, ..List::default() };
/// assert!(set.compare("1, 2, 3", "3, 1, 2")?.is_complete());
/// assert!(!sequence.compare("1, 2, 3", "3, 1, 2")?.is_complete());
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListOrder {
    /// A set: neither order nor repetition counts.
    #[default]
    Any,
    /// A sequence: both count.
    Kept,
}

/// When a response's list is the reference's, member by member: as numbers where both are, else as
/// texts.
///
/// The reference is a JSON array, or members that `separators` part. The response's list is what
/// the first way in `find` finds, likewise; bullets, numbering (`1.`), an `and` before the last
/// member and brackets around the list are no part of its members. What is wrong: a member too
/// many, a member missing, prose around the list.
///
/// ```
/// use posttrain_answer::list::List;
///
/// let list = List::default();
/// assert!(list.compare("1, 2, 3, 6", "The answer is 6, 3, 2 and 1.")?.is_complete());
/// assert!(list.compare("1, 2, 3, 6", "- 1\n- 2\n- 3\n- 6")?.is_complete());
/// assert!(!list.compare("1, 2, 3, 6", "1, 2, 3, 4, 6")?.is_complete());
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct List {
    /// Whether order counts. Default: no.
    pub order: ListOrder,
    /// What parts two members; not empty. Default: comma, semicolon, line end.
    pub separators: Vec<char>,
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the whole text.
    pub find: Vec<Extraction>,
    /// How numbers are compared. Default: exactly.
    pub numeric: Numeric,
    /// How texts are compared. Default: without case and articles.
    #[serde(alias = "normaliser")]
    pub normalizer: Normalizer,
}

impl Default for List {
    fn default() -> Self {
        Self {
            order: ListOrder::default(),
            separators: vec![',', ';', '\n'],
            find: USUAL_ORDER.to_vec(),
            numeric: Numeric::default(),
            normalizer: Normalizer::default(),
        }
    }
}

/// How much of two lists is the same.
///
/// ```
/// use posttrain_answer::list::Overlap;
///
/// let overlap = Overlap { common: 1, all: 2 };
/// assert_eq!((overlap.share(), overlap.is_complete()), (0.5, false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Overlap {
    /// Members of a set that both have; places of a sequence that agree.
    pub common: usize,
    /// Members of a set that either has; places of the longer sequence. At least 1.
    pub all: usize,
}

impl Overlap {
    /// `common / all`, from 0 to 1: for sets the Jaccard index, `|common| / |either|`.
    ///
    /// ```
    /// assert_eq!(posttrain_answer::list::Overlap { common: 3, all: 4 }.share(), 0.75);
    /// ```
    #[must_use]
    pub fn share(self) -> f64 {
        self.common as f64 / self.all.max(1) as f64
    }

    /// Whether the lists are the same.
    ///
    /// ```
    /// assert!(posttrain_answer::list::Overlap { common: 4, all: 4 }.is_complete());
    /// ```
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.common == self.all && self.all > 0
    }
}

impl List {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first field that is empty or out of its range.
    ///
    /// ```
    /// use posttrain_answer::list::List;
    ///
    /// assert!(List { separators: vec![], ..List::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        self.numeric.validate()?;
        if self.separators.is_empty() {
            return Err(AnswerError::invalid("separators", "empty", "at least one"));
        }
        if self.find.is_empty() {
            return Err(AnswerError::invalid("find", "empty", "at least one"));
        }

        Ok(())
    }

    /// Compares the list in a response with the reference's.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference has no
    /// member or more than 256.
    ///
    /// ```
    /// use posttrain_answer::list::{List, Overlap};
    ///
    /// let overlap = List::default().compare("red; blue", "blue")?;
    /// assert_eq!(overlap, Overlap { common: 1, all: 2 });
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(&self, reference: &str, response: &str) -> Result<Overlap, AnswerError> {
        let reference = checked_reference(reference)?;
        let wanted = members(reference, &self.separators);
        if wanted.is_empty() || wanted.len() > MAX_MEMBERS {
            return Err(AnswerError::bad_reference(reference, "from 1 to 256 members"));
        }

        let spoken = without_thinking(response).map(|spoken| ending(spoken, MAX_BYTES));
        let found = spoken.and_then(|spoken| extract(spoken, &self.find));
        let given = found.map_or_else(Vec::new, |(list, _)| members(&list, &self.separators));
        if given.is_empty() || given.len() > MAX_MEMBERS {
            return Ok(Overlap { common: 0, all: 1 });
        }

        Ok(match self.order {
            ListOrder::Kept => self.compare_places(&wanted, &given),
            ListOrder::Any => self.compare_sets(&self.distinct(wanted), &self.distinct(given)),
        })
    }

    fn same(&self, member: &str, wanted: &str) -> bool {
        self.numeric.matches(member, wanted) || self.normalizer.matches(member, wanted)
    }

    fn compare_places(&self, wanted: &[String], given: &[String]) -> Overlap {
        let common =
            wanted.iter().zip(given).filter(|(wanted, member)| self.same(member, wanted)).count();

        Overlap { common, all: wanted.len().max(given.len()) }
    }

    fn compare_sets(&self, wanted: &[String], given: &[String]) -> Overlap {
        // To be the same is not transitive: of two different members both may be the same as a third,
        // which then stands for one of them alone.
        let mut left: Vec<&String> = given.iter().collect();
        let mut common = 0;
        for wanted in wanted {
            if let Some(place) = left.iter().position(|member| self.same(member, wanted)) {
                left.swap_remove(place);
                common += 1;
            }
        }

        Overlap { common, all: wanted.len() + given.len() - common }
    }

    fn distinct(&self, members: Vec<String>) -> Vec<String> {
        let mut distinct: Vec<String> = Vec::new();
        for member in members {
            if !distinct.iter().any(|known| self.same(&member, known)) {
                distinct.push(member);
            }
        }
        distinct
    }
}

/// The members of a list: of a JSON array, or of what `separators` part outside of brackets.
/// Linear.
///
/// ```
/// use posttrain_answer::list::members;
///
/// assert_eq!(members("1, 2 and 3", &[',']), ["1", "2", "3"]);
/// assert_eq!(members(r#"["a, b", 3]"#, &[',']), ["a, b", "3"]);
/// ```
pub fn members(list: &str, separators: &[char]) -> Vec<String> {
    let list = list.trim();
    if let Some(members) = json_members(list) {
        return members;
    }

    let inner = unbracketed(list);
    let mut members: Vec<Cow<str>> = Vec::new();
    for part in parted(inner, separators) {
        let member = unmarked(part);
        if !member.is_empty() {
            members.push(Cow::Borrowed(member));
        }
    }

    if let Some(last) = members.pop() {
        // `2 and 1` at a list's end are two members; in a list of one, `salt and pepper` may be
        // one.
        match last.split_once(" and ").filter(|_| !members.is_empty()) {
            Some((one, other)) => {
                members.push(Cow::Owned(one.trim().to_owned()));
                members.push(Cow::Owned(other.trim().to_owned()));
            }
            None => members.push(Cow::Owned(last.strip_prefix("and ").unwrap_or(&last).to_owned())),
        }
    }
    members.into_iter().map(Cow::into_owned).collect()
}

/// `list` at its separators outside of brackets.
fn parted<'t>(list: &'t str, separators: &[char]) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut depth = 0usize;

    for (at, c) in list.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 && separators.contains(&c) => {
                parts.push(&list[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

fn json_members(list: &str) -> Option<Vec<String>> {
    let JsonValue::Array(members) = read(list).ok()? else { return None };

    members.into_iter().map(json_member).collect()
}

fn json_member(member: JsonValue) -> Option<String> {
    match member {
        JsonValue::Text(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        JsonValue::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Without the brackets around a list.
fn unbracketed(list: &str) -> &str {
    let list = list.strip_suffix('.').unwrap_or(list);
    let pairs = [("[", "]"), ("{", "}"), ("(", ")"), ("\\{", "\\}")];
    let inner = pairs.iter().find_map(|(open, close)| list.strip_prefix(open)?.strip_suffix(close));
    inner.filter(|inner| !inner.contains(['[', '(', '{', ']', ')', '}'])).unwrap_or(list)
}

/// Without a bullet or a number before a member, and without space around it.
fn unmarked(member: &str) -> &str {
    let member = member.trim();
    let digits = member.bytes().take_while(u8::is_ascii_digit).count();
    let numbered = (1..=3).contains(&digits).then(|| &member[digits..]);
    let numbered =
        numbered.and_then(|rest| rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") ")));
    let bulleted = ["- ", "* ", "• "].iter().find_map(|bullet| member.strip_prefix(bullet));
    numbered.or(bulleted).unwrap_or(member).trim()
}

#[cfg(test)]
mod tests {
    use super::{List, ListOrder, members};
    use crate::AnswerError;

    #[test]
    fn members_are_found() {
        let cases: [(&str, &[&str]); 10] = [
            ("1, 2, 3", &["1", "2", "3"]),
            ("1, 2 and 3", &["1", "2", "3"]),
            ("1, 2, and 3", &["1", "2", "3"]),
            ("salt and pepper", &["salt and pepper"]),
            ("- a\n- b\n", &["a", "b"]),
            ("1. a\n2. b", &["a", "b"]),
            (r#"["a, b", 3]"#, &["a, b", "3"]),
            ("{1, 2}", &["1", "2"]),
            ("(1, 2), (3, 4)", &["(1, 2)", "(3, 4)"]),
            (";;", &[]),
        ];
        for (list, expected) in cases {
            assert_eq!(members(list, &[',', ';', '\n']), expected, "{list}");
        }
    }

    /// `0K` and `0K0K.^` are two members, and `0` is the same number as either.
    #[test]
    fn a_member_stands_for_one_other() {
        let overlap = List::default().compare("0K\n0K0K.^", "\n0\n0").unwrap();
        assert!(overlap.common <= overlap.all, "{overlap:?}");
        assert!(overlap.share() <= 1.0);
    }

    fn shares(order: ListOrder, cases: &[(&str, &str, f64)]) {
        let list = List { order, ..List::default() };
        for (reference, response, expected) in cases {
            let overlap = list.compare(reference, response).unwrap();
            assert_eq!(overlap.share(), *expected, "{reference} | {response}");
            assert_eq!(overlap.is_complete(), *expected == 1.0, "{reference} | {response}");
        }
    }

    #[test]
    fn sets() {
        let cases = [
            ("a, b", "b, a", 1.0),
            ("a, b", "b, a, a", 1.0),
            ("a, b", "The answer is: b, a.", 1.0),
            ("a, b", r"\boxed{a, b}", 1.0),
            ("0.5; 3", "3; 1/2", 1.0),
            ("[10, 0.5]", "1/2, 10", 1.0),
            ("a, b", "a", 0.5),
            ("a, b", "a, b, c", 2.0 / 3.0),
            ("a, b", "a, c", 1.0 / 3.0),
            ("a, b", "c", 0.0),
            ("a, b", "", 0.0),
            ("a, b", "<think>a, b", 0.0),
            ("a, b", r"a, b \boxed{", 0.0),
        ];
        shares(ListOrder::Any, &cases);
    }

    #[test]
    fn sequences() {
        let cases = [
            ("1, 2, 3", "1, 2, 3", 1.0),
            ("1, 2, 3", "3, 2, 1", 1.0 / 3.0),
            ("1, 2", "1, 2, 3, 4", 0.5),
            ("1, 1", "1", 0.5),
        ];
        shares(ListOrder::Kept, &cases);
    }

    #[test]
    fn mistakes_and_bounds() {
        let list = List::default();
        assert_eq!(list.compare("", "x"), Err(AnswerError::EmptyReference));
        for reference in [",,".to_owned(), "[]".to_owned(), "x,".repeat(300)] {
            assert!(
                matches!(list.compare(&reference, "x"), Err(AnswerError::BadReference { .. })),
                "{reference}"
            );
        }
        let long = list.compare("x", &"x,".repeat(30_000)).unwrap();
        assert_eq!(long.common, 0);
        assert!(List { find: vec![], ..List::default() }.validate().is_err());
    }
}
