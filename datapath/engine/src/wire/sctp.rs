//! What the chunks of an SCTP packet tell a director (RFC 9260, section 3).
//!
//! An SCTP packet is a common header of twelve bytes and then chunks: type, flags, length, value, padded to four bytes.
//! As in IPVS, the first chunk stands for the packet; only behind a COOKIE-ECHO or COOKIE-ACK a second look is taken,
//! for an ABORT there undoes what the cookie promised (IPVS-REFERENCE 3.4.2).
//!
//! Invariant: reading never fails and never looks beyond the bytes given; a chunk whose header is not all there is not
//! there. Whether a packet without a chunk is dropped is not decided here.

/// Length of the common header: ports, verification tag, checksum.
pub const COMMON: usize = 12;
/// Length of a chunk's header.
const CHUNK: usize = 4;

/// What a chunk tells, in the order of the state tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SctpEvent {
    /// DATA, SACK, HEARTBEAT and its answer, ECNE, CWR, and every type that is not known.
    Data = 0,
    /// INIT.
    Init = 1,
    /// INIT-ACK.
    InitAck = 2,
    /// COOKIE-ECHO.
    CookieEcho = 3,
    /// COOKIE-ACK.
    CookieAck = 4,
    /// SHUTDOWN.
    Shutdown = 5,
    /// SHUTDOWN-ACK.
    ShutdownAck = 6,
    /// SHUTDOWN-COMPLETE.
    ShutdownComplete = 7,
    /// ERROR.
    Error = 8,
    /// ABORT.
    Abort = 9,
}

impl SctpEvent {
    /// By the number of the chunk's type.
    #[inline]
    const fn of(kind: u8) -> Self {
        match kind {
            1 => SctpEvent::Init,
            2 => SctpEvent::InitAck,
            6 => SctpEvent::Abort,
            7 => SctpEvent::Shutdown,
            8 => SctpEvent::ShutdownAck,
            9 => SctpEvent::Error,
            10 => SctpEvent::CookieEcho,
            11 => SctpEvent::CookieAck,
            14 => SctpEvent::ShutdownComplete,
            _ => SctpEvent::Data,
        }
    }
}

/// The chunks of a packet, as far as a director reads them. Of a packet that is not SCTP: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpChunks {
    first: Option<SctpEvent>,
    aborts: bool,
}

impl SctpChunks {
    /// Reads the chunks of a packet that begins with its common header.
    #[inline]
    pub fn read(packet: &[u8]) -> Self {
        let Some((first, length)) = chunk(packet, COMMON) else { return SctpChunks::default() };
        let is_cookie = matches!(first, SctpEvent::CookieEcho | SctpEvent::CookieAck) && length >= CHUNK;
        let second = COMMON + length.next_multiple_of(4);
        let aborts = is_cookie && matches!(chunk(packet, second), Some((SctpEvent::Abort, _)));
        SctpChunks { first: Some(first), aborts }
    }

    /// The first chunk: decides whether the packet may open an association. `None` if there is no chunk.
    #[inline]
    pub const fn first(self) -> Option<SctpEvent> {
        self.first
    }

    /// What the packet does to the state of its association. `None` if there is no chunk: nothing.
    #[inline]
    pub const fn event(self) -> Option<SctpEvent> {
        if self.aborts { Some(SctpEvent::Abort) } else { self.first }
    }
}

/// What the chunk there tells, and its length; `None` if its header is not all there.
#[inline]
fn chunk(packet: &[u8], at: usize) -> Option<(SctpEvent, usize)> {
    let &[kind, _, high, low] = packet.get(at..)?.first_chunk()?;
    Some((SctpEvent::of(kind), usize::from(u16::from_be_bytes([high, low]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use SctpEvent::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        [&[0; COMMON][..], &chunks.concat()].concat()
    }

    /// Each type of chunk has its event; what only carries data, and what is not known, is data.
    #[test]
    fn types_have_events() {
        let named = [
            (1, Init),
            (2, InitAck),
            (6, Abort),
            (7, Shutdown),
            (8, ShutdownAck),
            (9, Error),
            (10, CookieEcho),
            (11, CookieAck),
            (14, ShutdownComplete),
        ];
        for kind in 0..=u8::MAX {
            let expected = named.iter().find(|(number, _)| *number == kind).map_or(Data, |(_, event)| *event);
            let chunks = SctpChunks::read(&packet(&[&[kind, 0, 0, 4]]));
            assert_eq!((chunks.first(), chunks.event()), (Some(expected), Some(expected)), "type {kind}");
        }
    }

    /// An ABORT behind a cookie makes the packet an abort, wherever padding puts it; behind anything else, or as the
    /// third chunk, it does not.
    #[test]
    fn an_abort_behind_a_cookie_counts() {
        let abort: &[u8] = &[6, 0, 0, 4];
        let echo: &[u8] = &[10, 0, 0, 7, 1, 2, 3, 0];
        let acknowledged: &[u8] = &[11, 0, 0, 4];
        let data: &[u8] = &[0, 3, 0, 4];
        for (chunks, first, event) in [
            (&[echo, abort][..], CookieEcho, Abort),
            (&[acknowledged, abort], CookieAck, Abort),
            (&[echo, data], CookieEcho, CookieEcho),
            (&[echo, data, abort], CookieEcho, CookieEcho),
            (&[data, abort], Data, Data),
            (&[abort, echo], Abort, Abort),
        ] {
            let read = SctpChunks::read(&packet(chunks));
            assert_eq!((read.first(), read.event()), (Some(first), Some(event)), "{chunks:?}");
        }
    }

    /// Lengths that lie change nothing but what is looked at: too short for a chunk, or beyond the packet's end.
    #[test]
    fn lengths_that_lie_do_no_harm() {
        for (cookie, event) in [
            ([10, 0, 0, 0], CookieEcho), // would be its own successor
            ([10, 0, 0, 3], CookieEcho),
            ([10, 0, 0, 4], Abort),
            ([10, 0, 0, 5], CookieEcho), // the next chunk starts behind the ABORT
            ([10, 0, 0xff, 0xff], CookieEcho),
        ] {
            assert_eq!(SctpChunks::read(&packet(&[&cookie, &[6, 0, 0, 4]])).event(), Some(event), "{cookie:?}");
        }
        assert_eq!(SctpChunks::read(&packet(&[&[10, 0, 0, 4], &[6, 0, 0]])).event(), Some(CookieEcho));
    }

    /// A chunk without its whole header is none.
    #[test]
    fn no_chunk_is_none() {
        for length in 0..COMMON + 4 {
            let chunks = SctpChunks::read(&packet(&[&[1, 0, 0, 4]])[..length]);
            assert_eq!((chunks.first(), chunks.event()), (None, None), "{length} bytes");
        }
    }
}
