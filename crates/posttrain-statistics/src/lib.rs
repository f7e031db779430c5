//! Whether a difference is more than chance.
//!
//! - [`Share`] is a share of a number of questions with its Wilson interval.
//! - [`PairedVerdicts`] are two lists of verdicts on the same questions: their [`PairCounts`], a
//!   [`PairedBootstrap`] interval of the difference, and [`McNemar`]'s test, for a number of
//!   questions that was fixed beforehand.
//! - [`SequentialPairedTest`] may be looked at after every question, and stopped as soon as it is
//!   sure: that one is better, or not worse by a margin.
//!
//! ```
//! use posttrain_statistics::{McNemar, PairedBootstrap, PairedVerdicts, Share};
//!
//! let first = [Some(true), Some(true), Some(true), Some(false), None];
//! let second = [Some(false), Some(false), Some(true), Some(false), Some(true)];
//! let pairs = PairedVerdicts::new(&first, &second)?;
//!
//! let counts = pairs.counts();
//! assert_eq!((counts.first(), counts.second()), (Share::of(3, 4), Share::of(1, 4)));
//! assert_eq!(counts.difference(), 0.5);
//! assert_eq!(McNemar::new(counts.first_only, counts.second_only).p, 0.5); // 2 · 1/2²
//! let (low, high) = PairedBootstrap::default().interval(&pairs.differences(), 7).unwrap();
//! assert!(low <= 0.5 && 0.5 <= high);
//! # Ok::<(), posttrain_statistics::StatisticsError>(())
//! ```

mod bootstrap;
mod error;
mod mcnemar;
mod pairs;
mod sequential;
mod share;

pub use bootstrap::PairedBootstrap;
pub use error::StatisticsError;
pub use mcnemar::McNemar;
pub use pairs::{PairCounts, PairedVerdicts};
pub use sequential::{Claim, SequentialPairedTest};
pub use share::{Share, share_form};
