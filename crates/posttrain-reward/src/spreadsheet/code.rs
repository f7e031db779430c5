//! The reward of programs that edit spreadsheets: run in a sandbox, their workbooks compared.

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::area::Area;
use super::compare::{Outcome, score};
use super::task::{InputCase, Task};
use super::workbook::{Workbook, read_file};
use crate::code::{CodeExecution, CodeExecutionConfig, CommandRun, Isolation};
use crate::spreadsheet::{BadAnswer, Spreadsheet, SpreadsheetConfig};
use crate::{Reward, RewardError, Sample, Score};

const EXPECTED: &str =
    r#"{"range": "Sheet1!A1:C9", "cases": [{"input": "a.xlsx", "reference": "b.xlsx"}]}"#;

/// Runs a response's program on each test case's workbook, and compares what it wrote:
/// SpreadsheetBench's task.
///
/// The dataset row's metadata holds the range and the cases; relative paths begin in
/// `spreadsheet.directory`:
///
/// ```json
/// {"spreadsheet": {"range": "Sheet1!A1:C9", "cases": [{"input": "1_input.xlsx", "reference": "1_answer.xlsx"}]}}
/// ```
///
/// For each case the program finds `input` in its folder and must leave `output` there. It runs as
/// [`CodeExecutionConfig`] says (its `credit`, `output` and `max_tests` are not used), and the
/// workbooks are compared as [`SpreadsheetConfig`] says. A program that fails, writes nothing, or
/// writes what cannot be read is wrong in that case, not an error: the policy wrote the file. The
/// directory is hidden from it, where this machine can hide folders
/// ([`CodeExecutionConfig::hidden`]).
/// Formulas need stored values, which `openpyxl` does not compute.
///
/// ```
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::code::CodeExecutionConfig;
/// use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;
/// use rust_xlsxwriter::Workbook;
/// use serde_json::json;
///
/// let folder = tempfile::tempdir()?;
/// let mut workbook = Workbook::new();
/// workbook.add_worksheet().write(0, 0, 7.0)?;
/// workbook.save(folder.path().join("1.xlsx"))?;
/// // In a shell's words: the answer is the input as it is.
/// let code = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() };
/// let mut config = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() };
/// config.spreadsheet.directory = folder.path().to_owned();
///
/// let mut sample = Sample::new("Keep it.", "", "```\ncp input.xlsx output.xlsx\n```");
/// let cases = json!([{"input": "1.xlsx", "reference": "1.xlsx"}]);
/// sample.metadata.insert("spreadsheet".into(), json!({"range": "A1", "cases": cases}));
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// assert_eq!(runtime.block_on(config.build()?.score(&sample))?.value(), 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpreadsheetCodeConfig {
    /// How the program is run. Default: in Python; the interpreter needs the libraries that the
    /// prompt promises.
    pub code: CodeExecutionConfig,
    /// How workbooks are compared. `bad_answer` is not used: it is wrong.
    pub spreadsheet: SpreadsheetConfig,
    /// The name of the workbook that the program finds. Default: `input.xlsx`.
    pub input: String,
    /// The name of the workbook that it must leave. Default: `output.xlsx`.
    pub output: String,
}

impl Default for SpreadsheetCodeConfig {
    fn default() -> Self {
        Self {
            code: CodeExecutionConfig::default(),
            spreadsheet: SpreadsheetConfig::default(),
            input: "input.xlsx".to_owned(),
            output: "output.xlsx".to_owned(),
        }
    }
}

impl SpreadsheetCodeConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;
    ///
    /// assert!(SpreadsheetCodeConfig::default().validate().is_ok());
    /// assert!(SpreadsheetCodeConfig { output: "../x".into(), ..SpreadsheetCodeConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        for (field, name) in [("input", &self.input), ("output", &self.output)] {
            if name.is_empty() || name.starts_with(['.', '-']) || name.contains('/') {
                let expected = "a file's name, without a folder";
                return Err(RewardError::InvalidConfig { field, got: name.clone(), expected });
            }
        }
        if [&self.output, &self.code.file_name].contains(&&self.input) {
            let expected = "another name than the program's and the output's";
            return Err(RewardError::InvalidConfig {
                field: "input",
                got: self.input.clone(),
                expected,
            });
        }
        self.code.validate()?;
        self.spreadsheet.validate()
    }

    /// The reward.
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`CodeExecutionConfig::build`].
    ///
    /// ```
    /// use posttrain_reward::Reward;
    /// use posttrain_reward::code::CodeExecutionConfig;
    /// use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;
    ///
    /// let code = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() };
    /// let reward = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() }.build()?;
    /// assert_eq!(reward.name(), "spreadsheet_code");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<SpreadsheetCode, RewardError> {
        self.validate()?;
        let spreadsheet =
            SpreadsheetConfig { bad_answer: BadAnswer::Wrong, ..self.spreadsheet.clone() }
                .build()?;
        // No program reads the references.
        let mut code = self.code.clone();
        let directory = std::fs::canonicalize(&self.spreadsheet.directory);
        let given = !self.spreadsheet.directory.as_os_str().is_empty();
        code.hidden.extend(directory.ok().filter(|_| given));
        Ok(SpreadsheetCode { code: code.build()?, spreadsheet, config: self })
    }
}

/// The reward that [`SpreadsheetCodeConfig`] describes and builds; parts `soft` and `hard`.
///
/// ```
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::code::CodeExecutionConfig;
/// use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;
///
/// let code = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() };
/// let reward = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() }.build()?;
/// let error = futures::executor::block_on(reward.score(&Sample::default())).unwrap_err();
/// assert_eq!(error.cause(), "missing_field");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct SpreadsheetCode {
    code: CodeExecution,
    spreadsheet: Spreadsheet,
    config: SpreadsheetCodeConfig,
}

impl Reward for SpreadsheetCode {
    fn name(&self) -> &str {
        "spreadsheet_code"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let task = Task::<InputCase>::of(sample, EXPECTED)?;
            let mut outcomes = Vec::new();
            for case in &task.cases {
                outcomes.push(self.case(&sample.response, case, &task.areas).await?);
            }
            score(&outcomes, self.config.spreadsheet.credit)
        })
    }
}

impl SpreadsheetCode {
    /// What keeps programs from the rest of this machine; see [`CodeExecution::isolation`].
    ///
    /// ```
    /// use posttrain_reward::code::CodeExecutionConfig;
    /// use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;
    ///
    /// let code = CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() };
    /// let reward = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() }.build()?;
    /// println!("{}", reward.isolation());
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn isolation(&self) -> Isolation {
        self.code.isolation()
    }

    /// Runs the program of a response on the first case's workbook and says what it said, for a
    /// policy that tries before it answers; `kept` says whether it left the output. Nothing where
    /// the response has no program.
    ///
    /// # Errors
    /// Those of scoring, but for the comparison's.
    pub async fn try_out(&self, sample: &Sample) -> Result<Option<CommandRun>, RewardError> {
        let task = Task::<InputCase>::of(sample, EXPECTED)?;
        let files = self.files(&task.cases[0]).await?;
        self.code.tried(&sample.response, files, &self.config.output).await
    }

    /// A case's workbook, as the program finds it.
    async fn files(&self, case: &InputCase) -> Result<Vec<(String, Vec<u8>)>, RewardError> {
        let (path, limit) =
            (self.spreadsheet.path(&case.input), self.config.spreadsheet.limits.max_file_bytes);
        let input = self.aside(move || read_file(&path, limit)).await?;
        Ok(vec![(self.config.input.clone(), input)])
    }

    async fn case(
        &self,
        response: &str,
        case: &InputCase,
        areas: &[Area],
    ) -> Result<Outcome, RewardError> {
        let files = self.files(case).await?;
        let bytes = match self.code.edit(response, files, &self.config.output).await? {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Outcome { agrees: false, note: fault }),
        };
        let (spreadsheet, areas, reference) =
            (self.spreadsheet.clone(), areas.to_vec(), case.reference.clone());
        let (output, limits) =
            (PathBuf::from(&self.config.output), self.config.spreadsheet.limits.clone());
        let open = move || Workbook::from_bytes(&output, bytes, &limits);
        self.aside(move || spreadsheet.case(open, &reference, &areas)).await
    }

    /// Runs what reads files and computes on a thread that may block.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RewardError> + Send + 'static,
    ) -> Result<T, RewardError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(RewardError::Cancelled { reward: self.name().to_owned() }))
    }
}
