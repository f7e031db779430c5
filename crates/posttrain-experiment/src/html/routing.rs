//! The routers: how well each sorts questions, and what the errors of the one in use cost.

use super::table::{heads, heat, or_dash, table};
use super::view::View;
use super::{escape, grid, paragraph};
use crate::RouterSummary;
use crate::numeral::{counted, duration, fixed, interval, percent, points};
use posttrain_statistics::Share;

pub(super) fn section(view: &View) -> String {
    let routers = &view.report.router;
    if routers.is_empty() {
        return String::new();
    }

    let used = view.report.router_used.as_deref();
    let rows: Vec<Vec<String>> = routers
        .iter()
        .map(|(name, router)| summary(name, router, used == Some(name.as_str())))
        .collect();
    let heads = heads(&["Router", "Accuracy", "Calibration error (ECE)", "Time a question"]);

    let matrices: String = routers
        .iter()
        .filter(|(_, router)| !router.confusion.is_empty())
        .map(|(name, router)| confusion(name, router))
        .collect();

    let words = "A question’s true domain down, where the router sent it across; shaded by the share of the row. Recall: of what \
                 belongs to a domain, what was sent there. Precision: of what was sent there, what belongs.";
    let explained = if matrices.is_empty() { String::new() } else { paragraph(words) };

    errors(view)
        + &table("Routers on the combined test set", &heads, &rows)
        + &explained
        + &grid("three", &matrices)
}

fn errors(view: &View) -> String {
    let Some(errors) = view.report.routing_errors else { return String::new() };

    let scored = |a: Option<Share>| {
        a.map_or("–".to_owned(), |a| format!("{} {}", percent(a.share), interval(a.low, a.high)))
    };
    let words = match errors.misrouted {
        0 => "No question was sent to a wrong specialist.".to_owned(),
        misrouted => format!(
            "The router in use sent {} to a wrong specialist. On those the wrong specialists scored {}, where the right ones \
             scored {}. Over all questions, perfect routing would change the accuracy by {} points.",
            counted(misrouted, "question"),
            scored(errors.wrong_specialist),
            scored(errors.right_specialist),
            points(errors.cost),
        ),
    };
    paragraph(&words)
}

fn summary(name: &str, router: &RouterSummary, used: bool) -> Vec<String> {
    let badge = if used { " <span class=\"badge yes\">in use</span>" } else { "" };
    let range = router.interval().map_or(String::new(), |a| {
        format!("<span class=\"range\">{}</span>", interval(a.low, a.high))
    });
    vec![
        escape::name(name) + badge,
        percent(router.accuracy) + &range,
        or_dash(router.ece.map(|ece| fixed(ece, 3))),
        or_dash(router.seconds_per_question.map(time_of_one)),
    ]
}

fn time_of_one(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => "&lt; 1 µs".to_owned(),
        s if s < 0.001 => format!("{} µs", fixed(1e6 * s, 0)),
        s if s < 1.0 => format!("{} ms", fixed(1e3 * s, 1)),
        s => duration(s),
    }
}

fn confusion(name: &str, router: &RouterSummary) -> String {
    let label = |index: usize| match router.labels.get(index) {
        Some(label) => escape::name(label),
        None => format!("label {}", index + 1),
    };
    let shown = |values: &[Option<f64>], index: usize| {
        or_dash(values.get(index).copied().flatten().map(percent))
    };

    let mut rows: Vec<Vec<String>> = Vec::new();
    for (index, row) in router.confusion.iter().enumerate() {
        let total: usize = row.iter().sum();
        let cell = |(column, count): (usize, &usize)| {
            let share = *count as f64 / total.max(1) as f64;
            heat(share, &count.to_string(), if column == index { "own" } else { "" })
        };
        let mut cells = vec![label(index)];
        cells.extend(row.iter().enumerate().map(cell));
        cells.push(shown(&router.recall, index));
        rows.push(cells);
    }

    let columns = router.confusion.first().map_or(0, Vec::len);
    let mut precision = vec!["precision".to_owned()];
    precision.extend((0..columns).map(|column| shown(&router.precision, column)));
    precision.push(String::new());
    rows.push(precision);

    let mut heads = vec!["true ↓ &nbsp;sent&nbsp;to&nbsp;→".to_owned()];
    heads.extend((0..columns).map(label));
    heads.push("recall".to_owned());
    table(&format!("Confusion matrix of {}", escape::shortened(name)), &heads, &rows)
}
