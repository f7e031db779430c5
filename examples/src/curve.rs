//! A run's reward, step by step, as a picture.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use posttrain::recipes::StepRecord;
use std::path::Path;

/// Draws mean reward and validation accuracy over the steps into an SVG file.
///
/// # Errors
/// If the file cannot be written.
pub fn draw_rewards(path: &Path, records: &[StepRecord]) -> Result<()> {
    let area = SVGBackend::new(path, (760, 320)).into_drawing_area();
    area.fill(&WHITE)?;
    let last = records.last().map_or(1, |r| r.step);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(42)
        .build_cartesian_2d(0f64..last as f64, 0f64..1f64)?;
    chart.configure_mesh().x_desc("step").y_desc("share right").light_line_style(WHITE).draw()?;
    let rewards = records.iter().map(|r| (r.step as f64, r.reward));
    chart.draw_series(LineSeries::new(rewards, BLUE.mix(0.3)))?;
    chart
        .draw_series(LineSeries::new(smoothed(records), BLUE.stroke_width(2)))?
        .label("reward, mean of 5 steps")
        .legend(key(BLUE));
    let validation = || {
        records.iter().filter_map(|r| Some((r.step as f64, r.validation.as_ref()?.sampled.share)))
    };
    chart
        .draw_series(LineSeries::new(validation(), RED.stroke_width(1)))?
        .label("validation accuracy at T = 1")
        .legend(key(RED));
    chart.draw_series(validation().map(|point| Circle::new(point, 3, RED.filled())))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present().map_err(|e| anyhow!("{}: {e}", path.display()))
}

fn key(color: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
}

fn smoothed(records: &[StepRecord]) -> impl Iterator<Item = (f64, f64)> {
    records.windows(5).map(|w| (w[4].step as f64, w.iter().map(|r| r.reward).sum::<f64>() / 5.0))
}
