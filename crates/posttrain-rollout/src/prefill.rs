//! Prompts before their first token: their keys, values and first logits, computed once a group,
//! and what several prompts begin with once for all of them, or not at all where it is kept.

use crate::RolloutError;
use crate::order::runs;
use crate::row::{Group, same_adapter};
use crate::shared_prefix::{PrefixGroup, prefix_groups};
use posttrain_lora::{RowAdapters, Segment};
use posttrain_model::{
    Decoder, ModelError, PackedAttention, Packing, RecordedPass, RecordedToken, Sequence, TextCache,
};
use posttrain_tensor::to_device;
use std::ops::Range;
use std::sync::Arc;
use tch::Tensor;

/// A prompt whose keys and values wait to be shared out to its samples.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// Keys and values of every layer.
    pub cache: TextCache,
    /// `[V]`: the logits of the first token.
    pub logits: Tensor,
    /// Where its tokens' activations are, if they are recorded.
    pub recorded: Option<Arc<[RecordedToken]>>,
}

/// A prompt that is to be computed.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub group: Arc<Group>,
    /// What is there of it: its first tokens, by the same policy. At least its last is not.
    pub read: TextCache,
    /// Up to where it is computed.
    pub end: usize,
}

impl Prompt {
    /// A group's prompt, of which the first tokens are there.
    pub fn behind(group: Arc<Group>, read: TextCache) -> Self {
        Self { end: group.prompt.len(), group, read }
    }

    /// Whether it is computed to its end.
    pub fn is_whole(&self) -> bool {
        self.end == self.group.prompt.len()
    }

    /// The tokens that are to be computed.
    pub fn rest(&self) -> &[i64] {
        &self.group.prompt[self.read.tokens()..self.end]
    }

    /// The tokens that are there.
    fn beginning(&self) -> &[i64] {
        &self.group.prompt[..self.read.tokens()]
    }
}

/// What a pass has computed.
#[derive(Debug)]
pub(crate) struct Prefilled {
    /// The prompts, in their order.
    pub prefixes: Vec<Prefix>,
    /// Tokens computed.
    pub tokens: usize,
    /// Bytes of activations recorded.
    pub recorded: usize,
}

/// A prompt within a pass.
struct Member {
    /// Its place among the prompts.
    place: usize,
    /// Its rows in the pass, in order.
    rows: Vec<usize>,
    cache: TextCache,
}

/// Computes prompts in one packed pass. Prompts of one adapter that begin alike stand in it as one
/// prompt, what they share, with a completion for what is each one's own; what is read already has
/// no rows. Activations are recorded if `record` says so, of prompts that are computed at once.
pub(crate) fn prefill(
    model: &Decoder,
    prompts: &[Prompt],
    record: bool,
) -> Result<Prefilled, RolloutError> {
    let runs: Vec<Vec<PrefixGroup>> =
        by_adapter(prompts).iter().map(|places| related(prompts, places)).collect();
    let prefix_groups: Vec<&PrefixGroup> = runs.iter().flatten().collect();

    let sequences: Vec<Sequence> =
        prefix_groups.iter().map(|prefix_group| prefix_group.sequence(prompts)).collect();
    let before: Vec<TextCache> =
        prefix_groups.iter().map(|prefix_group| prefix_group.read(prompts)).collect();
    let read: Vec<usize> = before.iter().map(TextCache::tokens).collect();
    let packing = Packing::behind(&sequences, &read)?;

    let mut attention = PackedAttention::new(&packing, model)?.keeping();
    if read.iter().any(|tokens| *tokens > 0) {
        attention = attention.behind(before.clone())?;
    }
    let adapters = RowAdapters::segments(runs.iter().map(|run| segment(prompts, run)).collect());
    let input = packing.input(model.device())?;
    let whole = |prompt: &Prompt| prompt.read.tokens() == 0 && prompt.is_whole();
    let record = record && prompts.iter().any(whole);
    let (hidden, pass) = match record {
        true => model.forward_recording(&input, &mut attention, &adapters)?,
        false => (model.forward(&input, &mut attention, &adapters)?, None),
    };

    let texts = Texts { model, layers: attention.into_kept() };
    let (shared_rows, own_rows) = (packing.prompt_rows(), packing.completion_rows());
    let mut members: Vec<Member> = Vec::with_capacity(prompts.len());
    for (index, prefix_group) in prefix_groups.iter().enumerate() {
        let (shared, own) = (&shared_rows[index], &own_rows[index]);
        let caches = texts.of_prefix_group(&before[index], shared.clone(), own)?;
        for (which, cache) in caches.into_iter().enumerate() {
            let own = own.get(which).cloned().unwrap_or(shared.end..shared.end);
            let rows = shared.clone().chain(own).collect();
            members.push(Member { place: prefix_group.members[which], rows, cache });
        }
    }
    members.sort_by_key(|member| member.place);

    let last: Vec<i64> =
        members.iter().filter_map(|member| member.rows.last()).map(|&row| row as i64).collect();
    let last = to_device(&last, model.device()).map_err(ModelError::from)?;
    let logits = model.logits(&hidden.f_index_select(0, &last)?, &one_row_each(prompts))?;

    let mut prefixes = Vec::with_capacity(members.len());
    for (index, Member { place, rows, cache }) in members.into_iter().enumerate() {
        let pass = pass.as_ref().filter(|_| whole(&prompts[place]));
        let recorded = pass.map(|pass| rows.iter().map(|&row| pass.token(row)).collect());
        prefixes.push(Prefix { cache, logits: logits.f_get(index as i64)?, recorded });
    }

    let recorded = pass.as_ref().map_or(0, RecordedPass::bytes);
    Ok(Prefilled { prefixes, tokens: packing.tokens().len(), recorded })
}

/// The adapters of one row of each prompt.
fn one_row_each(prompts: &[Prompt]) -> RowAdapters<'_> {
    let run = |run: Range<usize>| Segment {
        rows: run.len() as i64,
        adapter: prompts[run.start].group.adapter(),
    };
    let runs = runs(prompts, |one, next| same_adapter(&one.group, &next.group));
    RowAdapters::segments(runs.into_iter().map(run).collect())
}

/// The prompts' places by adapter, in the order in which the adapters appear.
fn by_adapter(prompts: &[Prompt]) -> Vec<Vec<usize>> {
    let all = (0..prompts.len()).collect();
    parted(all, |one, next| same_adapter(&prompts[one].group, &prompts[next].group))
}

/// Places parted into those that are alike, in the order in which the first of each appears.
fn parted(places: Vec<usize>, alike: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for place in places {
        match parts.iter_mut().find(|part| alike(part[0], place)) {
            Some(part) => part.push(place),
            None => parts.push(vec![place]),
        }
    }
    parts
}

/// The prefix groups of one adapter's prompts, by what is read of them.
fn related(prompts: &[Prompt], places: &[usize]) -> Vec<PrefixGroup> {
    let alike = |one: usize, next: usize| prompts[one].beginning() == prompts[next].beginning();

    let mut all = Vec::new();
    for part in parted(places.to_vec(), alike) {
        let rests: Vec<&[i64]> = part.iter().map(|&place| prompts[place].rest()).collect();
        let mut prefix_groups = prefix_groups(&rests);
        for prefix_group in &mut prefix_groups {
            prefix_group.members.iter_mut().for_each(|member| *member = part[*member]);
        }
        all.append(&mut prefix_groups);
    }
    all
}

/// The rows of one adapter's prefix groups, of which there is at least one.
fn segment<'a>(prompts: &'a [Prompt], prefix_groups: &[PrefixGroup]) -> Segment<'a> {
    let rows: usize =
        prefix_groups.iter().map(|prefix_group| prefix_group.sequence(prompts).tokens()).sum();
    let first = prefix_groups.first().map(|prefix_group| &prompts[prefix_group.members[0]]);
    Segment { rows: rows as i64, adapter: first.and_then(|prompt| prompt.group.adapter()) }
}

impl PrefixGroup {
    /// What is shared as the prompt, what is each one's own as a completion. A prompt that shares
    /// nothing stands alone.
    fn sequence(&self, prompts: &[Prompt]) -> Sequence {
        let first = prompts[self.members[0]].rest();
        if self.shared == 0 {
            return Sequence { prompt: first.to_vec(), completions: vec![] };
        }

        let own = |&place: &usize| prompts[place].rest()[self.shared..].to_vec();
        Sequence {
            prompt: first[..self.shared].to_vec(),
            completions: self.members.iter().map(own).collect(),
        }
    }

    /// What is read of all its prompts.
    fn read(&self, prompts: &[Prompt]) -> TextCache {
        prompts[self.members[0]].read.clone()
    }
}

/// Keys and values of a pass in every layer, `[N, kv_heads, d]` each.
struct Texts<'m> {
    model: &'m Decoder,
    layers: Vec<(Tensor, Tensor)>,
}

impl Texts<'_> {
    /// The prompts of a prefix group: what is read, behind it what is shared, and behind that each
    /// one's own.
    fn of_prefix_group(
        &self,
        read: &TextCache,
        shared: Range<usize>,
        own: &[Range<usize>],
    ) -> Result<Vec<TextCache>, RolloutError> {
        let beginning = read.followed_by(self.model, &self.rows(shared)?)?;
        if own.is_empty() {
            return Ok(vec![beginning]);
        }
        let whole =
            |own: &Range<usize>| Ok(beginning.followed_by(self.model, &self.rows(own.clone())?)?);
        own.iter().map(whole).collect()
    }

    fn rows(&self, rows: Range<usize>) -> Result<Vec<(Tensor, Tensor)>, RolloutError> {
        let part = |t: &Tensor| t.f_narrow(0, rows.start as i64, rows.len() as i64);
        self.layers.iter().map(|(k, v)| Ok((part(k)?, part(v)?))).collect()
    }
}
