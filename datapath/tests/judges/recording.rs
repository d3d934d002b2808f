//! The files of a recording of choices: commands by scenario, rows of a scenario, the kernel.
//!
//! Invariant: a word that is not known here is an error that names file and line, never skipped: a judge that
//! understands half of a recording would judge nothing.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xvs_engine::flow::Protocol;
use xvs_engine::real::Generation;

/// What is wrong, with its place.
pub(crate) type Wrong = String;

/// A file and a line of it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// From 1.
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String, Wrong> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A directory's entries in order.
pub(crate) fn sorted(directory: &Path) -> Result<Vec<PathBuf>, Wrong> {
    let wrong = |error| format!("{}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(wrong)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    paths.sort();
    Ok(paths)
}

/// A file's name without directory and ending.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A command, and where it stands.
pub(crate) type Typed = (Place, String);

/// What was typed in a scenario, in order, with the places.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) typed: Vec<Typed>,
}

/// The commands of each scenario of `setup-commands.txt`. Remarks stand in parentheses or behind `#`.
pub(crate) fn scenarios(path: &Path) -> Result<Vec<(String, Scenario)>, Wrong> {
    let mut scenarios: Vec<(String, Scenario)> = Vec::new();
    for (line, text) in (1..).zip(read(path)?.lines().map(str::trim)) {
        let place = Place { path: path.to_path_buf(), line };
        if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            scenarios.push((name.to_owned(), Scenario::default()));
        } else if !text.is_empty() && !text.starts_with(['(', '#']) {
            let (_, scenario) =
                scenarios.last_mut().ok_or_else(|| format!("{place}: a command before any [scenario]"))?;
            scenario.typed.push((place, text.to_owned()));
        }
    }
    Ok(scenarios)
}

/// What happened in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A UDP packet.
    Packet,
    /// A TCP connection opened and held.
    Open,
    /// Closed by FIN.
    Close,
    /// Closed by RST.
    Reset,
    /// Something typed.
    Command(String),
    /// So many milliseconds passed.
    Wait(u64),
    /// The last state.
    End,
}

/// A server as a row lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) address: SocketAddr,
    pub(crate) weight: i64,
    pub(crate) active: u32,
    pub(crate) inactive: u32,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/w{}/a{}/i{}", self.address, self.weight, self.active, self.inactive)
    }
}

/// Who talked to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Talk {
    pub(crate) protocol: Protocol,
    pub(crate) client: SocketAddr,
    pub(crate) virtual_address: SocketAddr,
}

/// A row of a recording.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) step: String,
    pub(crate) scheduler: String,
    pub(crate) talk: Option<Talk>,
    /// The server that the kernel chose, or none.
    pub(crate) chosen: Option<SocketAddr>,
    pub(crate) event: Event,
    /// The server list before; none if it was not recorded.
    pub(crate) before: Option<Vec<Listed>>,
}

const COLUMNS: [&str; 10] =
    ["scheduler", "step", "cip", "cport", "vip", "vport", "proto", "chosen", "event", "dests_before"];

/// The rows of a CSV file.
pub(crate) fn rows(path: &Path) -> Result<Vec<Row>, Wrong> {
    let text = read(path)?;
    let mut lines = (1..).zip(text.lines());
    let place = |line| Place { path: path.to_path_buf(), line };
    let (_, titles) = lines.next().ok_or_else(|| format!("{}: an empty file", place(1)))?;
    let titles = fields(titles);
    let unknown = titles.iter().find(|title| !COLUMNS.contains(&title.as_str()));
    if let Some(title) = unknown {
        return Err(format!("{}: a column {title:?}, which this judge does not know", place(1)));
    }
    let at = |name: &str| titles.iter().position(|title| title == name);
    let missing = COLUMNS.iter().find(|name| at(name).is_none());
    if let Some(name) = missing {
        return Err(format!("{}: there is no column {name:?}", place(1)));
    }
    let mut rows = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        let cells = fields(text);
        if cells.len() != titles.len() {
            return Err(format!("{}: {} cells under {} titles", place(line), cells.len(), titles.len()));
        }
        let cell = |name: &str| at(name).map_or("", |at| cells[at].as_str());
        rows.push(row(place(line), &cell)?);
    }
    Ok(rows)
}

fn row<'c>(place: Place, cell: &dyn Fn(&str) -> &'c str) -> Result<Row, Wrong> {
    let wrong = |what: String| format!("{place}: {what}");
    let event = event(cell("event")).map_err(wrong)?;
    let carries = matches!(event, Event::Packet | Event::Open | Event::Close | Event::Reset);
    let talk = if carries { Some(talk(cell).map_err(wrong)?) } else { None };
    let chosen = match cell("chosen") {
        "NONE" | "" => None,
        text => Some(endpoint(text).map_err(wrong)?),
    };
    let before = match cell("dests_before") {
        "" => None,
        text => Some(text.split_whitespace().map(listed).collect::<Result<_, _>>().map_err(wrong)?),
    };
    let (step, scheduler) = (cell("step").to_owned(), cell("scheduler").to_owned());
    Ok(Row { place: place.clone(), step, scheduler, talk, chosen, event, before })
}

fn event(text: &str) -> Result<Event, Wrong> {
    match text.split_once(':') {
        None => match text {
            "pkt" => Ok(Event::Packet),
            "open" => Ok(Event::Open),
            "close" => Ok(Event::Close),
            "rst" => Ok(Event::Reset),
            "end" => Ok(Event::End),
            _ => Err(format!("an event {text:?}, which this judge does not know")),
        },
        Some(("cmd", command)) => Ok(Event::Command(command.trim().to_owned())),
        Some(("wait", seconds)) => match seconds.parse::<f64>() {
            Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok(Event::Wait((seconds * 1000.0).round() as u64)),
            _ => Err(format!("wait:{seconds}: not a number of seconds")),
        },
        Some(_) => Err(format!("an event {text:?}, which this judge does not know")),
    }
}

fn talk<'c>(cell: &dyn Fn(&str) -> &'c str) -> Result<Talk, Wrong> {
    let protocol = match cell("proto") {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        other => return Err(format!("a protocol {other:?}, which this judge does not know")),
    };
    let end = |address: &str, port: &str| {
        let wrong = |what: &str, text: &str| format!("{what} {text:?} is none");
        let ip = cell(address).parse().map_err(|_| wrong(address, cell(address)))?;
        let port = cell(port).parse().map_err(|_| wrong(port, cell(port)))?;
        Ok::<_, Wrong>(SocketAddr::new(ip, port))
    };
    Ok(Talk { protocol, client: end("cip", "cport")?, virtual_address: end("vip", "vport")? })
}

fn endpoint(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| format!("{text:?} is no address with a port"))
}

/// `RIP:port/wWEIGHT/aACTIVE/iINACTIVE`
fn listed(text: &str) -> Result<Listed, Wrong> {
    let wrong = || format!("{text:?} is no server: RIP:port/wWEIGHT/aACTIVE/iINACTIVE");
    let [address, weight, active, inactive] = text.split('/').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let number = |text: &str, letter: char| text.strip_prefix(letter)?.parse::<u32>().ok();
    Ok(Listed {
        address: endpoint(address)?,
        weight: number(weight, 'w').ok_or_else(wrong)?.into(),
        active: number(active, 'a').ok_or_else(wrong)?,
        inactive: number(inactive, 'i').ok_or_else(wrong)?,
    })
}

/// The cells of a line of CSV: commas between, double quotes around cells that have commas or (doubled) quotes.
fn fields(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let (mut quoted, mut rest) = (false, line.trim_end_matches(['\r', '\n']).chars().peekable());
    while let Some(c) = rest.next() {
        let cell = cells.last_mut().expect("there is always one");
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    cells
}

/// The machine of a recording.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) generation: Generation,
    /// Settings in force, by their names below `net.ipv4.vs`.
    pub(crate) settings: Vec<(String, String)>,
}

/// Reads `kernel.txt`: the output of `uname -a`, then settings.
pub(crate) fn kernel(path: &Path) -> Result<Kernel, Wrong> {
    let text = read(path)?;
    let version = text.lines().flat_map(str::split_whitespace).find_map(version);
    let version = version.ok_or_else(|| format!("{}:1: no version of a kernel stands here", path.display()))?;
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("net.ipv4.vs.")?.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(Kernel { generation: generation(version), settings: text.lines().filter_map(setting).collect() })
}

/// `6.12.95+deb12-amd64` as numbers.
fn version(word: &str) -> Option<[u32; 3]> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let mut numbers = word[..end].split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)])
}

/// The changes of 2026 came with 7.0 and, as back-ports, with 6.12.113.
fn generation(version: [u32; 3]) -> Generation {
    let new = version >= [7, 0, 0] || ([6, 12, 113]..[6, 13, 0]).contains(&version);
    if new { Generation::New } else { Generation::Old }
}

#[test]
fn versions_and_cells_are_read() {
    for (text, expected) in [
        ("6.12.95+deb12-amd64", Generation::Old),
        ("6.12.113", Generation::New),
        ("6.12.112-amd64", Generation::Old),
        ("7.3.4+deb13-amd64", Generation::New),
        ("6.1.170", Generation::Old),
        ("5.10", Generation::Old),
    ] {
        assert_eq!(version(text).map(generation), Some(expected), "{text}");
    }
    assert_eq!(version("Linux"), None);
    assert_eq!(fields(r#"a,"cmd:x -b p,q ""r""",,e"#), ["a", r#"cmd:x -b p,q "r""#, "", "e"]);
    assert!(event("opened").is_err() && event("wait:x").is_err() && event("note:x").is_err());
    assert_eq!(event("wait:1.5"), Ok(Event::Wait(1500)));
}
