//! Forward and backward passes over a batch's micro-batches, on as many threads as there are
//! workers.

use crate::config::{GradientCheckpointing, TrainerConfig};
use crate::micro_batch::{MicroBatch, Packed, distribute};
use crate::scores::{DatumScores, head, score_rows};
use crate::{ForwardBackward, TrainError};
use posttrain_kernel::on_workers;
use posttrain_lora::{AdapterGradients, AdapterView};
use posttrain_loss::{LossBatch, Objective, Step, StepTotals, TokenAdvantages};
use posttrain_model::{Decoder, Keep, ModelError, Tape};
use posttrain_rollout::{PolicySnapshot, derive_seed};
use tch::Tensor;

/// What every pass of a call needs to know.
pub(crate) struct Passes<'a> {
    pub model: &'a Decoder,
    pub policy: &'a PolicySnapshot,
    /// The reference policy's adapter; without one the base is the reference.
    pub reference: Option<&'a AdapterView>,
    pub objective: &'a dyn Objective,
    pub totals: &'a StepTotals,
    pub config: &'a TrainerConfig,
    /// Of LoRA's dropout.
    pub dropout: f64,
    /// What the dropout's masks are drawn from, together with the policy's version.
    pub seed: u64,
    /// Micro-batches of the step that earlier calls have made: each has a dropout mask of its own.
    pub first_mask: u64,
    /// This rank, and how many there are: their masks differ, too.
    pub rank: (u64, u64),
}

/// One worker's share: micro-batches, and a seed for each.
struct Job<'a> {
    batches: Vec<(MicroBatch<'a>, u64)>,
}

/// What a worker's passes gave.
struct Passed {
    outcome: ForwardBackward,
    gradients: AdapterGradients,
}

impl Passes<'_> {
    /// The gradients of all micro-batches, one of each worker. `datums` is how many the whole batch
    /// has.
    pub fn run(
        &self,
        batches: Vec<MicroBatch>,
        workers: usize,
        datums: usize,
    ) -> Result<(ForwardBackward, Vec<AdapterGradients>), TrainError> {
        let mut outcome = ForwardBackward::none(datums);
        outcome.micro_batches = batches.len();

        let mut next = self.first_mask..;
        let mut seeded = |batch| {
            let index = next.next().unwrap_or_default();
            let place = index * self.rank.1 + self.rank.0;
            (batch, derive_seed(self.seed, "dropout", self.policy.version, place))
        };
        let loads = distribute(batches, workers).into_iter();
        let jobs: Vec<Job> = loads
            .map(|load| Job { batches: load.into_iter().map(&mut seeded).collect() })
            .collect();
        let results = on_workers(jobs, |job| self.work(&job, datums), || ());

        let mut gradients = Vec::new();
        for passed in results.into_iter().collect::<Result<Vec<_>, _>>()? {
            outcome.add(passed.outcome);
            gradients.push(passed.gradients);
        }
        Ok((outcome, gradients))
    }

    fn work(&self, job: &Job, datums: usize) -> Result<Passed, TrainError> {
        let mut passed = Passed {
            outcome: ForwardBackward::none(datums),
            gradients: AdapterGradients::default(),
        };
        for (batch, seed) in &job.batches {
            let view = (*self.policy.adapter).clone().with_dropout(self.dropout, *seed);
            self.pass(&view, batch, &mut passed)?;
        }
        Ok(passed)
    }

    /// One micro-batch, forward and backward.
    fn pass(
        &self,
        view: &AdapterView,
        micro: &MicroBatch,
        passed: &mut Passed,
    ) -> Result<(), TrainError> {
        let model = self.model;
        let packed = micro.pack()?;
        let keep = match self.config.checkpointing {
            GradientCheckpointing::Off => Keep::Everything,
            GradientCheckpointing::Blocks => Keep::Inputs,
        };

        // Dropout is for training alone: what was sampled, was sampled without.
        let recorded = if view.drops() { None } else { micro.recorded(&self.policy.adapter) };
        let (all, tape) = match &recorded {
            Some(tokens) => Tape::of_recorded(model, view, &packed.packing, tokens)?,
            None => Tape::forward(model, view, &packed.packing, keep)?,
        };
        let rows = on_device(&packed.rows, model)?;
        let hidden = all.f_index_select(0, &rows).map_err(ModelError::from)?;
        let targets = target_tensor(&packed, micro, model)?;

        let fields = Fields::of(micro, self.objective, || self.reference(micro, &packed))?;
        let head = head(model, Some(view), micro.temperature())?;
        let step = Step { objective: self.objective, batch: &fields.batch(), totals: self.totals };
        let scored = head.step(&hidden, &targets, step)?;

        // A prompt's last row predicts the first token of every completion: their gradients meet
        // there.
        let by_scored = scored.gradients.hidden.f_to_kind(all.kind())?;
        let by_hidden = all.f_zeros_like()?.f_index_add_(0, &rows, &by_scored)?;
        tape.backward(&by_hidden, &mut passed.gradients)?;
        if let (Some(module), Some(by)) = (model.head_module(), &scored.gradients.adapter) {
            passed.gradients.add(module, &by.a, &by.b)?;
        }

        let outcome = &mut passed.outcome;
        outcome.loss_sum += scored.outcome.loss_sum;
        outcome.denominator = scored.outcome.denominator;
        outcome.metrics.merge(&scored.outcome.metrics);
        outcome.computed_tokens += packed.packing.tokens().len();
        outcome.recorded_tokens += recorded.map_or(0, |tokens| tokens.len());
        outcome.scores.take_from(micro, &scored.scores.to_vecs()?);
        Ok(())
    }

    /// The reference policy's log-probabilities, which need no second model.
    fn reference(&self, micro: &MicroBatch, packed: &Packed) -> Result<Vec<f32>, TrainError> {
        let (logprobs, _) = score_rows(self.model, self.reference, packed, micro)?;
        Ok(logprobs)
    }
}

/// Token ids or rows on the model's device.
pub(crate) fn on_device(values: &[i64], model: &Decoder) -> Result<Tensor, TrainError> {
    Ok(Tensor::f_from_slice(values)?.f_to_device(model.device())?)
}

/// The targets as the head takes them: `[N]`, or `[N, K]` with several per position.
pub(crate) fn target_tensor(
    packed: &Packed,
    micro: &MicroBatch,
    model: &Decoder,
) -> Result<Tensor, TrainError> {
    let targets = on_device(&packed.targets, model)?;
    match micro.targets_per_position() as i64 {
        1 => Ok(targets),
        several => Ok(targets.f_view([-1, several])?),
    }
}

/// The flat fields of a micro-batch, in packed order.
pub(crate) struct Fields {
    lengths: Vec<usize>,
    weights: Option<Vec<f32>>,
    sampling_logprobs: Option<Vec<f32>>,
    old_logprobs: Option<Vec<f32>>,
    advantages: Option<Vec<f32>>,
    reference_logprobs: Option<Vec<f32>>,
}

impl Fields {
    /// Gathers the fields that all datums have; weights that only some have are 1 elsewhere. Where
    /// the objective needs a reference that a datum lacks, `reference` gives all of it.
    pub fn of(
        micro: &MicroBatch,
        objective: &dyn Objective,
        reference: impl FnOnce() -> Result<Vec<f32>, TrainError>,
    ) -> Result<Self, TrainError> {
        let gather = |of: fn(&crate::Datum) -> Option<&Vec<f32>>| -> Option<Vec<f32>> {
            let mut all = Vec::new();
            for placed in micro.datums() {
                all.extend_from_slice(of(placed.datum)?);
            }
            Some(all)
        };

        let mut reference_logprobs = gather(|datum| datum.reference_logprobs.as_ref());
        if objective.needs_reference() && reference_logprobs.is_none() {
            reference_logprobs = Some(reference()?);
        }
        Ok(Self {
            lengths: micro.datums().map(|placed| placed.datum.targets.len()).collect(),
            weights: weights(micro),
            sampling_logprobs: gather(|datum| datum.sampling_logprobs.as_ref()),
            old_logprobs: gather(|datum| datum.old_logprobs.as_ref()),
            advantages: gather(|datum| datum.advantages.as_ref()),
            reference_logprobs,
        })
    }

    pub fn batch(&self) -> LossBatch<'_> {
        LossBatch {
            weights: self.weights.as_deref(),
            sampling_logprobs: self.sampling_logprobs.as_deref(),
            old_logprobs: self.old_logprobs.as_deref(),
            advantages: self.advantages.as_deref().map(TokenAdvantages::PerToken),
            reference_logprobs: self.reference_logprobs.as_deref(),
            sequence_lengths: &self.lengths,
        }
    }
}

fn weights(micro: &MicroBatch) -> Option<Vec<f32>> {
    if micro.datums().all(|placed| placed.datum.weights.is_none()) {
        return None;
    }
    let mut all = Vec::new();
    for placed in micro.datums() {
        match &placed.datum.weights {
            Some(weights) => all.extend_from_slice(weights),
            None => all.resize(all.len() + placed.datum.targets.len(), 1.0),
        }
    }
    Some(all)
}

impl ForwardBackward {
    pub(crate) fn none(datums: usize) -> Self {
        Self {
            loss_sum: 0.0,
            denominator: 1.0,
            metrics: Default::default(),
            scores: DatumScores::of(datums),
            computed_tokens: 0,
            recorded_tokens: 0,
            micro_batches: 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        if other.computed_tokens > 0 {
            self.denominator = other.denominator;
        }
        self.metrics.merge(&other.metrics);
        self.scores.merge(other.scores);
        self.computed_tokens += other.computed_tokens;
        self.recorded_tokens += other.recorded_tokens;
    }
}
