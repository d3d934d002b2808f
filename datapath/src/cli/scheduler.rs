//! `xvs scheduler`: the commands about plugin schedulers, and what they ask the director.
//!
//! Invariant: what is wrong with the words alone is said here, before anybody is asked. Paths are made absolute: it is the
//! director that reads the files.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Output, protocol};
use crate::control::protocol::schedulers::{Candidate, SwapTo, TrialKind};
use crate::control::protocol::{Family, Grants, Options, SchedulerAction, ServiceId};

/// `xvs scheduler`
///
/// A plugin is a WebAssembly module that chooses real servers. The director keeps versions of it under a name, and a
/// service has it as its scheduler wasm:NAME. SERVICE is tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
#[derive(Debug, Subcommand)]
pub enum Scheduler {
    /// Load a module as the newest version of a name. The first one is current at once; services keep theirs until
    /// `swap`.
    Load {
        /// The name: a-z, 0-9, - and _, 32 characters at most.
        name: String,
        /// The module; the director reads it.
        file: PathBuf,
        /// What it may import: any of time,random,log.
        #[arg(long = "grant", value_name = "LIST", default_value = "")]
        grants: Grants,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// List names and versions, and who uses them.
    List(Output),
    /// Tell how the plugins do: state, choices, faults, cost.
    Status {
        /// Of this service only: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: Option<ServiceId>,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Give all services of a name another version: all of them, or none.
    Swap {
        /// The name.
        name: String,
        /// A version's number, or a file that becomes the newest version; the newest version without.
        #[arg(value_name = "FILE|VERSION")]
        to: Option<String>,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Give all services of a name the version that was current before.
    Rollback {
        /// The name.
        name: String,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Forget a version, or a name with all versions; refused while a service uses it.
    Unload {
        /// The name.
        name: String,
        /// The version; all of them without.
        #[arg(value_name = "VERSION")]
        number: Option<u32>,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Tell a service's options for its plugin, and change them.
    Options {
        /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: ServiceId,
        /// Options to set, as in zone=a; the others stay.
        #[arg(value_name = "NAME=VALUE", value_parser = option)]
        set: Vec<(String, String)>,
        /// Take an option away; may be given several times.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        /// Take all away that are not set here.
        #[arg(long)]
        clear: bool,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Tell plugins a number about a server: a response time, a queue's length.
    Metric {
        /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: ServiceId,
        /// The server: RIP:PORT, or RIP for the service's port.
        server: String,
        /// The number.
        #[arg(allow_negative_numbers = true, value_parser = whole)]
        value: i64,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Ask a service's plugin again that is in quarantine or stopped.
    Retry {
        /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: ServiceId,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Ask a candidate beside the live scheduler; its answers are only compared.
    Shadow {
        /// What is tried, and where.
        #[command(flatten)]
        trial: Trial,
        /// Compare one choice in N.
        #[arg(long, value_name = "1/N", default_value = "1/1", value_parser = sample, conflicts_with = "off")]
        sample: u32,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Let a candidate choose for a share of the new connections.
    Canary {
        /// What is tried, and where.
        #[command(flatten)]
        trial: Trial,
        /// The share, as in 5% or 0.5%.
        #[arg(long, value_name = "PERCENT", value_parser = share, required_unless_present = "off", conflicts_with = "off")]
        share: Option<u32>,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Tell what a trial came to so far: agreement, shares, skew, cost, faults.
    Compare {
        /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: ServiceId,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
    /// Make the candidate the service's scheduler.
    Promote {
        /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
        #[arg(value_parser = service)]
        service: ServiceId,
        /// Form of the answer.
        #[command(flatten)]
        output: Output,
    },
}

/// What `shadow` and `canary` have in common.
#[derive(Debug, Args)]
pub struct Trial {
    /// The service: tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N.
    #[arg(value_parser = service)]
    pub service: ServiceId,
    /// A module's file, or the name of a loaded plugin, whose newest version is tried.
    #[arg(value_name = "FILE|NAME", required_unless_present = "off", conflicts_with = "off")]
    pub candidate: Option<String>,
    /// An option for the candidate, instead of those of the service; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option, conflicts_with = "off")]
    pub options: Vec<(String, String)>,
    /// End the trial.
    #[arg(long)]
    pub off: bool,
}

impl Scheduler {
    /// What to ask the director, and whether JSON is wanted.
    ///
    /// # Errors
    /// A word is wrong: a sentence.
    pub fn action(self) -> Result<(SchedulerAction, bool), String> {
        Ok(match self {
            Scheduler::Load { name, file, grants, output } => {
                (SchedulerAction::Load { name, file: absolute(file)?, grants }, output.json)
            }
            Scheduler::List(output) => (SchedulerAction::List, output.json),
            Scheduler::Status { service, output } => (SchedulerAction::Status(service), output.json),
            Scheduler::Swap { name, to, output } => {
                let to = match to {
                    None => SwapTo::Newest,
                    Some(word) => match word.parse() {
                        Ok(number) => SwapTo::Version(number),
                        Err(_) => SwapTo::File(absolute(word.into())?),
                    },
                };
                (SchedulerAction::Swap { name, to }, output.json)
            }
            Scheduler::Rollback { name, output } => (SchedulerAction::Rollback { name }, output.json),
            Scheduler::Unload { name, number, output } => {
                (SchedulerAction::Unload { name, version: number }, output.json)
            }
            Scheduler::Options { service, set, unset, clear, output } => {
                (SchedulerAction::Options { service, set: once(set)?, unset, clear }, output.json)
            }
            Scheduler::Metric { service, server, value, output } => {
                let server = server_of(&service, &server)?;
                (SchedulerAction::Metric { service, server, value }, output.json)
            }
            Scheduler::Retry { service, output } => (SchedulerAction::Retry(service), output.json),
            Scheduler::Shadow { trial, sample, output } => {
                (trial.action(TrialKind::Shadow { one_in: sample })?, output.json)
            }
            Scheduler::Canary { trial, share, output } => {
                (trial.action(TrialKind::Canary { per_mille: share.unwrap_or_default() })?, output.json)
            }
            Scheduler::Compare { service, output } => (SchedulerAction::Compare(service), output.json),
            Scheduler::Promote { service, output } => (SchedulerAction::Promote(service), output.json),
        })
    }
}

impl Trial {
    fn action(self, kind: TrialKind) -> Result<SchedulerAction, String> {
        let Trial { service, candidate, options, .. } = self;
        let Some(word) = candidate else { return Ok(SchedulerAction::EndTrial(service)) };
        let candidate = if word.contains('/') || word.ends_with(".wasm") {
            Candidate::File(absolute(word.into())?)
        } else {
            Candidate::Name(word)
        };
        let options = Some(once(options)?).filter(|options| !options.is_empty());
        Ok(SchedulerAction::Try { service, candidate, kind, options })
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    std::path::absolute(&path).map_err(|error| format!("{} is no path: {error}", path.display()))
}

/// Options, none of them twice.
fn once(pairs: Vec<(String, String)>) -> Result<Options, String> {
    let mut options = Options::new();
    for (name, value) in pairs {
        if let Some(before) = options.insert(name.clone(), value) {
            return Err(format!("the option {name} is given twice, and was {before:?} first"));
        }
    }
    Ok(options)
}

/// `tcp:VIP:PORT`, `mark:N`, `mark6:N`; `VIP:PORT` is TCP's.
fn service(text: &str) -> Result<ServiceId, String> {
    let wrong = || "it is tcp:VIP:PORT, udp:VIP:PORT, sctp:VIP:PORT, mark:N or mark6:N".to_owned();
    let mark = |number: &str, family| {
        let mark = number.parse().ok().filter(|mark| *mark != 0).ok_or_else(wrong)?;
        Ok(ServiceId::Mark { mark, family })
    };
    if let Ok(address) = text.parse() {
        return Ok(ServiceId::Address { protocol: protocol("tcp")?, address });
    }
    match text.split_once(':').ok_or_else(wrong)? {
        ("mark", number) => mark(number, Family::Inet),
        ("mark6", number) => mark(number, Family::Inet6),
        (word, address) => {
            let protocol = protocol(word).map_err(|_| wrong())?;
            Ok(ServiceId::Address { protocol, address: address.parse().map_err(|_| wrong())? })
        }
    }
}

/// A server; without a port it has the service's.
fn server_of(service: &ServiceId, text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let ip: IpAddr = text.parse().map_err(|_| format!("{text} is no server: it is RIP:PORT, as in 10.0.0.11:80"))?;
    let port = if let ServiceId::Address { address, .. } = service { address.port() } else { 0 };
    Ok(SocketAddr::new(ip, port))
}

/// `NAME=VALUE`
fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must be NAME=VALUE, as in zone=a".to_owned()),
    }
}

/// A metric.
fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("it must be a whole number from {} to {}, as in 250", i64::MIN, i64::MAX))
}

/// `1/N`
fn sample(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("1/").and_then(|number| number.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| "it must be 1/N, as in 1/100".to_owned())
}

/// `5%`, in thousandths.
fn share(text: &str) -> Result<u32, String> {
    let wrong = || "it must be a share of 0.1% to 100%, as in 5%".to_owned();
    let percent: f64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let per_mille = (percent * 10.0).round();
    if (1.0..=1000.0).contains(&per_mille) { Ok(per_mille as u32) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the words for services, samples and shares: what is taken, and that the rest is refused.
    #[test]
    fn words_are_read() {
        use crate::control::protocol::Protocol;
        let address = |protocol, text: &str| -> Result<ServiceId, String> {
            Ok(ServiceId::Address { protocol, address: text.parse().expect("an address") })
        };
        assert_eq!(service("tcp:192.0.2.1:80"), address(Protocol::Tcp, "192.0.2.1:80"));
        assert_eq!(service("192.0.2.1:80"), address(Protocol::Tcp, "192.0.2.1:80"));
        assert_eq!(service("udp:[2001:db8::1]:53"), address(Protocol::Udp, "[2001:db8::1]:53"));
        assert_eq!(service("[2001:db8::1]:53"), address(Protocol::Tcp, "[2001:db8::1]:53"));
        assert_eq!(service("mark6:7"), Ok(ServiceId::Mark { mark: 7, family: Family::Inet6 }));
        for wrong in ["", "tcp", "tcp:", "tcp:192.0.2.1", "icmp:192.0.2.1:80", "mark:0", "mark:x", "2001:db8::1"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
        assert_eq!((sample("1/1"), sample("1/100")), (Ok(1), Ok(100)));
        assert!(sample("1/0").is_err() && sample("2/3").is_err() && sample("5%").is_err());
        assert_eq!((share("5%"), share("0.1%"), share("100%")), (Ok(50), Ok(1), Ok(1000)));
        assert!(["5", "0%", "0.01%", "101%", "-5%", "x%", "nan%"].iter().all(|wrong| share(wrong).is_err()));
    }
}
