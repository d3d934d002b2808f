"""Latency and loss of probes in known connections, under a load of many UDP flows to the same virtual service.

    start -f xvs_latency.py --port 0 -m 5mpps -d 60
    start -f xvs_latency.py --port 0.probe -d 60 -t --probes-only       # beside another profile on port 0

The load is that of xvs_udp.py. Each probe is a stream with a flow and a packet group (pg_id) of its own, so that several
queues and workers are looked at; `stats -l` has the groups' latency, jitter and losses, `stats -s` their packets. The
multiplier -m is for the load alone: TRex leaves streams that measure latency at their own rate.

TRex knows its probes again by the IPv4 identification or the IPv6 flow label, and writes its stamp into the last 16
bytes. DR and NAT keep all of that. TUN does not: the outer header hides it, unless the sink is a real server that
opens the tunnel and sends the packet on to TRex. Probes over IPv4 have no UDP checksum, since the stamp is written later.
"""

from trex.stl.api import STLFlowLatencyStats, STLPktBuilder, STLStream, STLTXCont, STLVM

import xvs_traffic

STAMP = 16


class Latency:
    def get_streams(self, direction, tunables, **kwargs):
        arguments = xvs_traffic.parser(__doc__.splitlines()[0])
        arguments.add_argument("--probes", type=xvs_traffic.within(1, 128, "number of probes"), default=8, help="how many probes")
        arguments.add_argument("--probe-size", type=xvs_traffic.size, default=82, help="size of a probe's frame, FCS included")
        arguments.add_argument(
            "--probe-rate", type=xvs_traffic.within(1, 100000, "rate"), default=1000, help="packets of each probe a second"
        )
        arguments.add_argument("--group", type=xvs_traffic.group, default=1, help="the first probe's pg_id")
        arguments.add_argument("--probes-only", action="store_true", help="no load")
        found = xvs_traffic.options(arguments, tunables)
        if found.ports.last + found.probes > 65535:
            arguments.error(f"--probes {found.probes}: no source ports are left for them above {found.ports.last}")
        streams = [probe(found, arguments, nth) for nth in range(found.probes)]
        if not found.probes_only:
            load = xvs_traffic.udp(found, found.size, arguments)
            engine = xvs_traffic.vary(found)
            streams.append(STLStream(name="load", packet=STLPktBuilder(pkt=load, vm=engine), mode=STLTXCont(pps=1)))
        return streams


def probe(found, arguments, nth):
    """One probe: the first client, from a port above those of the load."""
    old = found.vip.version == 4
    packet = xvs_traffic.udp(found, found.probe_size, arguments, found.ports.last + 1 + nth, least=STAMP, zero=old)
    engine = STLVM()
    if not old:
        xvs_traffic.finish(engine, found)
    return STLStream(
        name=f"probe{nth}", isg=1e6 / found.probe_rate * nth / found.probes, mode=STLTXCont(pps=found.probe_rate),
        packet=STLPktBuilder(pkt=packet, vm=engine), flow_stats=STLFlowLatencyStats(pg_id=found.group + nth),
    )


def register():
    return Latency()
