//! The encapsulations of TUN: GUE and GRE, with and without their checksums, to real servers that open them. IP in IP is
//! among the methods of `forwarding.rs`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use xvs_tests::{Cases, Family, Lab, Method, Outcome, Service, VIPS, story};

/// Every encapsulation but IP in IP, as `xvsadm` is told it and as its listing names it.
const KINDS: [(&str, &str); 5] = [
    ("--tun-type gue --tun-port 6080 --tun-nocsum", "gue:6080:-c"),
    ("--tun-type gue --tun-port 6080 --tun-csum", "gue:6080:+c"),
    ("--tun-type gue --tun-port 6080 --tun-remcsum", "gue:6080:r+c"),
    ("--tun-type gre --tun-nocsum", "gre:-c"),
    ("--tun-type gre --tun-csum", "gre:+c"),
];

const CONNECTIONS: usize = 10;

/// A service with all servers behind this tunnel.
fn behind(lab: &Lab, service: Service, rip: Family, words: &str) -> Service {
    let port = service.address().port();
    let addresses = lab.servers().iter().map(|server| server.address().socket(rip, port));
    addresses.fold(service, |service, address| service.server(address, Method::Tun, words))
}

#[test]
fn gue_and_gre_between_all_families() -> Outcome {
    story("GUE and GRE carry TCP and UDP from either family to either, small and large, and nothing is dropped", || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        for (number, (words, listed)) in KINDS.into_iter().enumerate() {
            for (vip, rip) in Family::BOTH.into_iter().flat_map(|vip| Family::BOTH.map(|rip| (vip, rip))) {
                cases.case(&format!("{listed}, {} in {}", vip.name(), rip.name()), || {
                    // A VIP for each family behind it: a client's port may come back within the life of its entry, and
                    // servers of the other family would be gone for it.
                    let own = (2 * number + usize::from(rip == Family::V6)) % VIPS;
                    let vip = |port| lab.vip(own).socket(vip, port);
                    let tcp = behind(&lab, Service::tcp(vip(80)), rip, words);
                    let udp = behind(&lab, Service::udp(vip(5353)), rip, words);
                    let before = ds.drops()?;
                    tcp.during(&ds, || {
                        let told = ds.xvsadm("-L -n --tun-info")?;
                        ensure!(told.contains(listed), "the listing names the tunnel: {told}");
                        let answers = lab.client().curl_n(&format!("http://{}/", tcp.address()), CONNECTIONS)?;
                        answers.are_even(&["rs1", "rs2"], CONNECTIONS as u64 / 2)
                    })?;
                    udp.during(&ds, || {
                        for size in [1, 100, 1400] {
                            lab.client().udp(udp.address(), 4, 3, size)?.are_even(&["rs1", "rs2"], 6)?;
                        }
                        Ok(())
                    })?;
                    before.moved(&ds.drops()?).exactly::<&str>(&[])
                });
            }
        }
        cases.finish()
    })
}

#[test]
fn a_tunnel_is_edited_under_a_living_connection() -> Outcome {
    story("editing a server's tunnel moves its living connections to it, and none breaks", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let service = behind(&lab, Service::tcp(lab.vip(0).socket(Family::V4, 80)), Family::V4, "");
        service.add(&ds)?;
        let load = lab.client().keep_connections(service.address(), 5)?;
        let server = lab.server(1).address().socket(Family::V4, 80);
        for (words, _) in KINDS.into_iter().cycle().take(10) {
            ds.xvsadm(&format!("-e {} -r {server} -i {words}", service.key()))?;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        load.stop()?.all_answered()
    })
}

/// MTU of the narrow place, and what each encapsulation adds behind an outer IP header.
const NARROW: usize = 1400;
const HEADERS: [(&str, usize); 3] =
    [("--tun-type ipip", 0), ("--tun-type gue --tun-port 6080 --tun-csum", 12), ("--tun-type gre --tun-csum", 8)];

/// An address of rs1 behind the router, which forwards no more than so many bytes there.
fn far_address(lab: &Lab, family: Family) -> Result<IpAddr> {
    let (far, length) = match family {
        Family::V4 => ("10.9.0.1", 32),
        Family::V6 => ("fd00:9::1", 128),
    };
    let [router, server] = [lab.addresses().router_server_side(), lab.server(1).address()].map(|pair| pair.of(family));
    lab.server(1).namespace().run(&["ip", "address", "add", &format!("{far}/{length}"), "dev", "lo"])?.ok()?;
    let route = |via: IpAddr| format!("ip route add {far}/{length} via {via}");
    let narrow = format!("{} mtu lock {NARROW}", route(server));
    lab.router().run(&narrow.split(' ').collect::<Vec<_>>())?.ok()?;
    lab.director().namespace().run(&route(router).split(' ').collect::<Vec<_>>())?.ok()?;
    Ok(far.parse()?)
}

#[test]
fn a_narrow_place_on_the_way_to_the_server() -> Outcome {
    story(
        "path MTU discovery works through a tunnel: a router behind the director is heard, and an upload arrives",
        || {
            let lab = Lab::two_arm(1)?;
            let far = [far_address(&lab, Family::V4)?, far_address(&lab, Family::V6)?];
            let ds = lab.director().start(&lab.director().site())?;
            let file = lab.directory().join("upload-of-a-megabyte");
            std::fs::write(&file, (0..1_000_000u32).map(|number| (number % 251) as u8).collect::<Vec<_>>())?;
            let direct = xvs_tests::run("sha256sum", &[&file])?.ok()?;
            let sum = direct.split_whitespace().next().unwrap_or_default();
            let mut cases = Cases::new();
            for (number, (words, header)) in HEADERS.into_iter().enumerate() {
                for (vip, rip) in Family::BOTH.into_iter().flat_map(|vip| Family::BOTH.map(|rip| (vip, rip))) {
                    cases.case(&format!("{words}, {} in {}", vip.name(), rip.name()), || {
                        let address = lab.vip(number).socket(vip, 80);
                        lab.client().namespace().run(&["ip", "route", "flush", "cache"])?.ok()?;
                        lab.client().namespace().run(&["ip", "-6", "route", "flush", "cache"])?.ok()?;
                        let server = SocketAddr::new(far[usize::from(rip == Family::V6)], 80);
                        let service = Service::tcp(address).server(server, Method::Tun, words);
                        service.during(&ds, || {
                            let name = format!("narrow{number}{}{}", vip.header_len(), rip.header_len());
                            lab.client().upload(&file, &format!("http://{address}/upload/{name}"))?;
                            ensure!(
                                lab.server(1).checksum_of_upload(&name)? == sum,
                                "the upload differs from the file"
                            );
                            let to = address.ip().to_string();
                            let route = lab.client().namespace().run(&["ip", "route", "get", &to])?.ok()?;
                            // Around an IPv6 packet, the outer IPv4 header lets the router fragment: it has nothing to tell.
                            let way = if (vip, rip) == (Family::V6, Family::V4) { 1500 } else { NARROW };
                            let mtu = format!(" mtu {} ", way - rip.header_len() as usize - header);
                            ensure!(format!("{route} ").contains(&mtu), "the client knows{mtu}: {route}");
                            Ok(())
                        })
                    });
                }
            }
            cases.finish()
        },
    )
}
