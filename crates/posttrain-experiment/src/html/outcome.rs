//! The head-to-head: bars with intervals, the difference, each domain, several seeds, the judge.

use super::answer::Verdict;
use super::bars::Bars;
use super::scale::Scale;
use super::table::{accuracy, heads, table};
use super::view::View;
use super::{escape, panel, paragraph};
use crate::numeral::{counted, interval, percent, points, points_interval, probability};
use crate::{HeadToHead, JudgeReport};
use posttrain_statistics::Share;

pub(super) fn section(view: &View) -> String {
    let Some(outcome) = &view.report.head_to_head else { return String::new() };

    let figures =
        panel("Accuracy on all test questions, with 95% intervals", &sides(view, outcome))
            + &panel("Difference, with 95% intervals", &differences(view, outcome));

    let explained = paragraph(
        "Both sides answered the same questions, so the difference is judged question by question: a paired bootstrap of \
         10,000 draws for its interval, McNemar’s exact test for p. The intervals of the two bars may overlap although the \
         difference is clear of zero. <em>Perfect routing</em> sends each question to its own domain’s specialist.",
    );

    let judge = view.report.judge.as_ref().map_or(String::new(), judged);
    format!(
        "<div class=\"two\">{figures}</div>{explained}{}{}{judge}",
        by_domain(outcome),
        seeds(view)
    )
}

fn sides(view: &View, outcome: &HeadToHead) -> String {
    let base = view.report.base.as_ref().and_then(|base| Share::pooled(base.test.values()));
    let generalist =
        view.generalist().map_or("base".to_owned(), |(name, _)| format!("m{}", view.look(name)));

    let rows = [
        ("Specialists, routed", Some(outcome.routed), "routed"),
        ("Specialists, perfect routing", outcome.oracle, "oracle"),
        ("Generalist", Some(outcome.generalist), generalist.as_str()),
        ("Untrained base", base, "base"),
    ];
    let rows: Vec<(&str, Share, &str)> =
        rows.into_iter().filter_map(|(w, a, c)| Some((w, a?, c))).collect();

    let scale = Scale::from(0.0, rows.iter().map(|row| row.1.high));
    let words = |a: &Share| format!("{} {}", percent(a.share), interval(a.low, a.high));
    let said: Vec<String> =
        rows.iter().map(|(name, a, _)| format!("{name}: {}", words(a))).collect();

    let title = "Accuracy of either side";
    let mut bars = Bars::new(
        title,
        &said.join("; "),
        (scale, whole_percent),
        "share of questions answered correctly",
    );

    for (name, a, class) in &rows {
        bars.bar((name, &words(a)), a.share, Some((a.low, a.high)), class);
    }
    bars.svg()
}

fn differences(view: &View, outcome: &HeadToHead) -> String {
    let mut rows = vec![("This run, by the verifier".to_owned(), outcome)];
    let judge = view.report.judge.as_ref().and_then(|judge| judge.head_to_head.as_ref());
    rows.extend(judge.map(|outcome| ("This run, by the judge".to_owned(), outcome)));
    if view.report.seeds.len() > 1 {
        rows.extend(
            view.report
                .seeds
                .iter()
                .map(|seed| (format!("Seed {}", seed.seed), &seed.head_to_head)),
        );
    }

    let scale =
        Scale::around_zero(rows.iter().flat_map(|(_, outcome)| [outcome.low, outcome.high]));
    let words =
        |o: &HeadToHead| format!("{} {}", points(o.difference), points_interval(o.low, o.high));
    let said: Vec<String> =
        rows.iter().map(|(name, outcome)| format!("{name}: {}", words(outcome))).collect();

    let title = "Difference in accuracy, specialists less generalist";
    let foot = "← generalist better · points · specialists better →";
    let mut bars = Bars::new(title, &said.join("; "), (scale, points), foot);

    for (name, outcome) in &rows {
        bars.point(
            (name, &words(outcome)),
            outcome.difference,
            (outcome.low, outcome.high),
            "difference",
        );
    }
    bars.svg()
}

fn whole_percent(share: f64) -> String {
    format!("{}%", super::plain_number(100.0 * share))
}

fn by_domain(outcome: &HeadToHead) -> String {
    if outcome.per_domain.is_empty() {
        return String::new();
    }

    let rows: Vec<Vec<String>> = outcome
        .per_domain
        .iter()
        .map(|(domain, side)| {
            let difference = points(side.routed.share - side.generalist.share);
            let cells =
                [Some(&side.routed), side.oracle.as_ref(), Some(&side.generalist)].map(accuracy);
            [
                vec![escape::name(domain)],
                cells.to_vec(),
                vec![difference, side.routed.n.to_string()],
            ]
            .concat()
        })
        .collect();

    let heads = heads(&[
        "Domain",
        "Routed",
        "Perfect routing",
        "Generalist",
        "Difference, points",
        "Questions",
    ]);
    table("The two sides on each domain’s questions", &heads, &rows)
}

fn seeds(view: &View) -> String {
    let seeds = &view.report.seeds;
    if seeds.len() < 2 {
        return String::new();
    }

    let rows: Vec<Vec<String>> = seeds
        .iter()
        .map(|seed| {
            let o = &seed.head_to_head;
            let difference = format!(
                "{}<span class=\"range\">{}</span>",
                points(o.difference),
                points_interval(o.low, o.high)
            );
            let p = escape::plain(probability(o.mcnemar_p).trim_start_matches("= "));
            vec![
                seed.seed.to_string(),
                accuracy(Some(&o.routed)),
                accuracy(Some(&o.generalist)),
                difference,
                p,
            ]
        })
        .collect();
    let heads = heads(&["Seed", "Routed", "Generalist", "Difference, points", "p"]);

    let all: Vec<&HeadToHead> = seeds.iter().map(|seed| &seed.head_to_head).collect();
    let mean = all.iter().map(|o| o.difference).sum::<f64>() / all.len() as f64;
    let count = |verdict| all.iter().filter(|o| Verdict::of(o) == verdict).count();
    let words = format!(
        "Over {} seeds the mean difference is {} points; {} for the specialists, {} for the generalist, {} undecided.",
        all.len(),
        points(mean),
        count(Verdict::Specialists),
        count(Verdict::Generalist),
        count(Verdict::Undecided),
    );

    format!(
        "<h3>Several seeds</h3>\n{}{}",
        paragraph(&words),
        table("The head-to-head of each seed", &heads, &rows)
    )
}

fn judged(judge: &JudgeReport) -> String {
    let share = |value: Option<f64>, form: fn(f64) -> String| value.map_or("–".to_owned(), form);
    let mut words = format!(
        "The judge <em>{}</em> and the verifier agree on {} of {} (Cohen’s κ {}). The judge alone calls {} right, the \
         verifier alone {}; on {} the judge failed.",
        escape::name(&judge.model),
        share(judge.agreement, percent),
        counted(judge.compared, "answer"),
        share(judge.kappa, |kappa| crate::numeral::fixed(kappa, 2)),
        judge.judge_alone,
        judge.verifier_alone,
        judge.failed,
    );

    if let Some(o) = &judge.head_to_head {
        words.push_str(&format!(
            " By its verdicts the specialists reach {} and the generalist {}: {} points {}, p&nbsp;{}.",
            percent(o.routed.share),
            percent(o.generalist.share),
            points(o.difference),
            points_interval(o.low, o.high),
            escape::plain(&probability(o.mcnemar_p)),
        ));
    }

    format!("<h3>What a judge says</h3>\n{}", paragraph(&words))
}
