//! Programs that score, crash, hang, babble and grow.

#![cfg(unix)]
// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posttrain_reward::outside::{ResourceLimits, Subprocess, SubprocessConfig};
use posttrain_reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A shell program that sees each request as `$line`.
fn config(body: &str) -> SubprocessConfig {
    let script = format!("while read -r line; do\n{body}\ndone");
    SubprocessConfig {
        program: vec!["sh".into(), "-c".into(), script],
        workers: 1,
        ..SubprocessConfig::default()
    }
}

fn sample(response: impl Into<String>) -> Sample {
    Sample::new("?", "1", response)
}

fn score(runtime: &Runtime, reward: &Subprocess, response: &str) -> Result<Score, RewardError> {
    runtime.block_on(reward.score(&sample(response)))
}

fn cause(result: Result<Score, RewardError>) -> &'static str {
    result.unwrap_err().cause()
}

fn is_alive(pid_file: &Path) -> bool {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    // A zombie has been killed; it is only not reaped yet.
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

fn assert_dies(pid_file: &Path) {
    let start = Instant::now();
    while is_alive(pid_file) {
        assert!(start.elapsed() < Duration::from_secs(60), "the program is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_scores_by_the_contract() {
    let runtime = runtime();
    let body = r#"case $line in
        *'"response":"good"'*) echo '{"reward": 1, "parts": {"a": 2}, "note": "n"}';;
        *'"response":"bad"'*) echo '{"reward": 0.0}';;
        *'"response":"none"'*) echo '{"error": "nothing to see"}';;
        *'"response":"much"'*) echo '{"reward": 2}';;
        *) echo 'what?';;
    esac"#;
    let reward = config(body).build().unwrap();
    let good = score(&runtime, &reward, "good").unwrap();
    assert_eq!(
        (good.value(), good.parts(), good.note()),
        (1.0, [("a".to_owned(), 2.0)].as_slice(), Some("n"))
    );
    assert_eq!(score(&runtime, &reward, "bad").unwrap().value(), 0.0);
    let said = score(&runtime, &reward, "none").unwrap_err();
    assert_eq!((said.cause(), said.to_string().contains("nothing to see")), ("reported", true));
    assert_eq!(cause(score(&runtime, &reward, "much")), "invalid_score");
    assert_eq!(cause(score(&runtime, &reward, "else")), "bad_reply");
    assert_eq!(
        score(&runtime, &reward, "good").unwrap().value(),
        1.0,
        "a bad reply does not end the program"
    );
}

#[test]
fn every_sample_is_asked_for_once_and_answered_by_its_own_line() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let log = folder.path().join("log");
    // The reward is the response, and each request leaves a line.
    let body = format!(
        r#"value=${{line#*'"response":"'}}; value=${{value%%'"'*}}
        echo $value >> {}; echo "{{\"reward\": 0.$value}}""#,
        log.display()
    );
    let reward = Arc::new(SubprocessConfig { workers: 3, ..config(&body) }.build().unwrap());
    let mut scorer =
        Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    for number in 100..400 {
        scorer.push(sample(number.to_string())).unwrap();
    }
    for (number, score) in (100..400).zip(scorer.finish().unwrap()) {
        assert_eq!(score.unwrap().value(), f64::from(number) / 1000.0);
    }
    let mut asked: Vec<u32> =
        std::fs::read_to_string(log).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    asked.sort_unstable();
    assert_eq!(asked, (100..400).collect::<Vec<_>>());
}

#[test]
fn a_crash_costs_its_own_sample() {
    let runtime = runtime();
    let body = r#"case $line in
        *crash*) echo "the disk is full" >&2; exit 3;;
        *kill*) kill -9 $$;;
        *) echo '{"reward": 1}';;
    esac"#;
    let reward = config(body).build().unwrap();
    for (response, words) in
        [("crash", ["exit status: 3", "the disk is full"]), ("kill", ["signal: 9", "sh"])]
    {
        let error = score(&runtime, &reward, response).unwrap_err();
        assert_eq!(error.cause(), "program_exited");
        let report = error.report();
        assert!(words.iter().all(|word| report.contains(word)), "{report}");
        assert_eq!(score(&runtime, &reward, "fine").unwrap().value(), 1.0);
    }
}

#[test]
fn a_program_that_ends_by_itself_is_started_again() {
    let runtime = runtime();
    let reward = config(r#"echo '{"reward": 1}'; exit 0"#).build().unwrap();
    for _ in 0..5 {
        assert_eq!(score(&runtime, &reward, "x").unwrap().value(), 1.0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_hang_is_killed_with_all_that_it_started() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let (own, child) = (folder.path().join("own"), folder.path().join("child"));
    let body = format!(
        r#"case $line in
        *hang*) trap '' TERM INT HUP; echo $$ > {}; sleep 600 & echo $! > {}; wait; sleep 600;;
        *) echo '{{"reward": 1}}';;
    esac"#,
        own.display(),
        child.display()
    );
    let reward = SubprocessConfig { time_limit_seconds: 3.0, ..config(&body) }.build().unwrap();
    let start = Instant::now();
    assert_eq!(cause(score(&runtime, &reward, "hang")), "timed_out");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_dies(&own);
    assert_dies(&child);
    assert_eq!(score(&runtime, &reward, "fine").unwrap().value(), 1.0);
}

#[test]
fn a_request_that_is_given_up_kills_its_program() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let own = folder.path().join("own");
    let body = format!(
        r#"case $line in *hang*) echo $$ > {}; sleep 600;; *) echo '{{"reward": 1}}';; esac"#,
        own.display()
    );
    let reward = Arc::new(config(&body).build().unwrap());
    let limits = ScorerConfig { time_limit_seconds: 0.7, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(reward.clone(), &limits, runtime.handle().clone()).unwrap();
    scorer.push(sample("hang")).unwrap();
    assert_eq!(scorer.finish().unwrap()[0].as_ref().unwrap_err().cause(), "timed_out");
    assert_dies(&own);
    assert_eq!(score(&runtime, &reward, "fine").unwrap().value(), 1.0);
}

#[test]
fn a_program_that_babbles_is_stopped() {
    let runtime = runtime();
    let body = r#"case $line in
        *long*) yes | tr -d '\n';;
        *twice*) printf '{"reward": 1}\n{"reward": 0}\n';;
        *stderr*) yes >&2 | head -c 1;;
        *) echo '{"reward": 1}';;
    esac"#;
    let reward = SubprocessConfig { time_limit_seconds: 60.0, ..config(body) }.build().unwrap();
    assert_eq!(cause(score(&runtime, &reward, "long")), "program_line_too_long");
    assert_eq!(cause(score(&runtime, &reward, "twice")), "program_out_of_step");
    assert_eq!(score(&runtime, &reward, "fine").unwrap().value(), 1.0);
}

#[test]
fn endless_standard_error_is_drained_and_bounded() {
    let runtime = runtime();
    let body = "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1";
    let reward = SubprocessConfig { max_stderr_bytes: 100, ..config(body) }.build().unwrap();
    let error = score(&runtime, &reward, "x").unwrap_err();
    let RewardError::Program { stderr, .. } = &error else { panic!("{error}") };
    assert!(stderr.len() <= 100 && stderr.ends_with("the end"), "{stderr}");
}

#[test]
fn a_line_that_nobody_asked_for_is_not_the_next_answer() {
    let runtime = runtime();
    // The stray line comes after the answer was read.
    let body = r#"case $line in
        *first*) echo '{"reward": 1}'; sleep 0.2; echo '{"reward": 1}';;
        *) echo '{"reward": 0}';;
    esac"#;
    let reward = config(body).build().unwrap();
    assert_eq!(score(&runtime, &reward, "first").unwrap().value(), 1.0);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(score(&runtime, &reward, "second").unwrap().value(), 0.0);
}

#[test]
fn a_program_that_does_not_read_is_stopped() {
    let runtime = runtime();
    let program = vec!["sleep".into(), "600".into()];
    let reward =
        SubprocessConfig { program, time_limit_seconds: 0.5, ..SubprocessConfig::default() }
            .build()
            .unwrap();
    // More than a pipe holds.
    assert_eq!(cause(score(&runtime, &reward, &"x".repeat(1 << 20))), "timed_out");
}

#[test]
fn secrets_are_not_inherited() {
    let runtime = runtime();
    // Cargo sets CARGO_MANIFEST_DIR for tests; nobody has put it on the list.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let body = r#"echo "{\"reward\": 1, \"note\": \"$(env | grep -c ^CARGO_) ${PATH:+path}\"}""#;
    let reward = config(body).build().unwrap();
    assert_eq!(score(&runtime, &reward, "x").unwrap().note(), Some("0 path"));
    let environment = vec!["PATH".to_owned(), "CARGO_MANIFEST_DIR".to_owned()];
    let reward = SubprocessConfig { environment, ..config(body) }.build().unwrap();
    assert_eq!(score(&runtime, &reward, "x").unwrap().note(), Some("1 path"));
}

#[test]
#[cfg(target_os = "linux")]
fn limits_hold() {
    let runtime = runtime();
    let limits = ResourceLimits {
        address_space_bytes: Some(1 << 30),
        cpu_seconds: Some(7),
        processes: Some(10_000),
        file_size_bytes: Some(1 << 20),
        open_files: Some(64),
    };
    let body = r#"echo "{\"reward\": 1, \"note\": \"$(ulimit -v) $(ulimit -t) $(ulimit -f) $(ulimit -n) $(ulimit -c)\"}""#;
    let reward = SubprocessConfig { limits, ..config(body) }.build().unwrap();
    // Kibibytes, seconds, blocks of 512 bytes, files, blocks.
    assert_eq!(score(&runtime, &reward, "x").unwrap().note(), Some("1048576 7 2048 64 0"));
}

#[test]
fn a_failing_program_fails_every_sample_in_words() {
    let runtime = runtime();
    let program = ["sh", "-c", "echo no such model >&2; exit 1"].map(str::to_owned).to_vec();
    let reward = SubprocessConfig { program, ..SubprocessConfig::default() }.build().unwrap();
    let mut scorer =
        Scorer::new(Arc::new(reward), &ScorerConfig::default(), runtime.handle().clone()).unwrap();
    for _ in 0..20 {
        scorer.push(sample("x")).unwrap();
    }
    for score in scorer.finish().unwrap() {
        let error = score.unwrap_err();
        assert!(
            error.cause() == "program_exited" && error.report().contains("no such model"),
            "{error}"
        );
    }
}
