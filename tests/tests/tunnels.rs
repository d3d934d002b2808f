//! The encapsulations of TUN: GUE and GRE, with and without their checksums, to real servers that open them. IP in IP is
//! among the methods of `forwarding.rs`.

use anyhow::ensure;
use xvs_tests::{Cases, Family, Lab, Method, Outcome, Service, story};

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
                    let vip = |port| lab.vip(number).socket(vip, port);
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
