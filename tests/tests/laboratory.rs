//! The laboratory tests itself, without the product: whoever reads a failure of a product test must be able to trust
//! the wires. The director's kernel plays the director here, by plain forwarding.

use anyhow::{Result, ensure};
use xvs_tests::{Cases, Expected, Family, HTTP_PORTS, Lab, Outcome, Plan, VIPS, binary, story_of_the_lab};

/// Lets the director's kernel forward to the real servers, and sends the client's packets for them there.
fn forward_by_the_directors_kernel(lab: &Lab) -> Result<()> {
    let (director, net) = (lab.addresses().director_client_side(), lab.addresses().server(1));
    lab.director().namespace().forward_by_kernel(true)?;
    lab.client().namespace().ip(&format!(
        "route add {}/24 via {}\nroute add {}/64 via {}\n",
        "10.2.0.0",
        director.v4,
        net.v6.to_string().trim_end_matches("11"),
        director.v6
    ))
}

#[test]
fn two_arms_carry_http_udp_and_large_files_of_both_families() -> Outcome {
    story_of_the_lab("the wires, routes, servers and clients of a two-arm lab", || {
        let lab = Lab::two_arm(4)?;
        ensure!(lab.director().forwarded_by_kernel()? == 0, "a director starts without kernel forwarding");
        forward_by_the_directors_kernel(&lab)?;
        let mut cases = Cases::new();
        for family in Family::BOTH {
            for server in lab.servers() {
                let (name, ip) = (server.name(), server.address());
                cases.case(&format!("{name} over {}", family.name()), || {
                    for port in HTTP_PORTS {
                        let url = format!("http://{}/", ip.socket(family, *port));
                        lab.client().curl_n(&url, 3)?.are_even(&[name], 3)?;
                    }
                    lab.client().udp(ip.socket(family, 5353), 2, 5, 1200)?.are_even(&[name], 10)
                });
            }
            let (rs1, web) = (lab.server(1), lab.server(1).address().socket(family, 80));
            let large = lab.large_file()?;
            cases.case(&format!("100 MB over {}", family.name()), || {
                let sum = lab.client().download(&format!("http://{web}/files/large"))?;
                let upload = lab.client().upload(&large, &format!("http://{web}/upload/large"))?;
                ensure!(upload.server == "rs1", "rs1 took the upload, not {}", upload.server);
                ensure!(rs1.checksum_of_upload("large")? == sum, "what went up is what came down");
                Ok(())
            });
            cases.case(&format!("200 connections over {}", family.name()), || {
                lab.client().hold(web, 200)?.are_even(&["rs1"], 200)?;
                lab.client().curl_parallel(&format!("http://{web}/"), 200)?.are_even(&["rs1"], 200)
            });
        }
        cases.case("what rs sends from its own address goes by the director", || {
            ensure!(lab.director().forwarded_by_kernel()? > 1000, "the director's kernel forwarded");
            Ok(())
        });
        cases.finish()
    })
}

#[test]
fn replies_from_a_vip_go_straight_to_the_client() -> Outcome {
    story_of_the_lab("the way back of direct routing, and that clients find the VIP at the director alone", || {
        let lab = Plan::two_arm().servers(2).vips_left_to_the_product().build()?;
        let director = lab.director().namespace();
        director.forward_by_kernel(true)?;
        let mut cases = Cases::new();
        for family in Family::BOTH {
            cases.case(family.name(), || {
                let (vip, rip) = (lab.vip(0).of(family), lab.server(2).address().of(family));
                let gateway = lab.addresses().director_client_side().of(family);
                lab.client().namespace().ip(&format!("route add {vip} via {gateway}"))?;
                director.ip(&format!("route add {vip} via {rip}"))?;
                lab.client().curl_n(&format!("http://{}/", lab.vip(0).socket(family, 80)), 5)?.are_even(&["rs2"], 5)?;
                lab.client().udp(lab.vip(0).socket(family, 5353), 2, 2, 100)?.are_even(&["rs2"], 4)
            });
        }
        cases.finish()
    })
}

#[test]
fn tunnels_are_opened_for_every_pair_of_families() -> Outcome {
    story_of_the_lab("the far ends of tunnels, without tunnel devices: 4in4, 6in4, 4in6, 6in6", || {
        let lab = Lab::two_arm(1)?;
        forward_by_the_directors_kernel(&lab)?;
        let mut cases = Cases::new();
        for inner in Family::BOTH {
            for outer in Family::BOTH {
                cases.case(&format!("{} in {}", inner.name(), outer.name()), || {
                    let rip = lab.server(1).address().of(outer);
                    let vip = lab.vip(VIPS - 1).socket(inner, 5354);
                    lab.client().ask_through_tunnel(rip, vip)?.are_even(&["rs1"], 1)
                });
            }
        }
        cases.finish()
    })
}

#[test]
fn one_arm_sends_nat_replies_by_the_director() -> Outcome {
    story_of_the_lab(
        "the policy routes of a one-arm lab: replies from the RIP pass the director even on one wire",
        || {
            let lab = Lab::one_arm(2)?;
            lab.director().namespace().forward_by_kernel(true)?;
            let mut cases = Cases::new();
            for family in Family::BOTH {
                cases.case(family.name(), || {
                    let before = lab.director().forwarded_by_kernel()?;
                    let url = format!("http://{}/", lab.server(2).address().socket(family, 80));
                    lab.client().curl_n(&url, 5)?.are_even(&["rs2"], 5)?;
                    // At least SYN-ACK, answer and FIN of each connection.
                    ensure!(lab.director().forwarded_by_kernel()? >= before + 15, "replies passed the director");
                    Ok(())
                });
            }
            cases.finish()
        },
    )
}

#[test]
fn wires_have_as_many_queues_as_planned() -> Outcome {
    story_of_the_lab("that two queues are made and carry traffic", || {
        let lab = Plan::two_arm().servers(1).queues(2).build()?;
        forward_by_the_directors_kernel(&lab)?;
        let printed = lab.director().namespace().run(&["ls", "/sys/class/net/eth0/queues"])?.ok()?;
        ensure!(printed.split_whitespace().count() == 4, "two receive and two transmit queues: {printed}");
        let web = format!("http://{}/", lab.server(1).address().socket(Family::V4, 80));
        lab.client().curl_n(&web, 40)?.are_even(&["rs1"], 40)
    })
}

#[test]
fn vlan_tags_are_on_the_wire_and_not_in_the_host() -> Outcome {
    story_of_the_lab("the VLAN tagger: hosts talk, and a host without the tag hears nothing", || {
        for plan in [Plan::one_arm(), Plan::two_arm()] {
            let lab = plan.servers(2).vlan(100).build()?;
            forward_by_the_directors_kernel(&lab)?;
            for family in Family::BOTH {
                let (web, who) = (lab.server(1).address().socket(family, 80), lab.server(1).address());
                lab.client().curl_n(&format!("http://{web}/"), 5)?.are_even(&["rs1"], 5)?;
                lab.client().udp(who.socket(family, 5353), 2, 2, 1200)?.are_even(&["rs1"], 4)?;
            }
            lab.director().namespace().run(&["tc", "qdisc", "del", "dev", "eth0", "clsact"])?.ok()?;
            let answers = lab.client().udp(lab.server(2).address().socket(Family::V4, 5353), 1, 1, 10)?;
            ensure!(answers.failed_total() == 1, "without its tag the director is out of the talk");
        }
        Ok(())
    })
}

#[test]
fn a_load_counts_while_it_runs() -> Outcome {
    story_of_the_lab("that background requests are counted, and that a break is noticed", || {
        let lab = Lab::two_arm(2)?;
        forward_by_the_directors_kernel(&lab)?;
        let limit = std::time::Duration::from_secs(10);
        let mut fresh = lab.client().keep_asking(lab.server(1).address().socket(Family::V4, 80), 2)?;
        let mut kept = lab.client().keep_connections(lab.server(2).address().socket(Family::V6, 80), 5)?;
        fresh.wait_for(50, limit)?.are(&[("rs1", Expected::Between(50, u64::MAX))])?;
        kept.wait_for(50, limit)?;
        fresh.stop()?.all_answered()?;
        kept.stop()?.all_answered()?;
        let closed = lab.server(1).address().socket(Family::V4, 9);
        ensure!(lab.client().hold(closed, 3)?.failed_total() == 3, "a refused connection is a failure");
        Ok(())
    })
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() -> Outcome {
    story_of_the_lab("that namespaces, processes and files go away with the lab, also when a story panics", || {
        let lab = Lab::one_arm(1)?;
        let name = lab.client().namespace().name().trim_end_matches("-client").to_owned();
        let pid = lab.server(1).namespace().run(&["sh", "-c", "echo $$"])?.ok()?;
        ensure!(!pid.trim().is_empty() && binary("xvs-peer")?.exists(), "the lab works");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _lab = lab;
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        ensure!(outcome.is_err(), "the panic passed");
        let listing = xvs_tests::run("ip", &["netns", "list"])?.ok()?;
        ensure!(!listing.contains(&format!("{name}-")), "namespaces are left: {listing}");
        Ok(())
    })
}
