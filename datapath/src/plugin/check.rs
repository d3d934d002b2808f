//! `xvs plugin check`: a report on a module, for its author.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use xvs_host::check::{Cost, Report};
use xvs_sdk::abi;

use super::{Outcome, PluginError, Subject};

/// `xvs plugin check`
#[derive(Debug, Args)]
pub struct Check {
    /// The module, and what it needs.
    #[command(flatten)]
    pub subject: Subject,
    /// A number of servers that it must manage, besides 1, 4, 16, 64 and 256.
    #[arg(long, value_name = "N")]
    pub servers: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What JSON tells of a module that can not be loaded.
#[derive(Serialize)]
struct Problems<'a> {
    fit: bool,
    problems: &'a [String],
}

#[derive(Serialize)]
struct Verdict<'a> {
    fit: bool,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) fn run(options: &Check) -> Result<Outcome, PluginError> {
    let path = options.subject.file.clone();
    let module = match options.subject.load() {
        Err(PluginError::Rejected { path, problems }) if options.json => {
            let text = json(&Problems { fit: false, problems: &problems });
            return Ok(Outcome { text, error: Some(PluginError::Rejected { path, problems }) });
        }
        loaded => loaded?,
    };
    let report = match Report::of(&module, &options.subject.text(), options.servers) {
        Ok(report) => report,
        Err(fault) => {
            let problems = [fault.to_string()];
            let text = if options.json { json(&Problems { fit: false, problems: &problems }) } else { String::new() };
            return Ok(Outcome { text, error: Some(PluginError::Unfit { path, more: format!(": {fault}") }) });
        }
    };
    let fit = report.passes();
    let text = if options.json {
        json(&Verdict { fit, report: &report })
    } else {
        render(&path.display().to_string(), &report)
    };
    Ok(Outcome { text, error: (!fit).then(|| PluginError::Unfit { path, more: String::new() }) })
}

fn json(value: &impl Serialize) -> String {
    // Structures of numbers and text are always JSON.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

/// The report for people.
fn render(name: &str, report: &Report) -> String {
    let mut text = String::new();
    let Report { sizes, answers, .. } = report;
    // Writing to a string can not fail.
    let _ = writeln!(text, "{name}: {}", if report.passes() { "fit for a director" } else { "NOT fit for a director" });
    let _ = writeln!(text, "  sha256    {}", report.sha256);
    let _ = writeln!(
        text,
        "  size      {} bytes, {} KiB of memory, room for {} servers",
        sizes.module,
        sizes.memory >> 10,
        sizes.capacity
    );
    let _ = writeln!(text, "  needs     {}", words(&needs(report.needs)));
    let _ = writeln!(text, "  imports   {}", words(&report.imports.iter().map(String::as_str).collect::<Vec<_>>()));
    let _ = writeln!(text, "  offers    {}", words(&offers(report)));
    let _ = writeln!(text, "\n  servers  worst fuel   budget  headroom  ns/pick");
    for cost in &report.costs {
        let _ = writeln!(text, "{}", line(cost));
    }
    let _ = writeln!(
        text,
        "\n  answers   {} picks: {} good, {} unusable, {} denied, {} nobody, {} fallback, {} out of range",
        answers.picks,
        answers.good,
        answers.unusable,
        answers.denied,
        answers.nobody,
        answers.fallback,
        answers.out_of_range
    );
    let _ = writeln!(text, "  repeats   {}", yes(report.is_deterministic, "not tried"));
    let _ = writeln!(text, "  state     {}", yes(report.state_goes_on, "is not handed over"));
    for problem in &report.problems {
        let _ = writeln!(text, "\n  problem: {problem}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "\n  note: {note}");
    }
    text
}

fn yes(answer: Option<bool>, none: &'static str) -> &'static str {
    answer.map_or(none, |answer| if answer { "yes" } else { "NO" })
}

fn words(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn line(cost: &Cost) -> String {
    let Cost { servers, budget, .. } = cost;
    match (cost.worst_fuel, cost.ns) {
        (Some(fuel), ns) if cost.fits => {
            let left = 100 - (fuel * 100).div_ceil((*budget).max(1)).min(100);
            let ns = ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}"));
            format!("  {servers:>7}  {fuel:>10}  {budget:>7}  {left:>7}%  {ns:>7}")
        }
        _ => {
            let why = cost.fault.as_deref().unwrap_or("it failed");
            let weight = if cost.required { "FAILS" } else { "does not fit" };
            format!("  {servers:>7}  {:>10}  {budget:>7}  {weight}: {why}", "-")
        }
    }
}

fn needs(bits: u32) -> Vec<&'static str> {
    let names = [
        (abi::NEEDS_COUNTS, "counts"),
        (abi::NEEDS_FACTS, "facts"),
        (abi::NEEDS_REBUILD, "rebuild"),
        (abi::NEEDS_DENY, "deny"),
    ];
    names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect()
}

fn offers(report: &Report) -> Vec<&'static str> {
    let offers = report.offers;
    let names = [
        (offers.config && offers.configure, "options"),
        (offers.facts, "facts"),
        (offers.changed, "changes"),
        (offers.on_health, "health"),
        (offers.on_conn, "connections"),
        (offers.state, "state"),
    ];
    names.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}
