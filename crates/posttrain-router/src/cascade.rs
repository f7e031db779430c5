//! `Cascade`: a cheap router, and a better one for what it is not sure of.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Decision, Question, Router, RouterError, ValidationSet, distribution, labels};

/// Asks the first router, and the second about the questions whose probability is below the
/// threshold. Either may be a cascade itself.
///
/// ```
/// use posttrain_router::{Cascade, ConstantRouter, KeywordConfig, Question, Router};
///
/// let labels = ["math", "social"];
/// let keywords = vec![vec!["plus".to_owned()], vec!["king".to_owned()]];
/// let first = KeywordConfig { keywords, ..KeywordConfig::new(labels, "math") }.build()?;
/// let cascade = Cascade::new(first, ConstantRouter::new(labels, "social")?, 0.7)?;
/// let decisions = cascade.route(&[Question::new("a", "2 plus 3?"), Question::new("b", "Why?")])?;
/// assert_eq!((decisions[0].label, decisions[1].label), (0, 1));
/// assert_eq!(cascade.share_passed_on(), Some(0.5));
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug)]
pub struct Cascade<First, Second> {
    name: String,
    first: First,
    second: Second,
    threshold: f64,
    routed: AtomicUsize,
    passed_on: AtomicUsize,
}

impl<First: Router, Second: Router> Cascade<First, Second> {
    /// A cascade of two routers of the same labels; `threshold` from 0 (nothing is passed on) to 1
    /// (all but what is certain).
    ///
    /// # Errors
    /// [`RouterError::OtherLabels`], [`RouterError::InvalidConfig`].
    pub fn new(first: First, second: Second, threshold: f64) -> Result<Self, RouterError> {
        labels::same(second.name(), second.labels(), first.labels())?;
        if !(0.0..=1.0).contains(&threshold) {
            return Err(RouterError::config("threshold", threshold, "from 0 to 1"));
        }

        Ok(Self {
            name: format!("{}, then {}", first.name(), second.name()),
            first,
            second,
            threshold,
            routed: AtomicUsize::new(0),
            passed_on: AtomicUsize::new(0),
        })
    }

    /// The probability below which a question is passed on.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Of all questions routed so far, the share that was passed on; none of none. Tuning does not
    /// count.
    pub fn share_passed_on(&self) -> Option<f64> {
        let routed = self.routed.load(Ordering::Relaxed);
        let passed_on = self.passed_on.load(Ordering::Relaxed);
        (routed > 0).then(|| passed_on as f64 / routed as f64)
    }

    /// Sets the threshold to the least one, of those that make a difference, whose accuracy on the
    /// validation set is at most `allowance` below the best one's, and returns it. An allowance of
    /// 0 buys all the accuracy there is with as few questions passed on as that takes.
    ///
    /// # Errors
    /// [`RouterError::OtherLabels`]; [`RouterError::TooFewExamples`] of an empty set;
    /// [`RouterError::InvalidConfig`] of an allowance below 0; what the routers return.
    pub fn tune(&mut self, validation: &ValidationSet, allowance: f64) -> Result<f64, RouterError> {
        labels::same("the validation set", validation.labels(), self.first.labels())?;
        if validation.is_empty() {
            return Err(RouterError::TooFewExamples {
                split: "validation",
                label: "any label".to_owned(),
                needed: 1,
                got: 0,
            });
        }
        if !(allowance.is_finite() && allowance >= 0.0) {
            return Err(RouterError::config("allowance", allowance, "a finite share, at least 0"));
        }

        let first = asked(&self.first, validation.questions())?;
        let second = asked(&self.second, validation.questions())?;
        self.threshold = least_threshold(&first, &second, validation.truth(), allowance);
        Ok(self.threshold)
    }
}

impl<First: Router, Second: Router> Router for Cascade<First, Second> {
    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> &[String] {
        self.first.labels()
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let mut decisions = asked(&self.first, questions)?;
        let unsure: Vec<usize> = (0..decisions.len())
            .filter(|&at| decisions[at].confidence() < self.threshold)
            .collect();

        if !unsure.is_empty() {
            let passed_on: Vec<Question> = unsure.iter().map(|&at| questions[at].clone()).collect();
            for (at, second) in unsure.iter().zip(asked(&self.second, &passed_on)?) {
                let seconds = decisions[*at].seconds + second.seconds;
                decisions[*at] = Decision { seconds, ..second };
            }
        }

        self.routed.fetch_add(questions.len(), Ordering::Relaxed);
        self.passed_on.fetch_add(unsure.len(), Ordering::Relaxed);
        Ok(decisions)
    }
}

fn asked(router: &impl Router, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
    let decisions = router.route(questions)?;
    distribution::check(router.name(), &decisions, questions.len(), router.labels().len())?;
    Ok(decisions)
}

/// Passes questions on one after the other, from the least sure on, and stops where that no longer
/// pays.
fn least_threshold(
    first: &[Decision],
    second: &[Decision],
    truth: &[usize],
    allowance: f64,
) -> f64 {
    let mut order: Vec<usize> = (0..truth.len()).collect();
    order.sort_by(|&left, &right| first[left].confidence().total_cmp(&first[right].confidence()));

    let right = |decisions: &[Decision], at: usize| i64::from(decisions[at].label == truth[at]);
    let mut count: i64 = (0..truth.len()).map(|at| right(first, at)).sum();

    // A threshold passes on all that is less sure, so that equals go together.
    let mut choices = vec![(0.0, count)];
    for (place, &at) in order.iter().enumerate() {
        count += right(second, at) - right(first, at);
        let next = order.get(place + 1).map(|&next| first[next].confidence());
        let threshold = next.unwrap_or_else(|| above(first[at].confidence()));
        if next.is_none_or(|next| next > first[at].confidence()) && threshold <= 1.0 {
            choices.push((threshold, count));
        }
    }

    let best = choices.iter().map(|(_, count)| *count).max().unwrap_or(0) as f64;
    let enough =
        |(_, count): &&(f64, i64)| *count as f64 >= best - allowance * truth.len() as f64 - 1e-9;
    choices.iter().find(enough).map_or(0.0, |(threshold, _)| *threshold)
}

/// A threshold above a confidence, if there is one up to 1.
fn above(confidence: f64) -> f64 {
    f64::midpoint(confidence, 1.0).max(confidence.next_up())
}
