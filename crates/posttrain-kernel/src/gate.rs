//! The gate of a feed-forward layer.

use crate::KernelError;
use crate::layout::{Layout, lying};
use crate::simd::{Kernel, dispatch, exp};
use posttrain_tensor::{Element, TensorError, Values, ValuesMut, values, values_mut};
use tch::Tensor;

/// `silu(gate) · up`, `silu(g) = g / (1 + e^−g)` (SwiGLU: Shazeer, 2020,
/// <https://arxiv.org/abs/2002.05202>).
///
/// `gate_up: [rows, 2·features]`, f32 or bf16, in either layout, the gates before the ups. Gives
/// `[rows, features]` in the same layout and kind, rounded once.
///
/// # Errors
/// [`KernelError`] if the tensor is not on the CPU, of another kind or shape, or strided.
///
/// ```
/// use tch::Tensor;
///
/// let gate_up = Tensor::from_slice(&[0f32, 20.0, 5.0, 3.0]).view([1, 4]);
/// let gated = posttrain_kernel::swiglu(&gate_up)?;
/// assert_eq!(gated.double_value(&[0, 0]), 0.0); // silu(0) = 0
/// assert!((gated.double_value(&[0, 1]) - 60.0).abs() < 1e-4); // silu(20) = 20
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor, KernelError> {
    let (layout, lying) = lying("gate_up", gate_up)?;
    let (rows, both) = gate_up.size2()?;
    if both % 2 != 0 {
        return Err(TensorError::Shape {
            argument: "gate_up",
            expected: vec![rows, both + 1],
            got: gate_up.size(),
        }
        .into());
    }

    let options = (gate_up.kind(), gate_up.device());
    let (shape, run) = match layout {
        Layout::Rows => ([rows, both / 2], both as usize),
        Layout::Columns => ([both / 2, rows], (both * rows) as usize),
    };

    let mut out = Tensor::f_empty(shape, options)?;
    match (values("gate_up", &lying)?, values_mut("out", &mut out)?) {
        (Values::F32(x), ValuesMut::F32(out)) => dispatch(Gate { x, run: run.max(2), out }),
        (Values::Bf16(x), ValuesMut::Bf16(out)) => dispatch(Gate { x, run: run.max(2), out }),
        _ => unreachable!("the result was made of the argument's kind"),
    }

    layout.matrix(out)
}

/// Runs of `run` numbers, each half gates and half ups.
struct Gate<'a, E> {
    x: &'a [E],
    run: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for Gate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let half = self.run / 2;
        for (x, out) in self.x.chunks_exact(self.run).zip(self.out.chunks_exact_mut(half)) {
            let (gates, ups) = x.split_at(half);
            for ((out, gate), up) in out.iter_mut().zip(gates).zip(ups) {
                let gate = gate.widen();
                *out = E::narrow(gate / (1.0 + exp::<FMA>(-gate)) * up.widen());
            }
        }
    }
}

/// The backward pass of [`swiglu`]: `gradient·up·σ(g)·(1 + g·(1 − σ(g)))` by the gates,
/// `gradient·silu(g)` by the ups.
///
/// `gate_up: [rows, 2·features]` and `gradient: [rows, features]` (by the output), contiguous, of
/// one kind. Gives `[rows, 2·features]`.
///
/// # Errors
/// As for [`swiglu`].
///
/// ```
/// use tch::Tensor;
///
/// let gate_up = Tensor::from_slice(&[0f32, 3.0]).view([1, 2]);
/// let gradient = posttrain_kernel::swiglu_backward(&gate_up, &Tensor::from_slice(&[1f32]).view([1, 1]))?;
/// assert_eq!(Vec::<f32>::try_from(gradient.view([-1])).unwrap(), [1.5, 0.0]); // 3·σ(0), silu(0)
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn swiglu_backward(gate_up: &Tensor, gradient: &Tensor) -> Result<Tensor, KernelError> {
    let (rows, both) = gate_up.size2()?;
    if gradient.size() != [rows, both / 2] || both % 2 != 0 {
        return Err(TensorError::Shape {
            argument: "gradient",
            expected: vec![rows, both / 2],
            got: gradient.size(),
        }
        .into());
    }

    let mut out = gate_up.f_detach()?.f_empty_like()?;
    let run = (both as usize).max(2);
    match (values("gate_up", gate_up)?, values("gradient", gradient)?, values_mut("out", &mut out)?)
    {
        (Values::F32(x), Values::F32(gradient), ValuesMut::F32(out)) => {
            dispatch(GateBackward { x, gradient, run, out })
        }
        (Values::Bf16(x), Values::Bf16(gradient), ValuesMut::Bf16(out)) => {
            dispatch(GateBackward { x, gradient, run, out });
        }
        _ => {
            return Err(TensorError::Kind {
                argument: "gradient",
                expected: "the kind of gate_up",
                got: gradient.kind(),
            }
            .into());
        }
    }

    Ok(out)
}

struct GateBackward<'a, E> {
    x: &'a [E],
    gradient: &'a [E],
    run: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for GateBackward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let half = self.run / 2;
        let rows = self.x.chunks_exact(self.run).zip(self.gradient.chunks_exact(half));
        for ((x, gradient), out) in rows.zip(self.out.chunks_exact_mut(self.run)) {
            let (gates, ups) = x.split_at(half);
            let (by_gates, by_ups) = out.split_at_mut(half);
            let outs = by_gates.iter_mut().zip(by_ups);
            for (((by_gate, by_up), gradient), (gate, up)) in
                outs.zip(gradient).zip(gates.iter().zip(ups))
            {
                let (gate, up, gradient) = (gate.widen(), up.widen(), gradient.widen());
                let sigma = 1.0 / (1.0 + exp::<FMA>(-gate));
                *by_gate = E::narrow(gradient * up * sigma * (1.0 + gate * (1.0 - sigma)));
                *by_up = E::narrow(gradient * gate * sigma);
            }
        }
    }
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
            let x = Tensor::randn([rows, 2 * features], (Kind::Float, Device::Cpu)) * 4.0;
            let halves = x.chunk(2, -1);
            let expected = halves[0].silu() * &halves[1];
            for (kind, bound) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.03)] {
                let x = x.to_kind(kind);
                for x in [x.shallow_clone(), x.tr().contiguous().tr()] {
                    let got = swiglu(&x).unwrap();
                    prop_assert_eq!(got.size(), [rows, features]);
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
            let x = Tensor::randn([rows, 2 * features], options) * 3.0;
            let gradient = Tensor::randn([rows, features], options);
            let leaf = x.detach().set_requires_grad(true);
            let halves = leaf.chunk(2, -1);
            (halves[0].silu() * &halves[1] * &gradient).sum(Kind::Float).backward();
            for (kind, bound) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.05)] {
                let got = swiglu_backward(&x.to_kind(kind), &gradient.to_kind(kind)).unwrap().to_kind(Kind::Float);
                let off = (got - leaf.grad()).abs() / (leaf.grad().abs() + 1.0);
                prop_assert!(off.max().double_value(&[]) < bound);
            }
        }
    }

    #[test]
    fn an_odd_number_of_features_is_refused() {
        let odd = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        assert!(matches!(
            swiglu(&odd),
            Err(KernelError::Tensor(TensorError::Shape { argument: "gate_up", .. }))
        ));
    }
}
