"""A flood of SYNs from many clients to one virtual service: new connections, and a table that fills up.

    start -f xvs_syn.py --port 0 -m 1mpps -d 60
    start -f xvs_latency.py --port 0.probe -d 60 -t --probes-only    # at the same time: do known connections suffer?

With the defaults the SYNs come from 65,534 addresses and 62,976 ports each, four thousand million flows: hardly any two
are alike. TCP options are those of a usual client's SYN (MSS, SACK, time stamps, window scale), so a frame is 78 bytes;
`-t --bare` leaves them out, for 64.

What it shows: the rate of new connections (each goes to the scheduler and into the table), and what happens when the
table is full: half-open connections give way (`evicted`), established ones stay. Nobody answers: the sink is TRex's
other port. The kernel's SYN cookies have no part in this; they are the real server's.
"""

from trex.stl.api import Padding, STLPktBuilder, STLStream, STLTXCont, TCP

import xvs_traffic

OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]


class Syn:
    def get_streams(self, direction, tunables, **kwargs):
        arguments = xvs_traffic.parser(
            __doc__.splitlines()[0], flows=65534 * 62976, clients="198.18.0.1-198.18.255.254", one_size=False
        )
        arguments.set_defaults(sport=2560)
        arguments.add_argument("--size", type=xvs_traffic.size, default=None, help="of the frame; by default no more than needed")
        arguments.add_argument("--bare", action="store_true", help="no TCP options")
        found = xvs_traffic.options(arguments, tunables)
        if found.checksum == "zero":
            arguments.error("--checksum zero: TCP must have a checksum")
        syn = TCP(sport=found.ports.first, dport=found.vport, flags="S", window=64240, seq=1,
                  options=[] if found.bare else OPTIONS)
        packet = xvs_traffic.link(found) / xvs_traffic.network(found.clients.first, found.vip) / syn
        least = max(64, len(packet) + xvs_traffic.FCS)
        if found.size is not None and found.size < least:
            arguments.error(f"a frame of {found.size} bytes is too small: {least} is the least here")
        # A SYN with payload would be another thing: what fills the frame lies behind the IP packet. TRex takes that for
        # the FCS of a capture unless it is told.
        packet /= Padding(b"\0" * ((found.size or least) - len(packet) - xvs_traffic.FCS))
        builder = STLPktBuilder(pkt=packet, vm=xvs_traffic.vary(found, "TCP"), remove_fcs=False)
        return [STLStream(packet=builder, mode=STLTXCont(pps=1))]


def register():
    return Syn()
