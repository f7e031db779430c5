//! Sequential paired tests: looked at after every question, and stopped as soon as they are sure.

use crate::{Share, StatisticsError};

/// Bets between 0 and the largest.
const BETS: usize = 256;

/// What a [`SequentialPairedTest`] is to show of the first side's share of right answers and the
/// second's. Its contrary is the null hypothesis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Claim {
    /// The two shares differ. The null: they are the same.
    Different,
    /// The first is the larger. The null: it is at most the second.
    Better,
    /// The first is not smaller by `margin` or more (non-inferiority). The null: it is smaller by
    /// at least the margin.
    NotWorse {
        /// The difference of shares that would matter, above 0 and below 1.
        margin: f64,
    },
}

/// A sequential test on paired outcomes, right or wrong or a share of several answers that are right,
/// which may be looked at after every question: under the null hypothesis the probability that [`p_value`](Self::p_value) *ever* falls to `α` is at
/// most `α`.
///
/// McNemar's test promises that for a number of questions that was fixed beforehand; looked at
/// after every question, it is wrong many times as often.
///
/// The evidence is the wealth of a gambler who bets against the null. A question whose outcomes
/// differ by `d` (1 where only the first is right, −1 where only the second is, 0 where both are or
/// neither; of shares their difference) multiplies the stake of a bet `λ` by `1 + λ·(d + margin)`, which under the null grows no stake on average;
/// the stakes are spread evenly over all bets that cannot be lost beyond nothing
/// (`0 < λ < 1/(1 − margin)`, for [`Claim::Different`] `−1 < λ < 1`). Without a margin this is
/// Robbins' mixture of sequential probability ratio tests, with the probability that a disagreement
/// falls to the first side spread evenly.
///
/// Ville (1939): such wealth reaches `1/α` with probability `α` at most. Bets: Waudby-Smith &
/// Ramdas (2024), *Estimating means of bounded random variables by betting*,
/// <https://arxiv.org/abs/2010.09686>.
///
/// ```
/// use posttrain_statistics::{Claim, SequentialPairedTest};
///
/// // Is the new policy better than the old one? Ask until it is clear.
/// let mut test = SequentialPairedTest::new(Claim::Better)?;
/// let mut asked = 0;
/// while test.p_value() > 0.05 {
///     test.observe(true, asked % 4 == 0);
///     asked += 1;
/// }
/// assert!(asked < 16);
///
/// // The wealth of even bets after 3 to 1: 2⁴ · B(4, 2) = 16 · 3!·1!/5!.
/// let mut test = SequentialPairedTest::new(Claim::Different)?;
/// for (first, second) in [(true, false), (true, false), (false, true), (true, false)] {
///     test.observe(first, second);
/// }
/// assert!((test.e_value() - 0.8).abs() < 1e-4);
/// # Ok::<(), posttrain_statistics::StatisticsError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SequentialPairedTest {
    stakes: Vec<Stake>,
    margin: f64,
    questions: usize,
    /// The sums of either side's shares.
    first: f64,
    second: f64,
    /// Logarithm of the wealth.
    log_wealth: f64,
    /// The largest that it has been.
    log_most: f64,
}

/// A bet `λ`, and the logarithm of what its stake has become.
#[derive(Debug, Clone, Copy)]
struct Stake {
    bet: f64,
    log: f64,
}

impl SequentialPairedTest {
    /// A test before its first question.
    ///
    /// # Errors
    /// [`StatisticsError::Config`] for a margin out of its range.
    pub fn new(claim: Claim) -> Result<Self, StatisticsError> {
        let (margin, smallest) = match claim {
            Claim::Different => (0.0, -1.0),
            Claim::Better => (0.0, 0.0),
            Claim::NotWorse { margin } if margin > 0.0 && margin < 1.0 => (margin, 0.0),
            Claim::NotWorse { margin } => {
                return Err(StatisticsError::Config {
                    field: "margin",
                    expected: "above 0 and below 1",
                    got: margin,
                });
            }
        };
        let largest = 1.0 / (1.0 - margin);
        let width = largest / BETS as f64;
        let count = ((largest - smallest) / width).round() as usize;
        let stake = |index: usize| Stake { bet: smallest + (index as f64 + 0.5) * width, log: 0.0 };
        Ok(Self {
            stakes: (0..count).map(stake).collect(),
            margin,
            questions: 0,
            first: 0.0,
            second: 0.0,
            log_wealth: 0.0,
            log_most: 0.0,
        })
    }

    /// Takes in one question's outcomes: whether either side was right.
    pub fn observe(&mut self, first: bool, second: bool) {
        self.take(f64::from(u8::from(first)), f64::from(u8::from(second)));
    }

    /// Takes in one question that both sides answered several times: the share of either's answers
    /// that were right. It says more than one answer of each does, and less than as many questions.
    ///
    /// ```
    /// use posttrain_statistics::{Claim, SequentialPairedTest};
    ///
    /// let mut test = SequentialPairedTest::new(Claim::Better)?;
    /// test.observe_shares(0.75, 0.5)?;
    /// // The mean of 1 + λ/4 over bets from 0 to 1.
    /// assert!((test.e_value() - 1.125).abs() < 1e-4);
    /// # Ok::<(), posttrain_statistics::StatisticsError>(())
    /// ```
    ///
    /// # Errors
    /// [`StatisticsError::Config`] for a share that is not from 0 to 1; nothing is taken in then.
    pub fn observe_shares(&mut self, first: f64, second: f64) -> Result<(), StatisticsError> {
        for (field, got) in [("first", first), ("second", second)] {
            if !(0.0..=1.0).contains(&got) {
                return Err(StatisticsError::Config { field, expected: "from 0 to 1", got });
            }
        }
        self.take(first, second);
        Ok(())
    }

    fn take(&mut self, first: f64, second: f64) {
        self.questions += 1;
        self.first += first;
        self.second += second;

        let gain = first - second + self.margin;
        for stake in &mut self.stakes {
            stake.log += (stake.bet * gain).ln_1p();
        }
        self.log_wealth = self.mean_log_wealth();
        self.log_most = self.log_most.max(self.log_wealth);
    }

    /// The questions so far.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.questions
    }

    /// The share of the first side's answers that were right, and the second's. Of several answers
    /// to a question the interval is that of one: it is wide enough.
    #[must_use]
    pub fn shares(&self) -> [Share; 2] {
        let mean = |sum: f64| Share::of_mean(sum / self.questions.max(1) as f64, self.questions);
        [mean(self.first), mean(self.second)]
    }

    /// The evidence against the null hypothesis so far: at most 1 on average if it is true,
    /// whenever one stops.
    #[must_use]
    pub fn e_value(&self) -> f64 {
        self.log_wealth.exp()
    }

    /// The p-value that holds at any time, `1 / max e`: it only falls.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (-self.log_most).exp()
    }

    /// The logarithm of the mean of all stakes.
    fn mean_log_wealth(&self) -> f64 {
        let most = self.stakes.iter().map(|stake| stake.log).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.stakes.iter().map(|stake| (stake.log - most).exp()).sum();
        most + (sum / self.stakes.len() as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{McNemar, PairCounts};
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// How often each outcome is drawn; the two sides agree on the rest.
    #[derive(Clone, Copy)]
    struct World {
        first_only: f64,
        second_only: f64,
    }

    impl World {
        fn draw(self, random: &mut ChaCha8Rng) -> (bool, bool) {
            let uniform = f64::from(random.next_u32()) / f64::from(u32::MAX);
            match uniform {
                u if u < self.first_only => (true, false),
                u if u < self.first_only + self.second_only => (false, true),
                _ => (true, true),
            }
        }

        /// After how many of `questions` each of `runs` tests has p ≤ 0.05, where it ever has.
        fn stops(self, claim: Claim, runs: u64, questions: usize) -> Vec<usize> {
            let stop = |seed| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let mut test = SequentialPairedTest::new(claim).unwrap();
                (1..=questions).find(|_| {
                    let (first, second) = self.draw(&mut random);
                    test.observe(first, second);
                    test.p_value() <= 0.05
                })
            };
            (0..runs).filter_map(stop).collect()
        }
    }

    const EQUAL: World = World { first_only: 0.15, second_only: 0.15 };
    const WORSE_BY_A_TENTH: World = World { first_only: 0.1, second_only: 0.2 };

    #[test]
    fn looked_at_after_every_question_it_is_wrong_in_five_of_a_hundred_at_most() {
        let runs = 1000;
        let cases = [
            (EQUAL, Claim::Different),
            (EQUAL, Claim::Better),
            (WORSE_BY_A_TENTH, Claim::Better),
            (WORSE_BY_A_TENTH, Claim::NotWorse { margin: 0.1 }),
        ];
        for (world, claim) in cases {
            let wrong = world.stops(claim, runs, 300).len();
            // Three deviations of 1,000 draws at 0.05.
            assert!(wrong <= 50 + 21, "{claim:?}: wrong in {wrong} of {runs}");
        }
    }

    #[test]
    fn mcnemars_test_looked_at_as_often_is_wrong_many_times_as_often() {
        let wrong = (0..300).filter(|&seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut counts = PairCounts::default();
            (0..300).any(|_| {
                let (first, second) = EQUAL.draw(&mut random);
                counts.add(first, second);
                McNemar::new(counts.first_only, counts.second_only).p <= 0.05
            })
        });
        assert!(wrong.count() > 300 / 10);
    }

    #[test]
    fn what_is_true_is_shown_and_the_sooner_the_plainer_it_is() {
        let median = |world: World, claim| {
            let mut stops = world.stops(claim, 100, 1000);
            assert!(stops.len() >= 95, "{claim:?} shown in {} of 100", stops.len());
            stops.sort_unstable();
            stops[50]
        };
        let plain = median(World { first_only: 0.3, second_only: 0.05 }, Claim::Better);
        let faint = median(World { first_only: 0.25, second_only: 0.1 }, Claim::Better);
        assert!(plain < faint && faint < 300, "{plain} {faint}");
        // Two that are equally good are shown to be so, to within the margin.
        median(EQUAL, Claim::NotWorse { margin: 0.1 });
    }

    #[test]
    fn one_sided_evidence_is_robbins_mixture() {
        // 2⁵ ∫ θ³(1−θ) dθ from ½ to 1 = 32 · (1/20 − 3/320).
        let mut test = SequentialPairedTest::new(Claim::Better).unwrap();
        for first in [true, true, false, true] {
            test.observe(first, !first);
        }
        assert!((test.e_value() - 1.3).abs() < 1e-4, "{}", test.e_value());
    }

    /// Questions that the two sides answer several times, each answer by itself: how often the test
    /// is sure after at most `questions`, and after how many.
    fn stops_of_shares(lead: f64, answers: u32, runs: u64, questions: usize) -> Vec<usize> {
        let stop = |seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut uniform = move || f64::from(random.next_u32()) / f64::from(u32::MAX);
            let mut test = SequentialPairedTest::new(Claim::Better).unwrap();
            (1..=questions).find(|_| {
                // Some questions are hard for both.
                let ease = 0.2 + 0.6 * uniform();
                let mut share = |ease: f64| {
                    let right = (0..answers).filter(|_| uniform() < ease).count();
                    right as f64 / f64::from(answers)
                };
                let (first, second) = (share(ease + lead), share(ease));
                test.observe_shares(first, second).unwrap();
                test.p_value() <= 0.05
            })
        };
        (0..runs).filter_map(stop).collect()
    }

    #[test]
    fn several_answers_to_a_question_show_more_and_are_wrong_no_more_often() {
        assert!(stops_of_shares(0.0, 4, 1000, 300).len() <= 50 + 21);
        let shown = |answers| stops_of_shares(0.06, answers, 100, 600).len();
        let (one, four) = (shown(1), shown(4));
        assert!(four >= 90 && one <= 60, "{one} with one answer, {four} with four");
    }

    #[test]
    fn shares_out_of_range_are_refused_and_change_nothing() {
        let mut test = SequentialPairedTest::new(Claim::Better).unwrap();
        for (first, second) in [(1.1, 0.0), (0.0, -0.1), (f64::NAN, 0.0)] {
            assert!(test.observe_shares(first, second).is_err());
        }
        assert_eq!((test.questions(), test.e_value()), (0, 1.0));
        test.observe_shares(0.5, 0.25).unwrap();
        assert_eq!(test.shares().map(|share| share.share), [0.5, 0.25]);
    }

    #[test]
    fn a_margin_out_of_range_is_refused_and_much_evidence_does_not_overflow() {
        for margin in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(SequentialPairedTest::new(Claim::NotWorse { margin }).is_err());
        }
        let mut test = SequentialPairedTest::new(Claim::Better).unwrap();
        (0..3000).for_each(|_| test.observe(true, false));
        assert_eq!(test.p_value(), 0.0);
        (0..6000).for_each(|_| test.observe(false, true));
        assert_eq!(test.p_value(), 0.0, "what was shown stays shown");
        assert!(test.e_value() < 1.0);
    }

    proptest! {
        /// What Ville's inequality rests on: under the null no question adds to the evidence on
        /// average.
        #[test]
        fn under_the_null_the_evidence_grows_on_no_average(
            (ahead, behind, agree) in (0usize..60, 0usize..60, 0usize..60),
            margin in 0.01f64..0.5,
            often in 0.0f64..0.5,
        ) {
            let boundary = World { first_only: often * (1.0 - margin), second_only: often * (1.0 - margin) + margin };
            let even = World { first_only: often, second_only: often };
            let behind_by_more = World { first_only: 0.0, second_only: 0.99 };
            let cases = [
                (Claim::Different, even, true),
                (Claim::Better, even, true),
                (Claim::Better, behind_by_more, false),
                (Claim::NotWorse { margin }, boundary, true),
                (Claim::NotWorse { margin }, behind_by_more, false),
            ];
            for (claim, world, exactly) in cases {
                let mut test = SequentialPairedTest::new(claim).unwrap();
                (0..ahead).for_each(|_| test.observe(true, false));
                (0..behind).for_each(|_| test.observe(false, true));
                (0..agree).for_each(|_| test.observe(true, true));
                let after = |first, second| {
                    let mut next = test.clone();
                    next.observe(first, second);
                    next.log_wealth - test.log_wealth
                };
                let tie = 1.0 - world.first_only - world.second_only;
                let mean = world.first_only * after(true, false).exp()
                    + world.second_only * after(false, true).exp()
                    + tie * after(true, true).exp();
                prop_assert!(mean <= 1.0 + 1e-9, "{claim:?}: {mean}");
                prop_assert!(!exactly || mean >= 1.0 - 1e-9, "{claim:?}: {mean}");
            }
        }
    }
}
