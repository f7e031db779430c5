//! Products of a frozen weight.

use crate::{KernelError, PackedColumns};
use tch::{Device, Kind, Tensor};

/// Up to so many rows the weight is better on the left. Measured on two cores with bf16 matrix
/// units over the layers of a model of 135M parameters: 128 rows 23 ms instead of 39, 256 rows 38
/// instead of 61, 1,000 rows 179 instead of 195 on two threads and 324 instead of 304 on one.
const FEW_ROWS: i64 = 512;

/// `x·Wᵀ` for `x: [rows, in]` and a frozen `weight: [out, in]`: `[rows, out]` in the kind of `x`.
/// Gradients flow to `x`.
///
/// On the CPU, where `x` needs no gradient and has few rows, the result lies feature by feature
/// (see the crate's documentation): libtorch packs the right-hand matrix of a product anew each
/// time, and that is then `x`, not the weight.
///
/// # Errors
/// [`KernelError::Torch`] if the shapes or kinds do not fit.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).view([1, 2]);
/// let weight = Tensor::eye(2, (Kind::Float, Device::Cpu)) * 3.0;
/// assert_eq!(posttrain_kernel::product(&x, &weight)?, &x * 3.0);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor, KernelError> {
    if columns_pay(x) {
        if weight.is_contiguous()
            && let Some(packed) = PackedColumns::of(x, 0..x.size()[0] as usize)?
        {
            return Ok(packed.product(weight)?.f_transpose(0, 1)?);
        }
        return Ok(weight.f_mm(&x.f_transpose(0, 1)?)?.f_transpose(0, 1)?);
    }

    Ok(x.f_linear(weight, None::<&Tensor>)?)
}

/// Whether a product of `x: [rows, in]` should lie feature by feature.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu));
/// assert!(posttrain_kernel::columns_pay(&x));
/// assert!(!posttrain_kernel::columns_pay(&x.set_requires_grad(true)));
/// ```
#[must_use]
pub fn columns_pay(x: &Tensor) -> bool {
    let plain = matches!(x.kind(), Kind::Float | Kind::BFloat16) && x.dim() == 2;
    x.device() == Device::Cpu && !x.requires_grad() && plain && x.size()[0] <= FEW_ROWS
}

/// `x: [rows, features]` moved into the layout that products of it will have, so that nothing is
/// added across layouts.
///
/// # Errors
/// [`KernelError::Torch`] when memory fails.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = posttrain_kernel::laid_out(Tensor::zeros([4, 2], (Kind::Float, Device::Cpu)))?;
/// assert_eq!(x.stride(), [1, 4]);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn laid_out(x: Tensor) -> Result<Tensor, KernelError> {
    if columns_pay(&x) {
        return Ok(x.f_transpose(0, 1)?.f_contiguous()?.f_transpose(0, 1)?);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_layout_changes_no_number(rows in 1i64..30, from in 1i64..20, to in 1i64..20) {
            let x = Tensor::randn([rows, from], (Kind::Float, Device::Cpu));
            let weight = Tensor::randn([to, from], (Kind::Float, Device::Cpu));
            let expected = x.linear(&weight, None::<&Tensor>);
            for x in [x.shallow_clone(), laid_out(x).unwrap()] {
                let got = product(&x, &weight).unwrap();
                prop_assert_eq!(got.size(), [rows, to]);
                prop_assert!((got - &expected).abs().max().double_value(&[]) < 1e-5);
            }
        }
    }

    #[test]
    fn rows_cut_out_of_columns_are_multiplied_on_every_processor() {
        for kind in [Kind::Float, Kind::BFloat16] {
            // Small integers, which bf16 holds exactly.
            let all = Tensor::arange(24, (kind, Device::Cpu)).view([6, 4]);
            let x = laid_out(all).unwrap().narrow(0, 2, 3);
            assert_eq!(x.stride(), [1, 6]);

            let doubled = product(&x, &(Tensor::eye(4, (kind, Device::Cpu)) * 2.0)).unwrap();
            assert_eq!(doubled, x * 2.0);
        }
    }

    #[test]
    fn what_needs_a_gradient_gets_one() {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        product(&x, &weight).unwrap().sum(Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::ones([2, 3], (Kind::Float, Device::Cpu)) * 4.0);
    }
}
