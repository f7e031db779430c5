//! Which fields a protobuf message may have: one that is not known is refused, not skipped.

use crate::refusal::Refusal;
use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The fields of a message, by number.
pub(crate) struct Fields(pub &'static [(u32, Field)]);

/// A field.
pub(crate) enum Field {
    /// One whose insides are not looked at.
    Plain(&'static str),
    /// A message, with its own fields.
    Message(&'static str, &'static Fields),
}

impl Fields {
    /// Walks a message, and names the first field that is not among these.
    pub fn check(&self, name: &str, message: &Bytes) -> Result<(), Refusal> {
        let broken = |error: &dyn std::fmt::Display| {
            Refusal::invalid(format!("{name}: broken protobuf: {error}"))
        };
        let mut rest = message.clone();
        while rest.has_remaining() {
            let (number, wire_type) = decode_key(&mut rest).map_err(|error| broken(&error))?;
            let known = self.0.iter().find(|(own, _)| *own == number);
            let Some((_, field)) = known else {
                let known: Vec<&str> = self.0.iter().map(|(_, field)| field.name()).collect();
                return Err(Refusal::invalid(format!(
                    "{name}: field {number} is not known here; there are {}",
                    known.join(", ")
                )));
            };

            match field {
                Field::Message(own, fields) if wire_type == WireType::LengthDelimited => {
                    let length = decode_varint(&mut rest).map_err(|error| broken(&error))?;
                    if length > rest.remaining() as u64 {
                        return Err(broken(&"a length that is longer than what follows"));
                    }
                    let inner = rest.split_to(length as usize);
                    fields.check(&format!("{name}.{own}"), &inner)?;
                }
                _ => {
                    let context = DecodeContext::default();
                    skip_field(wire_type, number, &mut rest, context)
                        .map_err(|error| broken(&error))?;
                }
            }
        }
        Ok(())
    }
}

impl Field {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain(name) | Self::Message(name, _) => name,
        }
    }
}
