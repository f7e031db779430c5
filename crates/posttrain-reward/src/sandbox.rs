//! Runs programs that nobody trusts, as far from the rest of the machine as the machine allows.

#[cfg(target_os = "linux")]
mod filter;
mod folder;
mod isolation;
mod overdue;
mod probe;
mod run;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::outside::ResourceLimits;
use crate::process::Process;
pub(crate) use folder::InputFile;
use folder::RunFolder;
pub use isolation::Isolation;
pub(crate) use overdue::{Overdue, look};
pub(crate) use probe::probe;
use run::STDERR_BYTES;
pub(crate) use run::{Ended, Ending, Job, Running, Work};

/// The script that a program is started by.
const ENTER: &str = include_str!("sandbox/enter.sh");

/// What programs are allowed, whoever writes them.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) limits: ResourceLimits,
    /// Seconds by the clock, from start to end.
    pub(crate) time_limit: Duration,
    /// Bytes of standard output, at most.
    pub(crate) stdout_bytes: usize,
    /// Bytes of all files together where they are in memory, and of the file that comes out.
    pub(crate) box_bytes: u64,
    /// The whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Folders of the machine that programs find empty, where namespaces allow it.
    pub(crate) hidden: Vec<PathBuf>,
}

/// A way to start programs that was tried and works here.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    rules: Rules,
    way: Way,
    /// Refuses system calls that lead past the rest; none where the processor or the kernel has
    /// none.
    filter: Filter,
    isolation: Isolation,
}

/// A compiled filter of system calls.
#[cfg(target_os = "linux")]
type Filter = Option<std::sync::Arc<seccompiler::BpfProgram>>;
#[cfg(not(target_os = "linux"))]
type Filter = ();

#[cfg(target_os = "linux")]
fn compile_filter() -> Filter {
    filter::compile().map(std::sync::Arc::new)
}
#[cfg(not(target_os = "linux"))]
fn compile_filter() -> Filter {}

/// How a program is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// User, network, PID, IPC and mount namespaces.
    namespaces: bool,
    /// As the user `nobody`, which only root can become.
    nobody: bool,
    /// `prlimit` and `timeout` are there.
    limits: bool,
}

/// How long a program outlives its limit where nobody ends it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The user and group id of `nobody`.
const NOBODY: u32 = 65_534;

impl Sandbox {
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Starts a command behind the filter, or without one where the kernel takes none.
    fn spawn(&self, command: &mut Command) -> io::Result<(Process, ChildStdin, ChildStdout)> {
        #[cfg(target_os = "linux")]
        if let Some(program) = &self.filter {
            // The new thread is none of the runtime's, which a child's pipes belong to.
            let runtime = tokio::runtime::Handle::current();
            let started = filter::behind(program, || {
                let _guard = runtime.enter();
                Process::spawn(command, STDERR_BYTES)
            });
            if let Some(started) = started {
                return started;
            }
        }

        Process::spawn(command, STDERR_BYTES)
    }

    /// The command that runs `program` in `folder`; `output` names the file that comes out.
    fn command(
        &self,
        folder: &RunFolder,
        program: &[String],
        output: &str,
        work: &Work,
    ) -> Command {
        let words = self.words(&folder.path().to_string_lossy(), program, output, work);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(self.rules.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/");
        command
    }

    fn words(&self, folder: &str, program: &[String], output: &str, work: &Work) -> Vec<String> {
        let bytes = self.rules.box_bytes.to_string();
        let mode = if self.way.namespaces { "namespaces" } else { "plain" };
        let mut words: Vec<String> = Vec::new();
        if self.way.limits {
            // Ends it also where this process is gone. With time to spare: this process is to be
            // the first to know, since an end by this signal looks like the program's own.
            let seconds = (self.rules.time_limit + PATIENCE).as_secs_f64().to_string();
            words.extend(["timeout", "--foreground", "--signal=KILL", &seconds].map(str::to_owned));
        }
        if self.way.nobody {
            let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
            words.extend(
                ["setpriv", &user, &group, "--clear-groups", "--no-new-privs"].map(str::to_owned),
            );
        }
        if self.way.namespaces {
            let unshare = "unshare --user --map-root-user --net --ipc --pid --fork --kill-child --mount --mount-proc";
            words.extend(unshare.split(' ').map(str::to_owned));
        }
        words.extend(
            ["sh", "-c", ENTER, "enter.sh", mode, folder, &bytes, output, &bytes]
                .map(str::to_owned),
        );
        let hidden: Vec<_> = self.rules.hidden.iter().map(|path| path.to_string_lossy()).collect();
        words.push(hidden.join("\n"));
        words.extend([work.roots.join(" "), work.directory.clone(), work.without.join(" ")]);
        if self.way.limits {
            words.push("prlimit".to_owned());
            words.extend(self.limits().arguments());
        }
        words.extend_from_slice(program);
        words
    }

    fn limits(&self) -> ResourceLimits {
        // Outside of a namespace the kernel counts all processes of the user, of which there may be
        // any number.
        let processes = self.rules.limits.processes.filter(|_| self.way.namespaces);
        ResourceLimits { processes, ..self.rules.limits.clone() }
    }
}
