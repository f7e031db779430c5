//! The minimal twins: each algorithm in one file that can be read from top to bottom.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::read_to_string;
use tests::workspace;

const TWINS: [&str; 7] = [
    "grpo_by_hand",
    "ppo_by_hand",
    "sft_by_hand",
    "dpo_by_hand",
    "distillation_by_hand",
    "custom_loss",
    "two_adapters",
];

/// The lines that a twin stays below.
const LINES: usize = 200;

fn source(twin: &str) -> String {
    read_to_string(workspace().join(format!("examples/examples/{twin}.rs"))).unwrap()
}

#[test]
fn a_twin_has_under_200_lines() {
    for twin in TWINS {
        let lines = source(twin).lines().count();
        assert!(lines < LINES, "{twin}.rs has {lines} lines");
    }
}

#[test]
fn a_twin_says_first_what_it_departs_from_and_what_its_last_line_measures() {
    for twin in TWINS {
        let source = source(twin);
        let on_top: String = source.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(
            on_top.contains(&format!("--example {twin}")),
            "{twin}.rs does not say how it is run"
        );
        assert!(on_top.contains("Departures"), "{twin}.rs does not say what it departs from");
        assert!(on_top.contains("Last line:"), "{twin}.rs does not say what its last line is");
    }
}

#[test]
fn a_twin_stands_on_public_primitives_alone() {
    // What the loops, the server and the experiment are made of is what a twin is to show, not to
    // call.
    for twin in TWINS {
        let source = source(twin);
        for loops in ["posttrain::recipes", "posttrain::experiment"] {
            assert!(!source.contains(loops), "{twin}.rs calls `{loops}`");
        }
    }
}

#[test]
fn the_readme_lists_every_twin() {
    let readme = read_to_string(workspace().join("README.md")).unwrap();
    for twin in TWINS {
        assert!(readme.contains(&format!("--example {twin}")), "README.md does not list {twin}");
    }
}
