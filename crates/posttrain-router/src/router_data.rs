//! Questions with their labels, in three roles that cannot be mistaken for each other.

use posttrain_data::{Example, Split, Splits, leaks};

use crate::{Question, RouterError, labels};

/// The rows of one split.
#[derive(Debug, Clone)]
struct Rows {
    labels: Vec<String>,
    questions: Vec<Question>,
    truth: Vec<usize>,
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            rows: Rows,
        }

        impl $name {
            /// What the places in [`truth`](Self::truth) stand for.
            pub fn labels(&self) -> &[String] {
                &self.rows.labels
            }

            /// The questions.
            pub fn questions(&self) -> &[Question] {
                &self.rows.questions
            }

            /// The place of each question's label.
            pub fn truth(&self) -> &[usize] {
                &self.rows.truth
            }

            /// How many questions there are.
            pub fn len(&self) -> usize {
                self.rows.questions.len()
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.rows.questions.is_empty()
            }
        }
    };
}

role! {
    /// What a router is fitted on, and nothing else. Only [`RouterData::from_splits`] makes one.
    TrainSet
}
role! {
    /// What a router's settings are chosen by: strength of regularization, temperature, threshold.
    /// Only [`RouterData::from_splits`] makes one.
    ValidationSet
}
role! {
    /// What is reported. Nothing is fitted or tuned on it: whatever is takes one of the other two.
    /// Only [`RouterData::from_splits`] makes one.
    ///
    /// ```compile_fail,E0308
    /// use posttrain_router::{ClassifierConfig, HashedNgrams, RouterData};
    ///
    /// fn fit_on_test(data: &RouterData) {
    ///     let _ = ClassifierConfig::default().fit(HashedNgrams::default(), &data.test, &data.validation);
    /// }
    /// ```
    ///
    /// The same with the sets in their roles compiles:
    ///
    /// ```
    /// use posttrain_router::{ClassifierConfig, HashedNgrams, RouterData};
    ///
    /// fn fit(data: &RouterData) {
    ///     let _ = ClassifierConfig::default().fit(HashedNgrams::default(), &data.train, &data.validation);
    /// }
    /// ```
    TestSet
}

/// The three sets of one dataset.
///
/// ```
/// use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
/// use posttrain_router::RouterData;
///
/// let sizes = SplitSizes { train: 20, validation: 5, test: 5 };
/// let splits = split(&sciences::generate(7)?, &SplitConfig { sizes, seed: 7 })?;
/// let data = RouterData::from_splits(&splits, &sciences::DOMAINS)?;
/// assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (60, 15, 15));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RouterData {
    /// For fitting.
    pub train: TrainSet,
    /// For tuning.
    pub validation: ValidationSet,
    /// For reporting.
    pub test: TestSet,
}

impl RouterData {
    /// The three splits of a dataset, whose domains are the labels.
    ///
    /// # Errors
    /// [`RouterError::InvalidLabels`]; [`RouterError::UnknownLabel`] for a row of another domain;
    /// [`RouterError::Leak`] where an id, a group or a question stands in two splits.
    pub fn from_splits(splits: &Splits, labels: &[impl AsRef<str>]) -> Result<Self, RouterError> {
        let labels = labels::checked(labels.iter().map(AsRef::as_ref))?;
        let found = leaks(splits);
        if let Some(first) = found.first() {
            return Err(RouterError::Leak { count: found.len(), first: first.to_string() });
        }

        let rows = |split| Rows::new(splits.get(split), split, &labels);
        Ok(Self {
            train: TrainSet { rows: rows(Split::Train)? },
            validation: ValidationSet { rows: rows(Split::Validation)? },
            test: TestSet { rows: rows(Split::Test)? },
        })
    }
}

impl Rows {
    fn new(examples: &[Example], split: Split, labels: &[String]) -> Result<Self, RouterError> {
        let truth = examples
            .iter()
            .enumerate()
            .map(|(row, example)| {
                labels::index(labels, &example.domain, || {
                    format!("{split} row {} (`{}`)", row + 1, example.id)
                })
            })
            .collect::<Result<_, _>>()?;
        let questions =
            examples.iter().map(|example| Question::new(&example.id, &example.question)).collect();
        Ok(Self { labels: labels.to_vec(), questions, truth })
    }
}
