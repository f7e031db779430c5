//! Prompts before their first token: their keys, values and first logits, computed once a group,
//! and what several prompts begin with once for all of them.

use crate::RolloutError;
use crate::cache::PromptCache;
use crate::order::runs;
use crate::row::{Group, same_adapter};
use crate::shared_prefix::{PrefixGroup, prefix_groups};
use posttrain_lora::{RowAdapters, Segment};
use posttrain_model::{
    Decoder, ModelError, PackedAttention, Packing, RecordedPass, RecordedToken, Sequence,
};
use posttrain_tensor::to_device;
use std::ops::Range;
use std::sync::Arc;
use tch::Tensor;

/// A prompt whose keys and values wait to be shared out to its samples.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// Keys and values of every layer.
    pub cache: PromptCache,
    /// `[V]`: the logits of the first token.
    pub logits: Tensor,
    /// Where its tokens' activations are, if they are recorded.
    pub recorded: Option<Arc<[RecordedToken]>>,
}

/// What a pass has computed.
#[derive(Debug)]
pub(crate) struct Prefilled {
    /// The groups' prompts, in the order of the groups.
    pub prefixes: Vec<Prefix>,
    /// Tokens computed.
    pub tokens: usize,
    /// Bytes of activations recorded.
    pub recorded: usize,
}

/// A prompt within a pass.
struct Member {
    /// Its group's place.
    place: usize,
    /// Its rows in the pass, in order.
    rows: Vec<usize>,
    cache: PromptCache,
}

/// Computes the prompts of `groups` in one packed pass. Prompts of one adapter that begin alike
/// stand in it as one prompt, what they share, with a completion for what is each one's own. Their
/// activations are recorded if `record` says so.
pub(crate) fn prefill(
    model: &Decoder,
    groups: &[Arc<Group>],
    record: bool,
) -> Result<Prefilled, RolloutError> {
    let runs: Vec<Vec<PrefixGroup>> =
        by_adapter(groups).iter().map(|places| related(groups, places)).collect();
    let prefix_groups: Vec<&PrefixGroup> = runs.iter().flatten().collect();
    let packing = Packing::new(
        &prefix_groups.iter().map(|prefix_group| prefix_group.sequence(groups)).collect::<Vec<_>>(),
    )?;
    let adapters = RowAdapters::segments(runs.iter().map(|run| segment(groups, run)).collect());
    let mut attention = PackedAttention::new(&packing, model)?.keeping();
    let input = packing.input(model.device())?;
    let (hidden, pass) = match record {
        true => model.forward_recording(&input, &mut attention, &adapters)?,
        false => (model.forward(&input, &mut attention, &adapters)?, None),
    };
    let texts = Texts { model, layers: attention.into_kept() };
    let mut members: Vec<Member> = Vec::with_capacity(groups.len());
    for ((prefix_group, shared), own) in
        prefix_groups.iter().zip(packing.prompt_rows()).zip(packing.completion_rows())
    {
        let alone = shared.end..shared.end;
        let own_rows = if prefix_group.shared == 0 { std::slice::from_ref(&alone) } else { &own };
        let rows = own_rows.iter().map(|own| shared.clone().chain(own.clone()).collect());
        let texts = texts.of_prefix_group(shared.clone(), &own)?;
        let each = prefix_group.members.iter().zip(rows).zip(texts);
        members.extend(each.map(|((&place, rows), cache)| Member { place, rows, cache }));
    }
    members.sort_by_key(|member| member.place);
    let last: Vec<i64> =
        members.iter().filter_map(|member| member.rows.last()).map(|&row| row as i64).collect();
    let last = to_device(&last, model.device()).map_err(ModelError::from)?;
    let logits = model.logits(&hidden.f_index_select(0, &last)?, &one_row_each(groups))?;
    let prefix = |(index, Member { rows, cache, .. }): (usize, Member)| {
        let recorded = pass.as_ref().map(|pass| rows.iter().map(|&row| pass.token(row)).collect());
        Ok(Prefix { cache, logits: logits.f_get(index as i64)?, recorded })
    };
    let prefixes =
        members.into_iter().enumerate().map(prefix).collect::<Result<_, RolloutError>>()?;
    let recorded = pass.as_ref().map_or(0, RecordedPass::bytes);
    Ok(Prefilled { prefixes, tokens: packing.tokens().len(), recorded })
}

/// The adapters of one row of each group.
fn one_row_each(groups: &[Arc<Group>]) -> RowAdapters<'_> {
    let run = |run: Range<usize>| Segment {
        rows: run.len() as i64,
        adapter: groups[run.start].adapter(),
    };
    RowAdapters::segments(
        runs(groups, |one, next| same_adapter(one, next)).into_iter().map(run).collect(),
    )
}

/// The groups' places by adapter, in the order in which the adapters appear.
fn by_adapter(groups: &[Arc<Group>]) -> Vec<Vec<usize>> {
    let mut adapters: Vec<Vec<usize>> = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        match adapters.iter_mut().find(|places| same_adapter(&groups[places[0]], group)) {
            Some(places) => places.push(place),
            None => adapters.push(vec![place]),
        }
    }
    adapters
}

/// The prefix groups of one adapter's groups.
fn related(groups: &[Arc<Group>], places: &[usize]) -> Vec<PrefixGroup> {
    let prompts: Vec<&[i64]> =
        places.iter().map(|&place| groups[place].prompt.as_slice()).collect();
    let mut prefix_groups = prefix_groups(&prompts);
    prefix_groups
        .iter_mut()
        .flat_map(|prefix_group| &mut prefix_group.members)
        .for_each(|member| *member = places[*member]);
    prefix_groups
}

/// The rows of one adapter's prefix groups, of which there is at least one.
fn segment<'a>(groups: &'a [Arc<Group>], prefix_groups: &[PrefixGroup]) -> Segment<'a> {
    let rows: usize =
        prefix_groups.iter().map(|prefix_group| prefix_group.sequence(groups).tokens()).sum();
    let adapter =
        prefix_groups.first().and_then(|prefix_group| groups[prefix_group.members[0]].adapter());
    Segment { rows: rows as i64, adapter }
}

impl PrefixGroup {
    /// What is shared as the prompt, what is each one's own as a completion. A prompt that shares
    /// nothing stands alone.
    fn sequence(&self, groups: &[Arc<Group>]) -> Sequence {
        let prompts = self.members.iter().map(|&place| &groups[place].prompt);
        let mut cut = prompts.map(|prompt| {
            prompt.split_at(if self.shared == 0 { prompt.len() } else { self.shared })
        });
        if self.shared == 0 {
            Sequence {
                prompt: cut.flat_map(|(whole, _)| whole.to_vec()).collect(),
                completions: vec![],
            }
        } else {
            let (shared, own) = cut.next().unwrap_or_default();
            let completions =
                std::iter::once(own).chain(cut.map(|(_, own)| own)).map(<[i64]>::to_vec).collect();
            Sequence { prompt: shared.to_vec(), completions }
        }
    }
}

/// Keys and values of a pass in every layer, `[N, kv_heads, d]` each.
struct Texts<'m> {
    model: &'m Decoder,
    layers: Vec<(Tensor, Tensor)>,
}

impl Texts<'_> {
    /// The prompts of a prefix group: what is shared, and behind it each one's own.
    fn of_prefix_group(
        &self,
        shared: Range<usize>,
        own: &[Range<usize>],
    ) -> Result<Vec<PromptCache>, RolloutError> {
        let beginning = PromptCache::new(self.model, self.rows(shared)?)?;
        if own.is_empty() {
            return Ok(vec![beginning]);
        }
        own.iter().map(|own| Ok(beginning.followed_by(&self.rows(own.clone())?)?)).collect()
    }

    fn rows(&self, rows: Range<usize>) -> Result<Vec<(Tensor, Tensor)>, RolloutError> {
        let part = |t: &Tensor| t.f_narrow(0, rows.start as i64, rows.len() as i64);
        self.layers.iter().map(|(k, v)| Ok((part(k)?, part(v)?))).collect()
    }
}
