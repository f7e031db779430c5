//! Workbooks that a policy edits by programs, in several turns.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_chat::Message;
use posttrain_environment::{
    EpisodeConfig, EpisodePlayer, ScriptedActor, SpreadsheetTask, Trajectory,
};
use posttrain_reward::code::CodeExecutionConfig;
use posttrain_reward::spreadsheet::{SpreadsheetCode, SpreadsheetCodeConfig};
use posttrain_reward::{Credit, Sample};
use rust_xlsxwriter::Workbook;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

fn write(path: &Path, value: f64) {
    let mut workbook = Workbook::new();
    workbook.add_worksheet().write(0, 0, value).unwrap();
    workbook.save(path).unwrap();
}

/// Two workbooks: one that is right as it is, and one that is not.
fn reward(folder: &Path, credit: Credit) -> Arc<SpreadsheetCode> {
    for (name, value) in [("1.xlsx", 7.0), ("2.xlsx", 8.0), ("2_right.xlsx", 9.0)] {
        write(&folder.join(name), value);
    }
    let code =
        CodeExecutionConfig { interpreter: vec!["sh".into()], ..CodeExecutionConfig::default() };
    let mut config = SpreadsheetCodeConfig { code, ..SpreadsheetCodeConfig::default() };
    config.spreadsheet.directory = folder.to_owned();
    config.spreadsheet.credit = credit;
    Arc::new(config.build().unwrap())
}

fn play(reward: &Arc<SpreadsheetCode>, turns: &[&str]) -> Trajectory {
    let mut sample = Sample::new("Keep it.", "", "");
    let cases = json!([{"input": "1.xlsx", "reference": "1.xlsx"},
                       {"input": "2.xlsx", "reference": "2_right.xlsx"}]);
    sample.metadata.insert("spreadsheet".into(), json!({"range": "A1", "cases": cases}));
    let mut task = SpreadsheetTask::new(vec![Message::user("Keep it.")], sample, reward.clone());

    let model = support::model();
    let turns: Vec<String> = turns.iter().map(|&turn| turn.to_owned()).collect();
    let script = move |turn: usize, _: &[Message]| turns.get(turn).cloned();
    let actor = Arc::new(ScriptedActor::new(model.clone(), script));
    let player = EpisodePlayer::new(model, actor, EpisodeConfig::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(player.play(&mut task, "policy", 1)).unwrap()
}

#[test]
fn programs_are_tried_and_the_last_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let soft = reward(folder.path(), Credit::Soft);
    let copies = "Like this:\n```\ncp input.xlsx output.xlsx\n```";
    let turns = ["```\necho oh; exit 3\n```", "```\nls\n```", copies, "That is all."];
    let played = play(&soft, &turns);
    let read = |turn: usize| played.turns[turn].answer[0].text().into_owned();
    assert_eq!(read(0), "oh\n\n[exit code 3]");
    assert!(read(1).contains("input.xlsx") && read(1).ends_with("[it left no workbook]"));
    assert_eq!(read(2), "\n[it left a workbook]");
    assert_eq!(played.reward(), 0.5);
    let metric = |name: &str| played.metrics[name];
    assert_eq!((metric("soft"), metric("hard")), (0.5, 0.0));
    assert_eq!((metric("programs"), metric("failed_programs")), (3.0, 2.0));

    // Hard: one of two cases is nothing. And a program that is wrong, behind one that was not, is wrong.
    assert_eq!(play(&reward(folder.path(), Credit::Hard), &[copies, "Done."]).reward(), 0.0);
    assert_eq!(play(&soft, &[copies, "```\nfalse\n```", "Done."]).reward(), 0.0);
    assert_eq!(play(&soft, &["I cannot."]).reward(), 0.0);
}
