//! Which worker samples what.

use std::ops::Range;

/// A request to be dealt: how many samples, by which adapter (any number that tells adapters apart).
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub adapter: usize,
    pub samples: Range<usize>,
}

/// Some samples of the request at a place of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub offer: usize,
    pub samples: Range<usize>,
}

/// A worker's share of an adapter's samples.
#[derive(Debug)]
struct Share {
    worker: usize,
    samples: usize,
    dealt: usize,
}

/// Deals requests out to `workers` workers: as many samples to each, and few adapters to each, for a worker reads all of an
/// adapter for however few rows.
///
/// The samples, adapter after adapter, are cut into equal parts. Who has a part of an adapter's takes its requests in turn,
/// whole where there are enough of them, else some samples of each. The same requests are always dealt the same way.
pub(crate) fn deal(offers: &[Offer], workers: usize) -> Vec<Vec<Dealt>> {
    let total: usize = offers.iter().map(|offer| offer.samples.len()).sum();
    let mut hands = vec![Vec::new(); workers];
    let mut start = 0;
    for members in by_adapter(offers) {
        let end = start + members.iter().map(|&place| offers[place].samples.len()).sum::<usize>();
        deal_adapter(offers, &members, shares(start..end, total, workers), &mut hands);
        start = end;
    }
    hands
}

/// The requests' places by adapter, in the order in which the adapters appear.
fn by_adapter(offers: &[Offer]) -> Vec<Vec<usize>> {
    let mut adapters: Vec<Vec<usize>> = Vec::new();
    for (place, offer) in offers.iter().enumerate() {
        match adapters.iter_mut().find(|places| offers[places[0]].adapter == offer.adapter) {
            Some(places) => places.push(place),
            None => adapters.push(vec![place]),
        }
    }
    adapters
}

/// What falls to whom of the samples `range` of `total`.
fn shares(range: Range<usize>, total: usize, workers: usize) -> Vec<Share> {
    let share = |worker: usize| {
        let (start, end) = (total * worker / workers, total * (worker + 1) / workers);
        let samples = end.min(range.end).saturating_sub(start.max(range.start));
        Share { worker, samples, dealt: 0 }
    };
    (0..workers).map(share).filter(|share| share.samples > 0).collect()
}

fn deal_adapter(offers: &[Offer], members: &[usize], mut shares: Vec<Share>, hands: &mut [Vec<Dealt>]) {
    let whole = members.len() >= 4 * shares.len();
    for &offer in members {
        let samples = &offers[offer].samples;
        let mut parts = vec![0; shares.len()];
        let mut left = samples.len();
        while let Some((index, share)) = next(&mut shares).filter(|_| left > 0) {
            let count = if whole { left.min(share.samples - share.dealt) } else { 1 };
            share.dealt += count;
            parts[index] += count;
            left -= count;
        }
        let mut start = samples.start;
        for (share, count) in shares.iter().zip(parts).filter(|(_, count)| *count > 0) {
            hands[share.worker].push(Dealt { offer, samples: start..start + count });
            start += count;
        }
    }
}

/// The share of which the least part is dealt, if any is left.
fn next(shares: &mut [Share]) -> Option<(usize, &mut Share)> {
    let open = shares.iter_mut().enumerate().filter(|(_, share)| share.dealt < share.samples);
    // a/b < c/d as a·d < c·b; the first of equals.
    open.min_by(|(_, one), (_, other)| (one.dealt * other.samples).cmp(&(other.dealt * one.samples)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(adapters: &[(usize, usize, usize)]) -> Vec<Offer> {
        let offer = |(adapter, requests, samples): &(usize, usize, usize)| {
            vec![Offer { adapter: *adapter, samples: 0..*samples }; *requests]
        };
        adapters.iter().flat_map(offer).collect()
    }

    fn samples(hand: &[Dealt]) -> usize {
        hand.iter().map(|dealt| dealt.samples.len()).sum()
    }

    fn adapters(hand: &[Dealt], offers: &[Offer]) -> Vec<usize> {
        let mut adapters: Vec<_> = hand.iter().map(|dealt| offers[dealt.offer].adapter).collect();
        adapters.dedup();
        adapters
    }

    #[test]
    fn every_sample_is_dealt_once_and_hands_are_even() {
        for workers in 1..5 {
            for adapters in [&[(0, 9, 8)][..], &[(0, 3, 1)], &[(7, 10, 1), (2, 1, 30), (5, 4, 7)], &[(1, 2, 16)]] {
                let offers = offers(adapters);
                let hands = deal(&offers, workers);
                let total: usize = offers.iter().map(|o| o.samples.len()).sum();
                let mut seen: Vec<_> =
                    hands.iter().flatten().flat_map(|d| d.samples.clone().map(|s| (d.offer, s))).collect();
                seen.sort_unstable();
                let all = offers.iter().enumerate().flat_map(|(i, o)| o.samples.clone().map(move |s| (i, s)));
                assert_eq!(seen, all.collect::<Vec<_>>());
                assert!(hands.iter().all(|hand| samples(hand).abs_diff(total / workers) <= 1), "{hands:?}");
            }
        }
    }

    #[test]
    fn requests_of_one_adapter_go_round() {
        let hands = deal(&offers(&[(0, 10, 8)]), 2);
        let places = |hand: &[Dealt]| hand.iter().map(|d| d.offer).collect::<Vec<_>>();
        assert_eq!((places(&hands[0]), places(&hands[1])), (vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]));
    }

    #[test]
    fn few_requests_are_cut_and_a_worker_has_few_adapters() {
        let hands = deal(&offers(&[(0, 2, 8)]), 2);
        assert_eq!(hands[0], [Dealt { offer: 0, samples: 0..4 }, Dealt { offer: 1, samples: 0..4 }]);
        let mixed = offers(&[(3, 32, 1), (1, 32, 1), (2, 32, 1)]);
        let hands = deal(&mixed, 2);
        assert_eq!(adapters(&hands[0], &mixed), [3, 1]);
        assert_eq!(adapters(&hands[1], &mixed), [1, 2]);
        let interleaved: Vec<_> = (0..96).map(|i| Offer { adapter: i % 3, samples: 0..1 }).collect();
        assert_eq!(adapters(&deal(&interleaved, 3)[1], &interleaved), [1]);
    }
}
