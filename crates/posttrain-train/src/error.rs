//! What can go wrong in training.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration value is out of its range.
    #[error("config: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field.
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A datum does not fit together, or the model.
    #[error("datum {index}: `{field}`: expected {expected}, got {got}")]
    Datum {
        /// The datum's place in its batch, from 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// The ranks that train together do not come together.
    #[error(transparent)]
    Collective(#[from] posttrain_collective::CollectiveError),
    /// The optimizer refused a step.
    #[error(transparent)]
    Optim(#[from] posttrain_optim::OptimError),
    /// A call panicked.
    #[error("the call panicked: {reason}")]
    Panicked {
        /// What the panic said.
        reason: String,
    },
    /// The training service takes nothing more, or ended before the call's turn came.
    #[error("the training service is closed")]
    ServiceClosed,
    /// As many calls of a trainer wait as its service allows.
    #[error("{queued} calls of this trainer wait already: wait for some of them")]
    QueueFull {
        /// How many.
        queued: usize,
    },
    /// No thread can be had.
    #[error("a thread of the training service cannot be started")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Memory did not suffice for a pass, nor for one of half the size.
    #[error(
        "out of memory with micro-batches of {micro_batch_tokens} tokens ({reason}): lower `trainer.micro_batch_tokens`, set `trainer.checkpointing = \"blocks\"`, lower `lora.rank`, or quantize the base"
    )]
    OutOfMemory {
        /// The budget of the last try.
        micro_batch_tokens: usize,
        /// What the allocator said.
        reason: String,
    },
    /// `optim_step` was called before any `forward_backward`.
    #[error("there is no gradient: `forward_backward` comes before `optim_step`")]
    NoGradient,
    /// A saved state does not fit the trainer.
    #[error("{}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder of the run failed.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// The loss failed.
    #[error(transparent)]
    Loss(#[from] posttrain_loss::LossError),
    /// The adapter failed.
    #[error(transparent)]
    Lora(#[from] posttrain_lora::LoraError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] posttrain_model::ModelError),
    /// A file of tensors failed.
    #[error(transparent)]
    Tensor(#[from] posttrain_tensor::TensorError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
}

impl TrainError {
    /// `Ok` if a configuration value is in its range, else the error that names it.
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: &(impl ToString + ?Sized),
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self::Config { field, expected, got: got.to_string() }) }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
