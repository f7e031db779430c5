//! Workbooks that agree, differ, lie and burst.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use posttrain_reward::spreadsheet::{
    BadAnswer, DateAgreement, Spreadsheet, SpreadsheetConfig, WorkbookComparison, WorkbookLimits,
};
use posttrain_reward::{Credit, RewardError, Sample, Score, Verifier};
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook, Worksheet};
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The bytes of a workbook whose sheets `fill` fills.
fn workbook(sheets: &[&str], fill: impl Fn(&str, &mut Worksheet)) -> Vec<u8> {
    let mut workbook = Workbook::new();
    for name in sheets {
        let sheet = workbook.add_worksheet();
        sheet.set_name(*name).unwrap();
        fill(name, sheet);
    }
    workbook.save_to_buffer().unwrap()
}

fn table() -> Vec<u8> {
    workbook(&["Sheet1", "My Sheet"], |name, sheet| {
        sheet.write(0, 0, "city").unwrap();
        sheet.write(1, 0, "Paris").unwrap();
        sheet.write(1, 1, 2.5).unwrap();
        sheet.write(2, 1, if name == "Sheet1" { 7.0 } else { 8.0 }).unwrap();
        sheet.write_boolean(3, 0, true).unwrap();
        let date = ExcelDateTime::from_ymd(2024, 2, 29).unwrap();
        sheet.write_with_format(3, 1, &date, &Format::new().set_num_format("yyyy-mm-dd")).unwrap();
    })
}

fn spreadsheet() -> Spreadsheet {
    SpreadsheetConfig::default().build().unwrap()
}

fn compare(
    answer: &[u8],
    reference: &[u8],
    range: &str,
) -> Result<WorkbookComparison, RewardError> {
    spreadsheet().compare_bytes(answer.to_vec(), reference.to_vec(), range)
}

fn cause(result: Result<WorkbookComparison, RewardError>) -> &'static str {
    result.unwrap_err().cause()
}

/// Rewrites the files of an archive.
fn repack(bytes: &[u8], change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let (name, mut contents) = (file.name().unwrap().into_owned(), Vec::new());
        file.read_to_end(&mut contents).unwrap();
        if let Some(contents) = change(&name, contents) {
            writer.start_file(&name, SimpleFileOptions::default()).unwrap();
            writer.write_all(&contents).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn what_is_the_same_agrees() {
    let comparison = compare(&table(), &table(), "Sheet1!A1:C9,'My Sheet'!A:B").unwrap();
    assert_eq!((comparison.is_equal(), comparison.cells), (true, 12));
    assert_eq!(compare(&table(), &table(), "D1:E2").unwrap().cells, 0);
}

#[test]
fn a_difference_is_found_where_it_is_and_nowhere_else() {
    let other = workbook(&["Sheet1", "My Sheet"], |_, sheet| {
        sheet.write(0, 0, "city").unwrap();
        sheet.write(1, 0, "Rome").unwrap();
        sheet.write(1, 1, 2.5).unwrap();
    });
    let comparison = compare(&other, &table(), "Sheet1!A1:B3").unwrap();
    assert_eq!((comparison.cells, comparison.differing), (4, 2));
    assert_eq!(
        comparison.to_string(),
        "2 of 4 cells differ, first Sheet1!A2: `Rome`, expected `Paris`"
    );
    assert!(compare(&other, &table(), "Sheet1!B1:B2,A1").unwrap().is_equal());
    let extra = compare(&table(), &other, "Sheet1!B3").unwrap();
    assert_eq!(extra.first.unwrap().to_string(), "Sheet1!B3: 7, expected nothing");
    // Overlapping areas count a cell once.
    assert_eq!(compare(&other, &table(), "Sheet1!A1:B3,Sheet1!A1:A9,A2").unwrap().differing, 3);
}

/// `#SPILL!` and its like are younger than the file's reader.
#[test]
fn newer_errors_are_values_like_the_older() {
    let with = |error: &str| {
        let marked = workbook(&["S"], |_, sheet| {
            sheet.write(0, 0, "before").unwrap();
            sheet.write(1, 1, 12_345.0).unwrap();
            sheet.write(2, 0, 7.0).unwrap();
        });
        repack(&marked, |_, contents| {
            let Ok(text) = String::from_utf8(contents.clone()) else { return Some(contents) };
            let value = text.replace(
                "<c r=\"B2\"><v>12345</v>",
                &format!("<c r=\"B2\" t=\"e\"><v>{error}</v>"),
            );
            Some(value.into_bytes())
        })
    };
    let compared = |one: &str, two: &str, range| compare(&with(one), &with(two), range);

    for error in ["#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!", "#DIV/0!"] {
        assert!(compared(error, error, "A1:B3").unwrap().is_equal(), "{error}");
        let comparison = compared(error, "#NUM!", "A1:B3").unwrap();
        assert_eq!((comparison.cells, comparison.differing), (3, 1), "{error}");
        let first = comparison.first.unwrap().to_string();
        assert_eq!(first, format!("S!B2: `{error}`, expected `#NUM!`"));
        assert!(compared(error, "#NUM!", "A1,A3").unwrap().is_equal(), "{error}");
    }
    assert_eq!(cause(compared("12,5", "#NUM!", "A1")), "file_corrupt");
}

#[test]
fn sheets() {
    let (one, two) = (workbook(&["Other"], |_, _| {}), table());
    let missing = compare(&one, &two, "'My Sheet'!A1").unwrap();
    assert_eq!((missing.is_equal(), missing.missing_sheet.as_deref()), (false, Some("My Sheet")));
    // Without a name it is the reference's first sheet, by name.
    assert_eq!(compare(&one, &two, "A1").unwrap().missing_sheet.as_deref(), Some("Sheet1"));
    let error = compare(&two, &one, "Sheet1!A1").unwrap_err();
    assert_eq!(error.report(), "reference cannot be read: no sheet `Sheet1`");
    assert_eq!(cause(compare(&two, &two, "Sheet1!A0")), "invalid_config");
}

#[test]
fn kinds_of_cells() {
    let write = |fill: &dyn Fn(&mut Worksheet)| workbook(&["S"], |_, sheet| fill(sheet));
    let day = Format::new().set_num_format("yyyy-mm-dd");
    let clock = Format::new().set_num_format("hh:mm");
    let equal = |a: &dyn Fn(&mut Worksheet), b: &dyn Fn(&mut Worksheet)| {
        compare(&write(a), &write(b), "A1").unwrap().is_equal()
    };
    let number = |value: f64| {
        move |sheet: &mut Worksheet| {
            sheet.write(0, 0, value).unwrap();
        }
    };
    let text = |value: &'static str| {
        move |sheet: &mut Worksheet| {
            sheet.write(0, 0, value).unwrap();
        }
    };
    let nothing = |_: &mut Worksheet| {};
    assert!(equal(&number(1.0), &number(1.004)) && !equal(&number(1.0), &number(1.006)));
    assert!(equal(&number(7.0), &text("7")) && !equal(&number(7.0), &text("seven")));
    assert!(!equal(&nothing, &number(0.0)) && !equal(&text(" "), &nothing));
    let blank = |sheet: &mut Worksheet| {
        sheet.write_blank(0, 0, &Format::new().set_bold()).unwrap();
    };
    assert!(equal(&blank, &nothing));
    let marked = write(&text("to be emptied"));
    let empty = repack(&marked, |_, contents| {
        Some(String::from_utf8(contents).unwrap().replace("to be emptied", "").into_bytes())
    });
    assert!(compare(&empty, &write(&nothing), "A1").unwrap().is_equal(), "an empty text is blank");
    assert!(!compare(&marked, &write(&nothing), "A1").unwrap().is_equal());
    let boolean = |sheet: &mut Worksheet| {
        sheet.write_boolean(0, 0, true).unwrap();
    };
    assert!(equal(&boolean, &boolean) && !equal(&boolean, &number(1.0)));
    let date = |hour| {
        let day = day.clone();
        move |sheet: &mut Worksheet| {
            let moment = ExcelDateTime::from_ymd(2024, 2, 29).unwrap().and_hms(hour, 0, 0).unwrap();
            sheet.write_with_format(0, 0, &moment, &day).unwrap();
        }
    };
    assert!(
        equal(&date(0), &date(9))
            && !equal(&date(0), &date(13))
            && equal(&date(0), &number(45_351.0))
    );
    let strict = SpreadsheetConfig { dates: DateAgreement::Second, ..SpreadsheetConfig::default() }
        .build()
        .unwrap();
    assert!(!strict.compare_bytes(write(&date(0)), write(&date(9)), "A1").unwrap().is_equal());
    let time = |minute, second| {
        let clock = clock.clone();
        move |sheet: &mut Worksheet| {
            let moment = ExcelDateTime::from_hms(8, minute, second).unwrap();
            sheet.write_with_format(0, 0, &moment, &clock).unwrap();
        }
    };
    assert!(equal(&time(30, 0), &time(30, 40)) && !equal(&time(30, 0), &time(31, 0)));
    let formula = |result: &'static str| {
        move |sheet: &mut Worksheet| {
            sheet.write_formula(0, 0, Formula::new("=1/0").set_result(result)).unwrap();
        }
    };
    assert!(
        equal(&formula("#DIV/0!"), &formula("#DIV/0!"))
            && !equal(&formula("#DIV/0!"), &formula("#N/A"))
    );
    assert!(equal(&formula("12"), &number(12.0)), "a formula counts by its stored value");
}

#[test]
fn a_reference_that_was_never_calculated_is_an_error_and_an_answer_is_wrong() {
    let holding = |cell: &str| {
        repack(&table(), |name, contents| {
            let sheet = format!(
                r#"<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">{cell}</row></sheetData></worksheet>"#
            );
            Some(if name.ends_with("sheet1.xml") { sheet.into_bytes() } else { contents })
        })
    };
    let (without, with) =
        (holding(r#"<c r="A1"><f>1+1</f></c>"#), holding(r#"<c r="A1"><f>1+1</f><v>2</v></c>"#));
    let error = compare(&with, &without, "A1").unwrap_err();
    assert_eq!(error.cause(), "file_uncalculated");
    assert!(error.report().contains("`Sheet1`, row 1, column 1"), "{error:?}");
    assert!(!compare(&without, &with, "A1").unwrap().is_equal());
    assert!(compare(&with, &with, "A1").unwrap().is_equal());
    // Outside of the range it is nobody's business, and a formula may give an empty text.
    assert!(compare(&without, &without, "B1:C3").unwrap().is_equal());
    let blank = holding(r#"<c r="A1" t="str"><f>""</f><v></v></c>"#);
    assert!(compare(&blank, &blank, "A1").unwrap().is_equal());
}

#[test]
fn whole_columns_cost_what_they_hold() {
    let far = workbook(&["S"], |_, sheet| {
        sheet.write(0, 0, 1.0).unwrap();
        sheet.write(1_048_575, 16_383, 2.0).unwrap();
    });
    let start = Instant::now();
    let comparison = compare(&far, &far, "A:XFD").unwrap();
    assert_eq!((comparison.cells, comparison.is_equal()), (2, true));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn files_that_are_no_workbooks() {
    let good = table();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let ole = [0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];
    let encrypted = [&ole[..], &[0; 600], &utf16("EncryptedPackage"), &[0; 600]].concat();
    let other =
        repack(&good, |name, contents| (!name.ends_with("workbook.xml")).then_some(contents));
    let half = repack(&good, |name, contents| {
        Some(if name.ends_with("sheet1.xml") {
            contents[..contents.len() / 2].to_vec()
        } else {
            contents
        })
    });
    let mut flipped = good.clone();
    let middle = flipped.len() / 3;
    flipped[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0xFF);
    let cases: [(&[u8], &[&str]); 9] = [
        (b"", &["file_not_xlsx"]),
        (b"city,total\nParis,7\n", &["file_not_xlsx"]),
        (b"PK", &["file_corrupt"]),
        (&good[..good.len() / 2], &["file_corrupt"]),
        (&other, &["file_corrupt"]),
        (&half, &["file_corrupt"]),
        (&flipped, &["file_corrupt"]),
        (&ole, &["file_not_xlsx"]),
        (&encrypted, &["file_encrypted"]),
    ];
    for (index, (bytes, expected)) in cases.into_iter().enumerate() {
        let error = compare(bytes, &good, "Sheet1!A1:B9").unwrap_err();
        assert!(expected.contains(&error.cause()), "{index}: {error}");
        assert!(error.to_string().starts_with("answer "), "{error}");
        let error = compare(&good, bytes, "Sheet1!A1:B9").unwrap_err();
        assert!(error.to_string().starts_with("reference "), "{error}");
    }
}

fn limited(limits: WorkbookLimits) -> Spreadsheet {
    SpreadsheetConfig { limits, ..SpreadsheetConfig::default() }.build().unwrap()
}

#[test]
fn sizes_are_bounded() {
    let usual = WorkbookLimits::default();
    let refused = |limits: WorkbookLimits, bytes: &[u8]| {
        let error =
            limited(limits).compare_bytes(bytes.to_vec(), table(), "Sheet1!A:Z").unwrap_err();
        assert_eq!(error.cause(), "file_too_large", "{error}");
        error.report()
    };
    let many = workbook(&["Sheet1"], |_, sheet| {
        for row in 0..300 {
            sheet.write(row, 0, "the same text in every cell").unwrap();
        }
    });
    let message = refused(WorkbookLimits { max_cells: 299, ..usual }, &many);
    assert_eq!(message, "answer cannot be read: more than 299 cells in the range");
    assert!(
        limited(WorkbookLimits { max_cells: 300, ..usual })
            .compare_bytes(many.clone(), table(), "A:Z")
            .is_ok()
    );
    refused(WorkbookLimits { max_entries: 3, ..usual }, &many);
    // Unpacked it is small; its texts, one for each cell, are not.
    let shared = repack(&many, |name, contents| {
        let long = "x".repeat(30_000);
        let text = String::from_utf8(contents).unwrap();
        Some(if name.ends_with("sharedStrings.xml") {
            text.replace("the same text in every cell", &long).into_bytes()
        } else {
            text.into_bytes()
        })
    });
    refused(WorkbookLimits { max_unpacked_bytes: 200_000, ..usual }, &shared);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.xlsx");
    std::fs::write(&path, &many).unwrap();
    let small = limited(WorkbookLimits { max_file_bytes: 100, ..usual });
    let error = small.compare(&path, &path, "A1").unwrap_err();
    assert!(
        error.report().contains("large.xlsx cannot be read: more than 100 bytes in the file"),
        "{error:?}"
    );
}

/// An archive whose one sheet unpacks to `megabytes` of nothing.
fn bomb(megabytes: usize) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let mut archive = ZipArchive::new(Cursor::new(table())).unwrap();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).unwrap();
        writer.raw_copy_file(file).unwrap();
    }
    writer.start_file("xl/worksheets/bomb.xml", options).unwrap();
    let block = vec![b' '; 1 << 20];
    (0..megabytes).for_each(|_| writer.write_all(&block).unwrap());
    writer.finish().unwrap().into_inner()
}

#[test]
fn bombs_do_not_go_off() {
    let start = Instant::now();
    let honest = bomb(400);
    assert!(honest.len() < 1 << 20);
    assert_eq!(cause(compare(&honest, &table(), "A1")), "file_too_large");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());

    // One that says of itself that it is small, in both of its directories.
    let mut lying = bomb(20);
    let (size, lie) = ((20_u32 << 20).to_le_bytes(), 100_u32.to_le_bytes());
    let mut found = 0;
    for at in 0..lying.len() - 4 {
        if lying[at..at + 4] == size {
            lying[at..at + 4].copy_from_slice(&lie);
            found += 1;
        }
    }
    assert!(found >= 1, "the size was written somewhere");
    let tight =
        limited(WorkbookLimits { max_unpacked_bytes: 1 << 20, ..WorkbookLimits::default() });
    let error = tight.compare_bytes(lying, table(), "A1").unwrap_err();
    assert!(["file_too_large", "file_corrupt"].contains(&error.cause()), "{error}");
}

/// 1.6 kB that have ended processes: the reader asks for as much memory as the file says.
#[test]
fn a_number_in_a_file_reserves_nothing() {
    let strings = include_bytes!("fixtures/reported_strings.xlsx");
    assert_eq!(cause(compare(strings, &table(), "A1")), "file_corrupt");
    assert_eq!(cause(compare(&table(), strings, "A1")), "file_corrupt");

    // The same for a table of shared formulas, and in other spellings.
    let formulas = [
        r#"<f t="shared" ref="A1:A2" si="9000000000000">1</f>"#,
        "<f t='shared' ref='A1:A2' si = '9000000000000'>1</f>",
        "<f t=\"shared\" ref=\"A1:A2\"\nsi=\"18446744073709551615\">1</f>",
    ];
    for formula in formulas {
        let hostile = repack(&table(), |name, contents| {
            let text = String::from_utf8(contents.clone()).unwrap_or_default();
            let cell =
                format!("<sheetData><row r=\"1\"><c r=\"A1\">{formula}</c></row></sheetData>");
            let start = text.find("<sheetData>").filter(|_| name.ends_with("sheet1.xml"));
            let end = text.find("</sheetData>").map(|end| end + "</sheetData>".len());
            Some(match start.zip(end) {
                Some((start, end)) => {
                    format!("{}{cell}{}", &text[..start], &text[end..]).into_bytes()
                }
                None => contents,
            })
        });
        assert_eq!(cause(compare(&table(), &hostile, "A1")), "file_corrupt", "{formula}");
        assert_eq!(cause(compare(&hostile, &table(), "A1")), "file_corrupt", "{formula}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let good = table();
    // Every fourth byte of a small workbook, changed three ways; and every prefix at steps.
    for at in (0..good.len()).step_by(4) {
        for change in [0x00, 0xFF, good[at] ^ 0x10] {
            let mut bytes = good.clone();
            bytes[at] = change;
            if let Err(error) = compare(&bytes, &good, "A:Z") {
                assert!(error.cause().starts_with("file_"), "{at}: {error}");
            }
        }
    }
    for length in (0..good.len()).step_by(97) {
        assert!(compare(&good[..length], &good, "A1").unwrap_err().cause().starts_with("file_"));
    }
}

#[test]
fn strange_sheets_never_panic() {
    let rows = [
        r#"<c r="ZZZZZZ99999999999"><v>1</v></c>"#,
        r#"<c r="A1" t="s"><v>99999999</v></c>"#,
        r#"<c r="A1" t="s"><v>-1</v></c>"#,
        r#"<c r="A1" t="e"><v>#NEW!</v></c>"#,
        r#"<c r="A1" s="99999"><v>1</v></c>"#,
        r#"<c r="A1"><v>1e999</v></c>"#,
        r#"<c r="A1"><v>NaN</v></c>"#,
        r#"<c r="A1" t="b"><v>maybe</v></c>"#,
        r#"<c r="A1" t="d"><v>9999-99-99T99:99:99</v></c>"#,
        r#"<c r="A1" t="inlineStr"><is><t>x</t></is></c>"#,
        r#"<c><v>1</v></c><c><v>2</v></c>"#,
        r#"<c r="A1"><f t="shared" si="99999999" ref="A1:XFD1048576">A1</f><v>1</v></c>"#,
        r#"<c r="A1"><v>&bomb;</v></c>"#,
        r#"<c r="" t=""><v/></c>"#,
    ];
    for row in rows {
        let strange = repack(&table(), |name, contents| {
            let sheet = format!(
                r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY bomb "boom">]><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">{row}</row></sheetData></worksheet>"#
            );
            Some(if name.ends_with("sheet1.xml") { sheet.into_bytes() } else { contents })
        });
        if let Err(error) = compare(&strange, &table(), "A:Z") {
            assert!(error.cause().starts_with("file_"), "{row}: {error}");
        }
    }
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.write("right.xlsx", &table());
        files.write("wrong.xlsx", &workbook(&["Sheet1"], |_, _| {}));
        files.write("damaged.xlsx", b"PK");
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn verify(&self, config: SpreadsheetConfig, answers: &[&str]) -> Result<Score, RewardError> {
        let cases: Vec<Value> =
            answers.iter().map(|name| json!({"answer": name, "reference": "right.xlsx"})).collect();
        self.verify_task(config, json!({"range": "Sheet1!A1:B9", "cases": cases}))
    }

    fn verify_task(&self, config: SpreadsheetConfig, task: Value) -> Result<Score, RewardError> {
        let mut sample = Sample { id: "7".into(), ..Sample::default() };
        sample.metadata.insert("spreadsheet".into(), task);
        SpreadsheetConfig { directory: self.directory(), ..config }.build().unwrap().verify(&sample)
    }
}

#[test]
fn several_cases_give_the_soft_and_the_hard_measure() {
    let files = Files::new();
    let two_of_three = ["right.xlsx", "wrong.xlsx", "right.xlsx"];
    let hard = files.verify(SpreadsheetConfig::default(), &two_of_three).unwrap();
    assert_eq!((hard.value(), hard.parts()[1].clone()), (0.0, ("hard".to_owned(), 0.0)));
    assert!((hard.parts()[0].1 - 2.0 / 3.0).abs() < 1e-12);
    assert!(hard.note().unwrap().starts_with("case 2: "), "{:?}", hard.note());
    let soft = SpreadsheetConfig { credit: Credit::Soft, ..SpreadsheetConfig::default() };
    assert!((files.verify(soft, &two_of_three).unwrap().value() - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(
        files.verify(SpreadsheetConfig::default(), &["right.xlsx"; 3]).unwrap().value(),
        1.0
    );
}

#[test]
fn an_unreadable_answer_is_an_error_or_wrong_and_an_unreadable_reference_always_an_error() {
    let files = Files::new();
    for (name, cause) in [("damaged.xlsx", "file_corrupt"), ("none.xlsx", "file_missing")] {
        let error = files.verify(SpreadsheetConfig::default(), &[name]).unwrap_err();
        assert_eq!((error.cause(), error.to_string().contains(name)), (cause, true), "{error}");
        let wrong =
            SpreadsheetConfig { bad_answer: BadAnswer::Wrong, ..SpreadsheetConfig::default() };
        let score = files.verify(wrong.clone(), &[name]).unwrap();
        assert_eq!((score.value(), score.note().unwrap().contains(name)), (0.0, true));
        let task = json!({"range": "A1", "cases": [{"answer": "right.xlsx", "reference": name}]});
        assert_eq!(files.verify_task(wrong, task).unwrap_err().cause(), cause);
    }
    // A folder, or what never ends.
    for path in [files.directory(), Path::new("/dev/zero").to_owned()] {
        let error = spreadsheet().compare(&path, &path, "A1").unwrap_err();
        assert_eq!(error.cause(), "file_not_xlsx", "{error}");
    }
}

#[test]
fn tasks_of_another_form_are_errors_that_name_the_sample() {
    let files = Files::new();
    let case = json!({"answer": "right.xlsx", "reference": "right.xlsx"});
    let tasks = [
        json!({"cases": [case]}),
        json!({"range": "A1", "cases": []}),
        json!({"range": "A0", "cases": [case]}),
        json!({"range": "A1", "cases": [{"answer": "right.xlsx"}]}),
        json!({"range": "A1", "cases": [case], "more": 1}),
        json!("A1"),
    ];
    for task in tasks {
        let error = files.verify_task(SpreadsheetConfig::default(), task.clone()).unwrap_err();
        assert_eq!(
            (error.cause(), error.to_string().contains("`7`")),
            ("bad_task", true),
            "{task}: {error}"
        );
    }
}

#[test]
fn configurations_are_read_from_files() {
    let text = "numbers = { within = { absolute = 0.1, relative = 0.0 } }\ncredit = 'soft'\n[limits]\nmax_cells = 5";
    let config: SpreadsheetConfig = toml::from_str(text).unwrap();
    assert_eq!((config.credit, config.limits.max_cells), (Credit::Soft, 5));
    assert!(toml::from_str::<SpreadsheetConfig>("tolerance = 1").is_err());
    let nan = "numbers = { within = { absolute = nan, relative = 0.0 } }";
    assert!(toml::from_str::<SpreadsheetConfig>(nan).unwrap().validate().is_err());
}

#[cfg(unix)]
mod programs {
    use posttrain_reward::Reward;
    use posttrain_reward::code::CodeExecutionConfig;
    use posttrain_reward::spreadsheet::SpreadsheetCodeConfig;

    use super::*;

    #[test]
    fn a_program_is_run_on_each_case() {
        let files = Files::new();
        files.write("a.xlsx", &table());
        files.write("b.xlsx", &workbook(&["Sheet1"], |_, _| {}));
        let code = CodeExecutionConfig {
            interpreter: vec!["sh".into()],
            ..CodeExecutionConfig::default()
        };
        let mut config = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() };
        config.spreadsheet.directory = files.directory();
        config.spreadsheet.credit = Credit::Soft;
        let reward = config.build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let score = |program: &str, reference: &str| {
            let mut sample = Sample::new("?", "", format!("```\n{program}\n```"));
            let cases: Vec<Value> = ["a.xlsx", "b.xlsx"]
                .iter()
                .map(|input| json!({"input": input, "reference": reference}))
                .collect();
            sample
                .metadata
                .insert("spreadsheet".into(), json!({"range": "Sheet1!A1:B9", "cases": cases}));
            runtime.block_on(reward.score(&sample))
        };
        // The input itself is right in the first case only.
        let kept = score("cp input.xlsx output.xlsx", "right.xlsx").unwrap();
        assert_eq!((kept.value(), kept.parts()[1].1), (0.5, 0.0));
        let bad = [
            "true",
            "exit 3",
            "echo PK > output.xlsx",
            "ln -s input.xlsx output.xlsx",
            "mkdir output.xlsx",
            "cp input.xlsx other.xlsx",
        ];
        for program in bad {
            let score = score(program, "right.xlsx").unwrap();
            assert_eq!(score.value(), 0.0, "{program}: {:?}", score.note());
        }
        assert_eq!(
            score("cp input.xlsx output.xlsx", "none.xlsx").unwrap_err().cause(),
            "file_missing"
        );
        // The reference is out of the program's reach, also where its path is known.
        let peek = format!(
            "cp {}/right.xlsx output.xlsx; cp input.xlsx input2.xlsx",
            files.directory().display()
        );
        if reward.isolation().files {
            assert_eq!(score(&peek, "right.xlsx").unwrap().value(), 0.0);
        }
    }
}
