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
    pub copies: Vec<Copied>,
    /// Variables.
    pub environment: Vec<(String, String)>,
}

/// A file or a folder that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copied {
    /// What, in `environment/`.
    pub from: PathBuf,
    /// Where to, an absolute path.
    pub to: String,
    /// Whether the place is a folder by the way it is written.
    pub into_folder: bool,
}

impl Container {
    /// Where there is no Dockerfile.
    pub fn plain() -> Self {
        Self { directory: "/app".into(), copies: Vec::new(), environment: Vec::new() }
    }

    /// Reads a Dockerfile. What needs a container is refused with its line.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut container = Self { directory: "/".into(), ..Self::plain() };
        let mut begun = false;
        for (line, instruction) in instructions(text) {
            let refused = |why: &str| format!("line {line}: `{instruction}`: {why}");
            let (word, rest) =
                instruction.split_once(char::is_whitespace).unwrap_or((&instruction, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            match word.to_ascii_uppercase().as_str() {
                "FROM" => {
                    let image = words.first().copied().unwrap_or_default();
                    let name = image.split(['@', ':']).next().unwrap_or_default();
                    let name = name.strip_prefix("docker.io/").unwrap_or(name);
                    let name = name.strip_prefix("library/").unwrap_or(name);
                    if words.len() != 1 || !PLAIN.contains(&name) {
                        let plain = PLAIN.join(", ");
                        return Err(refused(&format!(
                            "needs a container: only {plain} do without"
                        )));
                    }
                    if std::mem::replace(&mut begun, true) {
                        return Err(refused("needs a container: a second stage"));
                    }
                }
                "WORKDIR" => {
                    let [path] = words.as_slice() else { return Err(refused("expected a folder")) };
                    if path.contains(['$', '"', '\'']) {
                        return Err(refused("expected a folder, without variables and quotes"));
                    }
                    container.directory = joined(&container.directory, path);
                }
                "COPY" => {
                    let odd = rest.contains(['[', '*', '?', '$', '"', '\'']) || rest.contains("--");
                    let (Some((to, from)), false) = (words.split_last(), odd) else {
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
                        container.copies.push(Copied {
                            from: path.into(),
                            to: joined(&container.directory, to),
                            into_folder: to.ends_with('/') || to.ends_with('.') || from.len() > 1,
                        });
                    }
                }
                "ENV" => match rest.split_once('=') {
                    Some((name, value))
                        if !rest.contains(['$', '"', '\'', '\\']) && words.len() == 1 =>
                    {
                        container.environment.push((name.trim().to_owned(), value.to_owned()));
                    }
                    _ => return Err(refused("expected NAME=VALUE, without variables and quotes")),
                },
                // What Harbor does not run either, and what is only said.
                "CMD" | "ENTRYPOINT" | "LABEL" | "EXPOSE" | "MAINTAINER" => {}
                _ => return Err(refused("needs a container")),
            }
        }
        let folders = std::iter::once(&container.directory)
            .chain(container.copies.iter().map(|copy| &copy.to));
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
        let places = self.copies.iter().map(|copy| &copy.to);
        let mut roots: Vec<&str> =
            std::iter::once(&self.directory).chain(places).map(|path| root(path)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Whether a place is a folder before anything is copied there: the working folder, or one above
    /// it.
    pub fn has_folder(&self, place: &str) -> bool {
        Path::new(&self.directory).starts_with(place)
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
        let copies: Vec<(&str, &str, bool)> = container
            .copies
            .iter()
            .map(|copy| (copy.from.to_str().unwrap(), copy.to.as_str(), copy.into_folder))
            .collect();
        assert_eq!(copies, [("data", "/app/data", false), ("notes.txt", "/app", true)]);
        assert!(container.has_folder("/app") && !container.has_folder("/app/data"));
        assert_eq!(container.environment, [("MODE".to_owned(), "fast".to_owned())]);
        assert_eq!(container.roots(), ["app"]);
    }

    #[test]
    fn what_needs_one_is_refused_with_its_line() {
        for (text, words) in [
            ("FROM ubuntu:24.04\nWORKDIR /app\nRUN apt-get install -y gcc", "line 3: `RUN apt-get"),
            ("FROM nvidia/cuda:12.4", "only ubuntu"),
            ("FROM ghcr.io/somebody/ubuntu", "only ubuntu"),
            ("FROM ubuntu\nFROM debian", "line 2: `FROM debian`: needs a container: a second"),
            ("FROM ubuntu\nWORKDIR $HOME", "without variables"),
            ("FROM ubuntu\nENV A='b'", "without variables and quotes"),
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
