//! A GGUF file's header: metadata, and where each weight lies.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use super::blocks::BlockForm;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// What a header may take in memory: some five times that of the largest vocabulary there is.
const BUDGET: u64 = 256 << 20;

/// Dimensions that a weight has at most (`GGML_MAX_DIMS`).
const DIMENSIONS: u32 = 4;

/// A value of the metadata. Arrays of what no model is described by are passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Number(f64),
    Flag(bool),
    Text(String),
    Integers(Vec<i64>),
    Texts(Vec<String>),
    /// An array of something else.
    Other,
}

/// A weight, as the header has it.
#[derive(Debug)]
pub(super) struct StoredWeight {
    /// Sizes, the slowest first.
    pub shape: Vec<u64>,
    pub form: BlockForm,
    /// From the beginning of the file.
    pub offset: u64,
}

/// Everything before the weights.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub weights: BTreeMap<String, StoredWeight>,
}

impl Header {
    /// Reads a header from the beginning of a file. An error says what is wrong in words.
    pub fn read(file: impl Read) -> Result<Self, String> {
        let mut reader = Reader { file, position: 0, left: BUDGET };

        if reader.bytes::<4>()? != *b"GGUF" {
            return Err("it does not begin with GGUF".into());
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("its version is {version}, expected 2 or 3"));
        }
        let weights = reader.u64()?;
        let entries = reader.u64()?;

        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind).map_err(|reason| format!("`{key}`: {reason}"))?;
            metadata.insert(key, value);
        }

        let mut stored = BTreeMap::new();
        for _ in 0..weights {
            let name = reader.text()?;
            let weight = reader.weight().map_err(|reason| format!("weight `{name}`: {reason}"))?;
            stored.insert(name, weight);
        }

        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(alignment)) if *alignment > 0 => *alignment as u64,
            Some(other) => return Err(format!("`general.alignment` is {other:?}")),
        };
        let data = reader.position.next_multiple_of(alignment);
        for weight in stored.values_mut() {
            weight.offset = weight.offset.saturating_add(data);
        }
        Ok(Self { metadata, weights: stored })
    }
}

/// A file that is read value by value, and ends where that would take too much memory.
struct Reader<R> {
    file: R,
    position: u64,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Makes sure that the budget holds `bytes` more.
    fn reserve(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| format!("its header would take more than {BUDGET} bytes of memory"))?;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        self.file.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends within its header".to_owned(),
            _ => error.to_string(),
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text; zeros at its end, which some writers leave, are not part of it.
    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        self.reserve(length.saturating_add(size_of::<String>() as u64))?;

        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        self.reserve(size_of::<Value>() as u64)?;
        Ok(match kind {
            6 => Value::Number(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Flag(self.bytes::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let count = self.u64()?;
                self.array(kind, count)?
            }
            12 => Value::Number(f64::from_le_bytes(self.bytes()?)),
            kind => match self.integer(kind)? {
                Some(value) => Value::Integer(value),
                None => Value::Other,
            },
        })
    }

    /// A whole number of one of the kinds that there are, if it is none that is larger than any size.
    fn integer(&mut self, kind: u32) -> Result<Option<i64>, String> {
        Ok(Some(match kind {
            0 => u8::from_le_bytes(self.bytes()?).into(),
            1 => i8::from_le_bytes(self.bytes()?).into(),
            2 => u16::from_le_bytes(self.bytes()?).into(),
            3 => i16::from_le_bytes(self.bytes()?).into(),
            4 => u32::from_le_bytes(self.bytes()?).into(),
            5 => i32::from_le_bytes(self.bytes()?).into(),
            10 => return Ok(i64::try_from(self.u64()?).ok()),
            11 => i64::from_le_bytes(self.bytes()?),
            kind => return Err(format!("a value of kind {kind}, which there is none of")),
        }))
    }

    fn array(&mut self, kind: u32, count: u64) -> Result<Value, String> {
        match kind {
            8 => {
                let mut texts = Vec::new();
                for _ in 0..count {
                    texts.push(self.text()?);
                }
                Ok(Value::Texts(texts))
            }
            0..=5 | 10 | 11 => {
                self.reserve(count.saturating_mul(size_of::<i64>() as u64))?;
                let mut integers = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    integers.push(self.integer(kind)?.unwrap_or(i64::MAX));
                }
                Ok(Value::Integers(integers))
            }
            6 | 7 | 12 => {
                let size = match kind {
                    6 => 4,
                    7 => 1,
                    _ => 8,
                };
                self.skip(count.saturating_mul(size))?;
                Ok(Value::Other)
            }
            kind => Err(format!("an array of kind {kind}")),
        }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        let skipped = io::copy(&mut (&mut self.file).take(bytes), &mut io::sink());
        if skipped.map_err(|error| error.to_string())? < bytes {
            return Err("it ends within its header".into());
        }
        self.position += bytes;
        Ok(())
    }

    fn weight(&mut self) -> Result<StoredWeight, String> {
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS {
            return Err(format!("{dimensions} dimensions, expected at most {DIMENSIONS}"));
        }
        self.reserve(size_of::<StoredWeight>() as u64)?;

        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        // The file names the fastest size first.
        shape.reverse();

        let kind = self.u32()?;
        let form = BlockForm::of(kind)
            .ok_or_else(|| format!("its numbers are of kind {kind}, which is not read here"))?;
        Ok(StoredWeight { shape, form, offset: self.u64()? })
    }
}
