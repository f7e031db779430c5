//! `four_models` as jobs of a cluster: what the cluster would be given.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

const OUT: &str = "runs/never";

/// Its output, or what it says on standard error; nothing where the program is not built, as by
/// `cargo test --test`.
fn dry_run(out: &str, more: &[&str]) -> Option<Result<String, String>> {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile.join("examples/four_models");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    if !program.exists() {
        eprintln!("SKIPPED: {} is not built", program.display());
        return None;
    }
    let output = Command::new(program)
        .current_dir(root)
        .args(["--config", "examples/configs/demo.toml", "--out", out, "--dry-run"])
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    })
}

fn cluster(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn slurm_is_given_an_array_and_a_report() {
    let asked = cluster("cpus = 2\nat_a_time = 2\n");
    let path = asked.path().to_str().unwrap();
    let Some(text) = dry_run(OUT, &["--launch", "slurm", "--cluster", path]) else { return };
    let text = text.unwrap();
    assert!(text.contains("#SBATCH --array=0-3%2"), "{text}");
    assert!(text.contains("--report"), "{text}");

    let alone = dry_run(OUT, &["--cluster", path]).unwrap().unwrap_err();
    assert!(alone.contains("--launch slurm or kubernetes"), "{alone}");
    let arm = dry_run(OUT, &["--launch", "slurm", "--arm", "math"]).unwrap().unwrap_err();
    assert!(arm.contains("none of --arm"), "{arm}");
}

#[cfg(feature = "kubernetes")]
#[test]
fn kubernetes_is_given_a_job_for_each_arm() {
    let asked = cluster("image = \"registry.example/posttrain:1\"\nclaim = \"runs\"\ngpus = 1\n");
    let path = asked.path().to_str().unwrap();
    let Some(text) = dry_run(OUT, &["--launch", "kubernetes", "--cluster", path]) else { return };
    let text = text.unwrap();
    let manifest = &text[text.find("\n{").unwrap()..];
    let list: serde_json::Value = serde_json::from_str(manifest).unwrap();
    let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    let jobs = list["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "Job");
    let names: Vec<String> = jobs.map(name).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&"posttrain-generalist".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "posttrain-report");

    let none = dry_run(OUT, &["--launch", "kubernetes"]).unwrap().unwrap_err();
    assert!(none.contains("--cluster FILE"), "{none}");
    let elsewhere = cluster("image = \"i\"\nclaim = \"runs\"\n");
    let more = ["--launch", "kubernetes", "--cluster", elsewhere.path().to_str().unwrap()];
    let beyond = dry_run("/elsewhere", &more).unwrap().unwrap_err();
    assert!(beyond.contains("--out"), "{beyond}");
}
