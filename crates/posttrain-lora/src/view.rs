//! An adapter's pairs in the kind that the base computes in.

use crate::dropout::Dropout;
use crate::{Adapter, LoraError};
use tch::{Kind, Tensor};

/// The pairs of an [`Adapter`] cast to a compute kind, with the scale folded into `B`.
///
/// Trainer and sampler use the same view, so that both round alike. Its size is that of the adapter in that kind.
#[derive(Debug)]
pub struct AdapterView {
    layers: Vec<Option<ViewLayer>>,
    dropout: Option<Dropout>,
}

#[derive(Debug)]
pub(crate) struct ViewLayer {
    /// `A: [R, in]`.
    pub a: Tensor,
    /// `s·B: [out, R]`.
    pub b: Tensor,
}

impl AdapterView {
    pub(crate) fn of(adapter: &Adapter, kind: Kind) -> Result<Self, LoraError> {
        let mut layers = Vec::with_capacity(adapter.modules().len());
        for index in 0..adapter.modules().len() {
            layers.push(adapter.pair(index).map(|p| ViewLayer::cast(&p.a, &p.b, p.scale, kind)).transpose()?);
        }
        Ok(Self { layers, dropout: None })
    }

    /// The same view with LoRA's dropout on the inputs of `A`, its masks drawn from `seed`. With probability 0 nothing
    /// is dropped.
    pub fn with_dropout(mut self, probability: f64, seed: u64) -> Self {
        self.dropout = (probability > 0.0).then(|| Dropout::new(probability, seed));
        self
    }

    pub(crate) fn layer(&self, index: usize) -> Option<&ViewLayer> {
        self.layers.get(index).and_then(Option::as_ref)
    }

    /// `x` with dropout applied, for layer `index`.
    pub(crate) fn dropped(&self, x: &Tensor, index: usize) -> Result<Tensor, LoraError> {
        match &self.dropout {
            Some(dropout) => dropout.apply(x, index),
            None => Ok(x.shallow_clone()),
        }
    }

    pub(crate) fn detached_copy(&self) -> Result<Self, LoraError> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            layers.push(layer.as_ref().map(ViewLayer::detached_copy).transpose()?);
        }
        Ok(Self { layers, dropout: None })
    }
}

impl ViewLayer {
    fn cast(a: &Tensor, b: &Tensor, scale: f64, kind: Kind) -> Result<Self, LoraError> {
        let scaled = b.f_mul_scalar(scale)?;
        Ok(Self { a: a.f_to_kind(kind)?, b: scaled.f_to_kind(kind)? })
    }

    fn detached_copy(&self) -> Result<Self, LoraError> {
        Ok(Self { a: copy(&self.a)?, b: copy(&self.b)? })
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor, LoraError> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}
