//! The director's life from outside: start, change, drain, reload, end, death, and refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use xvs_tests::{Cases, Expected, Family, Finished, Lab, Method, Outcome, Plan, Service, story, wait_until};

/// The load must go on within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(10);

fn web(lab: &Lab) -> Service {
    Service::tcp(lab.vip(0).socket(Family::V4, 80))
}

fn rip(lab: &Lab, number: usize) -> std::net::SocketAddr {
    lab.server(number).address().socket(Family::V4, 80)
}

/// A configuration with one service, whose servers have these numbers and weights.
fn site_with(lab: &Lab, servers: &[(usize, u32)]) -> String {
    let mut text = lab.director().site();
    text += &format!("\n[[service]]\naddress = \"{}\"\nscheduler = \"wrr\"\n", web(lab).address());
    for (number, weight) in servers {
        let address = rip(lab, *number);
        text += &format!("[[service.server]]\naddress = \"{address}\"\nmethod = \"nat\"\nweight = {weight}\n");
    }
    text
}

#[test]
fn drain_and_hot_add_cost_no_request() -> Outcome {
    story(
        "a drained server keeps its connections and gets no new one; a server added under load takes its share",
        || {
            let lab = Lab::two_arm(3)?;
            let ds = lab.director().start(&lab.director().site())?;
            let service = web(&lab).server(rip(&lab, 1), Method::Nat, "").server(rip(&lab, 2), Method::Dr, "");
            service.add(&ds)?;
            let mut fresh = lab.client().keep_asking(service.address(), 4)?;
            let mut kept = lab.client().keep_connections(service.address(), 10)?;
            fresh.wait_for(100, LIMIT)?;
            kept.wait_for(20, LIMIT)?;

            ds.xvsadm(&format!("-e {} -r {} -g -w 0", service.key(), rip(&lab, 2)))?;
            // Requests in flight at the change may still end at rs2; those that start from here on may not.
            let drained = fresh.wait_for(20, LIMIT)?;
            let kept_before = kept.so_far()?;
            let later = fresh.wait_for(100, LIMIT)?.since(&drained);
            later.are(&[("rs1", Expected::Between(100, u64::MAX))])?;
            let kept_later = kept.wait_for(40, LIMIT)?.since(&kept_before);
            ensure!(kept_later.share("rs2") > 0, "old connections stay with the drained server: {kept_later}");

            ds.xvsadm(&format!("-a {} -r {} -m -w 1", service.key(), rip(&lab, 3)))?;
            let added = fresh.wait_for(20, LIMIT)?;
            let later = fresh.wait_for(200, LIMIT)?.since(&added);
            ensure!(later.share("rs3") > 50, "the added server takes its share: {later}");
            fresh.stop()?.all_answered()?;
            kept.stop()?.all_answered()
        },
    )
}

#[test]
fn sigterm_leaves_nothing_behind() -> Outcome {
    story(
        "after SIGTERM there is no XDP program, no address of ours and no socket file, and the exit code is 0",
        || {
            let lab = Plan::two_arm().servers(1).vips_left_to_the_product().build()?;
            let director = lab.director();
            let addresses = director.addresses()?;
            let configuration = format!("[director]\nown_vips = true\n\n{}", site_with(&lab, &[(1, 1)]));
            for round in 1..=2 {
                let ds = director.start(&configuration)?;
                for interface in director.interfaces() {
                    ensure!(director.has_xdp(interface)?, "{interface} has an XDP program while xvs runs");
                }
                let own: Vec<_> = director.addresses()?.into_iter().filter(|own| !addresses.contains(own)).collect();
                ensure!(own.iter().any(|own| own.contains("10.1.0.100")), "xvs added its VIP: {own:?}");
                lab.client().curl_n(&format!("http://{}/", web(&lab).address()), 5)?.are_even(&["rs1"], 5)?;
                let status = ds.terminate()?;
                ensure!(status.success(), "round {round}: SIGTERM ends with success and not with {status}");
                for interface in director.interfaces() {
                    ensure!(!director.has_xdp(interface)?, "round {round}: {interface} still has an XDP program");
                }
                ensure!(
                    director.addresses()? == addresses,
                    "round {round}: addresses are left: {:?}",
                    director.addresses()?
                );
                ensure!(!director.control().exists(), "round {round}: the socket file is left");
            }
            Ok(())
        },
    )
}

#[test]
fn a_killed_director_can_be_started_again() -> Outcome {
    story("kill -9 leaves nothing that keeps the next start from working", || {
        let lab = Lab::two_arm(2)?;
        let configuration = site_with(&lab, &[(1, 1), (2, 1)]);
        let url = format!("http://{}/", web(&lab).address());
        for _ in 0..3 {
            let ds = lab.director().start(&configuration)?;
            lab.client().curl_n(&url, 10)?.are_even(&["rs1", "rs2"], 5)?;
            ds.kill()?;
        }
        let ds = lab.director().start(&configuration)?;
        lab.client().curl_n(&url, 10)?.are_even(&["rs1", "rs2"], 5)?;
        ensure!(ds.terminate()?.success(), "the last one ends in order");
        Ok(())
    })
}

#[test]
fn a_second_director_is_refused_and_the_first_goes_on() -> Outcome {
    story("two directors on one socket: the second says so in one line, the first does not notice", || {
        let lab = Lab::two_arm(1)?;
        let configuration = site_with(&lab, &[(1, 1)]);
        let mut ds = lab.director().start(&configuration)?;
        let refused = lab.director().run_refused(&configuration)?;
        one_line(&refused)?;
        ensure!(ds.is_alive(), "the first still runs");
        lab.client().curl_n(&format!("http://{}/", web(&lab).address()), 5)?.are_even(&["rs1"], 5)
    })
}

#[test]
fn sighup_applies_the_file_again() -> Outcome {
    story("SIGHUP changes what the file changed without a failed request, and a wrong file changes nothing", || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&site_with(&lab, &[(1, 1)]))?;
        let mut fresh = lab.client().keep_asking(web(&lab).address(), 2)?;
        fresh.wait_for(20, LIMIT)?.are(&[("rs1", Expected::Between(20, u64::MAX))])?;
        ds.reload(&site_with(&lab, &[(1, 1), (2, 1)]))?;
        wait_until("rs2 answering after SIGHUP", LIMIT, || {
            fresh.so_far().is_ok_and(|answers| answers.share("rs2") > 10)
        })?;
        let listing = ds.xvsadm("-L -n")?;
        ds.reload("[[service]]\naddress = \"nonsense\"\n")?;
        fresh.wait_for(50, LIMIT)?;
        ensure!(servers_of(&ds.xvsadm("-L -n")?) == servers_of(&listing), "a wrong file changed the rules");
        fresh.stop()?.all_answered()
    })
}

/// The rules in a listing without the columns that move.
fn servers_of(listing: &str) -> Vec<String> {
    listing.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect()
}

/// A refusal: not success, and one line on standard error, so that a person reads it and a log keeps it.
fn one_line(finished: &Finished) -> Result<i32> {
    let lines: Vec<_> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "`{}` should say one line and said {}: {}", finished.line, lines.len(), finished.stderr);
    let code = finished.code.unwrap_or(-1);
    ensure!(code > 0, "`{}` should fail with an exit code, and its outcome was {}", finished.line, finished.outcome());
    ensure!(code != 101, "`{}` panicked: {}", finished.line, finished.stderr);
    Ok(code)
}

#[test]
fn wrong_configurations_are_refused_in_one_line() -> Outcome {
    story("every kind of wrong configuration is refused in one line, and kinds are told apart by the exit code", || {
        let lab = Lab::two_arm(1)?;
        let director = lab.director();
        let site = director.site();
        let service = "[[service]]\naddress = \"10.1.0.100:80\"\n";
        let wrong: Vec<(&str, String)> = vec![
            ("not TOML", "[director\n".into()),
            ("an unknown key", format!("{site}\n[director]\ncolour = \"red\"\n")),
            ("an unknown scheduler", format!("{site}\n{service}scheduler = \"best\"\n")),
            ("a wrong address", format!("{site}\n[[service]]\naddress = \"10.1.0.300:80\"\n")),
            (
                "an unknown method",
                format!("{site}\n{service}[[service.server]]\naddress = \"10.2.0.11:80\"\nmethod = \"fly\"\n"),
            ),
            (
                "NAT between families",
                format!("{site}\n{service}[[service.server]]\naddress = \"[fd00:2::11]:80\"\nmethod = \"nat\"\n"),
            ),
            ("a service twice", format!("{site}\n{service}\n{service}")),
            (
                "a weight below zero",
                format!("{site}\n{service}[[service.server]]\naddress = \"10.2.0.11:80\"\nweight = -1\n"),
            ),
        ];
        let mut cases = Cases::new();
        let mut codes = BTreeMap::new();
        for (what, text) in &wrong {
            cases.case(what, || {
                let checked = one_line(&director.check(text)?)?;
                let run = one_line(&director.run_refused(text)?)?;
                ensure!(checked == run, "`check` says {checked} and `run` says {run}");
                ensure!(!director.control().exists(), "a refused director leaves no socket");
                codes.insert("the document is wrong", run);
                Ok(())
            });
        }
        cases.case("an interface that does not exist", || {
            let text = "[[interface]]\nname = \"eth77\"\n";
            codes.insert("the machine is not as the document says", one_line(&director.run_refused(text)?)?);
            Ok(())
        });
        cases.case("a file that does not exist", || {
            codes.insert("no document", one_line(&director.xvs(&["check", "/nonexistent.toml"])?)?);
            Ok(())
        });
        cases.case("nobody listens", || {
            codes.insert("no director", one_line(&director.xvs(&["status"])?)?);
            Ok(())
        });
        cases.case("more queues than the interface has", || {
            let text = "[[interface]]\nname = \"eth0\"\nqueues = 77\n";
            codes.insert("the interface has other queues", one_line(&director.run_refused(text)?)?);
            Ok(())
        });
        cases.case("an unknown command", || {
            let refused = director.xvs(&["dance"])?;
            ensure!(refused.code.is_some_and(|code| code != 0 && code != 101), "it was refused: {}", refused.outcome());
            Ok(())
        });
        cases.case("kinds have different exit codes", || {
            let mut seen: Vec<_> = codes.values().collect();
            seen.sort();
            seen.dedup();
            ensure!(seen.len() == codes.len(), "exit codes do not tell kinds apart: {codes:?}");
            Ok(())
        });
        cases.finish()
    })
}

#[test]
fn refused_rules_change_nothing() -> Outcome {
    story(
        "a rule that is wrong, or that this version does not serve, is refused in one line and leaves no trace",
        || {
            let lab = Lab::two_arm(1)?;
            let ds = lab.director().start(&lab.director().site())?;
            let service = web(&lab).server(rip(&lab, 1), Method::Nat, "");
            service.add(&ds)?;
            let key = service.key();
            let before = ds.xvsadm("-L -n")?;
            let mut cases = Cases::new();
            for line in [
                format!("-A {key} -s rr"),
                "-A -t 10.1.0.101:80 -s best".to_owned(),
                "-A -t 10.1.0.300:80 -s rr".to_owned(),
                "-D -t 10.1.0.101:80".to_owned(),
                format!("-a {key} -r {} -m", rip(&lab, 1)),
                format!("-a {key} -r [fd00:2::11]:80 -m"),
                format!("-e {key} -r 10.2.0.99:80 -m -w 1"),
                format!("-d {key} -r 10.2.0.99:80"),
            ] {
                cases.case(&format!("xvsadm {line}"), || {
                    one_line(&ds.try_xvsadm(&line)?)?;
                    ensure!(ds.xvsadm("-L -n")? == before, "a refused change left a trace");
                    Ok(())
                });
            }
            cases.finish()
        },
    )
}
