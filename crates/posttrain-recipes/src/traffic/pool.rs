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

impl Tally {
    fn hear(&mut self, value: f64) {
        self.said += 1;
        self.sum += value;
    }
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
    /// What was asked last: its completion's id, and the prompt.
    latest: Option<(String, Vec<i64>)>,
    /// What was taken last, but for what was deleted since.
    taken: HashSet<String>,
    pub tallies: BTreeMap<u64, Tally>,
}

impl Pool {
    /// A pool that keeps so many completions.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// What a log's lines come to, but for the completions `learned`, which were learned from: they
    /// count, and take no place from those that wait.
    pub fn replayed(capacity: usize, lines: Vec<TrafficLine>, learned: &HashSet<String>) -> Self {
        let mut pool = Self::new(capacity);
        let mut unspoken = HashMap::new();
        for line in lines {
            match line {
                TrafficLine::Served(served) if learned.contains(&served.id) => {
                    pool.tally(served.version).served += 1;
                    pool.remember(served.id.clone());
                    unspoken.insert(served.id, served.version);
                }
                TrafficLine::Served(served) => pool.serve(served),
                TrafficLine::Feedback(feedback) => match unspoken.remove(&feedback.id) {
                    Some(version) => pool.tally(version).hear(feedback.value),
                    // What it belongs to may be in a file that is gone.
                    None => drop(pool.join(&feedback)),
                },
            }
        }
        pool
    }

    fn tally(&mut self, version: u64) -> &mut Tally {
        self.tallies.entry(version).or_default()
    }

    /// Takes in a completion.
    pub fn serve(&mut self, served: Served) {
        self.tally(served.version).served += 1;
        self.order.push_back(served.id.clone());
        self.latest = Some((served.id.clone(), served.prompt.clone()));
        let rewarded = Rewarded { served, said: BTreeMap::new() };
        self.entries.insert(rewarded.served.id.clone(), rewarded);

        while self.entries.len() > self.capacity {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.entries.remove(&oldest).is_some() {
                self.remember(oldest);
            }
        }
        // Names of what is gone make no more than half of either list.
        let Self { entries, order, ready, .. } = self;
        for list in [order, ready] {
            if list.len() > 2 * entries.len() + 64 {
                list.retain(|id| entries.contains_key(id));
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
            self.tallies.entry(entry.served.version).or_default().hear(feedback.value);
        }
        entry.said.insert(feedback.source, feedback.value);
        Some(Joined::Waiting)
    }

    /// A completion which waits and of which nothing was said yet.
    pub fn unspoken(&self, id: &str) -> Option<&Served> {
        let entry = self.entries.get(id).filter(|entry| entry.said.is_empty())?;
        Some(&entry.served)
    }

    /// What waits of a user's completions.
    pub fn ids_of(&self, user: &str) -> impl Iterator<Item = String> {
        let own = move |entry: &&Rewarded| entry.served.user.as_deref() == Some(user);
        self.entries.values().filter(own).map(|entry| entry.served.id.clone())
    }

    /// What was asked last.
    pub fn latest_prompt(&self) -> Option<Vec<i64>> {
        self.latest.as_ref().map(|(_, prompt)| prompt.clone())
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
        self.taken = taken.iter().map(|rewarded| rewarded.served.id.clone()).collect();
        taken
    }

    /// Whether a completion that was taken last has not been deleted since.
    pub fn holds(&self, id: &str) -> bool {
        self.taken.contains(id)
    }

    /// Gives back what was taken and not learned from, but for what was deleted meanwhile: it is the
    /// first to be taken again.
    pub fn give_back(&mut self, taken: Vec<Rewarded>) {
        for rewarded in taken.into_iter().rev() {
            let id = rewarded.served.id.clone();
            if self.taken.remove(&id) {
                self.past.remove(&id);
                self.past_order.retain(|past| *past != id);
                self.order.push_front(id.clone());
                self.ready.push_front(id.clone());
                self.entries.insert(id, rewarded);
            }
        }
    }

    /// Forgets completions for good.
    pub fn forget(&mut self, ids: &HashSet<String>) {
        self.latest.take_if(|(id, _)| ids.contains(id));
        self.entries.retain(|id, _| !ids.contains(id));
        self.past.retain(|id| !ids.contains(id));
        self.taken.retain(|id| !ids.contains(id));
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

    #[test]
    fn what_was_learned_from_takes_no_place_in_a_replay() {
        let said = |id: &str| TrafficLine::Feedback(feedback(id, FeedbackSource::Score, 1.0));
        let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let lines = ids.iter().flat_map(|id| [TrafficLine::Served(served(id)), said(id)]).collect();
        // All but the first, which waits still.
        let learned: HashSet<String> = ids[1..].iter().cloned().collect();
        let pool = Pool::replayed(10, lines, &learned);
        assert_eq!(pool.ready(), 1);
        assert_eq!(pool.tallies[&3], Tally { served: 20, said: 20, sum: 20.0 });
    }

    #[test]
    fn what_is_given_back_is_taken_first_and_what_was_deleted_is_not() {
        let mut pool = Pool::new(10);
        for id in ["a", "b", "c"] {
            pool.serve(served(id));
            pool.join(&feedback(id, FeedbackSource::Score, 1.0));
        }
        let taken = pool.take(2);
        pool.forget(&HashSet::from(["a".to_owned()]));
        assert_eq!(["a", "b"].map(|id| pool.holds(id)), [false, true]);
        pool.give_back(taken);
        let again: Vec<_> = pool.take(9).into_iter().map(|r| r.served.id).collect();
        assert_eq!(again, ["b", "c"]);
        assert!(!pool.knows("a"));
    }

    #[test]
    fn lists_of_names_stay_as_short_as_what_they_name() {
        let mut pool = Pool::new(1000);
        for n in 0..10_000 {
            let id = n.to_string();
            pool.serve(served(&id));
            pool.join(&feedback(&id, FeedbackSource::Score, 1.0));
            pool.take(1);
        }
        assert!(pool.order.len() < 200 && pool.ready.len() < 200, "{}", pool.order.len());
    }
}
