//! Which examples come, and how often.

use crate::RecipeError;
use crate::config::RlConfig;
use crate::rollout::ScoredGroup;
use posttrain_data::{BatchConfig, BatchStream, Example, LastBatch, StreamState};
use posttrain_train::derive_seed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which examples come, and how often. By default each comes once an epoch, domains in proportion
/// to their rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumConfig {
    /// How often a domain's examples come beside those of the others, at least 0, at least one of
    /// them above; 1 for a domain that is not named. An epoch of twice the weight takes an example
    /// of it twice as often as one of another domain.
    pub weights: BTreeMap<String, f64>,
    /// Passes over examples that are too easy or too hard by now.
    pub solve_rate: Option<SolveRateConfig>,
}

/// Which examples are worth sampling: those that the policy sometimes solves.
///
/// An example's solve rate is the mean reward of its last group. One that has not been sampled yet
/// has none, and comes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SolveRateConfig {
    /// Below it an example is too hard.
    pub low: f64,
    /// Above it an example is too easy.
    pub high: f64,
    /// The share of the turns of such examples that they come all the same, in (0, 1]: what was too
    /// hard becomes easy, and what was solved may be forgotten.
    pub revisit: f64,
}

impl Default for SolveRateConfig {
    /// Examples whose groups had no signal at all, every fourth time.
    fn default() -> Self {
        Self { low: 0.01, high: 0.99, revisit: 0.25 }
    }
}

/// What a curriculum has learnt, as a saved state holds it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumState {
    /// Examples drawn from the data so far, those that were passed over included.
    pub drawn: u64,
    /// The mean reward of each example's last group, by id.
    pub solve_rates: BTreeMap<String, f64>,
}

impl CurriculumState {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CurriculumConfig {
    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        for weight in self.weights.values() {
            let fits = weight.is_finite() && *weight >= 0.0;
            RecipeError::check("curriculum.weights", fits, "finite and at least 0", weight)?;
        }
        let Some(rate) = self.solve_rate else { return Ok(()) };
        let got = format!("low = {}, high = {}", rate.low, rate.high);
        let ordered = rate.low.is_finite() && rate.high.is_finite() && rate.low <= rate.high;
        RecipeError::check("curriculum.solve_rate", ordered, "low at most high", &got)?;
        let revisit = rate.revisit > 0.0 && rate.revisit <= 1.0;
        RecipeError::check(
            "curriculum.solve_rate.revisit",
            revisit,
            "above 0 and at most 1",
            &rate.revisit,
        )
    }
}

/// The examples of a run, one after the other.
pub(crate) struct Curriculum {
    stream: BatchStream,
    config: CurriculumConfig,
    /// The largest weight of a domain that there is.
    top_weight: f64,
    state: CurriculumState,
    seed: u64,
}

impl Curriculum {
    /// The examples of `train`, going on from where a saved state stood.
    pub fn new(
        config: &RlConfig,
        train: &[Example],
        data: StreamState,
        state: CurriculumState,
    ) -> Result<Self, RecipeError> {
        // A batch of its own for each example gives what batches of any size give.
        let seed = derive_seed(config.seed, "data", 0, 0);
        let one = BatchConfig { prompts: 1, seed, last: LastBatch::Carry };
        let stream = BatchStream::new(train.to_vec(), one)?.resume(data)?;
        let rows = stream.rows();
        let prompts = config.prompts;
        RecipeError::check("prompts", prompts <= rows, "at most the rows of an epoch", &prompts)?;

        let curriculum = config.curriculum.clone();
        let domains: BTreeSet<&str> = train.iter().map(|example| &*example.domain).collect();
        let unknown = curriculum.weights.keys().find(|name| !domains.contains(name.as_str()));
        if let Some(name) = unknown {
            let expected = "of domains that the training data have";
            RecipeError::check("curriculum.weights", false, expected, name)?;
        }
        let weight = |domain: &&str| curriculum.weights.get(*domain).copied().unwrap_or(1.0);
        let top_weight = domains.iter().map(weight).fold(0.0, f64::max);
        let expected = "above 0 for at least one domain";
        RecipeError::check("curriculum.weights", top_weight > 0.0, expected, &0)?;

        Ok(Self { stream, config: curriculum, top_weight, state, seed: config.seed })
    }

    /// The next examples.
    pub fn next(&mut self, count: usize) -> Vec<Example> {
        (0..count).map(|_| self.next_one()).collect()
    }

    fn next_one(&mut self) -> Example {
        // Where all are too hard or too easy, the next one comes after an epoch: what it costs to
        // look is bounded.
        let mut passed = 0;
        loop {
            let Some(example) = self.stream.next_batch().pop() else { unreachable!("of one") };
            let draw = self.state.drawn;
            self.state.drawn += 1;

            let bits = derive_seed(self.seed, "curriculum", draw, 0) >> 11;
            let uniform = bits as f64 / (1u64 << 53) as f64;
            if uniform < self.share(&example, passed) {
                return example;
            }
            passed += 1;
        }
    }

    /// The share of its turns that an example comes, where `passed` were passed over before it.
    fn share(&self, example: &Example, passed: u64) -> f64 {
        let weight = self.config.weights.get(&example.domain).copied().unwrap_or(1.0);
        weight / self.top_weight * self.revisited(&example.id, passed)
    }

    /// The part of that which is left by how often the policy solves it.
    fn revisited(&self, id: &str, passed: u64) -> f64 {
        let Some(config) = self.config.solve_rate else { return 1.0 };
        let rate = self.state.solve_rates.get(id);
        let teaches = rate.is_none_or(|rate| (config.low..=config.high).contains(rate));
        if teaches || passed >= self.stream.rows() { 1.0 } else { config.revisit }
    }

    /// Takes down how often the policy solved examples.
    pub fn observe<'a>(&mut self, groups: impl IntoIterator<Item = &'a ScoredGroup>) {
        if self.config.solve_rate.is_none() {
            return;
        }
        for group in groups {
            if let Some(rate) = group.solve_rate() {
                self.state.solve_rates.insert(group.example.id.clone(), rate);
            }
        }
    }

    /// Where it stands.
    pub fn state(&self) -> (StreamState, CurriculumState) {
        // Draws decide nothing where every example comes.
        let state = if self.config == CurriculumConfig::default() {
            CurriculumState::default()
        } else {
            self.state.clone()
        };
        (self.stream.state(), state)
    }
}
