//! A task's folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use posttrain_reward::code::Workspace;
use serde::Deserialize;

use super::container::Container;

/// Why a folder is no task that can be run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarborError {
    /// A file cannot be read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `task.toml` is not as Harbor has it.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The task needs what a sandbox is not: a container, a GPU, several steps.
    #[error("{path}: {reason}")]
    NeedsContainer {
        /// The file that says so.
        path: PathBuf,
        /// What it needs.
        reason: String,
    },
}

/// A task folder in Harbor's format (schema 1.0 to 1.4), as far as it needs no container:
/// `task.toml`, `instruction.md`, `tests/test.sh`, and `environment/` without a Dockerfile or with one that
/// only places files.
///
/// Numbers of processors, memory and disk are not enforced by what the task says, but by the
/// sandbox's limits; there is no network, whatever the task allows; nothing is built, so that
/// `build_timeout_sec` bounds nothing.
#[derive(Debug)]
pub struct HarborTask {
    folder: PathBuf,
    name: String,
    instruction: String,
    tests: PathBuf,
    container: Container,
    verifier_environment: Vec<(String, String)>,
    agent_seconds: Option<f64>,
    verifier_seconds: Option<f64>,
    workspace: Workspace,
}

/// What is read of `task.toml`. What only describes is taken as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "what only describes is taken and not used")]
struct Written {
    version: Option<String>,
    schema_version: Option<String>,
    source: Option<toml::Value>,
    task: Option<toml::Table>,
    metadata: Option<toml::Table>,
    verifier: Verifier,
    agent: Agent,
    environment: Environment,
    solution: Option<toml::Table>,
    steps: Option<toml::Value>,
    artifacts: Option<Vec<toml::Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Verifier {
    timeout_sec: Option<f64>,
    env: BTreeMap<String, String>,
    user: Option<String>,
    environment_mode: Option<String>,
    environment: Option<toml::Value>,
    collect: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Agent {
    timeout_sec: Option<f64>,
    user: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "what only describes is taken and not used")]
struct Environment {
    build_timeout_sec: Option<f64>,
    docker_image: Option<String>,
    os: Option<String>,
    cpus: Option<toml::Value>,
    memory: Option<toml::Value>,
    memory_mb: Option<toml::Value>,
    storage: Option<toml::Value>,
    storage_mb: Option<toml::Value>,
    gpus: Option<u32>,
    gpu_types: Option<Vec<String>>,
    allow_internet: Option<bool>,
    network_mode: Option<String>,
    env: BTreeMap<String, String>,
    mcp_servers: Option<Vec<toml::Value>>,
    skills_dir: Option<String>,
    healthcheck: Option<toml::Value>,
    workdir: Option<String>,
}

impl HarborTask {
    /// Reads a task's folder.
    ///
    /// # Errors
    /// Names the file, the field or line, and what it needs that a sandbox is not.
    pub fn open(folder: &Path) -> Result<Self, HarborError> {
        let path = folder.join("task.toml");
        let written: Written = toml::from_str(&read(&path)?).map_err(|error| {
            HarborError::Config { path: path.clone(), reason: error.message().to_owned() }
        })?;
        written.check(&path)?;

        let context = folder.join("environment");
        let compose = ["docker-compose.yaml", "docker-compose.yml", "compose.yaml"];
        if let Some(file) = compose.iter().map(|name| context.join(name)).find(|file| file.exists())
        {
            let reason = "several services need containers".to_owned();
            return Err(HarborError::NeedsContainer { path: file, reason });
        }
        let ignored = context.join(".dockerignore");
        if ignored.exists() {
            let reason = "what it leaves out of a container is not left out here".to_owned();
            return Err(HarborError::NeedsContainer { path: ignored, reason });
        }
        let dockerfile = context.join("Dockerfile");
        let mut container = match dockerfile.exists() {
            false => Container::plain(),
            true => Container::read(&read(&dockerfile)?)
                .map_err(|reason| HarborError::NeedsContainer { path: dockerfile, reason })?,
        };
        container.environment.extend(written.environment.env.clone());

        let tests = folder.join("tests");
        let script = tests.join("test.sh");
        if !script.is_file() {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(HarborError::Io { path: script, source });
        }
        let mut verifier_environment = container.environment.clone();
        verifier_environment.extend(written.verifier.env);
        let name =
            folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Self {
            folder: folder.to_owned(),
            name,
            instruction: read(&folder.join("instruction.md"))?,
            tests,
            workspace: workspace(&container, &context)?,
            container,
            verifier_environment,
            agent_seconds: written.agent.timeout_sec,
            verifier_seconds: written.verifier.timeout_sec,
        })
    }

    /// Its folder's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the policy reads.
    #[must_use]
    pub fn instruction(&self) -> &str {
        &self.instruction
    }

    /// Seconds that the policy may take in all (`[agent] timeout_sec`).
    #[must_use]
    pub fn agent_seconds(&self) -> Option<f64> {
        self.agent_seconds
    }

    /// Seconds that the tests may take (`[verifier] timeout_sec`).
    #[must_use]
    pub fn verifier_seconds(&self) -> Option<f64> {
        self.verifier_seconds
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn tests(&self) -> &Path {
        &self.tests
    }

    pub(super) fn directory(&self) -> &str {
        &self.container.directory
    }

    pub(super) fn environment(&self) -> &[(String, String)] {
        &self.container.environment
    }

    pub(super) fn verifier_environment(&self) -> &[(String, String)] {
        &self.verifier_environment
    }

    pub(super) fn workspace(&self) -> &Workspace {
        &self.workspace
    }
}

impl Written {
    /// Refuses what a sandbox cannot give.
    fn check(&self, path: &Path) -> Result<(), HarborError> {
        let needs = |reason: &str| {
            Err(HarborError::NeedsContainer { path: path.into(), reason: reason.to_owned() })
        };
        let environment = &self.environment;
        let (verifier, agent) = (&self.verifier, &self.agent);
        let versions = [&self.version, &self.schema_version];
        let known = |version: &str| ["1.0", "1.1", "1.2", "1.3", "1.4"].contains(&version);
        if let Some(version) = versions.into_iter().flatten().find(|version| !known(version)) {
            return needs(&format!("a task of schema {version}: 1.0 to 1.4 are read"));
        }
        let variables = environment.env.iter().chain(&verifier.env);
        if let Some((name, _)) = variables.into_iter().find(|(_, value)| value.contains("${")) {
            return needs(&format!("`env.{name}`: other variables are not filled in"));
        }
        if self.steps.is_some() {
            return needs("`steps`: a task of several steps is not taken");
        }
        if self.artifacts.as_ref().is_some_and(|artifacts| !artifacts.is_empty()) {
            return needs("`artifacts`: nothing is copied out of the sandbox");
        }
        if environment.docker_image.is_some() {
            return needs("`environment.docker_image`: an image needs a container");
        }
        if environment.os.as_deref().is_some_and(|os| os != "linux") {
            return needs("`environment.os`: expected \"linux\"");
        }
        if environment.gpus.is_some_and(|gpus| gpus > 0) {
            return needs("`environment.gpus`: a sandbox has none");
        }
        let others = [
            ("mcp_servers", environment.mcp_servers.as_ref().is_some_and(|all| !all.is_empty())),
            ("skills_dir", environment.skills_dir.is_some()),
            ("healthcheck", environment.healthcheck.is_some()),
            ("workdir", environment.workdir.is_some()),
        ];
        if let Some((field, _)) = others.into_iter().find(|(_, given)| *given) {
            return needs(&format!("`environment.{field}`: needs a container"));
        }
        let mode = verifier.environment_mode.as_deref().unwrap_or("shared");
        if mode != "shared" || verifier.environment.is_some() || verifier.collect.is_some() {
            return needs(
                "`verifier.environment_mode`: tests in a container of their own are not run",
            );
        }
        let users = [("agent.user", &agent.user), ("verifier.user", &verifier.user)];
        if let Some((field, _)) = users.iter().find(|(_, user)| user.is_some()) {
            return needs(&format!("`{field}`: programs of a sandbox are nobody's"));
        }
        let seconds = [
            ("agent.timeout_sec", agent.timeout_sec),
            ("verifier.timeout_sec", verifier.timeout_sec),
        ];
        for (field, value) in seconds {
            if value.is_some_and(|value| !(value.is_finite() && value > 0.0)) {
                let reason = format!("`{field}`: expected seconds above 0, got {value:?}");
                return Err(HarborError::Config { path: path.into(), reason });
            }
        }
        Ok(())
    }
}

/// The files as the policy finds them.
fn workspace(container: &Container, context: &Path) -> Result<Workspace, HarborError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HarborError::Io { path, source }
    };
    let mut roots = container.roots();
    roots.push("logs");
    let mut workspace = Workspace::new(&roots).map_err(failed(context))?;
    for copy in &container.copies {
        let from = context.join(&copy.from);
        let found = fs::symlink_metadata(&from).map_err(failed(&from))?;
        let to = copy.to.trim_start_matches('/');
        if found.is_dir() {
            workspace.add_folder(to, &from).map_err(failed(&from))?;
        } else if found.is_file() {
            // Into a folder, where the place is one; else under the name that the place is.
            let name = copy.from.file_name().map(|name| name.to_string_lossy());
            let to = match name.filter(|_| copy.into_folder || container.has_folder(&copy.to)) {
                Some(name) => format!("{to}/{name}"),
                None => to.to_owned(),
            };
            let contents = fs::read(&from).map_err(failed(&from))?;
            workspace.add_file(&to, &contents).map_err(failed(&from))?;
        } else {
            let reason = "a link: expected a file or a folder".to_owned();
            return Err(HarborError::NeedsContainer { path: from, reason });
        }
    }
    Ok(workspace)
}

fn read(path: &Path) -> Result<String, HarborError> {
    fs::read_to_string(path).map_err(|source| HarborError::Io { path: path.to_owned(), source })
}
