//! AdamW with a state that can be saved.

use crate::TrainError;
use posttrain_lora::{read_tensors, write_tensors};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// AdamW's constants; the learning rate is given at each step.
///
/// Defaults are tinker-cookbook's for RL (`rl/train.py`: β 0.9 and 0.95, ε 1e-8, no weight decay).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    pub eps: f64,
    /// Decoupled weight decay a step, as a share of the learning rate; 0 and up.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamWConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            TrainError::check(field, (0.0..1.0).contains(&beta), "at least 0 and below 1", beta)?;
        }
        TrainError::check("eps", self.eps.is_finite() && self.eps > 0.0, "above 0", self.eps)?;
        let decay = self.weight_decay;
        TrainError::check("weight_decay", decay.is_finite() && decay >= 0.0, "at least 0", decay)
    }
}

/// AdamW (Loshchilov & Hutter, 2019, <https://arxiv.org/abs/1711.05101>) over named f32 tensors, as `torch.optim.AdamW`.
///
/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `θ ← θ(1 − lr·wd) − lr·m̂/(√v̂ + ε)` with bias-corrected `m̂`, `v̂`.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    steps: u64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    /// An optimiser over leaf tensors, which it shares with their owner; its moments start at zero.
    ///
    /// # Errors
    /// [`TrainError::Config`] for constants out of range; [`TrainError::Torch`] when memory fails.
    pub fn new(parameters: Vec<(String, Tensor)>, config: AdamWConfig) -> Result<Self, TrainError> {
        config.validate()?;
        let mut slots = Vec::with_capacity(parameters.len());
        for (name, parameter) in parameters {
            let zeros = || parameter.f_detach()?.f_zeros_like();
            slots.push(Slot { name, first: zeros()?, second: zeros()?, parameter });
        }
        Ok(Self { config, slots, steps: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The norm of all gradients together, `√Σg²`, a missing one counting as zero.
    ///
    /// # Errors
    /// [`TrainError::Torch`] when the device fails.
    pub fn gradient_norm(&self) -> Result<f64, TrainError> {
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

    /// One step at learning rate `lr`, every gradient multiplied by `gradient_scale` first, then cleared. A tensor
    /// without a gradient is left alone.
    ///
    /// # Errors
    /// [`TrainError::Torch`] when the device fails.
    pub fn step(&mut self, lr: f64, gradient_scale: f64) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let (config, steps) = (self.config, self.steps);
        self.slots.iter_mut().try_for_each(|slot| slot.step(&config, steps, lr, gradient_scale))?;
        self.clear_gradients();
        Ok(())
    }

    /// Forgets all gradients.
    pub fn clear_gradients(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.parameter.zero_grad());
    }

    /// Writes the moments to a safetensors file (`<name>.exp_avg`, `<name>.exp_avg_sq`).
    ///
    /// # Errors
    /// [`TrainError::Lora`] names a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let moments = |s: &Slot| {
            [
                (format!("{}.exp_avg", s.name), s.first.shallow_clone()),
                (format!("{}.exp_avg_sq", s.name), s.second.shallow_clone()),
            ]
        };
        let tensors: Vec<_> = self.slots.iter().flat_map(moments).collect();
        Ok(write_tensors(path, &tensors)?)
    }

    /// Reads the moments back, with the number of steps that they had been through.
    ///
    /// # Errors
    /// [`TrainError::State`] names a moment that is missing or has another shape.
    pub fn load(&mut self, path: &Path, steps: u64) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        let mut tensors = read_tensors(path)?;
        for slot in &mut self.slots {
            for (moment, kind) in [(&mut slot.first, "exp_avg"), (&mut slot.second, "exp_avg_sq")] {
                let name = format!("{}.{kind}", slot.name);
                let saved = tensors.remove(&name).filter(|t| t.size() == moment.size());
                let reason =
                    || format!("tensor `{name}`: expected shape {:?}, and it is missing or has another", moment.size());
                let saved = saved.ok_or_else(|| TrainError::State { path: path.into(), reason: reason() })?;
                moment.f_copy_(&saved)?;
            }
        }
        self.steps = steps;
        match tensors.keys().next() {
            Some(name) => {
                Err(TrainError::State { path: path.into(), reason: format!("tensor `{name}` belongs to no parameter") })
            }
            None => Ok(()),
        }
    }
}

impl Slot {
    fn step(&mut self, config: &AdamWConfig, steps: u64, lr: f64, gradient_scale: f64) -> Result<(), TrainError> {
        let gradient = self.parameter.f_grad()?;
        if !gradient.defined() {
            return Ok(());
        }
        let gradient = if gradient_scale == 1.0 { gradient } else { gradient.f_mul_scalar(gradient_scale)? };
        let AdamWConfig { beta1, beta2, eps, weight_decay } = *config;
        if weight_decay > 0.0 {
            let _ = self.parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
        }
        let _ = self.first.f_lerp_(&gradient, 1.0 - beta1)?;
        let _ = self.second.f_mul_scalar_(beta2)?.f_addcmul_(&gradient, &(&gradient * (1.0 - beta2)))?;
        let correction1 = 1.0 - beta1.powf(steps as f64);
        let correction2 = 1.0 - beta2.powf(steps as f64);
        let mut denominator = self.second.f_sqrt()?;
        let _ = denominator.f_mul_scalar_(1.0 / correction2.sqrt())?.f_add_scalar_(eps)?;
        let _ = denominator.f_reciprocal_()?.f_mul_(&self.first)?.f_mul_scalar_(-lr / correction1)?;
        let _ = self.parameter.f_add_(&denominator)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_without_a_gradient_is_left_alone() {
        let leaf = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
        let mut optimiser = AdamW::new(vec![("x".into(), leaf.shallow_clone())], AdamWConfig::default()).unwrap();
        optimiser.step(0.1, 1.0).unwrap();
        assert_eq!(Vec::<f32>::try_from(leaf.detach()).unwrap(), [1.0, 2.0]);
        assert_eq!(optimiser.gradient_norm().unwrap(), 0.0);
    }

    #[test]
    fn the_first_step_is_the_learning_rate_against_the_sign() {
        let leaf = Tensor::from_slice(&[0f32, 0.0]).set_requires_grad(true);
        let mut optimiser = AdamW::new(vec![("x".into(), leaf.shallow_clone())], AdamWConfig::default()).unwrap();
        (&leaf * Tensor::from_slice(&[3f32, -0.5])).sum(Kind::Float).backward();
        optimiser.step(0.1, 1.0).unwrap();
        let moved = Vec::<f32>::try_from(leaf.detach()).unwrap();
        assert!((moved[0] + 0.1).abs() < 1e-6 && (moved[1] - 0.1).abs() < 1e-6, "{moved:?}");
    }
}
