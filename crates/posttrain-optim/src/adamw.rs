//! AdamW with a state that can be saved.

use crate::{AdamParams, OptimError};
use posttrain_tensor::{host_copy, read_tensors, write_tensors};
use std::path::Path;
use tch::{Kind, Tensor};

/// AdamW (Loshchilov & Hutter, 2019, <https://arxiv.org/abs/1711.05101>) over named f32 tensors, as
/// `torch.optim.AdamW`.
///
/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `θ ← θ(1 − lr·wd) − lr·m̂/(√v̂ + ε)` with
/// bias-corrected `m̂`, `v̂`. The gradient is first multiplied with [`AdamParams::gradient_scale`],
/// then clipped to [`AdamParams::max_grad_norm`] as torch's `clip_grad_norm_` does.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    steps: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The norm of all gradients together, `√Σg²`, after their scale and before clipping.
    pub grad_norm: f64,
    /// Whether they were clipped.
    pub clipped: bool,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    /// An optimizer over leaf tensors, which it shares with their owner; its moments start at zero.
    ///
    /// # Errors
    /// [`OptimError::Torch`] when memory fails.
    pub fn new(parameters: Vec<(String, Tensor)>) -> Result<Self, OptimError> {
        let mut slots = Vec::with_capacity(parameters.len());
        for (name, parameter) in parameters {
            let values = parameter.f_detach()?;
            let first = values.f_zeros_like()?;
            let second = values.f_zeros_like()?;
            slots.push(Slot { name, parameter, first, second });
        }
        Ok(Self { slots, steps: 0 })
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step and clears the gradients. A tensor without a gradient is left alone.
    ///
    /// # Errors
    /// [`OptimError::Config`] names a constant that is out of range;
    /// [`OptimError::NonFiniteGradient`] leaves weights and moments as they were and clears the
    /// gradients; [`OptimError::Torch`] when the device fails.
    pub fn step(&mut self, params: &AdamParams) -> Result<StepReport, OptimError> {
        params.validate()?;
        let norm = self.gradient_norm()? * params.gradient_scale;
        if !norm.is_finite() {
            self.clear_gradients();
            return Err(OptimError::NonFiniteGradient { norm });
        }

        let clipped = params.max_grad_norm > 0.0 && norm > params.max_grad_norm;
        // The small constant is torch's.
        let shrink = if clipped { params.max_grad_norm / (norm + 1e-6) } else { 1.0 };
        let scale = params.gradient_scale * shrink;

        let _guard = tch::no_grad_guard();
        self.steps += 1;
        for slot in &mut self.slots {
            slot.step(params, self.steps, scale)?;
        }
        self.clear_gradients();
        Ok(StepReport { grad_norm: norm, clipped })
    }

    /// Forgets all gradients.
    pub fn clear_gradients(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.parameter.zero_grad());
    }

    /// The same moments on the host, in tensors of their own, over other leaves of the same names and
    /// shapes: what belongs to a copy of the parameters.
    ///
    /// # Errors
    /// [`OptimError::Parameters`] names the first that differs; [`OptimError::Torch`] when memory
    /// fails.
    pub fn copied(&self, parameters: Vec<(String, Tensor)>) -> Result<Self, OptimError> {
        let mut copy = Self::new(parameters)?;
        let counts = [self.slots.len(), copy.slots.len()];
        if counts[0] != counts[1] {
            let reason = format!("{} parameters for the moments of {}", counts[1], counts[0]);
            return Err(OptimError::Parameters { reason });
        }

        for (own, other) in self.slots.iter().zip(&mut copy.slots) {
            if own.name != other.name || own.first.size() != other.first.size() {
                let reason = format!(
                    "`{}` of shape {:?} for the moments of `{}` of shape {:?}",
                    other.name,
                    other.first.size(),
                    own.name,
                    own.first.size()
                );
                return Err(OptimError::Parameters { reason });
            }
            other.first = host_copy(&own.first)?;
            other.second = host_copy(&own.second)?;
        }
        copy.steps = self.steps;
        Ok(copy)
    }

    /// Writes the moments to a safetensors file (`<name>.exp_avg`, `<name>.exp_avg_sq`).
    ///
    /// # Errors
    /// [`OptimError::Tensors`] names a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OptimError> {
        let mut tensors = Vec::with_capacity(2 * self.slots.len());
        for slot in &self.slots {
            tensors.push((format!("{}.exp_avg", slot.name), slot.first.shallow_clone()));
            tensors.push((format!("{}.exp_avg_sq", slot.name), slot.second.shallow_clone()));
        }
        Ok(write_tensors(path, &tensors)?)
    }

    /// Reads the moments back, with the number of steps that they had been through.
    ///
    /// # Errors
    /// [`OptimError::State`] names a moment that is missing or has another shape, or one that
    /// belongs to no parameter; [`OptimError::Tensors`] a file that cannot be read.
    pub fn load(&mut self, path: &Path, steps: u64) -> Result<(), OptimError> {
        let _guard = tch::no_grad_guard();
        let mut tensors = read_tensors(path)?;
        for slot in &mut self.slots {
            for (moment, kind) in [(&mut slot.first, "exp_avg"), (&mut slot.second, "exp_avg_sq")] {
                let name = format!("{}.{kind}", slot.name);
                let Some(saved) =
                    tensors.remove(&name).filter(|saved| saved.size() == moment.size())
                else {
                    let expected = moment.size();
                    let reason = format!(
                        "tensor `{name}`: expected shape {expected:?}, and it is missing or has another"
                    );
                    return Err(OptimError::State { path: path.into(), reason });
                };
                moment.f_copy_(&saved)?;
            }
        }
        if let Some(name) = tensors.keys().next() {
            let reason = format!("tensor `{name}` belongs to no parameter");
            return Err(OptimError::State { path: path.into(), reason });
        }
        self.steps = steps;
        Ok(())
    }

    /// `√Σg²` over all gradients, a missing one counting as zero.
    fn gradient_norm(&self) -> Result<f64, OptimError> {
        let mut norms = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let gradient = slot.parameter.f_grad()?;
            if gradient.defined() {
                norms.push(gradient.f_norm()?);
            }
        }
        if norms.is_empty() {
            return Ok(0.0);
        }
        // They leave the device together: each transfer waits for it.
        let norms = Vec::<f64>::try_from(&Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?)?;
        Ok(norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt())
    }
}

impl Slot {
    fn step(
        &mut self,
        params: &AdamParams,
        steps: u64,
        gradient_scale: f64,
    ) -> Result<(), OptimError> {
        let mut gradient = self.parameter.f_grad()?;
        if !gradient.defined() {
            // What was reached before and is not now has a gradient of zeros, and its momentum
            // moves it; behind a saved state it has none at first, and is to move all the same.
            if self.second.f_count_nonzero(None)?.f_int64_value(&[])? == 0 {
                return Ok(());
            }
            gradient = self.second.f_zeros_like()?;
        }
        let gradient =
            if gradient_scale == 1.0 { gradient } else { gradient.f_mul_scalar(gradient_scale)? };

        let AdamParams { learning_rate: lr, beta1, beta2, eps, weight_decay, .. } = *params;
        if weight_decay > 0.0 {
            let _ = self.parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
        }
        let _ = self.first.f_lerp_(&gradient, 1.0 - beta1)?;
        let _ = self
            .second
            .f_mul_scalar_(beta2)?
            .f_addcmul_(&gradient, &(&gradient * (1.0 - beta2)))?;

        let correction1 = 1.0 - beta1.powf(steps as f64);
        let correction2 = 1.0 - beta2.powf(steps as f64);
        let mut denominator = self.second.f_sqrt()?;
        let _ = denominator.f_mul_scalar_(1.0 / correction2.sqrt())?.f_add_scalar_(eps)?;
        let _ =
            denominator.f_reciprocal_()?.f_mul_(&self.first)?.f_mul_scalar_(-lr / correction1)?;
        let _ = self.parameter.f_add_(&denominator)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(values: &[f32]) -> (Tensor, AdamW) {
        let leaf = Tensor::from_slice(values).set_requires_grad(true);
        let optimizer = AdamW::new(vec![("x".into(), leaf.shallow_clone())]).unwrap();
        (leaf, optimizer)
    }

    fn values(leaf: &Tensor) -> Vec<f32> {
        Vec::try_from(leaf.detach()).unwrap()
    }

    #[test]
    fn a_parameter_without_a_gradient_is_left_alone() {
        let (leaf, mut optimizer) = leaf(&[1.0, 2.0]);
        let report = optimizer.step(&AdamParams::default()).unwrap();
        assert_eq!((values(&leaf), report.grad_norm), (vec![1.0, 2.0], 0.0));
    }

    #[test]
    fn a_scale_is_that_of_the_gradients() {
        let (one, mut plain) = leaf(&[1.0, 2.0]);
        let (other, mut scaled) = leaf(&[1.0, 2.0]);
        let params = AdamParams { learning_rate: 0.1, max_grad_norm: 0.5, ..AdamParams::default() };
        (&one * Tensor::from_slice(&[3f32, -0.5])).sum(Kind::Float).backward();
        (&other * Tensor::from_slice(&[12f32, -2.0])).sum(Kind::Float).backward();
        let first = plain.step(&params).unwrap();
        let second = scaled.step(&AdamParams { gradient_scale: 0.25, ..params }).unwrap();
        assert!(first.clipped && (first.grad_norm - second.grad_norm).abs() < 1e-6);
        assert_eq!(values(&one), values(&other));
    }

    #[test]
    fn momentum_moves_on_behind_a_saved_state_as_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("moments.safetensors");
        let (first, mut optimizer) = leaf(&[1.0, 2.0]);
        (&first * 3.0).sum(Kind::Float).backward();
        optimizer.step(&AdamParams::default()).unwrap();
        optimizer.save(&path).unwrap();

        let (second, mut resumed) = leaf(&values(&first));
        resumed.load(&path, optimizer.steps()).unwrap();
        // Nothing reaches the parameter in this step: a gradient of zeros here, none there.
        optimizer.step(&AdamParams::default()).unwrap();
        resumed.step(&AdamParams::default()).unwrap();
        assert_eq!(values(&first), values(&second));
        assert_ne!(values(&first), [1.0, 2.0]);
    }

    #[test]
    fn a_gradient_that_is_not_finite_takes_no_step_and_is_cleared() {
        let (leaf, mut optimizer) = leaf(&[1.0, 2.0]);
        (&leaf * f64::NAN).sum(Kind::Float).backward();
        let error = optimizer.step(&AdamParams::default()).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{error}");
        assert_eq!((values(&leaf), optimizer.steps()), (vec![1.0, 2.0], 0));
        assert_eq!(optimizer.step(&AdamParams::default()).unwrap().grad_norm, 0.0);
    }

    #[test]
    fn a_copy_goes_on_as_the_optimizer_would_have() {
        let (first, mut optimizer) = leaf(&[1.0, 2.0]);
        let loss = |leaf: &Tensor| (leaf * leaf).sum(Kind::Float);
        loss(&first).backward();
        optimizer.step(&AdamParams::default()).unwrap();

        let second = host_copy(&first).unwrap().set_requires_grad(true);
        let mut copy = optimizer.copied(vec![("x".into(), second.shallow_clone())]).unwrap();
        for (leaf, optimizer) in [(&first, &mut optimizer), (&second, &mut copy)] {
            loss(leaf).backward();
            optimizer.step(&AdamParams::default()).unwrap();
        }
        assert_eq!((values(&first), optimizer.steps()), (values(&second), copy.steps()));

        let named = |name: &str, values: &[f32]| {
            let leaf = Tensor::from_slice(values).set_requires_grad(true);
            optimizer.copied(vec![(name.into(), leaf)]).unwrap_err().to_string()
        };
        assert!(named("y", &[1.0, 2.0]).contains("`y`"));
        assert!(named("x", &[1.0]).contains("[1]"));
        assert!(optimizer.copied(vec![]).unwrap_err().to_string().contains("0 parameters"));
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let (_, mut optimizer) = leaf(&[1.0]);
        let good = AdamParams::default();
        let bad = [
            (AdamParams { learning_rate: f64::NAN, ..good }, "learning_rate"),
            (AdamParams { beta1: 1.0, ..good }, "beta1"),
            (AdamParams { beta2: -0.1, ..good }, "beta2"),
            (AdamParams { eps: 0.0, ..good }, "eps"),
            (AdamParams { weight_decay: -1.0, ..good }, "weight_decay"),
            (AdamParams { max_grad_norm: f64::INFINITY, ..good }, "max_grad_norm"),
            (AdamParams { gradient_scale: 0.0, ..good }, "gradient_scale"),
        ];
        for (params, field) in bad {
            assert!(optimizer.step(&params).unwrap_err().to_string().contains(field));
        }
    }
}
