//! When each arm did what, laid out from how long it took.

use crate::answers::TestAnswers;
use crate::experiment::TrainedOn;
use crate::{Arm, ExperimentError, TimelinePhase, TimelineSpan};
use posttrain_recipes::{RunState, read_metrics};
use posttrain_store::read_json_if_there;
use std::collections::BTreeMap;
use std::path::Path;

/// The arms' phases one after the other, or in as many rows as arms ran at a time: each begins
/// where the first row is free. Only work counts: neither pauses nor what a killed process did in
/// vain.
pub(crate) fn timeline(folder: &Path, arms: &[Arm]) -> Result<Vec<TimelineSpan>, ExperimentError> {
    let mut spans = Vec::new();
    let mut rows: Vec<f64> = Vec::new();
    let mut on_record = BTreeMap::new();
    for arm in arms {
        let trained =
            read_json_if_there::<TrainedOn>(&folder.join(&arm.name).join("machine.json"))?;
        on_record.insert(arm.name.as_str(), trained.map_or(1, |on| on.at_a_time.max(1)));
    }

    // One process takes the arms as they come; several begin with the longest.
    let side_by_side = on_record.values().any(|at_a_time| *at_a_time > 1);
    for arm in if side_by_side { order(arms) } else { arms.iter().collect() } {
        let run = folder.join(&arm.name);
        let at_a_time = on_record[arm.name.as_str()];
        rows.resize(rows.len().max(at_a_time), 0.0);
        let mut start = rows.iter().copied().fold(f64::INFINITY, f64::min);
        let row = rows.iter().position(|end| *end == start).unwrap_or(0);

        for (phase, seconds) in phases(&run)? {
            spans.push(TimelineSpan {
                model: arm.name.clone(),
                phase,
                start_s: start,
                end_s: start + seconds,
            });
            start += seconds;
        }
        rows[row] = start;
    }

    Ok(spans)
}

/// The order in which arms are begun: the longest first, since the others fit beside it.
pub(crate) fn order(arms: &[Arm]) -> Vec<&Arm> {
    let mut order: Vec<&Arm> = arms.iter().collect();
    order.sort_by_key(|arm| std::cmp::Reverse(arm.rl.steps));
    order
}

fn phases(run: &Path) -> Result<Vec<(TimelinePhase, f64)>, ExperimentError> {
    let Some(state) = RunState::peek(run)? else { return Ok(Vec::new()) };
    let training: f64 = read_metrics(run)?.iter().map(|record| record.seconds).sum();
    let tested = TestAnswers::read(run)?.map_or(0.0, |answers| answers.seconds);
    let validation = (state.seconds - training).max(0.0);

    let phases = [
        (TimelinePhase::Training, training),
        (TimelinePhase::Validation, validation),
        (TimelinePhase::Test, tested),
    ];
    Ok(phases.into_iter().filter(|(_, seconds)| *seconds > 0.0).collect())
}
