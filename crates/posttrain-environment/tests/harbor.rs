//! Harbor's task folders, in the sandbox.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_chat::{Message, ToolCall, ToolFormat};
use posttrain_environment::harbor::{self, HarborEnvironment, HarborError, HarborTask};
use posttrain_environment::{
    Budget, EpisodeConfig, EpisodeError, EpisodePlayer, ScriptedActor, Trajectory,
};
use posttrain_reward::code::{CodeExecution, CodeExecutionConfig};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const TOML: &str = r#"
version = "1.0"

[metadata]
author_name = "Somebody"
difficulty = "easy"
tags = ["arithmetic"]

[verifier]
timeout_sec = 50.0
env = { STRICT = "yes" }

[agent]
timeout_sec = 600.0

[environment]
build_timeout_sec = 600.0
cpus = 1
memory_mb = 2048
storage_mb = 10240
allow_internet = false
env = { HINT = "they are two" }
"#;

const TEST: &str = r#"
test "$STRICT" = yes || exit 1
if [ "$(cat /app/sum.txt)" = 42 ]; then
    echo 1 > /logs/verifier/reward.txt
else
    echo 0 > /logs/verifier/reward.txt
fi
"#;

/// A task: two numbers, whose sum is wanted.
fn write_task(folder: &Path, test: &str) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("task.toml", TOML);
    write("instruction.md", "Write the sum of the numbers in /app/data to /app/sum.txt.\n");
    let dockerfile = "FROM ubuntu:24.04\nWORKDIR /app\nCOPY data /app/data\nCOPY notes.txt ./\n";
    write("environment/Dockerfile", dockerfile);
    write("environment/data/one", "40\n");
    write("environment/data/deep/other", "2\n");
    write("environment/notes.txt", "add them\n");
    write("tests/test.sh", test);
    write("solution/solve.sh", "echo 42 > /app/sum.txt\n");
}

/// A folder of one task, and a shell for it; nothing where the machine allows no such sandbox.
fn task(test: &str) -> Option<(TempDir, Arc<HarborTask>, Arc<CodeExecution>)> {
    // Not where the sandbox has its own files, so that what is hidden is hidden by name.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    write_task(&folder.path().join("sum"), test);
    let task = Arc::new(HarborTask::open(&folder.path().join("sum")).unwrap());
    let shell = harbor::shell(folder.path(), CodeExecutionConfig::default()).unwrap();
    if !shell.isolation().files {
        println!("SKIPPED: this machine allows no user namespaces");
        return None;
    }
    Some((folder, task, shell))
}

fn bash(command: &str) -> String {
    ToolFormat::Hermes.write(&[ToolCall::new("", "bash", json!({ "command": command }))])
}

fn play(
    shell: &Arc<CodeExecution>,
    task: &Arc<HarborTask>,
    turns: &[String],
) -> Result<Trajectory, EpisodeError> {
    let model = support::model();
    let turns = turns.to_vec();
    let script = move |turn: usize, _: &[Message]| turns.get(turn).cloned();
    let actor = Arc::new(ScriptedActor::new(model.clone(), script));
    let config = EpisodeConfig {
        budget: Budget { turns: 4, ..Budget::default() },
        ..EpisodeConfig::default()
    };
    let player = EpisodePlayer::new(model, actor, config).unwrap();
    let mut environment = HarborEnvironment::new(task.clone(), shell.clone(), 1000).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(player.play(&mut environment, "policy", 1))
}

#[test]
fn a_tasks_folder_is_worked_in_and_tested() {
    let Some((folder, task, shell)) = task(TEST) else { return };
    assert_eq!((task.agent_seconds(), task.verifier_seconds()), (Some(600.0), Some(50.0)));
    let solution = folder.path().join("sum/solution/solve.sh").display().to_string();
    assert!(Path::new(&solution).exists());

    let look = bash("pwd; cat data/one data/deep/other notes.txt; echo $HINT; ls /tests /solution");
    let look = look.replace("/solution", &format!("/solution {solution}"));
    let turns = [look, bash("echo $((40 + 2)) > sum.txt; false"), "It is 42.".to_owned()];
    let played = play(&shell, &task, &turns).unwrap();
    let read = |turn: usize| played.turns[turn].answer[0].text().into_owned();
    assert!(played.opening[0].text().contains("the sum of the numbers"));
    assert!(read(0).starts_with("/app\n40\n2\nadd them\nthey are two\n"), "{}", read(0));
    // Neither tests nor solution are there.
    assert_eq!(read(0).matches("No such file").count(), 3, "{}", read(0));
    assert_eq!(read(1), "\n[exit code 1]");
    assert_eq!((played.reward(), played.metrics["resolved"]), (1.0, 1.0));
    assert_eq!((played.metrics["commands"], played.metrics["failed_commands"]), (2.0, 2.0));

    // What is done when the budget ends counts; what is not done does not.
    let turns: Vec<String> = std::iter::repeat_n(bash("echo 42 > sum.txt"), 4).collect();
    assert_eq!(play(&shell, &task, &turns).unwrap().reward(), 1.0);
    assert_eq!(play(&shell, &task, &["I would rather not.".to_owned()]).unwrap().reward(), 0.0);
}

#[test]
fn a_reward_is_not_written_by_who_earns_it() {
    let Some((_folder, task, shell)) = task(TEST) else { return };
    let forged = [
        // Rewards and tests where they are looked for, that nobody may write over.
        "mkdir -p /logs/verifier /app/tests; echo 1 > /logs/verifier/reward.txt; \
         echo '{\"reward\": 1}' > /logs/verifier/reward.json; echo 1 > /logs/reward; chmod -R 555 /logs; \
         ln -s /app/tests /tests; ln -s /etc/passwd /app/sum.txt; \
         echo 'echo 1 > /logs/verifier/reward.txt' > /app/tests/test.sh",
        "mkdir /logs/mine; echo 1 > /logs/mine/reward.txt; ln -s mine /logs/verifier; chmod 555 /logs",
        // A process that is still there when its files are packed, and when the tests run.
        "mkfifo /tmp/.workspace.tar; (setsid bash -c 'while sleep 0.1; do mkdir -p /logs/verifier; \
         echo 1 > /logs/verifier/reward.txt; done' > /dev/null 2>&1 &); true",
        // Nowhere to be tested in.
        "rm -rf /app /logs; ln -s /etc /app; chmod 000 /app /logs",
        "mkdir /app/x; chmod -R 000 /app; true",
    ];
    for command in forged {
        let played = play(&shell, &task, &[bash(command), "Done.".to_owned()]).unwrap();
        assert_eq!(played.reward(), 0.0, "{command}");
    }
}

#[test]
fn a_zero_is_not_fled_from() {
    // Tests that run what the policy wrote, and have no number before it has ended.
    let runs = "bash /app/program; echo 0 > /logs/verifier/reward.txt";
    let Some((_folder, task, shell)) = task(runs) else { return };
    let fled = [
        "echo 'kill -9 $PPID' > program",
        "echo 'kill -9 -1' > program",
        "echo 'chmod 000 /logs/verifier; kill $PPID' > program",
        "echo 'rm -rf /logs/verifier' > program",
        "touch $(seq 16300)",
    ];
    for command in fled {
        let played = play(&shell, &task, &[bash(command), "Done.".to_owned()]).unwrap();
        assert_eq!(played.reward(), 0.0, "{command}");
    }
}

#[test]
fn what_cannot_be_run_is_answered() {
    let Some((_folder, task, shell)) = task(TEST) else { return };
    let many = vec![ToolCall::new("", "bash", json!({"command": "echo 1 >> many"})); 11];
    let turns = [
        bash("echo \u{0}"),
        ToolFormat::Hermes.write(&many),
        bash("wc -l < many"),
        "Done.".to_owned(),
    ];
    let played = play(&shell, &task, &turns).unwrap();
    let read = |turn: usize| played.turns[turn].answer[0].text().into_owned();
    assert!(read(0).starts_with("Error: `command` must be"), "{}", read(0));
    assert_eq!(played.turns[1].answer.len(), 11);
    assert_eq!(played.turns[1].answer[10].text(), "Error: not run: at most 8 calls.");
    assert_eq!(read(2), "8\n");
}

#[test]
fn tests_that_say_nothing_are_no_zero() {
    for test in ["echo all well", "echo much > /logs/verifier/reward.txt", "exit 3"] {
        let Some((_folder, task, shell)) = task(test) else { return };
        let error = play(&shell, &task, &["Done.".to_owned()]).unwrap_err();
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains("expected a number in /logs/verifier"), "{reason}");
    }
}

#[test]
fn what_needs_a_container_is_refused_in_words() {
    let refused = |file: &str, text: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_task(folder.path(), TEST);
        fs::write(folder.path().join(file), text).unwrap();
        match HarborTask::open(folder.path()) {
            Err(HarborError::NeedsContainer { path, reason }) => {
                format!("{}: {reason}", path.file_name().unwrap().to_string_lossy())
            }
            Err(HarborError::Config { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let toml = |more: &str| refused("task.toml", &format!("{TOML}\n{more}"));
    assert!(toml("gpus = 1").contains("`environment.gpus`"));
    assert!(toml("docker_image = \"mine:1\"").contains("task.toml: `environment.docker_image`"));
    assert!(toml("[[steps]]\nname = \"one\"").contains("`steps`"));
    let nine = refused("task.toml", "version = \"9\"\n");
    assert!(nine.contains("schema 9"), "{nine}");
    assert!(toml("colour = \"red\"").contains("unknown field `colour`"));
    let docker = refused("environment/Dockerfile", "FROM ubuntu\nWORKDIR /app\nRUN make\n");
    assert!(docker.contains("Dockerfile: line 3: `RUN make`: needs a container"), "{docker}");
    let ignored = refused("environment/.dockerignore", "data\n");
    assert!(ignored.contains(".dockerignore"), "{ignored}");
    let compose = refused("environment/docker-compose.yaml", "services: {}\n");
    assert!(compose.contains("docker-compose.yaml: several services"), "{compose}");

    let slow = TOML.replace("timeout_sec = 50.0", "timeout_sec = 5000.0");
    if let Some((folder, _, shell)) = task(TEST) {
        fs::write(folder.path().join("sum/task.toml"), slow).unwrap();
        let task = Arc::new(HarborTask::open(&folder.path().join("sum")).unwrap());
        let error = HarborEnvironment::new(task, shell, 100).err().unwrap().to_string();
        assert!(error.contains("`verifier.timeout_sec`: 5000"), "{error}");
    }

    let folder = tempfile::tempdir().unwrap();
    write_task(folder.path(), TEST);
    fs::remove_file(folder.path().join("tests/test.sh")).unwrap();
    let error = HarborTask::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("test.sh: cannot be read"), "{error}");
}
