//! Parquet, read column by column without arrow.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::dataset::Collector;
use crate::record::Record;
use crate::{Columns, DataError, Metadata, Place};

/// Rows that are decoded at a time.
const BATCH: usize = 1024;
const EXPECTED: &str = "a column of text, whole numbers, floating point or truth values";

/// Reads the file's rows into `collector`.
pub(crate) fn collect(
    path: &Path,
    columns: &Columns,
    row_bytes: u64,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let file = File::open(path).map_err(|source| DataError::io("open", path, source))?;
    let mut cursor = Cursor { path: path.into(), row: 1, row_bytes };
    let reader = cursor.guard(|| SerializedFileReader::new(file))?;
    let wanted = choose(&cursor, columns, reader.metadata().file_metadata().schema_descr().columns())?;
    for index in 0..reader.num_row_groups() {
        let group = cursor.guard(|| reader.get_row_group(index))?;
        collect_group(&*group, &wanted, &mut cursor, &mut |record| record.collect(columns, collector))?;
    }
    Ok(())
}

/// The file, and the row that comes next, from 1.
struct Cursor {
    path: Arc<Path>,
    row: u64,
    row_bytes: u64,
}

impl Cursor {
    fn place(&self) -> Place {
        Place::Row { path: self.path.clone(), row: self.row }
    }

    /// Decodes; on some broken files the decoder panics where it should report, and is made to report here.
    fn guard<T>(&self, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
        let broken = |_| Err(ParquetError::General("the decoder gave up on inconsistent pages".to_owned()));
        // What a panic leaves half-done is dropped with the error and never looked at.
        let decoded = catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(broken);
        decoded.map_err(|source| DataError::Parquet { place: self.place(), source })
    }
}

/// A column that is read: its name and its index among the file's leaves.
struct Wanted {
    name: String,
    leaf: usize,
    nullable: bool,
    unsigned: bool,
}

/// The columns to read, of those that the file has.
fn choose(cursor: &Cursor, columns: &Columns, leaves: &[Arc<ColumnDescriptor>]) -> Result<Vec<Wanted>, DataError> {
    let domain_needed = columns.domain.is_some() && columns.default_domain.is_none();
    let named = [
        (columns.question.as_str(), true),
        (columns.answer.as_str(), true),
        (columns.id.as_deref().unwrap_or("id"), columns.id.is_some()),
        (columns.domain.as_deref().unwrap_or("domain"), domain_needed),
        (columns.group.as_deref().unwrap_or("group"), columns.group.is_some()),
    ];
    let metadata = columns.metadata.iter().map(|name| (name.as_str(), false));
    let mut wanted: Vec<Wanted> = Vec::new();
    for (name, needed) in named.into_iter().chain(metadata) {
        if wanted.iter().all(|column| column.name != name) {
            wanted.extend(find(cursor, name, needed, leaves)?);
        }
    }
    Ok(wanted)
}

fn find(
    cursor: &Cursor,
    name: &str,
    needed: bool,
    leaves: &[Arc<ColumnDescriptor>],
) -> Result<Option<Wanted>, DataError> {
    let top = |leaf: &ColumnDescriptor| leaf.path().parts().first().cloned().unwrap_or_default();
    let Some(leaf) = leaves.iter().position(|leaf| top(leaf) == name) else {
        let mut found: Vec<String> = leaves.iter().map(|leaf| top(leaf)).collect();
        found.dedup();
        let missing = DataError::MissingColumn { path: cursor.path.to_path_buf(), column: name.to_owned(), found };
        return if needed { Err(missing) } else { Ok(None) };
    };
    let column = &leaves[leaf];
    if let Some(got) = unsupported(column) {
        return Err(DataError::FieldType { place: cursor.place(), field: name.to_owned(), expected: EXPECTED, got });
    }
    let unsigned = matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
    Ok(Some(Wanted { name: name.to_owned(), leaf, nullable: column.max_def_level() > 0, unsigned }))
}

/// Why a column cannot be read as text, numbers or truth values.
fn unsupported(column: &ColumnDescriptor) -> Option<String> {
    use ConvertedType::{ENUM, INT_8, INT_16, INT_32, INT_64, JSON, NONE, UINT_8, UINT_16, UINT_32, UINT_64, UTF8};
    if column.path().parts().len() > 1 || column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return Some("a nested column".to_owned());
    }
    let readable = match column.physical_type() {
        Type::BYTE_ARRAY => matches!(column.converted_type(), NONE | UTF8 | ENUM | JSON),
        Type::INT32 => {
            matches!(column.converted_type(), NONE | INT_8 | INT_16 | INT_32 | UINT_8 | UINT_16 | UINT_32)
        }
        Type::INT64 => matches!(column.converted_type(), NONE | INT_64 | UINT_64),
        Type::BOOLEAN | Type::FLOAT | Type::DOUBLE => true,
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => false,
    };
    (!readable).then(|| format!("{} ({})", column.physical_type(), column.converted_type()))
}

fn collect_group(
    group: &dyn RowGroupReader,
    wanted: &[Wanted],
    cursor: &mut Cursor,
    take: &mut dyn FnMut(Record) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let open = |column: &Wanted| cursor.guard(|| group.get_column_reader(column.leaf));
    let mut readers = wanted.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    while left > 0 {
        let rows = left.min(BATCH);
        let read = |(column, reader)| Batch::read(column, reader, rows, cursor);
        let mut batches = wanted.iter().zip(&mut readers).map(read).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..rows {
            take(next_record(&mut batches, cursor)?)?;
            cursor.row += 1;
        }
        left -= rows;
    }
    Ok(())
}

/// Only one row's text is copied at a time: many cells may share one long dictionary entry.
fn next_record(batches: &mut [Batch<'_>], cursor: &Cursor) -> Result<Record, DataError> {
    let mut fields = Metadata::new();
    for batch in batches {
        if let Some(value) = batch.next_cell(cursor)? {
            fields.insert(batch.column.name.clone(), value);
        }
    }
    Ok(Record { place: cursor.place(), fields })
}

/// Some rows of one column: which of them are there, and the cells of those.
struct Batch<'a> {
    column: &'a Wanted,
    present: std::vec::IntoIter<bool>,
    cells: Cells,
}

enum Cells {
    Text(std::vec::IntoIter<ByteArray>),
    Value(std::vec::IntoIter<Value>),
}

impl<'a> Batch<'a> {
    fn read(column: &'a Wanted, reader: &mut ColumnReader, rows: usize, cursor: &Cursor) -> Result<Self, DataError> {
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
            R::Int32ColumnReader(reader) => request.values(reader, |x| Value::from(x.cast_unsigned()))?,
            R::Int64ColumnReader(reader) if signed => request.values(reader, Value::from)?,
            R::Int64ColumnReader(reader) => request.values(reader, |x| Value::from(x.cast_unsigned()))?,
            // Through its shortest decimal form, lest 0.1 become 0.10000000149011612.
            R::FloatColumnReader(reader) => {
                request.values(reader, |x| x.to_string().parse().map_or(Value::Null, |x: f64| Value::from(x)))?
            }
            R::DoubleColumnReader(reader) => request.values(reader, Value::from)?,
            R::Int96ColumnReader(_) | R::FixedLenByteArrayColumnReader(_) => return Err(request.short(0)),
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
    column: &'a Wanted,
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

    fn cells<T: DataType>(&self, reader: &mut ColumnReaderImpl<T>) -> Result<(Vec<bool>, Vec<T::T>), DataError> {
        let (mut levels, mut cells) = (Vec::new(), Vec::new());
        let read = || reader.read_records(self.rows, Some(&mut levels), None, &mut cells);
        let (rows, ..) = self.cursor.guard(read)?;
        let present = if self.column.nullable { levels.iter().map(|&l| l > 0).collect() } else { vec![true; rows] };
        if rows != self.rows || present.len() != rows || present.iter().filter(|&&p| p).count() != cells.len() {
            return Err(self.short(cells.len()));
        }
        Ok((present, cells))
    }

    fn short(&self, got: usize) -> DataError {
        let column = self.column.name.clone();
        DataError::BrokenColumn { place: self.cursor.place(), column, expected: self.rows, got }
    }
}
