//! Which columns of a Parquet file are read, and whether they can be.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Type};
use parquet::schema::types::ColumnDescriptor;

use crate::{Columns, DataError, Place};

const EXPECTED: &str = "a column of text, whole numbers, floating point or truth values";

/// A column that is read: its name and its index among the file's leaves.
pub(crate) struct SelectedColumn {
    pub(crate) name: String,
    pub(crate) leaf: usize,
    pub(crate) nullable: bool,
    pub(crate) unsigned: bool,
}

/// The columns to read, of those that the file has.
pub(crate) fn choose(
    path: &Path,
    columns: &Columns,
    leaves: &[Arc<ColumnDescriptor>],
) -> Result<Vec<SelectedColumn>, DataError> {
    let domain_needed = columns.domain.is_some() && columns.default_domain.is_none();
    let named = [
        (columns.question.as_str(), true),
        (columns.answer.as_str(), true),
        (columns.id.as_deref().unwrap_or("id"), columns.id.is_some()),
        (columns.domain.as_deref().unwrap_or("domain"), domain_needed),
        (columns.group.as_deref().unwrap_or("group"), columns.group.is_some()),
    ];
    let metadata = columns.metadata.iter().map(|name| (name.as_str(), false));

    let mut selected: Vec<SelectedColumn> = Vec::new();
    for (name, needed) in named.into_iter().chain(metadata) {
        if selected.iter().all(|column| column.name != name) {
            selected.extend(find(path, name, needed, leaves)?);
        }
    }
    Ok(selected)
}

fn find(
    path: &Path,
    name: &str,
    needed: bool,
    leaves: &[Arc<ColumnDescriptor>],
) -> Result<Option<SelectedColumn>, DataError> {
    let top = |leaf: &ColumnDescriptor| leaf.path().parts().first().cloned().unwrap_or_default();
    let Some(leaf) = leaves.iter().position(|leaf| top(leaf) == name) else {
        let mut found: Vec<String> = leaves.iter().map(|leaf| top(leaf)).collect();
        found.dedup();
        let missing =
            DataError::MissingColumn { path: path.to_path_buf(), column: name.to_owned(), found };
        return if needed { Err(missing) } else { Ok(None) };
    };

    let column = &leaves[leaf];
    if let Some(got) = unsupported(column) {
        return Err(DataError::FieldType {
            place: Place::row(path, 1),
            field: name.to_owned(),
            expected: EXPECTED,
            got,
        });
    }

    let unsigned =
        matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
    Ok(Some(SelectedColumn {
        name: name.to_owned(),
        leaf,
        nullable: column.max_def_level() > 0,
        unsigned,
    }))
}

/// Why a column cannot be read as text, numbers or truth values.
fn unsupported(column: &ColumnDescriptor) -> Option<String> {
    use ConvertedType::{
        ENUM, INT_8, INT_16, INT_32, INT_64, JSON, NONE, UINT_8, UINT_16, UINT_32, UINT_64, UTF8,
    };

    if column.path().parts().len() > 1 || column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return Some("a nested column".to_owned());
    }

    let readable = match column.physical_type() {
        Type::BYTE_ARRAY => matches!(column.converted_type(), NONE | UTF8 | ENUM | JSON),
        Type::INT32 => {
            matches!(
                column.converted_type(),
                NONE | INT_8 | INT_16 | INT_32 | UINT_8 | UINT_16 | UINT_32
            )
        }
        Type::INT64 => matches!(column.converted_type(), NONE | INT_64 | UINT_64),
        Type::BOOLEAN | Type::FLOAT | Type::DOUBLE => true,
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => false,
    };

    (!readable).then(|| format!("{} ({})", column.physical_type(), column.converted_type()))
}
