//! What ranks say, as values; what each of them does.

use crate::{Collective, CollectiveError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// A rank's share of `total` things that lie in a row: as equal as they can be, in the order of the
/// ranks.
///
/// ```
/// use posttrain_collective::share;
/// let shares: Vec<_> = (0..3).map(|rank| share(7, rank, 3)).collect();
/// assert_eq!(shares, [0..2, 2..4, 4..7]);
/// ```
#[must_use]
pub fn share(total: usize, rank: usize, size: usize) -> Range<usize> {
    let end = |rank: usize| total * rank / size.max(1);
    end(rank)..end(rank + 1)
}

/// What a rank sends: its value, or why there is none.
#[derive(Serialize, Deserialize)]
enum Said<T> {
    Value(T),
    Failed(String),
}

/// Every rank's value, in the order of the ranks; with one rank this returns its own.
///
/// A rank whose own work failed says so here: it gets its own error back, and all others one that
/// names it, in place of waiting for it.
///
/// ```
/// use posttrain_collective::{Alone, CollectiveError, gather};
/// let values = gather(&Alone, Ok::<_, CollectiveError>(vec![0.5f32, f32::NAN]))?;
/// assert_eq!(values[0][0], 0.5);
/// # Ok::<(), CollectiveError>(())
/// ```
///
/// # Errors
/// The rank's own; [`CollectiveError::Rank`] for another's; else those of
/// [`Collective::all_gather`].
pub fn gather<T, E>(ranks: &dyn Collective, own: Result<T, E>) -> Result<Vec<T>, E>
where
    T: Serialize + DeserializeOwned,
    E: Display + From<CollectiveError>,
{
    if ranks.size() == 1 {
        return own.map(|own| vec![own]);
    }

    let others = exchange(ranks, own.as_ref());
    own?;
    Ok(others?)
}

/// What a rank came to by itself, once all of them have come to theirs: where one fails, all do.
///
/// # Errors
/// Those of [`gather`].
pub fn agree<T, E>(ranks: &dyn Collective, own: Result<T, E>) -> Result<T, E>
where
    E: Display + From<CollectiveError>,
{
    if ranks.size() == 1 {
        return own;
    }
    let others: Result<Vec<()>, _> = exchange(ranks, own.as_ref().map(|_| &()));
    let value = own?;
    others?;
    Ok(value)
}

/// Tells the others what this rank came to; what all of them did.
fn exchange<T, E>(ranks: &dyn Collective, own: Result<&T, &E>) -> Result<Vec<T>, CollectiveError>
where
    T: Serialize + DeserializeOwned,
    E: Display,
{
    let said = own.map_or_else(|error| Said::Failed(error.to_string()), Said::Value);
    let all = ranks.all_gather(&encode(&said, ranks.rank())?)?;
    let mut values = Vec::with_capacity(all.len());
    for (rank, bytes) in all.iter().enumerate() {
        match decode(bytes, rank)? {
            Said::Value(value) => values.push(value),
            Said::Failed(reason) => return Err(CollectiveError::Rank { rank, reason }),
        }
    }
    Ok(values)
}

/// Refuses ranks that differ in what should be the same: a program, a configuration, a checksum.
///
/// # Errors
/// [`CollectiveError::Differs`] names the first rank that differs from rank 0, on every rank; else
/// those of [`Collective::all_gather`].
pub fn check_same(
    ranks: &dyn Collective,
    what: &'static str,
    own: &[u8],
) -> Result<(), CollectiveError> {
    // Of much data a digest is enough, among programs that mean each other well.
    let mut digest = DefaultHasher::new();
    own.hash(&mut digest);
    let all = ranks.all_gather(&digest.finish().to_ne_bytes())?;
    match all.iter().position(|other| *other != all[0]) {
        Some(rank) => Err(CollectiveError::Differs { rank, what }),
        None => Ok(()),
    }
}

fn encode(value: &impl Serialize, rank: usize) -> Result<Vec<u8>, CollectiveError> {
    let mut bytes = Vec::new();
    let unwritable = |error| CollectiveError::Unreadable { rank, reason: format!("{error}") };
    ciborium::into_writer(value, &mut bytes).map_err(unwritable)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], rank: usize) -> Result<T, CollectiveError> {
    let unreadable = |error| CollectiveError::Unreadable { rank, reason: format!("{error}") };
    ciborium::from_reader(bytes).map_err(unreadable)
}
