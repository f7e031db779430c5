//! Playing episodes: the loop between a policy and its environment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posttrain_chat::{Message, ToolFormat};
use posttrain_model::{Start, TextModel, split_thinking};
use posttrain_rollout::{Completion, RequestError, SamplingParams, derive_seed};
use serde::{Deserialize, Serialize};

use crate::budget::Meter;
use crate::turn_text::TurnText;
use crate::{
    Action, Actor, Budget, BudgetPart, Environment, EnvironmentError, EpisodeEnd, EpisodeError,
    Observation, Segment, Step, Trajectory, Turn, TurnRequest,
};

/// How episodes are played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpisodeConfig {
    /// What an episode may use up.
    pub budget: Budget,
    /// How a turn is drawn; `max_tokens` is a turn's. The seed is not read: an episode has its own.
    pub sampling: SamplingParams,
    /// How the policy writes calls of tools.
    pub tool_format: ToolFormat,
    /// Seconds that the environment may take for one answer, more than 0: its tools, its rewards
    /// and its sub-agents' episodes included. An episode whose environment takes longer has
    /// failed: it waits for something that does not come.
    pub answer_seconds: f64,
}

impl Default for EpisodeConfig {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            sampling: SamplingParams::default(),
            tool_format: ToolFormat::default(),
            answer_seconds: 600.0,
        }
    }
}

impl EpisodeConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`EpisodeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), EpisodeError> {
        self.budget.validate()?;
        self.sampling.validate().map_err(|error| EpisodeError::Config {
            field: "sampling",
            expected: "in range",
            got: error.to_string(),
        })?;
        if self.answer_span().is_zero() {
            return Err(EpisodeError::Config {
                field: "answer_seconds",
                expected: "a finite number above 0",
                got: self.answer_seconds.to_string(),
            });
        }
        Ok(())
    }

    fn answer_span(&self) -> Duration {
        Duration::try_from_secs_f64(self.answer_seconds).unwrap_or_default()
    }
}

/// Plays episodes: an actor writes, an environment answers, and what both said is kept token for
/// token.
///
/// The next turn's prompt is the last one's, the tokens that were sampled, and what the template
/// writes behind them: nothing is encoded twice, so that the trainer's log-probabilities are of the
/// very tokens that the sampler drew.
#[derive(Clone)]
pub struct EpisodePlayer {
    model: TextModel,
    actor: Arc<dyn Actor>,
    config: EpisodeConfig,
}

impl EpisodePlayer {
    /// A player of `actor`'s episodes.
    ///
    /// # Errors
    /// [`EpisodeError::Config`] names the first field that is out of range.
    pub fn new(
        model: TextModel,
        actor: Arc<dyn Actor>,
        config: EpisodeConfig,
    ) -> Result<Self, EpisodeError> {
        config.validate()?;
        Ok(Self { model, actor, config })
    }

    /// The same, by another actor.
    #[must_use]
    pub fn with_actor(&self, actor: Arc<dyn Actor>) -> Self {
        Self { actor, ..self.clone() }
    }

    /// How episodes are played.
    #[must_use]
    pub fn config(&self) -> &EpisodeConfig {
        &self.config
    }

    /// Plays one episode, as `role`'s. The same seed gives the same episode, as far as the
    /// environment does. It runs on a tokio runtime with a clock, by which environments are bounded.
    ///
    /// # Errors
    /// Whatever keeps the actor from a turn or the environment from an answer. What the policy does
    /// wrong is no error, and neither is the end of its budget.
    pub async fn play(
        &self,
        environment: &mut dyn Environment,
        role: &str,
        seed: u64,
    ) -> Result<Trajectory, EpisodeError> {
        let mut episode = Episode::open(self, environment, role, seed).await?;
        loop {
            if let Some(end) = episode.turn(environment).await? {
                return episode.close(environment, end).await;
            }
        }
    }

    /// Waits for an environment, as long as it may take.
    async fn answered<T>(
        &self,
        turn: usize,
        answer: impl Future<Output = Result<T, EnvironmentError>>,
    ) -> Result<T, EpisodeError> {
        let seconds = self.config.answer_seconds;
        let late = |_| Err(EnvironmentError::TimedOut { seconds });
        let answer = tokio::time::timeout(self.config.answer_span(), answer).await;
        answer.unwrap_or_else(late).map_err(|source| EpisodeError::Environment { turn, source })
    }
}

/// An episode that is being played.
struct Episode<'a> {
    player: &'a EpisodePlayer,
    text: TurnText<'a>,
    /// Where a completion begins: inside of a block of thoughts, or outside.
    start: Start,
    meter: Meter<'a>,
    segment: Segment,
    trajectory: Trajectory,
    /// What the policy has read since it last wrote.
    observed: Vec<Message>,
    seed: u64,
}

impl<'a> Episode<'a> {
    async fn open(
        player: &'a EpisodePlayer,
        environment: &mut dyn Environment,
        role: &str,
        seed: u64,
    ) -> Result<Self, EpisodeError> {
        let context = player.model.decoder.config().max_position_embeddings as usize;
        let meter = Meter::new(&player.config.budget, context);
        let opening = player.answered(0, environment.start()).await?;

        let failed = |source| EpisodeError::Text { turn: 0, source };
        let text = TurnText::new(&player.model, player.config.tool_format, &opening.tools)
            .map_err(failed)?;
        let tokens = text.fresh(&opening.observation).map_err(failed)?;
        let start = match opening.observation {
            Observation::Messages(_) => text.start().map_err(failed)?,
            Observation::Tokens(_) => Start::Outside,
        };
        let observed = messages(&opening.observation);
        let mut trajectory = Trajectory::new(role);
        trajectory.opening.clone_from(&observed);
        Ok(Self {
            player,
            text,
            start,
            meter,
            segment: Segment::new(tokens),
            trajectory,
            observed,
            seed,
        })
    }

    /// The number of the turn that is next, or under way.
    fn number(&self) -> usize {
        self.trajectory.turns.len()
    }

    /// Plays a turn; how the episode ends, if it does.
    async fn turn(
        &mut self,
        environment: &mut dyn Environment,
    ) -> Result<Option<EpisodeEnd>, EpisodeError> {
        let most = self.player.config.sampling.max_tokens;
        let max_tokens = match self.meter.next_turn(self.segment.tokens.len(), most) {
            Ok(max_tokens) => max_tokens,
            Err(part) => return Ok(Some(EpisodeEnd::OutOf(part))),
        };

        let began = Instant::now();
        let completion = match self.write(max_tokens).await {
            // A turn that the time ran out on was not written.
            Err(EpisodeError::Sampling { source: RequestError::DeadlinePassed, .. }) => {
                return Ok(Some(EpisodeEnd::OutOf(BudgetPart::Seconds)));
            }
            written => written?,
        };
        let seconds_sampling = began.elapsed().as_secs_f64();
        let last = completion.tokens.last().copied();

        let began = Instant::now();
        let (step, mut turn) = self.act(environment, completion).await?;
        turn.seconds_sampling = seconds_sampling;
        turn.seconds_acting = began.elapsed().as_secs_f64();
        turn.children = environment.take_children();
        turn.reward = step.reward();
        if !turn.reward.is_finite() {
            return Err(EpisodeError::Reward { turn: self.number(), got: turn.reward });
        }

        self.observed.clear();
        let done = self.observe(&step, last)?;
        turn.answer.clone_from(&self.observed);
        self.trajectory.turns.push(turn);
        Ok(done)
    }

    /// Has the next turn written.
    async fn write(&self, max_tokens: usize) -> Result<Completion, EpisodeError> {
        let sampling = &self.player.config.sampling;
        let params = SamplingParams {
            max_tokens,
            min_tokens: sampling.min_tokens.min(max_tokens),
            seed: derive_seed(self.seed, "turn", self.number() as u64, 0),
            ..sampling.clone()
        };
        let request = TurnRequest {
            turn: self.number(),
            tokens: &self.segment.tokens,
            observed: &self.observed,
            params,
            deadline: self.meter.left(self.segment.tokens.len()).time,
        };
        self.player.actor.write(request).await
    }

    /// Hands a turn to the environment.
    async fn act(
        &mut self,
        environment: &mut dyn Environment,
        completion: Completion,
    ) -> Result<(Step, Turn), EpisodeError> {
        let tokens = completion.tokens.len();
        let place = self.segment.write(self.trajectory.segments.len(), &completion.tokens);
        let answer = split_thinking(&completion.text, self.start).answer;
        let reply = self.player.config.tool_format.parse(answer);
        self.meter.wrote(tokens);

        let action = Action {
            text: answer,
            reply: &reply,
            finish_reason: completion.finish_reason,
            tokens,
            left: self.meter.left(self.segment.tokens.len()),
        };
        let turn = self.number();
        let step = self.player.answered(turn, environment.act(action)).await?;
        self.meter.called(reply.calls.len());
        let turn = Turn {
            finish_reason: completion.finish_reason,
            tool_calls: reply.calls.len(),
            malformed_calls: reply.malformed.len(),
            ..Turn::sampled(place, completion.logprobs, completion.token_versions)
        };
        Ok((step, Turn { text: completion.text, ..turn }))
    }

    /// Puts what the environment answered into the context; the end, where it was the last word.
    fn observe(
        &mut self,
        step: &Step,
        last: Option<i64>,
    ) -> Result<Option<EpisodeEnd>, EpisodeError> {
        let turn = self.number();
        let failed = |source| EpisodeError::Text { turn, source };
        match step {
            Step::Next { observation, .. } => {
                let tokens = self.text.continuation(last, observation).map_err(failed)?;
                self.segment.read(&tokens);
                self.observed = messages(observation);
                Ok(None)
            }
            Step::Rewritten { observation, .. } => {
                let tokens = self.text.fresh(observation).map_err(failed)?;
                let before = std::mem::replace(&mut self.segment, Segment::new(tokens));
                self.trajectory.segments.push(before);
                self.observed = messages(observation);
                Ok(None)
            }
            Step::Done { .. } => Ok(Some(EpisodeEnd::Done)),
        }
    }

    async fn close(
        mut self,
        environment: &mut dyn Environment,
        end: EpisodeEnd,
    ) -> Result<Trajectory, EpisodeError> {
        let turn = self.number();
        if end != EpisodeEnd::Done {
            let reward = self.player.answered(turn, environment.cut(&end)).await?;
            if !reward.is_finite() {
                return Err(EpisodeError::Reward { turn, got: reward });
            }
            self.trajectory.end_reward = reward;
        }
        self.trajectory.end = end;
        self.trajectory.metrics = environment.metrics();
        // It would be written as nothing, and not be read again.
        let none = self.trajectory.metrics.iter().find(|(_, value)| !value.is_finite());
        if let Some((name, got)) = none {
            return Err(EpisodeError::Metric { name: name.clone(), got: *got });
        }
        self.trajectory.seconds = self.meter.elapsed().as_secs_f64();
        self.trajectory.segments.push(self.segment);
        Ok(self.trajectory)
    }
}

fn messages(observation: &Observation) -> Vec<Message> {
    match observation {
        Observation::Messages(messages) => messages.clone(),
        Observation::Tokens(_) => Vec::new(),
    }
}

impl From<EpisodeError> for EnvironmentError {
    fn from(source: EpisodeError) -> Self {
        Self::Child { role: "sub-agent".into(), source: Box::new(source) }
    }
}
