//! Checks of shapes that name the argument.

use crate::TensorError;
use tch::Tensor;

/// Checks the sizes of a tensor; -1 stands for any.
///
/// # Errors
/// [`TensorError::Shape`] with the argument's name, what was expected and what came.
///
/// ```
/// use posttrain_tensor::check_shape;
///
/// let hidden = tch::Tensor::from_slice(&[1f32; 6]).view([2, 3]);
/// check_shape("hidden", &hidden, &[-1, 3])?;
/// let error = check_shape("hidden", &hidden, &[-1, 4]).unwrap_err();
/// assert_eq!(error.to_string(), "`hidden` has shape [2, 3], expected [-1, 4]");
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn check_shape(
    argument: &'static str,
    tensor: &Tensor,
    expected: &[i64],
) -> Result<(), TensorError> {
    let got = tensor.size();
    let fits = got.len() == expected.len()
        && got.iter().zip(expected).all(|(got, e)| *e == -1 || got == e);
    if fits {
        Ok(())
    } else {
        Err(TensorError::Shape { argument, expected: expected.to_vec(), got })
    }
}
