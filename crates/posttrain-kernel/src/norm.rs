//! Root-mean-square normalization.

use crate::KernelError;
use crate::layout::{Layout, lying};
use crate::simd::{Kernel, LANES, dispatch, mul_add};
use posttrain_tensor::{Element, TensorError, Values, ValuesMut, check_shape, values, values_mut};
use tch::Tensor;

/// `x / √(mean(x²) + ε) · weight` over the features of each row (Zhang & Sennrich, 2019,
/// <https://arxiv.org/abs/1910.07467>).
///
/// `x: [rows, features]` in either layout, which the result keeps; `weight: [features]` of the same
/// kind, f32 or bf16. Sums are f32; the result is rounded once.
///
/// # Errors
/// [`KernelError`] names the tensor that is not on the CPU, of another kind or shape, or strided.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[3f32, 4.0, 6.0, 8.0]).view([2, 2]);
/// let weight = Tensor::from_slice(&[1f32, 1.0]);
/// let rows = posttrain_kernel::rms_norm(&x, &weight, 0.0)?;
/// let columns = posttrain_kernel::rms_norm(&x.tr().contiguous().tr(), &weight, 0.0)?;
/// assert_eq!(rows, columns);
/// // Both rows point the same way.
/// assert!((rows.double_value(&[0, 0]) - rows.double_value(&[1, 0])).abs() < 1e-6);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, KernelError> {
    let (layout, x) = lying("x", x)?;
    let features = x.size()[usize::from(layout == Layout::Rows)];
    check_shape("weight", weight, &[features])?;

    let mut out = x.f_empty_like()?;
    let eps = eps as f32;
    let features = features as usize;
    match (values("x", &x)?, values("weight", weight)?, values_mut("out", &mut out)?) {
        (Values::F32(x), Values::F32(weight), ValuesMut::F32(out)) => {
            run(layout, x, weight, eps, features, out)
        }
        (Values::Bf16(x), Values::Bf16(weight), ValuesMut::Bf16(out)) => {
            run(layout, x, weight, eps, features, out)
        }
        _ => {
            return Err(TensorError::Kind {
                argument: "weight",
                expected: "the kind of x",
                got: weight.kind(),
            }
            .into());
        }
    }

    layout.matrix(out)
}

fn run<E: Element>(
    layout: Layout,
    x: &[E],
    weight: &[E],
    eps: f32,
    features: usize,
    out: &mut [E],
) {
    match layout {
        Layout::Rows => dispatch(ByRows { x, weight, eps, features, out }),
        Layout::Columns => dispatch(ByColumns { x, weight, eps, features, out }),
    }
}

struct ByRows<'a, E> {
    x: &'a [E],
    weight: &'a [E],
    eps: f32,
    features: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for ByRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let features = self.features.max(1);
        for (x, out) in self.x.chunks_exact(features).zip(self.out.chunks_exact_mut(features)) {
            let scale = 1.0 / (squares::<E, FMA>(x) / features as f32 + self.eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = E::narrow(x.widen() * scale * weight.widen());
            }
        }
    }
}

/// `Σ x²`.
#[inline(always)]
pub(crate) fn squares<E: Element, const FMA: bool>(x: &[E]) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();

    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane].widen();
            sums[lane] = mul_add::<FMA>(x, x, sums[lane]);
        }
    }

    sums.iter().sum::<f32>() + rest.iter().map(|x| x.widen() * x.widen()).sum::<f32>()
}

struct ByColumns<'a, E> {
    x: &'a [E],
    weight: &'a [E],
    eps: f32,
    features: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for ByColumns<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let rows = (self.x.len() / self.features.max(1)).max(1);
        let mut scales = vec![0f32; rows];

        for x in self.x.chunks_exact(rows) {
            for (sum, x) in scales.iter_mut().zip(x) {
                *sum = mul_add::<FMA>(x.widen(), x.widen(), *sum);
            }
        }
        for scale in &mut scales {
            *scale = 1.0 / (*scale / self.features as f32 + self.eps).sqrt();
        }

        for ((x, out), weight) in
            self.x.chunks_exact(rows).zip(self.out.chunks_exact_mut(rows)).zip(self.weight)
        {
            let weight = weight.widen();
            for ((out, x), scale) in out.iter_mut().zip(x).zip(&scales) {
                *out = E::narrow(x.widen() * scale * weight);
            }
        }
    }
}

/// The backward pass of [`rms_norm`], added to the gradient that reaches `x` by another way (its
/// residual stream): `into + r·(w⊙g) − x·r³/F·Σ(w⊙g⊙x)` with `r = 1/√(mean(x²) + ε)`.
///
/// `x`, `gradient` (by the output) and `into`: `[rows, features]`, contiguous, of one kind;
/// `weight: [features]`. Sums are f32; the result, a tensor of its own, is rounded once.
///
/// # Errors
/// As for [`rms_norm`].
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::from_slice(&[3f32, 4.0]).view([1, 2]);
/// let (ones, none) = (Tensor::ones([2], (Kind::Float, Device::Cpu)), x.zeros_like());
/// // The norm does not change along x itself.
/// let gradient = posttrain_kernel::rms_norm_backward(&x, &ones, 0.0, &x, &none)?;
/// assert!(gradient.abs().max().double_value(&[]) < 1e-6);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    gradient: &Tensor,
    into: &Tensor,
) -> Result<Tensor, KernelError> {
    for (argument, tensor) in [("gradient", gradient), ("into", into)] {
        check_shape(argument, tensor, &x.size())?;
    }
    let features = x.size().last().copied().unwrap_or(0);
    check_shape("weight", weight, &[features])?;

    let mut out = x.f_detach()?.f_empty_like()?;
    let all = (
        values("x", x)?,
        values("weight", weight)?,
        values("gradient", gradient)?,
        values("into", into)?,
        values_mut("out", &mut out)?,
    );

    let eps = eps as f32;
    let features = features as usize;
    match all {
        (
            Values::F32(x),
            Values::F32(weight),
            Values::F32(gradient),
            Values::F32(into),
            ValuesMut::F32(out),
        ) => {
            dispatch(Backward { x, weight, gradient, into, eps, features, out });
        }
        (
            Values::Bf16(x),
            Values::Bf16(weight),
            Values::Bf16(gradient),
            Values::Bf16(into),
            ValuesMut::Bf16(out),
        ) => {
            dispatch(Backward { x, weight, gradient, into, eps, features, out });
        }
        _ => {
            return Err(TensorError::Kind {
                argument: "gradient",
                expected: "the kind of x",
                got: gradient.kind(),
            }
            .into());
        }
    }

    Ok(out)
}

struct Backward<'a, E> {
    x: &'a [E],
    weight: &'a [E],
    gradient: &'a [E],
    into: &'a [E],
    eps: f32,
    features: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let features = self.features.max(1);
        let rows = self.x.chunks_exact(features).zip(self.gradient.chunks_exact(features));
        let outs = self.into.chunks_exact(features).zip(self.out.chunks_exact_mut(features));

        for ((x, gradient), (into, out)) in rows.zip(outs) {
            let scale = 1.0 / (squares::<E, FMA>(x) / features as f32 + self.eps).sqrt();
            let along = scale * scale * scale / features as f32
                * weighted::<E, FMA>(x, gradient, self.weight);
            for ((((out, into), x), gradient), weight) in
                out.iter_mut().zip(into).zip(x).zip(gradient).zip(self.weight)
            {
                let across = scale * gradient.widen() * weight.widen();
                *out = E::narrow(into.widen() + across - x.widen() * along);
            }
        }
    }
}

/// `Σ x·g·w`.
#[inline(always)]
pub(crate) fn weighted<E: Element, const FMA: bool>(x: &[E], gradient: &[E], weight: &[E]) -> f32 {
    let mut sums = [0.0; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (g, g_rest) = gradient.as_chunks::<LANES>();
    let (w, w_rest) = weight.as_chunks::<LANES>();

    for ((x, g), w) in x.iter().zip(g).zip(w) {
        for lane in 0..LANES {
            sums[lane] =
                mul_add::<FMA>(x[lane].widen() * g[lane].widen(), w[lane].widen(), sums[lane]);
        }
    }

    let rest = x_rest.iter().zip(g_rest).zip(w_rest);
    sums.iter().sum::<f32>()
        + rest.map(|((x, g), w)| x.widen() * g.widen() * w.widen()).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_layouts_agree_with_libtorch(rows in 1i64..40, features in 1i64..70, seed in 0i64..1000) {
            tch::manual_seed(seed);
            let x = Tensor::randn([rows, features], (Kind::Float, Device::Cpu)) * 3.0;
            let weight = Tensor::randn([features], (Kind::Float, Device::Cpu));
            let expected = x.rms_norm([features], Some(&weight), 1e-5);
            for (kind, bound) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.03)] {
                let (x, weight) = (x.to_kind(kind), weight.to_kind(kind));
                for x in [x.shallow_clone(), x.tr().contiguous().tr()] {
                    let got = rms_norm(&x, &weight, 1e-5).unwrap();
                    prop_assert_eq!((got.size(), got.stride()), (x.size(), x.stride()));
                    let off = (got.to_kind(Kind::Float) - &expected).abs() / (expected.abs() + 1.0);
                    prop_assert!(off.max().double_value(&[]) < bound);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_backward_pass_is_autograds(rows in 1i64..20, features in 1i64..70) {
            let options = (Kind::Float, Device::Cpu);
            let (x, weight) = (Tensor::randn([rows, features], options), Tensor::randn([features], options));
            let (gradient, into) = (Tensor::randn([rows, features], options), Tensor::randn([rows, features], options));
            let leaf = x.detach().set_requires_grad(true);
            (leaf.rms_norm([features], Some(&weight), 1e-5) * &gradient).sum(Kind::Float).backward();
            let expected = leaf.grad() + &into;
            for (kind, bound) in [(Kind::Float, 1e-4), (Kind::BFloat16, 0.1)] {
                let [x, weight, gradient, into] = [&x, &weight, &gradient, &into].map(|t| t.to_kind(kind));
                let got = rms_norm_backward(&x, &weight, 1e-5, &gradient, &into).unwrap().to_kind(Kind::Float);
                let off = (got - &expected).abs() / (expected.abs() + gradient.to_kind(Kind::Float).abs().max() + 1.0);
                prop_assert!(off.max().double_value(&[]) < bound);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let refused =
            |x: &Tensor, weight: &Tensor| rms_norm(x, weight, 0.0).unwrap_err().to_string();
        assert!(
            refused(&x, &Tensor::ones([2], (Kind::Float, Device::Cpu)))
                .starts_with("`weight` has shape [2]")
        );
        assert!(
            refused(&x, &Tensor::ones([3], (Kind::BFloat16, Device::Cpu)))
                .starts_with("`weight` is of kind")
        );
        assert!(refused(&x.to_kind(Kind::Double), &x.get(0)).starts_with("`x` is of kind"));
        let strided = Tensor::ones([2, 6], (Kind::Float, Device::Cpu)).slice(1, 0, 6, 2);
        assert!(refused(&strided, &x.get(0)).starts_with("`x` is not contiguous"));
    }
}
