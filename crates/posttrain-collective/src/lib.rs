//! What the ranks of a run do together.
//!
//! A run on several processes, on one machine or many, is the same program started once a *rank*.
//! Each computes a share of a step, and what they came to is put together: numbers by
//! [`Collective::all_reduce`], anything else by [`gather`]. Every rank makes the same calls in the
//! same order, and each call has a deadline: one that does not come is an error that names it, not
//! a wait without end.
//!
//! | | for |
//! | --- | --- |
//! | [`Alone`] | one process; every call returns at once |
//! | [`Threads`] | ranks that are threads of one process: tests, and programs that want no launcher |
//! | [`C10d`] | processes that torchrun started, by torch's own `ProcessGroupGloo` |
//!
//! [`from_environment`] chooses between the first and the last by torchrun's variables, so that a
//! program is the same with and without it:
//!
//! ```
//! use posttrain_collective::{from_environment, share};
//! use std::time::Duration;
//!
//! let ranks = from_environment(Duration::from_secs(600))?;
//! // Ten prompts, divided; without torchrun all of them are this process's own.
//! let own = share(10, ranks.rank(), ranks.size());
//! let sum = tch::Tensor::from_slice(&[own.len() as f32]);
//! ranks.all_reduce(&sum)?;
//! assert_eq!(sum.double_value(&[0]), 10.0);
//! # Ok::<(), posttrain_collective::CollectiveError>(())
//! ```
//!
//! Nothing distributed is written here: torchrun starts and watches the processes, c10d carries
//! what they say.

mod alone;
#[cfg(target_os = "linux")]
mod c10d;
mod environment;
mod error;
mod gather;
mod threads;

pub use alone::Alone;
#[cfg(target_os = "linux")]
pub use c10d::C10d;
pub use environment::{Rank, from_environment};
pub use error::CollectiveError;
pub use gather::{agree, check_same, gather, share};
pub use threads::Threads;

use std::fmt;
use std::sync::Arc;
use tch::Tensor;

/// Ranks that compute together. All of them make the same calls in the same order.
pub trait Collective: fmt::Debug + Send + Sync {
    /// This rank, from 0 to [`Collective::size`].
    fn rank(&self) -> usize;

    /// How many ranks there are, 1 and up.
    fn size(&self) -> usize;

    /// Whether this is the rank that writes the files, which is rank 0.
    fn is_leader(&self) -> bool {
        self.rank() == 0
    }

    /// Sums a contiguous f32 or f64 tensor of the CPU, of the same shape everywhere, over all ranks,
    /// in place. All get the same sum to the last bit.
    ///
    /// # Errors
    /// [`CollectiveError::Operation`] names the ranks that did not come in time, or says what broke;
    /// after it no further call can succeed.
    fn all_reduce(&self, values: &Tensor) -> Result<(), CollectiveError>;

    /// Every rank's bytes, in the order of the ranks.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce`].
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// The bytes of the rank `root`; what the others give is not looked at.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce`].
    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, CollectiveError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce`].
    fn barrier(&self) -> Result<(), CollectiveError> {
        self.all_gather(&[]).map(drop)
    }

    /// The same ranks on a line of their own: for a thread whose calls keep no order with those of
    /// another thread.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce`].
    fn channel(&self, name: &str) -> Result<Arc<dyn Collective>, CollectiveError>;
}
