//! What a program that is out of time by the clock has done with it.
//!
//! The clock runs on while the machine does other work, so by itself it says nothing about a
//! program. What does is what the kernel has counted: how long each thread was on a processor, and
//! how long it was ready and waited for one. A program is kept waiting by the machine where one of
//! its threads has been ready without a processor for most of the time. In any other case the time
//! was its own: it computed, slept, waited for what never comes, or for its own output to be read.
//! What it does at the moment when it is looked at counts for nothing, since it could choose that.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::timeout;

/// How long work is still waited for, so that what ends just now has ended.
const GRACE: Duration = Duration::from_millis(20);
/// The share of its time that a thread must have been ready without a processor for the machine to
/// be at fault.
const KEPT_WAITING: f64 = 0.5;

/// What became of work that was out of time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overdue<T> {
    /// It ended after all.
    Ended(T),
    /// The time was its own.
    AtFault,
    /// The machine had no processor for it, or this system does not say.
    KeptWaiting,
}

/// Says of the processes below `roots`, which have had `elapsed` by the clock, whose fault it is
/// that `work` has not ended.
///
/// `cpu_seconds` is what all of them may have used together.
pub(crate) async fn look<F: Future>(
    roots: Vec<Pid>,
    elapsed: Duration,
    cpu_seconds: Option<u64>,
    work: Pin<&mut F>,
) -> Overdue<F::Output> {
    if let Ok(output) = timeout(GRACE, work).await {
        return Overdue::Ended(output);
    }

    let usage = tokio::task::spawn_blocking(move || usage(&roots)).await.ok().flatten();
    let Some(usage) = usage else { return Overdue::KeptWaiting };
    if cpu_seconds.is_some_and(|limit| usage.computed >= limit as f64) {
        return Overdue::AtFault;
    }

    if usage.kept_waiting >= KEPT_WAITING * elapsed.as_secs_f64() {
        Overdue::KeptWaiting
    } else {
        Overdue::AtFault
    }
}

/// What a tree of processes has had.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    /// Seconds on a processor, of all of them and of those that they have seen the end of.
    computed: f64,
    /// Seconds that the thread which waited longest was ready and had no processor.
    kept_waiting: f64,
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
    let waits = processes.iter().map(|process| tree::longest_wait(process.id));

    Some(Usage {
        computed: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        kept_waiting: waits.fold(0.0, f64::max),
    })
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
        /// In user and system mode, its own and that of children that were waited for.
        pub(super) ticks: u64,
        pub(super) nice: i64,
        /// The scheduling policy: 0 is the usual one.
        pub(super) policy: u64,
    }

    /// The roots and all that descends from them.
    pub(super) fn below(roots: &[Pid]) -> Option<Vec<Stat>> {
        let entries = fs::read_dir("/proc").ok()?;
        let ids = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
        let all: Vec<Stat> = ids.filter_map(|entry| read(&entry.path().join("stat"))).collect();

        let mut found: HashSet<i32> =
            roots.iter().map(|root| root.as_raw_nonzero().get()).collect();
        if all.iter().filter(|stat| found.contains(&stat.id)).count() != found.len() {
            return None;
        }

        // Numbers come round again, so that a child may come before its parent.
        let mut before = 0;
        while found.len() > before {
            before = found.len();
            let children: Vec<i32> = all
                .iter()
                .filter(|stat| found.contains(&stat.parent))
                .map(|stat| stat.id)
                .collect();
            found.extend(children);
        }
        Some(all.into_iter().filter(|stat| found.contains(&stat.id)).collect())
    }

    /// Seconds that a thread of the process was ready without a processor, at most over its
    /// threads.
    ///
    /// A thread that has made itself less important than this process is waits by its own choice,
    /// and does not count: else a program could sleep beside one.
    pub(super) fn longest_wait(id: i32) -> f64 {
        let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return 0.0 };
        let own = read(Path::new("/proc/thread-self/stat")).map_or(0, |stat| stat.nice);

        let waits = tasks.flatten().filter_map(|task| {
            let stat = read(&task.path().join("stat"))?;
            let usual = stat.nice <= own && stat.policy == 0;
            usual.then(|| wait(&task.path().join("schedstat")))?
        });
        waits.fold(0.0, f64::max)
    }

    /// The second number of `schedstat`: nanoseconds in the run queue.
    fn wait(path: &Path) -> Option<f64> {
        let text = fs::read_to_string(path).ok()?;
        let nanoseconds: u64 = text.split_whitespace().nth(1)?.parse().ok()?;

        Some(nanoseconds as f64 / 1e9)
    }

    fn read(path: &Path) -> Option<Stat> {
        parse(&fs::read_to_string(path).ok()?)
    }

    /// The name stands in brackets and may hold anything, also brackets.
    pub(super) fn parse(line: &str) -> Option<Stat> {
        let (id, rest) = line.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let times = [number(11)?, number(12)?, number(13)?, number(14)?];

        Some(Stat {
            id: id.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            ticks: times.iter().sum(),
            nice: fields.get(16)?.parse().ok()?,
            policy: number(38)?,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::pending;
    use std::os::unix::process::CommandExt;
    use std::pin::pin;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::tree::{Stat, parse};
    use super::{Overdue, look, usage};

    struct Shell(Child, Instant);

    impl Shell {
        fn new(script: &str) -> Self {
            let child = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
            Self(child, Instant::now())
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn look(&self, elapsed: Duration, cpu_seconds: Option<u64>) -> Overdue<()> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(look(vec![self.pid()], elapsed, cpu_seconds, pin!(pending::<()>())))
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            kill_process_group(self.pid(), Signal::KILL).unwrap();
            self.0.wait().unwrap();
        }
    }

    /// A minute by the clock of which the kernel knows next to nothing: the program's own time.
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn whoever_was_not_kept_waiting_is_at_fault() {
        for script in [
            "sleep 60; true",
            // What it does when it is looked at counts for nothing.
            "while :; do :; done",
            "while :; do :; done & exec sleep 20",
            // Children that wait by their own choice.
            "nice -n 19 sh -c 'while :; do :; done' & exec sleep 20",
        ] {
            assert_eq!(Shell::new(script).look(MINUTE, None), Overdue::AtFault, "{script}");
        }
        assert_eq!(
            Shell::new("while :; do :; done").look(Duration::ZERO, Some(0)),
            Overdue::AtFault
        );
    }

    #[test]
    fn whoever_waits_for_a_processor_is_not() {
        // More of them than there are processors, so that each waits for more than half of the
        // time.
        let count = 4 * std::thread::available_parallelism().unwrap().get();
        let crowd: Vec<Shell> = (0..count).map(|_| Shell::new("while :; do :; done")).collect();
        std::thread::sleep(Duration::from_secs(3));

        let waits: Vec<f64> =
            crowd.iter().map(|shell| usage(&[shell.pid()]).unwrap().kept_waiting).collect();
        let longest =
            waits.iter().position(|wait| waits.iter().all(|other| wait >= other)).unwrap();
        assert_eq!(
            crowd[longest].look(crowd[longest].1.elapsed(), None),
            Overdue::KeptWaiting,
            "{waits:?}"
        );
    }

    #[test]
    fn what_ends_after_all_has_ended() {
        let shell = Shell::new("sleep 20");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended =
            runtime.block_on(look(vec![shell.pid()], MINUTE, Some(0), pin!(std::future::ready(7))));
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
        let tail = "20 5 1 0 11 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 3 0 0 0";
        let line = format!("12 (a) R (b) S 7 12 12 0 -1 4194560 98 0 0 0 3 4 5 6 {tail}");
        assert_eq!(parse(&line), Some(Stat { id: 12, parent: 7, ticks: 18, nice: 5, policy: 3 }));
        assert_eq!(parse("12 (a"), None);
    }
}
