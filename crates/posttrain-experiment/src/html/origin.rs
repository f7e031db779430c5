//! Where the numbers come from: data, configuration, machine, program.

use super::table::{heads, table};
use super::view::View;
use super::{escape, paragraph};
use crate::numeral::count;

/// The most characters of the configuration.
const CONFIG: usize = 40_000;

pub(super) fn section(view: &View) -> String {
    let tables = splits(view) + &seen(view);
    let tables =
        if tables.is_empty() { tables } else { format!("<div class=\"two\">{tables}</div>\n") };
    tables + &machine(view) + &config(view)
}

fn splits(view: &View) -> String {
    let domains = &view.report.data.per_domain;
    if domains.is_empty() {
        return String::new();
    }

    let rows: Vec<Vec<String>> = domains
        .iter()
        .map(|(domain, n)| {
            let counts = [n.train, n.validation, n.test].map(|n| count(n as u64));
            [vec![escape::name(domain)], counts.to_vec()].concat()
        })
        .collect();
    table("Examples of each domain", &heads(&["Domain", "Train", "Validation", "Test"]), &rows)
}

fn seen(view: &View) -> String {
    let seen = &view.report.data.examples_seen;
    if seen.is_empty() {
        return String::new();
    }

    let mut ordered: Vec<(&String, &u64)> = seen.iter().collect();
    ordered.sort_by_key(|(model, _)| view.models.iter().position(|(name, _)| name == model));
    let rows: Vec<Vec<String>> =
        ordered.iter().map(|(model, n)| vec![escape::name(model), count(**n)]).collect();

    let specialists: Option<u64> =
        view.specialists().map(|(name, _)| seen.get(name).copied()).sum();
    let generalist = view.generalist().and_then(|(name, _)| seen.get(name).copied());
    let words = match (specialists.filter(|n| *n > 0), generalist) {
        (Some(parts), Some(whole)) if parts == whole => {
            format!("Both sides saw the same amount of data: {} examples.", count(whole))
        }
        (Some(parts), Some(whole)) => format!(
            "<strong>The sides did not see the same amount of data</strong>: the specialists {} examples together, the \
             generalist {}.",
            count(parts),
            count(whole)
        ),
        _ => String::new(),
    };

    let said = if words.is_empty() { words } else { paragraph(&words) };
    let table =
        table("Examples trained on, repetitions counted", &heads(&["Model", "Examples"]), &rows);
    format!("<div>{table}{said}</div>\n")
}

fn machine(view: &View) -> String {
    let machine = &view.report.machine;
    let origin = &view.report.provenance;
    let known =
        |text: &str| if text.is_empty() { "not known".to_owned() } else { escape::name(text) };
    let cores = if machine.cores == 0 { "not known".to_owned() } else { machine.cores.to_string() };

    let mut facts = vec![
        ("Device", known(&machine.device)),
        ("Kind", known(&machine.kind)),
        ("Cores", cores),
        ("Version", known(&origin.version)),
        ("Seed", origin.seed.to_string()),
    ];
    facts.extend(machine.name.as_deref().map(|name| ("Processor", known(name))));

    let facts: String = facts
        .iter()
        .map(|(word, fact)| format!("<div><dt>{word}</dt><dd>{fact}</dd></div>"))
        .collect();
    format!("<h3>Machine and program</h3>\n<dl class=\"facts\">{facts}</dl>\n")
}

fn config(view: &View) -> String {
    if view.report.config.is_null() {
        return String::new();
    }

    let text = format!("{:#}", view.report.config);
    format!(
        "<details><summary><h3>Configuration as resolved</h3></summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
        escape::clamped(&text, CONFIG)
    )
}

/// The last line of the page.
pub(super) fn footer(view: &View) -> String {
    let origin = &view.report.provenance;
    let version = if origin.version.is_empty() {
        String::new()
    } else {
        format!(" {}", escape::name(&origin.version))
    };

    format!(
        "posttrain{version}, seed {}. All numbers are in <code>report.json</code> beside this page.",
        origin.seed
    )
}
