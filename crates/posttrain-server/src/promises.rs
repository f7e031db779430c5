//! Results that clients come back for: each request has one, whoever asks for it and how often.

use crate::keys::Owner;
use crate::refusal::Refusal;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A result that is kept over the end of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultRecord {
    pub id: String,
    pub owner: String,
    pub kind: String,
    pub outcome: KeptOutcome,
}

/// An [`Outcome`] as a file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptOutcome {
    Json(Value),
    /// Base64.
    Proto(String),
    Failed(u16, String),
}

/// The kinds of requests that have results.
const KINDS: [&str; 10] = [
    "create_model",
    "load_weights",
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "save_weights_external",
    "unload_model",
    "sample",
];

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A JSON value.
    Json(Value),
    /// A protobuf message.
    Proto(Bytes),
    /// It failed, and why.
    Failed(Refusal),
}

impl Outcome {
    fn bytes(&self) -> usize {
        match self {
            Self::Json(value) => value.to_string().len(),
            Self::Proto(bytes) => bytes.len(),
            Self::Failed(refusal) => refusal.detail.len(),
        }
    }
}

impl<T: Into<Self>> From<Result<T, Refusal>> for Outcome {
    fn from(result: Result<T, Refusal>) -> Self {
        result.map_or_else(Self::Failed, Into::into)
    }
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<Bytes> for Outcome {
    fn from(bytes: Bytes) -> Self {
        Self::Proto(bytes)
    }
}

/// A request that was taken: its place among the promises.
struct Promise {
    owner: Owner,
    /// What kind of request it was: the same number for another kind is a mistake.
    kind: &'static str,
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    bytes: usize,
    finished: Option<Instant>,
    retrieved: bool,
}

#[derive(Default)]
struct Inner {
    promises: HashMap<String, Promise>,
    bytes: usize,
    pending: usize,
}

/// All promises of a server.
pub(crate) struct Promises {
    inner: Mutex<Inner>,
    most_bytes: usize,
}

/// Whether a request came for the first time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It did: whoever asked has to do it.
    New,
    /// It is being done, or was done.
    Again,
}

/// Bytes of a promise beside its id and its outcome, about.
const PROMISE: usize = 256;
/// How long a result that was fetched may be fetched once more, where its answer was lost.
const FETCHED: Duration = Duration::from_secs(10 * 60);
/// How long a result waits for somebody to fetch it.
const UNFETCHED: Duration = Duration::from_secs(4 * 60 * 60);

impl Promises {
    pub fn new(most_bytes: usize) -> Self {
        Self { inner: Mutex::default(), most_bytes }
    }

    /// Takes a request in, unless it was taken before.
    pub fn take(&self, id: &str, owner: &Owner, kind: &'static str) -> Result<Taken, Refusal> {
        let mut inner = self.lock();
        if let Some(known) = inner.promises.get(id) {
            if known.owner == *owner && known.kind == kind {
                return Ok(Taken::Again);
            }
            let detail =
                format!("`seq_id`: {id} was a {} already, and is now a {kind}", known.kind);
            return Err(Refusal::invalid(detail));
        }

        let promise = Promise {
            owner: owner.clone(),
            kind,
            outcome: watch::Sender::new(None),
            bytes: 0,
            finished: None,
            retrieved: false,
        };
        inner.promises.insert(id.to_owned(), promise);
        inner.pending += 1;
        Ok(Taken::New)
    }

    /// Keeps a promise.
    pub fn keep(&self, id: &str, outcome: impl Into<Outcome>) {
        let outcome = outcome.into();
        let mut inner = self.lock();
        let bytes = id.len() + PROMISE + outcome.bytes();
        let Some(promise) = inner.promises.get_mut(id) else { return };
        if promise.finished.is_some() {
            return;
        }

        promise.bytes = bytes;
        promise.finished = Some(Instant::now());
        promise.outcome.send_replace(Some(Arc::new(outcome)));
        inner.bytes += bytes;
        inner.pending -= 1;
        inner.make_room(self.most_bytes);
    }

    /// Puts a result in that was made before the server started.
    pub fn remember(&self, id: &str, owner: &Owner, kind: &'static str, value: Value) {
        if self.take(id, owner, kind) == Ok(Taken::New) {
            self.keep(id, value);
        }
    }

    /// The results that nobody has fetched yet.
    pub fn unfetched(&self) -> Vec<ResultRecord> {
        let inner = self.lock();
        let waiting = inner.promises.iter().filter(|(_, promise)| !promise.retrieved);
        let records = waiting.filter_map(|(id, promise)| {
            let outcome = promise.outcome.borrow().clone()?;
            let kept = match &*outcome {
                Outcome::Json(value) => KeptOutcome::Json(value.clone()),
                Outcome::Proto(bytes) => KeptOutcome::Proto(STANDARD.encode(bytes)),
                Outcome::Failed(refusal) => {
                    KeptOutcome::Failed(refusal.status.as_u16(), refusal.detail.clone())
                }
            };
            let owner = promise.owner.as_str().to_owned();
            Some(ResultRecord { id: id.clone(), owner, kind: promise.kind.into(), outcome: kept })
        });
        records.collect()
    }

    /// Takes up a result that an earlier process kept.
    pub fn restore(&self, record: ResultRecord) {
        let Some(kind) = KINDS.into_iter().find(|kind| *kind == record.kind) else { return };
        let outcome = match record.outcome {
            KeptOutcome::Json(value) => Outcome::Json(value),
            KeptOutcome::Proto(text) => match STANDARD.decode(text) {
                Ok(bytes) => Outcome::Proto(bytes.into()),
                Err(_) => return,
            },
            KeptOutcome::Failed(status, detail) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                Outcome::Failed(Refusal::new(status, detail))
            }
        };
        let owner = Owner::of_folder(&record.owner);
        if self.take(&record.id, &owner, kind) == Ok(Taken::New) {
            self.keep(&record.id, outcome);
        }
    }

    /// Waits for a result; `None` if it has not come in time.
    pub async fn wait(
        &self,
        id: &str,
        owner: &Owner,
        patience: Duration,
    ) -> Result<Option<Arc<Outcome>>, Refusal> {
        let mut outcome = {
            let inner = self.lock();
            let known = inner.promises.get(id).filter(|promise| promise.owner == *owner);
            let known = known.ok_or_else(|| unknown(id))?;
            known.outcome.subscribe()
        };

        let came = tokio::time::timeout(patience, outcome.wait_for(Option::is_some)).await;
        match came {
            Ok(Ok(outcome)) => {
                if let Some(promise) = self.lock().promises.get_mut(id) {
                    promise.retrieved = true;
                }
                Ok(outcome.clone())
            }
            // Thrown out to make room between the two locks.
            Ok(Err(_)) => Err(unknown(id)),
            Err(_) => Ok(None),
        }
    }

    /// Requests that are not done yet.
    pub fn pending(&self) -> usize {
        self.lock().pending
    }

    /// Bytes of the results that are kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Throws out what has been fetched a while ago, and what nobody comes for.
    pub fn sweep(&self, now: Instant) {
        let mut inner = self.lock();
        let mut freed = 0;
        inner.promises.retain(|_, promise| {
            let patience = if promise.retrieved { FETCHED } else { UNFETCHED };
            let stays = promise.finished.is_none_or(|at| now.duration_since(at) < patience);
            freed += if stays { 0 } else { promise.bytes };
            stays
        });
        inner.bytes -= freed;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Throws results out until they fit: of the owner who has most those first that were fetched,
    /// the oldest first.
    fn make_room(&mut self, most: usize) {
        if self.bytes <= most {
            return;
        }
        let mut owners: HashMap<Owner, (usize, BTreeSet<(bool, Instant, String)>)> = HashMap::new();
        for (id, promise) in &self.promises {
            if let Some(at) = promise.finished {
                let (bytes, own) = owners.entry(promise.owner.clone()).or_default();
                *bytes += promise.bytes;
                own.insert((!promise.retrieved, at, id.clone()));
            }
        }
        // An owner's newest stays whatever its size: its client is on the way.
        for (_, own) in owners.values_mut() {
            let newest = own.iter().max_by_key(|(_, at, _)| *at).cloned();
            newest.map(|newest| own.remove(&newest));
        }
        while self.bytes > most {
            let with_some = owners.values_mut().filter(|(_, own)| !own.is_empty());
            let Some((bytes, own)) = with_some.max_by_key(|(bytes, _)| *bytes) else { return };
            let Some((_, _, id)) = own.pop_first() else { return };
            if let Some(promise) = self.promises.remove(&id) {
                self.bytes -= promise.bytes;
                *bytes -= promise.bytes;
            }
        }
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::gone(format!(
        "`request_id`: nothing is known of {id}: it was never made, its result was fetched long ago, or the server has started anew since"
    ))
}

/// How a result that has not come is told to the SDK.
pub(crate) fn try_again(id: &str) -> Value {
    json!({ "type": "try_again", "request_id": id, "queue_state": "active" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(promises: &Promises, id: &str) -> Option<Outcome> {
        ready_of(promises, id, &Owner::local())
    }

    fn ready_of(promises: &Promises, id: &str, owner: &Owner) -> Option<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let waited = runtime.block_on(promises.wait(id, owner, Duration::ZERO));
        waited.ok().flatten().map(|outcome| (*outcome).clone())
    }

    #[test]
    fn a_request_is_taken_once_and_another_kind_by_its_number_refused() {
        let promises = Promises::new(1 << 20);
        let owner = Owner::local();
        assert_eq!(promises.take("m:1", &owner, "optim_step"), Ok(Taken::New));
        assert_eq!(promises.take("m:1", &owner, "optim_step"), Ok(Taken::Again));
        assert!(promises.take("m:1", &owner, "save_weights").is_err());
        assert!(promises.take("m:1", &Owner::of_folder("other"), "optim_step").is_err());
        assert_eq!(promises.pending(), 1);

        promises.keep("m:1", json!({"metrics": {}}));
        promises.keep("m:1", json!({"another": "result"}));
        assert_eq!(ready(&promises, "m:1"), Some(Outcome::Json(json!({"metrics": {}}))));
        assert_eq!(promises.pending(), 0);
    }

    #[test]
    fn results_are_bounded_and_the_fetched_go_first() {
        let promises = Promises::new(25_000);
        let owner = Owner::local();
        for id in ["fetched", "waiting", "newest"] {
            promises.take(id, &owner, "sample").unwrap();
        }
        let large = || Bytes::from(vec![0; 10_000]);
        promises.keep("waiting", large());
        promises.keep("fetched", large());
        assert!(ready(&promises, "fetched").is_some());
        promises.keep("newest", large());
        assert!(ready(&promises, "fetched").is_none());
        assert!(ready(&promises, "waiting").is_some() && ready(&promises, "newest").is_some());
        assert_eq!(promises.bytes(), 2 * (10_000 + PROMISE) + "waiting".len() + "newest".len());

        // Whoever has most makes room, whatever others wait for.
        let other = Owner::of_folder("other");
        promises.take("small", &other, "sample").unwrap();
        promises.keep("small", Bytes::from(vec![0; 1000]));
        promises.take("more", &owner, "sample").unwrap();
        promises.keep("more", large());
        assert!(ready(&promises, "waiting").is_none());
        assert!(ready_of(&promises, "small", &other).is_some());
    }

    #[test]
    fn a_sweep_forgets_what_was_fetched_and_keeps_what_is_pending() {
        let promises = Promises::new(1 << 20);
        let owner = Owner::local();
        promises.take("pending", &owner, "sample").unwrap();
        promises.take("done", &owner, "sample").unwrap();
        promises.keep("done", Bytes::from_static(b"1"));
        promises.sweep(Instant::now() + UNFETCHED + Duration::from_secs(1));
        assert_eq!((promises.pending(), promises.bytes()), (1, 0));
        assert!(ready(&promises, "done").is_none());
    }
}
