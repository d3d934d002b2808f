//! Firewall marks through the product: rules from a file and by command, several addresses and ports, and what stays the
//! kernel's.

use std::time::Duration;

use anyhow::{Context, ensure};
use xvs_tests::{Family, Lab, Method, Outcome, story};

/// The load must go on within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests of a case.
const CONNECTIONS: u64 = 20;

#[test]
fn a_mark_serves_what_its_rules_name_and_nothing_else() -> Outcome {
    story("one service of a mark serves several VIPs, ports and protocols; a deleted rule ends no connection", || {
        let lab = Lab::two_arm(2)?;
        let vip = |number: usize, port| lab.vip(number).socket(Family::V4, port);
        let mut site = lab.director().site();
        site += &format!("[[mark]]\nmark = 7\ndestination = \"{}\"\nports = \"80,8080\"\n", vip(0, 0).ip());
        site += &format!("[[mark]]\nmark = 7\ndestination = \"{}\"\n", vip(1, 0).ip());
        site += "[[service]]\nmark = 7\nscheduler = \"rr\"\n";
        let ds = lab.director().start(&site)?;
        for (number, method) in [(1, Method::Nat), (2, Method::Dr)] {
            let rip = lab.server(number).address().socket(Family::V4, 0);
            ds.xvsadm(&format!("-a -f 7 -r {rip} {}", method.flag()))?;
        }
        for to in [vip(0, 80), vip(0, 8080), vip(1, 8081)] {
            let answers = lab.client().curl_n(&format!("http://{to}/"), CONNECTIONS as usize)?;
            answers.are_even(&["rs1", "rs2"], CONNECTIONS / 2).with_context(|| to.to_string())?;
        }
        lab.client().udp(vip(1, 5353), 10, 2, 100)?.all_answered()?;
        // Not named by any rule: the kernel refuses at once.
        for to in [vip(0, 8081), vip(2, 80)] {
            let answers = lab.client().curl_n(&format!("http://{to}/"), 1)?;
            ensure!(answers.total() == 0, "{to} is the kernel's: {answers}");
        }

        // The rule goes while connections that it brought are open.
        let mut kept = lab.client().keep_connections(vip(1, 80), 10)?;
        kept.wait_for(20, LIMIT)?;
        let first = vip(1, 0).ip().to_string();
        ds.xvs(&["mark", "delete", "7", "--to", &first])?;
        let listed = ds.xvs(&["mark", "list"])?;
        ensure!(!listed.contains(&first) && listed.contains("80,8080"), "{listed}");
        let before = kept.so_far()?;
        let later = kept.wait_for(100, LIMIT)?.since(&before);
        later.all_answered()?;
        kept.stop()?.all_answered()?;

        ds.xvs(&["mark", "add", "9", "--to", &vip(2, 0).ip().to_string(), "--protocol", "tcp", "--ports", "80"])?;
        let told = ds.xvs(&["explain", "tcp", "198.51.100.7:1000", &vip(2, 80).to_string()])?;
        ensure!(told.contains("mark: 9 by rule 2") && told.contains("no service has this mark"), "{told}");
        ds.xvsadm("-A -f 9 -s rr")?;
        ds.xvsadm(&format!("-a -f 9 -r {} -m", lab.server(1).address().socket(Family::V4, 8080)))?;
        lab.client().curl_n(&format!("http://{}/", vip(2, 80)), 5)?.are_even(&["rs1"], 5)?;
        ds.terminate()?;
        Ok(())
    })
}
