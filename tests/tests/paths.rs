//! What the director tells about the way: "too big" and "time exceeded", to kernels and to people who ask.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use xvs_tests::{Cases, Family, Lab, Method, Namespace, Outcome, Service, story};

const MTU: usize = 1500;

#[test]
fn path_mtu_discovery_through_a_tunnel() -> Outcome {
    story(
        "a client that sends full packets with DF set is told a tunnel's MTU, its kernel keeps it, and all arrives",
        || {
            let lab = Lab::two_arm(1)?;
            let ds = lab.director().start(&lab.director().site())?;
            let file = lab.directory().join("upload-of-two-megabytes");
            std::fs::write(&file, (0..2_000_000u32).map(|at| (at / 7 % 251) as u8).collect::<Vec<_>>())?;
            let direct = xvs_tests::run("sha256sum", &[&file])?.ok()?;
            let sum = direct.split_whitespace().next().unwrap_or_default();
            let mut cases = Cases::new();
            let pairs = Family::BOTH.into_iter().flat_map(|vip| Family::BOTH.map(|rip| (vip, rip)));
            for (number, (vip, rip)) in pairs.enumerate() {
                cases.case(&format!("{} in {}", vip.name(), rip.name()), || {
                    let to = lab.vip(number).socket(vip, 80);
                    let service = Service::tcp(to).all_servers(&lab, rip, 80, Method::Tun);
                    service.during(&ds, || {
                        let address = to.ip().to_string();
                        let route = || lab.client().namespace().run(&["ip", "route", "get", &address])?.ok();
                        ensure!(!route()?.contains(" mtu "), "the client knows nothing yet");
                        let before = ds.counters()?;
                        let name = format!("path{number}");
                        lab.client().upload(&file, &format!("http://{to}/upload/{name}"))?;
                        ensure!(lab.server(1).checksum_of_upload(&name)? == sum, "the upload differs from the file");
                        let mtu = format!(" mtu {} ", MTU - rip.header_len() as usize);
                        ensure!(
                            format!("{} ", route()?).contains(&mtu),
                            "the client's kernel keeps{mtu}: {}",
                            route()?
                        );
                        let moved = before.moved(&ds.counters()?);
                        // One flight of packets at most is too big: then the sender knows.
                        let too_big = moved.by("drop too_big");
                        ensure!((1..=64).contains(&too_big), "{too_big} packets were too big");
                        ensure!(moved.by(&format!("{} conns", service.listed())) == 1, "one connection: {moved}");
                        moved.without("TCP ").without("drop too_big").exactly::<&str>(&[])
                    })
                });
            }
            cases.finish()
        },
    )
}

/// The hosts that answered, hop by hop, in the words of `traceroute -n -q 1`.
fn hops(lab: &Lab, words: &[&str]) -> Result<Vec<String>> {
    let mut all = vec!["traceroute", "-n", "-q", "1", "-w", "3", "-N", "1", "-m", "5"];
    all.extend(words);
    let printed = lab.client().namespace().run(&all)?.ok()?;
    let hop = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    Ok(printed.lines().skip(1).map(hop).collect())
}

/// An address of rs1 behind the router; what comes back from there, and from the router itself, goes by the director.
fn far_address(lab: &Lab, family: Family) -> Result<IpAddr> {
    let (far, length) = match family {
        Family::V4 => ("10.9.0.1", 32),
        Family::V6 => ("fd00:9::1", 128),
    };
    let addresses = lab.addresses();
    let [router, director, server, client] =
        [addresses.router_server_side(), addresses.director_server_side(), addresses.server(1), addresses.client(1)]
            .map(|pair| pair.of(family));
    let lines = |space: &Namespace, lines: &[String]| {
        lines.iter().try_for_each(|line| {
            let words: Vec<_> = line.split(' ').collect();
            space.run(&words)?.ok().map(drop)
        })
    };
    let ip = if family == Family::V4 { "ip" } else { "ip -6" };
    lines(
        lab.server(1).namespace(),
        &[format!("ip address add {far}/{length} dev lo"), format!("{ip} rule add from {far} lookup 100")],
    )?;
    lines(
        lab.router(),
        &[
            format!("ip route add {far}/{length} via {server}"),
            format!("ip route add {client}/{length} via {director}"),
        ],
    )?;
    lines(lab.director().namespace(), &[format!("ip route add {far}/{length} via {router}")])?;
    Ok(far.parse()?)
}

#[test]
fn traceroute_through_nat() -> Outcome {
    story("traceroute by UDP and TCP shows the director and then the server, both as the VIP, and ends there", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        for family in Family::BOTH {
            let vip = |number: usize, port| lab.vip(number).socket(family, port);
            let rip = |port| lab.server(1).address().socket(family, port);
            let services = [
                Service::udp(vip(0, 5353)).server(rip(5353), Method::Nat, ""),
                Service::tcp(vip(0, 8888)).server(rip(80), Method::Nat, ""),
                Service::tcp(vip(0, 8889)).server(rip(1), Method::Nat, ""),
                Service::udp(vip(1, 0)).scheduler("rr -p 60").server(rip(0), Method::Nat, ""),
            ];
            services.iter().try_for_each(|service| service.add(&ds))?;
            for (what, number, words) in [
                ("UDP to a port that answers", 0, ["-U", "-p", "5353"].as_slice()),
                ("TCP to a mapped port", 0, &["-T", "-p", "8888"]),
                ("TCP to a port that is closed at the server", 0, &["-T", "-p", "8889"]),
                ("UDP to many ports, closed at the server", 1, &["-p", "33434"]),
            ] {
                cases.case(&format!("{what}, {}", family.name()), || {
                    let before = ds.drops()?;
                    let to = lab.vip(number).of(family).to_string();
                    let shown = hops(&lab, &[words, &[to.as_str()]].concat())?;
                    ensure!(shown == [to.as_str(), to.as_str()], "director and server are shown as {to}: {shown:?}");
                    before.moved(&ds.drops()?).exactly(&[("ttl_exceeded", 1)])
                });
            }
            services.iter().try_for_each(|service| service.remove(&ds))?;
            cases.case(&format!("a router before the server, {}", family.name()), || {
                let far = far_address(&lab, family)?;
                let service = Service::tcp(vip(2, 80)).server(SocketAddr::new(far, 80), Method::Nat, "");
                service.during(&ds, || {
                    let before = ds.drops()?;
                    let to = lab.vip(2).of(family).to_string();
                    let shown = hops(&lab, &["-T", "-p", "80", &to])?;
                    ensure!(shown == [to.as_str(); 3], "three hosts are shown as {to}: {shown:?}");
                    before.moved(&ds.drops()?).exactly(&[("ttl_exceeded", 1)])
                })
            });
        }
        cases.finish()
    })
}
