//! `cargo xtask slurm`: a Slurm cluster of one node, this machine, in a folder of its own. Its
//! programs are the distribution's (`apt install slurm-wlm munge`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, make_folder, remove_folder};

/// What the cluster consists of, as the shell finds it.
const PROGRAMS: [&str; 5] = ["munged", "slurmctld", "slurmd", "scontrol", "sinfo"];
/// How long it may take to start, or to stop, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts or stops the cluster, as asked.
pub fn run(workspace: &Workspace, stop: bool) -> Result<ExitCode> {
    let cluster = Cluster { folder: workspace.servers().join("slurm") };
    if stop {
        println!("{}", if cluster.stop()? { "stopped" } else { "no cluster is running" });
        return Ok(ExitCode::SUCCESS);
    }
    cluster.start()?;
    println!("export SLURM_CONF={}", cluster.config().display());
    println!("# stop it: cargo xtask slurm --stop");
    Ok(ExitCode::SUCCESS)
}

/// A cluster by its folder.
struct Cluster {
    folder: PathBuf,
}

impl Cluster {
    fn config(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    fn start(&self) -> Result<()> {
        if let Some(missing) = PROGRAMS.iter().find(|program| find(program).is_none()) {
            bail!(
                "there is no {missing}: on Debian and Ubuntu, `apt install slurm-wlm munge` has it"
            );
        }
        if self.answers() {
            return Ok(());
        }
        self.stop()?;
        for folder in ["state", "spool", "log", "munge"] {
            make_folder(&self.folder.join(folder))?;
        }
        // Whoever could read it could submit jobs as anybody.
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        let key = self.folder.join("munge/key");
        let mut random = fs::File::open("/dev/urandom").context("cannot read /dev/urandom")?;
        let mut bytes = [0; 1024];
        std::io::Read::read_exact(&mut random, &mut bytes)?;
        write(&key, &bytes, 0o400)?;
        write(&self.config(), self.text()?.as_bytes(), 0o600)?;

        let munge = |file: &str| self.folder.join("munge").join(file).display().to_string();
        let mut munged = command("munged");
        munged.arg("--force");
        for (option, file) in
            [("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log")]
        {
            munged.arg(format!("--{option}={}", munge(file)));
        }
        told(munged.arg(format!("--seed-file={}", munge("seed"))))?;
        told(self.with_config("slurmctld").args(["-c", "-i"]))?;
        told(self.with_config("slurmd").arg("-c"))?;
        wait_until(|| self.answers())
            .with_context(|| format!("the cluster is not up; see {}/log", self.folder.display()))
    }

    /// Whether there was one.
    fn stop(&self) -> Result<bool> {
        let pids = ["slurmd.pid", "slurmctld.pid", "munge/pid"];
        let running: Vec<String> = pids
            .iter()
            .filter_map(|file| fs::read_to_string(self.folder.join(file)).ok())
            .map(|pid| pid.trim().to_owned())
            .filter(|pid| self.is_ours(pid))
            .collect();
        for pid in &running {
            told(Command::new("kill").args(["-TERM", pid]))?;
        }
        wait_until(|| !running.iter().any(|pid| self.is_ours(pid)))
            .context("the cluster does not stop")?;
        remove_folder(&self.folder)?;
        Ok(!running.is_empty())
    }

    /// Whether a process is one of this folder's cluster, and not another that has its number now.
    fn is_ours(&self, pid: &str) -> bool {
        let named = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let folder = self.folder.display().to_string();
        [named, environment].iter().any(|text| String::from_utf8_lossy(text).contains(&folder))
    }

    fn answers(&self) -> bool {
        let output = self.with_config("sinfo").args(["--noheader", "--format=%t"]).output();
        output.is_ok_and(|output| {
            let states = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success() && ["idle", "mix", "alloc"].contains(&states.trim())
        })
    }

    fn with_config(&self, program: &str) -> Command {
        let mut command = command(program);
        command.env("SLURM_CONF", self.config());
        command
    }

    fn text(&self) -> Result<String> {
        let name = |arguments: &[&str]| -> Result<String> {
            let output = Command::new(arguments[0]).args(&arguments[1..]).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let (host, user) = (name(&["hostname", "-s"])?, name(&["id", "-un"])?);
        let cores = available_parallelism().map_or(1, usize::from);
        let folder = self.folder.display();
        Ok(format!(
            "ClusterName=local\n\
             SlurmctldHost={host}\n\
             SlurmUser={user}\n\
             SlurmdUser={user}\n\
             SlurmctldPort=16817\n\
             SlurmdPort=16818\n\
             AuthType=auth/munge\n\
             AuthInfo=socket={folder}/munge/socket\n\
             CredType=cred/munge\n\
             StateSaveLocation={folder}/state\n\
             SlurmdSpoolDir={folder}/spool\n\
             SlurmctldPidFile={folder}/slurmctld.pid\n\
             SlurmdPidFile={folder}/slurmd.pid\n\
             SlurmctldLogFile={folder}/log/slurmctld\n\
             SlurmdLogFile={folder}/log/slurmd\n\
             ProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\n\
             SelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\n\
             MpiDefault=none\n\
             SwitchType=switch/none\n\
             JobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\n\
             ReturnToService=2\n\
             NodeName={host} CPUs={cores} State=UNKNOWN\n\
             PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        ))
    }
}

/// Where a program is: daemons are often beside the path of people who may not start them.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs a program; what it says where it fails.
fn told(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let written = fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn wait_until(done: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > PATIENCE {
            bail!("not within {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(200));
    }
    Ok(())
}
