//! Checkpoints on the disk: what was acknowledged is there, whole, whenever the process dies.
//!
//! ```text
//! DATA/lock, DATA/sessions.json, DATA/results.json
//! DATA/owners/OWNER/runs/RUN/run.json
//! DATA/owners/OWNER/runs/RUN/{weights,sampler_weights,external_weights}/NAME/{checkpoint.json, adapter/, …}
//! DATA/owners/OWNER/runs/RUN/live/           what an orderly end left of a model in training
//! ```

mod path;
mod record;

pub(crate) use path::{CheckpointKind, CheckpointPath};
pub(crate) use record::{CheckpointRecord, LiveRecord, LoraSpec, RunRecord, SessionRecord};

use crate::keys::Owner;
use crate::promises::ResultRecord;
use crate::refusal::Refusal;
use chrono::{DateTime, Utc};
use posttrain_store::{
    FolderLock, StoreError, lock_folder, read_json, read_json_if_there, recover_folder,
    replace_folder, write_json_pretty,
};
use posttrain_train::TrainError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    use serde_json::Map;

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
