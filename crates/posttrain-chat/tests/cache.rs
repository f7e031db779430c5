//! The cache: many writers, bounds, damage, what is kept and what is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use posttrain_chat::cache::{CacheConfig, CachePolicy, CachedChat};
use posttrain_chat::openai::OpenAiConfig;
use posttrain_chat::{
    ChatError, ChatModel, ChatRequest, ChatResponse, FinishReason, Message, from_fn,
};

/// A model that says its request back, twice as long for a request that says so, and counts how
/// often it is asked.
fn model(calls: &Arc<AtomicUsize>) -> Arc<dyn ChatModel> {
    let calls = Arc::clone(calls);
    Arc::new(from_fn("echo", move |request: ChatRequest| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move {
            match request.messages[0].text().as_ref() {
                "fail" => Err(ChatError::Failed {
                    model: "echo".into(),
                    cause: "asked_to",
                    message: "it was".into(),
                }),
                "long" => Ok(ChatResponse {
                    finish_reason: FinishReason::Length,
                    ..ChatResponse::from_text("lo")
                }),
                "refuse" => {
                    Ok(ChatResponse { refusal: Some("no".into()), ..ChatResponse::from_text("") })
                }
                "blank" => Ok(ChatResponse::from_text(" \n")),
                text => Ok(ChatResponse::from_text(format!("{text} é"))),
            }
        }
    }))
}

fn open(folder: &Path, calls: &Arc<AtomicUsize>) -> CachedChat {
    CachedChat::new(model(calls), CacheConfig { folder: folder.into(), ..CacheConfig::default() })
        .unwrap()
}

fn ask(text: impl Into<String>) -> ChatRequest {
    ChatRequest::new([Message::user(text)])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn the_same_request_is_paid_for_once_even_by_another_process_later() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    for _ in 0..2 {
        let cached = open(folder.path(), &calls);
        for _ in 0..2 {
            assert_eq!(cached.complete(&ask("a")).await.unwrap().text, "a é");
        }
    }
    assert_eq!((calls.load(Ordering::SeqCst), files(folder.path()).len()), (1, 1));
}

#[tokio::test]
async fn whatever_changes_the_answer_changes_the_key() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    let cached = open(folder.path(), &calls);
    let requests = [
        ask("a"),
        ask("b"),
        ChatRequest { max_tokens: 7, ..ask("a") },
        ChatRequest { seed: Some(1), ..ask("a") },
        ChatRequest { stop: vec!["x".into()], ..ask("a") },
        ChatRequest { top_p: Some(0.5), ..ask("a") },
        ChatRequest { logprobs: Some(0), ..ask("a") },
        ChatRequest::new([Message::system("a")]),
        ChatRequest::new([Message::user("a"), Message::user("")]),
    ];
    for request in &requests {
        cached.complete(request).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), requests.len());
    let identity = |url: &str, name: &str| {
        OpenAiConfig::for_server(url, name).unwrap().build().unwrap().identity()
    };
    assert_ne!(identity("http://a/v1", "m"), identity("http://b/v1", "m"));
    assert_ne!(identity("http://a/v1", "m"), identity("http://a/v1", "n"));
    assert_eq!(identity("http://a/v1", "m"), identity("http://a/v1", "m"));
}

#[tokio::test]
async fn draws_are_kept_only_when_asked() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    let draw = ChatRequest { temperature: 0.7, ..ask("a") };
    let cached = open(folder.path(), &calls);
    for _ in 0..3 {
        cached.complete(&draw).await.unwrap();
    }
    assert_eq!(
        (calls.load(Ordering::SeqCst), cached.counts().bypassed, files(folder.path()).len()),
        (3, 3, 0)
    );
    let config = CacheConfig {
        folder: folder.path().into(),
        policy: CachePolicy::Always,
        ..CacheConfig::default()
    };
    let cached = CachedChat::new(model(&calls), config).unwrap();
    for _ in 0..3 {
        cached.complete(&draw).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn only_complete_answers_are_kept() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    let cached = open(folder.path(), &calls);
    for text in ["fail", "long", "refuse", "blank"] {
        for _ in 0..2 {
            let outcome = cached.complete(&ask(text)).await;
            assert_eq!(outcome.is_err(), text == "fail");
        }
    }
    assert_eq!((calls.load(Ordering::SeqCst), files(folder.path()).len()), (8, 0));
}

#[tokio::test]
async fn a_damaged_entry_is_none_and_is_written_anew() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    let cached = open(folder.path(), &calls);
    cached.complete(&ask("a")).await.unwrap();
    let file = files(folder.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let other_answer = text.replace("a é", "b é").into_bytes();
    let other_version = text.replace("\"version\":1", "\"version\":0").into_bytes();
    assert!(other_answer != whole && other_version != whole);
    let damaged = [
        Vec::new(),
        whole[..whole.len() / 2].to_vec(),
        vec![0xff; 100],
        b"{}".to_vec(),
        other_answer,
        other_version,
    ];
    for (index, damage) in damaged.into_iter().enumerate() {
        std::fs::write(&file, damage).unwrap();
        assert_eq!(cached.complete(&ask("a")).await.unwrap().text, "a é");
        assert_eq!(calls.load(Ordering::SeqCst), index + 2);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
}

#[tokio::test]
async fn the_oldest_go_when_it_is_full() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    let config =
        CacheConfig { folder: folder.path().into(), max_bytes: 20_000, ..CacheConfig::default() };
    let cached = CachedChat::new(model(&calls), config).unwrap();
    let hour = Duration::from_secs(3600);
    for index in 0..300 {
        cached.complete(&ask(format!("question {index}"))).await.unwrap();
        if index < 20 {
            let old = SystemTime::now() - 10 * hour;
            for file in files(folder.path()) {
                std::fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
            }
        }
        assert!(bytes(folder.path()) <= 20_000);
    }
    assert!(bytes(folder.path()) > 10_000, "it is used");
    cached.complete(&ask("question 299")).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 300, "the newest is there");
    cached.complete(&ask("question 0")).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 301, "the oldest is not");
}

#[tokio::test]
async fn what_killed_writers_left_goes_after_an_hour() {
    let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::default());
    std::fs::create_dir(folder.path().join("ab")).unwrap();
    let (old, new) = (folder.path().join("ab/unfinished1"), folder.path().join("ab/unfinished2"));
    for file in [&old, &new] {
        std::fs::write(file, "{").unwrap();
    }
    let past = SystemTime::now() - Duration::from_secs(2 * 3600);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(past).unwrap();
    open(folder.path(), &calls);
    assert!(!old.exists() && new.exists());
}

/// Asks the same forty questions as everyone else, all at the same time.
async fn ask_all(folder: &Path) {
    let cached = Arc::new(open(folder, &Arc::default()));
    let asked = (0..400).map(|index| {
        let cached = Arc::clone(&cached);
        tokio::spawn(async move {
            let question = format!("question {}", index % 40);
            assert_eq!(
                cached.complete(&ask(question.clone())).await.unwrap().text,
                format!("{question} é")
            );
        })
    });
    for task in futures::future::join_all(asked).await {
        task.unwrap();
    }
    assert_eq!(cached.counts().failed_writes, 0);
}

/// Set in the processes that [`many_writers_in_several_processes_do_no_harm`] starts.
const FOLDER: &str = "POSTTRAIN_CACHE_TEST_FOLDER";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_in_several_processes_do_no_harm() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return ask_all(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child
                .args(["many_writers_in_several_processes_do_no_harm", "--exact"])
                .env(FOLDER, folder.path());
            child
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    ask_all(folder.path()).await;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    assert_eq!(files(folder.path()).len(), 40, "no file is left over");
    let calls = Arc::default();
    let cached = open(folder.path(), &calls);
    for index in 0..40 {
        cached.complete(&ask(format!("question {index}"))).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "every entry is whole");
}
