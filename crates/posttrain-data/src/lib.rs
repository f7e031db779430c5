//! Question-answer data for post-training: readers, a built-in set, splits that share no fact,
//! batches that can be resumed.
//!
//! Reinforcement learning with verifiable rewards needs questions whose answers can be checked, and
//! its reports are worth what their test set is worth. Hence three concerns:
//!
//! - **Reading.** [`read`] takes JSONL and Parquet files of any columns ([`Columns`]), and gives
//!   either every row or an error that names file, line, field, what was expected and what came.
//!   [`sciences`] is a built-in set of three domains that needs no file at all.
//! - **Splitting.** Several rows often ask for one fact; an [`Example`]'s `group` names it.
//!   [`split()`] gives every domain exactly the sizes asked for, never divides a group, and treats
//!   questions that differ in case, spacing, punctuation or Unicode form as one. [`leaks`] checks
//!   any splits for the same.
//! - **Batches.** [`BatchStream`] serves a specialist (one domain) and a generalist (a proportional
//!   mix) alike: every example once an epoch, resumable at any batch.
//!
//! Everything that is random takes a seed and is the same on every platform.
//!
//! ```
//! use posttrain_data::{BatchConfig, BatchStream, Split, SplitConfig, leaks, sciences, split};
//!
//! let dataset = sciences::generate(7)?;
//! let splits = split(&dataset, &SplitConfig { seed: 7, ..SplitConfig::default() })?;
//! assert!(leaks(&splits).is_empty());
//! assert_eq!(splits.domain(Split::Test, sciences::MATH).count(), 250);
//!
//! let mut batches = BatchStream::new(splits.train, BatchConfig { prompts: 16, ..BatchConfig::default() })?;
//! assert_eq!(batches.next_batch().len(), 16);
//! # Ok::<(), posttrain_data::DataError>(())
//! ```

mod batch_stream;
mod bin_packing;
mod columns;
mod components;
mod dataset;
mod error;
mod example;
mod folder;
mod jsonl;
mod leak;
mod limits;
mod normal_form;
#[cfg(feature = "parquet")]
mod parquet_columns;
#[cfg(feature = "parquet")]
mod parquet_file;
#[cfg(feature = "parquet")]
mod parquet_footer;
#[cfg(feature = "parquet")]
mod parquet_headers;
#[cfg(feature = "parquet")]
mod parquet_pages;
mod place;
mod read;
mod record;
pub mod sciences;
mod shuffle;
mod split;
#[cfg(feature = "parquet")]
mod thrift;

pub use batch_stream::{BatchConfig, BatchStream, LastBatch, StreamState};
pub use columns::{Columns, OtherDomains};
pub use dataset::Dataset;
pub use error::DataError;
pub use example::{Example, Metadata};
pub use folder::{SplitFile, write_splits};
pub use jsonl::write_jsonl;
pub use leak::{Leak, LeakKind, SplitRow, leaks};
pub use limits::Limits;
pub use normal_form::normalize_question;
pub use place::Place;
pub use read::{ReadConfig, read, read_all};
pub use split::{Split, SplitConfig, SplitSizes, Splits, split};
