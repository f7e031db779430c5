//! The keys and values of the running rows on a device, as tensors.
//!
//! All rows end at the same column: a row that joins lays its prompt just before it, so that every
//! decoding step writes one column for all rows with a single strided copy, and no index is needed.
//! What lies before a row's own start is masked. When the columns run out, the dead ones on the
//! left are dropped; only then is anything moved.

use crate::order::Move;
use posttrain_model::{Attend, Decoder, ModelError, Projected, Rotated};
use std::ops::Range;
use tch::Tensor;

/// Columns that a cache grows by at least, and a multiple of which it has.
const GROWTH: i64 = 64;

/// A part of the mask begins and ends at a multiple of so many columns: libtorch's fused kernel
/// would else copy it, in every layer.
const ALIGNED: i64 = 16;

/// A cache of `[rows, kv_heads, columns, d]` for keys and for values of every layer.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    layers: Vec<(Tensor, Tensor)>,
    /// `[rows, columns]` in the compute kind: 0 from a row's start to the latest column, −∞
    /// elsewhere.
    mask: Tensor,
    starts: Vec<i64>,
    /// The column that the next token goes to.
    column: i64,
    columns: i64,
}

impl DeviceCache {
    /// An empty cache for `rows` rows.
    pub fn new(model: &Decoder, rows: usize) -> Result<Self, ModelError> {
        let config = model.config();
        let options = (model.kind(), model.device());
        let shape = [rows as i64, config.num_key_value_heads, GROWTH, config.head_dim];
        let layer = |_| {
            Ok::<_, ModelError>((
                Tensor::f_zeros(shape, options)?,
                Tensor::f_zeros(shape, options)?,
            ))
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?;
        let mask = Tensor::f_full([rows as i64, GROWTH], f64::NEG_INFINITY, options)?;
        Ok(Self { layers, mask, starts: Vec::new(), column: 0, columns: GROWTH })
    }

    /// Adds rows that share a prompt at `places`, once `moves` have made room for them there:
    /// `prompt[layer]` is its keys and values, `[P, kv_heads, d]` each.
    pub fn join(
        &mut self,
        prompt: &[(Tensor, Tensor)],
        places: Range<usize>,
        moves: &[Move],
    ) -> Result<(), ModelError> {
        let length = prompt.first().map_or(0, |(k, _)| k.size()[0]);
        if self.starts.is_empty() {
            self.column = 0;
        }
        self.shift_to(self.column.max(length))?;
        let start = self.column - length;
        self.starts.resize(self.starts.len() + places.len(), start);
        moves.iter().try_for_each(|block| self.copy(*block))?;
        let (first, count) = (places.start as i64, places.len() as i64);
        for ((keys, values), (k, v)) in self.layers.iter().zip(prompt) {
            for (cache, new) in [(keys, k), (values, v)] {
                let mut place = cache.f_narrow(0, first, count)?.f_narrow(2, start, length)?;
                place.f_copy_(&new.f_transpose(0, 1)?.f_unsqueeze(0)?.f_expand_as(&place)?)?;
            }
        }
        for row in places {
            self.starts[row] = start;
            self.remask(row as i64)?;
        }
        Ok(())
    }

    /// Takes out the row that stands last after some moves.
    pub fn leave(&mut self, moves: &[Move]) -> Result<(), ModelError> {
        moves.iter().try_for_each(|block| self.copy(*block))?;
        self.starts.pop();
        Ok(())
    }

    /// Keys and values of what a row has read, `[T, kv_heads, d]` each, in every layer.
    pub fn text(&self, row: usize) -> Result<Vec<(Tensor, Tensor)>, ModelError> {
        let start = self.starts[row];
        let part = |cache: &Tensor| -> Result<Tensor, ModelError> {
            let own = cache.f_get(row as i64)?.f_narrow(1, start, self.column - start)?;
            // A copy in any case, which `f_contiguous` is not for a single head.
            Ok(Tensor::f_cat(&[own.f_transpose(0, 1)?], 0)?)
        };
        self.layers.iter().map(|(keys, values)| Ok((part(keys)?, part(values)?))).collect()
    }

    /// Copies a block of rows to its new place. What stood there is no longer needed.
    fn copy(&mut self, Move { from, to, count }: Move) -> Result<(), ModelError> {
        let start = self.starts[from..from + count].iter().copied().min().unwrap_or(self.column);
        let part = |cache: &Tensor, row: usize| {
            cache.f_narrow(0, row as i64, count as i64)?.f_narrow(2, start, self.column - start)
        };
        for cache in self.layers.iter().flat_map(|(keys, values)| [keys, values]) {
            part(cache, to)?.f_copy_(&part(cache, from)?)?;
        }
        self.starts.copy_within(from..from + count, to);
        (to..to + count).try_for_each(|row| self.remask(row as i64))
    }

    /// Makes sure that the next column is there, and opens it to all rows.
    pub fn make_room(&mut self) -> Result<(), ModelError> {
        if self.column >= self.columns {
            self.grow()?;
        }
        let _ = self.mask.f_narrow(1, self.column, 1)?.f_fill_(0.0)?;
        Ok(())
    }

    fn grow(&mut self) -> Result<(), ModelError> {
        let dead = self.starts.iter().copied().min().unwrap_or(self.column);
        // Dropping a few columns at a time would move everything again and again.
        let keep = if dead * 4 >= self.columns { dead } else { 0 };
        self.relay(keep, 0, if keep > 0 { self.columns } else { self.columns + self.columns / 2 })
    }

    /// Ends a decoding step: every row is a column longer.
    pub fn advance(&mut self) {
        self.column += 1;
    }

    /// Moves the shared end to `column`, at least where it is.
    fn shift_to(&mut self, column: i64) -> Result<(), ModelError> {
        let by = column - self.column;
        if by == 0 && column < self.columns {
            return Ok(());
        }
        if self.starts.is_empty() && column < self.columns {
            self.column = column;
            return Ok(());
        }
        self.relay(0, by, self.columns.max(column + GROWTH))
    }

    /// Lays the cache out again: `drop` columns fewer on the left, or `shift` more, at least
    /// `columns` in all.
    fn relay(&mut self, drop: i64, shift: i64, columns: i64) -> Result<(), ModelError> {
        let (rows, length) = (self.starts.len() as i64, self.column - drop);
        let columns = multiple(columns, GROWTH);
        for (keys, values) in &mut self.layers {
            for cache in [keys, values] {
                let size = cache.size();
                let fresh = Tensor::f_zeros(
                    [size[0], size[1], columns, size[3]],
                    (cache.kind(), cache.device()),
                )?;
                let old = cache.f_narrow(0, 0, rows)?.f_narrow(2, drop, length)?;
                fresh.f_narrow(0, 0, rows)?.f_narrow(2, shift, length)?.f_copy_(&old)?;
                *cache = fresh;
            }
        }
        self.mask = Tensor::f_full(
            [self.mask.size()[0], columns],
            f64::NEG_INFINITY,
            (self.mask.kind(), self.mask.device()),
        )?;
        self.starts.iter_mut().for_each(|start| *start += shift - drop);
        (self.column, self.columns) = (self.column + shift - drop, columns);
        (0..rows).try_for_each(|row| self.remask(row))
    }

    fn remask(&self, row: i64) -> Result<(), ModelError> {
        let start = self.starts[row as usize];
        let mut mask = self.mask.f_get(row)?;
        let _ = mask.f_fill_(f64::NEG_INFINITY)?;
        let _ = mask.f_narrow(0, start, self.column - start)?.f_fill_(0.0)?;
        Ok(())
    }
}

/// The smallest multiple of `of` that is at least `count`.
fn multiple(count: i64, of: i64) -> i64 {
    (count + of - 1) / of * of
}

/// A decoding step: one token a row, at the shared end.
impl Attend for DeviceCache {
    fn attend(&mut self, layer: usize, projected: &Projected) -> Result<Tensor, ModelError> {
        let Rotated { q, k, v } = projected.rotated()?;
        let (rows, heads, width) = q.size3()?;
        let kv_heads = k.size()[1];
        let first = self.starts.iter().copied().min().unwrap_or(0) / ALIGNED * ALIGNED;
        let seen = multiple(self.column + 1 - first, ALIGNED);
        let (keys, values) = &self.layers[layer];
        for (cache, new) in [(keys, &k), (values, &v)] {
            cache
                .f_narrow(0, 0, rows)?
                .f_narrow(2, self.column, 1)?
                .f_copy_(&new.f_unsqueeze(2)?)?;
        }
        let part = |cache: &Tensor| cache.f_narrow(0, 0, rows)?.f_narrow(2, first, seen);
        let mask = self
            .mask
            .f_narrow(0, 0, rows)?
            .f_narrow(1, first, seen)?
            .f_unsqueeze(1)?
            .f_unsqueeze(1)?;
        // The query heads that share a key head stand where a sequence's queries would: no key is
        // repeated.
        let q = q.f_reshape([rows, kv_heads, heads / kv_heads, width])?;
        let out = Tensor::f_scaled_dot_product_attention(
            &q,
            &part(keys)?,
            &part(values)?,
            Some(&mask),
            0.0,
            false,
            None,
            false,
        )?;
        Ok(out.f_reshape([rows, heads * width])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_model::ModelConfig;
    use tch::{Device, Kind};

    fn model() -> Decoder {
        Decoder::random(&ModelConfig::tiny(), 1, Kind::Float, Device::Cpu).unwrap()
    }

    fn prompt(length: i64, value: f64) -> Vec<(Tensor, Tensor)> {
        let t = || Tensor::full([length, 1, 8], value, (Kind::Float, Device::Cpu));
        vec![(t(), t())]
    }

    fn step(cache: &mut DeviceCache, value: f64) -> Vec<f64> {
        cache.make_room().unwrap();
        let (rows, model) = (cache.starts.len() as i64, model());
        let part = |heads: i64, value: f64| {
            Tensor::full([rows, heads * 8], value, (Kind::Float, Device::Cpu))
        };
        let qkv = Tensor::cat(&[part(2, 1.0), part(1, 0.0), part(1, value)], 1);
        let rotation = model.rotation(&Tensor::zeros([rows], (Kind::Int64, Device::Cpu))).unwrap();
        let out =
            cache.attend(0, &Projected { qkv, heads: model.heads(), rotation: &rotation }).unwrap();
        cache.advance();
        (0..rows).map(|r| out.double_value(&[r, 0])).collect()
    }

    /// With equal scores attention is a mean, so the values seen can be counted.
    fn uniform(length: i64, value: f64) -> Vec<(Tensor, Tensor)> {
        prompt(length, value).into_iter().map(|(k, v)| (k.zeros_like(), v)).collect()
    }

    #[test]
    fn every_row_sees_its_own_prompt_and_steps_whoever_joins_or_leaves() {
        let mut cache = DeviceCache::new(&model(), 4).unwrap();
        cache.join(&uniform(3, 1.0), 0..2, &[]).unwrap();
        assert!(step(&mut cache, 5.0).iter().all(|seen| (seen - 2.0).abs() < 1e-5)); // (3·1 + 5) / 4
        cache.join(&uniform(9, 0.0), 2..3, &[]).unwrap(); // longer than the column: everything shifts
        let seen = step(&mut cache, 10.0);
        assert!(
            seen.iter().zip([3.6, 3.6, 1.0]).all(|(got, expected)| (got - expected).abs() < 1e-5),
            "{seen:?}"
        );
        cache.leave(&[Move { from: 2, to: 0, count: 1 }]).unwrap();
        let seen = step(&mut cache, 0.0);
        assert!(
            (seen[0] - 10.0 / 11.0).abs() < 1e-6 && (seen[1] - 18.0 / 6.0).abs() < 1e-6,
            "{seen:?}"
        );
        // Two rows between them: the last moves behind them.
        cache.join(&uniform(1, 4.0), 1..3, &[Move { from: 1, to: 3, count: 1 }]).unwrap();
        let seen = step(&mut cache, 2.0);
        let expected = [12.0 / 12.0, 3.0, 3.0, 20.0 / 7.0];
        assert!(
            seen.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5),
            "{seen:?}"
        );
    }

    /// With a single key head a row's share has the strides of a copy.
    #[test]
    fn what_is_kept_of_a_row_is_not_what_others_write_over() {
        let model = model();
        assert_eq!(model.config().num_key_value_heads, 1);
        let mut cache = DeviceCache::new(&model, 4).unwrap();
        cache.join(&prompt(3, 1.0), 0..1, &[]).unwrap();
        cache.join(&prompt(2, 2.0), 1..2, &[]).unwrap();
        step(&mut cache, 4.0);

        let kept = cache.text(0).unwrap();
        cache.leave(&[Move { from: 1, to: 0, count: 1 }]).unwrap();
        cache.join(&prompt(9, 7.0), 1..2, &[]).unwrap();
        step(&mut cache, 8.0);

        let (_, values) = &kept[0];
        let expected = Tensor::cat(&[&prompt(3, 1.0)[0].1, &prompt(1, 4.0)[0].1], 0);
        assert_eq!(values, &expected);
    }

    #[test]
    fn a_long_run_grows_and_drops_dead_columns() {
        let mut cache = DeviceCache::new(&model(), 2).unwrap();
        cache.join(&uniform(2, 1.0), 0..1, &[]).unwrap();
        for _ in 0..200 {
            step(&mut cache, 1.0);
        }
        cache.join(&uniform(2, 1.0), 1..2, &[]).unwrap();
        cache.leave(&[Move { from: 1, to: 0, count: 1 }]).unwrap();
        for _ in 0..400 {
            assert!((step(&mut cache, 1.0)[0] - 1.0).abs() < 1e-5);
        }
        assert!(cache.columns <= 1024, "{}", cache.columns);
    }
}
