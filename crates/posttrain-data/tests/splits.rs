//! What splitting promises, for any dataset.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use std::collections::{BTreeMap, BTreeSet};

use posttrain_data::{
    DataError, Dataset, Example, Split, SplitConfig, SplitSizes, Splits, leaks, normalize_question,
    sciences, split, write_splits,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn sizes(train: u64, validation: u64, test: u64) -> SplitSizes {
    SplitSizes { train, validation, test }
}

/// Rows of a few domains in groups of many sizes, some of which share questions written
/// differently.
fn examples() -> impl Strategy<Value = Vec<Example>> {
    let row = (0..3_u8, 0..60_u16, 0..1000_u16, 0..3_u8);
    prop::collection::vec(row, 30..160).prop_map(|rows| {
        let example = |(n, (domain, group, question, form)): (usize, (u8, u16, u16, u8))| {
            let question = match form {
                0 => format!("what is {question}"),
                1 => format!("What  is {question}?"),
                _ => format!("WHAT IS “{question}”!"),
            };
            Example::new(format!("id-{n}"), format!("domain-{domain}"), question, "x")
                .with_group(format!("g{group}"))
        };
        rows.into_iter().enumerate().map(example).collect()
    })
}

fn ids(rows: &[Example]) -> BTreeSet<&str> {
    rows.iter().map(|example| example.id.as_str()).collect()
}

fn domains_of<K: Ord>(
    splits: &Splits,
    key: impl Fn(&Example) -> K,
) -> BTreeMap<K, BTreeSet<Split>> {
    let mut found: BTreeMap<K, BTreeSet<Split>> = BTreeMap::new();
    for split in Split::ALL {
        for example in splits.get(split) {
            found.entry(key(example)).or_default().insert(split);
        }
    }
    found
}

proptest! {
    #[test]
    fn disjoint_and_complete_by_id_and_by_group(
        rows in examples(), seed: u64, train in 0..12_u64, validation in 0..5_u64, test in 1..5_u64,
    ) {
        let dataset = Dataset::new(rows, &[]).unwrap();
        let config = SplitConfig { sizes: sizes(train, validation, test), seed };
        let splits = match split(&dataset, &config) {
            Ok(splits) => splits,
            Err(DataError::TooFewRows { domain, needed, found }) => {
                prop_assert_eq!(found, dataset.domain(&domain).count() as u64);
                prop_assert!(found < needed);
                return Err(TestCaseError::reject("too few rows"));
            }
            // Few of these, or proptest says that it rejects too much.
            Err(DataError::Unpackable { .. }) => return Err(TestCaseError::reject("unpackable")),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        // Exactly the sizes, in every domain.
        for domain in dataset.domains() {
            for split in Split::ALL {
                prop_assert_eq!(splits.domain(split, domain).count() as u64, config.sizes.get(split));
            }
        }
        // Every row once, in a split or left over.
        let parts = [&splits.train, &splits.validation, &splits.test, &splits.left_over];
        prop_assert_eq!(parts.iter().map(|rows| rows.len()).sum::<usize>(), dataset.len());
        let all: BTreeSet<&str> = parts.iter().flat_map(|rows| ids(rows)).collect();
        prop_assert_eq!(all, ids(dataset.examples()));
        // No group and no question in two splits, by a count of this test's own and by the check.
        prop_assert!(domains_of(&splits, |e| e.group.clone()).values().all(|splits| splits.len() == 1));
        prop_assert!(domains_of(&splits, |e| normalize_question(&e.question)).values().all(|s| s.len() == 1));
        prop_assert_eq!(leaks(&splits), vec![]);
        prop_assert_eq!(split(&dataset, &config).unwrap(), splits);
    }

    #[test]
    fn rows_of_their_own_groups_always_split(count in 10..80_u64, seed: u64, test in 1..5_u64) {
        let row = |n| Example::new(format!("{n}"), "d", format!("question {n}"), "x");
        let dataset = Dataset::new((0..count).map(row).collect(), &[]).unwrap();
        let config = SplitConfig { sizes: sizes(count - 2 * test, test, test), seed };
        let splits = split(&dataset, &config).unwrap();
        prop_assert!(splits.left_over.is_empty());
    }

    #[test]
    fn a_planted_leak_is_found(seed: u64, row in 0..50_usize) {
        let dataset = Dataset::new((0..100).map(|n| Example::new(n.to_string(), "d", format!("q {n}"), "x")).collect(), &[]);
        let config = SplitConfig { sizes: sizes(50, 25, 25), seed };
        let mut splits = split(&dataset.unwrap(), &config).unwrap();
        let shouted = splits.train[row].question.to_uppercase() + "?!";
        splits.test[3].question = shouted;
        let found = leaks(&splits);
        prop_assert_eq!(found.len(), 1);
        let rows: Vec<_> = found[0].rows.iter().map(|r| (r.split, r.row)).collect();
        prop_assert_eq!(rows, vec![(Split::Train, row as u64 + 1), (Split::Test, 4)]);
    }
}

/// A change of this value means that a platform or a dependency splits differently from all before
/// it.
#[test]
fn the_same_on_every_platform() {
    let splits =
        split(&sciences::generate(7).unwrap(), &SplitConfig { seed: 7, ..SplitConfig::default() })
            .unwrap();
    let mut hasher = Sha256::new();
    for split in Split::ALL {
        for example in splits.get(split) {
            hasher.update(serde_json::to_vec(example).unwrap());
            hasher.update(b"\n");
        }
    }
    let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "0a1bd8567d55f94e0582f1f91838be9f4180986a1daadfb93f94c0dd5296de5f");
    assert_eq!(splits.test[0].id, "math/compare/1,4,7#compare-three-1");
}

#[test]
fn the_built_in_set_splits_for_any_seed() {
    for seed in 0..8 {
        let config = SplitConfig { seed, ..SplitConfig::default() };
        let splits = split(&sciences::generate(seed).unwrap(), &config).unwrap();
        assert_eq!(
            (splits.train.len(), splits.validation.len(), splits.test.len()),
            (6000, 750, 750)
        );
        assert_eq!(leaks(&splits), []);
    }
}

#[test]
fn groups_of_three_are_cut_only_where_there_are_rows_to_spare() {
    let row = |n: u32| {
        Example::new(n.to_string(), "d", format!("q {n}"), "x").with_group(format!("g{}", n / 3))
    };
    let dataset = |rows| Dataset::new((0..rows).map(row).collect(), &[]).unwrap();
    let config = SplitConfig { sizes: sizes(10, 4, 4), seed: 1 };
    // 10, 4 and 4 from groups of 3: four groups, two and two, of which two, two and two rows are
    // lost.
    let splits = split(&dataset(24), &config).unwrap();
    assert_eq!(splits.left_over.len(), 6);
    let error = split(&dataset(21), &config).unwrap_err();
    let DataError::Unpackable { needed, got, rows, groups, largest, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((needed, got, rows, groups, largest), (10, 9, 21, 7, 3));
}

#[test]
fn too_few_rows_names_the_domain_and_the_numbers() {
    let rows = vec![Example::new("a", "small", "q", "x")];
    let error = split(&Dataset::new(rows, &[]).unwrap(), &SplitConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "domain \"small\": the splits need 2500 rows, there are 1");
}

#[test]
fn sizes_of_nothing_are_refused() {
    let config = SplitConfig { sizes: sizes(0, 0, 0), seed: 0 };
    let dataset = Dataset::new(vec![Example::new("a", "d", "q", "x")], &[]).unwrap();
    assert!(matches!(split(&dataset, &config), Err(DataError::Config { field: "sizes", .. })));
}

#[test]
fn a_written_split_reads_back_in_the_order_of_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    let config = SplitConfig { sizes: sizes(20, 5, 5), seed: 3 };
    let splits = split(&sciences::generate(3).unwrap(), &config).unwrap();
    let files = write_splits(folder.path(), &splits).unwrap();
    assert_eq!(files.len(), 9);
    for file in files {
        let read = posttrain_data::read(&file.path, &Default::default()).unwrap();
        assert!(read.examples().iter().eq(splits.domain(file.split, &file.domain)));
        let text = std::fs::read_to_string(&file.path).unwrap();
        let keys = ["{\"id\":", ",\"domain\":", ",\"question\":", ",\"answer\":", ",\"group\":"];
        for line in text.lines() {
            let places: Vec<usize> = keys.iter().map(|key| line.find(key).unwrap()).collect();
            assert!(places.is_sorted(), "{line}");
        }
    }
}

#[test]
fn a_config_is_read_strictly() {
    let config: SplitConfig =
        serde_json::from_str(r#"{"seed": 3, "sizes": {"train": 10}}"#).unwrap();
    assert_eq!(config, SplitConfig { sizes: sizes(10, 250, 250), seed: 3 });
    assert!(serde_json::from_str::<SplitConfig>(r#"{"sede": 3}"#).is_err());
}
