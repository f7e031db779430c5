//! Arms as processes of their own, several at a time, each with its share of the machine.

use crate::timeline::order;
use crate::{Arm, ExperimentError};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sees what arms print: the arm's name and a line.
pub type Lines = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How arms are run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// Arms at a time, 1 and up.
    pub at_a_time: usize,
    /// Cores that are divided among them.
    pub cores: usize,
    /// GPUs that are divided among them, 0 where the CPU trains.
    pub gpus: usize,
    /// How often an arm that died is started again; it goes on from its last saved state.
    pub retries: usize,
}

/// A place for one arm at a time: a share of the cores and, where there are any, of the GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The cores, by number; at least one. Where there are fewer cores than slots, slots share
    /// them.
    pub cores: Vec<usize>,
    /// The GPUs, by number.
    pub gpus: Vec<usize>,
}

/// How an arm's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmEnd {
    /// The arm.
    pub arm: String,
    /// Whether it ended well.
    pub ok: bool,
    /// What the system says of its last end.
    pub status: String,
    /// How often it was started.
    pub starts: usize,
}

impl Parallel {
    /// The places, of nearly equal size.
    ///
    /// ```
    /// use posttrain_experiment::Parallel;
    ///
    /// let slots = Parallel { at_a_time: 2, cores: 5, gpus: 0, retries: 1 }.slots();
    /// assert_eq!([&slots[0].cores[..], &slots[1].cores[..]], [&[0, 1][..], &[2, 3, 4]]);
    /// ```
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let count = self.at_a_time.max(1);
        let share = |all: usize, slot: usize| {
            (all * slot / count..all * (slot + 1) / count).collect::<Vec<_>>()
        };

        (0..count)
            .map(|slot| {
                let mut cores = share(self.cores, slot);
                let mut gpus = share(self.gpus, slot);
                if cores.is_empty() {
                    cores.push(slot % self.cores.max(1));
                }
                if gpus.is_empty() && self.gpus > 0 {
                    gpus.push(slot % self.gpus);
                }
                Slot { cores, gpus }
            })
            .collect()
    }

    /// Runs every arm by `command`, which makes the command of an arm at a place. Its output comes
    /// to `line`, each with the arm's name. The death of one leaves the others alone; it is started
    /// again, up to `retries` times. Once `stop` is set none is started any more; those that run
    /// are expected to have heard it themselves.
    ///
    /// # Errors
    /// [`ExperimentError::Process`] where a process cannot be started.
    pub fn run(
        &self,
        arms: &[Arm],
        command: &dyn Fn(&Arm, &Slot) -> Command,
        stop: &AtomicBool,
        line: &Lines,
    ) -> Result<Vec<ArmEnd>, ExperimentError> {
        let mut waiting: VecDeque<(&Arm, usize)> =
            order(arms).into_iter().map(|arm| (arm, 0)).collect();
        let mut free: VecDeque<Slot> = self.slots().into();
        let mut running: Vec<Running> = Vec::new();
        let mut ends: Vec<ArmEnd> = Vec::new();

        while !running.is_empty() || (!waiting.is_empty() && !stop.load(Ordering::Relaxed)) {
            while !stop.load(Ordering::Relaxed) && !free.is_empty() && !waiting.is_empty() {
                let (Some(slot), Some((arm, starts))) = (free.pop_front(), waiting.pop_front())
                else {
                    break;
                };
                running.push(Running::start(arm, starts + 1, slot, command, line)?);
            }

            std::thread::sleep(Duration::from_millis(50));
            let mut going = Vec::with_capacity(running.len());
            for process in running {
                match process.ended()? {
                    Ok(ended) => {
                        let again = !ended.end.ok
                            && ended.end.starts <= self.retries
                            && !stop.load(Ordering::Relaxed);
                        free.push_back(ended.slot);
                        line(&ended.end.arm, &ended.end.said(again));
                        match again {
                            true => waiting.push_back((ended.arm, ended.end.starts)),
                            false => ends.push(ended.end),
                        }
                    }
                    Err(process) => going.push(process),
                }
            }
            running = going;
        }

        Ok(ends)
    }
}

impl ArmEnd {
    fn said(&self, again: bool) -> String {
        match (self.ok, again) {
            (true, _) => "ended".into(),
            (false, true) => format!("died ({}); it is started again", self.status),
            (false, false) => format!("died ({})", self.status),
        }
    }
}

struct Running<'a> {
    arm: &'a Arm,
    starts: usize,
    slot: Slot,
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

struct Ended<'a> {
    arm: &'a Arm,
    slot: Slot,
    end: ArmEnd,
}

impl<'a> Running<'a> {
    fn start(
        arm: &'a Arm,
        starts: usize,
        slot: Slot,
        command: &dyn Fn(&Arm, &Slot) -> Command,
        line: &Lines,
    ) -> Result<Self, ExperimentError> {
        let mut command = command(arm, &slot);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|source| ExperimentError::Process { arm: arm.name.clone(), source })?;

        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        let readers = streams
            .into_iter()
            .flatten()
            .map(|stream| forward(stream, arm.name.clone(), line.clone()));

        Ok(Self { arm, starts, slot, readers: readers.collect(), child })
    }

    /// Itself while it runs.
    fn ended(mut self) -> Result<Result<Ended<'a>, Self>, ExperimentError> {
        let status = self
            .child
            .try_wait()
            .map_err(|source| ExperimentError::Process { arm: self.arm.name.clone(), source })?;
        let Some(status) = status else { return Ok(Err(self)) };

        // A reader that panicked has printed why.
        self.readers.into_iter().for_each(|reader| drop(reader.join()));
        let end = ArmEnd {
            arm: self.arm.name.clone(),
            ok: status.success(),
            status: status.to_string(),
            starts: self.starts,
        };

        Ok(Ok(Ended { arm: self.arm, slot: self.slot, end }))
    }
}

fn forward(stream: Box<dyn Read + Send>, arm: String, line: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            line(&arm, String::from_utf8_lossy(&bytes).trim_end());
        }
    })
}
