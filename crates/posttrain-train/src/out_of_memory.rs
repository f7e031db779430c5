//! What becomes of a pass that memory does not suffice for.

use crate::TrainError;
use std::error::Error;

/// Runs a pass over micro-batches of `tokens` tokens, and once more with half of them where memory
/// did not suffice. The pass must leave nothing behind when it fails.
pub(crate) fn retried<T>(
    tokens: usize,
    mut pass: impl FnMut(usize) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let first = match pass(tokens) {
        Err(error) if is_out_of_memory(&error) => error,
        other => return other,
    };
    let fewer = (tokens / 2).max(1);
    tracing::warn!(
        "out of memory with micro_batch_tokens = {tokens}: once more with {fewer} ({first})"
    );
    pass(fewer).map_err(
        |error| if is_out_of_memory(&error) { out_of_memory(fewer, &error) } else { error },
    )
}

fn out_of_memory(micro_batch_tokens: usize, error: &TrainError) -> TrainError {
    let reason = missing_memory(error).unwrap_or_default();
    TrainError::OutOfMemory { micro_batch_tokens, reason }
}

fn is_out_of_memory(error: &TrainError) -> bool {
    missing_memory(error).is_some()
}

/// What libtorch says of missing memory, in an error or in what caused it.
fn missing_memory(error: &TrainError) -> Option<String> {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // As CUDA's allocator, the CPU's and a library of CUDA say it.
        if ["out of memory", "can't allocate memory", "_ALLOC_FAILED"]
            .iter()
            .any(|said| text.contains(said))
        {
            // libtorch's message goes on with a trace of its own.
            return text.lines().next().map(str::to_owned);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// More than any machine has.
    fn too_much() -> Result<Tensor, TrainError> {
        Ok(Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu))?)
    }

    #[test]
    fn a_pass_without_memory_is_tried_once_more_with_half() {
        let mut tried = Vec::new();
        let outcome = retried(100, |tokens| {
            tried.push(tokens);
            if tokens > 50 { too_much().map(|_| 0) } else { Ok(tokens) }
        });
        assert_eq!((outcome.unwrap(), tried), (50, vec![100, 50]));
    }

    #[test]
    fn a_second_failure_says_what_to_lower() {
        let error = retried(7, |_| too_much()).unwrap_err();
        assert!(matches!(error, TrainError::OutOfMemory { micro_batch_tokens: 3, .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("micro_batch_tokens") && message.contains("checkpointing"),
            "{message}"
        );
    }

    #[test]
    fn another_failure_is_not_tried_again() {
        let mut tries = 0;
        let outcome = retried(8, |_| -> Result<(), TrainError> {
            tries += 1;
            Err(TrainError::NoGradient)
        });
        assert!(matches!(outcome, Err(TrainError::NoGradient)) && tries == 1);
    }
}
