//! A pass over the head before its first chunk: checked arguments, and the memory that the chunks
//! share.

use super::Head;
use super::adapter::AdapterPass;
use crate::error::{LossError, Operation};
use posttrain_tensor::{TensorError, check_shape, integers};
use tch::{Device, Kind, TchError, Tensor};

/// Who does the arithmetic between the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// The crate's own kernels, on the CPU.
    Native,
    /// libtorch, anywhere.
    Libtorch,
}

impl Arithmetic {
    pub(super) fn of(device: Device) -> Self {
        if device == Device::Cpu { Self::Native } else { Self::Libtorch }
    }
}

/// Checked arguments and the memory that the chunks share.
pub(super) struct Pass<'a> {
    pub(super) head: &'a Head,
    pub(super) hidden: Tensor,
    /// `[N, K]`.
    pub(super) targets: Tensor,
    pub(super) targets_per_row: usize,
    pub(super) transposed: Tensor,
    pub(super) adapter: Option<AdapterPass>,
    /// `[chunk_tokens, V]`, the logits of one chunk and then their gradient, while no chunk has it.
    pub(super) buffer: Option<Tensor>,
}

/// A stretch of rows.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Chunk {
    pub(super) fn of(&self, tensor: &Tensor) -> Result<Tensor, TchError> {
        tensor.f_narrow(0, self.start as i64, self.len as i64)
    }

    /// Its part of a flat tensor that has `each` elements per row.
    pub(super) fn of_flat(&self, tensor: &Tensor, each: usize) -> Result<Tensor, TchError> {
        tensor.f_narrow(0, (self.start * each) as i64, (self.len * each) as i64)
    }
}

impl Head {
    /// Checks the arguments of a pass and lays out its memory.
    pub(super) fn pass(&self, hidden: &Tensor, targets: &Tensor) -> Result<Pass<'_>, LossError> {
        let (vocab, width) = (self.weight.size()[0], self.weight.size()[1]);
        check_shape("hidden", hidden, &[-1, width])?;
        let tokens = hidden.size()[0];
        let targets_per_row = if targets.dim() == 2 { targets.size()[1].max(1) } else { 1 };
        match targets.dim() {
            2 => check_shape("targets", targets, &[tokens, targets_per_row])?,
            _ => check_shape("targets", targets, &[tokens])?,
        }

        if hidden.kind() != self.weight.kind() {
            return Err(TensorError::Kind {
                argument: "hidden",
                expected: "that of the weight",
                got: hidden.kind(),
            }
            .into());
        }
        if targets.kind() != Kind::Int64 {
            return Err(TensorError::Kind {
                argument: "targets",
                expected: "Int64",
                got: targets.kind(),
            }
            .into());
        }

        for (argument, tensor) in [("hidden", hidden), ("targets", targets)] {
            if tensor.device() != self.weight.device() {
                return Err(TensorError::Device {
                    argument,
                    expected: self.weight.device(),
                    got: tensor.device(),
                }
                .into());
            }
        }
        check_targets(targets, vocab)?;

        let adapter =
            self.adapter.as_ref().map(|adapter| AdapterPass::new(adapter, self.weight.kind()));

        let layout = || -> Result<Pass<'_>, TchError> {
            Ok(Pass {
                head: self,
                hidden: hidden.f_detach()?.f_contiguous()?,
                targets: targets.f_reshape([tokens, targets_per_row])?.f_contiguous()?,
                targets_per_row: targets_per_row as usize,
                transposed: self.weight.f_tr()?,
                adapter: adapter.transpose()?,
                buffer: None,
            })
        };
        layout().during("laying out a pass over the head")
    }
}

fn check_targets(targets: &Tensor, vocab: i64) -> Result<(), LossError> {
    let host = targets.f_to_device(Device::Cpu).and_then(|targets| targets.f_contiguous());
    let host = host.during("copying the targets")?;
    let tokens = integers("targets", &host)?;
    match tokens.iter().position(|token| !(0..vocab).contains(token)) {
        Some(index) => {
            Err(LossError::Target { index, token: tokens[index], vocab: vocab as usize })
        }
        None => Ok(()),
    }
}
