//! The command line of `xvs tune`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::cpus::Cpus;
use super::items;

/// `xvs tune`
///
/// Looks at network interfaces and at the machine as a director needs them, and says of each item how it is, what would
/// be right and why, and the command for it. Nothing is changed without --apply, and --restore puts back what it changed.
#[derive(Debug, Default, Args)]
pub struct Tune {
    /// The interfaces that the director is to serve.
    #[arg(value_name = "IFACE", required_unless_present_any = ["restore", "config"])]
    pub interfaces: Vec<String>,
    /// Only look: the default. Exit code 1 if something is harmful.
    #[arg(long, conflicts_with_all = ["apply", "restore"])]
    pub check: bool,
    /// Change what could be better or is harmful, where that is safe; each change is shown, and noted before it is made.
    #[arg(long, conflicts_with = "restore")]
    pub apply: bool,
    /// Put back what --apply changed: of the interfaces named, or everything.
    #[arg(long)]
    pub restore: bool,
    /// Only this item, by the name that its line begins with; may be given several times, or as a list with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(items::names()), hide_possible_values = true)]
    pub only: Vec<String>,
    /// Not this item; likewise.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(items::names()), hide_possible_values = true)]
    pub skip: Vec<String>,
    /// Queues that the director is to serve of each interface, from 0 on [default: as many as CPUs and interfaces allow].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub queues: Option<u32>,
    /// CPUs of the queues, in their order, as in 2-5 or 4,2 [default: those near the NIC].
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<Order>,
    /// The director polls busily.
    #[arg(long)]
    pub busy_poll: bool,
    /// The director carries VLANs on these interfaces [default: where the kernel has VLANs on them].
    #[arg(long)]
    pub vlans: bool,
    /// Both directions of a flow are to come by one queue; the director itself does not need it.
    #[arg(long)]
    pub symmetric: bool,
    /// Take interfaces, queues, CPUs, frames and busy polling from a configuration file, where they are not said here.
    #[arg(long, value_name = "FILE", conflicts_with = "restore")]
    pub config: Option<PathBuf>,
    /// The state file [default: /run/xvs/tune.state].
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// CPUs in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(pub Vec<u32>);

fn cpus(text: &str) -> Result<Order, String> {
    let mut order = Vec::new();
    for part in text.split(',') {
        order.extend_from_slice(part.parse::<Cpus>()?.as_slice());
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    sorted.dedup();
    match order.len() {
        0 => Err("it must be a list of CPUs, as in 0-3,8".to_owned()),
        count if count != sorted.len() => Err(format!("{text:?} names a CPU twice")),
        _ => Ok(Order(order)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the order of CPUs: the first is the first queue's.
    #[test]
    fn cpus_keep_their_order() {
        assert_eq!(cpus("6,2-3"), Ok(Order(vec![6, 2, 3])));
        for wrong in ["", "1,1", "x", "3-1"] {
            assert!(cpus(wrong).is_err(), "{wrong:?}");
        }
    }
}
