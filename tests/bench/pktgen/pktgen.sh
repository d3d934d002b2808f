#!/bin/sh
# The kernel's packet generator against a virtual service: UDP, many flows, one thread for each queue.
#
# Invariants: nothing is sent before every argument was judged; whatever ends this script, the generator is stopped and
# its devices are removed. It needs a POSIX shell (dash, busybox, bash), awk, and the module pktgen.
# Not here: the director, its addresses and neighbours (docs/benchmarking.md).

set -u
LC_ALL=C
export LC_ALL
PG=/proc/net/pktgen
PROGRAM=${0##*/}

usage() {
	cat <<-END
	usage: $PROGRAM --device DEV --dst-mac MAC [options]

	  --device DEV         the interface to send from (with --mode receive: to receive at)
	  --dst-mac MAC        the director's MAC on that side
	  --vip ADDRESS        the virtual service's address (198.19.255.10); IPv6 is known by its colons
	  --vport PORT         its UDP port (80)
	  --clients A-B        source addresses, IPv4 only (198.18.0.1-198.18.0.64)
	  --client ADDRESS     source address, IPv6 only (2001:2::1): pktgen varies none
	  --flows N            distinct flows, a multiple of the number of clients (65536; IPv6: 16384)
	  --sport PORT         the lowest source port (1024)
	  --order WAY          random, or seq: all vary with each packet (random)
	  --size BYTES         of the frame on the wire, FCS included, 64 to 9216; or imix: 64, 594, 1518 as 7:4:1 (64; IPv6: 82)
	  --checksum           UDP over IPv4 with a checksum; over IPv6 there always is one

	  --queues N           so many transmit queues, from 0 on, each with a thread of its own (1)
	  --cpus LIST          the threads' CPUs, such as 2,3,6 (0,1,2 ...)
	  --pps N              packets a second, all threads together (as many as there can be)
	  --burst N            so many copies of each packet at once, of one flow (1); not every driver allows more
	  --mode MODE          start: into the driver; queue: through the qdisc; receive: as if DEV had received them (start)

	  --seconds N          how long (10)
	  --count N            instead of that: so many packets, all threads together
	  --watch DEV          tells what DEV received and sent meanwhile; may be given twice
	  --json               the result as JSON
	  --dry-run            tells what would be written to pktgen, and writes nothing
	  --help               this

	Sends UDP. Result, one line: packets, seconds, packets a second, errors (with --mode receive: packets that the stack
	dropped at once), and the counts of watched interfaces.
	Exit status: 0 sent, 1 the kernel refused or pktgen is not to be had, 2 the command line is wrong.
	END
}

wrong() { # the command line is
	echo "$PROGRAM: $*" >&2
	echo "$PROGRAM: --help tells what there is" >&2
	exit 2
}

fail() {
	echo "$PROGRAM: $*" >&2
	exit 1
}

number() { # option value least most
	case $2 in
	'' | *[!0-9]*) wrong "$1: '$2' is no number, $3 to $4" ;;
	esac
	# A longer one overflows the shell's arithmetic.
	if [ ${#2} -gt 12 ] || [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then wrong "$1: $2 is not within $3 to $4"; fi
}

mac() { # option value
	echo "$2" | awk '/^[0-9a-fA-F][0-9a-fA-F](:[0-9a-fA-F][0-9a-fA-F])+$/ && length($0) == 17 { good = 1 } END { exit !good }' ||
		wrong "$1: '$2' is no MAC address such as 02:00:00:00:00:01"
}

ipv4() { # option value: sets IP to its number
	IP=$(echo "$2" | awk -F. 'NF == 4 { n = 0
		for (i = 1; i <= 4; i++) { if ($i !~ /^[0-9]+$/ || $i > 255 || length($i) > 3) exit 1; n = n * 256 + $i }
		printf "%.0f", n; found = 1 } END { exit !found }') || wrong "$1: '$2' is no IPv4 address"
}

text4() { # number
	echo "$(($1 >> 24 & 255)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"
}

ipv6() { # option value: pktgen takes what it does not understand for an address, so judge here
	echo "$2" | awk -F: '{ empty = 0; bad = NF > 9 || NF < 3 || $0 ~ /:::/ || $0 ~ /::.*::/
		for (i = 1; i <= NF; i++) { if ($i == "") empty = 1; else if ($i !~ /^[0-9a-fA-F]+$/ || length($i) > 4) bad = 1 }
		if ($0 !~ /::/ && (NF != 8 || empty)) bad = 1
		if ($0 ~ /::/ && NF == 9 && $0 !~ /^::/ && $0 !~ /::$/) bad = 1
		if ($0 ~ /^:[^:]/ || $0 ~ /[^:]:$/) bad = 1
		exit bad }' || wrong "$1: '$2' is no IPv6 address"
}

gcd() { # a b
	a=$1 b=$2
	while [ "$b" -ne 0 ]; do t=$((a % b)) a=$b b=$t; done
	echo "$a"
}

DEVICE='' DST_MAC='' VIP=198.19.255.10 VPORT=80 CLIENTS='' CLIENT='' FLOWS='' SPORT=1024 ORDER=random SIZE='' CHECKSUM=''
QUEUES='' CPUS='' PPS='' BURST=1 MODE=start SECONDS_='' COUNT='' WATCH='' JSON='' DRY=''

while [ $# -gt 0 ]; do
	option=$1
	case $option in
	--help | -h) usage; exit 0 ;;
	--checksum) CHECKSUM=1; shift; continue ;;
	--json) JSON=1; shift; continue ;;
	--dry-run) DRY=1; shift; continue ;;
	--device | --dst-mac | --vip | --vport | --clients | --client | --flows | --sport | --order | --size | --queues | --cpus | \
		--pps | --burst | --mode | --seconds | --count | --watch) ;;
	*) wrong "$option is no option" ;;
	esac
	[ $# -ge 2 ] || wrong "$option needs a value"
	value=$2
	shift 2
	case $option in
	--device) DEVICE=$value ;;
	--dst-mac) mac "$option" "$value"; DST_MAC=$value ;;
	--vip) VIP=$value ;;
	--vport) number "$option" "$value" 1 65535; VPORT=$value ;;
	--clients) CLIENTS=$value ;;
	--client) CLIENT=$value ;;
	--flows) number "$option" "$value" 1 4294967296; FLOWS=$value ;;
	--sport) number "$option" "$value" 1 65534; SPORT=$value ;;
	--order) case $value in random | seq) ORDER=$value ;; *) wrong "--order: '$value' is neither random nor seq" ;; esac ;;
	--size) [ "$value" = imix ] || number "$option" "$value" 64 9216; SIZE=$value ;;
	--queues) number "$option" "$value" 1 1024; QUEUES=$value ;;
	--cpus) case $value in '' | *[!0-9,]* | ,* | *, | *,,*) wrong "--cpus: '$value' is no list such as 0,1,2" ;; esac; CPUS=$value ;;
	--pps) number "$option" "$value" 1 1000000000; PPS=$value ;;
	--burst) number "$option" "$value" 1 256; BURST=$value ;;
	--mode) case $value in start | queue | receive) MODE=$value ;; *) wrong "--mode: '$value' is none of start, queue, receive" ;; esac ;;
	--seconds) number "$option" "$value" 1 86400; SECONDS_=$value ;;
	--count) number "$option" "$value" 1 100000000000; COUNT=$value ;;
	--watch) WATCH="$WATCH $value" ;;
	esac
done

# What no option can judge alone.
[ -n "$DEVICE" ] || wrong "--device is missing"
[ -n "$DST_MAC" ] || wrong "--dst-mac is missing: without it no director takes the packets"
[ -z "$SECONDS_" ] || [ -z "$COUNT" ] || wrong "--seconds and --count exclude each other"
[ "$MODE" != queue ] || [ "$BURST" -eq 1 ] || wrong "--burst $BURST: there are none in --mode queue"
case $VIP in
*:*)
	# Two headers, and 16 bytes that pktgen writes into every packet.
	FAMILY=6 clients=1
	ipv6 --vip "$VIP"
	[ -z "$CLIENTS" ] || wrong "--clients: pktgen varies no IPv6 sources; name one by --client, flows differ by port"
	CLIENT=${CLIENT:-2001:2::1} FLOWS=${FLOWS:-16384} least=82
	ipv6 --client "$CLIENT"
	;;
*)
	FAMILY=4 least=64
	ipv4 --vip "$VIP"
	[ -z "$CLIENT" ] || wrong "--client is for IPv6; for IPv4 there is --clients"
	CLIENTS=${CLIENTS:-198.18.0.1-198.18.0.64} FLOWS=${FLOWS:-65536}
	ipv4 --clients "${CLIENTS%%-*}"
	first=$IP
	ipv4 --clients "${CLIENTS#*-}"
	last=$IP
	clients=$((last - first + 1))
	[ $clients -ge 1 ] || wrong "--clients: '$CLIENTS' ends before it begins"
	;;
esac
SIZE=${SIZE:-$least}
[ "$SIZE" = imix ] || [ "$SIZE" -ge $least ] || wrong "--size: a frame of $SIZE bytes is too small: $least is the least here"
[ "$SIZE" != imix ] || [ $FAMILY = 4 ] || wrong "--size imix: the smallest frame has 64 bytes, and IPv6 needs 82"
[ $((FLOWS % clients)) -eq 0 ] || wrong "--flows: $FLOWS is no multiple of the $clients clients"
ports=$((FLOWS / clients))
# pktgen never uses its udp_src_max itself, and that is at most 65535.
[ $((SPORT + ports)) -le 65535 ] || wrong "--flows: from port $SPORT on, $clients clients have $((clients * (65535 - SPORT))) flows at most"
if [ "$ORDER" = seq ] && [ "$(gcd $clients $ports)" -ne 1 ]; then
	wrong "--order seq: $clients clients and $ports ports advance together and have a common divisor, so flows would be left out; take other numbers"
fi
if [ -z "$CPUS" ]; then
	QUEUES=${QUEUES:-1} CPUS=0 n=1
	while [ $n -lt "$QUEUES" ]; do CPUS=$CPUS,$n n=$((n + 1)); done
fi
threads=$(echo "$CPUS" | awk -F, '{ print NF }')
QUEUES=${QUEUES:-$threads}
[ "$threads" -eq "$QUEUES" ] || wrong "--cpus names $threads CPUs for $QUEUES queues"
[ "$(echo "$CPUS" | tr , '\n' | sort -u | wc -l)" -eq "$threads" ] || wrong "--cpus: '$CPUS' names a CPU twice"
[ -z "$PPS" ] || [ "$PPS" -ge "$threads" ] || wrong "--pps: $PPS packets cannot be shared out to $threads threads"
[ -z "$COUNT" ] || [ "$COUNT" -ge "$threads" ] || wrong "--count: $COUNT packets cannot be shared out to $threads threads"
[ -n "$COUNT" ] || SECONDS_=${SECONDS_:-10}

put() { # file command: writes one line to pktgen
	if [ -n "$DRY" ]; then
		echo "$1: $2"
		return
	fi
	{ echo "$2" >"$PG/$1"; } 2>/dev/null && return
	fail "pktgen refused '$2' for $1: $(hint "$2")"
}

hint() {
	case $1 in
	burst*) echo "this driver shares no packets (veth, virtio and other virtual ones do not); leave --burst out" ;;
	add_device*) echo "no such interface, or not up" ;;
	imix*) echo "this kernel's pktgen knows no IMIX (Linux 5.15 or later does)" ;;
	*) awk '/^Result:/' "$PG/$device" 2>/dev/null || echo "no reason given" ;;
	esac
}

share() { # total threads nth: the nth thread's part
	echo $(($1 / $2 + ($3 < $1 % $2 ? 1 : 0)))
}

each() { # calls "$@ NTH CPU" for each thread
	nth=0
	for cpu in $(echo "$CPUS" | tr , ' '); do
		"$@" $nth "$cpu"
		nth=$((nth + 1))
	done
}

configure() { # nth cpu
	device=$DEVICE@$1
	put "kpktgend_$2" "add_device $device"
	put "$device" "count $([ -n "$COUNT" ] && share "$COUNT" "$threads" "$1" || echo 0)"
	# Else each packet would be repeated.
	put "$device" "clone_skb 0"
	if [ "$SIZE" = imix ]; then
		put "$device" "imix_weights 60,7 590,4 1514,1"
	else
		put "$device" "pkt_size $((SIZE - 4))"
	fi
	put "$device" "flag NO_TIMESTAMP"
	put "$device" "queue_map_min $1"
	put "$device" "queue_map_max $1"
	case $MODE in
	queue) put "$device" "xmit_mode queue_xmit" ;;
	receive) put "$device" "xmit_mode netif_receive" ;;
	esac
	[ "$BURST" -eq 1 ] || put "$device" "burst $BURST"
	if [ -n "$PPS" ]; then put "$device" "ratep $(share "$PPS" "$threads" "$1")"; else put "$device" "delay 0"; fi
	put "$device" "dst_mac $DST_MAC"
	if [ $FAMILY = 6 ]; then
		put "$device" "dst6 $VIP"
		put "$device" "src6 $CLIENT"
	else
		put "$device" "dst $VIP"
		put "$device" "src_min $(text4 "$first")"
		# Drawn at random, pktgen leaves the last one out; in order, it does not.
		edge=$last
		if [ $clients -gt 1 ] && [ "$ORDER" = random ]; then
			put "$device" "flag IPSRC_RND"
			edge=$((last + 1))
		fi
		put "$device" "src_max $(text4 "$edge")"
	fi
	put "$device" "udp_dst_min $VPORT"
	put "$device" "udp_dst_max $VPORT"
	put "$device" "udp_src_min $SPORT"
	put "$device" "udp_src_max $((SPORT + ports))"
	[ "$ORDER" = seq ] || [ $ports -eq 1 ] || put "$device" "flag UDPSRC_RND"
	if [ $FAMILY = 6 ] || [ -n "$CHECKSUM" ]; then put "$device" "flag UDPCSUM"; fi
}

counters() { # device: received and sent
	echo "$(cat "/sys/class/net/$1/statistics/rx_packets") $(cat "/sys/class/net/$1/statistics/tx_packets")"
}

started='' running='' sleeper=''
cleanup() {
	status=$?
	trap '' EXIT INT TERM HUP
	if [ -n "$started" ]; then
		echo stop >$PG/pgctrl 2>/dev/null
		[ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null
		[ -z "$running" ] || wait "$running" 2>/dev/null
		for cpu in $(echo "$CPUS" | tr , ' '); do echo rem_device_all >"$PG/kpktgend_$cpu" 2>/dev/null; done
	fi
	exit $status
}

if [ -n "$DRY" ]; then
	each configure
	put pgctrl start
	exit 0
fi

[ "$(id -u)" -eq 0 ] || fail "root is needed"
[ -e $PG/pgctrl ] || modprobe pktgen 2>/dev/null || fail "no pktgen: this kernel has no such module (modprobe pktgen)"
[ -e $PG/pgctrl ] || fail "no $PG/pgctrl in this network namespace"
for name in "$DEVICE" $WATCH; do
	[ -e "/sys/class/net/$name" ] || fail "no interface $name"
done
[ $(($(cat "/sys/class/net/$DEVICE/flags") & 1)) -eq 1 ] || fail "$DEVICE is down: ip link set $DEVICE up"
have=$(find "/sys/class/net/$DEVICE/queues/" -maxdepth 1 -name 'tx-*' | wc -l)
[ "$QUEUES" -le "$have" ] || fail "$DEVICE has $have transmit queues, not $QUEUES (ethtool -L)"
for cpu in $(echo "$CPUS" | tr , ' '); do
	[ -e "$PG/kpktgend_$cpu" ] || fail "no thread kpktgend_$cpu: there is no CPU $cpu"
done
busy=$(awk '/^(Running|Stopped):/ { for (i = 2; i <= NF; i++) print $i }' $PG/kpktgend_* | sort -u | tr '\n' ' ')
[ -z "$busy" ] || fail "pktgen is in use by ${busy% }; when that is over: echo reset > $PG/pgctrl"

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
started=1
each configure

before=''
for name in $WATCH; do before="$before $(counters "$name")"; done
if [ -n "$COUNT" ]; then
	echo start >$PG/pgctrl || fail "pktgen did not start"
else
	echo start >$PG/pgctrl &
	running=$!
	# In the background, so that a signal ends it.
	sleep "$SECONDS_" &
	sleeper=$!
	wait $sleeper
	sleeper=''
	echo stop >$PG/pgctrl
	wait $running || fail "pktgen did not start"
fi
after=''
for name in $WATCH; do after="$after $(counters "$name")"; done

files=''
n=0
while [ $n -lt "$QUEUES" ]; do files="$files $PG/$DEVICE@$n" n=$((n + 1)); done
# shellcheck disable=SC2086 # names without spaces, several of them
# mawk has 31 bits for %d, so numbers are printed by %.0f.
awk -v json="$JSON" -v watch="$WATCH" -v before="$before" -v after="$after" -v threads="$threads" -v flows="$FLOWS" -v size="$SIZE" '
	/pkts-sofar:/ { packets += $2; errors += $4 }
	# Result: OK: 1261451(c1261432+d19) usec, 100000 (60byte,0frags)
	/^Result: OK: [0-9]+\(c/ { split($3, time, "("); if (time[1] + 0 > usec) usec = time[1] + 0; results++ }
	END {
		if (results != threads || usec == 0) { print "pktgen gave no result of " threads - results " of its threads" > "/dev/stderr"; exit 1 }
		seconds = usec / 1e6
		names = split(watch, name, " "); split(before, old, " "); split(after, new, " ")
		if (json) {
			printf "{\"packets\": %.0f, \"seconds\": %.6f, \"pps\": %.0f, \"errors\": %.0f, \"threads\": %d, \"flows\": %.0f, \"size\": \"%s\"", packets, seconds, packets / seconds, errors, threads, flows, size
			printf ", \"watch\": {"
			for (i = 1; i <= names; i++) printf "%s\"%s\": {\"rx\": %.0f, \"tx\": %.0f}", (i > 1 ? ", " : ""), name[i], new[2*i-1] - old[2*i-1], new[2*i] - old[2*i]
			print "}}"
		} else {
			printf "packets=%.0f seconds=%.3f pps=%.0f errors=%.0f", packets, seconds, packets / seconds, errors
			for (i = 1; i <= names; i++) printf " %s.rx=%.0f %s.tx=%.0f", name[i], new[2*i-1] - old[2*i-1], name[i], new[2*i] - old[2*i]
			print ""
		}
	}' $files
