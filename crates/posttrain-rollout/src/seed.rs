//! Seeds that follow from the run's seed and from what they are for.

/// A seed for one purpose: `label` says which, `step` and `row` where in the run. Equal arguments
/// give equal seeds; others give unrelated ones (FNV-1a of the label, then SplitMix64's finalizer
/// over each part).
///
/// ```
/// use posttrain_rollout::derive_seed;
/// assert_eq!(derive_seed(7, "sample", 3, 1), derive_seed(7, "sample", 3, 1));
/// assert_ne!(derive_seed(7, "sample", 3, 1), derive_seed(7, "sample", 1, 3));
/// assert_ne!(derive_seed(7, "sample", 3, 1), derive_seed(7, "dropout", 3, 1));
/// ```
#[must_use]
pub fn derive_seed(run: u64, label: &str, step: u64, row: u64) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let label = label.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    [label, step, row].into_iter().fold(finalize(run), |seed, part| finalize(seed ^ finalize(part)))
}

fn finalize(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
