//! A hub on this machine: the two routes that a download takes, and faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub has, and what has been asked of it.
#[derive(Default)]
pub struct State {
    /// Contents, and whether they lie in large storage.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
    /// `METHOD path range` of every request, with the token's header behind it.
    pub requests: Vec<String>,
    /// The next download of this file breaks off after so many bytes.
    pub cut: Option<(String, usize)>,
    /// Answers every request so.
    pub status: Option<u16>,
    /// From the second answer on, the tag and the commit that files are said to have.
    pub then_named: Option<(String, String)>,
    /// The hub lists another SHA-256 than this file has.
    pub lie_about: Option<String>,
}

pub struct Hub {
    pub state: Arc<Mutex<State>>,
    pub endpoint: String,
}

impl Hub {
    pub fn start(files: &[(&str, Vec<u8>, bool)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        for (name, bytes, large) in files {
            state.lock().unwrap().files.insert(name.to_string(), (bytes.clone(), *large));
        }
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || while serve(&stream, &state).unwrap_or(false) {});
            }
        });
        Self { state, endpoint }
    }

    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Answers one request; whether the connection stays.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<bool> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line)? > 2 {
        head.push(std::mem::take(&mut line).trim().to_owned());
    }
    let Some(request) = head.first().cloned() else { return Ok(false) };
    let header = |name: &str| {
        let found = head
            .iter()
            .skip(1)
            .filter_map(|h| h.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = header("range");
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{path} {range} {}", header("authorization")));
    let mut out = stream.try_clone()?;
    if let Some(status) = state.status {
        write!(out, "HTTP/1.1 {status} no\r\ncontent-length: 0\r\n\r\n")?;
        return Ok(true);
    }
    if path.starts_with("/api/models/") {
        let body = listing(&state);
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        return Ok(true);
    }
    let name = path
        .split_once(&format!("/resolve/{COMMIT}/"))
        .map(|(_, name)| name.to_owned())
        .unwrap_or_default();
    let Some((bytes, large)) = state.files.get(&name).cloned() else {
        write!(out, "HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n")?;
        return Ok(true);
    };
    let bounds = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
    let start = bounds.0.parse().unwrap_or(0usize);
    let end = bounds.1.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
    let part = &bytes[start..end];
    let mut tag = if large { sha256(&bytes) } else { format!("git{}", bytes.len()) };
    let mut commit = COMMIT.to_owned();
    let asked = state.requests.iter().filter(|r| r.starts_with(&format!("{path} "))).count();
    if let Some(names) = state.then_named.clone().filter(|_| asked > 1) {
        (tag, commit) = names;
    }
    write!(
        out,
        "HTTP/1.1 206 part\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{}\r\netag: \"{tag}\"\r\nx-repo-commit: {commit}\r\n\r\n",
        part.len(),
        end.saturating_sub(1),
        bytes.len()
    )?;
    if part.len() > 1 && state.cut.as_ref().is_some_and(|(cut, _)| *cut == name) {
        let length = state.cut.take().map_or(0, |(_, length)| length);
        out.write_all(&part[..length])?;
        out.flush()?;
        out.shutdown(std::net::Shutdown::Both)?;
        return Ok(false);
    }
    out.write_all(part)?;
    Ok(true)
}

fn listing(state: &State) -> String {
    let file = |(name, (bytes, large)): (&String, &(Vec<u8>, bool))| {
        let lie = state.lie_about.as_ref() == Some(name);
        let hash = if lie { "00".repeat(32) } else { sha256(bytes) };
        let large = if *large {
            format!(r#","lfs":{{"sha256":"{hash}","size":{}}}"#, bytes.len())
        } else {
            String::new()
        };
        format!(r#"{{"rfilename":"{name}","size":{}{large}}}"#, bytes.len())
    };
    let files: Vec<_> = state.files.iter().map(file).collect();
    format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","))
}
