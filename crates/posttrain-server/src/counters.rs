//! What a server counts, as Prometheus reads it.

use crate::app::App;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets that requests' times are counted in, seconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0];

/// Times of requests of one route.
#[derive(Default)]
struct Times {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// Everything that is counted from the server's start on.
#[derive(Default)]
pub(crate) struct Counters {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    times: Mutex<BTreeMap<String, Times>>,
    training: Mutex<BTreeMap<(&'static str, bool), u64>>,
    samples: [AtomicU64; 2],
    tokens: AtomicU64,
    checkpoints: AtomicU64,
}

impl Counters {
    /// A request that was answered. `route` is the pattern that it matched, never its address.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let key = (route.to_owned(), status);
        *lock(&self.requests).entry(key).or_default() += 1;

        let mut times = lock(&self.times);
        let times = times.entry(route.to_owned()).or_default();
        times.count += 1;
        times.sum += took.as_secs_f64();
        for (bucket, bound) in times.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took.as_secs_f64() <= bound);
        }
    }

    pub fn training_call(&self, kind: &'static str, done: bool) {
        *lock(&self.training).entry((kind, done)).or_default() += 1;
    }

    pub fn sample_call(&self, done: bool) {
        self.samples[usize::from(done)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn sampled(&self, tokens: usize) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub fn checkpoint(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// Tokens sampled so far.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The page that Prometheus reads (text format 0.0.4).
pub(crate) fn prometheus(app: &App) -> String {
    let mut page = String::new();
    for ((route, status), count) in lock(&app.counters.requests).iter() {
        let name = "posttrain_requests_total";
        line(
            &mut page,
            name,
            "counter",
            &[("route", route), ("status", &status.to_string())],
            *count,
        );
    }
    times(&mut page, &app.counters);
    for ((kind, done), count) in lock(&app.counters.training).iter() {
        let outcome = if *done { "done" } else { "failed" };
        let name = "posttrain_training_calls_total";
        line(&mut page, name, "counter", &[("kind", kind), ("outcome", outcome)], *count);
    }
    for (index, outcome) in ["failed", "done"].into_iter().enumerate() {
        let count = app.counters.samples[index].load(Ordering::Relaxed);
        line(
            &mut page,
            "posttrain_sample_requests_total",
            "counter",
            &[("outcome", outcome)],
            count,
        );
    }

    let registry = app.registry();
    let waiting: u64 =
        registry.models.values().map(|model| model.waiting.load(Ordering::Relaxed)).sum();
    let open =
        registry.sessions.values().filter(|session| session.record.finished.is_none()).count();
    let sampling = app.sampling.stats();
    let plain = [
        ("posttrain_sampled_tokens_total", "counter", app.counters.tokens()),
        ("posttrain_prompt_tokens_computed_total", "counter", sampling.prompt_tokens as u64),
        ("posttrain_prompt_tokens_kept_total", "counter", sampling.kept_tokens as u64),
        ("posttrain_sampling_busy_milliseconds_total", "counter", sampling.busy.as_millis() as u64),
        (
            "posttrain_checkpoints_written_total",
            "counter",
            app.counters.checkpoints.load(Ordering::Relaxed),
        ),
        ("posttrain_training_calls_shared_total", "counter", app.training.shared_calls()),
        ("posttrain_sessions", "gauge", open as u64),
        ("posttrain_models", "gauge", registry.models.len() as u64),
        ("posttrain_samplers", "gauge", registry.samplers.len() as u64),
        ("posttrain_training_calls_waiting", "gauge", waiting),
        ("posttrain_samples_pending", "gauge", app.sampling.pending() as u64),
        ("posttrain_results_pending", "gauge", app.promises.pending() as u64),
        ("posttrain_result_bytes", "gauge", app.promises.bytes() as u64),
        ("posttrain_uptime_seconds", "gauge", app.started.elapsed().as_secs()),
    ];
    drop(registry);
    for (name, kind, value) in plain {
        line(&mut page, name, kind, &[], value);
    }
    page
}

fn times(page: &mut String, counters: &Counters) {
    let name = "posttrain_request_seconds";
    for (route, times) in lock(&counters.times).iter() {
        head(page, name, "histogram");
        for (bucket, bound) in times.buckets.iter().zip(BUCKETS) {
            let labels = labels(&[("route", route), ("le", &bound.to_string())]);
            let _ = writeln!(page, "{name}_bucket{labels} {bucket}");
        }
        let all = labels(&[("route", route), ("le", "+Inf")]);
        let route = labels(&[("route", route)]);
        let _ = writeln!(page, "{name}_bucket{all} {}", times.count);
        let _ = writeln!(page, "{name}_sum{route} {}", times.sum);
        let _ = writeln!(page, "{name}_count{route} {}", times.count);
    }
}

fn line(page: &mut String, name: &str, kind: &str, of: &[(&str, &str)], value: u64) {
    head(page, name, kind);
    let labels = labels(of);
    // A String takes whatever is written to it.
    let _ = writeln!(page, "{name}{labels} {value}");
}

/// A metric's kind, once.
fn head(page: &mut String, name: &str, kind: &str) {
    let head = format!("# TYPE {name} {kind}\n");
    if !page.contains(&head) {
        page.push_str(&head);
    }
}

fn labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let quoted = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    let all: Vec<String> = labels.iter().map(quoted).collect();
    format!("{{{}}}", all.join(","))
}
