//! A step cut into passes that fit the memory.

use crate::batch::{TrainingBatch, TrainingCompletion, TrainingGroup};
use posttrain_model::{RecordedToken, Sequence};

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

    /// The tokens of [`Packing::predicting`], in its order, as policy `version` computed them while it sampled; `None` if
    /// any of them was not recorded then.
    ///
    /// [`Packing::predicting`]: posttrain_model::Packing::predicting
    pub fn recorded(&self, version: u64) -> Option<Vec<&'a RecordedToken>> {
        let mut tokens = Vec::new();
        for (group, completions) in &self.groups {
            for (index, completion) in completions.iter().enumerate() {
                let recording = completion.recording.as_ref().filter(|r| r.policy_version == version)?;
                let whole = recording.prompt.len() == group.prompt.len()
                    && recording.completion.len() + 1 == completion.tokens.len();
                if !whole {
                    return None;
                }
                if index == 0 {
                    tokens.extend(recording.prompt.iter());
                }
                tokens.extend(&recording.completion);
            }
        }
        Some(tokens)
    }

    /// The completions in packed order.
    pub fn completions(&self) -> impl Iterator<Item = &'a TrainingCompletion> {
        self.groups.iter().flat_map(|(_, completions)| completions.iter().copied())
    }
}

/// Tokens of a group of which only the completions that `keep` keeps are computed.
pub(crate) fn kept_tokens(group: &TrainingGroup, keep: impl Fn(&TrainingCompletion) -> bool) -> usize {
    let kept: usize = group.completions.iter().filter(|c| keep(c)).map(|c| c.tokens.len()).sum();
    if kept == 0 { 0 } else { group.prompt.len() + kept }
}

/// Deals micro-batches out to `workers` hands, each to the one with the least tokens so far: the same batches are always
/// dealt the same way. Hands that would stay empty are left out.
pub(crate) fn deal<'a>(batches: Vec<MicroBatch<'a>>, workers: usize) -> Vec<Vec<MicroBatch<'a>>> {
    let mut hands: Vec<(usize, Vec<MicroBatch>)> = (0..workers.max(1)).map(|_| (0, Vec::new())).collect();
    for batch in batches {
        let least = hands.iter().enumerate().min_by_key(|(_, (tokens, _))| *tokens).map_or(0, |(index, _)| index);
        hands[least].0 += batch.groups.iter().map(|(group, completions)| tokens(group, completions)).sum::<usize>();
        hands[least].1.push(batch);
    }
    hands.into_iter().map(|(_, hand)| hand).filter(|hand| !hand.is_empty()).collect()
}

/// Cuts a batch into micro-batches of at most `budget` tokens each, prompts counted once a micro-batch, as few as there can
/// be and a multiple of `workers`, of nearly equal size. Groups stay together where they fit; one that does not is cut
/// between completions, its prompt computed again. A single completion over the budget has a micro-batch of its own.
pub(crate) fn micro_batches<'a>(
    batch: &'a TrainingBatch,
    budget: usize,
    workers: usize,
    keep: impl Fn(&TrainingCompletion) -> bool,
) -> Vec<MicroBatch<'a>> {
    let mut pieces: Vec<(&TrainingGroup, Vec<&TrainingCompletion>)> = Vec::new();
    for group in batch.groups() {
        let kept: Vec<_> = group.completions.iter().filter(|c| keep(c)).collect();
        pieces.extend(cut(group, kept, budget).into_iter().map(|completions| (group, completions)));
    }
    // A stable sort: equal lengths keep the batch's order, so that the same step is always cut the same way.
    pieces.sort_by_key(|(group, completions)| std::cmp::Reverse(tokens(group, completions)));
    let total: usize = pieces.iter().map(|(group, completions)| tokens(group, completions)).sum();
    let mut count = total.div_ceil(budget).next_multiple_of(workers.max(1));
    loop {
        match fill(&pieces, count, budget) {
            Some(batches) => return batches,
            None => count += workers.max(1),
        }
    }
}

/// Lays pieces, longest first, into `count` micro-batches, each into the one with the least tokens; `None` where that
/// breaks the budget.
fn fill<'a>(
    pieces: &[(&'a TrainingGroup, Vec<&'a TrainingCompletion>)],
    count: usize,
    budget: usize,
) -> Option<Vec<MicroBatch<'a>>> {
    let mut batches: Vec<(usize, MicroBatch)> = (0..count).map(|_| (0, MicroBatch { groups: Vec::new() })).collect();
    for (group, completions) in pieces {
        let (used, batch) = batches.iter_mut().min_by_key(|(used, _)| *used)?;
        let more = tokens(group, completions);
        if *used > 0 && *used + more > budget {
            return None;
        }
        *used += more;
        batch.groups.push((group, completions.clone()));
    }
    Some(batches.into_iter().filter(|(used, _)| *used > 0).map(|(_, batch)| batch).collect())
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
        TrainingCompletion {
            tokens: vec![1; length],
            sampling_logprobs: vec![-1.0; length],
            advantage,
            recording: None,
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_budget_holds(
            shapes in prop::collection::vec((1usize..20, prop::collection::vec(1usize..30, 0..6)), 1..8),
            budget in 1usize..120,
            workers in 1usize..4,
        ) {
            let groups: Vec<_> = shapes.iter().enumerate().map(|(i, (prompt, lengths))| TrainingGroup {
                prompt: vec![i as i64; *prompt],
                completions: lengths.iter().map(|&l| completion(l, 1.0)).collect(),
            }).collect();
            let batch = TrainingBatch::new(groups).unwrap();
            let micro = micro_batches(&batch, budget, workers, |_| true);
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
