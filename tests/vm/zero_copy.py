"""Zero-copy, as the kernel confirms it: real TCP and UDP by NAT, DR and TUN; then links, queues and processes fail.

    client (c) -- a [director] b -- (d) rs1, rs2;  answers of DR and TUN go from rs1 and rs2 straight to the client

Words: number of queues, accelerator. The director demands zero-copy, so that a copy could not pass for it.
"""

import json
import os
import subprocess
import sys
import time

from guest import *

QUEUES = int(sys.argv[1])
VIPS = {"nat": "10.1.0.100", "dr": "10.1.0.101", "tun": "10.1.0.102"}
SERVERS = {"rs1": 11, "rs2": 12}
FILE_LEN = 1_500_000
BATCH = 40


def lay_wires():
    """Client and real servers as macvlans on the far ends, in namespaces."""
    for module in ["macvlan", "ipip", "xsk_diag"]:
        run(f"modprobe {module}")
    ip("link set dev c up\nlink set dev d up\nnetns add client\n" + "".join(f"netns add {name}\n" for name in SERVERS))
    ip("link add link c name eth0 netns client type macvlan mode bridge\n")
    ip("link set lo up\nlink set eth0 up\naddress add 10.1.0.2/24 dev eth0\n", "client")
    for name, host in SERVERS.items():
        ip(f"link add link d name eth0 netns {name} type macvlan mode bridge\n"
           f"link add link c name back netns {name} type macvlan mode bridge\n")
        sysctl(name, conf__all__arp_ignore=1, conf__all__arp_announce=2, conf__all__rp_filter=0,
               conf__default__rp_filter=0, conf__tunl0__rp_filter=0)
        vips = "".join(f"address add {vip}/32 dev lo\n" for vip in VIPS.values())
        # What leaves with the RIP as its source goes by the director; from a VIP straight to the client.
        ip(f"link set lo up\nlink set eth0 up\nlink set back up\nlink set tunl0 up\n{vips}"
           f"address add 10.2.0.{host}/24 dev eth0\naddress add 10.1.0.{host}/24 dev back\n"
           f"route add default via 10.2.0.1 table 100\nrule add from 10.2.0.{host} lookup 100\n", name)
    for device in "ab":
        attempt(f"ethtool -L {device} combined {QUEUES}")
        run(f"ethtool -K {device} gro off")
    ip("link set dev a up\nlink set dev b up\naddress add 10.1.0.1/24 dev a\naddress add 10.2.0.1/24 dev b\n")


def start_servers():
    with open("/tmp/file", "wb") as file:
        file.write(os.urandom(FILE_LEN))
    for name in SERVERS:
        os.makedirs(f"/tmp/{name}")
        write(f"/tmp/{name}/nginx.conf", f"""
user root; worker_processes 1; daemon off; pid /tmp/{name}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path /tmp/{name}/b; proxy_temp_path /tmp/{name}/p;
  fastcgi_temp_path /tmp/{name}/f; uwsgi_temp_path /tmp/{name}/u; scgi_temp_path /tmp/{name}/s;
  server {{ listen 80; add_header X-Server {name} always;
    location / {{ default_type text/plain; return 200 "{name}\\n"; }} location /file {{ alias /tmp/file; }} }} }}""")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": open(f"/tmp/{name}/log", "w")}
        subprocess.Popen(inside(f"nginx -e stderr -p /tmp/{name} -c /tmp/{name}/nginx.conf", name), **quiet)
        subprocess.Popen(inside(f"xvs-peer serve --name {name} --udp 5353", name), **quiet)
    for name in SERVERS:
        wait_until(f"nginx of {name} listens", lambda: os.path.exists(f"/tmp/{name}/pid"))


def site(queues=None, devices="ab", zero_copy="require", services=True, busy_poll=False):
    text = f'[director]\ncontrol = "{SOCKET}"\nown_vips = true\nvip_interface = "{devices[0]}"\n[connections]\ncapacity = 65536\n'
    text += frames(busy_poll)
    for device in devices:
        text += f'[[interface]]\nname = "{device}"\nzero_copy = "{zero_copy}"\n'
        text += f"queues = {queues}\n" if queues else ""
    for method, vip in VIPS.items() if services else ():
        for protocol, port in [("tcp", 80), ("udp", 5353)]:
            text += f'[[service]]\naddress = "{vip}:{port}"\nprotocol = "{protocol}"\nscheduler = "rr"\n'
            for host in SERVERS.values():
                text += f'[[service.server]]\naddress = "10.2.0.{host}:{port}"\nmethod = "{method}"\n'
    return text


def frames(busy_poll):
    """igb fills no more than half a chunk of zero-copy."""
    size = 4096 if "driver: igb" in run("ethtool -i a") else 2048
    return f"[frames]\nsize = {size}\nbusy_poll = {str(busy_poll).lower()}\n"


def zero_copy(status):
    """What keeps a queue from being in zero-copy mode: by the director's status, and by the kernel's list of sockets."""
    told = [queue["zero_copy"] for interface in status["interfaces"] for queue in interface["queues"]]
    listed = run("ss --xdp -a -e")
    count = 2 * len(status["workers"])
    if told != [True] * count:
        return f"xvs status says {told}"
    if listed.count("zc:1") != count or "zc:0" in listed:
        return f"the kernel lists: {listed}"


def fair(shares, exact):
    """Even shares; after something has failed, roughly even ones: what was on its way then (a late datagram, a SYN that is
    sent again) may be scheduled in between, and takes a turn."""
    slack = exact if exact is not None else sum(shares) // 3
    return min(shares) > 0 and max(shares) - min(shares) <= slack


def http(method, exact=2):
    """Asks over new connections, in parallel."""
    line = f"xvs-peer ask {VIPS[method]}:80 --parallel 2"
    asking = subprocess.Popen(inside(line, "client"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    total, deadline = 0, time.monotonic() + 60
    while total < BATCH and time.monotonic() < deadline:
        time.sleep(0.3)
        asking.stdin.write("\n")
        asking.stdin.flush()
        total = sum(json.loads(asking.stdout.readline())["from"].values())
    answers = json.loads(asking.communicate(timeout=30)[0].splitlines()[-1])
    shares = [answers["from"].get(name, 0) for name in SERVERS]
    if answers["failures"] or sum(shares) < BATCH or not fair(shares, exact):
        return f"{answers}"


def download(method):
    line = f"curl --silent --show-error --fail --max-time 60 -o /tmp/copy http://{VIPS[method]}/file"
    run(line, "client")
    with open("/tmp/file", "rb") as file, open("/tmp/copy", "rb") as copy:
        if file.read() != copy.read():
            return "the copy differs"


def udp(method, sockets=BATCH, asks=3, size=1000, exact=0):
    line = f"xvs-peer udp {VIPS[method]}:5353 --sockets {sockets} --asks {asks} --size {size}"
    answers = json.loads(run(line, "client"))
    shares = [answers["from"].get(name, 0) for name in SERVERS]
    if answers["failures"] or sum(shares) != sockets * asks or not fair(shares, exact):
        return f"{answers}"


def all_methods(sentence):
    for method in VIPS:
        case(f"{sentence}: {method.upper()}, HTTP over new connections and UDP", lambda: http(method, None) or udp(method, 10, exact=None))


def quiet_status(director):
    """The status when nothing is on its way any more."""
    moving = lambda status: [(w["received"], w["transmitted"], w["dropped"]) for w in status["workers"]]
    before = director.status()
    for _ in range(20):
        time.sleep(0.5)
        after = director.status()
        if moving(before) == moving(after):
            break
        before = after
    return after


def conserved(director):
    status = quiet_status(director)
    received, transmitted, dropped = (sum(worker[name] for worker in status["workers"]) for name in ("received", "transmitted", "dropped"))
    # A packet that is refused counts as dropped, and leaves as an ICMP error.
    refused = counters(status, "engine")["icmp_sent"]
    if received != transmitted + dropped - refused:
        return f"{received} received, {transmitted} transmitted, {dropped} dropped, {refused} of them answered; drops {director.drops()}"
    for worker in status["workers"]:
        if worker["frames"]["lent"] or worker["frames"]["tx"]:
            return f"worker {worker['worker']} holds frames at rest: {worker['frames']}"
    return ledger(status)


def nothing_lost(director):
    status, drops = quiet_status(director), director.drops()
    xdp = counters(status, "xdp")
    redirected = sum(value for name, value in xdp.items() if name.startswith("redirected"))
    received = sum(worker["received"] for worker in status["workers"])
    if redirected != received or drops:
        return f"{redirected} redirected, {received} received, drops {drops}"
    for interface in status["interfaces"]:
        for queue in interface["queues"]:
            bad = {c["name"]: c["value"] for c in queue["kernel"] if c["value"] and c["name"] not in ("tx_ring_empty", "rx_fill_ring_empty")}
            if bad:
                return f"queue {queue['queue']} of {interface['name']}: {bad}"


def both_used(director):
    received = [worker["received"] for worker in director.status()["workers"]]
    if len(received) != QUEUES or not all(received):
        return f"received {received}"


def links(director):
    """Each link of the director goes down under traffic, and comes back."""
    for device in "ab":
        attempt(f"ip link set dev {device} down")
        during = attempt(f"curl --silent --max-time 2 http://{VIPS['nat']}/", "client")
        check(f"with {device} down nothing is forwarded, and the director stays", during.returncode != 0 and director.process.poll() is None)
        run(f"ip link set dev {device} up")
        back = lambda: attempt(f"curl --silent --max-time 2 http://{VIPS['nat']}/", "client").returncode == 0
        case(f"with {device} up again requests are answered", lambda: wait_until("an answer", back) and None)
    case("every queue is still in zero-copy mode", lambda: zero_copy(director.status()))
    all_methods("after links were down and up")
    case("frames are conserved over links that went down", lambda: conserved(director))


def queues(director):
    """The number of queues under a running director, between two, and one that is too large."""
    fewer = attempt("ethtool -L a combined 1")
    check("the kernel refuses to take a queue from a running director", fewer.returncode != 0, "it did not")
    all_methods("after that")
    check("the director ends when it is told to", director.stop() == 0)
    case("and leaves no XDP program, no socket, no VIP", lambda: tidy() or vips_left())
    for device in "ab":
        run(f"ethtool -L {device} combined 1")
    code, line = refused(site(queues=2))
    sentence = "a queue that the interface does not have is refused, with exit code 8 and the cure"
    check(sentence, code == 8 and "ethtool -L" in line, f"exit code {code}: {line}")
    one = Director(site())
    one.start()
    check("with one queue there is one worker", len(one.status()["workers"]) == 1)
    case("and it is in zero-copy mode", lambda: zero_copy(one.status()))
    all_methods("with one queue")
    case("and frames are conserved", lambda: conserved(one))
    check("the director with one queue ends, too", one.stop() == 0)
    for device in "ab":
        run(f"ethtool -L {device} combined {QUEUES}")


def processes(director):
    """The director dies without a farewell, twice."""
    for _ in range(2):
        director.kill()
        director.start()
        case("a director that was killed starts again in zero-copy mode", lambda: zero_copy(director.status()))
        all_methods("after a kill")
    case("frames are conserved", lambda: conserved(director))


def busy_polling():
    """virtio-net polls its receive queues for a socket that polls busily, and sends from elsewhere."""
    director = Director(site(busy_poll=True))
    director.start()
    case("with busy polling every queue is in zero-copy mode", lambda: zero_copy(director.status()))
    all_methods("with busy polling")
    case("frames are conserved", lambda: conserved(director))
    check("the director that polls busily ends when it is told to", director.stop() == 0)


def tidy():
    for device in "ab":
        if "prog/xdp" in run(f"ip -details link show dev {device}"):
            return f"an XDP program is left on {device}"
    if "zc:" in run("ss --xdp -a -e"):
        return "an AF_XDP socket is left"


def vips_left():
    left = [vip for vip in VIPS.values() if vip in run("ip address show dev a")]
    return f"{left} left" if left else ""


def main():
    name_interfaces()
    driver = run("ethtool -i a").split("\n")[0]
    print(f"kernel {os.uname().release}, {driver}, {QUEUES} queues, accelerator {sys.argv[2]}", flush=True)
    lay_wires()
    start_servers()
    code, line = refused(site(devices="c", services=False))
    sentence = "zero-copy that is demanded and cannot be had is refused, with exit code 9"
    check(sentence, code == 9 and "zero-copy" in line, f"exit code {code}: {line}")
    print(f"  it says: {line}", flush=True)
    director = Director(site())
    director.start()
    case("every queue of both interfaces is in zero-copy mode, as the kernel confirms", lambda: zero_copy(director.status()))
    for method in VIPS:
        case(f"{method.upper()}: {BATCH} and more HTTP requests, each over a connection of its own, in even shares", lambda: http(method))
        case(f"{method.upper()}: a file of {FILE_LEN} bytes arrives byte for byte", lambda: download(method))
        case(f"{method.upper()}: {BATCH} UDP flows are answered byte for byte, in even shares", lambda: udp(method))
    case(f"each of {QUEUES} workers received packets", lambda: both_used(director))
    case("every frame is in one place, none is lost: received = transmitted + dropped", lambda: conserved(director))
    case("what was redirected was received; nothing was dropped by anybody", lambda: nothing_lost(director))
    links(director)
    if QUEUES > 1:
        queues(director)
        director = Director(site())
        director.start()
    processes(director)
    check("the director ends when it is told to", director.stop() == 0)
    busy_polling()
    case("and leaves no XDP program and no socket", tidy)


if __name__ == "__main__":
    main()
    end()
