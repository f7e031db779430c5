//! The architecture's invariants, which are absences: what a crate must not depend on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use tests::workspace;

/// The packages that `package` depends on, tests' own left out, down to `depth`.
fn reach(package: &str, depth: u32) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args([
        "tree",
        "--offline",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let output = cargo.args(["-p", package, "--depth", &depth.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let names = lines
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != package);
    names.map(str::to_owned).collect()
}

#[test]
fn what_needs_no_tensor_does_not_link_libtorch() {
    let apart = [
        "posttrain-store",
        "posttrain-answer",
        "posttrain-statistics",
        "posttrain-data",
        "posttrain-chat",
        "posttrain-hub",
        "posttrain-reward",
        "posttrain-router",
    ];
    for package in apart {
        assert!(!reach(package, 99).contains("torch-sys"), "{package} links libtorch");
    }
    assert!(reach("posttrain-loss", 99).contains("torch-sys"), "the test sees nothing");
}

/// What a policy acts in speaks of messages and tokens.
#[test]
fn an_environment_sees_no_tensor() {
    for of_tensors in ["tch", "posttrain-tensor", "posttrain-kernel", "posttrain-loss"] {
        assert!(!reach("posttrain-environment", 1).contains(of_tensors), "it sees {of_tensors}");
    }
}

#[test]
fn a_crate_depends_only_on_floors_below_it() {
    let floors = [
        vec![
            "posttrain-store",
            "posttrain-statistics",
            "posttrain-answer",
            "posttrain-chat",
            "posttrain-hub",
        ],
        vec!["posttrain-tensor", "posttrain-data"],
        vec!["posttrain-kernel", "posttrain-optim", "posttrain-collective"],
        vec!["posttrain-loss", "posttrain-lora"],
        vec!["posttrain-model", "posttrain-reward", "posttrain-router"],
        vec!["posttrain-rollout"],
        vec!["posttrain-train", "posttrain-environment"],
        vec!["posttrain-recipes"],
        vec!["posttrain-experiment"],
        vec!["posttrain-server", "posttrain"],
    ];
    let floor = |name: &str| floors.iter().position(|f| f.contains(&name));
    for package in floors.iter().flatten() {
        for dependency in reach(package, 1).iter().filter(|d| d.starts_with("posttrain")) {
            assert!(
                floor(dependency).unwrap() < floor(package).unwrap(),
                "{package} depends on {dependency}"
            );
        }
    }
}

/// Whoever compares answers, or knows messages, needs neither a runtime nor the network.
#[test]
fn answers_and_messages_bring_no_runtime_and_no_network() {
    for package in ["posttrain-answer", "posttrain-model", "posttrain-rollout"] {
        for heavy in ["tokio", "reqwest", "hyper", "regex"] {
            let brings = reach(package, 99).contains(heavy);
            // The tokenizer has patterns of its own.
            assert!(
                !brings || (heavy == "regex" && package != "posttrain-answer"),
                "{package} brings {heavy}"
            );
        }
    }
    assert!(reach("posttrain-reward", 99).contains("reqwest"), "the test sees nothing");
}

#[test]
fn a_loss_knows_no_model_and_a_model_no_reward_or_loss() {
    let apart = [
        ("posttrain-loss", "posttrain-model"),
        ("posttrain-model", "posttrain-reward"),
        ("posttrain-model", "posttrain-loss"),
        ("posttrain-rollout", "posttrain-reward"),
        ("posttrain-optim", "posttrain-lora"),
        ("posttrain-train", "posttrain-reward"),
        ("posttrain-reward", "posttrain-data"),
        ("posttrain-router", "posttrain-reward"),
    ];
    for (package, other) in apart {
        assert!(!reach(package, 99).contains(other), "{package} depends on {other}");
    }
}
