//! Examples that have been checked against each other.

use std::collections::{BTreeSet, HashMap};

use crate::{DataError, Example, Limits, Place};

/// Examples that have been checked: ids are unique, no field is empty, every domain is known.
///
/// ```
/// use posttrain_data::{Dataset, Example};
///
/// let rows = vec![Example::new("a", "math", "1 + 1?", "2"), Example::new("b", "math", "1 + 2?", "3")];
/// let dataset = Dataset::new(rows, &["math"]).unwrap();
/// assert_eq!(dataset.len(), 2);
///
/// let twice = vec![Example::new("a", "math", "1 + 1?", "2"), Example::new("a", "math", "1 + 2?", "3")];
/// let error = Dataset::new(twice, &["math"]).unwrap_err();
/// assert_eq!(error.to_string(), r#"duplicate id "a": row 1 and row 2"#);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    examples: Vec<Example>,
    domains: Vec<String>,
    skipped: u64,
}

impl Dataset {
    /// Checks `examples` against each other and against the domains that are known; with none
    /// given, every domain is.
    ///
    /// # Errors
    /// [`DataError::DuplicateId`], [`DataError::EmptyField`] or [`DataError::UnknownDomain`], each
    /// naming the row; [`DataError::NoRows`] without any.
    pub fn new(examples: Vec<Example>, domains: &[&str]) -> Result<Self, DataError> {
        let mut collector =
            Collector::new(Limits { rows: u64::MAX, total_bytes: u64::MAX, ..Limits::default() });

        for (row, example) in (1..).zip(examples) {
            let place = Place::Memory { row };
            if !domains.is_empty() && !domains.contains(&example.domain.as_str()) {
                let known = domains.iter().map(|&d| d.to_owned()).collect();
                return Err(DataError::UnknownDomain { place, domain: example.domain, known });
            }
            collector.push(example, place)?;
        }
        collector.finish("the examples")
    }

    /// The examples, in the order in which they were read.
    #[must_use]
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The examples by value, in the order in which they were read.
    #[must_use]
    pub fn into_examples(self) -> Vec<Example> {
        self.examples
    }

    /// The names of the domains that have examples, sorted.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// The examples of one domain, in order.
    pub fn domain<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Example> {
        self.examples.iter().filter(move |example| example.domain == name)
    }

    /// The number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Never true: a dataset without examples cannot be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Rows that a reader passed over because of their domain (see
    /// [`OtherDomains::Skip`](crate::OtherDomains::Skip)).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Gathers examples one by one and holds each against those before it.
pub(crate) struct Collector {
    examples: Vec<Example>,
    places: HashMap<String, Place>,
    repetitions: HashMap<String, u64>,
    domains: BTreeSet<String>,
    limits: Limits,
    bytes: u64,
    skipped: u64,
}

impl Collector {
    pub(crate) fn new(limits: Limits) -> Self {
        let (examples, places, repetitions, domains) = Default::default();
        Self { examples, places, repetitions, domains, limits, bytes: 0, skipped: 0 }
    }

    pub(crate) fn push(&mut self, example: Example, place: Place) -> Result<(), DataError> {
        check_filled(&example, &place)?;
        self.check_room(&example, &place)?;

        if let Some(first) = self.places.get(&example.id) {
            return Err(DataError::DuplicateId {
                id: example.id,
                first: first.clone(),
                second: place,
            });
        }

        self.places.insert(example.id.clone(), place);
        if !self.domains.contains(&example.domain) {
            self.domains.insert(example.domain.clone());
        }
        self.examples.push(example);
        Ok(())
    }

    /// How often this derived id has been asked for, this time included.
    pub(crate) fn count_repetition(&mut self, id: &str) -> u64 {
        let count = self.repetitions.entry(id.to_owned()).or_insert(0);
        *count += 1;
        *count
    }

    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }

    pub(crate) fn finish(self, what: &str) -> Result<Dataset, DataError> {
        if self.examples.is_empty() {
            return Err(DataError::NoRows { what: what.to_owned() });
        }
        let domains = self.domains.into_iter().collect();
        Ok(Dataset { examples: self.examples, domains, skipped: self.skipped })
    }

    fn check_room(&mut self, example: &Example, place: &Place) -> Result<(), DataError> {
        let Example { id, domain, question, answer, group, metadata } = example;
        self.bytes +=
            [id, domain, question, answer, group].map(|text| text.len() as u64).iter().sum::<u64>();
        self.bytes += metadata
            .as_ref()
            .map_or(0, |fields| fields.values().map(|value| value.to_string().len() as u64).sum());

        let limits = [
            (self.examples.len() as u64 + 1, self.limits.rows, "rows"),
            (self.bytes, self.limits.total_bytes, "bytes"),
        ];
        match limits.into_iter().find(|(count, limit, _)| count > limit) {
            Some((_, limit, unit)) => {
                Err(DataError::TooLarge { place: place.clone(), limit, unit })
            }
            None => Ok(()),
        }
    }
}

fn check_filled(example: &Example, place: &Place) -> Result<(), DataError> {
    let Example { id, domain, question, answer, group, .. } = example;
    let fields = [
        ("id", id),
        ("domain", domain),
        ("question", question),
        ("answer", answer),
        ("group", group),
    ];

    match fields.into_iter().find(|(_, text)| text.trim().is_empty()) {
        Some((field, text)) => Err(DataError::EmptyField {
            place: place.clone(),
            field: field.to_owned(),
            got: text.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, answer: &str) -> Example {
        Example::new(id, "math", format!("question {id}"), answer)
    }

    #[test]
    fn an_empty_answer_names_its_row() {
        let error = Dataset::new(vec![row("a", "1"), row("b", " \t")], &[]).unwrap_err();
        assert_eq!(error.to_string(), "row 2: field `answer`: expected text, got \" \\t\"");
    }

    #[test]
    fn an_unknown_domain_names_its_row_and_the_known() {
        let error = Dataset::new(vec![row("a", "1")], &["natural", "social"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "row 1: unknown domain \"math\"; expected one of `natural`, `social`"
        );
    }

    #[test]
    fn no_rows_is_an_error() {
        assert!(matches!(Dataset::new(vec![], &[]), Err(DataError::NoRows { .. })));
    }

    #[test]
    fn limits_hold() {
        let mut collector = Collector::new(Limits { rows: 1, ..Limits::default() });
        collector.push(row("a", "1"), Place::line("f", 1)).unwrap();
        let error = collector.push(row("b", "1"), Place::line("f", 2)).unwrap_err();
        assert_eq!(error.to_string(), "f:2: the data passes the limit of 1 rows");
        let mut collector = Collector::new(Limits { total_bytes: 10, ..Limits::default() });
        assert!(matches!(
            collector.push(row("a", "1"), Place::line("f", 1)),
            Err(DataError::TooLarge { limit: 10, .. })
        ));
    }
}
