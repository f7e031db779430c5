//! A candidate's trial on a share of the requests.

use super::service::now;
use crate::RecipeError;
use posttrain_statistics::{Claim, SequentialPairedTest};
use std::collections::{HashSet, VecDeque};

/// A candidate on trial.
pub(super) struct Trial {
    pub version: u64,
    /// When it began, in seconds since 1970: what was written before says nothing of it.
    since: f64,
    /// Who has been heard: conversations, or users without one, as numbers.
    heard: HashSet<u64>,
    own: VecDeque<bool>,
    present: VecDeque<bool>,
    pub pairs: usize,
    pub worse: SequentialPairedTest,
}

/// The first that is said of a completion.
pub(super) struct Heard {
    pub version: u64,
    /// When the completion was written, in seconds since 1970.
    pub time: f64,
    /// Its conversation, or else its user, as a number.
    pub key: u64,
    pub good: bool,
}

impl Trial {
    /// It begins now.
    pub fn new(version: u64) -> Result<Self, RecipeError> {
        let worse = SequentialPairedTest::new(Claim::Better)?;
        Ok(Self {
            version,
            since: now(),
            heard: HashSet::new(),
            own: VecDeque::new(),
            present: VecDeque::new(),
            pairs: 0,
            worse,
        })
    }

    /// Takes in the first feedback of a conversation on a version's completion, and pairs it with
    /// one on the other's. Who was answered by which was drawn by lot, so that any pairing is as
    /// good.
    pub fn observe(&mut self, heard: &Heard, present: u64) {
        let waiting = match heard.version {
            version if version == self.version => &mut self.own,
            version if version == present => &mut self.present,
            _ => return,
        };
        if heard.time < self.since || !self.heard.insert(heard.key) {
            return;
        }
        waiting.push_back(heard.good);
        while let (Some(own), Some(other)) = (self.own.front(), self.present.front()) {
            self.worse.observe(*other, *own);
            self.pairs += 1;
            self.own.pop_front();
            self.present.pop_front();
        }
    }
}
