//! The shapes of published models have the parameters that their makers state.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_model::{ModelConfig, ModelSize, Quantize};
use std::path::Path;
use tch::Kind;

#[test]
fn published_shapes_have_the_published_sizes() {
    // Billions: all, and those that a token passes through (Qwen3 technical report, tables 1 and
    // 2).
    for (name, all, active) in
        [("qwen3-8b", 8.19, 8.19), ("qwen3-4b", 4.02, 4.02), ("qwen3-30b-a3b", 30.53, 3.34)]
    {
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/configs/shapes");
        let config = ModelConfig::from_json_file(&shapes.join(format!("{name}.json"))).unwrap();
        let size = ModelSize::of(&config, Quantize::Nf4, Kind::BFloat16);
        println!("{name}: {size}");
        assert!((size.parameters as f64 / 1e9 - all).abs() < 0.02, "{name}: {}", size.parameters);
        assert!(
            (size.active_parameters as f64 / 1e9 - active).abs() < 0.05,
            "{name}: {}",
            size.active_parameters
        );
    }
}

/// Every field that the makers' files have is known.
#[test]
fn published_configurations_are_read_to_the_last_parameter() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let rows = std::fs::read_to_string(fixtures.join("configs.jsonl")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        std::fs::write(&path, row["config"].to_string()).unwrap();
        let config =
            ModelConfig::from_json_file(&path).unwrap_or_else(|e| panic!("{}: {e}", row["name"]));
        assert_eq!(Some(config.parameter_count()), row["parameters"].as_i64(), "{}", row["name"]);
    }
}
