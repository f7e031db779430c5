//! What every part of the page needs to know of the report: the order of its models and how each
//! looks.

use super::escape;
use crate::{ModelReport, Report};

/// How many looks (color, dash, marker) there are.
const LOOKS: usize = 6;

/// A report with its models in the order of the page.
pub(super) struct View<'a> {
    pub(super) report: &'a Report,
    pub(super) models: Vec<(&'a str, &'a ModelReport)>,
    pub(super) domains: Vec<&'a str>,
}

impl<'a> View<'a> {
    pub(super) fn new(report: &'a Report) -> Self {
        let names = report.model_names().into_iter();
        let models = names.filter_map(|name| Some((name, report.models.get(name)?))).collect();
        Self { report, models, domains: report.domains() }
    }

    /// A number from 0 to 5 by which style sheet and charts tell models apart.
    pub(super) fn look(&self, model: &str) -> usize {
        self.models.iter().position(|(name, _)| *name == model).unwrap_or(LOOKS - 1) % LOOKS
    }

    /// The models trained on one domain.
    pub(super) fn specialists(&self) -> impl Iterator<Item = (&'a str, &'a ModelReport)> {
        self.models.iter().copied().filter(|(_, model)| model.domains.len() == 1)
    }

    /// The model trained on the most domains, if on more than one.
    pub(super) fn generalist(&self) -> Option<(&'a str, &'a ModelReport)> {
        self.models.iter().copied().rfind(|(_, model)| model.is_generalist())
    }

    /// The models' names with the line and the marker by which charts show them.
    pub(super) fn legend(&self) -> String {
        let key = |name: &str| {
            let look = self.look(name);
            let marker = super::chart::marker(14.0, 6.0, look);
            format!(
                "<li class=\"m{look}\"><svg aria-hidden=\"true\" width=\"28\" height=\"12\">\
                 <path class=\"line\" d=\"M0 6H28\"/>{marker}</svg> {}</li>",
                escape::name(name)
            )
        };
        let keys: String = self.models.iter().map(|(name, _)| key(name)).collect();
        format!("<ul class=\"legend\" aria-label=\"Models\">{keys}</ul>")
    }
}
