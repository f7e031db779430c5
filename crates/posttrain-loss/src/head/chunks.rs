//! The walk over the chunks: products in libtorch, the arithmetic between them native or
//! libtorch's.

use super::pass::{Arithmetic, Chunk, Pass};
use super::rows::{self, RowGradients};
use super::{HeadGradients, TokenGradients, TokenScores, tensor};
use crate::error::{LogitProblem, LossError, Operation};
use posttrain_tensor::check_shape;
use posttrain_tensor::{Values, ValuesMut, integers, values, values_mut};
use tch::{Kind, TchError, Tensor};

impl Pass<'_> {
    /// Rows of hidden states.
    pub(super) fn rows(&self) -> usize {
        self.hidden.size()[0] as usize
    }

    /// Targets of all rows.
    pub(super) fn entries(&self) -> usize {
        self.rows() * self.targets_per_row
    }

    pub(super) fn temperature(&self) -> f64 {
        self.head.options.temperature
    }

    /// The chunks of the batch, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let rows = self.rows();
        let step = self.head.options.chunk_tokens;
        (0..rows).step_by(step).map(move |start| Chunk { start, len: step.min(rows - start) })
    }

    pub(super) fn scores(&mut self) -> Result<TokenScores, LossError> {
        let mut parts = Vec::new();
        for chunk in self.chunks() {
            let logits = self.logits(chunk)?;
            parts.push(self.chunk_scores(&logits, chunk)?);
            self.buffer = Some(logits);
        }
        self.join(&parts)
    }

    /// The scores of the whole batch from those of its chunks.
    pub(super) fn join(&self, parts: &[TokenScores]) -> Result<TokenScores, LossError> {
        let cat = |part: &dyn Fn(&TokenScores) -> Tensor| {
            if parts.is_empty() {
                return Tensor::f_empty([0], (Kind::Float, self.targets.device()))
                    .during("making an empty tensor");
            }
            let parts: Vec<Tensor> = parts.iter().map(part).collect();
            Tensor::f_cat(&parts, 0).during("joining the token scores")
        };

        Ok(TokenScores {
            logprobs: cat(&|part| part.logprobs.shallow_clone())?,
            entropy: cat(&|part| part.entropy.shallow_clone())?,
        })
    }

    pub(super) fn backward(
        mut self,
        scores: &TokenScores,
        gradients: &TokenGradients,
    ) -> Result<HeadGradients, LossError> {
        let rows = self.rows() as i64;
        let entries = self.entries() as i64;
        check_shape("scores.logprobs", &scores.logprobs, &[entries])?;
        check_shape("scores.entropy", &scores.entropy, &[rows])?;
        check_shape("gradients.logprobs", &gradients.logprobs, &[entries])?;
        gradients
            .entropy
            .as_ref()
            .map_or(Ok(()), |entropy| check_shape("gradients.entropy", entropy, &[rows]))?;

        let by_hidden = self.empty_gradient()?;
        for chunk in self.chunks() {
            let part =
                |tensor: &Tensor, each| chunk.of_flat(tensor, each).during("cutting out a chunk");
            let scores = TokenScores {
                logprobs: part(&scores.logprobs, self.targets_per_row)?,
                entropy: part(&scores.entropy, 1)?,
            };
            let gradients = TokenGradients {
                logprobs: part(&gradients.logprobs, self.targets_per_row)?,
                entropy: gradients.entropy.as_ref().map(|entropy| part(entropy, 1)).transpose()?,
            };

            let logits = self.logits(chunk)?;
            self.chunk_backward(logits, chunk, (&scores, &gradients), &by_hidden)?;
        }
        Ok(self.finish(by_hidden))
    }

    /// The gradient by the hidden states, to be filled chunk by chunk.
    pub(super) fn empty_gradient(&self) -> Result<Tensor, LossError> {
        let options = (self.hidden.kind(), self.hidden.device());
        Tensor::f_empty(self.hidden.size(), options)
            .during("allocating the hidden states' gradient")
    }

    pub(super) fn finish(self, hidden: Tensor) -> HeadGradients {
        HeadGradients { hidden, adapter: self.adapter.map(|adapter| adapter.gradients) }
    }

    /// The logits of a chunk, before the temperature, in the chunks' memory, which whoever is done
    /// with them puts back. The last chunk, where it is shorter, has memory of its own.
    pub(super) fn logits(&mut self, chunk: Chunk) -> Result<Tensor, LossError> {
        let buffer = self.buffer.take().filter(|buffer| buffer.size()[0] == chunk.len as i64);
        let product = || -> Result<Tensor, TchError> {
            let hidden = chunk.of(&self.hidden)?;
            let shape = [chunk.len as i64, self.head.weight.size()[0]];
            let mut logits = match buffer {
                Some(buffer) => buffer,
                None => Tensor::f_empty(shape, (hidden.kind(), hidden.device()))?,
            };
            let _ = hidden.f_mm_out(&logits, &self.transposed)?;
            self.adapter
                .as_ref()
                .map_or(Ok(()), |adapter| adapter.forward(&hidden, &mut logits))?;
            Ok(logits)
        };
        product().during("multiplying hidden states with the head")
    }

    pub(super) fn chunk_scores(
        &self,
        logits: &Tensor,
        chunk: Chunk,
    ) -> Result<TokenScores, LossError> {
        let targets = chunk.of(&self.targets).during("cutting out a chunk")?;
        if self.head.arithmetic == Arithmetic::Libtorch {
            let scores =
                tensor::scores(logits, &targets, self.temperature()).during("scoring a chunk")?;
            return check_scores(logits, &scores, chunk).map(|()| scores);
        }

        let targets = integers("targets", &targets)?;
        let scored = match values("logits", logits)? {
            Values::F32(logits) => rows::scores(logits, targets, chunk.len, self.temperature()),
            Values::Bf16(logits) => rows::scores(logits, targets, chunk.len, self.temperature()),
        };

        let (logprobs, entropy) = scored
            .map_err(|(row, problem)| LossError::Logits { row: chunk.start + row, problem })?;
        let tensor =
            |values: &[f32]| Tensor::f_from_slice(values).during("copying the token scores");
        Ok(TokenScores { logprobs: tensor(&logprobs)?, entropy: tensor(&entropy)? })
    }

    /// Turns a chunk's logits into their gradient, and that into the gradient by the hidden states.
    pub(super) fn chunk_backward(
        &mut self,
        mut logits: Tensor,
        chunk: Chunk,
        (scores, gradients): (&TokenScores, &TokenGradients),
        by_hidden: &Tensor,
    ) -> Result<(), LossError> {
        let targets = chunk.of(&self.targets).during("cutting out a chunk")?;
        if self.head.arithmetic == Arithmetic::Libtorch {
            let slopes =
                tensor::gradients(&logits, &targets, self.temperature(), scores, gradients);
            logits = slopes.during("differentiating a chunk")?;
        } else {
            self.native_gradients(&mut logits, &targets, chunk, (scores, gradients))?;
        }

        let mut product = || -> Result<(), TchError> {
            let mut out = chunk.of(by_hidden)?;
            let _ = logits.f_mm_out(&out, &self.head.weight)?;
            let hidden = chunk.of(&self.hidden)?;
            self.adapter
                .as_mut()
                .map_or(Ok(()), |adapter| adapter.backward(&hidden, &logits, &mut out))
        };
        product().during("multiplying the logits' gradient with the head")?;
        self.buffer = Some(logits);
        Ok(())
    }

    fn native_gradients(
        &self,
        logits: &mut Tensor,
        targets: &Tensor,
        chunk: Chunk,
        (scores, gradients): (&TokenScores, &TokenGradients),
    ) -> Result<(), LossError> {
        let host =
            |tensor: &Tensor| Vec::<f32>::try_from(tensor).during("copying the token gradients");
        let logprobs = host(&scores.logprobs)?;
        let entropies = host(&scores.entropy)?;
        let by_logprob = host(&gradients.logprobs)?;
        let by_entropy = gradients.entropy.as_ref().map(host).transpose()?;

        let rows = RowGradients {
            targets: integers("targets", targets)?,
            logprobs: &logprobs,
            entropies: &entropies,
            by_logprob: &by_logprob,
            by_entropy: by_entropy.as_deref(),
        };
        rows.check(chunk.start)?;

        match values_mut("logits", logits)? {
            ValuesMut::F32(logits) => rows::gradients(logits, &rows, self.temperature()),
            ValuesMut::Bf16(logits) => rows::gradients(logits, &rows, self.temperature()),
        }
        Ok(())
    }
}

/// Names the first row of a chunk without a distribution, whose entropy is then not a number.
fn check_scores(logits: &Tensor, scores: &TokenScores, chunk: Chunk) -> Result<(), LossError> {
    let entropy = Vec::<f32>::try_from(&scores.entropy).during("copying the entropies")?;
    let Some(row) = entropy.iter().position(|entropy| entropy.is_nan()) else { return Ok(()) };
    let max = logits.f_select(0, row as i64).and_then(|row| row.f_max()?.f_double_value(&[]));
    let problem = LogitProblem::of_max(max.during("looking for the largest logit")? as f32);
    Err(LossError::Logits { row: chunk.start + row, problem })
}
