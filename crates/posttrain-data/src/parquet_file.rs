//! Parquet, read column by column without arrow.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use serde_json::Value;

use crate::dataset::Collector;
use crate::parquet_columns::{SelectedColumn, choose};
use crate::parquet_pages::CheckedPages;
use crate::record::Record;
use crate::{Columns, DataError, Metadata, Place, parquet_footer, parquet_headers};

/// Rows that are decoded at a time.
const BATCH: usize = 1024;
/// What any file may unpack to, in bytes, and how much more for each byte that it has: text is
/// packed to a tenth or a fiftieth of its size, and many rows may share one entry of a dictionary.
const UNPACKED: u64 = 64 << 20;
const UNPACKED_PER_BYTE: u64 = 1000;
/// What a row costs beside its text.
const ROW_BYTES: u64 = 256;

/// Reads the file's rows into `collector`.
pub(crate) fn collect(
    path: &Path,
    columns: &Columns,
    row_bytes: u64,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let mut file = File::open(path).map_err(|source| DataError::io("open", path, source))?;
    let length = file.metadata().map_err(|source| DataError::io("open", path, source))?.len();
    let limit = UNPACKED.saturating_add(length.saturating_mul(UNPACKED_PER_BYTE));
    let mut cursor = Cursor { path: path.into(), row: 1, row_bytes, unpacked: 0, limit };
    let footer = parquet_footer::check(&mut file);
    let footer = footer.map_err(|source| DataError::io("read", path, source))?;
    cursor.guard(|| footer.map_err(ParquetError::General))?;
    let mut headers = file.try_clone().map_err(|source| DataError::io("open", path, source))?;
    let reader = cursor.guard(|| SerializedFileReader::new(file))?;
    let selected =
        choose(path, columns, reader.metadata().file_metadata().schema_descr().columns())?;
    for group in reader.metadata().row_groups() {
        for column in &selected {
            let range = || Ok(group.column(column.leaf).byte_range());
            let (start, length) = cursor.guard(range)?;
            let pages = start..start.saturating_add(length);
            let checked = parquet_headers::check(&mut headers, pages, limit);
            let checked = checked.map_err(|source| DataError::io("read", path, source))?;
            cursor.guard(|| checked.map_err(ParquetError::General))?;
        }
    }

    for index in 0..reader.num_row_groups() {
        let group = cursor.guard(|| reader.get_row_group(index))?;
        collect_group(&*group, &selected, &mut cursor, &mut |record| {
            record.collect(columns, collector)
        })?;
    }
    Ok(())
}

/// The file, and the row that comes next, from 1.
struct Cursor {
    path: Arc<Path>,
    row: u64,
    row_bytes: u64,
    /// Bytes that the rows so far have unpacked to, and what they may.
    unpacked: u64,
    limit: u64,
}

impl Cursor {
    /// Counts what a row has unpacked to.
    fn unpack(&mut self, bytes: u64) -> Result<(), DataError> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        if self.unpacked > self.limit {
            let unit = "bytes that a file of its size may unpack to";
            return Err(DataError::TooLarge { place: self.place(), limit: self.limit, unit });
        }
        Ok(())
    }

    fn place(&self) -> Place {
        Place::Row { path: self.path.clone(), row: self.row }
    }

    /// Decodes; on some broken files the decoder panics where it should report, and is made to
    /// report here.
    fn guard<T>(&self, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
        let broken =
            |_| Err(ParquetError::General("the decoder gave up on inconsistent pages".to_owned()));
        // What a panic leaves half-done is dropped with the error and never looked at.
        let decoded = catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(broken);
        decoded.map_err(|source| DataError::Parquet { place: self.place(), source })
    }
}

fn collect_group(
    group: &dyn RowGroupReader,
    selected: &[SelectedColumn],
    cursor: &mut Cursor,
    take: &mut dyn FnMut(Record) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut readers = selected
        .iter()
        .map(|column| cursor.guard(|| column_reader(group, column)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);

    while left > 0 {
        let rows = left.min(BATCH);
        let mut batches = selected
            .iter()
            .zip(&mut readers)
            .map(|(column, reader)| Batch::read(column, reader, rows, cursor))
            .collect::<Result<Vec<_>, _>>()?;

        for _ in 0..rows {
            take(next_record(&mut batches, cursor)?)?;
            cursor.row += 1;
        }
        left -= rows;
    }
    Ok(())
}

fn column_reader(
    group: &dyn RowGroupReader,
    column: &SelectedColumn,
) -> Result<ColumnReader, ParquetError> {
    let description = group.metadata().column(column.leaf).column_descr_ptr();
    let pages = CheckedPages {
        pages: group.get_column_page_reader(column.leaf)?,
        physical_type: description.physical_type(),
        nullable: column.nullable,
    };
    Ok(get_column_reader(description, Box::new(pages)))
}

/// Only one row's text is copied at a time: many cells may share one long dictionary entry.
fn next_record(batches: &mut [Batch<'_>], cursor: &mut Cursor) -> Result<Record, DataError> {
    let mut fields = Metadata::new();
    cursor.unpack(ROW_BYTES)?;
    for batch in batches {
        if let Some(value) = batch.next_cell(cursor)? {
            cursor.unpack(value.as_str().map_or(0, str::len) as u64)?;
            fields.insert(batch.column.name.clone(), value);
        }
    }
    Ok(Record { place: cursor.place(), fields })
}

/// Some rows of one column: which of them are there, and the cells of those.
struct Batch<'a> {
    column: &'a SelectedColumn,
    present: std::vec::IntoIter<bool>,
    cells: Cells,
}

enum Cells {
    Text(std::vec::IntoIter<ByteArray>),
    Value(std::vec::IntoIter<Value>),
}

impl<'a> Batch<'a> {
    fn read(
        column: &'a SelectedColumn,
        reader: &mut ColumnReader,
        rows: usize,
        cursor: &Cursor,
    ) -> Result<Self, DataError> {
        use ColumnReader as R;
        let request = Request { column, rows, cursor };
        let signed = !column.unsigned;

        let (present, cells) = match reader {
            R::ByteArrayColumnReader(reader) => {
                let (present, cells) = request.cells(reader)?;
                (present, Cells::Text(cells.into_iter()))
            }
            R::BoolColumnReader(reader) => request.values(reader, Value::Bool)?,
            R::Int32ColumnReader(reader) if signed => request.values(reader, Value::from)?,
            R::Int32ColumnReader(reader) => {
                request.values(reader, |x| Value::from(x.cast_unsigned()))?
            }
            R::Int64ColumnReader(reader) if signed => request.values(reader, Value::from)?,
            R::Int64ColumnReader(reader) => {
                request.values(reader, |x| Value::from(x.cast_unsigned()))?
            }
            // Through its shortest decimal form, lest 0.1 become 0.10000000149011612.
            R::FloatColumnReader(reader) => request.values(reader, |x| {
                x.to_string().parse().map_or(Value::Null, |x: f64| Value::from(x))
            })?,
            R::DoubleColumnReader(reader) => request.values(reader, Value::from)?,
            R::Int96ColumnReader(_) | R::FixedLenByteArrayColumnReader(_) => {
                return Err(request.short(0));
            }
        };

        Ok(Self { column, present: present.into_iter(), cells })
    }

    fn next_cell(&mut self, cursor: &Cursor) -> Result<Option<Value>, DataError> {
        if self.present.next() != Some(true) {
            return Ok(None);
        }
        match &mut self.cells {
            Cells::Value(values) => Ok(values.next()),
            Cells::Text(cells) => cells.next().map(|cell| text(cell.data(), cursor)).transpose(),
        }
    }
}

fn text(bytes: &[u8], cursor: &Cursor) -> Result<Value, DataError> {
    if bytes.len() as u64 > cursor.row_bytes {
        return Err(DataError::RowTooLong { place: cursor.place(), limit: cursor.row_bytes });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::from(text)),
        Err(error) => Err(DataError::Utf8 { place: cursor.place(), offset: error.valid_up_to() }),
    }
}

/// So many rows of this column, please.
struct Request<'a> {
    column: &'a SelectedColumn,
    rows: usize,
    cursor: &'a Cursor,
}

impl Request<'_> {
    fn values<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        convert: impl Fn(T::T) -> Value,
    ) -> Result<(Vec<bool>, Cells), DataError> {
        let (present, cells) = self.cells(reader)?;
        Ok((present, Cells::Value(cells.into_iter().map(convert).collect::<Vec<_>>().into_iter())))
    }

    fn cells<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
    ) -> Result<(Vec<bool>, Vec<T::T>), DataError> {
        let mut levels = Vec::new();
        let mut cells = Vec::new();
        let (rows, ..) = self
            .cursor
            .guard(|| reader.read_records(self.rows, Some(&mut levels), None, &mut cells))?;

        let present = if self.column.nullable {
            levels.iter().map(|&l| l > 0).collect()
        } else {
            vec![true; rows]
        };

        if rows != self.rows
            || present.len() != rows
            || present.iter().filter(|&&p| p).count() != cells.len()
        {
            return Err(self.short(cells.len()));
        }

        Ok((present, cells))
    }

    fn short(&self, got: usize) -> DataError {
        let column = self.column.name.clone();
        DataError::BrokenColumn { place: self.cursor.place(), column, expected: self.rows, got }
    }
}
