//! Groups that are sampled without a pause, each by the newest policy there is, and trained on in
//! the order in which they arrive.

use crate::RecipeError;
use crate::config::RlConfig;
use crate::curriculum::Curriculum;
use crate::mode::StaleGroups;
use crate::observer::{Event, Observer, Phase};
use crate::rollout::{GroupSampler, Rollout, RolloutCost, ScoredGroup, sample};
use futures::StreamExt;
use posttrain_data::Example;
use posttrain_reward::Scorer;
use posttrain_rollout::service::{
    SampleEvent, SampleRequest, SampleStream, SamplingClient, SamplingService,
    SamplingServiceConfig,
};
use posttrain_rollout::{PolicySnapshot, Request, SamplingParams};
use posttrain_train::derive_seed;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::Instant;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// The name under which the newest policy is published.
const POLICY: &str = "policy";

/// What was taken from the data and has not been trained on.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Ids of examples that are to be sampled (again).
    pub in_flight: Vec<String>,
    /// Groups submitted so far.
    pub submitted: u64,
}

/// A number of groups that are sampled, scored, or waiting, at all times.
pub(crate) struct Arrivals<'a> {
    sampler: &'a GroupSampler,
    config: &'a RlConfig,
    client: SamplingClient,
    _service: SamplingService,
    scorer: Arc<Mutex<Scorer>>,
    /// Gathers each group's completions and scores; to drop it is to give them up.
    gathering: JoinSet<()>,
    send: mpsc::Sender<Arrival>,
    arrived: mpsc::Receiver<Arrival>,
    curriculum: Curriculum,
    /// Examples that come before the data goes on.
    next: VecDeque<Example>,
    /// Examples whose groups have not been taken, by ticket.
    outstanding: BTreeMap<u64, Example>,
    submitted: u64,
}

/// A group by its ticket.
type Arrival = (u64, Result<ScoredGroup, RecipeError>);

/// A batch in the order of its arrival.
pub(crate) struct ArrivedBatch {
    pub rollout: Rollout,
    /// Groups that came too late and were not kept.
    pub stale_groups: usize,
}

impl<'a> Arrivals<'a> {
    /// Starts a sampling service. `cursor` is what a saved state had taken from `train`, whose
    /// `curriculum` goes on behind it.
    pub fn start(
        sampler: &'a GroupSampler,
        config: &'a RlConfig,
        (train, curriculum): (&[Example], Curriculum),
        cursor: &Cursor,
    ) -> Result<Self, RecipeError> {
        let model = sampler.model();
        let service = SamplingService::start(
            model.decoder.clone(),
            Some(model.tokenizer.clone()),
            SamplingServiceConfig { engine: sampler.engine.clone(), ..Default::default() },
        )?;

        let by_id: BTreeMap<&str, &Example> =
            train.iter().map(|example| (example.id.as_str(), example)).collect();
        let mut next = VecDeque::with_capacity(cursor.in_flight.len());
        for id in &cursor.in_flight {
            let example = by_id.get(id.as_str()).copied();
            next.push_back(example.cloned().ok_or_else(|| RecipeError::Example {
                id: id.clone(),
                reason: "was being sampled when the run was saved, and is not in the data".into(),
            })?);
        }
        let (send, arrived) = mpsc::channel();
        Ok(Self {
            sampler,
            config,
            client: service.client(),
            _service: service,
            scorer: Arc::new(Mutex::new(sampler.scorer()?)),
            gathering: JoinSet::new(),
            send,
            arrived,
            curriculum,
            next,
            outstanding: BTreeMap::new(),
            submitted: cursor.submitted,
        })
    }

    /// Has what is sampled from now on sampled by `policy`.
    pub fn publish(&self, policy: PolicySnapshot) {
        self.client.publish(POLICY, policy, self.config.asynchronous.transition);
    }

    /// The next groups that are fresh enough for a trainer that stands at `version`.
    pub fn next(
        &mut self,
        version: u64,
        observer: &mut dyn Observer,
    ) -> Result<ArrivedBatch, RecipeError> {
        let started = Instant::now();
        let total = self.config.prompts as usize;
        let budget = self.config.group_budget() as usize;
        let mut groups = Vec::with_capacity(total);
        let mut taught = 0;
        let mut stale_groups = 0;
        self.submit()?;

        while taught < total && groups.len() < budget {
            self.gathering.try_join_next();
            let (ticket, group) = self.arrived.recv().map_err(|_| RecipeError::SamplerEnded)?;
            let group = group?;
            let example = self.outstanding.remove(&ticket);
            if self.is_stale(&group, version) {
                stale_groups += 1;
                if self.config.asynchronous.stale_groups == StaleGroups::Requeue {
                    self.next.extend(example);
                }
            } else {
                taught += usize::from(self.config.teaches(&group)?);
                groups.push(group);
                let phase = Phase::Sampling;
                observer.see(&Event::Progress { phase, done: taught, total });
            }
            self.submit()?;
        }

        let rollout = Rollout { groups, cost: RolloutCost::default() };
        let sampled_tokens = rollout.completions().map(|c| c.completion.tokens.len()).sum();
        let cost = RolloutCost {
            sampled_tokens,
            seconds_sampling: started.elapsed().as_secs_f64(),
            seconds_reward: 0.0,
        };
        Ok(ArrivedBatch { rollout: Rollout { cost, ..rollout }, stale_groups })
    }

    /// Where it stands. What is under way is to be sampled again.
    pub fn cursor(&self) -> Cursor {
        let waiting = self.outstanding.values().chain(&self.next);
        Cursor {
            in_flight: waiting.map(|example| example.id.clone()).collect(),
            submitted: self.submitted,
        }
    }

    /// Where the data stands.
    pub fn curriculum(&mut self) -> &mut Curriculum {
        &mut self.curriculum
    }

    /// Groups that are under way, or waiting to be trained on.
    pub fn queued(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether a group would be too stale by the last optimizer step of a trainer that stands at
    /// `version`.
    fn is_stale(&self, group: &ScoredGroup, version: u64) -> bool {
        let oldest = group.oldest_version().unwrap_or(version);
        let kept = self.config.asynchronous.stale_groups == StaleGroups::Keep;
        let last = version + self.config.optimizer_steps - 1;
        !kept && last.saturating_sub(oldest) > self.config.max_staleness
    }

    /// Submits groups until as many as the configuration allows are under way or waiting.
    fn submit(&mut self) -> Result<(), RecipeError> {
        while self.outstanding.len() < self.config.queued_groups() {
            if self.next.is_empty() {
                self.next.extend(self.curriculum.next(1));
            }
            let Some(example) = self.next.pop_front() else { break };
            self.submit_one(example)?;
        }
        Ok(())
    }

    fn submit_one(&mut self, example: Example) -> Result<(), RecipeError> {
        let ticket = self.submitted;
        self.submitted += 1;

        let prompt = self.sampler.prompt(&example)?;
        let params = SamplingParams {
            seed: derive_seed(self.config.seed, "sample", ticket, 0),
            ..self.config.sampling.clone()
        };
        let request = Request::new(prompt.clone(), params).samples(self.config.group_size);
        let stream =
            self.client.submit_blocking(SampleRequest::new(request).policy_name(POLICY))?;

        let gathered = gather(stream, example.clone(), prompt, self.scorer.clone());
        let send = self.send.clone();
        let wait = async move {
            // Nobody receives once the run has ended.
            let _ = send.send((ticket, gathered.await));
        };
        self.gathering.spawn_on(wait, self.sampler.runtime());
        self.outstanding.insert(ticket, example);
        Ok(())
    }
}

/// Hands each completion of a group to the reward the moment that it is finished, and waits for all
/// of their scores.
async fn gather(
    mut stream: SampleStream,
    example: Example,
    prompt: Vec<i64>,
    scorer: Arc<Mutex<Scorer>>,
) -> Result<ScoredGroup, RecipeError> {
    let mut finished = Vec::new();
    while let Some(event) = stream.next().await {
        let SampleEvent::Finished(outcome) = event else { continue };
        let refused = |source| RecipeError::Prompt { id: example.id.clone(), source };
        let completion = outcome.result.map_err(refused)?;
        let place = scorer.lock().await.submit(sample(&example, &completion)).await?;
        finished.push((outcome.sample, place, completion));
    }
    finished.sort_by_key(|(sample, ..)| *sample);

    let places: Vec<usize> = finished.iter().map(|(_, place, _)| *place).collect();
    let pending = scorer.lock().await.take(&places);
    let completions = finished.into_iter().map(|(.., completion)| completion);
    Ok(ScoredGroup::of(example, prompt, completions, pending.wait().await))
}
