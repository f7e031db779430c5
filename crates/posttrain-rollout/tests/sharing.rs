//! Rows and passes shared out among clients: a long prompt is read in pieces between the others'
//! tokens, who wants much gives way to who wants little, and nobody can tell from what comes out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::{Engine, EngineConfig, Outcome, Request, RequestError, RequestId, Workers};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn model() -> Arc<Decoder> {
    Arc::new(Decoder::random(&ModelConfig::tiny(), 3, Kind::Float, Device::Cpu).unwrap())
}

/// An engine that is looked at step by step.
struct Watched {
    model: Arc<Decoder>,
    engine: Engine,
    requests: Vec<Request>,
    done: Vec<Outcome>,
}

impl Watched {
    fn new(max_rows: usize, prefill_tokens: usize) -> Self {
        Self::with(&EngineConfig { max_rows, prefill_tokens, ..EngineConfig::default() })
    }

    fn with(config: &EngineConfig) -> Self {
        let model = model();
        let config = EngineConfig { workers: Workers::Count(1), ..config.clone() };
        let engine = Engine::new(model.clone(), None, config).unwrap();
        Self { model, engine, requests: Vec::new(), done: Vec::new() }
    }

    fn submit(&mut self, request: Request) -> RequestId {
        self.requests.push(request.clone());
        self.engine.submit(request)
    }

    /// Makes a step; how many tokens each request got.
    fn step(&mut self) -> BTreeMap<RequestId, usize> {
        let mut tokens = BTreeMap::new();
        let step = self.engine.step_with(&mut |token| {
            *tokens.entry(token.request).or_default() += 1;
        });
        self.done.extend(step.unwrap());
        tokens
    }

    /// Runs to the end; every sample is as if it had been alone.
    fn finish(self) {
        let (model, requests, done) = self.outcomes();
        let alone = run(&model, EngineConfig::default(), requests);
        for Outcome { request, sample, result } in &done {
            let what = format!("request {request}, sample {sample}");
            let alone = alone[*request][*sample].as_ref().unwrap();
            assert_same(result.as_ref().expect(&what), alone, &what);
        }
    }

    /// Runs to the end; one outcome of every sample.
    fn outcomes(mut self) -> (Arc<Decoder>, Vec<Request>, Vec<Outcome>) {
        while !self.engine.is_idle() {
            self.step();
        }
        let wanted: usize = self.requests.iter().map(|request| request.samples).sum();
        self.done.sort_by_key(|outcome| (outcome.request, outcome.sample));
        let unlike =
            |two: &[Outcome]| (two[0].request, two[0].sample) != (two[1].request, two[1].sample);
        assert!(self.done.windows(2).all(unlike), "a sample has two outcomes");
        assert_eq!(self.done.len(), wanted, "every sample has one outcome");
        (self.model, self.requests, self.done)
    }
}

fn prompt(tokens: i64, seed: i64) -> Vec<i64> {
    (0..tokens).map(|t| (t * 5 + seed * 7) % 63 + 1).collect()
}

#[test]
fn a_long_prompt_is_read_in_pieces_while_others_go_on() {
    let mut watched = Watched::new(4, 16);
    let short = watched.submit(Request::new(prompt(3, 1), sampled(60, 1)));
    assert_eq!(watched.step()[&short], 2, "the prompt's token, and a step's");

    let long = watched.submit(Request::new(prompt(100, 2), sampled(4, 2)).samples(2));
    let mut steps = 0;
    loop {
        let tokens = watched.step();
        steps += 1;
        assert_eq!(tokens[&short], 1, "step {steps}");
        if tokens.contains_key(&long) {
            break;
        }
    }
    assert_eq!(watched.engine.stats().prompt_tokens, 103);
    // 16 tokens, and fewer the more there are to bring to the attention, but at least half as many.
    assert!((7..=13).contains(&steps), "{steps} pieces");
    watched.finish();
}

#[test]
fn a_long_prompt_that_nobody_waits_for_is_read_in_pieces_too() {
    let mut watched = Watched::new(4, 16);
    watched.submit(Request::new(prompt(200, 2), sampled(4, 2)));
    assert!(watched.step().is_empty() && !watched.engine.is_idle());
    watched.finish();
}

#[test]
fn long_prompts_of_one_client_do_not_hold_up_another() {
    let mut watched = Watched::new(8, 16);
    for seed in 0..6 {
        watched.submit(Request::new(prompt(100, seed), sampled(2, 1)).client(1));
    }
    watched.step();
    for round in 0..5 {
        let short = Request::new(prompt(4, round), sampled(1, 3)).client(2);
        let short = watched.submit(short);
        let within = (0..2).any(|_| watched.step().contains_key(&short));
        assert!(within, "round {round}: it waits for more than a piece");
    }
    watched.finish();
}

#[test]
fn rows_are_shared_out_evenly_and_given_back() {
    let mut watched = Watched::new(8, 64);
    let heavy = watched.submit(Request::new(prompt(3, 1), sampled(30, 1)).samples(20).client(1));
    watched.step();
    assert_eq!(watched.step(), BTreeMap::from([(heavy, 8)]), "it has what nobody else wants");

    // Its first tokens are drawn from the prompt, a step's behind them.
    let light = watched.submit(Request::new(prompt(5, 2), sampled(6, 2)).client(2));
    let mut waited = 0;
    while !watched.step().contains_key(&light) {
        waited += 1;
    }
    assert_eq!(waited, 0, "a row is free for it in the next step");
    assert_eq!(watched.step(), BTreeMap::from([(heavy, 7), (light, 1)]));

    let equal = watched.submit(Request::new(prompt(4, 3), sampled(6, 3)).samples(20).client(3));
    watched.step();
    let tokens = watched.step();
    assert_eq!(tokens[&light], 1);
    assert!(tokens[&heavy].abs_diff(tokens[&equal]) <= 1, "{tokens:?}");

    let heavy_alone = |tokens: &BTreeMap<_, _>| tokens.len() == 1 && tokens.contains_key(&heavy);
    while !heavy_alone(&watched.step()) {}
    assert_eq!(watched.step(), BTreeMap::from([(heavy, 8)]), "what was given is given back");
    watched.finish();
}

#[test]
fn a_lower_priority_takes_no_row() {
    let mut watched = Watched::new(4, 64);
    let first = Request::new(prompt(3, 1), sampled(9, 1)).samples(4).client(1).priority(1);
    let first = watched.submit(first);
    watched.step();
    let second = watched.submit(Request::new(prompt(3, 2), sampled(5, 2)).client(2));
    for _ in 0..7 {
        assert_eq!(watched.step(), BTreeMap::from([(first, 4)]));
    }
    assert!(watched.step().contains_key(&second));
    watched.finish();
}

/// A row that has given its place up is still one: it is cancelled, and follows its policy's next
/// version with what it has.
#[test]
fn a_paused_sample_is_cancelled_and_follows_as_if_it_ran() {
    for follows in [false, true] {
        let mut watched = Watched::new(4, 64);
        let (old, new) = (adapter(&watched.model, 1), adapter(&watched.model, 5));
        let asked = Request::new(prompt(3, 1), sampled(12, 1)).samples(4).policy(old.clone());
        let heavy = watched.submit(asked.client(1));
        for _ in 0..3 {
            watched.step();
        }
        watched.submit(Request::new(prompt(5, 2), sampled(6, 2)).samples(2).client(2));
        watched.step();
        let load = watched.engine.load();
        assert_eq!((load.waiting, load.running), (2, 4), "two are paused");

        if follows {
            assert_eq!(watched.engine.replace_policy(Some(&old), &new), 4);
        } else {
            let reason = RequestError::Cancelled;
            assert_eq!(watched.engine.cancel(heavy, &reason).unwrap(), 4);
        }
        let (model, requests, done) = watched.outcomes();
        let alone = run(&model, EngineConfig::default(), requests);
        for outcome in &done {
            let alone = alone[outcome.request][outcome.sample].as_ref().unwrap();
            if outcome.request != heavy {
                assert_same(outcome.result.as_ref().unwrap(), alone, "the light one's");
                continue;
            }
            match &outcome.result {
                Ok(completion) => {
                    assert!(follows);
                    let versions = &completion.token_versions;
                    let old = versions.iter().take_while(|version| **version == 1).count();
                    assert!((4..=5).contains(&old), "{versions:?}");
                    assert_eq!(completion.tokens[..old], alone.tokens[..old]);
                    assert!(versions[old..].iter().all(|version| *version == 5), "{versions:?}");
                }
                Err(error) => assert!(!follows && *error == RequestError::Cancelled),
            }
        }
    }
}

/// One client's requests of two priorities: it does not give way to itself.
#[test]
fn a_client_does_not_give_way_to_itself() {
    let mut watched = Watched::new(8, 64);
    watched.submit(Request::new(prompt(3, 1), sampled(9, 1)).samples(20));
    watched.step();
    let urgent = Request::new(prompt(4, 2), sampled(5, 2)).samples(4).priority(1);
    let urgent = watched.submit(urgent);
    let before: usize = (0..7).map(|_| watched.step().get(&urgent).copied().unwrap_or(0)).sum();
    assert_eq!(before, 0, "rows are not taken from its own");
    let next = watched.step();
    assert_eq!(next[&urgent], 8, "of the rows that are free then it has the first: {next:?}");
    watched.finish();
}

#[test]
fn rows_are_not_left_empty_for_a_prompt_that_is_being_read() {
    let mut watched = Watched::new(8, 16);
    let many = watched.submit(Request::new(prompt(3, 1), sampled(3, 1)).samples(40).client(1));
    watched.step();
    watched.submit(Request::new(prompt(150, 2), sampled(3, 2)).client(2));
    for step in 0..8 {
        let tokens = watched.step()[&many];
        assert!(tokens >= 8, "step {step}: {tokens} tokens for 8 rows");
    }
    watched.finish();
}

#[test]
fn a_second_chat_does_not_wait_for_another_clients_long_prompt() {
    let mut watched = Watched::new(8, 16);
    watched.submit(Request::new(prompt(4, 1), sampled(30, 1)).client(2));
    watched.step();
    watched.submit(Request::new(prompt(200, 2), sampled(2, 2)).client(1));
    watched.step();
    let second = watched.submit(Request::new(prompt(4, 3), sampled(5, 3)).client(2));
    assert!((0..2).any(|_| watched.step().contains_key(&second)));
    watched.finish();
}

/// Equal clients that come at once have as many rows from the start.
#[test]
fn clients_that_come_together_are_served_together() {
    let mut watched = Watched::new(8, 64);
    let one = watched.submit(Request::new(prompt(3, 1), sampled(12, 1)).samples(20).client(1));
    let other = watched.submit(Request::new(prompt(5, 2), sampled(12, 2)).samples(20).client(2));
    for _ in 0..6 {
        let tokens = watched.step();
        assert_eq!(tokens[&one], tokens[&other], "{tokens:?}");
    }
    watched.finish();
}

/// What is kept and what is recorded are those of the sample, whatever happened to its row.
#[test]
fn pieces_and_pauses_beside_kept_texts_and_recordings() {
    let config = EngineConfig {
        max_rows: 4,
        prefill_tokens: 12,
        keep_tokens: 2000,
        record_mib: 64,
        ..EngineConfig::default()
    };
    let mut watched = Watched::with(&config);
    for round in 0..4 {
        let long = prompt(60 + round, 1);
        watched.submit(Request::new(long, sampled(20, round as u64)).samples(5).client(1));
        for _ in 0..9 {
            watched.step();
        }
        let short = prompt(20 + round, 2);
        watched.submit(Request::new(short, sampled(6, round as u64)).samples(2).client(2));
        for _ in 0..3 {
            watched.step();
        }
    }
    assert!(watched.engine.stats().kept_tokens > 0, "nothing was kept");
    watched.finish();
}

/// More clients than rows, each with more than one: who comes last has the next row that is free.
#[test]
fn a_newcomer_among_as_many_clients_as_rows_is_next() {
    let mut watched = Watched::new(4, 64);
    for client in 0..4 {
        let hog = Request::new(prompt(3, client), sampled(6, client as u64)).samples(10);
        watched.submit(hog.client(client as u64));
    }
    for _ in 0..3 {
        watched.step();
    }
    let newcomer = watched.submit(Request::new(prompt(5, 9), sampled(4, 9)).client(9));
    let waited = (0..).find(|_| watched.step().contains_key(&newcomer)).unwrap();
    assert!(waited <= 6, "it waited for {waited} steps, where a sample takes 6");
    watched.finish();
}

/// A prompt of a higher priority that takes several passes keeps no row empty meanwhile.
#[test]
fn rows_are_not_kept_for_a_long_prompt_of_a_higher_priority() {
    let mut watched = Watched::new(4, 16);
    let low = watched.submit(Request::new(prompt(3, 1), sampled(3, 1)).samples(40));
    watched.step();
    watched.submit(Request::new(prompt(200, 2), sampled(3, 2)).samples(4).priority(1));
    for step in 0..6 {
        let tokens = watched.step().get(&low).copied().unwrap_or(0);
        assert!(tokens >= 4, "step {step}: {tokens} tokens for 4 rows");
    }
    watched.finish();
}

/// Prompts that are read wait for rows: no more of them are read than there are rows.
#[test]
fn no_more_prompts_are_read_than_there_are_rows() {
    let mut watched = Watched::new(4, 16);
    for client in 0..20 {
        watched.submit(Request::new(prompt(100, client), sampled(3, 1)).client(client as u64));
    }
    for _ in 0..24 {
        assert!(watched.step().is_empty(), "pieces of four prompts");
    }
    assert!(watched.engine.stats().prompt_tokens <= 4 * 100);
    watched.finish();
}

/// Prompts that were read ahead of their rows wait for a higher priority, and it not for them.
#[test]
fn what_is_read_ahead_does_not_keep_a_higher_priority_from_its_rows() {
    let mut watched = Watched::new(2, 256);
    let begins_alike = |end: i64| [prompt(20, 1), vec![end]].concat();
    watched.submit(Request::new(begins_alike(1), sampled(4, 1)).samples(2));
    for end in 2..5 {
        watched.submit(Request::new(begins_alike(end), sampled(4, 1)));
    }
    watched.step();
    assert!(watched.engine.stats().prompt_tokens < 2 * 21, "they are read together");
    let urgent = watched.submit(Request::new(prompt(5, 9), sampled(4, 9)).samples(2).priority(1));
    let waited = (0..20).position(|_| watched.step().contains_key(&urgent));
    assert!(waited.is_some_and(|steps| steps <= 4), "it waited for {waited:?} steps");
    watched.finish();
}
