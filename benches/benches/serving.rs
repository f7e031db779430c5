//! Questions that come one after another, four at a time, behind one system message of some 200
//! tokens, with 8 tokens to be sampled for each: with what was read kept, and without.

use benches::{BenchModel, questions};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use posttrain::model::Message;
use posttrain::rollout::{Engine, EngineConfig, Request, SamplingParams, Workers};

const REQUESTS: usize = 32;

/// Questions under way at a time.
const CLIENTS: usize = 4;

const RULES: &str = "You answer questions of arithmetic for a shop. Work in whole numbers. Write the result \
    alone, without words, without units and without a full stop. If a question asks for a sum, add; \
    if it asks for a difference, subtract the second number from the first; if it asks for a \
    product, multiply. Never explain how you came to the result, never greet, never apologize, \
    never ask a question in return. If a question has several numbers, use all of them. If the \
    result is negative, write a minus sign before it. If a question is not about numbers, answer \
    with the single word no. Customers read what you write on a small display, so that every word \
    too many is cut off and the result is lost.";

fn serving(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let requests = requests(&model);
    let tokens: usize = requests.iter().map(|request| request.prompt.len()).sum();
    eprintln!("{} prompt tokens a request", tokens / REQUESTS);

    let mut group = criterion.benchmark_group("serving");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(REQUESTS as u64));
    for (name, keep_tokens) in [("serving", 4096), ("serving, nothing kept", 0)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| serve(&model, &requests, keep_tokens));
        });
    }
}

fn requests(model: &BenchModel) -> Vec<Request> {
    let params = SamplingParams { max_tokens: 8, min_tokens: 8, ..SamplingParams::default() };
    let questions = questions().expect("questions");
    let mut requests = Vec::with_capacity(REQUESTS);
    for question in questions.iter().take(REQUESTS) {
        let messages = [Message::system(RULES), Message::user(&question.question)];
        let prompt = model.prompt_of(&messages).expect("a prompt");
        requests.push(Request::new(prompt, params.clone()));
    }
    requests
}

/// A fresh engine that has [`CLIENTS`] questions under way until none is left.
fn serve(model: &BenchModel, requests: &[Request], keep_tokens: usize) {
    let config =
        EngineConfig { keep_tokens, workers: Workers::Count(1), ..EngineConfig::default() };
    let mut engine = Engine::new(model.decoder.clone(), None, config).expect("an engine");

    let mut waiting = requests.iter().cloned();
    let mut answered = 0;
    waiting.by_ref().take(CLIENTS).for_each(|request| {
        engine.submit(request);
    });
    while !engine.is_idle() {
        for _ in engine.step().expect("a step") {
            answered += 1;
            if let Some(request) = waiting.next() {
                engine.submit(request);
            }
        }
    }
    assert_eq!(answered, requests.len());
}

criterion_group!(benches, serving);
criterion_main!(benches);
