//! Where the server is that nobody here wrote: llama-cpp-python, as `cargo xtask judge-server`
//! starts it.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

/// The server's address: `POSTTRAIN_JUDGE_URL`, or what `cargo xtask judge-server` wrote down,
/// where something still listens. Where there is none, the line that says so is written past the
/// test harness, which keeps what a passing test prints to itself.
pub fn server() -> Option<String> {
    let url = std::env::var("POSTTRAIN_JUDGE_URL").ok().filter(|url| !url.is_empty());
    // Named in the environment it must be there. The file may be left over from before the machine
    // was started again.
    let url = url.or_else(|| written_down().filter(|url| listens(url)));
    if url.is_none() {
        let line = "SKIPPED: no judge server; run `cargo xtask judge-server`, or `cargo xtask test --servers`\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    url
}

fn written_down() -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers/judge-url");
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

fn listens(url: &str) -> bool {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| TcpStream::connect(host).is_ok())
}
