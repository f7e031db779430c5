//! What a judge answers, about a response that nobody wrote.
//!
//! Up to the first byte 0xff: the response; behind it: the judge's answer. Both reach the parser by
//! way of a whole judge. An answer without the word can be no verdict of "correct", and what the
//! judge is shown is always the response.
#![no_main]

use std::sync::{Arc, LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
use posttrain_reward::{Reward, RewardError, Sample};
use posttrain_reward::judge::{Judge, JudgeConfig};

static ANSWER: Mutex<String> = Mutex::new(String::new());
static SHOWN: Mutex<String> = Mutex::new(String::new());

static JUDGE: LazyLock<Judge> = LazyLock::new(|| {
    let model = from_fn("fuzzed", async |request: ChatRequest| {
        *SHOWN.lock().unwrap() = request.messages[1].text().into_owned();
        Ok(ChatResponse::from_text(ANSWER.lock().unwrap().clone()))
    });
    let config = JudgeConfig { max_response_characters: 1 << 24, ..JudgeConfig::default() };
    config.build(Arc::new(model)).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let (response, answer) = match bytes.iter().position(|byte| *byte == 0xff) {
        Some(place) => (&bytes[..place], &bytes[place + 1..]),
        None => (&b"5"[..], bytes),
    };
    let (response, answer) = (String::from_utf8_lossy(response), String::from_utf8_lossy(answer).into_owned());
    ANSWER.lock().unwrap().clone_from(&answer);
    SHOWN.lock().unwrap().clear();
    match futures::executor::block_on(JUDGE.score(&Sample::new("2 + 2?", "4", response.clone()))) {
        Ok(score) if score.value() == 1.0 => {
            assert!(answer.to_lowercase().contains("correct") || answer.contains("\\u"), "{answer:?}");
        }
        Ok(_) | Err(RewardError::NoVerdict { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let shown = SHOWN.lock().unwrap();
    if !shown.is_empty() {
        let lines: Vec<&str> = shown.split('\n').collect();
        let judged = response.rsplit_once("</think>").map_or(&*response, |(_, rest)| rest).trim();
        assert!(lines[0].starts_with("[DATA ") && lines[2].starts_with("[END OF DATA "));
        let data: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(data["response"], judged);
    }
});
