//! A run as one page for a browser: what it gained, its curves, samples. Nothing is loaded from
//! elsewhere, and nothing runs.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use posttrain::recipes::SampledToken;
use posttrain::statistics::Share;
use std::fmt::Write;
use std::path::Path;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;\
    padding:0 1rem;color:#222;background:#fff}table{border-collapse:collapse}td,th{padding:.3rem \
    .8rem;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}svg{max-width:100%;\
    height:auto}.right{color:#0a7d28}.wrong{color:#b3261e}pre{white-space:pre-wrap;margin:0}";

/// Nothing may be loaded, run or sent: a second wall behind the escaping.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'";

/// A page.
pub struct Page {
    /// Its heading.
    pub title: String,
    /// What stands beneath.
    pub lead: String,
    /// Accuracies, by name.
    pub accuracies: Vec<(String, Share)>,
    /// Curves over the steps.
    pub curves: Vec<Curve>,
    /// What the model wrote.
    pub samples: Vec<PageSample>,
    /// Episodes of several turns.
    pub conversations: Vec<Conversation>,
}

/// An episode.
pub struct Conversation {
    /// Whose, and what it earned.
    pub title: String,
    /// What was read and written.
    pub said: Vec<Said>,
}

/// A turn of an episode.
pub struct Said {
    /// Who.
    pub who: String,
    /// What.
    pub text: String,
    /// Whether the policy wrote it, and so was trained on it.
    pub written: bool,
    /// How many sub-agents deep.
    pub depth: usize,
}

impl Conversation {
    fn html(&self) -> String {
        let mut html = format!("<h3>{}</h3><table>", escaped(&self.title));
        for said in &self.said {
            let class = if said.written { "right" } else { "" };
            html += &format!(
                "<tr><td>{}{}</td><td dir=\"auto\" class=\"{class}\"><pre>{}</pre></td></tr>",
                "&nbsp;&nbsp;".repeat(said.depth),
                escaped(&said.who),
                escaped(&said.text)
            );
        }
        html + "</table>"
    }
}

/// A number over the steps.
pub struct Curve {
    /// What it is, with its unit.
    pub title: String,
    /// Step and value.
    pub points: Vec<(f64, f64)>,
}

/// An answer.
pub struct PageSample {
    /// The question.
    pub question: String,
    /// The reference answer.
    pub reference: String,
    /// What the model wrote.
    pub answer: String,
    /// Its reward, where it has one.
    pub reward: Option<f64>,
    /// What it was worth in training, where it was trained on.
    pub advantage: Option<f32>,
    /// Its tokens, where they are known.
    pub tokens: Vec<SampledToken>,
}

impl PageSample {
    /// The answer as HTML, each token in the color of what training made of it.
    fn colored(&self) -> String {
        let advantage = self.advantage.unwrap_or(0.0);
        if self.tokens.is_empty() {
            return escaped(&self.answer);
        }
        // A group's normalized advantages seldom leave ±2.
        let strength = (advantage.abs() / 2.0).min(1.0) * 0.6;
        let color = if advantage >= 0.0 { "10,125,40" } else { "179,38,30" };
        let mut html = String::new();
        for SampledToken(text, ratio) in &self.tokens {
            let moved = ratio.filter(|ratio| ratio.ln().abs() > 0.05);
            let line = if moved.is_some() { ";border-bottom:2px solid #555" } else { "" };
            let ratio = ratio.map_or("not trained on".to_owned(), |r| format!("ratio {r:.3}"));
            html += &format!(
                "<span title=\"{ratio}, advantage {advantage:.2}\" \
                 style=\"background:rgba({color},{strength:.2}){line}\">{}</span>",
                escaped(text)
            );
        }
        html
    }
}

impl Page {
    /// Writes the page.
    ///
    /// # Errors
    /// If a curve cannot be drawn, or the file not be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut body = String::new();
        write!(body, "<h1>{}</h1><p>{}</p>", escaped(&self.title), escaped(&self.lead))?;

        body += &self.accuracies()?;

        for curve in self.curves.iter().filter(|curve| !curve.points.is_empty()) {
            write!(body, "<h2>{}</h2>{}", escaped(&curve.title), curve.drawn()?)?;
        }

        body += &self.samples()?;
        if !self.conversations.is_empty() {
            body += "<h2>Episodes</h2>";
        }
        for conversation in &self.conversations {
            body += &conversation.html();
        }

        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\"><title>{}</title><style>{STYLE}</style></head>\
             <body>{body}</body></html>\n",
            escaped(&self.title)
        );
        crate::run_folder::write(path, &page)
    }

    fn accuracies(&self) -> Result<String> {
        if self.accuracies.is_empty() {
            return Ok(String::new());
        }
        let mut body = "<h2>Accuracy</h2><table><tr><th></th><th>accuracy</th><th>95% interval \
                        (Wilson)</th><th>n</th></tr>"
            .to_owned();
        for (name, share) in &self.accuracies {
            write!(
                body,
                "<tr><td>{}</td><td>{:.3}</td><td>{:.3} to {:.3}</td><td>{}</td></tr>",
                escaped(name),
                share.share,
                share.low,
                share.high,
                share.n
            )?;
        }
        Ok(body + "</table>")
    }

    fn samples(&self) -> Result<String> {
        if self.samples.is_empty() {
            return Ok(String::new());
        }
        let mut body =
            "<h2>Samples</h2><table><tr><th>question</th><th>reference</th><th>answer</th>\
                        <th>reward</th></tr>"
                .to_owned();
        for sample in &self.samples {
            let (class, reward) = match sample.reward {
                Some(reward) if reward > 0.5 => ("right", format!("{reward:.2}")),
                Some(reward) => ("wrong", format!("{reward:.2}")),
                None => ("", "none".to_owned()),
            };
            write!(
                body,
                "<tr><td dir=\"auto\">{}</td><td dir=\"auto\">{}</td>\
                 <td dir=\"auto\" class=\"{class}\"><pre>{}</pre></td><td>{reward}</td></tr>",
                escaped(&sample.question),
                escaped(&sample.reference),
                sample.colored()
            )?;
        }
        Ok(body + "</table>")
    }
}

impl Curve {
    /// The curve as an SVG element.
    fn drawn(&self) -> Result<String> {
        let finite = self.points.iter().filter(|(_, value)| value.is_finite());
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut last: f64 = 1.0;
        for (step, value) in finite.clone() {
            low = low.min(*value);
            high = high.max(*value);
            last = last.max(*step);
        }
        if low > high {
            return Ok("<p>No finite value.</p>".to_owned());
        }
        let margin = ((high - low) * 0.05).max(1e-6);

        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (760, 240)).into_drawing_area();
            let failed =
                |error: &dyn std::fmt::Display| anyhow!("the curve cannot be drawn: {error}");
            let mut chart = ChartBuilder::on(&area)
                .margin(12)
                .x_label_area_size(28)
                .y_label_area_size(52)
                .build_cartesian_2d(0f64..last, low - margin..high + margin)
                .map_err(|error| failed(&error))?;
            chart
                .configure_mesh()
                .x_desc("step")
                .light_line_style(WHITE)
                .draw()
                .map_err(|error| failed(&error))?;
            chart
                .draw_series(LineSeries::new(finite.copied(), BLUE.stroke_width(2)))
                .map_err(|error| failed(&error))?;
            area.present().map_err(|error| failed(&error))?;
        }
        Ok(svg)
    }
}

/// A text as HTML shows it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // What is not written is not read by a browser either.
            control if control.is_control() && control != '\n' => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_wrote_stays_text() {
        let hostile = "<script>alert('x')</script>\u{0}\"";
        let page = Page {
            title: "t".into(),
            lead: String::new(),
            accuracies: vec![("before".into(), Share::of(1, 2))],
            curves: vec![Curve {
                title: "loss".into(),
                points: vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)],
            }],
            samples: vec![PageSample {
                question: hostile.into(),
                reference: hostile.into(),
                answer: hostile.into(),
                reward: Some(1.0),
                advantage: Some(-0.7),
                tokens: vec![
                    SampledToken(hostile.into(), Some(1.2)),
                    SampledToken("plain".into(), None),
                ],
            }],
            conversations: vec![Conversation {
                title: hostile.into(),
                said: vec![Said {
                    who: hostile.into(),
                    text: hostile.into(),
                    written: true,
                    depth: 1,
                }],
            }],
        };
        let path = std::env::temp_dir().join(format!("posttrain-page-{}.html", std::process::id()));
        page.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(text.contains("<svg") && text.contains("0.500"));
        assert!(text.contains("ratio 1.200, advantage -0.70") && text.contains("not trained on"));
        let colors: Vec<_> = text.matches("rgba(179,38,30,0.21)").collect();
        assert_eq!((colors.len(), text.matches("border-bottom:2px").count()), (2, 1));
    }
}
