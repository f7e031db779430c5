//! What a run will hold in memory, from its configuration alone.

use crate::{GradientCheckpointing, TrainerConfig};
use posttrain_lora::LoraConfig;
use posttrain_loss::HeadOptions;
use posttrain_model::{ModelConfig, ModelSize, Quantize};
use std::fmt;
use tch::{Device, Kind};

/// What a plan is made for.
#[derive(Debug, Clone)]
pub struct PlanRequest<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// How its frozen layers are kept.
    pub quantize: Quantize,
    /// The kind that it computes in.
    pub kind: Kind,
    /// Where. On the CPU native attention keeps less than libtorch's.
    pub device: Device,
    /// The adapter.
    pub lora: &'a LoraConfig,
    /// Passes and checkpointing.
    pub trainer: TrainerConfig,
    /// Threads that a step's passes are divided among; 1 on a device.
    pub workers: usize,
    /// Samples decoded side by side.
    pub rows: usize,
    /// Tokens of a prompt, which a group shares.
    pub prompt_tokens: usize,
    /// Tokens of a completion, at most.
    pub completion_tokens: usize,
    /// Completions of a prompt.
    pub group_size: usize,
    /// MiB of activations that sampling may record
    /// ([`posttrain_rollout::EngineConfig::record_mib`]).
    pub record_mib: usize,
}

/// Bytes, by what holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryPlan {
    /// The frozen weights.
    pub weights: u64,
    /// The adapter's pairs in f32, and their gradients.
    pub adapter: u64,
    /// Gradients while they are collected, a sum in f32 for each worker.
    pub collected: u64,
    /// AdamW's two moments.
    pub optimizer: u64,
    /// A copy of the adapter in the compute kind: the policy version that is sampled from or
    /// computed with.
    pub snapshot: u64,
    /// What the forward passes of all workers keep for the way back, as the configuration has it.
    pub activations: u64,
    /// The same with everything kept.
    pub activations_without_checkpointing: u64,
    /// The same with each block's input kept, and one block in full.
    pub activations_with_checkpointing: u64,
    /// The logits of a chunk of the head, and their gradient, for each worker.
    pub head: u64,
    /// Keys and values of all rows and their prompts.
    pub cache: u64,
    /// Activations that sampling records, all that it may. What is recorded does not stand among
    /// [`MemoryPlan::activations`], but how much will be is not known before.
    pub recorded: u64,
}

impl MemoryPlan {
    /// The plan of a run.
    ///
    /// ```
    /// use posttrain_lora::LoraConfig;
    /// use posttrain_model::{ModelConfig, Quantize};
    /// use posttrain_train::{MemoryPlan, PlanRequest, TrainerConfig};
    ///
    /// let (model, lora) = (ModelConfig::tiny(), LoraConfig { rank: 1, ..LoraConfig::default() });
    /// let plan = MemoryPlan::of(&PlanRequest {
    ///     model: &model,
    ///     quantize: Quantize::None,
    ///     kind: tch::Kind::Float,
    ///     device: tch::Device::Cpu,
    ///     lora: &lora,
    ///     trainer: TrainerConfig::default(),
    ///     workers: 1,
    ///     rows: 2,
    ///     prompt_tokens: 10,
    ///     completion_tokens: 5,
    ///     group_size: 2,
    ///     record_mib: 0,
    /// });
    /// assert_eq!(plan.weights, 4 * model.parameter_count() as u64);
    /// // One layer, one key head of eight: a prompt for both rows, and two completions.
    /// assert_eq!(plan.cache, 2 * 8 * 4 * (10 + 2 * 5));
    /// ```
    #[must_use]
    pub fn of(request: &PlanRequest) -> Self {
        let PlanRequest { model, kind, workers, .. } = request;
        let (element, workers) = (kind.elt_size_in_bytes() as u64, *workers as u64);
        let pairs = request.lora.rank as u64 * adapted_features(request);
        let tokens = request.trainer.micro_batch_tokens as u64;
        let blocks =
            || (0..model.num_hidden_layers).map(move |layer| tokens * kept_a_token(request, layer));
        let inputs = model.num_hidden_layers as u64 * tokens * model.hidden_size as u64 * element;
        let (without, with) =
            (blocks().sum::<u64>() * workers, (inputs + blocks().max().unwrap_or(0)) * workers);
        let chunk =
            (HeadOptions::default().chunk_tokens as u64).min(tokens) * model.vocab_size as u64;
        Self {
            weights: ModelSize::of(model, request.quantize, *kind).memory_bytes as u64,
            adapter: 8 * pairs,
            collected: 4 * pairs * workers,
            optimizer: 8 * pairs,
            snapshot: element * pairs,
            activations: match request.trainer.checkpointing {
                GradientCheckpointing::Off => without,
                GradientCheckpointing::Blocks => with,
            },
            activations_without_checkpointing: without,
            activations_with_checkpointing: with,
            head: 2 * element * chunk * workers,
            cache: cache(request, element),
            recorded: (request.record_mib as u64) << 20,
        }
    }

    /// Everything that is held at once while a step trains: the cache is free then.
    #[must_use]
    pub fn training(&self) -> u64 {
        self.weights
            + self.adapter
            + self.collected
            + self.optimizer
            + self.snapshot
            + self.activations
            + self.head
            + self.recorded
    }

    /// Everything that is held at once while completions are sampled.
    #[must_use]
    pub fn sampling(&self) -> u64 {
        self.weights + self.adapter + self.optimizer + self.snapshot + self.cache + self.recorded
    }

    /// The most that is held at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.training().max(self.sampling())
    }
}

/// Features in and out of all layers with an adapter together.
fn adapted_features(request: &PlanRequest) -> u64 {
    let target = &request.lora.target_modules;
    let modules = request.model.modules().into_iter().filter(|m| target.matches(m));
    modules.map(|m| (m.in_features + m.out_features) as u64).sum()
}

/// Bytes that a block's forward pass keeps of one token. `posttrain-model`'s `Kept` is the list;
/// prompts alone are counted, a completion's copy of its prompt's keys is not.
fn kept_a_token(request: &PlanRequest, layer: i64) -> u64 {
    let (model, element) = (request.model, request.kind.elt_size_in_bytes() as u64);
    let hidden = model.hidden_size as u64;
    let query = (model.num_attention_heads * model.head_dim) as u64;
    let qkv = query + 2 * (model.num_key_value_heads * model.head_dim) as u64;
    // Queries, keys and values, what attention gives, and the logarithms of its sums of
    // exponentials. libtorch's attention keeps all of them twice: as they come from the
    // projections, rotated, and in the order of its kernel.
    let sums = 4 * model.num_attention_heads as u64;
    let attention = match request.device {
        Device::Cpu => element * (qkv + query) + sums,
        _ => element * 2 * (qkv + query) + sums,
    };
    let unnormed = if model.head_norms { element * qkv } else { 0 };
    let rank = request.lora.rank as u64;
    let feed_forward = match model.experts.as_ref().filter(|e| e.layers.contains(&layer)) {
        None => element * (2 * model.intermediate_size as u64 + 3 * rank),
        Some(e) => {
            let choice = element * (2 * e.intermediate_size as u64 + 3 * rank + hidden) + 8 * 5;
            e.a_token as u64 * choice + 4 * e.count as u64
        }
    };
    attention + unnormed + feed_forward + element * (2 * hidden + 4 * rank)
}

/// Keys and values of the rows, and of one prompt for each group.
fn cache(request: &PlanRequest, element: u64) -> u64 {
    let model = request.model;
    let width = (model.num_key_value_heads * model.head_dim) as u64;
    let groups = request.rows.div_ceil(request.group_size.max(1)) as u64;
    let tokens =
        groups * request.prompt_tokens as u64 + (request.rows * request.completion_tokens) as u64;
    2 * model.num_hidden_layers as u64 * width * element * tokens
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("frozen weights", self.weights),
            ("adapter and its gradients", self.adapter),
            ("gradients being collected", self.collected),
            ("AdamW's moments", self.optimizer),
            ("adapter in the compute kind", self.snapshot),
            ("activations", self.activations),
            ("  without checkpointing", self.activations_without_checkpointing),
            ("  with checkpointing", self.activations_with_checkpointing),
            ("chunks of the head", self.head),
            ("keys and values", self.cache),
            ("activations that are recorded", self.recorded),
            ("while training", self.training()),
            ("while sampling", self.sampling()),
        ];
        for (name, bytes) in rows {
            writeln!(f, "{name:<32}{:>12.3} GB", bytes as f64 / 1e9)?;
        }
        Ok(())
    }
}
