//! The order of the running rows: those of one adapter stand together, so that its thin products
//! are one.

use std::ops::Range;

/// A block of rows that changes its place. Source and destination never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub from: usize,
    pub to: usize,
    pub count: usize,
}

/// The moves that make room for `count` rows at the end of the first of `runs`, which cover the
/// rows from there on. Of each later run only as many rows move as must: its first ones, to its
/// end.
pub(crate) fn opening(runs: &[Range<usize>], count: usize) -> Vec<Move> {
    let later = runs.iter().skip(1).rev();
    later
        .map(|run| Move {
            from: run.start,
            to: run.start + count.max(run.len()),
            count: count.min(run.len()),
        })
        .collect()
}

/// The moves that leave `row`'s place to the last of all rows: the last row of its run goes there,
/// the last row of the next run to that one's place, and so on. No row before `row` moves.
pub(crate) fn closing(runs: &[Range<usize>], row: usize) -> Vec<Move> {
    let mut hole = row;
    let mut moves = Vec::new();
    for run in runs.iter().filter(|run| run.end > row) {
        let last = run.end - 1;
        if last != hole {
            moves.push(Move { from: last, to: hole, count: 1 });
        }
        hole = last;
    }
    moves
}

/// Makes moves in a list of the rows; what stood at a destination goes to the source.
pub(crate) fn reorder<T>(rows: &mut [T], moves: &[Move]) {
    for Move { from, to, count } in moves {
        (0..*count).for_each(|i| rows.swap(from + i, to + i));
    }
}

/// Runs of neighboring rows that `same` holds together.
pub(crate) fn runs<T>(rows: &[T], same: impl FnMut(&T, &T) -> bool) -> Vec<Range<usize>> {
    let mut start = 0;
    let run = |rows: &[T]| {
        start += rows.len();
        start - rows.len()..start
    };
    rows.chunk_by(same).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as (adapter, number), with as many joining and leaving as a seed says.
    fn played(seed: u64) -> (Vec<(u64, usize)>, Vec<usize>) {
        let (mut rows, mut expected, mut state) = (Vec::new(), Vec::new(), seed);
        for number in 0..60 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let draw = state >> 33;
            if draw % 3 == 0 && !rows.is_empty() {
                let place = draw as usize / 3 % rows.len();
                let gone: (u64, usize) = rows[place];
                let moves = closing(&runs(&rows, |a, b| a.0 == b.0), place);
                assert!(moves.iter().all(|m| m.from > place && m.to >= place));
                reorder(&mut rows, &moves);
                assert_eq!(rows.pop(), Some(gone));
                expected.retain(|n| *n != gone.1);
            } else {
                let (adapter, count) = (draw % 5, 1 + draw as usize / 5 % 4);
                let runs = runs(&rows, |a, b| a.0 == b.0);
                let first =
                    runs.iter().position(|run| rows[run.start].0 == adapter).unwrap_or(runs.len());
                let moves = opening(&runs[first..], count);
                rows.extend((0..count).map(|i| (adapter, number * 10 + i)));
                reorder(&mut rows, &moves);
                expected.extend((0..count).map(|i| number * 10 + i));
            }
        }
        (rows, expected)
    }

    #[test]
    fn rows_of_an_adapter_stand_together_whoever_joins_or_leaves() {
        for seed in 0..50 {
            let (rows, mut expected) = played(seed);
            let mut adapters: Vec<_> =
                rows.chunk_by(|a, b| a.0 == b.0).map(|run| run[0].0).collect();
            let count = adapters.len();
            adapters.sort_unstable();
            adapters.dedup();
            assert_eq!(adapters.len(), count, "seed {seed}: {rows:?}");
            let mut numbers: Vec<_> = rows.iter().map(|row| row.1).collect();
            numbers.sort_unstable();
            expected.sort_unstable();
            assert_eq!(numbers, expected, "seed {seed}");
        }
    }

    #[test]
    fn few_rows_move() {
        assert_eq!(
            opening(&[0..3, 3..10, 10..11], 2),
            [Move { from: 10, to: 12, count: 1 }, Move { from: 3, to: 10, count: 2 }]
        );
        assert_eq!(
            closing(&[0..3, 3..10], 1),
            [Move { from: 2, to: 1, count: 1 }, Move { from: 9, to: 2, count: 1 }]
        );
        let alone = std::slice::from_ref(&(0..3));
        assert!(opening(alone, 2).is_empty() && closing(alone, 2).is_empty());
    }
}
