//! The ranks that make a run together.

use crate::RecipeError;
use crate::observer::Phase;
use crate::queue::SavedRollout;
use crate::rollout::{Rollout, RolloutCost};
use posttrain_collective::{Alone, Collective, CollectiveError, agree, check_same, gather};
use posttrain_model::TextModel;
use posttrain_train::{Trainer, score_texts};
use serde::Serialize;
use std::sync::Arc;

/// The ranks that make a run together: each samples, scores and trains a share of every step, all
/// come to the same policy, and rank 0 keeps the run's files.
///
/// All ranks are given the same configuration, data and model, which is checked, and the run's
/// folder, which they all can read.
///
/// ```
/// use posttrain_collective::from_environment;
/// use posttrain_recipes::Ranks;
/// use std::time::Duration;
///
/// // Those that torchrun started; this process alone without it.
/// let ranks = Ranks::new(from_environment(Duration::from_secs(600))?)?;
/// if ranks.is_leader() {
///     println!("{} ranks", ranks.size());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ranks {
    /// What the thread calls that trains and evaluates.
    training: Arc<dyn Collective>,
    /// What the thread calls that samples, which may be another.
    sampling: Arc<dyn Collective>,
}

/// Tokens that models are compared by.
const PROBE: i64 = 64;
/// How far processors' bf16 are apart, nats by their root mean square, and more.
const ROUNDING: f32 = 0.05;

impl Default for Ranks {
    fn default() -> Self {
        Self { training: Arc::new(Alone), sampling: Arc::new(Alone) }
    }
}

impl Ranks {
    /// The ranks that come together by `collective`.
    ///
    /// # Errors
    /// [`RecipeError::Collective`] where they do not.
    pub fn new(collective: Arc<dyn Collective>) -> Result<Self, RecipeError> {
        Ok(Self { sampling: collective.channel("sampling")?, training: collective })
    }

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.training.size()
    }

    /// Whether this is the one that keeps the run's files.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.training.is_leader()
    }

    /// Does something on the leader alone; what it gave, there. Where it fails there, this fails on
    /// every rank, and until it is done none goes on.
    ///
    /// # Errors
    /// The leader's own; [`RecipeError::Collective`] elsewhere.
    pub fn led<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E>
    where
        E: std::fmt::Display + From<posttrain_collective::CollectiveError>,
    {
        agree(&*self.training, self.is_leader().then(work).transpose())
    }

    /// What a rank came to by itself, once all of them have come to theirs. Where one fails, all
    /// do.
    ///
    /// # Errors
    /// The rank's own; [`RecipeError::Collective`] of another's.
    pub(crate) fn agree<T>(&self, own: Result<T, RecipeError>) -> Result<T, RecipeError> {
        agree(&*self.training, own)
    }

    /// Whether any rank says so. Where one fails, all do.
    ///
    /// # Errors
    /// The rank's own; [`RecipeError::Collective`] of another's, or where one does not come.
    pub fn any(&self, own: Result<bool, RecipeError>) -> Result<bool, RecipeError> {
        Ok(gather(&*self.training, own)?.contains(&true))
    }

    /// The leader's word to all of them.
    pub(crate) fn told(&self, own: Option<String>) -> Result<Option<String>, RecipeError> {
        let all: Vec<Option<String>> = gather(&*self.training, Ok::<_, RecipeError>(own))?;
        Ok(all.into_iter().next().flatten())
    }

    /// Refuses ranks that differ in something.
    pub(crate) fn check_same(
        &self,
        what: &'static str,
        own: &impl Serialize,
    ) -> Result<(), RecipeError> {
        if self.size() == 1 {
            return Ok(());
        }
        let unwritable =
            |source| posttrain_store::StoreError::Unwritable { path: what.into(), source };
        let own = serde_json::to_vec(own).map_err(unwritable)?;
        Ok(check_same(&*self.training, what, &own)?)
    }

    /// Refuses ranks that do not have one model: another shape or kind, or weights that say
    /// something else of the same tokens, which they do by more than any rounding.
    pub(crate) fn check_model(&self, model: &TextModel) -> Result<(), RecipeError> {
        if self.size() == 1 {
            return Ok(());
        }
        self.check_same("program's version", &env!("CARGO_PKG_VERSION"))?;
        let decoder = &model.decoder;
        self.check_same("model", &format!("{:?}", decoder.config()))?;
        self.check_same("compute kind", &format!("{:?}", decoder.kind()))?;

        let text = (0..PROBE).map(|n| n * n % decoder.config().vocab_size).collect();
        let scored = score_texts(decoder, None, &[text]).map_err(RecipeError::from);
        let own = scored.map(|scores| scores.into_iter().flat_map(|text| text.logprobs).collect());
        let all: Vec<Vec<f32>> = gather(&*self.training, own)?;
        let apart = |other: &Vec<f32>| {
            let squares = all[0].iter().zip(other).map(|(one, other)| (one - other).powi(2));
            (squares.sum::<f32>() / PROBE as f32).sqrt() > ROUNDING
        };
        match all.iter().position(apart) {
            Some(rank) => Err(CollectiveError::Differs { rank, what: "model's weights" }.into()),
            None => Ok(()),
        }
    }

    /// The trainer as one of the ranks'.
    pub(crate) fn join(&self, trainer: Trainer) -> Result<Trainer, RecipeError> {
        Ok(trainer.with_ranks(self.training.clone())?)
    }

    /// What a thread calls in a phase.
    pub(crate) fn of(&self, phase: Phase) -> &dyn Collective {
        match phase {
            Phase::Sampling => &*self.sampling,
            _ => &*self.training,
        }
    }
}

/// Puts the ranks' rollouts together, in the order of the ranks. Each keeps its own as it is, with
/// what it has recorded.
pub(crate) fn gathered(
    ranks: &dyn Collective,
    own: Result<Rollout, RecipeError>,
) -> Result<Rollout, RecipeError> {
    let (own, saved) = match own {
        Ok(own) => {
            let saved = SavedRollout::from(&own);
            (own, Ok(saved))
        }
        Err(error) => (Rollout::default(), Err(error)),
    };
    let mut own = Some(own);
    let mut all = Rollout::default();
    for (rank, saved) in gather(ranks, saved)?.into_iter().enumerate() {
        let rollout = own.take_if(|_| rank == ranks.rank()).unwrap_or_else(|| Rollout::from(saved));
        all.groups.extend(rollout.groups);
        all.cost = beside(all.cost, rollout.cost);
    }
    Ok(all)
}

/// What two ranks took side by side.
fn beside(one: RolloutCost, other: RolloutCost) -> RolloutCost {
    RolloutCost {
        sampled_tokens: one.sampled_tokens + other.sampled_tokens,
        seconds_sampling: one.seconds_sampling.max(other.seconds_sampling),
        seconds_reward: one.seconds_reward.max(other.seconds_reward),
    }
}
