//! Servers that are full, gone, or not there at all, seen from their clients.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xvs_tests::{
    Answers, Cases, Client, Expected, Family, Lab, Method, Outcome, Plan, Row, Running, Service, story, wait_until,
};

/// What must happen does so within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(15);

/// How a client's kernel calls "port unreachable", after what was tried.
const CONNECT_REFUSED: &str = "connect: Connection refused (os error 111)";
const RECEIVE_REFUSED: &str = "receive: Connection refused (os error 111)";

/// How a client's kernel calls a reset.
const RECEIVE_RESET: &str = "receive: Connection reset by peer (os error 104)";

/// Demands that all requests failed, so many, and for this reason.
fn refused(answers: &Answers, count: u64, why: &str) -> Result<()> {
    ensure!(
        answers.total() == 0 && answers.failures.len() == 1 && answers.failures.get(why) == Some(&count),
        "{count} refusals by `{why}` were due: {answers}"
    );
    Ok(())
}

/// Active and inactive connections of the only server that `xvsadm -L -n` lists.
fn load_of_the_server(ds: &Running) -> Result<(u64, u64)> {
    let listed = ds.xvsadm("-L -n")?;
    let server = listed.lines().skip(3).find_map(|line| line.trim().strip_prefix("-> ")).context("no server")?;
    let words: Vec<_> = server.split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    number(3).zip(number(4)).with_context(|| format!("not understood: `{server}`"))
}

/// Waits until the server has so many connections, active or not.
fn wait_for_load(ds: &Running, total: u64) -> Result<()> {
    let has = |(active, inactive): (u64, u64)| active + inactive == total;
    wait_until(&format!("{total} connections"), LIMIT, || load_of_the_server(ds).is_ok_and(has))
}

fn drops_exactly<T>(ds: &Running, expected: &[(&str, i64)], steps: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = ds.drops()?;
    let value = steps()?;
    before.moved(&ds.drops()?).exactly(expected)?;
    Ok(value)
}

/// One connection is let in, or turned away with one packet.
fn door(ds: &Running, client: &Client, to: SocketAddr, open: bool) -> Result<()> {
    let expected: &[_] = if open { &[] } else { &[("no_server", 1)] };
    let answers = drops_exactly(ds, expected, || client.hold(to, 1))?;
    if open { answers.are_even(&["rs1"], 1) } else { refused(&answers, 1, CONNECT_REFUSED) }
}

#[test]
fn thresholds_close_and_open_the_door() -> Outcome {
    story("a server at its upper threshold gets no new connection until it has fewer than its lower one", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        // A connection that its client closed is forgotten after a second; by DR the server's side is not seen.
        ds.xvsadm("--set 0 1 0")?;
        let mut cases = Cases::new();
        // Upper and lower threshold, with how many connections the door opens again, and where the rule is from.
        for (number, (words, upper, opens)) in
            [("-x 4", 4, 2), ("-x 4 -y 2", 4, 1), ("-x 1", 1, 0), ("-x 3", 3, 2)].into_iter().enumerate()
        {
            cases.case(&format!("{words}: closes with {upper}, opens with {opens}"), || {
                let to = lab.vip(number).socket(Family::V4, 80);
                let rip = lab.server(1).address().socket(Family::V4, 80);
                let service = Service::tcp(to).server(rip, Method::Dr, words);
                service.during(&ds, || {
                    let mut held = Vec::new();
                    for _ in 0..upper {
                        let mut one = lab.client().keep_connections(to, 1)?;
                        one.wait_for(1, LIMIT)?;
                        held.push(one);
                    }
                    ensure!(load_of_the_server(&ds)? == (upper, 0), "{upper} connections are active");
                    let told = ds.xvsadm("-L -n --thresholds")?;
                    ensure!(told.contains(&format!(" {upper} ")), "the listing has the threshold: {told}");
                    door(&ds, lab.client(), to, false)?;
                    for left in (opens..upper).rev() {
                        let closed = held.pop().context("a connection")?;
                        closed.stop()?.all_answered()?;
                        wait_for_load(&ds, left)?;
                        let open = left == opens;
                        door(&ds, lab.client(), to, open).with_context(|| format!("with {left} connections"))?;
                    }
                    // What is still held was never touched.
                    for one in &mut held {
                        one.wait_for(1, LIMIT)?;
                    }
                    held.into_iter().try_for_each(|one| one.stop()?.all_answered())
                })
            });
        }
        cases.finish()
    })
}

/// SYNs that this client's kernel had to send again.
fn repeated_syns(client: &Client) -> Result<u64> {
    client.namespace().kernel_counter("TcpExt", "TCPSynRetrans")
}

#[test]
fn a_removed_server_comes_back() -> Outcome {
    story(
        "connections of a removed server stand still, counted as `server_gone`, and go on when it is back; new ones \
         never wait, not even from the ports of those",
        || {
            let lab = Plan::two_arm().servers(2).clients(3).build()?;
            let ds = lab.director().start(&lab.director().site())?;
            let slow = lab.directory().join("files/slow");
            std::fs::write(&slow, (0..8_000_000u32).map(|at| (at / 3 % 251) as u8).collect::<Vec<_>>())?;
            let direct = xvs_tests::run("sha256sum", &[&slow])?.ok()?;
            let sum = direct.split_whitespace().next().unwrap_or_default();
            let [transferring, fresh, returning] = lab.clients() else { anyhow::bail!("three clients") };
            returning.namespace().sysctl(&[("net/ipv4/ip_local_port_range", "'40000 40063'")])?;
            let mut cases = Cases::new();
            for (number, method) in Method::ALL.into_iter().enumerate() {
                cases.case(method.name(), || {
                    let to = lab.vip(number).socket(Family::V4, 80);
                    let [rip, other] = [1, 2].map(|number| lab.server(number).address().socket(Family::V4, 80));
                    let service = Service::tcp(to).server(rip, method, "");
                    service.during(&ds, || {
                        let syns = [repeated_syns(fresh)?, repeated_syns(returning)?];
                        let before = ds.drops()?;
                        let gone = || Ok::<_, anyhow::Error>(before.moved(&ds.drops()?).by("server_gone"));
                        // Half of the ports of this client are known to the director, as connections to the server.
                        returning.hold(to, 16)?.are_even(&["rs1"], 16)?;
                        std::thread::scope(|scope| {
                            let transfer = scope.spawn(|| transferring.download(&format!("http://{to}/slow/slow")));
                            let running = || {
                                let own = format!("{}:", transferring.address().v4);
                                let is = |row: &Row| row.client.starts_with(&own) && row.service == to.to_string();
                                let rows = ds.connections().unwrap_or_default();
                                rows.iter().any(|row| is(row) && row.state == "ESTABLISHED")
                            };
                            wait_until("the transfer", LIMIT, running)?;
                            ds.xvsadm(&format!("-a {} -r {other} {}", service.key(), method.flag()))?;
                            ds.xvsadm(&format!("-d {} -r {rip}", service.key()))?;
                            wait_until("a dropped packet of the transfer", LIMIT, || {
                                gone().is_ok_and(|count| count > 0)
                            })?;
                            fresh.curl_n(&format!("http://{to}/"), 20)?.are_even(&["rs2"], 20)?;
                            // More connections than ports are free: old ones are met.
                            returning.hold(to, 16)?.are_even(&["rs2"], 16)?;
                            returning.hold(to, 16)?.are_even(&["rs2"], 16)?;
                            ensure!(!transfer.is_finished(), "the transfer ended while its server was gone");
                            ds.xvsadm(&format!("-a {} -r {rip} {}", service.key(), method.flag()))?;
                            let came = transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))??;
                            ensure!(came == sum, "the transfer was changed on its way");
                            Ok(())
                        })?;
                        let later = [repeated_syns(fresh)?, repeated_syns(returning)?];
                        ensure!(later == syns, "new connections waited: SYNs were sent again, {syns:?} then {later:?}");
                        let moved = before.moved(&ds.drops()?);
                        ensure!(moved.by("server_gone") > 0, "packets were dropped: {moved}");
                        moved.without("server_gone").exactly::<&str>(&[])
                    })
                });
            }
            cases.finish()
        },
    )
}

#[test]
fn clients_of_a_removed_server_may_be_told() -> Outcome {
    story(
        "with `expire_nodest_conn` a connection of a removed server is reset at once, and the next one is served",
        || {
            const KEPT: u64 = 5;
            let lab = Lab::two_arm(2)?;
            let ds = lab.director().start(&lab.director().site())?;
            ds.xvs(&["sysctl", "set", "expire_nodest_conn=1"])?;
            let mut cases = Cases::new();
            for (number, method) in Method::ALL.into_iter().enumerate() {
                cases.case(method.name(), || {
                    let to = lab.vip(number).socket(Family::V4, 80);
                    let [rip, other] = [1, 2].map(|number| lab.server(number).address().socket(Family::V4, 80));
                    let service = Service::tcp(to).server(rip, method, "");
                    service.add(&ds)?;
                    let mut kept = lab.client().keep_connections(to, KEPT as usize)?;
                    kept.wait_for(2 * KEPT, LIMIT)?.are(&[("rs1", Expected::Between(2 * KEPT, u64::MAX))])?;
                    let before = ds.drops()?;
                    ds.xvsadm(&format!("-a {} -r {other} {}", service.key(), method.flag()))?;
                    ds.xvsadm(&format!("-d {} -r {rip}", service.key()))?;
                    wait_until("rs2 answering", LIMIT, || {
                        kept.so_far().is_ok_and(|answers| answers.share("rs2") >= 2 * KEPT)
                    })?;
                    let answers = kept.stop()?;
                    let reset = answers.failures.get(RECEIVE_RESET).copied().unwrap_or(0);
                    let all = answers.failed_total();
                    ensure!(reset == KEPT && all == KEPT, "{KEPT} connections were reset: {answers}");
                    let moved = before.moved(&ds.drops()?);
                    ensure!(moved.by("no_connection_tcp") >= KEPT as i64, "a segment of each was: {moved}");
                    // rs1 never saw its last answers acknowledged. It sends them again, by NAT to the director, else to
                    // the client, who resets them: without a connection both, now or in the next case.
                    moved.without("no_connection_tcp").without("no_connection_reply").exactly::<&str>(&[])
                });
            }
            cases.finish()
        },
    )
}

#[test]
fn without_a_server_the_client_is_told() -> Outcome {
    story("a service without a usable server refuses at once: ECONNREFUSED by UDP and TCP, of both families", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        for family in Family::BOTH {
            for (number, what) in ["no server", "weight 0"].into_iter().enumerate() {
                cases.case(&format!("{what}, {}", family.name()), || {
                    let (web, names) = (lab.vip(number).socket(family, 80), lab.vip(number).socket(family, 5353));
                    let server = |port| lab.server(1).address().socket(family, port);
                    let mut services = [Service::tcp(web), Service::udp(names)];
                    if number == 1 {
                        let [tcp, udp] = services;
                        services = [
                            tcp.server(server(80), Method::Nat, "-w 0"),
                            udp.server(server(5353), Method::Nat, "-w 0"),
                        ];
                    }
                    services.iter().try_for_each(|service| service.add(&ds))?;
                    let before = (ds.counters()?, repeated_syns(lab.client())?);
                    refused(&lab.client().hold(web, 3)?, 3, CONNECT_REFUSED)?;
                    refused(&lab.client().udp(names, 2, 1, 100)?, 2, RECEIVE_REFUSED)?;
                    let moved = before.0.moved(&ds.counters()?);
                    moved.exactly(&[("drop no_server", 5)])?;
                    ensure!(repeated_syns(lab.client())? == before.1, "the clients were told after their first packet");
                    ensure!(ds.connections()?.is_empty(), "nothing was entered: {:?}", ds.connections()?);
                    services.iter().try_for_each(|service| service.remove(&ds))
                });
            }
        }
        cases.finish()
    })
}
