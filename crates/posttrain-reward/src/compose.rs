//! Several rewards as one.

mod first_that_decides;
mod per_domain;
mod product;
mod weighted_sum;

pub use first_that_decides::{FirstThatDecides, GoOn};
pub use per_domain::PerDomain;
pub use product::Product;
pub use weighted_sum::WeightedSum;
