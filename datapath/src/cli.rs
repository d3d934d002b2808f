//! The command line of `xvs`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::protocol::{Assignment, Family, MarkRule, Ports, Prefix, Protocol, ServiceId};
use crate::ipvsadm::proc::File;
use crate::plugin::Plugin;
use crate::tune::options::Tune;

mod scheduler;

pub use scheduler::Scheduler;

/// A layer-4 load balancer: Linux Virtual Server's work, on AF_XDP.
///
/// `xvs run` is the director; the other commands ask it, or work on files alone. Rules are also changed by `xvsadm`,
/// which takes ipvsadm's commands.
#[derive(Debug, Parser)]
#[command(name = "xvs", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The director's control socket [default: $XVS_SOCKET, or /run/xvs/xvs.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the director.
    Run(Run),
    /// Tell how the director, its interfaces and workers are.
    Status(Status),
    /// Tell which packets were dropped, and why.
    Drops(Output),
    /// Print a file of IPVS as the kernel has it below /proc/net, for dashboards that read it.
    Proc {
        /// Its name.
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(File::NAMES))]
        file: String,
    },
    /// Tell what would happen to a packet, and why.
    Explain(Explain),
    /// Tell and change which packets carry which firewall mark, for services of marks (`xvsadm -A -f MARK`).
    #[command(subcommand)]
    Mark(Mark),
    /// Read and change the settings that LVS has as net.ipv4.vs.*, and xvs's own.
    #[command(subcommand)]
    Sysctl(Sysctl),
    /// Load, swap, try and watch scheduler plugins (`xvsadm -A -s wasm:NAME`).
    #[command(subcommand)]
    Scheduler(Scheduler),
    /// Tell how long connections are remembered, and change it.
    Timeouts(Timeouts),
    /// Check a configuration file; changes nothing and needs no director.
    Check {
        /// The file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the running director's rules what a configuration file says.
    Apply {
        /// The file.
        file: PathBuf,
        /// Only tell what would change.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a capture through the engine, without root or a NIC.
    Replay(Replay),
    /// For authors of schedulers: begin a crate, check and measure a module, without a director.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Run new connections through schedulers in virtual time, and report what each makes of them.
    Simulate(Simulate),
    /// Look at the setup of NICs and machine: what is right, what harms, and why; change it, and put it back.
    Tune(Tune),
}

/// `xvs run`
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file; SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Interface to serve, besides those of the configuration; may be given several times.
    #[arg(long = "interface", short, value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Poll busily: lowest latency, a whole CPU for each worker.
    #[arg(long)]
    pub busy_poll: bool,
    /// How to log; RUST_LOG filters as usual.
    #[arg(long, value_enum, default_value_t = Log::Human)]
    pub log: Log,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `xvs sysctl`
#[derive(Debug, Subcommand)]
pub enum Sysctl {
    /// List the settings that act, with their effect.
    List {
        /// List also those that are known and have no effect here, with the reason.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print settings as sysctl(8) does.
    Get {
        /// Which ones: net.ipv4.vs.NAME, net/ipv4/vs/NAME, or NAME.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Print the values only.
        #[arg(short = 'n', long)]
        values: bool,
    },
    /// Change settings: all of them, or none.
    Set {
        /// Which ones, and to what.
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = assignment)]
        assignments: Vec<Assignment>,
        /// Print the values only.
        #[arg(short = 'n', long)]
        values: bool,
    },
}

/// `xvs timeouts`
#[derive(Debug, Args)]
pub struct Timeouts {
    /// tcp, udp, sctp or mark; without a service it is about the director's own timeouts.
    #[arg(value_parser = ["tcp", "udp", "sctp", "mark"], requires = "service")]
    pub protocol: Option<String>,
    /// The service: VIP:PORT, or the number of a mark.
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// The mark is IPv6's.
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Set timeouts, as in established=1800,close_wait=10; 0 takes one back.
    #[arg(long, value_name = "NAME=SECONDS", value_delimiter = ',', value_parser = seconds)]
    pub set: Vec<(String, u32)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Timeouts {
    /// The service that is named, if one is.
    ///
    /// # Errors
    /// The words name none: a sentence.
    pub fn service(&self) -> Result<Option<ServiceId>, String> {
        let (Some(kind), Some(text)) = (&self.protocol, &self.service) else {
            return if self.ipv6 { Err("-6 goes with a mark: name one".to_owned()) } else { Ok(None) };
        };
        if kind == "mark" {
            let family = if self.ipv6 { Family::Inet6 } else { Family::Inet };
            let mark = text.parse().map_err(|_| format!("{text} is no mark: it is a number"))?;
            return Ok(Some(ServiceId::Mark { mark, family }));
        }
        if self.ipv6 {
            return Err("-6 goes with a mark: an address says itself what it is".to_owned());
        }
        let address = text.parse().map_err(|_| format!("{text} is no VIP:PORT, as in 192.0.2.10:80"))?;
        Ok(Some(ServiceId::Address { protocol: protocol(kind)?, address }))
    }
}

/// `xvs status`
#[derive(Debug, Args)]
pub struct Status {
    /// Tell how the workers go about their work: batches, time of a breath, sleeps, rings; over the last second, or over
    /// the seconds of --watch.
    #[arg(long)]
    pub workers: bool,
    /// Tell it again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
    /// Print JSON; with --watch, a line each time.
    #[arg(long)]
    pub json: bool,
}

/// A listing.
#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `xvs explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// tcp, udp or sctp.
    #[arg(value_parser = protocol)]
    pub protocol: Protocol,
    /// The client, as in 198.51.100.7:40000 or [2001:db8::7]:40000.
    #[arg(value_name = "CIP:PORT")]
    pub client: SocketAddr,
    /// The service.
    #[arg(value_name = "VIP:PORT")]
    pub virtual_address: SocketAddr,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `xvs mark`
///
/// A new connection has the mark of the first rule that fits it, from the top. A rule whose mark has no service takes
/// its packets out of the rules below it and steers nothing. Rules of a configuration file are set by `xvs apply`.
#[derive(Debug, Subcommand)]
pub enum Mark {
    /// Tell the rules, in their order, and whether their marks have services.
    List(Output),
    /// Add a rule, behind all others.
    Add {
        /// The rule.
        #[command(flatten)]
        rule: Rule,
        /// Before all others instead, so that it counts first.
        #[arg(long)]
        first: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete a rule; its connections stay.
    Delete {
        /// The rule.
        #[command(flatten)]
        rule: Rule,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A rule for a mark.
#[derive(Debug, Args)]
pub struct Rule {
    /// The mark, 1 to 4294967295.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub mark: u32,
    /// Where the packets go: a prefix, as in 192.0.2.0/24, or an address.
    #[arg(long, value_name = "PREFIX")]
    pub to: Prefix,
    /// tcp, udp or sctp; each of them without.
    #[arg(long, value_parser = protocol)]
    pub protocol: Option<Protocol>,
    /// Destination ports, as in 80,443,8000-8100; every port without.
    #[arg(long, value_name = "LIST")]
    pub ports: Option<Ports>,
    /// Where the packets come from; anywhere without.
    #[arg(long, value_name = "PREFIX")]
    pub from: Option<Prefix>,
}

impl From<Rule> for MarkRule {
    fn from(rule: Rule) -> Self {
        let Rule { mark, to: destination, protocol, ports, from: source } = rule;
        MarkRule { mark, destination, source, protocol, ports }
    }
}

/// `xvs replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Configuration: services, and interfaces with `gateway_mac`.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The capture (pcap, Ethernet).
    #[arg(long, value_name = "FILE")]
    pub pcap_in: PathBuf,
    /// Where to write what the director would send.
    #[arg(long, value_name = "FILE")]
    pub pcap_out: PathBuf,
    /// Where to write a JSON line for each frame: verdict, reason, server.
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,
}

/// `xvs simulate`
///
/// Needs no director, no root and no NIC. The same inputs and seed give the same result, but for measured costs.
#[derive(Debug, Default, Args)]
pub struct Simulate {
    /// A scheduler: its name, or LABEL=NAME; may be given several times [default: the configuration's].
    #[arg(long, value_name = "NAME")]
    pub scheduler: Vec<String>,
    /// Take connections from a capture (pcap or pcapng).
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    pub trace: Option<PathBuf>,
    /// Make connections by a formula, as in rate=2000,seconds=60,clients=5000,zipf=1.1,duration=exp:8s.
    #[arg(long, value_name = "SPEC")]
    pub synthetic: Option<String>,
    /// The servers: how many, or as in 10.0.0.1:80=3,10.0.0.2:80/speed=0.5 (=3 is a weight).
    #[arg(long, value_name = "SPEC")]
    pub servers: Option<String>,
    /// Take the servers from a service of a configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The service, as in 192.0.2.10:80 or udp:192.0.2.10:53 [default: the capture's busiest, the only one of a file].
    #[arg(long, value_name = "VIP:PORT")]
    pub service: Option<String>,
    /// What happens to servers: lines TIME down|up|weight|add|remove|threshold|speed SERVER [VALUE].
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// An option of a scheduler, as in mh:flags=mh-port+mh-fallback; may be given several times.
    #[arg(long, value_name = "NAME:OPTION=VALUE")]
    pub options: Vec<String>,
    /// Seed of the formula.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Where to write the report, an HTML file that needs no other.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Where to write the numbers.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err("it must be tcp, udp or sctp".to_owned()),
    }
}

/// `NAME=VALUE`, with blanks around the sign as in sysctl.conf.
fn assignment(text: &str) -> Result<Assignment, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Assignment { name: name.trim().to_owned(), value: value.trim().to_owned() })
        }
        _ => Err("it must be NAME=VALUE, as in drop_entry=1".to_owned()),
    }
}

/// `NAME=SECONDS`
fn seconds(text: &str) -> Result<(String, u32), String> {
    let wrong = || "it must be NAME=SECONDS, as in established=1800".to_owned();
    let (name, seconds) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.trim().to_owned(), seconds.trim().parse().map_err(|_| wrong())?))
}
