//! Groups of episodes, and what is learned from them.

use crate::agent::stage::{EnvironmentBuilder, EpisodeRequest, Stage};
use crate::error::in_one_line;
use crate::observer::{Event, Observer, Phase};
use crate::{RecipeError, ScoreFailure};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use posttrain_data::Example;
use posttrain_environment::{EnvironmentError, EpisodeError, Segment, Trajectory};
use posttrain_train::{Datum, derive_seed};
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// An episode, or why there is none.
pub type EpisodeOutcome = Result<Trajectory, ScoreFailure>;

/// The episodes of one task.
#[derive(Debug, Serialize, Deserialize)]
pub struct EpisodeGroup {
    /// The task.
    pub task: Example,
    /// Its episodes, in the order of their seeds.
    pub episodes: Vec<EpisodeOutcome>,
}

/// What is played together.
pub(crate) struct PlayRequest<'a> {
    pub tasks: &'a [Example],
    pub episodes: usize,
    pub role: &'a str,
    /// Seed of each task's first episode's; the others' follow from it.
    pub seeds: Vec<u64>,
    pub in_flight: usize,
    /// [`EpisodeRequest::progress`].
    pub progress: f64,
    pub phase: Phase,
    /// Ends it before all are played, with nothing to show.
    pub stop: Option<&'a AtomicBool>,
}

/// Plays every task's episodes beside each other.
pub(crate) async fn play(
    request: PlayRequest<'_>,
    builder: &dyn EnvironmentBuilder,
    stage: &Stage,
    observer: &mut dyn Observer,
) -> Result<Vec<EpisodeGroup>, RecipeError> {
    let player = stage.player(request.role).map_err(|error| RecipeError::Config {
        field: "main_role",
        expected: "one of `roles`",
        got: error.to_string(),
    })?;
    let places = Arc::new(Semaphore::new(request.in_flight));
    let mut playing = FuturesUnordered::new();
    for (row, task) in request.tasks.iter().enumerate() {
        for episode in 0..request.episodes {
            let seed = derive_seed(request.seeds[row], "episode", episode as u64, 0);
            let places = places.clone();
            playing.push(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                let failed = |source| EpisodeError::Environment { turn: 0, source };
                let playing = async {
                    let progress = request.progress;
                    let episode_of = EpisodeRequest { task, seed, progress, stage };
                    let mut environment = builder.environment(episode_of).map_err(failed)?;
                    player.play(environment.as_mut(), request.role, seed).await
                };
                // An environment is somebody else's: where it panics, its episode has failed.
                let played = AssertUnwindSafe(playing).catch_unwind().await;
                let panicked = |_| {
                    let reason = "it panicked: standard error says where".into();
                    Err(failed(EnvironmentError::Failed { reason }))
                };
                (row, episode, played.unwrap_or_else(panicked))
            });
        }
    }

    let total = playing.len();
    let mut outcomes: Vec<Vec<Option<EpisodeOutcome>>> =
        request.tasks.iter().map(|_| (0..request.episodes).map(|_| None).collect()).collect();
    let mut done = 0;
    while let Some((row, episode, played)) = playing.next().await {
        // What is wrong with the run is no failure of one episode.
        if let Err(EpisodeError::Service(error)) = played {
            return Err(error.into());
        }
        outcomes[row][episode] = Some(played.map_err(|error| failure(&error)));
        done += 1;
        if request.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(RecipeError::Stopped);
        }
        observer.see(&Event::Progress { phase: request.phase, done, total });
    }

    let groups = request.tasks.iter().zip(outcomes).map(|(task, outcomes)| EpisodeGroup {
        task: task.clone(),
        episodes: outcomes.into_iter().flatten().collect(),
    });
    Ok(groups.collect())
}

/// Why an episode has no reward.
fn failure(error: &EpisodeError) -> ScoreFailure {
    let cause = match error {
        EpisodeError::Environment { .. } => "environment",
        EpisodeError::Sampling { .. } => "sampling",
        EpisodeError::Text { .. } => "text",
        EpisodeError::Reward { .. } => "reward",
        _ => "episode",
    };
    ScoreFailure { cause: cause.into(), report: in_one_line(error) }
}

/// What a trainer learns from an episode: a datum for each context that the policy had, its own
/// tokens scored and everything else read, all of them worth the same. Sub-agents' episodes are not
/// in it.
///
/// ```
/// use posttrain_environment::{Segment, Trajectory, Turn};
/// use posttrain_recipes::agent::trajectory_datums;
///
/// let mut segment = Segment::new(vec![1, 2]);
/// let first = Turn::sampled(segment.write(0, &[7]), vec![-0.5], vec![0]);
/// segment.read(&[3]); // a tool's answer
/// let second = Turn::sampled(segment.write(0, &[8, 9]), vec![-1.0, -2.0], vec![0, 0]);
/// let mut trajectory = Trajectory::new("policy");
/// trajectory.segments = vec![segment];
/// trajectory.turns = vec![first, second];
///
/// let datum = &trajectory_datums(&trajectory, 0.5, 1.0)[0];
/// assert_eq!(datum.input, [1, 2, 7, 3, 8]);
/// assert_eq!((datum.positions.as_slice(), datum.targets.as_slice()), ([1, 3, 4].as_slice(), [7, 8, 9].as_slice()));
/// assert_eq!(datum.sampling_logprobs, Some(vec![-0.5, -1.0, -2.0]));
/// ```
#[must_use]
pub fn trajectory_datums(trajectory: &Trajectory, advantage: f32, temperature: f64) -> Vec<Datum> {
    let datum = |(index, segment): (usize, &Segment)| {
        let turns = trajectory.turns.iter().filter(|turn| turn.place.segment == index);
        let logprobs = turns.flat_map(|turn| turn.logprobs.iter().copied()).collect();
        text_datum(segment)
            .with_sampling_logprobs(logprobs)
            .with_advantage(advantage)
            .with_temperature(temperature)
    };
    let written = trajectory.segments.iter().enumerate().filter(|(_, s)| !s.written.is_empty());
    written.map(datum).collect()
}

/// What is learned from episodes that somebody played who knows how
/// ([`ScriptedActor`](posttrain_environment::ScriptedActor)): their turns, by cross-entropy.
#[must_use]
pub fn demonstration_datums<'a>(
    trajectories: impl IntoIterator<Item = &'a Trajectory>,
) -> Vec<Datum> {
    let segments = trajectories.into_iter().flat_map(|trajectory| &trajectory.segments);
    segments.filter(|segment| !segment.written.is_empty()).map(text_datum).collect()
}

fn text_datum(segment: &Segment) -> Datum {
    let weights: Vec<f32> =
        segment.mask().into_iter().map(|written| f32::from(u8::from(written))).collect();
    // What a group's episodes have in common at least: what all of them read first.
    let opening = segment.written.first().map_or(0, |range| range.start);
    let datum = Datum::text(&segment.tokens, &weights);
    let opening = opening.min(datum.input.len());
    datum.with_shared_prefix(opening)
}
