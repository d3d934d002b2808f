//! Recorded outputs of the real ipvsadm, compared with what the program prints for a rehearsed director in the same
//! state.
//!
//! The state is built by what was typed and by the traffic of the log, not by writing down what the listings say.
//! Standard output is compared to the byte (see [`super::table`] for what depends on the machine); of errors the exit
//! status and that something was said, since the wording is ours. Rates depend on when the kernel took its samples,
//! and on the very moments of the
//! packets, which were recorded to a second: a recorded rate must lie among those that moments of sampling give.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use xvs::control::protocol::{Action, Answer};
use xvs::ipvsadm::rehearsed::Outcome;
use xvs_engine::real::Generation;

use super::recording::{Typed, Wrong};
use super::script::{Row, Script};
use super::stage::Stage;
use super::{Verdicts, table, traffic};

/// Moments of sampling that are tried, over the two seconds between samples.
const PHASES: u64 = 40;
const PHASE_MS: u64 = 50;

/// Judges a directory of recorded outputs.
pub(crate) fn judge(directory: &Path, out: &mut dyn Write) -> Result<Verdicts, Wrong> {
    let script = Script::read(directory)?;
    let mut session =
        Session { stage: Stage::new(Generation::Old, size(&script)), script: &script, seen: 0, traffic: None };
    let mut verdicts = Verdicts::default();
    for row in &script.rows {
        if let Some(why) = left_out(row) {
            verdicts.leave_out(out, &row.name, why);
            continue;
        }
        let outcome = session.prepare(row).and_then(|()| session.play(row));
        verdicts.take(out, &row.name, outcome);
    }
    verdicts.close(out, directory)
}

/// The size of the connection table, which listings tell.
fn size(script: &Script) -> u32 {
    let told = |row: &Row| {
        let text = script.printed(&row.name).ok()?;
        text.lines().next()?.split_once("(size=")?.1.strip_suffix(')')?.parse().ok()
    };
    script.rows.iter().find_map(told).unwrap_or(4096)
}

/// Why a row is not for us, if it is not.
fn left_out(row: &Row) -> Option<&'static str> {
    let foreign = row.command.split(';').any(|part| {
        let mut words = part.split_whitespace();
        let (program, argument) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        !(program.starts_with("ipvsadm") || program == "cat" && argument.starts_with("/proc/net/ip_vs"))
    });
    let of_daemon = row.command.contains("daemon");
    if foreign {
        Some("not a listing of ours")
    } else if row.command.ends_with(" -h") {
        Some("the help text is our own")
    } else if row.command.contains("ip_vs_stats_percpu") {
        Some("counts by CPUs of another machine")
    } else if row.command.contains("ip_vs_app") {
        Some("helpers, of which there are none")
    } else if row.name.starts_with('D') && !(of_daemon && row.status != 0 && row.name.contains("mixed")) {
        Some("made while a daemon synchronised connections, which there is not yet")
    } else {
        None
    }
}

struct Session<'s> {
    stage: Stage,
    script: &'s Script,
    /// Cues that are over.
    seen: usize,
    /// What was typed before the traffic, and its log.
    traffic: Option<(&'s [Typed], Traffic)>,
}

#[derive(Clone)]
struct Traffic {
    log: Vec<traffic::Line>,
    lengths: traffic::Lengths,
    ago: HashMap<SocketAddr, u64>,
}

impl<'s> Session<'s> {
    /// Types what was typed before this row.
    fn prepare(&mut self, row: &Row) -> Result<(), Wrong> {
        let script = self.script;
        for (cue, commands) in script.cues(row, &mut self.seen)? {
            let typed = type_all(&mut self.stage, commands);
            if let Some(log) = cue.traffic {
                let traffic = traffic(script, log)?;
                let played = play_traffic(&mut self.stage, script, &traffic);
                self.traffic = Some((commands, traffic));
                played?;
            }
            typed?;
        }
        Ok(())
    }

    fn play(&mut self, row: &Row) -> Result<String, Wrong> {
        let recorded = self.script.printed(&row.name)?;
        self.follow_clock(&recorded);
        let input = self.input(row)?;
        let ours = shell(&mut self.stage, &row.command, &input)?;
        if ours.status != row.status {
            return Err(format!("exit status {} instead of {}: {}", ours.status, row.status, ours.stderr.trim()));
        }
        let complained = self.script.complained(&row.name);
        if complained == ours.stderr.is_empty() {
            let said = if complained { "something, and we nothing" } else { "nothing, and we:" };
            return Err(format!("ipvsadm said {said} {}", ours.stderr.trim()));
        }
        match table::compare(&row.command, &recorded, &ours.stdout) {
            Err(_) if is_of_rates(&row.command) && self.traffic.is_some() => self.rates(row, &recorded),
            compared => compared
                .map(|granted| format!("{}{}{granted}", row.command, if granted.is_empty() { "" } else { "; " })),
        }
    }

    /// The same traffic with samples taken at other moments.
    fn rates(&self, row: &Row, recorded: &str) -> Result<String, Wrong> {
        let Some((commands, traffic)) = &self.traffic else { return Err("there was no traffic".to_owned()) };
        let mut listings = Vec::new();
        for phase in 0..PHASES {
            let mut stage = Stage::new(Generation::Old, size(self.script));
            stage.director.sample_from_now();
            type_all(&mut stage, commands)?;
            stage.director.advance(phase * PHASE_MS);
            play_traffic(&mut stage, self.script, traffic)?;
            listings.push(shell(&mut stage, &row.command, "")?.stdout);
        }
        table::among(recorded, &listings)?;
        Ok(format!("{}; rates as some moments of sampling give them", row.command))
    }

    /// Lets as much time pass as went by in the recording, by what was left of its connections.
    fn follow_clock(&mut self, recorded: &str) {
        let Ok(Answer::Connections(ours)) = self.stage.director.act(Action::Connections) else { return };
        let mut late: Vec<i64> = Vec::new();
        for row in table::connections(recorded) {
            let same = |ours: &&xvs::control::protocol::Connection| {
                Some(ours.client) == row.client && Some(ours.virtual_address) == row.virtual_address
            };
            late.extend(ours.iter().find(same).map(|ours| i64::from(ours.expires_s) - row.left_s));
        }
        late.sort_unstable();
        if let Some(seconds) = late.get(late.len() / 2).and_then(|seconds| u64::try_from(*seconds).ok()) {
            self.stage.director.advance(seconds * 1000);
        }
    }

    /// What stood on standard input. It was not recorded; that it was there, was, and what came of it.
    fn input(&self, row: &Row) -> Result<String, Wrong> {
        let rules = || self.script.printed("B-config-Sn");
        match row.name.as_str() {
            _ if !row.has_input => Ok(String::new()),
            "R-restore-bad" => Ok("-A -t 192.0.2.60:80 -s rr\nnonsense here\n-A -t 192.0.2.61:80 -s rr\n".to_owned()),
            "R-ipvsadm-restore" => Ok(format!("# rules\n{}", rules()?)),
            "R-restore" => rules(),
            other => Err(format!("{}: nobody knows what {other} read", row.place)),
        }
    }
}

fn is_of_rates(command: &str) -> bool {
    command.contains("--rate") || command.contains("ip_vs_stats")
}

/// Types all commands, those behind a refused one, too; the refusals are told together.
fn type_all(stage: &mut Stage, commands: &[Typed]) -> Result<(), Wrong> {
    let refused = |(place, line): &Typed| Some(format!("{place}: {}", stage.typed(line).err()?));
    let refused: Vec<String> = commands.iter().filter_map(refused).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused.join("\n")) }
}

fn traffic(script: &Script, log: &str) -> Result<Traffic, Wrong> {
    let log = traffic::log(&super::recording::read(&script.directory.join(log))?)?;
    let lengths = traffic::lengths(&log, &script.printed("C-traffic-Ln-stats-exact")?)?;
    let ago = table::connections(&script.printed("C-traffic-Lnc")?).into_iter().filter_map(|row| {
        let timeout = match row.state.as_str() {
            "ESTABLISHED" => 900,
            "FIN_WAIT" | "TIME_WAIT" => 120,
            "SYN_RECV" => 60,
            "CLOSE" => 10,
            "UDP" => 300,
            _ => return None,
        };
        Some((row.client?, u64::try_from(timeout - row.left_s).ok()?))
    });
    Ok(Traffic { log, lengths, ago: ago.collect() })
}

fn play_traffic(stage: &mut Stage, script: &Script, traffic: &Traffic) -> Result<(), Wrong> {
    traffic::play(stage, &traffic.log, traffic.lengths, &traffic.ago, &traffic::machines(script))
}

/// Runs commands as a shell would: `;` between them, `| grep TEXT` behind one.
fn shell(stage: &mut Stage, line: &str, input: &str) -> Result<Outcome, Wrong> {
    let mut all = Outcome { status: 0, stdout: String::new(), stderr: String::new() };
    for command in line.split(';').map(str::trim) {
        let (command, filter) = command.split_once("| grep ").unwrap_or((command, ""));
        let outcome = match command.strip_prefix("cat /proc/net/") {
            Some(file) => stage.proc(file.trim())?,
            None => stage.ipvsadm(command, input),
        };
        all.stdout.extend(outcome.stdout.split_inclusive('\n').filter(|line| line.contains(filter.trim())));
        all.stderr += &outcome.stderr;
        all.status = outcome.status;
    }
    Ok(all)
}
