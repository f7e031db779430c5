//! Streaming trains on a group while another waits for its reward. A process of its own, since it listens
//! to every span.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use futures::future::BoxFuture;
use posttrain_recipes::{GroupOrder, Mode, RlConfig, Silent};
use posttrain_reward::{Reward, RewardError, Sample, Score};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use world::{World, config, examples};

/// Set once a pass of training has begun.
struct Spans(Arc<AtomicBool>);

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if span.metadata().name() == "training" {
            self.0.store(true, Ordering::SeqCst);
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Gives the first completion that is scored no reward until some other group is trained on.
struct Waits {
    begun: Arc<AtomicBool>,
    asked: AtomicBool,
    in_vain: AtomicBool,
}

/// How long it waits.
const PATIENCE: Duration = Duration::from_secs(20);

impl Reward for Waits {
    fn name(&self) -> &str {
        "waits"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            if !self.asked.swap(true, Ordering::SeqCst) {
                let started = Instant::now();
                while !self.begun.load(Ordering::SeqCst) && started.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                self.in_vain.store(!self.begun.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            // Different within nearly every group, so that it teaches.
            let digit = sample.response.bytes().find(u8::is_ascii_digit).unwrap_or_default();
            Ok(Score::binary(digit % 2 == 0))
        })
    }
}

#[test]
fn a_group_is_trained_on_while_another_waits_for_its_reward() {
    let begun = Arc::new(AtomicBool::new(false));
    tracing::subscriber::set_global_default(Spans(begun.clone())).unwrap();
    let (asked, in_vain) = (AtomicBool::new(false), AtomicBool::new(false));
    let reward = Arc::new(Waits { begun, asked, in_vain });

    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let config = RlConfig { mode: Mode::Streaming, group_order: GroupOrder::Arrival, ..config(1) };
    let run = world.run(config, dir.path(), reward.clone());
    assert!(run.train(&examples(0..40), &[], &mut Silent).unwrap().complete);
    assert!(!reward.in_vain.load(Ordering::SeqCst), "nothing was trained on meanwhile");
}
