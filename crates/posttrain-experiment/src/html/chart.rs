//! Line charts in SVG, drawn so that style sheets color them.

use super::escape;
use super::scale::Scale;

const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;
/// The most points that a line is drawn through.
const MOST_POINTS: usize = 600;

/// A line chart.
pub(super) struct Chart {
    title: String,
    description: String,
    x: Scale,
    y: Scale,
    x_label: String,
    y_form: fn(f64) -> String,
    body: String,
}

impl Chart {
    /// An empty chart. Title and description are what a screen reader says.
    pub(super) fn new(
        title: String,
        description: String,
        x: (Scale, &str),
        y: (Scale, fn(f64) -> String),
    ) -> Self {
        Self {
            title,
            description,
            x: x.0,
            y: y.0,
            x_label: x.1.to_owned(),
            y_form: y.1,
            body: String::new(),
        }
    }

    /// A line through the points; it breaks where a value is not finite. Of many points the highest
    /// and lowest of each stretch are drawn.
    pub(super) fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let mut path = String::new();
        let mut pen = 'M';
        for (x, y) in thinned(points) {
            if !(x.is_finite() && y.is_finite()) {
                pen = 'M';
                continue;
            }
            path.push_str(&format!("{pen}{:.1} {:.1}", self.across(x), self.down(y)));
            pen = 'L';
        }

        if !path.is_empty() {
            self.body.push_str(&format!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// The marker of a look at a point.
    pub(super) fn marker(&mut self, point: (f64, f64), look: usize) {
        if point.0.is_finite() && point.1.is_finite() {
            let marker = marker(self.across(point.0), self.down(point.1), look);
            self.body.push_str(&marker);
        }
    }

    /// Draws in the color of a look.
    pub(super) fn in_look(&mut self, look: usize, draw: impl FnOnce(&mut Self)) {
        self.body.push_str(&format!("<g class=\"m{look}\">"));
        draw(self);
        self.body.push_str("</g>");
    }

    /// A ring around a point, with words beside it.
    pub(super) fn ring(&mut self, point: (f64, f64), words: &str) {
        if !(point.0.is_finite() && point.1.is_finite()) {
            return;
        }

        let (x, y) = (self.across(point.0), self.down(point.1));
        // Words go where there is room: towards the middle, and below a point that is high up.
        let (anchor, shift) =
            if x > (LEFT + WIDTH - RIGHT) / 2.0 { ("end", -10.0) } else { ("start", 10.0) };
        let drop = if y < TOP + 16.0 { 18.0 } else { -9.0 };

        let words = escape::plain(words);
        self.body.push_str(&format!(
            "<path class=\"drop\" d=\"M{x:.1} {y:.1}V{:.1}\"/><circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"/>\
             <text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>",
            HEIGHT - BOTTOM,
            x + shift,
            y + drop,
        ));
    }

    /// The finished chart, as an element of a class that its colors follow from.
    pub(super) fn svg(self, class: &str) -> String {
        let title = escape::plain(&self.title);
        let description = escape::plain(&self.description);
        format!(
            "<svg class=\"chart {class}\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\"><title>{title}</title>\
             <desc>{description}</desc>{}{}</svg>",
            self.axes(),
            self.body
        )
    }

    fn axes(&self) -> String {
        let floor = HEIGHT - BOTTOM;
        let right = WIDTH - RIGHT;
        let mut axes = String::new();

        for tick in &self.y.ticks {
            let y = self.down(*tick);
            let words = escape::plain(&(self.y_form)(*tick));
            axes.push_str(&format!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>",
                LEFT - 5.0,
                y + 4.0
            ));
        }

        for tick in &self.x.ticks {
            let x = self.across(*tick);
            let words = super::plain_number(*tick);
            axes.push_str(&format!(
                "<path class=\"axis\" d=\"M{x:.1} {floor}v4\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{words}</text>",
                floor + 16.0
            ));
        }

        let middle = (LEFT + right) / 2.0;
        let label = escape::plain(&self.x_label);
        format!(
            "{axes}<path class=\"axis\" d=\"M{LEFT} {floor}H{right}\"/>\
             <text class=\"tick\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - 4.0
        )
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }
}

/// A circle, square, triangle or diamond, so that color is not all that tells models apart.
pub(super) fn marker(x: f64, y: f64, look: usize) -> String {
    let shape = match look % 4 {
        0 => format!("M{:.1} {y:.1}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z", x - 3.5),
        1 => format!("M{:.1} {:.1}h6v6h-6z", x - 3.0, y - 3.0),
        2 => format!("M{x:.1} {:.1}l4 7h-8z", y - 4.5),
        _ => format!("M{x:.1} {:.1}l4.5 4.5l-4.5 4.5l-4.5-4.5z", y - 4.5),
    };
    format!("<path class=\"marker\" d=\"{shape}\"/>")
}

/// At most 600 points: of each stretch of a longer line, its lowest and its highest in their order.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = (2 * points.len()).div_ceil(MOST_POINTS);
    points.chunks(stretch).flat_map(extremes).collect()
}

fn extremes(stretch: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let finite = || stretch.iter().filter(|point| point.1.is_finite());
    let mut ends: Vec<(f64, f64)> =
        finite().min_by(by_value).into_iter().chain(finite().max_by(by_value)).copied().collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_keep_their_peaks_in_few_points() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|t| (t as f64, 0.5)).collect();
        points[77_777].1 = 1.0;
        points[3].1 = f64::NAN;
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.contains(&(77_777.0, 1.0)), "{}", thin.len());
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn what_is_not_finite_is_not_drawn() {
        let percent = crate::numeral::percent;
        let scale = || Scale::exactly(0.0, 3.0);
        let mut chart = Chart::new("t".into(), "d".into(), (scale(), "step"), (scale(), percent));
        chart.line(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)], "line");
        chart.marker((f64::INFINITY, 1.0), 0);
        chart.ring((1.0, f64::NAN), "best");
        let svg = chart.svg("m0");
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("ring"), "{svg}");
        assert_eq!(svg.matches("class=\"line\" d=\"M").count(), 1);
    }
}
