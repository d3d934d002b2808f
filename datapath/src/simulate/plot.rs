//! Curves over time as SVG inside of HTML: the picture is stretched to its box, the words around it are not.
//!
//! Invariant: a curve is a list of numbers that came from the simulation; no text of any file gets into a plot but
//! escaped. Not here: what is drawn, and the colours.

use std::fmt::Write;

/// Width and height of the picture's own coordinates.
const SIZE: f64 = 1000.0;
/// More moments than that get lines without numbers.
const NUMBERED: usize = 24;

/// One curve; a gap where there is no number.
#[derive(Debug)]
pub(super) struct Curve {
    /// Classes, for colour and for toggling.
    pub(super) class: String,
    /// Style, for its colour.
    pub(super) style: String,
    /// A value for each time.
    pub(super) values: Vec<Option<f64>>,
}

/// An area between two curves.
#[derive(Debug)]
pub(super) struct Band {
    /// Its lower edge.
    pub(super) low: Vec<f64>,
    /// Its upper edge.
    pub(super) high: Vec<f64>,
}

/// A plot.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    /// Classes of the box.
    pub(super) class: &'a str,
    /// What it shows, for those who do not see it.
    pub(super) label: String,
    /// Attributes by which the script finds its numbers; already escaped.
    pub(super) data: String,
    /// Ends of the spans, in seconds.
    pub(super) times: &'a [f64],
    /// Times of moments.
    pub(super) moments: &'a [f64],
    /// What the axis begins and ends with.
    pub(super) range: (f64, f64),
    /// What follows a number of the axis.
    pub(super) unit: &'a str,
    /// Areas.
    pub(super) bands: Vec<Band>,
    /// Curves.
    pub(super) curves: Vec<Curve>,
}

impl Plot<'_> {
    /// The HTML.
    pub(super) fn render(&self) -> String {
        let end = self.times.last().copied().unwrap_or(1.0);
        let x = |time: f64| time / end * SIZE;
        let (low, high) = self.range;
        let y = |value: f64| SIZE - (value - low) / (high - low) * SIZE;
        let mut html = format!("<div class=\"plot {}\" {}>", self.class, self.data);
        let mut put = |text: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = html.write_fmt(text);
        };
        let ticks = ticks(low, high, 4);
        for &tick in &ticks {
            let top = y(tick) / SIZE * 100.0;
            put(format_args!("<span class=\"y\" style=\"top:{top:.2}%\">{}{}</span>", plain(tick), self.unit));
        }
        let label = escape(&self.label);
        put(format_args!(
            "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">"
        ));
        for &tick in &ticks {
            put(format_args!("<path class=\"grid\" d=\"M0 {0:.1}H1000\"/>", y(tick)));
        }
        for &moment in self.moments {
            put(format_args!("<path class=\"moment\" d=\"M{:.1} 0V1000\"/>", x(moment)));
        }
        for band in &self.bands {
            let path = |values: &[f64]| -> Vec<String> {
                self.times.iter().zip(values).map(|(&time, &value)| format!("{:.1} {:.1}", x(time), y(value))).collect()
            };
            let (there, mut back) = (path(&band.high), path(&band.low));
            back.reverse();
            put(format_args!("<path class=\"band\" d=\"M{}L{}Z\"/>", there.join("L"), back.join("L")));
        }
        for curve in &self.curves {
            let mut path = String::new();
            let mut pen = 'M';
            for (&time, value) in self.times.iter().zip(&curve.values) {
                match value {
                    Some(value) => {
                        // Far outside is as good as infinitely far.
                        let _ = write!(path, "{pen}{:.1} {:.1}", x(time), y(*value).clamp(-SIZE, 2.0 * SIZE));
                        pen = 'L';
                    }
                    None => pen = 'M',
                }
            }
            put(format_args!("<path class=\"{}\" style=\"{}\" d=\"{path}\"/>", curve.class, curve.style));
        }
        put(format_args!("<path class=\"cursor\" d=\"M0 0V1000\"/></svg>"));
        for tick in self::ticks(0.0, end, 5) {
            let left = x(tick) / SIZE * 100.0;
            put(format_args!("<span class=\"x\" style=\"left:{left:.2}%\">{} s</span>", plain(tick)));
        }
        if self.moments.len() <= NUMBERED {
            for (number, &moment) in self.moments.iter().enumerate() {
                let left = x(moment) / SIZE * 100.0;
                put(format_args!("<span class=\"m\" style=\"left:{left:.2}%\">{}</span>", number + 1));
            }
        }
        html.push_str("</div>");
        html
    }
}

/// Round numbers from `low` to `high`, about so many.
fn ticks(low: f64, high: f64, about: usize) -> Vec<f64> {
    let raw = (high - low).max(1e-9) / about as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * power).find(|&step| step >= raw).unwrap_or(raw);
    let first = (low / step - 1e-9).ceil() as i64;
    (first..first + 3 * about as i64).map(|n| n as f64 * step).take_while(|&tick| tick <= high + step * 1e-9).collect()
}

/// A number as short as it can be said.
pub(super) fn plain(value: f64) -> String {
    let value = if value.abs() < 1e-9 { 0.0 } else { value };
    match value.abs() {
        1e6.. => format!("{} M", shortest(value / 1e6)),
        1e4.. => format!("{} k", shortest(value / 1e3)),
        _ => shortest(value),
    }
}

fn shortest(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that may stand anywhere in HTML, also in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Axes have round numbers, few of them, and end with any range.
    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 60.0, 5), [0.0, 20.0, 40.0, 60.0]);
        assert_eq!(ticks(1.0, 2.0, 4), [1.0, 1.5, 2.0]);
        for high in [1e-12, 0.3, 7.0, 1234.5, 1e12] {
            assert!(ticks(0.0, high, 4).len() <= 12);
        }
    }

    /// Nothing that a file says can become markup.
    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<img src='x' onerror=\"y\">&"), "&lt;img src=&#39;x&#39; onerror=&quot;y&quot;&gt;&amp;");
    }
}
