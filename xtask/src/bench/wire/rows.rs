//! What was measured: one row for each contender in each round, kept and written down as it comes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xvs_tests::wire::Contender;

/// One contender's figures of one round, by name, and what they come from.
#[derive(Debug, Default)]
pub(crate) struct Row {
    figures: BTreeMap<&'static str, f64>,
    raw: BTreeMap<&'static str, Value>,
}

impl Row {
    pub(crate) fn set(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    pub(crate) fn raw(&mut self, name: &'static str, value: Value) {
        self.raw.insert(name, value);
    }

    /// A line for whoever watches.
    pub(crate) fn brief(&self) -> String {
        let figures = self.figures.iter().map(|(name, value)| format!("{name} {}", short(*value)));
        figures.collect::<Vec<_>>().join("  ")
    }
}

/// All rows.
#[derive(Debug)]
pub(crate) struct Rows {
    rows: Vec<(u32, u32, Contender, Row)>,
    file: Option<File>,
}

impl Rows {
    pub(crate) fn create(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("{} can not be written", path.display()));
        Ok(Rows { rows: Vec::new(), file: path.map(create).transpose()? })
    }

    pub(crate) fn add(&mut self, workers: u32, round: u32, who: Contender, row: Row) -> Result<()> {
        if let Some(file) = &mut self.file {
            let line =
                json!({"workers": workers, "round": round, "who": who.name(), "figures": row.figures, "raw": row.raw});
            writeln!(file, "{line}").context("the raw figures could not be written")?;
        }
        self.rows.push((workers, round, who, row));
        Ok(())
    }

    /// Numbers of workers, in their order.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let mut workers: Vec<_> = self.rows.iter().map(|row| row.0).collect();
        workers.dedup();
        workers
    }

    /// How many rounds there were with so many workers.
    pub(crate) fn rounds(&self, workers: u32) -> u32 {
        self.rows.iter().filter(|row| row.0 == workers).map(|row| row.1).max().unwrap_or_default()
    }

    /// Who stood with so many workers, in the order of their first row.
    pub(crate) fn contenders(&self, workers: u32) -> Vec<Contender> {
        let mut found = Vec::new();
        for (_, _, who, _) in self.rows.iter().filter(|row| row.0 == workers) {
            if !found.contains(who) {
                found.push(*who);
            }
        }
        found
    }

    /// A figure of one contender by round.
    pub(crate) fn figures(&self, workers: u32, who: Contender, name: &str) -> BTreeMap<u32, f64> {
        let rows = self.rows.iter().filter(|row| row.0 == workers && row.2 == who);
        rows.filter_map(|row| Some((row.1, *row.3.figures.get(name)?))).collect()
    }
}

/// The least and the most; none of nothing.
pub(crate) fn ends(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let with = |(least, most): (f64, f64), value: f64| (least.min(value), most.max(value));
    values.into_iter().map(|value| (value, value)).reduce(|ends, (value, _)| with(ends, value))
}

/// The median; none of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2} G", value / 1e9),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the spread that is reported.
    #[test]
    fn ends_are_the_least_and_the_most() {
        assert_eq!(ends([3.0, 1.0, 2.0]), Some((1.0, 3.0)));
        assert_eq!(ends([2.0]), Some((2.0, 2.0)));
        assert_eq!(ends([]), None);
    }

    /// Guards the figures that are reported: odd and even counts, and none.
    #[test]
    fn medians_are_medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
