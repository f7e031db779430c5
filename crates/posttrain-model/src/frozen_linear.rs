//! A block's linear layer: in the compute kind, or in fewer bits.

use crate::ModelError;
use crate::quantized_linear::QuantizedWeight;
use posttrain_kernel::QuantizedForm;
use posttrain_lora::{
    AdaptedLinear, Adapter, AdapterGradients, MergedPart, RowAdapters, ThinProducts,
};
use posttrain_tensor::SharedTensor;
use tch::Tensor;

/// A frozen linear layer with adapters beside it.
#[derive(Debug)]
pub(crate) enum FrozenLinear {
    Plain(AdaptedLinear),
    Quantized { weight: QuantizedWeight, bias: Option<SharedTensor>, parts: Vec<(usize, i64)> },
}

impl FrozenLinear {
    /// From the arguments of [`AdaptedLinear::new`], the weight in `form` if there is one.
    pub fn new(
        weight: Tensor,
        bias: Option<Tensor>,
        parts: Vec<(usize, i64)>,
        form: Option<QuantizedForm>,
    ) -> Result<Self, ModelError> {
        match form {
            None => Ok(Self::Plain(AdaptedLinear::new(weight, bias, parts)?)),
            Some(form) => {
                let weight = QuantizedWeight::of(&weight, form)?;
                Ok(Self::Quantized { weight, bias: bias.map(SharedTensor::new), parts })
            }
        }
    }

    /// Runs `with` on the layer in the compute kind, which a quantized one is only meanwhile.
    fn with<T>(
        &self,
        with: impl FnOnce(&AdaptedLinear) -> Result<T, posttrain_lora::LoraError>,
    ) -> Result<T, ModelError> {
        match self {
            Self::Plain(linear) => Ok(with(linear)?),
            Self::Quantized { weight, bias, parts } => {
                let bias = bias.as_ref().map(SharedTensor::handle);
                Ok(with(&AdaptedLinear::new(weight.dequantized()?, bias, parts.clone())?)?)
            }
        }
    }

    /// [`AdaptedLinear::forward`].
    pub fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor, ModelError> {
        self.with(|linear| linear.forward(x, adapters))
    }

    /// [`AdaptedLinear::forward_keeping`].
    pub fn forward_keeping(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, ThinProducts), ModelError> {
        self.with(|linear| linear.forward_keeping(x, adapters))
    }

    /// [`AdaptedLinear::backward`].
    pub fn backward(
        &self,
        x: &Tensor,
        thin: Option<&ThinProducts>,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, ModelError> {
        self.with(|linear| linear.backward(x, thin, gradient, adapters, sums))
    }

    /// [`AdaptedLinear::merge`]; a quantized layer has no place for an update.
    pub fn merge(&mut self, adapter: &Adapter) -> Result<(), ModelError> {
        match self {
            Self::Plain(linear) => Ok(linear.merge(adapter)?),
            Self::Quantized { weight, .. } => Err(no_place(weight)),
        }
    }

    /// [`AdaptedLinear::merged_parts`]; a quantized layer has no place for an update.
    pub fn merged_parts(&self, adapter: Option<&Adapter>) -> Result<Vec<MergedPart>, ModelError> {
        match self {
            Self::Plain(linear) => Ok(linear.merged_parts(adapter)?),
            Self::Quantized { weight, .. } => Err(no_place(weight)),
        }
    }

    /// [`AdaptedLinear::unmerge`].
    pub fn unmerge(&mut self) {
        if let Self::Plain(linear) = self {
            linear.unmerge();
        }
    }
}

fn no_place(weight: &QuantizedWeight) -> ModelError {
    let got = format!("a quantized layer of shape {:?}", weight.shape());
    crate::packing::argument("adapter", "a base that is not quantized, to merge it into", got)
}
