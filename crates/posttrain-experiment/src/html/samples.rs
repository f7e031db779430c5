//! What the models wrote.

use super::view::View;
use super::{escape, paragraph};
use crate::AnswerSample;

/// The most characters of a question or a response.
const TEXT: usize = 2_000;
/// The most characters of a reference or an error.
const SHORT: usize = 500;
/// The most samples of a model: the rest is in the JSON.
const MOST: usize = 10;

pub(super) fn section(view: &View) -> String {
    let samples = &view.report.samples;
    if samples.is_empty() {
        return String::new();
    }

    let mut names: Vec<&str> = view.models.iter().map(|(name, _)| *name).collect();
    for sample in samples {
        if !names.contains(&sample.model.as_str()) {
            names.push(&sample.model);
        }
    }

    let words = "At most ten test questions a model, chosen by rule and not by hand. What a model wrote is shown as it is; \
                 characters that would not be seen are named.";
    let groups: String = names.iter().map(|name| group(name, samples)).collect();
    paragraph(words) + &groups
}

fn group(name: &str, samples: &[AnswerSample]) -> String {
    let own: Vec<&AnswerSample> =
        samples.iter().filter(|sample| sample.model == name).take(MOST).collect();
    if own.is_empty() {
        return String::new();
    }

    let right = own.iter().filter(|sample| sample.verdict == Some(true)).count();
    let cards: String = own.iter().map(|sample| card(sample)).collect();
    format!(
        "<details><summary><h3>{}</h3> <span>{right} of {} right</span></summary>\n<div class=\"cards\">{cards}</div></details>\n",
        escape::name(name),
        own.len()
    )
}

fn card(sample: &AnswerSample) -> String {
    let (mark, class) = match sample.verdict {
        Some(true) => ("✓ right", "yes"),
        Some(false) => ("✗ wrong", "no"),
        None => ("– no verdict", "open"),
    };

    let error = sample.error.as_deref().map_or(String::new(), |error| {
        format!("<dt>Why there is none</dt><dd dir=\"auto\">{}</dd>", escape::clamped(error, SHORT))
    });
    let domain = if sample.domain.is_empty() {
        String::new()
    } else {
        format!("<span class=\"domain\">{}</span> ", escape::name(&sample.domain))
    };

    format!(
        "<article><p class=\"verdict\">{domain}<span class=\"badge {class}\">{mark}</span></p><dl>\
         <dt>Question</dt><dd dir=\"auto\">{}</dd><dt>Reference</dt><dd dir=\"auto\">{}</dd>\
         <dt>Response</dt><dd dir=\"auto\" class=\"response\" tabindex=\"0\">{}</dd>{error}</dl></article>\n",
        escape::clamped(&sample.question, TEXT),
        escape::clamped(&sample.reference, SHORT),
        response(&sample.response),
    )
}

fn response(text: &str) -> String {
    if text.trim().is_empty() {
        "<span class=\"empty\">nothing</span>".to_owned()
    } else {
        escape::clamped(text, TEXT)
    }
}
