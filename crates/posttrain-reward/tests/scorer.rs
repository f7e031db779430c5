//! The streaming runner: order, limits, failures.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use posttrain_reward::verifiers::ExactMatch;
use posttrain_reward::{
    Reward, RewardError, Sample, Score, Scorer, ScorerConfig, Verifier, from_fn,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a response is a number or a text, given on the spot"
)]
fn sample(response: impl ToString) -> Sample {
    Sample::new("?", "1", response.to_string())
}

/// Waits as many milliseconds as the response says, and gives 1 over it; counts what runs at the
/// same time.
#[derive(Default)]
struct Waiting {
    running: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
}

impl Reward for Waiting {
    fn name(&self) -> &str {
        "waiting"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            let milliseconds: u64 =
                sample.response.parse().map_err(|e| RewardError::failed("waiting", "parse", e))?;
            sleep(Duration::from_millis(milliseconds)).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            Score::new(1.0 / milliseconds as f64)
        })
    }
}

#[test]
fn results_come_in_the_order_of_pushes() {
    let runtime = runtime(2);
    let mut scorer = Scorer::new(
        Arc::new(Waiting::default()),
        &ScorerConfig::default(),
        runtime.handle().clone(),
    )
    .unwrap();
    for (index, wait) in [64, 1, 32, 2, 16].into_iter().enumerate() {
        assert_eq!(scorer.push(sample(wait)).unwrap(), index);
    }
    let values: Vec<f64> =
        scorer.finish().unwrap().into_iter().map(|score| score.unwrap().value()).collect();
    assert_eq!(values, [1.0 / 64.0, 1.0, 1.0 / 32.0, 0.5, 1.0 / 16.0]);
}

#[test]
fn pushing_waits_for_room() {
    let runtime = runtime(2);
    let waiting = Arc::new(Waiting::default());
    let config = ScorerConfig { in_flight: 3, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(waiting.clone(), &config, runtime.handle().clone()).unwrap();
    let start = Instant::now();
    for _ in 0..12 {
        scorer.push(sample(50)).unwrap();
    }
    // Twelve by threes: three rounds of 50 ms are over before the last three may start.
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(scorer.finish().unwrap().len(), 12);
    assert_eq!(waiting.most.load(Ordering::SeqCst), 3);
}

#[test]
fn rewards_wait_side_by_side() {
    let runtime = runtime(2);
    let waiting = Arc::new(Waiting::default());
    let mut scorer =
        Scorer::new(waiting.clone(), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    for _ in 0..100 {
        scorer.push(sample(200)).unwrap();
    }
    scorer.finish().unwrap();
    assert!(waiting.most.load(Ordering::SeqCst) > 50);
}

#[test]
fn a_failure_costs_its_own_sample() {
    let runtime = runtime(2);
    let config = ScorerConfig { time_limit_seconds: 5.0, ..ScorerConfig::default() };
    let moody = from_fn("moody", |sample: &Sample| match sample.response.as_str() {
        // A panic without its printed trace, which alone takes seconds on a busy machine.
        "panic" => std::panic::resume_unwind(Box::new("no such luck")),
        "hang" => {
            std::thread::sleep(Duration::from_millis(8000));
            Score::new(1.0)
        }
        "nan" => Score::new(f64::NAN),
        "error" => Err(RewardError::failed("moody", "parse", "x".parse::<u8>().unwrap_err())),
        _ => Score::new(1.0),
    });
    let mut scorer = Scorer::new(Arc::new(moody), &config, runtime.handle().clone()).unwrap();
    for response in ["fine", "panic", "nan", "error", "fine", "hang"] {
        scorer.push(sample(response)).unwrap();
    }
    let scores = scorer.finish().unwrap();
    let causes: Vec<_> =
        scores.iter().map(|score| score.as_ref().err().map(RewardError::cause)).collect();
    let expected =
        [None, Some("panicked"), Some("invalid_score"), Some("parse"), None, Some("timed_out")];
    assert_eq!(causes, expected);
    assert!(scores[1].as_ref().unwrap_err().to_string().contains("no such luck"));
}

/// Panics before there is a future, or inside it.
struct Panicking;

impl Reward for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        assert!(sample.response != "early", "early");
        Box::pin(async { panic!("late") })
    }
}

#[test]
fn panics_of_async_rewards_are_caught() {
    let runtime = runtime(2);
    let config = ScorerConfig { in_flight: 1, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(Arc::new(Panicking), &config, runtime.handle().clone()).unwrap();
    for response in ["early", "late", "early"] {
        scorer.push(sample(response)).unwrap();
    }
    let scores = scorer.finish().unwrap();
    assert_eq!(scores.len(), 3, "the permit of a panicking reward comes back");
    assert!(scores.iter().all(|score| score.as_ref().unwrap_err().cause() == "panicked"));
}

#[test]
fn verifiers_do_not_block_async_threads() {
    let runtime = runtime(1);
    let slow = from_fn("slow", |_: &Sample| {
        std::thread::sleep(Duration::from_millis(400));
        Score::new(1.0)
    });
    let mut scorer =
        Scorer::new(Arc::new(slow), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    scorer.push(sample("x")).unwrap();
    let start = Instant::now();
    runtime.block_on(runtime.spawn(async { sleep(Duration::from_millis(10)).await })).unwrap();
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(scorer.finish().unwrap()[0].is_ok());
}

#[test]
fn ten_thousand_are_scored_once_each() {
    let runtime = runtime(2);
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let reward = from_fn("mod", move |sample: &Sample| {
        counter.fetch_add(1, Ordering::SeqCst);
        let number: usize =
            sample.response.parse().map_err(|e| RewardError::failed("mod", "parse", e))?;
        if number % 10 == 3 {
            Err(sample_error(sample))
        } else {
            Score::new((number % 10) as f64 / 10.0)
        }
    });
    let mut scorer =
        Scorer::new(Arc::new(reward), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    for number in 0..10_000 {
        scorer.push(sample(number)).unwrap();
    }
    let scores = scorer.finish().unwrap();
    assert_eq!((scores.len(), calls.load(Ordering::SeqCst)), (10_000, 10_000));
    for (number, score) in scores.iter().enumerate() {
        match score {
            Ok(score) => assert_eq!(score.value(), (number % 10) as f64 / 10.0),
            Err(error) => assert_eq!((error.cause(), number % 10), ("empty_reference", 3)),
        }
    }
}

fn sample_error(sample: &Sample) -> RewardError {
    RewardError::EmptyReference { id: sample.id.clone() }
}

#[test]
fn async_callers_submit_and_collect() {
    let scoring = runtime(2);
    let reward = Arc::new(ExactMatch.into_reward());
    let config = ScorerConfig { in_flight: 1, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(reward, &config, scoring.handle().clone()).unwrap();
    let caller = Builder::new_current_thread().build().unwrap();
    let scores = caller.block_on(async {
        for response in [1, 2] {
            scorer.submit(sample(response)).await.unwrap();
        }
        scorer.collect().await
    });
    let values: Vec<f64> = scores.into_iter().map(|score| score.unwrap().value()).collect();
    assert_eq!(values, [1.0, 0.0]);
}

#[test]
fn blocking_calls_work_on_a_worker_and_are_refused_on_a_single_thread() {
    let scoring = runtime(1);
    let scorer = || {
        let config = ScorerConfig { in_flight: 1, ..ScorerConfig::default() };
        Scorer::new(Arc::new(Waiting::default()), &config, scoring.handle().clone()).unwrap()
    };
    let mut on_worker = scorer();
    let count = scoring.handle().spawn(async move {
        for _ in 0..4 {
            on_worker.push(sample(5)).unwrap();
        }
        on_worker.finish().unwrap().len()
    });
    assert_eq!(scoring.block_on(count).unwrap(), 4);

    let single = Builder::new_current_thread().build().unwrap();
    let error = single.block_on(async { scorer().push(sample(5)).unwrap_err() });
    assert_eq!(error.cause(), "would_deadlock");
}

#[test]
fn a_dropped_scorer_gives_up() {
    let runtime = runtime(2);
    let waiting = Arc::new(Waiting::default());
    let mut scorer =
        Scorer::new(waiting.clone(), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    scorer.push(sample(60_000)).unwrap();
    drop(scorer);
    let start = Instant::now();
    while Arc::strong_count(&waiting) > 1 {
        assert!(start.elapsed() < Duration::from_secs(5), "the task still holds its reward");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_runtime_that_shuts_down_loses_no_result() {
    let runtime = runtime(1);
    let mut scorer = Scorer::new(
        Arc::new(Waiting::default()),
        &ScorerConfig::default(),
        runtime.handle().clone(),
    )
    .unwrap();
    scorer.push(sample(60_000)).unwrap();
    runtime.shutdown_background();
    let scores = futures::executor::block_on(scorer.collect());
    assert_eq!(scores[0].as_ref().unwrap_err().cause(), "cancelled");
}
