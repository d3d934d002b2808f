//! TCP resets that the director sends: to a client whose packet belongs to no connection, as a host without that
//! connection would answer it (RFC 9293, 3.10.7.1).
//!
//! Invariant: a reset never answers a reset, nor a fragment. Not here: at which rate, and when.

use crate::flow::{Family, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::{Fragment, Headers, Mac, Packet, TcpFlags, put_u16};

use super::link;
use super::own::Own;

/// Length of a TCP header without options.
const TCP: usize = 20;
/// The TTL of a reset.
const TTL: u8 = 64;

/// Turns a client's segment into a reset from the address that it was sent to, back to where the frame came from. `None`
/// (and the packet is spoilt, or untouched if it must not be answered) if there is no room for it.
pub fn answer(packet: &mut Packet<'_>, headers: Headers) -> Option<()> {
    let Headers { family, l3, l4, end, fragment, flow, tcp, tags, .. } = headers;
    if flow.protocol != Protocol::TCP || fragment != Fragment::Whole || tcp.has(TcpFlags::RST) {
        return None;
    }
    let frame = packet.bytes();
    let from: Mac = *frame.first_chunk()?;
    let to: Mac = *frame[6..].first_chunk()?;
    let segment = &frame[l4..end];
    let word = |at: usize| segment[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let (sequence, acknowledged) = (word(4), word(8));
    let counted = u32::from(tcp.has(TcpFlags::SYN)) + u32::from(tcp.has(TcpFlags::FIN));
    let length = (segment.len() - usize::from(segment[12] >> 4) * 4) as u32 + counted;
    let (sequence, acknowledgement, flags) = match tcp.has(TcpFlags::ACK) {
        true => (acknowledged, 0, TcpFlags::RST),
        false => (0, sequence.wrapping_add(length), TcpFlags::RST | TcpFlags::ACK),
    };

    let ip = if family == Family::Inet { 20 } else { 40 };
    packet.rehead(l3, ip + TCP)?;
    packet.set_len(ip + TCP).then_some(())?;
    let bytes = packet.bytes_mut();
    bytes.fill(0);
    put_u16(bytes, ip, flow.dst.port);
    put_u16(bytes, ip + 2, flow.src.port);
    bytes[ip + 4..ip + 8].copy_from_slice(&sequence.to_be_bytes());
    bytes[ip + 8..ip + 12].copy_from_slice(&acknowledgement.to_be_bytes());
    bytes[ip + 12] = (TCP as u8 / 4) << 4;
    bytes[ip + 13] = flags;
    let (source, client) = (flow.dst.address, flow.src.address);
    let sum = Sum::default().pseudo(source, client, Protocol::TCP, TCP).bytes(&bytes[ip..]);
    put_u16(bytes, ip + 16, sum.finish());
    let protocol = Protocol::TCP;
    Own { source, destination: client, class: 0, ttl: TTL, protocol, ident: None }.write(bytes, TCP)?;
    link::write_header(packet, 0, family, &tags, from, to)
}
