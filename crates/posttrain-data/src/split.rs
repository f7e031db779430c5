//! Splits that share no fact: stratified by domain, of exact sizes, the same on every platform.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bin_packing::BinPacking;
use crate::components::components;
use crate::shuffle::{shuffle, stream};
use crate::{DataError, Dataset, Example};

/// One of the three parts that a dataset is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What the best checkpoint is chosen by.
    Validation,
    /// What is reported.
    Test,
}

impl Split {
    /// All three, in their usual order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// `train`, `validation` or `test`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The position in [`Split::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many rows of each domain each split gets, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSizes {
    /// Rows of a domain for training.
    pub train: u64,
    /// Rows of a domain for choosing a checkpoint.
    pub validation: u64,
    /// Rows of a domain for the report.
    pub test: u64,
}

impl Default for SplitSizes {
    /// 2,000 / 250 / 250. With 250 rows the 95% Wilson interval of an accuracy of one half is
    /// ±0.06.
    fn default() -> Self {
        Self { train: 2000, validation: 250, test: 250 }
    }
}

impl SplitSizes {
    /// The rows of one split.
    #[must_use]
    pub fn get(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.train,
            Split::Validation => self.validation,
            Split::Test => self.test,
        }
    }

    /// The rows of the three together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.train.saturating_add(self.validation).saturating_add(self.test)
    }
}

/// How a dataset is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// Rows of each domain.
    pub sizes: SplitSizes,
    /// The same seed gives the same splits of the same dataset, on every platform.
    pub seed: u64,
}

impl SplitConfig {
    /// Whether any rows are asked for.
    ///
    /// # Errors
    /// [`DataError::Config`] where all three sizes are 0.
    pub fn validate(&self) -> Result<(), DataError> {
        if self.sizes.total() == 0 {
            return Err(DataError::Config {
                field: "sizes",
                expected: "at least one row",
                got: "0, 0, 0".to_owned(),
            });
        }
        Ok(())
    }
}

/// A dataset in its three parts; in each, the domains stand in the order of their names, and their
/// rows shuffled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Splits {
    /// What the model learns from.
    pub train: Vec<Example>,
    /// What the best checkpoint is chosen by.
    pub validation: Vec<Example>,
    /// What is reported.
    pub test: Vec<Example>,
    /// Rows in none of the three: there were more than asked for, or their group was cut short to
    /// fill a split exactly. Not for evaluation, because of the latter.
    pub left_over: Vec<Example>,
}

impl Splits {
    /// The rows of one split.
    #[must_use]
    pub fn get(&self, split: Split) -> &[Example] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// The rows of one domain in one split.
    pub fn domain<'a>(&'a self, split: Split, name: &'a str) -> impl Iterator<Item = &'a Example> {
        self.get(split).iter().filter(move |example| example.domain == name)
    }

    /// The names of the domains in the three splits, sorted.
    #[must_use]
    pub fn domains(&self) -> Vec<&str> {
        let rows = Split::ALL.into_iter().flat_map(|split| self.get(split));
        let mut names: Vec<&str> = rows.map(|example| example.domain.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Splits a dataset: in every domain exactly the sizes asked for, and no group in two splits.
///
/// Rows belong together where they share a group or a normalized question, across domains too.
/// These sets are shuffled and fill the test split first, then validation, then training: a set
/// that would overflow gives way to later, smaller ones, and where none fits, the smallest is cut
/// short and its other rows go to [`Splits::left_over`].
///
/// ```
/// use posttrain_data::{SplitConfig, SplitSizes, leaks, sciences, split};
///
/// let config = SplitConfig { sizes: SplitSizes { train: 200, validation: 25, test: 25 }, seed: 7 };
/// let splits = split(&sciences::generate(7).unwrap(), &config).unwrap();
/// assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (600, 75, 75)); // three domains
/// assert!(leaks(&splits).is_empty());
/// ```
///
/// # Errors
/// [`DataError::TooFewRows`] where a domain lacks rows, [`DataError::Unpackable`] where its groups
/// are such that no order of many filled the sizes exactly, [`DataError::Config`] for sizes of 0.
pub fn split(dataset: &Dataset, config: &SplitConfig) -> Result<Splits, DataError> {
    config.validate()?;
    let domain_of = domain_indices(dataset);
    check_rows(dataset, &domain_of, config.sizes.total())?;

    let sets = components(dataset.examples());
    let mut packed = BinPacking::new(config, dataset.domains(), &domain_of, sets).pack()?;

    let mut taken = vec![false; dataset.len()];
    for (purpose, rows) in (0..).zip(&mut packed) {
        shuffle(rows, &mut stream(config.seed, "order", purpose));
        rows.sort_by_key(|&row| domain_of[row]);
        rows.iter().for_each(|&row| taken[row] = true);
    }

    let left_over: Vec<usize> = (0..dataset.len()).filter(|&row| !taken[row]).collect();
    let pick =
        |rows: Vec<usize>| rows.into_iter().map(|row| dataset.examples()[row].clone()).collect();
    let [train, validation, test] = packed.map(pick);
    Ok(Splits { train, validation, test, left_over: pick(left_over) })
}

/// The position of each row's domain among the dataset's.
fn domain_indices(dataset: &Dataset) -> Vec<usize> {
    dataset
        .examples()
        .iter()
        .map(|example| dataset.domains().partition_point(|name| *name < example.domain))
        .collect()
}

fn check_rows(dataset: &Dataset, domain_of: &[usize], needed: u64) -> Result<(), DataError> {
    let mut counts = vec![0_u64; dataset.domains().len()];
    domain_of.iter().for_each(|&domain| counts[domain] += 1);

    match counts.iter().position(|&found| found < needed) {
        Some(domain) => Err(DataError::TooFewRows {
            domain: dataset.domains()[domain].clone(),
            needed,
            found: counts[domain],
        }),
        None => Ok(()),
    }
}
