//! Episodes of agent programs: OpenAI's protocol in front, tokens as they were sampled behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running};
use posttrain_environment::Trajectory;
use serde_json::{Value, json};

fn open(client: &Client) -> String {
    let (status, episode) = client.post("/episodes", &json!({ "role": "agent" }));
    assert_eq!(status, 200, "{episode}");
    episode["path"].as_str().unwrap().strip_suffix("/v1").unwrap().to_owned()
}

fn say(client: &Client, episode: &str, model: &str, messages: &[Value], more: &Value) -> Value {
    let mut body = json!({ "model": model, "messages": messages, "max_tokens": 8, "seed": 5 });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let (status, answer) = client.post(&format!("{episode}/v1/chat/completions"), &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["message"].clone()
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn finish(client: &Client, episode: &str, reward: f64) -> Trajectory {
    let (status, trajectory) =
        client.post(&format!("{episode}/reward"), &json!({ "reward": reward }));
    assert_eq!(status, 200, "{trajectory}");
    serde_json::from_value(trajectory).unwrap()
}

/// Each turn's tokens stand behind what was read and written before it, as they were sampled.
fn check(trajectory: &Trajectory) {
    for turn in &trajectory.turns {
        let segment = &trajectory.segments[turn.place.segment];
        assert!(segment.written.contains(&turn.place.range));
        assert_eq!(turn.logprobs.len(), turn.place.range.len());
        assert_eq!(turn.versions.len(), turn.place.range.len());
        assert!(turn.logprobs.iter().all(|logprob| logprob.is_finite() && *logprob <= 0.0));
    }
}

#[test]
fn a_conversation_is_one_context_whatever_its_client_sends_back() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let (model, episode) = (running.model(), open(&client));
    let mut messages = vec![user("hello")];
    for turn in 0..4 {
        let answer = say(&client, &episode, &model, &messages, &json!({ "seed": turn }));
        // As OpenAI's client keeps it: content in parts, fields of no value.
        let text = answer["content"].as_str().unwrap();
        messages.push(json!({
            "role": "assistant",
            "content": [{ "type": "text", "text": text }],
            "refusal": null,
            "tool_calls": null,
        }));
        messages.push(user(&format!("and then, {turn}?")));
    }
    let trajectory = finish(&client, &episode, 0.5);
    check(&trajectory);
    assert_eq!((trajectory.segments.len(), trajectory.turns.len()), (1, 4));
    assert_eq!((trajectory.role.as_str(), trajectory.reward()), ("agent", 0.5));
    assert_eq!(trajectory.turns[0].answer[0].text(), "and then, 0?");

    // It is on the disk, and its address is gone.
    let log = std::fs::read_to_string(running.data().join("episodes/local.jsonl")).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let kept: Trajectory = serde_json::from_value(line["trajectory"].clone()).unwrap();
    assert_eq!(kept, trajectory);
    assert_eq!(client.get(&episode).0, 404);
    assert_eq!(client.post(&format!("{episode}/reward"), &json!({ "reward": 1.0 })).0, 404);
}

#[test]
fn a_fork_and_a_summary_begin_contexts_of_their_own() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let (model, episode) = (running.model(), open(&client));
    let none = json!({});
    let first = say(&client, &episode, &model, &[user("hello")], &none);
    let base = vec![user("hello"), first];
    let left = [base.clone(), vec![user("left")]].concat();
    let right = [base.clone(), vec![user("right")]].concat();
    say(&client, &episode, &model, &left, &none);
    say(&client, &episode, &model, &right, &none);
    // In place of the conversation.
    say(&client, &episode, &model, &[user("so far: hello")], &none);
    // Words that nobody sampled here.
    let made_up =
        [base, vec![user("x"), json!({ "role": "assistant", "content": "y" }), user("z")]];
    say(&client, &episode, &model, &made_up.concat(), &none);

    let trajectory = finish(&client, &episode, 1.0);
    check(&trajectory);
    let segments: Vec<usize> = trajectory.turns.iter().map(|turn| turn.place.segment).collect();
    assert_eq!(segments, [0, 0, 1, 2, 3]);
    // What the fork has in common was sampled once, and is trained on once.
    let (one, other) = (&trajectory.segments[0], &trajectory.segments[1]);
    let common = trajectory.turns[0].place.range.end;
    assert_eq!(one.tokens[..common], other.tokens[..common]);
    assert_eq!((one.written.len(), other.written.len()), (2, 1));
}

#[test]
fn a_stream_is_taken_down_as_the_same_words_whole() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = running.model();
    let (whole, streamed) = (open(&client), open(&client));
    say(&client, &whole, &model, &[user("hello")], &json!({}));
    let body = json!({ "model": model, "messages": [user("hello")], "max_tokens": 8, "seed": 5, "stream": true });
    let path = format!("{streamed}/v1/chat/completions");
    let (status, _) = client.post_bytes(&path, "application/json", body.to_string().as_bytes());
    assert_eq!(status, 200);
    let (whole, streamed) = (finish(&client, &whole, 0.0), finish(&client, &streamed, 0.0));
    assert_eq!(whole.segments, streamed.segments);
    assert_eq!(whole.turns[0].logprobs, streamed.turns[0].logprobs);
}

/// More of them by `POSTTRAIN_EPISODES`.
const EPISODES: &str = "POSTTRAIN_EPISODES";

/// Four turns with a tool's answers between them.
fn with_tools(client: &Client, model: &str, number: usize) -> Trajectory {
    let episode = open(client);
    let tools = json!([{ "type": "function", "function": {
        "name": "add", "description": "Adds.", "parameters": { "type": "object", "properties": {} },
    } }]);
    let mut messages = vec![user(&format!("what is {number} + 1?"))];
    for turn in 0..4 {
        let more = json!({ "seed": number * 4 + turn, "tools": tools, "max_tokens": 6 });
        messages.push(say(client, &episode, model, &messages, &more));
        messages.push(json!({
            "role": "tool", "content": format!("{}", number + turn), "tool_call_id": format!("c{turn}"),
        }));
    }
    finish(client, &episode, 1.0)
}

#[test]
fn the_trainer_holds_what_was_sampled_as_likely_as_the_sampler_did() {
    let running = Running::start(&[]);
    let model = running.model();
    let count = std::env::var(EPISODES).ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let (url, name) = (&running.url, &model);
    let played: Vec<Trajectory> = std::thread::scope(|scope| {
        let play = |worker: usize| {
            let client = Client::new(url);
            (worker..count).step_by(8).map(|n| with_tools(&client, name, n)).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || play(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(played.len(), count);
    let log = std::fs::read_to_string(running.data().join("episodes/local.jsonl")).unwrap();
    assert_eq!(log.lines().count(), count);

    let checkpoint = posttrain_model::Checkpoint::open(model.as_ref()).unwrap();
    let kind = (tch::Kind::Float, tch::Device::Cpu);
    let decoder = checkpoint.decoder(kind.0, kind.1).unwrap();
    let lora = posttrain_lora::LoraConfig { rank: 2, ..Default::default() };
    let trainer = posttrain_train::Trainer::new(
        std::sync::Arc::new(decoder),
        &lora,
        posttrain_train::TrainerConfig::default(),
        1,
    );
    let trainer = trainer.unwrap();
    let mut largest: f32 = 0.0;
    let mut tokens = 0;
    for trajectory in &played {
        check(trajectory);
        assert_eq!((trajectory.segments.len(), trajectory.turns.len()), (1, 4));
        let segment = &trajectory.segments[0];
        let mask: Vec<f32> = segment.mask().into_iter().map(|m| f32::from(u8::from(m))).collect();
        let datum = posttrain_train::Datum::text(&segment.tokens, &mask);
        let scores = trainer.forward(&[datum]).unwrap();
        let sampled = trajectory.turns.iter().flat_map(|turn| &turn.logprobs);
        for (one, other) in scores.logprobs[0].iter().zip(sampled) {
            largest = largest.max((one - other).abs());
            tokens += 1;
        }
    }
    println!("{count} episodes, {tokens} tokens, at most {largest} nats apart");
    assert!(largest < 1e-4, "{largest}");
    assert_eq!(tokens, played.iter().map(Trajectory::sampled_tokens).sum::<usize>());
}

#[test]
fn what_is_no_episode_or_no_turn_is_refused_in_words() {
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let (model, episode) = (running.model(), open(&client));
    let refused = |path: &str, body: Value, status: u16, words: &str| {
        let (got, answer) = client.post(path, &body);
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(got == status && said.contains(words), "{path}: {got} {answer}");
    };
    let chat = |more: Value| {
        let mut body = json!({ "model": model, "messages": [user("hello")] });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let path = format!("{episode}/v1/chat/completions");
    refused(&path, chat(json!({ "n": 2 })), 400, "`n`: expected 1");
    refused(&path, chat(json!({ "audio": {} })), 400, "`audio`");
    refused("/episodes/none/v1/chat/completions", chat(json!({})), 404, "no open episode none");
    refused(&format!("{episode}/reward"), json!({ "reward": "much" }), 400, "reward");
    refused(&format!("{episode}/reward"), json!({ "reward": 1.0, "for": 1 }), 400, "for");
    refused("/episodes", json!({ "name": "x" }), 400, "name");
    // A refused call is no turn.
    assert!(finish(&client, &episode, 0.0).turns.is_empty());
}
