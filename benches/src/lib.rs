//! What the benchmarks share: the work that their twins under `peers/` do as well, and how memory
//! is measured.
//!
//! `cargo xtask bench` runs them all and writes `target/bench/report.json`;
//! `cargo bench -p benches --bench decode` runs one alone.

/// A training step frees and takes gigabytes many times over. The C library's allocator gives them
/// back to the system, which has to clear every page anew: a fifth of a step's time. jemalloc,
/// which libtorch then uses as well, keeps them (`.cargo/config.toml` tells it to).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod hollow;
mod memory;
mod policy;
mod questions;
mod short_answers;

pub use hollow::HollowModel;
pub use memory::measure_peak;
pub use policy::{RANK, Rollout, TrainedPolicy};
pub use questions::{BenchModel, Question, questions};
pub use short_answers::ShortAnswers;

/// Numbers from 0 to 1, the same each time.
#[must_use]
pub fn floats(count: usize) -> Vec<f32> {
    let hash =
        |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
    (0..count).map(|i| hash(i) as f32 / u32::MAX as f32).collect()
}
