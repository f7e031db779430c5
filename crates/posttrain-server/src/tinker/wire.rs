//! Tinker's protobuf messages, as the descriptor inside the SDK has them (`tinker_public`).

use super::fields::{Field, Fields};
use crate::refusal::Refusal;
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;

/// The kind of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum DType {
    Unspecified = 0,
    Float32 = 1,
    Int64 = 2,
    Int32 = 3,
    Bfloat16 = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForwardBackwardRequest {
    #[prost(string, tag = "1")]
    pub model_id: String,
    #[prost(int32, tag = "2")]
    pub seq_id: i32,
    #[prost(message, repeated, tag = "3")]
    pub data: Vec<Datum>,
    #[prost(string, tag = "4")]
    pub loss_fn: String,
    #[prost(map = "string, double", tag = "5")]
    pub loss_fn_config: HashMap<String, f64>,
    #[prost(bool, tag = "6")]
    pub forward_only: bool,
    #[prost(map = "string, message", tag = "7")]
    pub loss_fn_config_v2: HashMap<String, LossConfigValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LossConfigValue {
    #[prost(oneof = "LossConfig", tags = "1, 2")]
    pub value: Option<LossConfig>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum LossConfig {
    #[prost(double, tag = "1")]
    Number(f64),
    #[prost(string, tag = "2")]
    Text(String),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Datum {
    #[prost(message, repeated, tag = "1")]
    pub model_input: Vec<Chunk>,
    #[prost(map = "string, message", tag = "2")]
    pub loss_fn_inputs: HashMap<String, Tensor>,
    /// Which sampled sequences the tokens came from: only `stable_reinforce` reads it.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub model_input_spans: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub loss_fn_input_spans: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Chunk {
    #[prost(oneof = "ChunkKind", tags = "1, 2, 3")]
    pub chunk: Option<ChunkKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ChunkKind {
    #[prost(message, tag = "1")]
    EncodedText(EncodedText),
    #[prost(bytes = "bytes", tag = "2")]
    Image(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    Dmel(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncodedText {
    /// int32, little-endian.
    #[prost(bytes = "bytes", tag = "1")]
    pub tokens: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(oneof = "Encoding", tags = "1, 2")]
    pub encoding: Option<Encoding>,
    #[prost(enumeration = "DType", tag = "3")]
    pub dtype: i32,
    #[prost(int64, repeated, tag = "4")]
    pub shape: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Encoding {
    #[prost(bytes = "bytes", tag = "1")]
    Dense(Bytes),
    #[prost(message, tag = "2")]
    SparseCsr(SparseCsr),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseCsr {
    #[prost(bytes = "bytes", tag = "1")]
    pub values: Bytes,
    /// int64, little-endian, as the next one.
    #[prost(bytes = "bytes", tag = "2")]
    pub crow_indices: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub col_indices: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForwardBackwardOutput {
    #[prost(string, tag = "1")]
    pub loss_fn_output_type: String,
    #[prost(message, repeated, tag = "2")]
    pub loss_fn_outputs: Vec<ArrayRecord>,
    #[prost(map = "string, double", tag = "3")]
    pub metrics: HashMap<String, f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ArrayRecord {
    #[prost(string, tag = "1")]
    pub type_tag: String,
    #[prost(map = "string, message", tag = "2")]
    pub fields: HashMap<String, BatchedTensor>,
    #[prost(int64, tag = "3")]
    pub num_datums: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BatchedTensor {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// n + 1 int64 byte offsets into `data`.
    #[prost(bytes = "bytes", tag = "2")]
    pub offsets: Bytes,
    #[prost(enumeration = "DType", tag = "3")]
    pub dtype: i32,
    #[prost(int64, repeated, tag = "4")]
    pub trailing_shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SampleResponse {
    #[prost(message, repeated, tag = "1")]
    pub sequences: Vec<SampledSequence>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub prompt_logprobs: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    pub topk_prompt_logprobs: Option<TopkLogprobs>,
    #[prost(int32, tag = "4")]
    pub prompt_cache_hit_tokens: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SampledSequence {
    /// 0 is a stop, 1 the limit of tokens.
    #[prost(int32, tag = "1")]
    pub stop_reason: i32,
    #[prost(bytes = "bytes", tag = "2")]
    pub tokens: Bytes,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub logprobs: Option<Bytes>,
    #[prost(message, optional, tag = "4")]
    pub topk_sampled_logprobs: Option<TopkLogprobs>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TopkLogprobs {
    #[prost(bytes = "bytes", tag = "1")]
    pub token_ids: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub logprobs: Bytes,
    #[prost(uint32, tag = "3")]
    pub k: u32,
    #[prost(uint32, tag = "4")]
    pub length: u32,
}

/// Reads a message, all of whose fields have to be known: one that is not would be lost without a
/// word.
pub(crate) fn read_forward_backward(body: &Bytes) -> Result<ForwardBackwardRequest, Refusal> {
    FORWARD_BACKWARD.check("ForwardBackwardRequest", body)?;
    ForwardBackwardRequest::decode(body.clone()).map_err(|error| {
        Refusal::invalid(format!("the body is no ForwardBackwardRequest: {error}"))
    })
}

/// The bytes of a message.
pub(crate) fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// Little-endian values, as protobuf's bytes hold them.
pub(crate) fn floats_to_bytes(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Token ids as int32.
pub(crate) fn tokens_to_bytes(tokens: &[i64]) -> Bytes {
    // Below the vocabulary's size, which an embedding of more than 2³¹ rows would exceed.
    tokens.iter().flat_map(|&token| (token as i32).to_le_bytes()).collect()
}

const CONFIG_VALUE: Fields = Fields(&[(1, Field::Plain("number")), (2, Field::Plain("text"))]);
const CONFIG: Fields = Fields(&[(1, Field::Plain("key")), (2, Field::Plain("value"))]);
const CONFIG_V2: Fields =
    Fields(&[(1, Field::Plain("key")), (2, Field::Message("value", &CONFIG_VALUE))]);
const TEXT: Fields = Fields(&[(1, Field::Plain("tokens"))]);
const CHUNK: Fields = Fields(&[
    (1, Field::Message("encoded_text", &TEXT)),
    (2, Field::Plain("image")),
    (3, Field::Plain("dmel")),
]);
const CSR: Fields = Fields(&[
    (1, Field::Plain("values")),
    (2, Field::Plain("crow_indices")),
    (3, Field::Plain("col_indices")),
]);
const TENSOR: Fields = Fields(&[
    (1, Field::Plain("dense")),
    (2, Field::Message("sparse_csr", &CSR)),
    (3, Field::Plain("dtype")),
    (4, Field::Plain("shape")),
]);
const INPUT: Fields = Fields(&[(1, Field::Plain("key")), (2, Field::Message("value", &TENSOR))]);
const DATUM: Fields = Fields(&[
    (1, Field::Message("model_input", &CHUNK)),
    (2, Field::Message("loss_fn_inputs", &INPUT)),
    (3, Field::Plain("model_input_spans")),
    (4, Field::Plain("loss_fn_input_spans")),
]);
const FORWARD_BACKWARD: Fields = Fields(&[
    (1, Field::Plain("model_id")),
    (2, Field::Plain("seq_id")),
    (3, Field::Message("data", &DATUM)),
    (4, Field::Plain("loss_fn")),
    (5, Field::Message("loss_fn_config", &CONFIG)),
    (6, Field::Plain("forward_only")),
    (7, Field::Message("loss_fn_config_v2", &CONFIG_V2)),
]);

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ForwardBackwardRequest {
        let tokens = tokens_to_bytes(&[1, 2, 3]);
        let chunk = ChunkKind::EncodedText(EncodedText { tokens });
        let tensor = Tensor {
            encoding: Some(Encoding::Dense(floats_to_bytes(&[1.0, -2.5]))),
            dtype: DType::Float32 as i32,
            shape: vec![2],
        };
        let datum = Datum {
            model_input: vec![Chunk { chunk: Some(chunk) }],
            loss_fn_inputs: HashMap::from([("weights".to_owned(), tensor)]),
            ..Datum::default()
        };
        ForwardBackwardRequest {
            model_id: "m".into(),
            seq_id: 7,
            data: vec![datum],
            loss_fn: "ppo".into(),
            loss_fn_config: HashMap::from([("clip_low_threshold".to_owned(), 0.0)]),
            ..ForwardBackwardRequest::default()
        }
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        assert_eq!(read_forward_backward(&encoded(&request())).unwrap(), request());
    }

    #[test]
    fn a_field_that_nobody_knows_is_an_error_wherever_it_stands() {
        // Field 9, a varint of 1.
        let unknown = [0x48, 0x01];
        let top: Bytes = [encoded(&request()).as_ref(), &unknown].concat().into();
        let error = read_forward_backward(&top).unwrap_err();
        assert!(error.detail.contains("field 9"), "{}", error.detail);

        // Within a datum: field 3 of the request, of a length of 2.
        let within: Bytes = [encoded(&request()).as_ref(), &[0x1a, 2], &unknown].concat().into();
        let error = read_forward_backward(&within).unwrap_err();
        assert!(error.detail.contains("data") && error.detail.contains("field 9"));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_is_another_message() {
        let whole = encoded(&request());
        for end in 0..whole.len() {
            if let Ok(read) = read_forward_backward(&whole.slice(..end)) {
                assert_ne!(read, request());
            }
        }
    }
}
