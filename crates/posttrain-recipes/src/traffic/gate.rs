//! Whether a candidate may serve: paired sequential tests on tasks that training never sees.

use crate::RecipeError;
use posttrain_statistics::{Claim, SequentialPairedTest, Share, StatisticsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a candidate has to show before it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// α: of candidates that are no better than the present policy at most this share passes, above
    /// 0 and at most 0.5.
    pub error_rate: f64,
    /// The fall of a domain's accuracy that would matter, above 0 and below 1.
    pub margin: f64,
    /// The fall that would matter of the shares of answers that are short enough, whose calls can
    /// be read, and that are no refusals; above 0 and below 1.
    pub guard_margin: f64,
    /// Held-out tasks that a decision may take, 1 and up. One that is clear takes fewer.
    pub tasks: usize,
    /// Answers of either policy to each task, 1 and up. Several show of fewer tasks which policy is
    /// better, for most of what one answer says is chance; and a prompt is computed once for them.
    pub samples: usize,
    /// Tasks between two looks, 1 and up.
    pub batch: usize,
    /// Tokens above which an answer is long; `None`: twice what nine in ten of the present policy's
    /// answers have in its first look.
    pub long: Option<usize>,
    /// How a refusal begins, in whatever case.
    pub refusals: Vec<String>,
}

impl Default for GateConfig {
    fn default() -> Self {
        let refusals = ["I can't", "I cannot", "I'm sorry", "I am sorry", "As an AI"];
        Self {
            error_rate: 0.05,
            margin: 0.05,
            guard_margin: 0.1,
            tasks: 1000,
            samples: 4,
            batch: 32,
            long: None,
            refusals: refusals.map(str::to_owned).to_vec(),
        }
    }
}

impl GateConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), RecipeError> {
        let rate = self.error_rate > 0.0 && self.error_rate <= 0.5;
        RecipeError::check("gate.error_rate", rate, "above 0 and at most 0.5", &self.error_rate)?;
        for (field, margin) in
            [("gate.margin", self.margin), ("gate.guard_margin", self.guard_margin)]
        {
            let within = margin > 0.0 && margin < 1.0;
            RecipeError::check(field, within, "above 0 and below 1", &margin)?;
        }
        RecipeError::check_counts(&[
            ("gate.tasks", self.tasks as u64),
            ("gate.samples", self.samples as u64),
            ("gate.batch", self.batch as u64),
            ("gate.long", self.long.unwrap_or(1) as u64),
        ])
    }
}

/// What an answer to a held-out task was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateOutcome {
    /// Whether the verifier took it; `None` where the verifier failed.
    pub right: Option<bool>,
    /// Whether it is short enough.
    pub short: bool,
    /// Whether every call of a tool in it can be read.
    pub readable: bool,
    /// Whether it is no refusal.
    pub willing: bool,
}

/// The guards of a [`GateOutcome`], by name.
const GUARDS: [(&str, fn(&GateOutcome) -> bool); 3] = [
    ("length", |outcome| outcome.short),
    ("tool_calls", |outcome| outcome.readable),
    ("refusals", |outcome| outcome.willing),
];

/// What a gate said of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is shown to be no worse anywhere, and better somewhere.
    Accepted,
    /// The tasks ran out before that was shown; it is not shown to be worse either. What is learned
    /// next is learned on top of it where it was right at least as often as the policy that serves,
    /// and that policy's completions are not too old for it; else on top of that one.
    Undecided,
    /// It is shown to be worse somewhere, or cannot be read. What is learned next begins from the
    /// policy that serves.
    Refused,
}

/// One comparison of a decision, in numbers. A pair is a task that both policies have answered, as
/// often as each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Pairs.
    pub n: usize,
    /// The candidate's share.
    pub candidate: f64,
    /// The present policy's.
    pub present: f64,
    /// p of its being worse by the margin: small is good.
    pub not_worse: f64,
    /// p of its not being worse at all: small is bad.
    pub worse: f64,
    /// p of its not being better: small is good.
    pub better: f64,
}

/// A decision on one candidate, in the making: fed pair by pair, and asked after each look.
///
/// Three claims are tested by [`SequentialPairedTest`]s, which hold whenever one looks:
///
/// - *not worse* by the margin, in each domain and for each guard. All must be shown, so that
///   nothing has to be divided by their number.
/// - *better* in some domain or over all. The evidence is the mean of their e-values, half of it
///   the pooled one's; the mean of evidence is evidence, so that a candidate which is better
///   nowhere passes with probability α at most, however often one looks.
/// - *worse*, the contrary, in any domain or for any guard, which ends a decision early. Each is
///   tested at α divided by their number, so that a candidate which is worse nowhere is refused
///   with probability α at most.
///
/// ```
/// use posttrain_recipes::traffic::{GateConfig, GateOutcome, GateTest, Verdict};
///
/// let fine = GateOutcome { right: Some(true), short: true, readable: true, willing: true };
/// let wrong = GateOutcome { right: Some(false), ..fine };
/// // Right where the present policy is not, one time in five.
/// let mut test = GateTest::new(&GateConfig::default(), ["math"])?;
/// let mut pairs = 0;
/// while test.verdict().is_none() {
///     test.observe("math", &[fine], &[if pairs % 5 == 0 { wrong } else { fine }])?;
///     pairs += 1;
/// }
/// assert_eq!(test.verdict(), Some(Verdict::Accepted));
/// assert!(pairs < 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GateTest {
    error_rate: f64,
    /// Tasks that it may take.
    tasks: usize,
    domains: BTreeMap<String, Comparison>,
    guards: BTreeMap<&'static str, Comparison>,
    pooled: Comparison,
    /// The largest that the evidence of being better has been.
    better: f64,
}

/// Tests of one share.
#[derive(Debug, Clone)]
struct Comparison {
    not_worse: SequentialPairedTest,
    worse: SequentialPairedTest,
    better: SequentialPairedTest,
}

/// What both sides made of a task.
#[derive(Clone, Copy)]
struct Shares {
    candidate: f64,
    present: f64,
    /// The candidate's and the present policy's share of those samples that there is a verdict on for
    /// both, if there are any.
    judged: Option<[f64; 2]>,
}

impl Comparison {
    fn new(margin: f64) -> Result<Self, StatisticsError> {
        Ok(Self {
            not_worse: SequentialPairedTest::new(Claim::NotWorse { margin })?,
            worse: SequentialPairedTest::new(Claim::Better)?,
            better: SequentialPairedTest::new(Claim::Better)?,
        })
    }

    /// Takes in the shares of either side's answers to a task that were as they should be.
    fn observe(&mut self, shares: Shares) -> Result<(), StatisticsError> {
        self.not_worse.observe_shares(shares.candidate, shares.present)?;
        self.better.observe_shares(shares.candidate, shares.present)?;
        match shares.judged {
            Some([candidate, present]) => self.worse.observe_shares(present, candidate),
            None => Ok(()),
        }
    }

    fn compared(&self) -> Compared {
        let [candidate, present] = self.better.shares();
        Compared {
            n: self.better.questions(),
            candidate: candidate.share,
            present: present.share,
            not_worse: self.not_worse.p_value(),
            worse: self.worse.p_value(),
            better: self.better.p_value(),
        }
    }
}

impl GateTest {
    /// A test before its first pair, for tasks of these domains.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names the first field of `config` that is out of range.
    pub fn new<'a>(
        config: &GateConfig,
        domains: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RecipeError> {
        config.validate()?;
        let domain = |name: &str| Ok((name.to_owned(), Comparison::new(config.margin)?));
        let guard =
            |(name, _): &(&'static str, _)| Ok((*name, Comparison::new(config.guard_margin)?));
        Ok(Self {
            error_rate: config.error_rate,
            tasks: config.tasks,
            domains: domains.into_iter().map(domain).collect::<Result<_, RecipeError>>()?,
            guards: GUARDS.iter().map(guard).collect::<Result<_, RecipeError>>()?,
            pooled: Comparison::new(config.margin)?,
            better: 0.0,
        })
    }

    /// Takes in both policies' answers to a task, as many of each, sample by sample.
    ///
    /// A sample on which the verifier failed for the present policy says nothing. One on which it
    /// failed for the candidate alone is not right where the candidate is to be shown to be good, so
    /// that nothing is gained by answers that break it; it says nothing of its being worse.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for a domain that the test does not have, or another number of answers.
    pub fn observe(
        &mut self,
        domain: &str,
        candidate: &[GateOutcome],
        present: &[GateOutcome],
    ) -> Result<(), RecipeError> {
        let alike = !candidate.is_empty() && candidate.len() == present.len();
        let got = format!("{} and {}", candidate.len(), present.len());
        RecipeError::check("answers", alike, "as many of either policy, at least one", &got)?;
        let Some(own) = self.domains.get_mut(domain) else {
            return RecipeError::check("domain", false, "one of the gate's", domain);
        };

        let both = candidate.iter().zip(present);
        let (candidate, present): (Vec<GateOutcome>, Vec<GateOutcome>) =
            both.filter(|(_, other)| other.right.is_some()).unzip();
        if present.is_empty() {
            return Ok(());
        }

        let right = |outcome: &GateOutcome| outcome.right == Some(true);
        let both = candidate.iter().zip(&present);
        let (judged, beside): (Vec<GateOutcome>, Vec<GateOutcome>) =
            both.filter(|(own, _)| own.right.is_some()).unzip();
        let shares = Shares {
            candidate: share(&candidate, right),
            present: share(&present, right),
            judged: (!judged.is_empty()).then(|| [share(&judged, right), share(&beside, right)]),
        };
        own.observe(shares)?;
        self.pooled.observe(shares)?;

        for (name, of) in GUARDS {
            let shares = [share(&candidate, of), share(&present, of)];
            let [candidate, present] = shares;
            if let Some(guard) = self.guards.get_mut(name) {
                guard.observe(Shares { candidate, present, judged: Some(shares) })?;
            }
        }

        let each: f64 = self.domains.values().map(|domain| domain.better.e_value()).sum();
        let mean = (self.pooled.better.e_value() + each / self.domains.len() as f64) / 2.0;
        self.better = self.better.max(mean);
        Ok(())
    }

    /// What is clear by now, if anything is.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        if self.worse_at().is_some() {
            return Some(Verdict::Refused);
        }
        let shown = |test: &SequentialPairedTest| test.p_value() <= self.error_rate;
        let everywhere = self.comparisons().all(|(_, one)| shown(&one.not_worse));
        (everywhere && self.better_p() <= self.error_rate).then_some(Verdict::Accepted)
    }

    /// Whether to ask further is of no use: half of the tasks are spent, and the candidate was right
    /// more often in no domain. What then remains undecided passes no candidate that is no better.
    #[must_use]
    pub fn is_futile(&self) -> bool {
        let leads = |domain: &Comparison| {
            let [candidate, present] = domain.better.shares();
            candidate.share > present.share
        };
        2 * self.pairs() >= self.tasks && !self.domains.values().any(leads)
    }

    /// p of the candidate's being better nowhere.
    #[must_use]
    pub fn better_p(&self) -> f64 {
        if self.better > 1.0 { 1.0 / self.better } else { 1.0 }
    }

    /// Pairs so far.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.pooled.better.questions()
    }

    /// Every comparison in numbers: domains by their names, guards as `guard: <name>`.
    #[must_use]
    pub fn compared(&self) -> BTreeMap<String, Compared> {
        self.comparisons().map(|(name, one)| (name, one.compared())).collect()
    }

    /// The candidate's share of right answers over all domains.
    #[must_use]
    pub fn candidate(&self) -> Share {
        let [candidate, _] = self.pooled.better.shares();
        candidate
    }

    /// The present policy's.
    #[must_use]
    pub fn present(&self) -> Share {
        let [_, present] = self.pooled.better.shares();
        present
    }

    /// Why it stands as it does, for a person.
    #[must_use]
    pub fn reason(&self) -> String {
        if let Some((name, one)) = self.worse_at() {
            let Compared { n, candidate, present, worse, .. } = one.compared();
            return format!(
                "{name}: {candidate:.3} against {present:.3} in {n} pairs, worse with p = {worse:.1e}"
            );
        }
        let open = self.comparisons().find(|(_, one)| one.not_worse.p_value() > self.error_rate);
        if let Some((name, one)) = open {
            let Compared { n, candidate, present, not_worse, .. } = one.compared();
            return format!(
                "{name}: {candidate:.3} against {present:.3} in {n} pairs, not shown to be no worse (p = {not_worse:.2})"
            );
        }
        let (candidate, present, n) = (self.candidate(), self.present(), self.pairs());
        let shown =
            if self.better_p() <= self.error_rate { "better" } else { "not shown to be better" };
        format!(
            "{:.3} against {:.3} in {n} pairs, {shown} (p = {:.1e})",
            candidate.share,
            present.share,
            self.better_p()
        )
    }

    fn comparisons(&self) -> impl Iterator<Item = (String, &Comparison)> {
        let guards = self.guards.iter().map(|(name, one)| (format!("guard: {name}"), one));
        self.domains.iter().map(|(name, one)| (name.clone(), one)).chain(guards)
    }

    /// Where the candidate is shown to be worse.
    fn worse_at(&self) -> Option<(String, &Comparison)> {
        let each = self.error_rate / (self.domains.len() + self.guards.len()) as f64;
        self.comparisons().find(|(_, one)| one.worse.p_value() <= each)
    }
}

/// The share of answers that are as they should be.
fn share(answers: &[GateOutcome], good: impl Fn(&GateOutcome) -> bool) -> f64 {
    answers.iter().filter(|answer| good(answer)).count() as f64 / answers.len() as f64
}

impl From<StatisticsError> for RecipeError {
    fn from(error: StatisticsError) -> Self {
        Self::Config { field: "gate", expected: "in range", got: error.to_string() }
    }
}
