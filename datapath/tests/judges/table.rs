//! Listings compared: to the byte, but for what depends on the machine or on the moment.
//!
//! Three things do: the order of the connection table (a hash table's), the order of services in `--nosort` (another
//! one's), and the seconds that are left of a connection, which go by while listings are made. Everything else is
//! compared as it is printed.

use std::net::SocketAddr;

use super::recording::Wrong;

/// Seconds that a connection's rest may differ, since only whole ones were recorded.
const SECOND: i64 = 1;

/// A row of a connection table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// All of the row but the seconds.
    key: String,
    pub(crate) state: String,
    pub(crate) left_s: i64,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) virtual_address: Option<SocketAddr>,
}

/// Reads a row of `-L -c`; none if the line is none.
pub(crate) fn connection(line: &str) -> Option<Connection> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (minutes, seconds) = words.get(1)?.split_once(':')?;
    let left_s = minutes.parse::<i64>().ok()? * 60 + seconds.parse::<i64>().ok().filter(|_| seconds.len() == 2)?;
    let key = line.replacen(words[1], &"#".repeat(words[1].len()), 1);
    let end = |at: usize| words.get(at)?.parse().ok();
    Some(Connection { key, state: (*words.get(2)?).to_owned(), left_s, client: end(3), virtual_address: end(4) })
}

/// Reads a row of `/proc/net/ip_vs_conn` or `ip_vs_conn_sync`, whose seconds stand right-aligned in a column.
fn proc_connection(line: &str) -> Option<Connection> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let seconds = *words.iter().skip(8).find(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
    let at = line.rfind(seconds)?;
    let width = 7.min(at);
    let start = at + seconds.len() - width.max(seconds.len());
    let key = format!("{}{}", &line[..start], &line[at + seconds.len()..]);
    let left_s = seconds.parse().ok()?;
    Some(Connection { key, state: words[7].to_owned(), left_s, client: None, virtual_address: None })
}

/// The connections of a listing.
pub(crate) fn connections(listing: &str) -> Vec<Connection> {
    listing.lines().filter_map(connection).collect()
}

/// The counters of each service in a listing with `--stats --exact`, by protocol and address.
pub(crate) fn counters(listing: &str) -> Vec<(String, [u64; 5])> {
    let row = |line: &str| {
        let words: Vec<&str> =
            line.split_whitespace().filter(|word| !line.starts_with(' ') && !word.is_empty()).collect();
        let numbers: Vec<u64> = words.iter().rev().take(5).rev().filter_map(|word| word.parse().ok()).collect();
        Some((format!("{} {}", words.first()?, words.get(1)?), numbers.try_into().ok()?))
    };
    listing.lines().filter_map(row).collect()
}

/// Is this what was recorded? Tells what was given for granted, or the first difference.
pub(crate) fn compare(command: &str, recorded: &str, ours: &str) -> Result<&'static str, Wrong> {
    if recorded == ours {
        return Ok("");
    }
    let split = |text: &str| {
        let read = |line: &str| {
            connection(line).or_else(|| if command.contains("/proc") { proc_connection(line) } else { None })
        };
        let (rows, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| read(line).is_some());
        let mut rows: Vec<Connection> = rows.into_iter().filter_map(read).collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let unordered = command.contains("--nosort") || command.contains("/proc/net/ip_vs");
        (rows, if unordered { blocks(&rest) } else { rest.into_iter().map(str::to_owned).collect() })
    };
    let ((their_rows, theirs), (our_rows, ours)) = (split(recorded), split(ours));
    same(&theirs, &ours)?;
    let keys = |rows: &[Connection]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
    same(&keys(&their_rows), &keys(&our_rows))?;
    for (their, our) in their_rows.iter().zip(&our_rows) {
        if (their.left_s - our.left_s).abs() > SECOND {
            return Err(format!("{}: {} s are left instead of {}", our.key, our.left_s, their.left_s));
        }
    }
    Ok(if their_rows.is_empty() { "in any order of services" } else { "in any order, clock to a second" })
}

/// Services with their servers, in one order whatever theirs was; titles stay in front.
fn blocks(lines: &[&str]) -> Vec<String> {
    let is_service = |line: &str| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|start| line.starts_with(start));
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    for line in lines {
        if is_service(line) {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
    }
    blocks[1..].sort();
    blocks.concat().into_iter().map(str::to_owned).collect()
}

fn same(theirs: &[String], ours: &[String]) -> Result<(), Wrong> {
    for at in 0..theirs.len().max(ours.len()) {
        let (their, our) = (theirs.get(at), ours.get(at));
        if their != our {
            let text = |line: Option<&String>| line.map_or("nothing".to_owned(), |line| format!("{line:?}"));
            return Err(format!("line {}: {}\n instead of {}", at + 1, text(our), text(their)));
        }
    }
    Ok(())
}

/// Is every line what one of these listings has in its place, or at least each number between the least and the greatest
/// there? Rates are sums over many connections, whose moments are known to a second only.
pub(crate) fn among(recorded: &str, ours: &[String]) -> Result<(), Wrong> {
    if ours.iter().any(|listing| listing.lines().count() != recorded.lines().count()) {
        return Err("another number of lines".to_owned());
    }
    for (at, line) in recorded.lines().enumerate() {
        let possible: Vec<&str> = ours.iter().filter_map(|listing| listing.lines().nth(at)).collect();
        if !possible.contains(&line) && !is_between(line, &possible) {
            let (first, last) = (possible.first().unwrap_or(&""), possible.last().unwrap_or(&""));
            return Err(format!("line {}: {line:?} was recorded, and from {first:?} to {last:?} is possible", at + 1));
        }
    }
    Ok(())
}

fn is_between(line: &str, possible: &[&str]) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let others: Vec<Vec<&str>> = possible.iter().map(|line| line.split_whitespace().collect()).collect();
    // Hexadecimal or decimal, the order is the same.
    let number = |word: &str| u64::from_str_radix(word, 16).ok();
    others.iter().all(|other| other.len() == words.len())
        && words.iter().enumerate().all(|(at, word)| {
            let there = || others.iter().map(|other| other[at]);
            let numbers: Vec<u64> = there().filter_map(number).collect();
            match (number(word), numbers.iter().min(), numbers.iter().max()) {
                (Some(value), Some(least), Some(most)) => (*least..=*most).contains(&value),
                _ => there().all(|other| other == *word),
            }
        })
}
