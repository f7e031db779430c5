//! One process.

use crate::{Collective, CollectiveError};
use std::sync::Arc;
use tch::Tensor;

/// The one rank of a run without others.
///
/// ```
/// use posttrain_collective::{Alone, Collective};
/// assert_eq!(Alone.all_gather(b"own")?, [b"own"]);
/// # Ok::<(), posttrain_collective::CollectiveError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &Tensor) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![own.to_vec()])
    }

    fn broadcast(&self, _: usize, own: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        Ok(own.to_vec())
    }

    fn channel(&self, _: &str) -> Result<Arc<dyn Collective>, CollectiveError> {
        Ok(Arc::new(Self))
    }
}
