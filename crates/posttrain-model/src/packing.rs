//! Sequences laid end to end without padding, a group's prompt standing once.

use crate::ModelError;
use crate::decoder::Input;
use std::ops::Range;
use tch::{Device, Tensor};

/// A prompt and the completions that follow it. Each completion attends to the prompt and to
/// itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<i64>,
    /// Token ids of each completion; may be empty for a prompt alone.
    pub completions: Vec<Vec<i64>>,
}

impl Sequence {
    /// Tokens in the packed row: the prompt once and every completion.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(Vec::len).sum::<usize>()
    }
}

/// Several sequences in one row of `N` tokens, with every token's position in its own text.
///
/// ```
/// use posttrain_model::{Packing, Sequence};
/// let packing = Packing::new(&[Sequence { prompt: vec![5, 6], completions: vec![vec![7, 8], vec![9]] }])?;
/// assert_eq!(packing.tokens(), [5, 6, 7, 8, 9]);
/// assert_eq!(packing.positions(), [0, 1, 2, 3, 2]); // both completions follow the prompt
/// // The row that predicts each completion token: the prompt's last for the first, then the completion's own.
/// assert_eq!(packing.predicting_rows(), [1, 2, 1]);
/// assert_eq!(packing.targets(), [7, 8, 9]);
/// # Ok::<(), posttrain_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Packing {
    tokens: Vec<i64>,
    positions: Vec<i64>,
    targets: Vec<i64>,
    spans: Vec<Span>,
}

/// Where one sequence lies in the row.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub prompt: Range<usize>,
    pub completions: Vec<Range<usize>>,
    /// How many tokens of each completion are predicted.
    predicted: Vec<usize>,
}

impl Packing {
    /// Lays sequences end to end.
    ///
    /// # Errors
    /// [`ModelError::Argument`] for an empty prompt or no sequence at all.
    pub fn new(sequences: &[Sequence]) -> Result<Self, ModelError> {
        Self::lay(sequences, &[], 0)
    }

    /// Lays out sequences that go on from what was read before: the first `read[i]` tokens of
    /// sequence `i`, which have no rows.
    ///
    /// ```
    /// use posttrain_model::{Packing, Sequence};
    /// let packing = Packing::behind(&[Sequence { prompt: vec![5, 6], completions: vec![] }], &[40])?;
    /// assert_eq!(packing.positions(), [40, 41]);
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Packing::new`]; [`ModelError::Argument`] if there are not as many counts as
    /// sequences.
    pub fn behind(sequences: &[Sequence], read: &[usize]) -> Result<Self, ModelError> {
        if read.len() != sequences.len() {
            let expected = format!("{} counts, one a sequence", sequences.len());
            return Err(argument("read", &expected, read.len().to_string()));
        }
        Self::lay(sequences, read, 0)
    }

    /// The same without each completion's last token, behind which nothing is predicted: it is a
    /// target, and has no row.
    ///
    /// ```
    /// use posttrain_model::{Packing, Sequence};
    /// let packing = Packing::predicting(&[Sequence { prompt: vec![5, 6], completions: vec![vec![7, 8], vec![9]] }])?;
    /// assert_eq!(packing.tokens(), [5, 6, 7]);
    /// assert_eq!(packing.predicting_rows(), [1, 2, 1]);
    /// assert_eq!(packing.targets(), [7, 8, 9]);
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Packing::new`].
    pub fn predicting(sequences: &[Sequence]) -> Result<Self, ModelError> {
        Self::lay(sequences, &[], 1)
    }

    /// Lays sequences end to end, the last `left_out` tokens of each completion left out. Positions
    /// begin behind the tokens that were read before, if any were.
    fn lay(sequences: &[Sequence], read: &[usize], left_out: usize) -> Result<Self, ModelError> {
        let mut packing = Self {
            tokens: Vec::new(),
            positions: Vec::new(),
            targets: Vec::new(),
            spans: Vec::new(),
        };

        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.prompt.is_empty() {
                return Err(argument(
                    "sequences",
                    "prompts of at least one token",
                    "an empty prompt",
                ));
            }

            let first = read.get(index).copied().unwrap_or(0) as i64;
            let prompt = packing.push(&sequence.prompt, first);
            let start = first + sequence.prompt.len() as i64;
            let rows = |c: &Vec<i64>| packing.push(&c[..c.len().saturating_sub(left_out)], start);
            let completions = sequence.completions.iter().map(rows).collect();
            packing.targets.extend(sequence.completions.iter().flatten());
            let predicted = sequence.completions.iter().map(Vec::len).collect();
            packing.spans.push(Span { prompt, completions, predicted });
        }

        if packing.tokens.is_empty() {
            return Err(argument("sequences", "at least one sequence", "none"));
        }
        Ok(packing)
    }

    fn push(&mut self, tokens: &[i64], first_position: i64) -> Range<usize> {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((0..tokens.len() as i64).map(|i| first_position + i));
        start..self.tokens.len()
    }

    /// Token ids, `N` of them.
    #[must_use]
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// Every token's position in its own text.
    #[must_use]
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// The row whose output predicts each completion token, in packed order.
    #[must_use]
    pub fn predicting_rows(&self) -> Vec<i64> {
        let mut rows = Vec::new();
        for span in &self.spans {
            for (completion, predicted) in span.completions.iter().zip(&span.predicted) {
                let before = std::iter::once(span.prompt.end - 1);
                let own = before.chain(completion.clone()).take(*predicted);
                rows.extend(own.map(|row| row as i64));
            }
        }
        rows
    }

    /// The completion tokens, in the order of [`Packing::predicting_rows`].
    #[must_use]
    pub fn targets(&self) -> &[i64] {
        &self.targets
    }

    /// The last row of every prompt: what predicts the first token of its completions.
    #[must_use]
    pub fn last_prompt_rows(&self) -> Vec<i64> {
        self.spans.iter().map(|s| s.prompt.end as i64 - 1).collect()
    }

    /// The rows of every prompt.
    #[must_use]
    pub fn prompt_rows(&self) -> Vec<Range<usize>> {
        self.spans.iter().map(|s| s.prompt.clone()).collect()
    }

    /// The rows of every completion, by sequence.
    #[must_use]
    pub fn completion_rows(&self) -> Vec<Vec<Range<usize>>> {
        self.spans.iter().map(|s| s.completions.clone()).collect()
    }

    /// Tokens and positions as the decoder takes them.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory or the device fails.
    pub fn input(&self, device: Device) -> Result<Input, ModelError> {
        Ok(Input {
            tokens: Tensor::f_from_slice(&self.tokens)?.f_to_device(device)?,
            positions: Tensor::f_from_slice(&self.positions)?.f_to_device(device)?,
        })
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }
}

pub(crate) fn argument(
    argument: &'static str,
    expected: &str,
    got: impl Into<String>,
) -> ModelError {
    ModelError::Argument { argument, expected: expected.into(), got: got.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_completion_predicts_nothing() {
        let sequences = [
            Sequence { prompt: vec![1], completions: vec![vec![], vec![2, 3]] },
            Sequence { prompt: vec![4, 5], completions: vec![] },
        ];
        let packing = Packing::new(&sequences).unwrap();
        assert_eq!(packing.predicting_rows(), [0, 1]);
        assert_eq!(packing.targets(), [2, 3]);
        assert_eq!(packing.last_prompt_rows(), [0, 4]);
        assert_eq!(packing.prompt_rows(), [0..1, 3..5]);
        assert_eq!(packing.completion_rows(), [vec![1..1, 1..3], vec![]]);
    }

    #[test]
    fn nothing_to_pack_is_an_error() {
        assert!(Packing::new(&[]).is_err());
        assert!(Packing::new(&[Sequence { prompt: vec![], completions: vec![vec![1]] }]).is_err());
    }
}
