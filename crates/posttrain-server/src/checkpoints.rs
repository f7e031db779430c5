//! Checkpoints on the disk: what was acknowledged is there, whole, whenever the process dies.
//!
//! ```text
//! DATA/lock, DATA/sessions.json, DATA/results.json
//! DATA/owners/OWNER/runs/RUN/run.json
//! DATA/owners/OWNER/runs/RUN/{weights,sampler_weights,external_weights}/NAME/{checkpoint.json, adapter/, …}
//! DATA/owners/OWNER/runs/RUN/live/           what an orderly end left of a model in training
//! ```

use crate::keys::Owner;
use crate::promises::ResultRecord;
use crate::refusal::Refusal;
use chrono::{DateTime, Utc};
use posttrain_lora::{LoraConfig, TargetModules};
use posttrain_store::{
    FolderLock, StoreError, lock_folder, read_json, read_json_if_there, recover_folder,
    replace_folder, write_json_pretty,
};
use posttrain_train::TrainError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckpointKind {
    /// To go on training from: adapter and optimizer.
    Weights,
    /// To sample from: the adapter alone.
    SamplerWeights,
    /// To take away: the adapter as a PEFT folder.
    ExternalWeights,
}

impl CheckpointKind {
    const ALL: [Self; 3] = [Self::Weights, Self::SamplerWeights, Self::ExternalWeights];

    /// The request that writes one.
    pub fn request(self) -> &'static str {
        match self {
            Self::Weights => "save_weights",
            Self::SamplerWeights => "save_weights_for_sampler",
            Self::ExternalWeights => "save_weights_external",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::SamplerWeights => "sampler_weights",
            Self::ExternalWeights => "external_weights",
        }
    }

    /// The word that the SDK knows it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weights => "training",
            Self::SamplerWeights => "sampler",
            Self::ExternalWeights => "external",
        }
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a checkpoint is, as clients write it: `tinker://RUN/KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CheckpointPath {
    pub run: String,
    pub kind: CheckpointKind,
    pub name: String,
}

impl CheckpointPath {
    /// A path whose name may be a folder's.
    pub fn new(run: &str, kind: CheckpointKind, name: &str) -> Result<Self, Refusal> {
        check_name("path", name)?;
        check_name("training run", run)?;
        Ok(Self { run: run.into(), kind, name: name.into() })
    }

    /// The part of it that the SDK calls a checkpoint's id.
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for CheckpointPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tinker://{}/{}/{}", self.run, self.kind.as_str(), self.name)
    }
}

impl FromStr for CheckpointPath {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let expected =
            "tinker://RUN/KIND/NAME, of the kinds weights, sampler_weights and external_weights";
        let wrong = || Refusal::field("path", expected, text);
        let rest = text.strip_prefix("tinker://").ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [run, kind, name] = parts.as_slice() else { return Err(wrong()) };
        Self::new(run, CheckpointKind::read(kind).ok_or_else(wrong)?, name)
    }
}

/// A folder's name: nothing that leaves its folder, hides, or is too long.
fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if name.is_empty() || name.len() > 160 || name.starts_with('.') || !name.bytes().all(plain) {
        let expected = "1 to 160 of the characters a-z, A-Z, 0-9, -, _, . and :, none of them a . at the beginning";
        return Err(Refusal::field(field, expected, format!("{name:?}")));
    }
    // Names that the store itself gives.
    if name.ends_with(".old") {
        return Err(Refusal::field(field, "a name that does not end in .old", format!("{name:?}")));
    }
    Ok(())
}

/// Which layers of a model are trained, and in what rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoraSpec {
    pub rank: i64,
    pub train_attn: bool,
    pub train_mlp: bool,
    pub train_unembed: bool,
}

/// α of every adapter; its scale is 32 over its rank, as SkyRL's and the cookbook's.
const ALPHA: f64 = 32.0;

impl LoraSpec {
    /// The adapter's shape on a model of these modules. An unembedding that is the embedding has no
    /// layer of its own to adapt, and is left as it is.
    pub fn lora(&self, modules: &[posttrain_lora::ModuleSpec]) -> Result<LoraConfig, Refusal> {
        let mut names: Vec<String> = Vec::new();
        for module in modules {
            let wanted = match module {
                module if module.head => self.train_unembed,
                module if module.path.contains(".self_attn.") => self.train_attn,
                _ => self.train_mlp,
            };
            let name = module.name().to_owned();
            if wanted && !names.contains(&name) {
                names.push(name);
            }
        }

        if names.is_empty() {
            let detail = "`lora_config`: expected `train_attn`, `train_mlp` or `train_unembed` with a layer to train, got none (this model's unembedding may be its embedding, which has no adapter)";
            return Err(Refusal::invalid(detail));
        }
        Ok(LoraConfig {
            rank: self.rank,
            alpha: ALPHA,
            target_modules: TargetModules::Names(names),
            ..LoraConfig::default()
        })
    }
}

/// A training run: a model that somebody created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRecord {
    pub id: String,
    pub session: String,
    pub base_model: String,
    pub lora: LoraSpec,
    pub seed: u64,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    pub created: DateTime<Utc>,
    pub last_request: DateTime<Utc>,
}

/// A checkpoint, as its folder says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointRecord {
    pub path: CheckpointPath,
    /// The request that asked for it, whose answer it is.
    pub request: String,
    pub base_model: String,
    pub lora: LoraSpec,
    pub seed: u64,
    /// Optimizer steps that made it.
    pub step: u64,
    pub created: DateTime<Utc>,
    #[serde(default)]
    pub expires: Option<DateTime<Utc>>,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    #[serde(default)]
    pub bytes: u64,
}

/// What an orderly end keeps of a model in training, beside the trainer's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveRecord {
    /// The requests that have been applied.
    pub applied: Vec<i64>,
}

/// A session, as the file of all of them says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionRecord {
    pub id: String,
    pub owner: String,
    pub created: DateTime<Utc>,
    pub sdk_version: String,
    pub tags: Vec<String>,
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    /// What its client said when it had done: `success`, `errored` or `interrupted`.
    #[serde(default)]
    pub finished: Option<String>,
}

/// A run with its checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub record: RunRecord,
    pub checkpoints: BTreeMap<(CheckpointKind, String), CheckpointRecord>,
    /// Whether an orderly end left the model's state.
    pub live: bool,
}

type Runs = BTreeMap<(Owner, String), Run>;

/// The folder of all checkpoints, this process's own.
pub(crate) struct Checkpoints {
    root: PathBuf,
    runs: Mutex<Runs>,
    _lock: FolderLock,
}

const ADAPTER: &str = "adapter";
const STATE: &str = "state";
const RECORD: &str = "checkpoint.json";
const RUN: &str = "run.json";
const LIVE: &str = "live";
const SESSIONS: &str = "sessions.json";
const RESULTS: &str = "results.json";

impl Checkpoints {
    /// Opens the folder, with everything in it that was written whole.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let lock = lock_folder(root)?;
        let mut runs = Runs::new();
        for owner in folders(&root.join("owners")) {
            for folder in folders(&root.join("owners").join(&owner).join("runs")) {
                let path = root.join("owners").join(&owner).join("runs").join(&folder);
                if let Some(run) = read_run(&path)? {
                    runs.insert((Owner::of_folder(&owner), folder), run);
                }
            }
        }
        Ok(Self { root: root.to_owned(), runs: Mutex::new(runs), _lock: lock })
    }

    /// Where a run is.
    fn run_folder(&self, owner: &Owner, run: &str) -> PathBuf {
        self.root.join("owners").join(owner.as_str()).join("runs").join(run)
    }

    /// Where a checkpoint is.
    pub fn folder(&self, owner: &Owner, path: &CheckpointPath) -> PathBuf {
        self.run_folder(owner, &path.run).join(path.kind.as_str()).join(&path.name)
    }

    /// Where its adapter is, as a PEFT folder.
    pub fn adapter(&self, owner: &Owner, path: &CheckpointPath) -> PathBuf {
        match path.kind {
            CheckpointKind::Weights => self.folder(owner, path).join(STATE).join(ADAPTER),
            _ => self.folder(owner, path).join(ADAPTER),
        }
    }

    /// Where the trainer's state is.
    pub fn state(&self, owner: &Owner, path: &CheckpointPath) -> PathBuf {
        self.folder(owner, path).join(STATE)
    }

    /// Takes a new run in.
    pub fn add_run(&self, owner: &Owner, record: RunRecord) -> Result<(), StoreError> {
        let folder = self.run_folder(owner, &record.id);
        write_json_pretty(&folder.join(RUN), &record)?;
        let key = (owner.clone(), record.id.clone());
        let mut runs = self.lock();
        let fresh = Run { record: record.clone(), checkpoints: BTreeMap::new(), live: false };
        runs.entry(key).or_insert(fresh).record = record;
        Ok(())
    }

    /// Writes the sessions there are, so that their clients find them after a start.
    pub fn write_sessions(&self, sessions: &[SessionRecord]) -> Result<(), StoreError> {
        write_json_pretty(&self.root.join(SESSIONS), &sessions)
    }

    /// The sessions there were.
    pub fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        Ok(read_json_if_there(&self.root.join(SESSIONS))?.unwrap_or_default())
    }

    /// Writes results for clients that come for them after a start.
    pub fn write_results(&self, results: &[ResultRecord]) -> Result<(), StoreError> {
        write_json_pretty(&self.root.join(RESULTS), &results)
    }

    /// The results that the last end kept, once.
    pub fn take_results(&self) -> Result<Vec<ResultRecord>, StoreError> {
        let path = self.root.join(RESULTS);
        let results = read_json_if_there(&path)?.unwrap_or_default();
        let _ = fs::remove_file(path);
        Ok(results)
    }

    /// Takes note of a run's last request, in memory; the file follows with the next checkpoint.
    pub fn touch(&self, owner: &Owner, run: &str) {
        if let Some(run) = self.lock().get_mut(&(owner.clone(), run.to_owned())) {
            run.record.last_request = Utc::now();
        }
    }

    /// Writes a checkpoint: `write` fills its folder, which is put in place whole.
    pub fn write(
        &self,
        owner: &Owner,
        mut record: CheckpointRecord,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let target = self.folder(owner, &record.path);
        replace_folder::<TrainError>(&target, |fresh| {
            match record.path.kind {
                CheckpointKind::Weights => {
                    let state = fresh.join(STATE);
                    fs::create_dir_all(&state).map_err(io(&state))?;
                    write(&state)?;
                }
                _ => write(&fresh.join(ADAPTER))?,
            }
            record.bytes = size(fresh);
            Ok(write_json_pretty(&fresh.join(RECORD), &record)?)
        })?;
        flush_folder(target.parent());

        let key = (owner.clone(), record.path.run.clone());
        let mut runs = self.lock();
        if let Some(run) = runs.get_mut(&key) {
            let at = (record.path.kind, record.path.name.clone());
            run.checkpoints.insert(at, record);
            let _ = write_json_pretty(&self.run_folder(owner, &key.1).join(RUN), &run.record);
        }
        Ok(())
    }

    /// A checkpoint that is there and has not expired.
    pub fn get(&self, owner: &Owner, path: &CheckpointPath) -> Result<CheckpointRecord, Refusal> {
        let runs = self.lock();
        let run = runs.get(&(owner.clone(), path.run.clone()));
        let found = run.and_then(|run| run.checkpoints.get(&(path.kind, path.name.clone())));
        let found = found.filter(|record| record.expires.is_none_or(|at| at > Utc::now()));
        found.cloned().ok_or_else(|| Refusal::not_found(format!("there is no checkpoint {path}")))
    }

    /// Whether there is one of this path.
    pub fn has(&self, owner: &Owner, path: &CheckpointPath) -> bool {
        self.get(owner, path).is_ok()
    }

    /// Removes a checkpoint.
    pub fn delete(&self, owner: &Owner, path: &CheckpointPath) -> Result<(), Refusal> {
        self.get(owner, path)?;
        self.remove(owner, path)
    }

    fn remove(&self, owner: &Owner, path: &CheckpointPath) -> Result<(), Refusal> {
        let folder = self.folder(owner, path);
        // Renamed first: a death in between leaves nothing that looks like a checkpoint.
        let doomed = folder.with_file_name(format!(".deleted-{}", path.name));
        let _ = fs::remove_dir_all(&doomed);
        let removed = fs::rename(&folder, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
        removed.map_err(|error| Refusal::server(&error))?;

        if let Some(run) = self.lock().get_mut(&(owner.clone(), path.run.clone())) {
            run.checkpoints.remove(&(path.kind, path.name.clone()));
        }
        Ok(())
    }

    /// Says when a checkpoint expires.
    pub fn expire(
        &self,
        owner: &Owner,
        path: &CheckpointPath,
        expires: Option<DateTime<Utc>>,
    ) -> Result<(), Refusal> {
        let mut record = self.get(owner, path)?;
        record.expires = expires;
        write_json_pretty(&self.folder(owner, path).join(RECORD), &record)?;
        if let Some(run) = self.lock().get_mut(&(owner.clone(), path.run.clone())) {
            run.checkpoints.insert((path.kind, path.name.clone()), record);
        }
        Ok(())
    }

    /// Removes what has expired.
    pub fn sweep(&self) {
        let now = Utc::now();
        let expired: Vec<(Owner, CheckpointPath)> = {
            let runs = self.lock();
            let all = runs.iter().flat_map(|((owner, _), run)| {
                run.checkpoints.values().map(move |record| (owner.clone(), record))
            });
            let over = all.filter(|(_, record)| record.expires.is_some_and(|at| at <= now));
            over.map(|(owner, record)| (owner, record.path.clone())).collect()
        };
        for (owner, path) in expired {
            // Another one may have been written in its place meanwhile.
            let record = self.get(&owner, &path);
            if record.is_ok_and(|record| record.expires.is_none_or(|at| at > now)) {
                continue;
            }
            if let Err(error) = self.remove(&owner, &path) {
                tracing::warn!("{path} has expired and cannot be removed: {}", error.detail);
            }
        }
    }

    /// An owner's runs, the newest first.
    pub fn runs(&self, owner: &Owner) -> Vec<Run> {
        let runs = self.lock();
        let own = runs.iter().filter(|((whose, _), _)| whose == owner);
        let mut own: Vec<Run> = own.map(|(_, run)| run.clone()).collect();
        own.sort_by_key(|run| std::cmp::Reverse(run.record.created));
        own
    }

    /// A run of an owner.
    pub fn run(&self, owner: &Owner, run: &str) -> Option<Run> {
        self.lock().get(&(owner.clone(), run.to_owned())).cloned()
    }

    /// All checkpoints there are, with their owners.
    pub fn all(&self) -> Vec<(Owner, CheckpointRecord)> {
        let runs = self.lock();
        let of_run = |((owner, _), run): (&(Owner, String), &Run)| {
            let records = run.checkpoints.values().cloned();
            records.map(|record| (owner.clone(), record)).collect::<Vec<_>>()
        };
        runs.iter().flat_map(of_run).collect()
    }

    /// Bytes of an owner's checkpoints.
    pub fn bytes(&self, owner: &Owner) -> u64 {
        let runs = self.lock();
        let own = runs.iter().filter(|((whose, _), _)| whose == owner);
        own.flat_map(|(_, run)| run.checkpoints.values()).map(|record| record.bytes).sum()
    }

    /// Keeps a model in training over the end of the process.
    pub fn write_live(
        &self,
        owner: &Owner,
        run: &str,
        record: &LiveRecord,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        replace_folder::<TrainError>(&self.run_folder(owner, run).join(LIVE), |fresh| {
            let state = fresh.join(STATE);
            fs::create_dir_all(&state).map_err(io(&state))?;
            write(&state)?;
            Ok(write_json_pretty(&fresh.join(RECORD), record)?)
        })
    }

    /// What an orderly end kept of a model: its record and where its trainer's state is.
    pub fn live(
        &self,
        owner: &Owner,
        run: &str,
    ) -> Result<Option<(LiveRecord, PathBuf)>, StoreError> {
        let folder = self.run_folder(owner, run).join(LIVE);
        let record = read_json_if_there(&folder.join(RECORD))?;
        Ok(record.map(|record| (record, folder.join(STATE))))
    }

    /// Forgets it: once the model trains on, it would be taken for the present one.
    pub fn forget_live(&self, owner: &Owner, run: &str) {
        let folder = self.run_folder(owner, run).join(LIVE);
        let doomed = folder.with_file_name(".deleted-live");
        let _ = fs::rename(&folder, &doomed);
        let _ = fs::remove_dir_all(&doomed);
        if let Some(run) = self.lock().get_mut(&(owner.clone(), run.to_owned())) {
            run.live = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        // Nothing panics while the lock is held.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a run's folder, and clears away what was being written when the process died. A folder
/// without its record was never acknowledged.
fn read_run(folder: &Path) -> Result<Option<Run>, StoreError> {
    let Some(record) = read_json_if_there::<RunRecord>(&folder.join(RUN))? else {
        return Ok(None);
    };

    let mut checkpoints = BTreeMap::new();
    for kind in CheckpointKind::ALL {
        let of_kind = folder.join(kind.as_str());
        for name in entries(&of_kind) {
            let path = of_kind.join(&name);
            if name.starts_with('.') {
                let _ = fs::remove_dir_all(&path);
            } else if let Some(whole) = name.strip_suffix(".old") {
                // The old one goes back if its replacement was cut off, and away if it was not.
                recover_folder(&of_kind.join(whole))?;
                let _ = fs::remove_dir_all(&path);
            }
        }
        for name in folders(&of_kind) {
            let file = of_kind.join(&name).join(RECORD);
            if file.is_file() {
                checkpoints.insert((kind, name), read_json(&file)?);
            }
        }
    }

    let live = folder.join(LIVE).join(RECORD).is_file();
    Ok(Some(Run { record, checkpoints, live }))
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn folders(folder: &Path) -> Vec<String> {
    let mut names = entries(folder);
    names.retain(|name| !name.starts_with('.') && folder.join(name).is_dir());
    names.sort();
    names
}

/// Bytes of a folder's files.
fn size(folder: &Path) -> u64 {
    let of_entry = |name: String| {
        let path = folder.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => size(&path),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        }
    };
    entries(folder).into_iter().map(of_entry).sum()
}

/// Has the system write a folder's entries, where it can: a rename is then on the disk.
fn flush_folder(folder: Option<&Path>) {
    if let Some(Ok(file)) = folder.map(fs::File::open) {
        let _ = file.sync_all();
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_owned();
    move |source| TrainError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LoraSpec {
        LoraSpec { rank: 4, train_attn: true, train_mlp: true, train_unembed: true }
    }

    fn run(id: &str) -> RunRecord {
        RunRecord {
            id: id.into(),
            session: "s".into(),
            base_model: "tiny".into(),
            lora: spec(),
            seed: 1,
            user_metadata: Map::new(),
            created: Utc::now(),
            last_request: Utc::now(),
        }
    }

    fn checkpoint(path: &CheckpointPath) -> CheckpointRecord {
        CheckpointRecord {
            path: path.clone(),
            request: "r".into(),
            base_model: "tiny".into(),
            lora: spec(),
            seed: 1,
            step: 3,
            created: Utc::now(),
            expires: None,
            user_metadata: Map::new(),
            bytes: 0,
        }
    }

    fn write(store: &Checkpoints, path: &CheckpointPath, text: &str) {
        let fill = |folder: &Path| fs::write(folder.join("file"), text).map_err(io(folder));
        store.write(&Owner::local(), checkpoint(path), fill).unwrap();
    }

    #[test]
    fn a_path_reads_as_it_is_written_and_none_leaves_the_folder() {
        let path: CheckpointPath = "tinker://a:train:0/weights/000010".parse().unwrap();
        assert_eq!(path.to_string(), "tinker://a:train:0/weights/000010");
        assert_eq!(path.id(), "weights/000010");
        for wrong in [
            "tinker://a/weights/..",
            "tinker://../weights/x",
            "tinker://a/weights/.hidden",
            "tinker://a/weights/x.old",
            "tinker://a/weights/x/y",
            "tinker://a/other/x",
            "tinker://a/weights/",
            "tinker://a/weights/\u{0}",
            "a/weights/x",
        ] {
            assert!(wrong.parse::<CheckpointPath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_start_and_what_was_cut_off_is_not() {
        let data = tempfile::tempdir().unwrap();
        let owner = Owner::local();
        let path: CheckpointPath = "tinker://a/weights/one".parse().unwrap();
        let replaced: CheckpointPath = "tinker://a/weights/two".parse().unwrap();
        let store = Checkpoints::open(data.path()).unwrap();
        store.add_run(&owner, run("a")).unwrap();
        write(&store, &path, "first");
        write(&store, &replaced, "old");

        // A death between the two renames of a replacement, and one while a folder was written.
        let folder = store.folder(&owner, &replaced);
        fs::rename(&folder, folder.with_file_name("two.old")).unwrap();
        fs::create_dir(folder.with_file_name(".writing-xyz")).unwrap();
        fs::create_dir(folder.with_file_name("no-record")).unwrap();
        assert!(Checkpoints::open(data.path()).is_err(), "the folder is this process's own");
        drop(store);

        let store = Checkpoints::open(data.path()).unwrap();
        assert!(store.has(&owner, &path) && store.has(&owner, &replaced));
        let state = store.state(&owner, &replaced);
        assert_eq!(fs::read_to_string(state.join("file")).unwrap(), "old");
        assert_eq!(store.runs(&owner)[0].checkpoints.len(), 2);
        assert!(!folder.with_file_name(".writing-xyz").exists());
        assert!(store.runs(&Owner::of_folder("other")).is_empty());
    }

    #[test]
    fn a_checkpoint_expires_and_goes() {
        let data = tempfile::tempdir().unwrap();
        let owner = Owner::local();
        let store = Checkpoints::open(data.path()).unwrap();
        store.add_run(&owner, run("a")).unwrap();
        let path: CheckpointPath = "tinker://a/weights/one".parse().unwrap();
        write(&store, &path, "text");
        assert!(store.bytes(&owner) >= 4);

        store.expire(&owner, &path, Some(Utc::now() - chrono::TimeDelta::seconds(1))).unwrap();
        assert!(!store.has(&owner, &path));
        store.sweep();
        assert!(!store.folder(&owner, &path).exists());
        assert_eq!(store.bytes(&owner), 0);
        assert!(store.delete(&owner, &path).is_err());
    }
}
