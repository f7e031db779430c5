//! Thrift's compact protocol, as far as Parquet's own structures are looked through.

/// The deepest that values may be nested.
pub(crate) const MAX_DEPTH: usize = 64;

/// A reader of the protocol; `None` where it ends too soon.
pub(crate) struct Compact<'a>(pub &'a [u8]);

/// What stands where a struct's next field would.
pub(crate) const STOP: u8 = 0;
pub(crate) const LIST: u8 = 9;
const STRUCT: u8 = 12;

impl Compact<'_> {
    /// The next field's type, its number put into `id`; [`STOP`] at the end of a struct.
    pub fn field(&mut self, id: &mut u64) -> Option<u8> {
        let header = self.byte()?;
        if header == STOP {
            return Some(STOP);
        }
        *id = match header >> 4 {
            0 => self.varint()? >> 1,
            further => *id + u64::from(further),
        };
        Some(header & 15)
    }

    /// A list's length, and its items' type.
    pub fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Some((count, header & 15))
    }

    /// Passes over a value.
    pub fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.0 = self.0.get(8..)?,
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.0 = self.0.get(length..)?;
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                for _ in 0..count {
                    // A truth value in a list is a byte of its own.
                    self.skip(if kind <= 2 { 3 } else { kind }, depth + 1)?;
                }
            }
            STRUCT => {
                let mut id = 0;
                loop {
                    match self.field(&mut id)? {
                        STOP => break,
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A signed number, which are written as 0, -1, 1, -2, …; as large as can be where it is below 0.
    pub fn size(&mut self) -> Option<u64> {
        let number = self.varint()?;
        Some(if number & 1 == 0 { number >> 1 } else { u64::MAX })
    }

    /// A number in groups of seven bits.
    pub fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}
