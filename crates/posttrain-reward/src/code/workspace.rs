//! A folder that commands work on, one after another, each in a sandbox of its own.

use std::fs;
use std::io;
use std::path::Path;

use crate::sandbox::Job;

/// Unpacks, runs, packs: DIRECTORY NAMES PROGRAM...
const SCRIPT: &str = include_str!("workspace.sh");

/// The archive that comes out.
const ARCHIVE: &str = ".workspace.tar";

/// Files that commands find, change, and leave to the next
/// ([`CodeExecution::command`](crate::code::CodeExecution::command)). They are kept as an archive that
/// nothing but a sandbox unpacks: a program's links and names lead nowhere outside.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// Folders that stand at the top of the file system.
    roots: Vec<String>,
    /// Unpacked in this order.
    archives: Vec<Vec<u8>>,
}

impl Workspace {
    /// One whose folders of these names stand at the top of the file system for its commands
    /// (`app` is `/app`), and are all that is kept. Only user namespaces can do that: elsewhere its
    /// commands fail.
    ///
    /// # Errors
    /// A name that is no plain folder's.
    pub fn with_roots(roots: &[&str]) -> io::Result<Self> {
        let plain = |name: &&str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        match roots.iter().find(|name| !plain(name)) {
            None => Ok(Self {
                roots: roots.iter().map(|&name| name.to_owned()).collect(),
                archives: Vec::new(),
            }),
            Some(name) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name}: expected a folder's name of letters, digits, `_` and `-`"),
            )),
        }
    }

    /// One more folder at the top of the file system.
    ///
    /// # Errors
    /// Those of [`Workspace::with_roots`].
    pub fn add_root(&mut self, root: &str) -> io::Result<()> {
        let roots = Self::with_roots(&[root])?.roots;
        self.roots.extend(roots);
        Ok(())
    }

    /// A file, at a path in the workspace.
    ///
    /// # Errors
    /// A path that leads out of it.
    pub fn add_file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, contents)?;
        self.archives.push(builder.into_inner()?);
        Ok(())
    }

    /// A folder with all that is in it, at a path in the workspace; its links as links.
    ///
    /// # Errors
    /// Names what cannot be read.
    pub fn add_folder(&mut self, path: &str, folder: &Path) -> io::Result<()> {
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

    /// What unpacks the files, runs a program in `directory`, and packs them again.
    pub(super) fn job(&self, directory: &str, program: Vec<String>) -> Job {
        let names = self.roots.join(" ");
        let mut words: Vec<String> =
            ["sh", "-c", SCRIPT, "workspace.sh", directory, &names].map(str::to_owned).to_vec();
        words.extend(program);
        let numbered = self.archives.iter().enumerate();
        let files = numbered.map(|(index, bytes)| (format!(".in-{index:06}.tar"), bytes.clone()));
        Job {
            program: words,
            files: files.collect(),
            output: ARCHIVE.to_owned(),
            roots: self.roots.clone(),
            ..Job::default()
        }
    }

    /// What a command has left.
    pub(super) fn replace(&mut self, archive: Vec<u8>) {
        self.archives = vec![archive];
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRun {
    /// What it wrote, to standard output and standard error.
    pub output: String,
    /// Its exit code; none where a limit or a signal ended it.
    pub exit: Option<i32>,
    /// Whether what it changed is kept.
    pub kept: bool,
    /// What ended it, or why nothing is kept.
    pub ended_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{CodeExecution, CodeExecutionConfig};
    use crate::outside::ResourceLimits;

    fn shell(config: CodeExecutionConfig) -> CodeExecution {
        CodeExecutionConfig { interpreter: vec!["sh".into()], ..config }.build().unwrap()
    }

    fn run(code: &CodeExecution, workspace: &mut Workspace, command: &str) -> CommandRun {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(code.command(workspace, ".", &[], command)).unwrap()
    }

    #[test]
    fn what_one_command_leaves_the_next_finds() {
        let code = shell(CodeExecutionConfig::default());
        let mut workspace = Workspace::default();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/file"), "there").unwrap();
        workspace.add_folder("given", folder.path()).unwrap();
        let first =
            run(&code, &mut workspace, "cat given/deep/file; mkdir own; echo 1 > own/number");
        assert_eq!((first.output.as_str(), first.kept), ("there", true));
        let second =
            run(&code, &mut workspace, "rm -r given; cat own/number; ls; echo no >&2; false");
        assert_eq!((second.output.as_str(), second.exit), ("1\nown\nno\n", Some(1)));
        assert!(workspace.add_file("../out", b"").is_err());
    }

    #[test]
    fn a_command_that_is_ended_changes_nothing() {
        let limits =
            ResourceLimits { cpu_seconds: Some(1), ..CodeExecutionConfig::default().limits };
        let code = shell(CodeExecutionConfig {
            limits,
            max_folder_bytes: 1 << 20,
            ..CodeExecutionConfig::default()
        });
        let mut workspace = Workspace::default();
        workspace.add_file("file", b"before").unwrap();
        let endless = run(&code, &mut workspace, "echo after > file; while :; do :; done");
        assert!(
            !endless.kept && endless.exit.is_none() && endless.ended_by.is_some(),
            "{endless:?}"
        );
        let full = run(&code, &mut workspace, "echo after > file; head -c 3000000 /dev/zero > big");
        assert!(!full.kept, "{full:?}");
        assert_eq!(run(&code, &mut workspace, "cat file").output, "before");
    }

    #[test]
    fn its_folders_stand_at_the_top_of_the_file_system() {
        let code = shell(CodeExecutionConfig::default());
        assert!(Workspace::with_roots(&["../etc"]).is_err());
        if !code.isolation().files {
            println!("SKIPPED: this machine allows no user namespaces");
            return;
        }
        let mut workspace = Workspace::with_roots(&["app", "logs"]).unwrap();
        workspace.add_file("app/given", b"given").unwrap();
        let first = run(
            &code,
            &mut workspace,
            "cat /app/given; echo kept > /app/own; mkdir -p /logs/deep; echo x > /elsewhere; ls /usr > /dev/null && echo usr",
        );
        assert!(first.output.starts_with("given") && first.output.ends_with("usr\n"), "{first:?}");
        let second = run(&code, &mut workspace, "cat /app/own; ls -d /logs/deep; ls /elsewhere");
        assert!(second.output.starts_with("kept\n/logs/deep\n"), "{second:?}");
        assert_ne!(second.exit, Some(0));
        // A folder of the machine's own of that name is not seen.
        let root = run(&code, &mut Workspace::with_roots(&["root"]).unwrap(), "ls -A /root");
        assert_eq!((root.output.as_str(), root.exit), ("", Some(0)), "{root:?}");
    }
}
