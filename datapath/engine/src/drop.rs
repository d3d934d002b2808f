//! Why a packet was dropped: one list that is the enum, the counters' names and the help texts.
//!
//! Invariant: a packet that enters the engine leaves it by an interface, is held for a moment, or is counted here.
//! Nothing else may swallow one.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A named reason to drop a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name in counters, listings and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// A sentence for the operator: what it means, and what to do.
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The frame ended before its headers did; look for a broken sender or a wrong MTU.
    Truncated = "truncated";
    /// The frame is neither IPv4 nor IPv6; the XDP program should have left it to the kernel.
    NotIp = "not_ip";
    /// A header says something impossible (version, header length, total length).
    Malformed = "malformed";
    /// An IPv6 packet carries more extension headers than the director follows.
    ExtensionHeaders = "extension_headers";
    /// The protocol is none that the director balances; the XDP program should have left it to the kernel.
    Protocol = "protocol";
    /// The source can not be a host's address (multicast, loopback), or an IPv6 packet carries an IPv4 address in mapped form.
    Martian = "martian";
    /// No service has this address and port, and no connection either; the rule was removed, most likely. The client was told.
    NoService = "no_service";
    /// A TCP packet that is not a SYN belongs to no connection: the entry timed out, or the director lost it.
    NoConnectionTcp = "no_connection_tcp";
    /// An IPsec packet (AH, ESP) whose client has no connection to port 500 of the VIP, which it would follow.
    NoConnectionIpsec = "no_connection_ipsec";
    /// An SCTP packet that is no INIT belongs to no association: the entry timed out, or the director lost it.
    NoConnectionSctp = "no_connection_sctp";
    /// A packet of a real server belongs to no connection: it is late, or the server talks to the client by itself.
    NoConnectionReply = "no_connection_reply";
    /// A new connection came from port 20 (FTP data), which LVS never schedules.
    SourcePort20 = "source_port_20";
    /// The scheduler found no usable real server: all are removed, quiesced or at their thresholds.
    NoServer = "no_server";
    /// A new connection of a service with `--pe sip` whose message has no Call-ID to know the call by: none, one cut off or
    /// longer than 255 bytes, or it is no UDP.
    NoCallId = "no_call_id";
    /// All places for Call-IDs (`--pe sip`) are taken; there is one for each four entries of `connections.capacity`. Raise
    /// that, or shorten the service's persistence.
    CallsFull = "calls_full";
    /// The connection's real server was removed; its packets go nowhere until it comes back or the entry times out.
    ServerGone = "server_gone";
    /// The packet's connection ended while the packet was on its way: another worker timed it out, or made room.
    ConnectionEnded = "connection_ended";
    /// The defence against too many connections drops one of so many new ones (`drop_packet`).
    Pressure = "pressure";
    /// The connection table is full and nothing in reach could give way; raise `connections.capacity`.
    TableFull = "table_full";
    /// TTL or hop limit was used up; the sender was told.
    TtlExceeded = "ttl_exceeded";
    /// The packet does not fit the way to the real server and may not be fragmented; the sender was told.
    TooBig = "too_big";
    /// The way to a tunnel's far end leaves less room than every IP packet must have (68 bytes, 1280 if it is IPv6 outside);
    /// raise the MTU on the way.
    TunnelMtu = "tunnel_mtu";
    /// The packet does not fit the way out and can not be cut: an ICMP error that may not be fragmented, or a way too narrow.
    NeedsFragmentation = "needs_fragmentation";
    /// A later fragment whose first fragment did not come in time, or was refused itself.
    FragmentUnknown = "fragment_unknown";
    /// NAT changes the port of an SCTP packet in fragments, whose checksum covers bytes that are elsewhere; give service and server one port.
    FragmentSctp = "fragment_sctp";
    /// A later fragment that had to give way: too many already waited for their first one.
    FragmentQueueFull = "fragment_queue_full";
    /// The packet had to be cut into fragments, and the pool had no frames for them; raise `frames.count`.
    NoSpareFrame = "no_spare_frame";
    /// There is no route to the real server or back to the client.
    NoRoute = "no_route";
    /// The way leads through an interface that the director does not serve; add it to the configuration.
    NotServed = "interface_not_served";
    /// The real server is the director itself; packets from AF_XDP can not reach its own sockets.
    LocalServer = "local_server";
    /// The next hop did not answer ARP or neighbour discovery in time.
    NeighbourUnresolved = "neighbour_unresolved";
    /// Too many packets already waited for the same next hop.
    NeighbourQueueFull = "neighbour_queue_full";
    /// An ICMP error quotes a packet of no known connection.
    IcmpUnrelated = "icmp_unrelated";
    /// An ICMP packet that is no error came to the director; the XDP program should have left it to the kernel.
    IcmpNotError = "icmp_not_error";
    /// An ICMP error about one of the director's tunnels quotes too little of the packet inside: its router sends back only
    /// 28 bytes, and clients do not hear of narrow places behind it. Give the route to the real server its MTU.
    TunnelQuote = "tunnel_quote";
    /// An ICMP error about one of the director's tunnels was taken in and goes no further: IPv6 on either side of the tunnel,
    /// a packet that its sender lets be fragmented, or too many errors at once.
    TunnelError = "tunnel_error";
    /// The ICMP packet's own checksum is wrong.
    IcmpChecksum = "icmp_checksum";
    /// The frame has no room for the headers that the forwarding method adds.
    NoRoom = "no_room";
    /// The forwarding method can not carry this packet (address family of the server).
    Method = "method";
    /// The transmit ring stayed full and so did the queue before it; the link is slower than the traffic, or down.
    TransmitFull = "transmit_full";
    /// The packet was on its way out when the director was told to stop.
    Shutdown = "shutdown";
}

/// How many reasons there are.
pub const REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters and metrics are keyed by name: two reasons with one name would be added up.
    #[test]
    fn names_are_unique_and_every_reason_explains_itself() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REASONS);
        for reason in DropReason::ALL {
            assert!(reason.help().len() > 30, "{} needs a sentence", reason.name());
            assert!(reason.help().ends_with('.'), "{}: {}", reason.name(), reason.help());
        }
    }
}
