//! Parquet files: all that common writers make of text and numbers, and files that are broken.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests
#![cfg(feature = "parquet")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use posttrain_data::{Columns, DataError, Limits, ReadConfig, read};
use proptest::prelude::*;

const SCHEMA: &str = "message rows {
    REQUIRED INT64 id;
    REQUIRED BYTE_ARRAY domain (UTF8);
    REQUIRED BYTE_ARRAY question (UTF8);
    OPTIONAL BYTE_ARRAY answer;
    REQUIRED DOUBLE weight;
}";

/// Rows `0..count` in groups of `group`, with an answer each, but for the rows in `without`.
fn write(path: &Path, compression: Compression, count: usize, group: usize, without: &[usize]) {
    let properties = WriterProperties::builder().set_compression(compression).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let rows: Vec<usize> = (0..count).collect();
    for rows in rows.chunks(group) {
        let mut group = writer.next_row_group().unwrap();
        let text = |make: &dyn Fn(usize) -> String| -> Vec<ByteArray> {
            rows.iter().map(|&n| ByteArray::from(make(n).into_bytes())).collect()
        };
        let mut column = 0;
        while let Some(mut open) = group.next_column().unwrap() {
            match open.untyped() {
                ColumnWriter::Int64ColumnWriter(typed) => {
                    typed
                        .write_batch(
                            &rows.iter().map(|&n| n as i64).collect::<Vec<_>>(),
                            None,
                            None,
                        )
                        .unwrap();
                }
                ColumnWriter::DoubleColumnWriter(typed) => {
                    typed
                        .write_batch(
                            &rows.iter().map(|&n| n as f64 / 2.0).collect::<Vec<_>>(),
                            None,
                            None,
                        )
                        .unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(typed) if column == 1 => {
                    typed.write_batch(&text(&|n| format!("domain {}", n % 2)), None, None).unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(typed) if column == 2 => {
                    typed.write_batch(&text(&|n| format!("question {n} é")), None, None).unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(typed) => {
                    let levels: Vec<i16> =
                        rows.iter().map(|n| i16::from(!without.contains(n))).collect();
                    let there: Vec<usize> =
                        rows.iter().copied().filter(|n| !without.contains(n)).collect();
                    let answers: Vec<_> = there
                        .iter()
                        .map(|n| ByteArray::from(format!("{n}").into_bytes()))
                        .collect();
                    typed.write_batch(&answers, Some(&levels), None).unwrap();
                }
                _ => unreachable!(),
            }
            open.close().unwrap();
            column += 1;
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("rows.parquet")
}

#[test]
fn every_compression_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
        Compression::LZ4,
    ] {
        // More rows than are decoded at a time, in several row groups.
        write(&path(&folder), compression, 3000, 1300, &[]);
        let columns = Columns { metadata: vec!["weight".into()], ..Columns::default() };
        let dataset = read(path(&folder), &ReadConfig::new(columns)).unwrap();
        assert_eq!(dataset.len(), 3000);
        for (n, example) in dataset.examples().iter().enumerate() {
            assert_eq!(
                (example.id.clone(), example.answer.clone()),
                (n.to_string(), n.to_string())
            );
            assert_eq!(example.domain, format!("domain {}", n % 2));
            assert_eq!(example.question, format!("question {n} é"));
            assert_eq!(example.metadata.as_ref().unwrap()["weight"], n as f64 / 2.0);
        }
    }
}

#[test]
fn a_missing_answer_names_its_row() {
    let folder = tempfile::tempdir().unwrap();
    write(&path(&folder), Compression::SNAPPY, 40, 10, &[25]);
    let error = read(path(&folder), &ReadConfig::default()).unwrap_err().to_string();
    assert!(
        error.contains("rows.parquet, row 26: field `answer`: expected an answer, got nothing"),
        "{error}"
    );
}

#[test]
fn a_missing_column_names_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    write(&path(&folder), Compression::SNAPPY, 4, 4, &[]);
    let columns = Columns { answer: "gold".into(), ..Columns::default() };
    let error = read(path(&folder), &ReadConfig::new(columns)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "no column `gold`; the file has `id`, `domain`, `question`, `answer`, `weight`"
        ),
        "{error}"
    );
}

#[test]
fn a_nested_column_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let schema =
        "message rows { REQUIRED BYTE_ARRAY question (UTF8); REPEATED BYTE_ARRAY answer (UTF8); }";
    let file = std::fs::File::create(path(&folder)).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    SerializedFileWriter::new(file, schema, Default::default()).unwrap().close().unwrap();
    let error = read(path(&folder), &ReadConfig::default()).unwrap_err().to_string();
    assert!(
        error.contains("field `answer`: expected a column of text")
            && error.ends_with("got a nested column"),
        "{error}"
    );
}

#[test]
fn a_cell_over_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(&path(&folder), Compression::SNAPPY, 4, 4, &[]);
    let limits = Limits { row_bytes: 5, ..Limits::default() };
    let error = read(path(&folder), &ReadConfig { limits, ..ReadConfig::default() }).unwrap_err();
    assert!(matches!(error, DataError::RowTooLong { limit: 5, .. }), "{error}");
}

#[test]
fn a_file_that_is_not_parquet_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(path(&folder), "not a table").unwrap();
    let error = read(path(&folder), &ReadConfig::default()).unwrap_err();
    assert!(matches!(error, DataError::Parquet { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Broken files are read or refused; they bring nothing down.
    #[test]
    fn broken_bytes_do_not_panic(at in 0.0..1.0_f64, byte: u8, cut in prop::option::of(0.0..1.0_f64), zstd: bool) {
        let folder = tempfile::tempdir().unwrap();
        let compression = if zstd { Compression::ZSTD(ZstdLevel::default()) } else { Compression::UNCOMPRESSED };
        write(&path(&folder), compression, 30, 20, &[3]);
        let mut bytes = std::fs::read(path(&folder)).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.remove((cut * (bytes.len() - 1) as f64) as usize);
        }
        std::fs::write(path(&folder), bytes).unwrap();
        let _ = read(path(&folder), &ReadConfig::default());
    }
}

/// Writes `count` rows of the same question, by a dictionary of it.
fn write_repeated(path: &Path, question: &str, count: usize) {
    let schema = "message rows { REQUIRED BYTE_ARRAY question (UTF8); REQUIRED INT64 answer; }";
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_page_size_limit(1 << 30)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut open) = group.next_column().unwrap() {
        match open.untyped() {
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                let questions = vec![ByteArray::from(question); count];
                typed.write_batch(&questions, None, None).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(typed) => {
                typed.write_batch(&vec![7; count], None, None).unwrap();
            }
            _ => unreachable!(),
        }
        open.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

fn small() -> ReadConfig {
    ReadConfig::new(Columns { default_domain: Some("math".into()), ..Columns::default() })
}

#[test]
fn a_small_file_does_not_unpack_to_gigabytes() {
    let dir = tempfile::tempdir().unwrap();
    for (question, count) in [("q".repeat(1 << 20), 400), ("q".to_owned(), 1_000_000)] {
        let path = dir.path().join("bomb.parquet");
        write_repeated(&path, &question, count);
        assert!(std::fs::metadata(&path).unwrap().len() < 20_000);

        let error = read(&path, &small()).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("may unpack to"), "{error}");
    }

    let path = dir.path().join("honest.parquet");
    write_repeated(&path, "What is 3 + 4?", 10_000);
    assert_eq!(read(&path, &small()).unwrap().examples().len(), 10_000);
}

/// A dictionary whose header says that two thousand million values follow.
#[test]
fn a_dictionary_is_no_larger_than_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dictionary.parquet");
    write_repeated(&path, "What is 3 + 4?", 100);
    let mut bytes = std::fs::read(&path).unwrap();

    // The page's header in thrift's compact protocol: field 7 is the dictionary's, whose field 1 is
    // the number of values, one of them (zigzag: 2). It is made 2^31 - 1, of five bytes.
    let at = bytes.windows(3).position(|bytes| bytes == [0x4c, 0x15, 0x02]).unwrap();
    bytes.splice(at + 2..at + 3, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path, &small()).unwrap_err();
    assert!(error.to_string().contains("dictionary.parquet"), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("a dictionary of 2147483647 values"), "{source}");
}
