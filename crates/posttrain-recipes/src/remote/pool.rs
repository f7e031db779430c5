//! All servers: who is asked, and what becomes of what one held that is gone.

use super::server::{Ask, Claim, Failure, Server};
use super::wire::Dialect;
use super::{SamplerConfig, ServersConfig};
use crate::RecipeError;
use posttrain_lora::{Adapter, save_peft};
use posttrain_model::TextModel;
use posttrain_rollout::{Completion, Outcome, PolicySnapshot, SamplingParams};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Folders of policies that are kept: those that a server may be given yet.
const FOLDERS: usize = 4;

/// A group to be sampled.
pub(crate) struct RemoteGroup {
    pub prompt: Vec<i64>,
    pub policy: Option<PolicySnapshot>,
    pub samples: usize,
    pub params: SamplingParams,
}

/// Samples groups by servers elsewhere.
pub(crate) struct RemoteSampler {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<Server>,
    model: TextModel,
    slots: Semaphore,
    patience: Duration,
    choosing: Mutex<()>,
    folders: Mutex<Folders>,
}

/// Policies as PEFT folders, oldest first.
struct Folders {
    root: PathBuf,
    written: VecDeque<(PolicySnapshot, Arc<Path>)>,
    count: u64,
}

impl RemoteSampler {
    /// The sampler of a configuration; none where this process samples itself.
    pub fn of(config: &SamplerConfig, model: &TextModel) -> Result<Option<Self>, RecipeError> {
        config.validate()?;
        let servers = config.servers();
        servers.map(|(config, dialect)| Self::new(config, dialect, model)).transpose()
    }

    fn new(
        config: &ServersConfig,
        dialect: Dialect,
        model: &TextModel,
    ) -> Result<Self, RecipeError> {
        let servers = config.urls.iter().map(|url| Server::new(url, config, dialect));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let root = config.adapters.clone().unwrap_or_else(std::env::temp_dir);
        // Of this process alone: several ranks, and several runs, may share the folder.
        let own = format!("posttrain-{}-{:08x}", std::process::id(), fastrand::u32(..));
        Ok(Self {
            shared: Arc::new(Shared {
                slots: Semaphore::new(config.in_flight * servers.len()),
                servers,
                model: model.clone(),
                patience: Duration::from_secs_f64(config.patience_seconds),
                choosing: Mutex::new(()),
                folders: Mutex::new(Folders {
                    root: root.join(own),
                    written: VecDeque::new(),
                    count: 0,
                }),
            }),
        })
    }

    /// Samples groups and hands their completions on as they come, until `watch` breaks off; the
    /// tokens that were sampled.
    pub fn run(
        &self,
        groups: Vec<RemoteGroup>,
        runtime: &tokio::runtime::Handle,
        mut watch: impl FnMut(Outcome) -> ControlFlow<()>,
    ) -> Result<usize, RecipeError> {
        let (send, receive) = mpsc::channel();
        // To drop them is to give up what is under way.
        let mut asking = JoinSet::new();
        let left = groups.len();
        for (index, group) in groups.into_iter().enumerate() {
            let (shared, send) = (self.shared.clone(), send.clone());
            let ask = async move {
                // Nobody listens once one has failed.
                drop(send.send((index, shared.sample(&group).await)));
            };
            asking.spawn_on(ask, runtime);
        }
        drop(send);

        let mut tokens = 0;
        for _ in 0..left {
            let Ok((request, completions)) = receive.recv() else {
                // A sender that is gone without a word has panicked.
                while let Some(ended) = runtime.block_on(asking.join_next()) {
                    if let Err(panic) = ended {
                        std::panic::resume_unwind(panic.into_panic());
                    }
                }
                return Err(RecipeError::SamplerEnded);
            };
            for (sample, completion) in completions?.into_iter().enumerate() {
                tokens += completion.tokens.len();
                let outcome = Outcome { request, sample, result: Ok(completion) };
                if watch(outcome).is_break() {
                    return Ok(tokens);
                }
            }
        }
        Ok(tokens)
    }
}

impl Shared {
    async fn sample(&self, group: &RemoteGroup) -> Result<Vec<Completion>, RecipeError> {
        // Never closed.
        let _slot = self.slots.acquire().await;
        // Held, so that it is there for as long as the group may need it.
        let folder = group.policy.as_ref().map(|policy| self.folder(policy)).transpose()?;
        let ask = Ask {
            policy: group.policy.as_ref(),
            folder: folder.as_deref(),
            prompt: &group.prompt,
            samples: group.samples,
            params: &group.params,
            model: &self.model.decoder,
        };
        let mut failing_since: Option<Instant> = None;
        loop {
            let (server, _claim) = self.least_loaded()?;
            tokio::time::sleep(server.rests()).await;
            match server.ask(&ask).await {
                Ok(mut completions) => {
                    for completion in &mut completions {
                        completion.text = self.text(&completion.tokens, &group.params.stop)?;
                    }
                    return Ok(completions);
                }
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.patience {
                        let seconds = self.patience.as_secs_f64();
                        let reason = format!("no server was of use for {seconds} s: {reason}");
                        return Err(RecipeError::Sampler { url: server.url.clone(), reason });
                    }
                }
            }
        }
    }

    /// What is rewarded: the text of the tokens that are learned, and not what a server says it is.
    fn text(&self, tokens: &[i64], stop: &[String]) -> Result<String, RecipeError> {
        let mut text = self.model.tokenizer.decode(tokens)?;
        let end = stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
        text.truncate(end.unwrap_or(text.len()));
        Ok(text)
    }

    /// Of the servers that do not rest, or will the soonest, the one that is asked for the fewest
    /// groups.
    fn least_loaded(&self) -> Result<(&Server, Claim<'_>), RecipeError> {
        // One at a time, so that not all take the same one.
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.servers.iter().min_by_key(|s| (s.rests(), s.in_flight()));
        let expected = "the address of at least one server";
        let none = || RecipeError::Config { field: "sampler.urls", expected, got: "none".into() };
        let server = server.ok_or_else(none)?;
        Ok((server, server.claim()))
    }

    /// The policy's PEFT folder, written where it is not there.
    fn folder(&self, policy: &PolicySnapshot) -> Result<Arc<Path>, RecipeError> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, path)) = folders.written.iter().find(|(other, _)| other.is(policy)) {
            return Ok(path.clone());
        }
        folders.count += 1;
        let path = folders.root.join(format!("v{}-{}", policy.version, folders.count));
        let adapter = Adapter::from_view(&policy.adapter, self.model.decoder.modules())?;
        save_peft(&adapter, &path, "")?;
        let path: Arc<Path> = path.into();
        folders.written.push_back((policy.clone(), path.clone()));
        let idle = |(_, path): &(PolicySnapshot, Arc<Path>)| Arc::strong_count(path) == 1;
        while folders.written.len() > FOLDERS
            && let Some(place) = folders.written.iter().position(idle)
        {
            if let Some((_, old)) = folders.written.remove(place) {
                remove(&old);
            }
        }
        Ok(path)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if self.count > 0 {
            remove(&self.root);
        }
    }
}

/// What is left lying costs room, and nothing else.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::debug!("{}: {error}", path.display());
    }
}
