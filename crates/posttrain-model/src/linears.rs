//! Linear layers taken out of a model's weights.

use crate::ModelError;
use crate::frozen_linear::FrozenLinear;
use crate::weights::Weights;
use posttrain_lora::ModuleSpec;
use tch::Tensor;

/// Takes linear layers one after another and counts their modules, in the order in which adapters do.
pub(crate) struct Linears<'a> {
    weights: &'a mut Weights,
    next: usize,
}

/// Whether layers have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    Without,
    With,
}

impl<'a> Linears<'a> {
    /// Counts from the first module.
    pub fn new(weights: &'a mut Weights) -> Self {
        Self { weights, next: 0 }
    }

    /// The weights, for what is no linear layer.
    pub fn weights(&mut self) -> &mut Weights {
        self.weights
    }

    /// The next modules, which share their input, as one layer.
    pub fn fused(&mut self, specs: &[ModuleSpec], bias: Bias) -> Result<FrozenLinear, ModelError> {
        let mut rows = Vec::with_capacity(specs.len());
        let mut biases = Vec::new();
        for spec in specs {
            rows.push(self.weights.take(&format!("{}.weight", spec.path), &[spec.out_features, spec.in_features])?);
            if bias == Bias::With {
                biases.push(self.weights.take(&format!("{}.bias", spec.path), &[spec.out_features])?);
            }
        }
        let parts = specs.iter().enumerate().map(|(i, spec)| (self.next + i, spec.out_features)).collect();
        self.next += specs.len();
        let bias = if biases.is_empty() { None } else { Some(joined(biases)?) };
        FrozenLinear::new(joined(rows)?, bias, parts, self.weights.quantise().form())
    }
}

fn joined(mut tensors: Vec<Tensor>) -> Result<Tensor, ModelError> {
    Ok(if tensors.len() == 1 { tensors.remove(0) } else { Tensor::f_cat(&tensors, 0)? })
}
