//! Time: of each arm, of all, and of the longest.

use serde::{Deserialize, Serialize};

/// Seconds of training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WallClock {
    /// The generalist's.
    pub generalist_s: f64,
    /// The sum of the specialists': what they cost.
    pub specialists_total_s: f64,
    /// The longest specialist's: what they take side by side, each on hardware of its own.
    pub specialists_critical_path_s: f64,
    /// `generalist_s / specialists_critical_path_s`: how many times sooner the specialists are
    /// there. 0 where there is no critical path.
    pub ratio: f64,
    /// How many arms really ran at a time; absent where it is not known. With 1 the critical path
    /// is derived, not observed; with more each arm had a share of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
}

impl WallClock {
    /// From the seconds of the generalist and of each specialist.
    ///
    /// ```
    /// use posttrain_experiment::WallClock;
    ///
    /// let clock = WallClock::new(300.0, &[80.0, 100.0, 90.0]);
    /// assert_eq!((clock.specialists_total_s, clock.specialists_critical_path_s, clock.ratio), (270.0, 100.0, 3.0));
    /// ```
    pub fn new(generalist_s: f64, specialists_s: &[f64]) -> Self {
        let longest = specialists_s.iter().copied().fold(0.0, f64::max);
        Self {
            generalist_s,
            specialists_total_s: specialists_s.iter().sum(),
            specialists_critical_path_s: longest,
            ratio: if longest > 0.0 { generalist_s / longest } else { 0.0 },
            parallel: None,
        }
    }
}

/// When an arm did what, in seconds from the experiment's beginning. Of a resumed run only the time
/// that it ran counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineSpan {
    /// The model, or the router.
    pub model: String,
    /// What was done.
    pub phase: TimelinePhase,
    /// Its beginning.
    pub start_s: f64,
    /// Its end.
    pub end_s: f64,
}

/// What an arm did in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimelinePhase {
    /// Loading the model and the data.
    Setup,
    /// Training steps.
    Training,
    /// Validation between them.
    Validation,
    /// The test sets.
    Test,
    /// Fitting and asking routers.
    Routing,
    /// Asking the judge.
    Judging,
}

impl TimelinePhase {
    /// Every phase, in the order of a run.
    pub const ALL: [Self; 6] =
        [Self::Setup, Self::Training, Self::Validation, Self::Test, Self::Routing, Self::Judging];

    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Routing => "routing",
            Self::Judging => "judging",
        }
    }
}
