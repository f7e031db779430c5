//! Root-mean-square normalization of every query and key head.

use crate::KernelError;
use crate::attention::Heads;
use crate::layout::{Layout, lying};
use crate::norm::{squares, weighted};
use crate::simd::{Kernel, dispatch, mul_add};
use posttrain_tensor::{Element, TensorError, Values, ValuesMut, check_shape, values, values_mut};
use tch::Tensor;

/// The norms that some decoders (Qwen3) put between the projections and the rotary positions: each
/// query head by one weight, each key head by another, values left alone.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    /// How many heads of which width.
    pub heads: Heads,
    /// `[d]`: the weight of every query head.
    pub query: &'a Tensor,
    /// `[d]`: the weight of every key head.
    pub key: &'a Tensor,
    /// ε.
    pub eps: f64,
}

impl HeadNorms<'_> {
    /// `qkv: [rows, (query + 2·key_value)·d]` with its query and key heads normed, in the layout of
    /// `qkv`, which is f32 or bf16 as the weights are.
    ///
    /// # Errors
    /// [`KernelError`] names the tensor that does not fit.
    ///
    /// ```
    /// use posttrain_kernel::{HeadNorms, Heads};
    /// use tch::Tensor;
    ///
    /// let heads = Heads { query: 1, key_value: 1, width: 2 };
    /// let (query, key) = (Tensor::from_slice(&[1f32, 1.0]), Tensor::from_slice(&[2f32, 2.0]));
    /// let norms = HeadNorms { heads, query: &query, key: &key, eps: 0.0 };
    /// let qkv = Tensor::from_slice(&[3f32, 3.0, 5.0, 5.0, 7.0, 8.0]).view([1, 6]);
    /// assert_eq!(Vec::<f32>::try_from(norms.forward(&qkv)?.view([-1])).unwrap(), [1.0, 1.0, 2.0, 2.0, 7.0, 8.0]);
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn forward(&self, qkv: &Tensor) -> Result<Tensor, KernelError> {
        let (layout, qkv) = lying("qkv", qkv)?;
        self.check(qkv.size()[usize::from(layout == Layout::Rows)], &qkv)?;

        let mut out = qkv.f_empty_like()?;
        let weights = (values("query", self.query)?, values("key", self.key)?);
        match (values("qkv", &qkv)?, weights, values_mut("out", &mut out)?) {
            (Values::F32(qkv), (Values::F32(query), Values::F32(key)), ValuesMut::F32(out)) => {
                self.run(layout, qkv, [query, key], out);
            }
            (Values::Bf16(qkv), (Values::Bf16(query), Values::Bf16(key)), ValuesMut::Bf16(out)) => {
                self.run(layout, qkv, [query, key], out);
            }
            _ => return Err(self.kind_error()),
        }

        layout.matrix(out)
    }

    /// The gradient by `qkv` from that by what [`HeadNorms::forward`] gave; both row by row and of
    /// one kind.
    ///
    /// # Errors
    /// [`KernelError`] names the tensor that does not fit.
    ///
    /// ```
    /// use posttrain_kernel::{HeadNorms, Heads};
    /// use tch::{Device, Kind, Tensor};
    ///
    /// let ones = Tensor::ones([2], (Kind::Float, Device::Cpu));
    /// let heads = Heads { query: 1, key_value: 1, width: 2 };
    /// let norms = HeadNorms { heads, query: &ones, key: &ones, eps: 0.0 };
    /// let qkv = Tensor::from_slice(&[3f32, 4.0, 5.0, 12.0, 7.0, 8.0]).view([1, 6]);
    /// // No norm changes along its own input; values come through.
    /// let gradient = norms.backward(&qkv, &qkv)?;
    /// assert!(gradient.narrow(1, 0, 4).abs().max().double_value(&[]) < 1e-6);
    /// assert_eq!(gradient.double_value(&[0, 5]), 8.0);
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn backward(&self, qkv: &Tensor, gradient: &Tensor) -> Result<Tensor, KernelError> {
        if qkv.dim() != 2 || gradient.size() != qkv.size() {
            return Err(TensorError::Shape {
                argument: "gradient",
                expected: qkv.size(),
                got: gradient.size(),
            }
            .into());
        }
        self.check(qkv.size()[1], qkv)?;

        let mut out = qkv.f_detach()?.f_empty_like()?;
        let weights = (values("query", self.query)?, values("key", self.key)?);
        match (
            values("qkv", qkv)?,
            weights,
            values("gradient", gradient)?,
            values_mut("out", &mut out)?,
        ) {
            (
                Values::F32(x),
                (Values::F32(query), Values::F32(key)),
                Values::F32(gradient),
                ValuesMut::F32(out),
            ) => {
                let norms = Norms::of(self, [query, key]);
                dispatch(Backward { norms, x, gradient, out });
            }
            (
                Values::Bf16(x),
                (Values::Bf16(query), Values::Bf16(key)),
                Values::Bf16(gradient),
                ValuesMut::Bf16(out),
            ) => {
                let norms = Norms::of(self, [query, key]);
                dispatch(Backward { norms, x, gradient, out });
            }
            _ => return Err(self.kind_error()),
        }

        Ok(out)
    }

    fn run<E: Element>(&self, layout: Layout, x: &[E], weights: [&[E]; 2], out: &mut [E]) {
        let norms = Norms::of(self, weights);
        match layout {
            Layout::Rows => dispatch(ByRows { norms, x, out }),
            Layout::Columns => dispatch(ByColumns { norms, x, out }),
        }
    }

    fn check(&self, features: i64, qkv: &Tensor) -> Result<(), KernelError> {
        let width = self.heads.width as i64;
        let expected = self.heads.checked_features()?;
        if features != expected {
            return Err(TensorError::Shape {
                argument: "qkv",
                expected: vec![-1, expected],
                got: vec![qkv.numel() as i64 / features.max(1), features],
            }
            .into());
        }

        for (argument, weight) in [("query", self.query), ("key", self.key)] {
            check_shape(argument, weight, &[width])?;
        }
        Ok(())
    }

    fn kind_error(&self) -> KernelError {
        TensorError::Kind {
            argument: "query",
            expected: "the kind of qkv, as `key`",
            got: self.query.kind(),
        }
        .into()
    }
}

#[derive(Clone, Copy)]
struct Norms<'a, E> {
    heads: Heads,
    weights: [&'a [E]; 2],
    eps: f32,
}

impl<'a, E> Norms<'a, E> {
    fn of(norms: &HeadNorms, weights: [&'a [E]; 2]) -> Self {
        Self { heads: norms.heads, weights, eps: norms.eps as f32 }
    }

    /// The weight of a head, or nothing for a value's.
    #[inline(always)]
    fn weight(&self, head: usize) -> Option<&'a [E]> {
        let Heads { query, key_value, .. } = self.heads;
        if head < query {
            Some(self.weights[0])
        } else if head < query + key_value {
            Some(self.weights[1])
        } else {
            None
        }
    }

    fn count(&self) -> usize {
        self.heads.query + 2 * self.heads.key_value
    }
}

struct ByRows<'a, E> {
    norms: Norms<'a, E>,
    x: &'a [E],
    out: &'a mut [E],
}

impl<E: Element> Kernel for ByRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.norms.heads.width;
        let count = self.norms.count();
        let heads = self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width));

        for (index, (x, out)) in heads.enumerate() {
            let Some(weight) = self.norms.weight(index % count) else {
                out.copy_from_slice(x);
                continue;
            };

            let scale = 1.0 / (squares::<E, FMA>(x) / width as f32 + self.norms.eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = E::narrow(x.widen() * scale * weight.widen());
            }
        }
    }
}

struct ByColumns<'a, E> {
    norms: Norms<'a, E>,
    x: &'a [E],
    out: &'a mut [E],
}

impl<E: Element> Kernel for ByColumns<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.norms.heads.width;
        let count = self.norms.count();
        let rows = (self.x.len() / (width * count)).max(1);
        let heads = self.x.chunks_exact(width * rows).zip(self.out.chunks_exact_mut(width * rows));
        let mut scales = vec![0f32; rows];

        for (index, (x, out)) in heads.enumerate() {
            let Some(weight) = self.norms.weight(index) else {
                out.copy_from_slice(x);
                continue;
            };

            scales.fill(0.0);
            for x in x.chunks_exact(rows) {
                for (sum, x) in scales.iter_mut().zip(x) {
                    *sum = mul_add::<FMA>(x.widen(), x.widen(), *sum);
                }
            }
            for scale in &mut scales {
                *scale = 1.0 / (*scale / width as f32 + self.norms.eps).sqrt();
            }

            for ((x, out), weight) in
                x.chunks_exact(rows).zip(out.chunks_exact_mut(rows)).zip(weight)
            {
                let weight = weight.widen();
                for ((out, x), scale) in out.iter_mut().zip(x).zip(&scales) {
                    *out = E::narrow(x.widen() * scale * weight);
                }
            }
        }
    }
}

struct Backward<'a, E> {
    norms: Norms<'a, E>,
    x: &'a [E],
    gradient: &'a [E],
    out: &'a mut [E],
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.norms.heads.width;
        let count = self.norms.count();
        let heads = self.x.chunks_exact(width).zip(self.gradient.chunks_exact(width));

        for (index, ((x, gradient), out)) in heads.zip(self.out.chunks_exact_mut(width)).enumerate()
        {
            let Some(weight) = self.norms.weight(index % count) else {
                out.copy_from_slice(gradient);
                continue;
            };

            let scale = 1.0 / (squares::<E, FMA>(x) / width as f32 + self.norms.eps).sqrt();
            let along =
                scale * scale * scale / width as f32 * weighted::<E, FMA>(x, gradient, weight);
            for (((out, x), gradient), weight) in out.iter_mut().zip(x).zip(gradient).zip(weight) {
                *out = E::narrow(scale * gradient.widen() * weight.widen() - x.widen() * along);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    const EPS: f64 = 1e-5;

    fn by_libtorch(qkv: &Tensor, heads: Heads, weights: [&Tensor; 2]) -> Tensor {
        let Heads { query, key_value, width } = heads;
        let sizes = [query, key_value, key_value].map(|n| n as i64);
        let parts = qkv.reshape([-1, sizes.iter().sum(), width as i64]).split_with_sizes(sizes, 1);
        let norm = |x: &Tensor, weight: &Tensor| x.rms_norm([width as i64], Some(weight), EPS);
        let normed =
            [norm(&parts[0], weights[0]), norm(&parts[1], weights[1]), parts[2].shallow_clone()];
        Tensor::cat(&normed, 1).flatten(1, 2)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn both_layouts_and_the_way_back_agree_with_libtorch(
            rows in 1i64..20, key_value in 1usize..3, share in 1usize..4, half in 1usize..12,
        ) {
            let heads = Heads { query: key_value * share, key_value, width: 2 * half };
            let features = ((heads.query + 2 * key_value) * heads.width) as i64;
            let options = (Kind::Float, Device::Cpu);
            let weight = || Tensor::randn([heads.width as i64], options);
            let (query, key) = (weight(), weight());
            let (qkv, gradient) = (Tensor::randn([rows, features], options), Tensor::randn([rows, features], options));
            let leaf = qkv.detach().set_requires_grad(true);
            let expected = by_libtorch(&leaf, heads, [&query, &key]);
            (&expected * &gradient).sum(Kind::Float).backward();
            for (kind, bound) in [(Kind::Float, 1e-4), (Kind::BFloat16, 0.1)] {
                let [query, key, qkv, gradient] = [&query, &key, &qkv, &gradient].map(|t| t.to_kind(kind));
                let norms = HeadNorms { heads, query: &query, key: &key, eps: EPS };
                let off = |got: Tensor, expected: &Tensor| {
                    let off = (got.to_kind(Kind::Float) - expected).abs() / (expected.abs() + 1.0);
                    off.max().double_value(&[])
                };
                for qkv in [qkv.shallow_clone(), qkv.tr().contiguous().tr()] {
                    let got = norms.forward(&qkv).unwrap();
                    prop_assert_eq!(got.stride(), qkv.stride());
                    prop_assert!(off(got, &expected.detach()) < bound);
                }
                if kind == Kind::Float {
                    let got = norms.backward(&qkv, &gradient).unwrap();
                    let scale = 1.0 + leaf.grad().abs().max().double_value(&[]);
                    prop_assert!((got - leaf.grad()).abs().max().double_value(&[]) < 1e-4 * scale);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let ones = |n: i64, kind| Tensor::ones([n], (kind, Device::Cpu));
        let heads = Heads { query: 1, key_value: 1, width: 2 };
        let qkv = Tensor::ones([2, 6], (Kind::Float, Device::Cpu));
        let refused = |query: Tensor, qkv: &Tensor| {
            let key = ones(2, Kind::Float);
            HeadNorms { heads, query: &query, key: &key, eps: 0.0 }
                .forward(qkv)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(ones(3, Kind::Float), &qkv).starts_with("`query` has shape [3]"));
        assert!(refused(ones(2, Kind::BFloat16), &qkv).starts_with("`query` is of kind"));
        assert!(
            refused(ones(2, Kind::Float), &qkv.narrow(1, 0, 4).contiguous())
                .starts_with("`qkv` has shape [2, 4]")
        );
    }
}
