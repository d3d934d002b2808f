"""What the scenarios of the virtual machine share: commands, checks, the machine's interfaces, the director.

A check prints one line: `ok: SENTENCE` or `FAILED: SENTENCE: WHY`. Nothing of the product is used but its command lines.
"""

import json
import os
import signal
import subprocess
import sys
import time

SOCKET = "/run/xvs.sock"
LOG = "/tmp/xvs.log"
SITE = "/tmp/site.toml"

# Where all programs of the product find the director.
os.environ["XVS_SOCKET"] = SOCKET

failed = 0


def run(line, namespace=None, **more):
    """Runs a command to its end; an error if it fails."""
    finished = attempt(line, namespace, **more)
    if finished.returncode != 0:
        raise RuntimeError(f"`{line}` failed ({finished.returncode}): {finished.stderr.strip() or finished.stdout.strip()}")
    return finished.stdout


def attempt(line, namespace=None, timeout=120, **more):
    """Runs a command to its end."""
    return subprocess.run(inside(line, namespace), capture_output=True, text=True, timeout=timeout, **more)


def inside(line, namespace):
    words = line.split() if isinstance(line, str) else list(line)
    return ["ip", "netns", "exec", namespace, *words] if namespace else words


def ip(lines, namespace=None):
    """Runs lines of `ip`."""
    finished = attempt("ip -batch -", namespace, input=lines)
    if finished.returncode != 0:
        raise RuntimeError(f"ip failed: {finished.stderr.strip()}")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


def check(sentence, holds, why=""):
    """Says whether something holds."""
    global failed
    if holds:
        print(f"ok: {sentence}", flush=True)
    else:
        failed += 1
        print(f"FAILED: {sentence}: {why}" if why else f"FAILED: {sentence}", flush=True)
    return holds


def case(sentence, body):
    """Checks that a function gives nothing, or a sentence that says what is wrong; an exception is wrong, too."""
    try:
        why = body()
    except Exception as error:  # whatever it is, the scenario goes on and fails
        why = f"{type(error).__name__}: {error}"
    return check(sentence, not why, why)


def wait_until(what, body, limit=30):
    """Waits until a function gives something true, and gives that."""
    deadline = time.monotonic() + limit
    while True:
        value = body()
        if value:
            return value
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {limit} s: {what}")
        time.sleep(0.2)


def name_interfaces(letters="abcd"):
    """Gives the interfaces the names of their wires: 52:54:00:00:00:0a is `a`."""
    for module in ["virtio_pci", "virtio_net", "igb"]:
        attempt(f"modprobe {module}")
    for letter in letters:
        mac = f"52:54:00:00:00:0{letter}"
        wanted = lambda: [d for d in os.listdir("/sys/class/net") if read(f"/sys/class/net/{d}/address").strip() == mac]
        found = wait_until(f"an interface with MAC {mac}", wanted)
        ip(f"link set dev {found[0]} name {letter}\n")


def sysctl(namespace=None, **values):
    """Sets values below /proc/sys/net/ipv4; `__` stands for a slash."""
    for name, value in values.items():
        path = "/proc/sys/net/ipv4/" + name.replace("__", "/")
        run(["sh", "-c", f"echo {value} > {path}"], namespace)


class Director:
    """`xvs run` with a configuration."""

    def __init__(self, site, cpus=None):
        write(SITE, site)
        self.process, self.cpus = None, cpus

    def start(self):
        """Starts it and waits until packets can flow."""
        pin = None if self.cpus is None else (lambda: os.sched_setaffinity(0, self.cpus))
        with open(LOG, "a") as log:
            words = ["xvs", "run", "--config", SITE]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=pin)
        answers = lambda: self.process.poll() is not None or attempt("xvs status").returncode == 0
        wait_until("the director answers", answers)
        if self.process.poll() is not None:
            raise RuntimeError(f"`xvs run` ended: {read(LOG).splitlines()[-1]}")

    def status(self):
        return json.loads(run("xvs status --json"))["status"]

    def drops(self):
        drops = json.loads(run("xvs drops --json"))["drops"]
        return {drop["reason"]: drop["packets"] for drop in drops if drop["packets"]}

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def refused(site):
    """Exit code and last line of an `xvs run` that must not start."""
    write("/tmp/refused.toml", site)
    finished = attempt("xvs run --config /tmp/refused.toml", timeout=30)
    lines = finished.stderr.strip().splitlines()
    return finished.returncode, lines[-1] if lines else ""


def counters(status, part):
    return {counter["name"]: counter["value"] for counter in status[part]}


def ledger(status):
    """What is wrong with the workers' frames: each must be in exactly one place."""
    for worker in status["workers"]:
        frames = worker["frames"]
        places = {place: frames[place] for place in ("free", "fill", "lent", "tx")}
        if sum(places.values()) != frames["total"]:
            return f"worker {worker['worker']} has {frames['total']} frames and knows of {places}"


def mark(name):
    """Has the counts of the other side taken, and waits until that is done."""
    print(f"MARK {name}", flush=True)
    sys.stdin.readline()


def end():
    """The scenario's exit code; what the director said is shown if anything failed."""
    if failed and os.path.exists(LOG):
        print("the director's log ends:")
        lines = [line for line in read(LOG).splitlines() if "INFO changed" not in line]
        print("\n".join(lines[-25:]), flush=True)
    sys.exit(1 if failed else 0)
