//! Everything that a run needs to go on: numbered states, of which the newest good one counts.

use crate::RecipeError;
use crate::curriculum::CurriculumState;
use crate::observer::{Event, Observer};
use crate::queue::SavedRollout;
use crate::ranks::Ranks;
use crate::rollout::Rollout;
use posttrain_data::StreamState;
use posttrain_store::{
    Difference, StoreError, Versions, read_json, read_json_if_there, recover_folder, write_json,
    write_json_pretty,
};
use posttrain_train::{Trainer, TrainerState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Which saved states are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// The last so many, 1 and up. With 2 a run goes on even where the disk has lost the last.
    pub last: usize,
    /// Besides them those of every so many steps, 1 and up, for good; they are saved when they come.
    pub every: Option<u64>,
    /// Besides them that of the best step by validation, which is then saved when it comes.
    pub best: bool,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { last: 2, every: None, best: false }
    }
}

impl CheckpointConfig {
    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("checkpoints.last", self.last as u64),
            ("checkpoints.every", self.every.unwrap_or(1)),
        ])
    }

    /// Whether a state is due after `step`, beside those of every `every` steps; `best` is the best
    /// step so far.
    pub(crate) fn due(&self, every: u64, step: u64, best: Option<u64>) -> bool {
        let kept = self.every.is_some_and(|every| step.is_multiple_of(every));
        step.is_multiple_of(every) || kept || (self.best && best == Some(step))
    }

    /// Lets go of the states that nothing keeps, once that of `step` is written. Later ones are
    /// damaged, or of a life that the run did not go on from.
    pub(crate) fn retain(
        &self,
        states: &Versions,
        step: u64,
        best: Option<u64>,
    ) -> Result<(), StoreError> {
        let numbers: Vec<u64> = states.numbers()?.into_iter().filter(|n| *n <= step).collect();
        let last = &numbers[numbers.len().saturating_sub(self.last)..];
        states.retain(|number| {
            let kept = last.contains(&number)
                || self.every.is_some_and(|every| number.is_multiple_of(every))
                || (self.best && best == Some(number));
            kept && number <= step
        })
    }
}

/// The best step so far by validation accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestStep {
    /// The step.
    pub step: u64,
    /// Its accuracy at temperature 1.
    pub accuracy: f64,
}

/// Where a run stands, beside the trainer's own state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Where the data stands.
    pub data: StreamState,
    /// What the curriculum has learnt of the examples.
    #[serde(default, skip_serializing_if = "CurriculumState::is_empty")]
    pub curriculum: CurriculumState,
    /// The best step so far.
    pub best: Option<BestStep>,
    /// Seconds of work so far, over all the processes that did it.
    pub seconds: f64,
    /// Ids of examples that were taken from the data and have not been trained on, in an
    /// asynchronous run by arrival: they are sampled again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<String>,
    /// Groups submitted so far in such a run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub submitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The form that states are written in. It rises with every change that an older program, or an
/// older state, would be at odds with.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<S> {
    format: u32,
    run: S,
    config: Value,
}

/// A state's form, whatever else it has.
#[derive(Deserialize)]
struct SavedFormat {
    format: Option<u32>,
}

const RUN: &str = "run.json";
/// Batches that were sampled and not trained on, in an asynchronous run in the data's order.
const QUEUE: &str = "queue.json";
/// Where the states are in a run's folder.
const CHECKPOINTS: &str = "checkpoints";
/// Where the first version of this workspace had its one state.
const FIRST_FORM: &str = "state";

impl RunState {
    /// What a run's folder says of its last saved state, without anything else of it; none where
    /// nothing is saved yet. A run may go on meanwhile.
    ///
    /// # Errors
    /// [`RecipeError::Store`] for a file that cannot be read.
    pub fn peek(run: &Path) -> Result<Option<Self>, RecipeError> {
        let root = run.join(CHECKPOINTS);
        if !root.exists() {
            return Ok(None);
        }
        let states = Versions::reader(&root, STEP);
        for number in states.numbers()?.into_iter().rev() {
            // It may have gone since, for a newer one; one that is torn is passed over.
            let saved = read_json_if_there::<Saved<Self>>(&states.path(number).join(RUN));
            if let Ok(Some(saved)) = saved {
                return Ok(Some(saved.run));
            }
        }
        Ok(None)
    }
}

/// Whether a run has a saved state.
pub(crate) fn has_states(run: &Path) -> Result<bool, RecipeError> {
    let root = run.join(CHECKPOINTS);
    Ok(root.exists() && !Versions::reader(&root, STEP).numbers()?.is_empty())
}

/// The name of a state's folder, before its number.
const STEP: &str = "step";

/// Where a run stands, beside its trainers' own states.
pub(crate) trait Standing:
    Clone + Default + Serialize + DeserializeOwned + Send + 'static
{
    /// Steps done.
    fn step(&self) -> u64;

    /// The best of them so far.
    fn best_step(&self) -> Option<u64>;
}

impl Standing for RunState {
    fn step(&self) -> u64 {
        self.step
    }

    fn best_step(&self) -> Option<u64> {
        self.best.map(|best| best.step)
    }
}

/// The place of a run's only trainer among [`Checkpoints`]' folders; several have one each.
pub(crate) const ALONE: &str = "";

/// A run's saved states, of one trainer or several.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    states: Versions,
    config: CheckpointConfig,
    base_model: String,
    /// The configuration that every state is compared by.
    kept: Value,
    /// Whether they are this process's to write: of several ranks they are the leader's.
    own: bool,
    writing: Option<JoinHandle<Result<(), RecipeError>>>,
}

/// What a run goes on from.
#[derive(Default)]
pub(crate) struct Resumed<S = RunState> {
    pub state: S,
    /// What waited to be trained on.
    pub queue: VecDeque<Rollout>,
}

impl Checkpoints {
    /// The states in a run's folder, which is this process's own.
    pub fn open(
        folder: &Path,
        config: CheckpointConfig,
        base_model: &str,
        kept: Value,
    ) -> Result<Self, RecipeError> {
        let states = Versions::open(&folder.join(CHECKPOINTS), STEP)?;
        let first_form = folder.join(FIRST_FORM).join(RUN);
        if states.numbers()?.is_empty() && first_form.exists() {
            return Err(RecipeError::StateFormat { path: first_form, found: 1, expected: FORMAT });
        }
        Ok(Self {
            folder: folder.into(),
            states,
            config,
            base_model: base_model.into(),
            kept,
            own: true,
            writing: None,
        })
    }

    /// The same for a rank of several. The leader's are open when this returns, and it alone writes
    /// them.
    pub fn open_led(
        ranks: &Ranks,
        folder: &Path,
        config: CheckpointConfig,
        base_model: &str,
        kept: Value,
    ) -> Result<Self, RecipeError> {
        ranks.check_same("configuration", &kept)?;
        let opened = ranks.led(|| Self::open(folder, config, base_model, kept.clone()))?;
        Ok(opened.unwrap_or_else(|| Self {
            folder: folder.into(),
            states: Versions::reader(&folder.join(CHECKPOINTS), STEP),
            config,
            base_model: base_model.into(),
            kept,
            own: false,
            writing: None,
        }))
    }

    /// Takes the newest good state up into the trainers, by their folders; the beginning where
    /// there is none. The configuration must be the one that it was begun with. What a process that
    /// was killed left half done is put right.
    pub fn load<'a, S: Standing>(
        &self,
        trainers: impl IntoIterator<Item = (&'a str, &'a mut Trainer)>,
        observer: &mut dyn Observer,
    ) -> Result<Resumed<S>, RecipeError> {
        let trainers: Vec<_> = trainers.into_iter().collect();
        for (role, _) in trainers.iter().filter(|_| self.own) {
            for adapter in ["best", "last"] {
                recover_folder(&self.folder.join(role).join(adapter))?;
            }
        }
        let Some(newest) = self.states.newest()? else { return Ok(Resumed::default()) };
        for damage in &newest.damaged {
            let text = format!("{damage}; the run goes on from step {}", newest.number);
            observer.see(&Event::Note { text: &text });
        }

        let path = newest.path.join(RUN);
        let found = read_json::<SavedFormat>(&path)?.format.unwrap_or(1);
        if found != FORMAT {
            return Err(RecipeError::StateFormat { path, found, expected: FORMAT });
        }
        let saved: Saved<S> = read_json(&path)?;
        if let Some(difference) = Difference::between(&saved.config, &self.kept) {
            return Err(RecipeError::OtherRun { path, difference });
        }
        let queue: Option<Vec<SavedRollout>> = read_json_if_there(&newest.path.join(QUEUE))?;
        for (role, trainer) in trainers {
            trainer.load_state(&newest.path.join(role))?;
            let last = self.folder.join(role).join("last");
            if self.own && !last.exists() {
                trainer.save_adapter(&last, &self.base_model)?;
            }
        }
        let queue = queue.unwrap_or_default().into_iter().map(Rollout::from).collect();
        Ok(Resumed { state: saved.run, queue })
    }

    /// Whether a state is due after a step.
    pub fn due(&self, every: u64, state: &impl Standing) -> bool {
        self.config.due(every, state.step(), state.best_step())
    }

    /// Keeps a trainer's adapter as `best`.
    pub fn keep_best(&self, role: &str, trainer: &Trainer) -> Result<(), RecipeError> {
        if !self.own {
            return Ok(());
        }
        Ok(trainer.save_adapter(&self.folder.join(role).join("best"), &self.base_model)?)
    }

    /// Saves where a run stands, and the adapters as `last`: from a copy, by a thread of its own,
    /// while the run goes on. What was being written before is waited for.
    pub fn save<'a>(
        &mut self,
        state: &impl Standing,
        trainers: impl IntoIterator<Item = (&'a str, &'a Trainer)>,
        queue: impl IntoIterator<Item = &'a Rollout>,
    ) -> Result<(), RecipeError> {
        self.wait()?;
        if !self.own {
            return Ok(());
        }
        let copied = |(role, trainer): (&str, &Trainer)| Ok((role.to_owned(), trainer.state()?));
        let trainers: Result<_, RecipeError> = trainers.into_iter().map(copied).collect();
        let writer = Writer {
            folder: self.folder.clone(),
            states: self.states.clone(),
            config: self.config,
            base_model: self.base_model.clone(),
            saved: Saved { format: FORMAT, run: state.clone(), config: self.kept.clone() },
            queue: queue.into_iter().map(SavedRollout::from).collect(),
            trainers: trainers?,
        };
        self.writing = Some(thread::spawn(move || writer.write()));
        Ok(())
    }

    /// Waits for what is being written.
    pub fn wait(&mut self) -> Result<(), RecipeError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        writing.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Checkpoints {
    /// A run that fails has its last state written to the end; why that failed, too, is no news
    /// then.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            drop(writing.join());
        }
    }
}

/// One state on its way to the disk.
struct Writer<S> {
    folder: PathBuf,
    states: Versions,
    config: CheckpointConfig,
    base_model: String,
    saved: Saved<S>,
    queue: Vec<SavedRollout>,
    trainers: Vec<(String, TrainerState)>,
}

impl<S: Standing> Writer<S> {
    fn write(self) -> Result<(), RecipeError> {
        // Before the state: a run that is killed in between writes them again.
        for (role, trainer) in &self.trainers {
            trainer.save_adapter(&self.folder.join(role).join("last"), &self.base_model)?;
        }
        let run = &self.saved.run;
        self.states.write(run.step(), |fresh| self.fill(fresh))?;
        Ok(self.config.retain(&self.states, run.step(), run.best_step())?)
    }

    fn fill(&self, fresh: &Path) -> Result<(), RecipeError> {
        for (role, trainer) in &self.trainers {
            trainer.save(&fresh.join(role))?;
        }
        if !self.queue.is_empty() {
            write_json(&fresh.join(QUEUE), &self.queue)?;
        }
        Ok(write_json_pretty(&fresh.join(RUN), &self.saved)?)
    }
}

/// A configuration in the form that a saved state is compared by.
pub(crate) fn kept_config(config: &impl Serialize) -> Result<Value, RecipeError> {
    Ok(serde_json::to_value(config)
        .map_err(|source| StoreError::Unwritable { path: RUN.into(), source })?)
}
