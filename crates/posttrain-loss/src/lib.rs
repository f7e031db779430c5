//! x
mod advantage;
mod blocks;
mod element;
mod error;
mod memory;
mod sampler;
mod simd;
pub use advantage::{AdvantageConfig, AdvantageCounts, Advantages};
pub use error::{LogitProblem, LossError};
pub use sampler::{RowSampling, Sampled, sample};
