//! The report of an experiment, from what lies in its folder.

use crate::answers::{TestAnswers, by_domain, verdicts};
use crate::experiment::{TrainedOn, routing_file};
use crate::judged::{self, Verdict};
use crate::timeline::timeline;
use crate::{
    AnswerSample, Arm, BaseReport, CurvePoint, DataSummary, Dynamics, ExperimentConfig,
    ExperimentError, HeadToHead, JudgeReport, MissingModel, ModelReport, Provenance, Report,
    RouterSummary, RoutingErrors, SeedOutcome, SplitCounts, WallClock, findings,
    head_to_head_by_domain, plan,
};
use posttrain_data::{Split, Splits};
use posttrain_recipes::{Answer, RunState, StepRecord, read_metrics};
use posttrain_router::RouterReport;
use posttrain_statistics::Share;
use posttrain_store::read_json_if_there;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Answers of a model that the report shows.
const SAMPLES: usize = 10;

/// The report of what lies in a run's folder. What is missing is left out and said, so that it may
/// be made while arms are still at work. No model is loaded.
///
/// # Errors
/// A file that cannot be read, or a configuration whose data is not there.
pub fn assemble(folder: &Path) -> Result<Report, ExperimentError> {
    let config = ExperimentConfig::read(&folder.join("config.toml"))?.resolved();
    let (splits, arms) = plan(&config)?;

    let from = Assembly { config: &config, folder, splits: &splits, arms: &arms };
    let mut report = Report {
        config: serde_json::to_value(&config).unwrap_or_default(),
        data: from.data()?,
        base: TestAnswers::read(&folder.join("base"))?.as_ref().map(base),
        router: from.routers()?,
        router_used: Some(config.routing.used.clone()),
        routing_errors: from.routing_errors()?,
        head_to_head: from.head_to_head()?,
        judge: from.judge()?,
        timeline: timeline(folder, &arms)?,
        provenance: Provenance { version: env!("CARGO_PKG_VERSION").into(), seed: config.seed },
        ..Report::default()
    };

    from.models(&mut report)?;
    from.samples(&mut report)?;
    report.findings = findings(&report.models);
    Ok(report)
}

/// The report with the outcomes of the same experiment under other seeds beside its own.
///
/// # Errors
/// Those of [`Report::read`]; [`ExperimentError::OtherExperiment`] where another report's
/// configuration differs in more than the seed, or not in the seed.
pub fn with_seeds(
    mut report: Report,
    others: &[impl AsRef<Path>],
) -> Result<Report, ExperimentError> {
    let mut seeds: Vec<SeedOutcome> = seed_outcome(&report).into_iter().collect();
    for other in others {
        let path: &Path = other.as_ref();
        let other = Report::read(path)?;
        let wrong = |reason: String| ExperimentError::OtherExperiment { path: path.into(), reason };

        if let Some(field) = difference("", &report.config, &other.config) {
            return Err(wrong(format!("`{field}` differs")));
        }
        if seeds.iter().any(|outcome| outcome.seed == other.provenance.seed) {
            return Err(wrong(format!("seed {} is there already", other.provenance.seed)));
        }
        seeds.extend(seed_outcome(&other));
    }

    seeds.sort_by_key(|outcome| outcome.seed);
    report.seeds = if others.is_empty() { Vec::new() } else { seeds };
    Ok(report)
}

fn seed_outcome(report: &Report) -> Option<SeedOutcome> {
    let head_to_head = report.head_to_head.clone()?;
    Some(SeedOutcome { seed: report.provenance.seed, head_to_head })
}

/// What may differ between two runs of one experiment: the seed, and where the same files lie.
const OF_A_RUN: [&str; 4] = ["seed", "rl.seed", "data.dataset", "model.path"];

/// The first field under `path` that differs between two configurations of one experiment.
fn difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return (one != other).then(|| path.to_owned());
    };

    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().find_map(|name| {
        let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let of = |object: &serde_json::Map<String, Value>| {
            object.get(name).cloned().unwrap_or(Value::Null)
        };
        if OF_A_RUN.contains(&&*field) { None } else { difference(&field, &of(one), &of(other)) }
    })
}

struct Assembly<'a> {
    config: &'a ExperimentConfig,
    folder: &'a Path,
    splits: &'a Splits,
    arms: &'a [Arm],
}

impl Assembly<'_> {
    fn data(&self) -> Result<DataSummary, ExperimentError> {
        let per_domain = self
            .splits
            .domains()
            .into_iter()
            .map(|domain| (domain.to_owned(), self.split_counts(domain)))
            .collect();

        let mut examples_seen = BTreeMap::new();
        for arm in self.arms {
            examples_seen.insert(arm.name.clone(), arm.exposure(self.splits)?.values().sum());
        }
        Ok(DataSummary { per_domain, examples_seen })
    }

    fn split_counts(&self, domain: &str) -> SplitCounts {
        let rows = |split| self.splits.domain(split, domain).count();
        SplitCounts {
            train: rows(Split::Train),
            validation: rows(Split::Validation),
            test: rows(Split::Test),
        }
    }

    fn models(&self, report: &mut Report) -> Result<(), ExperimentError> {
        let mut clock: BTreeMap<&str, f64> = BTreeMap::new();
        for arm in self.arms {
            let folder = self.folder.join(&arm.name);
            let state = RunState::peek(&folder)?;
            let answers = TestAnswers::read(&folder)?;

            if let (Some(state), Some(answers)) = (&state, &answers) {
                let model = model(arm, state, answers, &read_metrics(&folder)?);
                clock.insert(&arm.name, model.seconds);
                report.models.insert(arm.name.clone(), model);
            } else {
                report.missing.push(missing(arm, state.as_ref()));
            }

            if let Some(TrainedOn { machine, at_a_time }) =
                read_json_if_there(&folder.join("machine.json"))?
            {
                report.machine = machine;
                report.wall_clock =
                    Some(WallClock { parallel: Some(at_a_time), ..WallClock::default() });
            }
        }

        let seconds = |arm: &&Arm| clock.get(arm.name.as_str()).copied();
        let (specialists, others): (Vec<&Arm>, Vec<&Arm>) =
            self.arms.iter().partition(|arm| arm.is_specialist());
        let all: Option<Vec<f64>> = specialists.iter().map(seconds).collect();

        let parallel = report.wall_clock.and_then(|clock| clock.parallel);
        let whole = others.first().and_then(seconds).zip(all);
        report.wall_clock = whole.map(|(g, s)| WallClock { parallel, ..WallClock::new(g, &s) });
        Ok(())
    }

    fn routers(&self) -> Result<BTreeMap<String, RouterSummary>, ExperimentError> {
        let mut routers = BTreeMap::new();
        for router in &self.config.routing.routers {
            let Some(routing) = self.routing(router.name())? else { continue };
            let mut report =
                RouterSummary::from_confusion(&routing.labels, routing.confusion.clone())?;
            report.ece = Some(routing.ece);
            report.seconds_per_question = Some(routing.seconds_per_question);
            routers.insert(router.name().to_owned(), report);
        }
        Ok(routers)
    }

    fn routing(&self, router: &str) -> Result<Option<RouterReport>, ExperimentError> {
        Ok(read_json_if_there(&routing_file(self.folder, router))?)
    }

    /// The verdict on each test question of the specialist that the router chose, with the
    /// specialists' own verdicts.
    fn routing_errors(&self) -> Result<Option<RoutingErrors>, ExperimentError> {
        let (Some(routing), Some(specialists)) =
            (self.routing(&self.config.routing.used)?, self.specialists()?)
        else {
            return Ok(None);
        };

        let known: Vec<_> =
            routing.labels.iter().map(|label| specialists.get(label).map(right_by_id)).collect();
        let right: Vec<Vec<Option<bool>>> = routing
            .decisions
            .iter()
            .map(|q| {
                known
                    .iter()
                    .map(|of| of.as_ref().and_then(|of| of.get(&q.id).copied().flatten()))
                    .collect()
            })
            .collect();

        let attribution = routing.attribution(&right)?;
        let some = |share: Share| (share.n > 0).then_some(share);
        Ok(Some(RoutingErrors {
            cost: attribution.loss.unwrap_or(0.0),
            misrouted: attribution.misrouted,
            wrong_specialist: some(attribution.wrong_specialist),
            right_specialist: some(attribution.right_specialist),
        }))
    }

    /// The specialists' answers, where all are there.
    fn specialists(&self) -> Result<Option<BTreeMap<String, TestAnswers>>, ExperimentError> {
        let mut all = BTreeMap::new();
        for arm in self.arms.iter().filter(|arm| arm.is_specialist()) {
            let Some(answers) = TestAnswers::read(&self.folder.join(&arm.name))? else {
                return Ok(None);
            };
            all.insert(arm.name.clone(), answers);
        }
        Ok(Some(all))
    }

    fn sides(&self) -> Result<Option<(TestAnswers, TestAnswers)>, ExperimentError> {
        let of = |name: &str| TestAnswers::read(&self.folder.join(name));
        Ok(of("routed")?.zip(of(&self.config.arms.generalist)?))
    }

    fn head_to_head(&self) -> Result<Option<HeadToHead>, ExperimentError> {
        let (Some((routed, generalist)), Some(specialists)) = (self.sides()?, self.specialists()?)
        else {
            return Ok(None);
        };

        let mut outcome =
            self.compare(&routed.sampled, &routed.verdicts(), &generalist.verdicts())?;

        let oracle: Vec<Answer> = routed
            .sampled
            .iter()
            .filter_map(|answer| {
                let specialist = specialists.get(&answer.domain)?;
                specialist.sampled.iter().find(|other| other.id == answer.id).cloned()
            })
            .collect();
        outcome.oracle = Some(Share::of_verdicts(&verdicts(&oracle)));
        for (domain, accuracy) in by_domain(&oracle) {
            outcome.per_domain.entry(domain).and_modify(|sides| sides.oracle = Some(accuracy));
        }
        Ok(Some(outcome))
    }

    fn compare(
        &self,
        answers: &[Answer],
        routed: &[Option<bool>],
        generalist: &[Option<bool>],
    ) -> Result<HeadToHead, ExperimentError> {
        let domains: Vec<&str> = answers.iter().map(|answer| answer.domain.as_str()).collect();
        head_to_head_by_domain(routed, generalist, &domains, self.config.seed)
    }

    fn judge(&self) -> Result<Option<JudgeReport>, ExperimentError> {
        let Some(judge) = &self.config.judge else { return Ok(None) };

        let read =
            |side: &str| read_json_if_there::<Vec<Verdict>>(&judged::file(self.folder, side));
        let Some((routed, generalist)) = read("routed")?.zip(read(&self.config.arms.generalist)?)
        else {
            return Ok(None);
        };

        let Some(answers) = self.sides()? else { return Ok(None) };

        let right =
            |verdicts: &[Verdict]| verdicts.iter().map(Verdict::is_right).collect::<Vec<_>>();
        let routed = right(&routed);
        let generalist = right(&generalist);
        let verified = answers.0.verdicts().into_iter().chain(answers.1.verdicts());
        let pairs: Vec<_> = routed.iter().chain(&generalist).copied().zip(verified).collect();

        Ok(Some(JudgeReport {
            model: judge.server.model.clone(),
            head_to_head: Some(self.compare(&answers.0.sampled, &routed, &generalist)?),
            ..judged::agreement(&pairs)
        }))
    }

    /// Every so many answers of each model, and of the base, over the whole test split.
    fn samples(&self, report: &mut Report) -> Result<(), ExperimentError> {
        for name in self.arms.iter().map(|arm| arm.name.as_str()).chain(["base"]) {
            let Some(answers) = TestAnswers::read(&self.folder.join(name))? else { continue };
            let count = SAMPLES.min(answers.sampled.len());
            // The middles of equal parts, so that every domain has its share.
            let places = (0..count).map(|i| (2 * i + 1) * answers.sampled.len() / (2 * count));
            report.samples.extend(places.map(|place| sample(name, &answers.sampled[place])));
        }
        Ok(())
    }
}

fn base(answers: &TestAnswers) -> BaseReport {
    BaseReport {
        test: by_domain(&answers.sampled),
        test_greedy: answers.greedy.as_ref().map(|greedy| by_domain(greedy)),
    }
}

fn model(
    arm: &Arm,
    state: &RunState,
    answers: &TestAnswers,
    records: &[StepRecord],
) -> ModelReport {
    let rewards: Vec<(u64, f64)> =
        records.iter().map(|record| (record.step, record.reward)).collect();
    let validation =
        records.iter().filter_map(|r| Some((r.step, r.validation.as_ref()?.sampled.share)));
    let BaseReport { test, test_greedy } = base(answers);

    ModelReport {
        domains: arm.domains.clone(),
        steps: state.step,
        seconds: records.iter().map(|record| record.seconds).sum(),
        best_step: state.best.map_or(state.step, |best| best.step),
        validation: validation.collect(),
        dynamics: Dynamics::of(&rewards),
        test,
        test_greedy,
        curve: records.iter().map(point).collect(),
    }
}

fn point(record: &StepRecord) -> CurvePoint {
    CurvePoint {
        step: record.step,
        reward: record.reward,
        reward_std: record.reward_std,
        groups_with_signal: record.groups_with_signal,
        logprob_gap: record.logprob_gap,
        entropy: record.entropy,
        completion_tokens: record.completion_tokens,
        truncated: record.truncated,
        seconds: record.seconds,
    }
}

fn missing(arm: &Arm, state: Option<&RunState>) -> MissingModel {
    let reason = match state {
        Some(state) if state.step >= arm.rl.steps => "trained, not tested".into(),
        Some(state) => format!("{} of {} steps are saved", state.step, arm.rl.steps),
        None => "nothing of it is saved".into(),
    };
    MissingModel { model: arm.name.clone(), reason, last_step: state.map(|state| state.step) }
}

/// Whether each answer is right, by its question's id; `None` without a verdict.
fn right_by_id(answers: &TestAnswers) -> BTreeMap<String, Option<bool>> {
    answers.sampled.iter().map(|answer| (answer.id.clone(), answer.is_right())).collect()
}

fn sample(model: &str, answer: &Answer) -> AnswerSample {
    AnswerSample {
        model: model.into(),
        domain: answer.domain.clone(),
        question: answer.question.clone(),
        reference: answer.reference.clone(),
        response: answer.response.clone(),
        verdict: answer.is_right(),
        error: answer.error.clone(),
    }
}
