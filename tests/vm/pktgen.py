"""tests/bench/pktgen/pktgen.sh for real: its own check, in a kernel that has pktgen. No director is needed.

Words: accelerator, which is not used.
"""

import subprocess

from guest import *


def main():
    run("modprobe veth")
    checks = subprocess.Popen(["sh", "/xvs/check.sh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in checks.stdout:
        word, _, sentence = line.rstrip().partition(" ")
        if word in ("ok", "WRONG"):
            check(sentence.strip(), word == "ok")
        else:
            print(line.rstrip(), flush=True)
    check("pktgen's check came to its end", checks.wait() == 0, f"exit code {checks.returncode}")


if __name__ == "__main__":
    main()
    end()
