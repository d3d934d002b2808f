//! The lab itself: it builds the namespaces, wires and addresses of a plan, and starts what the real servers run.
//!
//! Real servers answer for RIP and VIP alike. The VIPs lie on their loopback and are not announced (`arp_ignore`,
//! `arp_announce`). What they send from a VIP (direct routing, tunnelling) goes straight to the client, by the router
//! if there are two arms; what they send from their RIP (NAT) goes by the director. Policy routing by source address
//! makes that choice, so one lab serves all forwarding methods at the same time.
//!
//! Invariant: one lab at a time in a process, since the machines that test have two cores; a second one waits. So a
//! thread that holds a lab must not build another.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result, bail};

use crate::addresses::{Addresses, Pair};
use crate::client::Client;
use crate::director::Director;
use crate::filter::{Filter, tags_in_bytes};
use crate::links::{End, Wires, bridge};
use crate::namespace::{Namespace, clean, sweep};
use crate::plan::Plan;
use crate::scratch::Scratch;
use crate::server::RealServer;

/// Virtual IPs of each family in every lab: 10.1.0.100 and fd00:1::100 and the following ones.
pub const VIPS: usize = 8;

/// TCP ports on which every real server answers by HTTP.
pub const HTTP_PORTS: &[u16] = &[80, 8080, 8081];

/// UDP ports on which every real server says its name and repeats what it heard.
pub const UDP_PORTS: &[u16] = &[5353, 5354];

/// UDP ports on which the answers come in fragments, the last one first.
pub const UDP_REVERSED_PORTS: &[u16] = &[5355];

/// TCP ports of control connections for file transfers.
pub const FILES_PORTS: &[u16] = &[21, 2121];

/// SCTP ports on which every real server says its name and repeats what it heard.
pub const SCTP_PORTS: &[u16] = &[3868, 3869];

/// Size of the large file that servers serve: 100 MB.
const LARGE_LEN: usize = 100_000_000;

/// How the router's ports to the director and to real servers are named.
const TO_DIRECTOR: &str = "to-director";
const TO_SERVER: &str = "to-rs";

static TURN: Mutex<()> = Mutex::new(());
static SWEEP: Once = Once::new();
static COUNT: AtomicU32 = AtomicU32::new(1);

/// A running laboratory.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: programs before namespaces, files last, and only then the next lab's turn.
    servers: Vec<RealServer>,
    clients: Vec<Client>,
    director: Director,
    router: Arc<Namespace>,
    addresses: Addresses,
    scratch: Scratch,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Lab {
    /// Two arms, one client, `servers` real servers.
    pub fn two_arm(servers: usize) -> Result<Self> {
        Plan::two_arm().servers(servers).build()
    }

    /// One arm, one client, `servers` real servers.
    pub fn one_arm(servers: usize) -> Result<Self> {
        Plan::one_arm().servers(servers).build()
    }

    pub(crate) fn build(plan: Plan) -> Result<Self> {
        SWEEP.call_once(sweep);
        // A lab that failed poisons the lock and leaves nothing broken behind.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let name = plan
            .name
            .clone()
            .unwrap_or_else(|| format!("xvs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        if let Some(owner) = Scratch::living_owner(&name) {
            bail!("a laboratory named {name} belongs to the running process {owner}; wait for its end");
        }
        clean(&name);
        let scratch = Scratch::create(&name)?;
        let ground = Ground::lay(&plan, &name, scratch.path())?;
        let Ground { addresses, router, director, clients, servers } = ground;
        let clients = clients
            .into_iter()
            .enumerate()
            .map(|(index, space)| Client::new(space, addresses.client(index + 1), scratch.path()))
            .collect();
        let servers: Result<Vec<_>> = servers
            .into_iter()
            .enumerate()
            .map(|(index, space)| RealServer::start(index + 1, space, addresses.server(index + 1), scratch.path()))
            .collect();
        let servers = servers?;
        servers.iter().try_for_each(RealServer::wait_until_ready)?;
        let director = Director::new(director, plan.one_arm, plan.queues, scratch.path());
        Ok(Lab { servers, clients, director, router, addresses, scratch, _turn: Some(turn) })
    }

    /// The first client.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// All clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Real server `number`, counted from 1; its name is `rsNUMBER`.
    pub fn server(&self, number: usize) -> &RealServer {
        &self.servers[number - 1]
    }

    /// All real servers.
    pub fn servers(&self) -> &[RealServer] {
        &self.servers
    }

    /// The machine that balances.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// The namespace of the bridges, and of the router if there are two arms.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// Who has which address.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Virtual IP `number`, counted from 0.
    pub fn vip(&self, number: usize) -> Pair {
        self.addresses.vip(number)
    }

    /// Where the lab keeps its files.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// A file of 100 MB that every real server serves as `/files/large`, made at the first call.
    pub fn large_file(&self) -> Result<PathBuf> {
        let path = self.scratch.path().join("files/large");
        if !path.exists() {
            let file = File::create(&path).context("the large file could not be created")?;
            write_noise(BufWriter::new(file), LARGE_LEN).context("the large file could not be written")?;
        }
        Ok(path)
    }

    /// Leaves everything standing: namespaces, programs and files outlive this process.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

/// Writes `len` bytes without any pattern that a wrong offset could hide in (xorshift64, a fixed seed).
fn write_noise(mut out: impl Write, len: usize) -> std::io::Result<()> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut left = len;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        let part = left.min(bytes.len());
        out.write_all(&bytes[..part])?;
        left -= part;
    }
    out.flush()
}

/// Namespaces, wires, addresses and routes, before any program runs.
struct Ground {
    addresses: Addresses,
    router: Arc<Namespace>,
    director: Arc<Namespace>,
    clients: Vec<Arc<Namespace>>,
    servers: Vec<Arc<Namespace>>,
}

impl Ground {
    fn lay(plan: &Plan, name: &str, directory: &Path) -> Result<Self> {
        let space = |role: &str| Namespace::create(&format!("{name}-{role}")).map(Arc::new);
        let many = |role: &str, count| -> Result<Vec<_>> {
            (1..=count).map(|number| space(&format!("{role}{number}"))).collect()
        };
        let ground = Ground {
            addresses: Addresses::new(plan.one_arm),
            router: space("router")?,
            director: space("director")?,
            clients: if plan.clients == 1 { vec![space("client")?] } else { many("client", plan.clients)? },
            servers: many("rs", plan.servers)?,
        };
        ground.wire(plan, directory)?;
        if let Some(vlan) = plan.vlan {
            ground.tag(plan, &Filter::tagger(vlan, directory)?)?;
        }
        ground.address_clients()?;
        ground.address_servers(plan)?;
        ground.address_director(plan)?;
        ground.address_router(plan)?;
        Ok(ground)
    }

    fn wire(&self, plan: &Plan, directory: &Path) -> Result<()> {
        let mut wires = Wires::default();
        let (mut client_ports, mut server_ports) = (Vec::new(), Vec::new());
        let mut plug = |space: &Namespace, device: &str, port: String, ports: &mut Vec<String>| {
            let far = End { namespace: &self.router, device: &port };
            wires.add(End { namespace: space, device }, far, plan.queues);
            ports.push(port);
        };
        for (index, client) in self.clients.iter().enumerate() {
            plug(client, "eth0", format!("to-client{}", index + 1), &mut client_ports);
        }
        plug(&self.director, "eth0", TO_DIRECTOR.into(), &mut client_ports);
        let ports = if plan.one_arm { &mut client_ports } else { &mut server_ports };
        if !plan.one_arm {
            plug(&self.director, "eth1", format!("{TO_DIRECTOR}-s"), ports);
        }
        for (index, server) in self.servers.iter().enumerate() {
            plug(server, "eth0", format!("{TO_SERVER}{}", index + 1), ports);
        }
        wires.create()?;
        // Bridged frames are nobody's business but the bridge's.
        self.router.sysctl(&[
            ("net/bridge/bridge-nf-call-iptables", "0"),
            ("net/bridge/bridge-nf-call-ip6tables", "0"),
            ("net/bridge/bridge-nf-call-arptables", "0"),
        ])?;
        bridge(&self.router, "br-client", &client_ports)?;
        bridge(&self.router, "br-server", &server_ports)?;
        if plan.queues > 1 {
            let straight = Filter::spreader(plan.queues, false, directory)?;
            let crossed = Filter::spreader(plan.queues, true, directory)?;
            let ports = client_ports.iter().chain(&server_ports).filter(|port| !port.starts_with(TO_DIRECTOR));
            for port in ports {
                let filter = if port.starts_with(TO_SERVER) { &crossed } else { &straight };
                filter.attach(&self.router, port)?;
            }
        }
        if plan.vlan.is_some() {
            client_ports.iter().chain(&server_ports).try_for_each(|port| tags_in_bytes(&self.router, port))?;
        }
        Ok(())
    }

    /// Hosts speak tagged; the bridge passes tags through without a look.
    fn tag(&self, plan: &Plan, tagger: &Filter) -> Result<()> {
        for host in self.clients.iter().chain(&self.servers).chain([&self.director]) {
            tags_in_bytes(host, "eth0")?;
            tagger.attach(host, "eth0")?;
        }
        if !plan.one_arm {
            tags_in_bytes(&self.director, "eth1")?;
            tagger.attach(&self.director, "eth1")?;
            tagger.attach(&self.router, "br-client")?;
            tagger.attach(&self.router, "br-server")?;
        }
        Ok(())
    }

    fn address_clients(&self) -> Result<()> {
        for (index, client) in self.clients.iter().enumerate() {
            client.ip(&up_with("eth0", self.addresses.client(index + 1)))?;
        }
        Ok(())
    }

    fn address_servers(&self, plan: &Plan) -> Result<()> {
        let director = self.addresses.director_server_side();
        let router = self.addresses.router_server_side();
        for (index, server) in self.servers.iter().enumerate() {
            server.sysctl(&[("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")])?;
            let own = self.addresses.server(index + 1);
            let mut lines = up_with("eth0", own);
            lines += &self.vips("lo");
            if !plan.one_arm {
                lines += &format!("route add default via {}\nroute add ::/0 via {}\n", router.v4, router.v6);
            }
            // What leaves with the RIP as its source goes by the director, even to neighbours on the same wire.
            lines += &format!(
                "route add {d4} dev eth0 table 100\nroute add default via {d4} dev eth0 onlink table 100\n\
                 route add {d6} dev eth0 table 100\nroute add ::/0 via {d6} dev eth0 table 100\n\
                 rule add from {} lookup 100\n",
                own.v4,
                d4 = director.v4,
                d6 = director.v6,
            );
            server.ip(&lines)?;
            server.ip_v6(&format!("rule add from {} lookup 100\n", own.v6))?;
        }
        Ok(())
    }

    fn address_director(&self, plan: &Plan) -> Result<()> {
        let mut lines = up_with("eth0", self.addresses.director_client_side());
        if !plan.one_arm {
            lines += &up_with("eth1", self.addresses.director_server_side());
        }
        if plan.director_holds_vips {
            lines += &self.vips("eth0");
        }
        self.director.ip(&lines)
    }

    fn address_router(&self, plan: &Plan) -> Result<()> {
        if plan.one_arm {
            return Ok(());
        }
        self.router.forward_by_kernel(true)?;
        let mut lines = up_with("br-client", self.addresses.router_client_side());
        lines += &up_with("br-server", self.addresses.router_server_side());
        self.router.ip(&lines)
    }

    fn vips(&self, device: &str) -> String {
        (0..VIPS)
            .map(|number| self.addresses.vip(number))
            .map(|vip| {
                format!("address add {}/32 dev {device}\naddress add {}/128 dev {device} nodad\n", vip.v4, vip.v6)
            })
            .collect()
    }
}

fn up_with(device: &str, own: Pair) -> String {
    format!(
        "link set dev {device} up\naddress add {}/24 dev {device}\naddress add {}/64 dev {device} nodad\n",
        own.v4, own.v6
    )
}
