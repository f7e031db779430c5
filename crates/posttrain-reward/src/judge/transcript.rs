//! A file of every conversation with a judge.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use posttrain_chat::{ChatRequest, ChatResponse};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::RewardError;
use crate::judge::ballot::Vote;
use crate::judge::{JudgeProvenance, NoVerdict};

/// Appends lines; several judges and processes may share the file, since a line is one write at the
/// file's end.
pub(crate) struct Transcript {
    file: Arc<Mutex<File>>,
    complained: AtomicBool,
}

/// One conversation.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    sample: &'a str,
    vote: usize,
    provenance: &'a JudgeProvenance,
    request: &'a ChatRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a ChatResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<&'a [usize]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(
        sample: &'a str,
        vote: usize,
        provenance: &'a JudgeProvenance,
        request: &'a ChatRequest,
        outcome: &'a Result<(ChatResponse, Result<Vote, NoVerdict>), RewardError>,
    ) -> Self {
        let answered = outcome.as_ref().ok();
        let error = match outcome {
            Ok((_, Ok(_))) => None,
            Ok((_, Err(problem))) => Some(problem.cause()),
            Err(error) => Some(error.cause()),
        };
        Self {
            sample,
            vote,
            provenance,
            request,
            answer: answered.map(|(answer, _)| answer),
            choices: answered
                .and_then(|(_, vote)| vote.as_ref().ok())
                .map(|vote| vote.choices.as_slice()),
            error: error.map(str::to_owned),
        }
    }
}

impl Transcript {
    pub(crate) fn open(path: &Path) -> Result<Self, RewardError> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|error| RewardError::InvalidConfig {
            field: "transcript",
            got: format!("{} ({error})", path.display()),
            expected: "a file that can be written",
        })?;
        Ok(Self { file: Arc::new(Mutex::new(file)), complained: AtomicBool::new(false) })
    }

    /// A line that cannot be written is logged and costs no verdict.
    pub(crate) async fn write(&self, entry: &Entry<'_>) {
        let line =
            serde_json::to_string(entry).map(|line| line + "\n").map_err(std::io::Error::other);
        let file = Arc::clone(&self.file);
        let write =
            move || file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line?.as_bytes());
        if let Ok(Err(error)) = spawn_blocking(write).await
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "a judge's transcript cannot be written");
        }
    }
}
