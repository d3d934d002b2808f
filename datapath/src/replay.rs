//! `xvs replay`: a capture through the same engine, without root, NIC or clock.
//!
//! Time is the capture's. There is one interface, with the first `gateway_mac` of the configuration as everybody's next
//! hop; tunnels start from documentation addresses (192.0.2.254, 2001:db8::fe). Frames that the XDP program would have
//! left to the kernel are dropped here with the reason that says so. The hash key is fixed, so a replay repeats.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde::Serialize;

use xvs_engine::counters::Counters;
use xvs_engine::engine::{Engine, Shared, Sizes, Verdict};
use xvs_engine::flow::{Address, Family, Flow, HashKey};
use xvs_engine::hop::{Interface, InterfaceId, Port, Tagging};
use xvs_engine::real::{Generation, Path};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::sched::Builtin;
use xvs_engine::snapshot::Snapshot;
use xvs_engine::time::Now;
use xvs_engine::wire::{Packet, Tags};

use crate::cli::Replay;
use crate::config::document::Compat;
use crate::config::{Desired, Problem, desired};
use crate::control::book::{Book, Effect};
use crate::control::protocol::Refusal;
use crate::run::{self, RunError};

/// Room before each packet, as AF_XDP leaves it.
const HEADROOM: usize = 256;
/// Longest frame of a capture.
const FRAME_MAX: usize = 65_536;
/// MTU of the one interface.
const MTU: u32 = 1500;
/// The director's MAC, locally administered.
const OWN_MAC: [u8; 6] = [0x02, 0x78, 0x76, 0x73, 0x00, 0x01];
/// The next hop's, if the configuration names none.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x78, 0x76, 0x73, 0x00, 0x02];
const SOURCE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
/// Servers and next hops that a replay has room for.
const REALS: usize = 1 << 14;

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The capture is not one that can be replayed.
    #[error("{path}: frame {frame}: {what}")]
    Capture {
        /// Its path.
        path: PathBuf,
        /// Number of the frame, from 1; 0 for the file's header.
        frame: u64,
        /// What is wrong.
        what: String,
    },
}

impl ReplayError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            ReplayError::Run(error) => error.exit_code(),
            ReplayError::File { .. } => 3,
            ReplayError::Capture { .. } => 12,
        }
    }
}

/// What became of one frame.
#[derive(Debug, Serialize)]
struct Line {
    frame: u64,
    time_ms: u64,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

/// Replays a capture and tells in a few lines what came of it.
///
/// # Errors
/// A file or the configuration is wrong.
pub fn replay(options: &Replay) -> Result<String, ReplayError> {
    let document = run::read_config(&options.config)?;
    let desired = Desired::validate(document, Builtin::NAMES).map_err(RunError::from)?;
    let (engine, shared) = engine(&desired)?;

    let input = BufReader::new(open(&options.pcap_in)?);
    let bad = |frame, what: String| ReplayError::Capture { path: options.pcap_in.clone(), frame, what };
    let mut reader = PcapReader::new(input).map_err(|error| bad(0, format!("not a pcap file: {error}")))?;
    if reader.header().datalink != DataLink::ETHERNET {
        return Err(bad(0, format!("its link type is {:?}; only Ethernet can be replayed", reader.header().datalink)));
    }
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let output = BufWriter::new(create(&options.pcap_out)?);
    let mut writer = PcapWriter::with_header(output, header).map_err(|error| bad(0, error.to_string()))?;
    let mut lines = match &options.verdicts {
        Some(path) => Some(BufWriter::new(create(path)?)),
        None => None,
    };

    let mut chunk = vec![0; HEADROOM + FRAME_MAX];
    let mut counts = [0u64; 2];
    let mut frame = 0;
    while let Some(packet) = reader.next_packet() {
        frame += 1;
        let packet = packet.map_err(|error| bad(frame, error.to_string()))?;
        let bytes = packet.data.get(..packet.data.len().min(FRAME_MAX)).unwrap_or_default();
        chunk[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        let now = Now::from_millis(packet.timestamp.as_millis() as u64);
        let Some(mut moving) = Packet::new(&mut chunk, HEADROOM, HEADROOM + bytes.len()) else { continue };
        let (verdict, flow) = run_frame(&engine, &mut moving, now);
        let (word, reason) = match verdict {
            Verdict::Transmit(_) => ("transmit", None),
            Verdict::Reflect => ("answer", None),
            // Next hops are static here.
            Verdict::Hold(_) => ("hold", None),
            Verdict::Drop(reason) => ("drop", Some(reason.name())),
        };
        if reason.is_none() {
            let sent = moving.bytes();
            let packet = PcapPacket::new(packet.timestamp, sent.len() as u32, sent);
            writer.write_packet(&packet).map_err(|error| bad(frame, error.to_string()))?;
        }
        counts[usize::from(reason.is_some())] += 1;
        if let Some(lines) = &mut lines {
            let server = flow.and_then(|flow| server_of(&shared, &flow));
            let flow = flow.map(|flow| format!("{} {} -> {}", flow.protocol, flow.src, flow.dst));
            let line = Line { frame, time_ms: now.millis(), verdict: word, reason, flow, server };
            let path = options.verdicts.clone().unwrap_or_default();
            serde_json::to_writer(&mut *lines, &line)
                .map_err(io::Error::from)
                .and_then(|()| lines.write_all(b"\n"))
                .map_err(|source| ReplayError::File { path, source })?;
        }
    }
    for (writer, path) in [(lines.as_mut(), options.verdicts.as_ref())] {
        if let (Some(writer), Some(path)) = (writer, path) {
            writer.flush().map_err(|source| ReplayError::File { path: path.clone(), source })?;
        }
    }
    let [sent, dropped] = counts;
    Ok(format!("{frame} frames: {sent} sent, {dropped} dropped; {} connections at the end\n", shared.table.len()))
}

fn run_frame(engine: &Engine, packet: &mut Packet<'_>, now: Now) -> (Verdict, Option<Flow>) {
    match engine.inspect(packet.bytes()) {
        Ok(inspected) => {
            let flow = inspected.headers().flow;
            (engine.forward(packet, inspected, now), Some(flow))
        }
        Err(reason) => (Verdict::Drop(reason), None),
    }
}

fn server_of(shared: &Shared, flow: &Flow) -> Option<String> {
    let (conn, _) = shared.table.lookup(flow, shared.table.hash(flow))?;
    Some(shared.arena.get(conn.real()).endpoint().to_string())
}

fn open(path: &FilePath) -> Result<File, ReplayError> {
    File::open(path).map_err(|source| ReplayError::File { path: path.to_owned(), source })
}

fn create(path: &FilePath) -> Result<File, ReplayError> {
    File::create(path).map_err(|source| ReplayError::File { path: path.to_owned(), source })
}

/// An engine with the configuration's rules in force.
fn engine(desired: &Desired) -> Result<(Engine, Arc<Shared>), ReplayError> {
    let generation = match desired.director().compat {
        Compat::New => Generation::New,
        Compat::Old => Generation::Old,
    };
    let sizes = Sizes { connections: desired.capacity(), reals: REALS, hops: REALS };
    let shared = Arc::new(Shared::new(sizes, HashKey::from_bytes([0x78; 32]), generation));
    let counters = Arc::new(Counters::new(REALS));
    let mut book = Book::new(shared.clone(), vec![counters.clone()]);
    let gateway = desired.interfaces().iter().find_map(|interface| interface.gateway);
    let mac = gateway.map_or(GATEWAY_MAC, |gateway| gateway.mac.0);
    let refused = |refusal: Refusal| RunError::Refused(refusal.message);
    for state in desired.services() {
        book.add_service(state.spec.clone()).map_err(refused)?;
        for server in &state.servers {
            for effect in book.add_server(&state.spec.id, *server).map_err(refused)? {
                let Effect::Route(real) = effect else { continue };
                let server = Address::from(server.address.ip());
                let source = match server.family() {
                    Family::Inet => Address::v4(SOURCE4.octets()),
                    Family::Inet6 => Address::v6(SOURCE6.octets()),
                };
                if let Some(hop) = shared.hops.intern(InterfaceId(0), gateway_address(server.family())) {
                    shared.hops.resolve(hop, mac);
                    shared.arena.get(real).set_path(Path::Hop(hop), MTU, Some(source));
                }
            }
        }
    }
    for family in [Family::Inet, Family::Inet6] {
        if let Some(hop) = shared.hops.intern(InterfaceId(0), gateway_address(family)) {
            shared.hops.resolve(hop, mac);
        }
    }
    crate::control::report::set_timeouts(&shared, desired.timeouts());
    let tagging = gateway.and_then(|gateway| gateway.vlan).and_then(|vlan| Tags::new(&[(0x8100, vlan)]));
    let interface = Interface {
        name: desired.interfaces().first().map_or_else(|| "replay".to_owned(), |interface| interface.name.clone()),
        port: Some(Port(0)),
        mac: OWN_MAC,
        tagging: tagging.map_or(Tagging::Keep, Tagging::Set),
        mtu: MTU,
        addresses: vec![Address::v4(SOURCE4.octets()), Address::v6(SOURCE6.octets())],
    };
    let default = |family| Route {
        prefix: match family {
            Family::Inet => Address::v4([0; 4]),
            Family::Inet6 => Address::v6([0; 16]),
        },
        length: 0,
        target: Target::Via {
            interface: InterfaceId(0),
            gateway: Some(gateway_address(family)),
            mtu: MTU,
            source: None,
        },
    };
    let routes = Routes::new([default(Family::Inet), default(Family::Inet6)]);
    let snapshot = Arc::new(Snapshot::new(1, &book.services(), vec![interface], routes));
    Ok((Engine::new(shared.clone(), snapshot, counters, 0, 1), shared))
}

/// A name for the one next hop in the table of next hops.
fn gateway_address(family: Family) -> Address {
    match family {
        Family::Inet => Address::v4([192, 0, 2, 253]),
        Family::Inet6 => Address::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfd).octets()),
    }
}

impl From<Vec<Problem>> for ReplayError {
    fn from(problems: Vec<Problem>) -> Self {
        ReplayError::Run(RunError::Configuration(desired::report(&problems)))
    }
}
