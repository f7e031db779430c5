//! What a server talks to: who answers, what was answered, what was said of it.

use super::learner::{Learner, Provenance, read_policy};
use super::ledger::Standings;
use super::log::{ids_of, numbers, without};
use super::pool::Pool;
use super::trial::{Heard, Trial};
use super::{
    Decision, Deleted, Feedback, HeldOut, Joined, LedgerLine, RollBack, Served, Swap,
    TrafficConfig, TrafficLine, TrafficLog, Verdict,
};
use crate::error::in_one_line;
use crate::{RecipeError, Reward};
use posttrain_model::TextModel;
use posttrain_reward::{RewardConfig, Sample};
use posttrain_rollout::service::{SampleRequest, SamplingClient, Transition};
use posttrain_rollout::{PolicySnapshot, Request, SamplingParams};
use posttrain_statistics::Share;
use posttrain_store::{FolderLock, JsonLog, Versions, lock_folder};
use posttrain_train::Trainer;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A policy in service that learns from what it serves.
///
/// ```no_run
/// use posttrain_model::{Checkpoint, Quantize, TextModel};
/// use posttrain_recipes::traffic::{HeldOut, Traffic, TrafficConfig};
/// use posttrain_rollout::service::{SamplingService, SamplingServiceConfig};
///
/// let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
/// let model = TextModel::load(&checkpoint, Quantize::None, tch::Kind::Float, tch::Device::Cpu)?;
/// let tokenizer = Some(model.tokenizer.clone());
/// let service = SamplingService::start(model.decoder.clone(), tokenizer, SamplingServiceConfig::default())?;
///
/// let config = TrafficConfig::default();
/// let held_out = HeldOut::open(&config.held_out)?;
/// let (traffic, learner) = Traffic::start(model, service.client(), held_out, config, "data/traffic".as_ref())?;
/// std::thread::spawn(move || learner.run());
/// // Requests ask `traffic.choose`, and are told to `traffic.capture`; feedback goes to `traffic.feedback`.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Traffic {
    pub(super) config: TrafficConfig,
    pub(super) folder: PathBuf,
    pub(super) versions: Versions,
    model: TextModel,
    client: SamplingClient,
    inner: Mutex<Inner>,
    /// Held by a deletion, of which there is one at a time.
    deleting: Mutex<()>,
    /// Draws who is on trial by what. Nobody can know it, and a restart, which begins a trial anew,
    /// draws anew.
    lot: RandomState,
    wake: Condvar,
    follow_up: Option<Arc<dyn Reward>>,
    _lock: FolderLock,
}

/// Everything that changes.
pub(super) struct Inner {
    log: TrafficLog,
    pub pool: Pool,
    ledger: JsonLog<LedgerLine>,
    lines: Vec<LedgerLine>,
    pub standings: Standings,
    /// The policies that may answer; and the one that answered before them, where it is still in
    /// memory, for a roll back.
    pub policies: BTreeMap<u64, PolicySnapshot>,
    trial: Option<Trial>,
    /// When something was last learned from.
    learned: Instant,
    /// Whether the learner is at something.
    busy: bool,
    stopping: bool,
    failed: Option<String>,
}

/// Who answers a request.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The version.
    pub version: u64,
    /// It, as it is now.
    pub policy: PolicySnapshot,
    /// The name that it is published by, where a new version takes over with the next token.
    pub name: Option<String>,
    /// The share of requests that it answers.
    pub propensity: f64,
}

/// How a version's completions fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionState {
    /// The version.
    pub version: u64,
    /// Completions since the oldest that is kept.
    pub served: usize,
    /// Those with feedback: what is learned from is this selection.
    pub with_feedback: usize,
    /// The mean of their first feedback, and the 95% interval (Wilson's, which is the widest that
    /// values from 0 to 1 can have).
    pub mean_value: Option<f64>,
    /// The interval's lower end.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

/// Where a policy in service stands, for a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficState {
    /// The name that it is asked for by.
    pub name: String,
    /// The version that serves.
    pub present: u64,
    /// The candidate on trial.
    pub canary: Option<u64>,
    /// Completions with feedback that wait to be learned from.
    pub ready: usize,
    /// Whether a candidate is being made or decided on.
    pub busy: bool,
    /// How each version's completions fared.
    pub versions: Vec<VersionState>,
    /// Everything that was decided, oldest first.
    pub decisions: Vec<LedgerLine>,
    /// Why nothing is learned any more.
    pub failed: Option<String>,
}

/// How long a version may take to read what requests begin with.
const WARM_UP: Duration = Duration::from_secs(2);

/// The file of everything that was decided.
const DECISIONS: &str = "decisions.jsonl";

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Traffic {
    /// Takes up a folder where it was left, or begins one; with the learner, which wants a thread
    /// of its own.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names a field; [`RecipeError::Store`] a folder that another process
    /// works in, or a file that is damaged, the version that serves included.
    pub fn start(
        model: TextModel,
        client: SamplingClient,
        held_out: HeldOut,
        config: TrafficConfig,
        folder: &Path,
    ) -> Result<(Arc<Self>, Learner), RecipeError> {
        config.validate()?;
        let none = held_out.tasks.is_empty();
        RecipeError::check("held_out", !none, "at least one task", "none")?;
        let temperature = held_out.sampling.temperature;
        RecipeError::check(
            "held_out.sampling.temperature",
            temperature == 1.0,
            "1: the gate draws as a policy is trained",
            &temperature,
        )?;
        let lock = lock_folder(folder)?;
        let versions = Versions::open(&folder.join("versions"), "version")?;
        let mut trainer =
            Trainer::new(model.decoder.clone(), &config.lora, config.trainer, config.seed)?;
        if versions.numbers()?.is_empty() {
            versions.write(0, |fresh| trainer.save_state(fresh))?;
        }

        let (ledger, lines) = JsonLog::open(&folder.join(DECISIONS), |_| true)?;
        let mut standings = Standings::new();
        lines.iter().for_each(|line| standings.apply(line));
        let share = config.canary.share;
        let tried = standings.canary.is_none() || share < 1.0;
        RecipeError::check("canary.share", tried, "below 1: a candidate is on trial", &share)?;
        let mut policies = BTreeMap::new();
        for version in standings.canary.into_iter().chain([standings.present()]) {
            policies.insert(version, read_policy(&versions, version, &model)?);
        }
        trainer.load_state(&versions.path(standings.learner()))?;

        let learned = Provenance::learned(folder, &versions, standings.decided)?;
        let (log, captured) = TrafficLog::open(&folder.join("log"), config.capture.clone())?;
        let pool = Pool::replayed(config.learn.waiting, captured, &learned);

        let trial = standings.canary.map(Trial::new).transpose()?;
        let inner = Inner {
            log,
            pool,
            ledger,
            lines,
            standings,
            policies,
            trial,
            learned: Instant::now(),
            busy: true,
            stopping: false,
            failed: None,
        };
        let follow_up = config.follow_up.as_ref().map(RewardConfig::build).transpose()?;
        let traffic = Arc::new(Self {
            follow_up,
            config,
            folder: folder.to_owned(),
            versions,
            model,
            client,
            inner: Mutex::new(inner),
            deleting: Mutex::new(()),
            lot: RandomState::new(),
            wake: Condvar::new(),
            _lock: lock,
        });
        traffic.publish(&traffic.inner());
        let learner = Learner::new(traffic.clone(), trainer, held_out)?;
        Ok((traffic, learner))
    }

    /// The name that clients ask for it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is under the lock is changed whole or not at all.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn model(&self) -> &TextModel {
        &self.model
    }

    /// Says who answers a request. The same key (a conversation's, a user's) is answered by the
    /// same version while a trial lasts.
    #[must_use]
    pub fn choose(&self, key: &str) -> Chosen {
        let inner = self.inner();
        let share = self.config.canary.share;
        let (version, propensity) = match inner.standings.canary {
            Some(canary) if self.draws(canary, key) < share => (canary, share),
            Some(_) => (inner.standings.present(), 1.0 - share),
            None => (inner.standings.present(), 1.0),
        };
        // Those that may answer are there.
        let policy = inner.policies[&version].clone();
        let follows = self.config.swap == Swap::Token && inner.standings.canary != Some(version);
        let name = follows.then(|| self.config.name.clone());
        Chosen { version, policy, name, propensity }
    }

    /// A number from 0 to 1 that a key draws for a candidate's trial.
    fn draws(&self, candidate: u64, key: &str) -> f64 {
        self.lot.hash_one((candidate, key)) as f64 / u64::MAX as f64
    }

    /// Takes down a completion, as far as it may be kept; whether it was. `prompt` gives the
    /// prompt's text, where [`CaptureConfig::exclude`](super::CaptureConfig) has to see it.
    ///
    /// # Errors
    /// [`RecipeError::Store`] where the disk refuses.
    pub fn capture(
        &self,
        served: Served,
        prompt: impl FnOnce() -> String,
    ) -> Result<bool, RecipeError> {
        let Some(served) = self.config.capture.kept(served, prompt) else { return Ok(false) };
        let mut inner = self.inner();
        let line = TrafficLine::Served(served);
        inner.log.append(&line)?;
        if let TrafficLine::Served(served) = line {
            inner.pool.serve(served);
        }
        Ok(true)
    }

    /// Takes down what was said of a completion: it is on the disk when this returns. None where
    /// there is no such completion.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for a value that is not from 0 to 1; [`RecipeError::Store`] where
    /// the disk refuses.
    pub fn feedback(&self, feedback: &Feedback) -> Result<Option<Joined>, RecipeError> {
        let within = (0.0..=1.0).contains(&feedback.value);
        RecipeError::check("value", within, "from 0 to 1", &feedback.value)?;
        let mut inner = self.inner();
        if !inner.pool.knows(&feedback.id) {
            return Ok(None);
        }
        inner.log.append(&TrafficLine::Feedback(feedback.clone()))?;
        // What is said again of a completion is no further evidence of its version.
        let heard = inner.pool.unspoken(&feedback.id).map(|served| {
            let key = served.conversation.as_ref().or(served.user.as_ref()).unwrap_or(&served.id);
            Heard {
                version: served.version,
                time: served.time,
                key: self.lot.hash_one(key),
                good: feedback.value > 0.5,
            }
        });
        let joined = inner.pool.join(feedback);
        if let Some(heard) = heard {
            self.try_out(&mut inner, &heard)?;
        }
        if inner.pool.ready() >= self.config.learn.batch {
            self.wake.notify_all();
        }
        Ok(joined)
    }

    /// What a completion is worth by what its user wrote next, as the judge reads it. None where
    /// there is no such completion.
    ///
    /// # Errors
    /// [`RecipeError::Config`] where there is no judge; [`RecipeError::Reward`] where it fails.
    pub async fn read_follow_up(&self, id: &str, text: &str) -> Result<Option<f64>, RecipeError> {
        let Some(judge) = &self.follow_up else {
            let (field, expected) = ("follow_up", "given to a server that has a judge for it");
            return Err(RecipeError::Config { field, expected, got: "one".into() });
        };
        let answered = {
            let inner = self.inner();
            if !inner.pool.knows(id) {
                return Ok(None);
            }
            inner.pool.text_of(id)
        };
        let expected = "said of a completion whose text is still kept";
        let answered = answered.ok_or_else(|| RecipeError::Config {
            field: "follow_up",
            expected,
            got: format!("one of {id}"),
        })?;
        let sample = Sample { id: id.to_owned(), ..Sample::new(answered, "", text) };
        Ok(Some(judge.score(&sample).await?.value()))
    }

    /// Takes a candidate's trial on, and ends it where it is clear.
    fn try_out(&self, inner: &mut Inner, heard: &Heard) -> Result<(), RecipeError> {
        let present = inner.standings.present();
        let Some(trial) = &mut inner.trial else { return Ok(()) };
        trial.observe(heard, present);
        let own = trial.version;
        let [served, tried] = trial.worse.shares();
        let told = format!(
            "of {} pairs of feedback {} were good of the candidate's, {} of the present version's; worse with p = {:.1e}",
            trial.pairs,
            tried.count(),
            served.count(),
            trial.worse.p_value(),
        );
        let time = now();
        if trial.worse.p_value() <= self.config.gate.error_rate {
            let back = RollBack { from: own, to: present, time, reason: told };
            self.settle(inner, LedgerLine::RolledBack(back), None)
        } else if trial.pairs >= self.config.canary.pairs {
            self.settle(inner, LedgerLine::Promoted { version: own, time, reason: told }, None)
        } else {
            Ok(())
        }
    }

    /// Writes a decision down and does what it says, in that order: what was not written is not
    /// served.
    pub(super) fn settle(
        &self,
        inner: &mut Inner,
        line: LedgerLine,
        policy: Option<PolicySnapshot>,
    ) -> Result<(), RecipeError> {
        inner.ledger.append(&line)?;
        inner.standings.apply(&line);
        inner.lines.push(line);

        let (present, canary) = (inner.standings.present(), inner.standings.canary);
        let back = inner.standings.before().map_or(present, |(_, back)| back);
        inner.policies.extend(policy.map(|policy| (policy.version, policy)));
        inner
            .policies
            .retain(|version, _| [present, back].contains(version) || canary == Some(*version));
        inner.trial = match canary {
            Some(version) if inner.trial.as_ref().is_none_or(|t| t.version != version) => {
                Some(Trial::new(version)?)
            }
            Some(_) => inner.trial.take(),
            None => None,
        };
        self.publish(inner);
        self.wake.notify_all();
        Ok(())
    }

    /// Has a version read what the latest request began with, before it serves: whoever comes next
    /// need not wait for that. It goes before what waits, and takes [`WARM_UP`] at most.
    pub(super) fn warm_up(&self, policy: &PolicySnapshot) {
        let Some(prompt) = self.inner().pool.latest_prompt() else { return };
        let params = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
        let request = Request::new(prompt, params).policy(policy.clone()).priority(i32::MAX);
        // Where it cannot be done, the first request does it.
        if let Ok(sampled) = self.client.try_submit(SampleRequest::new(request).deadline(WARM_UP)) {
            drop(sampled.wait());
        }
    }

    fn publish(&self, inner: &Inner) {
        if self.config.swap == Swap::Token {
            let present = inner.policies[&inner.standings.present()].clone();
            self.client.publish(&self.config.name, present, Transition::Follow);
        }
    }

    /// Takes the candidate on trial out of service, or else the present version: the one that
    /// served before it serves again. The learner goes on from there.
    ///
    /// # Errors
    /// [`RecipeError::Config`] where none served before it, or that one is no longer kept;
    /// [`RecipeError::Store`] where its files are damaged.
    pub fn roll_back(&self, reason: &str) -> Result<RollBack, RecipeError> {
        let before = self.inner().standings.before()?;
        let policy = self.policy(before.1)?;
        let mut inner = self.inner();
        let (from, to) = inner.standings.before()?;
        let same = (from, to) == before;
        RecipeError::check("version", same, "the one that served a moment ago", &from)?;
        self.check_kept(to)?;
        let back = RollBack { from, to, time: now(), reason: reason.to_owned() };
        self.settle(&mut inner, LedgerLine::RolledBack(back.clone()), Some(policy))?;
        Ok(back)
    }

    /// Puts a version into service again that the gate has passed, or the base, which is version 0.
    /// The learner goes on from there.
    ///
    /// # Errors
    /// [`RecipeError::Config`] for a version that the gate has not passed, that serves, or that is
    /// no longer kept; [`RecipeError::Store`] for one whose files are damaged.
    pub fn reinstate(&self, version: u64, reason: &str) -> Result<(), RecipeError> {
        let accepted = |line: &LedgerLine| match line {
            LedgerLine::Decided(decision) => {
                decision.version == version && decision.verdict == Verdict::Accepted
            }
            _ => false,
        };
        // What was passed stays passed.
        let passed = version == 0 || self.inner().lines.iter().any(accepted);
        RecipeError::check("version", passed, "one that the gate has passed", &version)?;
        let check = |inner: &Inner| {
            let serves = inner.standings.present() == version && inner.standings.canary.is_none();
            RecipeError::check("version", !serves, "one that does not serve", &version)?;
            self.check_kept(version)
        };
        check(&self.inner())?;
        let policy = self.policy(version)?;
        self.warm_up(&policy);
        // Others may have decided meanwhile.
        let mut inner = self.inner();
        check(&inner)?;
        let line = LedgerLine::Reinstated { version, time: now(), reason: reason.to_owned() };
        self.settle(&mut inner, line, Some(policy))
    }

    /// Refuses a version whose files are gone: after a restart it could not serve.
    fn check_kept(&self, version: u64) -> Result<(), RecipeError> {
        let kept = self.versions.numbers()?.contains(&version);
        RecipeError::check("version", kept, "one whose files are kept", &version)
    }

    /// A version as it is in memory, or else in its files, which take their time: nobody waits for
    /// the lock meanwhile.
    fn policy(&self, version: u64) -> Result<PolicySnapshot, RecipeError> {
        let known = self.inner().policies.get(&version).cloned();
        known.map_or_else(|| read_policy(&self.versions, version, &self.model), Ok)
    }

    /// Deletes what a user said and was answered from the log, from memory, and from the lists of
    /// what versions learned from; with the versions that had learned from it, which only training
    /// anew would cure. A candidate that is being made of it is thrown away.
    ///
    /// # Errors
    /// [`RecipeError::Store`] names the file that refused; called again, it goes on.
    pub fn forget(&self, user: &str) -> Result<(Deleted, Vec<u64>), RecipeError> {
        let _alone = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.join("log");
        // Files that are closed do not change: they are read while others are answered.
        let open = self.inner().log.number();
        let closed: Vec<u64> = numbers(&folder)?.into_iter().filter(|n| *n < open).collect();
        let mut ids = HashSet::new();
        for number in &closed {
            ids.extend(ids_of(&folder, *number, user)?);
        }

        let mut deleted = Deleted::default();
        {
            let mut inner = self.inner();
            let newer = open..=inner.log.number();
            for number in newer.clone() {
                ids.extend(ids_of(&folder, number, user)?);
            }
            ids.extend(inner.pool.ids_of(user));
            // The newest file first: what names the completions is the last to go, so that what a
            // killed process left is found again.
            for number in newer.rev() {
                deleted += inner.log.cut(number, &ids)?;
            }
            inner.pool.forget(&ids);
        }
        for number in closed.into_iter().rev() {
            let (kept, gone) = without(&folder, number, &ids)?;
            self.inner().log.replace(number, &kept, gone)?;
            deleted += gone;
        }
        // Last, for what it no longer names would be learned from again while the log has it. It
        // knows the user without the log.
        let _inner = self.inner();
        let versions = Provenance::forget(&self.folder, user, &ids)?;
        Ok((deleted, versions))
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> TrafficState {
        let inner = self.inner();
        let version = |(version, tally): (&u64, &super::pool::Tally)| {
            let said = tally.said > 0;
            let mean = said.then(|| Share::of_mean(tally.sum / tally.said as f64, tally.said));
            VersionState {
                version: *version,
                served: tally.served,
                with_feedback: tally.said,
                mean_value: mean.map(|mean| mean.share),
                low: mean.map(|mean| mean.low),
                high: mean.map(|mean| mean.high),
            }
        };
        TrafficState {
            name: self.config.name.clone(),
            present: inner.standings.present(),
            canary: inner.standings.canary,
            ready: inner.pool.ready(),
            busy: inner.busy,
            versions: inner.pool.tallies.iter().map(version).collect(),
            decisions: inner.lines.clone(),
            failed: inner.failed.clone(),
        }
    }

    /// Has the learner end; a candidate that is being made or looked at waits for the next start.
    pub fn stop(&self) {
        self.inner().stopping = true;
        self.wake.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.inner().stopping
    }

    /// Notes why the learner ended.
    pub(super) fn failed(&self, error: &RecipeError) {
        self.inner().failed = Some(in_one_line(error));
    }

    /// Waits until there is enough to learn from; whether the learner is to go on.
    pub(super) fn wait(&self) -> bool {
        let learn = &self.config.learn;
        let mut inner = self.inner();
        inner.busy = false;
        loop {
            let ready = inner.pool.ready();
            let late = learn.seconds.is_some_and(|s| inner.learned.elapsed().as_secs_f64() >= s);
            if inner.stopping {
                return false;
            }
            // A candidate on trial is what the next one is to be compared with.
            let free = inner.standings.canary.is_none();
            if free && (ready >= learn.completions || late && ready >= learn.batch) {
                inner.learned = Instant::now();
                inner.busy = true;
                return true;
            }
            let woken = self.wake.wait_timeout(inner, Duration::from_secs(1));
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl TrafficState {
    /// The gate's decisions.
    pub fn gate(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter_map(|line| match line {
            LedgerLine::Decided(decision) => Some(&**decision),
            _ => None,
        })
    }

    /// How many candidates the gate has passed.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.gate().filter(|decision| decision.verdict == Verdict::Accepted).count()
    }
}
