//! Answer ranges: `Sheet1!A1:C9,'My Sheet'!B2`.

/// Columns and rows of a sheet, by Excel's limits.
const COLUMNS: u32 = 16_384;
const ROWS: u32 = 1_048_576;

/// Areas of one range, and bytes of its text, at most.
const MAX_AREAS: usize = 256;
const MAX_BYTES: usize = 16_384;

/// A rectangle of cells on a sheet; rows and columns count from 0, and both ends belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    /// The reference workbook's first sheet where none is named.
    pub(super) sheet: Option<String>,
    pub(super) rows: (u32, u32),
    pub(super) columns: (u32, u32),
}

impl Area {
    pub(super) fn contains(&self, row: u32, column: u32) -> bool {
        (self.rows.0..=self.rows.1).contains(&row)
            && (self.columns.0..=self.columns.1).contains(&column)
    }
}

/// The areas of a range, or what is wrong with it.
///
/// Parts are separated by commas. A sheet's name stands before `!`, in single quotes where it has
/// commas or quotes (`''` for one). Cells are `A1` or `$A$1`; `A:C` is whole columns, `2:4` whole
/// rows, `A2:A` a column from a row on. Quotes around the cells (`'Sheet1'!'A1:B2'`,
/// `'Sheet1!A1:B2'`), which SpreadsheetBench's data has, are dropped as its evaluation does.
pub(super) fn parse_areas(text: &str) -> Result<Vec<Area>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let parts = split_outside_quotes(text, ',');
    if parts.len() > MAX_AREAS {
        return Err(format!("more than {MAX_AREAS} parts"));
    }
    parts.into_iter().map(|part| parse_area(part.trim())).collect()
}

fn parse_area(part: &str) -> Result<Area, String> {
    // A name and its cells in one pair of quotes.
    let whole = unquoted(part);
    let (name, cells) = match split_outside_quotes(part, '!').as_slice() {
        [cells] if whole.contains('!') && cells.starts_with('\'') => {
            whole.rsplit_once('!').map(own).unwrap_or_default()
        }
        [cells] => (String::new(), unquoted(cells)),
        [name, cells] => (unquoted(name.trim()), unquoted(cells.trim())),
        _ => return Err(format!("`{part}` has more than one `!`")),
    };
    let (rows, columns) =
        parse_cells(cells.trim()).ok_or_else(|| format!("`{cells}` is no range of cells"))?;
    Ok(Area { sheet: (!name.is_empty()).then_some(name), rows, columns })
}

fn own((name, cells): (&str, &str)) -> (String, String) {
    (name.to_owned(), cells.to_owned())
}

fn unquoted(text: &str) -> String {
    let inside = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    inside.map_or_else(|| text.to_owned(), |inside| inside.replace("''", "'"))
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        quoted ^= c == '\'';
        if c == separator && !quoted {
            parts.push(&text[from..at]);
            from = at + 1;
        }
    }
    parts.push(&text[from..]);
    parts
}

type Span = (u32, u32);

fn parse_cells(cells: &str) -> Option<(Span, Span)> {
    let (first, last) = match cells.split_once(':') {
        Some((first, last)) => (parse_corner(first)?, parse_corner(last)?),
        // A column or row alone needs its colon.
        None => match parse_corner(cells)? {
            corner @ (Some(_), Some(_)) => (corner, corner),
            _ => return None,
        },
    };
    // `A2:A` is open downwards, `2:4` and `A:C` on both sides; `A:3` is nothing.
    let span = |first: Option<u32>, last: Option<u32>, count: u32| match (first, last) {
        (Some(first), Some(last)) => Some((first.min(last), first.max(last))),
        (Some(first), None) => Some((first, count - 1)),
        (None, None) => Some((0, count - 1)),
        (None, Some(_)) => None,
    };
    Some((span(first.1, last.1, ROWS)?, span(first.0, last.0, COLUMNS)?))
}

/// Column and row of `A1`, `A` or `1`; at least one of the two.
fn parse_corner(corner: &str) -> Option<(Option<u32>, Option<u32>)> {
    let corner = corner.trim();
    let corner = corner.strip_prefix('$').unwrap_or(corner);
    let digits = corner.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(corner.len());
    let (letters, row) = corner.split_at(digits);
    let row = if letters.is_empty() { row } else { row.strip_prefix('$').unwrap_or(row) };
    let column = (!letters.is_empty()).then(|| parse_column(letters));
    let row = (!row.is_empty()).then(|| parse_row(row));
    match (column, row) {
        (None, None) | (Some(None), _) | (_, Some(None)) => None,
        (column, row) => Some((column.flatten(), row.flatten())),
    }
}

fn parse_column(letters: &str) -> Option<u32> {
    if letters.len() > 3 {
        return None;
    }
    let digit = |letter: u8| u32::from(letter.to_ascii_uppercase() - b'A') + 1;
    let number = letters.bytes().fold(0, |number, letter| number * 26 + digit(letter));
    (number <= COLUMNS).then(|| number - 1)
}

fn parse_row(digits: &str) -> Option<u32> {
    let plain = digits.len() <= 7 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u32 = digits.parse().ok().filter(|_| plain)?;
    (1..=ROWS).contains(&number).then(|| number - 1)
}

/// `B2` for column 1, row 1.
pub(super) fn cell_name(row: u32, column: u32) -> String {
    let mut letters = Vec::new();
    let mut number = column + 1;
    while number > 0 {
        number -= 1;
        letters.push(char::from(b'A' + u8::try_from(number % 26).unwrap_or_default()));
        number /= 26;
    }
    format!("{}{}", letters.iter().rev().collect::<String>(), row + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Area, COLUMNS, ROWS, cell_name, parse_areas};

    fn area(sheet: Option<&str>, rows: (u32, u32), columns: (u32, u32)) -> Area {
        Area { sheet: sheet.map(str::to_owned), rows, columns }
    }

    #[test]
    fn ranges() {
        let cases = [
            ("A1", vec![area(None, (0, 0), (0, 0))]),
            ("$B$2:$C$9", vec![area(None, (1, 8), (1, 2))]),
            ("c9:b2", vec![area(None, (1, 8), (1, 2))]),
            ("Sheet1!A1:C9", vec![area(Some("Sheet1"), (0, 8), (0, 2))]),
            (
                "Sheet1!A1,'My Sheet'!B2",
                vec![area(Some("Sheet1"), (0, 0), (0, 0)), area(Some("My Sheet"), (1, 1), (1, 1))],
            ),
            ("'a,b!''c'!A1", vec![area(Some("a,b!'c"), (0, 0), (0, 0))]),
            ("My Sheet!A1", vec![area(Some("My Sheet"), (0, 0), (0, 0))]),
            ("'Sheet1'!'A1:B2'", vec![area(Some("Sheet1"), (0, 1), (0, 1))]),
            ("'Sheet1!A1:B2'", vec![area(Some("Sheet1"), (0, 1), (0, 1))]),
            ("'A1:B2'", vec![area(None, (0, 1), (0, 1))]),
            ("A:C", vec![area(None, (0, ROWS - 1), (0, 2))]),
            ("2:4", vec![area(None, (1, 3), (0, COLUMNS - 1))]),
            ("A2:A", vec![area(None, (1, ROWS - 1), (0, 0))]),
            ("XFD1048576", vec![area(None, (ROWS - 1, ROWS - 1), (COLUMNS - 1, COLUMNS - 1))]),
            ("A1 , B2", vec![area(None, (0, 0), (0, 0)), area(None, (1, 1), (1, 1))]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_areas(text), Ok(expected), "{text}");
        }
        let wrong = [
            "", "A", "1", "A1:", ":A1", "A0", "A1048577", "XFE1", "AAAA1", "A1:B2:C3", "Sheet1!",
            "a!b!A1", "A:3", "A-1", "A1,", "é1",
        ];
        for text in wrong {
            assert!(parse_areas(text).is_err(), "{text}");
        }
        assert!(parse_areas(&"A1,".repeat(300)).is_err());
        assert!(parse_areas(&"x".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn names_are_read_back(row in 0..ROWS, column in 0..COLUMNS) {
            let name = cell_name(row, column);
            prop_assert_eq!(parse_areas(&name), Ok(vec![area(None, (row, row), (column, column))]));
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,40}|[A-C1-9:!,'$ ]{0,20}") {
            let _ = parse_areas(&text);
        }
    }
}
