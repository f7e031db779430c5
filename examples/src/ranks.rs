//! A run on several processes that torchrun started, or on this one.

use anyhow::{Context, Result, ensure};
use posttrain::collective::Rank;
use posttrain::model::{DeviceChoice, cuda_status};
use posttrain::recipes::{Console, Observer, Ranks, Silent};
use std::time::Duration;

/// The ranks that torchrun started, this process among them, or this process alone; with the device
/// that it computes on, which is one of its own where its machine has GPUs.
///
/// # Errors
/// Names a variable of torchrun's that is wrong, or the ranks that do not come within `timeout`
/// seconds.
pub fn join_ranks(timeout: f64, device: DeviceChoice) -> Result<(Ranks, DeviceChoice)> {
    let timeout = Duration::try_from_secs_f64(timeout).context("--rank-timeout")?;
    let Some(rank) = Rank::read()? else { return Ok((Ranks::default(), device)) };
    let device = match device {
        DeviceChoice::Auto if cuda_status().is_ok() => DeviceChoice::Cuda(rank.local),
        DeviceChoice::Cuda(first) => DeviceChoice::Cuda(first + rank.local),
        device => device,
    };
    Ok((Ranks::new(rank.join(timeout)?)?, device))
}

/// For a program that is one process: torchrun has started no other.
///
/// # Errors
/// Says how many it has started.
pub fn refuse_ranks() -> Result<()> {
    let size = Rank::read()?.map_or(1, |rank| rank.size);
    ensure!(
        size == 1,
        "{size} ranks (WORLD_SIZE): this program is one process; rlvr, sft, dpo, distill and the policies in environments are ranks"
    );
    Ok(())
}

/// What shows a run on a terminal: the leader's alone, of several ranks.
#[must_use]
pub fn console(ranks: &Ranks) -> Box<dyn Observer> {
    if ranks.is_leader() { Box::new(Console::default()) } else { Box::new(Silent) }
}
