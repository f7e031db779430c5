//! One model for all domains, or a specialist for each and a router in front: what the experiment
//! found, and whether it means anything.
//!
//! [`Experiment`] trains a specialist a domain and a generalist on one base, under the same
//! hyperparameters and on the same examples ([`plan`] refuses anything else), tests all of them on
//! every domain, measures routers, and puts every test question to the specialist that the router
//! chooses. Each part is kept in the run's folder and not done twice; [`Parallel`] runs arms as
//! processes side by side; [`assemble`] makes the report of whatever is there.
//!
//! [`Report`] is `report.json` as a type, and [`Report::to_html`] the page that a person reads: one
//! file with no script, nothing from the network, and every foreign word escaped. [`head_to_head`]
//! compares two sides question by question (a paired bootstrap and McNemar's exact test),
//! [`Dynamics`] says how steadily a model learnt, [`findings`] asks of a run what was found before.
//!
//! ```
//! use posttrain_experiment::{Report, head_to_head};
//!
//! // Forty questions: the routed specialists alone are right on twelve, the generalist alone on two, both on the rest.
//! let routed: Vec<_> = (0..40).map(|question| Some(question >= 2)).collect();
//! let generalist: Vec<_> = (0..40).map(|question| Some(question < 28)).collect();
//! let outcome = head_to_head(&routed, &generalist, 7)?;
//! assert_eq!(outcome.difference, 0.25);
//! // 2 · (C(14,0) + C(14,1) + C(14,2)) / 2¹⁴ = 212/16384.
//! assert!((outcome.mcnemar_p - 212.0 / 16384.0).abs() < 1e-12);
//!
//! let page = Report { head_to_head: Some(outcome), ..Report::default() }.to_html();
//! assert!(page.contains("The specialists behind a router did better."));
//! # Ok::<(), posttrain_experiment::ExperimentError>(())
//! ```

mod answers;
mod arm;
mod assemble;
mod config;
mod dry_run;
mod dynamics;
mod error;
mod experiment;
mod folder;
mod head_to_head;
mod html;
mod judged;
mod kept_config;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod local_model;
mod numeral;
mod parallel;
mod report;
mod routers;
mod served;
mod slurm;
mod timeline;

pub use answers::TestAnswers;
pub use arm::{Arm, plan};
pub use assemble::{assemble, with_seeds};
pub use config::{ArmsConfig, DataConfig, ExperimentConfig, RoutingConfig, TestConfig};
pub use dry_run::{DryRun, PlannedModel};
pub use dynamics::Dynamics;
pub use error::ExperimentError;
pub use experiment::{Experiment, PartStatus};
pub use folder::write_report;
pub use head_to_head::{head_to_head, head_to_head_by_domain};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{KubernetesConfig, KubernetesJobs};
pub use local_model::{HiddenStates, LocalLabels};
pub use parallel::{ArmEnd, Lines, Parallel, Slot};
pub use report::{
    AnswerSample, BaseReport, CurvePoint, DataSummary, DomainOutcome, Finding, HeadToHead,
    JudgeReport, Machine, MissingModel, ModelReport, Provenance, Report, RouterSummary,
    RoutingErrors, SeedOutcome, SplitCounts, TimelinePhase, TimelineSpan, WallClock, findings,
};
pub use routers::{RouterConfig, RouterKind};
pub use served::ServedRun;
pub use slurm::{SlurmConfig, SlurmJobs, SlurmSubmitted};
