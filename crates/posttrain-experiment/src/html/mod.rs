//! The report as one page for a person: no script, no network, hand-written SVG that style sheets
//! color.

mod answer;
mod bars;
mod chart;
mod clock;
mod escape;
mod health;
mod learning;
mod matrix;
mod origin;
mod outcome;
mod routing;
mod samples;
mod scale;
mod table;
mod view;

use crate::Report;
use view::View;

const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded, run or sent: a second wall behind the escaping.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// A part of the page: its anchor, its name among the links, its heading, what is in it. Empty
/// parts are left out.
struct Section {
    id: &'static str,
    link: &'static str,
    heading: &'static str,
    body: String,
}

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let view = View::new(report);
    let part = |id, link, heading, body| Section { id, link, heading, body };
    let mut sections = vec![
        part(
            "conclusions",
            "In short",
            "What follows, and what does not",
            answer::conclusions(&view),
        ),
        part("outcome", "Head to head", "Head to head", outcome::section(&view)),
        part("rewards", "Reward", "How they learnt: reward", learning::rewards(&view)),
        part(
            "validation",
            "Validation",
            "Validation and the chosen checkpoint",
            learning::validation(&view),
        ),
        part("cross", "Every domain", "Every model on every domain", matrix::section(&view)),
        part("routing", "Routing", "Routing", routing::section(&view)),
        part("time", "Time", "Time and compute", clock::section(&view)),
        part(
            "dynamics",
            "Dynamics",
            "Learning dynamics, and what the source found",
            learning::dynamics(&view),
        ),
        part("health", "Health", "Health of the training", health::section(&view)),
        part("samples", "Samples", "Samples", samples::section(&view)),
        part("origin", "Set-up", "Data, configuration, machine", origin::section(&view)),
    ];

    sections.retain(|section| !section.body.is_empty());
    let links: String =
        sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, s.link)).collect();
    let body: String = sections.iter().map(Section::markup).collect();

    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header>\n{}</header>\n\
         <nav aria-label=\"Sections\"><ul>{links}</ul></nav>\n<main id=\"main\">\n{body}</main>\n\
         <footer>{}</footer>\n</body>\n</html>\n",
        answer::TITLE,
        answer::header(&view),
        origin::footer(&view),
    )
}

impl Section {
    fn markup(&self) -> String {
        let Self { id, heading, body, .. } = self;
        format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{heading}</h2>\n{body}</section>\n"
        )
    }
}

/// A paragraph of our own words and escaped text.
fn paragraph(markup: &str) -> String {
    format!("<p>{markup}</p>\n")
}

/// A small figure of a grid: its heading and what is drawn.
fn panel(heading: &str, drawn: &str) -> String {
    format!("<figure><figcaption>{heading}</figcaption>{drawn}</figure>\n")
}

/// Panels side by side, as many as fit up to `most`, which is a class: `three` or `four`.
fn grid(most: &str, panels: &str) -> String {
    if panels.is_empty() {
        String::new()
    } else {
        format!("<div class=\"panels {most}\">\n{panels}</div>\n")
    }
}

/// A tick's number: as many decimals as it needs, three at most.
fn plain_number(value: f64) -> String {
    let text = crate::numeral::fixed(value, 3);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
