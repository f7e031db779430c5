//! Candidates: what is said becomes a reward, the reward a policy, the policy a case for the gate.

use super::ledger::Learned;
use super::pool::Rewarded;
use super::service::{Traffic, now};
use super::{Decision, GateTest, HeldOut, LearnConfig, LedgerLine, Served, Verdict};
use crate::RecipeError;
use crate::error::in_one_line;
use posttrain_model::TextModel;
use posttrain_rollout::PolicySnapshot;
use posttrain_statistics::Share;
use posttrain_store::{StoreError, Versions, read_json_if_there, write_json};
use posttrain_train::{Datum, Trainer, derive_seed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Makes candidates of what was said, and has the gate decide on them.
pub struct Learner {
    traffic: Arc<Traffic>,
    trainer: Trainer,
    /// The version that the trainer's state is of; none where it is of a candidate that was thrown
    /// away.
    at: Option<u64>,
    /// Each route's baseline, as it is behind the last candidate that was decided on.
    baselines: BTreeMap<String, f64>,
    held_out: HeldOut,
    /// What must never be learned from.
    held_out_prompts: HashSet<Vec<i64>>,
}

/// Routes that have a baseline of their own; those that come later have one together, so that
/// clients, who name them, cannot make the table grow.
const ROUTES: usize = 1000;

/// What a candidate is made of.
struct Taken {
    fresh: Vec<Rewarded>,
    /// What is left out.
    rest: Vec<Served>,
    /// The version that serves.
    present: u64,
    learned: Learned,
}

/// What a candidate was made of, as it is kept for as long as the folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provenance {
    /// The version that served when its training began; none of a candidate that nothing is known
    /// of.
    present: Option<u64>,
    /// The completions that were taken for it.
    completions: Vec<Source>,
    /// How many of them were deleted since, by their users.
    deleted: usize,
    learned: Learned,
    baselines: BTreeMap<String, f64>,
    seconds_training: f64,
}

/// A completion that was taken for a candidate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "AnySource")]
struct Source {
    id: String,
    /// A number that stands for its user, by which it is found when the log that named both is
    /// gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
}

/// As it may stand in a file: older ones have the id alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnySource {
    Id(String),
    Whole { id: String, user: Option<u64> },
}

impl From<AnySource> for Source {
    fn from(source: AnySource) -> Self {
        match source {
            AnySource::Id(id) => Self { id, user: None },
            AnySource::Whole { id, user } => Self { id, user },
        }
    }
}

impl Source {
    fn of(served: &Served) -> Self {
        Self { id: served.id.clone(), user: served.user.as_deref().map(number_of) }
    }
}

fn number_of(user: &str) -> u64 {
    derive_seed(0, user, 0, 0)
}

impl Provenance {
    fn path(folder: &Path, version: u64) -> PathBuf {
        folder.join("provenance").join(format!("version-{version:06}.json"))
    }

    fn read(folder: &Path, version: u64) -> Result<Self, RecipeError> {
        Ok(read_json_if_there(&Self::path(folder, version))?.unwrap_or_default())
    }

    /// The completions that were learned from: those of every candidate that was decided on, and
    /// of one whose state is there and that waits for its decision.
    pub fn learned(
        folder: &Path,
        versions: &Versions,
        decided: u64,
    ) -> Result<HashSet<String>, RecipeError> {
        let last = versions.numbers()?.last().copied().unwrap_or(0).max(decided);
        let mut learned = HashSet::new();
        for version in 1..=last {
            let completions = Self::read(folder, version)?.completions;
            learned.extend(completions.into_iter().map(|source| source.id));
        }
        Ok(learned)
    }

    /// Takes a user's completions off every list, and those of `ids`; the versions that had learned
    /// from some.
    pub fn forget(
        folder: &Path,
        user: &str,
        ids: &HashSet<String>,
    ) -> Result<Vec<u64>, RecipeError> {
        let user = Some(number_of(user));
        let mut touched = Vec::new();
        for version in 1.. {
            let path = Self::path(folder, version);
            let Some(mut provenance) = read_json_if_there::<Self>(&path)? else { break };
            let before = provenance.completions.len();
            let own = |source: &Source| source.user == user || ids.contains(&source.id);
            provenance.completions.retain(|source| !own(source));
            let gone = before - provenance.completions.len();
            if gone > 0 {
                provenance.deleted += gone;
                write_json(&path, &provenance)?;
                touched.push(version);
            }
        }
        Ok(touched)
    }
}

/// A version as it serves: read from its files, as they were written, and of finite numbers.
pub(super) fn read_policy(
    versions: &Versions,
    version: u64,
    model: &TextModel,
) -> Result<PolicySnapshot, RecipeError> {
    versions.check(version)?;
    let folder = posttrain_train::adapter_folder(&versions.path(version));
    let adapter = model.decoder.load_adapter(&folder)?;
    for (name, tensor) in adapter.parameters() {
        if tensor.isfinite().all().int64_value(&[]) == 0 {
            let reason = format!("`{name}` has a number that is none");
            return Err(StoreError::Damaged { path: folder, reason }.into());
        }
    }
    Ok(PolicySnapshot::new(adapter.snapshot(model.decoder.kind())?, version))
}

impl Learner {
    pub(super) fn new(
        traffic: Arc<Traffic>,
        trainer: Trainer,
        held_out: HeldOut,
    ) -> Result<Self, RecipeError> {
        let (at, decided) = {
            let inner = traffic.inner();
            (Some(inner.standings.learner()), inner.standings.decided)
        };
        let baselines = Provenance::read(&traffic.folder, decided)?.baselines;
        let held_out_prompts = held_out.prompts(traffic.model())?;
        Ok(Self { traffic, trainer, at, baselines, held_out, held_out_prompts })
    }

    /// Learns until [`Traffic::stop`]; an error ends it, and is told by [`Traffic::state`]: what
    /// serves goes on serving.
    pub fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!("nothing is learned any more: {error}");
                    return self.traffic.failed(&error);
                }
            }
        }
    }

    /// Decides on a candidate that a killed process left undecided; else waits for enough to learn
    /// from, makes a candidate and has it decided on. Whether there is more to do.
    ///
    /// # Errors
    /// Whatever training or the disk do. What the gate cannot read, or cannot sample from, is
    /// refused.
    pub fn turn(&mut self) -> Result<bool, RecipeError> {
        if self.traffic.is_stopping() {
            return Ok(false);
        }
        let last = self.traffic.versions.numbers()?.last().copied().unwrap_or(0);
        let decided = self.traffic.inner().standings.decided;
        if last > decided {
            self.decide(last)?;
            self.baselines = Provenance::read(&self.traffic.folder, last)?.baselines;
            return Ok(true);
        }
        if !self.traffic.wait() {
            return Ok(false);
        }
        let candidate = last.max(decided) + 1;
        if self.learn(candidate)? {
            self.decide(candidate)?;
        }
        Ok(true)
    }

    /// Goes to the version that is to be learned on top of, where that is another one.
    fn rebase(&mut self) -> Result<(), RecipeError> {
        let base = self.traffic.inner().standings.learner();
        if self.at != Some(base) {
            self.trainer.load_state(&self.traffic.versions.path(base))?;
            self.at = Some(base);
        }
        Ok(())
    }

    /// Makes a candidate; whether there is one.
    fn learn(&mut self, candidate: u64) -> Result<bool, RecipeError> {
        let started = Instant::now();
        self.rebase()?;
        let config = self.traffic.config.learn.clone();
        let Taken { fresh, rest, present, mut learned } = self.take(&config);
        if fresh.is_empty() {
            let Learned { stale, held_out, greedy, .. } = learned;
            tracing::warn!(
                "nothing to learn from: {stale} completions are too old, {held_out} have prompts of the gate's tasks, {greedy} were drawn at temperature 0"
            );
            return Ok(false);
        }

        let mut baselines = self.baselines.clone();
        // Until its state is written, the trainer's is of no version.
        self.at = None;
        for batch in fresh.chunks(config.batch) {
            if self.traffic.is_stopping() {
                // Nothing of it is written yet, and all of it is in the log.
                return Ok(false);
            }
            let advantages = advantages(batch, &mut baselines, config.baseline_rate);
            // A system's text, examples: what all prompts begin with is computed once.
            let shared = common_beginning(batch);
            let datum = |own| datum(own).with_shared_prefix(shared);
            let datums: Vec<Datum> = batch.iter().zip(advantages).map(datum).collect();
            if !datums.iter().any(Datum::has_signal) {
                continue;
            }
            self.trainer.forward_backward(&datums, &self.traffic.config.objective)?;
            let params = self.trainer.adam_params(config.learning_rate);
            self.trainer.optim_step(&params)?;
        }

        let sum: f64 = fresh.iter().map(Rewarded::value).sum();
        learned.mean_value = sum / fresh.len().max(1) as f64;
        let taken = fresh.iter().map(|rewarded| &rewarded.served).chain(&rest);
        let provenance = Provenance {
            present: Some(present),
            completions: taken.map(Source::of).collect(),
            deleted: 0,
            learned,
            baselines: baselines.clone(),
            seconds_training: started.elapsed().as_secs_f64(),
        };
        // Before the state: without the state it says nothing, and is written again.
        if !self.write_provenance(candidate, provenance, fresh)? {
            tracing::warn!(
                "version {candidate}: thrown away, a user of whom it learned is deleted"
            );
            return Ok(false);
        }
        self.traffic.versions.write(candidate, |fresh| self.trainer.save_state(fresh))?;
        self.at = Some(candidate);
        self.baselines = baselines;
        Ok(true)
    }

    /// Takes what is to be learned from out of the pool, and puts aside what is not.
    fn take(&self, config: &LearnConfig) -> Taken {
        let mut inner = self.traffic.inner();
        let mut taken = Taken {
            fresh: Vec::new(),
            rest: Vec::new(),
            present: inner.standings.present(),
            learned: Learned::default(),
        };
        for rewarded in inner.pool.take(config.completions) {
            let served = &rewarded.served;
            let left_out = if inner.standings.staleness(served.version) > config.max_staleness {
                Some(&mut taken.learned.stale)
            } else if self.held_out_prompts.contains(&served.prompt) {
                Some(&mut taken.learned.held_out)
            } else if served.temperature <= 0.0 {
                Some(&mut taken.learned.greedy)
            } else {
                None
            };
            match left_out {
                Some(count) => {
                    *count += 1;
                    taken.rest.push(rewarded.served);
                }
                None => taken.fresh.push(rewarded),
            }
        }
        taken.learned.completions = taken.fresh.len();
        taken
    }

    /// Writes down what a candidate was made of; whether it may be one. Where a user of whom it
    /// learned was deleted meanwhile it may not, and the others' completions wait again.
    fn write_provenance(
        &self,
        candidate: u64,
        mut provenance: Provenance,
        fresh: Vec<Rewarded>,
    ) -> Result<bool, RecipeError> {
        // Under the lock, so that a deletion comes before it or finds it.
        let mut inner = self.traffic.inner();
        if fresh.iter().any(|rewarded| !inner.pool.holds(&rewarded.served.id)) {
            inner.pool.give_back(fresh);
            return Ok(false);
        }
        let taken = provenance.completions.len();
        provenance.completions.retain(|source| inner.pool.holds(&source.id));
        provenance.deleted = taken - provenance.completions.len();
        write_json(&Provenance::path(&self.traffic.folder, candidate), &provenance)?;
        Ok(true)
    }

    /// Has the gate decide on a candidate, and does what it says.
    fn decide(&self, candidate: u64) -> Result<(), RecipeError> {
        let started = Instant::now();
        let provenance = Provenance::read(&self.traffic.folder, candidate)?;
        let present = {
            let inner = self.traffic.inner();
            inner.policies[&inner.standings.present()].clone()
        };
        let model = self.traffic.model().clone();
        // What was built on a version that somebody took out of service meanwhile is not asked.
        let policy = match provenance.present.filter(|served| *served != present.version) {
            Some(withdrawn) => Err(withdrawn_meanwhile(withdrawn)),
            None => read_policy(&self.traffic.versions, candidate, &model),
        };
        let compared = policy.and_then(|policy| {
            let traffic = &self.traffic;
            let stop = || traffic.is_stopping();
            let gate = &traffic.config.gate;
            let test =
                self.held_out.compare(&model, gate, candidate, (&policy, &present), &stop)?;
            Ok((policy, test))
        });
        if self.traffic.is_stopping() {
            // It waits for its decision until the next start.
            return Ok(());
        }

        let (verdict, reason, test, policy) = match compared {
            Ok((policy, test)) => {
                let verdict = test.verdict().unwrap_or(Verdict::Undecided);
                (verdict, test.reason(), Some(test), Some(policy))
            }
            // Whatever keeps it from being asked keeps it from serving.
            Err(error) => (Verdict::Refused, in_one_line(&error), None, None),
        };
        let nothing = Share::of(0, 0);
        let decision = Decision {
            version: candidate,
            present: present.version,
            time: now(),
            verdict,
            on_trial: self.traffic.config.canary.share < 1.0,
            learn_from: candidate,
            reason,
            pairs: test.as_ref().map_or(0, GateTest::pairs),
            better: test.as_ref().map_or(1.0, GateTest::better_p),
            candidate_share: test.as_ref().map_or(nothing, GateTest::candidate),
            present_share: test.as_ref().map_or(nothing, GateTest::present),
            compared: test.as_ref().map(GateTest::compared).unwrap_or_default(),
            learned: provenance.learned,
            seconds_training: provenance.seconds_training,
            seconds_gate: started.elapsed().as_secs_f64(),
        };
        tracing::info!("version {candidate}: {:?}: {}", decision.verdict, decision.reason);
        if let Some(policy) = policy.as_ref().filter(|_| verdict == Verdict::Accepted) {
            self.traffic.warm_up(policy);
        }
        self.settle(decision, policy)
    }

    fn settle(
        &self,
        decision: Decision,
        policy: Option<PolicySnapshot>,
    ) -> Result<(), RecipeError> {
        let mut inner = self.traffic.inner();
        // Somebody may have rolled back meanwhile: what was compared with another version than
        // serves now is not to serve, and not to be built upon.
        let outdated = inner.standings.present() != decision.present;
        let decision = if outdated && decision.verdict != Verdict::Refused {
            let reason = in_one_line(&withdrawn_meanwhile(decision.present));
            Decision { verdict: Verdict::Refused, reason, ..decision }
        } else {
            decision
        };
        let fell = decision.candidate_share.share < decision.present_share.share;
        let most = self.traffic.config.learn.max_staleness;
        let next = inner.standings.after(decision.version, decision.verdict, fell, most);
        let decision = Decision { learn_from: next, ..decision };
        let policy = policy.filter(|_| decision.verdict == Verdict::Accepted);
        self.traffic.settle(&mut inner, LedgerLine::Decided(Box::new(decision)), policy)?;

        // Under the lock, so that nobody puts into service what is being removed.
        let standings = &inner.standings;
        let kept = self.traffic.config.versions;
        let served = &standings.served[standings.served.len().saturating_sub(kept + 1)..];
        let last = standings.decided.saturating_sub(kept as u64);
        self.traffic.versions.retain(|version| {
            version > last
                || served.contains(&version)
                || standings.canary == Some(version)
                || standings.learner() == version
        })?;
        Ok(())
    }
}

/// What each completion is worth: beside the others of its prompt, where there are some; else
/// beside its route's baseline, which then follows the batch. A route's first baseline is its first
/// batch's mean.
fn advantages(batch: &[Rewarded], baselines: &mut BTreeMap<String, f64>, rate: f64) -> Vec<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mut prompts: HashMap<&[i64], Vec<f64>> = HashMap::new();
    let mut routes: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut own_routes = Vec::with_capacity(batch.len());
    for rewarded in batch {
        let value = rewarded.value();
        prompts.entry(&rewarded.served.prompt).or_default().push(value);
        let route = rewarded.served.route.clone().unwrap_or_default();
        let new = !baselines.contains_key(&route) && !routes.contains_key(&route);
        let full = baselines.len() + routes.len() >= ROUTES;
        let route = if new && full { String::new() } else { route };
        routes.entry(route.clone()).or_default().push(value);
        own_routes.push(route);
    }
    for (route, values) in &routes {
        baselines.entry(route.clone()).or_insert_with(|| mean(values));
    }

    let advantage = |(rewarded, route): (&Rewarded, &String)| {
        let group = &prompts[rewarded.served.prompt.as_slice()];
        let beside = if group.len() > 1 { mean(group) } else { baselines[route] };
        rewarded.value() - beside
    };
    let advantages = batch.iter().zip(&own_routes).map(advantage).collect();
    for (route, values) in &routes {
        if let Some(baseline) = baselines.get_mut(route) {
            *baseline += rate * (mean(values) - *baseline);
        }
    }
    advantages
}

fn withdrawn_meanwhile(version: u64) -> RecipeError {
    RecipeError::Config {
        field: "version",
        expected: "built on what still serves",
        got: format!("{version}, which was taken out of service meanwhile"),
    }
}

/// How many tokens all prompts of a batch begin with.
fn common_beginning(batch: &[Rewarded]) -> usize {
    let Some((first, others)) = batch.split_first() else { return 0 };
    let first = &first.served.prompt;
    let with = |other: &Rewarded| {
        first.iter().zip(&other.served.prompt).take_while(|(one, other)| one == other).count()
    };
    others.iter().map(with).min().unwrap_or(first.len())
}

fn datum((rewarded, advantage): (&Rewarded, f64)) -> Datum {
    let served = &rewarded.served;
    Datum::completion(&served.prompt, &served.tokens)
        .with_sampling_logprobs(served.logprobs.clone())
        .with_advantage(advantage as f32)
        .with_temperature(served.temperature)
}
