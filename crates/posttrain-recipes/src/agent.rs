//! Reinforcement learning in environments: several turns, tools, sub-agents, several roles.

mod config;
mod episodes;
mod learned;
mod record;
mod run;
mod stage;
mod warm_start;

pub use config::{AgentConfig, AgentEvaluationConfig, RoleConfig};
pub use episodes::{EpisodeGroup, EpisodeOutcome, demonstration_datums, trajectory_datums};
pub use record::{AgentEvaluation, AgentRecord, RoleRecord};
pub use run::AgentRun;
pub use stage::{EnvironmentBuilder, EpisodeRequest, Stage};
pub use warm_start::WarmStartConfig;
