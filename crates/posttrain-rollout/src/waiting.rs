//! Samples that wait for a row, and whose turn it is.

use crate::prefill::Prefix;
use crate::row::{Group, Row};
use posttrain_model::TextCache;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

/// How far samples are that wait for a row.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing of their prompt is computed.
    Unread,
    /// Its first tokens are.
    Partly(TextCache),
    /// All of it is.
    Read(Prefix),
    /// A sample that has given its row up, and what it has read.
    Paused(Box<Row>, TextCache),
}

/// The order in which rows are given: by priority, and then by how many rows the client has.
pub(crate) type Turn = (Reverse<i32>, usize);

/// Samples of a group that wait for a row.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub group: Arc<Group>,
    pub samples: Range<usize>,
    pub stage: Stage,
    /// How many rows their client has before the first of them gets one.
    pub rank: usize,
}

impl Waiting {
    /// Samples of a group of which nothing is computed.
    pub fn new(group: Arc<Group>, samples: Range<usize>) -> Self {
        Self { group, samples, stage: Stage::Unread, rank: 0 }
    }

    /// A sample that has given its row up, whose client has `rank` rows left.
    pub fn paused(row: Row, text: TextCache, rank: usize) -> Self {
        let (group, samples) = (row.group.clone(), row.sample..row.sample + 1);
        Self { group, samples, stage: Stage::Paused(Box::new(row), text), rank }
    }

    /// Its place in the order in which rows are given.
    pub fn turn(&self) -> Turn {
        (Reverse(self.group.priority), self.rank)
    }

    /// Whether their prompt is computed, in whole or in part, and none of them has had a row.
    fn is_read_ahead(&self) -> bool {
        matches!(self.stage, Stage::Partly(_) | Stage::Read(_)) && self.samples.start == 0
    }

    /// Whether they need but a row.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Read(_) | Stage::Paused(..))
    }

    /// Goes on under another policy: what the old one has read of a prompt is computed anew, a
    /// sample that ran keeps it.
    fn follow(&mut self, group: Arc<Group>) {
        match &mut self.stage {
            Stage::Paused(row, _) => row.follow(group.clone()),
            stage => *stage = Stage::Unread,
        }
        self.group = group;
    }
}

/// Samples that need but a row.
pub(crate) struct Ready {
    pub place: usize,
    /// How many of them may have one before it is the turn of another client's.
    pub turns: usize,
    /// Rows that are kept free for those of a higher priority, whose prompts are read next.
    pub reserved: usize,
}

/// Passes of which it is remembered whose prompts they read.
const REMEMBERED_PASSES: u64 = 1024;

/// All that waits.
///
/// Rows are shared out evenly: among requests of one priority the next row is for the client that
/// has the fewest. So are passes: the next is for the client whose prompts were read the longest
/// ago. A client's own requests keep the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct WaitingList {
    /// Whose turn it is to have a row first.
    list: VecDeque<Waiting>,
    /// The last pass that read a prompt of a client.
    read: BTreeMap<u64, u64>,
    passes: u64,
}

impl WaitingList {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Samples that wait.
    pub fn samples(&self) -> usize {
        self.list.iter().map(|waiting| waiting.samples.len()).sum()
    }

    /// Whether any of them has had a row.
    pub fn has_paused(&self) -> bool {
        self.list.iter().any(|waiting| matches!(waiting.stage, Stage::Paused(..)))
    }

    /// Adds what comes last. A client that is new here has no claim on passes that were before it.
    pub fn push(&mut self, waiting: Waiting) {
        self.read.entry(waiting.group.client).or_insert(self.passes);
        self.list.push_back(waiting);
    }

    pub fn retain(&mut self, which: impl FnMut(&Waiting) -> bool) {
        self.list.retain(which);
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// All of it, to be dealt out.
    pub fn take(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.list).into()
    }

    /// Lets those that `follower` names another group for go on as that; returns how many samples
    /// do.
    pub fn follow(&mut self, mut follower: impl FnMut(&Arc<Group>) -> Option<Arc<Group>>) -> usize {
        let mut samples = 0;
        for waiting in &mut self.list {
            if let Some(group) = follower(&waiting.group) {
                samples += waiting.samples.len();
                waiting.follow(group);
            }
        }
        samples
    }

    /// Puts them in order, where each client has so many rows.
    pub fn order(&mut self, mut rows: BTreeMap<u64, usize>) {
        let list = self.list.make_contiguous();
        list.sort_by_key(|waiting| Reverse(waiting.group.priority));
        for waiting in &mut *list {
            let ahead = rows.entry(waiting.group.client).or_default();
            waiting.rank = *ahead;
            *ahead += waiting.samples.len();
        }
        list.sort_by_key(Waiting::turn);
    }

    /// Puts one in its place among those that are in order.
    pub fn insert(&mut self, waiting: Waiting) {
        let place = self.list.partition_point(|other| other.turn() <= waiting.turn());
        self.list.insert(place, waiting);
    }

    /// How many prompts are computed, in whole or in part, none of whose samples has had a row.
    pub fn read_ahead(&self) -> usize {
        self.list.iter().filter(|waiting| waiting.is_read_ahead()).count()
    }

    /// The first that needs but a row, where a pass has `pass` tokens.
    pub fn first_ready(&self, pass: usize) -> Option<Ready> {
        let mut ready = self.list.iter().enumerate().filter(|(_, waiting)| waiting.is_ready());
        let (place, first) = ready.next()?;
        let above = |other: &&Waiting| {
            let soon = matches!(other.stage, Stage::Unread) && other.group.prompt.len() <= pass;
            soon && other.group.priority > first.group.priority
        };
        let reserved =
            self.list.range(..place).filter(above).map(|other| other.samples.len()).sum();
        let other = ready.map(|(_, waiting)| waiting).find(|waiting| {
            waiting.group.client != first.group.client
                && waiting.group.priority == first.group.priority
        });
        let turns = other.map_or(usize::MAX, |other| other.rank.saturating_sub(first.rank).max(1));
        Some(Ready { place, turns, reserved })
    }

    /// Takes one out.
    pub fn remove(&mut self, place: usize) -> Option<Waiting> {
        self.list.remove(place)
    }

    /// The places of those whose prompt is to be read, whose turn it is first.
    pub fn to_read(&self) -> Vec<usize> {
        let mut places: Vec<usize> =
            (0..self.list.len()).filter(|&place| !self.list[place].is_ready()).collect();
        places.sort_by_cached_key(|&place| {
            let Waiting { group, rank, .. } = &self.list[place];
            let read = self.read.get(&group.client).copied().unwrap_or(0);
            (Reverse(group.priority), read, *rank)
        });
        places
    }

    /// Takes note of a pass that has read prompts of these clients.
    pub fn has_read(&mut self, clients: impl Iterator<Item = u64>) {
        self.passes += 1;
        self.read.extend(clients.map(|client| (client, self.passes)));
        let oldest = self.passes.saturating_sub(REMEMBERED_PASSES);
        self.read.retain(|_, pass| *pass > oldest);
    }
}

impl Index<usize> for WaitingList {
    type Output = Waiting;

    fn index(&self, place: usize) -> &Waiting {
        &self.list[place]
    }
}

impl IndexMut<usize> for WaitingList {
    fn index_mut(&mut self, place: usize) -> &mut Waiting {
        &mut self.list[place]
    }
}

impl FromIterator<Waiting> for WaitingList {
    fn from_iter<I: IntoIterator<Item = Waiting>>(waiting: I) -> Self {
        Self { list: waiting.into_iter().collect(), ..Self::default() }
    }
}
