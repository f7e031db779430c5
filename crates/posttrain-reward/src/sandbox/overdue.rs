//! What a program that is out of time by the clock has done with it.
//!
//! The clock runs on while the machine does other work, so by itself it says nothing about a program. What does is the
//! program's own doing: it has used up its processor time, or all of its processes sleep of their own accord. Otherwise it
//! was kept waiting by the machine, and nobody knows what it would have done.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::timeout;

/// How often the processes are looked at, and how long they are left to themselves before each look.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What became of work that was out of time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overdue<T> {
    /// It ended after all.
    Ended(T),
    /// It waits for what does not come, or has used its processor time: its own fault.
    AtFault,
    /// It would run if it could, or this system does not say.
    KeptWaiting,
}

/// Looks at the processes below `roots` for a moment, while `work` goes on.
///
/// `cpu_seconds` is what all of them may have used together.
pub(crate) async fn look<F: Future>(
    roots: Vec<Pid>,
    cpu_seconds: Option<u64>,
    mut work: Pin<&mut F>,
) -> Overdue<F::Output> {
    for _ in 0..LOOKS {
        if let Ok(output) = timeout(PAUSE, work.as_mut()).await {
            return Overdue::Ended(output);
        }
        let looked = roots.clone();
        let usage = tokio::task::spawn_blocking(move || usage(&looked)).await.ok().flatten();
        let Some(usage) = usage else { return Overdue::KeptWaiting };
        if cpu_seconds.is_some_and(|limit| usage.seconds >= limit as f64) {
            return Overdue::AtFault;
        }
        if !usage.asleep {
            return Overdue::KeptWaiting;
        }
    }
    Overdue::AtFault
}

/// What a tree of processes is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    /// Every thread of every process sleeps, and could be woken.
    asleep: bool,
    /// Processor time of all of them, and of those that they have seen the end of.
    seconds: f64,
}

#[cfg(not(target_os = "linux"))]
fn usage(_: &[Pid]) -> Option<Usage> {
    None
}

/// `None` where a root is not to be seen.
#[cfg(target_os = "linux")]
fn usage(roots: &[Pid]) -> Option<Usage> {
    let processes = tree::below(roots)?;
    let ticks: u64 = processes.iter().map(|process| process.ticks).sum();
    let asleep = processes.iter().all(|process| tree::is_asleep(process.id));
    Some(Usage { asleep, seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64 })
}

#[cfg(target_os = "linux")]
mod tree {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use rustix::process::Pid;

    /// A line of `/proc/ID/stat`.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Stat {
        pub(super) id: i32,
        pub(super) parent: i32,
        pub(super) state: char,
        /// In user and system mode, its own and that of children that were waited for.
        pub(super) ticks: u64,
    }

    /// The roots and all that descends from them.
    pub(super) fn below(roots: &[Pid]) -> Option<Vec<Stat>> {
        let entries = fs::read_dir("/proc").ok()?;
        let ids = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
        let all: Vec<Stat> = ids.filter_map(|entry| read(&entry.path().join("stat"))).collect();
        let mut found: HashSet<i32> = roots.iter().map(|root| root.as_raw_nonzero().get()).collect();
        let seen = all.iter().filter(|stat| found.contains(&stat.id)).count();
        if seen != found.len() {
            return None;
        }
        // Numbers come round again, so that a child may come before its parent.
        let mut before = 0;
        while found.len() > before {
            before = found.len();
            found
                .extend(all.iter().filter(|stat| found.contains(&stat.parent)).map(|stat| stat.id).collect::<Vec<_>>());
        }
        Some(all.into_iter().filter(|stat| found.contains(&stat.id)).collect())
    }

    /// Whether no thread of the process runs or waits to run. One that has ended by now does not.
    pub(super) fn is_asleep(id: i32) -> bool {
        let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return true };
        let mut states = tasks.flatten().filter_map(|task| read(&task.path().join("stat"))).map(|stat| stat.state);
        // Asleep, stopped, or ended and not yet collected; a wait for a disk is the machine's.
        states.all(|state| matches!(state, 'S' | 'T' | 't' | 'Z' | 'X' | 'I'))
    }

    fn read(path: &Path) -> Option<Stat> {
        parse(&fs::read_to_string(path).ok()?)
    }

    /// The name stands in brackets and may hold anything, also brackets.
    pub(super) fn parse(line: &str) -> Option<Stat> {
        let (id, rest) = line.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Stat { id: id.parse().ok()?, parent: fields[1].parse().ok()?, state: fields[0].chars().next()?, ticks })
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::pending;
    use std::os::unix::process::CommandExt;
    use std::pin::pin;
    use std::process::{Child, Command};

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::tree::{Stat, parse};
    use super::{Overdue, look, usage};

    struct Shell(Child);

    impl Shell {
        fn new(script: &str) -> Self {
            Self(Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn look(&self, cpu_seconds: Option<u64>) -> Overdue<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(look(vec![self.pid()], cpu_seconds, pin!(pending::<()>())))
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            kill_process_group(self.pid(), Signal::KILL).unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_sleeper_is_at_fault_and_one_that_would_run_is_not() {
        assert_eq!(Shell::new("while :; do :; done & exec sleep 20").look(None), Overdue::KeptWaiting);
        let sleeper = Shell::new("sleep 60; true");
        while usage(&[sleeper.pid()]).is_none_or(|usage| !usage.asleep) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(sleeper.look(None), Overdue::AtFault);
        assert_eq!(Shell::new("while :; do :; done").look(None), Overdue::KeptWaiting);
        assert_eq!(Shell::new("while :; do :; done").look(Some(0)), Overdue::AtFault);
    }

    #[test]
    fn what_ends_after_all_has_ended() {
        let shell = Shell::new("sleep 20");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(look(vec![shell.pid()], Some(0), pin!(std::future::ready(7))));
        assert_eq!(ended, Overdue::Ended(7));
    }

    #[test]
    fn a_root_that_is_gone_says_nothing() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        child.wait().unwrap();
        assert_eq!(usage(&[pid]), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let line = "12 (a) R (b) S 7 12 12 0 -1 4194560 98 0 0 0 3 4 5 6 20 0 1 0 11";
        assert_eq!(parse(line), Some(Stat { id: 12, parent: 7, state: 'S', ticks: 18 }));
        assert_eq!(parse("12 (a"), None);
    }
}
