//! One running copy of a reward's program, which answers line for line.

use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use tokio::io::{AsyncBufRead, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::outside::ProgramFailure;
use crate::process::{Line, Process, read_line};

/// A program that has been started and not failed yet. Dropped, it is killed with all that it
/// started.
pub(crate) struct Worker {
    process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn spawn(
        command: &mut Command,
        stderr_bytes: usize,
    ) -> Result<Self, ProgramFailure> {
        let spawned = Process::spawn(command, stderr_bytes);
        let (process, stdin, stdout) =
            spawned.map_err(|error| ProgramFailure::NotStarted(Arc::new(error)))?;
        Ok(Self { process, stdin, stdout: BufReader::new(stdout) })
    }

    /// Whether the program runs and has written nothing unasked: a stray line would pass for the
    /// next answer.
    pub(crate) fn is_ready(&mut self) -> bool {
        !self.process.has_ended() && self.is_silent()
    }

    fn is_silent(&mut self) -> bool {
        let fill = futures::future::poll_fn(|context| {
            Pin::new(&mut self.stdout).poll_fill_buf(context).map(|_| ())
        });
        // Ready is either bytes that are there or the end of the stream.
        fill.now_or_never().is_none()
    }

    /// Sends a request, which ends in a new line, and reads the line that answers it.
    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, ProgramFailure> {
        // A program that dies while it reads has an exit status, which says more than the broken
        // pipe.
        let sent = self.stdin.write_all(request).await;
        match read_line(&mut self.stdout, limit).await {
            Ok(Line::Whole(_)) if !self.stdout.buffer().is_empty() => {
                Err(ProgramFailure::OutOfStep)
            }
            Ok(Line::Whole(line)) if sent.is_ok() => Ok(line),
            Ok(Line::TooLong) => Err(ProgramFailure::LineTooLong { limit }),
            Ok(_) => Err(ProgramFailure::Exited { status: self.end().await }),
            Err(error) => Err(ProgramFailure::Io(Arc::new(error))),
        }
    }

    /// The exit status in words, of a program that has closed its output.
    async fn end(&mut self) -> String {
        let grace = std::time::Duration::from_secs(1);
        match tokio::time::timeout(grace, self.process.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output and runs on".to_owned(),
        }
    }

    /// Kills the program and gives the end of its standard error.
    pub(crate) async fn stderr(self) -> String {
        self.process.stderr().await
    }
}
