//! The arms: who is trained on what, for how long, and that both sides see the same.

use crate::{ExperimentConfig, ExperimentError};
use posttrain_data::{Example, Split, Splits};
use posttrain_recipes::{CurriculumConfig, GroupOrder, Mode, RlConfig};
use std::collections::BTreeMap;

/// A model to be trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name, which is its folder's.
    pub name: String,
    /// The domains that it is trained on, by name: one of a specialist, all of the generalist.
    pub domains: Vec<String>,
    /// Its hyperparameters: those of every arm, but for the generalist's steps.
    pub rl: RlConfig,
}

impl Arm {
    /// Whether it is trained on one domain.
    #[must_use]
    pub fn is_specialist(&self) -> bool {
        self.domains.len() == 1
    }

    /// Its examples of a split, at most `each` of every domain.
    #[must_use]
    pub fn examples(&self, splits: &Splits, split: Split, each: Option<usize>) -> Vec<Example> {
        let of = |domain| splits.domain(split, domain).take(each.unwrap_or(usize::MAX)).cloned();
        self.domains.iter().flat_map(|domain| of(domain.as_str())).collect()
    }

    /// How often it sees each training example, by id.
    pub(crate) fn exposure(
        &self,
        splits: &Splits,
    ) -> Result<BTreeMap<String, u64>, ExperimentError> {
        let mut batches = self.rl.batches(&self.examples(splits, Split::Train, None))?;
        let mut seen = BTreeMap::new();
        for _ in 0..self.rl.steps {
            batches
                .next_batch()
                .into_iter()
                .for_each(|example| *seen.entry(example.id).or_insert(0) += 1);
        }
        Ok(seen)
    }
}

/// The data of an experiment, of the domains that somebody is trained on, and its arms: a
/// specialist a domain, then the generalist with as many times the steps. A single domain has no
/// generalist.
///
/// # Errors
/// [`ExperimentError::Field`] for a domain that the data does not have, or whose name cannot be a
/// folder's; [`ExperimentError::UnequalData`] where the two sides would not see the same examples
/// equally often.
pub fn plan(config: &ExperimentConfig) -> Result<(Splits, Vec<Arm>), ExperimentError> {
    let splits = config.data.splits()?;
    let there = splits.domains();

    let mut domains = config.arms.specialists.clone();
    if domains.is_empty() {
        domains = there.iter().map(|domain| domain.to_string()).collect();
    }
    domains.sort();
    domains.dedup();

    if let Some(missing) = domains.iter().find(|domain| !there.contains(&domain.as_str())) {
        let got = format!("`{missing}`; there are: {}", there.join(", "));
        return Err(ExperimentError::Field {
            field: "arms.specialists",
            expected: "domains of the data",
            got,
        });
    }

    let times = domains.len() as u64;
    let of = |rows: &[Example]| {
        rows.iter().filter(|row| domains.contains(&row.domain)).cloned().collect()
    };
    let splits = Splits {
        train: of(&splits.train),
        validation: of(&splits.validation),
        test: of(&splits.test),
        left_over: Vec::new(),
    };

    let mut arms: Vec<Arm> = domains
        .iter()
        .map(|d| Arm { name: d.clone(), domains: vec![d.clone()], rl: rl(config, 1) })
        .collect();
    if times > 1 {
        arms.push(Arm { name: config.arms.generalist.clone(), domains, rl: rl(config, times) });
    }

    check_names(&arms)?;
    check_data(&arms, &splits)?;
    Ok((splits, arms))
}

/// The hyperparameters of every arm, with `times` the steps. Validation comes as many times later,
/// so that every arm's checkpoint is the best of equally many.
fn rl(config: &ExperimentConfig, times: u64) -> RlConfig {
    let mut rl = config.rl.clone();
    rl.steps = rl.steps.saturating_mul(times);
    rl.evaluation.every = rl.evaluation.every.saturating_mul(times);
    rl.evaluation.examples = None;
    rl
}

/// Names of what stands beside the arms in a run's folder.
const TAKEN: [&str; 4] = ["base", "routed", "routing", "judge"];

fn check_names(arms: &[Arm]) -> Result<(), ExperimentError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    for (place, arm) in arms.iter().enumerate() {
        let name = arm.name.as_str();
        let unique = arms[..place].iter().all(|other| other.name != name) && !TAKEN.contains(&name);
        if name.is_empty() || !name.chars().all(plain) || !unique {
            let expected = "letters, digits, - and _, different for every arm, and none of base, routed, routing, judge";
            return Err(ExperimentError::Field {
                field: "an arm's name",
                expected,
                got: format!("{name:?}"),
            });
        }
    }
    Ok(())
}

/// Both sides must see the same examples the same number of times; otherwise the comparison
/// compares data.
fn check_data(arms: &[Arm], splits: &Splits) -> Result<(), ExperimentError> {
    if let Some(adapter) = arms.iter().find_map(|arm| arm.rl.adapter.as_ref()) {
        let expected = "left out where arms are compared with the base that they begin as";
        let got = adapter.display().to_string();
        return Err(ExperimentError::Field { field: "rl.adapter", expected, got });
    }

    let Some(generalist) = arms.iter().find(|arm| !arm.is_specialist()) else { return Ok(()) };

    let expected = "left out where arms are compared: it would have them see other examples";
    if generalist.rl.dynamic_sampling.is_some() {
        let got = format!("{:?}", generalist.rl.dynamic_sampling);
        return Err(ExperimentError::Field { field: "rl.dynamic_sampling", expected, got });
    }
    if generalist.rl.curriculum != CurriculumConfig::default() {
        let got = format!("{:?}", generalist.rl.curriculum);
        return Err(ExperimentError::Field { field: "rl.curriculum", expected, got });
    }

    let by_arrival = generalist.rl.group_order == GroupOrder::Arrival;
    if by_arrival && generalist.rl.mode == Mode::Asynchronous {
        let got = "\"arrival\": what is slow would be left to others".to_owned();
        return Err(ExperimentError::Field { field: "rl.group_order", expected, got });
    }

    let whole = generalist.exposure(splits)?;
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for arm in arms.iter().filter(|arm| arm.is_specialist()) {
        parts.extend(arm.exposure(splits)?);
    }

    let ids = whole.keys().chain(parts.keys());
    let unequal = ids.filter(|id| whole.get(*id) != parts.get(*id)).count();
    if unequal == 0 {
        return Ok(());
    }

    let specialist = &arms[0];
    let seen = specialist.rl.steps * specialist.rl.prompts;
    let rows = splits.domain(Split::Train, &specialist.name).count() as u64;
    Err(ExperimentError::UnequalData { unequal, seen, rows })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn planned(train: u64, steps: u64) -> Result<Vec<Arm>, ExperimentError> {
        let text = format!(
            "seed = 3\n[model]\npath = \"m\"\n[data]\ndataset = \"sciences\"\nsizes = {{ train = {train}, validation = 4, test = 4 }}\n[rl]\nsteps = {steps}\nprompts = 8"
        );
        let config: ExperimentConfig = toml::from_str(&text).unwrap();
        plan(&config.resolved()).map(|(_, arms)| arms)
    }

    #[test]
    fn both_sides_see_the_same_examples_equally_often() {
        let arms = planned(16, 4).unwrap();
        let names: Vec<_> = arms.iter().map(|arm| (arm.name.as_str(), arm.rl.steps)).collect();
        assert_eq!(names, [("math", 4), ("natural", 4), ("social", 4), ("generalist", 12)]);
        let same =
            |arm: &Arm| RlConfig { steps: 0, evaluation: Default::default(), ..arm.rl.clone() };
        assert!(arms.iter().all(|arm| same(arm) == same(&arms[0])));
    }

    #[test]
    fn sides_that_would_see_other_examples_are_refused() {
        let error = planned(20, 4).unwrap_err().to_string();
        assert!(error.contains("32") && error.contains("20"), "{error}");
    }
}
