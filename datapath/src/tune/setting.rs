//! A setting that can be read, changed and put back: which one, its value as text, and the command for it.
//!
//! Invariant: what [`Setting::read`] gives, [`Setting::write`] takes, and puts the setting where it was. Values are
//! texts that people can read, because a state file keeps them. Not here: which value is right.

use std::io;

use serde::{Deserialize, Serialize};

use super::device::{Counts, Device, Flow, Pause, Sizes, fields, mask};
use super::tree::Tree;

/// The machine: its NICs and its files.
pub struct Machine<'a> {
    /// Ethtool.
    pub device: &'a dyn Device,
    /// /sys and /proc.
    pub tree: Tree,
}

/// One setting of an interface, or of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Setting {
    /// Numbers of queues.
    Channels,
    /// Sizes of the descriptor rings.
    Rings,
    /// Flow control.
    Pause,
    /// An offload.
    Feature {
        /// The kernel's name of it.
        feature: String,
    },
    /// What is hashed.
    HashFields {
        /// Of which packets.
        flow: Flow,
    },
    /// Which queue has which value of the hash.
    Indirection,
    /// What is done before hashing.
    Transform,
    /// A file with one value.
    File {
        /// Its path.
        path: String,
    },
    /// A file with several words, of which one is marked.
    Choice {
        /// Its path.
        path: String,
    },
}

/// A value that cannot be one.
fn nonsense(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no value of this setting"))
}

impl Setting {
    /// A file with one value.
    pub fn file(path: impl Into<String>) -> Setting {
        Setting::File { path: path.into() }
    }

    /// The value as it is.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` if the driver has no such setting.
    pub fn read(&self, machine: &Machine<'_>, interface: &str) -> io::Result<String> {
        let device = machine.device;
        Ok(match self {
            Setting::Channels => channels_text(device.channels(interface)?.0),
            Setting::Rings => {
                let sizes = device.rings(interface)?.0;
                format!("rx {} tx {}", sizes.receive, sizes.transmit)
            }
            Setting::Pause => {
                let pause = device.pause(interface)?;
                let [autoneg, rx, tx] = [pause.negotiated, pause.receive, pause.transmit].map(on_off);
                format!("autoneg {autoneg} rx {rx} tx {tx}")
            }
            Setting::Feature { feature } => {
                let features = device.features(interface)?;
                let found = features.iter().find(|(name, _)| name == feature).ok_or(io::ErrorKind::NotFound)?;
                on_off(found.1.requested).to_owned()
            }
            Setting::HashFields { flow } => fields(device.hash_fields(interface, *flow)?),
            Setting::Indirection => {
                let table = device.spread(interface)?.table;
                table.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
            }
            Setting::Transform => transform_text(device.spread(interface)?.transform),
            Setting::File { path } => machine.tree.read(path)?,
            Setting::Choice { path } => machine.tree.chosen(path)?,
        })
    }

    /// Changes it. The device may choose a value nearby: read what became of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, machine: &Machine<'_>, interface: &str, text: &str) -> io::Result<()> {
        let device = machine.device;
        match self {
            Setting::Channels => device.set_channels(interface, parse_channels(text)?),
            Setting::Rings => {
                let [receive, transmit] = words(text, ["rx", "tx"])?;
                let number = |word: &str| word.parse().map_err(|_| nonsense(text));
                device.set_rings(interface, Sizes { receive: number(receive)?, transmit: number(transmit)? })
            }
            Setting::Pause => {
                let [negotiated, receive, transmit] = words(text, ["autoneg", "rx", "tx"])?.map(parse_on_off);
                device.set_pause(interface, Pause { negotiated: negotiated?, receive: receive?, transmit: transmit? })
            }
            Setting::Feature { feature } => device.set_feature(interface, feature, parse_on_off(text)?),
            Setting::HashFields { flow } => {
                device.set_hash_fields(interface, *flow, mask(text).ok_or_else(|| nonsense(text))?)
            }
            Setting::Indirection => {
                let table = text.split(' ').map(|queue| queue.parse().map_err(|_| nonsense(text)));
                self.write_table(machine, interface, &table.collect::<io::Result<Vec<u32>>>()?)
            }
            Setting::Transform => device.set_transform(interface, parse_transform(text)?),
            Setting::File { path } | Setting::Choice { path } => machine.tree.write(path, text),
        }
    }

    /// A table that is the driver's own choice is put back as that: the driver then goes on to adapt it to the number
    /// of queues, which it does not with a table that somebody set.
    fn write_table(&self, machine: &Machine<'_>, interface: &str, table: &[u32]) -> io::Result<()> {
        if machine.device.set_table(interface, None).is_ok() && machine.device.spread(interface)?.table == table {
            return Ok(());
        }
        machine.device.set_table(interface, Some(table))
    }

    /// The command that does the same by hand.
    pub fn by_hand(&self, interface: &str, text: &str) -> String {
        match self {
            Setting::Channels => format!("ethtool -L {interface} {text}"),
            Setting::Rings => format!("ethtool -G {interface} {text}"),
            Setting::Pause => format!("ethtool -A {interface} {text}"),
            Setting::Feature { feature } => format!("ethtool -K {interface} {feature} {text}"),
            Setting::HashFields { flow } => {
                // ethtool has no letter for "nothing".
                let text = if text == "none" { "''" } else { text };
                format!("ethtool -N {interface} rx-flow-hash {flow} {text}")
            }
            Setting::Indirection => match equal(text) {
                Some(queues) => format!("ethtool -X {interface} equal {queues}"),
                None => format!("ethtool -X {interface} weight {}", weights(text)),
            },
            Setting::Transform => format!("ethtool -X {interface} xfrm {text}"),
            Setting::File { path } | Setting::Choice { path } => format!("echo {text} > {path}"),
        }
    }

    /// The setting and the value in few words, for a line about a change.
    pub fn words(&self, text: &str) -> String {
        match self {
            Setting::Indirection => match equal(text) {
                Some(queues) => format!("equal over {queues} queues"),
                None => format!("a table of {} entries", text.split(' ').count()),
            },
            _ if text.is_empty() => "empty".to_owned(),
            _ => text.to_owned(),
        }
    }

    /// What it is, for a line about a change.
    pub fn name(&self) -> String {
        match self {
            Setting::Channels => "queues".to_owned(),
            Setting::Rings => "rings".to_owned(),
            Setting::Pause => "pause".to_owned(),
            Setting::Feature { feature } => feature.clone(),
            Setting::HashFields { flow } => format!("rx-flow-hash {flow}"),
            Setting::Indirection => "indirection".to_owned(),
            Setting::Transform => "input transformation".to_owned(),
            Setting::File { path } | Setting::Choice { path } => path.clone(),
        }
    }
}

/// As ethtool takes numbers of queues: only those that the device has.
pub(super) fn channels_text(counts: Counts) -> String {
    let kinds = [("rx", counts.receive), ("tx", counts.transmit), ("combined", counts.combined)];
    let used: Vec<String> =
        kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind} {count}")).collect();
    used.join(" ")
}

fn parse_channels(text: &str) -> io::Result<Counts> {
    let mut counts = Counts::default();
    for pair in text.split(' ').collect::<Vec<_>>().chunks(2) {
        let [kind, count] = pair else { return Err(nonsense(text)) };
        let count = count.parse().map_err(|_| nonsense(text))?;
        match *kind {
            "rx" => counts.receive = count,
            "tx" => counts.transmit = count,
            "combined" => counts.combined = count,
            _ => return Err(nonsense(text)),
        }
    }
    Ok(counts)
}

/// The words behind each of `names`, which are in this order.
fn words<'t, const COUNT: usize>(text: &'t str, names: [&str; COUNT]) -> io::Result<[&'t str; COUNT]> {
    let all: Vec<&str> = text.split(' ').collect();
    let fits = all.len() == 2 * COUNT && names.iter().enumerate().all(|(at, name)| all[2 * at] == *name);
    if fits { Ok(std::array::from_fn(|at| all[2 * at + 1])) } else { Err(nonsense(text)) }
}

pub(super) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn parse_on_off(text: &str) -> io::Result<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(nonsense(text)),
    }
}

/// `RXH_XFRM_*` in ethtool's words.
pub(super) fn transform_text(transform: u8) -> String {
    match transform {
        0 => "none".to_owned(),
        1 => "symmetric-xor".to_owned(),
        2 => "symmetric-or-xor".to_owned(),
        other => other.to_string(),
    }
}

fn parse_transform(text: &str) -> io::Result<u8> {
    match text {
        "none" => Ok(0),
        "symmetric-xor" => Ok(1),
        "symmetric-or-xor" => Ok(2),
        other => other.parse().map_err(|_| nonsense(text)),
    }
}

/// How many entries each queue has.
fn weights(text: &str) -> String {
    let table: Vec<u32> = text.split(' ').filter_map(|queue| queue.parse().ok()).collect();
    let weight = |queue| table.iter().filter(|other| **other == queue).count().to_string();
    (0..=table.iter().max().copied().unwrap_or(0)).map(weight).collect::<Vec<_>>().join(" ")
}

/// The number of queues, if a table serves them in turn.
fn equal(text: &str) -> Option<u32> {
    let table: Vec<u32> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let queues = table.iter().max()? + 1;
    table.iter().zip((0..queues).cycle()).all(|(queue, turn)| *queue == turn).then_some(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards that texts of a state file are taken as they were given, and nothing else is.
    #[test]
    fn values_are_read_as_they_were_written() {
        for text in ["rx 4 tx 2", "combined 8", "rx 1 combined 7"] {
            assert_eq!(channels_text(parse_channels(text).expect(text)), text);
        }
        for text in ["", "rx", "rx x", "combined 1 other 2 3"] {
            assert!(parse_channels(text).is_err(), "{text:?}");
        }
        for transform in 0..=3 {
            assert_eq!(parse_transform(&transform_text(transform)).ok(), Some(transform));
        }
        assert!(words("rx 1 tx 2", ["tx", "rx"]).is_err());
    }

    /// Guards the commands that people copy.
    #[test]
    fn commands_by_hand() {
        assert_eq!(Setting::Channels.by_hand("e0", "combined 4"), "ethtool -L e0 combined 4");
        assert_eq!(Setting::Indirection.by_hand("e0", "0 1 2 0 1"), "ethtool -X e0 equal 3");
        assert_eq!(Setting::Indirection.words("0 0 1"), "a table of 3 entries");
        assert_eq!(Setting::Indirection.by_hand("e0", "0 0 1"), "ethtool -X e0 weight 2 1");
        let udp = Setting::HashFields { flow: Flow::Udp4 };
        assert_eq!(udp.by_hand("e0", "sdfn"), "ethtool -N e0 rx-flow-hash udp4 sdfn");
        assert_eq!(Setting::file("/sys/x").by_hand("e0", "1"), "echo 1 > /sys/x");
    }
}
