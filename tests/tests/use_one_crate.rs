//! What `docs/use-one-crate.md` promises: someone with a project of their own adds a crate, says
//! where libtorch is in the one file that the page shows, and builds and runs the page's programs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::workspace;

/// The programs of the page, by the crate that each is about.
const PROGRAMS: [&str; 5] = ["answer", "loss", "lora", "reward", "router"];

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/use-one-crate.md")).unwrap()
}

/// The first block of the page that begins with a fence of this kind and holds `marker`.
fn block(page: &str, fence: &str, marker: &str) -> String {
    let opening = format!("```{fence}\n");
    let mut blocks = page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
    let found = blocks.find(|block| block.contains(marker));
    found.unwrap_or_else(|| panic!("the page has no {fence} with {marker}")).to_owned()
}

/// Where the libtorch is that this test was built with.
fn libtorch() -> PathBuf {
    let named = std::env::var_os("LIBTORCH").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| workspace().join(".libtorch"));
    workspace().join(folder).canonicalize().unwrap()
}

/// A project outside of the workspace that has the page's programs as its own.
fn project(folder: &Path) {
    let page = page();
    let mut manifest = String::from(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\ntch = \"0.26\"\n",
    );
    let crates = workspace().join("crates");
    for name in ["posttrain-optim"]
        .into_iter()
        .map(String::from)
        .chain(PROGRAMS.map(|name| format!("posttrain-{name}")))
    {
        writeln!(manifest, "{name} = {{ path = {:?} }}", crates.join(&name)).unwrap();
    }
    manifest += "\n[workspace]\n";

    std::fs::create_dir_all(folder.join("src/bin")).unwrap();
    std::fs::create_dir_all(folder.join(".cargo")).unwrap();
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    // The versions that the workspace is tested with.
    std::fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    for name in PROGRAMS {
        let program = block(&page, &format!("rust,{name}"), "fn main");
        std::fs::write(folder.join(format!("src/bin/{name}.rs")), program).unwrap();
    }
    let config =
        block(&page, "toml", "[env]").replace("/path/to/libtorch", &libtorch().to_string_lossy());
    std::fs::write(folder.join(".cargo/config.toml"), config).unwrap();
}

#[test]
fn a_project_of_ones_own_builds_and_runs_what_the_page_shows() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());

    // Beside the workspace's own builds, so that it is quick the second time; nothing of this
    // process's settings reaches it.
    let target = workspace().join("target/stranger");
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(folder.path()).args(arguments).env("CARGO_TARGET_DIR", &target);
        for variable in [
            "LIBTORCH",
            "LD_LIBRARY_PATH",
            "DYLD_LIBRARY_PATH",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            cargo.env_remove(variable);
        }
        cargo
    };
    let built = cargo(&["build", "--bins"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    for name in PROGRAMS {
        let mut program = Command::new(target.join("debug").join(name));
        program.env_remove("LD_LIBRARY_PATH").env_remove("DYLD_LIBRARY_PATH");
        let ran = program.output().unwrap();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn each_program_is_short() {
    let page = page();
    for name in PROGRAMS {
        let lines = block(&page, &format!("rust,{name}"), "fn main").lines().count();
        assert!(lines <= 26, "{name}: {lines} lines");
    }
}
