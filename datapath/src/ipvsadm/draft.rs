//! Options, taken one by one in the order in which they were typed.
//!
//! The order matters, because ipvsadm writes each option into one record as it reads it: `-r` completes itself from the
//! service *so far*, `-M` is read by the IP version *so far*, and an IPv6 service forgets a mask that came before it.
//!
//! Invariant: a value is checked when it is taken, and each feature is taken once.
//!
//! Not here: what may stand together; that is judged when all options are known ([`super::parse`]).

use std::net::{IpAddr, SocketAddr};

use super::command::{Columns, Format, Usage};
use super::names::Names;
use super::options::{Entry, Feature, Meaning};
use super::scan;
use super::tokens::Token;
use crate::control::protocol::{Family, Mask, Method, Protocol, ServiceId, Tunnel};

/// The longest timeout: 31 days.
pub(super) const TIMEOUT_MAX_S: i64 = 31 * 86_400;

/// What a bare `-p` means. The manual page says 300; the program says this.
const PERSISTENCE_DEFAULT_S: u32 = 360;

/// The greatest number of the C type that holds weights and thresholds.
const INT_MAX: i64 = i32::MAX as i64;

/// The longest packet of a sync daemon: what fits into UDP over IPv4.
const SYNC_LEN_MAX: i64 = 65_507;

/// The service so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    protocol: Option<Protocol>,
    address: Option<IpAddr>,
    /// Its port; 0 until one is given.
    pub(super) port: u16,
    /// Its mark; 0 if it is not a mark service.
    pub(super) mark: u32,
    family: Option<Family>,
    pub(super) mask: Mask,
}

/// Everything the options said so far.
pub(super) struct Draft<'a> {
    names: &'a dyn Names,
    /// The features that were given.
    pub(super) given: Vec<Feature>,
    pub(super) target: Target,
    pub(super) scheduler: Option<&'a str>,
    pub(super) sched_flags: &'a str,
    pub(super) persistence_s: Option<u32>,
    pub(super) engine: Option<&'a str>,
    pub(super) server: Option<SocketAddr>,
    pub(super) method: Method,
    pub(super) weight: i64,
    pub(super) upper: u32,
    pub(super) lower: u32,
    pub(super) tun_type: &'a str,
    pub(super) tun_port: u16,
    pub(super) format: Format,
    pub(super) interface: Option<&'a str>,
    pub(super) sync_id: u8,
    pub(super) sync_len: Option<u16>,
    pub(super) group: Option<IpAddr>,
    pub(super) group_port: Option<u16>,
    pub(super) group_ttl: Option<u8>,
}

impl Target {
    /// Its key, if a service was given.
    pub(super) fn id(&self) -> Option<ServiceId> {
        match (self.mark, self.protocol, self.address) {
            (0, Some(protocol), Some(ip)) => {
                Some(ServiceId::Address { protocol, address: SocketAddr::new(ip, self.port) })
            }
            (0, _, _) => None,
            (mark, _, _) => Some(ServiceId::Mark { mark, family: self.family.unwrap_or(Family::Inet) }),
        }
    }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Inet } else { Family::Inet6 }
}

impl<'a> Draft<'a> {
    pub(super) fn new(names: &'a dyn Names) -> Self {
        Draft {
            names,
            given: Vec::new(),
            target: Target {
                protocol: None,
                address: None,
                port: 0,
                mark: 0,
                family: None,
                mask: Mask::full(Family::Inet),
            },
            scheduler: None,
            sched_flags: "",
            persistence_s: None,
            engine: None,
            server: None,
            method: Method::Dr,
            weight: 1,
            upper: 0,
            lower: 0,
            tun_type: "ipip",
            tun_port: 0,
            format: Format::default(),
            interface: None,
            sync_id: 0,
            sync_len: None,
            group: None,
            group_port: None,
            group_ttl: None,
        }
    }

    /// Whether this was given.
    pub(super) fn has(&self, feature: Feature) -> bool {
        self.given.contains(&feature)
    }

    /// Takes the next option.
    pub(super) fn take(&mut self, token: Token<'a>) -> Result<(), Usage> {
        let feature = match token.entry.meaning {
            Meaning::Verb(verb) => {
                let message = format!("{} is a second command; one command line carries one", verb.phrase());
                return Err(Usage::wrong(message));
            }
            Meaning::Sort => return Ok(()),
            Meaning::Ipv6 if self.target.mark == 0 => {
                return Err(Usage::wrong("-6 belongs to a mark service and stands behind it: -f MARK -6"));
            }
            Meaning::Ipv6 => {
                self.target.family = Some(Family::Inet6);
                self.target.mask = Mask::Prefix(128);
                return Ok(());
            }
            Meaning::Feature(feature) => feature,
        };
        if self.has(feature) {
            return Err(Usage::wrong(format!("{} is given twice", feature.phrase())));
        }
        self.given.push(feature);
        self.value(feature, token.entry, token.value)
    }

    fn value(&mut self, feature: Feature, entry: &Entry, value: Option<&'a str>) -> Result<(), Usage> {
        let text = value.unwrap_or_default();
        match feature {
            Feature::Service => return self.service(entry, text),
            Feature::Server => return self.server(text),
            Feature::Netmask => return self.netmask(text),
            Feature::Scheduler => self.scheduler = Some(text).filter(|name| !name.is_empty()),
            Feature::SchedFlags => self.sched_flags = text,
            Feature::Engine => self.engine = Some(text).filter(|name| !name.is_empty()),
            Feature::Persistent => {
                self.persistence_s = Some(match value {
                    None => PERSISTENCE_DEFAULT_S,
                    Some(text) => within(text, 1..=TIMEOUT_MAX_S, "-p", "seconds")? as u32,
                });
            }
            Feature::Method => {
                self.method = match entry.short {
                    Some('m') => Method::Nat,
                    Some('i') => Method::Tun(Tunnel::Ipip),
                    _ => Method::Dr,
                };
            }
            // The manual page stops at 65535; the program does not.
            Feature::Weight => self.weight = within(text, 0..=INT_MAX, "-w", "the weight")?,
            Feature::Upper => self.upper = within(text, 0..=INT_MAX, "-x", "connections")? as u32,
            Feature::Lower => self.lower = within(text, 0..=INT_MAX, "-y", "connections")? as u32,
            Feature::TunType if !["ipip", "gue", "gre"].contains(&text) => {
                return Err(Usage::wrong(format!("--tun-type `{text}` does not exist: ipip, gue or gre")));
            }
            Feature::TunType => self.tun_type = text,
            Feature::TunPort => self.tun_port = within(text, 1..=65535, "--tun-port", "a port")? as u16,
            Feature::Numeric => self.format.numeric = true,
            Feature::Exact => self.format.exact = true,
            Feature::Nosort => self.format.unsorted = true,
            Feature::Json => self.format.json = true,
            Feature::McastInterface => self.interface = Some(text).filter(|name| !name.is_empty()),
            Feature::SyncId => self.sync_id = within(text, 0..=255, "--syncid", "the id")? as u8,
            Feature::SyncMaxlen => {
                self.sync_len = Some(within(text, 1..=SYNC_LEN_MAX, "--sync-maxlen", "bytes")? as u16);
            }
            Feature::McastGroup => {
                let group = text.parse().ok().filter(IpAddr::is_multicast);
                let wrong = || Usage::wrong(format!("--mcast-group `{text}` is not a multicast address"));
                self.group = Some(group.ok_or_else(wrong)?);
            }
            Feature::McastPort => self.group_port = Some(within(text, 1..=65535, "--mcast-port", "a port")? as u16),
            Feature::McastTtl => self.group_ttl = Some(within(text, 1..=255, "--mcast-ttl", "hops")? as u8),
            Feature::Connection | Feature::Timeout | Feature::Daemon | Feature::Ops | Feature::TunNocsum => {}
            Feature::TunCsum | Feature::TunRemcsum | Feature::Stats | Feature::Rate | Feature::Thresholds => {}
            Feature::PersistentConn | Feature::TunInfo => {}
        }
        Ok(())
    }

    fn service(&mut self, entry: &Entry, text: &str) -> Result<(), Usage> {
        let protocol = match entry.long {
            "fwmark-service" => {
                let mark = scan::number(text, 1..=i64::from(u32::MAX));
                let wrong = || Usage::wrong(format!("-f `{text}` is not a mark: a number from 1 to {}", u32::MAX));
                self.target.mark = mark.ok_or_else(wrong)? as u32;
                self.target.family = Some(Family::Inet);
                // It counts for every protocol; names of ports behind -r are looked up as TCP's.
                self.target.protocol = Some(Protocol::Tcp);
                return Ok(());
            }
            "udp-service" => Protocol::Udp,
            "sctp-service" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        self.target.protocol = Some(protocol);
        let (address, port) = scan::host_port(text, Some(protocol), self.names)
            .map_err(|why| Usage::wrong(format!("no virtual service: {why}")))?;
        self.target.address = Some(address);
        self.target.family = Some(family(address));
        self.target.port = port.unwrap_or(self.target.port);
        if address.is_ipv6() {
            self.target.mask = Mask::Prefix(128);
        }
        Ok(())
    }

    fn server(&mut self, text: &str) -> Result<(), Usage> {
        let (address, port) = scan::host_port(text, self.target.protocol, self.names)
            .map_err(|why| Usage::wrong(format!("no real server: {why}")))?;
        self.server = Some(SocketAddr::new(address, port.unwrap_or(self.target.port)));
        Ok(())
    }

    fn netmask(&mut self, text: &str) -> Result<(), Usage> {
        self.target.mask = if self.target.family == Some(Family::Inet6) {
            match scan::leading_number(text) {
                prefix @ 1..=128 => Mask::Prefix(prefix as u8),
                _ => return Err(Usage::wrong(format!("-M `{text}` is not an IPv6 prefix length (1 to 128)"))),
            }
        } else {
            let named = || {
                self.names.address(text).and_then(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                })
            };
            match scan::ipv4(text).or_else(named) {
                Some(mask) => Mask::Dotted(mask),
                None => return Err(Usage::wrong(format!("-M `{text}` is not an IPv4 mask such as 255.255.255.0"))),
            }
        };
        Ok(())
    }

    /// The columns of a listing: the first of these wins over the others.
    pub(super) fn columns(&self) -> Columns {
        let choices = [
            (Feature::Stats, Columns::Stats),
            (Feature::Rate, Columns::Rate),
            (Feature::Thresholds, Columns::Thresholds),
            (Feature::PersistentConn, Columns::PersistentConn),
            (Feature::TunInfo, Columns::TunInfo),
        ];
        choices.into_iter().find(|(feature, _)| self.has(*feature)).map_or(Columns::Rules, |(_, columns)| columns)
    }
}

/// A number in this range, or a sentence about the option.
pub(super) fn within(
    text: &str,
    range: std::ops::RangeInclusive<i64>,
    option: &str,
    meaning: &str,
) -> Result<i64, Usage> {
    let (low, high) = (*range.start(), *range.end());
    scan::number(text, range)
        .ok_or_else(|| Usage::wrong(format!("{option} `{text}` is wrong: {meaning}, a number from {low} to {high}")))
}
