//! Prompts that begin alike: what they share is computed once.

use std::ops::Range;

/// Tokens that prompts must share to be computed together: below, the additional pass over their
/// keys costs what it saves.
pub(crate) const SHARED_TOKENS: usize = 16;

/// Prompts that share their first tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrefixGroup {
    /// The prompts' places in the list that they came from.
    pub members: Vec<usize>,
    /// How many tokens they share; 0 for a prompt by itself. Every member has at least one token
    /// more.
    pub shared: usize,
}

/// Whether two prompts begin alike enough to be computed together.
pub(crate) fn alike(one: &[i64], other: &[i64]) -> bool {
    shared_tokens(one, other) >= SHARED_TOKENS
}

/// Prompts divided into prefix groups so that the fewest tokens are computed. The same prompts are
/// always divided the same way.
///
/// In the order of their tokens, prompts that begin alike are neighbors; the best division of the
/// first `n` ends with some run of neighbors after the best division of those before.
pub(crate) fn prefix_groups(prompts: &[&[i64]]) -> Vec<PrefixGroup> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&place| prompts[place]);
    let sorted: Vec<&[i64]> = order.iter().map(|&place| prompts[place]).collect();
    let mut best: Vec<(usize, Run)> = Vec::with_capacity(sorted.len());
    for last in 0..sorted.len() {
        let before = |first: usize| first.checked_sub(1).map_or(0, |place| best[place].0);
        let runs = runs_to(&sorted, last).map(|run| (before(run.places.start) + run.saved, run));
        // The shortest of equals.
        best.extend(runs.reduce(|best, next| if next.0 > best.0 { next } else { best }));
    }
    let mut prefix_groups = Vec::new();
    while let Some((_, run)) = best.pop() {
        best.truncate(run.places.start);
        prefix_groups.push(PrefixGroup { members: order[run.places].to_vec(), shared: run.shared });
    }
    prefix_groups.reverse();
    prefix_groups
}

/// Neighbors computed together.
struct Run {
    places: Range<usize>,
    shared: usize,
    saved: usize,
}

/// The runs of `sorted` that end with prompt `last` and save something, the shortest first, and
/// that prompt alone.
fn runs_to<'a>(sorted: &'a [&[i64]], last: usize) -> impl Iterator<Item = Run> + 'a {
    let alone = Run { places: last..last + 1, shared: 0, saved: 0 };
    // Each keeps a token of its own, whose logits are its first.
    let mut shared = sorted[last].len() - 1;
    let (mut longest, mut tokens) = (sorted[last].len(), sorted[last].len());
    let longer = (0..last).rev().map_while(move |first| {
        let prompt = sorted[first];
        shared = shared.min(shared_tokens(prompt, sorted[first + 1])).min(prompt.len() - 1);
        longest = longest.max(prompt.len());
        tokens += prompt.len();
        (shared >= SHARED_TOKENS).then(|| Run {
            places: first..last + 1,
            shared,
            saved: saved(shared, longest, tokens, last + 1 - first),
        })
    });
    std::iter::once(alone).chain(longer)
}

/// Tokens saved by computing `count` prompts together. What is their own is padded to the longest
/// one's length in the attention, which bounds what a long prompt among short ones may cost.
fn saved(shared: usize, longest: usize, tokens: usize, count: usize) -> usize {
    let padding = count * longest - tokens;
    (shared * (count - 1)).saturating_sub(padding)
}

/// How many tokens two texts begin with in common.
pub(crate) fn shared_tokens(one: &[i64], other: &[i64]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `shared` tokens of a beginning, then `own` tokens that nobody else has.
    fn prompt(beginning: i64, shared: usize, own: &[i64]) -> Vec<i64> {
        std::iter::repeat_n(beginning, shared).chain(own.iter().copied()).collect()
    }

    fn divided(prompts: &[Vec<i64>]) -> Vec<(Vec<usize>, usize)> {
        let prompts: Vec<_> = prompts.iter().map(Vec::as_slice).collect();
        prefix_groups(&prompts).into_iter().map(|f| (f.members, f.shared)).collect()
    }

    #[test]
    fn prompts_that_begin_alike_are_one_family_in_whatever_order_they_come() {
        let prompts = [
            prompt(1, 40, &[2]),
            prompt(5, 20, &[3, 4]),
            prompt(1, 40, &[3, 9]),
            prompt(1, 3, &[8]),
        ];
        assert_eq!(divided(&prompts), [(vec![0, 2], 40), (vec![3], 0), (vec![1], 0)]);
    }

    #[test]
    fn each_keeps_a_token_of_its_own() {
        assert_eq!(
            divided(&[prompt(1, 20, &[]), prompt(1, 20, &[]), prompt(1, 25, &[])]),
            [(vec![0, 1, 2], 19)]
        );
        assert_eq!(
            divided(&[prompt(1, 16, &[]), prompt(1, 16, &[])]),
            [(vec![0], 0), (vec![1], 0)]
        );
        assert_eq!(divided(&[prompt(1, 1, &[])]), [(vec![0], 0)]);
        assert!(divided(&[]).is_empty());
    }

    #[test]
    fn a_distant_relation_does_not_break_a_close_group() {
        let close = |own: i64| prompt(2, 60, &[own]);
        let distant = [prompt(2, 20, &[1, 1]), close(5), close(6), close(7)];
        assert_eq!(divided(&distant), [(vec![0], 0), (vec![1, 2, 3], 60)]);
    }

    #[test]
    fn padding_may_not_cost_more_than_sharing_saves() {
        let mut prompts: Vec<_> = (0..8).map(|own| prompt(1, 20, &[own + 2])).collect();
        prompts.push(prompt(1, 20, &[50; 100]));
        let divided = divided(&prompts);
        assert_eq!(divided, [((0..8).collect(), 20), (vec![8], 0)]);
    }
}
