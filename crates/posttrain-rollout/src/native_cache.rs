//! The keys and values of the running rows on the CPU, in the layout of the native kernel.

use crate::order::{Move, reorder};
use posttrain_kernel::{
    AttentionStep, Heads, KernelError, KeyValues, SharedText, StepRow, attend_step,
};
use posttrain_model::{Attend, Decoder, ModelError, Projected};
use tch::{Kind, Tensor};

/// Each row's prompt, which its group shares, and its own tokens. Nothing moves when rows join,
/// leave or grow.
#[derive(Debug)]
pub(crate) struct NativeCache {
    heads: Heads,
    layers: usize,
    kind: Kind,
    rows: Vec<Text>,
    tables: Option<[Tensor; 2]>,
}

#[derive(Debug)]
struct Text {
    prompt: SharedText,
    own: KeyValues,
}

impl NativeCache {
    /// An empty cache.
    pub fn new(model: &Decoder) -> Self {
        let layers = model.config().num_hidden_layers as usize;
        Self { heads: model.heads(), layers, kind: model.kind(), rows: Vec::new(), tables: None }
    }

    /// Adds `count` rows after a prompt at the end, then makes moves: of handles, not of keys and
    /// values.
    pub fn join(
        &mut self,
        prompt: &SharedText,
        count: usize,
        moves: &[Move],
    ) -> Result<(), KernelError> {
        for _ in 0..count {
            let own = KeyValues::new(self.heads, self.layers, self.kind)?;
            self.rows.push(Text { prompt: prompt.clone(), own });
        }
        reorder(&mut self.rows, moves);
        Ok(())
    }

    /// Takes out the row that stands last after some moves.
    pub fn leave(&mut self, moves: &[Move]) {
        reorder(&mut self.rows, moves);
        self.rows.pop();
    }

    /// The keys and values of a row that is about to leave: its prompt's, and behind them its own.
    pub fn text(&self, row: usize) -> Result<SharedText, KernelError> {
        let Text { prompt, own } = &self.rows[row];
        prompt.followed_by(own.clone())
    }

    /// Ends a decoding step.
    pub fn advance(&mut self) {
        self.tables = None;
    }
}

/// A decoding step: one token a row.
impl Attend for NativeCache {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let tables = match self.tables.take() {
            Some(tables) => tables,
            None => projected.rotation.tables()?,
        };
        let mut rows: Vec<_> = self
            .rows
            .iter_mut()
            .map(|row| StepRow { prompt: &row.prompt, own: &mut row.own })
            .collect();
        let step = AttentionStep { layer, qkv: &projected.qkv, cos: &tables[0], sin: &tables[1] };
        let attended = attend_step(step, projected.heads, &mut rows)?;
        self.tables = Some(tables);
        Ok(attended)
    }
}
