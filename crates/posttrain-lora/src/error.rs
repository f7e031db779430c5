//! What can go wrong with an adapter, its configuration or its files.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// A configuration value is out of its range.
    #[error("LoRA config: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field of [`crate::LoraConfig`].
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A target names no linear layer of the model.
    #[error(
        "LoRA config: target module `{target}` matches no linear layer of the model; there are, for instance, {known}"
    )]
    UnknownTarget {
        /// The target as written.
        target: String,
        /// Some names that would match.
        known: String,
    },
    /// An argument has the wrong shape.
    #[error("`{argument}`: expected shape {expected}, got {got:?}")]
    Shape {
        /// The argument or tensor.
        argument: String,
        /// The shape that was expected, with its dimensions' names.
        expected: String,
        /// The shape that came.
        got: Vec<i64>,
    },
    /// A name is not in the bank.
    #[error("no adapter named `{name}` in the bank; there are: {known}")]
    UnknownAdapter {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// After a backward pass some adapter tensors have no gradient: the adapter would train nothing.
    #[error("no gradient reached {count} of {total} adapter layers, the first being `{first}`: they would not train")]
    NoGradient {
        /// Layers whose `B` has no gradient or an all-zero one.
        count: usize,
        /// Adapted layers in total.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// A PEFT file lacks a tensor that its configuration promises.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        name: String,
    },
    /// A PEFT file holds a tensor that no layer of the model takes up.
    #[error("{path}: tensor `{name}` matches no layer of the model that the adapter targets")]
    UnmatchedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        name: String,
    },
    /// A tensor in a file has a shape or kind that the model does not.
    #[error("{path}: tensor `{name}`: expected {expected}, got {got}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        name: String,
        /// Shape or kind that was expected.
        expected: String,
        /// Shape or kind that came.
        got: String,
    },
    /// `adapter_config.json` uses something that this crate does not do.
    #[error("{path}: `{field}` = {got} is not supported (expected {expected})")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What would be.
        expected: &'static str,
        /// What it holds.
        got: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not the safetensors that it should be.
    #[error("{path}: not a readable safetensors file: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A native kernel refused a tensor.
    #[error(transparent)]
    Kernel(#[from] posttrain_kernel::KernelError),
}
