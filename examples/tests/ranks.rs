//! `rlvr` by one process and by several, as torchrun starts them: one run's files, and one run's
//! numbers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A torchrun of torch 2.13, in place of the one on the path.
const TORCHRUN: &str = "POSTTRAIN_TORCHRUN";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// The example, which `cargo test` builds before it runs any test; `cargo test --test` does not.
fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let profile: PathBuf = test.parent().unwrap().parent().unwrap().into();
    let program = profile.join("examples/rlvr");
    if !program.exists() {
        println!("SKIPPED: {} is not built: `cargo test --workspace` does", program.display());
    }
    program.exists().then_some(program)
}

/// A run of seconds.
fn config(folder: &Path) -> PathBuf {
    let path = folder.join("run.toml");
    let text = r#"
        name = "math"
        domain = "math"
        model = { path = ".models/SmolLM2-135M-Instruct.Q4_1.gguf", device = "cpu", kind = "f32" }
        data = { dataset = "sciences", seed = 7, sizes = { train = 40, validation = 4, test = 4 } }

        [rl]
        seed = 7
        steps = 3
        prompts = 3
        group_size = 2
        learning_rate = 1e-4
        checkpoint_every = 1
        lora = { rank = 8, alpha = 8.0 }
        engine = { max_rows = 2 }
        sampling = { max_tokens = 6 }
        evaluation = { every = 3 }
    "#;
    std::fs::write(&path, text).unwrap();
    path
}

fn command(program: &Path, config: &Path, out: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("OMP_NUM_THREADS", "1").arg("--config").arg(config);
    command.arg("--out").arg(out).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// So many ranks, with torchrun's variables set as it sets them.
fn ranks(size: usize, mut command: impl FnMut() -> Command) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| -> Child {
        let mut command = command();
        for (name, value) in [
            ("WORLD_SIZE", size.to_string()),
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("MASTER_ADDR", "127.0.0.1".into()),
            ("MASTER_PORT", port.to_string()),
        ] {
            command.env(name, value);
        }
        command.spawn().unwrap()
    };
    let children: Vec<Child> = (0..size).map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn ended_well(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Each step's gradient norm and reward.
fn steps(out: &Path) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(out.join("math/metrics.jsonl")).unwrap();
    let number = |line: &str, field: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line[field].as_f64().unwrap_or(0.0)
    };
    text.lines().map(|line| (number(line, "grad_norm"), number(line, "reward"))).collect()
}

fn same(one: &Path, other: &Path) {
    let (one, other) = (steps(one), steps(other));
    assert_eq!((one.len(), other.len()), (3, 3));
    for (one, other) in one.iter().zip(&other) {
        assert!((one.0 - other.0).abs() <= 1e-4 * one.0.max(1e-6), "{one:?} and {other:?}");
        assert_eq!(one.1, other.1);
    }
}

#[test]
fn several_processes_make_one_run() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let [alone, two] = ["alone", "two"].map(|name| dir.path().join(name));
    ended_well(&command(&program, &config, &alone).output().unwrap());
    let outputs = ranks(2, || command(&program, &config, &two));
    outputs.iter().for_each(ended_well);
    same(&alone, &two);
    // Only the leader tells, and there is one summary.
    assert!(String::from_utf8_lossy(&outputs[0].stdout).contains("before"));
    assert!(outputs[1].stdout.is_empty());
    assert!(two.join("summary.json").exists() && two.join("report.html").exists());

    let outputs = ranks(2, || {
        let mut other = command(&program, &config, &dir.path().join("refused"));
        other.arg("--rank-timeout=-1");
        other
    });
    let said = String::from_utf8_lossy(&outputs[0].stderr).into_owned();
    assert!(!outputs[0].status.success() && said.contains("--rank-timeout"), "{said}");

    torchrun(&program, &config, (&alone, &dir.path().join("torchrun")));
}

/// The same by the real torchrun, where there is one.
fn torchrun(program: &Path, config: &Path, (alone, out): (&Path, &Path)) {
    let torchrun = std::env::var(TORCHRUN).unwrap_or_else(|_| "torchrun".into());
    let mut started = Command::new(&torchrun);
    started.current_dir(root()).args(["--nproc-per-node", "2", "--no-python"]).arg(program);
    started.arg("--config").arg(config).arg("--out").arg(out);
    match started.output() {
        Ok(output) => ended_well(&output),
        Err(error) => {
            println!("SKIPPED: {torchrun}: {error}: {TORCHRUN} names a torchrun of torch 2.13");
            return;
        }
    }
    same(alone, out);
}
