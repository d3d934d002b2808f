"""Many UDP flows to one virtual service, frames of one size: the packet rate of known connections.

    start -f xvs_udp.py --port 0 -m 1mpps -d 10 -t --order seq          # opens the connections: 65,536 in order
    start -f xvs_udp.py --port 0 -m 10mpps -d 60                        # then hits them at random

IPv6 by its addresses:

    start -f xvs_udp.py --port 0 -m 10mpps -t --size 66 --vip 2001:2:0:f::10 --clients 2001:2::1-2001:2::40

What it shows: parse, look-up, rewrite and both rings, with as many connections as --flows says. One packet is one
packet: what port 1 receives, divided by what port 0 sent, is what the director passed on.
"""

from trex.stl.api import STLPktBuilder, STLStream, STLTXCont

import xvs_traffic


class Udp:
    def get_streams(self, direction, tunables, **kwargs):
        arguments = xvs_traffic.parser(__doc__.splitlines()[0])
        found = xvs_traffic.options(arguments, tunables)
        packet = xvs_traffic.udp(found, found.size, arguments)
        return [STLStream(packet=STLPktBuilder(pkt=packet, vm=xvs_traffic.vary(found)), mode=STLTXCont(pps=1))]


def register():
    return Udp()
