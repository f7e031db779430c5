//! What environments are made of.

use posttrain_data::Example;
use posttrain_environment::{Environment, EnvironmentError, EpisodePlayer};
use std::collections::BTreeMap;

/// Whoever may act in an environment: a player for each role, so that an environment can have
/// sub-agents play on its behalf ([`EpisodePlayer::play`] beside each other; their trajectories are
/// handed over by [`Environment::take_children`]).
pub struct Stage {
    pub(crate) players: BTreeMap<String, EpisodePlayer>,
}

impl Stage {
    /// The player of a role.
    ///
    /// # Errors
    /// [`EnvironmentError::Failed`] where the configuration has no such role.
    pub fn player(&self, role: &str) -> Result<&EpisodePlayer, EnvironmentError> {
        self.players.get(role).ok_or_else(|| EnvironmentError::Failed {
            reason: format!("the configuration has no role `{role}`"),
        })
    }
}

/// An episode that an environment is made for.
#[derive(Clone, Copy)]
pub struct EpisodeRequest<'a> {
    /// The task.
    pub task: &'a Example,
    /// The episode's seed: another for each episode of a task, the same when a run is repeated.
    /// Sub-agents' follow from it.
    pub seed: u64,
    /// How far the run is: 0 at its first step, 1 at its last, and 1 where episodes are played to be
    /// measured or shown. What a curriculum, or a reward that fades, goes by.
    pub progress: f64,
    /// Whoever may act.
    pub stage: &'a Stage,
}

/// Makes the environment of a task, anew for each of its episodes.
pub trait EnvironmentBuilder: Send + Sync {
    /// An environment of its own for one episode of a task.
    ///
    /// # Errors
    /// Whatever keeps it from being made: the episode fails.
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError>;
}

impl<F> EnvironmentBuilder for F
where
    F: Fn(EpisodeRequest<'_>) -> Result<Box<dyn Environment>, EnvironmentError> + Send + Sync,
{
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        self(episode)
    }
}
