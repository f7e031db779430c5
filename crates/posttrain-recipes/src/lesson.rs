//! What is learned from examples that say, by themselves or by a teacher, what is right.

mod distillation;
mod preference;
mod supervised;
mod teacher;
mod turns;

pub use distillation::{OffPolicyDistillation, OnPolicyDistillation};
pub use preference::{Preference, PreferencePair, sample_pairs};
pub use supervised::Supervised;
pub use teacher::{Teacher, TeacherConfig, TokenAnswer};
pub use turns::{answer_datum, conversation_datum};

use crate::{Ranks, RecipeError};
use posttrain_data::Example;
use posttrain_loss::Objective;
use posttrain_train::{Datum, Trainer};

/// What a [`FineTuneRun`](crate::FineTuneRun) teaches: which datums an example becomes, and by what
/// rule they are learned.
pub trait Lesson {
    /// The rule.
    fn objective(&self) -> &dyn Objective;

    /// Has several ranks divide what it samples. All of them are asked for the same datums, and
    /// give the same; what a lesson does not divide, each does.
    fn divide(&mut self, ranks: &Ranks) {
        let _ = ranks;
    }

    /// What step `step` learns from its examples. A lesson that samples draws from a seed of its
    /// own for each step and example, so that a run repeats.
    ///
    /// # Errors
    /// [`RecipeError::Example`] names an example that nothing can be learned from; else whatever
    /// the lesson does.
    fn datums(
        &self,
        step: u64,
        examples: &[Example],
        trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError>;

    /// The lesson's own measure on examples that are not learned from, by its name.
    ///
    /// # Errors
    /// As [`Lesson::datums`].
    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError>;
}

impl<L: Lesson + ?Sized> Lesson for Box<L> {
    fn objective(&self) -> &dyn Objective {
        (**self).objective()
    }

    fn divide(&mut self, ranks: &Ranks) {
        (**self).divide(ranks);
    }

    fn datums(
        &self,
        step: u64,
        examples: &[Example],
        trainer: &Trainer,
    ) -> Result<Vec<Datum>, RecipeError> {
        (**self).datums(step, examples, trainer)
    }

    fn held_out(&self, examples: &[Example], trainer: &Trainer) -> Result<HeldOut, RecipeError> {
        (**self).held_out(examples, trainer)
    }
}

/// A measure on examples that are not learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// Its name, as the metrics have it.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}
