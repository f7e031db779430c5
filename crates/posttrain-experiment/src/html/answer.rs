//! The top of the page: the question, the answer in words, and what may be concluded from it.

use super::view::View;
use super::{escape, paragraph};
use crate::HeadToHead;
use crate::numeral::{
    counted, duration, fixed, interval, percent, points, points_interval, probability,
};
use posttrain_statistics::Share;

pub(super) const TITLE: &str = "One model for all domains, or a specialist for each and a router?";

/// Who the evidence is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Specialists,
    Generalist,
    Undecided,
}

impl Verdict {
    /// For a side if interval and test say so both, at 5%.
    pub(super) fn of(outcome: &HeadToHead) -> Self {
        let significant = outcome.mcnemar_p < 0.05;
        match (outcome.low, outcome.high) {
            (low, _) if low > 0.0 && significant => Self::Specialists,
            (_, high) if high < 0.0 && significant => Self::Generalist,
            _ => Self::Undecided,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Specialists => "The specialists behind a router did better.",
            Self::Generalist => "The one generalist did better.",
            Self::Undecided => "This run cannot tell the two apart.",
        }
    }
}

/// Question, answer and the figures that matter most.
pub(super) fn header(view: &View) -> String {
    let lead = match &view.report.head_to_head {
        Some(outcome) => answered(view, outcome),
        None => paragraph(&format!("<strong>No answer yet.</strong> {}", why_none(view))),
    };
    format!("<h1>{TITLE}</h1>\n<div class=\"lead\">{lead}</div>\n{}", tiles(view))
}

fn answered(view: &View, outcome: &HeadToHead) -> String {
    let router = view.report.router_used.as_deref().map_or(String::new(), |name| {
        format!(" behind the router <em>{}</em>", escape::name(name))
    });
    let side = |accuracy: &Share| {
        format!("{} {}", percent(accuracy.share), interval(accuracy.low, accuracy.high))
    };

    let first = paragraph(&format!("<strong>{}</strong>", Verdict::of(outcome).words()));
    first
        + &paragraph(&format!(
            "Of {} of all domains, the specialists{router} answered {} correctly, the generalist {}. The difference is \
             <strong>{} percentage points</strong>, 95% interval {}; McNemar’s exact test gives p&nbsp;{}.",
            counted(outcome.routed.n, "test question"),
            side(&outcome.routed),
            side(&outcome.generalist),
            points(outcome.difference),
            points_interval(outcome.low, outcome.high),
            escape::plain(&probability(outcome.mcnemar_p)),
        ))
}

fn why_none(view: &View) -> String {
    let missing: Vec<String> = view.report.missing.iter().map(|m| escape::name(&m.model)).collect();
    match missing.as_slice() {
        [] => "This report has no head-to-head: it takes the specialists, a router and the generalist.".to_owned(),
        names => format!("Without {} there is no head-to-head.", names.join(", ")),
    }
}

fn tiles(view: &View) -> String {
    let mut tiles = String::new();
    let mut tile = |words: &str, figure: &str, below: &str| {
        tiles
            .push_str(&format!("<div><dt>{words}</dt><dd>{figure}<span>{below}</span></dd></div>"));
    };

    if let Some(outcome) = &view.report.head_to_head {
        let range = |a: &Share| interval(a.low, a.high);
        tile("Specialists, routed", &percent(outcome.routed.share), &range(&outcome.routed));
        tile("Generalist", &percent(outcome.generalist.share), &range(&outcome.generalist));
        tile(
            "Difference, points",
            &points(outcome.difference),
            &points_interval(outcome.low, outcome.high),
        );
    }

    if let Some(base) = view.report.base.as_ref().and_then(|base| Share::pooled(base.test.values()))
    {
        tile("Untrained base", &percent(base.share), &interval(base.low, base.high));
    }

    if let Some(clock) = view.report.wall_clock.filter(|clock| clock.ratio > 0.0) {
        let times = format!(
            "{} : {}",
            duration(clock.generalist_s),
            duration(clock.specialists_critical_path_s)
        );
        tile(
            "Generalist’s time : longest specialist’s",
            &format!("{}×", fixed(clock.ratio, 2)),
            &times,
        );
    }

    if tiles.is_empty() { tiles } else { format!("<dl class=\"tiles\">{tiles}</dl>\n") }
}

/// Two lists: what this run shows, and what it does not.
pub(super) fn conclusions(view: &View) -> String {
    let list = |heading: &str, items: Vec<String>| {
        let items: String = items.iter().map(|item| format!("<li>{item}</li>")).collect();
        if items.is_empty() {
            items
        } else {
            format!("<div><h3>{heading}</h3><ul>{items}</ul></div>")
        }
    };

    let shown = list("What this run shows", shown(view));
    format!("<div class=\"two\">{shown}{}</div>\n", list("What it does not show", not_shown(view)))
}

fn shown(view: &View) -> Vec<String> {
    let mut items = Vec::new();
    items.extend(view.report.head_to_head.as_ref().map(difference));
    items.extend(view.report.routing_errors.map(|errors| {
        format!(
            "Routing errors cost {} points: {} went to a wrong specialist.",
            points(errors.cost).trim_start_matches('+'),
            counted(errors.misrouted, "question"),
        )
    }));
    items.extend(gains(view));
    items.extend(time(view));
    items
}

fn difference(outcome: &HeadToHead) -> String {
    let (low, high) = (points(outcome.low), points(outcome.high));
    match Verdict::of(outcome) {
        Verdict::Undecided => format!(
            "Neither side is shown to be better: a difference from {low} to {high} points (specialists less generalist) \
             fits these answers. The two disagreed on {}: {} for the specialists, {} for the generalist.",
            counted(outcome.routed_only + outcome.generalist_only, "question"),
            outcome.routed_only,
            outcome.generalist_only,
        ),
        Verdict::Specialists => {
            format!("The specialists’ lead is at least {low} and at most {high} points.")
        }
        Verdict::Generalist => format!(
            "The generalist’s lead is at least {} and at most {} points.",
            points(-outcome.high),
            points(-outcome.low)
        ),
    }
}

/// Each specialist on its own domain beside the base.
fn gains(view: &View) -> Option<String> {
    let base = &view.report.base.as_ref()?.test;
    let gain = |(name, model): (&str, &crate::ModelReport)| {
        let before = base.get(&model.domains[0])?;
        let after = model.test.get(&model.domains[0])?;
        let apart = if after.low > before.high { "" } else { " (intervals touch)" };
        let before = percent(before.share);
        let after = percent(after.share);
        Some(format!("{} {before} → {after}{apart}", escape::name(name)))
    };

    let parts: Vec<String> = view.specialists().filter_map(gain).collect();
    let all = "Each specialist on its own domain, before and after training";
    (!parts.is_empty()).then(|| format!("{all}: {}.", parts.join("; ")))
}

fn time(view: &View) -> Option<String> {
    let clock =
        view.report.wall_clock.filter(|clock| clock.ratio > 0.0 && clock.generalist_s > 0.0)?;
    Some(format!(
        "On equal hardware for each arm, the specialists are ready after {} of the generalist’s time ({} times sooner); \
         in total they cost {} of its compute.",
        percent(clock.specialists_critical_path_s / clock.generalist_s),
        fixed(clock.ratio, 2),
        percent(clock.specialists_total_s / clock.generalist_s),
    ))
}

fn not_shown(view: &View) -> Vec<String> {
    let report = view.report;
    let mut items = Vec::new();
    for missing in &report.missing {
        let at = missing.last_step.map_or(String::new(), |step| format!(" after step {step}"));
        let model = escape::name(&missing.model);
        let reason = escape::clamped(&missing.reason, 300);
        items
            .push(format!("<strong>{model}</strong> is missing: its training ended{at}: {reason}"));
    }

    if let Some(outcome) = &report.head_to_head {
        items.push(match report.seeds.len() {
            0 | 1 => "What another seed would have given. The interval covers which questions were asked, not the \
                      randomness of training, of which there is one run."
                .to_owned(),
            n => format!("How far training varies, beyond what {n} seeds can show."),
        });
        if Verdict::of(outcome) == Verdict::Undecided {
            items.push(
                "That the two are equally good: too few questions to tell is not the same."
                    .to_owned(),
            );
        }
        if outcome.left_out > 0 {
            let left_out = counted(outcome.left_out, "question");
            items.push(format!(
                "Anything about {left_out} left out, since a verdict failed on one side or both."
            ));
        }
    }

    items.extend(derived(view));
    items
        .push("That the same holds for other models, domains, rewards or amounts of data than those below.".to_owned());
    items
}

fn derived(view: &View) -> Option<String> {
    match view.report.wall_clock?.parallel {
        Some(1) | None => Some(
            "What running side by side really takes. The critical path is the longest specialist’s own time, as if each \
             had such hardware to itself."
                .to_owned(),
        ),
        Some(n) => Some(format!(
            "What hardware of its own for each arm would give: {n} arms ran at a time and shared this machine."
        )),
    }
}
