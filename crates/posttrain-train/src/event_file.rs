//! TensorBoard's event files: scalars in TFRecord frames.
//!
//! Format: TensorFlow's `record_writer.cc` (length, masked CRC-32C of it, data, masked CRC-32C of
//! that) around the protocol-buffer messages `Event` and `Summary` of `event.proto` and
//! `summary.proto`. Written here since the crate that does it has not been kept since 2022.

use crate::TrainError;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An event file that scalars are appended to.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file `events.out.tfevents.<seconds>.posttrain` in `folder`, in place of those that
    /// were there.
    ///
    /// # Errors
    /// [`TrainError::Io`] names what could not be written.
    pub fn create(folder: &Path, seconds: f64) -> Result<Self, TrainError> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(TrainError::io(folder))?;
        }
        std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let path = folder.join(format!("events.out.tfevents.{:010}.posttrain", seconds as u64));
        let file = File::create(&path).map_err(TrainError::io(&path))?;
        let mut events = Self { path, file };
        let mut event = wall_time(seconds);
        field_bytes(&mut event, 3, b"brain.Event:2");
        events.write(&event)?;
        Ok(events)
    }

    /// Appends scalars of one step; `seconds` is the time since 1970.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn scalars(
        &mut self,
        step: u64,
        seconds: f64,
        values: &[(&str, f64)],
    ) -> Result<(), TrainError> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            field_bytes(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, 5);
            entry.extend((*value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &entry);
        }
        let mut event = wall_time(seconds);
        key(&mut event, 2, 0);
        varint(&mut event, step);
        field_bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    fn write(&mut self, data: &[u8]) -> Result<(), TrainError> {
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = length.to_vec();
        frame.extend(masked_crc(&length).to_le_bytes());
        frame.extend(data);
        frame.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&frame).map_err(TrainError::io(&self.path))
    }
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn wall_time(seconds: f64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, 1);
    event.extend(seconds.to_le_bytes());
    event
}

fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version event is 24 bytes, whose header every TensorFlow event file begins with.
    /// (TensorBoard 2.21 reads the files.)
    #[test]
    fn the_first_frame_is_tensorboards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tb");
        EventFile::create(&folder, 0.0).unwrap().scalars(300, 1.5, &[("reward", 0.25)]).unwrap();
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(bytes[..8], 24u64.to_le_bytes());
        assert_eq!(bytes[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(&bytes[23..36], b"brain.Event:2");
        let second = &bytes[40..];
        let data = &second[12..second.len() - 4];
        assert_eq!(u64::from_le_bytes(second[..8].try_into().unwrap()) as usize, data.len());
        assert_eq!(data[9..12], [0x10, 0xac, 0x02]); // step 300 as a varint
        assert!(data.windows(6).any(|w| w == b"reward"));
        assert!(data.ends_with(&0.25f32.to_le_bytes()));
        assert_eq!(second[second.len() - 4..], masked_crc(data).to_le_bytes());
    }
}
