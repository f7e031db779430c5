//! Workbooks and ranges that nobody wrote.
//!
//! The first byte says what the rest is: 0 a whole file, 1 a range over a fixed workbook, 2 and up
//! one part (`PARTS`) of a workbook whose other parts are fixed. Parts are archived here, since no
//! mutation finds a checksum.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use posttrain_reward::spreadsheet::{Spreadsheet, SpreadsheetConfig, WorkbookLimits};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const PARTS: [(&str, &str); 6] = [
    (
        "xl/worksheets/sheet1.xml",
        r#"<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" s="1"><v>45000.5</v></c><c r="C1" t="b"><v>1</v></c><c r="D1" t="e"><v>#N/A</v></c></row></sheetData></worksheet>"#,
    ),
    (
        "xl/sharedStrings.xml",
        r#"<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>city</t></si></sst>"#,
    ),
    (
        "xl/styles.xml",
        r#"<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy-mm-dd"/></numFmts><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs></styleSheet>"#,
    ),
    (
        "xl/workbook.xml",
        r#"<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>"#,
    ),
    (
        "xl/_rels/workbook.xml.rels",
        r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#,
    ),
    (
        "_rels/.rels",
        r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#,
    ),
];

/// The fixed workbook, with one part in place of its own.
fn workbook(other: Option<(usize, &[u8])>) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (index, (name, text)) in PARTS.iter().enumerate() {
        let contents = other.filter(|(at, _)| *at == index).map_or(text.as_bytes(), |(_, contents)| contents);
        writer.start_file(*name, options).expect("a name of its own");
        writer.write_all(contents).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn compare(spreadsheet: &Spreadsheet, answer: Vec<u8>, reference: Vec<u8>, range: &str) {
    match spreadsheet.compare_bytes(answer, reference, range) {
        Ok(comparison) => {
            assert!(comparison.differing <= comparison.cells);
            assert_eq!(comparison.first.is_some(), comparison.differing > 0);
        }
        Err(error) => assert!(error.cause().starts_with("file_") || error.cause() == "invalid_config", "{error}"),
    }
}

// The file reader panics on some files, which the comparison catches and reports as damage. So a
// panic by itself is no finding here, and the fuzzer's hook, which ends the process at each, is put
// aside; one that comes through still is.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let limits = WorkbookLimits { max_unpacked_bytes: 1 << 24, max_cells: 10_000, ..WorkbookLimits::default() };
    let spreadsheet = SpreadsheetConfig { limits, ..SpreadsheetConfig::default() }.build().expect("a valid configuration");
    let fixed = workbook(None);
    match kind {
        0 => {
            compare(&spreadsheet, rest.to_vec(), fixed.clone(), "A:XFD");
            compare(&spreadsheet, fixed, rest.to_vec(), "A:XFD");
        }
        1 => compare(&spreadsheet, fixed.clone(), fixed, &String::from_utf8_lossy(rest)),
        part => {
            let strange = workbook(Some((usize::from(part - 2) % PARTS.len(), rest)));
            compare(&spreadsheet, strange.clone(), fixed.clone(), "A:XFD");
            compare(&spreadsheet, fixed, strange.clone(), "A:XFD");
            // What is read at all agrees with itself.
            if let Ok(same) = spreadsheet.compare_bytes(strange.clone(), strange, "A:XFD") {
                assert!(same.is_equal(), "{same}");
            }
        }
    }
});
