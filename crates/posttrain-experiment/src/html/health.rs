//! Whether training was sound: the gap between sampler and trainer, the share of groups that
//! taught, and others.

use super::chart::Chart;
use super::learning::{share, smoothed};
use super::scale::Scale;
use super::table::{heads, table};
use super::view::View;
use super::{escape, grid, panel, paragraph};
use crate::CurvePoint;
use crate::numeral::{fixed, percent};

/// A quantity of the curve.
struct Measure {
    heading: &'static str,
    of: fn(&CurvePoint) -> f64,
    form: fn(f64) -> String,
}

const MEASURES: [Measure; 6] = [
    Measure {
        heading: "Log-probability gap, nats",
        of: |p| p.logprob_gap,
        form: super::plain_number,
    },
    Measure { heading: "Groups with a signal", of: |p| p.groups_with_signal, form: share },
    Measure {
        heading: "Entropy of the policy, nats",
        of: |p| p.entropy,
        form: super::plain_number,
    },
    Measure {
        heading: "Tokens a completion",
        of: |p| p.completion_tokens,
        form: super::plain_number,
    },
    Measure { heading: "Completions cut off", of: |p| p.truncated, form: share },
    Measure { heading: "Seconds a step", of: |p| p.seconds, form: super::plain_number },
];

pub(super) fn section(view: &View) -> String {
    if view.models.iter().all(|(_, model)| model.curve.is_empty()) {
        return String::new();
    }

    let words = "<em>logprob_gap</em> is how far the sampler’s log-probabilities are from the trainer’s: what is trained on is \
                 what was sampled only while it stays near zero. A group has a <em>signal</em> if its completions differ in \
                 reward; the others teach nothing. Means over nine steps, by each model’s own progress, since the generalist \
                 takes more steps.";
    let panels: String =
        MEASURES.iter().map(|measure| panel(measure.heading, &chart(view, measure))).collect();
    paragraph(words) + &view.legend() + &grid("three", &panels) + &means(view)
}

fn chart(view: &View, measure: &Measure) -> String {
    let line = |model: &crate::ModelReport| -> Vec<(f64, f64)> {
        let last = model.curve.last().map_or(1, |point| point.step).max(1) as f64;
        smoothed(
            &model
                .curve
                .iter()
                .map(|p| (100.0 * p.step as f64 / last, (measure.of)(p)))
                .collect::<Vec<_>>(),
        )
    };

    let lines: Vec<_> =
        view.models.iter().map(|(name, model)| (view.look(name), *name, line(model))).collect();
    let scale = Scale::from(
        0.0,
        lines.iter().flat_map(|(_, _, points)| points.iter().map(|point| point.1)),
    );

    let last = |points: &[(f64, f64)]| {
        points.last().map_or("–".to_owned(), |point| (measure.form)(point.1))
    };
    let said: Vec<String> = lines
        .iter()
        .map(|(_, name, points)| format!("{} ends at {}", escape::shortened(name), last(points)))
        .collect();

    let progress = Scale::exactly(0.0, 100.0);
    let title = measure.heading.to_owned();
    let mut chart =
        Chart::new(title, said.join("; "), (progress, "% of its steps"), (scale, measure.form));

    for (look, _, points) in &lines {
        chart.line(points, &format!("line m{look}"));
        chart.in_look(*look, |chart| ends(points).for_each(|point| chart.marker(point, *look)));
    }
    chart.svg("")
}

/// Where a line carries its marker: at a third, at two thirds and at its end.
fn ends(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + '_ {
    let n = points.len();
    [n / 3, 2 * n / 3, n.saturating_sub(1)]
        .into_iter()
        .filter_map(|index| points.get(index).copied())
}

fn means(view: &View) -> String {
    let rows: Vec<Vec<String>> = view
        .models
        .iter()
        .map(|(name, model)| {
            let of = |index: usize| mean(&model.curve, MEASURES[index].of);
            let largest =
                model.curve.iter().map(|point| point.logprob_gap).fold(f64::NAN, f64::max);
            vec![
                escape::name(name),
                fixed(of(0), 4),
                fixed(largest, 4),
                percent(of(1)),
                fixed(of(2), 2),
                fixed(of(3), 1),
                percent(of(4)),
            ]
        })
        .collect();

    let heads = heads(&["Model", "Gap", "Largest gap", "Signal", "Entropy", "Tokens", "Cut off"]);
    table("Means over all steps", &heads, &rows)
}

/// The mean of a measure over the steps where it is finite, NaN where it is so at none.
fn mean(curve: &[CurvePoint], of: fn(&CurvePoint) -> f64) -> f64 {
    let values: Vec<f64> = curve.iter().map(of).filter(|value| value.is_finite()).collect();
    if values.is_empty() { f64::NAN } else { values.iter().sum::<f64>() / values.len() as f64 }
}
