//! Splits a dataset into train, validation and test, so that no fact is in two of them.
//!
//! ```text
//! cargo run --release -p examples --example split -- --dataset sciences --seed 7 --out data
//! cargo run --release -p examples --example split -- --dataset my.parquet --question-column prompt --answer-column gold \
//!     --sizes 800,100,100 --out data
//! ```
//!
//! Writes `OUT/<domain>/{train,validation,test}.jsonl`, then checks what it wrote for leaks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Parser;
use posttrain_data::{
    Columns, Dataset, ReadConfig, Split, SplitConfig, SplitFile, SplitSizes, Splits, leaks, read,
    sciences, split, write_splits,
};

/// Splits a dataset by domain into train, validation and test; no group of related questions is in
/// two of them.
#[derive(Parser)]
struct Args {
    /// `sciences`, the built-in set, or a `.jsonl` or `.parquet` file.
    #[arg(long)]
    dataset: PathBuf,
    /// Decides which rows go where (and which questions the built-in set asks).
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder that gets a folder for each domain.
    #[arg(long)]
    out: PathBuf,
    /// Rows of each domain for train, validation and test.
    #[arg(long, default_value = "2000,250,250", value_name = "TRAIN,VALIDATION,TEST")]
    sizes: Sizes,
    #[command(flatten)]
    columns: ColumnArgs,
}

/// Which column of a file is which field; not for the built-in set.
#[derive(clap::Args)]
struct ColumnArgs {
    /// The column of questions [default: question].
    #[arg(long, value_name = "NAME")]
    question_column: Option<String>,
    /// The column of answers [default: answer].
    #[arg(long, value_name = "NAME")]
    answer_column: Option<String>,
    /// The column of domains [default: domain, where a row has it].
    #[arg(long, value_name = "NAME")]
    domain_column: Option<String>,
    /// The column that says which rows are about one fact [default: group, where a row has it, else
    /// the question].
    #[arg(long, value_name = "NAME")]
    group_column: Option<String>,
    /// The column of ids [default: id, where a row has it, else derived from the row].
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// The domain of rows that have none [default: default].
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

impl ColumnArgs {
    fn is_given(&self) -> bool {
        let Self { question_column, answer_column, domain_column, group_column, id_column, domain } =
            self;
        [question_column, answer_column, domain_column, group_column, id_column, domain]
            .iter()
            .any(|arg| arg.is_some())
    }

    fn into_columns(self) -> Columns {
        let usual = Columns::default();
        // A domain column that was named must be there; without one, all rows may be of one domain.
        let one_domain = self.domain_column.is_none().then(|| "default".to_owned());
        Columns {
            question: self.question_column.unwrap_or(usual.question),
            answer: self.answer_column.unwrap_or(usual.answer),
            domain: self.domain_column,
            group: self.group_column,
            id: self.id_column,
            default_domain: self.domain.or(one_domain),
            ..Columns::default()
        }
    }
}

#[derive(Clone, Copy)]
struct Sizes(SplitSizes);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Result<Vec<u64>, _> = text.split(',').map(|size| size.trim().parse()).collect();
        match sizes.as_deref() {
            Ok(&[train, validation, test]) => Ok(Self(SplitSizes { train, validation, test })),
            _ => Err(format!("expected three numbers such as 2000,250,250, got {text:?}")),
        }
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let dataset = load(&args.dataset, args.seed, args.columns)?;
    let splits = split(&dataset, &SplitConfig { sizes: args.sizes.0, seed: args.seed })?;
    let files = write_splits(&args.out, &splits)?;
    print_table(&files, splits.left_over.len());
    check(&read_back(&files)?)
}

fn load(dataset: &Path, seed: u64, columns: ColumnArgs) -> Result<Dataset> {
    if dataset != Path::new("sciences") {
        return Ok(read(dataset, &ReadConfig::new(columns.into_columns()))?);
    }
    if columns.is_given() {
        bail!(
            "the built-in set has no columns to choose: --dataset sciences goes without --*-column and --domain"
        );
    }
    Ok(sciences::generate(seed)?)
}

fn print_table(files: &[SplitFile], left_over: usize) {
    println!("{:>7} {:>7}  file", "rows", "groups");
    for SplitFile { path, rows, groups, .. } in files {
        println!("{rows:>7} {groups:>7}  {}", path.display());
    }
    println!("{left_over:>7}          rows left over");
}

/// What is on disk, not what was meant to be.
fn read_back(files: &[SplitFile]) -> Result<Splits> {
    let mut splits = Splits::default();
    for file in files.iter().filter(|file| file.rows > 0) {
        let rows = read(&file.path, &ReadConfig::default())
            .context("reading back what was written")?
            .into_examples();
        match file.split {
            Split::Train => splits.train.extend(rows),
            Split::Validation => splits.validation.extend(rows),
            Split::Test => splits.test.extend(rows),
        }
    }
    Ok(splits)
}

fn check(splits: &Splits) -> Result<()> {
    let found = leaks(splits);
    for leak in found.iter().take(20) {
        println!("leak: {leak}");
    }
    if !found.is_empty() {
        bail!("{} ids, groups or questions are in more than one split", found.len());
    }
    let rows: usize = Split::ALL.iter().map(|&split| splits.get(split).len()).sum();
    let groups: BTreeSet<_> =
        Split::ALL.iter().flat_map(|&split| splits.get(split)).map(|row| &row.group).collect();
    println!(
        "no leaks: {rows} rows of {} groups, none in two splits by id, group or normalised question",
        groups.len()
    );
    Ok(())
}
