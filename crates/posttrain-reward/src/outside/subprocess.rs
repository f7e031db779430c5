//! A reward in any language: a program that reads JSON lines and writes JSON lines.

use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::outside::wire::{Reply, Request};
use crate::outside::worker::Worker;
use crate::outside::{ProgramFailure, ResourceLimits};
use crate::process::find_program;
use crate::{Reward, RewardError, Sample, Score};

/// A program that scores: what to start, how often, and within which limits.
///
/// # Contract
/// The program reads one JSON object a line on standard input and answers each with one line on
/// standard output, in order, flushed. It ends when its input ends.
///
/// ```text
/// in   {"id": "7", "domain": "law", "question": "…", "reference": "…", "response": "…", "metadata": {…}}
/// out  {"reward": 0.5, "parts": {"style": 1.0}, "note": "…"}      parts and note may be left out
/// out  {"error": "no such file"}                                  no score: an error, not a zero
/// ```
///
/// `reward` is a number from 0 to 1. Logging goes to standard error: a second line on standard
/// output for one request is an error and ends the program, since nobody could tell which answer
/// belongs to which request.
///
/// # Failures
/// A program that crashes, hangs beyond `time_limit_seconds` or breaks the contract costs the
/// sample that it was asked for: an error with the end of its standard error. It is killed with its
/// process group, and another is started for the next sample. A sample is never asked for twice. A
/// request that is given up (by a [`Scorer`](crate::Scorer)'s time limit) kills its program, too.
///
/// Scoring needs a tokio runtime with its drivers enabled (`enable_all`).
///
/// ```
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::outside::SubprocessConfig;
///
/// let program = r#"while read -r line; do echo '{"reward": 0.25, "note": "seen"}'; done"#;
/// let program = ["sh", "-c", program].map(str::to_owned).to_vec();
/// let reward = SubprocessConfig { program, workers: 1, ..SubprocessConfig::default() }.build()?;
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let score = runtime.block_on(reward.score(&Sample::new("2 + 2?", "4", "4")))?;
/// assert_eq!((score.value(), score.note()), (0.25, Some("seen")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubprocessConfig {
    /// What metrics and errors call the reward. Default: `subprocess`.
    pub name: String,
    /// The program, by path or to be found in `PATH`, and its arguments. No default.
    pub program: Vec<String>,
    /// Copies that run at the same time, at least 1; they are started when they are needed. Default
    /// 4.
    pub workers: usize,
    /// Seconds for an answer, more than 0; a copy's first answer has its start-up in it. Default
    /// 30.
    pub time_limit_seconds: f64,
    /// Bytes of an answer, at least 64. Default 2²⁰.
    pub max_line_bytes: usize,
    /// Bytes of standard error that are kept for errors. Default 2,048.
    pub max_stderr_bytes: usize,
    /// The folder that the program starts in. Default: this process's own.
    pub directory: Option<PathBuf>,
    /// Names of the environment variables that the program sees; all others, keys and tokens among
    /// them, are withheld. Default: `PATH`, `HOME`, `LANG`, `LC_ALL`, `TMPDIR`, `TZ`.
    pub environment: Vec<String>,
    /// Limits of each copy. Default: none, since the program is the user's own and may be on a GPU.
    /// Linux only.
    pub limits: ResourceLimits,
}

impl Default for SubprocessConfig {
    fn default() -> Self {
        Self {
            name: "subprocess".to_owned(),
            program: Vec::new(),
            workers: 4,
            time_limit_seconds: 30.0,
            max_line_bytes: 1 << 20,
            max_stderr_bytes: 2_048,
            directory: None,
            environment: ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"]
                .map(str::to_owned)
                .to_vec(),
            limits: ResourceLimits::default(),
        }
    }
}

impl SubprocessConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::outside::SubprocessConfig;
    ///
    /// assert!(SubprocessConfig::default().validate().is_err(), "no program");
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if self.program.first().is_none_or(String::is_empty) {
            return invalid(
                "program",
                format!("{:?}", self.program),
                "a program and its arguments",
            );
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.workers) {
            return invalid("workers", self.workers.to_string(), "at least 1");
        }
        if self.max_line_bytes < 64 {
            return invalid("max_line_bytes", self.max_line_bytes.to_string(), "at least 64");
        }
        self.time_limit()?;
        self.limits.validate()
    }

    fn time_limit(&self) -> Result<Duration, RewardError> {
        let seconds = self.time_limit_seconds;
        let limit = Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero());
        let expected = "a finite number of seconds, more than 0";
        limit.ok_or_else(|| RewardError::InvalidConfig {
            field: "time_limit_seconds",
            got: seconds.to_string(),
            expected,
        })
    }

    /// The reward. No program is started before the first sample.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and [`RewardError::InvalidConfig`] where the program is not
    /// found, or where there are limits and no `prlimit` (of util-linux) to set them.
    ///
    /// ```
    /// use posttrain_reward::outside::SubprocessConfig;
    ///
    /// let config = SubprocessConfig { program: vec!["no-such-program".into()], ..SubprocessConfig::default() };
    /// assert!(config.build().err().unwrap().to_string().contains("no-such-program"));
    /// ```
    pub fn build(self) -> Result<Subprocess, RewardError> {
        self.validate()?;
        let time_limit = self.time_limit()?;
        let mut command = vec![found("program", &self.program[0])?];
        command.extend_from_slice(&self.program[1..]);
        if !self.limits.is_empty() {
            let prlimit = found("limits", "prlimit")?;
            command = [vec![prlimit], self.limits.arguments(), command].concat();
        }
        let free = Semaphore::new(self.workers);
        Ok(Subprocess { config: self, command, time_limit, free, idle: Mutex::default() })
    }
}

fn found(field: &'static str, program: &str) -> Result<String, RewardError> {
    find_program(program, &env::var_os("PATH").unwrap_or_default()).ok_or_else(|| {
        let expected = "a program that is there";
        RewardError::InvalidConfig { field, got: format!("`{program}`"), expected }
    })
}

/// The reward that [`SubprocessConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::Reward;
/// use posttrain_reward::outside::SubprocessConfig;
///
/// let program = vec!["cat".to_owned()];
/// let reward = SubprocessConfig { name: "style".into(), program, ..SubprocessConfig::default() }.build()?;
/// assert_eq!(reward.name(), "style");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct Subprocess {
    config: SubprocessConfig,
    command: Vec<String>,
    time_limit: Duration,
    /// A permit for each copy that may be at work.
    free: Semaphore,
    idle: Mutex<Vec<Worker>>,
}

impl Reward for Subprocess {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let answer = self.ask(sample).await?;
            Reply::parse(self.name(), &answer)
        })
    }
}

impl Subprocess {
    async fn ask(&self, sample: &Sample) -> Result<Vec<u8>, RewardError> {
        let mut request = serde_json::to_vec(&Request::from(sample))
            .map_err(|error| RewardError::failed(self.name(), "request", error))?;
        request.push(b'\n');
        let cancelled = |_| RewardError::Cancelled { reward: self.name().to_owned() };
        let _permit = self.free.acquire().await.map_err(cancelled)?;
        let mut worker = self.worker().map_err(|failure| self.failed(failure, String::new()))?;
        match timeout(self.time_limit, worker.ask(&request, self.config.max_line_bytes)).await {
            Ok(Ok(answer)) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                Ok(answer)
            }
            Ok(Err(failure)) => Err(self.failed(failure, worker.stderr().await)),
            // Dropping the worker kills it.
            Err(_) => {
                let seconds = self.config.time_limit_seconds;
                Err(RewardError::TimedOut { reward: self.name().to_owned(), seconds })
            }
        }
    }

    /// An idle copy, or a new one; what has died or spoken unasked meanwhile is put away.
    fn worker(&self) -> Result<Worker, ProgramFailure> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut worker) = idle else {
                return Worker::spawn(&mut self.command(), self.config.max_stderr_bytes);
            };
            if worker.is_ready() {
                return Ok(worker);
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear();
        let passed =
            self.config.environment.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.envs(passed);
        if let Some(directory) = &self.config.directory {
            command.current_dir(directory);
        }
        command
    }

    fn failed(&self, failure: ProgramFailure, stderr: String) -> RewardError {
        let (reward, program) = (self.name().to_owned(), self.config.program[0].clone());
        RewardError::Program { reward, program, stderr, failure }
    }
}
