#!/usr/bin/env python3
"""Loads every profile of this directory with TRex's own client library and looks at each packet that it would send.

    python3 -m pip install --target DIR --no-deps --require-hashes -r requirements.txt
    PYTHONPATH=DIR python3 check.py [--write DIR]

The library compiles a profile to streams; what a TRex does with them is done here again, instruction by instruction, its
random numbers included. Judged are number, size, rate and group of the streams, addresses, ports, checksums and the
number of distinct flows, by a parser of its own and not by the library that built them. --write DIR has the packets as
pcap files, for `xvs replay`. This is no run against a TRex: that takes one, and two ports of a NIC.

Exit status: 0 all is well, 1 something is not, 2 the library is missing.
"""

import argparse
import collections.abc
import contextlib
import importlib
import io
import pathlib
import struct
import sys
import types

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
FCS = 4

# The library reloads profiles by a module that Python 3.12 has no more, and that warns before that.
sys.modules["imp"] = types.ModuleType("imp")
sys.modules["imp"].reload = importlib.reload

try:
    import lbr_trex_client  # noqa: F401  (sets the paths of the two below)
    from trex.astf.trex_astf_profile import ASTFProfile
    from trex.stl.trex_stl_streams import STLProfile
except ImportError as error:
    print(f"TRex's client library cannot be loaded: {error}\n{__doc__}", file=sys.stderr)
    sys.exit(2)


class Wrong(Exception):
    """Something is not as it must be."""


def must_be(what, found, due):
    if found != due:
        raise Wrong(f"{what}: {found!r}, and {due!r} was due")


class Engine:
    """A stream's field engine, as a TRex with one core runs it."""

    def __init__(self, stream):
        fields = stream.to_json()
        self.template = bytearray(stream.get_pkt())
        self.program = fields["vm"]["instructions"]
        self.seed = 1
        self.values = {}
        self.flows = 0
        for step in self.program:
            if step["type"] == "tuple_flow_var":
                self.values[step["name"] + ".ip"] = step["ip_min"]
                self.values[step["name"] + ".port"] = step["port_min"]

    def random15(self):
        """TRex's generator: 15 bits of a linear congruence."""
        self.seed = (214013 * self.seed + 2531011) & 0xFFFFFFFF
        return (self.seed >> 16) & 0x7FFF

    def packet(self, finish=True):
        """The next packet; without `finish` its checksums are left as they are."""
        packet = bytearray(self.template)
        after = []
        for step in self.program:
            kind = step["type"]
            if kind == "flow_var":
                self.draw(step)
            elif kind == "tuple_flow_var":
                after.append(step)
            elif kind == "write_flow_var":
                name = step["name"]
                length = 2 if name.endswith(".port") else 4 if name.endswith(".ip") else self.size(name)
                at = step["pkt_offset"]
                packet[at : at + length] = self.values[name].to_bytes(length, "big" if step["is_big_endian"] else "little")
            elif kind == "write_mask_flow_var":
                must_be("shift and addition of a masked write", (step["shift"], step["add_value"]), (0, 0))
                at, length, mask = step["pkt_offset"], step["pkt_cast_size"], step["mask"]
                old = int.from_bytes(packet[at : at + length], "big")
                new = (old & ~mask) | (self.values[step["name"]] & mask)
                packet[at : at + length] = new.to_bytes(length, "big")
            elif kind == "fix_checksum_ipv4":
                if finish:
                    fix_ip(packet, step["pkt_offset"])
            elif kind == "fix_checksum_hw":
                if finish:
                    fix_both(packet, step)
            else:
                raise Wrong(f"an instruction that is not known here: {step}")
        for step in after:
            self.advance(step)
        return bytes(packet)

    def size(self, name):
        return next(step["size"] for step in self.program if step["type"] == "flow_var" and step["name"] == name)

    def draw(self, step):
        must_be("the way a variable changes", step["op"], "random")
        drawn = self.random15()
        if step["size"] == 4:
            drawn = (drawn << 16) + self.random15()
        self.values[step["name"]] = step["min_value"] + drawn % (step["max_value"] - step["min_value"] + 1)

    def advance(self, step):
        ip, port = step["name"] + ".ip", step["name"] + ".port"
        self.flows += 1
        if self.flows == step["limit_flows"]:
            self.flows = 0
            self.values[ip], self.values[port] = step["ip_min"], step["port_min"]
        elif self.values[ip] < step["ip_max"]:
            self.values[ip] += 1
        else:
            self.values[ip] = step["ip_min"]
            self.values[port] = self.values[port] + 1 if self.values[port] < step["port_max"] else step["port_min"]


def total(data):
    """The Internet checksum's sum, folded."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    result = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while result >> 16:
        result = (result & 0xFFFF) + (result >> 16)
    return result


def fix_ip(packet, at):
    packet[at + 10 : at + 12] = b"\0\0"
    packet[at + 10 : at + 12] = struct.pack("!H", 0xFFFF - total(packet[at : at + 20]))


def pseudo(packet, at, length, protocol):
    addresses = packet[at + 12 : at + 20] if packet[at] >> 4 == 4 else packet[at + 8 : at + 40]
    return bytes(addresses) + struct.pack("!II", length, protocol)


def fix_both(packet, step):
    """What the NIC does: IPv4's own checksum, then that of TCP or UDP."""
    at, inner = step["l2_len"], step["l2_len"] + step["l3_len"]
    protocol, field = {11: (17, 6), 13: (6, 16)}[step["l4_type"]]
    if packet[at] >> 4 == 4:
        fix_ip(packet, at)
        end = at + struct.unpack_from("!H", packet, at + 2)[0]
    else:
        end = inner + struct.unpack_from("!H", packet, at + 4)[0]
    packet[inner + field : inner + field + 2] = b"\0\0"
    found = 0xFFFF - total(pseudo(packet, at, end - inner, protocol) + bytes(packet[inner:end]))
    packet[inner + field : inner + field + 2] = struct.pack("!H", found or (0xFFFF if protocol == 17 else 0))


def text4(raw):
    return ".".join(str(octet) for octet in raw)


def text6(raw):
    return ":".join(f"{group:x}" for group in struct.unpack("!8H", raw))


def read(packet):
    """Protocol, ends and checksums of a packet: a parser of its own."""
    kind = struct.unpack_from("!H", packet, 12)[0]
    if kind == 0x0800:
        must_be("IPv4's first byte", packet[14], 0x45)
        must_be("IPv4's checksum", total(packet[14:34]), 0xFFFF)
        length, protocol = struct.unpack_from("!H", packet, 16)[0], packet[23]
        source, destination, inner = text4(packet[26:30]), text4(packet[30:34]), 34
        end = 14 + length
    else:
        must_be("the frame's type", kind, 0x86DD)
        length, protocol = struct.unpack_from("!HB", packet, 18)
        source, destination, inner = text6(packet[22:38]), text6(packet[38:54]), 54
        end = inner + length
    if end > len(packet):
        raise Wrong(f"the IP packet ends at {end}, the frame at {len(packet)}")
    sport, dport = struct.unpack_from("!HH", packet, inner)
    if protocol == 17:
        must_be("UDP's length", struct.unpack_from("!H", packet, inner + 4)[0], end - inner)
    stored = struct.unpack_from("!H", packet, inner + (6 if protocol == 17 else 16))[0]
    if stored or protocol == 6:
        must_be("the transport's checksum", total(pseudo(packet, 14, end - inner, protocol) + packet[inner:end]), 0xFFFF)
    flags = packet[inner + 13] if protocol == 6 else None
    return types.SimpleNamespace(
        protocol=protocol, source=source, destination=destination, sport=sport, dport=dport, flags=flags,
        checksum=stored, padding=len(packet) - end, ttl=packet[22] if kind == 0x0800 else packet[21],
    )


def flow_of(packet, side):
    """The bytes of a packet that tell its flow: the client's address and port."""
    if packet[12] == 0x08:
        return (packet[26:30] + packet[34:36]) if side == "source" else (packet[30:34] + packet[36:38])
    return (packet[22:38] + packet[54:56]) if side == "source" else (packet[38:54] + packet[56:58])


CLIENTS6 = ["--vip", "2001:2:0:f::10", "--clients", "2001:2::1-2001:2::40"]
V6 = "2001:2:0:f:0:0:0:10"

# Name, profile, options; then what is due: for each stream its size and rate, and of its packets the destination and how
# many flows so many packets meet.
STATELESS = [
    ("udp-seq", "xvs_udp", ["--order", "seq"], dict(streams=[(64, 1)], flows=65536, packets=65536)),
    ("udp-random", "xvs_udp", [], dict(streams=[(64, 1)], flows=65536, packets=4 * 65536, met=0.975)),
    ("udp-small", "xvs_udp", ["--flows", "4096"], dict(streams=[(64, 1)], flows=4096, packets=16 * 4096, met=0.9999)),
    ("udp-few", "xvs_udp", ["--clients", "198.18.7.1", "--flows", "16", "--size", "1518", "--vport", "5000"],
     dict(streams=[(1518, 1)], flows=16, packets=1024, dport=5000)),
    ("udp-million", "xvs_udp", ["--flows", "1048576", "--clients", "198.18.0.0-198.18.3.255", "--order", "seq"],
     dict(streams=[(64, 1)], flows=1048576, packets=65536, apart=1)),
    ("udp-zero", "xvs_udp", ["--checksum", "zero"], dict(streams=[(64, 1)], flows=65536, packets=2048, met=0, checksum=0)),
    ("udp-mac", "xvs_udp", ["--dst-mac", "02:00:00:00:00:aa"], dict(streams=[(64, 1)], flows=65536, packets=64, met=0, mac="0200000000aa")),
    ("udp6-seq", "xvs_udp", ["--size", "66", "--order", "seq"] + CLIENTS6,
     dict(streams=[(66, 1)], flows=65536, packets=65536, destination=V6)),
    ("imix", "xvs_imix", [], dict(streams=[(64, 7), (594, 4), (1518, 1)], flows=65536, packets=4096, met=0)),
    ("imix-tunnel", "xvs_imix", ["--largest", "1498"],
     dict(streams=[(64, 7), (594, 4), (1498, 1)], flows=65536, packets=64, met=0)),
    ("imix6", "xvs_imix", CLIENTS6, dict(streams=[(66, 7), (594, 4), (1518, 1)], flows=65536, packets=64, met=0, destination=V6)),
    ("syn", "xvs_syn", [], dict(streams=[(78, 1)], flows=65534 * 62976, packets=65536, apart=0.999, syn=True)),
    ("syn-bare", "xvs_syn", ["--bare"], dict(streams=[(64, 1)], flows=65534 * 62976, packets=64, met=0, syn=True)),
    ("syn6", "xvs_syn", ["--flows", "62976", "--vip", "2001:2:0:f::10", "--clients", "2001:2::1"],
     dict(streams=[(98, 1)], flows=62976, packets=4 * 62976, met=0.975, syn=True, destination=V6)),
    ("latency", "xvs_latency", [], dict(streams=[(82, 1000)] * 8 + [(64, 1)], probes=8, flows=65536, packets=4096, met=0)),
    ("latency6", "xvs_latency", ["--probes-only", "--probes", "2", "--group", "70"] + CLIENTS6,
     dict(streams=[(82, 1000)] * 2, probes=2, first=70, packets=64, met=0, destination=V6)),
    ("answers", "xvs_answers", ["--order", "seq", "--rport", "8080"],
     dict(streams=[(64, 1)], flows=65536, packets=65536, side="destination", source="198.19.0.11", sport=8080)),
]

# What must be refused, and by which words.
REFUSED = [
    ("xvs_udp", ["--size", "63"], "'63' is no frame size, 64 to 9216"),
    ("xvs_udp", ["--size", "64"] + CLIENTS6, "a frame of 64 bytes is too small: 66 is the least here"),
    ("xvs_udp", ["--flows", "65"], "--flows 65 is no multiple of the 64 addresses of --clients"),
    ("xvs_udp", ["--flows", "64000000"], "64 clients have 4128768 at most"),
    ("xvs_udp", ["--clients", "198.18.0.9-198.18.0.1"], "ends before it begins"),
    ("xvs_udp", ["--clients", "198.18.0.1-2001:2::1"], "mixes IPv4 and IPv6"),
    ("xvs_udp", ["--clients", "2001:2::1"], "are of different families"),
    ("xvs_udp", ["--clients", "198.18.0.0-198.18.255.255"], "random numbers never reach half of 65536 clients"),
    ("xvs_udp", ["--vip", "bench"], "'bench' is no IPv4 or IPv6 address"),
    ("xvs_udp", ["--vport", "0"], "'0' is no port, 1 to 65535"),
    ("xvs_udp", ["--dst-mac", "2:0:0:0:0:1"], "is no MAC address such as 02:00:00:00:00:01"),
    ("xvs_udp", ["--checksum", "zero", "--size", "66"] + CLIENTS6, "UDP over IPv6 must have a checksum"),
    ("xvs_udp", ["--fsize", "64"], "unrecognized arguments: --fsize 64"),
    ("xvs_syn", ["--size", "64"], "a frame of 64 bytes is too small: 78 is the least here"),
    ("xvs_syn", ["--checksum", "zero"], "TCP must have a checksum"),
    ("xvs_latency", ["--probe-size", "70"] + CLIENTS6, "82 is the least here"),
    ("xvs_latency", ["--clients", "198.18.0.1", "--flows", "64512"], "no source ports are left for them above 65535"),
    ("xvs_answers", ["--rip", "2001:2::11"], "are of different families"),
    ("xvs_churn", ["--vip", "2001:2::1"], "'2001:2::1' is no IPv4 address"),
    ("xvs_long", ["--pause", "0"], "'0' is no time in ms, 1 to 600000"),
]


def load(profile, tunables):
    """Loads a profile as TRex's console does; what it says to standard error comes along."""
    path = str(HERE / f"{profile}.py")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        if profile in ("xvs_churn", "xvs_long"):
            loaded = ASTFProfile.load_py(path, tunables=tunables)
        else:
            loaded = STLProfile.load_py(path, direction=0, port_id=0, tunables=tunables)
    return loaded, said.getvalue()


def stateless(name, profile, tunables, due, write):
    loaded, said = load(profile, tunables)
    if loaded is None:
        raise Wrong(f"refused: {said}")
    streams = loaded.get_streams()
    found = [(len(stream.get_pkt()) + FCS, stream.to_json()["mode"]["rate"]["value"]) for stream in streams]
    must_be("sizes and rates of the streams", found, due["streams"])
    groups = [stream.get_pg_id() for stream in streams if stream.get_flow_stats_type() == "latency"]
    first = due.get("first", 1)
    must_be("packet groups", groups, list(range(first, first + due.get("probes", 0))))

    out = write and Pcap(write / f"{name}.pcap")
    seen, sent = set(), 0
    for nth, stream in enumerate(streams):
        engine = Engine(stream)
        side = due.get("side", "source")
        for number in range(due["packets"]):
            packet = engine.packet(finish=number < 512)
            if number < 512:
                judge(packet, stream, due, probe=nth < due.get("probes", 0))
                if out:
                    out.packet(packet)
            seen.add(flow_of(packet, side))
            sent += 1
    flows = due.get("flows", 0) + due.get("probes", 0)
    if due.get("apart"):
        if len(seen) < due["apart"] * sent:
            raise Wrong(f"only {len(seen)} of {sent} packets belong to flows of their own")
    elif not due.get("met", 1) * flows <= len(seen) <= flows:
        raise Wrong(f"{len(seen)} flows were met, of {flows}")
    return f"{len(streams)} streams, {sent} packets, {len(seen)} flows"


def judge(packet, stream, due, probe):
    read_back = read(packet)
    if due.get("side") == "destination":
        must_be("source", (read_back.source, read_back.sport), (due["source"], due["sport"]))
    else:
        must_be("destination", (read_back.destination, read_back.dport), (due.get("destination", "198.19.255.10"), due.get("dport", 80)))
    must_be("protocol", read_back.protocol, 6 if due.get("syn") else 17)
    must_be("TCP flags", read_back.flags, 2 if due.get("syn") else None)
    must_be("bytes behind the IP packet", read_back.padding, 6 if due.get("syn") and len(packet) == 60 else 0)
    must_be("TTL", read_back.ttl, 64)
    old = packet[12] == 0x08
    if (probe and old) or due.get("checksum") == 0:
        must_be("UDP's checksum", read_back.checksum, 0)
    elif not read_back.checksum and read_back.protocol == 17:
        raise Wrong("UDP without a checksum")
    flags = stream.to_json()["flags"]
    must_be("whose destination MAC counts (1: the packet's)", flags >> 1 & 3, 1 if "mac" in due else 0)
    if "mac" in due:
        must_be("destination MAC", packet[:6].hex(), due["mac"])


class Pcap:
    """A capture file, a packet each microsecond."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        self.number = 0

    def packet(self, packet):
        self.file.write(struct.pack("<IIII", self.number // 1000000, self.number % 1000000, len(packet), len(packet)))
        self.file.write(packet)
        self.file.flush()
        self.number += 1


def stateful():
    """The two profiles of real connections, by the programs that TRex's library makes of them."""
    loaded, _ = load("xvs_churn", ["--request", "64", "--answer", "512", "--vip", "198.19.255.10-198.19.255.13", "--rport", "8080"])
    made = loaded.to_json()
    must_be("programs of xvs_churn", [[step["name"] for step in program["commands"]] for program in made["program_list"]],
            [["tx", "rx"], ["rx", "tx"]])
    must_be("bytes of an answer", made["program_list"][0]["commands"][1]["min_bytes"], 512)
    must_be("bytes of a request", made["program_list"][1]["commands"][0]["min_bytes"], 64)
    ends(made, ["198.19.255.10", "198.19.255.13"], 80, 8080)

    loaded, _ = load("xvs_long", ["--connections", "5000", "--rounds", "7", "--pause", "250"])
    made = loaded.to_json()
    client, server = (program["commands"] for program in made["program_list"])
    must_be("the client's program", [step["name"] for step in client], ["set_var", "tx", "rx", "delay", "jmp_nz"])
    must_be("the server's program", [step["name"] for step in server], ["set_var", "rx", "tx", "jmp_nz"])
    must_be("rounds", (client[0]["val"], server[0]["val"]), (7, 7))
    must_be("the pause in us", client[3]["usec"], 250000)
    must_be("jumps back to the first command of the round", (client[4]["offset"], server[3]["offset"]), (-3, -2))
    must_be("the limit", made["templates"][0]["client_template"]["limit"], 5000)
    ends(made, ["198.19.255.10", "198.19.255.10"], 80, 80)
    return "2 profiles"


def ends(made, vip, vport, rport):
    clients, servers = made["ip_gen_dist_list"]
    must_be("the service's addresses", [servers["ip_start"], servers["ip_end"]], vip)
    must_be("the clients", [clients["ip_start"], clients["ip_end"]], ["198.18.0.1", "198.18.3.254"])
    must_be("what a second pair of ports adds", (clients["ip_offset"], servers["ip_offset"]), ("0.0.0.0", "0.0.0.0"))
    template = made["templates"][0]
    must_be("ports", (template["client_template"]["port"], template["server_template"]["assoc"]), (vport, [{"port": rport}]))


def configuration():
    """The example of TRex's own configuration: as many threads as it says, a MAC each."""
    sys.path.append(str(pathlib.Path(lbr_trex_client.__file__).parent / "external_libs/pyyaml-3.11/python3"))
    collections.Hashable = collections.abc.Hashable  # where Python 3.9 still had it; that YAML reader is of then
    import yaml

    (made,) = yaml.safe_load((HERE / "trex_cfg.yaml").read_text())
    must_be("threads", len(made["platform"]["dual_if"][0]["threads"]), made["c"])
    must_be("ports", len(made["port_info"]), len(made["interfaces"]))
    macs = {mac for port in made["port_info"] for mac in port.values()}
    must_be("MACs", (len(macs), {len(mac) for mac in macs}), (4, {17}))
    return "trex_cfg.yaml"


def search():
    """ndr.py's search, against directors that are functions, and its use of TRex's client by the client's signatures."""
    import ndr

    def options(*words):
        return ndr.options(["--repeats", "3", "--rest", "0", *words, str(HERE / "xvs_udp.py"), "--", "--flows", "4096"])

    trials = []

    def director(most, generator=1e9, patience=1e9):
        """Loses what is above `most`, and a packet in trials longer than `patience`."""

        def trial(rate, seconds):
            sent = int(min(rate, generator) * seconds)
            trials.append((rate, seconds))
            return sent, min(sent, int(most * seconds)) - (seconds > patience and rate > most / 2)

        return trial

    most = 14880952
    step = 0.005 * most
    for what, device, due, limits in [
        ("a director with a limit", director(5e6), (5e6 - step, 5e6), {"loss"}),
        ("one as fast as the wire", director(2e7), (most, most), {"most"}),
        ("a slow generator", director(2e7, generator=6e6), (6e6 - step, 6e6), {"generator"}),
        ("losses in long trials alone", director(5e6, patience=30), (2.5e6 - step, 2.5e6), {"loss"}),
    ]:
        trials.clear()
        made = options()
        result = ndr.Search(device, made).run()
        if not all(due[0] <= result[key] <= due[1] for key in ("median", "lowest", "highest")) or set(result["limits"]) != limits:
            raise Wrong(f"{what}: {result}, and {due} by {limits} was due")
        must_be(f"{what}: the last trial's length", trials[-1][1], 60)
    must_be("a director that loses all", ndr.Search(director(0), options("--loss", "0.5")).run()["rates"], [None] * 3)
    loose = ndr.Search(director(5e6), options("--loss", "0.5")).run()["median"]
    must_be("half may be lost: twice the rate, to a hundredth", round(loose / 1e7, 2), 1.0)

    import unittest.mock

    from trex.stl.trex_stl_client import STLClient

    client = unittest.mock.create_autospec(STLClient, instance=True)
    client.get_stats.return_value = {0: {"opackets": 10}, 1: {"ipackets": 9}}
    with unittest.mock.patch("time.sleep"):
        trex = ndr.Trex(client, lambda tunables: load("xvs_udp", tunables)[0], options())
        must_be("sent and received", trex.trial(1000000, 10), (10, 9))
    must_be("starts", [(call.kwargs["mult"], call.kwargs["duration"]) for call in client.start.call_args_list],
            [("500000pps", 5), ("1000000pps", 10)])
    warm, streams = (call.args[0][0].to_json()["vm"]["instructions"][0] for call in client.add_streams.call_args_list)
    must_be("the first walks through the flows", (warm["type"], warm["limit_flows"]), ("tuple_flow_var", 4096))
    must_be("the second draws", streams["op"], "random")
    return "ndr.py"


def refusals():
    for profile, tunables, words in REFUSED:
        loaded, said = load(profile, tunables)
        if loaded is not None:
            raise Wrong(f"{profile} {' '.join(tunables)} was not refused")
        if words not in " ".join(said.split()):
            raise Wrong(f"{profile} {' '.join(tunables)} was refused without the words '{words}': {said}")
    return f"{len(REFUSED)} mistakes"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", type=pathlib.Path, metavar="DIR", help="writes NAME.pcap for each case")
    write = arguments.parse_args().write
    if write:
        write.mkdir(parents=True, exist_ok=True)

    checks = [(name, lambda case=(name, *rest): stateless(*case, write)) for name, *rest in STATELESS]
    checks += [("stateful", stateful), ("configuration", configuration), ("search", search), ("refusals", refusals)]
    wrong = 0
    for name, check in checks:
        try:
            print(f"{name:<14} {check()}")
        except Wrong as error:
            wrong += 1
            print(f"{name:<14} WRONG: {error}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
