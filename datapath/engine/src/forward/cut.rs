//! A packet that is too large for its way is cut into fragments (RFC 791, RFC 8200 section 4.5).
//!
//! Invariant: a pure function of the frame, the largest size and the identification. The fragments, put together
//! again, give the packet; each is at most so large; all but the last carry a multiple of eight bytes; each has the
//! link header of the whole. What is a fragment already is cut further, as a part of the same original.
//!
//! IPv4 keeps its identification. "Don't fragment" is cleared: whoever asks for the cut has found that it may be done.
//! Options follow RFC 791: all stand in the first fragment, those with the copied flag in every one. IPv6 gets a
//! fragment header behind its header; only the outer header of a tunnel is cut so, because nobody but a packet's source
//! may fragment IPv6, and of a tunnel that is us.
//!
//! Not here: whether a packet may be cut, and where the frames of the fragments come from.

use std::ops::Range;

use crate::drop::DropReason;
use crate::flow::Family;
use crate::wire::checksum::Sum;
use crate::wire::{Fragment, Headers, get_u16, put_u16};

const IPV4_FIXED: usize = 20;
const IPV6_FIXED: usize = 40;
/// An IPv6 fragment header, and its number.
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT_HEADER_NUMBER: u8 = 44;
/// The offset of a fragment, in units of eight bytes; and IPv4's "more fragments".
const OFFSET: u16 = 0x1fff;
const MORE: u16 = 0x2000;
/// The bit before IPv4's "don't fragment" has no meaning and is left as it is.
const RESERVED: u16 = 0x8000;

/// A frame and how it is to be cut.
#[derive(Debug)]
pub struct Cut<'a> {
    frame: &'a [u8],
    headers: Headers,
    /// IPv6's identification.
    id: u32,
    /// IPv4's options of the fragments behind the first.
    copied: Options,
    /// Bytes of payload that fit the first fragment, and any other one.
    room: [usize; 2],
}

impl<'a> Cut<'a> {
    /// Plans how to cut a frame, so that no IP packet is longer than `mtu`. The identification is for IPv6 alone.
    ///
    /// # Errors
    /// The frame is none that can be cut so.
    pub fn new(frame: &'a [u8], mtu: usize, id: u32) -> Result<Self, DropReason> {
        let headers = Headers::parse(frame)?;
        let header = headers.l4 - headers.l3;
        let (copied, rest) = match headers.family {
            Family::Inet => {
                let copied = Options::copied(&frame[headers.l3 + IPV4_FIXED..headers.l4]);
                (copied, IPV4_FIXED + copied.length)
            }
            Family::Inet6 if header == IPV6_FIXED && headers.fragment == Fragment::Whole => {
                (Options::NONE, IPV6_FIXED + FRAGMENT_HEADER)
            }
            Family::Inet6 => return Err(DropReason::NeedsFragmentation),
        };
        let first = if headers.family == Family::Inet { header } else { rest };
        let room = [first, rest].map(|header| mtu.saturating_sub(header));
        if room.iter().any(|&room| room < 8) {
            return Err(DropReason::NeedsFragmentation);
        }
        let cut = Cut { frame, headers, id, copied, room };
        let begun = usize::from(cut.offset() & OFFSET) + cut.range(cut.count() - 1).start / 8;
        if begun > usize::from(OFFSET) {
            return Err(DropReason::Malformed); // it would end behind the longest packet there is
        }
        Ok(cut)
    }

    fn payload(&self) -> &'a [u8] {
        &self.frame[self.headers.l4..self.headers.end]
    }

    /// IPv4's flags and offset as they stand; nothing for IPv6.
    fn offset(&self) -> u16 {
        if self.headers.family == Family::Inet { get_u16(self.frame, self.headers.l3 + 6) } else { 0 }
    }

    /// How many fragments there will be.
    pub fn count(&self) -> usize {
        let [first, rest] = self.room;
        match self.payload().len() {
            all if all <= first => 1,
            all => 2 + (all - (first & !7)).saturating_sub(rest).div_ceil(rest & !7),
        }
    }

    /// The part of the payload that a fragment carries.
    fn range(&self, index: usize) -> Range<usize> {
        let [first, rest] = self.room.map(|room| room & !7);
        let start = |index: usize| if index == 0 { 0 } else { first + (index - 1) * rest };
        let end = if index + 1 == self.count() { self.payload().len() } else { start(index + 1) };
        start(index)..end
    }

    /// Writes a fragment, link header and all, to the beginning of `out`. Its length, or `None` if `out` is too short.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        let (l3, range) = (self.headers.l3, self.range(index));
        let more = index + 1 < self.count();
        let units = (range.start / 8) as u16;
        let piece = &self.payload()[range];
        let header = match self.headers.family {
            Family::Inet if index == 0 => self.headers.l4 - l3,
            Family::Inet => IPV4_FIXED + self.copied.length,
            Family::Inet6 => IPV6_FIXED + FRAGMENT_HEADER,
        };
        let out = out.get_mut(..l3 + header + piece.len())?;
        let (head, payload) = out.split_at_mut(l3 + header);
        payload.copy_from_slice(piece);
        let (link, head) = head.split_at_mut(l3);
        link.copy_from_slice(&self.frame[..l3]);
        match self.headers.family {
            Family::Inet => self.write_ipv4(head, index == 0, units, more, piece.len()),
            Family::Inet6 => self.write_ipv6(head, units, more, piece.len()),
        }
        Some(out.len())
    }

    fn write_ipv4(&self, head: &mut [u8], first: bool, units: u16, more: bool, length: usize) {
        let whole = &self.frame[self.headers.l3..self.headers.l4];
        let (fixed, options) = head.split_at_mut(IPV4_FIXED);
        fixed.copy_from_slice(&whole[..IPV4_FIXED]);
        options.copy_from_slice(if first { &whole[IPV4_FIXED..] } else { self.copied.bytes() });
        head[0] = 0x40 | (head.len() / 4) as u8;
        put_u16(head, 2, (head.len() + length) as u16);
        let stood = self.offset();
        // The last one has more behind it if the whole had.
        let more = if more { MORE } else { stood & MORE };
        put_u16(head, 6, (stood & RESERVED) | more | ((stood & OFFSET) + units));
        put_u16(head, 10, 0);
        let checksum = Sum::default().bytes(head).finish();
        put_u16(head, 10, checksum);
    }

    fn write_ipv6(&self, head: &mut [u8], units: u16, more: bool, length: usize) {
        let whole = &self.frame[self.headers.l3..self.headers.l4];
        let (fixed, fragment) = head.split_at_mut(IPV6_FIXED);
        fixed.copy_from_slice(whole);
        put_u16(fixed, 4, (FRAGMENT_HEADER + length) as u16);
        fragment[0] = std::mem::replace(&mut fixed[6], FRAGMENT_HEADER_NUMBER);
        fragment[1] = 0;
        put_u16(fragment, 2, units << 3 | u16::from(more));
        fragment[4..8].copy_from_slice(&self.id.to_be_bytes());
    }
}

/// IPv4 options, padded to whole words.
#[derive(Clone, Copy, Debug)]
struct Options {
    bytes: [u8; 40],
    length: usize,
}

impl Options {
    const NONE: Options = Options { bytes: [0; 40], length: 0 };

    /// Those of `all` that every fragment must have. What is malformed ends the list, as its end does.
    fn copied(all: &[u8]) -> Self {
        let mut options = Self::NONE;
        let mut rest = all;
        loop {
            let length = match *rest {
                [1, ..] => 1, // no operation
                [kind, length, ..] if kind != 0 && length >= 2 => usize::from(length),
                _ => break,
            };
            let Some((option, behind)) = rest.split_at_checked(length) else { break };
            if option[0] & 0x80 != 0 {
                options.bytes[options.length..options.length + length].copy_from_slice(option);
                options.length += length;
            }
            rest = behind;
        }
        options.length = options.length.next_multiple_of(4);
        options
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what has the copied flag follows into later fragments, padded; what is malformed is not followed.
    #[test]
    fn options_are_copied_by_their_flag() {
        let copied = |all: &[u8]| Options::copied(all).bytes().to_vec();
        let source_route = [0x83, 7, 4, 10, 0, 0, 9];
        let timestamp = [0x44, 5, 5, 0, 0];
        assert_eq!(copied(&[]), []);
        assert_eq!(copied(&[&timestamp[..], &[1, 1, 0]].concat()), []);
        assert_eq!(copied(&[&timestamp[..], &source_route].concat()), [&source_route[..], &[0]].concat());
        assert_eq!(
            copied(&[&[1][..], &source_route, &[0x94, 4, 0, 0]].concat()),
            [&source_route[..], &[0x94, 4, 0, 0, 0]].concat()
        );
        for malformed in [&[0x83, 1, 0, 0][..], &[0x83, 0, 0, 0], &[0x83, 9, 0, 0], &[0x83]] {
            assert_eq!(copied(malformed), [], "{malformed:?}");
        }
        assert_eq!(copied(&[&[0x83; 1][..], &[40], &[7; 38]].concat()).len(), 40, "as many as there can be");
    }
}
