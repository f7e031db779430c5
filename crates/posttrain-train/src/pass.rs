//! Forward and backward passes over a batch's micro-batches, on as many threads as there are
//! workers.

use crate::config::GradientCheckpointing;
use crate::micro_batch::{Cluster, MicroBatch, Scored, distribute, micro_batches, pack, tokens};
use crate::scores::{DatumScores, head, score_rows};
use crate::{ForwardBackward, TrainError};
use posttrain_kernel::on_workers;
use posttrain_lora::{AdapterGradients, AdapterView, RowAdapters, Segment};
use posttrain_loss::{LossBatch, Objective, Step, StepTotals, TokenAdvantages};
use posttrain_model::{Decoder, Keep, ModelError, RecordedToken, Tape};
use posttrain_rollout::{PolicySnapshot, derive_seed};
use tch::Tensor;

/// A call of one trainer: what every pass over its datums needs to know.
pub(crate) struct Call<'a> {
    pub policy: PolicySnapshot,
    /// The reference policy's adapter; without one the base is the reference.
    pub reference: Option<&'a AdapterView>,
    pub objective: &'a dyn Objective,
    pub totals: &'a StepTotals,
    /// Of LoRA's dropout.
    pub dropout: f64,
    /// What the dropout's masks are drawn from, together with the policy's version.
    pub seed: u64,
    /// Micro-batches of the step that earlier calls have made: each has a dropout mask of its own.
    pub first_mask: u64,
    /// This rank, and how many there are: their masks differ, too.
    pub rank: (u64, u64),
    /// What is computed of its batch.
    pub clusters: Vec<Cluster<'a>>,
    /// How many threads that is worth.
    pub workers: usize,
    /// How many datums the whole batch has.
    pub datums: usize,
}

/// Passes over the datums of one call, or of several side by side.
pub(crate) struct Passes<'a> {
    pub model: &'a Decoder,
    pub checkpointing: GradientCheckpointing,
    pub calls: Vec<Call<'a>>,
}

/// A micro-batch of the call with an index, and what its dropout's mask is drawn from.
struct Share<'a> {
    call: usize,
    micro: MicroBatch<'a>,
    seed: u64,
}

/// Shares, of one call each, that go through the model together.
type Pass<'a> = Vec<Share<'a>>;

/// What a call's passes gave.
pub(crate) struct Passed {
    pub outcome: ForwardBackward,
    pub gradients: Vec<AdapterGradients>,
}

impl Call<'_> {
    /// Tokens that a pass over all of it computes.
    pub fn tokens(&self) -> usize {
        tokens(&self.clusters)
    }

    /// What the dropout's mask of a step's micro-batch is drawn from.
    fn mask_seed(&self, index: u64) -> u64 {
        let (rank, ranks) = self.rank;
        derive_seed(self.seed, "dropout", self.policy.version, index * ranks + rank)
    }
}

impl<'a> Passes<'a> {
    /// What each call's micro-batches gave: passes of at most `budget` tokens, on `workers`
    /// threads. A call is cut as it would be alone; a pass takes a micro-batch of as many calls as
    /// fit.
    pub fn run(&self, budget: usize, workers: usize) -> Result<Vec<Passed>, TrainError> {
        let mut passed: Vec<Passed> = self.calls.iter().map(Passed::none).collect();
        let jobs = self.jobs(budget, workers, &mut passed);
        for worked in on_workers(jobs, |job| self.work(&job), || ()) {
            for (passed, worked) in passed.iter_mut().zip(worked?) {
                passed.outcome.add(worked.outcome);
                passed.gradients.extend(worked.gradients);
            }
        }
        Ok(passed)
    }

    /// Every worker's passes.
    fn jobs(&self, budget: usize, workers: usize, passed: &mut [Passed]) -> Vec<Vec<Pass<'a>>> {
        let mut shares = Vec::new();
        for (call, (of, passed)) in self.calls.iter().zip(passed).enumerate() {
            let batches = micro_batches(&of.clusters, budget, of.workers);
            passed.outcome.micro_batches = batches.len();
            let of_index = |(micro, index)| Share { call, micro, seed: of.mask_seed(index) };
            shares.extend(batches.into_iter().zip(of.first_mask..).map(of_index));
        }
        let loads = distribute(shares, workers, |share| share.micro.tokens());
        loads.into_iter().map(|load| together(load, budget)).collect()
    }

    fn work(&self, job: &[Pass]) -> Result<Vec<Passed>, TrainError> {
        let mut passed: Vec<Passed> = self.calls.iter().map(Passed::none).collect();
        let mut sums: Vec<AdapterGradients> =
            self.calls.iter().map(|_| AdapterGradients::default()).collect();
        for pass in job {
            self.pass(pass, &mut passed, &mut sums)?;
        }
        for (passed, sums) in passed.iter_mut().zip(sums) {
            passed.gradients.push(sums);
        }
        Ok(passed)
    }

    /// One pass, forward and backward.
    fn pass(
        &self,
        shares: &[Share],
        passed: &mut [Passed],
        sums: &mut [AdapterGradients],
    ) -> Result<(), TrainError> {
        let model = self.model;
        let batches: Vec<&MicroBatch> = shares.iter().map(|share| &share.micro).collect();
        let (packing, scored) = pack(&batches)?;
        let views: Vec<AdapterView> = shares.iter().map(|share| self.view(share)).collect();
        let segments = views
            .iter()
            .zip(&scored)
            .map(|(view, scored)| Segment { rows: scored.tokens as i64, adapter: Some(view) });
        let adapters = RowAdapters::segments(segments.collect());
        let keep = match self.checkpointing {
            GradientCheckpointing::Off => Keep::Everything,
            GradientCheckpointing::Blocks => Keep::Inputs,
        };

        let recorded = self.recorded(shares);
        let (all, tape) = match &recorded {
            Some(tokens) => Tape::of_recorded(model, adapters, &packing, tokens)?,
            None => Tape::forward(model, adapters, &packing, keep)?,
        };

        let mut by_hidden = all.f_zeros_like()?;
        // Each share's gradients, where the tape adds to them.
        let mut own: Vec<AdapterGradients> =
            shares.iter().map(|share| std::mem::take(&mut sums[share.call])).collect();
        for (((share, scored), view), own) in shares.iter().zip(&scored).zip(&views).zip(&mut own) {
            let outcome = &mut passed[share.call].outcome;
            let rows = on_device(&scored.rows, model)?;
            let hidden = all.f_index_select(0, &rows).map_err(ModelError::from)?;
            let by_scored = self.score(share, (&hidden, scored), view, (outcome, own))?;

            // A prompt's last row predicts the first token of every completion: their gradients
            // meet there.
            let _ = by_hidden.f_index_add_(0, &rows, &by_scored.f_to_kind(all.kind())?)?;
            outcome.computed_tokens += scored.tokens;
            outcome.recorded_tokens += recorded.as_ref().map_or(0, Vec::len);
        }
        tape.backward(&by_hidden, &mut own)?;

        for (share, own) in shares.iter().zip(own) {
            sums[share.call] = own;
        }
        Ok(())
    }

    /// A share's adapter.
    fn view(&self, share: &Share) -> AdapterView {
        let call = &self.calls[share.call];
        (*call.policy.adapter).clone().with_dropout(call.dropout, share.seed)
    }

    /// What the sampler computed of a pass, where it has kept all of it.
    fn recorded<'s>(&self, shares: &'s [Share]) -> Option<Vec<&'s RecordedToken>> {
        let [share] = shares else { return None };
        let call = &self.calls[share.call];
        // Dropout is for training alone: what was sampled, was sampled without.
        if call.dropout > 0.0 { None } else { share.micro.recorded(&call.policy.adapter) }
    }

    /// The head and the objective of a share: the gradient by its rows `hidden`.
    fn score(
        &self,
        share: &Share,
        (hidden, scored): (&Tensor, &Scored),
        view: &AdapterView,
        (outcome, gradients): (&mut ForwardBackward, &mut AdapterGradients),
    ) -> Result<Tensor, TrainError> {
        let model = self.model;
        let micro = &share.micro;
        let Call { objective, totals, reference, .. } = self.calls[share.call];

        // The reference policy's log-probabilities need no second model.
        let reference = || Ok(score_rows(model, reference, micro)?.0);
        let fields = Fields::of(micro, objective, reference)?;
        let step = Step { objective, batch: &fields.batch(), totals };
        let targets = target_tensor(&scored.targets, micro, model)?;
        let step = head(model, Some(view), micro.temperature())?.step(hidden, &targets, step)?;
        if let (Some(module), Some(by)) = (model.head_module(), &step.gradients.adapter) {
            gradients.add(module, &by.a, &by.b)?;
        }

        outcome.loss_sum += step.outcome.loss_sum;
        outcome.denominator = step.outcome.denominator;
        outcome.metrics.merge(&step.outcome.metrics);
        outcome.scores.take_from(micro, &step.scores.to_vecs()?);
        Ok(step.gradients.hidden)
    }
}

/// Lays a worker's shares into passes of at most `budget` tokens, with one of each call at most.
fn together(shares: Vec<Share>, budget: usize) -> Vec<Pass> {
    let mut passes: Vec<(usize, Pass)> = Vec::new();
    for share in shares {
        let tokens = share.micro.tokens();
        let takes = |(used, pass): &&mut (usize, Pass)| {
            *used + tokens <= budget && pass.iter().all(|other| other.call != share.call)
        };
        match passes.iter_mut().find(takes) {
            Some((used, pass)) => {
                *used += tokens;
                pass.push(share);
            }
            None => passes.push((tokens, vec![share])),
        }
    }
    passes.into_iter().map(|(_, pass)| pass).collect()
}

impl Passed {
    fn none(call: &Call) -> Self {
        Self { outcome: ForwardBackward::none(call.datums), gradients: Vec::new() }
    }
}

/// Token ids or rows on the model's device.
pub(crate) fn on_device(values: &[i64], model: &Decoder) -> Result<Tensor, TrainError> {
    Ok(Tensor::f_from_slice(values)?.f_to_device(model.device())?)
}

/// The targets as the head takes them: `[N]`, or `[N, K]` with several per position.
pub(crate) fn target_tensor(
    targets: &[i64],
    micro: &MicroBatch,
    model: &Decoder,
) -> Result<Tensor, TrainError> {
    let targets = on_device(targets, model)?;
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
