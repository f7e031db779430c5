//! An orchestrator and workers that are trained together: two adapters on one base.
//!
//! ```text
//! cargo run --release -p examples --example team -- --config examples/configs/team.toml --out runs/team
//! ```
//!
//! After Cosine's orchestrator and workers, at a size for a laptop: a module of several functions is
//! wanted. The orchestrator reads what, and writes a line for each worker; a worker reads its line
//! and nothing else, and writes one function. Functions are run against tests in a sandbox. A worker
//! earns what its function does, the orchestrator what the module does. The test's functions are none
//! that anybody was trained on. Compared with the pair before training, and with a single policy that
//! writes the whole module and is trained for as many steps.

use anyhow::Result;
use clap::Parser;
use examples::{
    AgentFile, AgentTasks, Arm, RunArgs, Shown, mean_of, over_seeds, task_seed, train_agents,
};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use posttrain::chat::Message;
use posttrain::data::Example;
use posttrain::environment::{
    Action, Actor, Environment, EnvironmentError, EpisodePlayer, Opening, ScriptedActor, Step,
    Trajectory,
};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{EnvironmentBuilder, EpisodeRequest};
use posttrain::reward::code::{CodeExecution, CodeExecutionConfig};
use posttrain::reward::{Reward, Sample};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The environment's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamFile {
    /// Functions of a module.
    functions: usize,
    /// How they are run.
    #[serde(default)]
    code: CodeExecutionConfig,
}

/// A function that may be wanted.
struct Function {
    /// How it is called.
    signature: &'static str,
    /// What it returns.
    returns: &'static str,
    body: &'static str,
    tests: [&'static str; 2],
}

const fn function(
    signature: &'static str,
    returns: &'static str,
    body: &'static str,
    tests: [&'static str; 2],
) -> Function {
    Function { signature, returns, body, tests }
}

const FUNCTIONS: [Function; 24] = [
    function("double(x)", "twice x", "2 * x", ["double(3) == 6", "double(-1) == -2"]),
    function(
        "larger(a, b)",
        "the larger of a and b",
        "max(a, b)",
        ["larger(1, 4) == 4", "larger(7, 2) == 7"],
    ),
    function(
        "smaller(a, b)",
        "the smaller of a and b",
        "min(a, b)",
        ["smaller(1, 4) == 1", "smaller(7, 2) == 2"],
    ),
    function(
        "last(items)",
        "the last of items",
        "items[-1]",
        ["last([1, 2, 5]) == 5", "last('abc') == 'c'"],
    ),
    function(
        "first_word(text)",
        "the first word of text",
        "text.split()[0]",
        ["first_word('go on') == 'go'", "first_word('a b c') == 'a'"],
    ),
    function(
        "is_even(n)",
        "whether n is even",
        "n % 2 == 0",
        ["is_even(4) == True", "is_even(7) == False"],
    ),
    function(
        "area(w, h)",
        "the area of a rectangle of width w and height h",
        "w * h",
        ["area(2, 5) == 10", "area(3, 3) == 9"],
    ),
    function(
        "mean(items)",
        "the mean of items",
        "sum(items) / len(items)",
        ["mean([1, 3]) == 2", "mean([2, 2, 5]) == 3"],
    ),
    function(
        "backwards(text)",
        "text from its end to its beginning",
        "text[::-1]",
        ["backwards('abc') == 'cba'", "backwards('no') == 'on'"],
    ),
    function("square(x)", "x times itself", "x * x", ["square(5) == 25", "square(-2) == 4"]),
    function(
        "total(items)",
        "the sum of items",
        "sum(items)",
        ["total([1, 2, 3]) == 6", "total([]) == 0"],
    ),
    function(
        "longest(words)",
        "the longest of words",
        "max(words, key=len)",
        ["longest(['a', 'bcd', 'ef']) == 'bcd'", "longest(['xx', 'y']) == 'xx'"],
    ),
    function(
        "shout(text)",
        "text in capital letters",
        "text.upper()",
        ["shout('ab') == 'AB'", "shout('Hi') == 'HI'"],
    ),
    function(
        "rest(items)",
        "items without the first",
        "items[1:]",
        ["rest([1, 2, 3]) == [2, 3]", "rest('abc') == 'bc'"],
    ),
    function("half(x)", "half of x", "x / 2", ["half(8) == 4", "half(5) == 2.5"]),
    function(
        "apart(a, b)",
        "how far a and b are apart",
        "abs(a - b)",
        ["apart(2, 7) == 5", "apart(7, 2) == 5"],
    ),
    function(
        "different(items)",
        "how many different items there are",
        "len(set(items))",
        ["different([1, 1, 2]) == 2", "different('aaa') == 1"],
    ),
    function(
        "positive(items)",
        "a list of the items above 0",
        "[i for i in items if i > 0]",
        ["positive([1, -2, 3]) == [1, 3]", "positive([-1]) == []"],
    ),
    function(
        "join(words)",
        "words with a space between them",
        "' '.join(words)",
        ["join(['a', 'b']) == 'a b'", "join(['go', 'on', 'now']) == 'go on now'"],
    ),
    function(
        "remainder(a, b)",
        "what is left of a divided by b",
        "a % b",
        ["remainder(7, 4) == 3", "remainder(9, 3) == 0"],
    ),
    function(
        "celsius(f)",
        "f degrees Fahrenheit in Celsius",
        "(f - 32) * 5 / 9",
        ["celsius(212) == 100", "celsius(32) == 0"],
    ),
    function(
        "initial(name)",
        "the first letter of name",
        "name[0]",
        ["initial('Anna') == 'A'", "initial('bob') == 'b'"],
    ),
    function(
        "rising(items)",
        "items from small to large",
        "sorted(items)",
        ["rising([3, 1, 2]) == [1, 2, 3]", "rising([5, 4]) == [4, 5]"],
    ),
    function(
        "words(text)",
        "how many words text has",
        "len(text.split())",
        ["words('a b c') == 3", "words('one') == 1"],
    ),
];

/// The last so many are in no task but the test's.
const HELD_OUT: usize = 8;

impl Function {
    fn name(&self) -> &str {
        self.signature.split('(').next().unwrap_or_default()
    }

    /// As it is wanted.
    fn wanted(&self) -> String {
        format!("{}: {}", self.signature, self.returns)
    }

    fn code(&self) -> String {
        format!("def {}:\n    return {}", self.signature, self.body)
    }
}

/// Runs functions, each text once.
struct Tester {
    code: CodeExecution,
    seen: Mutex<BTreeMap<(usize, String), f64>>,
}

impl Tester {
    /// 1 if a text defines the function and it passes its tests, else 0.
    async fn passes(&self, function: usize, text: &str) -> Result<f64, EnvironmentError> {
        let Some(code) = definition(text, FUNCTIONS[function].name()) else { return Ok(0.0) };
        let key = (function, code.clone());
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen().get(&key).copied();
        if let Some(value) = known {
            return Ok(value);
        }
        let wanted = &FUNCTIONS[function];
        let tests: Vec<Value> =
            wanted.tests.iter().map(|test| json!({ "assert": format!("assert {test}") })).collect();
        let mut sample = Sample::new(wanted.wanted(), "", format!("```python\n{code}\n```"));
        sample.metadata.insert("tests".into(), tests.into());
        sample.metadata.insert("entry_point".into(), wanted.name().into());
        let value = self.code.score(&sample).await?.value();
        seen().insert(key, value);
        Ok(value)
    }
}

/// What a text says of a function, as code: its last definition, with what is imported before it. Words
/// and fences around it are no fault, whoever wrote them.
fn definition(text: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let start = format!("def {name}(");
    let at = lines.iter().rposition(|line| line.starts_with(&start))?;
    let inside = |line: &&&str| line.trim().is_empty() || line.starts_with(char::is_whitespace);
    let body = lines[at + 1..].iter().take_while(inside);
    let imports =
        lines[..at].iter().filter(|line| line.starts_with("import ") || line.starts_with("from "));
    let all: Vec<&str> = imports.chain(&lines[at..=at]).chain(body).copied().collect();
    Some(all.join("\n").trim_end().to_owned())
}

/// The function that a line is about, of those that are wanted: the first that it names with its
/// bracket.
fn about(line: &str, wanted: &[usize]) -> Option<usize> {
    let place = |index: &usize| {
        let call = format!("{}(", FUNCTIONS[*index].name());
        line.match_indices(&call).map(|(at, _)| at).find(|at| {
            let before = line[..*at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    };
    let places = wanted.iter().enumerate().filter_map(|(at, index)| Some((place(index)?, at)));
    places.min().map(|(_, at)| at)
}

/// A worker's task: a line, and the function that is wanted by it.
struct Work {
    line: String,
    function: usize,
    tester: Arc<Tester>,
}

impl Environment for Work {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let text = format!("Write this Python function, and nothing else.\n{}", self.line);
        std::future::ready(Ok(Opening::new(Message::user(text)))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move { Ok(Step::done(self.tester.passes(self.function, action.text).await?)) }.boxed()
    }
}

/// A module to an orchestrator, or to somebody who writes it alone.
struct Team {
    functions: Vec<usize>,
    /// Nobody, where one writes all.
    worker: Option<EpisodePlayer>,
    tester: Arc<Tester>,
    seed: u64,
    children: Vec<Trajectory>,
    passed: f64,
    tokens: usize,
}

/// What the arm is shown in which one policy writes all.
const SHOWN_SINGLE: &str = "warm-start-single";

const ORCHESTRATOR: &str = "Workers write one Python function each. Write a line for each worker, that \
                            says which function with its arguments and what it returns.";
const SINGLE: &str = "Write these Python functions, and nothing else.";

impl Team {
    /// Has a worker write each line's function; which wanted ones pass.
    async fn by_workers(
        &mut self,
        worker: EpisodePlayer,
        text: &str,
    ) -> Result<f64, EnvironmentError> {
        let mut open: Vec<usize> = self.functions.clone();
        // A worker for each function at most; a line about none of them starts nobody.
        let given = text.lines().filter_map(|line| {
            let function = open.remove(about(line, &open)?);
            Some((line.trim().chars().take(200).collect(), function))
        });
        let given: Vec<(String, usize)> = given.collect();

        let play = |(index, (line, function)): (usize, (String, usize))| {
            let mut work = Work { line, function, tester: self.tester.clone() };
            let worker = worker.clone();
            let seed = task_seed(self.seed, "worker", index as u64);
            let name = FUNCTIONS[function].name();
            async move { worker.play(&mut work, "worker", seed).await.map(|played| played.on(name)) }
        };
        self.children = try_join_all(given.into_iter().enumerate().map(play)).await?;
        self.tokens += self.children.iter().map(Trajectory::sampled_tokens).sum::<usize>();
        Ok(self.children.iter().map(Trajectory::reward).sum())
    }

    /// Which wanted functions pass of a module that one policy wrote: each as if the others were
    /// not there, so that one that is wrong takes none with it.
    async fn alone(&self, text: &str) -> Result<f64, EnvironmentError> {
        let mut passed = 0.0;
        for &function in &self.functions {
            passed += self.tester.passes(function, text).await?;
        }
        Ok(passed)
    }
}

impl Environment for Team {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let system = if self.worker.is_some() { ORCHESTRATOR } else { SINGLE };
        let wanted: Vec<String> =
            self.functions.iter().map(|index| FUNCTIONS[*index].wanted()).collect();
        let text = format!("A module is wanted with {}.", wanted.join("; "));
        let messages = vec![Message::system(system), Message::user(text)];
        std::future::ready(Ok(Opening::new(messages))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            self.tokens += action.tokens;
            let passed = match self.worker.clone() {
                Some(worker) => self.by_workers(worker, action.text).await?,
                None => self.alone(action.text).await?,
            };
            self.passed = passed / self.functions.len() as f64;
            Ok(Step::done(self.passed))
        }
        .boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("passed".to_owned(), self.passed),
            ("whole".to_owned(), f64::from(u8::from(self.passed == 1.0))),
            ("tokens".to_owned(), self.tokens as f64),
        ])
    }

    fn take_children(&mut self) -> Vec<Trajectory> {
        std::mem::take(&mut self.children)
    }
}

struct Builder {
    /// Whether an orchestrator has workers.
    workers: bool,
    tester: Arc<Tester>,
}

fn wanted(task: &Example) -> Result<Vec<usize>, EnvironmentError> {
    let functions = task.metadata.as_ref().and_then(|metadata| metadata.get("functions")).cloned();
    let functions: Vec<usize> = serde_json::from_value(functions.unwrap_or_default())
        .map_err(|error| EnvironmentError::Failed { reason: error.to_string() })?;
    match functions.iter().all(|index| *index < FUNCTIONS.len()) {
        true => Ok(functions),
        false => Err(EnvironmentError::Failed { reason: "there is no such function".into() }),
    }
}

impl EnvironmentBuilder for Builder {
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        let worker = match self.workers {
            true => Some(episode.stage.player("worker")?.clone()),
            false => None,
        };
        Ok(Box::new(Team {
            functions: wanted(episode.task)?,
            worker,
            tester: self.tester.clone(),
            seed: episode.seed,
            children: Vec::new(),
            passed: 0.0,
            tokens: 0,
        }))
    }
}

fn tasks(config: &AgentFile<TeamFile>, seed: u64) -> Result<AgentTasks> {
    let environment = &config.environment;
    let most = HELD_OUT.min(FUNCTIONS.len() - HELD_OUT);
    anyhow::ensure!(
        (1..=most).contains(&environment.functions),
        "`environment.functions`: expected from 1 to {most}, got {}",
        environment.functions
    );
    // The functions of the test are none that anybody was trained on.
    let known = FUNCTIONS.len() - HELD_OUT;
    let draw = |split: &str, count: usize, from: Range<usize>| -> Vec<Example> {
        let task = |index: u64| {
            let mut functions: Vec<usize> = Vec::new();
            for draw in 0.. {
                if functions.len() == environment.functions {
                    break;
                }
                let drawn = task_seed(seed, &format!("{split} function {draw}"), index) as usize;
                let drawn = from.start + drawn % from.len();
                if !functions.contains(&drawn) {
                    functions.push(drawn);
                }
            }
            let wanted: Vec<String> =
                functions.iter().map(|index| FUNCTIONS[*index].wanted()).collect();
            let answer: Vec<String> =
                functions.iter().map(|index| FUNCTIONS[*index].code()).collect();
            Example {
                metadata: json!({ "functions": functions }).as_object().cloned(),
                ..Example::new(
                    format!("{split}-{index}"),
                    "team",
                    wanted.join("; "),
                    answer.join("\n\n"),
                )
            }
        };
        (0..count as u64).map(task).collect()
    };
    let code = environment.code.clone().build()?;
    let tester = Arc::new(Tester { code, seen: Mutex::default() });
    let arm = |name, shown, workers| Arm {
        name,
        shown,
        builder: Arc::new(Builder { workers, tester: tester.clone() }),
    };
    Ok(AgentTasks {
        train: draw("train", config.tasks.train, 0..known),
        validation: draw("validation", config.tasks.validation, 0..known),
        test: draw("test", config.tasks.test, known..FUNCTIONS.len()),
        arms: vec![arm("team", "warm-start", true), arm("single", SHOWN_SINGLE, false)],
    })
}

/// An orchestrator that writes a line for each function, and a worker that writes what its line
/// says; or, where nobody works for it, one that writes all.
fn demonstrator(model: &TextModel, shown: Shown<'_>) -> Option<Arc<dyn Actor>> {
    if shown.role == "worker" {
        let script = |_: usize, read: &[Message]| {
            let text = read.last()?.text().into_owned();
            let wanted = FUNCTIONS.iter().find(|function| text.contains(function.signature))?;
            Some(wanted.code())
        };
        return Some(Arc::new(ScriptedActor::new(model.clone(), script)));
    }
    let functions = wanted(shown.task).ok()?;
    let single = shown.name == SHOWN_SINGLE;
    Some(Arc::new(ScriptedActor::new(model.clone(), move |_, _: &[Message]| {
        let all = functions.iter().map(|index| &FUNCTIONS[*index]);
        Some(match single {
            true => all.map(Function::code).collect::<Vec<_>>().join("\n\n"),
            false => all.map(Function::wanted).collect::<Vec<_>>().join("\n"),
        })
    })))
}

/// What a run's policies reached on the test's modules, before training and behind it.
#[derive(Serialize, Deserialize)]
struct Reached {
    seed: u64,
    arm: String,
    /// Modules.
    n: usize,
    base: f64,
    before: f64,
    after: f64,
    tokens: f64,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let reports = train_agents(&args, tasks, &demonstrator, |seed, learned, console| {
        let test = &learned.tasks.test;
        let metric =
            |name: &'static str| move |t: &Trajectory| t.metrics.get(name).copied().unwrap_or(0.0);
        let base = learned.base.evaluate(&BTreeMap::new(), test, console)?;
        let before = learned.run.evaluate(&learned.before, test, console)?;
        let after = learned.run.evaluate(&learned.after, test, console)?;
        Ok(Reached {
            seed,
            arm: learned.arm.to_owned(),
            n: test.len(),
            base: mean_of(&base, metric("passed")),
            before: mean_of(&before, metric("passed")),
            after: mean_of(&after, metric("passed")),
            tokens: mean_of(&after, metric("tokens")),
        })
    })?;
    let Some(reports) = reports else { return Ok(()) };

    let of = |arm: &str, value: fn(&Reached) -> f64| -> Vec<f64> {
        reports.iter().filter(|report| report.arm == arm).map(value).collect()
    };
    let mean = |arm, value| over_seeds(&of(arm, value)).0;
    let (gained, low, high) = over_seeds(&of("team", |r| r.after - r.before));
    let pairs = of("team", |r| r.after).into_iter().zip(of("single", |r| r.after));
    let against = over_seeds(&pairs.map(|(team, single)| team - single).collect::<Vec<_>>());
    examples::write_summary(
        &args.out,
        &json!({
            "seeds": reports.iter().map(|r| r.seed).collect::<BTreeSet<_>>(),
            "n": reports.first().map(|r| r.n),
            "trained": mean("team", |r| r.after),
            "untrained": mean("team", |r| r.before),
            "single": mean("single", |r| r.after),
            // Trained less untrained.
            "gained": gained,
            "low": low,
            "high": high,
            "against_single": { "difference": against.0, "low": against.1, "high": against.2 },
            "single_untrained": mean("single", |r| r.before),
            "base": mean("team", |r| r.base),
            "single_base": mean("single", |r| r.base),
            "tokens": mean("team", |r| r.tokens),
            "tokens_single": mean("single", |r| r.tokens),
        }),
    )
}
