//! Packets through the product: every forwarding method, family and protocol, small and large, one and two arms.

use anyhow::{Context, Result, ensure};
use xvs_tests::{Answers, Cases, Counters, Family, Lab, Method, Moved, Outcome, Plan, Running, Service, story};

/// Requests of a case by curl, each over its own connection.
const CONNECTIONS: u64 = 40;

/// Questions of a case by UDP: so many sockets, so many questions each, so many bytes in each.
const SOCKETS: usize = 8;
const ASKS: usize = 5;
const SIZE: usize = 100;

/// Length of "rsN " before the repeated question.
const NAME_LEN: usize = 4;

/// The tag on the wires of the VLAN story.
const VLAN: u16 = 100;

const UDP_HEADER_LEN: usize = 8;
const IPV6_FRAGMENT_LEN: usize = 8;

/// A datagram of three fragments in either family, and so is its answer.
const LARGE: usize = 4000;

fn names(lab: &Lab) -> Vec<&str> {
    lab.servers().iter().map(|server| server.name()).collect()
}

/// A forwarding method with the families of VIP and RIP, and a VIP of its own: a client's port that comes back while the
/// director still remembers its connection to the servers of the case before would be a story of its own.
#[derive(Debug, Clone, Copy)]
struct Kind {
    method: Method,
    vip: Family,
    rip: Family,
    number: usize,
}

impl Kind {
    /// Every method with every pair of families that it can join.
    fn all() -> Vec<Kind> {
        let pairs = |method| match method {
            Method::Tun => Family::BOTH.into_iter().flat_map(|vip| Family::BOTH.map(|rip| (vip, rip))).collect(),
            _ => Family::BOTH.map(|family| (family, family)).to_vec(),
        };
        let all = Method::ALL.into_iter().flat_map(|method| pairs(method).into_iter().map(move |pair| (method, pair)));
        all.enumerate().map(|(number, (method, (vip, rip)))| Kind { method, vip, rip, number }).collect()
    }

    fn title(&self) -> String {
        match self.method {
            Method::Tun => format!("TUN {} in {}", self.vip.name(), self.rip.name()),
            _ => format!("{} {}", self.method.name(), self.vip.name()),
        }
    }

    /// A service with all servers of the lab at this port.
    fn tcp(&self, lab: &Lab, port: u16) -> Service {
        let service = Service::tcp(lab.vip(self.number).socket(self.vip, port));
        service.all_servers(lab, self.rip, port, self.method)
    }

    /// As [`Kind::tcp`].
    fn udp(&self, lab: &Lab, port: u16) -> Service {
        let service = Service::udp(lab.vip(self.number).socket(self.vip, port));
        service.all_servers(lab, self.rip, port, self.method)
    }
}

/// HTTP by round robin: even shares, as many connections in the counters, replies seen exactly if NAT, nothing dropped.
fn http(lab: &Lab, ds: &Running, kind: Kind) -> Result<()> {
    let service = kind.tcp(lab, 80);
    let (answers, moved) = service.during(ds, || {
        let before = ds.counters()?;
        let answers = lab.client().curl_n(&format!("http://{}/", service.address()), CONNECTIONS as usize)?;
        Ok((answers, before.moved(&ds.counters()?)))
    })?;
    let names = names(lab);
    answers.are_even(&names, CONNECTIONS / names.len() as u64)?;
    let listed = service.listed();
    let column = |name: &str| moved.by(&format!("{listed} {name}"));
    ensure!(column("conns") == CONNECTIONS as i64, "{CONNECTIONS} connections were counted: {moved}");
    // SYN, ACK, request, FIN and the ACK of the answer at least.
    ensure!(column("inpkts") >= 4 * CONNECTIONS as i64, "the packets of all connections were counted: {moved}");
    ensure!((column("outpkts") > 0) == kind.method.sees_replies(), "replies pass the director with NAT alone: {moved}");
    only_services_moved(moved)
}

/// UDP by round robin: even shares, and every counter to the packet and byte.
fn udp(lab: &Lab, ds: &Running, kind: Kind) -> Result<()> {
    let service = kind.udp(lab, 5353);
    let (answers, moved) = service.during(ds, || {
        let before = ds.counters()?;
        let answers = lab.client().udp(service.address(), SOCKETS, ASKS, SIZE)?;
        Ok((answers, before.moved(&ds.counters()?)))
    })?;
    let names = names(lab);
    answers.are_even(&names, (SOCKETS * ASKS / names.len()) as u64)?;
    let packets = (SOCKETS * ASKS) as i64;
    let len = (kind.vip.header_len() as usize + UDP_HEADER_LEN + SIZE) as i64;
    let back = if kind.method.sees_replies() { (packets, packets * (len + NAME_LEN as i64)) } else { (0, 0) };
    moved.exactly(&service.movement(SOCKETS as i64, (packets, packets * len), back))
}

/// The same with datagrams of three fragments, both ways. Each fragment is a packet, and the kernels at both ends, which
/// put them together, check the sums. In a tunnel the full ones are too large by the outer header and are cut once more.
fn large_udp(lab: &Lab, ds: &Running, kind: Kind) -> Result<()> {
    let service = kind.udp(lab, 5353);
    let (answers, moved) = service.during(ds, || {
        let before = ds.counters()?;
        let answers = lab.client().udp(service.address(), SOCKETS, ASKS, LARGE)?;
        Ok((answers, before.moved(&ds.counters()?)))
    })?;
    let names = names(lab);
    answers.are_even(&names, (SOCKETS * ASKS / names.len()) as u64)?;
    let header = match kind.vip {
        Family::V4 => kind.vip.header_len() as usize,
        Family::V6 => kind.vip.header_len() as usize + IPV6_FRAGMENT_LEN,
    };
    let datagrams = (SOCKETS * ASKS) as i64;
    let (packets, len) = (datagrams * 3, (3 * header + UDP_HEADER_LEN + LARGE) as i64);
    let back = if kind.method.sees_replies() { (packets, datagrams * (len + NAME_LEN as i64)) } else { (0, 0) };
    moved.exactly(&service.movement(SOCKETS as i64, (packets, datagrams * len), back))
}

fn only_services_moved(moved: Moved) -> Result<()> {
    moved.without("TCP ").exactly::<&str>(&[])
}

/// Runs a case for every kind.
fn everywhere(cases: &mut Cases, what: &str, case: impl Fn(Kind) -> Result<()>) {
    for kind in Kind::all() {
        cases.case(&format!("{what} {}", kind.title()), || case(kind));
    }
}

/// A director without kernel forwarding must have forwarded everything by itself.
fn kernel_forwarded_nothing(lab: &Lab) -> Result<()> {
    let count = lab.director().forwarded_by_kernel()?;
    ensure!(count == 0, "the director's kernel forwarded {count} packets, so xvs was not alone");
    Ok(())
}

#[test]
fn two_arms_every_method_family_and_protocol() -> Outcome {
    story("NAT, DR and TUN carry TCP and UDP of both families, evenly, with exact counters and no drop", || {
        let lab = Lab::two_arm(4)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        everywhere(&mut cases, "HTTP", |kind| http(&lab, &ds, kind));
        everywhere(&mut cases, "UDP", |kind| udp(&lab, &ds, kind));
        cases.case("the kernel forwarded nothing", || kernel_forwarded_nothing(&lab));
        cases.finish()
    })
}

#[test]
fn large_datagrams_every_method() -> Outcome {
    story(
        "datagrams in fragments reach their servers and come back, by every method, cut once more for tunnels",
        || {
            let lab = Lab::two_arm(4)?;
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            // An IPv6 client must learn a tunnel's MTU first: it alone may cut its packets smaller.
            for kind in Kind::all().into_iter().filter(|kind| kind.method != Method::Tun || kind.vip == Family::V4) {
                cases.case(&format!("large UDP {}", kind.title()), || large_udp(&lab, &ds, kind));
            }
            cases.case("the tunnels cut packets", || {
                // IPv4 in IPv4 and in IPv6, two full fragments in each datagram, two pieces of each.
                let packets = (2 * SOCKETS * ASKS * 2) as i64;
                let engine = Counters::from_json(&ds.status_json()?["status"]["engine"]);
                let cut = (engine.get("split"), engine.get("fragments_made"));
                ensure!(cut == (packets, 2 * packets), "{cut:?} packets were cut and fragments made");
                Ok(())
            });
            cases.case("the kernel forwarded nothing", || kernel_forwarded_nothing(&lab));
            cases.finish()
        },
    )
}

#[test]
fn one_arm_every_method_family_and_protocol() -> Outcome {
    story("one interface is enough for NAT, DR and TUN", || {
        let lab = Lab::one_arm(4)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        everywhere(&mut cases, "HTTP", |kind| http(&lab, &ds, kind));
        everywhere(&mut cases, "UDP", |kind| udp(&lab, &ds, kind));
        cases.case("the kernel forwarded nothing", || kernel_forwarded_nothing(&lab));
        cases.finish()
    })
}

#[test]
fn large_transfers_and_many_connections() -> Outcome {
    story("100 MB down and up arrive byte for byte, also where a tunnel makes packets too long; 200 at a time", || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&lab.director().site())?;
        let large = lab.large_file()?;
        let direct = xvs_tests::run("sha256sum", &[&large])?.ok()?;
        let sum = direct.split_whitespace().next().unwrap_or_default();
        let mut cases = Cases::new();
        everywhere(&mut cases, "100 MB and 200 connections", |kind| {
            let service = kind.tcp(&lab, 80);
            let (url, name) = (format!("http://{}", service.address()), format!("large{}", kind.number));
            service.during(&ds, || {
                let down = lab.client().download(&format!("{url}/files/large"))?;
                ensure!(down == sum, "the download differs from the file");
                let upload = lab.client().upload(&large, &format!("{url}/upload/{name}"))?;
                let taker = lab.servers().iter().find(|server| server.name() == upload.server);
                let up = taker.map(|server| server.checksum_of_upload(&name)).transpose()?;
                ensure!(up.as_deref() == Some(sum), "the upload differs from the file");
                lab.client().hold(service.address(), 200)?.are_even(&["rs1", "rs2"], 100)?;
                lab.client().curl_parallel(&format!("{url}/"), 200)?.are_even(&["rs1", "rs2"], 100)
            })
        });
        cases.finish()
    })
}

#[test]
fn bulk_traffic_by_iperf3() -> Outcome {
    story("a general-purpose tool with its own control connection runs both ways, by TCP and UDP", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        for method in Method::ALL {
            let vip = lab.vip(2).socket(Family::V4, 5201);
            let services = [Service::tcp(vip), Service::udp(vip)];
            let services = services.map(|service| service.all_servers(&lab, Family::V4, 5201, method));
            let own = if method == Method::Nat { lab.server(1).address() } else { lab.vip(2) };
            services.iter().try_for_each(|service| service.add(&ds))?;
            for (what, words) in [
                ("to the server", vec!["-t", "1"]),
                ("from the server", vec!["-t", "1", "-R"]),
                ("UDP", vec!["-t", "1", "-u", "-b", "20M", "-l", "1200"]),
            ] {
                cases.case(&format!("{} {what}", method.name()), || {
                    // A server of its own for each: it calls itself busy for a moment after every run.
                    let _iperf3 = lab.server(1).iperf3(own.of(Family::V4))?;
                    let address = lab.vip(2).v4.to_string();
                    let mut all = vec!["iperf3", "--connect-timeout", "5000", "-c", &address];
                    all.extend(words);
                    lab.client().namespace().run(&all)?.ok().map(drop)
                });
            }
            services.iter().try_for_each(|service| service.remove(&ds))?;
        }
        cases.finish()
    })
}

#[test]
fn client_ports_come_back_soon() -> Outcome {
    story("a new connection from a port whose last one the director still remembers works", || {
        let lab = Lab::two_arm(4)?;
        let ds = lab.director().start(&lab.director().site())?;
        // So few ports that every one comes back within a second.
        lab.client().namespace().sysctl(&[("net/ipv4/ip_local_port_range", "'40000 40099'")])?;
        let mut cases = Cases::new();
        everywhere(&mut cases, "240 connections from 100 ports", |kind| {
            let service = kind.tcp(&lab, 80);
            service.during(&ds, || {
                let before = ds.drops()?;
                let mut answers = Answers::default();
                for _ in 0..6 {
                    answers.merge(&lab.client().hold(service.address(), 40)?);
                }
                let drops = before.moved(&ds.drops()?);
                answers.all_answered().with_context(|| format!("drops: {drops}"))
            })
        });
        cases.finish()
    })
}

#[test]
fn nat_maps_ports() -> Outcome {
    story("NAT reaches servers at other ports than the service's, by TCP and UDP of both families", || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        for family in Family::BOTH {
            cases.case(&format!("TCP 8888 to 8080 and 8081, {}", family.name()), || {
                let [one, two] = [1, 2].map(|number| lab.server(number).address());
                let service = Service::tcp(lab.vip(3).socket(family, 8888))
                    .server(one.socket(family, 8080), Method::Nat, "")
                    .server(two.socket(family, 8081), Method::Nat, "");
                service.add(&ds)?;
                lab.client().curl_n(&format!("http://{}/", service.address()), 10)?.are_even(&["rs1", "rs2"], 5)
            });
            cases.case(&format!("UDP 9999 to 5354, {}", family.name()), || {
                let service = Service::udp(lab.vip(3).socket(family, 9999));
                let service = service.all_servers(&lab, family, 5354, Method::Nat);
                service.add(&ds)?;
                lab.client().udp(service.address(), 4, 3, 1400)?.are_even(&["rs1", "rs2"], 6)
            });
        }
        cases.finish()
    })
}

/// A configuration with the next hops of both sides written down, and the tag to write towards them.
fn site_with_tagged_hops(lab: &Lab, vlan: u16) -> Result<String> {
    let hops = [lab.client().namespace().mac("eth0")?, lab.server(1).namespace().mac("eth0")?];
    let hop = |(name, mac): (&&str, String)| {
        format!("[[interface]]\nname = \"{name}\"\nqueues = 1\ngateway_mac = \"{mac}\"\nvlan = {vlan}\n")
    };
    Ok(lab.director().interfaces().iter().zip(hops).map(hop).collect())
}

#[test]
fn vlan_tags_are_read_and_written() -> Outcome {
    story("tagged frames are recognised, forwarded by every method, and leave with the configured tag", || {
        let lab = Plan::two_arm().servers(1).vlan(VLAN).build()?;
        let ds = lab.director().start(&site_with_tagged_hops(&lab, VLAN)?)?;
        let mut cases = Cases::new();
        everywhere(&mut cases, "HTTP", |kind| http(&lab, &ds, kind));
        everywhere(&mut cases, "UDP", |kind| udp(&lab, &ds, kind));
        cases.case("the kernel forwarded nothing", || kernel_forwarded_nothing(&lab));
        cases.finish()
    })
}

#[test]
fn two_queues_and_two_workers_share_connections() -> Outcome {
    story("a reply that arrives at the worker that never saw the request finds its connection", || {
        let lab = Plan::two_arm().servers(4).queues(2).build()?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        everywhere(&mut cases, "HTTP", |kind| http(&lab, &ds, kind));
        everywhere(&mut cases, "UDP", |kind| udp(&lab, &ds, kind));
        cases.case("200 connections by NAT at a time, over both queues of both interfaces", || {
            // The lab sends every reply to another queue than its request.
            let service = Kind::all()[0].tcp(&lab, 80);
            service.add(&ds)?;
            lab.client().hold(service.address(), 200)?.are_even(&["rs1", "rs2", "rs3", "rs4"], 50)?;
            for interface in lab.director().interfaces() {
                let packets = lab.director().packets_by_queue(interface)?;
                ensure!(packets.len() == 2, "{interface} has two queues: {packets:?}");
                ensure!(packets.iter().all(|count| *count > 100), "{interface} used both queues: {packets:?}");
            }
            Ok(())
        });
        cases.case("the kernel forwarded nothing", || kernel_forwarded_nothing(&lab));
        cases.finish()
    })
}
