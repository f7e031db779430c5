//! Streaming trains on a group while another waits for its reward. A process of its own, since it listens
//! to every span.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_recipes::{GroupOrder, Mode, RlConfig, Silent};
use posttrain_reward::{Reward, Sample, Score, from_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use world::{World, config, examples};

/// Whether a pass of training has begun.
#[derive(Default)]
struct Begun(Mutex<bool>, Condvar);

struct Spans(Arc<Begun>);

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if span.metadata().name() == "training" {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_group_is_trained_on_while_another_waits_for_its_reward() {
    let begun = Arc::new(Begun::default());
    tracing::subscriber::set_global_default(Spans(begun.clone())).unwrap();
    let (asked, in_vain) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let told = in_vain.clone();
    // The first completion that is scored has no reward until some other group is trained on.
    let waits = move |sample: &Sample| {
        if !asked.swap(true, Ordering::Relaxed) {
            let lock = begun.0.lock().unwrap();
            let waited = begun.1.wait_timeout_while(lock, Duration::from_secs(60), |begun| !*begun);
            told.store(!*waited.unwrap().0, Ordering::Relaxed);
        }
        // Different within nearly every group, so that it teaches.
        let digit = sample.response.bytes().find(u8::is_ascii_digit).unwrap_or_default();
        Ok(Score::binary(digit % 2 == 0))
    };
    let reward: Arc<dyn Reward> = Arc::new(from_fn("waits", waits));
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let config = RlConfig { mode: Mode::Streaming, group_order: GroupOrder::Arrival, ..config(1) };
    let outcome = world.run(config, dir.path(), reward).train(&examples(0..40), &[], &mut Silent);
    assert!(outcome.unwrap().complete);
    assert!(
        !in_vain.load(Ordering::Relaxed),
        "nothing was trained on while a reward was waited for"
    );
}
