//! The TCP state machine as IPVS runs it: a table over (side, event, state), no windows, no sequence numbers.
//!
//! The director follows a connection well enough to know how long to remember it and whether it is *active* (counts
//! for the least-connection schedulers). With NAT it sees both directions; with DR and TUN only the client's, and for
//! those a table of its own makes the best of it. Under `secure_tcp` a second set of tables is in force, which keeps
//! connections of doubtful clients half open, in SYN_RECV and SYNACK, so that the defences find them.
//!
//! ```text
//!            SYN            ACK                 FIN (client first, NAT)      FIN (server)
//!   NONE ---------> SYN_RECV ----> ESTABLISHED ----------------> CLOSE_WAIT ----------> TIME_WAIT
//!                                     |  FIN (server first, NAT; client, one-way)
//!                                     +-----------------------> FIN_WAIT --FIN--> TIME_WAIT      RST: CLOSE
//! ```
//! Source: the transition tables of the kernel's IPVS (IPVS-REFERENCE 3.4.1).

use super::Side;
use crate::wire::TcpFlags;

/// State of a TCP connection; the numbers are IPVS's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Just made.
    None = 0,
    /// Both directions talk.
    Established = 1,
    /// The server opened (only seen in odd cases).
    SynSent = 2,
    /// The client opened.
    SynRecv = 3,
    /// One side closed.
    FinWait = 4,
    /// Both sides closed.
    TimeWait = 5,
    /// Reset, or closed before it was open.
    Close = 6,
    /// The client closed first (NAT).
    CloseWait = 7,
    /// The last ACK is due.
    LastAck = 8,
    /// Never entered.
    Listen = 9,
    /// Half open under SYN-flood defence.
    SynAck = 10,
}

/// All states, by number.
pub const STATES: [State; 11] = {
    use State::*;
    [None, Established, SynSent, SynRecv, FinWait, TimeWait, Close, CloseWait, LastAck, Listen, SynAck]
};

impl State {
    /// From its number; unknown ones read as `None`.
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        STATES.get(usize::from(bits)).copied().unwrap_or(State::None)
    }

    /// The name in `ipvsadm -L -c`.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 11] = [
            "NONE",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "SYNACK",
        ];
        NAMES[self as usize]
    }

    /// IPVS's timeout in seconds, unless an operator set another.
    pub const fn default_timeout_s(self) -> u32 {
        const SECONDS: [u32; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
        SECONDS[self as usize]
    }

    /// Does the connection count as active? Half-open ones do.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, State::Established | State::SynSent | State::SynRecv | State::SynAck)
    }

    /// Has the client not yet shown that it is there?
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, State::None | State::SynSent | State::SynRecv | State::SynAck)
    }
}

/// What a segment tells: the first of these that its flags have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SYN.
    Syn = 0,
    /// FIN.
    Fin = 1,
    /// ACK.
    Ack = 2,
    /// RST.
    Rst = 3,
}

/// The event of a segment; `None` if it has none of the four flags.
#[inline]
pub const fn event(flags: TcpFlags) -> Option<Event> {
    if flags.has(TcpFlags::RST) {
        Some(Event::Rst)
    } else if flags.has(TcpFlags::SYN) {
        Some(Event::Syn)
    } else if flags.has(TcpFlags::FIN) {
        Some(Event::Fin)
    } else if flags.has(TcpFlags::ACK) {
        Some(Event::Ack)
    } else {
        None
    }
}

/// The state after a segment from this side, by the tables of `secure_tcp` or the usual ones. A segment without any flag
/// closes.
#[inline]
pub fn next(side: Side, flags: TcpFlags, state: State, secure: bool) -> State {
    match event(flags) {
        Some(event) => (if secure { &SECURE } else { &NORMAL })[side as usize][event as usize][state as usize],
        None => State::Close,
    }
}

/// The state of a new connection after the SYN that opens it, from this side.
#[inline(always)]
pub fn opened(side: Side, secure: bool) -> State {
    OPENED[usize::from(secure)][side as usize]
}

/// By the tables and the side.
static OPENED: [[State; 3]; 2] = {
    const fn by(tables: &Tables) -> [State; 3] {
        const SYN: usize = Event::Syn as usize;
        let [inside, outside, one_way] = tables;
        [inside[SYN][0], outside[SYN][0], one_way[SYN][0]]
    }
    [by(&NORMAL), by(&SECURE)]
};

/// By side, event (SYN, FIN, ACK, RST) and state.
type Tables = [[[State; 11]; 4]; 3];

/// The tables in force under `secure_tcp`: where they differ from the usual ones.
static SECURE: Tables = {
    use State::{Close as CL, Established as ES, SynAck as SA, SynRecv as SR};
    const IN: usize = Side::In as usize;
    const OUT: usize = Side::Out as usize;
    const IN_ONLY: usize = Side::InOnly as usize;
    const SYN: usize = Event::Syn as usize;
    let mut tables = NORMAL;
    tables[IN][SYN][SA as usize] = SA;
    tables[IN][Event::Fin as usize][SA as usize] = SA;
    tables[IN][Event::Ack as usize][SR as usize] = SR;
    tables[IN][Event::Ack as usize][SA as usize] = SA;
    tables[IN][Event::Rst as usize][SA as usize] = CL;
    tables[OUT][SYN][SR as usize] = SA;
    tables[OUT][SYN][SA as usize] = SA;
    //                         NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    tables[IN_ONLY][SYN] = [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA];
    tables
};

/// The usual tables.
const NORMAL: Tables = {
    use State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, SynRecv as SR,
        SynSent as SS, TimeWait as TW,
    };
    [
        // Side::In:   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
        ],
        // Side::Out:  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [
            [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
            [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
            [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
        ],
        // Side::InOnly: NO ES SS  SR  FW  TW  CL  CW  LA  LI  SA
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        ],
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    const SYN: TcpFlags = TcpFlags(TcpFlags::SYN);
    const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
    const ACK: TcpFlags = TcpFlags(TcpFlags::ACK);
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN | TcpFlags::ACK);
    const RST: TcpFlags = TcpFlags(TcpFlags::RST);

    fn walk(steps: &[(Side, TcpFlags)]) -> Vec<State> {
        let step = |state: &mut State, &(side, flags): &(Side, TcpFlags)| {
            *state = next(side, flags, *state, false);
            Some(*state)
        };
        steps.iter().scan(None, step).collect()
    }

    /// Guards the short way of new connections: what it takes for the state after a SYN is what the tables say, and such a
    /// connection is half open and active.
    #[test]
    fn a_syn_opens_as_the_tables_say() {
        for (side, secure) in
            [Side::In, Side::Out, Side::InOnly].into_iter().flat_map(|side| [(side, false), (side, true)])
        {
            let state = opened(side, secure);
            assert_eq!(state, next(side, SYN, None, secure), "{side:?} {secure}");
            assert!(state.is_half_open() && state.is_active());
        }
    }

    /// A NAT connection whose client closes first: CLOSE_WAIT, then TIME_WAIT (IPVS-REFERENCE 3.4.1).
    #[test]
    fn nat_client_closes_first() {
        use Side::{In, Out};
        let states = walk(&[(In, SYN), (Out, SYN_ACK), (In, ACK), (In, FIN), (Out, FIN), (In, ACK)]);
        assert_eq!(states, [SynRecv, SynRecv, Established, CloseWait, TimeWait, TimeWait]);
    }

    /// A NAT connection whose server closes first: FIN_WAIT, then TIME_WAIT.
    #[test]
    fn nat_server_closes_first() {
        use Side::{In, Out};
        let states = walk(&[(In, SYN), (Out, SYN_ACK), (In, ACK), (Out, FIN), (In, FIN)]);
        assert_eq!(states, [SynRecv, SynRecv, Established, FinWait, TimeWait]);
    }

    /// One-way (DR, TUN): the client's FIN leads to FIN_WAIT for good, its RST to CLOSE.
    #[test]
    fn one_way_ends_in_fin_wait() {
        let one = Side::InOnly;
        assert_eq!(walk(&[(one, SYN), (one, ACK), (one, FIN), (one, ACK)]), [SynRecv, Established, FinWait, FinWait]);
        assert_eq!(walk(&[(one, SYN), (one, ACK), (one, RST)]), [SynRecv, Established, Close]);
        assert_eq!(walk(&[(one, SYN), (one, FIN)]), [SynRecv, TimeWait]);
    }

    /// Traps of the tables: a client's RST leaves SYN_RECV, a SYN leaves ESTABLISHED, no flags close.
    #[test]
    fn traps() {
        assert_eq!(next(Side::In, RST, SynRecv, false), SynRecv);
        assert_eq!(next(Side::InOnly, RST, SynRecv, false), SynRecv);
        assert_eq!(next(Side::In, SYN, Established, false), Established);
        assert_eq!(next(Side::In, TcpFlags(0), Established, false), Close);
        assert_eq!(next(Side::In, FIN, None, false), Close);
    }

    /// RST wins over SYN, SYN over FIN, FIN over ACK, whatever else is set.
    #[test]
    fn the_first_flag_counts() {
        assert_eq!(event(TcpFlags(0xff)), Some(Event::Rst));
        assert_eq!(event(TcpFlags(!TcpFlags::RST)), Some(Event::Syn));
        assert_eq!(event(TcpFlags(TcpFlags::FIN | TcpFlags::ACK)), Some(Event::Fin));
        assert_eq!(event(TcpFlags(0x18)), Some(Event::Ack));
        assert_eq!(event(TcpFlags(0xe8)), Option::None);
    }

    /// Half-open connections are active, closing ones are not (IPVS-REFERENCE 3.4 [T]).
    #[test]
    fn half_open_is_active() {
        let active: Vec<_> = STATES.into_iter().filter(|state| state.is_active()).collect();
        assert_eq!(active, [Established, SynSent, SynRecv, SynAck]);
    }
}
