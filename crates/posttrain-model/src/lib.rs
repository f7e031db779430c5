//! Decoder transformers on libtorch: weights, tokenizer, chat template, device.
//!
//! A [`Checkpoint`] is a folder in the Hugging Face layout or a GGUF file; it gives a [`Decoder`]
//! and a [`TextTokenizer`] with its [`ChatTemplate`]. The decoder's one forward pass serves
//! training, prefill and decoding alike: what differs is where keys and values come from, and that
//! is an [`Attend`]. So sampler and trainer cannot drift apart in code.
//!
//! ```
//! use posttrain_lora::RowAdapters;
//! use posttrain_model::{Decoder, ModelConfig, PackedAttention, Packing, Sequence};
//! use tch::{Device, Kind};
//!
//! // A random model of one layer: the same code as for pretrained weights.
//! let config = ModelConfig { vocab_size: 32, hidden_size: 16, ..ModelConfig::tiny() };
//! let model = Decoder::random(&config, 7, Kind::Float, Device::Cpu)?;
//!
//! // One prompt of three tokens with two completions; the prompt stands once.
//! let packing = Packing::new(&[Sequence { prompt: vec![1, 2, 3], completions: vec![vec![4, 5], vec![6]] }])?;
//! let mut attention = PackedAttention::new(&packing, &model)?;
//! let hidden = model.forward(&packing.input(Device::Cpu)?, &mut attention, &RowAdapters::none())?;
//! assert_eq!(hidden.size(), [6, 16]);
//! # Ok::<(), posttrain_model::ModelError>(())
//! ```

mod attention;
mod attention_graph;
mod block;
mod chat;
mod checkpoint;
mod config;
mod decoder;
mod device;
mod error;
mod experts;
mod export;
mod family;
mod feed_forward;
mod fields;
mod frozen_linear;
#[cfg(feature = "gguf")]
mod gguf;
mod head_norms;
mod linears;
mod model_size;
mod packing;
mod quantized_linear;
mod recording;
mod rope;
mod rope_scaling;
mod routing;
mod tape;
mod text_cache;
mod text_model;
mod thinking;
mod tokenizer;
mod tokenizer_gguf;
mod weights;

pub use attention::{Attend, PackedAttention, Projected, Rotated};
pub use chat::ChatTemplate;
pub use checkpoint::Checkpoint;
pub use config::{Architecture, AttentionBias, ExpertsConfig, ModelConfig};
pub use decoder::{Decoder, Input};
pub use device::{ComputeKind, DeviceChoice, cuda_status, select_device, select_kind};
pub use error::ModelError;
#[cfg(feature = "gguf")]
pub use gguf::GgufFile;
pub use model_size::ModelSize;
pub use packing::{Packing, Sequence};
pub use posttrain_chat::Message;
pub use quantized_linear::Quantize;
pub use recording::{RecordedPass, RecordedToken};
pub use rope::Rotation;
pub use rope_scaling::RopeScaling;
pub use tape::{Keep, Tape};
pub use text_cache::TextCache;
pub use text_model::TextModel;
pub use thinking::{Reply, Start, Thinking, split_thinking};
pub use tokenizer::TextTokenizer;
pub use weights::Weights;
