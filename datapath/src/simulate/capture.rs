//! Packets of a capture, pcap or pcapng, as far as connections are concerned: who to whom, when, flags, length.
//!
//! Invariant: no file makes this panic, and a file that ends in the middle of a packet (a capture that was interrupted)
//! is good up to there. Frames that say nothing about a connection are counted by why, and passed over. Not here: what
//! belongs together (`trace.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use xvs_engine::flow::{Address, Endpoint, Flow, Protocol};

use super::error::SimulateError;

/// The first bytes of a pcapng file.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Resolution of time stamps if a pcapng file says none: microseconds.
const RESOLUTION: u8 = 6;

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Nanoseconds of the capture's clock.
    pub(super) stamp_ns: u64,
    /// Who to whom.
    pub(super) flow: Flow,
    /// TCP: it begins a connection, or answers that.
    pub(super) syn: bool,
    /// TCP: it acknowledges something.
    pub(super) ack: bool,
    /// TCP: one side is at its end.
    pub(super) fin: bool,
    /// TCP: it is over.
    pub(super) rst: bool,
    /// Bytes on the wire.
    pub(super) length: u32,
}

/// How many frames there were, and how many of them were passed over and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Frames of the file.
    pub(super) frames: u64,
    /// Those passed over, by reason.
    pub(super) passed: BTreeMap<&'static str, u64>,
    /// The file ended in the middle of a frame.
    pub(super) cut: bool,
}

/// A frame of a file.
struct Frame<'a> {
    link: DataLink,
    stamp_ns: u64,
    length: u32,
    bytes: &'a [u8],
}

/// Gives every packet of a file that may belong to a connection to `take`.
///
/// # Errors
/// The file can not be read, or is no capture.
pub(super) fn read(
    path: &Path,
    mut take: impl FnMut(Seen) -> Result<(), SimulateError>,
) -> Result<Tally, SimulateError> {
    let failed = |source| SimulateError::File { path: path.to_owned(), source };
    let mut input = BufReader::new(File::open(path).map_err(failed)?);
    let is_pcapng = input.fill_buf().map_err(failed)?.starts_with(&PCAPNG);
    let mut tally = Tally::default();
    let mut count = |frame: Frame<'_>| -> Result<(), SimulateError> {
        tally.frames += 1;
        match look(&frame) {
            Ok(seen) => take(seen),
            Err(why) => {
                *tally.passed.entry(why).or_default() += 1;
                Ok(())
            }
        }
    };
    let cut = if is_pcapng { read_pcapng(path, input, &mut count)? } else { read_pcap(path, input, &mut count)? };
    tally.cut = cut;
    Ok(tally)
}

fn bad(path: &Path, what: String) -> SimulateError {
    SimulateError::Capture { path: path.to_owned(), what }
}

/// Is the error just the end of the file? Else it is one.
fn is_cut(path: &Path, frames: u64, error: PcapError) -> Result<bool, SimulateError> {
    match error {
        PcapError::IncompleteBuffer => Ok(true),
        PcapError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
        error => Err(bad(path, format!("frame {}: {error}", frames + 1))),
    }
}

fn read_pcap(
    path: &Path,
    input: impl BufRead,
    take: &mut impl FnMut(Frame<'_>) -> Result<(), SimulateError>,
) -> Result<bool, SimulateError> {
    let mut reader = PcapReader::new(input)
        .map_err(|error| bad(path, format!("it is no pcap or pcapng file, as `tcpdump -w` writes them ({error})")))?;
    let (link, resolution) = (reader.header().datalink, reader.header().ts_resolution);
    known(path, link)?;
    let mut frames = 0;
    // The raw form: the other one refuses frames that were cut when they were captured (`tcpdump -s`).
    while let Some(packet) = reader.next_raw_packet() {
        let packet = match packet {
            Ok(packet) => packet,
            Err(error) => return is_cut(path, frames, error),
        };
        frames += 1;
        let unit = if resolution == TsResolution::NanoSecond { 1 } else { 1000 };
        let stamp_ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit;
        take(Frame { link, stamp_ns, length: packet.orig_len, bytes: &packet.data })?;
    }
    Ok(false)
}

fn read_pcapng(
    path: &Path,
    input: impl BufRead,
    take: &mut impl FnMut(Frame<'_>) -> Result<(), SimulateError>,
) -> Result<bool, SimulateError> {
    let mut reader =
        PcapNgReader::new(input).map_err(|error| bad(path, format!("it is no whole pcapng file ({error})")))?;
    let mut frames = 0;
    // Of each interface of the section: its link type and the resolution of its time stamps.
    let mut interfaces: Vec<(DataLink, u8)> = Vec::new();
    while let Some(block) = reader.next_block() {
        let block = match block {
            Ok(block) => block,
            Err(error) => return is_cut(path, frames, error),
        };
        match block {
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                let resolution = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
                    _ => None,
                });
                interfaces.push((interface.linktype, resolution.unwrap_or(RESOLUTION)));
            }
            Block::EnhancedPacket(packet) => {
                frames += 1;
                let Some(&(link, resolution)) = interfaces.get(packet.interface_id as usize) else {
                    return Err(bad(path, format!("frame {frames}: there is no interface {}", packet.interface_id)));
                };
                known(path, link)?;
                // The crate takes the stamp for nanoseconds whatever its unit is.
                let stamp_ns = nanoseconds(packet.timestamp.as_nanos(), resolution);
                take(Frame { link, stamp_ns, length: packet.original_len, bytes: &packet.data })?;
            }
            _ => {}
        }
    }
    Ok(false)
}

/// A stamp of pcapng in nanoseconds. The resolution is a power of ten, or of two if its highest bit is set.
fn nanoseconds(stamp: u128, resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let units = if resolution & 0x80 == 0 { 10u128.checked_pow(exponent) } else { 1u128.checked_shl(exponent) };
    // A unit too small for a number makes every stamp 0.
    let whole = |units: u128| stamp.saturating_mul(1_000_000_000) / units.max(1);
    units.map_or(0, whole).try_into().unwrap_or(u64::MAX)
}

fn known(path: &Path, link: DataLink) -> Result<(), SimulateError> {
    match link {
        DataLink::ETHERNET | DataLink::RAW | DataLink::LINUX_SLL | DataLink::IPV4 | DataLink::IPV6 => Ok(()),
        other => {
            Err(bad(path, format!("its link type is {other:?}; Ethernet, raw IP and Linux's \"any\" can be read")))
        }
    }
}

/// What a frame says about a connection, or why it says nothing.
fn look(frame: &Frame<'_>) -> Result<Seen, &'static str> {
    let packet = match frame.link {
        DataLink::ETHERNET => LaxSlicedPacket::from_ethernet(frame.bytes).map_err(|_| "cut short"),
        DataLink::LINUX_SLL => frame.bytes.get(16..).ok_or("cut short").and_then(of_ip),
        _ => of_ip(frame.bytes),
    }?;
    let (source, destination) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => (Address::v4(ip.header().source()), Address::v4(ip.header().destination())),
        Some(LaxNetSlice::Ipv6(ip)) => (Address::v6(ip.header().source()), Address::v6(ip.header().destination())),
        _ => return Err("not IP"),
    };
    let seen = |protocol, from, to| Seen {
        stamp_ns: frame.stamp_ns,
        flow: Flow { protocol, src: Endpoint::new(source, from), dst: Endpoint::new(destination, to) },
        syn: false,
        ack: false,
        fin: false,
        rst: false,
        length: frame.length,
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Ok(Seen {
            syn: tcp.syn(),
            ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            ..seen(Protocol::TCP, tcp.source_port(), tcp.destination_port())
        }),
        Some(TransportSlice::Udp(udp)) => Ok(seen(Protocol::UDP, udp.source_port(), udp.destination_port())),
        Some(_) => Err("ICMP"),
        None if packet.stop_err.is_some() => Err("cut short"),
        None => Err("another protocol or a later fragment"),
    }
}

fn of_ip(bytes: &[u8]) -> Result<LaxSlicedPacket<'_>, &'static str> {
    LaxSlicedPacket::from_ip(bytes).map_err(|_| "not IP")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps of pcapng have units of many kinds; no unit makes them overflow.
    #[test]
    fn stamps_have_units() {
        assert_eq!(nanoseconds(5, 0), 5_000_000_000);
        assert_eq!(nanoseconds(5, 6), 5000);
        assert_eq!(nanoseconds(5, 9), 5);
        assert_eq!(nanoseconds(3, 0x81), 1_500_000_000);
        for resolution in 0..=255 {
            nanoseconds(u128::from(u64::MAX), resolution);
        }
    }
}
