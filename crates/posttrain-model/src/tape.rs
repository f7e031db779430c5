//! A forward pass that can be walked back: the gradient of an adapter, without autograd around the
//! whole model.

use crate::block::{self, Kept};
use crate::recording::{RecordedRows, RecordedToken};
use crate::{Decoder, ModelError, PackedAttention, Packing, Rotation};
use posttrain_lora::{AdapterGradients, RowAdapters};
use tch::Tensor;

/// Which activations a forward pass keeps for its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// What every block's backward pass needs.
    Everything,
    /// Each block's input; the rest is computed a second time on the way back (Chen et al., 2016,
    /// <https://arxiv.org/abs/1604.06174>).
    Inputs,
}

/// A forward pass over a [`Packing`] with an adapter, or with several side by side, and what its
/// backward pass needs.
///
/// Autograd keeps far more than the gradient of an adapter needs, adds up gradients in tensors of
/// their own, and allocates every intermediate anew. Here each block's backward pass is written
/// out, on the CPU attention's as well; elsewhere autograd walks back through attention alone.
///
/// ```
/// use posttrain_lora::{Adapter, AdapterGradients, LoraConfig, RowAdapters};
/// use posttrain_model::{Decoder, Keep, ModelConfig, Packing, Sequence, Tape};
/// use tch::{Device, Kind};
///
/// let model = Decoder::random(&ModelConfig::tiny(), 7, Kind::Float, Device::Cpu)?;
/// let adapter = Adapter::init(&LoraConfig::default(), model.modules(), 1, Device::Cpu)?;
/// let view = adapter.snapshot(Kind::Float)?;
/// let packing = Packing::new(&[Sequence { prompt: vec![1, 2, 3], completions: vec![vec![4, 5]] }])?;
///
/// let adapters = RowAdapters::all(Some(&view));
/// let (hidden, tape) = Tape::forward(&model, adapters, &packing, Keep::Everything)?;
/// let mut gradients = [AdapterGradients::default()];
/// tape.backward(&hidden.ones_like(), &mut gradients)?; // of the sum of the hidden states
/// adapter.add_gradients(&gradients[0])?;
/// adapter.check_gradients()?;
/// # Ok::<(), posttrain_model::ModelError>(())
/// ```
#[derive(Debug)]
pub struct Tape<'a> {
    model: &'a Decoder,
    adapters: RowAdapters<'a>,
    rotation: Rotation,
    attention: PackedAttention,
    blocks: Blocks,
    /// What the last block gave, before the final norm.
    last: Tensor,
}

/// Where the blocks' activations are.
#[derive(Debug)]
enum Blocks {
    /// Each block's input, and what else it keeps if it keeps it.
    Kept(Vec<(Tensor, Option<Kept>)>),
    /// In the passes that computed the texts.
    Recorded(RecordedRows),
}

impl<'a> Tape<'a> {
    /// The final hidden states `[N, H]` of a packing, normed, in the compute kind, and the tape
    /// that leads back. The adapters are snapshots, with dropout or without.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if a text is longer than the model's context; [`ModelError::Torch`]
    /// for a token beyond the vocabulary, or when memory fails.
    pub fn forward(
        model: &'a Decoder,
        adapters: RowAdapters<'a>,
        packing: &Packing,
        keep: Keep,
    ) -> Result<(Tensor, Self), ModelError> {
        let _guard = tch::no_grad_guard();
        let input = packing.input(model.device())?;
        let rotation = model.rotation(&input.positions)?;
        let mut attention = PackedAttention::new(packing, model)?;
        let mut x = model.embedding.f_index_select(0, &input.tokens)?;

        let mut blocks = Vec::with_capacity(model.blocks.len());
        for block in &model.blocks {
            let (next, kept) = block.forward_keeping(&x, &rotation, &mut attention, &adapters)?;
            blocks.push((
                std::mem::replace(&mut x, next),
                Some(kept).filter(|_| keep == Keep::Everything),
            ));
        }

        let hidden = block::rms_norm(&x, &model.norm, model.config().rms_norm_eps)?;
        Ok((
            hidden,
            Self { model, adapters, rotation, attention, blocks: Blocks::Kept(blocks), last: x },
        ))
    }

    /// The same of a packing whose tokens have been computed before, in its order: nothing is
    /// multiplied by the model's weights again. The adapters are the snapshots that they were
    /// computed with, without dropout.
    ///
    /// The gradient is that of the activations that came before the sampled tokens: the policy is
    /// the sampler to the last bit, whatever the order that either adds in.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if there is not a recorded token for each of the packing's, or a
    /// text is longer than the model's context; [`ModelError::Torch`] when memory fails.
    pub fn of_recorded(
        model: &'a Decoder,
        adapters: RowAdapters<'a>,
        packing: &Packing,
        tokens: &[&RecordedToken],
    ) -> Result<(Tensor, Self), ModelError> {
        let _guard = tch::no_grad_guard();
        if tokens.len() != packing.tokens().len() {
            let expected = format!("{} recorded tokens, the packing's", packing.tokens().len());
            return Err(crate::packing::argument("tokens", &expected, tokens.len().to_string()));
        }

        let recorded = RecordedRows::new(tokens);
        let rotation = model.rotation(&packing.input(model.device())?.positions)?;
        let attention = PackedAttention::new(packing, model)?;
        let last = recorded.last()?;

        let hidden = block::rms_norm(&last, &model.norm, model.config().rms_norm_eps)?;
        Ok((
            hidden,
            Self { model, adapters, rotation, attention, blocks: Blocks::Recorded(recorded), last },
        ))
    }

    /// Adds the gradients of each run's adapter to its place in `sums`, from the gradient by the
    /// hidden states, `[N, H]`.
    ///
    /// # Errors
    /// [`ModelError::Lora`] if there is not a place for each run; [`ModelError::Torch`] if the shape
    /// does not fit or memory fails.
    pub fn backward(
        mut self,
        gradient: &Tensor,
        sums: &mut [AdapterGradients],
    ) -> Result<(), ModelError> {
        let _guard = tch::no_grad_guard();
        let norm = &self.model.norm;
        let eps = self.model.config().rms_norm_eps;
        let nothing_else = gradient.f_zeros_like()?;
        let mut gradient =
            block::rms_norm_backward(&self.last, norm, eps, gradient, &nothing_else)?;

        for (index, block) in self.model.blocks.iter().enumerate().rev() {
            let (x, kept) = match &mut self.blocks {
                Blocks::Recorded(rows) => {
                    block.keep_recorded(&rows.block(index)?, &self.rotation, &mut self.attention)?
                }
                Blocks::Kept(blocks) => match blocks.pop() {
                    Some((x, Some(kept))) => (x, kept),
                    Some((x, None)) => {
                        let (_, kept) = block.forward_keeping(
                            &x,
                            &self.rotation,
                            &mut self.attention,
                            &self.adapters,
                        )?;
                        (x, kept)
                    }
                    None => break,
                },
            };
            gradient = block.backward(&x, kept, &gradient, &self.adapters, sums)?;
        }
        Ok(())
    }
}
