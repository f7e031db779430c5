//! Arms as jobs of a Slurm cluster: an array, and a report that waits for it.

use crate::ExperimentError;
use posttrain_store::replace_file;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a job asks the cluster for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmConfig {
    /// The jobs' name.
    pub name: String,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--time` of an arm, such as `04:00:00`. One that reaches it saves its step and is queued
    /// again.
    pub time: Option<String>,
    /// `--cpus-per-task`, which are its threads, too.
    pub cpus: Option<usize>,
    /// `--mem`, such as `16G`.
    pub memory: Option<String>,
    /// `--gpus-per-task`.
    pub gpus: Option<usize>,
    /// Arms at a time; all of them where it is left out.
    pub at_a_time: Option<usize>,
    /// Seconds before its end at which an arm is told to stop: longer than a step takes.
    pub grace_seconds: u64,
    /// How often an arm whose time is over is queued again.
    pub restarts: u64,
    /// Further options of `sbatch`, each such as `--constraint=h100`.
    pub options: Vec<String>,
    /// Lines of a shell before the program is started, such as `module load cuda`.
    pub setup: Vec<String>,
}

impl Default for SlurmConfig {
    fn default() -> Self {
        Self {
            name: "posttrain".into(),
            partition: None,
            account: None,
            time: None,
            cpus: None,
            memory: None,
            gpus: None,
            at_a_time: None,
            grace_seconds: 120,
            restarts: 20,
            options: Vec::new(),
            setup: Vec::new(),
        }
    }
}

/// The jobs' scripts.
///
/// ```
/// use posttrain_experiment::{SlurmConfig, SlurmJobs};
///
/// let program = ["four_models", "--config", "demo.toml", "--out", "runs/demo"];
/// let jobs = SlurmJobs::of(&SlurmConfig::default(), &["math", "generalist"], &program, "runs/demo".as_ref())?;
/// assert!(jobs.arms.contains("#SBATCH --array=0-1"));
/// assert!(jobs.report.contains("'four_models' '--config' 'demo.toml' '--out' 'runs/demo' --report"));
/// # Ok::<(), posttrain_experiment::ExperimentError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmJobs {
    /// An array, of which each task trains and tests an arm.
    pub arms: String,
    /// What joins them.
    pub report: String,
    folder: PathBuf,
}

/// The numbers that Slurm has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmSubmitted {
    /// The array's.
    pub arms: String,
    /// The report's.
    pub report: String,
}

/// An array of jobs has no more tasks than this on a cluster as Slurm comes.
const MAX_ARMS: usize = 1000;

impl SlurmJobs {
    /// The scripts for arms of these names. `program` is what runs the experiment, with the
    /// arguments that all its parts share; an arm adds `--arm NAME`, the report `--report`.
    /// `folder` is the run's, where scripts and logs go into `slurm/`.
    ///
    /// # Errors
    /// [`ExperimentError::Field`] names an option that cannot stand in a script.
    pub fn of(
        config: &SlurmConfig,
        arms: &[impl AsRef<str>],
        program: &[impl AsRef<str>],
        folder: &Path,
    ) -> Result<Self, ExperimentError> {
        config.validate()?;
        let count = arms.len();
        let fits = (1..=MAX_ARMS).contains(&count);
        ExperimentError::check("arms", fits, "from 1 to 1000", &count)?;

        let folder = folder.join("slurm");
        let place = folder.display().to_string();
        ExperimentError::check("out", is_word(&place), "one word of a script", &place)?;
        let program = quoted(program);
        let array = match config.at_a_time {
            Some(most) => format!("0-{}%{most}", count - 1),
            None => format!("0-{}", count - 1),
        };
        let log = |name: &str| format!("--output={}", folder.join(name).display());
        let mut options = vec![format!("--array={array}"), log("arm-%a.log")];
        options.extend(["--open-mode=append".to_owned(), "--requeue".to_owned()]);
        options.push(format!("--signal=B:USR1@{}", config.grace_seconds));
        options.push("--ntasks=1".to_owned());
        options.extend(config.time.iter().map(|time| format!("--time={time}")));
        options.extend(config.gpus.iter().map(|gpus| format!("--gpus-per-task={gpus}")));

        let arms = format!(
            "{}{}arms=({})\n{}",
            header(config, &config.name, &options),
            threads(config),
            quoted(arms),
            ARM.replace("PROGRAM", &program).replace("RESTARTS", &config.restarts.to_string())
        );
        let options = [log("report.log"), "--open-mode=append".to_owned()];
        let name = format!("{}-report", config.name);
        let report = format!(
            "{}{}exec {program} --report\n",
            header(config, &name, &options),
            threads(config)
        );
        Ok(Self { arms, report, folder })
    }

    /// Writes the scripts into the run's `slurm/`; their paths.
    ///
    /// # Errors
    /// [`ExperimentError::Store`] names the file.
    pub fn write(&self) -> Result<[PathBuf; 2], ExperimentError> {
        let paths = ["arms.sh", "report.sh"].map(|name| self.folder.join(name));
        for (path, text) in paths.iter().zip([&self.arms, &self.report]) {
            replace_file(path, text.as_bytes())?;
        }
        Ok(paths)
    }

    /// Writes the scripts and submits them: the report begins when every arm has ended, well or
    /// not, and names what is missing.
    ///
    /// # Errors
    /// [`ExperimentError::Store`] names the file; [`ExperimentError::Slurm`] has what `sbatch`
    /// says. Where the report is refused, the array is cancelled.
    pub fn submit(&self) -> Result<SlurmSubmitted, ExperimentError> {
        let [arms, report] = self.write()?;
        let arms = sbatch([arms.as_os_str()])?;
        let after = format!("--dependency=afterany:{arms}");
        let report = sbatch([OsStr::new(&after), report.as_os_str()]).inspect_err(|_| {
            // The error says what matters; what cannot be cancelled is seen in `squeue`.
            drop(Command::new("scancel").arg(&arms).status());
        })?;
        Ok(SlurmSubmitted { arms, report })
    }
}

/// A task of the array. The program saves the step that it is in when it is told to stop, ends with
/// 130, and goes on from there when it is started again. Slurm sends USR1 when its time is nearly
/// over, and TERM when it is pre-empted, queued again by somebody, or cancelled: of those it knows
/// itself which is to come back.
const ARM: &str = r#"
PROGRAM --arm "${arms[$SLURM_ARRAY_TASK_ID]}" &
arm=$!
again=no
trap 'again=yes; kill -TERM "$arm"' USR1
trap 'kill -TERM "$arm"' TERM
wait "$arm"
status=$?
# A signal ends `wait`, and not the program.
while kill -0 "$arm" 2>/dev/null; do
    wait "$arm"
    status=$?
done
if [ "$again" = yes ] && [ "$status" = 130 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt RESTARTS ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
"#;

impl SlurmConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ExperimentError::Field`] names the first that is out of range, or that would be read as
    /// more than one line or word of a script.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        let given = [
            ("slurm.name", Some(&self.name)),
            ("slurm.partition", self.partition.as_ref()),
            ("slurm.account", self.account.as_ref()),
            ("slurm.time", self.time.as_ref()),
            ("slurm.memory", self.memory.as_ref()),
        ];
        let options = self.options.iter().map(|option| ("slurm.options", Some(option)));
        for (field, text) in given.into_iter().chain(options) {
            let text = text.map_or("none", String::as_str);
            ExperimentError::check(field, is_word(text), "one word of a script", text)?;
        }
        for option in &self.options {
            let fits = option.starts_with('-');
            ExperimentError::check("slurm.options", fits, "options, which begin with -", option)?;
        }
        for line in &self.setup {
            let fits = !line.contains('\n');
            ExperimentError::check("slurm.setup", fits, "lines of a shell, one each", line)?;
        }
        let counts = [
            ("slurm.cpus", self.cpus),
            ("slurm.gpus", self.gpus),
            ("slurm.at_a_time", self.at_a_time),
        ];
        for (field, count) in counts {
            ExperimentError::check(field, count != Some(0), "at least 1", &0)?;
        }
        let grace = self.grace_seconds;
        let fits = (1..=65_535).contains(&grace);
        ExperimentError::check("slurm.grace_seconds", fits, "from 1 to 65535", &grace)
    }
}

/// Whether a text stands in a line of options as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"'\"\\`$#".contains(c))
}

fn header(config: &SlurmConfig, name: &str, own: &[String]) -> String {
    let mut options = vec![format!("--job-name={name}")];
    options.extend(config.partition.iter().map(|partition| format!("--partition={partition}")));
    options.extend(config.account.iter().map(|account| format!("--account={account}")));
    options.extend(config.cpus.iter().map(|cpus| format!("--cpus-per-task={cpus}")));
    options.extend(config.memory.iter().map(|memory| format!("--mem={memory}")));
    options.extend(own.iter().chain(&config.options).cloned());
    let mut script = "#!/bin/bash\n".to_owned();
    for option in options {
        script += &format!("#SBATCH {option}\n");
    }
    for line in &config.setup {
        script += &format!("{line}\n");
    }
    script
}

/// As many threads as cores were asked for: a program sees all of the machine's.
fn threads(config: &SlurmConfig) -> String {
    config.cpus.map_or(String::new(), |cpus| {
        format!("export OMP_NUM_THREADS={cpus} RAYON_NUM_THREADS={cpus}\n")
    })
}

/// Words that a shell takes as they are.
fn quoted(words: &[impl AsRef<str>]) -> String {
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// Submits a script; the job's number.
fn sbatch<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String, ExperimentError> {
    let refused = |reason: String| ExperimentError::Slurm { reason };
    let output = Command::new("sbatch").arg("--parsable").args(arguments).output();
    let output = output.map_err(|error| refused(format!("sbatch cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // `number`, or `number;cluster`.
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let number = said.split(';').next().unwrap_or_default();
    match number.parse::<u64>() {
        Ok(_) => Ok(number.to_owned()),
        Err(_) => Err(refused(format!("sbatch gave no job's number: {said:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;
    use std::time::Duration;

    #[test]
    fn what_would_be_more_than_a_word_is_refused() {
        let of = |config: SlurmConfig| config.validate().unwrap_err().to_string();
        let cases = [
            (SlurmConfig { name: "a b".into(), ..SlurmConfig::default() }, "slurm.name"),
            (
                SlurmConfig { partition: Some("a\nrm".into()), ..SlurmConfig::default() },
                "partition",
            ),
            (SlurmConfig { options: vec!["$(rm)".into()], ..SlurmConfig::default() }, "options"),
            (SlurmConfig { options: vec!["gpu".into()], ..SlurmConfig::default() }, "begin with -"),
            (SlurmConfig { setup: vec!["a\nb".into()], ..SlurmConfig::default() }, "slurm.setup"),
            (SlurmConfig { cpus: Some(0), ..SlurmConfig::default() }, "slurm.cpus"),
            (SlurmConfig { grace_seconds: 0, ..SlurmConfig::default() }, "grace_seconds"),
        ];
        for (config, field) in cases {
            assert!(of(config).contains(field), "{field}");
        }
        let nothing: [&str; 0] = [];
        let none = SlurmJobs::of(&SlurmConfig::default(), &nothing, &["a"], "b".as_ref());
        assert!(none.unwrap_err().to_string().contains("arms"));
    }

    #[test]
    fn words_are_taken_as_they_are() {
        let config = SlurmConfig { cpus: Some(3), at_a_time: Some(2), ..SlurmConfig::default() };
        let program = ["/it's here/four models", "--out", "$(touch oops)"];
        let jobs = SlurmJobs::of(&config, &["a", "b", "c"], &program, "out".as_ref()).unwrap();
        assert!(jobs.arms.contains("#SBATCH --array=0-2%2\n"), "{}", jobs.arms);
        assert!(jobs.arms.contains("arms=('a' 'b' 'c')\n"), "{}", jobs.arms);
        let print = format!("printf '%s|' {}", quoted(&program));
        let said = Command::new("bash").args(["-c", &print]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), program.join("|") + "|");
    }

    /// A task is told to stop, as before its time is over: the program hears it, and the task is
    /// queued again by what is in the script.
    #[test]
    fn a_task_that_is_stopped_is_queued_again() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        // It takes a second to save its step.
        let arm = program(
            "arm",
            "trap 'sleep 1; echo saved $2; exit 130' TERM\necho began\nwhile true; do sleep 0.05; done",
        );
        let well = program("well", "exit 0");
        program("scontrol", "echo scontrol $*");
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let task = |program: &str, signal: Option<&str>, starts: &str| {
            let config = SlurmConfig { restarts: 3, ..SlurmConfig::default() };
            let jobs = SlurmJobs::of(&config, &["math", "social"], &[program], dir.path()).unwrap();
            let [arms, _] = jobs.write().unwrap();
            let child = Command::new("bash")
                .arg(arms)
                .env("PATH", &path)
                .env("SLURM_ARRAY_TASK_ID", "1")
                .env("SLURM_ARRAY_JOB_ID", "7")
                .env("SLURM_RESTART_COUNT", starts)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            if let Some(signal) = signal {
                std::thread::sleep(Duration::from_millis(800));
                let pid = child.id().to_string();
                assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            }
            let output = child.wait_with_output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let saved = "began\nsaved social\n";
        let queued = format!("{saved}scontrol requeue 7_1\n");
        assert_eq!(task(&arm, Some("-USR1"), "0"), (Some(130), queued));
        // Not for ever, and not what was cancelled.
        assert_eq!(task(&arm, Some("-USR1"), "3"), (Some(130), saved.to_owned()));
        assert_eq!(task(&arm, Some("-TERM"), "0"), (Some(130), saved.to_owned()));
        assert_eq!(task(&well, None, "0"), (Some(0), String::new()));
    }
}
