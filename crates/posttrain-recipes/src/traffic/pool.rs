//! Completions and what is said of them, joined by id.

use super::{Feedback, FeedbackSource, Served, TrafficLine};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// What became of a feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It will be learned from.
    Waiting,
    /// It is kept; its completion was learned from before it came, or is too old to be.
    Late,
}

/// A completion with what was said of it.
#[derive(Debug, Clone)]
pub(crate) struct Rewarded {
    pub served: Served,
    said: BTreeMap<FeedbackSource, f64>,
}

impl Rewarded {
    /// The mean of what was said in each way; of one way, what was said last.
    pub fn value(&self) -> f64 {
        self.said.values().sum::<f64>() / self.said.len().max(1) as f64
    }
}

/// How a version's completions fared.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    pub served: usize,
    /// Completions with feedback, and the sum of their first ones' values.
    pub said: usize,
    pub sum: f64,
}

/// What waits for feedback, or to be learned from.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    capacity: usize,
    entries: HashMap<String, Rewarded>,
    /// The entries from the oldest on; some may be gone.
    order: VecDeque<String>,
    /// Those with feedback, in the order in which the first came.
    ready: VecDeque<String>,
    /// Completions that were learned from or grew old, as far back as they are remembered.
    past: HashSet<String>,
    past_order: VecDeque<String>,
    pub tallies: BTreeMap<u64, Tally>,
}

impl Pool {
    /// A pool that keeps so many completions.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// What a log's lines come to, but for the completions `learned`, which were learned from.
    pub fn replayed(capacity: usize, lines: Vec<TrafficLine>, learned: &HashSet<String>) -> Self {
        let mut pool = Self::new(capacity);
        for line in lines {
            match line {
                TrafficLine::Served(served) => pool.serve(served),
                // What it belongs to may be in a file that is gone.
                TrafficLine::Feedback(feedback) => drop(pool.join(&feedback)),
            }
        }
        let order: Vec<String> = pool.order.iter().cloned().collect();
        for id in order.into_iter().filter(|id| learned.contains(id)) {
            if pool.entries.remove(&id).is_some() {
                pool.remember(id);
            }
        }
        pool.ready.retain(|id| !learned.contains(id));
        pool
    }

    /// Takes in a completion.
    pub fn serve(&mut self, served: Served) {
        self.tallies.entry(served.version).or_default().served += 1;
        self.order.push_back(served.id.clone());
        let rewarded = Rewarded { served, said: BTreeMap::new() };
        self.entries.insert(rewarded.served.id.clone(), rewarded);

        while self.entries.len() > self.capacity {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.entries.remove(&oldest).is_some() {
                self.remember(oldest);
            }
        }
    }

    /// Whether anything is known of a completion.
    pub fn knows(&self, id: &str) -> bool {
        self.entries.contains_key(id) || self.past.contains(id)
    }

    /// Joins feedback to its completion; none where there is no such completion.
    pub fn join(&mut self, feedback: &Feedback) -> Option<Joined> {
        let Some(entry) = self.entries.get_mut(&feedback.id) else {
            return self.past.contains(&feedback.id).then_some(Joined::Late);
        };
        if entry.said.is_empty() {
            self.ready.push_back(feedback.id.clone());
            let tally = self.tallies.entry(entry.served.version).or_default();
            tally.said += 1;
            tally.sum += feedback.value;
        }
        entry.said.insert(feedback.source, feedback.value);
        Some(Joined::Waiting)
    }

    /// The version that wrote a completion which waits and of which nothing was said yet.
    pub fn unspoken(&self, id: &str) -> Option<u64> {
        let entry = self.entries.get(id).filter(|entry| entry.said.is_empty())?;
        Some(entry.served.version)
    }

    /// The text of a completion which waits, where it is kept.
    pub fn text_of(&self, id: &str) -> Option<String> {
        self.entries.get(id)?.served.text.clone()
    }

    /// Completions with feedback that wait to be learned from.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the first so many of them.
    pub fn take(&mut self, most: usize) -> Vec<Rewarded> {
        let mut taken = Vec::with_capacity(most.min(self.ready.len()));
        while taken.len() < most {
            let Some(id) = self.ready.pop_front() else { break };
            // It may have been deleted, or have grown old.
            if let Some(rewarded) = self.entries.remove(&id) {
                self.remember(id);
                taken.push(rewarded);
            }
        }
        taken
    }

    /// Forgets completions for good.
    pub fn forget(&mut self, ids: &HashSet<String>) {
        self.entries.retain(|id, _| !ids.contains(id));
        self.past.retain(|id| !ids.contains(id));
        for order in [&mut self.order, &mut self.ready, &mut self.past_order] {
            order.retain(|id| !ids.contains(id));
        }
    }

    fn remember(&mut self, id: String) {
        self.past_order.push_back(id.clone());
        self.past.insert(id);
        while self.past_order.len() > self.capacity {
            if let Some(oldest) = self.past_order.pop_front() {
                self.past.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(id: &str) -> Served {
        Served {
            id: id.into(),
            time: 0.0,
            user: None,
            conversation: None,
            route: None,
            version: 3,
            propensity: 1.0,
            temperature: 1.0,
            prompt: vec![1],
            tokens: vec![2],
            logprobs: vec![-1.0],
            versions: vec![3],
            text: None,
        }
    }

    fn feedback(id: &str, source: FeedbackSource, value: f64) -> Feedback {
        Feedback { id: id.into(), time: 0.0, source, value }
    }

    #[test]
    fn what_is_said_is_joined_by_id_late_and_in_parts() {
        let mut pool = Pool::new(10);
        for id in ["a", "b", "c"] {
            pool.serve(served(id));
        }
        let said = [
            feedback("b", FeedbackSource::Score, 0.0),
            feedback("a", FeedbackSource::Edit, 1.0),
            feedback("b", FeedbackSource::Score, 1.0),
            feedback("b", FeedbackSource::Edit, 0.5),
        ];
        for one in &said {
            assert_eq!(pool.join(one), Some(Joined::Waiting));
        }
        assert_eq!(pool.join(&feedback("z", FeedbackSource::Edit, 1.0)), None);

        // In the order of the first that was said; of one kind the last counts; c waits on.
        let taken: Vec<_> = pool.take(9).iter().map(|r| (r.served.id.clone(), r.value())).collect();
        assert_eq!(taken, [("b".to_owned(), 0.75), ("a".to_owned(), 1.0)]);
        assert_eq!(pool.join(&said[0]), Some(Joined::Late));
        assert_eq!(pool.ready(), 0);
        assert_eq!(pool.tallies[&3], Tally { served: 3, said: 2, sum: 1.0 });
    }

    #[test]
    fn what_grows_old_is_late_and_what_is_deleted_is_unknown() {
        let mut pool = Pool::new(2);
        for id in ["a", "b", "c"] {
            pool.serve(served(id));
        }
        assert_eq!(pool.join(&feedback("a", FeedbackSource::Score, 1.0)), Some(Joined::Late));
        assert_eq!(pool.join(&feedback("b", FeedbackSource::Score, 1.0)), Some(Joined::Waiting));
        pool.forget(&HashSet::from(["b".to_owned()]));
        assert!(!pool.knows("b") && pool.take(9).is_empty());
        assert_eq!(pool.join(&feedback("b", FeedbackSource::Score, 1.0)), None);
    }

    #[test]
    fn a_replay_leaves_out_what_was_learned_from() {
        let said = |id| TrafficLine::Feedback(feedback(id, FeedbackSource::Score, 1.0));
        let lines = ["a", "b"].map(|id| [TrafficLine::Served(served(id)), said(id)]).concat();
        let learned = HashSet::from(["a".to_owned()]);
        let mut pool = Pool::replayed(10, lines, &learned);
        assert_eq!(pool.ready(), 1);
        assert_eq!(pool.tallies[&3], Tally { served: 2, said: 2, sum: 2.0 });
        let taken = pool.take(9);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].served.id, "b");
        assert!(pool.knows("a"));
    }
}
