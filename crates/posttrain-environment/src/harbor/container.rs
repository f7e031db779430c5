//! A Dockerfile, as far as it needs no container.

use std::path::{Component, Path, PathBuf};

/// Images that bring a system and nothing that a task could not do without.
const PLAIN: [&str; 6] = ["ubuntu", "debian", "alpine", "python", "bash", "busybox"];

/// Folders of the system, which no workspace stands in for.
const SYSTEM: [&str; 13] = [
    "bin", "boot", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "sys", "usr", "var",
];

/// What stands where when a task begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The working folder.
    pub directory: String,
    /// Files and folders of `environment/`, and where they go.
    pub copies: Vec<(PathBuf, String)>,
    /// Variables.
    pub environment: Vec<(String, String)>,
}

impl Container {
    /// Where there is no Dockerfile.
    pub fn plain() -> Self {
        Self { directory: "/app".into(), copies: Vec::new(), environment: Vec::new() }
    }

    /// Reads a Dockerfile. What needs a container is refused with its line.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut container = Self { directory: "/".into(), ..Self::plain() };
        for (line, instruction) in instructions(text) {
            let refused = |why: &str| format!("line {line}: `{instruction}`: {why}");
            let (word, rest) =
                instruction.split_once(char::is_whitespace).unwrap_or((&instruction, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            match word.to_ascii_uppercase().as_str() {
                "FROM" => {
                    let image = words.first().copied().unwrap_or_default();
                    let name = image.split(['@', ':']).next().unwrap_or_default();
                    let name = name.rsplit('/').next().unwrap_or_default();
                    if words.len() != 1 || !PLAIN.contains(&name) {
                        let plain = PLAIN.join(", ");
                        return Err(refused(&format!(
                            "needs a container: only {plain} do without"
                        )));
                    }
                }
                "WORKDIR" => {
                    let [path] = words.as_slice() else { return Err(refused("expected a folder")) };
                    container.directory = joined(&container.directory, path);
                }
                "COPY" => {
                    let (Some((to, from)), false) =
                        (words.split_last(), rest.contains(['[', '*', '?']) || rest.contains("--"))
                    else {
                        return Err(refused("expected files and a place, and no options"));
                    };
                    if from.is_empty() {
                        return Err(refused("expected files and a place"));
                    }
                    for path in from {
                        let inside = Path::new(path)
                            .components()
                            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
                        if !inside {
                            return Err(refused("expected a path in `environment`"));
                        }
                        container.copies.push((path.into(), place(&container.directory, path, to)));
                    }
                }
                "ENV" => match rest.split_once('=') {
                    Some((name, value)) if !rest.contains('$') && words.len() == 1 => {
                        let value = value.trim_matches('"').to_owned();
                        container.environment.push((name.trim().to_owned(), value));
                    }
                    _ => return Err(refused("expected NAME=VALUE, without other variables")),
                },
                // What Harbor does not run either, and what is only said.
                "CMD" | "ENTRYPOINT" | "LABEL" | "EXPOSE" | "MAINTAINER" => {}
                _ => return Err(refused("needs a container")),
            }
        }
        let folders =
            std::iter::once(&container.directory).chain(container.copies.iter().map(|c| &c.1));
        for folder in folders {
            let root = root(folder);
            if root.is_empty() || SYSTEM.contains(&root) || ["tests", "logs", "tmp"].contains(&root)
            {
                return Err(format!("{folder}: needs a container: it is the system's"));
            }
        }
        Ok(container)
    }

    /// The folders at the top of the file system that it has.
    pub fn roots(&self) -> Vec<&str> {
        let places = self.copies.iter().map(|(_, place)| place);
        let mut roots: Vec<&str> =
            std::iter::once(&self.directory).chain(places).map(|path| root(path)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }
}

/// Where a copy goes: into a folder, by its own name, where the place ends in `/` or is `.`; a folder's
/// contents, and a file under another name, to the place itself.
fn place(directory: &str, from: &str, to: &str) -> String {
    let target = joined(directory, to);
    let name = Path::new(from).file_name().and_then(|name| name.to_str());
    match name.filter(|_| (to.ends_with('/') || to == ".") && Path::new(from).extension().is_some())
    {
        Some(name) => joined(&target, name),
        None => target,
    }
}

/// An absolute path, without its `.`s.
fn joined(directory: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{directory}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The first folder of an absolute path.
fn root(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// The instructions with their first lines' numbers; lines that end in a backslash are joined.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (text, goes_on) = match line.strip_suffix('\\') {
            Some(text) => (text.trim_end(), true),
            None => (line, false),
        };
        match all.last_mut().filter(|_| open) {
            Some((_, instruction)) => *instruction += &format!(" {text}"),
            None => all.push((index + 1, text.to_owned())),
        }
        open = goes_on;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_container_is_read() {
        let text = "# a task\nFROM python:3.12-slim\nWORKDIR /app\nENV MODE=fast\nCOPY data ./data\nCOPY \\\n  notes.txt ./\nCMD [\"bash\"]\n";
        let container = Container::read(text).unwrap();
        assert_eq!(container.directory, "/app");
        let copies =
            [("data".into(), "/app/data".into()), ("notes.txt".into(), "/app/notes.txt".into())];
        assert_eq!(container.copies, copies);
        assert_eq!(container.environment, [("MODE".to_owned(), "fast".to_owned())]);
        assert_eq!(container.roots(), ["app"]);
    }

    #[test]
    fn what_needs_one_is_refused_with_its_line() {
        for (text, words) in [
            ("FROM ubuntu:24.04\nWORKDIR /app\nRUN apt-get install -y gcc", "line 3: `RUN apt-get"),
            ("FROM nvidia/cuda:12.4", "only ubuntu"),
            ("FROM ubuntu AS build", "needs a container"),
            ("FROM ubuntu\nWORKDIR /app\nUSER agent", "line 3"),
            ("FROM ubuntu\nWORKDIR /app\nCOPY --from=build /x /y", "line 3"),
            ("FROM ubuntu\nWORKDIR /app\nCOPY ../secret /app", "in `environment`"),
            ("FROM ubuntu\nWORKDIR /etc/app", "the system's"),
            ("FROM ubuntu\nWORKDIR /app/../tests", "the system's"),
            ("FROM ubuntu", "the system's"),
        ] {
            let error = Container::read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
