//! Which column of a file is which field of an example.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DataError;

/// Which column of a file is which field of an [`Example`](crate::Example), and how its domains are
/// called here.
///
/// ```
/// use posttrain_data::Columns;
///
/// let columns = Columns { question: "prompt".into(), default_domain: Some("chess".into()), ..Columns::default() };
/// assert_eq!(columns.answer, "answer");
/// columns.validate().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// The column of questions: text in every row.
    pub question: String,
    /// The column of answers: text, a number or a truth value in every row, and never empty.
    pub answer: String,
    /// The column of ids, which every row must then have. `None`: `id` where a row has it, else
    /// derived from the row's domain, question and answer (`q-` and 16 hexadecimal digits, then
    /// `-2`, `-3`, … for exact repetitions).
    pub id: Option<String>,
    /// The column of domains, which every row must then have, unless there is a `default_domain`.
    /// `None`: `domain` where a row has it, else the `default_domain`.
    pub domain: Option<String>,
    /// The column of groups, which every row must then have. `None`: `group` where a row has it,
    /// else the normalized question. A value over 200 bytes stands as its SHA-256, so that a whole
    /// source document can name a group.
    pub group: Option<String>,
    /// The domain of rows without one; it is not looked up in `domains`.
    pub default_domain: Option<String>,
    /// From the file's names of domains to ours. Empty: the file's names are ours.
    pub domains: BTreeMap<String, String>,
    /// What becomes of a row whose domain is not in a non-empty `domains`.
    pub other_domains: OtherDomains,
    /// Columns to keep as [`Example::metadata`](crate::Example::metadata), where a row has them.
    pub metadata: Vec<String>,
}

/// What becomes of a row whose domain is not in [`Columns::domains`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OtherDomains {
    /// It is an error, and names the row.
    #[default]
    Reject,
    /// The row is passed over, and counted in [`Dataset::skipped`](crate::Dataset::skipped).
    Skip,
    /// The row keeps the file's name.
    Keep,
}

impl Default for Columns {
    /// The names that this crate writes: `id`, `domain`, `question`, `answer`, `group`.
    fn default() -> Self {
        Self {
            question: "question".to_owned(),
            answer: "answer".to_owned(),
            id: None,
            domain: None,
            group: None,
            default_domain: None,
            domains: BTreeMap::new(),
            other_domains: OtherDomains::Reject,
            metadata: Vec::new(),
        }
    }
}

impl Columns {
    /// The columns of `Salesforce/Webscale-RL` (arXiv:2510.06499): `question`, `answer`, `domain`,
    /// and `pretrain_text` as the group, because one document gave rise to questions of several
    /// personas; the persona as metadata.
    ///
    /// Its domains "Math", "Natural Science" and "Social Science" become the three of
    /// [`sciences`](crate::sciences); rows of its other seven ("Technology & Engineering",
    /// "Coding", "Travel & Lifestyle", "Commerce & Economics", "Medicine & Health", "Education",
    /// "Other") are skipped. Change `domains` to keep more.
    ///
    /// ```
    /// use posttrain_data::Columns;
    ///
    /// assert_eq!(Columns::webscale_rl().domains["Natural Science"], "natural");
    /// ```
    #[must_use]
    pub fn webscale_rl() -> Self {
        use crate::sciences::{MATH, NATURAL, SOCIAL};
        let ours = [("Math", MATH), ("Natural Science", NATURAL), ("Social Science", SOCIAL)];
        Self {
            domain: Some("domain".to_owned()),
            group: Some("pretrain_text".to_owned()),
            domains: ours.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned())).into(),
            other_domains: OtherDomains::Skip,
            metadata: vec!["persona".to_owned()],
            ..Self::default()
        }
    }

    /// Whether every name says something.
    ///
    /// # Errors
    /// [`DataError::Config`] names the first empty column or domain.
    pub fn validate(&self) -> Result<(), DataError> {
        let named = [
            ("question", Some(&self.question)),
            ("answer", Some(&self.answer)),
            ("id", self.id.as_ref()),
            ("domain", self.domain.as_ref()),
            ("group", self.group.as_ref()),
            ("default_domain", self.default_domain.as_ref()),
        ];
        let domains = self.domains.values().map(|name| ("domains", Some(name)));
        let metadata = self.metadata.iter().map(|name| ("metadata", Some(name)));

        match named
            .into_iter()
            .chain(domains)
            .chain(metadata)
            .find(|(_, name)| name.is_some_and(|n| n.trim().is_empty()))
        {
            Some((field, name)) => {
                Err(DataError::Config { field, expected: "a name", got: format!("{name:?}") })
            }
            None => Ok(()),
        }
    }
}
