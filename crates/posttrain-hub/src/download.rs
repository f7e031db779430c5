//! The way from the hub into the cache.

use crate::listing::{self, Listed};
use crate::transfer::{self, Transfer, put_in_snapshot};
use crate::verify::{has_size, verify};
use crate::{DownloadProgress, Files, HubConfig, HubError, HubModel};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use secrecy::ExposeSecret;
use std::path::PathBuf;
use std::sync::Mutex;

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its folder, which opens like any local one.
    pub folder: PathBuf,
    /// The commit that its files are of.
    pub commit: String,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
}

/// Brings a model into the cache, as far as it is not there, and gives its folder.
///
/// # Errors
/// [`HubError`] names the model, the file and what can be done.
pub fn fetch(
    model: &HubModel,
    config: &HubConfig,
    progress: &dyn DownloadProgress,
) -> Result<Fetched, HubError> {
    std::fs::create_dir_all(&config.cache).map_err(io(&config.cache))?;
    let root = std::fs::canonicalize(&config.cache).map_err(io(&config.cache))?;
    let cache = Cache::new(root);

    if config.offline {
        return cached(model, &cache, config.files);
    }

    let api = api(model, config, &cache)?;
    let (commit, files) = listing::parse(model, &list(model, &api)?)?;
    let mut files = listing::wanted(model, files)?;
    files.retain(|file| config.files == Files::All || !file.is_weights());

    let pinned = repo(model, &commit);
    let at_commit = cache.repo(pinned.clone());
    at_commit.create_ref(&commit).map_err(io(cache.path()))?;

    let missing: Vec<Listed> = files
        .into_iter()
        .filter(|f| !at_commit.get(&f.name).is_some_and(|path| has_size(&path, f)))
        .collect();

    let bytes = missing.iter().filter_map(|f| f.size).sum();
    progress.begin(missing.len(), bytes);
    let downloads = Downloads {
        model,
        config,
        api: &api,
        agent: transfer::agent(),
        cache: &at_commit,
        pinned: &pinned,
        commit: &commit,
        progress,
    };
    downloads.run(missing, config.parallel.max(1))?;

    // Last, so that a revision never leads to a commit whose files are not all there.
    if config.files == Files::All {
        cache.repo(repo(model, &model.revision)).create_ref(&commit).map_err(io(cache.path()))?;
    }

    Ok(Fetched { folder: at_commit.pointer_path(&commit), commit, fetched_bytes: bytes })
}

fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_path_buf();
    move |source| HubError::Io { path, source }
}

fn repo(model: &HubModel, revision: &str) -> Repo {
    Repo::with_revision(model.id.clone(), RepoType::Model, revision.into())
}

fn api(model: &HubModel, config: &HubConfig, cache: &Cache) -> Result<Api, HubError> {
    let token = config.token.as_ref().map(|t| t.expose_secret().to_owned());
    let builder = ApiBuilder::from_cache(cache.clone())
        .with_endpoint(config.endpoint.clone())
        .with_token(token);
    let built = builder.with_progress(false).with_retries(config.retries).build();
    built.map_err(|e| request_error(model, "setting the client up".into(), &e.to_string()))
}

/// The hub's answer to what the model has at its revision.
fn list(model: &HubModel, api: &Api) -> Result<serde_json::Value, HubError> {
    let doing = || "asking for its files".to_owned();
    let request = api.repo(repo(model, &model.revision)).info_request().query("blobs", "true");
    let mut response = request.call().map_err(|e| request_error(model, doing(), &e.to_string()))?;
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|e| request_error(model, doing(), &e.to_string()))?;

    serde_json::from_str(&text)
        .map_err(|e| request_error(model, doing(), &format!("not JSON: {e}")))
}

fn request_error(model: &HubModel, doing: String, reason: &str) -> HubError {
    let advice = if reason.contains("401") || reason.contains("403") {
        ": it may be gated or private; accept its terms on the hub, and set HF_TOKEN"
    } else if reason.contains("404") {
        ": there is no such model, revision or file, or it is private and HF_TOKEN is not set"
    } else {
        ""
    };
    HubError::Request { model: model.to_string(), doing, reason: reason.into(), advice }
}

/// What every download needs to know.
struct Downloads<'a> {
    model: &'a HubModel,
    config: &'a HubConfig,
    api: &'a Api,
    agent: ureq::Agent,
    cache: &'a CacheRepo,
    pinned: &'a Repo,
    commit: &'a str,
    progress: &'a dyn DownloadProgress,
}

impl Downloads<'_> {
    /// Downloads files, `parallel` at a time, the largest first. The first error ends the others
    /// once their files are done.
    fn run(&self, mut files: Vec<Listed>, parallel: usize) -> Result<(), HubError> {
        files.sort_by_key(|f| f.size);
        let parallel = parallel.min(files.len());
        let queue = Mutex::new(files);
        let failure = Mutex::new(None);

        std::thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(|| {
                    while let Some(file) = next(&queue, &failure) {
                        if let Err(error) = self.download(&file) {
                            locked(&failure).get_or_insert(error);
                        }
                    }
                });
            }
        });

        let failure = locked(&failure).take();
        failure.map_or(Ok(()), Err)
    }

    fn download(&self, file: &Listed) -> Result<(), HubError> {
        let failed = |e: ApiError| {
            request_error(self.model, format!("fetching {}", file.name), &e.to_string())
        };
        let repo: ApiRepo = self.api.repo(self.pinned.clone());
        let metadata = self.api.metadata(&repo.url(&file.name)).map_err(failed)?;

        // Files are named by what the server sends.
        if !is_plain(metadata.etag()) || metadata.commit_hash() != self.commit {
            let reason = format!(
                "it has the tag `{}` at commit `{}`",
                metadata.etag(),
                metadata.commit_hash()
            );
            return Err(request_error(
                self.model,
                format!("fetching {} at {}", file.name, self.commit),
                &reason,
            ));
        }

        let contents = self.cache.blob_path(metadata.etag());
        if let Some(folder) = contents.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let transfer = Transfer {
            agent: &self.agent,
            url: &repo.url(&file.name),
            token: self.config.token.as_ref().map(ExposeSecret::expose_secret),
            name: &file.name,
            size: file.size.unwrap_or(metadata.size() as u64),
            retries: self.config.retries,
            progress: self.progress,
        };
        transfer.run(&contents).map_err(|error| {
            request_error(self.model, format!("fetching {}", file.name), &error.to_string())
        })?;

        let snapshot = self.cache.pointer_path(self.commit);
        let path = put_in_snapshot(&contents, &snapshot, &file.name).map_err(io(&snapshot))?;
        verify(&path, file)
    }
}

fn next(queue: &Mutex<Vec<Listed>>, failure: &Mutex<Option<HubError>>) -> Option<Listed> {
    if locked(failure).is_some() { None } else { locked(queue).pop() }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// A panic of another thread leaves nothing half done here.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The model as the cache has it.
fn cached(model: &HubModel, cache: &Cache, files: Files) -> Result<Fetched, HubError> {
    let missing = |missing: String| HubError::Offline {
        model: model.to_string(),
        missing,
        cache: cache.path().clone(),
    };

    let commit =
        commit_of(model, cache).ok_or_else(|| missing(format!("revision {}", model.revision)))?;
    let folder = cache.repo(repo(model, &commit)).pointer_path(&commit);

    let has = |file: &str| folder.join(file).is_file();
    if !has("config.json") {
        return Err(missing("config.json".into()));
    }

    let shards = shards(&folder).unwrap_or_else(|| vec!["model.safetensors".into()]);
    if let Some(shard) = shards.into_iter().find(|shard| files == Files::All && !has(shard)) {
        return Err(missing(shard));
    }

    Ok(Fetched { folder, commit, fetched_bytes: 0 })
}

fn commit_of(model: &HubModel, cache: &Cache) -> Option<String> {
    let at: CacheRepo = cache.repo(repo(model, &model.revision));
    if model.is_pinned() && at.pointer_path(&model.revision).is_dir() {
        return Some(model.revision.clone());
    }

    let folder =
        cache.path().join(repo(model, "main").folder_name()).join("refs").join(&model.revision);
    let commit = std::fs::read_to_string(folder).ok()?.trim().to_owned();
    commit.chars().all(|c| c.is_ascii_alphanumeric()).then_some(commit).filter(|c| !c.is_empty())
}

/// The shards that an index in the folder lists, if there is one.
fn shards(folder: &std::path::Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(folder.join("model.safetensors.index.json")).ok()?;
    let index: serde_json::Value = serde_json::from_str(&text).ok()?;
    let files = index
        .get("weight_map")?
        .as_object()?
        .values()
        .filter_map(|v| v.as_str().map(str::to_owned));

    let mut files: Vec<String> = files.collect();
    files.sort_unstable();
    files.dedup();
    Some(files)
}
