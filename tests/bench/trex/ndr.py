#!/usr/bin/env python3
"""Finds the highest rate of a stateless profile at which the director loses no packet (RFC 2544, throughput).

    ndr.py [options] PROFILE [-- options of the profile]
    ndr.py --most 14880952 xvs_udp.py -- --flows 1048576 --clients 198.18.0.0-198.18.3.255

Halves the interval between a rate that went through and one that did not, by short trials, until it is small; then tries
the rate that is left by long ones, and goes down a step where a long one loses. All of that as often as --repeats says.
The result is a line of JSON for each trial, and one at the end with the median of the repeats and all of them.

A trial counts what the one port sent and the other received, so nothing else may send to that port. A trial in which
TRex itself did not reach the rate says nothing about the director: the search goes on below what TRex reached, and the
result says `"limit": "generator"`.

Run it where TRex's client library is: in TRex's directory with PYTHONPATH=automation/trex_control_plane/interactive.
Exit status: 0 found, 1 TRex refused or nothing went through, 2 the command line is wrong.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

# What a trial may lack of the rate asked for before TRex, and not the director, is the limit.
SHORT = 0.002


class Search:
    """The search itself: it knows of trials only what `trial(rate, seconds)` returns, packets sent and received."""

    def __init__(self, trial, options, say=lambda line: None):
        self.trial, self.options, self.say = trial, options, say

    def judged(self, rate, seconds):
        """One trial: 'good', 'lost' or 'short', and the rate that was reached."""
        sent, received = self.trial(rate, seconds)
        lost = max(0, sent - received)
        reached = sent / seconds
        share = lost / sent if sent else 1.0
        verdict = "short" if reached < rate * (1 - SHORT) else "lost" if share > self.options.loss else "good"
        self.say({"rate": round(rate), "seconds": seconds, "sent": sent, "received": received, "lost": lost, "verdict": verdict})
        return ("lost" if verdict == "short" and share > self.options.loss else verdict), reached

    def once(self):
        """A rate at which a long trial loses nothing, or None, and what kept it from being higher."""
        options = self.options
        low, high, limit = 0.0, float(options.most), "most"
        rate = high
        while True:
            verdict, reached = self.judged(rate, options.search_seconds)
            if verdict == "good":
                low = rate
            else:
                high = reached if verdict == "short" else rate
                limit = "generator" if verdict == "short" else "loss"
            if high - low <= options.precision * options.most:
                break
            rate = (low + high) / 2
            if rate < options.least:
                break
        while low >= options.least:
            verdict, _ = self.judged(low, options.seconds)
            if verdict == "good":
                return low, limit
            low, limit = low - options.precision * options.most, "generator" if verdict == "short" else "loss"
        return None, limit

    def run(self):
        """All repeats."""
        found = [self.once() for _ in range(self.options.repeats)]
        rates = [rate for rate, _ in found if rate is not None]
        result = {"rates": [round(rate) if rate else None for rate, _ in found], "limits": [limit for _, limit in found]}
        if len(rates) == len(found):
            result["median"], result["lowest"], result["highest"] = map(round, (statistics.median(rates), min(rates), max(rates)))
        return result


class Trex:
    """Trials by a TRex."""

    def __init__(self, client, load, options):
        self.client, self.load, self.options = client, load, options
        self.profile = load(options.tunables)

    def open_connections(self):
        """Meets every flow once, in order, so that the trials are about known connections."""
        options = self.options
        if options.warm_up:
            self.send(self.load(options.tunables + ["--order", "seq"]), options.warm_up, options.warm_up_seconds)

    def trial(self, rate, seconds):
        self.open_connections()
        result = self.send(self.profile, rate, seconds)
        time.sleep(self.options.rest)
        return result

    def send(self, profile, rate, seconds):
        out, back = self.options.out, self.options.back
        self.client.remove_all_streams(ports=[out])
        self.client.add_streams(profile.get_streams(), ports=[out])
        self.client.clear_stats()
        self.client.start(ports=[out], mult=f"{rate:.0f}pps", duration=seconds, force=True)
        self.client.wait_on_traffic(ports=[out], timeout=seconds + 60)
        time.sleep(2)  # RFC 2544: for what is still on the way
        stats = self.client.get_stats(ports=[out, back])
        return stats[out]["opackets"], stats[back]["ipackets"]


def options(words):
    def positive(kind):
        def parse(text):
            value = kind(text)
            if value <= 0:
                raise argparse.ArgumentTypeError(f"'{text}' is not above 0")
            return value

        parse.__name__ = kind.__name__
        return parse

    found = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    found.add_argument("profile", type=pathlib.Path, help="a stateless profile of this directory")
    found.add_argument("--server", default="127.0.0.1", help="where TRex runs")
    found.add_argument("--out", type=int, default=0, help="TRex's port that sends")
    found.add_argument("--back", type=int, default=1, help="TRex's port that receives")
    found.add_argument("--most", type=positive(float), default=14880952, help="packets a second to begin with: line rate, or less")
    found.add_argument("--least", type=positive(float), default=10000, help="give up below that")
    found.add_argument("--precision", type=positive(float), default=0.005, help="of the result, as a share of --most")
    found.add_argument("--loss", type=float, default=0.0, help="share of packets that may be lost; RFC 2544 knows only 0")
    found.add_argument("--search-seconds", type=positive(float), default=10, help="of a trial while searching")
    found.add_argument("--seconds", type=positive(float), default=60, help="of a trial that confirms")
    found.add_argument("--repeats", type=positive(int), default=5, help="searches; RFC 8219 asks for 20")
    found.add_argument("--rest", type=float, default=5.0, help="seconds between trials")
    found.add_argument("--warm-up", type=float, default=500000, help="packets a second before each trial that open the connections; 0: none")
    found.add_argument("--warm-up-seconds", type=positive(float), default=5, help="how long; times --warm-up it must exceed --flows")
    if "--" in words:
        split = words.index("--")
        words, tunables = words[:split], words[split + 1 :]
    else:
        tunables = []
    made = found.parse_args(words)
    made.tunables = tunables
    if not made.profile.is_file():
        found.error(f"no profile {made.profile}")
    if not 0 <= made.loss < 1:
        found.error(f"--loss {made.loss} is no share: 0 up to 1")
    if made.least > made.most:
        found.error(f"--least {made.least:.0f} is above --most {made.most:.0f}")
    if made.precision >= 1:
        found.error(f"--precision {made.precision} is no share below 1")
    return made


def main():
    made = options(sys.argv[1:])
    from trex.stl.api import STLClient, STLError, STLProfile

    def load(tunables):
        profile = STLProfile.load_py(str(made.profile), direction=0, port_id=made.out, tunables=tunables)
        if profile is None:  # it has said why
            sys.exit(2)
        return profile

    client = STLClient(server=made.server)
    try:
        client.connect()
        client.reset(ports=[made.out, made.back])
        trex = Trex(client, load, made)
        result = Search(trex.trial, made, lambda line: print(json.dumps(line), flush=True)).run()
    except STLError as error:
        print(f"ndr.py: {error}", file=sys.stderr)
        return 1
    finally:
        client.disconnect()
    print(json.dumps(result))
    return 0 if "median" in result else 1


if __name__ == "__main__":
    sys.exit(main())
