//! Lists of labels that can be told apart.

use std::collections::BTreeSet;

use crate::RouterError;

/// The labels as they are, if there are any, none is blank and no two are the same.
pub(crate) fn checked(
    labels: impl IntoIterator<Item = impl Into<String>>,
) -> Result<Vec<String>, RouterError> {
    let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
    let distinct: BTreeSet<&str> = labels.iter().map(|label| label.trim()).collect();
    if labels.is_empty() || distinct.len() < labels.len() || distinct.contains("") {
        return Err(RouterError::InvalidLabels {
            got: labels,
            expected: "at least one, all different, none blank",
        });
    }
    Ok(labels)
}

/// The place of a label; `place` says where it was met.
pub(crate) fn index(
    labels: &[String],
    label: &str,
    place: impl FnOnce() -> String,
) -> Result<usize, RouterError> {
    labels.iter().position(|known| known == label).ok_or_else(|| RouterError::UnknownLabel {
        place: place(),
        got: label.to_owned(),
        labels: labels.to_vec(),
    })
}

/// Both lists are the same, in the same order.
pub(crate) fn same(part: &str, got: &[String], expected: &[String]) -> Result<(), RouterError> {
    if got == expected {
        return Ok(());
    }
    Err(RouterError::OtherLabels {
        part: part.to_owned(),
        got: got.to_vec(),
        expected: expected.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_blank_ones_and_twins_are_refused() {
        for labels in [vec![], vec![""], vec!["a", " "], vec!["a", "b", "a"], vec!["a", "a "]] {
            assert!(matches!(checked(labels), Err(RouterError::InvalidLabels { .. })));
        }
        assert_eq!(checked(["a"]).unwrap(), ["a"]);
    }
}
