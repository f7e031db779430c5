//! Which worker samples what.

use std::ops::Range;

/// A request to be assigned: how many samples, by which adapter (any number that tells adapters
/// apart).
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub adapter: usize,
    pub samples: Range<usize>,
}

/// Some samples of the request at a place of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub demand: usize,
    pub samples: Range<usize>,
}

/// A worker's share of an adapter's samples.
#[derive(Debug)]
struct WorkerShare {
    worker: usize,
    samples: usize,
    assigned: usize,
}

/// Assigns requests to `workers` workers: as many samples to each, and few adapters to each, for a
/// worker reads all of an adapter for however few rows.
///
/// The samples, adapter after adapter, are cut into equal parts. Who has a part of an adapter's
/// takes its requests in turn, whole where there are enough of them, else some samples of each. The
/// same requests are always assigned the same way.
pub(crate) fn assign(demands: &[Demand], workers: usize) -> Vec<Vec<Assigned>> {
    let total: usize = demands.iter().map(|demand| demand.samples.len()).sum();
    let mut loads = vec![Vec::new(); workers];
    let mut start = 0;
    for members in by_adapter(demands) {
        let end = start + members.iter().map(|&place| demands[place].samples.len()).sum::<usize>();
        assign_adapter(demands, &members, shares(start..end, total, workers), &mut loads);
        start = end;
    }
    loads
}

/// The requests' places by adapter, in the order in which the adapters appear.
fn by_adapter(demands: &[Demand]) -> Vec<Vec<usize>> {
    let mut adapters: Vec<Vec<usize>> = Vec::new();
    for (place, demand) in demands.iter().enumerate() {
        match adapters.iter_mut().find(|places| demands[places[0]].adapter == demand.adapter) {
            Some(places) => places.push(place),
            None => adapters.push(vec![place]),
        }
    }
    adapters
}

/// What falls to whom of the samples `range` of `total`.
fn shares(range: Range<usize>, total: usize, workers: usize) -> Vec<WorkerShare> {
    let share = |worker: usize| {
        let (start, end) = (total * worker / workers, total * (worker + 1) / workers);
        let samples = end.min(range.end).saturating_sub(start.max(range.start));
        WorkerShare { worker, samples, assigned: 0 }
    };
    (0..workers).map(share).filter(|share| share.samples > 0).collect()
}

fn assign_adapter(
    demands: &[Demand],
    members: &[usize],
    mut shares: Vec<WorkerShare>,
    loads: &mut [Vec<Assigned>],
) {
    let whole = members.len() >= 4 * shares.len();
    for &demand in members {
        let samples = &demands[demand].samples;
        let mut parts = vec![0; shares.len()];
        let mut left = samples.len();
        while let Some((index, share)) = next(&mut shares).filter(|_| left > 0) {
            let count = if whole { left.min(share.samples - share.assigned) } else { 1 };
            share.assigned += count;
            parts[index] += count;
            left -= count;
        }
        let mut start = samples.start;
        for (share, count) in shares.iter().zip(parts).filter(|(_, count)| *count > 0) {
            loads[share.worker].push(Assigned { demand, samples: start..start + count });
            start += count;
        }
    }
}

/// The share of which the least part is assigned, if any is left.
fn next(shares: &mut [WorkerShare]) -> Option<(usize, &mut WorkerShare)> {
    let open = shares.iter_mut().enumerate().filter(|(_, share)| share.assigned < share.samples);
    // a/b < c/d as a·d < c·b; the first of equals.
    open.min_by(|(_, one), (_, other)| {
        (one.assigned * other.samples).cmp(&(other.assigned * one.samples))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(adapters: &[(usize, usize, usize)]) -> Vec<Demand> {
        let demand = |(adapter, requests, samples): &(usize, usize, usize)| {
            vec![Demand { adapter: *adapter, samples: 0..*samples }; *requests]
        };
        adapters.iter().flat_map(demand).collect()
    }

    fn samples(load: &[Assigned]) -> usize {
        load.iter().map(|assigned| assigned.samples.len()).sum()
    }

    fn adapters(load: &[Assigned], demands: &[Demand]) -> Vec<usize> {
        let mut adapters: Vec<_> =
            load.iter().map(|assigned| demands[assigned.demand].adapter).collect();
        adapters.dedup();
        adapters
    }

    #[test]
    fn every_sample_is_assigned_once_and_loads_are_even() {
        for workers in 1..5 {
            for adapters in [
                &[(0, 9, 8)][..],
                &[(0, 3, 1)],
                &[(7, 10, 1), (2, 1, 30), (5, 4, 7)],
                &[(1, 2, 16)],
            ] {
                let demands = demands(adapters);
                let loads = assign(&demands, workers);
                let total: usize = demands.iter().map(|o| o.samples.len()).sum();
                let mut seen: Vec<_> = loads
                    .iter()
                    .flatten()
                    .flat_map(|d| d.samples.clone().map(|s| (d.demand, s)))
                    .collect();
                seen.sort_unstable();
                let all = demands
                    .iter()
                    .enumerate()
                    .flat_map(|(i, o)| o.samples.clone().map(move |s| (i, s)));
                assert_eq!(seen, all.collect::<Vec<_>>());
                assert!(
                    loads.iter().all(|load| samples(load).abs_diff(total / workers) <= 1),
                    "{loads:?}"
                );
            }
        }
    }

    #[test]
    fn requests_of_one_adapter_go_round() {
        let loads = assign(&demands(&[(0, 10, 8)]), 2);
        let places = |load: &[Assigned]| load.iter().map(|d| d.demand).collect::<Vec<_>>();
        assert_eq!(
            (places(&loads[0]), places(&loads[1])),
            (vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9])
        );
    }

    #[test]
    fn few_requests_are_cut_and_a_worker_has_few_adapters() {
        let loads = assign(&demands(&[(0, 2, 8)]), 2);
        assert_eq!(
            loads[0],
            [Assigned { demand: 0, samples: 0..4 }, Assigned { demand: 1, samples: 0..4 }]
        );
        let mixed = demands(&[(3, 32, 1), (1, 32, 1), (2, 32, 1)]);
        let loads = assign(&mixed, 2);
        assert_eq!(adapters(&loads[0], &mixed), [3, 1]);
        assert_eq!(adapters(&loads[1], &mixed), [1, 2]);
        let interleaved: Vec<_> =
            (0..96).map(|i| Demand { adapter: i % 3, samples: 0..1 }).collect();
        assert_eq!(adapters(&assign(&interleaved, 3)[1], &interleaved), [1]);
    }
}
