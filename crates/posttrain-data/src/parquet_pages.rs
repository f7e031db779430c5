//! Pages of a Parquet column, checked before the decoder takes their word.

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// A column's pages, each of which holds as many values as it says: the decoder makes room for so
/// many before it looks.
pub(crate) struct CheckedPages {
    pub(crate) pages: Box<dyn PageReader>,
    pub(crate) physical_type: Type,
    pub(crate) nullable: bool,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl CheckedPages {
    fn check(&self, page: &Page) -> Result<()> {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let values = *num_values as usize;
                if values.saturating_mul(self.least_bytes()) > buf.len() {
                    let text = format!("a dictionary of {values} values in {} bytes", buf.len());
                    return Err(ParquetError::General(text));
                }
                Ok(())
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                let levels = match (self.nullable, def_level_encoding) {
                    (false, _) => 0,
                    (true, Encoding::RLE) => {
                        let length = buf.first_chunk::<4>().map_or(0, |n| u32::from_le_bytes(*n));
                        4 + length as usize
                    }
                    (true, _) => (*num_values as usize).div_ceil(8),
                };
                check_lengths(*encoding, buf.get(levels..).unwrap_or_default(), *num_values)
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                check_lengths(*encoding, buf.get(levels..).unwrap_or_default(), *num_values)
            }
        }
    }

    /// The fewest bytes of a plain value.
    fn least_bytes(&self) -> usize {
        match self.physical_type {
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            // A text has its length before it.
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => 1,
        }
    }
}

/// Checks how many lengths of texts stand before them, where an encoding has them there.
fn check_lengths(encoding: Encoding, values: &[u8], most: u32) -> Result<()> {
    if !matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) {
        return Ok(());
    }

    // Before the count stand the size of a block, and how many smaller ones it has.
    let mut rest = values;
    let mut count = 0;
    for _ in 0..3 {
        (count, rest) = varint(rest).unwrap_or((0, &[]));
    }
    if count > u64::from(most) {
        let text = format!("{count} lengths of texts in a page of {most} values");
        return Err(ParquetError::General(text));
    }
    Ok(())
}

/// A number in groups of seven bits, and what stands behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let number =
        bytes[..=end].iter().rev().fold(0u128, |sum, byte| sum << 7 | u128::from(byte & 0x7f));
    Some((u64::try_from(number).unwrap_or(u64::MAX), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_group_by_group() {
        assert_eq!(varint(&[0x96, 0x01, 7]), Some((150, &[7][..])));
        assert_eq!(varint(&[0xff; 10]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn more_lengths_than_values_are_refused() {
        let page = [128, 1, 4, 0x80, 0x80, 0x80, 0x80, 0x10];
        let check = |encoding, most| check_lengths(encoding, &page, most).is_ok();
        assert!(!check(Encoding::DELTA_LENGTH_BYTE_ARRAY, 1000));
        assert!(!check(Encoding::DELTA_BYTE_ARRAY, 1000));
        assert!(check(Encoding::PLAIN, 1000));
        assert!(check_lengths(Encoding::DELTA_BYTE_ARRAY, &[128, 1, 4, 9], 9).is_ok());
    }
}
