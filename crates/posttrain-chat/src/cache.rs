//! A cache of answers on disk, around any model.

mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::{ChatError, ChatModel, ChatRequest, ChatResponse};
use folder::CacheFolder;

/// Which answers are kept.
///
/// ```
/// assert_eq!(posttrain_chat::cache::CachePolicy::default(), posttrain_chat::cache::CachePolicy::Deterministic);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CachePolicy {
    /// Those at temperature 0.
    #[default]
    Deterministic,
    /// All. At a temperature above 0 a request draws once and gets that draw for ever: votes must
    /// differ in their seeds.
    Always,
}

/// Configuration of a [`CachedChat`].
///
/// ```
/// let config: posttrain_chat::cache::CacheConfig = toml::from_str("folder = \"runs/judge-cache\"")?;
/// assert_eq!(config.max_bytes, 1 << 30);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// The cache's own folder, made if it is not there; not empty.
    pub folder: PathBuf,
    /// Bytes of all entries together, at least 1; past it the oldest go. The default, 1 GiB (about
    /// half a million verdicts), is this crate's choice.
    pub max_bytes: u64,
    /// Which answers are kept; by default those at temperature 0.
    pub policy: CachePolicy,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { folder: PathBuf::new(), max_bytes: 1 << 30, policy: CachePolicy::Deterministic }
    }
}

impl CacheConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// assert!(posttrain_chat::cache::CacheConfig::default().validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), ChatError> {
        if self.folder.as_os_str().is_empty() {
            return Err(ChatError::invalid_config("folder", "empty", "the path of a folder"));
        }
        if self.max_bytes == 0 {
            return Err(ChatError::invalid_config("max_bytes", 0, "at least 1"));
        }
        Ok(())
    }
}

/// What a cache did.
///
/// ```
/// assert_eq!(posttrain_chat::cache::CacheCounts::default().hits, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheCounts {
    /// Answers that were there.
    pub hits: u64,
    /// Answers that the model had to give.
    pub misses: u64,
    /// Requests that the policy keeps out.
    pub bypassed: u64,
    /// Answers that could not be written, which costs money but no correctness.
    pub failed_writes: u64,
}

/// A model whose answers are kept on disk.
///
/// The key is the SHA-256 of the full request and the model's [`identity`](ChatModel::identity)
/// (name, servers, settings). An entry is written beside and renamed into place, so any number of
/// tasks and processes may share the folder. An entry that is damaged, or of another version,
/// counts as none and is written anew. Only complete answers are kept: never errors, refusals,
/// empty or truncated ones. An entry holds the answer and no part of the request.
///
/// ```
/// use posttrain_chat::{ChatModel, ChatRequest, ChatResponse, Message, from_fn};
/// use posttrain_chat::cache::{CacheConfig, CachedChat};
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let folder = tempfile::tempdir()?;
/// let config = CacheConfig { folder: folder.path().into(), ..CacheConfig::default() };
/// let four = from_fn("four", async |_: ChatRequest| Ok(ChatResponse::from_text("4")));
/// let cached = CachedChat::new(std::sync::Arc::new(four), config)?;
///
/// let request = ChatRequest::new([Message::user("2 + 2?")]);
/// for _ in 0..3 {
///     assert_eq!(runtime.block_on(cached.complete(&request))?.text, "4");
/// }
/// assert_eq!((cached.counts().misses, cached.counts().hits), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CachedChat {
    model: Arc<dyn ChatModel>,
    folder: Arc<CacheFolder>,
    policy: CachePolicy,
    hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    failed_writes: AtomicU64,
}

impl CachedChat {
    /// Opens the folder.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`]; [`ChatError::Cache`] where the folder cannot be made or read.
    ///
    /// ```
    /// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
    /// use posttrain_chat::cache::{CacheConfig, CachedChat};
    ///
    /// let model = std::sync::Arc::new(from_fn("four", async |_: ChatRequest| Ok(ChatResponse::from_text("4"))));
    /// let config = CacheConfig { folder: "/dev/null/cache".into(), ..CacheConfig::default() };
    /// assert_eq!(CachedChat::new(model, config).err().unwrap().cause(), "cache");
    /// ```
    pub fn new(model: Arc<dyn ChatModel>, config: CacheConfig) -> Result<Self, ChatError> {
        config.validate()?;
        let folder = Arc::new(CacheFolder::open(config.folder, config.max_bytes)?);
        let (hits, misses, bypassed, failed_writes) = Default::default();
        Ok(Self { model, folder, policy: config.policy, hits, misses, bypassed, failed_writes })
    }

    /// What it did since it was opened.
    ///
    /// ```no_run
    /// # fn counts(cached: posttrain_chat::cache::CachedChat) {
    /// println!("{} answers were paid for", cached.counts().misses);
    /// # }
    /// ```
    pub fn counts(&self) -> CacheCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheCounts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            bypassed: read(&self.bypassed),
            failed_writes: read(&self.failed_writes),
        }
    }

    fn key(&self, request: &ChatRequest) -> String {
        let whole = json!({"model": self.model.name(), "identity": self.model.identity(), "request": request});
        format!("{:x}", Sha256::digest(whole.to_string()))
    }

    async fn answer(&self, request: &ChatRequest) -> Result<ChatResponse, ChatError> {
        if self.policy == CachePolicy::Deterministic && request.temperature > 0.0 {
            self.bypassed.fetch_add(1, Ordering::Relaxed);
            return self.model.complete(request).await;
        }
        let key = self.key(request);
        if let Some(response) = self.read(key.clone()).await {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(response);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let response = self.model.complete(request).await?;
        let complete = !response.finish_reason.is_truncated() && response.refusal.is_none();
        let says_something = !response.text.trim().is_empty() || !response.tool_calls.is_empty();
        if complete && says_something {
            self.write(key, response.clone()).await;
        }
        Ok(response)
    }

    async fn read(&self, key: String) -> Option<ChatResponse> {
        let folder = Arc::clone(&self.folder);
        spawn_blocking(move || folder.read(&key)).await.ok().flatten()
    }

    /// A failed write costs the next caller an answer; it does not cost this one theirs.
    async fn write(&self, key: String, response: ChatResponse) {
        let folder = Arc::clone(&self.folder);
        let written = spawn_blocking(move || folder.write(&key, &response)).await;
        if let Ok(Err(error)) = written
            && self.failed_writes.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(%error, "an answer could not be kept");
        }
    }
}

impl ChatModel for CachedChat {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn identity(&self) -> String {
        self.model.identity()
    }

    fn complete<'a>(
        &'a self,
        request: &'a ChatRequest,
    ) -> BoxFuture<'a, Result<ChatResponse, ChatError>> {
        self.answer(request).boxed()
    }
}
