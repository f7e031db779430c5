//! What was decided: the file that says which version may serve.

use super::{Compared, Verdict};
use crate::RecipeError;
use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The gate's decision on a candidate, with its numbers. What older files say besides is passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The candidate.
    pub version: u64,
    /// The version that served.
    pub present: u64,
    /// When, in seconds since 1970.
    pub time: f64,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether it is tried on a share of the requests first, where it was accepted.
    pub on_trial: bool,
    /// The version that the learner goes on from: the candidate, or the one that serves.
    pub learn_from: u64,
    /// Why, for a person.
    pub reason: String,
    /// Held-out tasks that both answered.
    pub pairs: usize,
    /// p of the candidate's being better nowhere.
    pub better: f64,
    /// The candidate's share of right answers.
    pub candidate_share: Share,
    /// The present version's, on the same tasks.
    pub present_share: Share,
    /// Every comparison, by domain and guard.
    pub compared: BTreeMap<String, Compared>,
    /// Completions that the candidate learned from, and those that were left out.
    pub learned: Learned,
    /// Seconds in training and in the gate.
    pub seconds_training: f64,
    /// Seconds in the gate.
    pub seconds_gate: f64,
}

/// What became of the completions that a candidate was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// Learned from.
    pub completions: usize,
    /// Left out: written too many candidates ago.
    pub stale: usize,
    /// Left out: their prompt is one of the gate's tasks.
    pub held_out: usize,
    /// Left out: drawn at temperature 0, from no distribution that a policy could be learned by.
    #[serde(default)]
    pub greedy: usize,
    /// The mean of what was said of those that were learned from.
    pub mean_value: f64,
}

/// A version's being taken out of service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The version that served, or was about to.
    pub from: u64,
    /// The one that serves now.
    pub to: u64,
    /// When, in seconds since 1970.
    pub time: f64,
    /// Why.
    pub reason: String,
}

/// A line of `decisions.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LedgerLine {
    /// The gate has decided on a candidate.
    Decided(Box<Decision>),
    /// A candidate has stood its trial on a share of the requests, and serves all.
    Promoted {
        /// The candidate.
        version: u64,
        /// When, in seconds since 1970.
        time: f64,
        /// Its numbers, for a person.
        reason: String,
    },
    /// A version was taken out of service.
    RolledBack(RollBack),
    /// A version that the gate had passed was put back into service by the operator.
    Reinstated {
        /// The version.
        version: u64,
        /// When, in seconds since 1970.
        time: f64,
        /// Why.
        reason: String,
    },
}

/// Where the versions stand, by what was decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standings {
    /// Those that have served, the present one last.
    pub served: Vec<u64>,
    /// The candidate that a share of the requests is given.
    pub canary: Option<u64>,
    /// What the learner's policy has gone through, its present version last.
    pub lineage: Vec<u64>,
    /// The last candidate that was decided on.
    pub decided: u64,
}

impl Standings {
    /// Version 0 serves, which is the base.
    pub fn new() -> Self {
        Self { served: vec![0], canary: None, lineage: vec![0], decided: 0 }
    }

    /// The version that serves.
    pub fn present(&self) -> u64 {
        self.served.last().copied().unwrap_or(0)
    }

    /// The version that the learner goes on from.
    pub fn learner(&self) -> u64 {
        self.lineage.last().copied().unwrap_or(0)
    }

    /// What rolling back takes out of service, and what serves then.
    pub fn before(&self) -> Result<(u64, u64), RecipeError> {
        match (self.canary, self.served.as_slice()) {
            (Some(canary), [.., present]) => Ok((canary, *present)),
            (None, [.., before, present]) => Ok((*present, *before)),
            _ => Err(RecipeError::Config {
                field: "version",
                expected: "one that another served before",
                got: self.present().to_string(),
            }),
        }
    }

    /// Takes a line up.
    pub fn apply(&mut self, line: &LedgerLine) {
        match line {
            LedgerLine::Decided(decision) => {
                self.decided = decision.version;
                if decision.verdict == Verdict::Accepted {
                    match decision.on_trial {
                        true => self.canary = Some(decision.version),
                        false => self.served.push(decision.version),
                    }
                }
                match decision.learn_from == decision.version {
                    true => self.lineage.push(decision.version),
                    false => self.go_back_to(decision.learn_from),
                }
            }
            LedgerLine::Promoted { version, .. } => {
                self.canary = None;
                self.served.push(*version);
            }
            LedgerLine::RolledBack(back) => {
                self.canary = None;
                while self.served.len() > 1 && self.present() != back.to {
                    self.served.pop();
                }
                self.go_back_to(back.to);
            }
            LedgerLine::Reinstated { version, .. } => {
                self.canary = None;
                if self.present() != *version {
                    self.served.push(*version);
                }
                self.go_back_to(*version);
            }
        }
    }

    /// The version that the learner goes on from after a candidate: the candidate where it serves,
    /// or was right at least as often as what serves and is not so far from it that nothing which
    /// is served could be learned from any more; else the version that serves.
    pub fn after(&self, candidate: u64, verdict: Verdict, fell: bool, max_staleness: usize) -> u64 {
        let far = self.staleness(self.present()) + 1 > max_staleness;
        match verdict {
            Verdict::Accepted => candidate,
            Verdict::Undecided if !fell && !far => candidate,
            Verdict::Undecided | Verdict::Refused => self.present(),
        }
    }

    /// How many candidates a version is behind the learner.
    pub fn staleness(&self, version: u64) -> usize {
        self.lineage.iter().rev().take_while(|own| **own > version).count()
    }

    /// Has the learner begin from a version again.
    fn go_back_to(&mut self, version: u64) {
        self.lineage.retain(|own| *own <= version);
        if self.learner() != version || self.lineage.is_empty() {
            self.lineage.push(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(version: u64, verdict: Verdict) -> LedgerLine {
        learned_from(version, verdict, version)
    }

    fn tried(version: u64, verdict: Verdict) -> LedgerLine {
        decision(version, verdict, (version, true))
    }

    fn learned_from(version: u64, verdict: Verdict, learn_from: u64) -> LedgerLine {
        decision(version, verdict, (learn_from, false))
    }

    fn decision(version: u64, verdict: Verdict, (learn_from, on_trial): (u64, bool)) -> LedgerLine {
        let share = Share::of(0, 0);
        LedgerLine::Decided(Box::new(Decision {
            version,
            present: 0,
            time: 0.0,
            verdict,
            on_trial,
            learn_from,
            reason: String::new(),
            pairs: 0,
            better: 1.0,
            candidate_share: share,
            present_share: share,
            compared: BTreeMap::new(),
            learned: Learned::default(),
            seconds_training: 0.0,
            seconds_gate: 0.0,
        }))
    }

    fn standings(lines: &[LedgerLine]) -> Standings {
        let mut standings = Standings::new();
        lines.iter().for_each(|line| standings.apply(line));
        standings
    }

    fn back(from: u64, to: u64) -> LedgerLine {
        LedgerLine::RolledBack(RollBack { from, to, time: 0.0, reason: String::new() })
    }

    #[test]
    fn only_what_was_accepted_serves_and_what_was_refused_is_learned_anew() {
        use Verdict::{Accepted, Refused, Undecided};
        let lines = [
            decided(1, Undecided),
            decided(2, Accepted),
            decided(3, Undecided),
            learned_from(4, Refused, 2),
            decided(5, Undecided),
        ];
        let presents: Vec<_> =
            (1..=5).map(|n| standings(&lines[..n])).map(|s| (s.present(), s.learner())).collect();
        assert_eq!(presents, [(0, 1), (2, 2), (2, 3), (2, 2), (2, 5)]);

        let last = standings(&lines);
        assert_eq!(last.lineage, [0, 1, 2, 5]);
        // Version 4 is no ancestor.
        assert_eq!([5, 4, 2, 0].map(|v| last.staleness(v)), [0, 1, 1, 3]);
    }

    #[test]
    fn what_is_undecided_is_built_upon_while_it_is_no_worse_and_near() {
        use Verdict::{Accepted, Refused, Undecided};
        let mut standings = standings(&[decided(1, Accepted)]);
        let mut went_on = Vec::new();
        for version in 2..=9 {
            let learn_from = standings.after(version, Undecided, false, 3);
            standings.apply(&learned_from(version, Undecided, learn_from));
            went_on.push(standings.learner());
            // What version 1 goes on serving can always be learned from.
            assert!(standings.staleness(1) <= 3);
        }
        assert_eq!(went_on, [2, 3, 4, 1, 6, 7, 8, 1]);
        assert_eq!(standings.after(10, Undecided, true, 3), 1);
        assert_eq!(standings.after(10, Refused, false, 3), 1);
        assert_eq!(standings.after(10, Accepted, false, 0), 10);
    }

    #[test]
    fn a_canary_takes_over_or_is_taken_back() {
        let accepted = tried(1, Verdict::Accepted);
        let trial = standings(std::slice::from_ref(&accepted));
        assert_eq!((trial.present(), trial.canary, trial.learner()), (0, Some(1), 1));

        let promoted = LedgerLine::Promoted { version: 1, time: 0.0, reason: String::new() };
        let promoted = standings(&[accepted.clone(), promoted]);
        assert_eq!((promoted.present(), promoted.canary), (1, None));

        let taken_back = standings(&[accepted, back(1, 0)]);
        assert_eq!((taken_back.present(), taken_back.canary, taken_back.learner()), (0, None, 0));
    }

    #[test]
    fn rolling_back_twice_goes_two_versions_back() {
        let accepted = [1, 2, 3].map(|version| decided(version, Verdict::Accepted));
        let mut lines = accepted.to_vec();
        lines.push(back(3, 2));
        assert_eq!(standings(&lines).present(), 2);
        lines.push(back(2, 1));
        let last = standings(&lines);
        assert_eq!((last.present(), last.served, last.lineage), (1, vec![0, 1], vec![0, 1]));
    }

    #[test]
    fn what_serves_and_is_put_into_service_again_served_once() {
        let reinstated =
            |version| LedgerLine::Reinstated { version, time: 0.0, reason: String::new() };
        let accepted = [1, 2].map(|version| decided(version, Verdict::Accepted));
        let mut lines = accepted.to_vec();
        lines.extend([reinstated(2), reinstated(1), reinstated(1)]);
        let last = standings(&lines);
        assert_eq!(last.served, [0, 1, 2, 1]);
        assert_eq!(last.before().unwrap(), (1, 2));
        lines.push(back(1, 2));
        assert_eq!(standings(&lines).served, [0, 1, 2]);
    }
}
