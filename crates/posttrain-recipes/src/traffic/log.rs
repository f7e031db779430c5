//! What was served and what was said of it: an append-only log in files of bounded size.

use crate::RecipeError;
use posttrain_store::{JsonLog, StoreError, read_log, replace_file_with};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A completion as it was served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// The id that its client was given, by which feedback names it.
    pub id: String,
    /// When, in seconds since 1970.
    pub time: f64,
    /// Whose it was, where the client said so and it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The conversation that it belongs to, where the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// What kind of request it was, where the client said so: completions of one route are
    /// compared with each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The policy that wrote its first token.
    pub version: u64,
    /// The share of requests that this policy had then.
    pub propensity: f64,
    /// The temperature that it was sampled at.
    pub temperature: f64,
    /// The prompt's token ids.
    pub prompt: Vec<i64>,
    /// Its token ids, an end token included.
    pub tokens: Vec<i64>,
    /// Each one's log-probability, nats.
    pub logprobs: Vec<f32>,
    /// The policy that wrote each token.
    pub versions: Vec<u64>,
    /// Its text, where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What was said of a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// The completion's id.
    pub id: String,
    /// When, in seconds since 1970.
    pub time: f64,
    /// How it was said.
    pub source: FeedbackSource,
    /// What the completion is worth by it, from 0 to 1.
    pub value: f64,
}

/// How feedback was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackSource {
    /// By a score.
    Score,
    /// By an edit that was kept, or reverted.
    Edit,
    /// By what the user wrote next, as a judge read it.
    FollowUp,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TrafficLine {
    /// A completion.
    Served(Served),
    /// What was said of one.
    Feedback(Feedback),
}

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// Bytes after which another file is begun, 1 and up.
    pub file_bytes: u64,
    /// Files that are kept, 1 and up; older ones are removed.
    pub files: usize,
    /// Whether texts are kept beside the tokens, for a person who looks.
    pub text: bool,
    /// Whether users' names are kept. Without them nobody's data can be deleted by name, or need
    /// be.
    pub user: bool,
    /// Whether the conversations that completions belong to are kept.
    pub conversation: bool,
    /// Whether the routes that clients name are kept; without them all are compared together.
    pub route: bool,
    /// Completions whose prompt or text has one of these are served and never kept.
    pub exclude: Vec<String>,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            files: 16,
            text: true,
            user: true,
            conversation: true,
            route: true,
            exclude: Vec::new(),
        }
    }
}

impl CaptureConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("capture.file_bytes", self.file_bytes),
            ("capture.files", self.files as u64),
        ])?;
        let empty = self.exclude.iter().any(String::is_empty);
        RecipeError::check("capture.exclude", !empty, "texts that are not empty", "an empty one")
    }

    /// A completion as it is kept; none where it must not be. `prompt` gives the prompt's text, and
    /// is asked only where something is excluded.
    #[must_use]
    pub fn kept(&self, served: Served, prompt: impl FnOnce() -> String) -> Option<Served> {
        let has = |text: &str| self.exclude.iter().any(|excluded| text.contains(excluded.as_str()));
        let excluded = !self.exclude.is_empty() && has(&prompt());
        if excluded || served.text.as_deref().is_some_and(has) {
            return None;
        }
        let user = served.user.filter(|_| self.user);
        let text = served.text.filter(|_| self.text);
        let conversation = served.conversation.filter(|_| self.conversation);
        let route = served.route.filter(|_| self.route);
        Some(Served { user, text, conversation, route, ..served })
    }
}

/// The log in a folder: `traffic-000001.jsonl` and so on. A line is in the file when
/// [`TrafficLog::append`] returns, and survives the process.
#[derive(Debug)]
pub struct TrafficLog {
    folder: PathBuf,
    config: CaptureConfig,
    number: u64,
    bytes: u64,
    file: JsonLog<TrafficLine>,
}

/// What a deletion removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Completions.
    pub served: usize,
    /// What was said of them.
    pub feedback: usize,
}

const PREFIX: &str = "traffic-";
const SUFFIX: &str = ".jsonl";

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:06}{SUFFIX}"))
}

impl std::ops::AddAssign for Deleted {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.feedback += other.feedback;
    }
}

/// A user's completions in a file; none where it is not there any more.
pub(super) fn ids_of(
    folder: &Path,
    number: u64,
    user: &str,
) -> Result<HashSet<String>, RecipeError> {
    let own = |line| match line {
        TrafficLine::Served(served) if served.user.as_deref() == Some(user) => Some(served.id),
        _ => None,
    };
    Ok(read_log(&path_of(folder, number))?.into_iter().filter_map(own).collect())
}

/// A file's lines but for those of some completions, and how many those are.
pub(super) fn without(
    folder: &Path,
    number: u64,
    ids: &HashSet<String>,
) -> Result<(Vec<TrafficLine>, Deleted), RecipeError> {
    let mut kept: Vec<TrafficLine> = read_log(&path_of(folder, number))?;
    let mut deleted = Deleted::default();
    kept.retain(|line| {
        let (id, count) = match line {
            TrafficLine::Served(served) => (&served.id, &mut deleted.served),
            TrafficLine::Feedback(feedback) => (&feedback.id, &mut deleted.feedback),
        };
        let gone = ids.contains(id);
        *count += usize::from(gone);
        !gone
    });
    Ok((kept, deleted))
}

/// The numbers of a folder's files, lowest first.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>, StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: folder.to_owned(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl TrafficLog {
    /// Opens a log, which is begun if it is not there, with every line of it, oldest first. A line
    /// that a process died in is dropped.
    ///
    /// # Errors
    /// [`RecipeError::Store`] names the file, and the line that is damaged.
    pub fn open(
        folder: &Path,
        config: CaptureConfig,
    ) -> Result<(Self, Vec<TrafficLine>), RecipeError> {
        config.validate()?;
        let failed = |source| StoreError::Io { action: "make", path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut numbers = numbers(folder)?;
        let number = numbers.pop().unwrap_or(1);

        let mut lines = Vec::new();
        for number in numbers {
            lines.extend(read_log(&path_of(folder, number))?);
        }
        let path = path_of(folder, number);
        let (file, last) = JsonLog::open(&path, |_| true)?;
        lines.extend(last);
        let bytes = length(&path)?;
        Ok((Self { folder: folder.to_owned(), config, number, bytes, file }, lines))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`RecipeError::Store`] where the disk refuses.
    pub fn append(&mut self, line: &TrafficLine) -> Result<(), RecipeError> {
        if self.bytes >= self.config.file_bytes {
            self.rotate()?;
        }
        self.file.append(line)?;
        self.bytes = length(&path_of(&self.folder, self.number))?;
        Ok(())
    }

    /// The number of the file that is appended to; those with lower ones do not change.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Removes what is of some completions from a file, which is replaced whole.
    pub(super) fn cut(
        &mut self,
        number: u64,
        ids: &HashSet<String>,
    ) -> Result<Deleted, RecipeError> {
        let (kept, deleted) = without(&self.folder, number, ids)?;
        self.replace(number, &kept, deleted)?;
        Ok(deleted)
    }

    /// Replaces a file by what is kept of it, where anything is deleted and it is there still.
    pub(super) fn replace(
        &mut self,
        number: u64,
        kept: &[TrafficLine],
        deleted: Deleted,
    ) -> Result<(), RecipeError> {
        let path = path_of(&self.folder, number);
        if deleted == Deleted::default() || !path.exists() {
            return Ok(());
        }
        rewrite(&path, kept)?;
        if number == self.number {
            // It was replaced under its handle.
            self.file = JsonLog::open(&path, |_| true)?.0;
            self.bytes = length(&path)?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), RecipeError> {
        self.number += 1;
        self.file = JsonLog::open(&path_of(&self.folder, self.number), |_| true)?.0;
        let numbers = numbers(&self.folder)?;
        for number in &numbers[..numbers.len().saturating_sub(self.config.files)] {
            let path = path_of(&self.folder, *number);
            let failed = |source| StoreError::Io { action: "remove", path: path.clone(), source };
            fs::remove_file(&path).map_err(failed)?;
        }
        Ok(())
    }
}

fn length(path: &Path) -> Result<u64, StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?.len())
}

fn rewrite(path: &Path, lines: &[TrafficLine]) -> Result<(), StoreError> {
    replace_file_with(path, |file| {
        for line in lines {
            let text = serde_json::to_string(line).map_err(std::io::Error::other)?;
            file.write_all((text + "\n").as_bytes())?;
        }
        Ok(())
    })
}
