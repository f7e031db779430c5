//! What a stream of batches promises, for any examples.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use std::collections::BTreeMap;

use posttrain_data::{BatchConfig, BatchStream, DataError, Example, LastBatch, StreamState};
use proptest::prelude::*;

fn examples(counts: &[usize]) -> Vec<Example> {
    let domain = |(d, &count): (usize, &usize)| {
        (0..count).map(move |n| {
            Example::new(format!("{d}-{n}"), format!("domain-{d}"), format!("q {d} {n}"), "x")
        })
    };
    counts.iter().enumerate().flat_map(domain).collect()
}

fn last() -> impl Strategy<Value = LastBatch> {
    prop_oneof![Just(LastBatch::Carry), Just(LastBatch::Short), Just(LastBatch::Drop)]
}

fn ids(rows: &[Example]) -> Vec<String> {
    rows.iter().map(|example| example.id.clone()).collect()
}

proptest! {
    #[test]
    fn each_example_comes_exactly_once_an_epoch(
        counts in prop::collection::vec(1..30_usize, 1..4), prompts in 1..9_u64, seed: u64, carry: bool,
    ) {
        let examples = examples(&counts);
        let last = if carry { LastBatch::Carry } else { LastBatch::Short };
        prop_assume!(!carry || prompts <= examples.len() as u64);
        let mut stream = BatchStream::new(examples.clone(), BatchConfig { prompts, seed, last }).unwrap();
        let mut given = Vec::new();
        while given.len() < 3 * examples.len() {
            let batch = stream.next_batch();
            prop_assert!(batch.len() as u64 == prompts || !carry);
            given.extend(ids(&batch));
        }
        let mut expected = ids(&examples);
        expected.sort();
        for epoch in given.chunks_exact(examples.len()) {
            let mut epoch = epoch.to_vec();
            epoch.sort();
            prop_assert_eq!(&epoch, &expected);
        }
    }

    #[test]
    fn domains_come_in_proportion_throughout(counts in prop::collection::vec(1..200_usize, 1..5), seed: u64) {
        let examples = examples(&counts);
        let config = BatchConfig { prompts: 1, seed, last: LastBatch::Short };
        let mut stream = BatchStream::new(examples.clone(), config).unwrap();
        let mut given: BTreeMap<String, usize> = BTreeMap::new();
        for first in 1..=examples.len() {
            *given.entry(stream.next_batch()[0].domain.clone()).or_default() += 1;
            for (domain, &count) in counts.iter().enumerate() {
                let share = first as f64 * count as f64 / examples.len() as f64;
                let got = *given.get(&format!("domain-{domain}")).unwrap_or(&0) as f64;
                prop_assert!((got - share).abs() <= counts.len() as f64, "{got} of domain {domain}, not {share}");
            }
        }
    }

    #[test]
    fn resumed_is_uninterrupted(
        counts in prop::collection::vec(3..20_usize, 1..4), prompts in 1..4_u64, seed: u64, stop in 0..30_usize, last in last(),
    ) {
        let config = BatchConfig { prompts, seed, last };
        let mut stream = BatchStream::new(examples(&counts), config).unwrap();
        (0..stop).for_each(|_| drop(stream.next_batch()));
        // Through text, as a checkpoint stores it.
        let state: StreamState = serde_json::from_str(&serde_json::to_string(&stream.state()).unwrap()).unwrap();
        let mut resumed = BatchStream::new(examples(&counts), config).unwrap().resume(state).unwrap();
        for _ in 0..20 {
            prop_assert_eq!(resumed.next_batch(), stream.next_batch());
        }
    }
}

#[test]
fn every_epoch_has_its_own_order() {
    let mut stream =
        BatchStream::new(examples(&[50]), BatchConfig { prompts: 50, ..Default::default() })
            .unwrap();
    let (first, second) = (ids(&stream.next_batch()), ids(&stream.next_batch()));
    assert_ne!(first, second);
    assert_ne!(first, ids(&examples(&[50])));
}

#[test]
fn drop_gives_full_batches_only() {
    let config = BatchConfig { prompts: 4, seed: 0, last: LastBatch::Drop };
    let mut stream = BatchStream::new(examples(&[10]), config).unwrap();
    let epochs: Vec<u64> = (0..6)
        .map(|_| {
            assert_eq!(stream.next_batch().len(), 4);
            stream.state().epoch
        })
        .collect();
    assert_eq!(epochs, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn short_ends_with_the_rest() {
    let config = BatchConfig { prompts: 4, seed: 0, last: LastBatch::Short };
    let mut stream = BatchStream::new(examples(&[10]), config).unwrap();
    assert_eq!([(); 4].map(|()| stream.next_batch().len()), [4, 4, 2, 4]);
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let new = |rows: &[usize], prompts, last| {
        BatchStream::new(examples(rows), BatchConfig { prompts, seed: 0, last })
    };
    assert!(matches!(new(&[], 1, LastBatch::Carry), Err(DataError::NoRows { .. })));
    assert!(matches!(
        new(&[3], 0, LastBatch::Carry),
        Err(DataError::Config { field: "prompts", .. })
    ));
    assert!(matches!(
        new(&[3], u64::MAX, LastBatch::Carry),
        Err(DataError::Config { field: "prompts", .. })
    ));
    assert!(matches!(
        new(&[3], 4, LastBatch::Drop),
        Err(DataError::Config { field: "prompts", .. })
    ));
    let beyond = StreamState { epoch: 0, position: 4 };
    let error = new(&[3], 1, LastBatch::Carry).unwrap().resume(beyond).unwrap_err();
    assert_eq!(
        error.to_string(),
        "position 4 of epoch 0: expected at most 3, the rows of an epoch"
    );
}

#[test]
fn the_same_on_every_platform() {
    let config = BatchConfig { prompts: 12, seed: 7, ..Default::default() };
    let mut stream = BatchStream::new(examples(&[6, 4, 2]), config).unwrap();
    assert_eq!(
        ids(&stream.next_batch()).join(" "),
        "0-3 1-2 2-1 0-1 1-0 0-0 0-2 1-3 0-5 0-4 1-1 2-0"
    );
}
