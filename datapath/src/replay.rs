//! `xvs replay`: a capture through the same engine, without root, NIC or clock.
//!
//! Time is the capture's, from its first frame on; a frame that is stamped earlier than the one before it comes at the
//! same time as that. There is one interface, with the first `gateway_mac` of the configuration as everybody's next
//! hop; tunnels start from documentation addresses (192.0.2.254, 2001:db8::fe). Frames that the XDP program would have
//! left to the kernel are dropped here with the reason that says so. The hash key is fixed, so a replay repeats.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use xvs_engine::conn::Class;
use xvs_engine::counters::Counters;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Engine, Shared, Sizes, Verdict};
use xvs_engine::flow::{Address, Family, Flow, HashKey};
use xvs_engine::forward::cut::Cut;
use xvs_engine::hop::{Interface, InterfaceId, Port, Tagging};
use xvs_engine::mark::Marks;
use xvs_engine::real::{Path, RealId};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::sched::Builtin;
use xvs_engine::snapshot::{Services, Snapshot};
use xvs_engine::time::Now;
use xvs_engine::wire::{Mac, Packet, Tags};
use xvs_engine::worker::FRAGMENT_WAIT_MS;
use xvs_redirect::{Key, Range};

use crate::cli::Replay;
use crate::config::{Desired, Problem, desired};
use crate::control::book::{Book, Outside, check_room};
use crate::control::protocol::Refusal;
use crate::control::timeouts;
use crate::run::{self, RunError};

mod capture;

use capture::{Capture, FRAME_MAX, Lines, Output};

/// Room before each packet, as AF_XDP leaves it.
const HEADROOM: usize = 256;
/// MTU of the one interface.
const MTU: u32 = 1500;
/// The director's MAC, locally administered.
const OWN_MAC: [u8; 6] = [0x02, 0x78, 0x76, 0x73, 0x00, 0x01];
/// The next hop's, if the configuration names none.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x78, 0x76, 0x73, 0x00, 0x02];
const SOURCE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
/// Next hops that a replay has room for: the two that there are.
const HOPS: usize = 16;

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
    /// Two of the files are one.
    #[error("{path}: it is written and read; name another file")]
    SameFile {
        /// Its path.
        path: PathBuf,
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
            ReplayError::File { .. } | ReplayError::SameFile { .. } => 3,
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
    let mut desired = Desired::validate(document, Builtin::NAMES).map_err(RunError::from)?;
    desired.start_from(&run::base(Some(&options.config))?);
    let (mut engine, shared) = engine(&desired)?;

    let mut capture = Capture::open(&options.pcap_in)?;
    refuse_same(options)?;
    let mut output = Output::create(&options.pcap_out, capture.resolution())?;
    let mut lines = options.verdicts.as_deref().map(Lines::create).transpose()?;

    let mut chunk = vec![0; HEADROOM + FRAME_MAX];
    let mut counts = [0u64; 2];
    let mut early = Early::default();
    let (mut frames, mut now) = (0, Now::default());
    while let Some(frame) = capture.next()? {
        frames += 1;
        now = now.max(frame.time);
        engine.expire(now);
        chunk[HEADROOM..HEADROOM + frame.bytes.len()].copy_from_slice(&frame.bytes);
        let Some(mut packet) = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.bytes.len()) else { continue };
        let (verdict, flow) = run_frame(&engine, &mut packet, now);
        let (word, reason) = match verdict {
            Verdict::Transmit(_) => ("transmit", None),
            Verdict::Reflect => ("answer", None),
            Verdict::Split { .. } => ("split", None),
            // Next hops are static here: only later fragments wait.
            Verdict::Hold(_) => ("hold", None),
            Verdict::Drop(reason) => ("drop", Some(reason.name())),
        };
        let mut count = |sent: bool| counts[usize::from(!sent)] += 1;
        match verdict {
            Verdict::Hold(_) => early.waiting.push((now, packet.bytes().to_vec())),
            _ => count(send(&mut output, frame.stamp, packet.bytes(), verdict)?),
        }
        early.release(&engine, shared.fragments.notes(), now, |verdict, packet| {
            count(send(&mut output, frame.stamp, packet, verdict)?);
            Ok(())
        })?;
        if let Some(lines) = &mut lines {
            let server = flow.and_then(|flow| server_of(&shared, &flow));
            let flow = flow.map(|flow| format!("{} {} -> {}", flow.protocol, flow.src, flow.dst));
            let time_ms = frame.stamp.as_millis() as u64;
            lines.write(&Line { frame: frames, time_ms, verdict: word, reason, flow, server })?;
        }
    }
    counts[1] += early.waiting.len() as u64;
    output.finish()?;
    lines.map_or(Ok(()), Lines::finish)?;
    let [sent, dropped] = counts;
    let living = shared.table.iter().filter(|conn| conn.expires_in(now) > 0).count();
    Ok(format!("{frames} frames: {sent} sent, {dropped} dropped; {living} connections at the end\n"))
}

/// Is a file to be written that is read, or written twice? It would be emptied before it is read.
fn refuse_same(options: &Replay) -> Result<(), ReplayError> {
    let file = |path: &PathBuf| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let mut seen = vec![file(&options.config), file(&options.pcap_in)];
    for path in [Some(&options.pcap_out), options.verdicts.as_ref()].into_iter().flatten() {
        let this = file(path);
        let again = options.verdicts.as_ref() == Some(&options.pcap_out);
        let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        if again || regular && seen.contains(&this) {
            return Err(ReplayError::SameFile { path: path.clone() });
        }
        seen.push(this);
    }
    Ok(())
}

/// Writes what leaves: nothing, the packet, or the fragments that it is cut into. Was it sent?
fn send(output: &mut Output<'_>, stamp: Duration, packet: &[u8], verdict: Verdict) -> Result<bool, ReplayError> {
    match verdict {
        Verdict::Transmit(_) | Verdict::Reflect => output.write(stamp, packet)?,
        Verdict::Split { mtu, .. } => {
            let Ok(cut) = Cut::new(packet, mtu.into(), stamp.subsec_nanos()) else { return Ok(false) };
            let mut piece = vec![0; FRAME_MAX];
            for index in 0..cut.count() {
                let length = cut.write(index, &mut piece).unwrap_or_default();
                output.write(stamp, &piece[..length])?;
            }
        }
        Verdict::Hold(_) | Verdict::Drop(_) => return Ok(false),
    }
    Ok(true)
}

/// Later fragments that came before their first one, as they came, and when.
#[derive(Default)]
struct Early {
    waiting: Vec<(Now, Vec<u8>)>,
    seen: u64,
}

impl Early {
    /// Looks at them again if a first fragment has passed; those that waited for too long are done with as dropped.
    fn release(
        &mut self,
        engine: &Engine,
        notes: u64,
        now: Now,
        mut done: impl FnMut(Verdict, &[u8]) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        if std::mem::replace(&mut self.seen, notes) == notes {
            return Ok(());
        }
        for (since, mut bytes) in std::mem::take(&mut self.waiting) {
            let mut chunk = vec![0; HEADROOM];
            chunk.append(&mut bytes);
            let end = chunk.len();
            let Some(mut packet) = Packet::new(&mut chunk, HEADROOM, end) else { continue };
            let late = now.since(since) >= FRAGMENT_WAIT_MS;
            match if late { Verdict::Drop(DropReason::FragmentUnknown) } else { run_frame(engine, &mut packet, now).0 }
            {
                Verdict::Hold(_) => self.waiting.push((since, packet.bytes().to_vec())),
                verdict => done(verdict, packet.bytes())?,
            }
        }
        Ok(())
    }
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

/// The one network of a replay: everybody is reached by the same next hop, and nothing needs to be steered.
struct Surroundings<'a> {
    shared: &'a Shared,
    mac: Mac,
}

impl Outside for Surroundings<'_> {
    fn publish(&mut self, _services: &Services, _marks: &Arc<Marks>) {}

    fn steer(&mut self, _key: &Key) -> Result<(), Refusal> {
        Ok(())
    }

    fn unsteer(&mut self, _key: &Key) {}

    fn ranges(&mut self, _ranges: &[Range]) -> Result<(), Refusal> {
        Ok(())
    }

    fn route(&mut self, real: RealId, server: IpAddr) {
        let family = Address::from(server).family();
        let source = match family {
            Family::Inet => Address::v4(SOURCE4.octets()),
            Family::Inet6 => Address::v6(SOURCE6.octets()),
        };
        if let Some(hop) = self.shared.hops.intern(InterfaceId(0), gateway_address(family)) {
            self.shared.hops.resolve(hop, self.mac);
            self.shared.arena.get(real).set_path(Path::Hop(hop), MTU, Some(source));
        }
    }
}

/// An engine with the configuration's rules in force.
fn engine(desired: &Desired) -> Result<(Engine, Arc<Shared>), ReplayError> {
    check_room(desired.marks(), desired.services()).map_err(|refusal| RunError::Refused(refusal.message))?;
    let servers: usize = desired.services().iter().map(|state| state.servers.len()).sum();
    let sizes = Sizes { connections: desired.capacity(), reals: servers.max(1), hops: HOPS };
    let shared = run::tables(desired, sizes, HashKey::from_bytes([0x78; 32]))?;
    let counters = Arc::new(Counters::new(servers.max(1)));
    let mut book = Book::new(shared.clone(), vec![counters.clone()]);
    book.begin_with(desired.settings());
    // A capture has no seconds between which the table could run short: one look decides.
    book.defend(Now::default());
    let gateway = desired.interfaces().iter().find_map(|interface| interface.gateway);
    let mac = gateway.map_or(GATEWAY_MAC, |gateway| gateway.mac.0);
    let mut outside = Surroundings { shared: &shared, mac };
    let refused = |refusal: Refusal| RunError::Refused(refusal.message);
    book.load_plugins(desired).map_err(refused)?;
    book.replace_marks(desired.marks().to_vec()).map_err(refused)?;
    for state in desired.services() {
        book.open_service(state.spec.clone()).map_err(refused)?;
        book.set_timeouts(&state.spec.id, &state.timeouts, true).map_err(refused)?;
        for server in &state.servers {
            book.add_server(&state.spec.id, *server, &mut outside).map_err(refused)?;
        }
    }
    for family in [Family::Inet, Family::Inet6] {
        if let Some(hop) = shared.hops.intern(InterfaceId(0), gateway_address(family)) {
            shared.hops.resolve(hop, mac);
        }
    }
    timeouts::set_states(&shared, Class::DIRECTOR, desired.timeouts());
    let tagging = gateway.and_then(|gateway| gateway.vlan).and_then(|vlan| Tags::new(&[(0x8100, vlan)]));
    let interface = Interface {
        name: desired.interfaces().first().map_or_else(|| "replay".to_owned(), |interface| interface.name.clone()),
        port: Some(Port(0)),
        mac: OWN_MAC,
        tagging: tagging.map_or(Tagging::Keep, Tagging::Set),
        mtu: MTU,
        partial: true,
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
    let snapshot =
        Snapshot::of(1, book.services().clone(), [interface].into(), routes.into()).with_marks(book.marks().clone());
    Ok((Engine::new(shared.clone(), Arc::new(snapshot), counters, 0, 1), shared))
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
