//! Curves: reward, validation, and what follows from how they move.

use super::chart::Chart;
use super::scale::Scale;
use super::table::{heads, or_dash, table};
use super::view::View;
use super::{escape, grid, panel, paragraph};
use crate::dynamics::running_mean;
use crate::numeral::{fixed, percent};
use crate::{Finding, ModelReport};

/// A panel a model: reward by step.
pub(super) fn rewards(view: &View) -> String {
    let models: Vec<_> = view.models.iter().filter(|(_, model)| !model.curve.is_empty()).collect();
    let scale = Scale::from(
        0.0,
        models.iter().flat_map(|(_, model)| model.curve.iter().map(|point| point.reward)),
    );
    let panels: String =
        models.iter().map(|(name, model)| reward_panel(view, name, model, &scale)).collect();
    if panels.is_empty() {
        return panels;
    }

    let words = "The mean reward of each step’s completions (thin) and its mean over nine steps (thick). A step has a batch \
                 of its own, so the thin line moves by chance as well. All panels share the upright scale.";
    let more = view.generalist().map_or(
        "",
        |_| " The generalist trains for more steps, since it sees every domain’s data.",
    );
    paragraph(&(words.to_owned() + more)) + &grid("four", &panels)
}

fn reward_panel(view: &View, name: &str, model: &ModelReport, scale: &Scale) -> String {
    let points: Vec<(f64, f64)> =
        model.curve.iter().map(|point| (point.step as f64, point.reward)).collect();
    let smooth = smoothed(&points);

    let first = smooth.first().map_or(f64::NAN, |p| p.1);
    let last = smooth.last().map_or(f64::NAN, |p| p.1);

    let said = format!(
        "From {} at first to {} at last over {} steps.",
        percent(first),
        percent(last),
        points.len()
    );

    let title = format!("Reward of {}", escape::shortened(name));
    let mut chart = Chart::new(title, said, (steps_scale(model), "step"), (scale.clone(), share));
    chart.line(&points, "faint");
    chart.line(&smooth, "line solid");

    let trained = format!("{} <small>{}</small>", escape::name(name), trained_on(model));
    panel(&trained, &chart.svg(&format!("m{}", view.look(name))))
}

/// A panel a model: validation accuracy by step, with the chosen checkpoint.
pub(super) fn validation(view: &View) -> String {
    let models: Vec<_> =
        view.models.iter().filter(|(_, model)| !model.validation.is_empty()).collect();
    let values = models.iter().flat_map(|(_, model)| model.validation.iter().map(|point| point.1));
    let scale = Scale::from(0.0, values);
    let panels: String =
        models.iter().map(|(name, model)| validation_panel(view, name, model, &scale)).collect();
    if panels.is_empty() {
        return panels;
    }

    let words = "Accuracy on each model’s own validation questions, which it never trains on. The ringed checkpoint is the \
                 best of them and the one that was tested; being the best of several, its validation accuracy flatters it, \
                 and its test accuracy does not.";
    paragraph(words) + &grid("four", &panels)
}

fn validation_panel(view: &View, name: &str, model: &ModelReport, scale: &Scale) -> String {
    let points: Vec<(f64, f64)> =
        model.validation.iter().map(|(step, value)| (*step as f64, *value)).collect();
    let best = model.validation.iter().find(|(step, _)| *step == model.best_step);
    let chosen = best.map(|(step, value)| format!("step {step}: {}", percent(*value)));

    let said = format!(
        "{} checkpoints; chosen: {}.",
        points.len(),
        chosen.clone().unwrap_or_else(|| format!("step {}", model.best_step))
    );

    let title = format!("Validation accuracy of {}", escape::shortened(name));
    let mut chart = Chart::new(title, said, (steps_scale(model), "step"), (scale.clone(), share));

    let look = view.look(name);
    chart.line(&points, "line solid");
    points.iter().for_each(|point| chart.marker(*point, look));
    if let Some(((step, value), words)) = best.zip(chosen) {
        chart.ring((*step as f64, *value), &words);
    }

    panel(&escape::name(name), &chart.svg(&format!("m{look}")))
}

/// The table of dynamics, and the source's findings asked of this run.
pub(super) fn dynamics(view: &View) -> String {
    if view.models.is_empty() {
        return String::new();
    }

    let points = |value: Option<f64>| or_dash(value.map(|value| fixed(100.0 * value, 1)));
    let rows: Vec<Vec<String>> = view
        .models
        .iter()
        .map(|(name, model)| {
            let moves = &model.dynamics;
            let plateau = or_dash(moves.steps_to_plateau.map(|step| step.to_string()));
            let moved =
                [moves.mean_abs_step_change, moves.step_change_std, moves.reward_std].map(points);
            [vec![escape::name(name), model.steps.to_string()], moved.to_vec(), vec![plateau]]
                .concat()
        })
        .collect();

    let heads = heads(&[
        "Model",
        "Steps",
        "Mean change a step",
        "Spikiness (σ of change)",
        "σ about running mean",
        "Steps to plateau",
    ]);

    let words = "In points of reward. The plateau is reached at the first step from which the running mean stays within 5 \
                 points of the final level (the mean of the last fifth); a dash says that the \
                 curve still moved then. A part of each change is chance, since every step has questions of its own.";

    let asked: String = view.report.findings.iter().map(finding).collect();
    let asked =
        if asked.is_empty() { asked } else { format!("<dl class=\"findings\">{asked}</dl>\n") };

    table("How steadily each model learnt", &heads, &rows) + &paragraph(words) + &asked
}

fn finding(finding: &Finding) -> String {
    let (mark, class) = match finding.agrees {
        Some(true) => ("✓ as the source found", "yes"),
        Some(false) => ("✗ not as the source found", "no"),
        None => ("– undecided", "open"),
    };

    let question = escape::clamped(&finding.question, 300);
    let answer = escape::clamped(&finding.answer, 600);
    format!(
        "<div><dt>{question} <span class=\"badge {class}\">{mark}</span></dt><dd>{answer}</dd></div>"
    )
}

/// The running mean of the points whose value is finite.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (places, values): (Vec<f64>, Vec<f64>) =
        points.iter().copied().filter(|(_, value)| value.is_finite()).unzip();
    places.into_iter().zip(running_mean(&values)).collect()
}

/// A share as a tick.
pub(super) fn share(value: f64) -> String {
    format!("{}%", super::plain_number(100.0 * value))
}

fn steps_scale(model: &ModelReport) -> Scale {
    let points = model
        .curve
        .iter()
        .map(|point| point.step)
        .chain(model.validation.iter().map(|point| point.0));
    Scale::exactly(0.0, points.chain([model.steps]).max().unwrap_or(1) as f64)
}

fn trained_on(model: &ModelReport) -> String {
    match model.domains.as_slice() {
        [] => String::new(),
        domains if domains.len() > 4 => format!("on {} domains", domains.len()),
        domains => {
            let names: Vec<String> = domains.iter().map(|domain| escape::name(domain)).collect();
            format!("on {}", names.join(", "))
        }
    }
}
