//! What two splits have in common and should not.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Split, Splits, normalize_question};

/// Something that stands in more than one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// What the rows share.
    pub kind: LeakKind,
    /// The id, the group or the normalized question itself.
    pub key: String,
    /// Every row that has it, of all splits.
    pub rows: Vec<SplitRow>,
}

/// What the rows of a [`Leak`] share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeakKind {
    /// The same id.
    Id,
    /// The same group: different questions about one fact.
    Group,
    /// The same question but for case, white space, punctuation and Unicode form.
    Question,
}

/// A row of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitRow {
    /// The split.
    pub split: Split,
    /// The row's position in the split, from 1.
    pub row: u64,
    /// The row's id.
    pub id: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LeakKind::Id => "id",
            LeakKind::Group => "group",
            LeakKind::Question => "question",
        };

        write!(f, "{kind} {:?}:", self.key)?;
        let row = |SplitRow { split, row, id }: &SplitRow| format!(" {split} row {row} ({id:?})");
        f.write_str(&self.rows.iter().map(row).collect::<Vec<_>>().join(","))
    }
}

/// Everything that stands in more than one of the three splits: ids, groups, and questions after
/// [`normalize_question`]. Empty where nothing leaks. The rows that no split got do not count.
///
/// ```
/// use posttrain_data::{Example, LeakKind, Splits, leaks};
///
/// let splits = Splits {
///     train: vec![Example::new("a", "math", "What is 7 + 5?", "12").with_group("one")],
///     test: vec![Example::new("b", "math", "what is  7+5", "12").with_group("two")],
///     ..Splits::default()
/// };
/// let found = leaks(&splits);
/// assert_eq!(found[0].kind, LeakKind::Question);
/// assert_eq!(found[0].to_string(), r#"question "what is 7 + 5": train row 1 ("a"), test row 1 ("b")"#);
/// ```
#[must_use]
pub fn leaks(splits: &Splits) -> Vec<Leak> {
    let mut rows: BTreeMap<(LeakKind, String), Vec<SplitRow>> = BTreeMap::new();
    for split in Split::ALL {
        for (row, example) in (1..).zip(splits.get(split)) {
            let keys = [
                (LeakKind::Id, example.id.clone()),
                (LeakKind::Group, example.group.clone()),
                (LeakKind::Question, normalize_question(&example.question)),
            ];
            for key in keys {
                rows.entry(key).or_default().push(SplitRow { split, row, id: example.id.clone() });
            }
        }
    }

    rows.into_iter()
        .filter(|(_, rows)| rows.iter().any(|row| row.split != rows[0].split))
        .map(|((kind, key), rows)| Leak { kind, key, rows })
        .collect()
}
