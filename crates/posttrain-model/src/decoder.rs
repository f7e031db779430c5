//! A decoder transformer: embedding, blocks, final norm, head.

use crate::block::{self, Block};
use crate::linears::Linears;
use crate::recording::{BlockActivations, PassActivations, RecordedPass};
use crate::rope::{Frequencies, Rotation};
use crate::weights::Weights;
use crate::{Attend, ModelConfig, ModelError};
use posttrain_kernel::Heads;
use posttrain_lora::{AdaptedLinear, Adapter, LoraError, ModuleSpec, RowAdapters, load_peft_on};
use posttrain_tensor::SharedTensor;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The tokens of one forward pass and where each stands in its text.
#[derive(Debug)]
pub struct Input {
    /// `[N]` i64, token ids below the vocabulary's size.
    pub tokens: Tensor,
    /// `[N]` i64, from 0.
    pub positions: Tensor,
}

/// A frozen decoder. Adapters go in beside it; no gradient of its own weights is ever formed. Its
/// weights are [`SharedTensor`]s, so that an `Arc` of one serves every thread.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    modules: Vec<ModuleSpec>,
    pub(crate) embedding: SharedTensor,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: SharedTensor,
    /// `None` where it is the embedding.
    head: Option<AdaptedLinear>,
    frequencies: Frequencies,
}

/// Where the head's weight stands in a checkpoint, and its adapter in PEFT's files.
pub(crate) const HEAD: &str = "lm_head";
/// Where the embedding stands.
const EMBEDDING: &str = "model.embed_tokens";

impl Decoder {
    /// A decoder from weights; each is taken by name and shape, and none may be left over.
    ///
    /// # Errors
    /// [`ModelError::MissingWeight`], [`ModelError::WeightShape`] or [`ModelError::ExtraWeights`]
    /// names the weight.
    pub fn load(config: &ModelConfig, mut weights: Weights) -> Result<Self, ModelError> {
        let table = [config.vocab_size, config.hidden_size];
        let embedding = weights.take(&format!("{EMBEDDING}.weight"), &table)?;
        let mut linears = Linears::new(&mut weights);
        let blocks = (0..config.num_hidden_layers).map(|i| Block::load(config, i, &mut linears));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let norm = weights.take("model.norm.weight", &[config.hidden_size])?;

        let head = own_head(config, &mut weights, &embedding)?;
        weights.finish()?;
        let frequencies = Frequencies::of(config, embedding.device())?;

        let config = ModelConfig { tie_word_embeddings: head.is_none(), ..config.clone() };
        let modules = config.modules();
        let head = head.map(|weight| {
            AdaptedLinear::new(weight, None, vec![(modules.len() - 1, config.vocab_size)])
        });

        Ok(Self {
            config,
            modules,
            embedding: embedding.into(),
            blocks,
            norm: norm.into(),
            head: head.transpose()?,
            frequencies,
        })
    }

    /// A decoder with random weights (normal, deviation 0.02 as Llama's initialization; norms one),
    /// the same for the same seed: for tests, benchmarks and dry runs.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the sizes do not fit each other.
    pub fn random(
        config: &ModelConfig,
        seed: u64,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        config.check(std::path::Path::new("(random model)"))?;
        Self::load(config, Weights::random(seed, kind, device))
    }

    /// The final hidden states `[N, H]`, normed, in the compute kind. `adapters` routes rows to
    /// adapters.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if tokens and positions differ in length; [`ModelError::Torch`] for
    /// a token id beyond the vocabulary, or when memory fails.
    pub fn forward(
        &self,
        input: &Input,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
    ) -> Result<Tensor, ModelError> {
        self.walk(input, attention, adapters, None)
    }

    /// [`Decoder::forward`], its activations kept for a backward pass that comes later
    /// ([`crate::Tape::of_recorded`]): `2·H + (heads + 2·kv_heads)·d + 2·I` numbers a token and
    /// block. `None` for a model with experts, which cannot record.
    ///
    /// # Errors
    /// Those of [`Decoder::forward`].
    pub fn forward_recording(
        &self,
        input: &Input,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Option<RecordedPass>), ModelError> {
        let _guard = tch::no_grad_guard();
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut last = None;
        let hidden = self.walk(input, attention, adapters, Some((&mut blocks, &mut last)))?;

        let recorded = last.filter(|_| blocks.len() == self.blocks.len());
        Ok((
            hidden,
            recorded.map(|last| RecordedPass::new(PassActivations { blocks, last: last.into() })),
        ))
    }

    fn walk(
        &self,
        input: &Input,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
        mut record: Option<(&mut Vec<BlockActivations>, &mut Option<Tensor>)>,
    ) -> Result<Tensor, ModelError> {
        if input.tokens.dim() != 1 || input.tokens.size() != input.positions.size() {
            let got = format!("{:?} and {:?}", input.tokens.size(), input.positions.size());
            return Err(crate::packing::argument("input", "tokens [N] and positions [N]", got));
        }

        let rotation = self.rotation(&input.positions)?;
        let mut x = posttrain_kernel::laid_out(self.embedding.f_index_select(0, &input.tokens)?)?;
        for block in &self.blocks {
            let (next, activations) = block.forward(x, &rotation, attention, adapters)?;
            x = next;
            if let Some((blocks, _)) = &mut record {
                blocks.extend(activations);
            }
        }

        let hidden = block::rms_norm(&x, &self.norm, self.config.rms_norm_eps)?;
        if let Some((_, last)) = record {
            *last = Some(x);
        }
        Ok(hidden)
    }

    /// The turn of queries and keys at `positions: [N]`.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory fails.
    pub fn rotation(&self, positions: &Tensor) -> Result<Rotation, ModelError> {
        Rotation::new(positions, &self.frequencies, self.kind())
    }

    /// The heads of its attention.
    #[must_use]
    pub fn heads(&self) -> Heads {
        block::heads(&self.config)
    }

    /// Logits `[M, V]` in the compute kind for hidden states `[M, H]`, rows routed by `adapters`. A
    /// training pass never calls this: it goes through the fused log-probabilities.
    ///
    /// # Errors
    /// [`ModelError::Lora`] if the runs of `adapters` do not add up to `M`; [`ModelError::Torch`]
    /// if the shape does not fit or memory fails.
    pub fn logits(&self, hidden: &Tensor, adapters: &RowAdapters) -> Result<Tensor, ModelError> {
        match &self.head {
            Some(head) => Ok(head.forward(hidden, adapters)?),
            None => Ok(posttrain_kernel::product(hidden, &self.embedding)?),
        }
    }

    /// The head's weight `[V, H]`.
    pub fn head(&self) -> &Tensor {
        self.head.as_ref().map_or(&*self.embedding, AdaptedLinear::weight)
    }

    /// The head where it has a weight of its own.
    pub(crate) fn head_layer(&self) -> Option<&AdaptedLinear> {
        self.head.as_ref()
    }

    /// The head's place among [`Decoder::modules`]; `None` where it is the embedding and can have
    /// no adapter.
    #[must_use]
    pub fn head_module(&self) -> Option<usize> {
        self.modules.iter().position(|module| module.head)
    }

    /// The linear layers that an adapter may target, in the order that its layers take.
    #[must_use]
    pub fn modules(&self) -> &[ModuleSpec] {
        &self.modules
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The kind that it computes in.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.embedding.kind()
    }

    /// The device that it lies on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Reads an adapter for this model from a PEFT folder (see [`posttrain_lora::load_peft_on`]).
    ///
    /// # Errors
    /// [`LoraError`] for a folder that cannot be read, does not fit, or is of another base.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, LoraError> {
        load_peft_on(folder, &self.modules, self.device(), |path| match path {
            HEAD => Some(self.head()),
            EMBEDDING => Some(&self.embedding),
            _ => None,
        })
    }

    /// Folds an adapter into the weights (see [`posttrain_lora::AdaptedLinear::merge`]).
    ///
    /// # Errors
    /// [`ModelError::Lora`] if one is merged already or it does not fit; [`ModelError::Argument`]
    /// for a quantized base.
    pub fn merge(&mut self, adapter: &Adapter) -> Result<(), ModelError> {
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            linear.merge(adapter)?;
        }
        self.head.iter_mut().try_for_each(|head| head.merge(adapter))?;
        Ok(())
    }

    /// Takes a merged adapter out again, exactly.
    pub fn unmerge(&mut self) {
        self.blocks
            .iter_mut()
            .flat_map(Block::linears_mut)
            .for_each(crate::frozen_linear::FrozenLinear::unmerge);
        self.head.iter_mut().for_each(AdaptedLinear::unmerge);
    }
}

/// The head's weight where it is not the embedding's. A head that is stored although the two are
/// said to be one is a head of its own if it differs, as in transformers 5.
fn own_head(
    config: &ModelConfig,
    weights: &mut Weights,
    embedding: &Tensor,
) -> Result<Option<Tensor>, ModelError> {
    let name = format!("{HEAD}.weight");
    let tied = config.tie_word_embeddings;
    if tied && !weights.holds(&name) {
        return Ok(None);
    }

    let head = weights.take(&name, &[config.vocab_size, config.hidden_size])?;
    if !tied {
        return Ok(Some(head));
    }
    if head.f_equal(embedding)? {
        return Ok(None);
    }
    tracing::warn!(
        "`tie_word_embeddings` is true, and `{name}` differs from the embedding: it is the head"
    );
    Ok(Some(head))
}
