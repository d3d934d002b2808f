//! The defences against a full table, as IPVS has them: three modes, looked at once a second.
//!
//! Mode 0 is off, 3 always on. Mode 1 waits for pressure and is written 2 while it lasts, so what is read may differ
//! from what was set. The kernel's pressure is its free memory; here the memory is reserved at the start, so what runs
//! short is free entries of the connection table.
//!
//! Invariant: pure. Given the same modes and the same room, the outcome is the same, and a second look changes nothing.

/// What the defences are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// `drop_entry`
    pub drop_entry: i64,
    /// `drop_packet`
    pub drop_packet: i64,
    /// `secure_tcp`
    pub secure_tcp: i64,
}

/// What the defences do until the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stance {
    /// The modes as they are written back.
    pub modes: Modes,
    /// One packet of so many that would open a connection is dropped; 0: none.
    pub drop_rate: u32,
    /// Connections are ended before their time.
    pub drop_entry_active: bool,
    /// TCP is followed by the wary tables.
    pub secure_tcp_active: bool,
}

/// Looks at the room that is left: `free` entries, where fewer than `threshold` are few. `always` is `am_droprate`.
pub fn look(modes: Modes, threshold: i64, always: i64, free: u32) -> Stance {
    let free = i64::from(free);
    let short = free < threshold;
    let drop_packet = shift(modes.drop_packet, short);
    let drop_rate = match drop_packet {
        2 => threshold / (threshold - free),
        // A rate below 1 counts down from nothing: each packet.
        3 if always < 0 => 1,
        3 => always,
        _ => 0,
    };
    let modes =
        Modes { drop_entry: shift(modes.drop_entry, short), drop_packet, secure_tcp: shift(modes.secure_tcp, short) };
    Stance {
        modes,
        drop_rate: u32::try_from(drop_rate).unwrap_or(u32::MAX),
        drop_entry_active: modes.drop_entry >= 2,
        secure_tcp_active: modes.secure_tcp >= 2,
    }
}

/// The mode after a look: 1 and 2 become each other, 0 and 3 stay.
fn shift(mode: i64, short: bool) -> i64 {
    match (mode, short) {
        (1 | 2, true) => 2,
        (1 | 2, false) => 1,
        (mode, _) => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(mode: i64) -> Modes {
        Modes { drop_entry: mode, drop_packet: mode, secure_tcp: mode }
    }

    /// The whole product of mode and pressure: which mode follows, and is the defence active.
    #[test]
    fn modes_follow_the_room_that_is_left() {
        for (mode, free, next, active) in [
            (0, 0, 0, false),
            (0, 5000, 0, false),
            (1, 1023, 2, true),
            (1, 1024, 1, false),
            (2, 1023, 2, true),
            (2, 1024, 1, false),
            (3, 0, 3, true),
            (3, 5000, 3, true),
        ] {
            let stance = look(modes(mode), 1024, 10, free);
            assert_eq!(stance.modes, modes(next), "{mode}, {free} free");
            let all = (stance.drop_entry_active, stance.drop_rate != 0, stance.secure_tcp_active);
            assert_eq!(all, (active, active, active), "{mode}, {free} free");
            assert_eq!(look(stance.modes, 1024, 10, free), stance, "a second look changes nothing");
        }
    }

    /// The fewer entries are free, the more is dropped: every packet when there are none.
    #[test]
    fn the_rate_grows_with_the_need() {
        let rate = |free| look(modes(1), 1000, 10, free).drop_rate;
        assert_eq!([rate(999), rate(900), rate(500), rate(250), rate(1), rate(0)], [1000, 10, 2, 1, 1, 1]);
        let always = |rate| look(modes(3), 1000, rate, 5000).drop_rate;
        assert_eq!([always(10), always(1), always(0), always(-5)], [10, 1, 0, 1]);
    }

    /// Each defence has its own mode.
    #[test]
    fn defences_are_independent() {
        let stance = look(Modes { drop_entry: 1, drop_packet: 0, secure_tcp: 3 }, 10, 10, 9);
        assert_eq!(stance.modes, Modes { drop_entry: 2, drop_packet: 0, secure_tcp: 3 });
        assert_eq!((stance.drop_rate, stance.drop_entry_active, stance.secure_tcp_active), (0, true, true));
        let never = look(modes(1), -1, 10, 0);
        assert_eq!(never.modes, modes(1), "a threshold below 0 is never reached");
    }
}
