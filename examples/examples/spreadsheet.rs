//! Compares an answer range of two workbooks, cell by cell, as SpreadsheetBench does.
//!
//! ```text
//! cargo run --release -p examples --example spreadsheet -- --answer A.xlsx --reference B.xlsx --range "Sheet1!A1:C9"
//! cargo run --release -p examples --example spreadsheet -- --range "A:C,'My Sheet'!B2" --soft \
//!     --answer out/1.xlsx --reference gold/1.xlsx --answer out/2.xlsx --reference gold/2.xlsx
//! ```
//!
//! One line of JSON comes out: `{"reward": 0.5, "soft": 0.5, "hard": 0.0, "cases": [...]}`, in
//! which each case says how many cells were compared and what the first difference is; or
//! `{"error": "..."}`, with exit status 1, where a file cannot be read. Numbers agree to two
//! decimals and dates to the day, unless `--tolerance` says how far numbers may be apart.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use posttrain::reward::Credit;
use posttrain::reward::spreadsheet::{NumberAgreement, SpreadsheetConfig, WorkbookComparison};
use serde_json::{Value, json};

/// Compares an answer range of workbooks with their references.
#[derive(Parser)]
struct Args {
    /// The workbook to judge; again for each further test case.
    #[arg(long, required = true, value_name = "XLSX")]
    answer: Vec<PathBuf>,
    /// The workbook that is right, one for each answer.
    #[arg(long, required = true, value_name = "XLSX")]
    reference: Vec<PathBuf>,
    /// What is compared, such as `Sheet1!A1:C9,'My Sheet'!B2`.
    #[arg(long)]
    range: String,
    /// The reward is the share of cases that agree, not 1 only where all do.
    #[arg(long)]
    soft: bool,
    /// Numbers agree where they are no further apart.
    #[arg(long)]
    tolerance: Option<f64>,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({"error": format!("{error:#}")}));
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<Value> {
    let (answers, references) = (args.answer.len(), args.reference.len());
    if answers != references {
        bail!(
            "--answer is given {answers} times and --reference {references} times: expected one for one"
        );
    }
    let numbers =
        args.tolerance.map(|absolute| NumberAgreement::Within { absolute, relative: 0.0 });
    let config =
        SpreadsheetConfig { numbers: numbers.unwrap_or_default(), ..SpreadsheetConfig::default() };
    let spreadsheet = config.build()?;
    let mut cases = Vec::new();
    for (answer, reference) in args.answer.iter().zip(&args.reference) {
        cases.push(spreadsheet.compare(answer, reference, &args.range)?);
    }
    let agreeing = cases.iter().filter(|case| case.is_equal()).count();
    let (soft, hard) =
        (Credit::Soft.value(agreeing, cases.len()), Credit::Hard.value(agreeing, cases.len()));
    let reward = if args.soft { soft } else { hard };
    let cases: Vec<Value> = cases.iter().map(describe).collect();
    Ok(json!({"reward": reward, "soft": soft, "hard": hard, "cases": cases}))
}

fn describe(case: &WorkbookComparison) -> Value {
    json!({
        "equal": case.is_equal(),
        "cells": case.cells,
        "differing": case.differing,
        "note": case.to_string(),
    })
}
