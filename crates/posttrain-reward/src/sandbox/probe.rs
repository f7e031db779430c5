//! Finds out what keeps programs apart on this machine, by trying.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::{Ended, Ending, Job, Rules, Sandbox, Way, compile_filter};
use crate::RewardError;
use crate::code::Isolation;
use crate::error::with_sources;

const FACTS: &str = include_str!("facts.sh");
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// From the strictest way to the loosest.
const WAYS: [Way; 6] = [
    Way { namespaces: true, nobody: true, limits: true },
    Way { namespaces: true, nobody: false, limits: true },
    Way { namespaces: false, nobody: true, limits: true },
    Way { namespaces: false, nobody: false, limits: true },
    Way { namespaces: false, nobody: true, limits: false },
    Way { namespaces: false, nobody: false, limits: false },
];

/// The strictest sandbox of this machine in which `trial` exits with 0.
///
/// # Errors
/// [`RewardError::InvalidConfig`] where `trial` fails in all of them, with what it said in the
/// last.
pub(crate) fn probe(rules: Rules, trial: Job) -> Result<Sandbox, RewardError> {
    // A thread of its own: the caller may be on an async one, where waiting for another runtime is
    // not allowed.
    let probing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| RewardError::failed("sandbox", "runtime", error))?;
        runtime.block_on(first_that_works(&rules, &trial))
    });
    probing.join().unwrap_or_else(|_| Err(RewardError::Cancelled { reward: "sandbox".to_owned() }))
}

async fn first_that_works(rules: &Rules, trial: &Job) -> Result<Sandbox, RewardError> {
    let is_root = rustix::process::geteuid().is_root();
    let mut last = String::new();
    for way in WAYS.into_iter().filter(|way| is_root || !way.nobody) {
        // With time of its own: a busy machine must not pass for one that allows less.
        let patient = Rules { time_limit: PROBE_LIMIT.max(rules.time_limit), ..rules.clone() };
        let filter = compile_filter();
        let sandbox = Sandbox { rules: patient, way, filter, isolation: Isolation::default() };
        match sandbox.try_out(trial.clone()).await {
            Ok(isolation) => return Ok(Sandbox { rules: rules.clone(), isolation, ..sandbox }),
            Err(reason) => last = reason,
        }
    }
    let expected = "a command that runs an empty program";
    Err(RewardError::InvalidConfig {
        field: "interpreter",
        got: format!("{:?} ({last})", trial.program),
        expected,
    })
}

impl Sandbox {
    async fn try_out(&self, trial: Job) -> Result<Isolation, String> {
        let facts =
            Job { program: ["sh", "-c", FACTS].map(str::to_owned).to_vec(), ..Job::default() };
        let facts = self.succeed(facts).await?;
        self.succeed(trial).await?;
        Ok(self.isolation_from(&String::from_utf8_lossy(&facts.stdout)))
    }

    async fn succeed(&self, job: Job) -> Result<Ended, String> {
        match self.run(job).await {
            Ok(ended) if ended.ending == Ending::Exited(0) => Ok(ended),
            Ok(ended) => Err(format!("{:?}: {}", ended.ending, ended.stderr)),
            Err(failure) => Err(with_sources(&failure)),
        }
    }

    fn isolation_from(&self, facts: &str) -> Isolation {
        let fact =
            |name: &str| facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Isolation {
            network: is_apart("net", fact("net")),
            processes: is_apart("pid", fact("pid")),
            files: self.way.namespaces && writable_mounts(facts).is_empty(),
            limits: self.way.limits && fact("memory").is_some_and(|memory| memory != "unlimited"),
            process_limit: self.limits().processes.is_some() && fact("nproc") == Some("held"),
            system_calls: fact("filters").and_then(|filters| filters.parse().ok()) > filters_here(),
        }
    }
}

/// How many filters this thread's own system calls go through.
fn filters_here() -> Option<u32> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?;

    filters.trim().parse().ok()
}

/// Whether a namespace is another than this process's.
fn is_apart(kind: &str, inside: Option<&str>) -> bool {
    let outside = fs::read_link(format!("/proc/self/ns/{kind}")).ok();
    let outside = outside.as_ref().map(|link| link.to_string_lossy());
    matches!((inside, outside), (Some(inside), Some(outside)) if !inside.is_empty() && inside != outside)
}

/// The mount points that a program could write to, but those of its own.
fn writable_mounts(facts: &str) -> Vec<String> {
    // Of mounts on one point, only the last can be reached.
    let mut mounts = BTreeMap::new();
    for line in facts.lines() {
        if let Some((point, options)) =
            line.strip_prefix("mount ").and_then(|mount| mount.split_once(' '))
        {
            mounts.insert(point, options);
        }
    }
    let own = |point: &str| {
        ["/tmp", "/dev/shm", "/proc"].contains(&point)
            || point.starts_with("/tmp/")
            || point.ends_with("/box")
    };
    let writable = |options: &str| options == "rw" || options.starts_with("rw,");
    mounts
        .into_iter()
        .filter(|(point, options)| writable(options) && !own(point))
        .map(|(point, _)| point.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ending, Job, Rules, Sandbox, WAYS, Way, compile_filter, writable_mounts};
    use crate::code::Isolation;
    use crate::outside::ResourceLimits;

    fn sandbox(way: Way) -> Sandbox {
        let limits = ResourceLimits {
            address_space_bytes: Some(1 << 30),
            processes: Some(32),
            file_size_bytes: Some(4096),
            ..ResourceLimits::default()
        };
        let environment = [("PATH", "/usr/local/bin:/usr/bin:/bin")];
        let environment =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let time_limit = Duration::from_secs(120);
        let rules = Rules {
            limits,
            time_limit,
            stdout_bytes: 1 << 16,
            box_bytes: 1 << 20,
            environment,
            hidden: Vec::new(),
        };
        Sandbox { rules, way, filter: compile_filter(), isolation: Isolation::default() }
    }

    fn job(script: &str) -> Job {
        Job {
            program: ["sh", "-c", script].map(str::to_owned).to_vec(),
            files: vec![("in.txt".to_owned(), b"7".to_vec())],
            stdin: b"3 4".to_vec(),
            output: "out.txt".to_owned(),
            ..Job::default()
        }
    }

    /// The loosest way works on every machine, so that this is never vacuous.
    #[test]
    fn every_way_that_is_allowed_here_runs_programs() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut tried = 0;
        for way in WAYS {
            let sandbox = sandbox(way);
            let Ok(isolation) = runtime.block_on(sandbox.try_out(job("true"))) else { continue };
            tried += 1;
            let ended = runtime
                .block_on(
                    sandbox.run(job("read a b; echo $((a * b)); cat in.txt > out.txt; exit 5")),
                )
                .unwrap();
            assert_eq!(
                (ended.ending, ended.stdout.as_slice()),
                (Ending::Exited(5), b"12\n".as_slice()),
                "{way:?}"
            );
            assert_eq!(ended.output, b"7", "{way:?}");
            let linked = runtime.block_on(sandbox.run(job("ln -s /etc/passwd out.txt"))).unwrap();
            assert!(linked.output.is_empty(), "{way:?}: a link leads out of the folder");
            assert_eq!(
                (isolation.network, isolation.processes),
                (way.namespaces, way.namespaces),
                "{way:?}"
            );
            assert_eq!(isolation.limits, way.limits, "{way:?}");
            assert!(way.namespaces || !(isolation.files || isolation.process_limit), "{way:?}");
        }
        assert!(tried >= 1);
    }

    #[test]
    fn the_last_mount_on_a_point_counts() {
        let facts = "net x\nmount / ro,relatime\nmount /home rw,relatime\nmount /home ro\nmount /data rw\nmount /tmp rw";
        assert_eq!(writable_mounts(facts), ["/data"]);
    }
}
