//! A server on a loopback socket that does exactly what a test says, down to the bytes.

// Each test program uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub at: Instant,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the server does with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers after a while; the connection stays.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String, after: Duration },
    /// Answers when as many others are waiting as the barrier wants, however long that takes.
    Together(Arc<Barrier>, Box<Self>),
    /// Promises a body, sends half of it, and resets the connection.
    ResetHalfWay(String),
    /// Never answers.
    Silence,
    /// Sends these pieces of a chunked body, with a pause before each; without a last chunk where
    /// it is not `complete`.
    Pieces { pieces: Vec<Vec<u8>>, pause: Duration, complete: bool },
    /// Sends a body without end.
    Endless,
}

impl Reply {
    pub fn ok(body: impl Into<String>) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into(), after: Duration::ZERO }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    pub fn after(mut self, wait: Duration) -> Self {
        if let Self::Answer { after, .. } = &mut self {
            *after = wait;
        }
        self
    }

    /// An answer of a chat model.
    pub fn chat(text: &str) -> Self {
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
        let usage = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7});
        Self::ok(
            json!({"id": "1", "object": "chat.completion", "model": "stub-1", "choices": [choice], "usage": usage})
                .to_string(),
        )
    }

    /// A streamed answer of these events, cut anywhere.
    pub fn events(text: &str, cut: usize) -> Self {
        let pieces = text.as_bytes().chunks(cut).map(<[u8]>::to_vec).collect();
        Self::Pieces { pieces, pause: Duration::ZERO, complete: true }
    }
}

/// The server. It stops, and its connections break, when it is dropped.
pub struct Server {
    pub address: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    /// Requests that came.
    came: Arc<AtomicUsize>,
    /// Requests that have come and are not being answered yet, at most.
    pub most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts it; `reply` is asked with the request's number, from 0, and the request.
    pub async fn start(reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, reply)
    }

    /// Starts one that keeps no requests.
    pub async fn start_forgetful(
        reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(listener, Memory::None, reply)
    }

    pub fn start_on(
        listener: TcpListener,
        reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(listener, Memory::All, reply)
    }

    fn listen(
        listener: TcpListener,
        memory: Memory,
        reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (requests, came, most) =
            (Arc::<Mutex<_>>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            memory,
            requests: Arc::clone(&requests),
            came: Arc::clone(&came),
            running: AtomicUsize::new(0),
            most: Arc::clone(&most),
        });
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, requests, came, most, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn count(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = dyn Fn(usize, &Request) -> Reply + Send + Sync;

/// Which requests are kept.
enum Memory {
    All,
    None,
}

struct Shared {
    reply: Box<Answer>,
    memory: Memory,
    came: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request>>>,
    running: AtomicUsize,
    most: Arc<AtomicUsize>,
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        if matches!(shared.memory, Memory::All) {
            shared.requests.lock().unwrap().push(request.clone());
        }
        let reply = (shared.reply)(shared.came.fetch_add(1, Ordering::SeqCst), &request);
        let running = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(running, Ordering::SeqCst);
        let reply = held(reply).await;
        // Before the answer: the client's next request may be here before this goes on.
        shared.running.fetch_sub(1, Ordering::SeqCst);
        if send(&mut stream, reply).await.is_none() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = name.to_lowercase();
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value.to_owned()));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { at: Instant::now(), path, headers, body: String::from_utf8(body).ok()? })
}

/// The reply, when it is time for it.
async fn held(reply: Reply) -> Reply {
    let reply = match reply {
        Reply::Together(barrier, reply) => {
            barrier.wait().await;
            *reply
        }
        reply => reply,
    };
    if let Reply::Answer { after, .. } = &reply {
        sleep(*after).await;
    }
    reply
}

/// Nothing where the connection is over.
async fn send(stream: &mut BufReader<TcpStream>, reply: Reply) -> Option<()> {
    match reply {
        Reply::Together(..) => unreachable!("a reply that was held is another one"),
        Reply::Answer { status, headers, body, after: _ } => {
            let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.ok()
        }
        Reply::ResetHalfWay(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).await.ok()?;
            // Long enough for the half to arrive before the reset discards it.
            sleep(Duration::from_millis(20)).await;
            stream.get_ref().set_zero_linger().unwrap();
            None
        }
        Reply::Silence => {
            sleep(Duration::from_secs(3600)).await;
            None
        }
        Reply::Pieces { pieces, pause, complete } => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await
                .ok()?;
            for piece in pieces {
                sleep(pause).await;
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
                stream.write_all(&piece).await.ok()?;
                stream.write_all(b"\r\n").await.ok()?;
                stream.flush().await.ok()?;
            }
            if complete {
                return stream.write_all(b"0\r\n\r\n").await.ok();
            }
            None
        }
        Reply::Endless => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[")
                .await
                .ok()?;
            loop {
                stream.write_all(&[b'1'; 65_536]).await.ok()?;
            }
        }
    }
}
