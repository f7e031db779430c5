//! Programs of models: right, wrong and hostile ones.

#![cfg(unix)]
// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpListener;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use posttrain_reward::code::{CodeExecution, CodeExecutionConfig, Unisolated};
use posttrain_reward::outside::ResourceLimits;
use posttrain_reward::{Credit, Reward, RewardError, Sample, Score, Scorer, ScorerConfig};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// For programs that end: a limit that a busy machine does not reach.
static REWARD: LazyLock<Option<CodeExecution>> =
    LazyLock::new(|| build(CodeExecutionConfig::default()));

/// For programs that may never end, so that they do not keep the tests: those that compute, on a
/// machine that is busy, too.
static SHORT: LazyLock<Option<CodeExecution>> = LazyLock::new(|| limited(1, 60.0));

/// And those that sleep, which nothing but the clock ends.
static SLEEPY: LazyLock<Option<CodeExecution>> = LazyLock::new(|| limited(1, 10.0));

/// The same with other limits of time.
fn limited(cpu_seconds: u64, time_limit_seconds: f64) -> Option<CodeExecution> {
    let config = REWARD.as_ref()?.config().clone();
    let limits = ResourceLimits { cpu_seconds: Some(cpu_seconds), ..config.limits };
    CodeExecutionConfig { limits, time_limit_seconds, ..config }.build().ok()
}

fn build(config: CodeExecutionConfig) -> Option<CodeExecution> {
    match (CodeExecutionConfig { time_limit_seconds: 120.0, ..config }).build() {
        Ok(reward) => Some(reward),
        Err(error) if error.to_string().contains("python3") => {
            // The harness swallows what a passing test prints through its macros.
            let _ = writeln!(std::io::stderr(), "SKIPPED: tests of code need python3 ({error})");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn sample(code: &str, tests: Value) -> Sample {
    let mut sample =
        Sample::new("Write a program.", "", format!("Here it is:\n```python\n{code}\n```\n"));
    sample.metadata.insert("tests".into(), tests);
    sample
}

fn score_with(reward: &CodeExecution, code: &str, tests: Value) -> Result<Score, RewardError> {
    RUNTIME.block_on(reward.score(&sample(code, tests)))
}

/// The score of `code`, or nothing where there is no Python.
fn score(code: &str, tests: Value) -> Option<Score> {
    let reward = REWARD.as_ref()?;
    Some(score_with(reward, code, tests).unwrap())
}

fn assert_value(code: &str, tests: Value, expected: f64) {
    if let Some(score) = score(code, tests) {
        assert_eq!(score.value(), expected, "{:?}\n{code}", score.note());
    }
}

fn doubles() -> Value {
    json!([{"stdin": "2\n", "stdout": "4\n"}, {"stdin": "-3", "stdout": "-6"}])
}

fn asserts(asserts: &[&str]) -> Value {
    asserts.iter().map(|test| json!({"assert": test})).collect()
}

#[test]
fn programs_that_read_and_write() {
    assert_value("print(2 * int(input()))", doubles(), 1.0);
    assert_value("print(2 * int(input()), end='  \\n\\n')", doubles(), 1.0);
    assert_value("print(4)", doubles(), 0.0);
    assert_value("print(2 * int(input())); raise SystemExit(1)", doubles(), 0.0);
    assert_value("print(2 * int(input())", doubles(), 0.0);
    assert_value("", doubles(), 0.0);
}

#[test]
fn credit_for_a_part() {
    let Some(soft) =
        build(CodeExecutionConfig { credit: Credit::Soft, ..CodeExecutionConfig::default() })
    else {
        return;
    };
    let tests = json!([{"stdin": "2", "stdout": "4"}, {"stdin": "3", "stdout": "6"}, {"assert": "assert double(2) == 4"}]);
    let score = score_with(&soft, "def double(x): return 4\nprint(4)", tests).unwrap();
    assert!((score.value() - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(score.parts(), [("tests_passed".to_owned(), 2.0), ("tests".to_owned(), 3.0)]);
    assert!(score.note().unwrap().starts_with("stream 1: another output"), "{:?}", score.note());
}

#[test]
fn responses_without_a_program() {
    let Some(reward) = REWARD.as_ref() else { return };
    let value = |response: &str| {
        let sample = Sample { response: response.to_owned(), ..sample("", doubles()) };
        RUNTIME.block_on(reward.score(&sample)).unwrap().value()
    };
    let program = "```python\nprint(2 * int(input()))\n```";
    assert_eq!(value(&format!("<think>Hm.</think>{program}")), 1.0);
    assert_eq!(value(&format!("<think>{program}")), 0.0, "still thinking");
    assert_eq!(value(&format!("<think>{program}</think>It is 4.")), 0.0);
    assert_eq!(value("print(2 * int(input()))"), 0.0);
    assert_eq!(value("```python\nprint(2 * int(input()))"), 0.0, "cut off");
    assert_eq!(value(&format!("```python\n{}\n```", "#".repeat(70_000))), 0.0);
}

#[test]
fn asserts_about_plain_values() {
    let code = "
import math
def double(x): return 2 * x
def pairs(n): return [(i, {'k': {i}}) for i in range(n)]
def gen(n):
    for i in range(n): yield i
def raises(x): raise ValueError('no')
def reverse_in_place(items): items.reverse()
def nothing(): return None
def root(x): return math.sqrt(x)
def words(text, *, sep=' '): return text.split(sep)
def huge(): return 10 ** 400
def mixed(): return [1.5, 1 + 2j, b'x', True, None, frozenset({1}), range(3), 'é']
";
    let tests = asserts(&[
        "assert double(2) == 4",
        "assert double('ab') == 'abab' and double([1]) == [1, 1]",
        "assert pairs(2) == [(0, {'k': {0}}), (1, {'k': {1}})]",
        "assert list(gen(3)) == [0, 1, 2]",
        "try:\n    raises(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'",
        "items = [1, 2]; reverse_in_place(items); assert items == [2, 1]",
        "assert nothing() is None",
        "import math\nassert math.isclose(root(2), 1.4142135623730951)",
        "assert isinstance(root(4), float) and type(double(2)) is int",
        "assert words('a-b', sep='-') == ['a', 'b']",
        "assert huge() == 10 ** 400",
        "assert mixed() == [1.5, 1 + 2j, b'x', True, None, frozenset({1}), range(3), 'é']",
        "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\ncheck(double)",
        "assert [double(x) for x in range(3)] == [0, 2, 4]",
        "assert double(float('inf')) == float('inf')",
    ]);
    assert_value(code, tests, 1.0);
    assert_value(
        "def double(x): return x + 2",
        asserts(&["assert double(2) == 4", "assert double(3) == 6"]),
        0.0,
    );
    assert_value("x = 1", asserts(&["assert double(2) == 4"]), 0.0);
    assert_value("def double(x) return", asserts(&["assert double(2) == 4"]), 0.0);
}

#[test]
fn asserts_about_objects_and_entry_points() {
    let stack = "
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __repr__(self): return f'Stack({self.items})'
";
    let test = "s = Stack(); s.push(3); s.push(4)
assert len(s) == 2 and s.pop() == 4 and s.items == [3] and repr(s) == 'Stack([3])'
try:
    s.pop(); s.pop(); assert False
except IndexError: pass";
    assert_value(stack, asserts(&[test]), 1.0);
    // A function with the name of one of Python's own.
    let Some(reward) = REWARD.as_ref() else { return };
    let mut sample = sample("def sum(a, b): return a + b", asserts(&["assert sum(10, 15) == 25"]));
    assert_eq!(RUNTIME.block_on(reward.score(&sample)).unwrap().value(), 0.0);
    sample.metadata.insert("entry_point".into(), "sum".into());
    assert_eq!(RUNTIME.block_on(reward.score(&sample)).unwrap().value(), 1.0);
}

#[test]
fn verdicts_cannot_be_forged() {
    let cheats = [
        // Ends before the tests are through, in ways that look like success.
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import os\ndef double(x): os._exit(0)",
        "def double(x): raise SystemExit(0)",
        // Is equal to everything, or makes everything equal.
        "class Yes:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef double(x): return Yes()",
        "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef double(x): return Yes(7)",
        "import builtins\nbuiltins.AssertionError = None\nbuiltins.len = lambda x: 4\ndef double(x): return 7",
        "def len(x): return 2\ndef abs(x): return 4\ndef double(x): return -1",
        "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = lambda *a: None\ndef double(x): return 5",
        // Says what the tester would say, on every pipe that it finds.
        r#"
import os
def double(x):
    for fd in range(3, 12):
        try: os.write(fd, b'{"outcome": "passed", "note": ""}\n{"value": 4}\n' * 9)
        except OSError: pass
    return 5"#,
        "import os\nos.write(2, b'{\"ready\": true}\\n{\"outcome\": \"passed\", \"note\": \"\"}\\n')\nos.write(1, b'passed')",
        // Looks for the tests.
        r#"
import glob, sys, gc
seen = [p for p in glob.glob('/tmp/**', recursive=True) + glob.glob('/proc/[0-9]*/cmdline')]
text = ''.join(open(p, errors='ignore').read() for p in seen if not p.endswith('/') and p.count('cmdline'))
def double(x): return 4 if 'assert double' in text or any('assert double' in str(o) for o in gc.get_objects()) else 5"#,
        // Answers out of the form.
        "import os\ndef double(x):\n    while True: os.write(4, b'{' * 100)",
        "def double(x): return [[]] * 0 or exec('a = []\\nfor _ in range(99999): a = [a]') or 5",
    ];
    for cheat in cheats {
        let tests = [
            "assert double(2) == 4",
            "assert abs(double(-2)) == 4",
            "assert len([double(2)]) == 1 and double(1) == 2",
        ];
        for test in tests {
            assert_worthless(cheat, &asserts(&[test]));
        }
        // A test that swallows everything does not swallow the program's end.
        let greedy =
            "try:\n    ok = double(2) == 4\nexcept:\n    ok = True\nassert ok and double(3) == 6";
        assert_worthless(cheat, &asserts(&[greedy]));
    }
}

/// 1, 0, or the cause of an error.
fn verdict(code: &str, test: &str) -> Option<String> {
    let reward = REWARD.as_ref()?;
    Some(match score_with(reward, code, asserts(&[test])) {
        Ok(score) => score.value().to_string(),
        Err(error) => error.cause().to_owned(),
    })
}

/// What the program gives is never asked how it compares with what the test expects.
#[test]
fn only_plain_values_are_compared() {
    let object = |method: &str| {
        format!(
            "class X:\n    def {method}: return True\n    __hash__ = None\ndef f(x): return X()"
        )
    };
    let cheats = [
        (object("__lt__(s, o)"), "assert f(3) < 7.25"),
        (object("__gt__(s, o)"), "assert 7.2 < f(3)"),
        (object("__contains__(s, o)"), "assert 7 in f(3)"),
        (object("startswith(s, o)"), "assert f(3).startswith('ab')"),
        (object("__getitem__(s, o)"), "assert f(3)[:2]"),
        ("class X:\n    def __sub__(s, o): return 0.0\ndef f(x): return X()".into(), "assert abs(f(3) - 7.25) < 1e-6"),
        ("class X:\n    def __rsub__(s, o): return 0.0\ndef f(x): return X()".into(), "assert abs(7.25 - f(3)) < 1e-6"),
        ("class X:\n    def __radd__(s, o): return 7\ndef f(x): return X()".into(), "assert sum([f(3)]) == 7"),
        ("class Solution:\n    def solve(s, x):\n        class X:\n            def startswith(s, o): return True\n        return X()".into(), "assert Solution().solve(3).startswith('ab')"),
        ("def f(x): return float('nan')".into(), "assert not abs(f(3) - 7.25) > 1e-6"),
        ("def f(x): return [float('nan')]".into(), "assert not any(abs(a - b) > 1e-6 for a, b in zip(f(3), [7.25]))"),
        ("def f(x): raise StopIteration".into(), "assert all(map(lambda c: f(c[0]) == c[1], [(1, 2), (2, 3)]))"),
        ("def f(x): raise StopIteration".into(), "assert list(map(f, [1, 2])) == []"),
    ];
    for (code, test) in cheats {
        let Some(verdict) = verdict(&code, test) else { return };
        assert_eq!(verdict, "0", "{test}\n{code}");
    }
}

#[test]
fn what_only_the_program_could_decide_is_undecided_or_refused() {
    let cases = [
        (
            "class X:\n    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return X()",
            "assert f(3) == f(4)",
            "undecided",
        ),
        (
            "def f(l):\n    l.clear()\n    return []",
            "l = [3, 1, 2]\nassert f(l) == sorted(l)",
            "undecided",
        ),
        (
            "def f(l):\n    l.clear()\n    return l",
            "l = [3, 1, 2]\nr = f(l)\nassert r == sorted(l)",
            "undecided",
        ),
        (
            "class np:\n    allclose = staticmethod(lambda a, b: True)\ndef f(x): return 0",
            "assert np.allclose(f(3), [1.0])",
            "bad_task",
        ),
        ("def check(f): return True\ndef f(x): return 0", "check(f)", "bad_task"),
        ("def check(f): return True\ndef f(x): return 0", "assert check(f)", "bad_task"),
    ];
    for (code, test, expected) in cases {
        let Some(verdict) = verdict(code, test) else { return };
        assert_eq!(verdict, expected, "{test}\n{code}");
    }
}

#[test]
fn objects_of_the_programs_are_used_from_afar() {
    let code = "
class Node:
    def __init__(self, val, next=None): self.val, self.next = val, next
class Bag:
    def __init__(self): self.items = []
    def append(self, x): self.items.append(x)
    def __contains__(self, x): return x in self.items
class Vector:
    def __init__(self, x): self.x = x
    def __add__(self, other): return Vector(self.x + other.x)
def build(values):
    head = None
    for value in reversed(values): head = Node(value, head)
    return head
def reverse(head):
    last = None
    while head: head.next, last, head = last, head, head.next
    return last
def adder(n): return lambda x: x + n
def numbers():
    yield 1
def nan(): return float('nan')
def push(items, x):
    items.append(x)
    return items";
    let tests = asserts(&[
        "head = build([1, 2]); assert head.val == 1 and head.next.val == 2 and head.next.next is None",
        "assert reverse(build([1, 2])).val == 2",
        "bag = Bag(); bag.append(3); assert 3 in bag and 4 not in bag and bag.items == [3]",
        "assert (Vector(1) + Vector(2)).x == 3",
        "assert adder(2)(3) == 5",
        "it = iter(numbers()); next(it)\ntry:\n    next(it)\n    assert False\nexcept StopIteration: pass",
        "import math\nassert math.isnan(nan())",
        "items = [1]; assert push(items, 2) == [1, 2]",
    ]);
    assert_value(code, tests, 1.0);
}

/// What a test hands to the program's objects, the program could use against the next test.
#[test]
fn a_program_that_was_handed_values_is_replaced() {
    let leaks = "
seen = []
class Bag:
    def has(self, x):
        seen.append(x)
        return True
def f(x): return seen[-1] if seen else 0";
    let tests = asserts(&["assert Bag().has(7)", "assert f(3) == 7"]);
    let Some(score) = score(leaks, tests) else { return };
    assert_eq!((score.value(), score.parts()[0].1), (0.0, 1.0), "{:?}", score.note());
}

/// Programs with which others have forged passes.
#[test]
fn reported_forgeries_pass_nothing() {
    let Some(reward) = REWARD.as_ref() else { return };
    for row in include_str!("fixtures/reported_code.jsonl").lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let mut sample = Sample::new("?", "", row["response"].as_str().unwrap());
        sample.metadata.insert("tests".into(), row["tests"].clone());
        let passed = RUNTIME.block_on(reward.score(&sample)).is_ok_and(|score| score.value() > 0.0);
        assert!(!passed, "{}", row["name"]);
    }
}

#[test]
fn printing_is_no_verdict() {
    // The expected output is not in reach: an answer has to be computed.
    for code in [
        "print('passed')",
        "import sys\nsys.exit(0)",
        "print(open('/proc/self/cmdline').read())",
        "print(input())",
    ] {
        assert_value(code, doubles(), 0.0);
    }
}

#[test]
fn broken_rows_are_errors() {
    let Some(reward) = REWARD.as_ref() else { return };
    let cause = |tests: Value| score_with(reward, "def f(x): return x", tests).unwrap_err().cause();
    assert_eq!(cause(json!([])), "bad_task");
    assert_eq!(cause(asserts(&["assert f(2 == 4"])), "bad_task");
    assert_eq!(cause(asserts(&["assert f(lambda x: x)"])), "undecided");
    let bare = Sample::new("?", "", "```python\n1\n```");
    assert_eq!(RUNTIME.block_on(reward.score(&bare)).unwrap_err().cause(), "missing_field");
}

/// Runs a program that may never end, and which must be worth 0. Gives the note.
fn assert_worthless(code: &str, tests: &Value) -> Option<String> {
    assert_worthless_to(SHORT.as_ref()?, code, tests)
}

fn assert_worthless_to(reward: &CodeExecution, code: &str, tests: &Value) -> Option<String> {
    // A machine that is busy enough has no time for it, and says so.
    let mut tries = (0..5).map(|_| score_with(reward, code, tests.clone()));
    let kept_waiting = |score: &Result<Score, RewardError>| {
        score.as_ref().is_err_and(|error| error.cause() == "program_kept_waiting")
    };
    let score = tries.find(|score| !kept_waiting(score)).unwrap().unwrap();
    assert_eq!(score.value(), 0.0, "{:?}\n{code}", score.note());
    Some(score.note().unwrap_or_default().to_owned())
}

/// Runs a hostile program; it must be worth 0, in time, and leave the machine as it was.
fn assert_tamed(code: &str) -> Option<String> {
    let start = Instant::now();
    let note = assert_worthless(code, &doubles())?;
    assert!(start.elapsed() < Duration::from_secs(90), "{:?}: {code}", start.elapsed());
    // A program like any other still runs.
    assert_value("print(2 * int(input()))", doubles(), 1.0);
    Some(note)
}

#[test]
fn endless_loops_and_sleeps_end() {
    assert_tamed("while True: pass");
    let deaf = "import signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\n";
    assert_tamed(&format!("{deaf}while True: pass"));
    let Some(sleepy) = SLEEPY.as_ref() else { return };
    assert_worthless_to(sleepy, &format!("{deaf}time.sleep(1000)"), &doubles());
}

/// Programs of others that keep every processor busy.
struct Crowd(Vec<std::process::Child>);

impl Crowd {
    fn new() -> Self {
        let count = 8 * std::thread::available_parallelism().unwrap().get();
        let busy = || {
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap()
        };
        Self((0..count).map(|_| busy()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// What would run if the machine let it is no zero.
#[test]
#[cfg(target_os = "linux")]
fn a_machine_without_time_is_an_error() {
    let Some(config) = REWARD.as_ref().map(|reward| reward.config().clone()) else { return };
    let limits = ResourceLimits { cpu_seconds: None, ..config.limits };
    let starved =
        CodeExecutionConfig { limits, time_limit_seconds: 6.0, ..config }.build().unwrap();
    let _crowd = Crowd::new();
    let causes = |code: &str, tests: Value| score_with(&starved, code, tests).unwrap_err().cause();
    assert_eq!(causes("while True: pass", doubles()), "program_kept_waiting");
    // A thread that computes while the first one waits for it.
    let thread =
        "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()";
    assert_eq!(causes(thread, doubles()), "program_kept_waiting");
}

/// A program cannot choose the error in the place of the zero by what it does when its time is
/// over.
#[test]
#[cfg(target_os = "linux")]
fn nobody_flees_from_a_zero_by_hanging() {
    let Some(reward) = SLEEPY.as_ref() else { return };
    let fugitives = [
        // Sleeps until just before the limit, then computes.
        "import time\ntime.sleep(9.5)\nwhile True: pass",
        // Waits in a call that cannot be interrupted, for a child that sleeps.
        "import ctypes, time\nlibc = ctypes.CDLL(None)\nif libc.vfork() == 0:\n    time.sleep(1000)",
        // Waits for its own words to be read.
        "import sys\nwhile True: sys.stderr.write('x' * 65536)",
        // Sleeps beside one that waits by its own choice.
        "import os, time\nif os.fork() == 0:\n    os.nice(19)\n    while True: pass\ntime.sleep(1000)",
    ];
    for code in fugitives {
        assert_worthless_to(reward, code, &doubles());
    }
}

/// The scorer's own limit of time is shorter than the program's, and would be an error.
#[test]
fn a_scorer_does_not_end_what_the_sandbox_ends() {
    let Some(config) = SLEEPY.as_ref().map(|reward| reward.config().clone()) else { return };
    let reward = std::sync::Arc::new(CodeExecutionConfig { workers: 1, ..config }.build().unwrap());
    let limits = ScorerConfig { time_limit_seconds: 1.0, ..ScorerConfig::default() };
    let mut scorer = Scorer::new(reward, &limits, RUNTIME.handle().clone()).unwrap();
    // The second one waits for its place, too.
    for code in ["import time\ntime.sleep(1000)", "print(2 * int(input()))"] {
        scorer.push(sample(code, doubles())).unwrap();
    }
    let scores = scorer.finish().unwrap();
    let outcomes: Vec<Result<f64, &str>> = scores
        .iter()
        .map(|score| score.as_ref().map(Score::value).map_err(RewardError::cause))
        .collect();
    assert!(outcomes.iter().all(|outcome| *outcome != Err("timed_out")), "{outcomes:?}");
    assert_eq!(outcomes[0], Ok(0.0), "{outcomes:?}");
}

/// It waits for nothing that the machine could give: its own fault, and worth 0 on every machine.
#[test]
#[cfg(target_os = "linux")]
fn what_sleeps_through_its_time_is_wrong() {
    let Some(reward) = SLEEPY.as_ref() else { return };
    for (code, tests) in [
        ("import time\ntime.sleep(1000)", doubles()),
        ("import time\ndef f(): time.sleep(1000)", asserts(&["assert f() is None"])),
        ("import threading\nthreading.Event().wait()", doubles()),
    ] {
        let note = assert_worthless_to(reward, code, &tests).unwrap();
        assert!(note.contains("out of time"), "{note}");
    }
}

#[test]
fn the_clock_leaves_room_for_the_processor() {
    let limits = ResourceLimits { cpu_seconds: Some(10), ..ResourceLimits::default() };
    let config =
        CodeExecutionConfig { limits, time_limit_seconds: 10.0, ..CodeExecutionConfig::default() };
    assert!(config.validate().unwrap_err().to_string().contains("more than `limits.cpu_seconds`"));
    assert!(CodeExecutionConfig { time_limit_seconds: 10.1, ..config }.validate().is_ok());
}

#[test]
fn memory_is_bounded() {
    let Some(note) = assert_tamed("x = bytearray(3 << 30)\nprint(len(x))") else { return };
    if REWARD.as_ref().unwrap().isolation().limits {
        assert!(note.contains("MemoryError"), "{note}");
    }
    assert_tamed("x = []\nwhile True: x.append(bytearray(1 << 20))");
}

#[test]
fn output_is_bounded() {
    let Some(note) = assert_tamed("while True: print('x' * 1000)") else { return };
    assert!(note.contains("too much output"), "{note}");
    assert_tamed("import sys\nwhile True: sys.stderr.write('x' * 1000)");
}

#[test]
fn files_are_bounded_and_elsewhere() {
    let Some(reward) = REWARD.as_ref() else { return };
    let huge = "with open('huge', 'wb') as f:\n    for _ in range(1000): f.write(bytes(1 << 20))\nprint(2 * int(input()))";
    let many = "for i in range(200):\n    with open(f'f{i}', 'wb') as f: f.write(bytes(1 << 20))\nprint(2 * int(input()))";
    if reward.isolation().limits {
        assert_value(huge, doubles(), 0.0);
    }
    if reward.isolation().files {
        assert_value(many, doubles(), 0.0);
        let here = std::env::current_dir().unwrap().join("hostile.txt");
        let outside = format!(
            "for path in ({here:?}, '/hostile', '/etc/hostile', '/var/tmp/hostile', '/dev/hostile', '/sys/hostile'):
    try:
        open(path, 'w')
        break
    except OSError: pass
else: print(2 * int(input()))"
        );
        assert_value(&outside, doubles(), 1.0);
        assert!(!here.exists());
    }
    // What it writes to its own folder is there for itself, and gone for the next.
    assert_value("open('x', 'w').write('1')\nprint(2 * int(input()))", doubles(), 1.0);
    assert_value(
        "import os\nprint(2 * int(input()) if not os.path.exists('x') else 0)",
        doubles(),
        1.0,
    );
}

#[test]
fn fork_bombs_are_contained() {
    let bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    assert_tamed(bomb);
    // One that moves to sessions of its own, out of the process group.
    assert_tamed(
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n",
    );
    let Some(reward) = REWARD.as_ref() else { return };
    if reward.isolation().process_limit {
        let count = "import os, time
n = 0
try:
    while n < 200:
        if os.fork() == 0: time.sleep(60)
        n += 1
except OSError: print(2 * int(input()) if n < 40 else 0)";
        assert_value(count, doubles(), 1.0);
    }
    if reward.isolation().processes {
        assert_no_process_of("hostile-sleep");
        let left = "import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600) # hostile-sleep'], start_new_session=True)
print(2 * int(input()))";
        assert_value(left, doubles(), 1.0);
        assert_no_process_of("hostile-sleep");
    }
}

fn assert_no_process_of(word: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!line.contains(word), "{line}");
    }
}

#[test]
fn other_processes_are_out_of_reach() {
    let Some(reward) = REWARD.as_ref() else { return };
    let kill = "import os, signal\nfor pid in (os.getppid(), 1, 0, -1):\n    try: os.kill(pid, signal.SIGKILL)\n    except OSError: pass\n";
    assert_tamed(kill);
    if reward.isolation().processes {
        let me = std::process::id();
        let look = format!(
            "import os\nprint(2 * int(input()) if not os.path.exists('/proc/{me}/environ') else 0)"
        );
        assert_value(&look, doubles(), 1.0);
    }
}

#[test]
fn the_network_is_out_of_reach() {
    let Some(reward) = REWARD.as_ref() else { return };
    if !reward.isolation().network {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no network namespace here ({})",
            reward.isolation()
        );
        return;
    }
    // A server that is there, on this machine's own loopback.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let connect = format!(
        "import socket
try:
    socket.create_connection(('127.0.0.1', {port}), timeout=3)
    print('connected')
except OSError: print(2 * int(input()))"
    );
    assert_value(&connect, doubles(), 1.0);
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "somebody came through");
}

#[test]
fn unix_sockets_and_uncounted_memory_are_out_of_reach() {
    let Some(reward) = REWARD.as_ref() else { return };
    if !reward.isolation().system_calls {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no filter of system calls here ({})",
            reward.isolation()
        );
        return;
    }
    // A service that is there, under this folder, which the sandbox can see.
    let folder = tempfile::Builder::new().prefix("socket").tempdir_in("/var/tmp").unwrap();
    let path = folder.path().join("service");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let connect = format!(
        "import socket
try:
    socket.socket(socket.AF_UNIX).connect({path:?})
    print('connected')
except OSError: print(2 * int(input()))"
    );
    assert_value(&connect, doubles(), 1.0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody came through");
    let memory = "import os
try:
    os.memfd_create('x')
    print('made')
except OSError: print(2 * int(input()))";
    assert_value(memory, doubles(), 1.0);
    // What leads nowhere stays.
    assert_value(
        "import socket\na, b = socket.socketpair()\nprint(2 * int(input()))",
        doubles(),
        1.0,
    );
}

#[test]
fn the_environment_is_clean() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let code = "import os\nprint(2 * int(input()) if not [k for k in os.environ if k.startswith('CARGO')] else 0)";
    assert_value(code, doubles(), 1.0);
}

#[test]
fn isolation_is_said_or_demanded() {
    let Some(reward) = REWARD.as_ref() else { return };
    let isolation = reward.isolation();
    let _ = writeln!(std::io::stderr(), "isolation here: {isolation}");
    let score = score_with(reward, "print(2 * int(input()))", doubles()).unwrap();
    assert_eq!(
        score.note().is_some_and(|note| note.contains("not isolated")),
        !isolation.gaps().is_empty()
    );
    // A limit that is not set is a gap.
    let loose = CodeExecutionConfig {
        limits: ResourceLimits { processes: None, ..CodeExecutionConfig::default().limits },
        unisolated: Unisolated::Refuse,
        ..CodeExecutionConfig::default()
    };
    assert_eq!(loose.build().err().unwrap().cause(), "invalid_config");
}

#[test]
fn many_run_side_by_side() {
    let Some(reward) = REWARD.as_ref() else { return };
    let right = sample("print(2 * int(input()))", doubles());
    let wrong = sample("print(int(input()))", doubles());
    let scores = RUNTIME.block_on(async {
        let samples = (0..12).map(|index| if index % 3 == 0 { &wrong } else { &right });
        futures::future::join_all(samples.map(|sample| reward.score(sample))).await
    });
    for (index, score) in scores.into_iter().enumerate() {
        assert_eq!(score.unwrap().value(), f64::from(u8::from(index % 3 != 0)), "{index}");
    }
}
