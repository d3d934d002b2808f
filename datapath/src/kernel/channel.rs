//! One netlink socket for questions: ask and be acknowledged, or ask for a whole table.
//!
//! Invariant: strictly one question at a time, answered before the next; answers to an abandoned question are
//! recognised by their sequence number and dropped. Not here: subscriptions, which need a socket that only listens
//! (`mirror`), so that a flood of events cannot push an answer out of the buffer.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::decode::{self, Envelope};
use super::error::Error;

/// Room for one datagram. The kernel makes dump datagrams as large as the largest buffer it has seen, up to 32 KiB.
const DATAGRAM_BYTES: usize = 64 << 10;
/// The kernel answers at once or never; waiting longer than this means a bug, and must not hang the director.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a dump is begun anew because the table changed under it.
const DUMP_TRIES: u32 = 32;

/// How a dump ended.
enum Ended {
    Complete,
    Interrupted,
}

/// A socket for requests.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn open() -> Result<Channel, Error> {
        let doing = "open a netlink socket";
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|error| Error::from_io(doing, error))?;
        socket.bind_auto().map_err(|error| Error::from_io(doing, error))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(|error| Error::from_io(doing, error))?;
        let timeout = TimeVal::new(ANSWER_TIMEOUT.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(|error| Error::from_io(doing, error.into()))?;
        Ok(Channel { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Sends a request and waits for the kernel's yes or no, which is given as it is: who asks knows what `EEXIST`
    /// means.
    pub(super) fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(request, flags | NLM_F_REQUEST | NLM_F_ACK)?;
        loop {
            receive(&self.socket, &mut self.buffer)?;
            for envelope in decode::envelopes(&self.buffer).filter(|envelope| envelope.sequence == self.sequence) {
                if envelope.kind == NLMSG_ERROR {
                    return verdict(&envelope);
                }
            }
        }
    }

    /// Asks for one object, and gives its message.
    pub(super) fn get(&mut self, request: RouteNetlinkMessage) -> io::Result<decode::Message> {
        self.send(request, NLM_F_REQUEST)?;
        loop {
            receive(&self.socket, &mut self.buffer)?;
            for envelope in decode::envelopes(&self.buffer).filter(|envelope| envelope.sequence == self.sequence) {
                if envelope.kind != NLMSG_ERROR {
                    return Ok(decode::message(&envelope));
                }
                verdict(&envelope)?;
            }
        }
    }

    /// Asks for a whole table. `begin` is called before every try, since a table that changes while it is read is read
    /// again; then `each` for every message.
    pub(super) fn dump<State>(
        &mut self,
        table: &'static str,
        request: &RouteNetlinkMessage,
        begin: impl Fn() -> State,
        mut each: impl FnMut(&mut State, &Envelope<'_>),
    ) -> Result<State, Error> {
        for _ in 0..DUMP_TRIES {
            let mut state = begin();
            match self.dump_once(request, |envelope| each(&mut state, envelope)) {
                Ok(Ended::Complete) => return Ok(state),
                Ok(Ended::Interrupted) => {}
                // The answers did not fit into the buffer of the socket.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(Error::from_io(format!("read the kernel's {table}"), error)),
            }
        }
        Err(Error::Unsettled { table })
    }

    fn dump_once(&mut self, request: &RouteNetlinkMessage, mut each: impl FnMut(&Envelope<'_>)) -> io::Result<Ended> {
        self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut interrupted = false;
        loop {
            receive(&self.socket, &mut self.buffer)?;
            for envelope in decode::envelopes(&self.buffer).filter(|envelope| envelope.sequence == self.sequence) {
                interrupted |= envelope.flags & NLM_F_DUMP_INTR != 0;
                match envelope.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        verdict(&envelope)?;
                        return Ok(if interrupted { Ended::Interrupted } else { Ended::Complete });
                    }
                    _ => each(&envelope),
                }
            }
        }
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(Default::default(), NetlinkPayload::from(request));
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        loop {
            match self.socket.send(&bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// The error number of an answer; an answer too short to have one is an error too.
fn verdict(envelope: &Envelope<'_>) -> io::Result<()> {
    match decode::error_number(envelope.payload) {
        // The end of a dump may come without a number.
        None if envelope.kind == NLMSG_DONE => Ok(()),
        None => Err(io::ErrorKind::InvalidData.into()),
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.wrapping_neg())),
    }
}

/// Reads one datagram of the kernel into `buffer`, as a whole.
///
/// A datagram that is larger than the buffer is lost, which is the same as an overrun: `ENOBUFS`. The buffer then
/// grows.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.reserve(DATAGRAM_BYTES);
    loop {
        buffer.clear();
        match socket.recv_from(buffer, libc::MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            // Other processes may send to a netlink socket; only the kernel has the number 0.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok((length, _)) if length > buffer.len() => {
                buffer.reserve(length.saturating_mul(2));
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            Ok(_) => return Ok(()),
        }
    }
}
