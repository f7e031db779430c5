//! One run of a program in a sandbox.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::folder::{InputFile, RunFolder};
use super::{Overdue, Sandbox, look};
use crate::outside::ProgramFailure;
use crate::process::{Process, read_all};

/// Bytes of standard error that are kept.
pub(crate) const STDERR_BYTES: usize = 128 * 1024;

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Job {
    /// The program and its arguments.
    pub(crate) program: Vec<String>,
    /// Its files.
    pub(crate) files: Vec<InputFile>,
    /// Its standard input.
    pub(crate) stdin: Vec<u8>,
    /// The file that comes out; empty for none.
    pub(crate) output: String,
    /// The workspace that its files are the archives of, if they are.
    pub(crate) work: Option<Work>,
}

/// A workspace, as a program finds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    /// Names of the folders that stand at the top of the file system.
    pub(crate) roots: Vec<String>,
    /// Where the program begins.
    pub(crate) directory: String,
    /// Folders of the first archive that are left out.
    pub(crate) without: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal: the kernel's (memory, processor time, file size) or its own.
    Signalled(i32),
    /// At the limit of time by the clock, which it slept or computed through.
    OutOfTime,
    /// At the limit of time by the clock, kept waiting by the machine: what it would have done is
    /// not known.
    KeptWaiting,
    /// At the limit of standard output.
    TooMuchOutput,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) stdout: Vec<u8>,
    /// The end of standard error.
    pub(crate) stderr: String,
    /// The contents of the file that comes out; empty where there is none.
    pub(crate) output: Vec<u8>,
}

/// A program at work; dropped, it is killed.
pub(crate) struct Running {
    folder: RunFolder,
    process: Process,
}

impl Running {
    /// The process that all others of the program descend from.
    pub(crate) fn root(&self) -> Option<Pid> {
        self.process.id()
    }

    /// Waits for the program's end, without a limit.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        self.process.wait().await.map(|_| ())
    }

    /// Ends the program where it has not ended. Whether it was begun at all, and the end of its
    /// standard error.
    pub(crate) async fn end(self) -> Result<(bool, String), ProgramFailure> {
        let stderr = self.process.stderr().await;
        let report = self.folder.report(0).map_err(io_failure)?;
        Ok((report.begun, stderr))
    }
}

impl Sandbox {
    /// Runs `job` to its end or its limits.
    pub(crate) async fn run(&self, mut job: Job) -> Result<Ended, ProgramFailure> {
        let input = std::mem::take(&mut job.stdin);
        let (Running { folder, mut process }, stdin, stdout) = self.start(job).await?;
        let feeding = tokio::spawn(feed(stdin, input));
        let ended = self.follow(&mut process, stdout).await;
        feeding.abort();
        let (ending, stdout) = ended.map_err(io_failure)?;
        let stderr = process.stderr().await;
        let report = folder.report(self.rules.box_bytes).map_err(io_failure)?;
        // At a limit it is the limit that counts, also where that came early.
        let stopped =
            matches!(ending, Ending::OutOfTime | Ending::KeptWaiting | Ending::TooMuchOutput);
        if !report.begun && !stopped {
            return Err(ProgramFailure::Sandbox { reason: stderr });
        }
        Ok(Ended { ending, stdout, stderr, output: report.output })
    }

    /// Follows a program to its end or its limits.
    async fn follow(
        &self,
        process: &mut Process,
        stdout: ChildStdout,
    ) -> io::Result<(Ending, Vec<u8>)> {
        let root = process.id();
        let start = Instant::now();
        let mut work = pin!(follow(process, stdout, self.rules.stdout_bytes));
        if let Ok(ended) = timeout(self.rules.time_limit, work.as_mut()).await {
            return ended;
        }
        let roots = root.into_iter().collect();
        match look(roots, start.elapsed(), self.rules.limits.cpu_seconds, work).await {
            Overdue::Ended(ended) => ended,
            Overdue::AtFault => Ok((Ending::OutOfTime, Vec::new())),
            Overdue::KeptWaiting => Ok((Ending::KeptWaiting, Vec::new())),
        }
    }

    /// Starts `job`, whose standard input is left to the caller.
    pub(crate) async fn start(
        &self,
        job: Job,
    ) -> Result<(Running, ChildStdin, ChildStdout), ProgramFailure> {
        let nobody = self.way.nobody;
        let (program, output) = (job.program, job.output);
        let work = job.work.unwrap_or_default();
        let made = tokio::task::spawn_blocking(move || RunFolder::new(&job.files, nobody)).await;
        let folder = made.map_err(io::Error::other).and_then(|made| made).map_err(io_failure)?;
        let spawned = self.spawn(&mut self.command(&folder, &program, &output, &work));
        let (process, stdin, stdout) =
            spawned.map_err(|error| ProgramFailure::NotStarted(Arc::new(error)))?;
        Ok((Running { folder, process }, stdin, stdout))
    }
}

/// A program need not read its input: that a pipe breaks is no fault.
async fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    let _ = stdin.write_all(&input).await;
}

/// Reads what a program writes, then waits for its end.
async fn follow(
    process: &mut Process,
    stdout: ChildStdout,
    limit: usize,
) -> io::Result<(Ending, Vec<u8>)> {
    match read_all(stdout, limit).await? {
        None => Ok((Ending::TooMuchOutput, Vec::new())),
        Some(bytes) => Ok((ending(process.wait().await?), bytes)),
    }
}

fn ending(status: ExitStatus) -> Ending {
    match status.code() {
        // A shell tells of a signal by an exit code.
        Some(code) if code > 128 => Ending::Signalled(code - 128),
        Some(code) => Ending::Exited(code),
        None => Ending::Signalled(status.signal().unwrap_or(0)),
    }
}

fn io_failure(error: io::Error) -> ProgramFailure {
    ProgramFailure::Io(Arc::new(error))
}
