//! What can go wrong with a model, its files or its input.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file or folder could not be read.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A folder lacks a file that a model needs.
    #[error("{path}: no {expected} there")]
    MissingFile {
        /// The folder.
        path: PathBuf,
        /// The file that was looked for.
        expected: &'static str,
    },
    /// A file is not in the format that its name says.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A pickle holds code as well as numbers, and is never opened.
    #[error(
        "{path}: pickled weights can run code when they are opened; convert them to safetensors"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A field of a configuration is missing or has a value that is not supported.
    #[error("{path}: `{field}` must be {expected}, got {got}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A weight that the architecture needs is not there.
    #[error("{path}: weight `{name}` is missing (expected shape {expected:?})")]
    MissingWeight {
        /// The file or folder.
        path: PathBuf,
        /// The weight's name in the Hugging Face layout.
        name: String,
        /// The shape that it must have.
        expected: Vec<i64>,
    },
    /// A weight has another shape than the configuration says.
    #[error("{path}: weight `{name}`: expected shape {expected:?}, got {got:?}")]
    WeightShape {
        /// The file or folder.
        path: PathBuf,
        /// The weight's name.
        name: String,
        /// The shape that it must have.
        expected: Vec<i64>,
        /// The shape that it has.
        got: Vec<i64>,
    },
    /// A weight is stored as whole numbers, which nothing here knows the scale of.
    #[error("{path}: weight `{name}`: expected f32, bf16, f16 or f64, got {got:?}")]
    WeightKind {
        /// The file or folder.
        path: PathBuf,
        /// The weight's name.
        name: String,
        /// The kind that it is stored in.
        got: tch::Kind,
    },
    /// Weights that the architecture has no use for: the model would not be the one that was
    /// trained.
    #[error(
        "{path}: {count} weights that this architecture does not have, the first being `{first}`"
    )]
    ExtraWeights {
        /// The file or folder.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first of them, by name.
        first: String,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// Its answer.
        reason: String,
    },
    /// The tokenizer and the embedding are of different models.
    #[error("{path}: the tokenizer has token ids up to {highest}, the embedding only {rows} rows")]
    VocabularyMismatch {
        /// The tokenizer's file.
        path: PathBuf,
        /// The highest id of the tokenizer.
        highest: u32,
        /// Rows of the embedding.
        rows: i64,
    },
    /// The chat template failed on these messages, or is broken.
    #[error("the chat template failed")]
    Template {
        /// The template engine's answer, with the line.
        #[source]
        source: minijinja::Error,
    },
    /// The chat template writes an assistant's message otherwise than it was given, or not once.
    #[error("the chat template does not write an answer as it was given, so nothing can follow it")]
    Answer,
    /// The checkpoint carries no chat template.
    #[error(
        "{path}: no chat template (`chat_template` in tokenizer_config.json, or chat_template.jinja)"
    )]
    NoTemplate {
        /// The checkpoint.
        path: PathBuf,
    },
    /// An argument has the wrong shape or value.
    #[error("`{argument}`: expected {expected}, got {got}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// A device was asked for that is not there.
    #[error("device `{asked}` is not available: {reason}")]
    Device {
        /// The device asked for.
        asked: String,
        /// Why it is not available.
        reason: String,
    },
    /// An adapter failed.
    #[error(transparent)]
    Lora(#[from] posttrain_lora::LoraError),
    /// A native kernel was given what it does not take.
    #[error(transparent)]
    Kernel(#[from] posttrain_kernel::KernelError),
    /// A tensor, or a file of tensors, is not what it should be.
    #[error(transparent)]
    Tensor(#[from] posttrain_tensor::TensorError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
}
