"""Many UDP flows to one virtual service, frames of 64, 594 and 1518 bytes as 7 to 4 to 1 ("simple IMIX").

    start -f xvs_imix.py --port 0 -m 3mpps -d 60

A frame of this mix has 361.8 bytes on average, 381.8 on the wire with preamble and gap: 3.274 million a second are
10 Gbit/s. All sizes go over the same flows. Behind a tunnel the largest must be smaller, or the director cuts it: for
IP in IP over a path of 1500 bytes `-t --largest 1498`.

What it shows: the packet rate of a plausible mixture, and whether larger frames cost more than their time on the wire
(copy mode does, zero-copy should not).
"""

from trex.stl.api import STLPktBuilder, STLStream, STLTXCont

import xvs_traffic

SHARES = [(64, 7), (594, 4), (1518, 1)]


class Imix:
    def get_streams(self, direction, tunables, **kwargs):
        arguments = xvs_traffic.parser(__doc__.splitlines()[0], one_size=False)
        arguments.add_argument("--largest", type=xvs_traffic.size, default=1518, help="no frame is larger than this")
        found = xvs_traffic.options(arguments, tunables)
        streams = []
        for nth, (wire, share) in enumerate(SHARES):
            # IPv6 and UDP alone are 66 bytes.
            wire = min(max(wire, 66 if found.vip.version == 6 else 64), found.largest)
            packet = xvs_traffic.udp(found, wire, arguments)
            streams.append(
                STLStream(
                    name=f"imix{nth}", isg=nth * 0.1, mode=STLTXCont(pps=share),
                    packet=STLPktBuilder(pkt=packet, vm=xvs_traffic.vary(found)),
                )
            )
        return streams


def register():
    return Imix()
