//! Runs a response's program against the tests of its task.

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::asserts::{Outcome, run_asserts};
use super::block::last_block;
use super::config::CodeExecutionConfig;
use super::test_case::{Streams, Tests};
use super::workspace::{CommandRun, Workspace};
use crate::code::Isolation;
use crate::outside::ProgramFailure;
use crate::sandbox::{Ended, Ending, InputFile, Job, Sandbox};
use crate::scorer::clock;
use crate::{Credit, Reward, RewardError, Sample, Score};
use posttrain_answer::response::without_thinking;

/// What is said of a program that its limits of time ended.
const OUT_OF_TIME: &str = "out of time";

/// The reward that [`CodeExecutionConfig`] describes and builds.
///
/// Parts are `tests_passed` and `tests`; the note says what the first failed test did.
///
/// ```
/// use posttrain_reward::Reward;
/// use posttrain_reward::code::CodeExecutionConfig;
///
/// let reward = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() }.build()?;
/// assert_eq!(reward.name(), "code");
/// println!("{}", reward.isolation());
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct CodeExecution {
    config: CodeExecutionConfig,
    sandbox: Sandbox,
    free: Semaphore,
}

impl Reward for CodeExecution {
    fn name(&self) -> &str {
        "code"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let tests = Tests::of(sample, self.config.max_tests)?;
            let Some(code) = self.program(&sample.response) else {
                return self.verdict(0, tests.len(), Some("no program in the response".to_owned()));
            };
            let _clock = clock::stop();
            let cancelled = |_| RewardError::Cancelled { reward: self.name().to_owned() };
            let _permit = self.free.acquire().await.map_err(cancelled)?;
            let (passed, fault) = self.run(sample, code, &tests).await?;
            self.verdict(passed, tests.len(), fault)
        })
    }
}

impl CodeExecution {
    pub(super) fn new(config: CodeExecutionConfig, sandbox: Sandbox) -> Self {
        let free = Semaphore::new(config.workers);
        Self { config, sandbox, free }
    }

    /// What keeps programs from the rest of this machine, as it was found when this was built.
    ///
    /// ```
    /// use posttrain_reward::code::CodeExecutionConfig;
    ///
    /// let reward = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() }.build()?;
    /// for gap in reward.isolation().gaps() {
    ///     eprintln!("programs are not isolated: {gap}");
    /// }
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn isolation(&self) -> Isolation {
        self.sandbox.isolation()
    }

    /// The configuration, with the interpreter's whole path.
    ///
    /// ```
    /// use posttrain_reward::code::CodeExecutionConfig;
    ///
    /// let reward = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() }.build()?;
    /// assert!(reward.config().interpreter[0].ends_with("/sh"));
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn config(&self) -> &CodeExecutionConfig {
        &self.config
    }

    fn program<'t>(&self, response: &'t str) -> Option<&'t str> {
        let code = last_block(without_thinking(response)?, &self.config.languages)?;
        (code.len() <= self.config.max_code_bytes).then_some(code)
    }

    /// Runs the program of `response` beside `files` and gives the file `output` that it left, or
    /// what it did instead.
    pub(crate) async fn edit(
        &self,
        response: &str,
        files: Vec<InputFile>,
        output: &str,
    ) -> Result<Result<Vec<u8>, String>, RewardError> {
        let Some(ended) = self.beside(response, files, output).await? else {
            return Ok(Err("no program in the response".to_owned()));
        };
        Ok(match fault(&ended) {
            Some(fault) => Err(fault),
            None if ended.output.is_empty() => Err(format!("it left no `{output}`")),
            None => Ok(ended.output),
        })
    }

    /// What the program of `response` says when it is run beside `files`, and whether it left
    /// `output`; nothing where there is no program.
    pub(crate) async fn tried(
        &self,
        response: &str,
        files: Vec<InputFile>,
        output: &str,
    ) -> Result<Option<CommandRun>, RewardError> {
        let ended = self.beside(response, files, output).await?;
        Ok(ended.map(|ended| {
            let run = command_run(&ended);
            CommandRun { output: run.output + &ended.stderr, kept: !ended.output.is_empty(), ..run }
        }))
    }

    /// Runs the program of `response` beside `files`, and takes `output` out; nothing where there is
    /// no program.
    async fn beside(
        &self,
        response: &str,
        mut files: Vec<InputFile>,
        output: &str,
    ) -> Result<Option<Ended>, RewardError> {
        let Some(code) = self.program(response) else { return Ok(None) };
        files.push((self.config.file_name.clone(), code.as_bytes().to_vec()));
        let job = Job { files, output: output.to_owned(), ..self.job() };
        self.in_turn(job).await.map(Some)
    }

    /// How many tests pass, and what the first that does not says.
    async fn run(
        &self,
        sample: &Sample,
        code: &str,
        tests: &Tests,
    ) -> Result<(usize, Option<String>), RewardError> {
        let (mut passed, mut fault) = (0, None);
        for (index, outcome) in self.asserts(code, tests).await?.into_iter().enumerate() {
            match outcome {
                Outcome::Passed(_) => passed += 1,
                Outcome::Failed(note) => fault = fault.or(Some(format!("assert {index}: {note}"))),
                Outcome::Broken(note) => return Err(broken(sample, index, &note)),
                Outcome::Unsupported(_) => return Err(undecided(sample)),
            }
        }
        for (index, streams) in tests.streams.iter().enumerate() {
            // A program that was out of time once is not run again: each test would cost that time.
            let stopped = fault.as_ref().is_some_and(|fault| fault.ends_with(OUT_OF_TIME));
            if stopped || (fault.is_some() && self.config.credit == Credit::Hard) {
                break;
            }
            match self.stream(code, streams).await? {
                Ok(()) => passed += 1,
                Err(note) => fault = fault.or(Some(format!("stream {index}: {note}"))),
            }
        }
        Ok((passed, fault))
    }

    async fn asserts(&self, code: &str, tests: &Tests) -> Result<Vec<Outcome>, RewardError> {
        if tests.asserts.is_empty() {
            return Ok(Vec::new());
        }
        let run = run_asserts(&self.sandbox, &self.config.interpreter, code, tests).await;
        run.map_err(|failure| self.failed(failure))
    }

    async fn stream(
        &self,
        code: &str,
        streams: &Streams,
    ) -> Result<Result<(), String>, RewardError> {
        let files = vec![(self.config.file_name.clone(), code.as_bytes().to_vec())];
        let ended = self
            .execute(Job { files, stdin: streams.stdin.as_bytes().to_vec(), ..self.job() })
            .await?;
        Ok(match fault(&ended) {
            Some(fault) => Err(fault),
            None if self
                .config
                .output
                .same(&String::from_utf8_lossy(&ended.stdout), &streams.stdout) =>
            {
                Ok(())
            }
            None => Err("another output".to_owned()),
        })
    }

    /// Runs a command in a workspace: the interpreter with `-c` and the text (a shell's, or Python's),
    /// from the folder `directory`, with `environment` beside the sandbox's own. What it changes stays
    /// in the workspace, unless a limit of time or output ends it or its files are too many: then
    /// nothing does. What it leaves running is ended.
    ///
    /// # Errors
    /// [`RewardError::Program`] where the sandbox cannot run it (a workspace needs user namespaces), or
    /// the machine kept it waiting.
    ///
    /// ```
    /// use posttrain_reward::code::{CodeExecutionConfig, Workspace};
    ///
    /// let code = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() }.build()?;
    /// # if !code.isolation().files { return Ok(()); }
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// let mut workspace = Workspace::new(&["app"])?;
    /// workspace.add_file("app/notes.txt", b"one\n")?;
    /// let run = runtime.block_on(code.command(&mut workspace, "/app", &[], "echo two >> notes.txt"))?;
    /// assert_eq!((run.exit, run.kept), (Some(0), true));
    /// let run = runtime.block_on(code.command(&mut workspace, "/app", &[], "cat notes.txt; exit 3"))?;
    /// assert_eq!((run.output.as_str(), run.exit), ("one\ntwo\n", Some(3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn command(
        &self,
        workspace: &mut Workspace,
        directory: &str,
        environment: &[(String, String)],
        command: &str,
    ) -> Result<CommandRun, RewardError> {
        let program = self.shell(environment, command);
        let mut ended = self.in_turn(workspace.job(directory, program)).await?;
        let archive = std::mem::take(&mut ended.output);
        let mut run = command_run(&ended);
        match archive.strip_suffix(KEPT) {
            Some(whole) if run.ended_by.is_none() => {
                workspace.replace(whole.to_vec());
                run.kept = true;
            }
            _ => {
                let full = || "its files are more than there is room for".to_owned();
                run.ended_by.get_or_insert_with(full);
            }
        }
        Ok(run)
    }

    /// Runs a command as [`command`](Self::command) does, and gives a file that it left (a path in the
    /// workspace, such as `logs/result`; nothing where there is none) beside what it said; the
    /// workspace stays as it is.
    ///
    /// # Errors
    /// Those of [`command`](Self::command).
    pub async fn inspect(
        &self,
        workspace: &Workspace,
        directory: &str,
        environment: &[(String, String)],
        (command, file): (&str, &str),
    ) -> Result<(CommandRun, Vec<u8>), RewardError> {
        let program = self.shell(environment, command);
        let job = Job { output: file.to_owned(), ..workspace.job(directory, program) };
        let ended = self.in_turn(job).await?;
        Ok((command_run(&ended), ended.output))
    }

    /// The interpreter with a text to run, in an environment.
    fn shell(&self, environment: &[(String, String)], command: &str) -> Vec<String> {
        let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
        let mut program = vec!["env".to_owned()];
        program.extend(variables);
        program.extend(self.config.interpreter.iter().cloned());
        program.extend(["-c".to_owned(), command.to_owned()]);
        program
    }

    /// Runs a job once there is a place for it.
    async fn in_turn(&self, job: Job) -> Result<Ended, RewardError> {
        let _clock = clock::stop();
        let cancelled = |_| RewardError::Cancelled { reward: self.name().to_owned() };
        let _permit = self.free.acquire().await.map_err(cancelled)?;
        self.execute(job).await
    }

    /// The program's file run by the interpreter.
    fn job(&self) -> Job {
        let program =
            [self.config.interpreter.as_slice(), std::slice::from_ref(&self.config.file_name)]
                .concat();
        Job { program, ..Job::default() }
    }

    async fn execute(&self, job: Job) -> Result<Ended, RewardError> {
        let ended = self.sandbox.run(job).await.map_err(|failure| self.failed(failure))?;
        if ended.ending == Ending::KeptWaiting {
            return Err(self
                .failed(ProgramFailure::KeptWaiting { seconds: self.config.time_limit_seconds }));
        }
        Ok(ended)
    }

    fn verdict(
        &self,
        passed: usize,
        total: usize,
        fault: Option<String>,
    ) -> Result<Score, RewardError> {
        let score = Score::new(self.config.credit.value(passed, total))?;
        let score =
            score.with_part("tests_passed", passed as f64)?.with_part("tests", total as f64)?;
        let gaps = self.isolation().gaps();
        let warning = (!gaps.is_empty()).then(|| format!("not isolated: {}", gaps.join(", ")));
        let notes: Vec<String> = fault.into_iter().chain(warning).collect();
        Ok(if notes.is_empty() { score } else { score.with_note(notes.join("; ")) })
    }

    fn failed(&self, failure: ProgramFailure) -> RewardError {
        let program = self.config.interpreter[0].clone();
        RewardError::Program {
            reward: self.name().to_owned(),
            program,
            stderr: String::new(),
            failure,
        }
    }
}

/// What stands behind an archive that is whole.
const KEPT: &[u8] = b"kept\n";

/// What a command did, as far as its end tells.
fn command_run(ended: &Ended) -> CommandRun {
    let exit = match ended.ending {
        Ending::Exited(code) => Some(code),
        Ending::Signalled(signal) => Some(128 + signal),
        Ending::OutOfTime | Ending::KeptWaiting | Ending::TooMuchOutput => None,
    };
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    let ended_by = if exit.is_some() { None } else { fault(ended) };
    CommandRun { output, exit, kept: false, ended_by }
}

/// What a program did instead of ending well.
fn fault(ended: &Ended) -> Option<String> {
    let last_words =
        || ended.stderr.lines().last().unwrap_or_default().chars().take(120).collect::<String>();
    match ended.ending {
        Ending::Exited(0) => None,
        Ending::Exited(code) => Some(format!("exit code {code}: {}", last_words())),
        Ending::Signalled(signal) => Some(format!("ended by signal {signal}: {}", last_words())),
        Ending::OutOfTime | Ending::KeptWaiting => Some(OUT_OF_TIME.to_owned()),
        Ending::TooMuchOutput => Some("too much output".to_owned()),
    }
}

fn broken(sample: &Sample, index: usize, note: &str) -> RewardError {
    let reason = format!("assert {index} {note}");

    RewardError::BadTask {
        id: sample.id.clone(),
        key: "tests",
        reason,
        expected: "Python that compiles and decides",
    }
}

fn undecided(sample: &Sample) -> RewardError {
    let reason = "a test needs what cannot be sent to another process, or what only the program could decide";
    RewardError::Undecided { id: sample.id.clone(), verifier: "code".to_owned(), reason }
}
