//! What there is to see when one more model has been tested.

use posttrain::experiment::{ExperimentError, TestAnswers, assemble, write_report};
use posttrain::recipes::Answer;
use posttrain::statistics::Share;
use std::collections::BTreeMap;
use std::path::Path;

/// Questions that are shown of each domain.
const SHOWN: usize = 2;

/// Characters of an answer that are shown.
const WIDTH: usize = 48;

/// Writes the report of what there is so far, and shows how a model answered beside the base.
pub fn tell(out: &Path, model: &str) -> Result<(), ExperimentError> {
    write_report(out, &assemble(out)?)?;

    let answers = |name: &str| TestAnswers::read(&out.join(name));
    let (Some(base), Some(own)) = (answers("base")?, answers(model)?) else { return Ok(()) };
    for (domain, pairs) in by_domain(&base, &own) {
        let share = |side: fn(&(&Answer, &Answer)) -> Option<bool>| {
            Share::of_verdicts(&pairs.iter().map(side).collect::<Vec<_>>()).share
        };
        let before = share(|(base, _)| base.is_right());
        if model == "base" {
            println!("{domain}: {before:.3}");
        } else {
            println!("{domain}: {:.3}, the base {before:.3}", share(|(_, own)| own.is_right()));
        }

        // The first, in the order of the split: the same for every model.
        for (base, own) in pairs.into_iter().take(SHOWN) {
            println!("    {}  [{}]", shown(&own.question), shown(&own.reference));
            println!("        base: {}", judged(base));
            if model != "base" {
                println!("        {model}: {}", judged(own));
            }
        }
    }
    println!("{} shows what there is so far", out.join("report.html").display());
    Ok(())
}

/// Both models' answers to the same questions.
fn by_domain<'a>(
    base: &'a TestAnswers,
    own: &'a TestAnswers,
) -> BTreeMap<&'a str, Vec<(&'a Answer, &'a Answer)>> {
    let mut domains: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for pair in base.sampled.iter().zip(&own.sampled) {
        domains.entry(&pair.1.domain).or_default().push(pair);
    }
    domains
}

fn judged(answer: &Answer) -> String {
    let verdict = match answer.is_right() {
        Some(true) => "right",
        Some(false) => "wrong",
        None => "not judged",
    };
    format!("{} ({verdict})", shown(&answer.response))
}

/// A text on one line, cut, with nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    let line = text.trim().replace(char::is_control, " ");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
