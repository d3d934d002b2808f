//! `cargo xtask vm ratio`: what a packet costs the director's processor by the kernel's IPVS, and by xvs.
//!
//! pktgen has a processor of its own, so nothing of it is in the figures. What is in them is all that the director's
//! processor did: interrupts, driver, XDP, sockets, IPVS or xvs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::counts::{self, Counts};
use super::machine::{Accelerator, Device, Machine, Spec, Word};
use super::report::{self, Report};
use super::{Ground, How};
use crate::cargo;
use crate::paint::title;
use crate::profile::symbols::Symbols;

/// How long the interfaces collect what they send.
const MODERATION: Duration = Duration::from_millis(1);

/// Functions of a profile that are shown.
const SHOWN: usize = 40;

/// Where the kernel loads the program, if it is told to use no random addresses (`norandmaps`).
const PROGRAM_BASE: u64 = 0x5555_5555_4000;

/// Addresses of the kernel and its modules.
const KERNEL: u64 = 1 << 63;

/// A figure: one director, one method.
#[derive(Debug)]
struct Figure {
    director: String,
    method: String,
    packets: f64,
    seconds: f64,
    counts: Counts,
}

impl Figure {
    /// Reads `RESULT ipvs dr 100 100 5.0`.
    fn parse(line: &str, counts: Counts) -> Option<Self> {
        let mut words = line.strip_prefix("RESULT ")?.split(' ');
        let (director, method) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (packets, _received, seconds) = (words.next()?, words.next()?, words.next()?);
        Some(Figure { director, method, packets: packets.parse().ok()?, seconds: seconds.parse().ok()?, counts })
    }

    fn instructions(&self) -> f64 {
        let (user, kernel) = self.counts.instructions();
        (user + kernel) as f64 / self.packets
    }

    /// Microseconds of this machine's processor a packet.
    fn time_us(&self) -> f64 {
        self.counts.time_ns as f64 / 1000.0 / self.packets
    }

    fn row(&self) -> String {
        let (user, kernel) = self.counts.instructions();
        let share = |count: u64| count as f64 / self.packets;
        format!(
            "{:8} {:4} {:>10.0} {:>12.0} {:>9.0} {:>9.0} {:>11.2} {:>9.0}%",
            self.director,
            self.method.to_uppercase(),
            self.packets / self.seconds,
            self.instructions(),
            share(kernel),
            share(user),
            self.time_us(),
            self.counts.time_ns as f64 / 1e7 / self.seconds,
        )
    }
}

pub(super) fn run(how: How, seconds: u32, methods: &[String], profile: bool) -> Result<Report> {
    for method in methods {
        ensure!(["dr", "nat", "tun"].contains(&method.as_str()), "`{method}` is no method: dr, nat, tun");
    }
    let ground = Ground::lay()?;
    let wires = super::wires(1)?;
    println!("{}", title(format!("beside IPVS: kernel {}, pktgen, one processor each", ground.store.release()?)));
    let (plugin, file) = match how.accelerator {
        Accelerator::Tcg => {
            let source = cargo::root().join("tests/vm/count.c");
            let plugin = counts::plugin(ground.store.directory(), &source)?;
            (Some(plugin), Some(ground.store.directory().join("counts")))
        }
        Accelerator::Kvm => (None, None),
    };
    let mut words = vec![seconds.to_string(), how.accelerator.name().into()];
    words.extend(methods.iter().cloned());
    words.extend(profile.then(|| "symbols".to_owned()));
    let spec = Spec {
        scenario: "ratio.py",
        words,
        accelerator: how.accelerator,
        device: Device::Virtio,
        interfaces: "abc",
        queues: 1,
        wires: wires.name(),
        // Nobody is behind this tap, so frames that leave by it cost nobody anything.
        taps: "b",
        moderation: Some(MODERATION),
        counter: plugin.as_deref().zip(file.as_deref()),
        limit: how.limit(),
    };
    let machine = ground.start(&spec)?;
    let program = cargo::build_release()?.join("xvs");
    let mut listener = Listener { file, program, ..Listener::default() };
    let mut report = report::follow(&ground.store, machine, |machine, word| listener.hear(machine, word))?;
    listener.conclude(methods, &mut report);
    Ok(report)
}

/// What the scenario tells.
#[derive(Debug, Default)]
struct Listener {
    file: Option<PathBuf>,
    begin: Option<Counts>,
    between: Option<Counts>,
    figures: Vec<Figure>,
    symbols: BTreeMap<u64, String>,
    /// The director's program, for its symbols.
    program: PathBuf,
}

impl Listener {
    fn hear(&mut self, machine: &Machine, word: &Word) -> Result<bool> {
        match word {
            Word::Mark(name) => {
                let now = Counts::take(self.file.as_deref(), machine.pid())?;
                match name.as_str() {
                    "begin" => self.begin = Some(now),
                    _ => self.between = self.begin.take().map(|begin| now.since(&begin)),
                }
                Ok(true)
            }
            Word::Line(line) if line.starts_with("RESULT ") => {
                let counts = self.between.take().context("a result without marks")?;
                self.figures.push(Figure::parse(line, counts).with_context(|| format!("not a result: {line}"))?);
                Ok(true)
            }
            Word::Line(line) => Ok(self.symbol(line).is_some()),
            Word::Exit(_) => Ok(true),
        }
    }

    /// Reads `SYMBOL ffffffff81000000 name`.
    fn symbol(&mut self, line: &str) -> Option<()> {
        let (address, name) = line.strip_prefix("SYMBOL ")?.split_once(' ')?;
        self.symbols.insert(u64::from_str_radix(address, 16).ok()?, name.to_owned());
        Some(())
    }

    fn conclude(&self, methods: &[String], report: &mut Report) {
        println!(
            "\n{:8} {:4} {:>10} {:>12} {:>9} {:>9} {:>11} {:>10}",
            "", "", "packets/s", "instructions", "kernel", "program", "us/packet", "busy"
        );
        for figure in &self.figures {
            println!("{}", figure.row());
        }
        if !self.symbols.is_empty() {
            self.figures.iter().for_each(|figure| self.profile(figure));
        }
        println!();
        for method in methods {
            let of = |director: &str| self.figures.iter().find(|f| f.director == director && f.method == *method);
            let (Some(ipvs), Some(xvs)) = (of("ipvs"), of("xvs")) else {
                report.check(false, &format!("{method}: both directors were measured"));
                continue;
            };
            let (work, time) = (ipvs.instructions() / xvs.instructions(), ipvs.time_us() / xvs.time_us());
            let sentence = format!(
                "{}: IPVS takes {work:.2} times the instructions of xvs, {time:.2} times the time",
                method.to_uppercase()
            );
            // Without the plugin there is only time.
            report.check(if work.is_finite() { work > 1.0 } else { time > 1.0 }, &sentence);
        }
    }

    /// Functions of the kernel, and with `xvs:` before them those of the program.
    fn profile(&self, figure: &Figure) {
        println!("\n{}", title(format!("{} {}: instructions a packet, by function", figure.director, figure.method)));
        let (mut program, path) = (Symbols::default(), self.program.to_string_lossy());
        let functions = figure.counts.by_function(|address| {
            if address >= KERNEL {
                let found = self.symbols.range(..=address).next_back();
                return found.map_or_else(|| "?".to_owned(), |(_, name)| name.clone());
            }
            let inside = address.checked_sub(PROGRAM_BASE).map(|address| program.at_address(&path, address, "?"));
            format!("xvs: {}", inside.as_ref().and_then(|names| names.last()).map_or("?", String::as_str))
        });
        for (name, count) in functions.iter().take(SHOWN) {
            println!("  {:>7.0}  {name}", *count as f64 / figure.packets);
        }
        let rest: u64 = functions.iter().skip(SHOWN).map(|(_, count)| count).sum();
        println!("  {:>7.0}  {} others", rest as f64 / figure.packets, functions.len().saturating_sub(SHOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the line that the scenario and this side agree on.
    #[test]
    fn a_result_is_read() {
        let figure = Figure::parse("RESULT ipvs dr 100 101 2.500", Counts::default()).expect("a result");
        assert_eq!((figure.director.as_str(), figure.method.as_str()), ("ipvs", "dr"));
        assert_eq!((figure.packets, figure.seconds), (100.0, 2.5));
        assert!(Figure::parse("RESULT ipvs dr many 101 2.5", Counts::default()).is_none());
        assert!(Figure::parse("ok: RESULT", Counts::default()).is_none());
    }
}
