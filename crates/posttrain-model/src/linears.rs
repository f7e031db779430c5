//! Linear layers taken out of a model's weights.

use crate::ModelError;
use crate::frozen_linear::FrozenLinear;
use crate::weights::Weights;
use posttrain_lora::ModuleSpec;
use tch::Tensor;

/// Takes linear layers one after another and counts their modules, in the order in which adapters
/// do.
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
        let rows: Vec<_> =
            specs.iter().map(|spec| (format!("{}.weight", spec.path), spec.out_features)).collect();
        let columns = specs.first().map_or(0, |spec| spec.in_features);
        let weight = self.weights.take_rows(&rows, columns)?;

        let bias = match bias {
            Bias::With => Some(self.biases(specs)?),
            Bias::Without => None,
        };

        let parts =
            specs.iter().enumerate().map(|(i, spec)| (self.next + i, spec.out_features)).collect();
        self.next += specs.len();
        FrozenLinear::new(weight, bias, parts, self.weights.quantize().form())
    }

    fn biases(&mut self, specs: &[ModuleSpec]) -> Result<Tensor, ModelError> {
        let take = |spec: &ModuleSpec| {
            self.weights.take(&format!("{}.bias", spec.path), &[spec.out_features])
        };
        Ok(Tensor::f_cat(&specs.iter().map(take).collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}
