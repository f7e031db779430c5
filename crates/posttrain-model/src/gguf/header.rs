//! A file whose header costs no more memory than a header may.

use std::io::{self, Read, Seek, SeekFrom};

/// What a header may cost: some five times that of the largest vocabulary there is.
const BUDGET: usize = 256 << 20;
/// What a value costs beside its bytes: the reader keeps each number of an array, of one byte as
/// well, as a value of its own.
const VALUE: usize = 32;

/// A file that is read value by value into memory, and ends where that would be too much.
pub(super) struct Header<R> {
    file: R,
    left: usize,
}

impl<R> Header<R> {
    pub fn new(file: R) -> Self {
        Self { file, left: BUDGET }
    }
}

impl<R: Read> Read for Header<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.left = self.left.checked_sub(read + VALUE).ok_or_else(|| {
            let text = format!("its header would take more than {BUDGET} bytes of memory");
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        })?;
        Ok(read)
    }
}

impl<R: Seek> Seek for Header<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }

    /// A seek to where it stands would empty the buffer of the file.
    fn stream_position(&mut self) -> io::Result<u64> {
        self.file.stream_position()
    }
}
