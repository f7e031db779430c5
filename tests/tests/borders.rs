//! The architecture's invariants, which are absences: what a crate must not depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tests::workspace;

/// Every package's direct dependencies but those for its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = workspace().join("Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--offline", "--manifest-path"]).arg(manifest);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_string();
    let normal = |p: &serde_json::Value| {
        let all = p["dependencies"].as_array().unwrap().iter();
        all.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
    };
    metadata["packages"].as_array().unwrap().iter().map(|p| (text(&p["name"]), normal(p))).collect()
}

/// Everything that `package` depends on, directly or not.
fn reach(all: &BTreeMap<String, BTreeSet<String>>, package: &str) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![package.to_string()]);
    while let Some(name) = open.pop() {
        for dependency in all.get(&name).into_iter().flatten() {
            if seen.insert(dependency.clone()) {
                open.push(dependency.clone());
            }
        }
    }
    seen
}

#[test]
fn data_and_rewards_do_not_link_libtorch() {
    let all = dependencies();
    for package in ["posttrain-data", "posttrain-reward"] {
        assert!(!reach(&all, package).contains("torch-sys"), "{package} links libtorch");
    }
    assert!(reach(&all, "posttrain-loss").contains("torch-sys"), "the test sees nothing");
}

#[test]
fn a_crate_depends_only_on_floors_below_it() {
    let floors = [
        vec!["posttrain-data", "posttrain-loss", "posttrain-lora"],
        vec!["posttrain-model", "posttrain-reward"],
        vec!["posttrain-rollout"],
        vec!["posttrain-train"],
        vec!["posttrain"],
    ];
    let floor = |name: &str| floors.iter().position(|f| f.contains(&name));
    for (package, dependencies) in dependencies() {
        let Some(own) = floor(&package) else { continue };
        for dependency in dependencies.iter().filter(|d| d.starts_with("posttrain")) {
            assert!(floor(dependency).unwrap() < own, "{package} depends on {dependency}");
        }
    }
}

#[test]
fn a_loss_knows_no_model_and_a_model_no_reward_or_loss() {
    let all = dependencies();
    let apart = [
        ("posttrain-loss", "posttrain-model"),
        ("posttrain-model", "posttrain-reward"),
        ("posttrain-model", "posttrain-loss"),
        ("posttrain-rollout", "posttrain-reward"),
        ("posttrain-reward", "posttrain-data"),
    ];
    for (package, other) in apart {
        assert!(!reach(&all, package).contains(other), "{package} depends on {other}");
    }
}
