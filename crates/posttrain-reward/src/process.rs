//! A child process with all that it starts: spawned as a group, listened to within bounds, killed
//! as a group.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// A child that leads a process group of its own; dropped, the whole group is killed.
///
/// A program can leave its group (`setsid`); what must not escape runs in a PID namespace
/// ([`Sandbox`](crate::sandbox)).
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    stderr: Tail,
    drain: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with three pipes, of which standard error is drained from here on.
    pub(crate) fn spawn(
        command: &mut Command,
        stderr_bytes: usize,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let closed = || io::Error::other("the child has no pipe");
        let (stdin, stdout) =
            (child.stdin.take().ok_or_else(closed)?, child.stdout.take().ok_or_else(closed)?);
        let tail = Tail::new(stderr_bytes);
        let drain = child.stderr.take().map(|pipe| tokio::spawn(tail.clone().drain(pipe)));
        Ok((Self { child, group, stderr: tail, drain }, stdin, stdout))
    }

    /// The child's number, which is its group's.
    pub(crate) fn id(&self) -> Option<Pid> {
        self.group
    }

    /// Whether the child has ended. Does not wait.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the child's end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills the group.
    pub(crate) fn kill(&mut self) {
        // A group lives on in what the child started, also once the child itself is gone and
        // reaped.
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.start_kill();
    }

    /// The end of what the program wrote on standard error, once it has ended.
    pub(crate) async fn stderr(mut self) -> String {
        self.kill();
        if let Some(drain) = self.drain.take() {
            // A process that left the group may still hold the pipe.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), drain).await;
        }
        self.stderr.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(drain) = self.drain.take() {
            drain.abort();
        }
    }
}

/// The whole path of a program: as it is named, or in the first folder of `path` that has it.
pub(crate) fn find_program(program: &str, path: &OsStr) -> Option<String> {
    let is_program = |file: &PathBuf| file.is_file();
    let found = if program.contains('/') {
        std::path::absolute(Path::new(program)).ok().filter(is_program)
    } else {
        env::split_paths(path).map(|folder| folder.join(program)).find(is_program)
    };
    found?.into_os_string().into_string().ok()
}

/// The last bytes of a stream.
#[derive(Clone)]
struct Tail {
    limit: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Tail {
    fn new(limit: usize) -> Self {
        Self { limit, bytes: Arc::default() }
    }

    async fn drain(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.push(&buffer[..count]);
        }
    }

    fn push(&self, read: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(read);
        let excess = bytes.len().saturating_sub(self.limit);
        bytes.drain(..excess);
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// What reading a line gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// More bytes than allowed, and no end of line among them.
    TooLong,
    /// The stream ended.
    End,
}

/// Reads up to the next new line, in memory of at most `limit` bytes.
pub(crate) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    limit: usize,
) -> io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(Line::End);
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let take = end.unwrap_or(buffer.len());
        if line.len() + take > limit {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(&buffer[..take]);
        reader.consume(take + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Line::Whole(line));
        }
    }
}

/// Reads to the end, or `None` where that is more than `limit` bytes.
pub(crate) async fn read_all(
    reader: impl AsyncRead + Unpin,
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::{Line, Tail, read_all, read_line};
    use futures::executor::block_on;
    use tokio::io::BufReader;

    #[test]
    fn lines_are_bounded() {
        let lines = |text: &'static [u8], limit: usize, capacity: usize| {
            let mut reader = BufReader::with_capacity(capacity, text);
            block_on(async {
                [
                    read_line(&mut reader, limit).await.unwrap(),
                    read_line(&mut reader, limit).await.unwrap(),
                ]
            })
        };
        for capacity in [1, 2, 64] {
            assert_eq!(
                lines(b"ab\nc\n", 2, capacity),
                [Line::Whole(b"ab".into()), Line::Whole(b"c".into())]
            );
            assert_eq!(lines(b"\nabc\n", 2, capacity), [Line::Whole(b"".into()), Line::TooLong]);
            assert_eq!(lines(b"ab\nc", 2, capacity), [Line::Whole(b"ab".into()), Line::End]);
        }
        assert_eq!(lines(b"", 2, 64), [Line::End, Line::End]);
    }

    #[test]
    fn streams_are_bounded() {
        assert_eq!(block_on(read_all(&b"abc"[..], 3)).unwrap(), Some(b"abc".into()));
        assert_eq!(block_on(read_all(&b"abcd"[..], 3)).unwrap(), None);
        let tail = Tail::new(3);
        block_on(tail.clone().drain(&b"abcdef\n"[..]));
        assert_eq!(tail.text(), "ef");
    }
}
