//! Progress on a terminal: bars, or a line a step where there is none.

use crate::agent::AgentRecord;
use crate::observer::{Event, Observer, Phase};
use crate::{Evaluation, FineTuneRecord, StepRecord};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The longest that plain lines say nothing while work goes on.
const SILENCE: Duration = Duration::from_secs(20);

/// Shows a run on standard error: bars on a terminal, plain lines elsewhere.
pub struct Console {
    bars: Option<Bars>,
    /// When something was last said.
    spoke: Instant,
}

struct Bars {
    all: MultiProgress,
    steps: ProgressBar,
    work: ProgressBar,
}

impl Default for Console {
    fn default() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(Bars::new), spoke: Instant::now() }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let steps = all.add(ProgressBar::new(0));
        let work = all.add(ProgressBar::new(0));
        let template = "{prefix:>12} {bar:32} {pos}/{len} {elapsed}<{eta} {msg}";
        steps.set_style(style(template));
        work.set_style(style("{prefix:>12} {bar:32} {pos}/{len}"));
        steps.enable_steady_tick(Duration::from_millis(200));
        Self { all, steps, work }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

impl Observer for Console {
    fn see(&mut self, event: &Event) {
        if !matches!(event, Event::Progress { .. }) {
            self.spoke = Instant::now();
        }
        match event {
            Event::Started { name, step, steps } => self.started(name, *step, *steps),
            Event::Progress { phase, done, total } => self.progress(*phase, *done, *total),
            Event::Step { record, steps } => self.step(record.step, *steps, &step_line(record)),
            Event::FineTuneStep { record, steps } => {
                self.step(record.step, *steps, &fine_tune_line(record));
            }
            Event::AgentStep { record, steps } => {
                self.step(record.step, *steps, &agent_line(record));
            }
            Event::Evaluated { what, evaluation } => self.line(&evaluation_line(what, evaluation)),
            Event::Note { text } => self.line(text),
            Event::Finished { .. } => self.finished(),
        }
    }
}

impl Console {
    /// Prints a line above the bars, or on its own.
    pub fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => drop(bars.all.println(text)),
            None => eprintln!("{text}"),
        }
    }

    fn started(&self, name: &str, step: u64, steps: u64) {
        if step > 0 {
            self.line(&format!("{name}: going on after step {step} of {steps}"));
        }
        if let Some(bars) = &self.bars {
            bars.steps.set_prefix(name.to_owned());
            bars.steps.set_length(steps);
            bars.steps.set_position(step);
        }
    }

    fn progress(&mut self, phase: Phase, done: usize, total: usize) {
        let name = match phase {
            Phase::Sampling => "sampling",
            Phase::Training => "training",
            Phase::Evaluating => "evaluating",
        };
        match &self.bars {
            Some(bars) => {
                bars.work.set_prefix(name);
                bars.work.set_length(total as u64);
                bars.work.set_position(done as u64);
            }
            None if self.spoke.elapsed() >= SILENCE => {
                eprintln!("{name} {done}/{total}");
                self.spoke = Instant::now();
            }
            None => {}
        }
    }

    fn step(&self, step: u64, steps: u64, text: &str) {
        match &self.bars {
            Some(bars) => {
                bars.steps.set_position(step);
                bars.steps.set_message(text.to_owned());
            }
            None => eprintln!("step {step}/{steps} {text}"),
        }
    }

    fn finished(&self) {
        if let Some(bars) = &self.bars {
            bars.work.finish_and_clear();
            bars.steps.finish();
        }
    }
}

fn step_line(r: &StepRecord) -> String {
    let tokens = r.completion_tokens;
    let (reward, signal, gap) = (r.reward, 100.0 * r.groups_with_signal, r.logprob_gap);
    let (cut, seconds, rate) = (100.0 * r.truncated, r.seconds, r.sampled_tokens_per_second);
    format!(
        "reward {reward:.3} signal {signal:.0}% tokens {tokens:.1} cut {cut:.0}% gap {gap:.3} {seconds:.1} s {rate:.0} tok/s"
    )
}

fn fine_tune_line(r: &FineTuneRecord) -> String {
    let named: String =
        r.metrics.iter().map(|(name, value)| format!(" {name} {value:.3}")).collect();
    let (rate, seconds) = (r.tokens as f64 / r.seconds.max(1e-9), r.seconds);
    format!("epoch {:.2} loss {:.3}{named} {seconds:.1} s {rate:.0} tok/s", r.epoch, r.loss)
}

fn agent_line(r: &AgentRecord) -> String {
    let gaps = r.roles.iter().map(|(role, of)| format!(" {role} gap {:.4}", of.logprob_gap));
    format!(
        "{} signal {:.0}%{} {:.1} + {:.1} s",
        r.episodes.line(),
        100.0 * r.groups_with_signal,
        gaps.collect::<String>(),
        r.seconds_playing,
        r.seconds_training
    )
}

fn evaluation_line(what: &str, e: &Evaluation) -> String {
    let (s, g) = (&e.sampled, e.greedy.as_ref());
    let greedy = g.map_or(String::new(), |g| {
        format!(", greedy {:.3} [{:.3}, {:.3}]", g.share, g.low, g.high)
    });
    format!("{what}: T=1 {:.3} [{:.3}, {:.3}]{greedy}, n = {}", s.share, s.low, s.high, s.n)
}
