//! Who asks, and what they say of the answers.

use super::server::{Client, Server};
use super::{Day, Questions, TrafficFile, write_tasks};
use anyhow::{Context, Result, bail};
use examples::{task_seed, write};
use posttrain::data::Example;
use posttrain::recipes::Reward;
use posttrain::recipes::traffic::{Decision, HeldOutConfig, TrafficConfig, TrafficLine, Verdict};
use posttrain::reward::Sample;
use posttrain::statistics::Share;
use posttrain::store::read_log;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// People who ask, over a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// How long a day is, simulated.
    pub hours: u64,
    /// Requests of an hour.
    pub requests: usize,
    /// Requests under way at a time.
    pub clients: usize,
    /// The share of feedback that says the contrary of what is true.
    pub noise: f64,
    /// The share of answers that nobody says anything of.
    pub missing: f64,
    /// The mean delay of what is said, hours.
    pub delay: f64,
}

/// What will be said, and in which hour.
struct Due {
    hour: f64,
    id: String,
    score: f64,
}

/// A number from 0 to 1 that depends on what it is asked for alone.
fn uniform(seed: u64, what: &str, index: u64) -> f64 {
    (task_seed(seed, what, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// Prepares a seed's folder: the server's configuration and the gate's tasks.
pub fn prepare(
    config: &TrafficFile,
    questions: &Questions,
    seed: u64,
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let tasks = std::path::absolute(folder.join("held_out.jsonl"))?;
    write_tasks(&tasks, &questions.held_out)?;
    let held_out = HeldOutConfig { path: tasks, ..config.traffic.held_out.clone() };
    let traffic = TrafficConfig { seed, held_out, ..config.traffic.clone() };
    write(&folder.join("traffic.toml"), &toml::to_string(&traffic)?)
}

/// Starts a prepared folder's server.
pub fn serve(config: &TrafficFile, binary: &Path, folder: &Path) -> Result<Server> {
    let kind = serde_json::to_value(config.model.kind)?;
    Server::start(binary, &config.model.path, kind.as_str().unwrap_or("auto"), folder)
}

/// Asks one question of a model, as the gate puts it; the response's id and text.
pub fn ask(
    client: &Client,
    config: &TrafficFile,
    model: &str,
    question: &str,
) -> Result<(String, String, Option<u64>)> {
    let held_out = &config.traffic.held_out;
    let body = json!({
        "model": model,
        "prompt": held_out.prompt.text(question),
        "max_tokens": held_out.sampling.max_tokens,
        "temperature": held_out.sampling.temperature,
        "stop": held_out.sampling.stop,
    });
    let (answer, version) = client.post("/v1/completions", &body)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&answer["id"]).context("the answer has no id")?;
    let said = text(&answer["choices"][0]["text"]).context("the answer has no text")?;
    Ok((id, said, version))
}

/// Whether an answer is right, by the verifier that the population hides.
pub fn right(reward: &dyn Reward, example: &Example, answer: &str) -> Result<bool> {
    let sample = Sample::new(&example.question, &example.answer, answer);
    Ok(block_on(reward.score(&sample))?.value() > 0.5)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime of one thread").block_on(future)
}

/// The share of fresh questions that a model answers rightly.
fn accuracy(
    client: &Client,
    config: &TrafficFile,
    model: &str,
    questions: &[Example],
) -> Result<Share> {
    let reward = config.traffic.held_out.reward.build()?;
    let verdicts = side_by_side(config.population.clients, questions, |example| {
        let (_, text, _) = ask(client, config, model, &example.question)?;
        right(&*reward, example, &text)
    })?;
    Ok(Share::of(verdicts.iter().filter(|right| **right).count(), verdicts.len()))
}

/// Does something of each item, so many at a time; the results in their order.
pub fn side_by_side<T: Sync, R: Send>(
    clients: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    done.lock().expect("nobody panics with it").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A day of one seed.
pub fn day(
    config: &TrafficFile,
    questions: &Questions,
    seed: u64,
    binary: &Path,
    folder: &Path,
) -> Result<Day> {
    // A day that was broken off begins anew: its clock is nowhere but here.
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    prepare(config, questions, seed, folder)?;
    let server = serve(config, binary, folder)?;
    let client = server.client();
    let started = Instant::now();
    let name = &config.traffic.name;
    let before = accuracy(&client, config, name, &questions.fresh)?;
    println!("seed {seed}: {:.3} before", before.share);

    let population = &config.population;
    let reward: Arc<dyn Reward> = config.traffic.held_out.reward.build()?;
    let mut due: Vec<Due> = Vec::new();
    let mut requests = 0;
    for hour in 0..population.hours {
        let indices: Vec<u64> = (0..population.requests as u64)
            .map(|n| hour * population.requests as u64 + n)
            .collect();
        let said = side_by_side(population.clients, &indices, |&index| {
            let place = task_seed(seed, "question", index) as usize % questions.asked.len();
            let example = &questions.asked[place];
            let (id, text, _) = ask(&client, config, name, &example.question)?;
            if uniform(seed, "missing", index) < population.missing {
                return Ok(None);
            }
            let right = right(&*reward, example, &text)?;
            let wrongly = uniform(seed, "noise", index) < population.noise;
            let delay = -population.delay * (1.0 - uniform(seed, "delay", index)).ln();
            let score = f64::from(u8::from(right != wrongly));
            Ok(Some(Due { hour: hour as f64 + delay, id, score }))
        })?;
        requests += indices.len();
        due.extend(said.into_iter().flatten());

        // What is due by now is said; the rest comes later, or after the day, and is lost.
        let (now, later): (Vec<Due>, Vec<Due>) =
            due.into_iter().partition(|due| due.hour < (hour + 1) as f64);
        due = later;
        side_by_side(population.clients, &now, |said| {
            client.post("/feedback", &json!({ "id": said.id, "score": said.score }))
        })?;
        let state = wait(&client, config, Wait::Candidate)?;
        println!("{}", hour_line(seed, hour + 1, &state)?);
    }

    let state = wait(&client, config, Wait::Idle)?;
    let versions = decisions(&state)?;
    let after = accuracy(&client, config, name, &questions.fresh)?;
    server.stop()?;
    let capture_to_swap = capture_to_swap(&folder.join("data/traffic"), &versions)?;
    Ok(Day {
        seed,
        before,
        after,
        capture_to_swap,
        versions,
        requests,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Seconds from the last feedback that an accepted candidate was made of to its decision, the
/// longest: what it waited behind an earlier one included.
fn capture_to_swap(traffic: &Path, versions: &[Decision]) -> Result<f64> {
    let mut said: HashMap<String, f64> = HashMap::new();
    for file in std::fs::read_dir(traffic.join("log"))? {
        for line in read_log::<TrafficLine>(&file?.path())? {
            if let TrafficLine::Feedback(feedback) = line {
                said.insert(feedback.id, feedback.time);
            }
        }
    }

    let mut longest: f64 = 0.0;
    for decision in versions.iter().filter(|d| d.verdict == Verdict::Accepted) {
        let path = traffic.join(format!("provenance/version-{:06}.json", decision.version));
        let made: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let sources = made["completions"].as_array().context("`completions`")?;
        let times = sources.iter().filter_map(|source| said.get(source["id"].as_str()?));
        let last = times.copied().filter(|time| *time < decision.time).fold(0.0, f64::max);
        longest = longest.max(decision.time - last);
    }
    Ok(longest)
}

/// What the day's clock waits for.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// Less than a candidate's worth of feedback waits.
    Candidate,
    /// Nothing is learned or decided.
    Idle,
}

fn wait(client: &Client, config: &TrafficFile, until: Wait) -> Result<Value> {
    loop {
        let state = client.get("/traffic.json")?;
        if let Some(failed) = state["failed"].as_str() {
            bail!("the server learns no more: {failed}");
        }
        let ready = state["ready"].as_u64().context("`ready`")? as usize;
        let busy = state["busy"].as_bool().context("`busy`")?;
        if ready < config.traffic.learn.completions && !(busy && until == Wait::Idle) {
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn decisions(state: &Value) -> Result<Vec<Decision>> {
    let lines = state["decisions"].as_array().context("`decisions`")?;
    let decided = lines.iter().filter(|line| line["kind"] == "decided").cloned();
    let decision = |mut line: Value| {
        if let Some(fields) = line.as_object_mut() {
            fields.remove("kind");
        }
        Ok(serde_json::from_value(line)?)
    };
    decided.map(decision).collect()
}

fn hour_line(seed: u64, hour: u64, state: &Value) -> Result<String> {
    let decided = decisions(state)?;
    let last = decided.last().map_or(String::new(), |decision| {
        format!("; version {}: {:?}, {}", decision.version, decision.verdict, decision.reason)
    });
    Ok(format!("seed {seed}, hour {hour}: version {} serves{last}", state["present"]))
}
