//! Long runs of each loop: memory, file handles and threads are at the end what they were after
//! warming up. More steps by `POSTTRAIN_SOAK`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod digits;
mod world;

use posttrain_recipes::lesson::Supervised;
use posttrain_recipes::{
    Event, FineTuneConfig, FineTuneRun, GroupOrder, Mode, Observer, PromptStyle, RlConfig,
};
use world::{World, config, examples, reward};

const STEPS: &str = "POSTTRAIN_SOAK";
/// Steps from which on memory has settled enough for 1% to mean something.
const SETTLED: u64 = 1000;

#[derive(Debug, Clone, Copy)]
struct Usage {
    resident_kib: f64,
    handles: usize,
    threads: usize,
}

impl Usage {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let resident_kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let count = |path: &str| std::fs::read_dir(path).unwrap().count();
        Self { resident_kib, handles: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }
}

/// Looks at every step.
#[derive(Default)]
struct Watch(Vec<Usage>);

impl Observer for Watch {
    fn see(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Step { .. } | Event::FineTuneStep { .. }) {
            self.0.push(Usage::now());
        }
    }
}

impl Watch {
    /// The largest of the quarter behind the warm-up, and of the last quarter.
    fn check(&self, name: &str) {
        let quarter = self.0.len() / 4;
        let most = |steps: &[Usage]| {
            let resident = steps.iter().map(|u| u.resident_kib).fold(0.0, f64::max);
            let handles = steps.iter().map(|u| u.handles).max().unwrap();
            (resident, handles, steps.iter().map(|u| u.threads).max().unwrap())
        };
        let warm = most(&self.0[quarter..2 * quarter]);
        let end = most(&self.0[3 * quarter..]);
        println!("{name}: {} steps, KiB, handles, threads {warm:?} -> {end:?}", self.0.len());
        // One more of each: a state may be on its way to the disk while one looks.
        assert!(end.1 <= warm.1 + 1 && end.2 <= warm.2 + 1, "{name}: {warm:?} {end:?}");
        if self.0.len() as u64 >= SETTLED {
            assert!(end.0 <= 1.01 * warm.0, "{name}: {warm:?} {end:?}");
        }
    }
}

#[test]
fn no_loop_grows() {
    let steps = std::env::var(STEPS).ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let plain = RlConfig { checkpoint_every: 20, ..config(steps) };
    let ahead = RlConfig { mode: Mode::Asynchronous, max_staleness: 2, ..plain.clone() };
    let loops = [
        ("on_policy", plain.clone()),
        ("streaming", RlConfig { mode: Mode::Streaming, ..plain }),
        ("ahead", ahead.clone()),
        ("arrival", RlConfig { group_order: GroupOrder::Arrival, ..ahead }),
    ];
    for (name, config) in loops {
        let mut watch = Watch::default();
        let run = world.run(config, &dir.path().join(name), reward());
        run.train(&examples(0..40), &examples(40..60), &mut watch).unwrap();
        watch.check(name);
    }

    let lesson = Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: Default::default(),
    };
    let fine_tune =
        FineTuneConfig { epochs: u64::MAX, steps: Some(steps), ..FineTuneConfig::default() };
    let mut watch = Watch::default();
    let run = FineTuneRun::new(world.model, lesson, fine_tune, &dir.path().join("sft")).unwrap();
    run.train(&examples(0..40), &[], &mut watch).unwrap();
    watch.check("sft");
}
