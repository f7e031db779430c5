//! The policy that samples: a version of an adapter.

use posttrain_lora::AdapterView;
use std::sync::Arc;

/// A policy version that a sampler can hold while training goes on: a frozen copy of the adapter,
/// and its number.
///
/// Two snapshots are the same policy if they hold the same copy; equal numbers do not make them so,
/// since every trainer counts for itself.
#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    /// The adapter's frozen copy in the model's kind.
    pub adapter: Arc<AdapterView>,
    /// The version: how many optimizer steps made it.
    pub version: u64,
}

impl PolicySnapshot {
    /// A snapshot from an adapter's copy.
    pub fn new(adapter: impl Into<Arc<AdapterView>>, version: u64) -> Self {
        Self { adapter: adapter.into(), version }
    }

    /// Whether both hold the same copy of an adapter.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.adapter, &other.adapter)
    }
}

/// Whether two policies, of which `None` is the base, are the same.
pub(crate) fn same_policy(one: Option<&PolicySnapshot>, other: Option<&PolicySnapshot>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is(other),
        (None, None) => true,
        _ => false,
    }
}
