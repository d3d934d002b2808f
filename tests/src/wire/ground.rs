//! The ground: namespaces, wires, addresses, and what stays running at both ends.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::binary;
use crate::director::Director;
use crate::links::{End, Wires};
use crate::namespace::{Namespace, clean, sweep};
use crate::nginx::Nginx;
use crate::process::{Process, wait_until};
use crate::scratch::Scratch;

use super::flood::number;
use super::tool::Tool;

/// Floods go to this port, and end there.
pub const SINK_PORT: u16 = 9;
/// Real servers: addresses of one host.
pub(super) const SERVERS: u8 = 4;
/// The queues' CPUs of this size of machine.
const QUEUES_MAX: u32 = 2;
const START_LIMIT: Duration = Duration::from_secs(10);
/// For a kernel that opens tens of thousands of connections a second. A port in TIME_WAIT is taken for a minute, and the
/// kernel looks at one after the other for a free one, first at every second port of its range: 14,116 by default. With
/// all of those taken a connection costs milliseconds, and it is the opener that is measured.
pub(super) const MANY_PORTS: &[(&str, &str)] = &[
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_tw_reuse_delay", "100"), // ms
];

/// The ground and all that stays on it.
#[derive(Debug)]
pub struct Ground {
    // Programs before namespaces, namespaces before files.
    sink: Tool,
    _nginx: Nginx,
    _iperf3: Process,
    director: Director,
    client: Arc<Namespace>,
    server: Arc<Namespace>,
    queues: u32,
    macs: [String; 3],
    scratch: Scratch,
}

impl Ground {
    /// Lays it, with so many queues on every wire.
    pub fn lay(queues: u32) -> Result<Self> {
        ensure!((1..=QUEUES_MAX).contains(&queues), "1 to {QUEUES_MAX} queues, please");
        sweep();
        let name = format!("xvs-{}-wire{queues}", std::process::id());
        clean(&name);
        let scratch = Scratch::create(&name)?;
        let space = |role: &str| Namespace::create(&format!("{name}-{role}")).map(Arc::new);
        let (client, director, server) = (space("client")?, space("director")?, space("server")?);
        wire(&client, &director, &server, queues)?;
        client.sysctl(MANY_PORTS)?;
        let nginx = Nginx::start_on(cpus(queues), "rs", &server, scratch.path())?;
        wait_until("nginx starting", START_LIMIT, || nginx.is_ready())?;
        let mut command = server.command("taskset");
        command.args(["--cpu-list", cpus(queues), "iperf3", "--server", "--forceflush"]);
        let iperf3 = Process::start("iperf3", &mut command, scratch.path())?;
        wait_until("iperf3 starting", START_LIMIT, || iperf3.log().contains("listening"))?;
        let mut command = server.command(binary("xvs-sink")?);
        command.args(["--interfaces", "eth0", "--port", &SINK_PORT.to_string()]);
        let sink = Tool::start("sink", &mut command, scratch.path())?;
        let macs = [director.mac("eth0")?, client.mac("eth0")?, server.mac("eth0")?];
        let director = Director::new(director, false, queues, scratch.path());
        let mut ground =
            Ground { sink, _nginx: nginx, _iperf3: iperf3, director, client, server, queues, macs, scratch };
        ground.sunk()?;
        Ok(ground)
    }

    /// The machine that balances.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// The clients' end.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The servers' end.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// Queues, and so workers.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// The virtual IP.
    pub fn vip(&self) -> &'static str {
        "10.1.0.100"
    }

    /// The real servers' addresses.
    pub(super) fn rips(&self) -> Vec<String> {
        (1..=SERVERS).map(|number| format!("10.2.0.{}", 10 + number)).collect()
    }

    pub(super) fn director_mac(&self) -> &str {
        &self.macs[0]
    }

    pub(super) fn client_mac(&self) -> &str {
        &self.macs[1]
    }

    pub(super) fn server_mac(&self) -> &str {
        &self.macs[2]
    }

    pub(super) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Packets at the sink so far, and how many of them were for another host's MAC.
    pub(super) fn sunk(&mut self) -> Result<(u64, u64)> {
        let report = self.sink.ask()?;
        Ok((number(&report, "packets")?, number(&report, "strange")?))
    }

    /// The same when nothing has arrived for a while.
    pub(super) fn settled(&mut self) -> Result<(u64, u64)> {
        let mut last = self.sunk()?;
        loop {
            sleep(Duration::from_millis(100));
            let now = self.sunk()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    /// A counter of a device of the director, as /sys/class/net has it.
    pub fn director_counter(&self, device: &str, counter: &str) -> Result<u64> {
        let path = format!("/sys/class/net/{device}/statistics/{counter}");
        let printed = self.director.namespace().run(&["cat", &path])?.ok()?;
        printed.trim().parse().with_context(|| format!("{device} has no counter {counter}"))
    }
}

/// Where clients and servers run. With one queue the director has CPU 0 for itself; with two everybody is everywhere.
pub(super) fn cpus(queues: u32) -> &'static str {
    if queues > 1 { "0,1" } else { "1" }
}

/// Wires, addresses and routes.
fn wire(client: &Namespace, director: &Namespace, server: &Namespace, queues: u32) -> Result<()> {
    let mut wires = Wires::default();
    let end = |namespace, device| End { namespace, device };
    wires.add(end(client, "eth0"), end(director, "eth0"), queues);
    wires.add(end(director, "eth1"), end(server, "eth0"), queues);
    wires.add(end(client, "eth1"), end(server, "eth1"), queues);
    wires.create()?;
    client.ip("link set dev eth0 up\nlink set dev eth1 up\naddress add 10.1.0.2/24 dev eth0\n\
         address add 10.3.0.1/24 dev eth1\n")?;
    director.ip("link set dev eth0 up\nlink set dev eth1 up\naddress add 10.1.0.1/24 dev eth0\n\
         address add 10.1.0.100/32 dev eth0\naddress add 10.2.0.1/24 dev eth1\nroute add default via 10.1.0.2\n")?;
    let rips: String = (1..=SERVERS).map(|n| format!("address add 10.2.0.{}/24 dev eth0\n", 10 + n)).collect();
    server.sysctl(&[("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")])?;
    server.ip(&format!(
        "link set dev eth0 up\nlink set dev eth1 up\n{rips}address add 10.1.0.100/32 dev lo\n\
         address add 10.3.0.2/24 dev eth1\nroute add default via 10.3.0.1\n\
         route add default via 10.2.0.1 table 100\nrule add from 10.2.0.0/24 lookup 100\n"
    ))?;
    // Frames of the wire's size with whole checksums, as between machines: plain forwarding could not finish them. What
    // the director's kernel does about that is its own business.
    for (namespace, device) in [(client, "eth0"), (client, "eth1"), (server, "eth0"), (server, "eth1")] {
        namespace.run(&["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off"])?.ok()?;
    }
    // Without XDP a veth takes the generator's frames only with GRO on.
    director.run(&["ethtool", "-K", "eth0", "gro", "on"])?.ok()?;
    director.run(&["ethtool", "-K", "eth1", "gro", "on"])?.ok().map(drop)
}
