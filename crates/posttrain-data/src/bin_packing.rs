//! Filling the splits exactly with sets of rows that must not be torn apart.

use crate::shuffle::{shuffle, stream};
use crate::{DataError, Split, SplitConfig};

/// Orders that are tried before giving up; the last of them begins with the largest set.
const ATTEMPTS: u64 = 16;
/// The small splits first: while there is choice, each gets whole sets.
const FILLED: [Split; 3] = [Split::Test, Split::Validation, Split::Train];

/// What is to be packed: sets of rows, and the domain of each row.
pub(crate) struct BinPacking<'a> {
    config: &'a SplitConfig,
    domains: &'a [String],
    domain_of: &'a [usize],
    sets: Vec<Vec<usize>>,
}

/// The rows of each split, by [`Split::index`].
pub(crate) type Packed = [Vec<usize>; 3];

impl<'a> BinPacking<'a> {
    pub(crate) fn new(
        config: &'a SplitConfig,
        domains: &'a [String],
        domain_of: &'a [usize],
        sets: Vec<Vec<usize>>,
    ) -> Self {
        Self { config, domains, domain_of, sets }
    }

    /// The first of some seeded orders that fills every split of every domain exactly.
    pub(crate) fn pack(&self) -> Result<Packed, DataError> {
        let mut outcome = self.try_order(&self.order(0));
        for attempt in 1..ATTEMPTS {
            if outcome.is_ok() {
                break;
            }
            outcome = self.try_order(&self.order(attempt));
        }
        outcome
    }

    fn order(&self, attempt: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.sets.len()).collect();
        shuffle(&mut order, &mut stream(self.config.seed, "split", attempt));
        if attempt + 1 == ATTEMPTS {
            order.sort_by_key(|&set| std::cmp::Reverse(self.sets[set].len()));
        }
        order
    }

    fn try_order(&self, order: &[usize]) -> Result<Packed, DataError> {
        let mut filling = Filling::new(self, order);
        for split in FILLED {
            filling.fill(split, order);
            if let Some(domain) = filling.room.iter().position(|&room| room > 0) {
                return Err(self.shortfall(split, domain, filling.room[domain]));
            }
        }
        Ok(filling.packed)
    }

    fn shortfall(&self, split: Split, domain: usize, lacking: u64) -> DataError {
        let count = |set: &Vec<usize>| {
            set.iter().filter(|&&row| self.domain_of[row] == domain).count() as u64
        };
        let counts: Vec<u64> = self.sets.iter().map(count).filter(|&count| count > 0).collect();

        let needed = self.config.sizes.get(split);
        DataError::Unpackable {
            domain: self.domains[domain].clone(),
            split,
            needed,
            got: needed - lacking,
            rows: counts.iter().sum(),
            groups: counts.len() as u64,
            largest: counts.iter().copied().max().unwrap_or(0),
        }
    }
}

/// The splits while they are being filled, one after the other.
struct Filling<'a> {
    packing: &'a BinPacking<'a>,
    /// The sets that have rows of a domain, in the order of this attempt.
    sets_of: Vec<Vec<usize>>,
    used: Vec<bool>,
    /// Rows that the split in hand still needs of each domain.
    room: Vec<u64>,
    packed: Packed,
}

impl<'a> Filling<'a> {
    fn new(packing: &'a BinPacking<'a>, order: &[usize]) -> Self {
        let mut sets_of = vec![Vec::new(); packing.domains.len()];
        for &set in order {
            for &row in &packing.sets[set] {
                let sets: &mut Vec<usize> = &mut sets_of[packing.domain_of[row]];
                if sets.last() != Some(&set) {
                    sets.push(set);
                }
            }
        }

        Self {
            packing,
            sets_of,
            used: vec![false; packing.sets.len()],
            room: Vec::new(),
            packed: Packed::default(),
        }
    }

    /// Whole sets as long as they fit, later smaller ones where an earlier is too large; then the
    /// rest with sets cut short, whose other rows no split gets.
    fn fill(&mut self, split: Split, order: &[usize]) {
        self.room = vec![self.packing.config.sizes.get(split); self.packing.domains.len()];
        for &set in order {
            if !self.used[set] && self.fitting(set) == self.packing.sets[set].len() {
                self.place(set, split);
            }
        }

        for domain in 0..self.room.len() {
            while self.room[domain] > 0 {
                let Some(set) = self.smallest(domain) else { break };
                self.place(set, split);
            }
        }
    }

    /// How many rows of a set the split in hand has room for.
    fn fitting(&mut self, set: usize) -> usize {
        let rows = &self.packing.sets[set];
        let mut taken = 0;
        for &row in rows {
            let room = &mut self.room[self.packing.domain_of[row]];
            if *room == 0 {
                break;
            }
            *room -= 1;
            taken += 1;
        }

        for &row in &rows[..taken] {
            self.room[self.packing.domain_of[row]] += 1;
        }
        taken
    }

    /// The smallest unused set with rows of this domain: it loses the fewest by being cut short.
    fn smallest(&self, domain: usize) -> Option<usize> {
        let unused = self.sets_of[domain].iter().copied().filter(|&set| !self.used[set]);
        unused.min_by_key(|&set| self.packing.sets[set].len())
    }

    fn place(&mut self, set: usize, split: Split) {
        self.used[set] = true;
        for &row in &self.packing.sets[set] {
            let room = &mut self.room[self.packing.domain_of[row]];
            if *room > 0 {
                *room -= 1;
                self.packed[split.index()].push(row);
            }
        }
    }
}
