//! Pictures of the figures: bars for what was measured once, lines for what grows. SVG, written by hand: two shapes need no crate.

use std::fmt::Write as _;

use super::markdown::number;
use super::parts::{apart, by_unit, in_order};
use super::{Report, Row};
use crate::names::{Measure, SideName};

use clap::ValueEnum as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
/// Around the figure: for the scale, the legend and the names.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 60.0;
/// Lines of the scale.
const STEPS: u32 = 5;

/// One picture.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) measure: Measure,
    pub(super) file: String,
    pub(super) svg: String,
}

/// Pictures of every measure that has figures.
pub(super) fn plots(report: &Report) -> Vec<Plot> {
    let measures = Measure::value_variants().iter();
    measures
        .flat_map(|measure| plots_of(report, *measure))
        .collect()
}

fn plots_of(report: &Report, measure: Measure) -> Vec<Plot> {
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.measure == measure && !row.is_detail())
        // The first point again beside a later one is for the bar.
        .filter(|row| !measure.grows() || row.path.parse::<u32>().is_ok())
        .collect();
    let parts = if measure.grows() {
        vec![rows]
    } else {
        by_unit(&rows).iter().flat_map(|rows| apart(rows)).collect()
    };
    let plots = parts.into_iter().zip(1_u32..).map(|(rows, number)| {
        let file = if number == 1 {
            format!("{measure}.svg")
        } else {
            format!("{measure}-{number}.svg")
        };
        plot(&rows, measure, file)
    });
    plots.flatten().collect()
}

fn plot(rows: &[&Row], measure: Measure, file: String) -> Option<Plot> {
    let unit = rows.first()?.unit;
    let most = rows.iter().map(|row| row.max).fold(0.0, f64::max);
    let mut canvas = Canvas::new(measure.title(), unit.name(), nice(most));
    canvas.legend(rows);
    if measure.grows() {
        canvas.lines(rows);
    } else {
        canvas.bars(rows);
    }
    Some(Plot {
        measure,
        file,
        svg: canvas.finish(),
    })
}

/// The next round number.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(value)
}

fn colour(side: SideName) -> &'static str {
    match side {
        SideName::Host => "#666666",
        SideName::Bridge => "#d95f02",
        SideName::Ptp => "#7570b3",
        SideName::Ours => "#1b9e77",
    }
}

struct Canvas {
    svg: String,
    most: f64,
}

impl Canvas {
    fn new(title: &str, unit: &str, most: f64) -> Self {
        let mut canvas = Self {
            svg: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
                 font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
            ),
            most,
        };
        canvas.text(
            (LEFT, 26.0),
            "start",
            "font-size=\"17\"",
            &format!("{title}, {unit}"),
        );
        for step in 0..=STEPS {
            let value = most * f64::from(step) / f64::from(STEPS);
            let y = canvas.y(value);
            canvas.line((LEFT, y), (WIDTH - RIGHT, y), "#dddddd", 1.0);
            canvas.text((LEFT - 8.0, y + 4.0), "end", "", &number(value));
        }
        canvas
    }

    fn y(&self, value: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        TOP + height * (1.0 - value / self.most)
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        self.svg.write_fmt(arguments).unwrap_or_default();
        self.svg.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, style: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>"
        ));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) {
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        ));
    }

    /// From the least to the greatest round.
    fn whisker(&mut self, x: f64, row: &Row, colour: &str) {
        let (low, high) = (self.y(row.min), self.y(row.max));
        self.line((x, low), (x, high), colour, 1.2);
    }

    fn legend(&mut self, rows: &[&Row]) {
        let mut x = LEFT;
        for side in SideName::ALL {
            if rows.iter().any(|row| row.side == side) {
                let fill = colour(side);
                self.push(format_args!(
                    "<rect x=\"{x}\" y=\"40\" width=\"14\" height=\"14\" fill=\"{fill}\"/>"
                ));
                self.text((x + 20.0, 52.0), "start", "", side.name());
                x += 90.0;
            }
        }
    }

    /// A group for each path, a bar for each side.
    fn bars(&mut self, rows: &[&Row]) {
        let paths = in_order(rows.iter().map(|row| row.path.as_str()));
        let slots = paths.len().max(1) * (SideName::ALL.len() + 1);
        let slot = (WIDTH - LEFT - RIGHT) / count(slots);
        let base = self.y(0.0);
        let mut x = LEFT + slot / 2.0;
        for path in paths {
            let middle = x + slot * 2.0;
            for (line, y) in path.split(", ").zip([18.0, 33.0, 48.0]) {
                self.text((middle, base + y), "middle", "font-size=\"12\"", line);
            }
            for side in SideName::ALL {
                let row = rows.iter().find(|row| row.path == path && row.side == side);
                if let Some(row) = row {
                    let (top, width, fill) = (self.y(row.median), slot * 0.85, colour(side));
                    let height = base - top;
                    self.push(format_args!(
                        "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
                    ));
                    self.whisker(x + width / 2.0, row, "black");
                }
                x += slot;
            }
            x += slot;
        }
    }

    /// A line for each side over the number that the path is.
    fn lines(&mut self, rows: &[&Row]) {
        let at = |row: &Row| row.path.parse::<f64>().unwrap_or(0.0);
        let last = rows.iter().map(|row| at(row)).fold(1.0, f64::max);
        let x_of = |value: f64| LEFT + 20.0 + (WIDTH - LEFT - RIGHT - 40.0) * value / last;
        let base = self.y(0.0);
        for path in in_order(rows.iter().map(|row| row.path.as_str())) {
            let x = x_of(path.parse().unwrap_or(0.0));
            self.text((x, base + 20.0), "middle", "", path);
        }
        // A little beside each other, so that each spread is seen.
        for (side, aside) in SideName::ALL.into_iter().zip([-6.0, -2.0, 2.0, 6.0]) {
            let mut before = None;
            for row in rows.iter().filter(|row| row.side == side) {
                let point = (x_of(at(row)) + aside, self.y(row.median));
                if let Some(before) = before.replace(point) {
                    self.line(before, point, colour(side), 2.5);
                }
                let ((x, y), fill) = (point, colour(side));
                self.push(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\"/>"
                ));
                self.whisker(x, row, fill);
            }
        }
    }

    fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Unit;

    fn row(measure: Measure, path: &str, side: SideName, median: f64) -> Row {
        Row {
            measure,
            path: path.into(),
            side,
            unit: Unit::PerSecond,
            median,
            p50_us: None,
            p99_us: None,
            min: median * 0.9,
            max: median * 1.1,
            rounds: 7,
        }
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (most, wanted) in [
            (0.0, "1"),
            (0.7, "0.8"),
            (11.0, "15"),
            (21.0, "30"),
            (99.0, "100"),
        ] {
            assert_eq!(nice(most).to_string(), wanted);
        }
    }

    #[test]
    fn there_is_a_bar_for_each_figure_and_none_for_what_is_missing() {
        let report = Report {
            rows: vec![
                row(Measure::TcpRr, "pod→VNet", SideName::Host, 100.0),
                row(Measure::TcpRr, "pod→VNet", SideName::Ours, 90.0),
                row(Measure::TcpRr, "pod→VNet, CPU each", SideName::Ours, 9.0),
            ],
            ..Report::default()
        };
        let plots = plots(&report);
        assert_eq!(plots.len(), 1);
        assert_eq!(plots[0].file, "tcp_rr.svg");
        // The ground, two in the legend, two bars.
        assert_eq!(plots[0].svg.matches("<rect").count(), 5, "{}", plots[0].svg);
        assert!(!plots[0].svg.contains(">ptp<"));
    }

    #[test]
    fn what_would_not_be_seen_beside_the_rest_has_a_picture_of_its_own() {
        let add = |path: &str, median| row(Measure::Add, path, SideName::Ours, median);
        let mut rows = vec![add("250 at once", 9000.0), add("serial", 50.0)];
        rows.extend((0..9).map(|number| add(&format!("{number} at once"), 1000.0)));
        let report = Report {
            rows,
            ..Report::default()
        };
        let plots = plots(&report);
        let files: Vec<_> = plots.iter().map(|plot| plot.file.as_str()).collect();
        assert_eq!(files, ["add.svg", "add-2.svg", "add-3.svg"]);
        let shown = |place: usize, path| plots[place].svg.contains(path);
        assert!(shown(0, ">serial<") && !shown(0, ">250 at once<"));
        assert!(
            shown(1, ">7 at once<") && shown(2, ">8 at once<") && shown(2, ">250 at once<"),
            "eight names fit"
        );
    }

    #[test]
    fn a_rate_and_a_time_are_in_two_pictures_each_with_its_unit() {
        let rate = row(Measure::TcpRr, "pod→VNet", SideName::Ours, 8000.0);
        let time = Row {
            unit: Unit::Microseconds,
            ..row(Measure::TcpRr, "pod→VNet, p99", SideName::Ours, 9600.0)
        };
        let report = Report {
            rows: vec![rate, time],
            ..Report::default()
        };
        let plots = plots(&report);
        assert_eq!(plots.len(), 2);
        let (rates, times) = (&plots[0].svg, &plots[1].svg);
        assert!(
            rates.contains(", 1/s</text>") && !rates.contains("p99"),
            "{rates}"
        );
        assert!(
            times.contains(", µs</text>") && times.contains("p99"),
            "{times}"
        );
    }

    #[test]
    fn what_grows_is_a_line_over_its_number() {
        let points = ["10", "250"].map(|path| row(Measure::GrowthPods, path, SideName::Ours, 50.0));
        let report = Report {
            rows: points.to_vec(),
            ..Report::default()
        };
        let svg = &plots(&report)[0].svg;
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">250</text>"));
    }
}
