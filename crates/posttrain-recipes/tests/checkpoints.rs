//! A run's saved states: which are kept, which one a run goes on from, and what is said where one is
//! torn, of another form, or cannot be written. What a run is watched for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_recipes::{
    CheckpointConfig, Event, Guard, GuardAction, GuardConfig, Observer, RecipeError, RlConfig,
    RunState, Silent,
};
use std::path::{Path, PathBuf};
use world::{World, config, examples, records, reward};

/// What a run told a person.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn see(&mut self, event: &Event<'_>) {
        if let Event::Note { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

fn train(config: RlConfig, folder: &Path) -> Result<Vec<String>, RecipeError> {
    let mut notes = Notes::default();
    let run = World::new().run(config, folder, reward());
    run.train(&examples(0..40), &examples(40..60), &mut notes)?;
    Ok(notes.0)
}

fn kept(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn state(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("checkpoints/step-{step:06}"))
}

fn adapter(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("last/adapter_model.safetensors")).unwrap()
}

#[test]
fn the_last_the_best_and_every_so_many_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |checkpoints, name: &str| {
        let folder = dir.path().join(name);
        train(RlConfig { checkpoints, ..config(11) }, &folder).unwrap();
        kept(&folder)
    };
    let default = CheckpointConfig::default();
    assert_eq!(keep(default, "default"), ["step-000010", "step-000011"]);
    // A state is otherwise saved every two steps.
    let every = CheckpointConfig { last: 1, every: Some(5), ..default };
    assert_eq!(keep(every, "every"), ["step-000005", "step-000010", "step-000011"]);

    let best = CheckpointConfig { last: 1, best: true, ..default };
    let names = keep(best, "best");
    let folder = dir.path().join("best");
    let step = RunState::peek(&folder).unwrap().unwrap().best.unwrap().step;
    assert!(names.contains(&format!("step-{step:06}")), "{names:?}");
    // What is kept as the best is what `best` holds.
    let of_state = std::fs::read(state(&folder, step).join("adapter/adapter_model.safetensors"));
    let of_best = std::fs::read(folder.join("best/adapter_model.safetensors"));
    assert!(of_state.unwrap() == of_best.unwrap());
}

/// Whatever the disk has lost of the last state, the run goes on from the one before, to the same
/// end, and says so.
#[test]
fn a_torn_state_is_passed_over_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train(config(8), &whole).unwrap();
    let tears: [(&str, fn(&Path)); 4] = [
        ("optimizer.safetensors", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("adapter/adapter_model.safetensors", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("run.json", |path| std::fs::remove_file(path).unwrap()),
        ("manifest.json", |path| std::fs::write(path, "").unwrap()),
    ];
    for (file, tear) in tears {
        let folder = dir.path().join(file.replace('/', "-"));
        // Its last two states are of steps 4 and 6.
        let run = World::new().run(config(8), &folder, reward());
        let killed = std::panic::AssertUnwindSafe(|| {
            run.train(&examples(0..40), &examples(40..60), &mut world::DieAt(7))
        });
        assert!(std::panic::catch_unwind(killed).is_err());
        tear(&state(&folder, 6).join(file));

        let notes = train(config(8), &folder).unwrap();
        assert!(notes[0].contains(file) && notes[0].contains("from step 4"), "{notes:?}");
        assert_eq!(records(&folder), records(&whole), "{file}");
        assert!(adapter(&folder) == adapter(&whole), "{file}");
    }
}

#[test]
fn a_folder_without_any_good_state_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    train(config(4), dir.path()).unwrap();
    for step in [2, 4] {
        std::fs::remove_file(state(dir.path(), step).join("trainer.json")).unwrap();
    }
    let error = train(config(8), dir.path()).unwrap_err().to_string();
    assert!(error.contains("step-000004") && error.contains("is missing"), "{error}");
    assert_eq!(records(dir.path()).len(), 4);
}

#[test]
fn a_state_of_another_form_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    std::fs::create_dir_all(first.join("state")).unwrap();
    std::fs::write(first.join("state/run.json"), "{}").unwrap();
    let error = train(config(2), &first).unwrap_err();
    assert!(matches!(error, RecipeError::StateFormat { found: 1, .. }), "{error}");

    let later = dir.path().join("later");
    train(config(2), &later).unwrap();
    let run = state(&later, 2).join("run.json");
    let text = std::fs::read_to_string(&run).unwrap().replace("\"format\": 2", "\"format\": 9");
    std::fs::write(&run, text).unwrap();
    // The manifest is made anew: the state is whole, and of another form.
    let folder = later.join("checkpoints");
    let versions = posttrain_store::Versions::open(&folder, "step").unwrap();
    let copy = dir.path().join("copy");
    std::fs::rename(state(&later, 2), &copy).unwrap();
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    versions
        .write::<posttrain_store::StoreError>(2, |fresh| {
            for entry in std::fs::read_dir(&copy).unwrap() {
                let entry = entry.unwrap();
                std::fs::rename(entry.path(), fresh.join(entry.file_name())).unwrap();
            }
            Ok(())
        })
        .unwrap();
    let error = train(config(4), &later).unwrap_err().to_string();
    assert!(error.contains("form 9") && error.contains("run.json"), "{error}");
}

#[test]
fn what_a_killed_process_left_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    train(config(4), dir.path()).unwrap();
    let whole = adapter(dir.path());
    // Between the two renames of `last`, in the middle of a state, and with a file half written.
    std::fs::rename(dir.path().join("last"), dir.path().join("last.old")).unwrap();
    std::fs::create_dir(dir.path().join("checkpoints/.writing-x")).unwrap();
    train(config(4), dir.path()).unwrap();
    assert!(adapter(dir.path()) == whole);
    assert_eq!(kept(dir.path()), ["step-000002", "step-000004"]);

    // Gone altogether, it is written again from the state.
    std::fs::remove_dir_all(dir.path().join("last")).unwrap();
    train(config(4), dir.path()).unwrap();
    assert!(adapter(dir.path()) == whole);
}

#[test]
fn metrics_that_are_gone_are_told() {
    let dir = tempfile::tempdir().unwrap();
    train(config(4), dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("metrics.jsonl")).unwrap();
    let notes = train(config(4), dir.path()).unwrap();
    assert!(
        notes[0].contains("metrics.jsonl") && notes[0].contains("0 of the 4 steps"),
        "{notes:?}"
    );
}

/// What a full disk does: the state that cannot be written ends the run, and the one before is what
/// it goes on from.
#[cfg(unix)]
#[test]
fn a_state_that_cannot_be_written_ends_the_run_with_the_one_before() {
    struct BlockAt(u64, PathBuf);
    impl Observer for BlockAt {
        fn see(&mut self, event: &Event<'_>) {
            if let Event::Step { record, .. } = event
                && record.step == self.0
            {
                // Where the next state makes room, something is in the way.
                std::fs::write(&self.1, "").unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train(config(8), &whole).unwrap();

    let folder = dir.path().join("blocked");
    let run = World::new().run(config(8), &folder, reward());
    let blocked = folder.join("checkpoints/step-000006.old");
    let mut observer = BlockAt(5, blocked.clone());
    let error = run.train(&examples(0..40), &examples(40..60), &mut observer).unwrap_err();
    assert!(matches!(error, RecipeError::Store(_) | RecipeError::Train(_)), "{error}");
    assert_eq!(RunState::peek(&folder).unwrap().unwrap().step, 4);

    std::fs::remove_file(blocked).unwrap();
    train(config(8), &folder).unwrap();
    assert_eq!(records(&folder), records(&whole));
}

#[test]
fn a_guard_warns_or_stops_with_the_state_saved_and_the_run_goes_on_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let guard = |action| {
        // Every step of the tiny model has more entropy than nothing, and less than this.
        let entropy = Guard { limit: 100.0, steps: 3, action };
        RlConfig { guards: GuardConfig { entropy, ..GuardConfig::default() }, ..config(6) }
    };
    let warned = train(guard(GuardAction::Warn), &dir.path().join("warned")).unwrap();
    let entropy: Vec<_> = warned.iter().filter(|note| note.contains("guards.entropy")).collect();
    assert_eq!(entropy.len(), 1, "{warned:?}");
    assert!(entropy[0].starts_with("step 3:") && entropy[0].contains("learning_rate"));

    let folder = dir.path().join("stopped");
    let error = train(guard(GuardAction::Stop), &folder).unwrap_err();
    assert!(matches!(error, RecipeError::Guard { step: 3, .. }), "{error}");
    assert_eq!(RunState::peek(&folder).unwrap().unwrap().step, 3);
    // A guard is no part of what a run is.
    train(guard(GuardAction::Ignore), &folder).unwrap();
    assert_eq!(records(&folder), records(&dir.path().join("warned")));
}

#[test]
fn a_state_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    World::new()
        .run(config(2), dir.path(), reward())
        .train(&examples(0..40), &[], &mut Silent)
        .unwrap();
    let state = state(dir.path(), 2);
    for file in ["manifest.json", "run.json", "trainer.json", "optimizer.safetensors", "adapter"] {
        assert!(state.join(file).exists(), "{file}");
    }
    let run: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(state.join("run.json")).unwrap()).unwrap();
    assert_eq!((&run["format"], &run["run"]["step"]), (&2.into(), &2.into()));
    assert_eq!(run["config"]["group_size"], 4);
}
