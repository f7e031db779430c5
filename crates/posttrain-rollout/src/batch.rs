//! The running rows and their keys and values, in one order.

use crate::RolloutError;
use crate::cache::{Cache, Joining};
use crate::order::{closing, opening, reorder, runs};
use crate::row::{Group, Row, same_adapter};
use posttrain_lora::{RowAdapters, Segment};
use posttrain_model::{Decoder, Input, ModelError, RecordedPass, TextCache};
use posttrain_tensor::to_device;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::Tensor;

/// The rows that are decoded side by side, those of one adapter next to each other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    rows: Vec<Row>,
    cache: Option<Cache>,
}

impl Batch {
    /// How many rows run.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows each client has.
    pub fn rows_by_client(&self) -> BTreeMap<u64, usize> {
        let mut rows = BTreeMap::new();
        for row in &self.rows {
            *rows.entry(row.group.client).or_default() += 1;
        }
        rows
    }

    /// Of the other client that has the most rows, among those of the group's priority or a lower
    /// one: the row that has come the least far, and how many the client has.
    pub fn of_the_most(&self, group: &Group) -> Option<(usize, usize)> {
        let by_client = self.rows_by_client();
        let rows_of = |row: &Row| by_client.get(&row.group.client).copied().unwrap_or(0);
        let below = self.rows.iter().enumerate().filter(|(_, row)| {
            row.group.client != group.client && row.group.priority <= group.priority
        });
        let (place, row) = below.max_by_key(|(_, row)| (rows_of(row), Reverse(row.sampled())))?;
        Some((place, rows_of(row)))
    }

    /// The rows, in the order of [`Batch::decode`]'s.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Adds rows of one prompt behind those of their adapter; `most` rows run at a time at most.
    pub fn join(
        &mut self,
        model: &Decoder,
        most: usize,
        prompt: &TextCache,
        mut rows: Vec<Row>,
    ) -> Result<(), RolloutError> {
        let Some(new) = rows.first() else { return Ok(()) };
        let runs = self.runs();
        let same = |run: &Range<usize>| same_adapter(&self.rows[run.start].group, &new.group);
        let first = runs.iter().position(same).unwrap_or(runs.len());
        let at = runs.get(first).map_or(self.rows.len(), |run| run.end);
        let moves = opening(&runs[first..], rows.len());
        let cache = match self.cache.take() {
            Some(cache) => cache,
            None => Cache::new(model, most)?,
        };
        self.cache.insert(cache).join(Joining { prompt, count: rows.len(), at, moves: &moves })?;
        self.rows.append(&mut rows);
        reorder(&mut self.rows, &moves);
        Ok(())
    }

    /// Takes a row out. Only rows behind it change their places.
    pub fn leave(&mut self, row: usize) -> Result<Option<Row>, RolloutError> {
        let moves = closing(&self.runs(), row);
        if let Some(cache) = &mut self.cache {
            cache.leave(&moves)?;
        }
        reorder(&mut self.rows, &moves);
        Ok(self.rows.pop())
    }

    /// What a row has read, as the prompt of a text that goes on from it.
    pub fn text(&self, row: usize) -> Result<Option<TextCache>, RolloutError> {
        Ok(self.cache.as_ref().map(|cache| cache.text(row)).transpose()?)
    }

    /// Whether the activations of any row are recorded.
    pub fn records(&self) -> bool {
        self.rows.iter().any(Row::records)
    }

    /// One forward pass over the rows' latest tokens: the logits of their next ones, `[rows, V]`,
    /// and the pass, if it is to be recorded.
    pub fn decode(
        &mut self,
        model: &Decoder,
        record: bool,
    ) -> Result<Option<(Tensor, Option<RecordedPass>)>, RolloutError> {
        let runs = self.runs();
        let Some(cache) = &mut self.cache else { return Ok(None) };
        cache.make_room()?;
        let segment = |run: &Range<usize>| Segment {
            rows: run.len() as i64,
            adapter: self.rows[run.start].group.adapter(),
        };
        let adapters = RowAdapters::segments(runs.iter().map(segment).collect());
        let (tokens, positions): (Vec<_>, Vec<_>) = self.rows.iter().map(Row::next_input).unzip();
        // One crossing, since each waits for the device.
        let both = to_device(&[tokens, positions].concat(), model.device())
            .map_err(ModelError::from)?
            .f_chunk(2, 0)?;
        let input = Input { tokens: both[0].shallow_clone(), positions: both[1].shallow_clone() };
        let (hidden, pass) = match record {
            true => model.forward_recording(&input, cache, &adapters)?,
            false => (model.forward(&input, cache, &adapters)?, None),
        };
        cache.advance();
        Ok(Some((model.logits(&hidden, &adapters)?, pass)))
    }

    fn runs(&self) -> Vec<Range<usize>> {
        runs(&self.rows, |one, next| same_adapter(&one.group, &next.group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicySnapshot;
    use crate::SamplingParams;
    use crate::device_cache::DeviceCache;
    use crate::row::Group;
    use posttrain_lora::{Adapter, LoraConfig};
    use posttrain_model::ModelConfig;
    use posttrain_tensor::crossings;
    use std::sync::Arc;
    use tch::{Device, Kind};

    /// A model, two batches of it, one on a device's cache, and what has happened to both.
    struct Twins {
        model: Decoder,
        policies: Vec<Option<PolicySnapshot>>,
        native: Batch,
        device: Batch,
    }

    impl Twins {
        fn new() -> Self {
            let model = Decoder::random(&ModelConfig::tiny(), 1, Kind::Float, Device::Cpu).unwrap();
            let adapter = |seed| {
                let adapter =
                    Adapter::init(&LoraConfig::default(), model.modules(), seed, Device::Cpu)
                        .unwrap();
                Some(PolicySnapshot::new(adapter.snapshot(Kind::Float).unwrap(), seed))
            };
            let policies = vec![None, adapter(1), adapter(2)];
            let cache = Some(Cache::Device(DeviceCache::new(&model, 64).unwrap()));
            Self {
                model,
                policies,
                native: Batch::default(),
                device: Batch { rows: Vec::new(), cache },
            }
        }

        /// `count` rows by an adapter after `shared` tokens and `own` more, their keys and values
        /// drawn from a seed.
        fn join(&mut self, adapter: usize, [shared, own]: [i64; 2], count: usize, seed: i64) {
            let drawn = |tokens: i64, seed: i64| {
                let part = |seed: i64| {
                    ((Tensor::arange(tokens * 8, (Kind::Float, Device::Cpu)) + seed) * 1.7)
                        .sin()
                        .view([tokens, 1, 8])
                };
                vec![(part(seed), part(seed + 500))]
            };
            let (beginning, end) = (drawn(shared, seed), drawn(own, seed + 70));
            let native = TextCache::empty(&self.model);
            for (batch, empty) in
                [(&mut self.native, native), (&mut self.device, TextCache::Tensors(Vec::new()))]
            {
                let prompt = empty.followed_by(&self.model, &beginning).unwrap();
                let prompt = prompt.followed_by(&self.model, &end).unwrap();
                let prompt_tokens = vec![1; (shared + own) as usize];
                let group = Arc::new(Group {
                    request: 0,
                    prompt: prompt_tokens,
                    params: SamplingParams::default(),
                    policy: self.policies[adapter].clone(),
                    priority: 0,
                    client: 0,
                });
                let mut rows: Vec<_> =
                    (0..count).map(|sample| Row::new(group.clone(), sample, 256)).collect();
                for (sample, row) in rows.iter_mut().enumerate() {
                    row.push((seed + sample as i64) % 63 + 1, 0.0, &[], None).unwrap();
                }
                batch.join(&self.model, 64, &prompt, rows).unwrap();
            }
        }

        fn leave(&mut self, row: usize) {
            [&mut self.native, &mut self.device]
                .into_iter()
                .for_each(|batch| drop(batch.leave(row).unwrap()));
        }

        /// Decodes a token in both; every row must see the same.
        fn step(&mut self) {
            let _guard = tch::no_grad_guard();
            let [native, device] = [&mut self.native, &mut self.device].map(|batch| {
                let before = crossings();
                let (logits, _) = batch.decode(&self.model, false).unwrap().unwrap();
                assert_eq!(crossings() - before, 1, "a step waits for the device");
                batch.rows_mut().iter_mut().enumerate().for_each(|(row, r)| {
                    r.push(row as i64 % 63 + 1, 0.0, &[], None).unwrap();
                });
                assert!(batch.runs().len() <= 3, "an adapter's rows are scattered");
                logits
            });
            assert_eq!(native.size(), device.size());
            let difference = (native - device).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{difference}");
        }
    }

    #[test]
    fn rows_see_their_own_texts_in_both_caches_whoever_joins_or_leaves() {
        let mut twins = Twins::new();
        for round in 0..12 {
            let seed = round * 31;
            twins.join(
                round as usize % 3,
                [1 + round % 5, 1 + round % 4],
                1 + round as usize % 4,
                seed,
            );
            twins.step();
            twins.join((round as usize + 1) % 3, [2, 1], 2, seed + 11);
            twins.step();
            let rows = twins.native.len();
            twins.leave(rows / 2);
            twins.leave(0);
            twins.step();
        }
        assert!(twins.native.len() > 20);
        while twins.native.len() > 1 {
            twins.leave(twins.native.len() / 3);
            twins.step();
        }
    }
}
