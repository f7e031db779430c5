//! Time: what each arm took, what they cost together, and the longest of them.

use super::bars::Bars;
use super::scale::Scale;
use super::table::{heads, table};
use super::view::View;
use super::{escape, panel, paragraph};
use crate::numeral::{count, duration, fixed, percent};
use crate::{TimelinePhase, TimelineSpan, WallClock};

pub(super) fn section(view: &View) -> String {
    let clock = view.report.wall_clock;
    let bars = clock.map_or(String::new(), |clock| {
        panel("Training time, arm by arm", &compared(view, &clock)) + &explained(&clock)
    });

    let timeline = if view.report.timeline.is_empty() {
        String::new()
    } else {
        panel("When each arm did what", &(timeline(view) + &phases(view)))
    };

    if view.models.is_empty() && timeline.is_empty() && bars.is_empty() {
        return String::new();
    }
    bars + &timeline + &arms(view)
}

fn compared(view: &View, clock: &WallClock) -> String {
    let times = [clock.generalist_s, clock.specialists_total_s, clock.specialists_critical_path_s];
    let unit = Unit::of(times);
    let [whole, total, longest] = times.map(duration);

    let said = format!(
        "Generalist {whole}; all specialists together {total}; longest specialist {longest}."
    );
    let foot = format!("{} of training, validation left out", unit.name);
    let mut bars =
        Bars::new("Training time", &said, (unit.scale(times), super::plain_number), &foot);

    let look = |model: Option<&str>| {
        model.map_or("routed".to_owned(), |name| format!("m{}", view.look(name)))
    };
    let generalist = look(view.generalist().map(|(name, _)| name));
    bars.bar(("Generalist", &whole), times[0] / unit.seconds, None, &generalist);

    let mut spans = Vec::new();
    let mut start = 0.0;
    for (name, model) in view.specialists() {
        spans.push((
            start / unit.seconds,
            (start + model.seconds) / unit.seconds,
            format!("tall m{}", view.look(name)),
        ));
        start += model.seconds;
    }

    let words = ("All specialists, one after another", total.as_str());
    // In parts only where the parts make up the whole.
    if (start - times[1]).abs() <= 0.01 * times[1] {
        let spans: Vec<(f64, f64, &str)> =
            spans.iter().map(|(from, to, class)| (*from, *to, class.as_str())).collect();
        bars.spans(words, &spans, "routed");
    } else {
        bars.bar(words, times[1] / unit.seconds, None, "routed");
    }

    let slowest =
        view.specialists().max_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds)).map(|(name, _)| name);
    bars.bar(
        ("Longest specialist (the critical path)", &longest),
        times[2] / unit.seconds,
        None,
        &look(slowest),
    );
    bars.svg()
}

/// What a scale of times counts in.
struct Unit {
    seconds: f64,
    name: &'static str,
}

impl Unit {
    fn of(times: impl IntoIterator<Item = f64>) -> Self {
        match times.into_iter().filter(|time| time.is_finite()).fold(0.0, f64::max) {
            longest if longest < 180.0 => Self { seconds: 1.0, name: "seconds" },
            longest if longest < 10_800.0 => Self { seconds: 60.0, name: "minutes" },
            _ => Self { seconds: 3600.0, name: "hours" },
        }
    }

    fn scale(&self, times: impl IntoIterator<Item = f64>) -> Scale {
        Scale::from(0.0, times.into_iter().map(|time| time / self.seconds))
    }
}

fn explained(clock: &WallClock) -> String {
    let how = match clock.parallel {
        Some(1) => {
            "The arms ran one after another, each with the whole machine, so the critical path is derived: it is what \
                    the specialists take where each has such a machine to itself."
                .to_owned()
        }
        Some(n) => format!(
            "{n} arms ran at a time and shared the machine, so each took longer than it would have alone, and the times of \
             the arms are not those of equal hardware unless each had the same share."
        ),
        None => "How many arms ran at a time is not known; the ratio supposes equal hardware for each.".to_owned(),
    };

    if clock.ratio <= 0.0 || clock.generalist_s <= 0.0 {
        return paragraph(&how);
    }

    paragraph(&format!(
        "The generalist takes <strong>{} times</strong> as long as the longest specialist ({} against {}). That is a gain in \
         waiting, not in work: the specialists together cost {}, {} of the generalist’s compute. {how}",
        fixed(clock.ratio, 2),
        duration(clock.generalist_s),
        duration(clock.specialists_critical_path_s),
        duration(clock.specialists_total_s),
        percent(clock.specialists_total_s / clock.generalist_s),
    ))
}

fn timeline(view: &View) -> String {
    let spans = &view.report.timeline;
    let finite = || spans.iter().filter(|span| span.start_s.is_finite() && span.end_s.is_finite());
    let unit = Unit::of(finite().map(|span| span.end_s));
    let scale = unit.scale(finite().map(|span| span.end_s));

    let mut names: Vec<&str> = Vec::new();
    for span in spans {
        if !names.contains(&span.model.as_str()) {
            names.push(&span.model);
        }
    }

    let end =
        |name: &str| finite().filter(|s| s.model == name).map(|s| s.end_s).fold(0.0, f64::max);
    let start = |name: &str| {
        finite().filter(|s| s.model == name).map(|s| s.start_s).fold(f64::INFINITY, f64::min)
    };
    let when = |name: &str| format!("{} to {}", duration(start(name)), duration(end(name)));

    let said: Vec<String> =
        names.iter().map(|name| format!("{}: {}", escape::shortened(name), when(name))).collect();
    let foot = format!("{} since the experiment began", unit.name);
    let mut bars = Bars::new("Timeline", &said.join("; "), (scale, super::plain_number), &foot);

    for name in names {
        let own: Vec<(f64, f64, &str)> =
            joined(finite().filter(|span| span.model == name), unit.seconds);
        bars.spans((&escape::shortened(name), &when(name)), &own, "");
    }
    bars.svg()
}

/// Spans of the same phase that follow each other at once as one, in a unit.
fn joined<'a>(
    spans: impl Iterator<Item = &'a TimelineSpan>,
    unit: f64,
) -> Vec<(f64, f64, &'static str)> {
    let mut joined: Vec<(f64, f64, &'static str)> = Vec::new();
    for span in spans {
        let start = span.start_s / unit;
        let end = span.end_s / unit;
        let class = class_of(span.phase);
        match joined.last_mut() {
            Some(last) if last.2 == class && (start - last.1).abs() * unit < 1e-3 => last.1 = end,
            _ => joined.push((start, end, class)),
        }
    }
    joined
}

fn class_of(phase: TimelinePhase) -> &'static str {
    match phase {
        TimelinePhase::Setup => "setup",
        TimelinePhase::Training => "training",
        TimelinePhase::Validation => "validation",
        TimelinePhase::Test => "test",
        TimelinePhase::Routing => "routing",
        TimelinePhase::Judging => "judging",
    }
}

fn phases(view: &View) -> String {
    let keys: String = TimelinePhase::ALL
        .into_iter()
        .filter(|phase| view.report.timeline.iter().any(|span| span.phase == *phase))
        .map(phase_key)
        .collect();
    format!("<ul class=\"legend phases\" aria-label=\"Phases\">{keys}</ul>")
}

fn phase_key(phase: TimelinePhase) -> String {
    let class = class_of(phase);
    format!(
        "<li><svg aria-hidden=\"true\" width=\"20\" height=\"40\" viewBox=\"0 14 20 28\">\
         <rect class=\"span {class}\" x=\"0\" width=\"20\"/></svg> {}</li>",
        phase.name()
    )
}

fn arms(view: &View) -> String {
    if view.models.is_empty() {
        return String::new();
    }

    let rows: Vec<Vec<String>> = view
        .models
        .iter()
        .map(|(name, model)| {
            let each = if model.steps > 0 { model.seconds / model.steps as f64 } else { f64::NAN };
            vec![escape::name(name), count(model.steps), duration(model.seconds), duration(each)]
        })
        .collect();

    table("Training time of each model", &heads(&["Model", "Steps", "Time", "Time a step"]), &rows)
}
