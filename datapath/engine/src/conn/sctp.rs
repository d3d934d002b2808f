//! The SCTP state machine as IPVS runs it: a table over (side, event, state), no verification tags, no sequence numbers.
//!
//! The director follows an association well enough to know how long to remember it and whether it is *active*: unlike
//! with TCP only an established one is. Either end may open and close it. With DR and TUN only the client's packets are
//! seen, and a table of its own guesses the server's.
//!
//! ```text
//! the client opens (C: its packets, S: the server's; NAT)
//!        C INIT         S INIT-ACK              C COOKIE-ECHO                 S COOKIE-ACK
//!   NONE ------> INIT1 ------------> C-SENT --------------------> C-REPLIED ---------------> ESTABLISHED
//!                  | C INIT again: INIT        (one-way: the COOKIE-ECHO already establishes)
//!                  | S ABORT: REJECTED
//! the server opens (NAT)
//!        S INIT         C INIT-ACK              S COOKIE-ECHO                 C COOKIE-ACK
//!   NONE ------> C-WAIT ------------> COOKIE --------------------> C-ECHOED ---------------> ESTABLISHED
//!                  | C ABORT: REJECTED
//! closing
//!               S SHUTDOWN           C SHUTDOWN-ACK
//!   ESTABLISHED ----------> S-SENT --------------------> CLOSED                       any ABORT else: CLOSED
//!               C SHUTDOWN              S SHUTDOWN-ACK              C SHUTDOWN-COMPLETE
//!   ESTABLISHED ----------> S-RECEIVED ---------------> S-ACK-SENT -------------------> CLOSED
//! ```
//! Source: the transition tables of the kernel's IPVS (IPVS-REFERENCE 3.4.2).

use super::Side;
use crate::wire::SctpEvent;

/// State of an SCTP association; the numbers are IPVS's own. "Sent" and "received" are as the real server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Just made.
    None = 0,
    /// The client's first INIT.
    Init1 = 1,
    /// The client's INIT came again.
    Init = 2,
    /// The server answered INIT with its cookie.
    CookieSent = 3,
    /// The client gave the cookie back.
    CookieReplied = 4,
    /// The server opened and waits for a cookie.
    CookieWait = 5,
    /// The client answered the server's INIT with its cookie.
    Cookie = 6,
    /// The server gave the client's cookie back.
    CookieEchoed = 7,
    /// Both sides talk.
    Established = 8,
    /// The server closes.
    ShutdownSent = 9,
    /// The client closes.
    ShutdownReceived = 10,
    /// The server agreed to close.
    ShutdownAckSent = 11,
    /// Aborted in answer to an INIT.
    Rejected = 12,
    /// Closed or aborted.
    Closed = 13,
}

/// How many states there are.
const COUNT: usize = 14;

/// All states, by number.
pub const STATES: [State; COUNT] = {
    use State::*;
    [
        None,
        Init1,
        Init,
        CookieSent,
        CookieReplied,
        CookieWait,
        Cookie,
        CookieEchoed,
        Established,
        ShutdownSent,
        ShutdownReceived,
        ShutdownAckSent,
        Rejected,
        Closed,
    ]
};

impl State {
    /// From its number; unknown ones read as `None`.
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        STATES.get(usize::from(bits)).copied().unwrap_or(State::None)
    }

    /// The name in `ipvsadm -L -c`.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; COUNT] = [
            "NONE",
            "INIT1",
            "INIT",
            "C-SENT",
            "C-REPLIED",
            "C-WAIT",
            "COOKIE",
            "C-ECHOED",
            "ESTABLISHED",
            "S-SENT",
            "S-RECEIVED",
            "S-ACK-SENT",
            "REJECTED",
            "CLOSED",
        ];
        NAMES[self as usize]
    }

    /// IPVS's timeout in seconds, unless an operator set another.
    pub const fn default_timeout_s(self) -> u32 {
        match self {
            State::None => 2,
            // An INIT that is repeated within three seconds, and one that is refused, need no more.
            State::Init1 | State::Rejected => 4,
            State::Established => 900,
            // The longest time between two retransmissions, and a second.
            _ => 61,
        }
    }

    /// Does the association count as active?
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, State::Established)
    }

    /// Has the client not yet shown that it is there?
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, State::Init1 | State::Init)
    }
}

/// The state after a packet from this side.
#[inline]
pub fn next(side: Side, event: SctpEvent, state: State) -> State {
    TABLES[side as usize][event as usize][state as usize]
}

/// What an event makes of each state.
type Row = [State; COUNT];

/// The row in which these states become another one.
const fn moving(mut row: Row, from: &[State], to: State) -> Row {
    let mut index = 0;
    while index < from.len() {
        row[from[index] as usize] = to;
        index += 1;
    }
    row
}

/// The row in which nothing changes but that these states become another one.
const fn only(from: &[State], to: State) -> Row {
    moving(STATES, from, to)
}

/// By side, event and state.
static TABLES: [[Row; 10]; 3] = {
    use State::{
        Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS, CookieWait as CW,
        Established as ES, Init as IN, Init1 as I1, None as NO, Rejected as RJ, ShutdownAckSent as SA,
        ShutdownReceived as SR, ShutdownSent as SS,
    };
    // In each block: DATA, INIT, INIT-ACK, COOKIE-ECHO, COOKIE-ACK, SHUTDOWN, SHUTDOWN-ACK, SHUTDOWN-COMPLETE, ERROR,
    // ABORT.
    [
        // Side::In
        [
            only(&[NO], ES),
            moving(only(&[NO], I1), &[I1, RJ, CL], IN),
            moving(only(&[NO, I1, IN], CW), &[CW], CO),
            moving(only(&[NO, CS], CR), &[I1], IN),
            only(&[NO, CE], ES),
            only(&[NO, ES], SR),
            moving(only(&[NO, SS, SA], CL), &[I1], IN),
            only(&[NO, I1, IN, SA], CL),
            only(&[NO, CE], CL),
            moving([CL; COUNT], &[CW], RJ),
        ],
        // Side::Out
        [
            only(&[NO], ES),
            moving([CW; COUNT], &[ES], ES),
            only(&[NO, I1, IN], CS),
            only(&[NO, I1, IN, CS, CR, CW, CO], CE),
            only(&[NO, I1, IN, CS, CR, CW, CO, CE], ES),
            only(&[NO, I1, IN, CS, CR, CW, CO, CE, ES], SS),
            only(&[NO, I1, IN, CS, CR, SS, SR], SA),
            only(&[NO], CL),
            only(&[NO, I1, IN, CS, CR], CL),
            moving([CL; COUNT], &[I1], RJ),
        ],
        // Side::InOnly
        [
            only(&[NO, CW], ES),
            moving(only(&[NO], I1), &[I1, CS, CR, CW, RJ, CL], IN),
            only(&[NO, I1, IN, CS, CR, CW], CE),
            only(&[NO, I1, IN, CS, CR, CW], ES),
            only(&[NO, CS, CR, CO, CE], ES),
            only(&[NO, ES], SR),
            moving(only(&[NO, ES, SS, SA], CL), &[I1], IN),
            only(&[NO, I1, IN, CS, CR, SR, SA], CL),
            only(&[NO], CL),
            moving([CL; COUNT], &[CW], RJ),
        ],
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    fn walk(steps: &[(Side, SctpEvent)]) -> Vec<State> {
        let step = |state: &mut State, &(side, event): &(Side, SctpEvent)| {
            *state = next(side, event, *state);
            Some(*state)
        };
        steps.iter().scan(None, step).collect()
    }

    /// NAT, the client opens and closes: the path of the diagram.
    #[test]
    fn client_opens_and_closes() {
        use SctpEvent as E;
        use Side::{In, Out};
        let states = walk(&[
            (In, E::Init),
            (Out, E::InitAck),
            (In, E::CookieEcho),
            (Out, E::CookieAck),
            (In, E::Data),
            (Out, E::Data),
            (In, E::Shutdown),
            (Out, E::ShutdownAck),
            (In, E::ShutdownComplete),
        ]);
        let expected = [
            Init1,
            CookieSent,
            CookieReplied,
            Established,
            Established,
            Established,
            ShutdownReceived,
            ShutdownAckSent,
            Closed,
        ];
        assert_eq!(states, expected);
    }

    /// NAT, the server opens (a second association on the same ports) and closes.
    #[test]
    fn server_opens_and_closes() {
        use SctpEvent as E;
        use Side::{In, Out};
        let states = walk(&[
            (Out, E::Init),
            (In, E::InitAck),
            (Out, E::CookieEcho),
            (In, E::CookieAck),
            (Out, E::Shutdown),
            (In, E::ShutdownAck),
            (Out, E::ShutdownComplete),
        ]);
        assert_eq!(states, [CookieWait, Cookie, CookieEchoed, Established, ShutdownSent, Closed, Closed]);
    }

    /// One-way (DR, TUN): the COOKIE-ECHO establishes, SHUTDOWN and SHUTDOWN-COMPLETE close.
    #[test]
    fn one_way() {
        use SctpEvent as E;
        let states =
            walk(&[E::Init, E::CookieEcho, E::Data, E::Shutdown, E::ShutdownComplete].map(|e| (Side::InOnly, e)));
        assert_eq!(states, [Init1, Established, Established, ShutdownReceived, Closed]);
    }

    /// A refused INIT is remembered shortly, and a client that tries again goes on where it was.
    #[test]
    fn refused_and_tried_again() {
        use SctpEvent as E;
        use Side::{In, Out};
        assert_eq!(
            walk(&[(In, E::Init), (Out, E::Abort), (In, E::Init), (In, E::Init)]),
            [Init1, Rejected, Init, Init]
        );
        assert_eq!(walk(&[(Out, E::Init), (In, E::Abort)]), [CookieWait, Rejected]);
    }

    /// State and number fit both ways; unknown numbers are no panic.
    #[test]
    fn states_and_numbers() {
        for (number, state) in STATES.iter().enumerate() {
            assert_eq!((*state as usize, State::from_bits(number as u8)), (number, *state));
        }
        assert_eq!(State::from_bits(14), None);
        assert_eq!(State::from_bits(255), None);
    }
}
