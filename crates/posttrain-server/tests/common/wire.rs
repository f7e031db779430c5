//! Tinker's messages as a client writes and reads them, from the descriptor inside the SDK.

use prost::Message;
use std::collections::HashMap;

#[derive(Clone, PartialEq, Message)]
pub struct ForwardBackwardRequest {
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
}

#[derive(Clone, PartialEq, Message)]
pub struct Datum {
    #[prost(message, repeated, tag = "1")]
    pub model_input: Vec<Chunk>,
    #[prost(map = "string, message", tag = "2")]
    pub loss_fn_inputs: HashMap<String, Tensor>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Chunk {
    #[prost(message, optional, tag = "1")]
    pub encoded_text: Option<EncodedText>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub image: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EncodedText {
    #[prost(bytes = "vec", tag = "1")]
    pub tokens: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub dense: Option<Vec<u8>>,
    #[prost(int32, tag = "3")]
    pub dtype: i32,
    #[prost(int64, repeated, tag = "4")]
    pub shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ForwardBackwardOutput {
    #[prost(string, tag = "1")]
    pub loss_fn_output_type: String,
    #[prost(message, repeated, tag = "2")]
    pub loss_fn_outputs: Vec<ArrayRecord>,
    #[prost(map = "string, double", tag = "3")]
    pub metrics: HashMap<String, f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ArrayRecord {
    #[prost(map = "string, message", tag = "2")]
    pub fields: HashMap<String, BatchedTensor>,
    #[prost(int64, tag = "3")]
    pub num_datums: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct BatchedTensor {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub offsets: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub dtype: i32,
    #[prost(int64, repeated, tag = "4")]
    pub trailing_shape: Vec<i64>,
}

/// Token ids as a chunk.
pub fn chunk(tokens: &[i32]) -> Chunk {
    let tokens = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    Chunk { encoded_text: Some(EncodedText { tokens }), image: None }
}

pub fn floats(values: &[f32]) -> Tensor {
    let dense = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dense: Some(dense), dtype: 1, shape: vec![values.len() as i64] }
}

pub fn integers(values: &[i64]) -> Tensor {
    let dense = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dense: Some(dense), dtype: 2, shape: vec![values.len() as i64] }
}

/// A text, each of whose tokens but the first is a target of weight 1.
pub fn datum(text: &[i32]) -> Datum {
    let targets: Vec<i64> = text[1..].iter().map(|token| i64::from(*token)).collect();
    let weights = vec![1.0; targets.len()];
    let inputs = HashMap::from([
        ("target_tokens".to_owned(), integers(&targets)),
        ("weights".to_owned(), floats(&weights)),
    ]);
    Datum { model_input: vec![chunk(&text[..text.len() - 1])], loss_fn_inputs: inputs }
}

pub fn request(model: &str, seq: i32, data: Vec<Datum>) -> ForwardBackwardRequest {
    ForwardBackwardRequest {
        model_id: model.into(),
        seq_id: seq,
        data,
        loss_fn: "cross_entropy".into(),
        ..ForwardBackwardRequest::default()
    }
}

/// The bytes of a pass over one text.
pub fn cross_entropy(model: &str, seq: i32, text: &[i32], forward_only: bool) -> Vec<u8> {
    let request = ForwardBackwardRequest { forward_only, ..request(model, seq, vec![datum(text)]) };
    request.encode_to_vec()
}

/// The log-probabilities of all datums of an answer, one after the other.
pub fn logprobs(answer: &[u8]) -> Vec<f32> {
    let said = String::from_utf8_lossy(answer).into_owned();
    let output = ForwardBackwardOutput::decode(answer).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(output.loss_fn_output_type, "ArrayRecord", "{said}");
    let mut all = Vec::new();
    for record in &output.loss_fn_outputs {
        let (values, _) = record.fields["logprobs"].data.as_chunks::<4>();
        all.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
    }
    all
}
