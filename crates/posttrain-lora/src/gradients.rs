//! The gradients of an adapter, collected by hand.

use crate::LoraError;
use tch::{Kind, Tensor};

/// Sums of gradients by the pairs of a view, f32 whatever the base computes in; nothing for a layer
/// that none has reached.
#[derive(Debug, Default)]
pub struct AdapterGradients {
    layers: Vec<(Option<Tensor>, Option<Tensor>)>,
}

impl AdapterGradients {
    /// The gradients by `A: [R, in]` and by `s·B: [out, R]` of layer `index`.
    pub(crate) fn layer(&self, index: usize) -> (Option<&Tensor>, Option<&Tensor>) {
        self.layers.get(index).map_or((None, None), |(a, b)| (a.as_ref(), b.as_ref()))
    }

    /// Adds the gradients by `A` and by `s·B` of module `index`.
    ///
    /// # Errors
    /// [`LoraError::Torch`] if their shapes are not those that were added before.
    pub fn add(&mut self, index: usize, by_a: &Tensor, by_b: &Tensor) -> Result<(), LoraError> {
        self.add_a(index, by_a)?;
        self.add_b(index, by_b)
    }

    pub(crate) fn add_a(&mut self, index: usize, gradient: &Tensor) -> Result<(), LoraError> {
        add(&mut self.slot(index).0, gradient)
    }

    pub(crate) fn add_b(&mut self, index: usize, gradient: &Tensor) -> Result<(), LoraError> {
        add(&mut self.slot(index).1, gradient)
    }

    fn slot(&mut self, index: usize) -> &mut (Option<Tensor>, Option<Tensor>) {
        if self.layers.len() <= index {
            self.layers.resize_with(index + 1, Default::default);
        }
        &mut self.layers[index]
    }
}

fn add(sum: &mut Option<Tensor>, gradient: &Tensor) -> Result<(), LoraError> {
    match sum {
        Some(sum) => {
            let _ = sum.f_add_(gradient)?;
        }
        // A copy even where the kind is right already: the gradient may be part of a larger
        // product.
        None => *sum = Some(gradient.f_to_dtype(Kind::Float, false, true)?.f_contiguous()?),
    }
    Ok(())
}
