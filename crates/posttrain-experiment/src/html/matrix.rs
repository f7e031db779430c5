//! The cross-evaluation: every model on every domain.

use super::table::{accuracy, heat, table};
use super::view::View;
use super::{escape, paragraph};
use posttrain_statistics::Share;
use std::collections::BTreeMap;

/// A row of the matrix: a model, the domains that it was trained on, its test sets.
struct Row<'a> {
    name: &'a str,
    trained: &'a [String],
    test: &'a BTreeMap<String, Share>,
}

pub(super) fn section(view: &View) -> String {
    let base = view.report.base.as_ref();
    let models = view.models.iter().map(|(name, model)| Row {
        name,
        trained: &model.domains,
        test: &model.test,
    });
    let sampled: Vec<Row> = base
        .map(|base| Row { name: "base", trained: &[], test: &base.test })
        .into_iter()
        .chain(models)
        .collect();

    let greedy_base = base.and_then(|base| {
        Some(Row { name: "base", trained: &[], test: base.test_greedy.as_ref()? })
    });
    let greedy = view.models.iter().filter_map(|(name, model)| {
        Some(Row { name, trained: &model.domains, test: model.test_greedy.as_ref()? })
    });
    let greedy: Vec<Row> = greedy_base.into_iter().chain(greedy).collect();

    let first = matrix(view, "Test accuracy, one answer a question at temperature 1", &sampled);
    if first.is_empty() {
        return first;
    }

    let words = "Shaded by accuracy, with 95% Wilson intervals below. Outlined: a domain that the model was trained on. ★: the \
                 best of its column, which may be so by chance where intervals overlap.";
    let second = matrix(view, "The same, greedy: the most probable token each time", &greedy);
    paragraph(words) + &format!("<div class=\"two\">{first}{second}</div>\n")
}

fn matrix(view: &View, caption: &str, rows: &[Row]) -> String {
    if rows.iter().all(|row| row.test.is_empty()) {
        return String::new();
    }

    let best: Vec<f64> = view
        .domains
        .iter()
        .map(|domain| best_of(rows, |row| row.test.get(*domain).copied()))
        .collect();
    let best_of_all = best_of(rows, pooled);

    let markup: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let domain = |(domain, best): (&&str, &f64)| {
                let own = row.trained.iter().any(|trained| trained == domain);
                cell(row.test.get(*domain), own, *best)
            };
            let mut cells = vec![escape::name(row.name)];
            cells.extend(view.domains.iter().zip(&best).map(domain));
            cells.push(cell(pooled(row).as_ref(), false, best_of_all));
            cells
        })
        .collect();

    let mut heads = vec!["Model".to_owned()];
    heads.extend(view.domains.iter().map(|domain| escape::name(domain)));
    heads.push("all".to_owned());
    table(caption, &heads, &markup)
}

/// All test sets together.
fn pooled(row: &Row) -> Option<Share> {
    Share::pooled(row.test.values())
}

fn best_of(rows: &[Row], of: impl Fn(&Row) -> Option<Share>) -> f64 {
    rows.iter().filter_map(of).map(|a| a.share).fold(f64::NEG_INFINITY, f64::max)
}

fn cell(value: Option<&Share>, own: bool, best: f64) -> String {
    let star = match value {
        Some(value) if value.n > 0 && value.share == best => {
            "<span class=\"star\" aria-label=\"best\">★</span> "
        }
        _ => "",
    };

    let spoken = if own { "<span class=\"unseen\">trained on it: </span>" } else { "" };
    let content = format!("{spoken}{star}{}", accuracy(value));
    heat(value.map_or(0.0, |value| value.share), &content, if own { "own" } else { "" })
}
