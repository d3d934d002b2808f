//! What an operator may switch while packets flow: the kernel's `net.ipv4.vs.*` settings that the packet path reads.
//!
//! Invariant: a switch is one atomic number that is always in its range; who sets one has checked it. Names, ranges and
//! what does not apply here are the control side's business (`xvs sysctl`); what a switch does stands where it is read.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

macro_rules! switches {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:literal;)+) => {
        /// The switches in force, shared by all workers.
        #[derive(Debug)]
        pub struct Switches {
            $($(#[doc = $doc])+ pub $name: Switch,)+
        }

        impl Default for Switches {
            fn default() -> Self {
                Switches { $($name: Switch::new($default),)+ }
            }
        }
    };
}

/// A number that anybody may read and the control side sets.
#[derive(Debug)]
pub struct Switch(AtomicU32);

impl Switch {
    /// A switch with this value.
    pub const fn new(value: u32) -> Self {
        Switch(AtomicU32::new(value))
    }

    /// Its value.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Is it anything but 0?
    #[inline]
    pub fn is_on(&self) -> bool {
        self.get() != 0
    }

    /// Sets it.
    pub fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }
}

switches! {
    /// A SYN on a closing connection opens a new one: 0 never, bit 0 after TIME_WAIT and CLOSE, bit 1 also after a one-way
    /// FIN_WAIT (`conn_reuse_mode`).
    conn_reuse_mode = 1;
    /// A packet of a connection whose server was removed ends it and is scheduled anew (`expire_nodest_conn`).
    expire_nodest_conn = 0;
    /// Templates of a server with weight 0 do not count any more (`expire_quiescent_template`).
    expire_quiescent_template = 0;
    /// Any TCP segment but a RST may open a connection (`sloppy_tcp`).
    sloppy_tcp = 0;
    /// Any SCTP packet but an ABORT may open a connection (`sloppy_sctp`).
    sloppy_sctp = 0;
    /// An ICMP error about no connection is scheduled by the packet that it quotes (`schedule_icmp`).
    schedule_icmp = 0;
    /// A packet of a mark service without a usable server goes to its own destination (`cache_bypass`).
    cache_bypass = 0;
    /// The outer header of a tunnel has "don't fragment" as the inner one has (`pmtu_disc`).
    pmtu_disc = 1;
    /// SYNs to a tunnelled server get a lower MSS if theirs does not fit the tunnel: xvs's own (`xvs.mss_clamp`).
    mss_clamp = 0;
    /// A packet of a NAT server that belongs to no connection is answered with "port unreachable" (`nat_icmp_send`).
    nat_icmp_send = 0;
    /// The tables of TCP under attack are in force (`secure_tcp`, as the defences stand now).
    secure_tcp_active = 0;
    /// Every so many packets that would open a connection one is dropped; 0: none (`drop_packet`, as the defences stand
    /// now).
    drop_rate = 0;
    /// Connections that are half open or barely used are ended before their time (`drop_entry`, as the defences stand now).
    drop_entry_active = 0;
    /// Seconds after which `lblc` forgets an address (`lblc_expiration`).
    lblc_expiration = 86400;
    /// Seconds after which `lblcr` forgets an address, and shrinks the set of one (`lblcr_expiration`).
    lblcr_expiration = 86400;
    /// A packet of a connection whose server was removed is answered with a reset (TCP) or "port unreachable" instead of
    /// silence: xvs's own cure, on in profile `sane`.
    refuse_nodest = 0;
    /// A TCP segment that belongs to no connection and opens none is answered with a reset, as the host's own TCP does it
    /// behind IPVS; 0: dropped in silence.
    reset_unknown = 1;
    /// Connections whose client has not finished the handshake do not count as active, so a flood of SYNs does not move
    /// the least-connection schedulers: xvs's own cure, on in profile `sane`.
    half_open_inactive = 0;
    /// A new connection renews its template with the service's timeout, also when the template had expired with children
    /// and lives on a minute at a time: xvs's own cure, on in profile `sane`.
    template_renewal = 0;
    /// Answers to packets that a NAT service schedules one by one are translated, by a note that lives for some seconds:
    /// xvs's own cure, on in profile `sane`. (IPVS lets them through untranslated, and no client takes them.)
    one_packet_replies = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults are the kernel's.
    #[test]
    fn defaults_are_the_kernels() {
        let switches = Switches::default();
        assert_eq!((switches.conn_reuse_mode.get(), switches.pmtu_disc.get()), (1, 1));
        assert!(!switches.expire_nodest_conn.is_on() && !switches.sloppy_tcp.is_on());
        switches.sloppy_tcp.set(1);
        assert!(switches.sloppy_tcp.is_on());
    }
}
