//! Versions that take over from each other under load.

use super::population::{ask, prepare, serve, side_by_side};
use super::server::Client;
use super::{Questions, TrafficFile};
use anyhow::{Context, Result};
use posttrain::recipes::traffic::{LedgerLine, TrafficLine, Verdict};
use posttrain::store::read_log;
use posttrain::train::{Datum, Trainer, adapter_folder};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is done under load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swaps {
    /// Swaps.
    pub n: usize,
    /// Requests without swaps, and as many at least with them.
    pub requests: usize,
    /// Completions whose log-probabilities are computed again, from all over the load.
    pub checked: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Swapped {
    /// Swaps.
    pub n: usize,
    /// Requests that were answered meanwhile.
    pub requests: usize,
    /// Requests that were not.
    pub dropped: usize,
    /// The 99th percentile of a request's time without swaps, seconds.
    pub p99_without: f64,
    /// With them.
    pub p99_with: f64,
    /// The latter over the former.
    pub p99_ratio: f64,
    /// Completions whose log-probabilities were computed again by the version that they name.
    pub checked: usize,
    /// Those of them that the other version is nearer to.
    pub mixed: usize,
    /// The largest mean difference of one, nats a token.
    pub largest_gap: f64,
    /// The same by the other version, on the average: what a mix-up would look like.
    pub gap_of_other: f64,
}

fn p99(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() * 99 / 100).copied().unwrap_or(0.0)
}

/// Sends requests until `done`, at least so many; their times, and how many were not answered.
fn load(
    client: &Client,
    config: &TrafficFile,
    questions: &Questions,
    at_least: usize,
    (answered, done): (&AtomicUsize, &AtomicBool),
) -> (Vec<f64>, usize) {
    let mut seconds = Vec::new();
    let mut dropped = 0;
    let round = config.population.clients * 8;
    let mut sent = 0;
    while sent < at_least || !done.load(Ordering::Relaxed) {
        let indices: Vec<usize> = (sent..sent + round).collect();
        let times = side_by_side(config.population.clients, &indices, |index| {
            let example = &questions.asked[index % questions.asked.len()];
            let began = Instant::now();
            let answer = ask(client, config, &config.traffic.name, &example.question);
            answered.fetch_add(1, Ordering::Relaxed);
            Ok(answer.map(|_| began.elapsed().as_secs_f64()))
        });
        for time in times.unwrap_or_default() {
            match time {
                Ok(time) => seconds.push(time),
                Err(_) => dropped += 1,
            }
        }
        sent += round;
    }
    (seconds, dropped)
}

/// Has two versions take over from each other under load, and computes again what they sampled.
pub fn under_load(
    config: &TrafficFile,
    questions: &Questions,
    binary: &Path,
    folder: &Path,
) -> Result<Swapped> {
    prepare(config, questions, config.seeds[0], folder)?;
    let traffic = folder.join("data/traffic");
    let lines: Vec<LedgerLine> = read_log(&traffic.join("decisions.jsonl"))?;
    let mut passed: Vec<u64> = vec![0];
    passed.extend(lines.iter().filter_map(|line| match line {
        LedgerLine::Decided(d) if d.verdict == Verdict::Accepted => Some(d.version),
        _ => None,
    }));
    let there = |v: &u64| traffic.join(format!("versions/version-{v:06}")).exists();
    let there: Vec<u64> = passed.into_iter().filter(there).collect();
    let [.., one, other] = there[..] else {
        anyhow::bail!("expected two versions that the gate has passed, there are {}", there.len());
    };

    let server = serve(config, binary, folder)?;
    let client = server.client();
    let swaps = config.swaps;
    let (unwatched, always) = (AtomicUsize::new(0), AtomicBool::new(true));
    let warm = swaps.requests / 4;
    load(&client, config, questions, warm, (&unwatched, &always));
    let (without, _) = load(&client, config, questions, swaps.requests, (&unwatched, &always));

    let (answered, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut refused = None;
    let (with, dropped) = std::thread::scope(|scope| {
        let loaded =
            scope.spawn(|| load(&client, config, questions, swaps.requests, (&answered, &done)));
        // All over the load, however long it takes: the same number of requests apart.
        for n in 0..swaps.n {
            while answered.load(Ordering::Relaxed) < n * swaps.requests / swaps.n {
                std::thread::sleep(Duration::from_millis(2));
            }
            let version = if n % 2 == 0 { one } else { other };
            let body = json!({ "version": version, "reason": "swapped under load" });
            if let Err(error) = client.post("/traffic/reinstate", &body) {
                refused = Some(error.context(format!("swap {}", n + 1)));
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        loaded.join().expect("the load does not panic")
    });
    server.stop()?;
    if let Some(error) = refused {
        return Err(error);
    }

    let of_load = with.len();
    let Recomputed { checked, mixed, largest_gap, gap_of_other } =
        recomputed(config, &traffic, (one, other), (of_load, swaps.checked))?;
    let (p99_without, p99_with) = (p99(without), p99(with.clone()));
    Ok(Swapped {
        n: swaps.n,
        requests: with.len(),
        dropped,
        p99_without,
        p99_with,
        p99_ratio: p99_with / p99_without,
        checked,
        mixed,
        largest_gap,
        gap_of_other,
    })
}

/// What came of computing completions again.
struct Recomputed {
    checked: usize,
    mixed: usize,
    largest_gap: f64,
    gap_of_other: f64,
}

/// The log-probabilities of some of the last `of_load` completions, spread over them, by the version
/// that they name and by the other.
fn recomputed(
    config: &TrafficFile,
    traffic: &Path,
    (one, other): (u64, u64),
    (of_load, most): (usize, usize),
) -> Result<Recomputed> {
    let mut served = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(traffic.join("log"))?.flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        served.extend(read_log::<TrafficLine>(&file.path())?.into_iter().filter_map(|line| {
            match line {
                TrafficLine::Served(served) => Some(served),
                TrafficLine::Feedback(_) => None,
            }
        }));
    }
    let last = served.split_off(served.len().saturating_sub(of_load));
    let apart = last.len().div_ceil(most.max(1)).max(1);
    let some: Vec<_> = last.into_iter().step_by(apart).collect();

    let model = config.model.load()?.decoder;
    let mut trainers = BTreeMap::new();
    for version in [one, other] {
        let settings = &config.traffic;
        let mut trainer = Trainer::new(model.clone(), &settings.lora, settings.trainer, 0)?;
        let path = traffic.join(format!("versions/version-{version:06}"));
        trainer.load_weights(&adapter_folder(&path))?;
        trainers.insert(version, trainer);
    }
    let gap = |version: u64, datum: &Datum, sampled: &[f32]| -> Result<f64> {
        let trainer = trainers.get(&version).context("another version was served")?;
        let scores = trainer.forward(std::slice::from_ref(datum))?;
        let pairs = scores.logprobs[0].iter().zip(sampled);
        let sum: f64 = pairs.map(|(own, sampled)| f64::from((own - sampled).abs())).sum();
        Ok(sum / sampled.len().max(1) as f64)
    };

    let mut largest: f64 = 0.0;
    let mut of_other = 0.0;
    let mut mixed = 0;
    for served in &some {
        let datum = Datum::completion(&served.prompt, &served.tokens);
        let datum = datum.with_temperature(served.temperature);
        let not = if served.version == one { other } else { one };
        let own = gap(served.version, &datum, &served.logprobs)?;
        let others = gap(not, &datum, &served.logprobs)?;
        largest = largest.max(own);
        of_other += others;
        mixed += usize::from(others < own);
    }
    let gap_of_other = of_other / some.len().max(1) as f64;
    Ok(Recomputed { checked: some.len(), mixed, largest_gap: largest, gap_of_other })
}
