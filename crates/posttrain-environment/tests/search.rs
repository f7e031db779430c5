//! Search in a corpus: what a turn does, what is refused, and what an episode is worth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::executor::block_on;
use posttrain_chat::{FinishReason, ToolFormat};
use posttrain_environment::search::{Corpus, Passage, SearchConfig, SearchTask};
use posttrain_environment::{Action, BudgetLeft, Environment, EpisodeEnd, Observation, Step};
use std::sync::Arc;

/// Three passages on Ada and two on Emil.
const TEXTS: [&str; 5] = [
    "Ada was born in London.",
    "Ada wrote about engines.",
    "Emil was born in Paris.",
    "Ada lived in London.",
    "Emil painted boats.",
];

const LEFT: BudgetLeft = BudgetLeft {
    turns: 8,
    context_tokens: 1000,
    sampled_tokens: None,
    tool_calls: None,
    time: None,
};

/// A task that passages 1 and 4 answer.
fn task(config: SearchConfig) -> SearchTask {
    let passages = TEXTS.iter().zip(1..).map(|(text, id)| Passage { id, text: (*text).into() });
    let corpus = Corpus::new(passages.collect()).unwrap();
    let mut task = SearchTask::new(Arc::new(corpus), config, "Where was Ada?", [1, 4]);
    block_on(task.start()).unwrap();
    task
}

fn call(name: &str, arguments: &str) -> String {
    format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {arguments}}}</tool_call>")
}

fn act(task: &mut SearchTask, text: &str, left: BudgetLeft) -> Step {
    let reply = ToolFormat::Hermes.parse(text);
    let finish_reason = FinishReason::Stop;
    block_on(task.act(Action { text, reply: &reply, finish_reason, tokens: 9, left })).unwrap()
}

/// What the policy reads of a turn, without its budget.
fn read(task: &mut SearchTask, text: &str, left: BudgetLeft) -> String {
    let (Step::Next { observation, reward: 0.0 } | Step::Rewritten { observation, reward: 0.0 }) =
        act(task, text, left)
    else {
        panic!("the episode goes on")
    };
    let Observation::Messages(messages) = observation else { panic!("messages") };
    messages.iter().map(|message| message.text().into_owned()).collect::<Vec<_>>().join("\n")
}

fn results(results: usize) -> SearchConfig {
    SearchConfig { results, schemas: false, ..SearchConfig::default() }
}

#[test]
fn a_search_shows_what_is_not_in_the_context_yet() {
    let mut task = task(results(2));
    let query = call("search", r#"{"query": "Ada London"}"#);
    let first = read(&mut task, &query, LEFT);
    assert_eq!(
        first,
        "[4] Ada lived in London.\n[1] Ada was born in London.\n(about 982 tokens left)"
    );
    assert_eq!(
        read(&mut task, &query, LEFT),
        "[2] Ada wrote about engines.\n(about 990 tokens left)"
    );
    assert_eq!(read(&mut task, &query, LEFT), "Nothing new.\n(about 996 tokens left)");
    let grep = call("grep", r#"{"text": "BOATS"}"#);
    assert_eq!(read(&mut task, &grep, LEFT), "[5] Emil painted boats.\n(about 992 tokens left)");
}

#[test]
fn pruning_begins_the_context_anew_and_is_told_apart_by_what_was_pruned() {
    let mut task = task(results(3));
    read(&mut task, &call("search", r#"{"query": "Ada"}"#), LEFT);
    let prune = |ids: &str| call("prune", &format!("{{\"ids\": {ids}}}"));
    assert!(read(&mut task, &prune("[5]"), LEFT).starts_with("Error: none of these passages"));

    let context = read(&mut task, &prune("[2, 1]"), LEFT);
    assert_eq!(
        context,
        "Tools: search(query), grep(text), prune(ids), answer(ids).\n\
         Where was Ada?\nSearched: Ada\nKept:\n[4] Ada lived in London."
    );
    let metrics = task.metrics();
    assert_eq!((metrics["pruned"], metrics["prune_accuracy"]), (2.0, 0.5));
}

#[test]
fn an_answer_counts_what_was_read() {
    // Never read: worth nothing, and a turn.
    let mut task = task(results(3));
    let answer = call("answer", r#"{"ids": [1, 4]}"#);
    assert_eq!(act(&mut task, &answer, LEFT), Step::done(-0.01));

    let mut task = self::task(results(3));
    read(&mut task, &call("search", r#"{"query": "Ada"}"#), LEFT);
    // F2 of all, all found, two turns.
    assert_eq!(act(&mut task, &answer, LEFT), Step::done(1.0 + 0.5 - 0.02));
    let metrics = task.metrics();
    assert_eq!((metrics["recall"], metrics["precision"], metrics["searches"]), (1.0, 1.0, 1.0));

    // Whoever is cut has turns to pay for.
    let mut task = self::task(results(3));
    read(&mut task, &call("search", r#"{"query": "Ada"}"#), LEFT);
    assert_eq!(block_on(task.cut(&EpisodeEnd::Done)).unwrap(), -0.01);
}

#[test]
fn a_full_context_only_prunes_and_answers() {
    let full = BudgetLeft { context_tokens: 95, ..LEFT };
    let search = call("search", r#"{"query": "Ada"}"#);
    let mut task = task(results(2));
    let refused = read(&mut task, &search, full);
    assert_eq!(
        refused,
        "Error: the context is full: prune or answer.\n(about 80 tokens left; prune soon)"
    );
    assert_eq!(task.metrics()["searches"], 0.0);

    let mut without = self::task(SearchConfig { prune: false, ..results(2) });
    let refused = read(&mut without, &search, full);
    assert_eq!(refused, "Error: the context is full: answer.\n(about 83 tokens left; answer soon)");
    let prune = call("prune", r#"{"ids": [1]}"#);
    assert!(read(&mut without, &prune, LEFT).starts_with("Error: there is no such tool."));
}

#[test]
fn a_turn_is_one_call_that_can_be_read_within_the_budget() {
    let search = call("search", r#"{"query": "Ada"}"#);
    let mut task = task(results(2));
    let told = |task: &mut SearchTask, text: &str, left| {
        read(task, text, left).lines().next().unwrap().to_owned()
    };
    let two = format!("{search}\n{search}");
    assert_eq!(told(&mut task, &two, LEFT), "Error: nothing was done: one call a turn.");
    let half = format!("{search}\n<tool_call>{{\"name\": 3}}</tool_call>");
    assert_eq!(told(&mut task, &half, LEFT), "Error: nothing was done: one call a turn.");
    assert_eq!(told(&mut task, "I wonder.", LEFT), "Error: call one of the tools.");
    let malformed = told(&mut task, "<tool_call>{\"name\": 3}</tool_call>", LEFT);
    assert!(malformed.starts_with("Error: the call cannot be read: "), "{malformed}");
    let wrong = call("search", r#"{"query": 3}"#);
    assert_eq!(told(&mut task, &wrong, LEFT), "Error: `query` must be a text.");
    assert_eq!(task.metrics()["searches"], 0.0);

    let spent = BudgetLeft { tool_calls: Some(0), ..LEFT };
    assert_eq!(told(&mut task, &search, spent), "Error: no calls are left: answer.");
    let answer = call("answer", r#"{"ids": []}"#);
    assert!(matches!(act(&mut task, &answer, spent), Step::Done { .. }));
}
