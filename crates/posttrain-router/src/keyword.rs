//! `KeywordRouter`: the label whose words the question has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::words::words;
use crate::{Decision, Question, Router, RouterError, TrainSet, labels};

/// Characters of a question that are read at most.
const QUESTION_CHARS: usize = 20_000;
/// The most words in a row of a keyword.
const LONGEST: usize = 8;
/// What every label has of each word, before anything is counted.
const SMOOTHING: f64 = 0.5;

/// Configuration of a [`KeywordRouter`].
///
/// ```
/// use posttrain_router::{KeywordConfig, Question, Router};
///
/// let keywords = [["plus", "sum"].map(String::from).to_vec(), vec!["king".to_owned()]].to_vec();
/// let config = KeywordConfig { keywords, ..KeywordConfig::new(["math", "social"], "social") };
/// let router = config.build()?;
/// let decisions = router.route(&[Question::new("a", "The SUM of 2 and 3?"), Question::new("b", "Why?")])?;
/// assert_eq!((decisions[0].label, decisions[0].probabilities[0]), (0, 0.75)); // one word, and a half for each label
/// assert_eq!((decisions[1].label, decisions[1].probabilities[0]), (1, 0.5)); // no word: the fallback
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeywordConfig {
    /// The labels, all different.
    pub labels: Vec<String>,
    /// Each label's words, one list a label, without regard to case: a word, with the signs at its
    /// end (`c++`); a single symbol such as `+`; or several of them in a row, as a word is of several
    /// characters where a script has no blanks.
    pub keywords: Vec<Vec<String>>,
    /// The label of questions that have as many words of several labels, or none of any.
    pub fallback: String,
}

impl KeywordConfig {
    /// These labels, without keywords yet.
    ///
    /// ```
    /// assert_eq!(posttrain_router::KeywordConfig::new(["math", "social"], "math").keywords, [[""; 0]; 2]);
    /// ```
    pub fn new(
        labels: impl IntoIterator<Item = impl Into<String>>,
        fallback: impl Into<String>,
    ) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        Self { keywords: vec![Vec::new(); labels.len()], labels, fallback: fallback.into() }
    }

    /// The `per_label` words of each label that tell it best from the others in the training set:
    /// those of the largest
    /// `(questions of the label with the word − questions of other labels with it)`, where that is
    /// positive. The fallback is the label of the most questions.
    ///
    /// ```
    /// use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
    /// use posttrain_router::{KeywordConfig, RouterData};
    ///
    /// let sizes = SplitSizes { train: 100, validation: 5, test: 5 };
    /// let splits = split(&sciences::generate(7)?, &SplitConfig { sizes, seed: 7 })?;
    /// let data = RouterData::from_splits(&splits, &sciences::DOMAINS)?;
    /// let config = KeywordConfig::learn(&data.train, 20);
    /// assert!(config.keywords[1].contains(&"element".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn learn(train: &TrainSet, per_label: usize) -> Self {
        let mut counts = BTreeMap::<String, Vec<usize>>::new();
        let mut sizes = vec![0_usize; train.labels().len()];
        for (question, &label) in train.questions().iter().zip(train.truth()) {
            sizes[label] += 1;
            for word in distinct_words(&question.text, 1) {
                counts.entry(word).or_insert_with(|| vec![0; sizes.len()])[label] += 1;
            }
        }

        let keywords = (0..sizes.len()).map(|label| telling(&counts, label, per_label)).collect();
        let largest = (0..sizes.len()).rev().max_by_key(|label| sizes[*label]).unwrap_or(0);
        Self {
            labels: train.labels().to_vec(),
            keywords,
            fallback: train.labels()[largest].clone(),
        }
    }

    /// Checks the lists.
    ///
    /// # Errors
    /// [`RouterError::InvalidLabels`]; [`RouterError::UnknownLabel`] of the fallback;
    /// [`RouterError::InvalidConfig`] where there is not a list a label, or a keyword has no word,
    /// or more than eight.
    pub fn validate(&self) -> Result<(), RouterError> {
        let labels = labels::checked(&self.labels)?;
        labels::index(&labels, &self.fallback, || "`fallback`".to_owned())?;
        if self.keywords.len() != labels.len() {
            let got = format!("{} lists", self.keywords.len());
            return Err(RouterError::config("keywords", got, "one list a label"));
        }

        let length = |keyword: &str| words(keyword).take(LONGEST + 1).count();
        let mut keywords = self.keywords.iter().flatten();
        match keywords.find(|keyword| !(1..=LONGEST).contains(&length(keyword))) {
            Some(keyword) => Err(RouterError::config(
                "keywords",
                format!("{keyword:?}"),
                "a word or a symbol, or up to eight of them in a row",
            )),
            None => Ok(()),
        }
    }

    /// The router.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate).
    pub fn build(self) -> Result<KeywordRouter, RouterError> {
        self.validate()?;
        let fallback = labels::index(&self.labels, &self.fallback, || "`fallback`".to_owned())?;

        let mut labels_of = BTreeMap::<String, BTreeSet<usize>>::new();
        for (label, keywords) in self.keywords.iter().enumerate() {
            for word in keywords {
                let word = word.to_lowercase();
                let word: Vec<&str> = words(&word).collect();
                labels_of.entry(joined(&word)).or_default().insert(label);
            }
        }

        let keywords = self.keywords.iter().flatten();
        let longest = keywords.map(|keyword| words(keyword).count()).max().unwrap_or(1);
        Ok(KeywordRouter { labels: self.labels, labels_of, longest, fallback })
    }
}

/// Counts the question's different words that are keywords of each label: the first router that
/// anyone writes, and what a better one must beat. A label's probability is
/// `(count + ½) / Σ (count + ½)`.
#[derive(Debug, Clone)]
pub struct KeywordRouter {
    labels: Vec<String>,
    labels_of: BTreeMap<String, BTreeSet<usize>>,
    /// Words of the longest keyword.
    longest: usize,
    fallback: usize,
}

impl KeywordRouter {
    fn decide(&self, question: &Question) -> Decision {
        let start = Instant::now();
        let mut counts = vec![SMOOTHING; self.labels.len()];
        let words = distinct_words(&question.text, self.longest);
        let known = words.iter().filter_map(|word| self.labels_of.get(word));
        known.flatten().for_each(|label| counts[*label] += 1.0);

        let total: f64 = counts.iter().sum();
        let highest = counts.iter().copied().fold(0.0, f64::max);
        let mut leaders = (0..counts.len()).filter(|label| counts[*label] == highest);
        let label = match (leaders.next(), leaders.next()) {
            (Some(leader), None) => leader,
            _ => self.fallback,
        };

        let probabilities = counts.iter().map(|count| count / total).collect();
        Decision { label, probabilities, seconds: start.elapsed().as_secs_f64() }
    }
}

impl Router for KeywordRouter {
    fn name(&self) -> &str {
        "keyword"
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        Ok(questions.iter().map(|question| self.decide(question)).collect())
    }
}

/// A question's different words, and its runs of up to `longest` of them.
fn distinct_words(text: &str, longest: usize) -> BTreeSet<String> {
    let text = excerpt(text, QUESTION_CHARS).to_lowercase();
    let words: Vec<&str> = words(&text).collect();
    (1..=longest).flat_map(|length| words.windows(length).map(joined)).collect()
}

/// The words of the largest difference, in that order, and of equals alphabetically.
fn telling(counts: &BTreeMap<String, Vec<usize>>, label: usize, per_label: usize) -> Vec<String> {
    let gain = |counts: &Vec<usize>| (2 * counts[label]).saturating_sub(counts.iter().sum());
    let mut gains: Vec<(&String, usize)> =
        counts.iter().map(|(word, counts)| (word, gain(counts))).collect();
    gains.retain(|(_, gain)| *gain > 0);
    gains.sort_by_key(|(_, gain)| std::cmp::Reverse(*gain));
    gains.into_iter().take(per_label).map(|(word, _)| word.clone()).collect()
}

/// Words in a row as one key.
fn joined(words: &[&str]) -> String {
    words.join("\0")
}
