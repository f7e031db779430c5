//! What a role learns from a step's episodes.

use crate::RecipeError;
use crate::agent::config::AgentConfig;
use crate::agent::episodes::{EpisodeGroup, trajectory_datums};
use posttrain_environment::Trajectory;
use posttrain_loss::{AdvantageConfig, Aggregation};
use posttrain_train::Datum;
use serde::{Deserialize, Serialize};

/// A line of `episodes.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EpisodeLine {
    pub step: u64,
    pub task: String,
    pub advantage: f32,
    pub trajectory: Trajectory,
}

/// A role's episodes and what each is worth.
pub(crate) struct Learned<'a> {
    trajectories: Vec<(&'a str, &'a Trajectory)>,
    advantages: Vec<f32>,
    /// Of those that are compared with each other.
    groups: usize,
    groups_with_signal: usize,
}

impl<'a> Learned<'a> {
    /// What a role has to learn from a step's episodes: its own of each task, side by side, and of
    /// those each subtask's.
    pub fn of(
        role: &str,
        groups: &'a [EpisodeGroup],
        advantage: &AdvantageConfig,
    ) -> Result<Self, RecipeError> {
        let mut trajectories = Vec::new();
        let mut lengths = Vec::new();
        for group in groups {
            let episodes = group.episodes.iter().filter_map(|episode| episode.as_ref().ok());
            let all = episodes.flat_map(Trajectory::with_children);
            let mut its: Vec<&Trajectory> = all.filter(|played| played.role == role).collect();
            its.sort_by(|one, other| one.subtask.cmp(&other.subtask));
            lengths.extend(its.chunk_by(|one, other| one.subtask == other.subtask).map(<[_]>::len));
            trajectories.extend(its.into_iter().map(|played| (group.task.id.as_str(), played)));
        }

        let rewards: Vec<_> =
            trajectories.iter().map(|(_, played)| Some(played.reward() as f32)).collect();
        let advantages = advantage.advantages(&rewards, &lengths)?;
        Ok(Self {
            trajectories,
            advantages: advantages.values,
            groups: lengths.len(),
            groups_with_signal: advantages.counts.groups_with_signal,
        })
    }

    /// The share of groups whose episodes earned differently.
    pub fn signal(&self) -> f64 {
        self.groups_with_signal as f64 / self.groups.max(1) as f64
    }

    /// A datum for each context of each episode.
    pub fn datums(&self, config: &AgentConfig) -> Vec<Datum> {
        let temperature = config.episode.sampling.temperature;
        let all = self.trajectories.iter().zip(&self.advantages);
        all.flat_map(|((_, trajectory), advantage)| {
            // Where each context counts as one sequence, an episode of several is still one.
            let written = trajectory.segments.iter().filter(|s| !s.written.is_empty()).count();
            let share = match config.objective.aggregation {
                Aggregation::SequenceMean {} => 1.0 / written.max(1) as f32,
                _ => 1.0,
            };
            trajectory_datums(trajectory, advantage * share, temperature)
        })
        .collect()
    }

    /// The first so many episodes, as they are written down.
    pub fn lines(&self, step: u64, most: usize) -> Vec<EpisodeLine> {
        let all = self.trajectories.iter().zip(&self.advantages).take(most);
        all.map(|((task, trajectory), advantage)| EpisodeLine {
            step,
            task: (*task).to_owned(),
            advantage: *advantage,
            trajectory: (*trajectory).clone(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_data::Example;
    use posttrain_environment::Turn;

    /// An orchestrator whose two workers wrote `f` and `g`, and earned this.
    fn episode(rewards: [f64; 2]) -> Trajectory {
        let worker = |(subtask, reward)| {
            Trajectory { end_reward: reward, ..Trajectory::new("worker") }.on(subtask)
        };
        let children = ["f", "g"].into_iter().zip(rewards).map(worker).collect();
        let mut all = Trajectory::new("orchestrator");
        all.turns.push(Turn { children, ..Turn::default() });
        all
    }

    #[test]
    fn sub_agents_are_compared_with_those_that_worked_on_the_same() {
        let group = EpisodeGroup {
            task: Example::new("t", "d", "q", "a"),
            episodes: vec![Ok(episode([1.0, 0.0])), Ok(episode([0.0, 0.0]))],
        };
        let groups = [group];
        let learned = Learned::of("worker", &groups, &AdvantageConfig::GroupMean {}).unwrap();
        // `g` is harder, and nobody is the worse for having written it.
        assert_eq!(learned.advantages, [0.5, -0.5, 0.0, 0.0]);
        assert_eq!(learned.signal(), 0.5);
        let learned = Learned::of("orchestrator", &groups, &AdvantageConfig::GroupMean {}).unwrap();
        assert_eq!((learned.advantages.len(), learned.groups), (2, 1));
    }
}
