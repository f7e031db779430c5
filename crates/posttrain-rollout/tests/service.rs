//! The sampling service's promises: whatever is submitted, cancelled, swapped and shut down, and
//! from however many threads, each sample is answered once, and as the engine without threads would
//! have answered it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::service::{
    SampleEvent, SampleRequest, SampleStream, SamplingService, SamplingServiceConfig, Transition,
};
use posttrain_rollout::{
    Completion, EngineConfig, PolicySnapshot, Request, RequestError, ServiceError, Workers,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn model() -> Arc<Decoder> {
    Arc::new(Decoder::random(&ModelConfig::tiny(), 3, Kind::Float, Device::Cpu).unwrap())
}

fn config(workers: usize, max_rows: usize, max_pending: usize) -> SamplingServiceConfig {
    let workers = Workers::Count(workers);
    // Fewer than some prompts have.
    let engine = EngineConfig { workers, max_rows, prefill_tokens: 5, ..EngineConfig::default() };
    SamplingServiceConfig { engine, max_pending }
}

fn start(model: &Arc<Decoder>, config: SamplingServiceConfig) -> SamplingService {
    SamplingService::start(model.clone(), None, config).unwrap()
}

/// What the engine without threads gives for a request's samples.
fn alone(model: &Arc<Decoder>, request: &Request) -> Vec<Completion> {
    let samples = run(model, EngineConfig::default(), vec![request.clone()]).remove(0);
    samples.into_iter().map(Result::unwrap).collect()
}

fn request(number: u64) -> Request {
    let prompt = (0..1 + number as i64 % 7).map(|t| (t * 5 + number as i64) % 63 + 1).collect();
    let samples = 1 + number as usize % 11;
    Request::new(prompt, sampled(1 + number as usize % 9, number))
        .samples(samples)
        .client(number % 3)
}

/// Something that happens to a service.
#[derive(Debug, Clone)]
enum Action {
    /// A request by the policy that is published, by a snapshot of its own, or by the base.
    Submit { number: u64, by: u8, tokens: bool },
    /// Gives up one of the requests so far.
    Cancel { which: usize },
    /// Stops listening to one.
    Drop { which: usize },
    /// The next version takes the published one's place.
    Publish { follow: bool },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (0u64..500, 0u8..3, any::<bool>()).prop_map(|(number, by, tokens)| Action::Submit { number, by, tokens }),
        2 => (0usize..40).prop_map(|which| Action::Cancel { which }),
        1 => (0usize..40).prop_map(|which| Action::Drop { which }),
        1 => any::<bool>().prop_map(|follow| Action::Publish { follow }),
    ];
    prop::collection::vec(action, 1..25)
}

/// A request on its way, and under what conditions its tokens are known.
struct Sent {
    request: Request,
    stream: SampleStream,
    tokens: bool,
    may_be_cancelled: bool,
    may_follow: bool,
}

/// All that a stream tells: the tokens of each sample as they were told, and its completions.
fn collect(sent: Sent) -> (Sent2, Vec<Vec<i64>>, Vec<Result<Completion, RequestError>>) {
    let Sent { request, mut stream, tokens, may_be_cancelled, may_follow } = sent;
    let mut told = vec![Vec::new(); request.samples];
    let mut results: Vec<Option<_>> = vec![None; request.samples];
    while let Some(event) = futures::executor::block_on(stream.next()) {
        match event {
            SampleEvent::Token(token) => told[token.sample].push(token.token),
            SampleEvent::Finished(outcome) => {
                assert!(
                    results[outcome.sample].replace(outcome.result).is_none(),
                    "answered twice"
                );
            }
        }
    }
    let results = results.into_iter().map(|result| result.expect("a sample is lost")).collect();
    (Sent2 { request, tokens, may_be_cancelled, may_follow }, told, results)
}

struct Sent2 {
    request: Request,
    tokens: bool,
    may_be_cancelled: bool,
    may_follow: bool,
}

/// Holds what came of a request against the engine without threads.
fn check(model: &Arc<Decoder>, sent: Sent) {
    let (sent, told, results) = collect(sent);
    let expected = alone(model, &sent.request);
    for (sample, result) in results.iter().enumerate() {
        match result {
            Err(error) => {
                assert!(sent.may_be_cancelled && *error == RequestError::Cancelled, "{error}")
            }
            Ok(completion) => {
                assert_eq!(completion.token_versions.len(), completion.tokens.len());
                if sent.tokens {
                    assert_eq!(told[sample], completion.tokens);
                }
                // Who follows is the old policy's up to some token, and a later one's from there
                // on.
                let own = sent.request.policy.as_ref().map_or(0, |policy| policy.version);
                let same =
                    completion.token_versions.iter().take_while(|version| **version == own).count();
                assert!(sent.may_follow || same == completion.tokens.len());
                assert!(completion.token_versions.is_sorted() || !sent.may_follow);
                if same == completion.tokens.len() {
                    assert_same(completion, &expected[sample], "the engine's own");
                } else {
                    assert_eq!(completion.tokens[..same], expected[sample].tokens[..same]);
                }
            }
        }
    }
}

fn play(
    model: &Arc<Decoder>,
    versions: &[PolicySnapshot],
    actions: &[Action],
    config: SamplingServiceConfig,
    drain: bool,
) {
    let service = start(model, config);
    let client = service.client();
    client.publish("arm", versions[0].clone(), Transition::Finish);
    let mut published = 0;
    let mut sent: Vec<Sent> = Vec::new();

    for action in actions {
        match action {
            Action::Submit { number, by, tokens } => {
                let mut plain = request(*number);
                let mut asked = SampleRequest::new(plain.clone());
                match by {
                    0 => {
                        plain = plain.policy(versions[published].clone());
                        asked = asked.policy_name("arm");
                    }
                    1 => {
                        plain = plain.policy(versions[versions.len() - 1].clone());
                        asked = SampleRequest::new(plain.clone());
                    }
                    _ => {}
                }
                if *tokens {
                    asked = asked.with_tokens();
                }
                let stream = client.submit_blocking(asked).unwrap();
                let sent_now = Sent {
                    request: plain,
                    stream,
                    tokens: *tokens,
                    may_be_cancelled: !drain,
                    may_follow: false,
                };
                sent.push(sent_now);
            }
            Action::Cancel { which } if !sent.is_empty() => {
                let which = which % sent.len();
                sent[which].stream.cancel();
                sent[which].may_be_cancelled = true;
            }
            Action::Drop { which } if !sent.is_empty() => {
                drop(sent.remove(which % sent.len()));
            }
            Action::Publish { follow } if published + 2 < versions.len() => {
                published += 1;
                let transition = if *follow { Transition::Follow } else { Transition::Finish };
                client.publish("arm", versions[published].clone(), transition);
                if *follow {
                    let old = &versions[published - 1];
                    let theirs = |sent: &&mut Sent| {
                        sent.may_follow || sent.request.policy.as_ref().is_some_and(|p| p.is(old))
                    };
                    sent.iter_mut().filter(theirs).for_each(|sent| sent.may_follow = true);
                }
            }
            _ => {}
        }
    }

    if drain {
        service.shut_down();
    } else {
        drop(service);
    }
    assert_eq!(client.pending(), 0);
    assert!(matches!(client.try_submit(SampleRequest::new(request(0))), Err(ServiceError::Closed)));
    sent.into_iter().for_each(|sent| check(model, sent));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_happens_each_sample_is_answered_once_and_as_the_engine_would(
        actions in actions(),
        workers in 1usize..4,
        max_rows in 3usize..20,
        max_pending in 5usize..60,
        drain in any::<bool>(),
    ) {
        let model = model();
        let versions: Vec<_> = (1..7).map(|seed| adapter(&model, seed)).collect();
        play(&model, &versions, &actions, config(workers, max_rows, max_pending), drain);
    }
}

#[test]
fn sixty_four_clients_on_threads_get_each_their_own() {
    let model = model();
    let service = start(&model, config(2, 16, 100));
    let client = service.client();
    std::thread::scope(|scope| {
        for number in 0..64 {
            let (client, model) = (client.clone(), model.clone());
            scope.spawn(move || {
                for round in 0..3 {
                    let request = request(number * 3 + round);
                    let outcomes =
                        client.submit_blocking(SampleRequest::new(request.clone())).unwrap().wait();
                    for (outcome, expected) in outcomes.iter().zip(alone(&model, &request)) {
                        assert_same(outcome.result.as_ref().unwrap(), &expected, "a client's own");
                    }
                }
            });
        }
    });
    assert_eq!(client.pending(), 0);
    service.shut_down();
}

#[test]
fn a_full_service_says_so_and_lets_those_who_wait_in_by_turns() {
    let model = model();
    let service = start(&model, config(1, 2, 4));
    let client = service.client();
    let long = |seed| SampleRequest::new(Request::new(vec![1, 2], sampled(60, seed)).samples(4));
    let first = client.submit_blocking(long(0)).unwrap();
    let refused = client.try_submit(long(1));
    assert!(
        matches!(refused, Err(ServiceError::Full { pending: 4 })),
        "it took more than it may have"
    );

    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.submit_blocking(long(2)).unwrap().wait().len()
    });
    assert_eq!(first.wait().len(), 4);
    assert_eq!(waiting.join().unwrap(), 4);
    // Larger than what may ever be pending: it has the service to itself.
    let large = SampleRequest::new(Request::new(vec![1, 2], sampled(2, 0)).samples(9));
    assert_eq!(client.submit_blocking(large).unwrap().wait().len(), 9);
}

#[test]
fn a_deadline_that_passes_gives_up_what_is_not_finished() {
    let model = model();
    let service = start(&model, config(1, 8, 100));
    let client = service.client();
    let endless = Request::new(vec![1, 2], sampled(100, 0)).samples(3);
    let late =
        client.submit_blocking(SampleRequest::new(endless).deadline(Duration::ZERO)).unwrap();
    let outcomes = late.wait();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|outcome| outcome.result == Err(RequestError::DeadlinePassed)));

    let patient =
        client.submit_blocking(SampleRequest::new(request(3)).deadline(Duration::MAX)).unwrap();
    assert!(patient.wait().iter().all(|outcome| outcome.result.is_ok()));
}

#[test]
fn a_name_stands_for_the_policy_that_has_it_when_there_is_room() {
    let model = model();
    let service = start(&model, config(1, 2, 4));
    let client = service.client();
    client.publish("math", adapter(&model, 1), Transition::Finish);
    let crowd = SampleRequest::new(Request::new(vec![1, 2], sampled(60, 0)).samples(400));
    let crowd = client.submit_blocking(crowd).unwrap();

    let mut waiting = Box::pin(client.submit(SampleRequest::new(request(1)).policy_name("math")));
    assert!((&mut waiting).now_or_never().is_none(), "there is room beside 400 samples");
    client.publish("math", adapter(&model, 2), Transition::Finish);
    drop(crowd);

    let outcomes = block_on(waiting).unwrap().wait();
    let versions = outcomes.into_iter().map(|outcome| outcome.result.unwrap().policy_version);
    assert!(versions.into_iter().all(|version| version == 2));
}

#[test]
fn a_refused_request_says_why_for_every_sample_and_an_unknown_policy_is_named() {
    let model = model();
    let service = start(&model, config(2, 8, 100));
    let client = service.client();
    let outcomes = client
        .submit_blocking(SampleRequest::new(Request::new(vec![], sampled(2, 0)).samples(9)))
        .unwrap()
        .wait();
    assert_eq!(outcomes.len(), 9);
    assert!(outcomes.iter().all(|outcome| outcome.result == Err(RequestError::PromptEmpty)));

    client.publish("math", adapter(&model, 1), Transition::Finish);
    let error =
        client.submit_blocking(SampleRequest::new(request(1)).policy_name("maths")).err().unwrap();
    assert_eq!(error.to_string(), "no policy is published as `maths`; there are: math");
    assert!(client.retire("math").is_some() && client.retire("math").is_none());
}
