//! A server in a process of its own.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that is killed when it goes.
pub struct Server {
    child: Child,
    client: Client,
}

/// Speaks to a server.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    address: String,
}

/// The server's program beside this one's. It is built first, together with this one, so that what
/// both depend on is built once; that costs nothing where it is there.
pub fn binary() -> Result<PathBuf> {
    let example = std::env::current_exe().context("where this program lies")?;
    let folder = example.parent().and_then(Path::parent).context("target/<profile>")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if root.join("Cargo.toml").is_file() {
        println!("building posttrain-server, where it is not built yet");
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo.current_dir(root).args(["build", "-p", "examples", "--example", "traffic"]);
        cargo.args(["-p", "posttrain-server", "--bin", "posttrain-server"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        // What `cargo run` tells this program would have dependencies built anew that look at it.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name.as_ref());
            }
        }
        if !cargo.status().context("cannot run cargo")?.success() {
            bail!("posttrain-server does not build");
        }
    }
    let binary = folder.join("posttrain-server");
    if !binary.is_file() {
        bail!("{}: expected the server's program", binary.display());
    }
    Ok(binary)
}

impl Server {
    /// Starts one that learns, and waits until it listens.
    pub fn start(binary: &Path, model: &Path, kind: &str, folder: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .arg("--model")
            .arg(model)
            .args(["--kind", kind, "--name", "base", "--listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--learn")
            .arg(folder.join("traffic.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let stderr = child.stderr.take().context("the server's standard error")?;
        let mut log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("server.log"))
            .context("server.log")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else {
                let status = child.wait()?;
                bail!("the server ended ({status}): {}", said.join("; "));
            };
            let line = line?;
            if let Some(rest) = line.strip_prefix("http://") {
                break rest.split(": ").next().unwrap_or(rest).to_owned();
            }
            said.push(line);
        };
        std::thread::spawn(move || {
            use std::io::Write;
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
            }
        });

        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let client = Client { agent: config.new_agent(), address };
        Ok(Self { child, client })
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Ends it as a person does, and waits.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    /// Posts a value; the answer, and the version that the head names.
    pub fn post(&self, path: &str, body: &Value) -> Result<(Value, Option<u64>)> {
        let url = format!("http://{}{path}", self.address);
        let sent = self.agent.post(&url).content_type("application/json").send(body.to_string());
        let mut answer = sent.with_context(|| url.clone())?;
        let version = answer.headers().get("x-posttrain-version").and_then(|v| v.to_str().ok());
        let version = version.and_then(|version| version.parse().ok());
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            bail!("{url}: {}: {text}", answer.status());
        }
        Ok((serde_json::from_str(&text)?, version))
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let mut answer = self.agent.get(&url).call().with_context(|| url.clone())?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }
}
