//! Horizontal figures that fill their width without scaling their text: bars, intervals, spans of
//! time. Places across are per cent of the width.

use super::escape;
use super::scale::Scale;

/// The height of a row: a line of words and what is drawn under it.
const ROW: f64 = 46.0;
/// The height of the scale at the foot.
const FOOT: f64 = 34.0;

/// Rows over one scale.
pub(super) struct Bars {
    title: String,
    description: String,
    scale: Scale,
    form: fn(f64) -> String,
    foot: String,
    rows: Vec<String>,
}

impl Bars {
    /// A figure without rows. Title and description are what a screen reader says, `foot` what the
    /// scale measures.
    pub(super) fn new(
        title: &str,
        description: &str,
        scale: (Scale, fn(f64) -> String),
        foot: &str,
    ) -> Self {
        Self {
            title: escape::plain(title),
            description: escape::plain(description),
            scale: scale.0,
            form: scale.1,
            foot: escape::plain(foot),
            rows: Vec::new(),
        }
    }

    /// A bar from zero to the value, with its interval where it has one.
    pub(super) fn bar(
        &mut self,
        words: (&str, &str),
        value: f64,
        range: Option<(f64, f64)>,
        class: &str,
    ) {
        let width = self.across(value) - self.across(0.0);
        let whisker = range.map_or(String::new(), |(low, high)| self.whisker(low, high));
        let bar =
            format!("<rect class=\"bar\" x=\"0%\" y=\"20\" width=\"{width:.2}%\" height=\"16\"/>");
        self.row(words, &(bar + &whisker), class);
    }

    /// A point with its interval.
    pub(super) fn point(
        &mut self,
        words: (&str, &str),
        value: f64,
        range: (f64, f64),
        class: &str,
    ) {
        let dot =
            format!("<circle class=\"dot\" cx=\"{:.2}%\" cy=\"28\" r=\"5\"/>", self.across(value));
        let whisker = self.whisker(range.0, range.1);
        self.row(words, &(whisker + &dot), class);
    }

    /// Spans of a row, each of a class and a height.
    pub(super) fn spans(&mut self, words: (&str, &str), spans: &[(f64, f64, &str)], class: &str) {
        let span = |(start, end, kind): &(f64, f64, &str)| {
            let (x, end) = (self.across(*start), self.across(*end));
            format!(
                "<rect class=\"span {kind}\" x=\"{x:.2}%\" width=\"{:.2}%\"/>",
                (end - x).max(0.15)
            )
        };

        let drawn: String = spans.iter().map(span).collect();
        self.row(words, &drawn, class);
    }

    /// The finished figure, with a line at zero where the scale passes it.
    pub(super) fn svg(self) -> String {
        let floor = ROW * self.rows.len() as f64;
        let rows: String =
            self.rows.iter().enumerate().map(|(index, row)| place_row(index, row)).collect();
        let zero = if self.scale.low < 0.0 {
            let x = self.across(0.0);
            format!("<line class=\"zero\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"16\" y2=\"{floor}\"/>")
        } else {
            String::new()
        };

        format!(
            "<svg class=\"bars\" role=\"img\" width=\"100%\" height=\"{}\"><title>{}</title><desc>{}</desc>{}{zero}{rows}</svg>",
            floor + FOOT,
            self.title,
            self.description,
            self.axis(floor),
        )
    }

    fn row(&mut self, words: (&str, &str), drawn: &str, class: &str) {
        let left = escape::plain(words.0);
        let right = escape::plain(words.1);
        self.rows.push(format!(
            "<g class=\"{class}\"><text class=\"label\" x=\"0\" y=\"14\">{left}</text>\
             <text class=\"value\" x=\"100%\" y=\"14\" text-anchor=\"end\">{right}</text>{drawn}</g>"
        ));
    }

    fn whisker(&self, low: f64, high: f64) -> String {
        let (low, high) = (self.across(low), self.across(high));
        let line = |x1: f64, x2: f64, y1: u8, y2: u8| {
            format!(
                "<line class=\"whisker\" x1=\"{x1:.2}%\" x2=\"{x2:.2}%\" y1=\"{y1}\" y2=\"{y2}\"/>"
            )
        };
        line(low, high, 28, 28) + &line(low, low, 23, 33) + &line(high, high, 23, 33)
    }

    fn axis(&self, floor: f64) -> String {
        let mut axis = String::new();
        for tick in &self.scale.ticks {
            let x = self.across(*tick);
            let anchor = match x {
                x if x < 4.0 => "start",
                x if x > 96.0 => "end",
                _ => "middle",
            };

            let words = escape::plain(&(self.form)(*tick));
            axis.push_str(&format!(
                "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"{floor}\"/>\
                 <text class=\"tick\" x=\"{x:.2}%\" y=\"{}\" text-anchor=\"{anchor}\">{words}</text>",
                floor + 13.0
            ));
        }

        format!(
            "{axis}<text class=\"tick\" x=\"50%\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            floor + 29.0,
            self.foot
        )
    }

    fn across(&self, value: f64) -> f64 {
        let place = if value.is_finite() { self.scale.place(value) } else { 0.0 };
        100.0 * place
    }
}

fn place_row(index: usize, row: &str) -> String {
    format!("<svg y=\"{}\" height=\"{ROW}\">{row}</svg>", ROW * index as f64)
}
