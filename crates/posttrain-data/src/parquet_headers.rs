//! The headers of a Parquet column's pages, looked through before any page is unpacked: the decoder
//! makes room for as many bytes as a header says, and unpacks as many as there are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use crate::thrift::{Compact, STOP};

/// What is read of a header at first, in bytes, and what at most: its statistics may be long.
const FIRST: u64 = 1 << 12;
const MOST: u64 = 1 << 22;

/// What is wrong with the headers of the pages at `pages`, of which each may unpack to `limit` bytes.
/// What is no header is left to the decoder to tell.
pub(crate) fn check(
    file: &mut File,
    pages: Range<u64>,
    limit: u64,
) -> io::Result<Result<(), String>> {
    let mut place = pages.start;
    while place < pages.end {
        let Some(header) = read(file, place, pages.end)? else { return Ok(Ok(())) };
        if header.unpacked > limit {
            let bytes = header.unpacked;
            return Ok(Err(format!("a page of {bytes} bytes, where at most {limit} are unpacked")));
        }
        let after = place.checked_add(header.length).and_then(|p| p.checked_add(header.packed));
        match after {
            Some(after) => place = after,
            None => return Ok(Ok(())),
        }
    }
    Ok(Ok(()))
}

struct Header {
    length: u64,
    unpacked: u64,
    packed: u64,
}

fn read(file: &mut File, place: u64, end: u64) -> io::Result<Option<Header>> {
    for most in [FIRST, MOST] {
        file.seek(SeekFrom::Start(place))?;
        let mut bytes = Vec::new();
        file.by_ref().take(most.min(end - place)).read_to_end(&mut bytes)?;
        if let Some(header) = parse(&bytes) {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// A header: its fields 2 and 3 are the page's bytes, unpacked and packed.
fn parse(bytes: &[u8]) -> Option<Header> {
    let mut compact = Compact(bytes);
    let (mut unpacked, mut packed) = (None, None);
    let mut id = 0;
    loop {
        match compact.field(&mut id)? {
            STOP => break,
            _ if id == 2 => unpacked = Some(compact.size()?),
            _ if id == 3 => packed = Some(compact.size()?),
            kind => compact.skip(kind, 0)?,
        }
    }
    let length = (bytes.len() - compact.0.len()) as u64;
    Some(Header { length, unpacked: unpacked?, packed: packed? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A page's header: its type, 0; bytes unpacked and packed; a struct with a number.
    fn header(unpacked: u32, packed: u8) -> Vec<u8> {
        let mut bytes = vec![0x15, 0, 0x15];
        let mut number = u64::from(unpacked) << 1;
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.extend([number as u8, 0x15, packed << 1, 0x2c, 0x15, 2, 0, 0]);
        bytes
    }

    fn told(pages: &[Vec<u8>], limit: u64) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = pages.concat();
        file.write_all(&bytes).unwrap();
        check(&mut file, 0..bytes.len() as u64, limit).unwrap()
    }

    #[test]
    fn every_page_is_looked_at_and_none_unpacks_to_more_than_it_may() {
        let page = |unpacked| [header(unpacked, 3), vec![1, 2, 3]].concat();
        assert_eq!(told(&[page(10), page(10), page(10)], 10), Ok(()));
        let error = told(&[page(10), page(10), page(i32::MAX as u32)], 10).unwrap_err();
        assert!(error.contains("a page of 2147483647 bytes"), "{error}");
        // A size below nothing is no size.
        let negative = [vec![0x15, 0, 0x15, 1, 0x15, 0, 0]].concat();
        assert!(told(&[negative], 10).is_err());
    }

    #[test]
    fn what_is_no_header_is_left_to_the_decoder() {
        assert_eq!(told(&[vec![0xff; 100]], 10), Ok(()));
        assert_eq!(told(&[header(5, 3)[..4].to_vec()], 10), Ok(()));
        assert_eq!(told(&[], 10), Ok(()));
    }
}
