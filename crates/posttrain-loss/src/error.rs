//! What can go wrong, with the argument, what was expected of it and what came.

use posttrain_kernel::KernelError;
use posttrain_tensor::TensorError;
use tch::TchError;

/// An error of this crate. Nothing has been changed or half-computed when one comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// An argument has the wrong number of elements.
    #[error("`{argument}` has {got} elements, expected {expected}")]
    Length {
        /// The argument.
        argument: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements received.
        got: usize,
    },
    /// A configuration field is out of its range.
    #[error("`{field}` is {got}, expected {expected}")]
    Config {
        /// The field.
        field: &'static str,
        /// The range.
        expected: &'static str,
        /// Value received.
        got: f64,
    },
    /// A value that has to be finite is not.
    #[error("`{argument}`[{index}] is {value}, expected a finite number")]
    NonFinite {
        /// The argument.
        argument: &'static str,
        /// Position in it.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A sum over finite values does not fit into f32.
    #[error("`{argument}`: the values are finite, but too large to be summed and squared in f32")]
    Overflow {
        /// The argument.
        argument: &'static str,
    },
    /// The importance ratio of a token does not fit into f32: the two policies are too far apart
    /// for one.
    #[error(
        "token {index}: the importance ratio overflows, `logprobs` is {logprob} and the log-probability that it was sampled with {sampling}"
    )]
    RatioOverflow {
        /// Position of the token.
        index: usize,
        /// Log-probability under the policy in training, nats.
        logprob: f32,
        /// Log-probability under the policy that sampled, nats.
        sampling: f32,
    },
    /// An argument that the configuration needs was not given.
    #[error("`{argument}` is missing, which {needed_by} needs")]
    Missing {
        /// The argument.
        argument: &'static str,
        /// The setting that needs it.
        needed_by: &'static str,
    },
    /// A sequence that has to be labelled by the sign of its advantage has none.
    #[error(
        "the advantage of sequence {sequence} is {advantage}, expected above 0 of a desirable or below 0 of an undesirable one"
    )]
    Unlabelled {
        /// The sequence.
        sequence: usize,
        /// Its advantage.
        advantage: f32,
    },
    /// A closure of the user's failed.
    #[error("objective `{objective}`: {problem}")]
    Custom {
        /// The objective's name.
        objective: String,
        /// What is wrong with what it did.
        problem: CustomProblem,
    },
    /// A row of logits has no distribution.
    #[error("logits of row {row}: {problem}")]
    Logits {
        /// The row.
        row: usize,
        /// What is wrong with it.
        problem: LogitProblem,
    },
    /// A target token lies outside of the vocabulary.
    #[error("`targets`[{index}] is {token}, expected a token of a vocabulary of {vocab}")]
    Target {
        /// Position of the target.
        index: usize,
        /// The token received.
        token: i64,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {operation} failed")]
    Torch {
        /// What the crate was about to do.
        operation: &'static str,
        /// libtorch's own words.
        #[source]
        source: TchError,
    },
    /// A tensor is not what it should be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A native kernel failed.
    #[error(transparent)]
    Kernel(KernelError),
}

impl From<KernelError> for LossError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Tensor(error) => Self::Tensor(error),
            other => Self::Kernel(other),
        }
    }
}

/// What a closure of the user's did instead of giving a loss.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CustomProblem {
    /// It panicked.
    #[error("panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// Its gradient has the wrong length.
    #[error("the gradient has {got} elements, expected {expected}")]
    GradientLength {
        /// Elements expected.
        expected: usize,
        /// Elements received.
        got: usize,
    },
    /// Its loss is not finite.
    #[error("the loss is {value}, expected a finite number")]
    Loss {
        /// The loss.
        value: f64,
    },
    /// Its gradient is not finite.
    #[error("the gradient at entry {index} is {value}, expected a finite number")]
    Gradient {
        /// The entry, in what the closure was given.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// Why a row of logits has no distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogitProblem {
    /// At least one logit is NaN.
    #[error("a logit is NaN")]
    Nan,
    /// At least one logit is positive infinity.
    #[error("a logit is +inf")]
    PositiveInfinity,
    /// Every logit is negative infinity: there is no token left.
    #[error("every logit is -inf")]
    NoToken,
}

impl LogitProblem {
    /// What a maximum that is not finite says of its row, where NaN wins the maximum.
    pub(crate) fn of_max(max: f32) -> Self {
        if max.is_nan() {
            Self::Nan
        } else if max > 0.0 {
            Self::PositiveInfinity
        } else {
            Self::NoToken
        }
    }
}

/// Names the operation that a libtorch error came from.
pub(crate) trait Operation<T> {
    /// Turns the error into [`LossError::Torch`].
    fn during(self, operation: &'static str) -> Result<T, LossError>;
}

impl<T> Operation<T> for Result<T, TchError> {
    fn during(self, operation: &'static str) -> Result<T, LossError> {
        self.map_err(|source| LossError::Torch { operation, source })
    }
}

/// Checks the number of elements of an argument.
pub(crate) fn check_len(
    argument: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), LossError> {
    if got == expected { Ok(()) } else { Err(LossError::Length { argument, expected, got }) }
}

/// Checks a configuration field.
pub(crate) fn check_field(
    field: &'static str,
    got: f64,
    fits: bool,
    expected: &'static str,
) -> Result<(), LossError> {
    if fits { Ok(()) } else { Err(LossError::Config { field, expected, got }) }
}

/// The first of an entry's values that is not finite, as an error.
pub(crate) fn named_non_finite(index: usize, named: &[(&'static str, f32)]) -> Option<LossError> {
    let bad = named.iter().find(|(_, value)| !value.is_finite());
    bad.map(|(argument, value)| LossError::NonFinite { argument, index, value: *value })
}
