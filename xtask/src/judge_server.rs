//! `cargo xtask judge-server`: llama-cpp-python's server with the demonstration model, on this
//! machine only: a server for judges that needs no account and no GPU.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::venv::{State, Venv, run as run_pip};
use crate::workspace::{Workspace, make_folder};
use crate::{compiler, demo_model, disk};

const PACKAGE: &str = "llama-cpp-python[server]==0.3.36";
/// The module that is run, by which a process is known to be ours.
const MODULE: &str = "llama_cpp.server";
/// How long it may take to load 98 MB, or to stop, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// The name that requests give.
const MODEL: &str = "smollm2-135m-instruct";

/// Starts or stops the server, as asked.
pub fn run(workspace: &Workspace, stop: bool) -> Result<ExitCode> {
    let server = JudgeServer::new(workspace);
    if stop {
        println!("{}", if server.stop()? { "stopped" } else { "no judge server is running" });
        return Ok(ExitCode::SUCCESS);
    }
    let url = server.start(workspace)?;
    println!("judge server: {url} (model {MODEL}, log {})", server.log().display());
    println!("stop it: cargo xtask judge-server --stop");
    Ok(ExitCode::SUCCESS)
}

/// The server by its files: environment, log, process, address.
pub struct JudgeServer {
    folder: PathBuf,
}

impl JudgeServer {
    pub fn new(workspace: &Workspace) -> Self {
        Self { folder: workspace.servers() }
    }

    /// Starts it unless it runs, and returns its address.
    pub fn start(&self, workspace: &Workspace) -> Result<String> {
        // Two at the same time would start two.
        let lock = workspace.lock()?;
        if let Some(url) = self.running()? {
            return Ok(url);
        }
        make_folder(&self.folder)?;
        let venv = Venv::for_servers(workspace, &lock);
        self.install(&venv)?;
        let model = demo_model::ensure(workspace, &venv)?;
        self.launch(&venv, &model)
    }

    /// Stops it; whether there was one.
    pub fn stop(&self) -> Result<bool> {
        let pid = self.pid()?;
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)
                .with_context(|| format!("cannot stop process {}", pid.as_raw_nonzero()))?;
            wait_until(|| !is_ours(pid))
                .with_context(|| format!("process {} does not stop", pid.as_raw_nonzero()))?;
        }
        remove_file(&self.url_file())?;
        remove_file(&self.pid_file())?;
        Ok(pid.is_some())
    }

    /// The address, where it runs and answers.
    pub fn running(&self) -> Result<Option<String>> {
        let Ok(url) = fs::read_to_string(self.url_file()) else { return Ok(None) };
        let url = url.trim();
        Ok(self.pid()?.filter(|_| answers(url)).map(|_| url.to_owned()))
    }

    fn install(&self, venv: &Venv) -> Result<()> {
        let marker = self.folder.join("installed");
        let installed = fs::read_to_string(&marker).is_ok_and(|text| text == PACKAGE);
        if installed && venv.state() != State::Unusable {
            return Ok(());
        }
        compiler::find()?;
        disk::require(&self.folder, 2_000_000_000, "the judge server")?;
        remove_file(&marker)?;
        venv.open()?;
        println!("building {PACKAGE}: a few minutes");
        let mut pip = venv.pip()?;
        pip.env("CMAKE_ARGS", cmake_arguments()).args(["install", "--quiet", PACKAGE]);
        run_pip(&mut pip)?;
        venv.clear_scratch()?;
        // Last, so that an interruption leaves no half installation that looks whole.
        write_file(&marker, PACKAGE)
    }

    fn launch(&self, venv: &Venv, model: &Path) -> Result<String> {
        let port = free_port()?;
        let log = File::create(self.log())
            .with_context(|| format!("cannot write {}", self.log().display()))?;
        let errors = log.try_clone().context("cannot share the log")?;
        let mut server = venv.isolated_python()?;
        server.args([
            "-m",
            MODULE,
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--n_ctx",
            "8192",
        ]);
        server.args(["--model_alias", MODEL, "--model"]).arg(model);
        // By default a new request ends the stream of another one.
        server.args(["--interrupt_requests", "False"]);
        // A group of its own, so that an interrupt at the terminal is not its end, and without our
        // lock.
        server.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut child = server.spawn().context("cannot start the judge server")?;
        write_file(&self.pid_file(), &child.id().to_string())?;
        let url = format!("http://127.0.0.1:{port}/v1");
        self.wait_for(&mut child, &url)?;
        write_file(&self.url_file(), &url)?;
        Ok(url)
    }

    fn wait_for(&self, child: &mut Child, url: &str) -> Result<()> {
        let mut ended = None;
        let answered = wait_until(|| {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || answers(url)
        });
        if matches!((&answered, ended), (Ok(()), None)) {
            return Ok(());
        }
        // It may have ended by itself.
        let _ = child.kill();
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("the judge server did not start; the end of {}:\n{last}", self.log().display());
    }

    /// The process, where it is there and ours: numbers are used again.
    fn pid(&self) -> Result<Option<Pid>> {
        let Ok(text) = fs::read_to_string(self.pid_file()) else { return Ok(None) };
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid =
            pid.with_context(|| format!("{} holds no process number", self.pid_file().display()))?;
        Ok(Some(pid).filter(|pid| is_ours(*pid)))
    }

    /// Where tests look, too.
    fn url_file(&self) -> PathBuf {
        self.folder.join("judge-url")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("judge-pid")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("judge.log")
    }
}

/// A native build uses whatever the building machine has, and crashes on others that share its
/// files.
fn cmake_arguments() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
    } else {
        "-DGGML_NATIVE=OFF"
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

/// Whether the process runs our module. One that has ended and is not yet collected has no command
/// any more.
fn is_ours(pid: Pid) -> bool {
    let number = pid.as_raw_nonzero().to_string();
    let command = fs::read(format!("/proc/{number}/cmdline")).or_else(|_| {
        let output = Command::new("ps")
            .args(["-p", &number, "-o", "command="])
            .stderr(Stdio::null())
            .output();
        output.map(|output| output.stdout)
    });
    command.is_ok_and(|command| String::from_utf8_lossy(&command).contains(MODULE))
}

/// Whether the server lists its models.
fn answers(url: &str) -> bool {
    list_models(url).is_ok_and(|status| status.starts_with("HTTP/1.") && status.contains(" 200 "))
}

fn list_models(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("no http:// address")?;
    let (host, path) = rest.split_once('/').context("no path")?;
    let address: SocketAddr = host.parse().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // At once: a server may answer the first piece of a request that comes in several.
    stream.write_all(format!("GET /{path}/models HTTP/1.0\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let mut status = Vec::new();
    stream.take(64).read_to_end(&mut status)?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

fn wait_until(mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            bail!("it takes longer than {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a file; one that is not there is fine.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (tempfile::TempDir, JudgeServer) {
        let folder = tempfile::tempdir().unwrap();
        let server = JudgeServer { folder: folder.path().to_owned() };
        (folder, server)
    }

    #[test]
    fn a_stranger_with_our_number_is_left_alone() {
        let (_folder, server) = server();
        fs::write(server.pid_file(), std::process::id().to_string()).unwrap();
        fs::write(server.url_file(), "http://127.0.0.1:1/v1").unwrap();
        assert_eq!(server.running().unwrap(), None);
        assert!(!server.stop().unwrap(), "or this test would have ended here");
        assert!(!server.pid_file().exists() && !server.url_file().exists());
    }

    #[test]
    fn nothing_running_is_no_mistake_but_nonsense_is() {
        let (_folder, server) = server();
        assert_eq!(server.running().unwrap(), None);
        assert!(!server.stop().unwrap());
        fs::write(server.pid_file(), "none").unwrap();
        assert!(server.stop().unwrap_err().to_string().contains("judge-pid"));
    }

    #[test]
    fn only_an_answer_is_one() {
        assert!(!answers("http://127.0.0.1:1/v1") && !answers("127.0.0.1") && !answers(""));
        let reply = |reply: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/v1", listener.local_addr().unwrap());
            let served = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                let length = stream.read(&mut request).unwrap();
                stream.write_all(reply.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            (answers(&url), served.join().unwrap())
        };
        let (right, request) = reply("HTTP/1.1 200 OK\r\n\r\n{}");
        assert!(right && request.starts_with("GET /v1/models HTTP/1.0\r\n"));
        assert!(!reply("HTTP/1.1 503 Loading\r\n\r\n{}").0);
    }
}
