//! The far end of tunnels, made of sockets: raw sockets take IP in IP (RFC 2003, RFC 2473, RFC 4213), GRE (RFC 2784) and
//! GUE from the wire, and another raw socket hands the inner packet to the kernel, whose address it carries.
//!
//! Invariant: the inner packet goes on only if its header is right, and the kernel checks its TCP and UDP checksum as
//! for any packet from the wire. Whatever is wrong is printed and dropped.
//!
//! Not here: remote checksum offload, keys and sequence numbers of GRE, options of GUE that change the payload.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};

use crate::checksum::sum;

const PROTOCOL_IPV4: i32 = 4;
const PROTOCOL_UDP: i32 = 17;
const PROTOCOL_IPV6: i32 = 41;
const PROTOCOL_GRE: i32 = 47;
/// A raw socket of this protocol sends packets whose IP header the sender wrote.
const PROTOCOL_RAW: i32 = 255;

/// The port of GUE that the kernel's documentation and ipvsadm use.
const GUE_PORT: u16 = 6080;

/// Room for a burst while this process waits for its turn.
const BUFFER_LEN: usize = 8 << 20;

/// No packet is longer.
const MAX_LEN: usize = 65536;

/// Starts one thread for each kind of tunnel.
pub(crate) fn start() -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for domain in [Domain::IPV4, Domain::IPV6] {
        // Raw IPv4 sockets deliver the IP header too, others do not.
        let headed = domain == Domain::IPV4;
        for protocol in [PROTOCOL_IPV4, PROTOCOL_IPV6] {
            threads.push(serve(raw(domain, protocol)?, headed, "IP in IP", open_ip)?);
        }
        threads.push(serve(raw(domain, PROTOCOL_GRE)?, headed, "GRE", open_gre)?);
        let any: SocketAddr = match domain {
            Domain::IPV4 => (Ipv4Addr::UNSPECIFIED, GUE_PORT).into(),
            _ => (Ipv6Addr::UNSPECIFIED, GUE_PORT).into(),
        };
        let socket = Socket::new(domain, Type::DGRAM, None)?;
        if any.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&any.into()).context("the GUE port could not be opened")?;
        threads.push(serve(UdpSocket::from(socket).into(), false, "GUE", open_gue)?);
    }
    // The kernel refuses UDP over IPv6 without a checksum, which tunnels may do (RFC 6935); a raw socket sees it.
    threads.push(serve(raw(Domain::IPV6, PROTOCOL_UDP)?, false, "GUE", open_unchecked_gue)?);
    Ok(threads)
}

fn raw(domain: Domain, protocol: i32) -> Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).context("a raw socket needs root")?;
    setsockopt(&socket, RcvBufForce, &BUFFER_LEN)?;
    Ok(socket)
}

/// Takes packets from `socket` (behind their IP header if `headed`), opens them with `open`, hands them on.
fn serve(
    mut socket: Socket,
    headed: bool,
    kind: &'static str,
    open: fn(&[u8]) -> Result<&[u8]>,
) -> Result<JoinHandle<()>> {
    let kernel = Kernel::new()?;
    Ok(thread::spawn(move || {
        let mut packet = vec![0; MAX_LEN];
        loop {
            let Ok(len) = socket.read(&mut packet) else { continue };
            let outer_len = if headed { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
            let inner = packet.get(outer_len..len).context("a short packet").and_then(open);
            match inner {
                Ok([]) => {}
                Ok(inner) => {
                    if let Err(error) = kernel.take(inner) {
                        eprintln!("{kind}: a packet was dropped: {error:#}");
                    }
                }
                Err(error) => eprintln!("{kind}: a packet was dropped: {error:#}"),
            }
        }
    }))
}

fn open_ip(packet: &[u8]) -> Result<&[u8]> {
    Ok(packet)
}

fn open_gre(packet: &[u8]) -> Result<&[u8]> {
    let (head, rest) = packet.split_first_chunk::<4>().context("a short GRE header")?;
    match head[0] & 0xf0 {
        0x00 => Ok(rest),
        0x80 => {
            ensure!(sum([packet]) == 0xffff, "a wrong GRE checksum");
            rest.get(4..).context("a short GRE header")
        }
        _ => bail!("GRE flags that nobody asked for: {:#x}", head[0]),
    }
}

fn open_gue(datagram: &[u8]) -> Result<&[u8]> {
    let first = *datagram.first().context("an empty GUE datagram")?;
    match first >> 5 {
        // Variant 0: a header of its own, whose lowest five bits count the optional words.
        0 => datagram.get(4 + usize::from(first & 0x1f) * 4..).context("a short GUE header"),
        // Variant 1: an IP packet follows at once, and its version makes these bits.
        2 | 3 => Ok(datagram),
        other => bail!("a GUE variant that nobody asked for: {other}"),
    }
}

/// The GUE payload of a UDP packet without a checksum; empty for all other UDP, which is not ours.
fn open_unchecked_gue(packet: &[u8]) -> Result<&[u8]> {
    match packet.split_first_chunk::<8>() {
        Some((head, datagram)) if head[2..4] == GUE_PORT.to_be_bytes() && head[6..8] == [0, 0] => open_gue(datagram),
        _ => Ok(&[]),
    }
}

/// Hands packets to this machine's own kernel.
struct Kernel {
    v4: Socket,
    v6: Socket,
}

impl Kernel {
    fn new() -> Result<Self> {
        Ok(Kernel { v4: raw(Domain::IPV4, PROTOCOL_RAW)?, v6: raw(Domain::IPV6, PROTOCOL_RAW)? })
    }

    fn take(&self, packet: &[u8]) -> Result<()> {
        let version = packet.first().context("an empty packet")? >> 4;
        let (socket, to): (_, SocketAddr) = match version {
            4 => (&self.v4, (checked_v4(packet)?, 0).into()),
            6 => (&self.v6, (checked_v6(packet)?, 0).into()),
            other => bail!("IP version {other}"),
        };
        socket.send_to(packet, &to.into()).context("the kernel did not take it")?;
        Ok(())
    }
}

fn checked_v4(packet: &[u8]) -> Result<Ipv4Addr> {
    let header = packet.get(..usize::from(packet[0] & 0x0f) * 4).context("a short IPv4 header")?;
    ensure!(header.len() >= 20, "a short IPv4 header");
    ensure!(sum([header]) == 0xffff, "a wrong IPv4 header checksum");
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    ensure!(len == packet.len(), "a total length of {len} over {} bytes", packet.len());
    ensure!(header[8] > 0, "TTL 0");
    Ok(Ipv4Addr::new(header[16], header[17], header[18], header[19]))
}

fn checked_v6(packet: &[u8]) -> Result<Ipv6Addr> {
    let (header, payload) = packet.split_first_chunk::<40>().context("a short IPv6 header")?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    ensure!(len == payload.len(), "a payload length of {len} over {} bytes", payload.len());
    ensure!(header[7] > 0, "hop limit 0");
    let mut to = [0; 16];
    to.copy_from_slice(&header[24..40]);
    Ok(to.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // What the director's engine makes of a datagram with one byte, behind the outer IPv4 header. Its own tests have
    // these bytes from another hand.
    const V4: &str = "4500001d04d240003f114ac2c6336407c00002019c4000500009060f71";
    const V6: &str = "600000000009113f20010db8000c0000000000000000000720010db8000000000000000000000001\
                      9c400050000996c571";
    const UDP_HEADERS: [&str; 4] = ["b8bb17c000290000", "e0fc17c0003d0000", "b8bb17c00029066d", "e0fc17c0003d8059"];
    const GUE_HEADERS: [&str; 2] = ["00040000", "00290000"];
    const GRE_HEADERS: [&str; 4] = ["00000800", "000086dd", "8000080064560000", "800086dd87f30000"];

    fn bytes(parts: &[&str]) -> Vec<u8> {
        let text = parts.concat();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    /// Guards GRE: both headers are opened for both families, and a checksum over an odd length is checked.
    #[test]
    fn gre_is_opened() {
        for (header, inner) in GRE_HEADERS.iter().zip([V4, V6].iter().cycle()) {
            let packet = bytes(&[header, inner]);
            assert_eq!(open_gre(&packet).expect(header), bytes(&[inner]));
            let mut damaged = packet.clone();
            *damaged.last_mut().expect("bytes") ^= 1;
            assert_eq!(open_gre(&damaged).is_err(), header.len() == 16, "{header}");
            assert!(open_gre(&packet[..3]).is_err());
        }
        assert!(open_gre(&bytes(&["20000800", "00000000", V4])).is_err(), "a key");
    }

    /// Guards GUE: its header is opened for both families, options are skipped, and only our port without a checksum is
    /// taken from the raw socket.
    #[test]
    fn gue_is_opened() {
        for (index, udp) in UDP_HEADERS.iter().enumerate() {
            let (header, inner) = (GUE_HEADERS[index % 2], [V4, V6][index % 2]);
            let datagram = bytes(&[header, inner]);
            assert_eq!(open_gue(&datagram).expect(header), bytes(&[inner]));
            let taken = open_unchecked_gue(&bytes(&[udp, header, inner])).expect(udp).to_vec();
            assert_eq!(taken, if index < 2 { bytes(&[inner]) } else { vec![] }, "with a checksum the socket has it");
        }
        assert_eq!(open_gue(&bytes(&["02040000", "0011223344556677", V4])).expect("options"), bytes(&[V4]));
        assert!(open_gue(&bytes(&["0204000000112233"])).is_err(), "options cut off");
        assert!(open_gue(&bytes(&["80040000", V4])).is_err(), "version 2");
        assert_eq!(open_unchecked_gue(&bytes(&["b8bb003500290000", "00040000", V4])).expect("DNS"), [0u8; 0]);
    }

    /// Guards the inner packet: the kernel gets it only if its header is right.
    #[test]
    fn inner_headers_are_checked() {
        let (v4, v6) = (bytes(&[V4]), bytes(&[V6]));
        assert_eq!(checked_v4(&v4).expect("right"), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(checked_v6(&v6).expect("right"), "2001:db8::1".parse::<Ipv6Addr>().expect("address"));
        for at in [2, 8, 10] {
            let mut wrong = v4.clone();
            wrong[at] ^= 0x3f;
            assert!(checked_v4(&wrong).is_err(), "byte {at}");
        }
        assert!(checked_v4(&v4[..28]).is_err() && checked_v6(&v6[..48]).is_err(), "cut off");
    }
}
