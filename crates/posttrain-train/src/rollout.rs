//! Sampling groups and scoring each completion the moment that it is finished.

use crate::TrainError;
use crate::observer::{Event, Observer, Phase};
use crate::policy::{Policy, PromptStyle};
use crate::trainer::PolicySnapshot;
use posttrain_data::Example;
use posttrain_reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig, Termination};
use posttrain_rollout::{Completion, Engine, EngineConfig, FinishReason, Outcome, Request, SamplingParams};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// A completion with what its reward said.
#[derive(Debug)]
pub(crate) struct Scored {
    pub completion: Completion,
    pub score: Result<Score, RewardError>,
}

/// The completions of one example, in the order of their samples.
#[derive(Debug)]
pub(crate) struct ScoredGroup {
    pub example: Example,
    pub prompt: Vec<i64>,
    pub completions: Vec<Scored>,
}

/// What sampling and scoring a set of examples gave, and took.
#[derive(Debug)]
pub(crate) struct Rollout {
    pub groups: Vec<ScoredGroup>,
    pub sampled_tokens: usize,
    pub seconds_sampling: f64,
    pub seconds_reward: f64,
}

/// What rollouts need besides what is sampled.
pub(crate) struct Sampling<'a> {
    pub policy: Policy<'a>,
    pub style: &'a PromptStyle,
    pub engine: &'a EngineConfig,
    pub reward: &'a Arc<dyn Reward>,
    pub scorer: &'a ScorerConfig,
    pub runtime: &'a tokio::runtime::Runtime,
}

/// One request for completions.
pub(crate) struct Wanted<'a> {
    /// Each example's policy; `None` is the base.
    pub policies: Vec<Option<&'a PolicySnapshot>>,
    pub examples: Vec<Example>,
    pub samples: usize,
    /// Sampling parameters of each example, whose seeds differ.
    pub params: Vec<SamplingParams>,
    pub phase: Phase,
}

impl Sampling<'_> {
    /// Samples every example's completions; each goes to the reward as soon as it is finished.
    pub fn run(&self, wanted: Wanted, observer: &mut dyn Observer) -> Result<Rollout, TrainError> {
        let started = Instant::now();
        // Nothing is trained on an evaluation's activations.
        let record_mib = if wanted.phase == Phase::Sampling { self.engine.record_mib } else { 0 };
        let config = EngineConfig { record_mib, ..self.engine.clone() };
        let mut engine = Engine::new(self.policy.model, Some(self.policy.tokenizer), config)?;
        let mut scorer = Scorer::new(self.reward.clone(), self.scorer, self.runtime.handle().clone())?;
        let prompts = self.submit(&mut engine, &wanted)?;
        let total = wanted.examples.len() * wanted.samples;
        // Where each scored completion belongs: (example, sample, completion), in the order of their finishing.
        let mut finished: Vec<(usize, usize, Completion)> = Vec::with_capacity(total);
        let mut failed = None;
        engine.run_while(|outcome| {
            match self.score(outcome, &wanted.examples, &mut scorer) {
                Ok(completion) => finished.push(completion),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            observer.see(&Event::Progress { phase: wanted.phase, done: finished.len(), total });
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let seconds_sampling = started.elapsed().as_secs_f64();
        let waiting = Instant::now();
        let scores = scorer.finish()?;
        let seconds_reward = waiting.elapsed().as_secs_f64();
        let groups = regroup(wanted.examples, prompts, finished.into_iter().zip(scores));
        Ok(Rollout { groups, sampled_tokens: engine.stats().sampled_tokens, seconds_sampling, seconds_reward })
    }

    fn submit(&self, engine: &mut Engine, wanted: &Wanted) -> Result<Vec<Vec<i64>>, TrainError> {
        let mut prompts = Vec::with_capacity(wanted.examples.len());
        for ((example, params), policy) in wanted.examples.iter().zip(&wanted.params).zip(&wanted.policies) {
            let prompt = self.policy.prompt(self.style, &example.question)?;
            let (adapter, version) = policy.map_or((None, 0), |s| (Some(s.adapter.clone()), s.version));
            let request = Request::new(prompt.clone(), params.clone());
            engine.submit(request.samples(wanted.samples).policy(adapter, version));
            prompts.push(prompt);
        }
        Ok(prompts)
    }

    /// Hands a completion to the reward; returns where it belongs.
    fn score(
        &self,
        outcome: Outcome,
        examples: &[Example],
        scorer: &mut Scorer,
    ) -> Result<(usize, usize, Completion), TrainError> {
        let (index, sample, completion) = completed(examples, outcome)?;
        scorer.push(self.sample(&examples[index], &completion))?;
        Ok((index, sample, completion))
    }

    fn sample(&self, example: &Example, completion: &Completion) -> Sample {
        let mut sample = Sample::new(&example.question, &example.answer, &completion.text);
        sample.id.clone_from(&example.id);
        sample.domain.clone_from(&example.domain);
        sample.metadata = example.metadata.clone().unwrap_or_default();
        sample.tokens = Some(completion.tokens.len());
        sample.termination = match completion.finish_reason {
            FinishReason::Stop => Termination::Stop,
            FinishReason::Length => Termination::Length,
        };
        sample
    }
}

fn completed(examples: &[Example], outcome: Outcome) -> Result<(usize, usize, Completion), TrainError> {
    let index = outcome.request;
    match outcome.result {
        Ok(completion) => Ok((index, outcome.sample, completion)),
        Err(source) => Err(TrainError::Prompt { id: examples[index].id.clone(), source }),
    }
}

/// Puts completions back into the order of examples and samples, whatever order they finished in.
fn regroup(
    examples: Vec<Example>,
    prompts: Vec<Vec<i64>>,
    finished: impl Iterator<Item = ((usize, usize, Completion), Result<Score, RewardError>)>,
) -> Vec<ScoredGroup> {
    let mut ordered: Vec<_> = finished.collect();
    ordered.sort_by_key(|((example, sample, _), _)| (*example, *sample));
    let group = |(example, prompt)| ScoredGroup { example, prompt, completions: Vec::new() };
    let mut groups: Vec<_> = examples.into_iter().zip(prompts).map(group).collect();
    for ((index, _, completion), score) in ordered {
        groups[index].completions.push(Scored { completion, score });
    }
    groups
}
