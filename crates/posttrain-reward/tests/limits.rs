//! What hangs, and what keeps the rest going.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, pending};
use posttrain_reward::{
    Reward, RewardError, Sample, Score, Scorer, ScorerConfig, ScoringProgress, from_fn,
};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn sample(response: &str) -> Sample {
    Sample::new("?", "1", response)
}

fn causes(scores: &[Result<Score, RewardError>]) -> Vec<Option<&'static str>> {
    scores.iter().map(|score| score.as_ref().err().map(RewardError::cause)).collect()
}

/// Never answers what is asked to hang; counts what it was asked.
#[derive(Default)]
struct Down {
    asked: AtomicUsize,
}

impl Reward for Down {
    fn name(&self) -> &str {
        "down"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if sample.response == "hang" {
            Box::pin(pending())
        } else {
            Box::pin(async { Score::new(1.0) })
        }
    }
}

#[test]
fn a_deadline_ends_the_step() {
    let (runtime, down) = (runtime(), Arc::new(Down::default()));
    // Without the deadline, twenty samples by twos would wait for ten time limits.
    let config =
        ScorerConfig { in_flight: 2, deadline_seconds: Some(2.0), ..ScorerConfig::default() };
    let start = Instant::now();
    let mut scorer = Scorer::new(down.clone(), &config, runtime.handle().clone()).unwrap();
    scorer.push(sample("fine")).unwrap();
    for _ in 0..20 {
        scorer.push(sample("hang")).unwrap();
    }
    let scores = scorer.finish().unwrap();
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    assert_eq!(scores[0].as_ref().unwrap().value(), 1.0, "what was scored in time stays");
    assert_eq!(causes(&scores[1..]), vec![Some("deadline_passed"); 20]);
    assert!(scores[1].as_ref().unwrap_err().to_string().contains("2 s"));
    assert!(down.asked.load(Ordering::SeqCst) <= 4, "nothing is asked after the deadline");
}

#[test]
fn the_nearer_limit_is_named() {
    let runtime = runtime();
    let config = ScorerConfig {
        time_limit_seconds: 0.1,
        deadline_seconds: Some(60.0),
        ..ScorerConfig::default()
    };
    let mut scorer =
        Scorer::new(Arc::new(Down::default()), &config, runtime.handle().clone()).unwrap();
    scorer.push(sample("hang")).unwrap();
    assert_eq!(causes(&scorer.finish().unwrap()), [Some("timed_out")]);
    for deadline in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let config = ScorerConfig { deadline_seconds: Some(deadline), ..ScorerConfig::default() };
        assert_eq!(config.validate().unwrap_err().cause(), "invalid_config");
    }
}

/// Fails so many times, and then gives 1.
struct Flaky {
    failures: usize,
    asked: AtomicUsize,
    error: fn() -> RewardError,
}

impl Reward for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    fn score<'a>(&'a self, _: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let failed = asked < self.failures;
        Box::pin(async move { if failed { Err((self.error)()) } else { Score::new(1.0) } })
    }
}

#[test]
fn a_failure_that_may_pass_is_tried_again_and_one_that_cannot_is_not() {
    let runtime = runtime();
    let transient = || RewardError::failed("flaky", "reset", std::io::Error::other("reset"));
    let lasting = || RewardError::InvalidConfig { field: "f", got: "x".into(), expected: "y" };
    let cases: [(usize, u32, fn() -> RewardError, usize, bool); 4] = [
        (2, 2, transient, 3, true),
        (3, 2, transient, 3, false),
        (1, 0, transient, 1, false),
        (1, 5, lasting, 1, false),
    ];
    for (failures, retries, error, asked, scored) in cases {
        let flaky = Arc::new(Flaky { failures, asked: AtomicUsize::new(0), error });
        let config = ScorerConfig { retries, ..ScorerConfig::default() };
        let mut scorer = Scorer::new(flaky.clone(), &config, runtime.handle().clone()).unwrap();
        scorer.push(sample("fine")).unwrap();
        assert_eq!(scorer.finish().unwrap()[0].is_ok(), scored, "{failures} {retries}");
        assert_eq!(flaky.asked.load(Ordering::SeqCst), asked, "{failures} {retries}");
    }
}

#[test]
fn progress_counts_by_cause() {
    let runtime = runtime();
    let moody = from_fn("moody", |sample: &Sample| match sample.response.as_str() {
        "panic" => panic!("no such luck"),
        "nan" => Score::new(f64::NAN),
        _ => Score::new(1.0),
    });
    let mut scorer =
        Scorer::new(Arc::new(moody), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    assert_eq!(scorer.progress(), ScoringProgress::default());
    for response in ["fine", "panic", "nan", "nan", "fine"] {
        scorer.push(sample(response)).unwrap();
    }
    let start = Instant::now();
    while scorer.progress().waiting() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", scorer.progress());
        std::thread::sleep(Duration::from_millis(5));
    }
    let failed = [("invalid_score", 2), ("panicked", 1)].into();
    assert_eq!(scorer.progress(), ScoringProgress { pushed: 5, scored: 2, failed });
    assert_eq!(scorer.finish().unwrap().len(), 5);
}

#[test]
fn verifiers_that_hang_do_not_starve_others() {
    let runtime = runtime();
    let hanging = from_fn("hanging", |sample: &Sample| {
        if sample.response == "hang" {
            std::thread::sleep(Duration::from_secs(40));
        }
        Score::new(1.0)
    });
    let config = ScorerConfig { time_limit_seconds: 3.0, ..ScorerConfig::default() };
    let reward: Arc<dyn Reward> = Arc::new(hanging);
    // As many as the pool has threads, so that every one of them is stuck.
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut scorer = Scorer::new(reward.clone(), &config, runtime.handle().clone()).unwrap();
    for _ in 0..threads {
        scorer.push(sample("hang")).unwrap();
    }
    assert_eq!(causes(&scorer.finish().unwrap()), vec![Some("timed_out"); threads]);
    let mut scorer = Scorer::new(reward, &config, runtime.handle().clone()).unwrap();
    for _ in 0..50 {
        scorer.push(sample("fine")).unwrap();
    }
    assert_eq!(causes(&scorer.finish().unwrap()), vec![None; 50]);
}
