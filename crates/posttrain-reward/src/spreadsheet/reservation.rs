//! Numbers in a workbook's XML by which its reader reserves memory, whatever follows them.
//!
//! `<sst uniqueCount="6000000000000">` makes the reader ask for that many texts at once, and a
//! shared formula's `si` for a table as long: 1.6 kB of file end the process. Neither can honestly
//! be larger than its own file has bytes.

use std::io::{self, Read};

/// Attributes whose number is reserved for.
const ATTRIBUTES: [&[u8]; 2] = [b"uniqueCount", b"si"];
/// Bytes of a file that are looked at together.
const CHUNK: usize = 64 * 1024;
/// Bytes that are looked at twice, so that no attribute is cut in two: a name, a few blanks and
/// twenty digits.
const OVERLAP: usize = 256;

/// What was found in one file of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reservation {
    /// Its bytes, unpacked.
    pub(super) bytes: u64,
    /// The largest number that its reader would reserve for.
    pub(super) largest: u64,
}

impl Reservation {
    /// Reads a file to its end.
    pub(super) fn of(mut file: impl Read) -> io::Result<Self> {
        let mut found = Self::default();
        let mut window = Vec::with_capacity(CHUNK + OVERLAP);
        let mut chunk = vec![0; CHUNK];

        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(found);
            }

            found.bytes += read as u64;
            window.extend_from_slice(&chunk[..read]);
            for attribute in ATTRIBUTES {
                found.largest = found.largest.max(largest(&window, attribute));
            }
            window.drain(..window.len().saturating_sub(OVERLAP));
        }
    }

    /// Whether the file can have as many as it says.
    pub(super) fn is_honest(self) -> bool {
        self.largest <= self.bytes
    }
}

/// The largest number of an attribute of this name.
fn largest(xml: &[u8], name: &[u8]) -> u64 {
    let places = xml.windows(name.len() + 1).enumerate();
    let named =
        places.filter(|(_, window)| window[0].is_ascii_whitespace() && &window[1..] == name);

    named.map(|(at, _)| number(&xml[at + 1 + name.len()..])).max().unwrap_or(0)
}

/// The number in `="123"`; none is 0, and one that is too large is the largest.
fn number(after: &[u8]) -> u64 {
    let mut rest =
        after.trim_ascii_start().strip_prefix(b"=").unwrap_or_default().trim_ascii_start();
    rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or_default();

    let digits = rest
        .trim_ascii_start()
        .iter()
        .skip_while(|byte| **byte == b'+')
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Reservation};

    fn largest(xml: &str) -> u64 {
        Reservation::of(xml.as_bytes()).unwrap().largest
    }

    #[test]
    fn numbers_that_are_reserved_for_are_found() {
        assert_eq!(largest(r#"<sst count="9" uniqueCount="6000000000000">"#), 6_000_000_000_000);
        assert_eq!(largest("<f t='shared'\n si = '900' ref='A1'>"), 900);
        assert_eq!(largest(r#"<f si="99999999999999999999999">"#), u64::MAX);
        assert_eq!(largest(r#"<f asi="900" siz="9"><si><t>si="9"</t></si>"#), 0);
        assert_eq!(largest(r#"<si/> uniqueCount"#), 0);
    }

    #[test]
    fn a_number_is_found_wherever_a_chunk_ends() {
        for before in CHUNK - 40..CHUNK + 5 {
            let xml = format!("{} uniqueCount=\"1234567\"", "x".repeat(before));
            assert_eq!(largest(&xml), 1_234_567, "{before}");
        }
    }

    #[test]
    fn no_file_has_more_parts_than_bytes() {
        assert!(Reservation { bytes: 100, largest: 100 }.is_honest());
        assert!(!Reservation { bytes: 100, largest: 101 }.is_honest());
    }
}
