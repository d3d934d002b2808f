//! The state machines of all protocols behind one door: whoever follows a connection need not know which it is.
//!
//! TCP has [`tcp`], SCTP has [`sctp`], UDP one state. Invariant: pure functions; a state is a number of its protocol's
//! own, as it stands in a connection's entry, and an unknown number is read as the first state. What follows from a step
//! (counts, timer) is the engine's business.

use super::timeouts::Slot;
use super::{Side, sctp, tcp};
use crate::drop::DropReason;
use crate::flow::Protocol;
use crate::switches::Switches;
use crate::wire::{Headers, SctpEvent, TcpFlags};

/// The state that a connection is made with; its first packet moves it on.
pub const FIRST: u8 = 0;

/// What a packet makes of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state after it.
    pub state: u8,
    /// Does the connection count as active?
    pub active: bool,
    /// The timeout that starts again.
    pub slot: Slot,
}

/// What a packet from this side makes of its connection. `secure`: the tables of `secure_tcp` are in force.
#[inline]
pub fn next(side: Side, headers: &Headers, state: u8, secure: bool) -> Step {
    match headers.flow.protocol {
        Protocol::TCP => {
            let state = tcp::next(side, headers.tcp, tcp::State::from_bits(state), secure);
            Step { state: state as u8, active: state.is_active(), slot: Slot::tcp(state) }
        }
        Protocol::SCTP => {
            let state = sctp::State::from_bits(state);
            // A packet without a chunk tells nothing.
            let state = headers.sctp.event().map_or(state, |event| sctp::next(side, event, state));
            Step { state: state as u8, active: state.is_active(), slot: Slot::sctp(state) }
        }
        _ => Step { state: FIRST, active: false, slot: Slot::UDP },
    }
}

/// The timeout that starts again, if the packet leaves a connection in this state as it is, whatever the tables in force.
/// Told of what most packets are: data and acknowledgements of an established TCP connection, and a client's datagrams.
/// None says nothing.
#[inline]
pub fn stays(headers: &Headers, side: Side, state: u8) -> Option<Slot> {
    const DECIDE: u8 = TcpFlags::RST | TcpFlags::SYN | TcpFlags::FIN | TcpFlags::ACK;
    match headers.flow.protocol {
        Protocol::TCP => {
            let stays = headers.tcp.0 & DECIDE == TcpFlags::ACK && state == tcp::State::Established as u8;
            stays.then_some(Slot::tcp(tcp::State::Established))
        }
        // A server's may assure a template, and may go by a note.
        Protocol::UDP => (side != Side::Out).then_some(Slot::UDP),
        _ => None,
    }
}

/// The timeout of a connection in this state.
#[inline]
pub fn slot(protocol: Protocol, state: u8) -> Slot {
    match protocol {
        Protocol::TCP => Slot::tcp(tcp::State::from_bits(state)),
        Protocol::SCTP => Slot::sctp(sctp::State::from_bits(state)),
        _ => Slot::UDP,
    }
}

/// May the packet open a connection (IPVS-REFERENCE 3.2)?
///
/// # Errors
/// Why not.
#[inline]
pub fn may_open(headers: &Headers, switches: &Switches) -> Result<(), DropReason> {
    match headers.flow.protocol {
        Protocol::TCP => {
            let opens = headers.tcp.has(TcpFlags::SYN) || switches.sloppy_tcp.is_on();
            if opens && !headers.tcp.has(TcpFlags::RST) { Ok(()) } else { Err(DropReason::NoConnectionTcp) }
        }
        Protocol::SCTP => match headers.sctp.first() {
            Some(SctpEvent::Init) => Ok(()),
            Some(SctpEvent::Abort) => Err(DropReason::NoConnectionSctp),
            Some(_) if switches.sloppy_sctp.is_on() => Ok(()),
            Some(_) => Err(DropReason::NoConnectionSctp),
            None => Err(DropReason::Truncated),
        },
        _ => Ok(()),
    }
}

/// Does the packet begin a connection, whatever it may meet: a SYN, an INIT (IPVS-REFERENCE 3.9)?
#[inline]
pub fn begins(headers: &Headers) -> bool {
    match headers.flow.protocol {
        Protocol::TCP => headers.tcp.has(TcpFlags::SYN),
        Protocol::SCTP => headers.sctp.first() == Some(SctpEvent::Init),
        _ => false,
    }
}

/// Does the packet give its connection up: a RST, an ABORT? Such a packet is never answered.
#[inline]
pub fn gives_up(headers: &Headers) -> bool {
    match headers.flow.protocol {
        Protocol::TCP => headers.tcp.has(TcpFlags::RST),
        Protocol::SCTP => headers.sctp.first() == Some(SctpEvent::Abort),
        _ => false,
    }
}

/// Is a connection in this state over, so that a packet that [`begins`] one may open the same ports again?
#[inline]
pub fn is_over(protocol: Protocol, state: u8) -> bool {
    match protocol {
        Protocol::TCP => matches!(tcp::State::from_bits(state), tcp::State::TimeWait | tcp::State::Close),
        Protocol::SCTP => sctp::State::from_bits(state) == sctp::State::Closed,
        _ => false,
    }
}

/// Does a packet from this side, which moved its connection from one state to another, show that the client is real, so
/// that its template is assured (IPVS-REFERENCE 3.5)? By becoming established, or by an answer where there is one state.
#[inline]
pub fn assures(protocol: Protocol, side: Side, before: u8, after: u8) -> bool {
    match protocol {
        Protocol::TCP => before != after && after == tcp::State::Established as u8,
        Protocol::SCTP => before != after && after == sctp::State::Established as u8,
        _ => side == Side::Out,
    }
}

/// Has the client of a connection in this state not yet shown that it is there?
#[inline]
pub fn is_half_open(protocol: Protocol, state: u8) -> bool {
    match protocol {
        Protocol::TCP => tcp::State::from_bits(state).is_half_open(),
        Protocol::SCTP => sctp::State::from_bits(state).is_half_open(),
        _ => false,
    }
}

/// The name of a state in `ipvsadm -L -c`.
pub fn name(protocol: Protocol, state: u8) -> &'static str {
    match protocol {
        Protocol::TCP => tcp::State::from_bits(state).name(),
        Protocol::SCTP => sctp::State::from_bits(state).name(),
        Protocol::UDP => "UDP",
        _ => "NONE",
    }
}
