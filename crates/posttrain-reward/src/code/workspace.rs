//! Folders that commands work in, one after another, each in a sandbox of its own.

use std::fs;
use std::io;
use std::path::Path;

use crate::sandbox::{Job, Work};

/// Folders at the top of the file system (`app` is `/app`) whose files commands find, change, and leave
/// to the next ([`CodeExecution::command`](crate::code::CodeExecution::command)). Everything else of the
/// machine stands around them as it is, and cannot be written to.
///
/// The files are kept as an archive that nothing but a sandbox unpacks: a program's links and names
/// lead nowhere outside. Only user namespaces can do that: where they are not allowed, commands fail.
#[derive(Debug, Clone)]
pub struct Workspace {
    roots: Vec<String>,
    /// Unpacked in this order; the first is what the last command left, once there was one.
    archives: Vec<Vec<u8>>,
    /// Folders of the first archive that are left out.
    without: Vec<String>,
}

impl Workspace {
    /// One with folders of these names, at least one.
    ///
    /// # Errors
    /// A name that is no plain folder's.
    pub fn new(roots: &[&str]) -> io::Result<Self> {
        let plain = |name: &&&str| {
            let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            name.is_empty() || name.starts_with('-') || !name.bytes().all(letters)
        };
        if let Some(name) = roots.iter().find(plain).or(roots.is_empty().then_some(&"")) {
            let expected = "a folder's name of letters, digits, `_` and `-`";
            return Err(invalid(format!("expected {expected}, got `{name}`")));
        }
        let roots = roots.iter().map(|&name| name.to_owned()).collect();
        Ok(Self { roots, archives: Vec::new(), without: Vec::new() })
    }

    /// The same with a folder that is anew: nothing of what commands left there, but what is added
    /// from now on.
    ///
    /// # Errors
    /// Those of [`Workspace::new`].
    pub fn with_fresh(mut self, root: &str) -> io::Result<Self> {
        let fresh = Self::new(&[root])?.roots;
        if !self.roots.contains(&fresh[0]) {
            self.roots.extend(fresh.clone());
        }
        self.without.extend(fresh);
        Ok(self)
    }

    /// A file, at a path in one of the folders (`app/notes.txt`).
    ///
    /// # Errors
    /// A path that is in none of them.
    pub fn add_file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.check(path)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, contents)?;
        self.archives.push(builder.into_inner()?);
        Ok(())
    }

    /// A folder with all that is in it, at a path in one of the folders; its links as links.
    ///
    /// # Errors
    /// A path that is in none of them; names what cannot be read.
    pub fn add_folder(&mut self, path: &str, folder: &Path) -> io::Result<()> {
        self.check(path)?;
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
        };
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        fs::metadata(folder).map_err(named)?;
        builder.append_dir_all(path, folder).map_err(named)?;
        self.archives.push(builder.into_inner()?);
        Ok(())
    }

    fn check(&self, path: &str) -> io::Result<()> {
        let root = path.split('/').next().unwrap_or_default();
        match self.roots.iter().any(|known| known == root)
            && !path.split('/').any(|part| part == "..")
        {
            true => Ok(()),
            false => {
                Err(invalid(format!("expected a path in {}, got `{path}`", self.roots.join(", "))))
            }
        }
    }

    /// What runs a program that begins in `directory`.
    pub(super) fn job(&self, directory: &str, program: Vec<String>) -> Job {
        let numbered = self.archives.iter().enumerate();
        let files = numbered.map(|(index, bytes)| (format!("{index:06}.tar"), bytes.clone()));
        let work = Work {
            roots: self.roots.clone(),
            directory: directory.to_owned(),
            without: self.without.clone(),
        };
        Job { program, files: files.collect(), work: Some(work), ..Job::default() }
    }

    /// What a command has left.
    pub(super) fn replace(&mut self, archive: Vec<u8>) {
        self.archives = vec![archive];
        self.without.clear();
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRun {
    /// What it wrote, to standard output and standard error.
    pub output: String,
    /// Its exit code (128 and the signal's number where a signal ended it); none where a limit of time
    /// or output did.
    pub exit: Option<i32>,
    /// Whether what it changed is kept.
    pub kept: bool,
    /// Which limit ended it, or why nothing is kept.
    pub ended_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{CodeExecution, CodeExecutionConfig};
    use crate::outside::ResourceLimits;

    /// A shell whose commands stand apart; nothing where the machine allows none.
    fn shell(config: CodeExecutionConfig) -> Option<CodeExecution> {
        let shell =
            CodeExecutionConfig { interpreter: vec!["sh".into()], ..config }.build().unwrap();
        if !shell.isolation().files {
            println!("SKIPPED: this machine allows no user namespaces");
            return None;
        }
        Some(shell)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn run(code: &CodeExecution, workspace: &mut Workspace, command: &str) -> CommandRun {
        block_on(code.command(workspace, "/app", &[], command)).unwrap()
    }

    #[test]
    fn what_one_command_leaves_the_next_finds() {
        let Some(code) = shell(CodeExecutionConfig::default()) else { return };
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/file"), "there").unwrap();
        let mut workspace = Workspace::new(&["app", "logs"]).unwrap();
        workspace.add_folder("app/given", folder.path()).unwrap();

        let first = run(
            &code,
            &mut workspace,
            "cat given/deep/file; echo 1 > /logs/number; ls /usr > /dev/null",
        );
        assert_eq!((first.output.as_str(), first.exit, first.kept), ("there", Some(0), true));
        let second = run(
            &code,
            &mut workspace,
            "rm -r given; cat /logs/number; ls /app /tmp; echo no >&2; echo x > /elsewhere; kill -9 $$",
        );
        assert!(second.output.starts_with("1\n/app:\n\n/tmp:\nno\n"), "{second:?}");
        assert_eq!((second.exit, second.kept), (Some(137), true));
        // What is written elsewhere is not there, and what was removed is gone.
        let third = run(&code, &mut workspace, "ls /elsewhere given; cat /logs/number");
        assert!(third.output.ends_with("1\n") && third.output.matches("No such").count() == 2);
        // A folder of the machine's own of that name is not seen.
        let mut root = Workspace::new(&["root", "app"]).unwrap();
        assert_eq!(run(&code, &mut root, "ls -A /root").output, "");
    }

    #[test]
    fn whatever_a_command_leaves_the_next_runs() {
        let Some(code) = shell(CodeExecutionConfig::default()) else { return };
        let mut workspace = Workspace::new(&["app", "logs"]).unwrap();
        let hostile = [
            "mkdir -p deep/er; touch deep/er/file; chmod -R 000 deep; chmod 555 /app /logs",
            "rm -rf /app/* /app; ln -s /etc /app; ln -s /etc/passwd link; mkfifo fifo",
            "touch -- -rf --exclude=x 000000.tar packed.tar \"$(printf 'a\\nb')\"",
            "(setsid sh -c 'sleep 1; touch /app/late' > /dev/null 2>&1 &) ; true",
        ];
        for command in hostile {
            let left = run(&code, &mut workspace, command);
            assert!(left.kept, "{command}: {left:?}");
            let next = run(&code, &mut workspace, "echo fine; ls late 2> /dev/null");
            assert_eq!(next.output, "fine\n", "{command}");
        }
        // What is fresh has nothing of it, and what is added is as it was added.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("test.sh"), "echo tested").unwrap();
        run(
            &code,
            &mut workspace,
            "mkdir -p /logs/verifier; echo 1 > /logs/reward; chmod -R 555 /logs",
        );
        let mut tests = workspace.with_fresh("logs").unwrap().with_fresh("tests").unwrap();
        tests.add_folder("tests", folder.path()).unwrap();
        let command = "sh /tests/test.sh; ls -A /logs; echo 7 > /logs/out";
        let (ran, out) =
            block_on(code.inspect(&tests, "/app", &[], (command, "logs/out"))).unwrap();
        assert_eq!((ran.output.as_str(), out.as_slice()), ("tested\n", b"7\n".as_slice()));
    }

    #[test]
    fn a_command_that_a_limit_ends_changes_nothing() {
        let limits =
            ResourceLimits { cpu_seconds: Some(1), ..CodeExecutionConfig::default().limits };
        let config = CodeExecutionConfig {
            limits,
            time_limit_seconds: 3.0,
            max_folder_bytes: 1 << 20,
            max_stdout_bytes: 10_000,
            ..CodeExecutionConfig::default()
        };
        let Some(code) = shell(config) else { return };
        let mut workspace = Workspace::new(&["app"]).unwrap();
        workspace.add_file("app/file", b"before").unwrap();
        for command in ["sleep 60", "head -c 100000 /dev/zero", "head -c 700000 /dev/zero > big"] {
            let ended = run(&code, &mut workspace, &format!("echo after > file; {command}"));
            assert!(!ended.kept && ended.ended_by.is_some(), "{command}: {ended:?}");
            assert_eq!(run(&code, &mut workspace, "cat file").output, "before", "{command}");
        }
    }

    #[test]
    fn what_is_hidden_is_not_found() {
        let folder = tempfile::Builder::new().prefix("hidden-").tempdir_in("/var/tmp");
        let Ok(folder) = folder else { return };
        fs::write(folder.path().join("solution"), "the answer").unwrap();
        let hidden = vec![folder.path().to_owned()];
        let config = CodeExecutionConfig { hidden, ..CodeExecutionConfig::default() };
        let Some(code) = shell(config) else { return };
        let look =
            format!("cat {}/solution; ls -A {}", folder.path().display(), folder.path().display());
        let mut workspace = Workspace::new(&["app"]).unwrap();
        let ran = run(&code, &mut workspace, &look);
        assert!(
            ran.output.contains("No such file") && !ran.output.contains("the answer"),
            "{ran:?}"
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for roots in [["../etc"].as_slice(), &[""], &["a b"], &["-x"], &[]] {
            assert!(Workspace::new(roots).is_err(), "{roots:?}");
        }
        let mut workspace = Workspace::new(&["app"]).unwrap();
        for path in ["../out", "app/../out", "etc/passwd", "/app/file"] {
            assert!(workspace.add_file(path, b"").is_err(), "{path}");
        }
        let relative =
            CodeExecutionConfig { hidden: vec!["tests".into()], ..CodeExecutionConfig::default() };
        assert!(relative.validate().is_err());
    }
}
