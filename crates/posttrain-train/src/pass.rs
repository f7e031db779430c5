//! Forward and backward passes over a step's micro-batches, on as many threads as there are workers.

use crate::TrainError;
use crate::config::{GradientCheckpointing, TrainerConfig};
use crate::logprobs::{head, score_sequences};
use crate::micro_batch::{MicroBatch, deal};
use crate::seed::derive_seed;
use crate::trainer::ForwardBackward;
use posttrain_kernel::on_workers;
use posttrain_lora::{Adapter, AdapterGradients, AdapterView};
use posttrain_loss::{PolicyBatch, PolicyMetrics, PolicyObjective, PolicyStep, StepTotals, TokenAdvantages};
use posttrain_model::{Decoder, Keep, Packing, Tape};
use tch::Tensor;

/// What every pass of a step needs to know.
pub(crate) struct Passes<'a> {
    pub objective: &'a PolicyObjective,
    pub totals: &'a StepTotals,
    pub config: &'a TrainerConfig,
    /// The policy's version, which the dropout's masks depend on.
    pub version: u64,
}

/// One worker's share.
struct Job<'a> {
    model: Decoder,
    view: AdapterView,
    batches: Vec<MicroBatch<'a>>,
    /// A seed for each micro-batch.
    seeds: Vec<u64>,
}

impl Passes<'_> {
    /// Adds the gradients of all micro-batches to the adapter's.
    pub fn run(
        &self,
        model: &Decoder,
        adapter: &Adapter,
        batches: Vec<MicroBatch>,
        workers: usize,
        seed: u64,
    ) -> Result<ForwardBackward, TrainError> {
        let mut outcome = ForwardBackward { micro_batches: batches.len(), ..ForwardBackward::none() };
        let view = adapter.snapshot(model.kind())?;
        let mut next = 0..;
        let job = |batches: Vec<_>| Job {
            model: model.share(),
            view: view.share(),
            seeds: next.by_ref().take(batches.len()).map(|i| derive_seed(seed, "dropout", self.version, i)).collect(),
            batches,
        };
        let jobs: Vec<Job> = deal(batches, workers).into_iter().map(job).collect();
        let dropout = adapter.config().dropout;
        let results = on_workers(jobs, |job| self.work(job, dropout), || ());
        // Of a step that fails, nothing stays in the adapter.
        for (passed, gradients) in results.into_iter().collect::<Result<Vec<_>, _>>()? {
            outcome.add(&passed);
            adapter.add_gradients(&gradients)?;
        }
        Ok(outcome)
    }

    fn work(&self, job: Job, dropout: f64) -> Result<(ForwardBackward, AdapterGradients), TrainError> {
        let (mut outcome, mut gradients) = (ForwardBackward::none(), AdapterGradients::default());
        for (batch, seed) in job.batches.iter().zip(job.seeds) {
            let view = job.view.share().with_dropout(dropout, seed);
            self.pass(&job.model, &view, batch, &mut outcome, &mut gradients)?;
        }
        Ok((outcome, gradients))
    }

    /// One micro-batch, forward and backward.
    fn pass(
        &self,
        model: &Decoder,
        view: &AdapterView,
        micro: &MicroBatch,
        outcome: &mut ForwardBackward,
        gradients: &mut AdapterGradients,
    ) -> Result<(), TrainError> {
        let packing = Packing::predicting(&micro.sequences())?;
        let keep = match self.config.checkpointing {
            GradientCheckpointing::Off => Keep::Everything,
            GradientCheckpointing::Blocks => Keep::Inputs,
        };
        // Dropout is for training alone: what was sampled, was sampled without.
        let recorded = if view.drops() { None } else { micro.recorded(self.version) };
        let (all, tape) = match &recorded {
            Some(tokens) => Tape::of_recorded(model, view, &packing, tokens)?,
            None => Tape::forward(model, view, &packing, keep)?,
        };
        let device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(model.device());
        let rows = device(&packing.predicting_rows())?;
        let hidden = all.f_index_select(0, &rows)?;
        let targets = device(packing.targets())?;
        let temperature = self.config.temperature;
        let reference = |_| -> Result<Vec<f32>, TrainError> {
            // The base's own log-probabilities: the reference of a LoRA policy needs no second model.
            Ok(score_sequences(model, None, &packing, temperature)?.to_vecs()?.0)
        };
        let reference = self.objective.kl.map(reference).transpose()?;
        let fields = Fields::of(micro);
        let batch = fields.batch(reference.as_deref());
        let head = head(model, Some(view), temperature)?;
        let step = PolicyStep { objective: self.objective, batch: &batch, totals: self.totals };
        let scored = head.policy_step(&hidden, &targets, step)?;
        // A prompt's last row predicts the first token of every completion: their gradients meet there.
        let by_hidden = all.f_zeros_like()?.f_index_add_(0, &rows, &scored.gradients.hidden.f_to_kind(all.kind())?)?;
        tape.backward(&by_hidden, gradients)?;
        if let (Some(module), Some(by)) = (model.head_module(), &scored.gradients.adapter) {
            gradients.add(module, &by.a, &by.b)?;
        }
        outcome.loss += scored.outcome.loss();
        outcome.metrics.merge(&scored.outcome.metrics);
        outcome.computed_tokens += packing.tokens().len();
        outcome.recorded_tokens += recorded.map_or(0, |tokens| tokens.len());
        Ok(())
    }
}

impl ForwardBackward {
    fn none() -> Self {
        Self { loss: 0.0, metrics: PolicyMetrics::default(), computed_tokens: 0, recorded_tokens: 0, micro_batches: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.metrics.merge(&other.metrics);
        self.computed_tokens += other.computed_tokens;
        self.recorded_tokens += other.recorded_tokens;
    }
}

/// The flat fields of a micro-batch, in packed order.
struct Fields {
    lengths: Vec<usize>,
    sampling_logprobs: Vec<f32>,
    advantages: Vec<f32>,
}

impl Fields {
    fn of(micro: &MicroBatch) -> Self {
        Self {
            lengths: micro.completions().map(|c| c.tokens.len()).collect(),
            sampling_logprobs: micro.completions().flat_map(|c| c.sampling_logprobs.iter().copied()).collect(),
            advantages: micro.completions().map(|c| c.advantage).collect(),
        }
    }

    fn batch<'a>(&'a self, reference_logprobs: Option<&'a [f32]>) -> PolicyBatch<'a> {
        PolicyBatch {
            sequence_lengths: &self.lengths,
            sampling_logprobs: &self.sampling_logprobs,
            advantages: TokenAdvantages::PerSequence(&self.advantages),
            loss_mask: None,
            reference_logprobs,
        }
    }
}
