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
    /// After a backward pass some adapter tensors have no gradient: the adapter would train
    /// nothing.
    #[error(
        "no gradient reached {count} of {total} adapter layers, the first being `{first}`: they would not train"
    )]
    NoGradient {
        /// Layers whose `B` has no gradient or an all-zero one.
        count: usize,
        /// Adapted layers in total.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// A PEFT file holds a tensor that no layer of the model takes up.
    #[error("{path}: tensor `{name}` matches no layer of the model that the adapter targets")]
    UnmatchedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        name: String,
    },
    /// A PEFT file holds a weight of the base that is not the model's.
    #[error(
        "{path}: `{name}` is not the model's own: {differing} of its values differ; the adapter belongs to another base"
    )]
    OtherBase {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        name: String,
        /// Values that differ; all of them where the shape does.
        differing: usize,
    },
    /// A regular expression of `adapter_config.json` takes too long to match.
    #[error("the pattern `{pattern}` cannot be matched")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The engine's answer.
        source: Box<fancy_regex::Error>,
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
    /// A file or folder could not be read or made.
    #[error("cannot read or make {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{path}: not the JSON of an adapter's configuration")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer, with line and column.
        source: serde_json::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// A tensor, or a file of tensors, is not what it should be.
    #[error(transparent)]
    Tensor(#[from] posttrain_tensor::TensorError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
    /// A native kernel refused a tensor.
    #[error(transparent)]
    Kernel(#[from] posttrain_kernel::KernelError),
}

impl LoraError {
    /// Names a pattern that could not be matched.
    pub(crate) fn pattern(pattern: &str) -> impl FnOnce(fancy_regex::Error) -> Self {
        let pattern = pattern.to_owned();
        |source| Self::Pattern { pattern, source: Box::new(source) }
    }
}
