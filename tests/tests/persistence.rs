//! Persistence through the product: clients that stay with their servers, over ports, queues and drains, and for how long.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xvs_tests::{
    Answers, Cases, Family, HTTP_PORTS, Lab, Method, Outcome, Plan, Row, Running, Service, story, wait_until,
};

/// What must happen does so within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(15);

/// Connections of a client to each port.
const CONNECTIONS: usize = 20;

/// The only server that answered.
fn only_one(answers: &Answers) -> Result<String> {
    answers.all_answered()?;
    let mut servers = answers.from.keys();
    match (servers.next(), servers.next()) {
        (Some(server), None) => Ok(server.clone()),
        _ => anyhow::bail!("one server answers all: {answers}"),
    }
}

/// Who answers this client, whatever the port.
fn server_of(lab: &Lab, client: usize, vip: (usize, Family), ports: &[u16]) -> Result<String> {
    let mut answers = Answers::default();
    for port in ports {
        let to = lab.vip(vip.0).socket(vip.1, *port);
        answers.merge(&lab.clients()[client].hold(to, CONNECTIONS)?);
    }
    only_one(&answers)
}

fn templates(ds: &Running) -> Result<Vec<Row>> {
    Ok(ds.connections()?.into_iter().filter(Row::is_template).collect())
}

/// Templates of each server, by its address and port, in the column of `xvsadm -L -n --persistent-conn`.
fn persistent(ds: &Running) -> Result<Vec<(String, u64)>> {
    let listed = ds.xvsadm("-L -n --persistent-conn")?;
    let servers = listed.lines().skip(3).filter_map(|line| line.trim().strip_prefix("-> "));
    let column = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        Some((words.first()?.to_string(), words.get(2)?.parse().ok()?))
    };
    servers.map(|line| column(line).with_context(|| format!("not understood: `{line}`"))).collect()
}

#[test]
fn a_client_stays_with_its_server_over_ports_and_queues() -> Outcome {
    story("a service of all ports sends all connections of a client to one server, on the port that was asked", || {
        let lab = Plan::two_arm().servers(4).clients(2).queues(2).build()?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        let kinds =
            [Method::Nat, Method::Dr].into_iter().flat_map(|method| Family::BOTH.map(|family| (method, family)));
        for (number, (method, family)) in kinds.enumerate() {
            cases.case(&format!("{} {}", method.name(), family.name()), || {
                let service = Service::tcp(lab.vip(number).socket(family, 0)).scheduler("rr -p 60");
                let service = service.all_servers(&lab, family, 0, method);
                service.during(&ds, || {
                    let before = ds.counters()?;
                    let served = [0, 1].map(|client| server_of(&lab, client, (number, family), HTTP_PORTS));
                    let [first, second] = served;
                    let (first, second) = (first?, second?);
                    ensure!(first != second, "rr sends the second client elsewhere: both are with {first}");
                    let moved = before.moved(&ds.counters()?);
                    let conns = (HTTP_PORTS.len() * CONNECTIONS) as i64;
                    let of = |name: &str| {
                        let server = lab.servers().iter().find(|server| server.name() == name);
                        server.map(|server| server.address().socket(family, 0).to_string())
                    };
                    let (first, second) = (of(&first).context("no server")?, of(&second).context("no server")?);
                    for (server, wanted) in [(&first, conns), (&second, conns)] {
                        let got = moved.by(&format!("{} > {server} conns", service.listed()));
                        ensure!(got == wanted, "{server} got {got} connections: {moved}");
                    }
                    ensure!(moved.by(&format!("{} conns", service.listed())) == 2 * conns, "no others: {moved}");
                    moved.without("TCP ").exactly::<&str>(&[])?;
                    for (client, server) in lab.clients().iter().zip([&first, &second]) {
                        let client = match family {
                            Family::V4 => format!("{}:0", client.address().v4),
                            Family::V6 => format!("[{}]:0", client.address().v6),
                        };
                        let rows = templates(&ds)?;
                        let service = service.address().to_string();
                        let own: Vec<_> =
                            rows.iter().filter(|row| row.client == client && row.service == service).collect();
                        let fits = |row: &Row| {
                            row.protocol == "TCP"
                                && row.state == "ASSURED"
                                && row.server == *server
                                && row.expires.as_secs() <= 60
                        };
                        ensure!(own.len() == 1 && fits(own[0]), "{client} has one template, to {server}: {rows:?}");
                    }
                    for (server, count) in persistent(&ds)? {
                        let wanted = u64::from(server == first || server == second);
                        ensure!(count == wanted, "{server} has {count} templates and not {wanted}");
                    }
                    Ok(())
                })
            });
        }
        cases.case("over both queues of both interfaces", || {
            for interface in lab.director().interfaces() {
                let packets = lab.director().packets_by_queue(interface)?;
                ensure!(packets.len() == 2, "{interface} has two queues: {packets:?}");
                ensure!(packets.iter().all(|count| *count > 100), "{interface} used both: {packets:?}");
            }
            Ok(())
        });
        cases.finish()
    })
}

#[test]
fn a_mask_makes_neighbours_one_client() -> Outcome {
    story("with a mask, clients of one network share a server and a template, and others have their own", || {
        let lab = Plan::two_arm().servers(3).clients(3).build()?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        // The clients' addresses end in 2, 3 and 4.
        for (family, mask) in [(Family::V4, "255.255.255.254"), (Family::V6, "127")] {
            cases.case(family.name(), || {
                let service = Service::tcp(lab.vip(0).socket(family, 80)).scheduler(&format!("rr -p 60 -M {mask}"));
                service.all_servers(&lab, family, 80, Method::Nat).during(&ds, || {
                    let known = templates(&ds)?.len();
                    let served: Result<Vec<_>> =
                        (0..3).map(|client| server_of(&lab, client, (0, family), &[80])).collect();
                    let served = served?;
                    ensure!(served[0] == served[1] && served[1] != served[2], "clients are served by {served:?}");
                    let rows = templates(&ds)?;
                    ensure!(rows.len() == known + 2, "two networks, two templates: {rows:?}");
                    Ok(())
                })
            });
        }
        cases.finish()
    })
}

#[test]
fn a_template_ends_with_its_timeout() -> Outcome {
    story("a client that was away for longer than the timeout is scheduled anew, and one that was not is not", || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&lab.director().site())?;
        // A flow outlives its last packet by one second, so that it does not keep the template.
        ds.xvsadm("--set 0 0 1")?;
        let mut cases = Cases::new();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            cases.case(family.name(), || {
                let service = Service::udp(lab.vip(number).socket(family, 5353)).scheduler("rr -p 4");
                let service = service.all_servers(&lab, family, 5353, Method::Nat);
                service.add(&ds)?;
                let ask = || only_one(&lab.client().udp(service.address(), 3, 1, 100)?);
                let first = ask()?;
                let again = ask()?;
                ensure!(again == first, "{again} answered within the timeout, and {first} before");
                ensure!(templates(&ds)?.len() == 1, "one template: {:?}", ds.connections()?);
                wait_until("the end of the template", LIMIT, || ds.connections().is_ok_and(|rows| rows.is_empty()))
                    .with_context(|| format!("{:?}", ds.connections()))?;
                let later = ask()?;
                ensure!(later != first, "after the timeout rr has its turn: {later} again");
                service.remove(&ds)?;
                wait_until("the end of the last one", LIMIT, || ds.connections().is_ok_and(|rows| rows.is_empty()))
            });
        }
        cases.finish()
    })
}

#[test]
fn a_drained_server_keeps_its_clients() -> Outcome {
    story(
        "weight 0 keeps connections and clients of a server, new clients go elsewhere, and `expire_quiescent_template` \
         lets the clients go too",
        || {
            let lab = Plan::two_arm().servers(2).clients(2).build()?;
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            for (number, method) in [Method::Nat, Method::Dr].into_iter().enumerate() {
                cases.case(method.name(), || {
                    ds.xvs(&["sysctl", "set", "expire_quiescent_template=0"])?;
                    let service = Service::tcp(lab.vip(number).socket(Family::V4, 80)).scheduler("rr -p 60");
                    let service = service.all_servers(&lab, Family::V4, 80, method);
                    service.add(&ds)?;
                    let before = ds.counters()?;
                    let mut kept = lab.client().keep_connections(service.address(), 5)?;
                    let old = only_one(&kept.wait_for(10, LIMIT)?)?;
                    let drained = lab.servers().iter().find(|server| server.name() == old).context("no server")?;
                    let drained = drained.address().socket(Family::V4, 80);
                    ds.xvsadm(&format!("-e {} -r {drained} {} -w 0", service.key(), method.flag()))?;
                    let asked = |client: usize| server_of(&lab, client, (number, Family::V4), &[80]);
                    let new = asked(1)?;
                    ensure!(new != old, "a new client goes elsewhere than to {old}");
                    let stays = asked(0)?;
                    ensure!(stays == old, "the client has a template to {old}, and {stays} answered");

                    ds.xvs(&["sysctl", "set", "expire_quiescent_template=1"])?;
                    let goes = asked(0)?;
                    ensure!(goes == new, "the template to {old} counts no more, and {goes} answered");
                    kept.wait_for(20, LIMIT)?;
                    ensure!(only_one(&kept.stop()?)? == old, "connections stay with {old}");
                    let moved = before.moved(&ds.counters()?);
                    let conns = moved.by(&format!("{} conns", service.listed()));
                    ensure!(conns == 5 + 3 * CONNECTIONS as i64, "all connections were counted: {moved}");
                    let conns = moved.by(&format!("{} > {drained} conns", service.listed()));
                    ensure!(conns == 5 + CONNECTIONS as i64, "those of {old} were: {moved}");
                    moved.without("TCP ").exactly::<&str>(&[])
                });
            }
            cases.finish()
        },
    )
}

#[test]
fn a_mark_is_one_service_for_its_clients() -> Outcome {
    story(
        "under a mark a client has one template for several VIPs, ports and protocols, and other clients have their own",
        || {
            const ASKS: usize = 10;
            let lab = Plan::two_arm().servers(2).clients(2).build()?;
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            let kinds =
                [Method::Nat, Method::Dr].into_iter().flat_map(|method| Family::BOTH.map(|family| (method, family)));
            for (number, (method, family)) in kinds.enumerate() {
                cases.case(&format!("{} {}", method.name(), family.name()), || {
                    let mark = 1 + number as u32;
                    let vips = [2 * number, 2 * number + 1].map(|number| lab.vip(number));
                    for vip in &vips {
                        let to = vip.of(family).to_string();
                        ds.xvs(&["mark", "add", &mark.to_string(), "--to", &to, "--ports", "80,8080,5353"])?;
                    }
                    let service = Service::mark(mark, vips[0].socket(family, 0)).scheduler("rr -p 60");
                    let service = service.all_servers(&lab, family, 0, method);
                    service.add(&ds)?;
                    let before = ds.counters()?;
                    let mut served = Vec::new();
                    for client in lab.clients() {
                        let mut answers = Answers::default();
                        for vip in &vips {
                            for port in [80, 8080] {
                                answers.merge(&client.hold(vip.socket(family, port), ASKS)?);
                            }
                            answers.merge(&client.udp(vip.socket(family, 5353), ASKS, 1, 100)?);
                        }
                        served.push(only_one(&answers)?);
                    }
                    ensure!(served[0] != served[1], "rr sends the second client elsewhere: {served:?}");
                    let moved = before.moved(&ds.counters()?);
                    let conns = moved.by(&format!("{} conns", service.listed()));
                    ensure!(conns == (2 * 2 * 3 * ASKS) as i64, "all connections were counted: {moved}");
                    moved.without("FWM ").exactly::<&str>(&[])?;
                    let rows = templates(&ds)?;
                    let own: Vec<_> = rows.iter().filter(|row| row.protocol == "IP").collect();
                    ensure!(own.len() == 2 * (1 + number), "one template for each client: {own:?}");
                    ensure!(own.iter().all(|row| row.state == "ASSURED"), "proven by answers: {own:?}");
                    Ok(())
                });
            }
            cases.finish()
        },
    )
}
