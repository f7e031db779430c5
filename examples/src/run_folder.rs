//! A run's folder beside the model's own: the configuration as resolved, what was evaluated once,
//! the summary.

use anyhow::{Context, Result, bail};
use clap::Parser;
use posttrain::recipes::{Evaluation, Ranks, RecipeError};
use posttrain::statistics::Share;
use posttrain::store::{FolderLock, lock_folder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What every example that trains is told.
#[derive(Parser)]
#[command(about = "Trains a model as a configuration file says, and reports what it gained")]
pub struct RunArgs {
    /// The run's configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// The run's folder.
    #[arg(long)]
    pub out: PathBuf,
    /// Where a Chrome trace of the run's phases is written, for chrome://tracing or Perfetto.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Seconds that a rank waits for the others, where torchrun started several, before it names
    /// those that do not come.
    #[arg(long, default_value_t = 1800.0)]
    pub rank_timeout: f64,
}

/// An evaluation with the time it took, kept so that a resumed run does not repeat it.
#[derive(Serialize, Deserialize)]
pub struct Timed {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What a run gained: accuracy on the test split, sampled at temperature 1, and with the most
/// probable token each time.
#[derive(Serialize)]
pub struct Summary {
    /// The base's accuracy, sampled.
    pub before: Share,
    /// The chosen checkpoint's.
    pub after: Share,
    /// The base's, with greedy answers too.
    pub test_before: Evaluation,
    /// The chosen checkpoint's.
    pub test_after: Evaluation,
    /// Steps done.
    pub steps: u64,
    /// The step of the chosen checkpoint; absent where it is the last.
    pub best_step: Option<u64>,
    /// Seconds in all.
    pub seconds: f64,
}

impl Summary {
    /// From the two evaluations.
    #[must_use]
    pub fn of(before: Evaluation, after: Evaluation, steps: u64) -> Self {
        Self {
            before: before.sampled,
            after: after.sampled,
            test_before: before,
            test_after: after,
            steps,
            best_step: None,
            seconds: 0.0,
        }
    }

    /// Writes it to a run's folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        write(&out.join("summary.json"), &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// Prints it as a table.
    pub fn print(&self, out: &Path) {
        let row = |name: &str, e: &Evaluation| {
            let (t, g) = (e.sampled, e.greedy.unwrap_or(e.sampled));
            println!(
                "{name:<7} {:.3} [{:.3}, {:.3}]    {:.3} [{:.3}, {:.3}]",
                t.share, t.low, t.high, g.share, g.low, g.high
            );
        };
        println!(
            "\ntest    T = 1                   greedy                  (n = {}, 95% Wilson)",
            self.before.n
        );
        row("before", &self.test_before);
        row("after", &self.test_after);
        let best = self.best_step.map_or(String::new(), |step| format!(", best step {step}"));
        println!(
            "{} steps in {:.0} s{best}; everything is in {}",
            self.steps,
            self.seconds,
            out.display()
        );
    }
}

/// Reads a configuration file.
///
/// # Errors
/// Names the file, the line and the field.
pub fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    toml::from_str(&text).with_context(named)
}

/// Checks the name that a model's folder is given.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_name(config: &Path, name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        bail!("{}: `name` must be letters, digits, - and _, got {name:?}", config.display());
    }
    Ok(())
}

/// Takes the run's folder for this process (of several ranks for the leader's), for as long as the
/// lock lives, and keeps the configuration, as resolved, in it.
///
/// # Errors
/// Names the lock that another process holds, the first line of a configuration that the folder was
/// begun with and that differs, or why nothing can be written.
pub fn begin(args: &RunArgs, config: &impl Serialize, ranks: &Ranks) -> Result<Option<FolderLock>> {
    ranks.led(|| {
        let lock = lock_folder(&args.out)?;
        keep_config(args, &toml::to_string(config)?)?;
        Ok(lock)
    })
}

/// Fields of a run that may change when it goes on: what is watched and saved, how patiently rewards
/// are asked for, and who samples.
const FREE: [&str; 8] = [
    "checkpoint_every",
    "checkpoints",
    "guards",
    "in_flight",
    "logged_episodes",
    "logged_samples",
    "sampler",
    "scorer",
];

/// A configuration without what may change when its run goes on.
fn bound(config: &str) -> Result<String> {
    let mut table: toml::Table = config.parse()?;
    for run in ["rl", "fine_tune", "agent"] {
        if let Some(run) = table.get_mut(run).and_then(toml::Value::as_table_mut) {
            FREE.iter().for_each(|field| drop(run.remove(*field)));
        }
    }
    Ok(toml::to_string(&table)?)
}

fn keep_config(args: &RunArgs, resolved: &str) -> Result<()> {
    let kept = args.out.join("config.toml");
    if let Ok(old) = std::fs::read_to_string(&kept) {
        if old == resolved {
            return Ok(());
        }
        let (old, new) = (bound(&old).unwrap_or(old), bound(resolved)?);
        if old == new {
            return write(&kept, resolved);
        }
        // A start that failed before anything was evaluated or sampled has begun nothing: there are
        // its configuration and its lock.
        if std::fs::read_dir(&args.out).is_ok_and(|entries| entries.count() == 2) {
            return write(&kept, resolved);
        }
        let (mut was, mut now) = (old.lines(), new.lines());
        let differ =
            std::iter::from_fn(|| Some((was.next(), now.next())).filter(|p| *p != (None, None)));
        let (was, now) = differ.into_iter().find(|(was, now)| was != now).unwrap_or_default();
        let (was, now) = (was.unwrap_or("nothing"), now.unwrap_or("nothing"));
        let path = args.config.display();
        bail!(
            "{}: the run was begun with `{was}` where {path} has `{now}`; give another --out",
            kept.display()
        );
    }
    write(&kept, resolved)
}

/// An evaluation, or the one that an earlier start of the same run kept; of several ranks the
/// leader keeps it.
///
/// # Errors
/// What the evaluation returns, or why it cannot be kept.
pub fn evaluated_once(
    path: &Path,
    ranks: &Ranks,
    evaluate: impl FnOnce() -> Result<Evaluation, RecipeError>,
) -> Result<Timed> {
    let kept = std::fs::read_to_string(path).ok();
    let kept: Option<Timed> = kept.and_then(|text| serde_json::from_str(&text).ok());
    // All ranks evaluate, or none does.
    let lacking = ranks.any(Ok(kept.is_none()))?;
    if let Some(kept) = kept.filter(|_| !lacking) {
        return Ok(kept);
    }
    let started = Instant::now();
    let timed = Timed { evaluation: evaluate()?, seconds: started.elapsed().as_secs_f64() };
    ranks.led(|| write(path, &serde_json::to_string(&timed)?))?;
    Ok(timed)
}

/// Beside, then renamed: a reader sees the old file or the whole new one.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("writing");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_process_s_and_one_configuration_s() {
        let out = tempfile::tempdir().unwrap();
        let args = RunArgs {
            config: "run.toml".into(),
            out: out.path().join("run"),
            trace: None,
            rank_timeout: 60.0,
        };
        let steps = |steps: u64| std::collections::BTreeMap::from([("steps", steps)]);

        let lock = begin(&args, &steps(1), &Ranks::default()).unwrap();
        let second = begin(&args, &steps(1), &Ranks::default()).unwrap_err().to_string();
        assert!(second.contains("another process works here"), "{second}");
        drop(lock);

        // Nothing has been evaluated yet.
        drop(begin(&args, &steps(2), &Ranks::default()).unwrap());
        write(&args.out.join("test_before.json"), "{}").unwrap();
        let other = begin(&args, &steps(3), &Ranks::default()).unwrap_err().to_string();
        assert!(other.contains("`steps = 2` where run.toml has `steps = 3`"), "{other}");
        drop(begin(&args, &steps(2), &Ranks::default()).unwrap());
    }

    #[test]
    fn what_is_watched_and_saved_may_change_when_a_run_goes_on() {
        let out = tempfile::tempdir().unwrap();
        let args = RunArgs {
            config: "run.toml".into(),
            out: out.path().join("run"),
            trace: None,
            rank_timeout: 60.0,
        };
        let begun = |text: &str| {
            let config: toml::Table = text.parse().unwrap();
            begin(&args, &config, &Ranks::default()).map(drop).map_err(|error| error.to_string())
        };
        begun("[rl]\ncheckpoint_every = 1\nsteps = 4\n[rl.guards.entropy]\nlimit = 0.1\n").unwrap();
        write(&args.out.join("test_before.json"), "{}").unwrap();
        let changed = "[rl]\ncheckpoint_every = 2\nsteps = 4\n[rl.guards.entropy]\nlimit = 0.2\n";
        begun(changed).unwrap();
        let kept = std::fs::read_to_string(args.out.join("config.toml")).unwrap();
        assert!(kept.contains("limit = 0.2"), "{kept}");
        let other = begun(&changed.replace("steps = 4", "steps = 5")).unwrap_err();
        assert!(other.contains("`steps = 4` where run.toml has `steps = 5`"), "{other}");
    }
}
