//! The primitives: forward, forward and backward, a step of the optimizer, snapshots, state,
//! export.

mod ranks;
mod together;

pub(crate) use together::{Made, together};
pub use together::{TrainerCall, forward_backward_together};

use crate::config::{DeadGroups, TrainerConfig};
use crate::datum::check_alike;
use crate::micro_batch::{clusters, tokens};
use crate::out_of_memory::retried;
use crate::pass::{Call, Passed, Passes};
use crate::scores::{Budget, DatumScores, score_datums};
use crate::state::{self, TrainerState};
use crate::whole_batch::{Linear, linear_datums};
use crate::{Datum, TrainError, step_totals};
use posttrain_collective::{Alone, Collective, gather};
use posttrain_kernel::Workers;
use posttrain_lora::{Adapter, AdapterView, LoraConfig};
use posttrain_loss::{LossMetrics, Objective, Scope, StepTotals};
use posttrain_model::{Checkpoint, Decoder};
use posttrain_optim::{AdamParams, AdamW};
use posttrain_rollout::{PolicySnapshot, derive_seed};
use posttrain_store::replace_folder;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// What a batch's passes gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForwardBackward {
    /// The sum of the batch's losses, as the objective weighs them.
    pub loss_sum: f64,
    /// What the gradient has been divided by: the objective's denominator of the step's totals.
    pub denominator: f64,
    /// How far the policy is from the one that sampled, and what else the objective tells.
    pub metrics: LossMetrics,
    /// The log-probabilities and entropies that the passes came by.
    pub scores: DatumScores,
    /// Tokens that went through the model, what datums share counted once per micro-batch.
    pub computed_tokens: usize,
    /// Those of them whose forward pass was the sampler's ([`Datum::recording`]).
    pub recorded_tokens: usize,
    /// Micro-batches.
    pub micro_batches: usize,
}

impl ForwardBackward {
    /// The loss: the sum over the denominator.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.denominator
    }

    /// Adds what another part of the same step gave. Its datums come after these.
    pub fn merge(&mut self, other: Self) {
        if self.computed_tokens == 0 {
            self.denominator = other.denominator;
        }
        self.loss_sum += other.loss_sum;
        self.metrics.merge(&other.metrics);
        self.scores.append(other.scores);
        self.computed_tokens += other.computed_tokens;
        self.recorded_tokens += other.recorded_tokens;
        self.micro_batches += other.micro_batches;
    }
}

/// What one optimizer step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimStep {
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
    /// Whether it was clipped.
    pub clipped: bool,
}

/// An adapter in training on a frozen base. See the crate's documentation for the primitives.
///
/// Any number of trainers stand on one base, each with an adapter of its own rank, alpha and
/// targets, its own optimizer, its own step and its own seed. They are trained in any order, and
/// dropped while others go on.
#[derive(Debug)]
pub struct Trainer {
    model: Arc<Decoder>,
    adapter: Adapter,
    /// The reference policy's adapter; without one the base is the reference.
    reference: Option<Arc<AdapterView>>,
    optimizer: AdamW,
    config: TrainerConfig,
    /// Those that this trainer is one of.
    ranks: Arc<dyn Collective>,
    seed: u64,
    policy_version: u64,
    /// The frozen copy of the present version, once somebody has asked for it.
    snapshot: OnceCell<PolicySnapshot>,
    has_gradient: bool,
    /// Micro-batches whose gradients have been collected since the last step.
    micro_batches: u64,
    gradients_checked: bool,
}

impl Trainer {
    /// A trainer of a fresh adapter, initialized from `seed`.
    ///
    /// # Errors
    /// [`TrainError::Config`] or [`TrainError::Lora`] names a field that is out of range.
    pub fn new(
        model: Arc<Decoder>,
        lora: &LoraConfig,
        config: TrainerConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let adapter = Adapter::init(
            lora,
            model.modules(),
            derive_seed(seed, "adapter", 0, 0),
            model.device(),
        )?;
        Self::with_adapter(model, adapter, config, seed)
    }

    /// A trainer that goes on from an adapter's weights with a fresh optimizer: a warm start, not a
    /// resumption.
    ///
    /// # Errors
    /// [`TrainError::Config`] names a field that is out of range.
    pub fn with_adapter(
        model: Arc<Decoder>,
        adapter: Adapter,
        config: TrainerConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        check_dropout(&model, &adapter)?;
        let optimizer = AdamW::new(adapter.parameters())?;

        Ok(Self {
            model,
            adapter,
            reference: None,
            optimizer,
            config,
            ranks: Arc::new(Alone),
            seed,
            policy_version: 0,
            snapshot: OnceCell::new(),
            has_gradient: false,
            micro_batches: 0,
            gradients_checked: false,
        })
    }

    /// Takes an adapter's frozen copy for the reference policy, in the base's place: what a policy
    /// was when a run of preference optimization, or one with a penalty for moving away, began.
    #[must_use]
    pub fn with_reference(mut self, adapter: impl Into<Arc<AdapterView>>) -> Self {
        self.reference = Some(adapter.into());
        self
    }

    /// The frozen base.
    pub fn model(&self) -> &Arc<Decoder> {
        &self.model
    }

    /// The adapter in training.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// How its passes are made.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// The version of the policy: the number of optimizer steps that made it.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// Scores a batch's targets under the present policy. No gradient flows, and none that was
    /// collected is touched.
    ///
    /// # Errors
    /// [`TrainError::Datum`] names the field of a datum that does not fit;
    /// [`TrainError::OutOfMemory`], [`TrainError::Model`] or [`TrainError::Torch`] when memory or
    /// the device fails.
    pub fn forward(&self, datums: &[Datum]) -> Result<DatumScores, TrainError> {
        let snapshot = self.snapshot()?;
        self.scores(Some(&*snapshot.adapter), datums)
    }

    /// Scores a batch's targets under the reference policy: the base without the adapter, or what
    /// [`Trainer::with_reference`] was given. A LoRA policy needs no second model for it. No gradient
    /// flows.
    ///
    /// ```
    /// use posttrain_lora::LoraConfig;
    /// use posttrain_model::{Decoder, ModelConfig};
    /// use posttrain_train::{Datum, Trainer, TrainerConfig};
    /// use std::sync::Arc;
    ///
    /// let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
    /// let trainer = Trainer::new(model, &LoraConfig::default(), TrainerConfig::default(), 7)?;
    /// let datums = [Datum::completion(&[1, 2, 3], &[4, 5])];
    /// // A fresh adapter adds nothing: policy and reference are one.
    /// assert_eq!(trainer.forward_reference(&datums)?, trainer.forward(&datums)?);
    /// # Ok::<(), posttrain_train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Trainer::forward`].
    pub fn forward_reference(&self, datums: &[Datum]) -> Result<DatumScores, TrainError> {
        self.scores(self.reference.as_deref(), datums)
    }

    /// Scores a batch's targets under the base without any adapter: a teacher that reads another
    /// prompt than the policy does. No gradient flows.
    ///
    /// # Errors
    /// Those of [`Trainer::forward`].
    pub fn forward_base(&self, datums: &[Datum]) -> Result<DatumScores, TrainError> {
        self.scores(None, datums)
    }

    fn scores(
        &self,
        adapter: Option<&AdapterView>,
        datums: &[Datum],
    ) -> Result<DatumScores, TrainError> {
        self.check_each(datums)?;
        let own = &datums[self.own(datums, 1)];
        let workers = self.workers(tokens(&clusters(own, 1, |_| true)));
        let scores = retried(self.config.micro_batch_tokens, |tokens| {
            score_datums(&self.model, adapter, own, Budget { tokens, workers })
        });
        let mut all = DatumScores::default();
        gather(&*self.ranks, scores)?.into_iter().for_each(|scores| all.append(scores));
        Ok(all)
    }

    /// Adds the gradient of a batch's objective to the adapter's, the batch being a whole step: its
    /// own totals are what the objective divides by.
    ///
    /// Gradients add up over calls until [`Trainer::optim_step`]. Passes are cut by the token
    /// budget; `k` of them give the gradient of one, and where memory does not suffice, half the
    /// budget is tried once. At the first batch that moves anything, it is checked that a gradient
    /// reached every layer.
    ///
    /// # Errors
    /// [`TrainError::Datum`] names the field of a datum that does not fit; [`TrainError::Loss`] for
    /// values that are not finite, or what the objective lacks; [`TrainError::Lora`] where a layer
    /// got no gradient; [`TrainError::OutOfMemory`] when memory did not suffice for half the budget
    /// either; [`TrainError::Model`] or [`TrainError::Torch`] when the device fails. Of a call that
    /// fails nothing stays in the gradients.
    pub fn forward_backward(
        &mut self,
        datums: &[Datum],
        objective: &dyn Objective,
    ) -> Result<ForwardBackward, TrainError> {
        self.check(datums)?;
        self.forward_backward_of(datums, objective, &step_totals(datums)?)
    }

    /// [`Trainer::forward_backward`] of a part of a step, whose `totals` are known: the gradients
    /// of the parts add up to that of the whole step. (Where they are not known yet, an objective
    /// that sums, and [`AdamParams::gradient_scale`] in the end, come to the same.)
    ///
    /// # Errors
    /// Those of [`Trainer::forward_backward`].
    pub fn forward_backward_of(
        &mut self,
        datums: &[Datum],
        objective: &dyn Objective,
        totals: &StepTotals,
    ) -> Result<ForwardBackward, TrainError> {
        objective.validate()?;
        self.check(datums)?;

        let outcome = match objective.scope() {
            Scope::Batch => self.whole_batch(datums, objective, totals),
            Scope::Pair if !datums.len().is_multiple_of(2) => {
                let expected = "pairs: a chosen datum, then its rejected one".to_owned();
                let got = format!("{} datums", datums.len());
                return Err(TrainError::Datum {
                    index: datums.len() - 1,
                    field: "batch",
                    expected,
                    got,
                });
            }
            _ => self.passes(datums, objective, totals),
        }?;
        self.collected(datums, objective, &outcome)?;
        Ok(outcome)
    }

    /// Notes that the gradients of a batch have been collected.
    fn collected(
        &mut self,
        datums: &[Datum],
        objective: &dyn Objective,
        outcome: &ForwardBackward,
    ) -> Result<(), TrainError> {
        self.has_gradient = true;
        self.micro_batches += outcome.micro_batches as u64;
        // A text of one token attends to itself alone, whatever its query and key are: they have no
        // gradient then.
        let per_unit = if objective.scope() == Scope::Pair { 2 } else { 1 };
        let own = &datums[self.own(datums, per_unit)];
        let attends =
            own.iter().any(|datum| datum.has_signal() && datum.positions.last() > Some(&0));
        if !self.gradients_checked {
            let checked = self.check_gradients(attends);
            self.gradients_checked = gather(&*self.ranks, checked)?.contains(&true);
        }
        Ok(())
    }

    /// Checks that a gradient reached every layer, where there is one; whether there is.
    fn check_gradients(&self, attends: bool) -> Result<bool, TrainError> {
        let there = attends && self.adapter.has_gradients()?;
        if there {
            self.adapter.check_gradients()?;
        }
        Ok(there)
    }

    fn check(&self, datums: &[Datum]) -> Result<(), TrainError> {
        self.check_each(datums)?;
        check_alike(datums)
    }

    fn check_each(&self, datums: &[Datum]) -> Result<(), TrainError> {
        let vocab = self.model.config().vocab_size;
        datums.iter().enumerate().try_for_each(|(index, datum)| datum.check(index, vocab))
    }

    /// What is computed of a batch for an objective that needs one datum, or two, at a time.
    fn call_of<'a>(
        &'a self,
        datums: &'a [Datum],
        objective: &'a dyn Objective,
        totals: &'a StepTotals,
    ) -> Result<Call<'a>, TrainError> {
        let per_unit = if objective.scope() == Scope::Pair { 2 } else { 1 };
        // A batch without any signal is computed all the same: every step measures how far the
        // policies are apart.
        let skip = self.config.dead_groups == DeadGroups::Skip
            && objective.ignores_zero_advantages()
            && datums.iter().any(Datum::has_signal);
        let own = &datums[self.own(datums, per_unit)];
        let clusters = clusters(own, per_unit, |datum| !skip || datum.has_signal());
        let workers = self.workers(tokens(&clusters));
        Ok(Call {
            policy: self.snapshot()?,
            reference: self.reference.as_deref(),
            objective,
            totals,
            dropout: self.adapter.config().dropout,
            seed: self.seed,
            first_mask: self.micro_batches,
            rank: (self.ranks.rank() as u64, self.ranks.size() as u64),
            clusters,
            workers,
            datums: own.len(),
        })
    }

    /// The passes over a call.
    fn passes(
        &self,
        datums: &[Datum],
        objective: &dyn Objective,
        totals: &StepTotals,
    ) -> Result<ForwardBackward, TrainError> {
        let call = self.call_of(datums, objective, totals)?;
        let workers = call.workers;
        let checkpointing = self.config.checkpointing;
        let passes = Passes { model: &self.model, checkpointing, calls: vec![call] };
        let passed = retried(self.config.micro_batch_tokens, |budget| passes.run(budget, workers));
        let (outcome, gradients) = match passed.map(|mut passed| passed.pop()) {
            Ok(Some(Passed { outcome, gradients })) => (Ok(outcome), gradients),
            Ok(None) => (Err(TrainError::NoGradient), Vec::new()),
            Err(error) => (Err(error), Vec::new()),
        };
        // Of a batch that fails, on whatever rank, nothing stays in the adapter.
        let mut all = gather(&*self.ranks, outcome)?.into_iter();
        for gradients in &gradients {
            self.adapter.add_gradients(gradients)?;
        }
        let mut first = all.next().ok_or(TrainError::NoGradient)?;
        all.for_each(|passed| first.merge(passed));
        Ok(first)
    }

    /// The passes of an objective that needs the whole batch at once: its log-probabilities first,
    /// without a gradient, then the objective, then the passes of the linear loss that has the
    /// objective's gradient. Half as much again as one pass.
    fn whole_batch(
        &self,
        datums: &[Datum],
        objective: &dyn Objective,
        totals: &StepTotals,
    ) -> Result<ForwardBackward, TrainError> {
        let scores = self.forward(datums)?;
        let reference =
            if objective.needs_reference() { Some(self.forward_reference(datums)?) } else { None };
        let linear = linear_datums(datums, objective, &scores, reference.as_ref(), totals)?;

        let passes = self.passes(&linear.datums, &Linear::objective(), totals)?;
        Ok(ForwardBackward {
            loss_sum: linear.loss_sum,
            denominator: linear.denominator,
            metrics: linear.metrics,
            scores,
            ..passes
        })
    }

    /// The optimizer's constants for a step at learning rate `lr`, as the trainer's configuration
    /// has them.
    #[must_use]
    pub fn adam_params(&self, lr: f64) -> AdamParams {
        self.config.adam_params(lr)
    }

    /// Applies the gradient with the constants of this step, and clears it. The policy is then a
    /// version further.
    ///
    /// # Errors
    /// [`TrainError::Optim`] for constants out of range, or for a gradient that is not finite,
    /// which leaves weights and moments as they were and clears the gradient;
    /// [`TrainError::NoGradient`] if there is none.
    pub fn optim_step(&mut self, params: &AdamParams) -> Result<OptimStep, TrainError> {
        params.validate()?;
        if !std::mem::take(&mut self.has_gradient) {
            return Err(TrainError::NoGradient);
        }
        self.micro_batches = 0;
        self.reduce_gradients()?;
        let report = self.optimizer.step(params)?;

        self.policy_version += 1;
        self.snapshot = OnceCell::new();
        Ok(OptimStep { grad_norm: report.grad_norm, clipped: report.clipped })
    }

    /// Forgets the gradients that have been collected since the last step.
    pub fn clear_gradients(&mut self) {
        self.optimizer.clear_gradients();
        self.has_gradient = false;
        self.micro_batches = 0;
    }

    /// The present policy for a sampler: a copy of the adapter in the model's kind; the base is
    /// shared. Of one version there is one copy, however often it is asked for.
    ///
    /// # Errors
    /// [`TrainError::Lora`] when memory fails.
    pub fn snapshot(&self) -> Result<PolicySnapshot, TrainError> {
        if let Some(snapshot) = self.snapshot.get() {
            return Ok(snapshot.clone());
        }
        let copy =
            PolicySnapshot::new(self.adapter.snapshot(self.model.kind())?, self.policy_version);
        Ok(self.snapshot.get_or_init(|| copy).clone())
    }

    /// Writes the adapter as a PEFT folder, whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::Store`] or [`TrainError::Lora`] names what could not be written.
    pub fn save_adapter(&self, dir: &Path, base_model: &str) -> Result<(), TrainError> {
        state::save_adapter(&self.adapter, dir, base_model)
    }

    /// Writes the base with the adapter folded in as a folder in the Hugging Face layout, whole or
    /// not at all, for whoever serves neither this workspace's models nor PEFT's adapters.
    /// `checkpoint` is what the base was read from.
    ///
    /// # Errors
    /// [`TrainError::Model`] for a quantized base; [`TrainError::Io`] or [`TrainError::Model`]
    /// names what could not be written.
    pub fn export_merged(&self, dir: &Path, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        replace_folder(dir, |fresh| {
            Ok(checkpoint.export_merged(&self.model, &self.adapter, fresh)?)
        })
    }

    /// Writes everything that going on needs into a folder: adapter, moments, counters. The caller
    /// makes it atomic together with what else belongs to the moment (see [`replace_folder`]).
    ///
    /// # Errors
    /// [`TrainError::Store`] or [`TrainError::Lora`] names what could not be written.
    pub fn save_state(&self, dir: &Path) -> Result<(), TrainError> {
        state::save(dir, &self.adapter, &self.optimizer, self.policy_version)
    }

    /// A copy of everything that going on needs, for a thread that writes it while this trainer goes
    /// on.
    ///
    /// # Errors
    /// [`TrainError::Lora`] or [`TrainError::Optim`] when memory fails.
    pub fn state(&self) -> Result<TrainerState, TrainError> {
        let adapter = self.adapter.copied()?;
        let optimizer = self.optimizer.copied(adapter.parameters())?;
        Ok(TrainerState::new(adapter, optimizer, self.policy_version))
    }

    /// Takes up a state that [`Trainer::save_state`] wrote. What follows is what would have
    /// followed then.
    ///
    /// # Errors
    /// [`TrainError::State`], [`TrainError::Optim`] or [`TrainError::Lora`] names what does not
    /// fit; the trainer is then as it was.
    pub fn load_state(&mut self, dir: &Path) -> Result<(), TrainError> {
        let adapter = self.read_adapter(&state::adapter_folder(dir))?;
        let (optimizer, policy_version) = state::load_optimizer(dir, &adapter)?;
        self.begin_from(adapter, optimizer, policy_version);
        Ok(())
    }

    /// Writes the gradient that is collected and not applied yet beside a saved state; nothing where
    /// there is none.
    ///
    /// # Errors
    /// [`TrainError::Store`] or [`TrainError::Tensor`] names what could not be written.
    pub fn save_gradient(&self, dir: &Path) -> Result<(), TrainError> {
        if !self.has_gradient {
            return Ok(());
        }
        state::save_gradient(dir, &self.adapter, self.micro_batches)
    }

    /// Takes up the gradient that [`Trainer::save_gradient`] wrote beside the state that the trainer
    /// is in; whether there was one.
    ///
    /// # Errors
    /// [`TrainError::State`] names a tensor that is missing or has another shape.
    pub fn load_gradient(&mut self, dir: &Path) -> Result<bool, TrainError> {
        let Some(micro_batches) = state::load_gradient(dir, &self.adapter)? else {
            return Ok(false);
        };
        self.has_gradient = true;
        self.micro_batches = micro_batches;
        Ok(true)
    }

    /// Takes up the weights of a PEFT folder with a fresh optimizer, as version 0: a warm start.
    ///
    /// # Errors
    /// [`TrainError::State`] or [`TrainError::Lora`] names what does not fit; the trainer is then
    /// as it was.
    pub fn load_weights(&mut self, peft: &Path) -> Result<(), TrainError> {
        let adapter = self.read_adapter(peft)?;
        let optimizer = AdamW::new(adapter.parameters())?;
        self.begin_from(adapter, optimizer, 0);
        Ok(())
    }

    /// An adapter that has the layers and ranks of the present one.
    fn read_adapter(&self, path: &Path) -> Result<Adapter, TrainError> {
        let loaded = self.model.load_adapter(path)?;
        let own = self.adapter.parameters();
        let read = loaded.parameters();
        let differs = |((own, a), (read, b)): (&(String, tch::Tensor), &(String, tch::Tensor))| {
            own != read || a.size() != b.size()
        };
        if own.len() != read.len() || own.iter().zip(&read).any(differs) {
            return Err(TrainError::State {
                path: path.into(),
                reason: "adapts other layers, or in another rank".into(),
            });
        }
        Ok(loaded)
    }

    fn begin_from(&mut self, adapter: Adapter, optimizer: AdamW, policy_version: u64) {
        self.adapter = adapter;
        self.optimizer = optimizer;
        self.policy_version = policy_version;
        self.snapshot = OnceCell::new();
        self.has_gradient = false;
        self.micro_batches = 0;
    }

    /// How many threads `tokens` tokens are worth.
    fn workers(&self, tokens: usize) -> usize {
        if self.model.device() != Device::Cpu {
            return 1;
        }
        match self.config.workers {
            Workers::Count(count) => count.max(1),
            Workers::Auto => {
                (tokens / TOKENS_PER_WORKER).clamp(1, tch::get_num_threads().max(1) as usize)
            }
        }
    }
}

/// Tokens below which another worker costs more than it brings: each reads all weights and adds up
/// gradients of its own.
const TOKENS_PER_WORKER: usize = 256;

/// The fused pass over the head drops nothing, so an adapter on it cannot have dropout.
fn check_dropout(model: &Decoder, adapter: &Adapter) -> Result<(), TrainError> {
    let on_head = model.head_module().is_some_and(|module| adapter.pair(module).is_some());
    let dropout = adapter.config().dropout;
    let expected = "0 with an adapter on the head, whose fused pass drops nothing";
    TrainError::check("lora.dropout", dropout == 0.0 || !on_head, expected, &dropout)
}
