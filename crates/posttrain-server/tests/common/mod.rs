//! A random model on the disk, the real binary in front of it, and a client of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses what it needs")]

pub mod wire;

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::TinyModel;

/// What the model can write.
const CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789 .,:;!?'-+=()/*<>{}\"_|\n[]";

/// A random model that can be so much surer.
pub fn model(sharper: f64) -> TinyModel<'static> {
    TinyModel { characters: CHARACTERS, context: 256, sharper }
}

/// The binary as a user starts it.
pub struct Running {
    child: Option<Child>,
    pub url: String,
    pub folder: TempDir,
    arguments: Vec<String>,
}

impl Running {
    /// Starts a server of the random model, with a data folder of its own.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_sharper(1.0, arguments)
    }

    /// Starts a server of a random model that can be so much surer.
    pub fn start_sharper(sharper: f64, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        model(sharper).write(&folder.path().join("model"));
        let arguments: Vec<String> = arguments.iter().map(|own| (*own).to_owned()).collect();
        let mut running = Self { child: None, url: String::new(), folder, arguments };
        running.again();
        running
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The model's name: its folder.
    pub fn model(&self) -> String {
        self.folder.path().join("model").canonicalize().unwrap().to_string_lossy().into_owned()
    }

    /// Starts it once more, on the same folder.
    pub fn again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posttrain-server"));
        command.arg("--model").arg(self.folder.path().join("model"));
        command.arg("--data").arg(self.data());
        command.args(["--listen", "127.0.0.1:0", "--kind", "f32", "--device", "cpu"]);
        command.args(&self.arguments).env("OMP_WAIT_POLICY", "PASSIVE");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();

        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended and said: {said}");
            said += &line;
            if let Some(url) = line.split(": model").next().filter(|url| url.starts_with("http://"))
            {
                self.url = url.to_owned();
                break;
            }
        }
        // What it says further must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        self.child = Some(child);
        let client = Client::new(&self.url);
        wait_until(|| client.get("/health").0 == 200);
    }

    /// Its process's number.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends an interrupt, without waiting.
    pub fn interrupt(&self) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A configuration of a policy `ours` that learns, with held-out tasks, in a folder of its own.
pub fn learn(completions: usize) -> (TempDir, String) {
    learn_by(
        ("x", 20),
        &format!(
            r#"
            lora = {{ rank = 2, alpha = 2.0 }}
            learn = {{ completions = {completions}, batch = 2 }}
            gate = {{ tasks = 10, batch = 10 }}
            [held_out]
            reward = {{ kind = "exact" }}
            "#
        ),
    )
}

/// The same with settings of its own, which end in the table of the held-out tasks, of which there
/// are so many with one answer.
pub fn learn_by((answer, count): (&str, usize), settings: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let tasks = folder.path().join("held_out.jsonl");
    let task = |n: usize| json!({ "id": n.to_string(), "domain": "all", "question": format!("{n}?"), "answer": answer });
    let lines: Vec<String> = (0..count).map(|n| task(n).to_string()).collect();
    std::fs::write(&tasks, lines.join("\n")).unwrap();
    let config = format!(
        "name = \"ours\"\n{settings}\npath = \"{}\"\nsampling = {{ max_tokens = 4 }}\n",
        tasks.display()
    );
    let path = folder.path().join("traffic.toml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_string_lossy().into_owned();
    (folder, path)
}

/// Waits for something that comes soon.
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Speaks HTTP to a server, with a key or without.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        Self { agent: config.build().into(), url: url.to_owned(), key: None }
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let (status, bytes) = self.send("GET", path, "", &[], None);
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub fn get_bytes(&self, path: &str) -> (u16, Vec<u8>) {
        self.send("GET", path, "", &[], None)
    }

    pub fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, "", &[], None).0
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let (status, bytes) = self.send("POST", path, "application/json", body.as_bytes(), None);
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Posts, and returns the answer's headers too.
    pub fn post_with_headers(
        &self,
        path: &str,
        body: &Value,
    ) -> (u16, HashMap<String, String>, Value) {
        self.try_post(path, body).unwrap()
    }

    /// The same of a server that may be killed meanwhile.
    pub fn try_post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(u16, HashMap<String, String>, Value), ureq::Error> {
        let request = ureq::http::Request::builder()
            .method("POST")
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string())?;
        let mut response = self.agent.run(request)?;
        let headers = response.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
        });
        let headers = headers.collect();
        let text = response.body_mut().read_to_string()?;
        let answer = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok((response.status().as_u16(), headers, answer))
    }

    /// Posts what has to be taken.
    pub fn done(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub fn post_bytes(&self, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.send("POST", path, kind, body, None)
    }

    /// A request's result, whatever form it has.
    pub fn result(&self, request: &str) -> (u16, Vec<u8>) {
        let body = json!({ "request_id": request }).to_string();
        loop {
            let path = "/api/v1/retrieve_future";
            let got = self.send(
                "POST",
                path,
                "application/json",
                body.as_bytes(),
                Some("application/x-protobuf"),
            );
            if got.0 != 408 {
                return got;
            }
        }
    }

    /// A request's result as JSON, an error included.
    pub fn json_result(&self, request: &str) -> Value {
        let (status, bytes) = self.result(request);
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert_eq!(status, 200, "{value}");
        value
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        accept: Option<&str>,
    ) -> (u16, Vec<u8>) {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let response = if method == "POST" || method == "PUT" {
            self.agent.run(request.body(body).unwrap())
        } else {
            self.agent.run(request.body(()).unwrap())
        };
        match response {
            Ok(mut response) => {
                let mut bytes = Vec::new();
                match response.body_mut().as_reader().read_to_end(&mut bytes) {
                    Ok(_) => (response.status().as_u16(), bytes),
                    // A server that is killed while it answers.
                    Err(_) => (0, Vec::new()),
                }
            }
            // A server that refuses a body while it is sent.
            Err(_) => (0, Vec::new()),
        }
    }

    /// A session.
    pub fn session(&self) -> String {
        let body = json!({ "tags": [], "user_metadata": null, "sdk_version": "0.38.0", "type": "create_session" });
        self.done("/api/v1/create_session", &body)["session_id"].as_str().unwrap().to_owned()
    }

    /// A model in training, of rank 4.
    pub fn create_model(&self, session: &str, number: i64, base: &str) -> String {
        let body = json!({
            "session_id": session, "model_seq_id": number, "base_model": base,
            "lora_config": { "rank": 4, "seed": 3 },
        });
        let answer = self.done("/api/v1/create_model", &body);
        let made = self.json_result(answer["request_id"].as_str().unwrap());
        made["model_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// A forward and backward pass over one text; the log-probabilities of its tokens.
    pub fn pass(&self, model: &str, seq: i32, forward_only: bool) -> Vec<f32> {
        let request = wire::cross_entropy(model, seq, &[3, 4, 5, 6, 7], forward_only);
        let id = self.taken(&request);
        wire::logprobs(&self.result(&id).1)
    }

    /// The id of a pass that has to be taken.
    pub fn taken(&self, request: &[u8]) -> String {
        let path = "/api/v1/forward_backward";
        let (status, answer) = self.post_bytes(path, "application/x-protobuf", request);
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer["request_id"].as_str().unwrap().to_owned()
    }

    /// A step of the optimizer; its result.
    pub fn step(&self, model: &str, seq: i64) -> Value {
        let body =
            json!({ "model_id": model, "seq_id": seq, "adam_params": { "learning_rate": 0.05 } });
        let answer = self.done("/api/v1/optim_step", &body);
        self.json_result(answer["request_id"].as_str().unwrap())
    }

    /// A checkpoint; its path.
    pub fn save(&self, model: &str, seq: i64, name: &str) -> Value {
        let body = json!({ "model_id": model, "seq_id": seq, "path": name });
        let answer = self.done("/api/v1/save_weights", &body);
        self.json_result(answer["request_id"].as_str().unwrap())
    }
}
