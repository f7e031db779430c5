//! What a forward pass computed, kept for a backward pass that comes later.

use crate::ModelError;
use posttrain_kernel::gather_rows;
use posttrain_tensor::SharedTensor;
use std::fmt;
use std::sync::Arc;
use tch::Tensor;

/// A forward pass whose activations are kept ([`crate::Decoder::forward_recording`]).
///
/// Held by every text that was computed in it, on whichever thread; its memory goes with the last
/// of them.
#[derive(Clone)]
pub struct RecordedPass(Arc<PassActivations>);

/// One row of a recorded pass: a token of a text.
#[derive(Debug, Clone)]
pub struct RecordedToken {
    /// The pass.
    pub pass: RecordedPass,
    /// The token's row in it.
    pub row: u32,
}

/// Activations of one pass, a row a token.
#[derive(Debug)]
pub(crate) struct PassActivations {
    pub blocks: Vec<BlockActivations>,
    /// `[N, H]`: what the last block gave, before the final norm.
    pub last: SharedTensor,
}

/// What a block's backward pass starts from. What else it needs costs less to compute than to keep.
#[derive(Debug)]
pub(crate) struct BlockActivations {
    /// `[N, H]`: the block's input.
    pub x: SharedTensor,
    /// `[N, (heads + 2·kv_heads)·d]`: the projections, before any norm of heads.
    pub qkv: SharedTensor,
    /// `[N, H]`: the residual stream between attention and feed-forward.
    pub middle: SharedTensor,
    /// `[N, 2I]`.
    pub gate_up: SharedTensor,
}

impl RecordedPass {
    pub(crate) fn new(activations: PassActivations) -> Self {
        Self(Arc::new(activations))
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let size = |t: &SharedTensor| t.numel() * t.kind().elt_size_in_bytes();
        let blocks = self.0.blocks.iter().flat_map(|b| [&b.x, &b.qkv, &b.middle, &b.gate_up]);
        blocks.map(size).sum::<usize>() + size(&self.0.last)
    }

    /// The token at `row`.
    #[must_use]
    pub fn token(&self, row: usize) -> RecordedToken {
        RecordedToken { pass: self.clone(), row: row as u32 }
    }
}

impl fmt::Debug for RecordedPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordedPass({} bytes)", self.bytes())
    }
}

/// Two handles of one pass are equal; passes are not compared.
impl PartialEq for RecordedPass {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for RecordedToken {
    fn eq(&self, other: &Self) -> bool {
        self.pass == other.pass && self.row == other.row
    }
}

/// The recorded tokens of a packing, in its order.
#[derive(Debug)]
pub(crate) struct RecordedRows {
    passes: Vec<RecordedPass>,
    places: Vec<(usize, usize)>,
}

impl RecordedRows {
    pub fn new(tokens: &[&RecordedToken]) -> Self {
        let mut rows = Self { passes: Vec::new(), places: Vec::with_capacity(tokens.len()) };
        let mut known = std::collections::HashMap::new();
        for token in tokens {
            let pass = *known.entry(Arc::as_ptr(&token.pass.0)).or_insert_with(|| {
                rows.passes.push(token.pass.clone());
                rows.passes.len() - 1
            });
            rows.places.push((pass, token.row as usize));
        }
        rows
    }

    /// The activations of block `index`.
    pub fn block(&self, index: usize) -> Result<BlockActivations, ModelError> {
        Ok(BlockActivations {
            x: self.gather(|pass| &pass.blocks[index].x)?.into(),
            qkv: self.gather(|pass| &pass.blocks[index].qkv)?.into(),
            middle: self.gather(|pass| &pass.blocks[index].middle)?.into(),
            gate_up: self.gather(|pass| &pass.blocks[index].gate_up)?.into(),
        })
    }

    /// What the last block gave.
    pub fn last(&self) -> Result<Tensor, ModelError> {
        self.gather(|pass| &pass.last)
    }

    fn gather(&self, of: impl Fn(&PassActivations) -> &SharedTensor) -> Result<Tensor, ModelError> {
        let sources: Vec<&Tensor> = self.passes.iter().map(|pass| &**of(&pass.0)).collect();
        Ok(gather_rows(&sources, &self.places)?)
    }
}
