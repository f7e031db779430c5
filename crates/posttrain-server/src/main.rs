//! `posttrain-server`: a model in service for Tinker's SDK and for OpenAI's clients.

use anyhow::{Context, Result};
use clap::Parser;
use posttrain_model::{
    Checkpoint, ComputeKind, DeviceChoice, Quantize, TextModel, select_device, select_kind,
};
use posttrain_recipes::traffic::TrafficConfig;
use posttrain_server::{Keys, Limits, Server, ServerConfig};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tch::Kind;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a shell tells of a program that an interrupt ended.
const INTERRUPTED: u8 = 130;

/// The folder in DATA that a GGUF file's tokenizer is written to.
const TOKENIZER: &str = "tokenizer";

/// Serves a model: Tinker's API under /api/v1, OpenAI's under /v1, a page at /.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A folder in the Hugging Face layout, or a GGUF file.
    #[arg(long, value_name = "DIR-or-GGUF")]
    model: PathBuf,
    /// The name that clients ask for, and load the tokenizer by. By default the model's folder; of a
    /// GGUF file a folder in DATA that its tokenizer is written to.
    #[arg(long)]
    name: Option<String>,
    /// `f32` or `bf16`; by default bf16 where the processor multiplies it fast.
    #[arg(long, default_value = "auto")]
    kind: ComputeKind,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// How the frozen layers are kept: `none`, `int8` or `nf4`.
    #[arg(long, default_value = "none")]
    quantize: Quantize,
    /// Where sessions and checkpoints are kept.
    #[arg(long, default_value = "posttrain-data")]
    data: PathBuf,
    /// Where to listen. An address that other machines reach needs `--keys`.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The folder of an experiment: its specialists are served behind its router, as `routed`.
    #[arg(long, value_name = "RUN")]
    experiment: Option<PathBuf>,
    /// A configuration of a policy that learns from what it serves, and of the gate that its
    /// versions have to pass.
    #[arg(long, value_name = "TRAFFIC.TOML")]
    learn: Option<PathBuf>,
    /// A file with a key a line. Each key sees its own sessions, models and checkpoints.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Seconds without a heartbeat after which a session's models are freed.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().session_timeout.as_secs())]
    session_timeout: u64,
    /// Prompt tokens whose keys and values are kept for requests that begin alike (a system message,
    /// a conversation); 0 keeps none.
    #[arg(long, value_name = "TOKENS", default_value_t = Limits::default().keep_tokens)]
    keep_tokens: usize,
    /// Prompt tokens that are read between two decoding steps: fewer hold up those who are being
    /// answered for a shorter time, more are faster in all.
    #[arg(long, value_name = "TOKENS", default_value_t = Limits::default().prefill_tokens)]
    prefill_tokens: usize,
    /// Every training call has passes of its own: what it comes to is the same to the bit, whoever
    /// else trains.
    #[arg(long)]
    no_shared_passes: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    log_to_stderr();
    let args = Args::parse();
    let interrupts = Interrupts::listen()?;

    let config = config(&args)?;
    config.check_address(args.listen)?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;

    let checkpoint = Checkpoint::open(&args.model)?;
    let device = select_device(args.device)?;
    let kind = select_kind(args.kind, device);
    let model = TextModel::load(&checkpoint, args.quantize, kind, device)?;
    if args.model.is_file() {
        // A single file is nothing that the SDK can load a tokenizer from.
        checkpoint.export_beside_weights(&args.data.join(TOKENIZER))?;
    }

    let name = config.name.clone();
    let server = Server::start(model, config, args.experiment.as_deref())?;
    let kind = if kind == Kind::Float { "f32" } else { "bf16" };
    eprintln!("http://{address}: model {name} in {kind}, checkpoints in {}", args.data.display());
    server.serve(listener, interrupts.first()).await?;
    eprintln!("everything that was taken is done and kept");
    Ok(ExitCode::from(INTERRUPTED))
}

fn config(args: &Args) -> Result<ServerConfig> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(args)?,
    };
    let keys = args.keys.as_deref().map(Keys::read).transpose()?;
    let session_timeout = Duration::from_secs(args.session_timeout);
    let (keep_tokens, prefill_tokens) = (args.keep_tokens, args.prefill_tokens);
    let limits = Limits { session_timeout, keep_tokens, prefill_tokens, ..Limits::default() };
    let learn = args.learn.as_deref().map(learn_config).transpose()?;
    let share_passes = !args.no_shared_passes;
    Ok(ServerConfig { keys, limits, share_passes, learn, ..ServerConfig::new(name, &args.data) })
}

fn learn_config(path: &Path) -> Result<TrafficConfig> {
    let read = std::fs::read_to_string(path);
    let text = read.with_context(|| format!("{} cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// A folder that the SDK can load the tokenizer from.
fn default_name(args: &Args) -> Result<String> {
    let folder = if args.model.is_file() {
        let folder = args.data.join(TOKENIZER);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        folder
    } else {
        args.model.clone()
    };
    let folder = folder.canonicalize();
    let folder = folder.with_context(|| format!("there is no {}", args.model.display()))?;
    Ok(folder.to_string_lossy().into_owned())
}

/// The signals that end a server.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for interrupts");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for the first; a second one ends the process at once.
    async fn first(mut self) {
        self.next().await;
        eprintln!("stopping: what was taken is done first (interrupt again to stop at once)");
        tokio::spawn(async move {
            self.next().await;
            eprintln!("stopped at once");
            end_at_once();
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ends the process without another word: `std::process::exit` would take libtorch's memory down
/// while its threads work in it.
fn end_at_once() -> ! {
    // SAFETY: `_exit` takes a number and does not return; nothing of the process is used after it.
    #[expect(unsafe_code, reason = "no safe function ends a process without its destructors")]
    unsafe {
        libc::_exit(i32::from(INTERRUPTED))
    }
}

/// Sends the log to standard error; `RUST_LOG` chooses what is shown.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,posttrain_server=info"));
    let colors = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_target(false).with_ansi(colors).init();
}
