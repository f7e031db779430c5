//! Downloads from a hub on this machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stub;

use posttrain_hub::{DownloadProgress, Files, HubConfig, HubError, HubModel, NoProgress, fetch};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use stub::{COMMIT, Hub, sha256};

const TOKEN: &str = "hf_never_to_be_shown";

fn shard(fill: u8) -> Vec<u8> {
    (0..200_000u32).map(|i| (i % 251) as u8 ^ fill).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>, bool)> {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    vec![
        ("README.md", b"not wanted".to_vec(), false),
        ("config.json", b"{}".to_vec(), false),
        ("model.safetensors.index.json", index.into(), false),
        ("model-1.safetensors", shard(0), true),
        ("model-2.safetensors", shard(7), true),
    ]
}

fn config(hub: &Hub, cache: &Path) -> HubConfig {
    HubConfig {
        endpoint: hub.endpoint.clone(),
        retries: 0,
        token: Some(TOKEN.to_owned().into()),
        ..HubConfig::new(cache.into())
    }
}

fn model() -> HubModel {
    HubModel::parse("owner/name").unwrap()
}

/// Counts what it is told.
#[derive(Default)]
struct Told(Mutex<(usize, u64, u64, usize)>);

impl DownloadProgress for Told {
    fn begin(&self, files: usize, bytes: u64) {
        let mut told = self.0.lock().unwrap();
        (told.0, told.1) = (files, bytes);
    }

    fn advance(&self, _file: &str, bytes: u64) {
        self.0.lock().unwrap().2 += bytes;
    }

    fn finish(&self, _file: &str) {
        self.0.lock().unwrap().3 += 1;
    }
}

#[test]
fn a_model_comes_whole_once_in_pythons_layout_and_then_offline() {
    let (hub, dir, told) = (Hub::start(&files()), tempfile::tempdir().unwrap(), Told::default());
    let mut config = config(&hub, dir.path());
    let fetched = fetch(&model(), &config, &told).unwrap();
    let root = std::fs::canonicalize(dir.path()).unwrap().join("models--owner--name");
    assert_eq!(
        (fetched.folder.clone(), fetched.commit.as_str()),
        (root.join("snapshots").join(COMMIT), COMMIT)
    );
    assert_eq!(std::fs::read(fetched.folder.join("model-2.safetensors")).unwrap(), shard(7));
    assert!(!fetched.folder.join("README.md").exists());
    // As huggingface_hub lays it out: contents by their hash, the snapshot a link, the branch a
    // commit.
    let link = std::fs::read_link(fetched.folder.join("model-1.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&shard(0))));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(*told.0.lock().unwrap(), (4, fetched.fetched_bytes, fetched.fetched_bytes, 4));

    let asked = hub.requests().len();
    let again = fetch(&model(), &config, &NoProgress).unwrap();
    assert_eq!((again.folder, again.fetched_bytes), (fetched.folder.clone(), 0));
    assert_eq!(hub.requests().len(), asked + 1); // only what the branch is at now
    config.offline = true;
    assert_eq!(fetch(&model(), &config, &NoProgress).unwrap().folder, fetched.folder);
    let pinned = HubModel::parse(&format!("owner/name@{COMMIT}")).unwrap();
    assert_eq!(fetch(&pinned, &config, &NoProgress).unwrap().folder, fetched.folder);
    assert_eq!(hub.requests().len(), asked + 1);
}

#[test]
fn every_file_is_asked_for_at_the_commit_with_the_token_and_no_error_shows_it() {
    let (hub, dir) = (Hub::start(&files()), tempfile::tempdir().unwrap());
    let config = config(&hub, dir.path());
    fetch(&model(), &config, &NoProgress).unwrap();
    for request in hub.requests() {
        assert!(request.ends_with(&format!("Bearer {TOKEN}")), "{request}");
        assert!(
            request.starts_with("/api/models/owner/name/revision/main") || request.contains(COMMIT),
            "{request}"
        );
    }
    for status in [401, 404, 500] {
        hub.state.lock().unwrap().status = Some(status);
        let error = fetch(&model(), &config, &NoProgress).unwrap_err();
        let shown = format!("{error} {error:?} {config:?}");
        assert!(
            shown.contains(&status.to_string()) && shown.contains("owner/name@main"),
            "{shown}"
        );
        assert!(!shown.contains(TOKEN), "{shown}");
        assert_eq!(shown.contains("HF_TOKEN"), status != 500, "{shown}");
    }
}

#[test]
fn what_was_cut_off_goes_on_where_it_was() {
    let (hub, dir) = (Hub::start(&files()), tempfile::tempdir().unwrap());
    let config = config(&hub, dir.path());
    hub.state.lock().unwrap().cut = Some(("model-2.safetensors".into(), 70_000));
    let error = fetch(&model(), &config, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("model-2.safetensors"), "{error}");
    // Half a model is none.
    let offline = HubConfig { offline: true, ..config.clone() };
    assert!(matches!(fetch(&model(), &offline, &NoProgress), Err(HubError::Offline { .. })));
    let fetched = fetch(&model(), &config, &NoProgress).unwrap();
    assert_eq!(std::fs::read(fetched.folder.join("model-2.safetensors")).unwrap(), shard(7));
    let resumed = |r: &String| r.contains("model-2.safetensors bytes=") && !r.contains("bytes=0-");
    assert!(hub.requests().iter().any(resumed), "{:?}", hub.requests());
}

#[test]
fn contents_that_are_not_what_the_hub_lists_are_removed() {
    let (hub, dir) = (Hub::start(&files()), tempfile::tempdir().unwrap());
    let config = config(&hub, dir.path());
    hub.state.lock().unwrap().lie_about = Some("model-1.safetensors".into());
    let error = fetch(&model(), &config, &NoProgress).unwrap_err();
    assert!(matches!(&error, HubError::Mismatch { what: "SHA-256", .. }), "{error}");
    hub.state.lock().unwrap().lie_about = None;
    let fetched = fetch(&model(), &config, &NoProgress).unwrap();
    assert_eq!(std::fs::read(fetched.folder.join("model-1.safetensors")).unwrap(), shard(0));
}

/// A hub that names a file well when it is asked first, and then otherwise.
#[test]
fn no_answer_of_the_hub_leads_out_of_the_cache() {
    let far = "f".repeat(40);
    for (tag, commit) in [
        ("../../../../outside", COMMIT),
        ("/outside", COMMIT),
        ("git2", "../../../../outside"),
        ("git2", far.as_str()),
    ] {
        let (hub, dir) = (Hub::start(&files()), tempfile::tempdir().unwrap());
        let cache = dir.path().join("a/b/c/cache");
        let config = config(&hub, &cache);
        hub.state.lock().unwrap().then_named = Some((tag.into(), commit.into()));

        let fetched = fetch(&model(), &config, &NoProgress).unwrap();
        assert_eq!(std::fs::read(fetched.folder.join("model-1.safetensors")).unwrap(), shard(0));
        let root = std::fs::canonicalize(&cache).unwrap().join("models--owner--name");
        let names = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&root), ["blobs", "refs", "snapshots"]);
        assert_eq!(names(&root.join("snapshots")), [COMMIT]);
        assert_eq!(names(&cache), ["models--owner--name"]);
        for (folder, only) in [("", "a"), ("a", "b"), ("a/b", "c"), ("a/b/c", "cache")] {
            assert_eq!(names(&dir.path().join(folder)), [only], "{tag} {commit}");
        }
    }
}

#[test]
fn pickles_are_refused_with_the_reason_and_nothing_is_fetched() {
    let files =
        [("config.json", b"{}".to_vec(), false), ("pytorch_model.bin", b"x".to_vec(), true)];
    let (hub, dir) = (Hub::start(&files), tempfile::tempdir().unwrap());
    let error = fetch(&model(), &config(&hub, dir.path()), &NoProgress).unwrap_err();
    assert!(
        matches!(error, HubError::Pickle { .. }) && error.to_string().contains("run code"),
        "{error}"
    );
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn offline_or_without_a_hub_it_says_what_is_missing_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files());
    let offline = HubConfig { offline: true, ..config(&hub, dir.path()) };
    let error = fetch(&model(), &offline, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains("revision main"), "{error}");
    assert!(hub.requests().is_empty());
    let nowhere = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..config(&hub, dir.path()) };
    let started = Instant::now();
    let error = fetch(&model(), &nowhere, &NoProgress).unwrap_err().to_string();
    assert!(
        error.contains("owner/name@main") && started.elapsed() < Duration::from_secs(2),
        "{error}"
    );
}

/// What a plan needs comes alone; the model that is fetched afterwards is whole.
#[test]
fn without_weights_a_model_can_be_described_and_not_taken_for_a_whole_one() {
    let (hub, dir) = (Hub::start(&files()), tempfile::tempdir().unwrap());
    let whole = config(&hub, dir.path());
    let beside = HubConfig { files: Files::BesideWeights, ..whole.clone() };
    let described = fetch(&model(), &beside, &NoProgress).unwrap();
    assert!(described.folder.join("config.json").is_file());
    assert!(!described.folder.join("model-1.safetensors").exists());
    assert!(
        hub.requests().iter().all(|request| !request.contains("model-1")),
        "{:?}",
        hub.requests()
    );
    let offline = HubConfig { offline: true, ..whole.clone() };
    assert!(matches!(fetch(&model(), &offline, &NoProgress), Err(HubError::Offline { .. })));
    let pinned = HubModel::parse(&format!("owner/name@{COMMIT}")).unwrap();
    let error = fetch(&pinned, &offline, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("model-1.safetensors"), "{error}");
    assert_eq!(
        fetch(&pinned, &HubConfig { files: Files::BesideWeights, ..offline }, &NoProgress)
            .unwrap()
            .fetched_bytes,
        0
    );
    assert!(
        fetch(&model(), &whole, &NoProgress).unwrap().folder.join("model-1.safetensors").is_file()
    );
}
