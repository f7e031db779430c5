//! A trainer as one of several, each on a rank of its own.

use super::Trainer;
use crate::micro_batch::own_datums;
use crate::{Datum, TrainError};
use posttrain_collective::{Collective, check_same};
use posttrain_tensor::{floats, host_copy};
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

impl Trainer {
    /// Makes it one of several trainers, one a rank, that make each step together. All of them are
    /// given the same batches; each computes its share, and they come to the same scores, the same
    /// gradient and the same policy, which are those of one trainer up to rounding.
    ///
    /// # Errors
    /// [`TrainError::Collective`] where the ranks have other adapters than rank 0, or do not come.
    pub fn with_ranks(mut self, ranks: Arc<dyn Collective>) -> Result<Self, TrainError> {
        self.ranks = ranks;
        self.check_ranks()?;
        Ok(self)
    }

    /// Checks that all ranks train the same adapter.
    fn check_ranks(&self) -> Result<(), TrainError> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mut sum = 0;
        for (name, leaf) in self.adapter.parameters() {
            sum = crc32c::crc32c_append(sum, name.as_bytes());
            let host = host_copy(&leaf)?.f_detach()?;
            for value in floats("adapter", &host)? {
                sum = crc32c::crc32c_append(sum, &value.to_ne_bytes());
            }
        }
        check_same(&*self.ranks, "adapter", &sum.to_ne_bytes())?;
        Ok(())
    }

    /// Which of a batch's datums are this rank's own.
    pub(super) fn own(&self, datums: &[Datum], per_unit: usize) -> Range<usize> {
        match self.ranks.size() {
            1 => 0..datums.len(),
            size => own_datums(datums, per_unit, (self.ranks.rank(), size)),
        }
    }

    /// Adds up the gradients of all ranks. They are sums over what each has computed, divided by
    /// what belongs to the whole step, so that their sum is the gradient that one rank would have.
    pub(super) fn reduce_gradients(&self) -> Result<(), TrainError> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let own = self.adapter.gradients()?;
        let reached: Vec<f32> = own.iter().map(|own| f32::from(u8::from(own.is_some()))).collect();
        let reached = Tensor::f_from_slice(&reached)?;
        self.ranks.all_reduce(&reached)?;
        let reached = Vec::<f32>::try_from(reached)?;

        // In one call: each waits for all ranks.
        let (mut flat, mut shapes) = (Vec::new(), Vec::new());
        for ((own, (_, leaf)), ranks) in own.iter().zip(self.adapter.parameters()).zip(&reached) {
            let shape = (*ranks > 0.0).then(|| leaf.size());
            if shape.is_some() {
                let zeros = || leaf.f_detach()?.f_zeros_like();
                let gradient = own.as_ref().map_or_else(zeros, |own| Ok(own.shallow_clone()))?;
                flat.push(gradient.f_reshape([-1])?);
            }
            shapes.push(shape);
        }
        if flat.is_empty() {
            return Ok(());
        }
        let flat = Tensor::f_cat(&flat, 0)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        self.ranks.all_reduce(&flat)?;

        let mut start = 0;
        let mut summed = Vec::with_capacity(shapes.len());
        for shape in shapes {
            let Some(shape) = shape else {
                summed.push(None);
                continue;
            };
            let length = shape.iter().product();
            summed.push(Some(flat.f_narrow(0, start, length)?.f_view(&*shape)?));
            start += length;
        }
        Ok(self.adapter.set_gradients(&summed)?)
    }
}
