//! The footer of a Parquet file, looked through before the reader builds on it: the reader makes room
//! for as many children as a column says that it has, and calls itself for each level of them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::thrift::{Compact, LIST, MAX_DEPTH, STOP};

/// The longest footer that is read, in bytes: some hundred thousand columns.
const MAX_BYTES: u64 = 64 << 20;

/// What is wrong with the file's footer, as far as its schema goes; the reader says the rest.
pub(crate) fn check(file: &mut File) -> io::Result<Result<(), String>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = [0; 8];
    if length < 12 {
        return Ok(Ok(()));
    }
    file.seek(SeekFrom::Start(length - 8))?;
    file.read_exact(&mut end)?;

    let [a, b, c, d, ..] = end;
    let bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    if bytes > length - 8 {
        return Ok(Ok(()));
    }
    if bytes > MAX_BYTES {
        return Ok(Err(format!("a footer of {bytes} bytes, where at most {MAX_BYTES} are read")));
    }

    let mut footer = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(length - 8 - bytes))?;
    file.read_exact(&mut footer)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Compact(&footer).schema().unwrap_or(Ok(())))
}

impl Compact<'_> {
    /// The file's metadata up to its schema, field 2.
    fn schema(&mut self) -> Option<Result<(), String>> {
        let mut id = 0;
        loop {
            match self.field(&mut id)? {
                STOP => return None,
                LIST if id == 2 => return self.columns(),
                kind => self.skip(kind, 0)?,
            }
        }
    }

    /// The columns, parents before their children.
    fn columns(&mut self) -> Option<Result<(), String>> {
        let (count, _) = self.list()?;
        let mut open: Vec<u64> = Vec::new();
        for column in 0..count {
            let children = self.children()?;
            if children > count - column - 1 {
                return Some(Err(format!("column {column} of {count} has {children} children")));
            }

            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            open.push(children);
            if open.len() > MAX_DEPTH {
                return Some(Err(format!("columns are nested more than {MAX_DEPTH} deep")));
            }
        }
        Some(Ok(()))
    }

    /// How many children a column has: field 5.
    fn children(&mut self) -> Option<u64> {
        let mut children = 0;
        let mut id = 0;
        loop {
            match self.field(&mut id)? {
                STOP => return Some(children),
                _ if id == 5 => children = self.size()?,
                kind => self.skip(kind, 0)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column of that many children: name `c`, field 4; children, field 5.
    fn column(children: u32) -> Vec<u8> {
        let mut bytes = vec![0x48, 1, b'c', 0x15];
        let mut number = children << 1;
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.extend([number as u8, 0]);
        bytes
    }

    /// Metadata with its version and these columns.
    fn footer(columns: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0x15, 2, 0x19, 0xfc];
        let mut count = columns.len();
        while count >= 0x80 {
            bytes.push(count as u8 | 0x80);
            count >>= 7;
        }
        bytes.push(count as u8);
        bytes.extend(columns.iter().flat_map(|children| column(*children)));
        bytes
    }

    fn told(columns: &[u32]) -> Option<Result<(), String>> {
        Compact(&footer(columns)).schema()
    }

    #[test]
    fn as_many_columns_as_are_said_and_no_deeper_than_may_be() {
        assert_eq!(told(&[2, 0, 0]), Some(Ok(())));
        assert_eq!(told(&[2, 2, 0, 0, 1, 0]), Some(Ok(())));
        let wide: Vec<u32> = [1000].into_iter().chain([0; 1000]).collect();
        assert_eq!(told(&wide), Some(Ok(())));

        let many = told(&[i32::MAX as u32, 0]).unwrap().unwrap_err();
        assert!(many.contains("column 0 of 2 has 2147483647 children"), "{many}");
        let deep = told(&[[1; 100].as_slice(), &[0]].concat()).unwrap().unwrap_err();
        assert!(deep.contains("nested"), "{deep}");
        assert_eq!(Compact(&footer(&[2, 0])[..6]).schema(), None);
    }
}
