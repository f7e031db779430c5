//! A batch cut into passes that fit the memory.

use crate::Datum;
use posttrain_collective::share;
use posttrain_lora::AdapterView;
use posttrain_model::{ModelError, Packing, RecordedToken, Sequence};
use std::ops::Range;
use std::sync::Arc;

/// Datums that must be computed together, next to each other: one alone, or the two of a pair.
type Unit<'a> = Vec<Placed<'a>>;

/// A datum and its place in the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub place: usize,
    pub datum: &'a Datum,
}

/// Units that begin with the same tokens, which are computed once for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Cluster<'a> {
    prefix: &'a [i64],
    temperature: f64,
    units: Vec<Unit<'a>>,
}

/// Part of a batch, to be computed in one forward pass, at one temperature.
#[derive(Debug)]
pub(crate) struct MicroBatch<'a> {
    clusters: Vec<Cluster<'a>>,
}

/// Where a micro-batch lies in a packing.
#[derive(Debug)]
pub(crate) struct Scored {
    /// Rows of the packing that are its own, next to each other.
    pub tokens: usize,
    /// The packing's row of each scored position, in the datums' order.
    pub rows: Vec<i64>,
    /// `[rows · K]`.
    pub targets: Vec<i64>,
}

impl<'a> Cluster<'a> {
    /// Tokens that a pass over some of its units computes: what they share once, each datum's own,
    /// and its last target, which is not read but scored.
    fn tokens(&self) -> usize {
        self.prefix.len() + self.units.iter().map(|unit| self.unit_tokens(unit)).sum::<usize>()
    }

    fn unit_tokens(&self, unit: &Unit) -> usize {
        unit.iter().map(|placed| self.own(placed.datum).len() + 1).sum()
    }

    /// What a datum has behind the prefix.
    fn own<'d>(&self, datum: &'d Datum) -> &'d [i64] {
        &datum.input[self.prefix.len()..]
    }

    fn datums(&self) -> impl Iterator<Item = Placed<'a>> {
        self.units.iter().flatten().copied()
    }

    /// How many datums it has.
    fn len(&self) -> usize {
        self.units.iter().map(Vec::len).sum()
    }

    fn empty(&self) -> Self {
        Self { units: Vec::new(), ..*self }
    }

    /// The datums behind what they share; where they share nothing, each alone.
    fn sequences(&self) -> Vec<Sequence> {
        if self.prefix.is_empty() {
            let alone = |placed: Placed| Sequence {
                prompt: placed.datum.input.clone(),
                completions: Vec::new(),
            };
            return self.datums().map(alone).collect();
        }
        let completions = self.datums().map(|placed| self.own(placed.datum).to_vec()).collect();
        vec![Sequence { prompt: self.prefix.to_vec(), completions }]
    }
}

impl<'a> MicroBatch<'a> {
    /// The datums in packed order.
    pub fn datums(&self) -> impl Iterator<Item = Placed<'a>> {
        self.clusters.iter().flat_map(Cluster::datums)
    }

    /// The temperature of all its datums.
    pub fn temperature(&self) -> f64 {
        self.clusters.first().map_or(1.0, |cluster| cluster.temperature)
    }

    /// Targets per position, the same for all its datums.
    pub fn targets_per_position(&self) -> usize {
        self.datums().next().map_or(1, |placed| placed.datum.targets_per_position)
    }

    /// Tokens that its pass computes.
    pub fn tokens(&self) -> usize {
        self.clusters.iter().map(Cluster::tokens).sum()
    }

    /// Where its datums lie, whose sequences have these rows of a packing: the prompt's, and each
    /// completion's.
    fn scored(&self, sequences: impl Iterator<Item = (Range<usize>, Vec<Range<usize>>)>) -> Scored {
        // Where each datum's tokens lie: those of the sequence's prompt, then its own, if it has
        // any.
        let mut tokens = 0;
        let mut places: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (prompt, own) in sequences {
            tokens += prompt.len() + own.iter().map(ExactSizeIterator::len).sum::<usize>();
            match own.is_empty() {
                true => places.push((prompt, 0..0)),
                false => places.extend(own.into_iter().map(|own| (prompt.clone(), own))),
            }
        }

        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for (placed, (prompt, own)) in self.datums().zip(places) {
            let row = |position: usize| match position.checked_sub(prompt.len()) {
                None => prompt.start + position,
                Some(behind) => own.start + behind,
            };
            rows.extend(placed.datum.positions.iter().map(|&position| row(position) as i64));
            targets.extend_from_slice(&placed.datum.targets);
        }
        Scored { tokens, rows, targets }
    }

    /// The tokens of a packing of this micro-batch alone, in its order, as the policy with the snapshot `adapter`
    /// computed them while it sampled; `None` if any of them was not recorded then.
    pub fn recorded(&self, adapter: &Arc<AdapterView>) -> Option<Vec<&'a RecordedToken>> {
        let mut tokens = Vec::new();
        for cluster in &self.clusters {
            for (nth, placed) in cluster.datums().enumerate() {
                let datum = placed.datum;
                let recording = datum.recording.as_ref()?;
                let sampled_by = &recording.policy.as_ref()?.adapter;
                let whole =
                    recording.prompt.len() + recording.completion.len() == datum.input.len();
                let shares =
                    cluster.prefix.is_empty() || cluster.prefix.len() == recording.prompt.len();
                if !whole || !shares || !Arc::ptr_eq(sampled_by, adapter) {
                    return None;
                }

                if nth == 0 || cluster.prefix.is_empty() {
                    tokens.extend(recording.prompt.iter());
                }
                tokens.extend(&recording.completion);
            }
        }
        Some(tokens)
    }
}

/// Lays micro-batches end to end, datum by datum, and says where each lies.
///
/// # Errors
/// [`ModelError::Argument`] without any datum.
pub(crate) fn pack(batches: &[&MicroBatch]) -> Result<(Packing, Vec<Scored>), ModelError> {
    let sequences: Vec<Vec<Sequence>> = batches
        .iter()
        .map(|batch| batch.clusters.iter().flat_map(Cluster::sequences).collect())
        .collect();
    let packing = Packing::new(&sequences.concat())?;

    let mut rows = packing.prompt_rows().into_iter().zip(packing.completion_rows());
    let scored = batches
        .iter()
        .zip(sequences)
        .map(|(batch, own)| batch.scored(rows.by_ref().take(own.len())))
        .collect();
    Ok((packing, scored))
}

/// Groups a batch's datums: `per_unit` neighbors are a unit, and neighboring units that share a
/// prefix and a temperature a cluster. Units of which `keep` keeps no datum are left out.
pub(crate) fn clusters(
    datums: &[Datum],
    per_unit: usize,
    keep: impl Fn(&Datum) -> bool,
) -> Vec<Cluster<'_>> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for (index, unit) in datums.chunks(per_unit).enumerate() {
        if !unit.iter().any(&keep) {
            continue;
        }
        let first = &unit[0];
        let alike = unit.iter().all(|datum| datum.prefix() == first.prefix());
        let prefix = if alike { first.prefix() } else { &[] };
        let placed = unit
            .iter()
            .zip(index * per_unit..)
            .map(|(datum, place)| Placed { place, datum })
            .collect();

        let joins = |cluster: &&mut Cluster| {
            !prefix.is_empty()
                && cluster.prefix == prefix
                && cluster.temperature == first.temperature
        };
        match clusters.last_mut().filter(joins) {
            Some(cluster) => cluster.units.push(placed),
            None => clusters.push(Cluster {
                prefix,
                temperature: first.temperature,
                units: vec![placed],
            }),
        }
    }
    clusters
}

/// The datums of a batch that one of several ranks computes: whole clusters, as a sampler whose
/// groups are divided the same way has their recordings; units, where there are fewer clusters than
/// ranks.
pub(crate) fn own_datums(
    datums: &[Datum],
    per_unit: usize,
    (rank, size): (usize, usize),
) -> Range<usize> {
    let clusters = clusters(datums, per_unit, |_| true);
    if clusters.len() < size {
        let units = share(datums.len().div_ceil(per_unit), rank, size);
        let end = |unit: usize| (unit * per_unit).min(datums.len());
        return end(units.start)..end(units.end);
    }
    let own = share(clusters.len(), rank, size);
    // Clusters lie in the order of the datums.
    let before = |count: usize| clusters[..count].iter().map(Cluster::len).sum();
    before(own.start)..before(own.end)
}

/// Tokens that a pass over clusters computes.
pub(crate) fn tokens(clusters: &[Cluster]) -> usize {
    clusters.iter().map(Cluster::tokens).sum()
}

/// Distributes micro-batches over `workers` loads, each to the one with the least tokens so far:
/// the same batches are always distributed the same way. Loads that would stay empty are left out.
pub(crate) fn distribute<T>(
    batches: Vec<T>,
    workers: usize,
    tokens: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut loads: Vec<(usize, Vec<T>)> = (0..workers.max(1)).map(|_| (0, Vec::new())).collect();
    for batch in batches {
        let least = loads
            .iter()
            .enumerate()
            .min_by_key(|(_, (tokens, _))| *tokens)
            .map_or(0, |(index, _)| index);
        loads[least].0 += tokens(&batch);
        loads[least].1.push(batch);
    }
    loads.into_iter().map(|(_, load)| load).filter(|load| !load.is_empty()).collect()
}

/// Cuts clusters into micro-batches of at most `budget` tokens each, what is shared counted once a
/// micro-batch, as few as there can be and a multiple of `workers`, of nearly equal size. Clusters
/// stay together where they fit; one that does not is cut between units, its prefix computed again.
/// A single unit over the budget has a micro-batch of its own. A micro-batch has one temperature,
/// and one number of targets per position.
pub(crate) fn micro_batches<'a>(
    clusters: &[Cluster<'a>],
    budget: usize,
    workers: usize,
) -> Vec<MicroBatch<'a>> {
    let mut pieces: Vec<Cluster> =
        clusters.iter().flat_map(|cluster| cut(cluster, budget)).collect();
    // A stable sort: equal lengths keep the batch's order, so that the same step is always cut the
    // same way.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.tokens()));

    let mut batches = Vec::new();
    while let Some(first) = pieces.first() {
        let form = first.form();
        let (same, others): (Vec<_>, Vec<_>) =
            pieces.into_iter().partition(|piece| piece.form() == form);
        batches.extend(filled(&same, budget, workers.max(1)));
        pieces = others;
    }
    batches
}

impl Cluster<'_> {
    /// What a head's pass has one of: the temperature (by its bits) and the number of targets per
    /// position.
    fn form(&self) -> (u64, usize) {
        let targets = self.datums().next().map_or(1, |placed| placed.datum.targets_per_position);
        (self.temperature.to_bits(), targets)
    }
}

/// Lays pieces, longest first, into as few micro-batches as the budget allows.
fn filled<'a>(pieces: &[Cluster<'a>], budget: usize, workers: usize) -> Vec<MicroBatch<'a>> {
    let total: usize = pieces.iter().map(Cluster::tokens).sum();
    let mut count = total.div_ceil(budget).next_multiple_of(workers);
    loop {
        match fill(pieces, count, budget) {
            Some(batches) => return batches,
            None => count += workers,
        }
    }
}

/// Lays pieces into `count` micro-batches, each into the one with the least tokens; `None` where
/// that breaks the budget.
fn fill<'a>(pieces: &[Cluster<'a>], count: usize, budget: usize) -> Option<Vec<MicroBatch<'a>>> {
    let mut batches: Vec<(usize, MicroBatch)> =
        (0..count).map(|_| (0, MicroBatch { clusters: Vec::new() })).collect();
    for piece in pieces {
        let (used, batch) = batches.iter_mut().min_by_key(|(used, _)| *used)?;
        let more = piece.tokens();
        if *used > 0 && *used + more > budget {
            return None;
        }
        *used += more;
        batch.clusters.push(piece.clone());
    }
    Some(batches.into_iter().filter(|(used, _)| *used > 0).map(|(_, batch)| batch).collect())
}

fn cut<'a>(cluster: &Cluster<'a>, budget: usize) -> Vec<Cluster<'a>> {
    let mut pieces: Vec<Cluster> = Vec::new();
    let mut used = 0;
    for unit in &cluster.units {
        let more = cluster.unit_tokens(unit);
        if pieces.is_empty() || used + more > budget {
            pieces.push(cluster.empty());
            used = cluster.prefix.len();
        }
        used += more;
        if let Some(last) = pieces.last_mut() {
            last.units.push(unit.clone());
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(shapes: &[(usize, Vec<usize>)]) -> Vec<Datum> {
        let group = |(index, (prompt, lengths)): (usize, &(usize, Vec<usize>))| -> Vec<Datum> {
            let prompt = vec![index as i64; *prompt];
            lengths.iter().map(|&length| Datum::completion(&prompt, &vec![1; length])).collect()
        };
        shapes.iter().enumerate().flat_map(group).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_budget_holds(
            shapes in prop::collection::vec((1usize..20, prop::collection::vec(1usize..30, 0..6)), 1..8),
            budget in 1usize..120,
            workers in 1usize..4,
            pairs in any::<bool>(),
        ) {
            let per_unit = if pairs { 2 } else { 1 };
            let mut datums = batch(&shapes);
            datums.truncate(datums.len() / per_unit * per_unit);
            let micro = micro_batches(&clusters(&datums, per_unit, |_| true), budget, workers);
            for m in &micro {
                let units: usize = m.clusters.iter().map(|cluster| cluster.units.len()).sum();
                prop_assert!(m.tokens() <= budget || units == 1);
                prop_assert!(units >= 1);
                let order: Vec<usize> = m.datums().map(|placed| placed.place).collect();
                let together = order.chunks(per_unit).all(|unit| unit[0] % per_unit == 0 && unit.windows(2).all(|w| w[1] == w[0] + 1));
                prop_assert!(together, "a pair was cut: {order:?}");
            }
            let mut got: Vec<usize> = micro.iter().flat_map(MicroBatch::datums).map(|placed| placed.place).collect();
            got.sort_unstable();
            prop_assert_eq!(got, (0..datums.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_shared_prompt_stands_once_and_its_last_row_predicts_every_first_token() {
        let datums = [
            Datum::completion(&[5, 6], &[7, 8]),
            Datum::completion(&[5, 6], &[9]),
            Datum::text(&[1, 2, 3], &[0.0, 1.0, 1.0]),
        ];
        let micro = micro_batches(&clusters(&datums, 1, |_| true), 100, 1);
        let (packing, scored) = pack(&[&micro[0]]).unwrap();
        assert_eq!(packing.tokens(), [5, 6, 7, 1, 2]);
        assert_eq!(packing.positions(), [0, 1, 2, 0, 1]);
        let [scored] = scored.as_slice() else { panic!("{scored:?}") };
        assert_eq!((&*scored.rows, &*scored.targets), (&[1, 2, 1, 3, 4][..], &[7, 8, 9, 2, 3][..]));
    }

    #[test]
    fn micro_batches_of_one_packing_lie_behind_each_other() {
        let own = [Datum::completion(&[5, 6], &[7, 8]), Datum::completion(&[5, 6], &[9])];
        let other = [Datum::text(&[1, 2, 3], &[0.0, 1.0, 1.0])];
        let micro = [&own[..], &other]
            .map(|datums| micro_batches(&clusters(datums, 1, |_| true), 100, 1).remove(0));
        let (packing, scored) = pack(&[&micro[0], &micro[1]]).unwrap();
        assert_eq!(packing.tokens(), [5, 6, 7, 1, 2]);
        let lies: Vec<_> = scored.iter().map(|s| (s.tokens, &*s.rows, &*s.targets)).collect();
        assert_eq!(lies, [(3, &[1, 2, 1][..], &[7, 8, 9][..]), (2, &[3, 4][..], &[2, 3][..])]);
    }

    #[test]
    fn temperatures_and_numbers_of_targets_do_not_mix() {
        let datums = [
            Datum::completion(&[5], &[7]),
            Datum::completion(&[5], &[7]).with_temperature(0.5),
            Datum::with_targets(vec![1, 2], vec![3, 4, 5, 6], 2),
        ];
        let micro = micro_batches(&clusters(&datums, 1, |_| true), 100, 1);
        let forms: Vec<_> =
            micro.iter().map(|m| (m.temperature(), m.targets_per_position())).collect();
        assert_eq!(forms.len(), 3);
        assert!(
            forms.contains(&(1.0, 2)) && forms.contains(&(0.5, 1)) && forms.contains(&(1.0, 1))
        );
    }

    proptest! {
        #[test]
        fn every_datum_is_some_ranks_own(
            shapes in prop::collection::vec((1usize..20, prop::collection::vec(1usize..30, 0..6)), 1..8),
            size in 1usize..6,
            pairs in any::<bool>(),
        ) {
            let per_unit = if pairs { 2 } else { 1 };
            let mut datums = batch(&shapes);
            datums.truncate(datums.len() / per_unit * per_unit);
            let own: Vec<Range<usize>> =
                (0..size).map(|rank| own_datums(&datums, per_unit, (rank, size))).collect();
            let all: Vec<usize> = own.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..datums.len()).collect::<Vec<_>>());
            prop_assert!(own.iter().all(|own| own.start % per_unit == 0));
        }
    }

    #[test]
    fn what_is_kept_is_computed_and_nothing_else() {
        let datums = batch(&[(2, vec![1, 2, 3])]);
        let kept = clusters(&datums, 1, |datum| datum.targets.len() != 2);
        assert_eq!(tokens(&kept), 2 + 1 + 3);
    }
}
