//! The experiment: arms that are trained and tested, routers, the routed test, the report. Each
//! part is kept in the run's folder, and is not done again where it is there.

use crate::answers::TestAnswers;
use crate::kept_config::keep_config;
use crate::routers::RouterMaterials;
use crate::{Arm, ExperimentConfig, ExperimentError, LocalLabels, Machine, judged, plan};
use posttrain_data::{Split, Splits};
use posttrain_model::{Decoder, TextModel};
use posttrain_recipes::{
    Decoding, Evaluator, Event, Observer, PolicyQuestion, RecipeError, RlRun, RunState, Silent,
    load_policy,
};
use posttrain_reward::Reward;
use posttrain_rollout::PolicySnapshot;
use posttrain_router::{RouterData, RouterReport};
use posttrain_statistics::Share;
use posttrain_store::{read_json_if_there, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The folder of the base's answers.
const BASE: &str = "base";

/// Whether a part of an experiment is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartStatus {
    /// It is.
    Done,
    /// It was asked to stop; called again, it goes on.
    Stopped,
}

/// What an arm was trained on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainedOn {
    pub machine: Machine,
    pub at_a_time: usize,
}

/// An experiment on one base model in a folder of its own.
///
/// The folder holds `config.toml`, a folder an arm (as [`RlRun`] leaves it, with the answers to the
/// test split in `test.json`), `base/test.json`, `routing/<router>.json`, `routed/test.json`,
/// `judge/`, `report.json` and `report.html`. Arms may be run by several processes at a time, each
/// with its own; whoever comes last joins them.
pub struct Experiment {
    config: ExperimentConfig,
    model: TextModel,
    router: TextModel,
    base_model: String,
    reward: Arc<dyn Reward>,
    folder: PathBuf,
    splits: Splits,
    arms: Vec<Arm>,
    at_a_time: usize,
    stop: Arc<AtomicBool>,
}

impl Experiment {
    /// An experiment on `model` in `folder`. `base_model` is the name that the written adapters
    /// give their base.
    ///
    /// # Errors
    /// What is wrong with the configuration or the data; [`ExperimentError::OtherRun`] where the
    /// folder holds a run of another configuration.
    pub fn new(
        config: ExperimentConfig,
        model: TextModel,
        base_model: &str,
        folder: &Path,
    ) -> Result<Self, ExperimentError> {
        config.validate()?;
        let config = config.resolved();
        let (splits, arms) = plan(&config)?;
        config.rl.lora.select(model.decoder.modules()).map_err(RecipeError::from)?;
        let reward = config.reward.build()?;
        keep_config(folder, &config)?;

        Ok(Self {
            config,
            router: model.clone(),
            model,
            base_model: base_model.into(),
            reward,
            folder: folder.into(),
            splits,
            arms,
            at_a_time: 1,
            stop: Arc::default(),
        })
    }

    /// Asks another model on this machine for the routers that ask one.
    #[must_use]
    pub fn with_router_model(self, router: TextModel) -> Self {
        Self { router, ..self }
    }

    /// Scores by a reward of the caller's in place of the configuration's.
    #[must_use]
    pub fn with_reward(self, reward: Arc<dyn Reward>) -> Self {
        Self { reward, ..self }
    }

    /// Says that so many arms train at a time, each with its share of the machine. It only goes on
    /// record.
    #[must_use]
    pub fn with_arms_at_a_time(self, at_a_time: usize) -> Self {
        Self { at_a_time, ..self }
    }

    /// The arms, specialists first.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// A flag that, once set, ends the experiment after the step or the test that it is in.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Trains an arm and tests it on every domain, as far as that is not done.
    ///
    /// # Errors
    /// [`ExperimentError::NoArm`]; else whatever sampling, rewards, training or the disk do.
    pub fn run_arm(
        &self,
        name: &str,
        observer: &mut dyn Observer,
    ) -> Result<PartStatus, ExperimentError> {
        let arm = self.arm(name)?;
        let folder = self.folder.join(name);
        if TestAnswers::read(&folder)?.is_some() {
            return Ok(PartStatus::Done);
        }

        let run = RlRun::new(self.model.clone(), self.reward.clone(), arm.rl.clone(), &folder)?
            .with_style(self.config.prompt.clone())
            .with_base_model(&self.base_model)
            .with_stop_flag(self.stop.clone());

        write_json(
            &folder.join("machine.json"),
            &TrainedOn { machine: self.machine(), at_a_time: self.at_a_time },
        )?;

        let train = arm.examples(&self.splits, Split::Train, None);
        let validation =
            arm.examples(&self.splits, Split::Validation, self.config.rl.evaluation.examples);
        let outcome = run.train(&train, &validation, observer)?;
        if !outcome.complete || self.stopping() {
            return Ok(PartStatus::Stopped);
        }

        let snapshot = self.best(name)?;
        let policies = vec![Some(&snapshot); self.splits.test.len()];
        self.test(&format!("{name}: test"), &policies, &folder, observer)?;
        Ok(PartStatus::Done)
    }

    /// Tests the base on every domain, if that is not done.
    ///
    /// # Errors
    /// Whatever sampling, rewards or the disk do.
    pub fn run_base(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        let folder = self.folder.join(BASE);
        if TestAnswers::read(&folder)?.is_none() {
            self.test("base: test", &vec![None; self.splits.test.len()], &folder, observer)?;
        }
        Ok(self.progress())
    }

    /// Measures every router on the test split, as far as that is not done.
    ///
    /// # Errors
    /// Whatever the routers or the disk do.
    pub fn run_routers(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        let data = RouterData::from_splits(&self.splits, &self.domains())?;
        let runtime = tokio::runtime::Runtime::new().map_err(ExperimentError::io(&self.folder))?;
        let materials = RouterMaterials {
            data: &data,
            model: self.router.clone(),
            model_name: &self.base_model,
            labels: Arc::new(LocalLabels::new(self.router.clone())),
            runtime: runtime.handle().clone(),
        };

        for router in &self.config.routing.routers {
            if self.routed_by(router.name())?.is_none() && !self.stopping() {
                let started = Instant::now();
                let report = RouterReport::of(&router.build(&materials)?, &data.test)?;

                let text = format!(
                    "router {}: {:.3} [{:.3}, {:.3}], n = {}, {:.1} s",
                    router.name(),
                    report.accuracy,
                    report.accuracy_interval[0],
                    report.accuracy_interval[1],
                    report.n,
                    started.elapsed().as_secs_f64()
                );
                observer.see(&Event::Note { text: &text });
                write_json(&routing_file(&self.folder, router.name()), &report)?;
            }
        }

        Ok(self.progress())
    }

    /// Puts every test question to the specialist that the router sends it to, all in one batch, if
    /// that is not done and the specialists are there.
    ///
    /// # Errors
    /// Whatever sampling, rewards or the disk do.
    pub fn run_routed(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        let folder = self.folder.join("routed");
        let Some(routing) = self.routed_by(&self.config.routing.used)? else {
            return Ok(self.progress());
        };

        let specialists = self.arms.iter().filter(|arm| arm.is_specialist());
        if TestAnswers::read(&folder)?.is_some()
            || specialists.clone().any(|arm| !self.is_tested(arm))
        {
            return Ok(self.progress());
        }

        let snapshots: Result<BTreeMap<&str, PolicySnapshot>, ExperimentError> =
            specialists.map(|arm| Ok((arm.name.as_str(), self.best(&arm.name)?))).collect();
        let snapshots = snapshots?;

        let labels: BTreeMap<&str, &str> = routing
            .decisions
            .iter()
            .map(|q| (q.id.as_str(), routing.labels[q.decision.label].as_str()))
            .collect();
        let policies: Vec<_> = self
            .splits
            .test
            .iter()
            .map(|example| snapshots.get(labels.get(example.id.as_str()).copied()?))
            .collect();

        self.test("routed: test", &policies, &folder, observer)?;
        Ok(self.progress())
    }

    /// Has the judge, where one is configured, judge the answers of both sides.
    ///
    /// # Errors
    /// Whatever the judge's runner or the disk does. A verdict that fails is no error; it is
    /// counted.
    pub fn run_judge(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        let Some(judge) = &self.config.judge else { return Ok(PartStatus::Done) };
        for side in ["routed", self.config.arms.generalist.as_str()] {
            let file = judged::file(&self.folder, side);
            let answers = TestAnswers::read(&self.folder.join(side))?;
            let Some(answers) = answers.filter(|_| !file.exists() && !self.stopping()) else {
                continue;
            };

            let judge = Arc::new(judge.judge.clone().build(judge.model()?)?);
            let scores = judged::judge(judge, &answers.sampled, &self.config.rl.scorer)?;
            write_json(&file, &scores)?;
            observer
                .see(&Event::Note { text: &format!("judge: {side}, {} answers", scores.len()) });
        }

        Ok(self.progress())
    }

    /// Everything that is not done yet, one part after the other, but for the report.
    ///
    /// # Errors
    /// Those of the parts.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        self.run_telling(observer, &mut |_| Ok(()))
    }

    /// Does what [`Experiment::run`] does, and calls `tested` with the name of each model (`base`,
    /// then the arms') when its answers to the test split have just been written: there is something
    /// to look at, and [`assemble`](crate::assemble) can join what there is so far.
    ///
    /// # Errors
    /// Those of the parts, and of `tested`.
    pub fn run_telling(
        &self,
        observer: &mut dyn Observer,
        tested: &mut dyn FnMut(&str) -> Result<(), ExperimentError>,
    ) -> Result<PartStatus, ExperimentError> {
        let arms = self.arms.iter().map(|arm| arm.name.as_str());
        for model in std::iter::once(BASE).chain(arms) {
            if TestAnswers::read(&self.folder.join(model))?.is_some() {
                continue;
            }
            let status = match model {
                BASE => self.run_base(observer)?,
                arm => self.run_arm(arm, observer)?,
            };
            if status == PartStatus::Stopped {
                return Ok(PartStatus::Stopped);
            }
            tested(model)?;
        }

        self.finish(observer)
    }

    /// What joins the arms: base, routers, routed test, judge.
    ///
    /// # Errors
    /// Those of the parts.
    pub fn finish(&self, observer: &mut dyn Observer) -> Result<PartStatus, ExperimentError> {
        for part in [Self::run_base, Self::run_routers, Self::run_routed, Self::run_judge] {
            if part(self, observer)? == PartStatus::Stopped {
                return Ok(PartStatus::Stopped);
            }
        }
        Ok(PartStatus::Done)
    }

    /// The machine that this process trains on.
    pub fn machine(&self) -> Machine {
        let kind = match self.model.decoder.kind() {
            tch::Kind::BFloat16 => "bf16",
            tch::Kind::Float => "f32",
            _ => "other",
        };

        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            device: format!("{:?}", self.model.decoder.device()).to_lowercase(),
            kind: kind.into(),
            name: processor(),
        }
    }

    fn arm(&self, name: &str) -> Result<&Arm, ExperimentError> {
        self.arms.iter().find(|arm| arm.name == name).ok_or_else(|| ExperimentError::NoArm {
            name: name.into(),
            names: self.arms.iter().map(|arm| arm.name.clone()).collect(),
        })
    }

    /// Asks each test question of its policy and keeps the answers.
    fn test(
        &self,
        what: &str,
        policies: &[Option<&PolicySnapshot>],
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(), ExperimentError> {
        let started = Instant::now();
        let style = self.config.prompt.clone();
        let evaluator =
            Evaluator::new(self.model.clone(), style, self.reward.clone(), &self.config.rl)?;
        let asked = self.splits.test.iter().zip(policies);
        let questions: Vec<_> =
            asked.map(|(example, &policy)| PolicyQuestion { example, policy }).collect();

        let sampled = evaluator.answers(&questions, Decoding::Sampled, observer)?;
        let greedy = match self.config.test.greedy {
            true => Some(evaluator.answers(&questions, Decoding::Greedy, observer)?),
            false => None,
        };

        let answers = TestAnswers { sampled, greedy, seconds: started.elapsed().as_secs_f64() };
        let share = Share::of_verdicts(&answers.verdicts());
        let text = format!(
            "{what}: T=1 {:.3} [{:.3}, {:.3}], n = {}, {:.1} s",
            share.share, share.low, share.high, share.n, answers.seconds
        );
        observer.see(&Event::Note { text: &text });
        answers.write(folder)
    }

    /// An arm's best validation checkpoint.
    fn best(&self, arm: &str) -> Result<PolicySnapshot, ExperimentError> {
        best_policy(&self.folder.join(arm), &self.model.decoder)
    }

    fn is_tested(&self, arm: &Arm) -> bool {
        TestAnswers::read(&self.folder.join(&arm.name)).is_ok_and(|answers| answers.is_some())
    }

    fn routed_by(&self, router: &str) -> Result<Option<RouterReport>, ExperimentError> {
        Ok(read_json_if_there(&routing_file(&self.folder, router))?)
    }

    /// The domains that have a specialist.
    fn domains(&self) -> Vec<&str> {
        self.arms.iter().filter(|arm| arm.is_specialist()).map(|arm| arm.name.as_str()).collect()
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn progress(&self) -> PartStatus {
        if self.stopping() { PartStatus::Stopped } else { PartStatus::Done }
    }

    /// [`Experiment::run`] without an observer.
    ///
    /// # Errors
    /// Those of [`Experiment::run`].
    pub fn run_silently(&self) -> Result<PartStatus, ExperimentError> {
        self.run(&mut Silent)
    }
}

/// The best validation checkpoint in an arm's folder, or the last one where none was the best.
pub(crate) fn best_policy(
    folder: &Path,
    model: &Decoder,
) -> Result<PolicySnapshot, ExperimentError> {
    let best = RunState::peek(folder)?.is_some_and(|state| state.best.is_some());
    Ok(load_policy(&folder.join(if best { "best" } else { "last" }), model)?)
}

/// Where a router's decisions and their report are.
pub(crate) fn routing_file(folder: &Path, router: &str) -> PathBuf {
    folder.join("routing").join(format!("{router}.json"))
}

/// The processor's name, where the system tells it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
