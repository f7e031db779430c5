//! Means with names, a sum and a count each.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A mean whose sum and count are apart, so that it adds up over micro-batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The sum of the values.
    pub sum: f64,
    /// Their number, or the sum of their weights.
    pub count: f64,
}

impl Mean {
    /// `sum / count`; `None` of nothing.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Means by name.
///
/// ```
/// use posttrain_loss::metrics::NamedMeans;
///
/// let (mut first, mut second) = (NamedMeans::default(), NamedMeans::default());
/// first.add("nll", 6.0, 3.0);
/// second.add("nll", 2.0, 1.0);
/// first.merge(&second);
/// assert_eq!(first.get("nll"), Some(2.0));
/// assert_eq!(first.get("margin"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedMeans(BTreeMap<Cow<'static, str>, Mean>);

impl NamedMeans {
    /// Adds to a mean, which begins at nothing.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, sum: f64, count: f64) {
        let mean = self.0.entry(name.into()).or_default();
        mean.sum += sum;
        mean.count += count;
    }

    /// The value of a mean; `None` where there is none of that name, or nothing in it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.value()
    }

    /// Names and means, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Mean)> {
        self.0.iter().map(|(name, mean)| (name.as_ref(), *mean))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the means of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        for (name, mean) in &other.0 {
            self.add(name.clone(), mean.sum, mean.count);
        }
    }
}
