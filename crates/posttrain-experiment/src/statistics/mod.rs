//! Whether a difference is more than chance.

mod bootstrap;
mod mcnemar;
mod pairing;

pub use bootstrap::PairedBootstrap;
pub use mcnemar::McNemar;
pub use pairing::{head_to_head, head_to_head_by_domain};
