//! How a response's program is run: what runs it, within which limits.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::execution::CodeExecution;
use super::output_match::OutputMatch;
use crate::outside::ResourceLimits;
use crate::process::find_program;
use crate::sandbox::{Job, Rules, probe};
use crate::{Credit, RewardError};

/// Where programs of the system are, whatever this process's own `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to do where this machine cannot keep a program from the network, other processes and files.
///
/// ```
/// use posttrain_reward::code::Unisolated;
///
/// assert_eq!(Unisolated::default(), Unisolated::Run);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unisolated {
    /// Run it; [`CodeExecution::isolation`] and every score's note say what does not hold. Right
    /// inside of a container that is kept for nothing else.
    #[default]
    Run,
    /// Refuse to be built.
    Refuse,
}

/// Runs the program of a response against its task's tests, apart from the rest of the machine.
///
/// # What is run
/// The last closed block fenced by ``` whose language is one of `languages`, after the thinking. A
/// response without one is worth 0.
///
/// # Tests
/// They stand in the dataset row, as `tests` in its metadata, in two forms that may be mixed:
///
/// ```json
/// {"tests": [{"stdin": "3 4\n", "stdout": "7\n"}, {"assert": "assert add(3, 4) == 7"}], "entry_point": "add"}
/// ```
///
/// - *Streams* (any language): the program gets `stdin`, must exit with 0 and write `stdout`
///   (compared by `output`).
/// - *Asserts* (Python): statements that raise where the program is wrong. Names that they do not
///   define are the program's; names of Python's own stay Python's, unless `entry_point` names one
///   (`sum`). A row's asserts are one run, and share its limits, as long as nothing but arguments
///   of functions is handed to the program; where more is (methods of its objects are called with
///   values), each following assert has a fresh program.
///
/// # What cannot be forged
/// Expected output never enters the program's sandbox. Asserts run in a second sandbox, in a
/// process that the program is never loaded into: it is asked for values over a pipe, and plain
/// values (numbers, text, lists, tuples, sets, dicts, …) are compared outside of it. So printing
/// "passed", `os._exit(0)`, a patched `assert`, an `__eq__` that is always true or reading the
/// tests earn nothing: only the right values do.
///
/// Objects of the program's own classes are used from afar: called, looked into, handed back to it.
/// They equal no plain value, and no operator, comparison or method of plain values (`f(3) - 7.25`,
/// `7.2 < f(3)`, `7 in f(3)`, `f(3).startswith("a")`) is ever left to them: a program that returns
/// an object there has failed. (An object that the test makes itself, of a class with a capital
/// letter, has the methods that its class gives it.) A NaN that is compared by size fails, and an
/// exception of the program's that would end a loop of the tests early is another one.
///
/// What cannot be decided so is no zero: a test that hands over a function or another object that
/// is not plain, that compares two objects of the program's, or that only holds where an argument
/// is seen as the program left it beside a result, is [`RewardError::Undecided`].
///
/// # Tests that a program could pass for nothing
/// Refused, as a mistake of the row: a test that asserts nothing by itself (`check(f)`); one that
/// uses what it neither imports nor defines (`np.allclose(…)`, `assert check(f)`), since the
/// program would define it.
///
/// Not to be told, and to be avoided: a comparison that an empty list passes
/// (`all(a == b for a, b in zip(f(3), want))`: also compare the lengths); one that compares what
/// the program changed with itself (`f(l); assert l == sorted(l)`: compare with a literal, or a
/// copy); the denial of a comparison over an array (`not np.any(abs(f(3) - want) > e)`, which NaN
/// passes); inequality alone (`f(3) != 4`); a method of the program's own class that says yes to
/// everything (`assert s.contains(3)` without an `assert not s.contains(4)`).
///
/// # What holds
/// Always: a clean environment, a fresh folder, bounded output, an end by the clock. On Linux with
/// util-linux: limits of memory, processor time and file size. Where user namespaces are allowed:
/// no network, no other process in sight or reach, no file to write outside of a bounded folder in
/// memory; run by root, also not as root. [`CodeExecution::isolation`] says what was found when
/// this was built. Files of the machine can be read as far as its user may: keep secrets away.
///
/// # Time
/// A process that has used `limits.cpu_seconds` of the processor is ended, and its program is
/// wrong. At `time_limit_seconds` the program is ended in any case. By what the kernel has counted,
/// it is then wrong, whether it computed, slept, or waited for what never comes; only where one of
/// its threads was ready for most of that time and had no processor did the machine keep it
/// waiting, and that is an error
/// ([`ProgramFailure::KeptWaiting`](crate::outside::ProgramFailure::KeptWaiting)), so that a busy
/// machine gives no false zeros. A thread that makes itself less important (`nice`) waits by its
/// own choice. Only Linux counts this; elsewhere every program out of time is an error. A program
/// that was out of time in one test is not run in the next ones. A [`Scorer`](crate::Scorer)'s time
/// limit does not count the time of programs: it would be an error where this is a zero.
///
/// # Failures
/// A program that crashes, hangs, or meets a limit of its own is wrong: 0, not an error. An error
/// is a row without tests, a test that is not Python, or a machine on which the sandbox fails, or
/// which has no time for the program. A machine without memory is not told apart from a program
/// that takes too much: leave room for `workers` times `limits.address_space_bytes`.
///
/// ```
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::code::CodeExecutionConfig;
/// use serde_json::json;
///
/// // Any language: here the shell's.
/// let interpreter = vec!["sh".to_owned()];
/// let reward = CodeExecutionConfig { interpreter, languages: vec!["sh".into()], ..CodeExecutionConfig::default() }.build()?;
/// let mut sample = Sample::new("Add two numbers.", "", "```sh\nread a b\necho $((a + b))\n```");
/// sample.metadata.insert("tests".into(), json!([{"stdin": "3 4\n", "stdout": "7"}, {"stdin": "1 1\n", "stdout": "2"}]));
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let score = runtime.block_on(reward.score(&sample))?;
/// assert_eq!((score.value(), score.parts()[0].1), (1.0, 2.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodeExecutionConfig {
    /// What runs a program: a command (by path, or to be found in the system's folders, then in
    /// `PATH`) that is given the program's file name. Default: `python3 -I -B`.
    pub interpreter: Vec<String>,
    /// The name of the program's file. Default: `main.py`.
    pub file_name: String,
    /// Languages of the fences that hold a program, in lower case; the empty one is a fence without
    /// a language. Default: `python`, `python3`, `py` and the empty one.
    pub languages: Vec<String>,
    /// What some failed tests leave. Default: nothing, and the first one ends the run.
    pub credit: Credit,
    /// How standard output is compared. Default: by lines.
    pub output: OutputMatch,
    /// Seconds by the clock for a test, more than 0 and more than `limits.cpu_seconds`. Default 60.
    /// The clock runs on while the machine does other work, so that it decides nothing by itself
    /// (see [Time](#time)): `limits.cpu_seconds` is what a program may compute.
    pub time_limit_seconds: f64,
    /// Limits of each process. Default: 1 GiB of address space, 10 s of processor time, 32
    /// processes, 16 MiB a file, 256 open files.
    pub limits: ResourceLimits,
    /// Bytes of standard output, at least 1. Default 2²⁰.
    pub max_stdout_bytes: usize,
    /// Bytes of all files that a program writes, at least 4,096 (held where
    /// [`files`](crate::code::Isolation::files) are). Default 2²⁶.
    pub max_folder_bytes: u64,
    /// Bytes of a program, at least 1; a longer one is worth 0. Default 2¹⁶.
    pub max_code_bytes: usize,
    /// Tests of a row, at least 1. Default 256.
    pub max_tests: usize,
    /// Programs that run at the same time, at least 1. Default 4.
    pub workers: usize,
    /// Folders of this machine that programs find empty, by absolute paths: where tests, solutions or
    /// references lie. Only user namespaces can do that ([`files`](crate::code::Isolation::files)).
    /// Default: none.
    pub hidden: Vec<PathBuf>,
    /// What to do on a machine that cannot isolate. Default: run, and say so.
    pub unisolated: Unisolated,
}

impl Default for CodeExecutionConfig {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            interpreter: words(&["python3", "-I", "-B"]),
            file_name: "main.py".to_owned(),
            languages: words(&["python", "python3", "py", ""]),
            credit: Credit::default(),
            output: OutputMatch::default(),
            time_limit_seconds: 60.0,
            limits: ResourceLimits {
                address_space_bytes: Some(1 << 30),
                cpu_seconds: Some(10),
                processes: Some(32),
                file_size_bytes: Some(16 << 20),
                open_files: Some(256),
            },
            max_stdout_bytes: 1 << 20,
            max_folder_bytes: 1 << 26,
            max_code_bytes: 1 << 16,
            max_tests: 256,
            workers: 4,
            hidden: Vec::new(),
            unisolated: Unisolated::default(),
        }
    }
}

impl CodeExecutionConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::code::CodeExecutionConfig;
    ///
    /// assert!(CodeExecutionConfig::default().validate().is_ok());
    /// assert!(CodeExecutionConfig { workers: 0, ..CodeExecutionConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if self.interpreter.first().is_none_or(String::is_empty) {
            return invalid(
                "interpreter",
                format!("{:?}", self.interpreter),
                "a program and its arguments",
            );
        }
        if self.file_name.is_empty()
            || self.file_name.starts_with('.')
            || self.file_name.contains('/')
        {
            return invalid("file_name", self.file_name.clone(), "a file's name, without a folder");
        }
        let counts = [
            ("max_stdout_bytes", self.max_stdout_bytes as u64, 1, "at least 1"),
            ("max_folder_bytes", self.max_folder_bytes, 4096, "at least 4096"),
            ("max_code_bytes", self.max_code_bytes as u64, 1, "at least 1"),
            ("max_tests", self.max_tests as u64, 1, "at least 1"),
            ("workers", self.workers.min(Semaphore::MAX_PERMITS) as u64, 1, "at least 1"),
        ];
        if let Some((field, got, _, expected)) =
            counts.into_iter().find(|(_, got, least, _)| got < least)
        {
            return invalid(field, got.to_string(), expected);
        }
        let absolute =
            |path: &&PathBuf| !path.is_absolute() || path.to_str().is_none_or(|p| p.contains('\n'));
        if let Some(path) = self.hidden.iter().find(absolute) {
            return invalid("hidden", path.display().to_string(), "absolute paths, of one line");
        }
        if Duration::from_secs(self.limits.cpu_seconds.unwrap_or(0)) >= self.time_limit()? {
            let expected = "more than `limits.cpu_seconds`, which says what computes too long";
            return invalid("time_limit_seconds", self.time_limit_seconds.to_string(), expected);
        }
        self.limits.validate()
    }

    fn time_limit(&self) -> Result<Duration, RewardError> {
        let seconds = self.time_limit_seconds;
        let limit = Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|limit| !limit.is_zero() && seconds < 1e6);
        let expected = "a number of seconds, more than 0 and less than 1,000,000";
        limit.ok_or_else(|| RewardError::InvalidConfig {
            field: "time_limit_seconds",
            got: seconds.to_string(),
            expected,
        })
    }

    /// The reward. Runs a few empty programs to find out what this machine allows, which takes a
    /// fraction of a second.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and [`RewardError::InvalidConfig`] where the interpreter is
    /// not found or does not run an empty program, or where isolation is required and cannot be
    /// had.
    ///
    /// ```
    /// use posttrain_reward::code::CodeExecutionConfig;
    ///
    /// let config = CodeExecutionConfig { interpreter: vec!["no-such-language".into()], ..CodeExecutionConfig::default() };
    /// assert!(config.build().err().unwrap().to_string().contains("no-such-language"));
    /// ```
    pub fn build(mut self) -> Result<CodeExecution, RewardError> {
        self.validate()?;
        self.interpreter[0] = self.find_interpreter()?;
        let program = [self.interpreter.as_slice(), std::slice::from_ref(&self.file_name)].concat();
        let files = vec![(self.file_name.clone(), Vec::new())];
        let sandbox = probe(self.rules()?, Job { program, files, ..Job::default() })?;
        let isolation = sandbox.isolation();
        if self.unisolated == Unisolated::Refuse && !isolation.gaps().is_empty() {
            let expected = "a machine that allows namespaces and limits, or `run`";
            return Err(RewardError::InvalidConfig {
                field: "unisolated",
                got: format!("refuse, but {isolation}"),
                expected,
            });
        }
        Ok(CodeExecution::new(self, sandbox))
    }

    fn find_interpreter(&self) -> Result<String, RewardError> {
        let own = env::var_os("PATH").unwrap_or_default();
        let program = &self.interpreter[0];
        let found = find_program(program, OsStr::new(PATH)).or_else(|| find_program(program, &own));
        found.ok_or_else(|| {
            let expected = "a program that is there";
            RewardError::InvalidConfig {
                field: "interpreter",
                got: format!("`{program}`"),
                expected,
            }
        })
    }

    fn rules(&self) -> Result<Rules, RewardError> {
        let environment =
            [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")];
        Ok(Rules {
            limits: self.limits.clone(),
            time_limit: self.time_limit()?,
            stdout_bytes: self.max_stdout_bytes,
            box_bytes: self.max_folder_bytes,
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            hidden: self.hidden.clone(),
        })
    }
}
