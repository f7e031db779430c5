//! How close the judge comes to the ideal rate against a server whose only cost is waiting.
//!
//! ```text
//! cargo run --release -p posttrain-reward --example judge_throughput -- [COMPLETIONS] [IN_FLIGHT] [LATENCY_MS]
//! ```
//!
//! The server runs in this process, on the same cores. Ideal: `in flight / latency` verdicts a
//! second. Each completion goes the whole way: `Scorer`, prompt, HTTP, JSON, verdict, score. A part
//! of the completions is warm-up (connections), the end (where fewer than `in flight` are left) is
//! not counted either.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use posttrain_chat::client::JsonClientConfig;
use posttrain_chat::openai::OpenAiConfig;
use posttrain_reward::judge::JudgeConfig;
use posttrain_reward::{Sample, Scorer, ScorerConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

const VERDICT: &str = r#"{"choices": [{"message": {"content": "{\"reasoning\": \"It agrees.\", \"verdict\": \"correct\"}"},
    "finish_reason": "stop"}], "usage": {"prompt_tokens": 600, "completion_tokens": 20}}"#;

async fn serve(
    stream: TcpStream,
    latency: Duration,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{VERDICT}", VERDICT.len());
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?
                }
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        sleep(latency).await;
        running.fetch_sub(1, Ordering::Relaxed);
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let completions = arguments.next().unwrap_or(30_000);
    let in_flight = arguments.next().unwrap_or(256);
    let latency = Duration::from_millis(arguments.next().unwrap_or(100) as u64);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let seen = Arc::clone(&most);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, latency, Arc::clone(&running), Arc::clone(&most)));
        }
    });

    let http = JsonClientConfig { in_flight, ..JsonClientConfig::for_server(&url).unwrap() };
    let model =
        OpenAiConfig { model: "stub".into(), http, ..OpenAiConfig::default() }.build().unwrap();
    let judge = JudgeConfig::default().build(Arc::new(model)).unwrap();
    let config = ScorerConfig { in_flight, ..ScorerConfig::default() };
    let mut scorer =
        Scorer::new(Arc::new(judge), &config, tokio::runtime::Handle::current()).unwrap();
    let warm_up = 2 * in_flight;
    let mut start = Instant::now();
    for index in 0..completions + warm_up {
        if index == warm_up {
            start = Instant::now();
        }
        let response = format!(
            "Let me see. {} So the answer is {index}.",
            "A step of the derivation. ".repeat(40)
        );
        scorer.submit(Sample::new("What is it?", index.to_string(), response)).await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let scores = scorer.collect().await;
    assert!(scores.iter().all(|score| score.as_ref().is_ok_and(|score| score.value() == 1.0)));
    let (rate, ideal) = (completions as f64 / seconds, in_flight as f64 / latency.as_secs_f64());
    println!(
        "{completions} verdicts in {seconds:.2} s: {rate:.0} a second, {:.1}% of the ideal {ideal:.0}; at most {} in flight",
        100.0 * rate / ideal,
        seen.load(Ordering::Relaxed)
    );
}
