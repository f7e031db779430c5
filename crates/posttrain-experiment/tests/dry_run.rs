//! The source's own experiment, gone through without its weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_experiment::{DryRun, ExperimentConfig, RouterKind};
use posttrain_reward::RewardConfig;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/configs")
}

/// Questions in the columns of Webscale-RL, 2,500 a domain and some of a domain that nobody asks
/// for.
fn write_data(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let mut lines = String::new();
    for domain in ["Math", "Natural Science", "Social Science", "Commerce"] {
        for n in 0..2500 {
            let question =
                format!("In {domain}, what is case {n} called, given note {}?", n * 7919 % 10_007);
            let row = json!({"pretrain_text": "A page.", "domain": domain, "persona": "a student",
                "question": question, "answer": format!("case {n}")});
            writeln!(lines, "{row}").unwrap();
        }
    }
    std::fs::write(folder.join("part-0.jsonl"), lines).unwrap();
}

/// Qwen3-8B without weights: its own configuration, a tokenizer of bytes, a template in its form.
fn write_model(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::copy(examples().join("shapes/qwen3-8b.json"), folder.join("config.json")).unwrap();
    let vocabulary: Value =
        (0..128u32).map(|b| (char::from_u32(b).unwrap().to_string(), json!(b))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?s)."}, "behavior": "Isolated", "invert": false},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
}

/// A server that finds every response correct; its address.
fn agreeable() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while answer(&stream).is_some() {});
        }
    });
    address
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let text = r#"{"reasoning": "the same", "verdict": "correct"}"#;
    let body = json!({"id": "1", "object": "chat.completion", "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
    .to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

/// `ramp.toml` with the data, the model and the servers of this test.
fn ramp(folder: &Path, judge: &str, router: &str) -> ExperimentConfig {
    let mut config = ExperimentConfig::read(&examples().join("ramp.toml")).unwrap();
    config.data.dataset = folder.join("data");
    config.model.path = folder.join("model");
    let RewardConfig::Judge(served) = &mut config.reward else { panic!("{:?}", config.reward) };
    served.server.http.endpoints = vec![judge.parse().unwrap()];
    served.server.http.retry.retries = 0;
    let RouterKind::Chat { server, .. } = &mut config.routing.routers[0].kind else {
        panic!("no chat router")
    };
    server.http.endpoints = vec![router.parse().unwrap()];
    server.http.retry.retries = 0;
    config
}

#[test]
fn the_sources_experiment_is_gone_through_without_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    write_data(&dir.path().join("data"));
    write_model(&dir.path().join("model"));
    let server = agreeable();
    let run = DryRun::of(&ramp(dir.path(), &server, &server)).unwrap();
    assert!(run.problems.is_empty(), "{:?}", run.problems);
    assert_eq!(run.questions, [6000, 750, 750]);
    let arms: Vec<(&str, u64)> =
        run.arms.iter().map(|arm| (arm.name.as_str(), arm.rl.steps)).collect();
    assert_eq!(arms, [("math", 125), ("natural", 125), ("social", 125), ("generalist", 375)]);
    let model = run.model.unwrap();
    assert_eq!((model.size.parameters, model.context), (8_190_735_360, 40_960));
    // What the file promises: one GPU of 80 GB.
    assert!(model.memory.peak() < 80_000_000_000, "{}", model.memory);
    let question = "In Natural Science, what is case 2499 called, given note 10006?";
    let prompt = question.len()
        + "\nGive the final answer on the last line.".len()
        + "<user>\n<assistant>".len();
    assert!(model.longest_prompt.abs_diff(prompt) <= 2, "{} for {prompt}", model.longest_prompt);
    assert!(
        run.to_string().contains(
            "generalist: 375 steps of 16 prompts x 8 completions, on math, natural, social"
        )
    );
}

#[test]
fn what_would_stop_the_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write_data(&dir.path().join("data"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}/v1");
    let run = DryRun::of(&ramp(dir.path(), &nobody, &nobody)).unwrap();
    let starts = [
        "model: ",
        "reward: no score",
        "reward: no score",
        "reward: no score",
        "router `qwen3-4b`: ",
    ];
    let found: Vec<bool> = run
        .problems
        .iter()
        .zip(starts)
        .map(|(problem, start)| problem.starts_with(start))
        .collect();
    assert_eq!(found, [true; 5], "{:?}", run.problems);
    assert!(run.model.is_none());

    write_model(&dir.path().join("model"));
    let server = agreeable();
    let mut config = ramp(dir.path(), &server, &server);
    config.rl.sampling.max_tokens = 40_960;
    let run = DryRun::of(&config).unwrap();
    assert!(
        run.problems.len() == 1 && run.problems[0].contains("do not fit its 40960 positions"),
        "{:?}",
        run.problems
    );
}
