"""What the stateful (ASTF) profiles of this directory have in common: real TCP at both ends.

TRex's server side answers whatever comes to a port that it knows, whatever its address is, so it can be the real servers
behind the director; but it answers no ARP. TRex wants as many virtual addresses as it has cores for a pair of ports
(`-c`): with one, start it with `-c 1`, or give the director the same service at several addresses.

This is no profile: it has no `register`.
"""

import argparse
import ipaddress

from trex.astf.api import ASTFAssociationRule, ASTFIPGen, ASTFIPGenDist, ASTFIPGenGlobal


def address(text):
    """An IPv4 address."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no IPv4 address")


def addresses(text):
    """Two IPv4 addresses as FIRST-LAST; one alone is a range of one."""
    first, _, last = text.partition("-")
    first, last = address(first), address(last or first)
    if last < first:
        raise argparse.ArgumentTypeError(f"'{text}' ends before it begins")
    return [str(first), str(last)]


def within(least, most, what):
    """A parser of whole numbers from `least` to `most`."""

    def parse(text):
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is no {what}, {least} to {most}")
        return int(text)

    return parse


port = within(1, 65535, "port")
length = within(1, 1 << 24, "length")


def parser(text):
    """The options that every stateful profile takes."""
    result = argparse.ArgumentParser(
        description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    result.add_argument("--vip", type=addresses, default="198.19.255.10", metavar="FIRST[-LAST]", help="the service's addresses")
    result.add_argument("--vport", type=port, default=80, help="its port, for the clients")
    result.add_argument("--rport", type=port, default=None, help="the real servers' port; by default the service's")
    result.add_argument("--clients", type=addresses, default="198.18.0.1-198.18.3.254", metavar="FIRST-LAST", help="source addresses")
    result.add_argument("--request", type=length, default=100, help="bytes of a request")
    result.add_argument("--answer", type=length, default=200, help="bytes of an answer")
    return result


def ends(found):
    """The addresses of clients and service, and what the server side listens to."""
    generator = ASTFIPGen(
        glob=ASTFIPGenGlobal(ip_offset="0.0.0.0"),
        dist_client=ASTFIPGenDist(ip_range=found.clients, distribution="seq"),
        dist_server=ASTFIPGenDist(ip_range=found.vip, distribution="seq"),
    )
    return generator, ASTFAssociationRule(port=found.rport or found.vport)


def message(name, length):
    """A message of that length that begins as HTTP does, so that captures are readable."""
    heads = {"request": b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n", "answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
    return heads[name].ljust(length, b"x")[:length]
