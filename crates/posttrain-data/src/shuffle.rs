//! Seeded shuffling that is the same on every platform and in every release.
//!
//! Draws come from ChaCha8 under a key made here with SHA-256, not from `seed_from_u64` or
//! `SliceRandom`, whose sequences may change with their crates and, for `usize` ranges, with the
//! width of a pointer.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// An own stream of random numbers for each (seed, purpose, index), so that no use disturbs
/// another.
pub(crate) fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let digest = Sha256::new()
        .chain_update(b"posttrain-data\0")
        .chain_update(seed.to_le_bytes())
        .chain_update(index.to_le_bytes())
        .chain_update(purpose.as_bytes())
        .finalize();
    ChaCha8Rng::from_seed(digest.into())
}

/// A number below `bound`, by exactly one draw: ⌊draw · bound / 2⁶⁴⌋, whose bias is below bound /
/// 2⁶⁴.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Fisher and Yates's shuffle, from the end.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let other = below(rng, last as u64 + 1) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_on_every_platform() {
        let mut items: Vec<u32> = (0..10).collect();
        shuffle(&mut items, &mut stream(7, "test", 0));
        // Worked out by another implementation of ChaCha8, in Python.
        assert_eq!(items, [3, 5, 0, 1, 6, 8, 2, 7, 9, 4]);
    }

    #[test]
    fn each_order_is_as_likely_as_any_other() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut stream(seed, "test", 0));
            *counts.entry(items).or_insert(0) += 1;
        }
        // 1000 expected of each of the six, with a standard deviation of 29.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (870..1130).contains(n)), "{counts:?}");
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index() {
        let mut first: Vec<u64> = [(7, "a", 0), (8, "a", 0), (7, "b", 0), (7, "a", 1)]
            .map(|(seed, purpose, index)| stream(seed, purpose, index).next_u64())
            .to_vec();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 4);
    }
}
