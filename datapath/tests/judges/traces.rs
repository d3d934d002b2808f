//! Recorded choices of the kernel, played through a rehearsed director step by step.
//!
//! At every step the server list with its weights and counts must be the recorded one, in the kernel's order, and the
//! server that the packets reach the recorded one. The rows of `twos` are random: there the rule and the distribution
//! are judged ([`super::lottery`]).

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use super::lottery::{Lottery, chances};
use super::recording::{self, Event, Kernel, Listed, Place, Row, Scenario, Typed, Wrong};
use super::stage::{Stage, listed};
use super::{COMPLAINTS, Verdicts};

/// A recording's packets come this many milliseconds apart. It was not recorded; they came as fast as they could.
const PACE_MS: u64 = 1;

/// Judges every recording below a directory.
pub(crate) fn judge(directory: &Path, out: &mut dyn Write) -> Result<Verdicts, Wrong> {
    let mut verdicts = Verdicts::default();
    for kernel_directory in recording::sorted(directory)? {
        let setup = kernel_directory.join("setup-commands.txt");
        if !setup.exists() {
            continue;
        }
        let kernel = recording::kernel(&kernel_directory.join("kernel.txt"))?;
        let scenarios = recording::scenarios(&setup)?;
        let machine = kernel_directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in recording::sorted(&kernel_directory)? {
            if path.extension().is_none_or(|extension| extension != "csv") {
                continue;
            }
            let name = recording::stem(&path);
            let scenario = scenarios.iter().find(|(other, _)| *other == name).map(|(_, scenario)| scenario);
            let outcome = match scenario {
                None => Err(format!("{}: no scenario [{name}]", setup.display())),
                Some(scenario) => replay(&kernel, &name, scenario, &path),
            };
            verdicts.take(out, &format!("{machine} {name}"), outcome);
        }
    }
    verdicts.close(out, directory)
}

/// Replays one recording: a word about what was compared, or what is different.
fn replay(kernel: &Kernel, name: &str, scenario: &Scenario, path: &Path) -> Result<String, Wrong> {
    let rows = recording::rows(path)?;
    let room = (rows.len() as u32 * 2).next_power_of_two().max(4096);
    let mut play = Play::new(kernel, room);
    play.prepare(name, scenario, &rows)?;
    for row in &rows {
        play.row(row)?;
        if play.complaints.len() >= COMPLAINTS {
            break;
        }
    }
    play.end()
}

struct Play<'k> {
    stage: Stage,
    kernel: &'k Kernel,
    compared: usize,
    complaints: Vec<String>,
    theirs: Lottery,
    ours: Lottery,
}

impl<'k> Play<'k> {
    fn new(kernel: &'k Kernel, connections: u32) -> Self {
        let (compared, complaints, theirs, ours) = Default::default();
        Play { stage: Stage::new(kernel.generation, connections), kernel, compared, complaints, theirs, ours }
    }

    /// Everything before the first row.
    fn prepare(&mut self, name: &str, scenario: &Scenario, rows: &[Row]) -> Result<(), Wrong> {
        for (setting, value) in &self.kernel.settings {
            if self.stage.knows(setting) {
                self.stage.set(setting, value)?;
            }
        }
        // A scenario's name tells the settings that were made for it: `expire_quiescent_template1`.
        for word in name.split('-') {
            let digits = word.len() - word.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            let (setting, value) = word.split_at(word.len() - digits);
            if !value.is_empty() && self.kernel.settings.iter().any(|(known, _)| known == setting) {
                self.stage.set(setting, value)?;
            }
        }
        for (place, line) in before_rows(scenario, rows)? {
            self.stage.typed(line).map_err(|wrong| format!("{place}: {wrong}"))?;
        }
        self.mark(rows)
    }

    /// Marks the packets of the recording, as iptables did where it was made: all that go to one of its addresses.
    fn mark(&mut self, rows: &[Row]) -> Result<(), Wrong> {
        let mut addresses: Vec<IpAddr> = rows.iter().filter_map(|row| Some(row.talk?.virtual_address.ip())).collect();
        addresses.sort();
        addresses.dedup();
        self.stage.mark_all(&addresses)
    }

    fn complain(&mut self, place: &Place, step: &str, what: String) {
        let file = place.path.file_name().unwrap_or_default().to_string_lossy();
        self.complaints.push(format!("{file}:{}: step {step}: {what}", place.line));
    }

    fn row(&mut self, row: &Row) -> Result<(), Wrong> {
        self.stage.director.advance(PACE_MS);
        let service = self.stage.service(row.talk.as_ref());
        let servers = service.map(|service| service.servers).unwrap_or_default();
        let list: Vec<Listed> = servers.iter().map(listed).collect();
        self.compare_lists(row, &list);
        match &row.event {
            Event::Command(line) => self.stage.typed(line).map_err(|wrong| format!("{}: {wrong}", row.place))?,
            Event::Wait(millis) => self.stage.director.advance(*millis),
            Event::End => {}
            Event::Packet | Event::Open | Event::Close | Event::Reset => {
                let overloaded = |address| servers.iter().any(|s| s.spec.address == address && s.overloaded);
                self.choice(row, &list, &overloaded);
            }
        }
        Ok(())
    }

    fn compare_lists(&mut self, row: &Row, ours: &[Listed]) {
        let Some(theirs) = &row.before else { return };
        self.compared += 1;
        let equal = if row.scheduler == "twos" { alike(ours, theirs) } else { ours == theirs };
        if !equal {
            let text = |list: &[Listed]| list.iter().map(Listed::to_string).collect::<Vec<_>>().join(" ");
            self.complain(&row.place, &row.step, format!("the list is {} instead of {}", text(ours), text(theirs)));
        }
    }

    fn choice(&mut self, row: &Row, list: &[Listed], overloaded: &dyn Fn(std::net::SocketAddr) -> bool) {
        let Some(talk) = &row.talk else { return };
        let outcome = match row.event {
            Event::Packet => self.stage.packet(talk),
            Event::Open => self.stage.open(talk),
            Event::Close => self.stage.close(talk),
            _ => self.stage.reset(talk),
        };
        self.compared += 1;
        let chosen = match outcome {
            Ok(chosen) => chosen,
            Err(wrong) => return self.complain(&row.place, &row.step, wrong),
        };
        if row.scheduler != "twos" {
            if chosen != row.chosen {
                let name = |server: Option<std::net::SocketAddr>| server.map_or("NONE".into(), |s| s.to_string());
                let what = format!("{} instead of {}", name(chosen), name(row.chosen));
                self.complain(&row.place, &row.step, what);
            }
        } else if matches!(row.event, Event::Packet | Event::Open) {
            let generation = self.kernel.generation;
            let by_ours = chances(list, |server| overloaded(server.address), generation);
            // A list that was not recorded is that of servers without connections, in their own order, as ours is.
            let by_theirs =
                row.before.as_ref().map_or_else(|| by_ours.clone(), |list| chances(list, |_| false, generation));
            let wrong =
                [("the kernel's", self.theirs.take(&by_theirs, row.chosen)), ("our", self.ours.take(&by_ours, chosen))];
            for (whose, wrong) in wrong {
                if let Err(wrong) = wrong {
                    self.complain(&row.place, &row.step, format!("{whose} choice: {wrong}"));
                }
            }
        }
    }

    fn end(mut self) -> Result<String, Wrong> {
        for (lottery, whose) in [(&self.theirs, "the kernel's choices"), (&self.ours, "our choices")] {
            self.complaints.extend(lottery.complaints().into_iter().map(|what| format!("{whose}: {what}")));
        }
        if self.complaints.is_empty() {
            Ok(format!("{} comparisons", self.compared))
        } else {
            Err(self.complaints.join("\n"))
        }
    }
}

/// Are they the same servers in the same order, with as many connections in all?
fn alike(ours: &[Listed], theirs: &[Listed]) -> bool {
    let key = |list: &[Listed]| list.iter().map(|server| (server.address, server.weight)).collect::<Vec<_>>();
    let sum = |list: &[Listed]| list.iter().fold((0, 0), |(a, i), server| (a + server.active, i + server.inactive));
    key(ours) == key(theirs) && sum(ours) == sum(theirs)
}

/// What was typed before the first row: all of the scenario but the clearing at its end and the commands of its rows.
fn before_rows<'s>(scenario: &'s Scenario, rows: &[Row]) -> Result<&'s [Typed], Wrong> {
    let typed = &scenario.typed[..];
    let typed = match typed.split_last() {
        Some(((_, last), rest)) if last == "ipvsadm -C" && !rest.is_empty() => rest,
        _ => typed,
    };
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_typed = |line: &str| typed.iter().any(|(_, other)| squeeze(other) == squeeze(line));
    // Not every kind of command was written down twice.
    let later: Vec<&str> = rows
        .iter()
        .filter_map(|row| match &row.event {
            Event::Command(line) if is_typed(line) => Some(line.as_str()),
            _ => None,
        })
        .collect();
    let Some(count) = typed.len().checked_sub(later.len()) else {
        return Err(format!("{} commands in rows, and {} in the scenario", later.len(), typed.len()));
    };
    let (first, last) = typed.split_at(count);
    match last.iter().zip(&later).find(|((_, typed), later)| squeeze(typed) != squeeze(later)) {
        None => Ok(first),
        Some(((place, typed), later)) => Err(format!("{place}: `{typed}` was typed where the rows have `{later}`")),
    }
}
