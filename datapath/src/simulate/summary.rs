//! The result in a few lines, for a terminal.
//!
//! Invariant: the same numbers as in the report, of which these are the most important ones; nothing is ranked.

use super::outcome::{Measured, Outcome, Simulation};

/// A share in percent.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// The mean share of probes that moved at the moments.
pub(super) fn moved(outcome: &Outcome) -> Option<f64> {
    let count = outcome.moments.len();
    let sum: f64 = outcome.moments.iter().map(|moment| moment.probes.moved).sum();
    (count > 0).then(|| sum / count as f64)
}

/// A table: a line for each scheduler.
pub(super) fn render(simulation: &Simulation) -> String {
    let head =
        ["scheduler", "served", "refused", "broken", "max/mean", "worst", "elsewhere", "moved", "slowdown", "ns/pick"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(simulation.schedulers.iter().zip(&simulation.measured).map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row((outcome, measured): (&Outcome, &Measured)) -> [String; 10] {
    [
        outcome.label.clone(),
        outcome.served.to_string(),
        outcome.refused.to_string(),
        outcome.broken.to_string(),
        format!("{:.3}", outcome.balance.ratio_mean),
        format!("{:.3}", outcome.balance.ratio_worst),
        percent(outcome.elsewhere, outcome.returned),
        moved(outcome).map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
        format!("{:.2}", outcome.slowdown),
        format!("{:.0}", measured.pick.median_ns),
    ]
}
