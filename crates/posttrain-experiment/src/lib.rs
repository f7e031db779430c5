//! Specialists and a router against one generalist: statistics, learning dynamics, the report.

mod dynamics;
mod error;
mod folder;
mod html;
mod numeral;
mod report;
mod statistics;

pub use dynamics::Dynamics;
pub use error::ExperimentError;
pub use folder::write_report;
pub use report::{
    Accuracy, AnswerSample, BaseReport, CurvePoint, DataSummary, DomainOutcome, Finding, HeadToHead, JudgeReport,
    Machine, MissingModel, ModelReport, Provenance, Report, RouterReport, RoutingErrors, SeedOutcome, SplitCounts,
    TimelinePhase, TimelineSpan, WallClock, findings,
};
pub use statistics::{McNemar, PairedBootstrap, head_to_head, head_to_head_by_domain};
