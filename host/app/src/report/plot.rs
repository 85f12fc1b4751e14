//! Plots as inline SVG. Text and axes take the colour of the page, so that one picture reads in a
//! light and a dark theme; series have colours of middle brightness.

use plotters::{coord::Shift, prelude::*};

use super::{
    Error,
    stats::{Histogram, Stats, THROUGHPUT_BUCKET, TapStats},
};

/// Size of a plot in units of SVG.
const SIZE: (u32, u32) = (760, 280);
/// A colour that nothing else has: it is replaced by the page's text colour.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_SVG: &str = "#010203";
/// Most points of a line; longer series are averaged down to it.
const POINTS: usize = 400;

/// Colours of series: one for each tap.
const COLOURS: [RGBColor; 13] = [
    RGBColor(0x3b, 0x7d, 0xd8),
    RGBColor(0xd9, 0x82, 0x2b),
    RGBColor(0x2e, 0x9e, 0x5b),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x1f, 0x9e, 0xa8),
    RGBColor(0xd6, 0x45, 0x50),
    RGBColor(0xa0, 0x78, 0x2c),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0xe0, 0x7a, 0xb8),
    RGBColor(0x8a, 0xa8, 0x1e),
    RGBColor(0x4b, 0x4f, 0xb5),
    RGBColor(0x2f, 0x6b, 0x5e),
    RGBColor(0xb0, 0x4a, 0x1c),
];

fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

/// The colour of a series for CSS.
pub(super) fn css_colour(series: usize) -> String {
    let RGBColor(r, g, b) = colour(series);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Draws one plot.
fn draw<E>(
    name: &'static str,
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawingAreaErrorKind<E>>,
) -> Result<String, Error>
where
    E: std::error::Error + Send + Sync,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area).map_err(|e| Error::Plot {
            name,
            reason: e.to_string(),
        })?;
    }
    // The size comes from the page; the view box keeps the shape.
    Ok(svg.replace(INK_SVG, "currentColor").replacen(
        &format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
        &format!("role=\"img\" aria-label=\"{name}\""),
        1,
    ))
}

/// The label of a number.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    // Two digits after the point, as far as they say anything.
    format!("{}{unit}", (scaled * 100.0).round() / 100.0)
}

/// Means of equal stretches of a series, with the cycle at which each starts.
fn thin(series: &[u64]) -> Vec<(f64, f64)> {
    let stretch = series.len().div_ceil(POINTS).max(1);
    series
        .chunks(stretch)
        .enumerate()
        .map(|(i, part)| {
            let mean = part.iter().sum::<u64>() as f64 / part.len() as f64;
            ((i * stretch) as f64 * THROUGHPUT_BUCKET as f64, mean)
        })
        .collect()
}

/// The series of all taps without the stretch in which the run ends: it is shorter than the
/// others, and would look like a drop. A run of one stretch is shown as it is.
fn whole(stats: &Stats) -> Vec<&[u64]> {
    let series = || stats.taps.iter().map(|t| t.throughput.as_slice());
    let last = series().map(<[u64]>::len).max().unwrap_or(0).max(2) - 1;
    series().map(|s| &s[..s.len().min(last)]).collect()
}

/// TLPs per 10 000 cycles over time, a line a tap.
pub(super) fn throughput(stats: &Stats) -> Result<String, Error> {
    let points: Vec<_> = whole(stats).into_iter().map(thin).collect();
    let all = || points.iter().flatten();
    let cycles = all().map(|p| p.0).fold(THROUGHPUT_BUCKET as f64, f64::max);
    let most = all().map(|p| p.1).fold(1.0, f64::max);
    draw("TLPs per 10 000 cycles", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..cycles, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK.mix(0.5))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_desc("cycle")
            .y_desc("TLPs")
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| short(*v))
            .draw()?;
        for (i, line) in points.iter().enumerate() {
            chart.draw_series(LineSeries::new(
                line.iter().copied(),
                colour(i).stroke_width(2),
            ))?;
        }
        area.present()
    })
}

/// Latencies by binary logarithm, bars of the series side by side.
pub(super) fn latencies(series: &[(&'static str, Histogram)]) -> Result<String, Error> {
    let first = (series.iter())
        .filter_map(|(_, h)| h.buckets.iter().position(|n| *n > 0))
        .min()
        .unwrap_or(0);
    let end = (series.iter())
        .map(|(_, h)| h.buckets.len())
        .max()
        .unwrap_or(0)
        .max(first + 1);
    let most = (series.iter())
        .flat_map(|(_, h)| &h.buckets)
        .max()
        .map_or(1.0, |n| *n as f64);
    draw("Latency in cycles", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            // Half of the last label stands beyond the axis.
            .margin_right(24)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(first as f64..end as f64, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK.mix(0.5))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_labels(end - first + 1)
            .x_desc("cycles, from")
            .y_desc("count")
            .x_label_formatter(&|v| short(Histogram::lower(*v as usize) as f64))
            .y_label_formatter(&|v| short(*v))
            .draw()?;
        let width = 0.9 / series.len().max(1) as f64;
        for (i, (_, histogram)) in series.iter().enumerate() {
            chart.draw_series(
                (histogram.buckets.iter().enumerate())
                    .filter(|(_, n)| **n > 0)
                    .map(|(bucket, n)| {
                        let left = bucket as f64 + 0.05 + i as f64 * width;
                        Rectangle::new([(left, 0.0), (left + width, *n as f64)], colour(i).filled())
                    }),
            )?;
        }
        area.present()
    })
}

/// The kinds of all taps, in the order of first sight: their place is their colour.
pub(super) fn kinds(taps: &[TapStats]) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for (kind, _) in taps.iter().flat_map(|t| &t.kinds) {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    kinds
}

/// TLPs by kind, a bar a tap.
pub(super) fn kinds_by_tap(taps: &[TapStats]) -> Result<String, Error> {
    let kinds = kinds(taps);
    let total = |t: &TapStats| t.kinds.iter().map(|k| k.1).sum::<u64>();
    let most = taps.iter().map(total).max().unwrap_or(0).max(1) as f64;
    // The first tap stands on top.
    let down = |i: usize| taps.len().saturating_sub(i + 1);
    draw("TLPs by kind", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(110)
            .build_cartesian_2d(
                0.0..most * 1.02,
                (0..taps.len().saturating_sub(1)).into_segmented(),
            )?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK.mix(0.5))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_desc("TLPs")
            .y_labels(taps.len())
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| match v {
                SegmentValue::CenterOf(i) => taps.get(down(*i)).map_or("", |t| t.tap).to_owned(),
                _ => String::new(),
            })
            .draw()?;
        for (row, tap) in taps.iter().enumerate() {
            let mut left = 0.0;
            for (kind, n) in &tap.kinds {
                let series = kinds.iter().position(|k| k == kind).unwrap_or(0);
                let right = left + *n as f64;
                let mut bar = Rectangle::new(
                    [
                        (left, SegmentValue::Exact(down(row))),
                        (right, SegmentValue::Exact(down(row) + 1)),
                    ],
                    colour(series).filled(),
                );
                bar.set_margin(4, 4, 0, 0);
                chart.draw_series([bar])?;
                left = right;
            }
        }
        area.present()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretch_in_which_a_run_ends_is_not_shown() {
        let mut stats = Stats::default();
        for (tap, cycle) in [("a", 0), ("b", 1)] {
            stats.record(tap, "MWr", cycle);
        }
        assert_eq!(whole(&stats), [[1], [1]]);
        for cycle in [THROUGHPUT_BUCKET, 2 * THROUGHPUT_BUCKET] {
            stats.record("a", "MWr", cycle);
        }
        assert_eq!(whole(&stats), [&[1, 1][..], &[1]]);
    }
}
