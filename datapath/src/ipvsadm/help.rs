//! `-h` and `-v`.
//!
//! Invariant: what is called ipvsadm says the version line of ipvsadm 1.31, which scripts test for; the help is ours.

use super::listing::IPVS_VERSION;
use super::options::Dialect;

/// The line of `-v`.
pub fn version(dialect: Dialect) -> String {
    match dialect {
        Dialect::Ipvsadm => format!("ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v{IPVS_VERSION})\n"),
        Dialect::Xvsadm => {
            format!("xvsadm v{} (ipvsadm 1.31 grammar, IPVS v{IPVS_VERSION})\n", env!("CARGO_PKG_VERSION"))
        }
    }
}

/// The text of `-h`.
pub fn help(program: &str, dialect: Dialect) -> String {
    let ours = match dialect {
        Dialect::Ipvsadm => "",
        Dialect::Xvsadm => OURS,
    };
    format!("{}{}{ours}", version(dialect), HELP.replace("PROGRAM", program))
}

const HELP: &str = "\
Rules of the virtual server: services, the real servers behind them, connections, counters.

PROGRAM COMMAND [OPTION]...        the command comes first; without any, -L

Services
  -A, --add-service SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M MASK] [--pe NAME] [-o] [-b FLAGS]
  -E, --edit-service SERVICE ...   the same options; what is not said becomes the default, not what was
  -D, --delete-service SERVICE
  -C, --clear                      delete all services

Real servers
  -a, --add-server SERVICE -r HOST[:PORT] [-g|-i|-m] [-w WEIGHT] [-x CONNECTIONS] [-y CONNECTIONS]
  -e, --edit-server SERVICE -r HOST[:PORT] ...   the same; what is not said becomes the default
  -d, --delete-server SERVICE -r HOST[:PORT]

Looking
  -L, -l, --list [SERVICE] [-n] [--stats|--rate|--thresholds|--persistent-conn|--tun-info] [-X] [--nosort]
  -L -c [-n] [--persistent-conn]   the connection table
  -L --timeout                     the timeouts
  -L --daemon                      the sync daemons
  -Z, --zero [SERVICE]             set counters to zero
  -S, --save [-n]                  the rules as commands, on standard output
  -R, --restore                    commands from standard input, one a line

Timeouts and synchronisation
  --set TCP TCPFIN UDP             in seconds; 0 keeps what is
  --start-daemon master|backup [--mcast-interface NAME] [--syncid ID] [--sync-maxlen BYTES]
                 [--mcast-group ADDRESS] [--mcast-port PORT] [--mcast-ttl HOPS]
  --stop-daemon master|backup

SERVICE is one of
  -t, --tcp-service HOST[:PORT]    HOST is a name, an IPv4 address or an [IPv6 address]
  -u, --udp-service HOST[:PORT]
      --sctp-service HOST[:PORT]
  -f, --fwmark-service MARK [-6]   a firewall mark from 1; -6 (--ipv6) makes it count for IPv6

Options of services
  -s, --scheduler NAME             rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos (default: wlc), or
                                   wasm:NAME for a plugin (xvs scheduler --help)
  -p, --persistent [SECONDS]       a client stays with its server (default: 360 seconds)
  -M, --netmask MASK               clients of one network count as one: 255.255.255.0, or 64 for IPv6
      --pe NAME                    persistence engine
  -o, --ops                        decide for each UDP packet anew
  -b, --sched-flags FLAG[,FLAG]    sh-fallback sh-port mh-fallback mh-port flag-1 flag-2 flag-3

Options of real servers
  -r, --real-server HOST[:PORT]    default: the service's port; -g and -i always use that one
  -g, --gatewaying                 direct routing: the packet as it is, to the server's MAC address (default)
  -i, --ipip                       tunnelling: the packet inside another one
  -m, --masquerading               NAT: addresses rewritten; replies come back through the director
  -w, --weight WEIGHT              share of the connections (default: 1); 0 for no new ones
  -x, --u-threshold CONNECTIONS    no new connections from here on; 0 for no limit
  -y, --l-threshold CONNECTIONS    new ones again below this
      --tun-type ipip|gue|gre      with -i (default: ipip)
      --tun-port PORT              with --tun-type gue
      --tun-nocsum, --tun-csum, --tun-remcsum

Options of listings
  -n, --numeric                    addresses and ports as numbers
  -c, --connection                 connections
      --stats, --rate              counters since -Z; per second
      --thresholds, --persistent-conn, --tun-info
  -X, --exact                      counters in full, not in K, M, G, T
      --nosort                     in the director's order, the newest server first
  -h, --help    -v, --version

Exit status: 0 done, 1 nothing to list, 2 a mistake on the command line or no director, 255 refused.
";

const OURS: &str = "
Not in ipvsadm
  -L --json                        the director's answer as JSON
  -S --thresholds                  save -x and -y, too
";

#[cfg(test)]
mod tests {
    use super::super::options::{ENTRIES, Feature, Meaning};
    use super::*;

    /// Guards the help against options that nobody is told of.
    #[test]
    fn every_option_is_explained() {
        let text = help("xvsadm", Dialect::Xvsadm);
        for entry in ENTRIES {
            // What happens anyway needs no word.
            let silent = entry.meaning == Meaning::Sort;
            assert!(silent || text.contains(&format!("--{}", entry.long)), "--{}", entry.long);
        }
        let json = Meaning::Feature(Feature::Json);
        assert!(ENTRIES.iter().any(|entry| entry.meaning == json));
        assert!(!help("ipvsadm", Dialect::Ipvsadm).contains("--json"));
        assert!(text.lines().all(|line| line.chars().count() <= 110), "fits a terminal");
    }
}
