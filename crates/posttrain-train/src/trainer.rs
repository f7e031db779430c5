//! The four primitives.

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{TrainingBatch, TrainingCompletion};
use crate::config::{DeadGroups, TrainerConfig, TrainerWorkers};
use crate::micro_batch::{kept_tokens, micro_batches};
use crate::out_of_memory::retried;
use crate::pass::Passes;
use crate::seed::derive_seed;
use crate::{TrainError, folder};
use posttrain_lora::{Adapter, AdapterView, LoraConfig, load_peft, save_peft};
use posttrain_loss::{PolicyMetrics, PolicyObjective};
use posttrain_model::Decoder;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::rc::Rc;
use tch::Device;

/// What one batch's passes gave.
#[derive(Debug, Clone, Copy)]
pub struct ForwardBackward {
    /// The loss over the whole step's denominator.
    pub loss: f64,
    /// How far the policy is from the one that sampled, over the tokens computed.
    pub metrics: PolicyMetrics,
    /// Tokens that went through the model, prompts counted once a micro-batch.
    pub computed_tokens: usize,
    /// Those of them whose forward pass was the sampler's ([`TrainingCompletion::recording`]).
    pub recorded_tokens: usize,
    /// Micro-batches.
    pub micro_batches: usize,
}

/// What one optimiser step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimStep {
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
    /// Whether it was clipped.
    pub clipped: bool,
}

/// A policy version that a sampler can hold while training goes on.
#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    /// The adapter's frozen copy in the model's kind.
    pub adapter: Rc<AdapterView>,
    /// The version.
    pub version: u64,
}

impl PolicySnapshot {
    /// A policy from a PEFT folder, as version 0.
    ///
    /// # Errors
    /// [`TrainError::Lora`] for an adapter that cannot be read or does not fit the model.
    pub fn load(folder: &Path, model: &Decoder) -> Result<Self, TrainError> {
        let adapter = load_peft(folder, model.modules(), model.device())?.snapshot(model.kind())?;
        Ok(Self { adapter: Rc::new(adapter), version: 0 })
    }
}

/// An adapter in training on a frozen base. See the crate's documentation for the primitives.
#[derive(Debug)]
pub struct Trainer<'m> {
    model: &'m Decoder,
    adapter: Adapter,
    optimiser: AdamW,
    config: TrainerConfig,
    seed: u64,
    policy_version: u64,
    has_gradient: bool,
    gradients_checked: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTrainer {
    policy_version: u64,
    optimiser_steps: u64,
}

const ADAPTER: &str = "adapter";
const OPTIMISER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";

impl<'m> Trainer<'m> {
    /// A trainer of a fresh adapter, initialised from `seed`.
    ///
    /// # Errors
    /// [`TrainError::Config`] or [`TrainError::Lora`] names a field that is out of range.
    pub fn new(model: &'m Decoder, lora: &LoraConfig, config: TrainerConfig, seed: u64) -> Result<Self, TrainError> {
        let adapter = Adapter::init(lora, model.modules(), derive_seed(seed, "adapter", 0, 0), model.device())?;
        Self::with_adapter(model, adapter, config, seed)
    }

    /// A trainer that goes on from an adapter's weights with a fresh optimiser: a warm start, not a resumption.
    ///
    /// # Errors
    /// [`TrainError::Config`] names a field that is out of range.
    pub fn with_adapter(
        model: &'m Decoder,
        adapter: Adapter,
        config: TrainerConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let on_head = model.head_module().is_some_and(|module| adapter.pair(module).is_some());
        let expected = "0 with an adapter on the head, whose fused pass drops nothing";
        let dropout = adapter.config().dropout;
        TrainError::check("lora.dropout", dropout == 0.0 || !on_head, expected, dropout)?;
        let optimiser = AdamW::new(adapter.parameters(), config.adamw)?;
        Ok(Self {
            model,
            adapter,
            optimiser,
            config,
            seed,
            policy_version: 0,
            has_gradient: false,
            gradients_checked: false,
        })
    }

    /// The adapter in training.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The version of the policy: the number of optimiser steps that made it.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// Adds the gradient of a batch's objective to the adapter's. Passes are cut by the token budget; `k` of them give
    /// the gradient of one; where memory does not suffice, half the budget is tried once. At the first batch with a signal, checks that a gradient reached every layer.
    ///
    /// # Errors
    /// [`TrainError::Loss`] for values that are not finite; [`TrainError::Lora`] where a layer got no gradient;
    /// [`TrainError::OutOfMemory`] when memory did not suffice for half the budget either; [`TrainError::Model`] or
    /// [`TrainError::Torch`] when the device fails.
    pub fn forward_backward(
        &mut self,
        batch: &TrainingBatch,
        objective: &PolicyObjective,
    ) -> Result<ForwardBackward, TrainError> {
        objective.validate()?;
        let only_policy = objective.kl.is_none() && objective.entropy_coefficient == 0.0;
        // A batch without any signal is computed all the same: every step measures how far the policies are apart.
        let skip = self.config.dead_groups == DeadGroups::Skip && only_policy && batch.has_signal();
        let keep = |c: &TrainingCompletion| !skip || c.advantage != 0.0;
        let tokens = batch.groups().iter().map(|g| kept_tokens(g, keep)).sum();
        let workers = self.workers(tokens);
        let passes = Passes { objective, totals: batch.totals(), config: &self.config, version: self.policy_version };
        let outcome = retried(self.config.micro_batch_tokens, |budget| {
            let micro = micro_batches(batch, budget, workers, keep);
            passes.run(self.model, &self.adapter, micro, workers, self.seed)
        })?;
        self.has_gradient = true;
        if !self.gradients_checked && batch.has_signal() {
            self.adapter.check_gradients()?;
            self.gradients_checked = true;
        }
        Ok(outcome)
    }

    /// Applies the gradient at learning rate `lr`, clipped to the configured norm, and clears it. The policy is then a
    /// version further.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteGradient`] leaves weights and moments as they were and clears the gradient;
    /// [`TrainError::NoGradient`] if there is none.
    pub fn optim_step(&mut self, lr: f64) -> Result<OptimStep, TrainError> {
        if !std::mem::take(&mut self.has_gradient) {
            return Err(TrainError::NoGradient);
        }
        let norm = self.optimiser.gradient_norm()?;
        if !norm.is_finite() {
            self.optimiser.clear_gradients();
            return Err(TrainError::NonFiniteGradient { norm });
        }
        let limit = self.config.max_grad_norm;
        let clipped = limit > 0.0 && norm > limit;
        // The small constant is torch's clip_grad_norm_'s.
        let scale = if clipped { limit / (norm + 1e-6) } else { 1.0 };
        self.optimiser.step(lr, scale)?;
        self.policy_version += 1;
        Ok(OptimStep { grad_norm: norm, clipped })
    }

    /// The present policy for a sampler: a copy of the adapter in the model's kind; the base is shared.
    ///
    /// # Errors
    /// [`TrainError::Lora`] when memory fails.
    pub fn snapshot(&self) -> Result<PolicySnapshot, TrainError> {
        Ok(PolicySnapshot { adapter: Rc::new(self.adapter.snapshot(self.model.kind())?), version: self.policy_version })
    }

    /// Writes the adapter as a PEFT folder, whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Lora`] names what could not be written.
    pub fn save_adapter(&self, dir: &Path, base_model: &str) -> Result<(), TrainError> {
        folder::replace_folder(dir, |fresh| Ok(save_peft(&self.adapter, fresh, base_model)?))
    }

    /// Writes everything that going on needs into a folder: adapter, moments, counters. The caller makes it atomic
    /// together with what else belongs to the moment (see [`crate::replace_folder`]).
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Lora`] names what could not be written.
    pub fn save_state(&self, dir: &Path) -> Result<(), TrainError> {
        save_peft(&self.adapter, &dir.join(ADAPTER), "")?;
        self.optimiser.save(&dir.join(OPTIMISER))?;
        let saved = SavedTrainer { policy_version: self.policy_version, optimiser_steps: self.optimiser.steps() };
        folder::write_json(&dir.join(TRAINER), &saved)
    }

    /// Takes up a state that [`Trainer::save_state`] wrote. What follows is what would have followed then.
    ///
    /// # Errors
    /// [`TrainError::State`] or [`TrainError::Lora`] names what does not fit.
    pub fn load_state(&mut self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(ADAPTER);
        let loaded = load_peft(&path, self.model.modules(), self.model.device())?;
        let own: Vec<_> = self.adapter.parameters();
        let saved: Vec<_> = loaded.parameters();
        if own.len() != saved.len() || own.iter().zip(&saved).any(|(a, b)| a.0 != b.0 || a.1.size() != b.1.size()) {
            return Err(TrainError::State { path, reason: "adapts other layers, or in another rank".into() });
        }
        let saved: SavedTrainer = folder::read_json(&dir.join(TRAINER))?;
        let mut optimiser = AdamW::new(loaded.parameters(), self.config.adamw)?;
        optimiser.load(&dir.join(OPTIMISER), saved.optimiser_steps)?;
        (self.adapter, self.optimiser, self.policy_version) = (loaded, optimiser, saved.policy_version);
        self.has_gradient = false;
        Ok(())
    }

    /// How many threads `tokens` tokens are worth.
    fn workers(&self, tokens: usize) -> usize {
        if self.model.device() != Device::Cpu {
            return 1;
        }
        match self.config.workers {
            TrainerWorkers::Count(count) => count.max(1),
            TrainerWorkers::Auto => (tokens / TOKENS_A_WORKER).clamp(1, tch::get_num_threads().max(1) as usize),
        }
    }
}

/// Tokens below which another worker costs more than it brings: each reads all weights and adds up gradients of its own.
const TOKENS_A_WORKER: usize = 256;

impl TrainerConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        AdamWConfig::validate(&self.adamw)?;
        let norm = self.max_grad_norm;
        TrainError::check("max_grad_norm", norm.is_finite() && norm >= 0.0, "at least 0 (0 is off)", norm)?;
        let workers = if let TrainerWorkers::Count(count) = self.workers { count } else { 1 };
        TrainError::check("workers.count", workers >= 1, "at least 1", workers)?;
        TrainError::check("micro_batch_tokens", self.micro_batch_tokens >= 1, "at least 1", self.micro_batch_tokens)?;
        let temperature = self.temperature;
        TrainError::check("temperature", temperature.is_finite() && temperature > 0.0, "above 0", temperature)
    }
}
