//! Every way in which a server fails, on a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use posttrain_chat::client::{
    BreakerConfig, Deadlines, Endpoint, JsonClient, JsonClientConfig, RetryConfig,
};
use posttrain_chat::openai::{OpenAiClient, OpenAiConfig};
use posttrain_chat::{ChatError, ChatModel, ChatRequest, Deadline, Message};
use serde_json::{Value, json};
use server::{Reply, Server};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const QUICK: Duration = Duration::from_millis(10);

fn config(servers: &[&Server]) -> JsonClientConfig {
    JsonClientConfig {
        endpoints: servers.iter().map(|server| server.url().parse().unwrap()).collect(),
        deadlines: Deadlines {
            connect_seconds: 1.0,
            read_seconds: 0.3,
            attempt_seconds: 0.6,
            total_seconds: 5.0,
        },
        retry: RetryConfig { retries: 3, first_seconds: 0.02, longest_seconds: 0.1 },
        ..JsonClientConfig::default()
    }
}

fn client(server: &Server) -> JsonClient {
    config(&[server]).build().unwrap()
}

async fn post(client: &JsonClient) -> Result<Value, ChatError> {
    client.post("score", &json!({"x": 1}), 10).await
}

/// Fails so the first time, then answers.
async fn first_then_right(first: Reply) -> Server {
    Server::start(
        move |index, _| if index == 0 { first.clone() } else { Reply::ok("{\"right\": true}") },
    )
    .await
}

#[tokio::test]
async fn status_429_without_retry_after_is_tried_again_after_a_pause() {
    let server = first_then_right(Reply::status(429, "slow down")).await;
    assert_eq!(post(&client(&server)).await.unwrap()["right"], true);
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].at - requests[0].at >= QUICK, "the first pause is 10 to 20 ms");
    assert_eq!((requests[1].path.as_str(), requests[1].json()), ("/v1/score", json!({"x": 1})));
}

#[tokio::test]
async fn status_429_with_retry_after_waits_as_long_as_it_says() {
    let server = first_then_right(Reply::status(429, "slow down").with("retry-after", "1")).await;
    assert_eq!(post(&client(&server)).await.unwrap()["right"], true);
    let requests = server.requests.lock().unwrap();
    let wait = requests[1].at - requests[0].at;
    assert!((Duration::from_millis(1000)..Duration::from_millis(2500)).contains(&wait), "{wait:?}");
}

#[tokio::test]
async fn retry_after_as_a_date_is_understood() {
    // Dates have whole seconds: two ahead is more than one.
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2));
    let server = first_then_right(Reply::status(503, "").with("retry-after", date)).await;
    assert_eq!(post(&client(&server)).await.unwrap()["right"], true);
    let requests = server.requests.lock().unwrap();
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(800));
}

#[tokio::test]
async fn a_rest_beyond_the_deadline_is_an_error_at_once() {
    let server =
        Server::start(|_, _| Reply::status(429, "come tomorrow").with("retry-after", "80000"))
            .await;
    let start = Instant::now();
    let error = post(&client(&server)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1) && server.count() == 1);
    let ChatError::Status { status: 429, retry_after, body, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((retry_after.unwrap().as_secs(), body.as_str()), (80_000, "come tomorrow"));
}

#[tokio::test]
async fn a_500_passes() {
    for status in [408, 409, 500, 502, 503, 504, 529] {
        let server = first_then_right(Reply::status(status, "oops")).await;
        assert_eq!(post(&client(&server)).await.unwrap()["right"], true, "{status}");
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn a_server_that_stays_broken_is_given_up() {
    let server = Server::start(|_, _| Reply::status(500, "oops")).await;
    assert_eq!(post(&client(&server)).await.unwrap_err().cause(), "http_500");
    assert_eq!(server.count(), 4, "one attempt and three retries");
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    for status in [400, 401, 403, 404, 410, 413, 422] {
        let server = Server::start(move |_, _| Reply::status(status, "no such model")).await;
        let error = post(&client(&server)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: HTTP status {status}: no such model", server.url())
        );
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn a_connection_reset_half_way_through_a_body_is_tried_again() {
    let server =
        first_then_right(Reply::ResetHalfWay(json!({"right": "x".repeat(1000)}).to_string())).await;
    assert_eq!(post(&client(&server)).await.unwrap()["right"], true);
    assert_eq!(server.count(), 2);
    let server = Server::start(|_, _| Reply::ResetHalfWay("[1, 2, 3, 4, 5, 6]".into())).await;
    assert_eq!(post(&client(&server)).await.unwrap_err().cause(), "broken_connection");
}

#[tokio::test]
async fn nobody_listening_is_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let server = Server::start(|_, _| Reply::Silence).await;
    let config = JsonClientConfig { endpoints: vec![endpoint], ..config(&[&server]) };
    assert_eq!(post(&config.build().unwrap()).await.unwrap_err().cause(), "broken_connection");
}

#[tokio::test]
async fn a_server_that_never_answers_meets_the_read_deadline() {
    let server = first_then_right(Reply::Silence).await;
    assert_eq!(post(&client(&server)).await.unwrap()["right"], true);
    let server = Server::start(|_, _| Reply::Silence).await;
    let mut config = config(&[&server]);
    config.retry.retries = 1;
    let error = post(&config.build().unwrap()).await.unwrap_err();
    let ChatError::TimedOut { deadline, seconds, .. } = error else { panic!("{error:?}") };
    assert_eq!((deadline, seconds, server.count()), (Deadline::Read, 0.3, 2));
}

#[tokio::test]
async fn a_server_that_trickles_meets_the_attempt_deadline() {
    let pieces = vec![b" ".to_vec(); 1000];
    let server = Server::start(move |_, _| Reply::Pieces {
        pieces: pieces.clone(),
        pause: Duration::from_millis(100),
        complete: true,
    })
    .await;
    let mut config = config(&[&server]);
    config.retry.retries = 0;
    let start = Instant::now();
    let error = post(&config.build().unwrap()).await.unwrap_err();
    assert!(matches!(error, ChatError::TimedOut { deadline: Deadline::Attempt, .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn retries_end_at_the_total_deadline() {
    let server = Server::start(|_, _| Reply::Silence).await;
    let mut config = config(&[&server]);
    (config.retry.retries, config.deadlines.total_seconds) = (1000, 0.8);
    let start = Instant::now();
    let error = post(&config.build().unwrap()).await.unwrap_err();
    assert!(matches!(error, ChatError::TimedOut { deadline: Deadline::Total, .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let server = Server::start(|_, _| Reply::Endless).await;
    let config = JsonClientConfig { max_response_bytes: 100_000, ..config(&[&server]) };
    let error = post(&config.build().unwrap()).await.unwrap_err();
    assert_eq!((error.cause(), server.count()), ("too_large", 1));
    let server = Server::start(|_, _| Reply::ok("1".repeat(1000))).await;
    let config = JsonClientConfig { max_response_bytes: 999, ..self::config(&[&server]) };
    assert_eq!(
        post(&config.build().unwrap()).await.unwrap_err().cause(),
        "too_large",
        "known from its length"
    );
}

#[tokio::test]
async fn invalid_json_is_an_error_that_shows_its_beginning() {
    for body in ["<html>Bad gateway</html>", "{\"right\": tr", "", "{} {}"] {
        let server = Server::start(move |_, _| Reply::ok(body)).await;
        let error = post(&client(&server)).await.unwrap_err();
        assert_eq!((error.cause(), server.count()), ("invalid_json", 1));
        assert!(
            error.to_string().contains(if body.is_empty() { "(empty)" } else { body }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::start(|_, _| Reply::ok("{}")).await;
    for status in [301, 302, 307, 308] {
        let location = other.url();
        let server =
            Server::start(move |_, _| Reply::status(status, "").with("location", &location)).await;
        let error = post(&client(&server)).await.unwrap_err();
        assert_eq!((error.cause(), server.count()), ("redirected", 1));
    }
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_of_a_run_loses_nothing() {
    let slow = || Reply::ok("{}").after(QUICK);
    let (stable, dying) =
        (Server::start(move |_, _| slow()).await, Server::start(move |_, _| slow()).await);
    let mut config = config(&[&stable, &dying]);
    config.in_flight = 16;
    config.breaker = BreakerConfig { failures: 3, pause_seconds: 0.3 };
    let client = config.build().unwrap();
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { post(&client).await })
        })
        .collect();
    while dying.count() < 50 {
        sleep(Duration::from_millis(1)).await;
    }
    let (address, before) = (dying.address.clone(), dying.count());
    drop(dying);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(
        before >= 50 && stable.count() >= 150,
        "both did their part before, and one did the rest"
    );

    // It comes back at the same address, is probed, and works again.
    let back = Server::start_on(TcpListener::bind(&address).await.unwrap(), |_, _| Reply::ok("{}"));
    sleep(Duration::from_millis(350)).await;
    for _ in 0..40 {
        post(&client).await.unwrap();
    }
    assert!(back.count() >= 5, "{}", back.count());
}

#[tokio::test]
async fn load_goes_where_there_is_least() {
    let quick = Server::start(|_, _| Reply::ok("{}").after(Duration::from_millis(5))).await;
    let slow = Server::start(|_, _| Reply::ok("{}").after(Duration::from_millis(100))).await;
    let client = JsonClientConfig { in_flight: 8, ..config(&[&quick, &slow]) }.build().unwrap();
    futures::future::join_all((0..200).map(|_| post(&client))).await.into_iter().for_each(
        |answer| {
            answer.unwrap();
        },
    );
    assert!(quick.count() > 3 * slow.count(), "{} and {}", quick.count(), slow.count());
    assert!(quick.most.load(std::sync::atomic::Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn no_more_than_the_limit_are_in_flight() {
    let server = Server::start(|_, _| Reply::ok("{}").after(Duration::from_millis(20))).await;
    let client = JsonClientConfig { in_flight: 5, ..config(&[&server]) }.build().unwrap();
    futures::future::join_all((0..40).map(|_| post(&client))).await;
    assert_eq!((server.count(), server.most.load(std::sync::atomic::Ordering::SeqCst)), (40, 5));
}

#[tokio::test]
async fn requests_and_tokens_a_minute_are_kept_to() {
    let server = Server::start(|_, _| Reply::ok("{}")).await;
    let limits: [fn(JsonClientConfig) -> JsonClientConfig; 2] = [
        |config| JsonClientConfig { requests_per_minute: Some(1200.0), ..config },
        |config| JsonClientConfig { tokens_per_minute: Some(12_000.0), ..config },
    ];
    for limit in limits {
        let client = limit(config(&[&server])).build().unwrap();
        let start = Instant::now();
        for _ in 0..32 {
            post(&client).await.unwrap();
        }
        // Twenty a second, of which a second's worth may come at once.
        assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    let server =
        Server::start(|index, _| if index < 3 { Reply::Silence } else { Reply::ok("{}") }).await;
    let client = JsonClientConfig { in_flight: 1, ..config(&[&server]) }.build().unwrap();
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(50), post(&client)).await.is_err());
    }
    post(&client).await.unwrap();
}

fn chat(server: &Server) -> OpenAiClient {
    OpenAiConfig { model: "m".into(), http: config(&[server]), ..OpenAiConfig::default() }
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_chat_model_meets_the_same_faults() {
    let request = ChatRequest::new([Message::user("2 + 2?")]);
    let server = Server::start(|index, _| match index {
        0 => Reply::status(500, "oops"),
        1 => Reply::ResetHalfWay("[1, 2, 3, 4, 5, 6]".into()),
        2 => Reply::Silence,
        _ => Reply::chat("4"),
    })
    .await;
    let response = chat(&server).complete(&request).await.unwrap();
    assert_eq!(
        (response.text.as_str(), response.usage.total(), response.model.as_str()),
        ("4", 7, "stub-1")
    );
    assert_eq!(server.count(), 4);
    for (body, cause) in [
        ("{\"error\": {\"message\": \"overloaded\"}}", "reported"),
        ("{\"choices\": []}", "unexpected_answer"),
        ("nonsense", "invalid_json"),
    ] {
        let server = Server::start(move |_, _| Reply::ok(body)).await;
        assert_eq!(chat(&server).complete(&request).await.unwrap_err().cause(), cause);
    }
}
