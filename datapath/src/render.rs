//! What `xvs` prints for people.

use std::fmt::Write;

pub mod schedulers;
pub mod workers;

use crate::config::rules;
use crate::control::protocol::{Counter, Drop, MarkView, SettingState, Standing, Status, TimeoutSet};

/// `xvs status`
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string can not fail.
    let _ = writeln!(
        text,
        "xvs {}, pid {}, up {}, configuration generation {}",
        status.version,
        status.pid,
        duration(status.uptime_s),
        status.generation
    );
    let _ = writeln!(text, "connections: {} of {}", status.connections, status.connections_max);
    for alarm in &status.alarms {
        let _ = writeln!(text, "alarm: {alarm}");
    }
    for interface in &status.interfaces {
        let _ = writeln!(text, "\ninterface {}: XDP {}, MTU {}", interface.name, interface.xdp_mode, interface.mtu);
        for queue in &interface.queues {
            let mode = if queue.zero_copy { "zero-copy" } else { "copy" };
            let trouble: Vec<String> = queue
                .kernel
                .iter()
                .filter(|counter| counter.value > 0 && counter.name != "tx_ring_empty")
                .map(|counter| format!("{} {}", counter.name, counter.value))
                .collect();
            let trouble = if trouble.is_empty() { String::new() } else { format!("; {}", trouble.join(", ")) };
            let _ = writeln!(text, "  queue {}: worker {}, {mode}{trouble}", queue.queue, queue.worker);
        }
    }
    text.push('\n');
    for worker in &status.workers {
        let cpu = worker.cpu.map_or_else(|| "not pinned".to_owned(), |cpu| format!("CPU {cpu}"));
        let pages = if worker.huge_pages { "huge pages" } else { "4 KiB pages" };
        let frames = &worker.frames;
        let _ = writeln!(
            text,
            "worker {}: {cpu}, {pages}; {} received, {} transmitted, {} dropped",
            worker.worker, worker.received, worker.transmitted, worker.dropped
        );
        let _ = writeln!(
            text,
            "  frames: {} free + {} fill + {} lent + {} tx = {}",
            frames.free, frames.fill, frames.lent, frames.tx, frames.total
        );
    }
    counters(&mut text, "engine", &status.engine);
    counters(&mut text, "XDP program", &status.xdp);
    text
}

fn counters(text: &mut String, title: &str, counters: &[Counter]) {
    let _ = writeln!(text, "\n{title}:");
    for counter in counters.iter().filter(|counter| counter.value > 0) {
        let _ = writeln!(text, "  {:<22} {:>14}  {}", counter.name, counter.value, counter.help);
    }
    if counters.iter().all(|counter| counter.value == 0) {
        text.push_str("  nothing yet\n");
    }
}

/// `xvs drops`
pub fn drops(drops: &[Drop]) -> String {
    let mut text = String::new();
    for drop in drops.iter().filter(|drop| drop.packets > 0) {
        let _ = writeln!(text, "{:<24} {:>12}  {}", drop.reason, drop.packets, drop.help);
    }
    if text.is_empty() {
        text.push_str("no packet was dropped\n");
    }
    text
}

/// `xvs sysctl get` and `set`: a line for each, as sysctl(8) writes them.
pub fn settings(states: &[SettingState], values: bool) -> String {
    let line = |state: &SettingState| match values {
        true => format!("{}\n", state.value),
        false => format!("{} = {}\n", state.name, state.value),
    };
    states.iter().map(line).collect()
}

/// `xvs sysctl list`: what each does; those that do nothing here only if `all` are wanted.
pub fn all_settings(states: &[SettingState], all: bool) -> String {
    let mut text = String::new();
    let (mut told, mut silent) = (Vec::new(), 0);
    for state in states {
        match state.standing {
            Standing::Kept | Standing::Absent if !all => silent += 1,
            _ => told.push(state),
        }
    }
    let width = |length: fn(&SettingState) -> usize| told.iter().map(|state| length(state)).max().unwrap_or_default();
    let (names, values) = (width(|state| state.name.len()), width(|state| state.value.len()));
    for state in told {
        let standing = match state.standing {
            Standing::Acts => "acts",
            Standing::Kept => "kept",
            Standing::Absent => "n/a",
        };
        let SettingState { name, value, default, effect, .. } = state;
        // A tab between two numbers is sysctl(8)'s; in a column it is a blank.
        let (value, default) = (value.replace('\t', " "), default.replace('\t', " "));
        let changed = if value == default { String::new() } else { format!("[default {default}] ") };
        let why = state.why.iter().map(|why| format!(" {why}")).collect::<String>();
        let _ = writeln!(text, "{name:<names$} = {value:<values$}  {standing:<4}  {changed}{effect}{why}");
    }
    if silent > 0 {
        let _ = writeln!(text, "{silent} more are known and have no effect here: `xvs sysctl list --all`");
    }
    text
}

/// A sentence for each that is set to something and does nothing here.
pub fn futile(states: &[SettingState]) -> Vec<String> {
    let is_set = |state: &&SettingState| state.standing != Standing::Acts && state.value != state.default;
    let sentence = |state: &SettingState| {
        format!("{} is kept and has no effect here. {}", state.name, state.why.as_deref().unwrap_or_default())
    };
    states.iter().filter(is_set).map(sentence).collect()
}

/// `xvs timeouts`: the director's in whole, and of a service what it has of its own; in whole if it alone was asked for.
pub fn timeouts(sets: &[TimeoutSet]) -> String {
    let alone = sets.len() == 1;
    let mut text = String::new();
    for set in sets {
        let is_service = set.service.is_some();
        let title = set.service.as_ref().map_or_else(|| "director".to_owned(), rules::describe);
        let _ = writeln!(text, "{title}:");
        for timeout in set.timeouts.iter().filter(|timeout| timeout.own || alone || !is_service) {
            let mark = match (is_service, timeout.own) {
                (true, true) if alone => "  its own",
                (false, true) => "  set",
                _ => "",
            };
            let _ = writeln!(text, "  {:<18} {:>7} s{mark}", timeout.state, timeout.seconds);
        }
    }
    text
}

/// `xvs mark list`
pub fn marks(marks: &[MarkView]) -> String {
    if marks.is_empty() {
        return "no rules for marks; `xvs mark add` and [[mark]] in the configuration make some\n".to_owned();
    }
    let rows = marks.iter().enumerate().map(|(number, MarkView { rule, served })| {
        let text = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.to_owned());
        [
            (number + 1).to_string(),
            rule.mark.to_string(),
            rule.destination.to_string(),
            text(rule.protocol.map(|protocol| protocol.name().to_owned()), "any"),
            text(rule.ports.as_ref().map(ToString::to_string), "all"),
            text(rule.source.map(|source| source.to_string()), "anywhere"),
            if *served { "served" } else { "no service" }.to_owned(),
        ]
    });
    let head = ["rule", "mark", "to", "protocol", "ports", "from", "service"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    table(&rows)
}

/// Rows in columns, the head among them.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
            format!("{cell:<width$}")
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
