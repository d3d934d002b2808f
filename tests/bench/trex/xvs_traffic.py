"""What the stateless profiles of this directory have in common: their options, packets and field engines.

Sizes are those of the wire's frame with its checksum (FCS), as RFC 2544 counts them: 64 is the smallest frame of
Ethernet. Each packet's checksums are right when it leaves, and only the client's address and port vary.

A set of N flows is `clients` addresses times N / clients source ports, all to one virtual service. The same options
give the same set in every profile, so a second profile meets the connections that the first one opened.

Addresses by default are those that RFC 2544 and RFC 5180 set aside for benchmarks, 198.18.0.0/15 and 2001:2::/48.

This is no profile: it has no `register`.
"""

import argparse
import ipaddress

from trex.stl.api import CTRexVmInsFixHwCs, Ether, IP, IPv6, Raw, STLVM, UDP

FCS = 4
LARGEST = 9216


class Range:
    """Addresses or ports, first to last, both included."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def __len__(self):
        return int(self.last) - int(self.first) + 1

    def __str__(self):
        return f"{self.first}-{self.last}"


def address(text):
    """An IPv4 or IPv6 address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no IPv4 or IPv6 address")


def addresses(text):
    """Two addresses of one family as FIRST-LAST; one alone is a range of one."""
    first, _, last = text.partition("-")
    result = Range(address(first), address(last or first))
    if result.first.version != result.last.version:
        raise argparse.ArgumentTypeError(f"'{text}' mixes IPv4 and IPv6")
    if int(result.last) < int(result.first):
        raise argparse.ArgumentTypeError(f"'{text}' ends before it begins")
    if int(result.first) >> 32 != int(result.last) >> 32:
        raise argparse.ArgumentTypeError(f"'{text}': only the last 32 bits of an address may vary")
    return result


def within(least, most, what):
    """A parser of whole numbers from `least` to `most`."""

    def parse(text):
        try:
            value = int(text, 0)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is no {what}, {least} to {most}")
        return value

    return parse


port = within(1, 65535, "port")
count = within(1, 1 << 32, "number")
size = within(64, LARGEST, "frame size")
group = within(0, (1 << 32) - 1, "group")


def mac(text):
    """A MAC address of six octets with colons."""
    parts = text.split(":")
    try:
        good = len(parts) == 6 and all(len(part) == 2 and int(part, 16) >= 0 for part in parts)
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"'{text}' is no MAC address such as 02:00:00:00:00:01")
    return text.lower()


def parser(text, flows=65536, clients="198.18.0.1-198.18.0.64", vip="198.19.255.10", vport=80, one_size=True):
    """The options that every profile takes."""
    result = argparse.ArgumentParser(
        description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    result.add_argument("--vip", type=address, default=vip, help="address of the virtual service")
    result.add_argument("--vport", type=port, default=vport, help="its port")
    result.add_argument("--clients", type=addresses, default=clients, metavar="FIRST-LAST", help="source addresses")
    result.add_argument("--flows", type=count, default=flows, help="distinct flows: a multiple of the number of clients")
    result.add_argument("--sport", type=port, default=1024, help="the lowest source port")
    result.add_argument(
        "--order", choices=["random", "seq"], default="random",
        help="'seq' walks through all flows, and meets each once in as many packets; 'random' draws",
    )
    result.add_argument(
        "--dst-mac", type=mac, default=argparse.SUPPRESS,
        help="MAC of the director; without it, TRex takes the one of its port's configuration",
    )
    if one_size:
        result.add_argument("--size", type=size, default=64, help="size of the frame on the wire, FCS included")
    result.add_argument(
        "--checksum", choices=["hw", "zero"], default="hw",
        help="'hw' has TRex's NIC finish it; 'zero' sends UDP over IPv4 without one, which spares the director's NAT its update",
    )
    return result


def options(arguments, tunables):
    """Parses, and judges what no option can judge alone."""
    found = arguments.parse_args(tunables)
    if found.clients.first.version != found.vip.version:
        arguments.error(f"--vip {found.vip} and --clients {found.clients} are of different families")
    if found.flows % len(found.clients):
        arguments.error(f"--flows {found.flows} is no multiple of the {len(found.clients)} addresses of --clients")
    each = found.flows // len(found.clients)
    if found.sport + each - 1 > 65535:
        most = len(found.clients) * (65536 - found.sport)
        arguments.error(f"--flows {found.flows}: from port {found.sport} on, {len(found.clients)} clients have {most} at most")
    if found.checksum == "zero" and found.vip.version == 6:
        arguments.error("--checksum zero: UDP over IPv6 must have a checksum")
    if found.order == "random" and len(found.clients) % 65536 == 0:
        arguments.error(
            f"--clients: TRex's random numbers never reach half of {len(found.clients)} clients (bit 15 is always 0); "
            "take one less, or --order seq"
        )
    found.ports = Range(found.sport, found.sport + each - 1)
    found.dst_mac = getattr(found, "dst_mac", None)
    return found


def link(found):
    """Ethernet, with the director's MAC if it was given."""
    return Ether(dst=found.dst_mac) if found.dst_mac else Ether()


def network(source, destination):
    """The IP header between two addresses."""
    if destination.version == 6:
        return IPv6(src=str(source), dst=str(destination))
    return IP(src=str(source), dst=str(destination))


def padded(packet, wire, arguments, least=0):
    """The packet with payload up to a size on the wire, and at least so many bytes of payload."""
    room = wire - FCS - len(packet)
    if room < least:
        arguments.error(f"a frame of {wire} bytes is too small: {len(packet) + least + FCS} is the least here")
    return packet / Raw(b"x" * room) if room else packet


def udp(found, wire, arguments, sport=None, least=0, zero=False):
    """A client's datagram to the service: the first client's, from the first port or the one given."""
    ports = UDP(sport=sport or found.ports.first, dport=found.vport)
    if zero or found.checksum == "zero":
        ports.chksum = 0
    return padded(link(found) / network(found.clients.first, found.vip) / ports, wire, arguments, least)


def finish(engine, found, transport="UDP"):
    """Has TRex's NIC finish the checksums of IP and of the transport."""
    kind = {"UDP": CTRexVmInsFixHwCs.L4_TYPE_UDP, "TCP": CTRexVmInsFixHwCs.L4_TYPE_TCP}[transport]
    engine.fix_chksum_hw(l3_offset=family(found), l4_offset=transport, l4_type=kind)


def family(found):
    """The name of the network's layer."""
    return "IPv6" if found.vip.version == 6 else "IP"


def vary(found, transport="UDP", side="src"):
    """The field engine that writes client and port of each packet on that side and finishes its checksums."""
    engine = STLVM()
    layer = family(found)
    first, last = (int(edge) & 0xFFFFFFFF for edge in (found.clients.first, found.clients.last))
    ports = found.ports
    if found.order == "seq":
        engine.tuple_var(
            name="flow", ip_min=first, ip_max=last, port_min=ports.first, port_max=ports.last, limit_flows=found.flows
        )
        client, source = "flow.ip", "flow.port"
    else:
        client, source = "client", "port"
        engine.var(name=client, min_value=first, max_value=last, size=4, op="random")
        # A variable of two bytes gets 15 random bits from TRex, so more ports need one of four.
        wide = len(ports) > 1 << 15
        engine.var(name=source, min_value=ports.first, max_value=ports.last, size=4 if wide else 2, op="random")
    engine.write(fv_name=client, pkt_offset=f"{layer}.{side}", offset_fixup=12 if layer == "IPv6" else 0)
    field = f"{transport}.{'sport' if side == 'src' else 'dport'}"
    if found.order == "random" and wide:
        engine.write_mask(fv_name=source, pkt_offset=field, pkt_cast_size=2, mask=0xFFFF)
    else:
        engine.write(fv_name=source, pkt_offset=field)
    if found.checksum == "zero":
        engine.fix_chksum()
    else:
        finish(engine, found, transport)
    return engine
