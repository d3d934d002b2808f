#!/bin/sh
# Tries pktgen.sh for real: over a veth pair in a network namespace of its own, and looks at what arrives with tcpdump.
#
# Needs root, the module pktgen, iproute2, ethtool, tcpdump and awk. Exit status 0: everything was as it must be.
# No figures here: a veth in a virtual machine has none that mean anything.

set -u
LC_ALL=C
export LC_ALL
HERE=$(cd "$(dirname "$0")" && pwd)
NAME=xvs-pktgen-$$
MAC=02:00:00:00:00:01

if [ "${1:-}" != --inside ]; then
	[ "$(id -u)" -eq 0 ] || { echo "root is needed" >&2; exit 1; }
	[ -e /proc/net/pktgen ] || modprobe pktgen || exit 1
	trap 'ip netns delete "$NAME" 2>/dev/null' EXIT
	trap 'exit 1' INT TERM HUP
	ip netns add "$NAME" || exit 1
	ip netns exec "$NAME" sh "$0" --inside
	exit
fi

cpus=$(find /proc/net/pktgen/ -name 'kpktgend_*' | wc -l)
ip link add gen0 numtxqueues 2 numrxqueues 2 type veth peer name gen1 numtxqueues 2 numrxqueues 2 || exit 1
ip link set gen1 address $MAC
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 # no packets but ours
ethtool -K gen0 tx off >/dev/null || exit 1 # else checksums are left for hardware that is not there
ip link set gen0 up && ip link set gen1 up || exit 1
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
wrong=0

is() { # what found due
	if [ "$2" = "$3" ]; then
		echo "ok    $1: $2"
	else
		echo "WRONG $1: '$2', and '$3' was due"
		wrong=$((wrong + 1))
	fi
}

generate() { # options: the result into $said, its status into $status
	said=$(sh "$HERE/pktgen.sh" --device gen0 --dst-mac $MAC "$@" 2>&1)
	status=$?
}

capture() { # count options: sends, and lists the packets that arrived as "length source destination notes"
	count=$1
	shift
	tcpdump -Z root -i gen1 -Q in -B 65536 -s 128 -U -c "$count" -w "$TMP/packets" udp 2>"$TMP/tcpdump" &
	dump=$!
	tries=0
	until grep -q 'listening on' "$TMP/tcpdump"; do
		tries=$((tries + 1))
		[ $tries -lt 50 ] || { echo "tcpdump does not start: $(cat "$TMP/tcpdump")"; exit 1; }
		sleep 0.2
	done
	generate --count "$count" "$@"
	tries=0
	while kill -0 $dump 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.2 && tries=$((tries + 1)); done
	kill $dump 2>/dev/null
	wait $dump 2>/dev/null
	tcpdump -Z root -nn -e -t -vv -r "$TMP/packets" 2>/dev/null | awk '
		/ethertype/ { for (i = 1; i <= NF; i++) if ($i == "length") { size = $(i + 1); sub(":", "", size); break }
			if ($0 !~ /IPv6/) next }
		{ for (i = 1; i <= NF; i++) if ($i == ">" && $(i - 1) !~ /^[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:/) {
			to = $(i + 1); sub(/:$/, "", to)
			print size, $(i - 1), to, /bad udp/ ? "bad" : /no cksum/ ? "none" : /udp sum ok/ ? "good" : "unread" } }' >"$TMP/list"
}

sizes() { awk '{ print $1 }' "$TMP/list" | sort -n | uniq -c | awk '{ printf "%s%s x%s", sep, $2, $1; sep = ", " }'; }
flows() { awk '{ print $2 }' "$TMP/list" | sort -u | wc -l; }
places() { awk '{ print $3, $4 }' "$TMP/list" | sort -u | tr '\n' ';'; }

capture 4032 --clients 198.18.0.1-198.18.0.63 --flows 4032 --order seq
is "in order: exit status" $status 0
is "in order: frames without FCS" "$(sizes)" "60 x4032"
is "in order: each flow once" "$(flows)" 4032
is "in order: destination, checksum" "$(places)" "198.19.255.10.80 none;"

capture 16384 --clients 198.18.0.1-198.18.0.16 --flows 1024 --sport 3000 --checksum --vip 198.19.255.11 --vport 53 --size 128
is "at random: frames" "$(sizes)" "124 x16384"
is "at random: flows" "$(flows)" 1024
is "at random: first and last client" "$(awk '{ sub(/\.[0-9]+$/, "", $2); print $2 }' "$TMP/list" | sort -u -t. -k4n | sed -n '1p;$p' | tr '\n' ' ')" "198.18.0.1 198.18.0.16 "
is "at random: lowest and highest port" "$(awk '{ sub(/.*\./, "", $2); print $2 }' "$TMP/list" | sort -nu | sed -n '1p;$p' | tr '\n' ' ')" "3000 3063 "
is "at random: destination, checksum" "$(places)" "198.19.255.11.53 good;"

capture 8192 --vip 2001:2:0:f::10 --flows 512
is "IPv6: frames" "$(sizes)" "78 x8192"
is "IPv6: flows" "$(flows)" 512
is "IPv6: destination, checksum" "$(places)" "2001:2:0:f::10.80 good;"

capture 12000 --size imix --flows 64
is "IMIX: sizes" "$(awk '{ print $1 }' "$TMP/list" | sort -nu | tr '\n' ' ')" "60 590 1514 "
# pktgen rounds the shares to hundredths and draws.
is "IMIX: near 7 to 4 to 1" "$(awk '{ n[$1]++ } END { print (n[60] > 6500 && n[60] < 7500 && n[590] > 3600 && n[590] < 4400 && n[1514] > 900 && n[1514] < 1250) ? "yes" : "no: " n[60] " " n[590] " " n[1514] }' "$TMP/list")" yes

capture 1000 --clients 198.18.0.9 --flows 1 --mode queue
is "one flow, by the qdisc: frames" "$(sizes)" "60 x1000"
is "one flow, by the qdisc: flows" "$(flows)" 1

if [ "$cpus" -ge 2 ]; then
	capture 4097 --queues 2 --flows 1024 --clients 198.18.0.1-198.18.0.32 --json --watch gen1
	is "two threads: frames" "$(sizes)" "60 x4097"
	is "two threads: the result" "$(echo "$said" | sed 's/"seconds": [0-9.]*, "pps": [0-9]*/.../')" \
		'{"packets": 4097, ..., "errors": 0, "threads": 2, "flows": 1024, "size": "64", "watch": {"gen1": {"rx": 4097, "tx": 0}}}'
else
	echo "skip  two threads: this machine has one CPU"
fi

ip address add 198.19.255.10/32 dev gen0
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.gen0.rp_filter=0
ip route add 198.18.0.0/16 dev gen0
said=$(sh "$HERE/pktgen.sh" --device gen0 --dst-mac "$(cat /sys/class/net/gen0/address)" --mode receive --count 500 --clients 198.18.0.9 --flows 1)
is "as if received: no errors" "$(echo "$said" | sed 's/seconds=.*errors/... errors/')" "packets=500 ... errors=0"
is "as if received: the stack had them" "$(awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp)" 500
# Else it asks for the clients' MACs, and what arrives is no longer ours alone.
ip address delete 198.19.255.10/32 dev gen0

generate --seconds 3 --pps 1000 --watch gen1
is "rate: within a fifth of 3000" "$(echo "$said" | sed 's/.*packets=\([0-9]*\).*/\1/' | awk '{ print ($1 > 2400 && $1 < 3600) ? "yes" : "no: " $1 }')" yes
is "rate: what arrived is what was sent" "$(echo "$said" | sed 's/.*gen1.rx=\([0-9]*\).*/\1/')" "$(echo "$said" | sed 's/.*packets=\([0-9]*\).*/\1/')"

generate --burst 8 --count 8
is "bursts into a veth: refused" "$status $(echo "$said" | grep -c 'leave --burst out')" "1 1"
generate --queues 3 --count 3
is "too many queues: refused" "$status $said" "1 pktgen.sh: gen0 has 2 transmit queues, not 3 (ethtool -L)"
generate --cpus 4095 --count 3
is "no such CPU: refused" "$status $said" "1 pktgen.sh: no thread kpktgend_4095: there is no CPU 4095"

sh "$HERE/pktgen.sh" --device gen0 --dst-mac $MAC --seconds 600 --pps 100 >"$TMP/long" 2>&1 &
long=$!
tries=0
until grep -q 'Running: gen0' /proc/net/pktgen/kpktgend_0 || [ $tries -ge 50 ]; do sleep 0.2 && tries=$((tries + 1)); done
sleep 1
generate --count 1
is "a second run beside it: refused" "$status $(echo "$said" | grep -c 'pktgen is in use by gen0@0')" "1 1"
kill -TERM $long
wait $long
is "ended by SIGTERM: exit status" $? 143
is "ended by SIGTERM: nothing is left" "$(awk '/^(Running|Stopped):/ { printf "%s", $2 }' /proc/net/pktgen/kpktgend_*)" ""

echo "$wrong wrong"
[ "$wrong" -eq 0 ]
