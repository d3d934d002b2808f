//! The files of a recorded session of ipvsadm: what was typed when, and which commands' outputs were kept.
//!
//! `setup-commands.txt` has the commands that changed something, by sections (`### title`); `index.tsv` has the commands
//! whose outputs were kept. Where the one goes into the other was not written down and stands in [`CUES`].

use std::path::{Path, PathBuf};

use super::recording::{Place, Typed, Wrong, read};

/// A command whose output was kept.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) status: u8,
    /// Something stood on its standard input.
    pub(crate) has_input: bool,
    pub(crate) command: String,
    pub(crate) place: Place,
}

/// A section's title and commands.
type Section = (String, Vec<Typed>);
/// A cue whose time has come, with its commands.
type Due<'s> = (&'static Cue, &'s [Typed]);

/// A recorded session.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) directory: PathBuf,
    pub(crate) rows: Vec<Row>,
    sections: Vec<Section>,
}

/// Which part of a section comes before the first row of these names.
pub(crate) struct Cue {
    rows: &'static str,
    section: &'static str,
    part: Part,
    /// Traffic that followed, by the name of its log.
    pub(crate) traffic: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Part {
    All,
    /// The first so many commands.
    First(usize),
    /// All behind the first so many.
    Behind(usize),
}

const fn cue(rows: &'static str, section: &'static str, part: Part) -> Cue {
    Cue { rows, section, part, traffic: None }
}

/// The order of a session.
const CUES: [Cue; 10] = [
    cue("A-", "STATE A", Part::All),
    cue("B-", "STATE B", Part::All),
    cue("ERR-", "errors", Part::All),
    cue("R-", "restore", Part::First(1)),
    cue("edit-", "restore", Part::Behind(1)),
    Cue { rows: "C-", section: "STATE C", part: Part::All, traffic: Some("C-traffic-log.txt") },
    cue("C3-", "weight 0", Part::All),
    cue("D-start-master", "STATE D", Part::First(1)),
    cue("D-ERR-add-mixed", "STATE D", Part::First(2)),
    cue("D-daemon-n", "STATE D", Part::First(3)),
];

/// The sections that are the machine's and not the director's.
const MACHINE: &str = "topology";

impl Script {
    /// Reads a directory.
    pub(crate) fn read(directory: &Path) -> Result<Script, Wrong> {
        let rows = index(&directory.join("index.tsv"))?;
        let sections = sections(&directory.join("setup-commands.txt"))?;
        Ok(Script { directory: directory.to_path_buf(), rows, sections })
    }

    /// The cues that come before a row, `seen` telling those that are over; and their commands.
    pub(crate) fn cues(&self, row: &Row, seen: &mut usize) -> Result<Vec<Due<'_>>, Wrong> {
        let mut due = Vec::new();
        let Some(at) = CUES.iter().rposition(|cue| row.name.starts_with(cue.rows)) else { return Ok(due) };
        for (number, cue) in CUES.iter().enumerate().take(at + 1).skip(*seen) {
            *seen = number + 1;
            due.push((cue, self.part(number)?));
        }
        Ok(due)
    }

    /// The commands of a cue. One that takes up where another one of the same section ended begins there.
    fn part(&self, number: usize) -> Result<&[Typed], Wrong> {
        let cue = &CUES[number];
        let typed = self.section(cue.section)?;
        let begun = CUES[..number].iter().filter(|other| other.section == cue.section).map(|other| match other.part {
            Part::First(count) => count,
            Part::All | Part::Behind(_) => typed.len(),
        });
        let begun = begun.max().unwrap_or(0).min(typed.len());
        Ok(match cue.part {
            Part::All | Part::Behind(_) => &typed[begun..],
            Part::First(count) => &typed[begun..count.clamp(begun, typed.len())],
        })
    }

    /// The commands of the section whose title begins so; the machine's are left out.
    pub(crate) fn section(&self, title: &str) -> Result<&[Typed], Wrong> {
        let found = self.sections.iter().find(|(name, _)| name.starts_with(title));
        let missing = || format!("{}: no section `### {title}`", self.directory.join("setup-commands.txt").display());
        found.map(|(_, typed)| &typed[..]).ok_or_else(missing)
    }

    /// The commands that built the machine.
    pub(crate) fn machine(&self) -> &[Typed] {
        self.section(MACHINE).unwrap_or_default()
    }

    /// What a command printed.
    pub(crate) fn printed(&self, name: &str) -> Result<String, Wrong> {
        read(&self.directory.join(format!("{name}.out")))
    }

    /// Did it complain?
    pub(crate) fn complained(&self, name: &str) -> bool {
        std::fs::metadata(self.directory.join(format!("{name}.err"))).is_ok_and(|file| file.len() > 0)
    }
}

fn sections(path: &Path) -> Result<Vec<Section>, Wrong> {
    let mut sections: Vec<Section> = Vec::new();
    for (line, text) in (1..).zip(read(path)?.lines().map(str::trim)) {
        if let Some(title) = text.strip_prefix("### ") {
            sections.push((title.to_owned(), Vec::new()));
        } else if let Some((_, typed)) = sections.last_mut().filter(|_| !text.is_empty()) {
            typed.push((Place { path: path.to_path_buf(), line }, text.to_owned()));
        }
    }
    Ok(sections)
}

fn index(path: &Path) -> Result<Vec<Row>, Wrong> {
    let text = read(path)?;
    let mut lines = (1..).zip(text.lines());
    let titles = lines.next().map(|(_, line)| line).unwrap_or_default();
    if titles.split('\t').ne(["name", "rc", "stdin", "command"]) {
        return Err(format!("{}:1: the columns are not name, rc, stdin, command", path.display()));
    }
    let row = |(line, text): (usize, &str)| {
        let place = Place { path: path.to_path_buf(), line };
        let [name, status, input, command] = text.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("{place}: not four columns"));
        };
        let status = status.parse().map_err(|_| format!("{place}: {status:?} is no exit status"))?;
        let has_input = match input {
            "" => false,
            "yes" => true,
            other => return Err(format!("{place}: stdin is {other:?}, which this judge does not know")),
        };
        Ok(Row { name: name.to_owned(), status, has_input, command: command.to_owned(), place })
    };
    lines.filter(|(_, text)| !text.trim().is_empty()).map(row).collect()
}
