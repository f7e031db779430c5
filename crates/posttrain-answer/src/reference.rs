//! What a reference must be, and where its answer is if it is a whole solution.

use crate::extraction::boxed::is_left_open;
use crate::{AnswerError, Extraction};

/// More words than a short answer has: a reference of more is a solution.
const MAX_WORDS: usize = 32;

/// Control characters that an escape leaves where LaTeX had a command: the character, what may
/// follow it if it also stands in texts by right, and what is then needed instead.
const DAMAGES: [(char, &[&str], &str); 7] = [
    ('\u{c}', &[], r"free of form feeds, which an unescaped `\f` (as in `\frac`) becomes"),
    ('\u{8}', &[], r"free of backspaces, which an unescaped `\b` (as in `\boxed`) becomes"),
    ('\u{7}', &[], r"free of bells, which an unescaped `\a` (as in `\alpha`) becomes"),
    ('\u{b}', &[], r"free of vertical tabs, which an unescaped `\v` (as in `\vec`) becomes"),
    (
        '\t',
        &["ext{", "extbf{", "imes", "heta", "frac", "an(", "riangle"],
        r"free of tabs within formulas, which an unescaped `\t` (as in `\text`) becomes",
    ),
    (
        '\r',
        &["ight", "angle", "ho "],
        r"free of carriage returns within formulas, which an unescaped `\r` (as in `\right`) becomes",
    ),
    (
        '\n',
        &["eq ", "abla", "otin"],
        r"free of line ends within formulas, which an unescaped `\n` (as in `\neq`) becomes",
    ),
];

/// A reference without white space around it.
///
/// # Errors
/// [`AnswerError::EmptyReference`] where nothing is left, [`AnswerError::BadReference`] where an
/// escape has eaten a part of it: such a reference agrees with no answer.
pub(crate) fn checked_reference(reference: &str) -> Result<&str, AnswerError> {
    for (control, followers, expected) in DAMAGES {
        if is_damaged(reference, control, followers) {
            return Err(AnswerError::bad_reference(reference, expected));
        }
    }

    match reference.trim() {
        "" => Err(AnswerError::EmptyReference),
        reference => Ok(reference),
    }
}

fn is_damaged(reference: &str, control: char, followers: &[&str]) -> bool {
    let mut places = reference.match_indices(control);

    places.any(|(at, _)| {
        let rest = &reference[at + control.len_utf8()..];
        followers.is_empty() || followers.iter().any(|follower| rest.starts_with(follower))
    })
}

/// The short answer that a reference is, or that it marks where it is a whole solution: GSM8K's by
/// `####`, MATH's by a box, others by `The answer is`.
///
/// # Errors
/// As [`checked_reference`], and [`AnswerError::BadReference`] where a solution marks no answer.
pub(crate) fn short_reference(reference: &str) -> Result<&str, AnswerError> {
    let reference = checked_reference(reference)?;
    let is_solution =
        reference.contains('\n') || reference.split_whitespace().nth(MAX_WORDS).is_some();

    let marks: &[Extraction] = match is_solution {
        true => &[Extraction::Boxed, Extraction::Hashes, Extraction::Phrase],
        // `The answer is 42` may be what a text says; a box or `####` is always a mark.
        false => &[Extraction::Boxed, Extraction::Hashes],
    };

    if !is_left_open(reference) {
        // All three find a part of the text as it is.
        let marked = marks.iter().find_map(|mark| match mark.find(reference)? {
            std::borrow::Cow::Borrowed(answer) => Some(answer),
            std::borrow::Cow::Owned(_) => None,
        });
        if let Some(answer) = marked {
            return Ok(answer);
        }
        if !is_solution {
            return Ok(reference);
        }
    }

    let expected = r"a short answer, or a solution that marks its answer by `####`, `\boxed{…}` or `The answer is`";
    Err(AnswerError::bad_reference(reference, expected))
}

#[cfg(test)]
mod tests {
    use super::{checked_reference, short_reference};
    use crate::AnswerError;

    #[test]
    fn a_solution_marks_its_answer() {
        let long = "word ".repeat(40);
        let cases = [
            ("24", Some("24")),
            (" Paris ", Some("Paris")),
            ("She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 24", Some("24")),
            ("#### 24", Some("24")),
            (r"Then $x = \boxed{\frac{1}{2}}$, which was asked for.", Some(r"\frac{1}{2}")),
            ("First,\nthen.\nThe answer is: 24", Some("24")),
            ("The answer is a lie", Some("The answer is a lie")),
            ("First,\nthen.", None),
            (long.as_str(), None),
            (r"so $\boxed{24$", None),
        ];
        for (reference, expected) in cases {
            assert_eq!(short_reference(reference).ok(), expected, "{reference}");
        }
        assert_eq!(short_reference(" \n"), Err(AnswerError::EmptyReference));
    }

    #[test]
    fn what_an_escape_has_eaten_is_told_by_name() {
        let damaged = [
            ("\u{c}rac{1}{2}", "form feed"),
            ("\u{8}oxed{1}", "backspace"),
            ("\u{7}lpha", "bell"),
            ("\u{b}ec{x}", "vertical tab"),
            ("5\text{ cm}", "tab"),
            ("2 \times 3", "tab"),
            ("(1, 2\right)", "carriage return"),
            ("x \neq 5", "line end"),
        ];
        for (reference, name) in damaged {
            let error = checked_reference(reference).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        for reference in [r"\frac{1}{2}", "a\tb", "first\r\nsecond", "1\n2", "x\ne"] {
            assert!(checked_reference(reference).is_ok(), "{reference}");
        }
    }
}
