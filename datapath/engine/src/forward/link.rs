//! The link header of a frame that leaves: MAC addresses, VLAN tags, EtherType.

use crate::flow::Family;
use crate::hop::{Interface, Tagging};
use crate::wire::headers::MAX_TAGS;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac, Packet, Tags};

/// Room for the longest link header.
const MAX_LINK: usize = 14 + 4 * MAX_TAGS;

/// Puts a link header before the IP packet that starts at `l3`, in place of the one that is there. `came_with` are the
/// tags that the frame came in with, for interfaces that keep them. `None` if the frame has no room.
#[inline]
pub fn write(
    packet: &mut Packet<'_>,
    l3: usize,
    family: Family,
    came_with: &Tags,
    interface: &Interface,
    to: Mac,
) -> Option<()> {
    let tags = match &interface.tagging {
        Tagging::Keep => came_with,
        Tagging::Set(tags) => tags,
    };
    write_header(packet, l3, family, tags, interface.mac, to)
}

/// The same, with everything given.
#[inline]
pub fn write_header(packet: &mut Packet<'_>, l3: usize, family: Family, tags: &Tags, from: Mac, to: Mac) -> Option<()> {
    let mut header = [0; MAX_LINK];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    let mut end = 12;
    for tag in tags.as_slice() {
        header[end..end + 4].copy_from_slice(tag);
        end += 4;
    }
    let ethertype = if family == Family::Inet { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    header[end..end + 2].copy_from_slice(&ethertype.to_be_bytes());
    end += 2;
    packet.rehead(l3, end)?.copy_from_slice(&header[..end]);
    Some(())
}

/// Replaces the destination MAC of a frame that is otherwise ready.
#[inline]
pub fn set_destination(packet: &mut Packet<'_>, to: Mac) {
    if let Some(field) = packet.bytes_mut().first_chunk_mut::<6>() {
        *field = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(tagging: Tagging) -> Interface {
        Interface {
            name: "eth0".into(),
            port: None,
            mac: [0xaa; 6],
            tagging,
            mtu: 1500,
            partial: true,
            addresses: Vec::new(),
        }
    }

    /// A frame may come in with one number of tags and leave with another; the IP packet must not move.
    #[test]
    fn tags_are_kept_or_replaced() {
        let vlan = |ids: &[(u16, u16)]| Tags::new(ids).unwrap();
        let came_with = vlan(&[(0x8100, 7)]);
        for (tagging, expected) in [
            (Tagging::Keep, &b"\x81\x00\x00\x07\x08\x00IP"[..]),
            (Tagging::Set(Tags::default()), b"\x08\x00IP"),
            (Tagging::Set(vlan(&[(0x88a8, 2), (0x8100, 3)])), b"\x88\xa8\x00\x02\x81\x00\x00\x03\x08\x00IP"),
        ] {
            let mut chunk = [0u8; 64];
            chunk[50..52].copy_from_slice(b"IP");
            let mut packet = Packet::new(&mut chunk, 32, 52).unwrap();
            write(&mut packet, 18, Family::Inet, &came_with, &interface(tagging), [0xbb; 6]).unwrap();
            assert_eq!(&packet.bytes()[..12], &[[0xbb; 6], [0xaa; 6]].concat());
            assert_eq!(&packet.bytes()[12..], expected);
            set_destination(&mut packet, [0xcc; 6]);
            assert_eq!(&packet.bytes()[..7], b"\xcc\xcc\xcc\xcc\xcc\xcc\xaa");
        }
    }
}
