"""The kernel's IPVS and the director under the same flows of the kernel's pktgen, on the same interfaces, in turns.

    pktgen (c, processor 1) -- a [processor 0: IPVS, or xvs in zero-copy mode] b -- nobody

Words: seconds a figure, accelerator, methods, and `symbols` to list the kernel's functions at the end. Marks `begin` and
`end` have processor 0 counted by the other side; `RESULT` lines say how many packets left by `b` between them.
"""

import os
import subprocess
import sys
import time

from guest import *

SECONDS, ACCELERATOR, METHODS = float(sys.argv[1]), sys.argv[2], [w for w in sys.argv[3:] if w != "symbols"]
PROFILES = "symbols" in sys.argv
VIPS = {"dr": "10.1.0.101", "nat": "10.1.0.100", "tun": "10.1.0.102"}
OPTIONS = {"dr": "-g", "nat": "-m", "tun": "-i"}
SERVERS = [f"10.2.0.{host}" for host in range(11, 15)]
FLOWS = 4096
PORT = 5353
# What the emulated wires carry without loss; packets a second.
RATE = 15_000
# An interface is looked at so often, and not at every packet, as on a NIC with interrupt moderation.
MODERATION_NS = 5_000_000
DIRECTOR, GENERATOR = 0, 1


def pin_interrupts(device, processor):
    for number in os.listdir(f"/sys/class/net/{device}/device/../msi_irqs"):
        try:
            write(f"/proc/irq/{number}/smp_affinity_list", str(processor))
        except OSError:
            pass  # the one for changes of the configuration is not in use


def lay_wires():
    for module in ["pktgen", "ip_vs", "ip_vs_rr", "xsk_diag"]:
        run(f"modprobe {module}")
    sysctl(ip_forward=1, conf__all__rp_filter=0, conf__default__rp_filter=0, conf__all__send_redirects=0)
    vips = "".join(f"address add {vip}/32 dev a\n" for vip in VIPS.values())
    ip(f"link set dev a up\nlink set dev b up\nlink set dev c up\naddress add 10.1.0.1/24 dev a\naddress add 10.2.0.1/24 dev b\n{vips}")
    for server in SERVERS:
        host = server.split(".")[-1]
        ip(f"neigh replace {server} lladdr 02:00:00:00:02:{host} dev b nud permanent\n")
    ip("neigh replace 10.1.0.2 lladdr 02:00:00:00:01:02 dev a nud permanent\n")
    for device in "ab":
        pin_interrupts(device, DIRECTOR)
        write(f"/sys/class/net/{device}/gro_flush_timeout", str(MODERATION_NS))
        write(f"/sys/class/net/{device}/napi_defer_hard_irqs", "1000")
    pin_interrupts("c", GENERATOR)


def pktgen(file, *lines):
    for line in lines:
        try:
            write(f"/proc/net/pktgen/{file}", line + "\n")
        except OSError as error:
            raise RuntimeError(f"pktgen refuses `{line}`: {error}")


class Generator:
    """pktgen towards a VIP while the value is in use: random ports of one client, a flow each."""

    def __init__(self, vip):
        mac = read("/sys/class/net/a/address").strip()
        pktgen("pgctrl", "reset")
        pktgen(f"kpktgend_{GENERATOR}", "rem_device_all", "add_device c")
        pktgen("c", "count 0", "clone_skb 0", "pkt_size 60", f"ratep {RATE}", f"dst_mac {mac}", "src_mac 02:00:00:00:01:02",
               "src_min 10.1.0.2", "src_max 10.1.0.2", f"dst {vip}", f"udp_dst_min {PORT}", f"udp_dst_max {PORT}",
               "udp_src_min 2000", f"udp_src_max {2000 + FLOWS}", "flag UDPSRC_RND", "flag UDPCSUM")

    def __enter__(self):
        self.process = subprocess.Popen(["sh", "-c", "echo start >/proc/net/pktgen/pgctrl"])

    def __exit__(self, *_):
        pktgen("pgctrl", "stop")
        self.process.wait(30)


def moved():
    """Packets that came in by `a` and went out by `b`."""
    count = lambda device, name: int(read(f"/sys/class/net/{device}/statistics/{name}"))
    # What XDP's sockets send is counted apart by virtio-net.
    queues = run("ethtool -S b").splitlines()
    by_xdp = sum(int(line.split(":")[1]) for line in queues if line.strip().startswith("tx0_xdp_tx:"))
    return count("a", "rx_packets"), count("b", "tx_packets") + by_xdp


def events():
    """What wakes processor 0, so far: interrupts of both interfaces, softirqs that poll them, switches between threads."""
    column = DIRECTOR + 1
    numbers = {number for device in "ab" for number in os.listdir(f"/sys/class/net/{device}/device/../msi_irqs")}
    lines = [line.split() for line in open("/proc/interrupts")]
    interrupts = sum(int(line[column]) for line in lines if line[0].rstrip(":") in numbers)
    polls = next(int(line.split()[column]) for line in open("/proc/softirqs") if "NET_RX" in line)
    return interrupts, polls


def measure(director, method, flows):
    """Counts over some seconds in which all flows are known."""
    with Generator(VIPS[method]):
        wait_until(f"{FLOWS} flows are known", lambda: flows() >= FLOWS * 0.99, 60)
        (received, transmitted), before, since = moved(), events(), time.monotonic()
        mark("begin")
        time.sleep(SECONDS)
        received, transmitted = (now - before for now, before in zip(moved(), (received, transmitted)))
        lasted = time.monotonic() - since
        interrupts, polls = (now - then for now, then in zip(events(), before))
        mark("end")
    print(f"{director} {method}: an interrupt every {received / max(interrupts, 1):.1f} packets, a softirq every {received / max(polls, 1):.1f}")
    print(f"RESULT {director} {method} {transmitted} {received} {lasted:.3f}", flush=True)
    check(f"{director} by {method.upper()}: what came in went out ({transmitted} of {received} packets)",
          received > 1000 and abs(received - transmitted) < received * 0.02 + 1024)


def ipvs(method):
    run("ipvsadm -C")
    run(f"ipvsadm -A -u {VIPS[method]}:{PORT} -s rr")
    for server in SERVERS:
        run(f"ipvsadm -a -u {VIPS[method]}:{PORT} -r {server}:{PORT} {OPTIONS[method]}")
    flows = lambda: sum(1 for _ in open("/proc/net/ip_vs_conn")) - 1
    measure("ipvs", method, flows)
    run("ipvsadm -C")


def xvs(method):
    site = f'[director]\ncontrol = "{SOCKET}"\ncpus = [{DIRECTOR}]\n[connections]\ncapacity = 65536\n[frames]\ncount = 8192\nbatch = 256\n'
    for device in "ab":
        site += f'[[interface]]\nname = "{device}"\nzero_copy = "require"\n'
    site += f'[[service]]\naddress = "{VIPS[method]}:{PORT}"\nprotocol = "udp"\nscheduler = "rr"\n'
    for server in SERVERS:
        site += f'[[service.server]]\naddress = "{server}:{PORT}"\nmethod = "{method}"\n'
    director = Director(site, {DIRECTOR})
    director.start()
    queues = [queue["zero_copy"] for interface in director.status()["interfaces"] for queue in interface["queues"]]
    check(f"xvs by {method.upper()} is in zero-copy mode on both interfaces", queues == [True, True], f"{queues}")
    measure("xvs", method, lambda: director.status()["connections"])
    if PROFILES:
        symbols(lambda name: name.startswith("bpf_prog_"))
    fixed = run("ip neigh show nud permanent").count("lladdr 02:")
    check("neighbours that were set by hand stay so", fixed == len(SERVERS) + 1, f"{fixed} of {len(SERVERS) + 1}")
    # An emulated wire stalls when this machine is busy; how much that may lose is bounded by `measure`.
    drops = {reason: packets for reason, packets in director.drops().items() if reason != "transmit_full"}
    check("nothing was dropped but for a full wire", not drops, f"{drops}")
    case("and its frames are conserved", lambda: ledger(director.status()))
    check("and it ends when it is told to", director.stop() == 0)


def symbols(wanted=lambda name: True):
    """Lists functions of the kernel. Those of the XDP program are there only as long as the director is."""
    lines = [line.split()[:3] for line in open("/proc/kallsyms")]
    print("\n".join(f"SYMBOL {address} {name}" for address, kind, name in lines if kind in "tT" and wanted(name)), flush=True)


def main():
    os.sched_setaffinity(0, {GENERATOR})
    name_interfaces("abc")
    clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
    print(f"kernel {os.uname().release}, accelerator {ACCELERATOR}, clock {clock}, {FLOWS} flows of 60-byte UDP, {SECONDS:g} s a figure", flush=True)
    lay_wires()
    write("/proc/sys/net/core/bpf_jit_kallsyms", "1")
    for method in METHODS:
        ipvs(method)
        xvs(method)
    if PROFILES:
        symbols()


if __name__ == "__main__":
    main()
    end()
