"""The answers of one NAT server to the flows of xvs_udp.py: the way back through the director.

    start -f xvs_udp.py     --port 0 -m 1mpps -d 10 -t --order seq                   # opens the connections
    start -f xvs_udp.py     --port 0 -m 5mpps -d 60
    start -f xvs_answers.py --port 1 -m 5mpps -d 60 -t --rip 198.19.0.11             # at the same time

Give it the same --clients, --flows and --sport. The service must have this one server: TRex cannot know which of
several the director chose for a client. --dst-mac is the director's MAC on the servers' side.

What it shows: NAT in both directions. Answers without a connection are dropped and counted as `no_connection_reply`: a
sign that the first line was forgotten, or that the connections have ended (UDP: 300 s).
"""

from trex.stl.api import STLPktBuilder, STLStream, STLTXCont, UDP

import xvs_traffic


class Answers:
    def get_streams(self, direction, tunables, **kwargs):
        arguments = xvs_traffic.parser(__doc__.splitlines()[0])
        arguments.add_argument("--rip", type=xvs_traffic.address, default="198.19.0.11", help="address of the real server")
        arguments.add_argument("--rport", type=xvs_traffic.port, default=None, help="its port; by default the service's")
        found = xvs_traffic.options(arguments, tunables)
        if found.rip.version != found.vip.version:
            arguments.error(f"--rip {found.rip} and --vip {found.vip} are of different families; NAT has one")
        ports = UDP(sport=found.rport or found.vport, dport=found.ports.first)
        if found.checksum == "zero":
            ports.chksum = 0
        packet = xvs_traffic.link(found) / xvs_traffic.network(found.rip, found.clients.first) / ports
        packet = xvs_traffic.padded(packet, found.size, arguments)
        engine = xvs_traffic.vary(found, side="dst")
        return [STLStream(packet=STLPktBuilder(pkt=packet, vm=engine), mode=STLTXCont(pps=1))]


def register():
    return Answers()
