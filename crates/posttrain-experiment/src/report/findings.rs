//! What the experiment that this one repeats has found, asked of a run.

use super::ModelReport;
use crate::numeral::{interval, percent, points, points_interval};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A question, with this run's answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The question.
    pub question: String,
    /// The answer, in words with numbers.
    pub answer: String,
    /// Whether this run says yes, as the source did; absent where it cannot say.
    #[serde(default)]
    pub agrees: Option<bool>,
}

/// Asks whether the specialist for mathematics was the steadiest, whether the generalist was
/// spikier than the specialists, and whether it gained on mathematics. Mathematics is the domain
/// whose name begins with `math`; a question whose models are not there is not asked.
///
/// ```
/// use posttrain_experiment::{Dynamics, ModelReport, findings};
///
/// let model = |domains: &[&str], std| ModelReport {
///     domains: domains.iter().map(|d| d.to_string()).collect(),
///     dynamics: Dynamics { step_change_std: Some(std), ..Dynamics::default() },
///     ..ModelReport::default()
/// };
/// let models = [
///     ("math".to_owned(), model(&["math"], 0.02)),
///     ("social".to_owned(), model(&["social"], 0.04)),
///     ("generalist".to_owned(), model(&["math", "social"], 0.03)),
/// ];
/// let found = findings(&models.into());
/// assert_eq!(found[0].answer, "Yes: the changes of its reward deviate by 2.0 points; social: 4.0.");
/// assert_eq!((found[0].agrees, found[1].agrees), (Some(true), Some(false)));
/// ```
#[must_use]
pub fn findings(models: &BTreeMap<String, ModelReport>) -> Vec<Finding> {
    let specialists: Vec<Named> =
        models.iter().filter(|(_, model)| model.domains.len() == 1).collect();
    let generalist =
        models.iter().filter(|(_, m)| m.is_generalist()).max_by_key(|(_, m)| m.domains.len());
    let maths =
        specialists.iter().copied().find(|(_, m)| m.domains[0].to_lowercase().starts_with("math"));

    let mut found = Vec::new();
    found.extend(maths.and_then(|maths| steadiest(maths, &specialists)));
    found.extend(generalist.and_then(|generalist| spikier(generalist, &specialists)));
    found.extend(generalist.zip(maths).and_then(|(generalist, maths)| gain(generalist, maths)));
    found
}

type Named<'a> = (&'a String, &'a ModelReport);

/// Standard deviation of the step-to-step change, with its name: `math: 2.0`.
fn spikes<'a>(models: &[Named<'a>]) -> Vec<(&'a str, f64)> {
    models
        .iter()
        .filter_map(|(name, m)| Some((name.as_str(), m.dynamics.step_change_std?)))
        .collect()
}

fn listed(spikes: &[(&str, f64)]) -> String {
    let parts: Vec<String> =
        spikes.iter().map(|(name, std)| format!("{name}: {:.1}", 100.0 * std)).collect();
    parts.join(", ")
}

fn steadiest(maths: Named, specialists: &[Named]) -> Option<Finding> {
    let own = maths.1.dynamics.step_change_std?;
    let mut others = spikes(specialists);
    others.retain(|(name, _)| *name != maths.0);
    if others.is_empty() {
        return None;
    }

    let yes = others.iter().all(|(_, std)| own < *std);
    let word = if yes { "Yes" } else { "No" };
    let answer = format!(
        "{word}: the changes of its reward deviate by {:.1} points; {}.",
        100.0 * own,
        listed(&others)
    );

    Some(Finding {
        question: "Is the specialist for mathematics the steadiest from step to step?".into(),
        answer,
        agrees: Some(yes),
    })
}

fn spikier(generalist: Named, specialists: &[Named]) -> Option<Finding> {
    let own = generalist.1.dynamics.step_change_std?;
    let others = spikes(specialists);
    if others.is_empty() {
        return None;
    }

    let above = others.iter().filter(|(_, std)| own > *std).count();
    let word = match above {
        0 => "No, than none".to_owned(),
        all if all == others.len() => "Yes, than every one".to_owned(),
        some => format!("Only than {some} of {}", others.len()),
    };
    let answer = format!(
        "{word}: the changes of its reward deviate by {:.1} points; {}.",
        100.0 * own,
        listed(&others)
    );
    let agrees = Some(above == others.len());

    Some(Finding {
        question: "Is the generalist spikier than the specialists?".into(),
        answer,
        agrees,
    })
}

fn gain(generalist: Named, maths: Named) -> Option<Finding> {
    let domain = &maths.1.domains[0];
    let whole = *generalist.1.test.get(domain)?;
    let special = *maths.1.test.get(domain)?;
    let (low, high) = whole.difference(&special);

    let (word, agrees) = match (low, high) {
        (low, _) if low > 0.0 => ("Yes", Some(true)),
        (_, high) if high < 0.0 => ("No, it loses", Some(false)),
        _ => ("This run cannot tell", None),
    };

    let answer = format!(
        "{word}: {} {} against the specialist’s {} {}, {} points {}.",
        percent(whole.share),
        interval(whole.low, whole.high),
        percent(special.share),
        interval(special.low, special.high),
        points(whole.share - special.share),
        points_interval(low, high),
    );

    Some(Finding {
        question: "Does the generalist gain on mathematics over the specialist?".into(),
        answer,
        agrees,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_statistics::Share;

    fn tested(domains: &[&str], right: usize) -> ModelReport {
        let domains = domains.iter().map(|domain| domain.to_string()).collect();
        let test = [("math".to_owned(), Share::of(right, 100))].into();
        ModelReport { domains, test, ..ModelReport::default() }
    }

    fn gained(generalist: usize, specialist: usize) -> Option<bool> {
        let generalist = ("all".to_owned(), tested(&["math", "social"], generalist));
        let found =
            findings(&[generalist, ("math".to_owned(), tested(&["math"], specialist))].into());
        assert_eq!(found.len(), 1, "no curves, so only the accuracies are asked");
        found[0].agrees
    }

    #[test]
    fn a_gain_is_one_only_where_its_interval_says_so() {
        assert_eq!(
            [gained(80, 50), gained(50, 80), gained(55, 50)],
            [Some(true), Some(false), None]
        );
    }

    #[test]
    fn nothing_is_asked_of_nobody() {
        assert!(findings(&BTreeMap::new()).is_empty());
        assert!(findings(&[("math".to_owned(), tested(&["math"], 1))].into()).is_empty());
    }
}
