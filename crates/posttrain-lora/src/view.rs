//! An adapter's pairs in the kind that the base computes in.

use crate::dropout::Dropout;
use crate::{Adapter, LoraError};
use posttrain_tensor::SharedTensor;
use tch::{Kind, Tensor};

/// The pairs of an [`Adapter`] cast to a compute kind, with the scale folded into `B`.
///
/// Trainer and sampler use the same view, so that both round alike. Its size is that of the adapter
/// in that kind.
#[derive(Debug, Clone)]
pub struct AdapterView {
    layers: Vec<Option<ViewLayer>>,
    dropout: Option<Dropout>,
}

#[derive(Debug, Clone)]
pub(crate) struct ViewLayer {
    /// `A: [R, in]`.
    pub a: SharedTensor,
    /// `s·B: [out, R]`.
    pub b: SharedTensor,
    /// Where `a` lies among its neighbors' in a snapshot.
    stack: Option<Stack>,
}

/// The `A`s of neighboring layers that read equally many features, one below the other: `[ΣR, in]`.
#[derive(Debug, Clone)]
struct Stack {
    rows: SharedTensor,
    start: i64,
}

impl AdapterView {
    pub(crate) fn of(adapter: &Adapter, kind: Kind) -> Result<Self, LoraError> {
        let mut layers = Vec::with_capacity(adapter.modules().len());
        for index in 0..adapter.modules().len() {
            layers.push(
                adapter
                    .pair(index)
                    .map(|p| ViewLayer::cast(&p.a, &p.b, p.scale, kind))
                    .transpose()?,
            );
        }
        Ok(Self { layers, dropout: None })
    }

    /// The same view with LoRA's dropout on the inputs of `A`, its masks drawn from `seed`. With
    /// probability 0 nothing is dropped.
    #[must_use]
    pub fn with_dropout(mut self, probability: f64, seed: u64) -> Self {
        self.dropout = (probability > 0.0).then(|| Dropout::new(probability, seed));
        self
    }

    /// `A: [R, in]` and `s·B: [out, R]` of module `index`, if it is adapted.
    #[must_use]
    pub fn pair(&self, index: usize) -> Option<(&Tensor, &Tensor)> {
        self.layer(index).map(|layer| (&*layer.a, &*layer.b))
    }

    pub(crate) fn layer(&self, index: usize) -> Option<&ViewLayer> {
        self.layers.get(index).and_then(Option::as_ref)
    }

    /// The `A`s of several layers as one matrix, where they lie below each other in memory: for
    /// layers that share an input one product then does for all.
    pub(crate) fn stacked(&self, indices: impl Iterator<Item = usize>) -> Option<Tensor> {
        let layers: Option<Vec<&ViewLayer>> = indices.map(|index| self.layer(index)).collect();
        let layers = layers?;
        let first = layers.first()?.stack.as_ref()?;

        let mut end = first.start;
        for layer in layers {
            let stack = layer.stack.as_ref()?;
            if stack.rows.data_ptr() != first.rows.data_ptr() || stack.start != end {
                return None;
            }
            end += layer.a.size()[0];
        }

        first.rows.f_narrow(0, first.start, end - first.start).ok()
    }

    /// Whether gradients or dropout are wanted: a snapshot needs neither.
    pub(crate) fn trains(&self) -> bool {
        self.dropout.is_some() || self.layers.iter().flatten().any(|layer| layer.a.requires_grad())
    }

    /// Whether anything is dropped.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.dropout.is_some()
    }

    /// `x` with dropout applied, for layer `index`.
    pub(crate) fn dropped(&self, x: &Tensor, index: usize) -> Result<Tensor, LoraError> {
        match &self.dropout {
            Some(dropout) => dropout.apply(x, index),
            None => Ok(x.shallow_clone()),
        }
    }

    pub(crate) fn detached_copy(&self) -> Result<Self, LoraError> {
        let _guard = tch::no_grad_guard();
        let mut layers: Vec<Option<ViewLayer>> = Vec::with_capacity(self.layers.len());
        for run in self.layers.chunk_by(|one, next| same_input(one.as_ref(), next.as_ref())) {
            let adapted: Vec<&ViewLayer> = run.iter().flatten().collect();
            if adapted.is_empty() {
                layers.extend(run.iter().map(|_| None));
                continue;
            }

            let rows = SharedTensor::new(Tensor::f_cat(
                &adapted.iter().map(|l| &*l.a).collect::<Vec<_>>(),
                0,
            )?);
            let mut start = 0;
            for layer in adapted {
                let rank = layer.a.size()[0];
                let a = rows.f_narrow(0, start, rank)?.into();
                let b = copy(&layer.b)?.into();
                let stack = Some(Stack { rows: rows.clone(), start });
                layers.push(Some(ViewLayer { a, b, stack }));
                start += rank;
            }
        }
        Ok(Self { layers, dropout: None })
    }
}

/// Whether two neighboring layers' `A`s can lie in one matrix; layers without an adapter lie by
/// themselves.
fn same_input(one: Option<&ViewLayer>, next: Option<&ViewLayer>) -> bool {
    match (one, next) {
        (Some(one), Some(next)) => one.a.size()[1] == next.a.size()[1],
        (None, None) => true,
        _ => false,
    }
}

impl ViewLayer {
    fn cast(a: &Tensor, b: &Tensor, scale: f64, kind: Kind) -> Result<Self, LoraError> {
        let scaled = b.f_mul_scalar(scale)?;
        Ok(Self { a: a.f_to_kind(kind)?.into(), b: scaled.f_to_kind(kind)?.into(), stack: None })
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor, LoraError> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}
