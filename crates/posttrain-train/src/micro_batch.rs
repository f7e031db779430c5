//! A step cut into passes that fit the memory.

use crate::batch::{TrainingBatch, TrainingCompletion, TrainingGroup};
use posttrain_model::Sequence;

/// Part of a step: completions under their prompts, to be computed in one forward pass.
#[derive(Debug)]
pub(crate) struct MicroBatch<'a> {
    pub groups: Vec<(&'a TrainingGroup, Vec<&'a TrainingCompletion>)>,
}

impl<'a> MicroBatch<'a> {
    /// The sequences to pack, prompts standing once.
    pub fn sequences(&self) -> Vec<Sequence> {
        let tokens = |completions: &[&TrainingCompletion]| completions.iter().map(|c| c.tokens.clone()).collect();
        self.groups.iter().map(|(g, c)| Sequence { prompt: g.prompt.clone(), completions: tokens(c) }).collect()
    }

    /// The completions in packed order.
    pub fn completions(&self) -> impl Iterator<Item = &'a TrainingCompletion> {
        self.groups.iter().flat_map(|(_, completions)| completions.iter().copied())
    }
}

/// Cuts a batch into micro-batches of at most `budget` tokens each, prompts counted once a micro-batch. Groups stay
/// together where they fit; one that does not is cut between completions, its prompt computed again. A single completion
/// over the budget has a micro-batch of its own. Longest groups come first, so that memory fails at once or not at all.
pub(crate) fn micro_batches<'a>(
    batch: &'a TrainingBatch,
    budget: usize,
    keep: impl Fn(&TrainingCompletion) -> bool,
) -> Vec<MicroBatch<'a>> {
    let mut pieces: Vec<(&TrainingGroup, Vec<&TrainingCompletion>)> = Vec::new();
    for group in batch.groups() {
        let kept: Vec<_> = group.completions.iter().filter(|c| keep(c)).collect();
        pieces.extend(cut(group, kept, budget).into_iter().map(|completions| (group, completions)));
    }
    // A stable sort: equal lengths keep the batch's order, so that the same step is always cut the same way.
    pieces.sort_by_key(|(group, completions)| std::cmp::Reverse(tokens(group, completions)));
    let mut batches: Vec<MicroBatch> = Vec::new();
    let mut used = usize::MAX;
    for (group, completions) in pieces {
        let more = tokens(group, &completions);
        if used.saturating_add(more) > budget {
            batches.push(MicroBatch { groups: Vec::new() });
            used = 0;
        }
        used += more;
        if let Some(last) = batches.last_mut() {
            last.groups.push((group, completions));
        }
    }
    batches
}

fn cut<'a>(
    group: &TrainingGroup,
    completions: Vec<&'a TrainingCompletion>,
    budget: usize,
) -> Vec<Vec<&'a TrainingCompletion>> {
    let mut pieces: Vec<Vec<&TrainingCompletion>> = Vec::new();
    let mut used = usize::MAX;
    for completion in completions {
        if used.saturating_add(completion.tokens.len()) > budget {
            pieces.push(Vec::new());
            used = group.prompt.len();
        }
        used += completion.tokens.len();
        if let Some(last) = pieces.last_mut() {
            last.push(completion);
        }
    }
    pieces
}

fn tokens(group: &TrainingGroup, completions: &[&TrainingCompletion]) -> usize {
    group.prompt.len() + completions.iter().map(|c| c.tokens.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn completion(length: usize, advantage: f32) -> TrainingCompletion {
        TrainingCompletion { tokens: vec![1; length], sampling_logprobs: vec![-1.0; length], advantage }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_budget_holds(
            shapes in prop::collection::vec((1usize..20, prop::collection::vec(1usize..30, 0..6)), 1..8),
            budget in 1usize..120,
        ) {
            let groups: Vec<_> = shapes.iter().enumerate().map(|(i, (prompt, lengths))| TrainingGroup {
                prompt: vec![i as i64; *prompt],
                completions: lengths.iter().map(|&l| completion(l, 1.0)).collect(),
            }).collect();
            let batch = TrainingBatch::new(groups).unwrap();
            let micro = micro_batches(&batch, budget, |_| true);
            for m in &micro {
                let size: usize = m.groups.iter().map(|(g, c)| tokens(g, c)).sum();
                prop_assert!(size <= budget || m.completions().count() == 1);
                prop_assert!(m.completions().count() >= 1);
            }
            let mut expected: Vec<*const _> = batch.groups().iter().flat_map(|g| &g.completions).map(std::ptr::from_ref).collect();
            let mut got: Vec<*const _> = micro.iter().flat_map(MicroBatch::completions).map(std::ptr::from_ref).collect();
            expected.sort_unstable();
            got.sort_unstable();
            prop_assert_eq!(expected, got);
        }
    }
}
