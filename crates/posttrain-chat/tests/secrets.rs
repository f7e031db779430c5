//! No key in anything that people read: errors, `Debug`, configurations, the log, the cache.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/server.rs"]
mod server;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use posttrain_chat::cache::{CacheConfig, CachedChat};
use posttrain_chat::client::{
    Deadlines, Endpoint, JsonClientConfig, KeyHeader, KeySource, ProxyChoice, RetryConfig,
};
use posttrain_chat::openai::{OpenAiConfig, Transfer};
use posttrain_chat::{ChatError, ChatModel, ChatRequest, Message, ResponseFormat};
use serde_json::json;
use server::{Reply, Request, Server};

const KEY: &str = "sk-live-8Zq31Xw";
const PASSWORD: &str = "hunter2hunter2";
/// `Basic` with `judge:hunter2hunter2`, by Python's `base64.b64encode`.
const BASIC: &str = "anVkZ2U6aHVudGVyMmh1bnRlcjI=";
const PROXY_PASSWORD: &str = "pr0xyp4ss";
const SECRETS: [&str; 4] = [KEY, PASSWORD, BASIC, PROXY_PASSWORD];

/// What is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn key_file(folder: &Path) -> KeySource {
    let path = folder.join("key");
    std::fs::write(&path, format!("{KEY}\n")).unwrap();
    KeySource::File(path)
}

/// An error as text, with everything below it.
fn shown(error: &ChatError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

fn assert_clean(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}: {text}");
    }
}

/// Repeats all that it was sent: the address, the headers, the body.
fn echo(request: &Request) -> String {
    format!("{:?} {:?} {}", request.path, request.headers, request.body)
}

type Answer = fn(&Request) -> Reply;

/// Faulty answers, each of which says the secrets aloud where it can.
const FAULTS: [(&str, Answer); 10] = [
    ("http_401", |request| Reply::status(401, echo(request))),
    ("http_500", |request| Reply::status(500, echo(request))),
    ("http_429", |request| Reply::status(429, echo(request)).with("retry-after", "10000")),
    ("redirected", |request| {
        Reply::status(302, echo(request)).with("location", format!("http://{PASSWORD}@x/{KEY}"))
    }),
    ("invalid_json", |request| Reply::ok(echo(request))),
    ("unexpected_answer", |request| Reply::ok(json!({"echo": echo(request)}).to_string())),
    ("reported", |request| Reply::ok(json!({"error": {"message": echo(request)}}).to_string())),
    ("broken_connection", |request| Reply::ResetHalfWay(echo(request))),
    ("timed_out", |_| Reply::Silence),
    ("too_large", |request| Reply::ok(echo(request).repeat(500))),
];

fn http(endpoint: &str, api_key: KeySource) -> JsonClientConfig {
    JsonClientConfig {
        endpoints: vec![endpoint.parse().unwrap()],
        api_key,
        deadlines: Deadlines { read_seconds: 0.2, ..Deadlines::default() },
        retry: RetryConfig { retries: 1, first_seconds: 0.01, longest_seconds: 0.01 },
        max_response_bytes: 50_000,
        ..JsonClientConfig::default()
    }
}

async fn check_faults(make: impl Fn(&Server) -> JsonClientConfig, expected_header: (&str, &str)) {
    for (cause, answer) in FAULTS {
        let server = Server::start(move |_, request| answer(request)).await;
        let config =
            OpenAiConfig { model: "m".into(), http: make(&server), ..OpenAiConfig::default() };
        assert_clean(
            "the configuration",
            &format!("{config:?} {config:#?} {}", serde_json::to_string(&config).unwrap()),
        );
        let model = config.build().unwrap();
        assert_clean("the client", &format!("{model:?} {:?} {}", model, model.identity()));
        let error = model.complete(&ChatRequest::new([Message::user("2 + 2?")])).await.unwrap_err();
        assert_eq!(error.cause(), cause, "{error}");
        assert_clean(cause, &shown(&error));
        let (name, value) = expected_header;
        assert_eq!(
            server.requests.lock().unwrap()[0].header(name),
            Some(value),
            "the secret was really sent"
        );
    }
}

// One test, since the log belongs to the whole process.
#[tokio::test]
async fn no_secret_is_ever_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone());
    subscriber.init();
    let folder = tempfile::tempdir().unwrap();

    let bearer = format!("Bearer {KEY}");
    check_faults(|server| http(&server.url(), key_file(folder.path())), ("authorization", &bearer))
        .await;
    let named = |server: &Server| JsonClientConfig {
        key_header: KeyHeader::Named("api-key".into()),
        ..http(&server.url(), key_file(folder.path()))
    };
    check_faults(named, ("api-key", KEY)).await;
    let in_user = |server: &Server| {
        http(&format!("http://judge:{PASSWORD}@{}/v1", server.address), KeySource::None)
    };
    check_faults(in_user, ("authorization", &format!("Basic {BASIC}"))).await;
    let in_query = |server: &Server| http(&format!("{}?key={KEY}", server.url()), KeySource::None);
    check_faults(in_query, ("content-type", "application/json")).await;

    streams(folder.path()).await;
    cached(folder.path()).await;
    through_a_proxy(folder.path()).await;
    mistakes(folder.path());

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("request is tried again"), "the log was really written");
    assert_clean("the log", &log);
}

async fn streams(folder: &Path) {
    let server = Server::start(|_, request| {
        let error = json!({"error": {"message": echo(request)}});
        Reply::events(&format!("data: {{\"choices\": []}}\n\ndata: {error}\n\n"), 7)
    })
    .await;
    let http = http(&server.url(), key_file(folder));
    let model = OpenAiConfig {
        model: "m".into(),
        transfer: Transfer::Streamed,
        http,
        ..OpenAiConfig::default()
    };
    let error =
        model.build().unwrap().complete(&ChatRequest::new([Message::user("?")])).await.unwrap_err();
    assert_eq!(error.cause(), "reported");
    assert_clean("a stream's error", &shown(&error));
}

async fn cached(folder: &Path) {
    let server = Server::start(|_, _| Reply::chat("4")).await;
    let http = http(&format!("{}?token={PASSWORD}", server.url()), key_file(folder));
    let model =
        OpenAiConfig { model: "m".into(), http, ..OpenAiConfig::default() }.build().unwrap();
    let cache = folder.join("cache");
    let config = CacheConfig { folder: cache.clone(), ..CacheConfig::default() };
    let format = ResponseFormat::Text;
    CachedChat::new(Arc::new(model), config)
        .unwrap()
        .complete(&ChatRequest { format, ..ChatRequest::new([Message::user("?")]) })
        .await
        .unwrap();
    let folders = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1);
    assert_clean(
        "the cache",
        &format!("{files:?} {}", std::fs::read_to_string(&files[0]).unwrap()),
    );
}

async fn through_a_proxy(folder: &Path) {
    // The proxy answers by itself, and repeats what it was told.
    let proxy = Server::start(|_, request| Reply::status(407, echo(request))).await;
    let address: Endpoint =
        format!("http://me:{PROXY_PASSWORD}@{}", proxy.address).parse().unwrap();
    let config = JsonClientConfig {
        proxy: ProxyChoice::Through(address),
        ..http("http://judge.example/v1", key_file(folder))
    };
    assert_clean(
        "the proxy's configuration",
        &format!("{config:?} {}", serde_json::to_string(&config).unwrap()),
    );
    let error = config.build().unwrap().post("score", &json!({}), 0).await.unwrap_err();
    assert_eq!(error.cause(), "http_4xx");
    assert_clean("the proxy's error", &shown(&error));
    let requests = proxy.requests.lock().unwrap();
    assert_eq!(requests[0].path, "http://judge.example/v1/score");
    assert!(requests[0].header("proxy-authorization").is_some());
}

fn mistakes(folder: &Path) {
    let path = folder.join("two-keys");
    std::fs::write(&path, format!("{KEY} {PASSWORD}")).unwrap();
    let error = http("http://h/v1", KeySource::File(path)).build().unwrap_err();
    assert_clean("a bad key's error", &shown(&error));
    for text in [KEY.to_owned(), format!("{KEY}://x"), format!("ftp://judge:{PASSWORD}@x")] {
        assert_clean("a bad address's error", &shown(&text.parse::<Endpoint>().unwrap_err()));
    }
    let both = http(&format!("http://judge:{PASSWORD}@h/v1"), key_file(folder));
    assert_clean("an error about both", &shown(&both.build().unwrap_err()));
    let wrong = format!("endpoints = [\"{KEY}\"]");
    let error = toml::from_str::<JsonClientConfig>(&wrong).unwrap_err();
    assert_clean("a parser's message", error.message());
}
