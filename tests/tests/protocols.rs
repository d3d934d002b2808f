//! Protocols with habits of their own: DNS without connections, file transfers with several, and SCTP.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xvs_tests::{Cases, FILES_PORTS, Family, Lab, Method, Outcome, Plan, Row, Running, Service, skipped, story};

const UDP_HEADER_LEN: i64 = 8;

#[test]
fn dns_by_one_packet_scheduling() -> Outcome {
    story(
        "with -o every question to dnsmasq is scheduled by itself, from one port of the client too, and none remembered",
        || {
            const ASKS: usize = 40;
            let lab = Lab::two_arm(2)?;
            let name = "who.lab";
            let _dns = [1, 2].map(|number| lab.server(number).dnsmasq(name));
            for server in &_dns {
                ensure!(server.is_ok(), "{server:?}");
            }
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            for (number, family) in Family::BOTH.into_iter().enumerate() {
                let service = Service::udp(lab.vip(number).socket(family, 53));
                // Header, the name with its labels' lengths, type and class.
                let len = family.header_len() as i64 + UDP_HEADER_LEN + 12 + (name.len() as i64 + 2) + 4;
                cases.case(&format!("with -o, {}", family.name()), || {
                    let service = service.clone().scheduler("rr -o").all_servers(&lab, family, 53, Method::Dr);
                    service.during(&ds, || {
                        let before = ds.counters()?;
                        let answers = lab.client().dns(service.address(), name, ASKS)?;
                        answers.are_even(&["rs1", "rs2"], ASKS as u64 / 2)?;
                        let moved = before.moved(&ds.counters()?);
                        let asks = ASKS as i64;
                        moved.exactly(&service.movement(asks, (asks, asks * len), (0, 0)))?;
                        let own = service.address().to_string();
                        let rows = ds.connections()?;
                        ensure!(rows.iter().all(|row| row.service != own), "nothing is remembered: {rows:?}");
                        Ok(())
                    })
                });
                cases.case(&format!("without it, {}", family.name()), || {
                    let service = service.clone().all_servers(&lab, family, 53, Method::Dr);
                    service.during(&ds, || {
                        let answers = lab.client().dns(service.address(), name, ASKS)?;
                        answers.all_answered()?;
                        ensure!(answers.from.len() == 1, "one port is one connection: {answers}");
                        let own = service.address().to_string();
                        let rows: Vec<_> = ds.connections()?.into_iter().filter(|row| row.service == own).collect();
                        ensure!(rows.len() == 1, "one is remembered: {rows:?}");
                        Ok(())
                    })
                });
            }
            cases.finish()
        },
    )
}

/// Where the service of file transfers is, and its first port at real servers.
const FTP: u16 = FILES_PORTS[0];

/// Transfers over one control connection, and the size of each.
const TRANSFERS: usize = 4;
const SIZE: usize = 300_000;

/// Transfers from two clients, each with a server of its own, with all connections counted and nothing dropped.
fn transfers(lab: &Lab, ds: &Running, service: &Service, active: bool) -> Result<()> {
    let before = ds.counters()?;
    let mut takers = Vec::new();
    for client in lab.clients() {
        // The control connection goes to the same port, whatever the service's.
        let to = SocketAddr::new(service.address().ip(), FTP);
        let answers = client.files(to, TRANSFERS, SIZE, active)?;
        answers.all_answered()?;
        takers.extend(answers.from.into_iter().filter(|(_, count)| *count == TRANSFERS as u64));
    }
    let mut servers: Vec<_> = takers.iter().map(|(name, _)| name.as_str()).collect();
    servers.sort_unstable();
    ensure!(servers == ["rs1", "rs2"], "each client has a server of its own: {servers:?}");
    let moved = before.moved(&ds.counters()?);
    // A control connection and the data connections, from each of two clients.
    let conns = 2 * (1 + TRANSFERS as i64);
    let counted = moved.by(&format!("{} conns", service.listed()));
    ensure!(counted == conns, "{conns} connections were counted: {moved}");
    moved.without("TCP ").without("FWM ").exactly::<&str>(&[])
}

#[test]
fn file_transfers_as_ftp_makes_them() -> Outcome {
    story(
        "data connections reach the server that has the control connection, opened by either side, also if NAT maps \
         the control port",
        || {
            let lab = Plan::two_arm().servers(2).clients(2).build()?;
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            let all = Family::BOTH.into_iter().flat_map(|family| {
                [
                    (family, "port 21", Method::Dr, (FTP, FTP), false),
                    (family, "port 21, active", Method::Dr, (FTP, FTP), true),
                    (family, "port 21 to 2121", Method::Nat, (FTP, FILES_PORTS[1]), false),
                    (family, "all ports", Method::Nat, (0, 0), false),
                    (family, "all ports", Method::Dr, (0, 0), false),
                ]
            });
            // Services stay until the end, so that late packets of a case are not dropped in the next.
            for (number, (family, what, method, (port, own), active)) in all.enumerate() {
                cases.case(&format!("{what}, {} {}", method.name(), family.name()), || {
                    let service = Service::tcp(lab.vip(number % 5).socket(family, port)).scheduler("rr -p 60");
                    let service = service.all_servers(&lab, family, own, method);
                    service.add(&ds)?;
                    transfers(&lab, &ds, &service, active)
                });
            }
            for (number, family) in Family::BOTH.into_iter().enumerate() {
                cases.case(&format!("a mark, NAT {}", family.name()), || {
                    let mark = 21 + number as u32;
                    let service = Service::mark(mark, lab.vip(5 + number).socket(family, 0)).scheduler("rr -p 60");
                    let service = service.all_servers(&lab, family, 0, Method::Nat);
                    let to = service.address().ip().to_string();
                    ds.xvs(&["mark", "add", &mark.to_string(), "--to", &to, "--protocol", "tcp"])?;
                    service.add(&ds)?;
                    transfers(&lab, &ds, &service, false)
                });
            }
            cases.finish()
        },
    )
}

/// Associations of a case.
const ASSOCIATIONS: usize = 4;

/// The client's first port in every case: to servers behind NAT each case opens the associations of another one again.
const FIRST_PORT: u16 = 23000;

/// Lengths of the packets of one association, without IP headers: INIT, COOKIE ECHO, DATA, SACK; and INIT ACK, COOKIE
/// ACK, SACK with DATA. Closing takes SHUTDOWN and SHUTDOWN COMPLETE one way, SHUTDOWN ACK the other.
const OPENING: [&[i64]; 2] = [&[32, 24, 40, 28], &[44, 16, 60]];
const CLOSING: [&[i64]; 2] = [&[20, 16], &[16]];

/// Packets and bytes of all associations, in one direction.
fn amount(parts: &[&[i64]], family: Family) -> (i64, i64) {
    let lengths = || parts.iter().flat_map(|part| part.iter());
    let bytes: i64 = lengths().map(|len| len + family.header_len() as i64).sum();
    let count = ASSOCIATIONS as i64;
    (count * lengths().count() as i64, count * bytes)
}

#[test]
fn sctp_associations() -> Outcome {
    let guards =
        "SCTP associations are opened, used and closed through NAT with another port and DR, their states told";
    if Path::new("/proc/sys/net/sctp").exists() {
        skipped(guards, "this kernel's own SCTP would abort the associations of the lab's peers; unload it.");
        return Ok(());
    }
    story(guards, || {
        let lab = Lab::two_arm(2)?;
        let ds = lab.director().start(&lab.director().site())?;
        let mut cases = Cases::new();
        let kinds = Family::BOTH.into_iter().flat_map(|family| {
            [(family, Method::Nat, 3869, 0), (family, Method::Nat, 3868, 1), (family, Method::Dr, 3868, 2)]
        });
        for (family, method, port, number) in kinds {
            for closed in [false, true] {
                let what = if closed { "opened and closed" } else { "opened" };
                cases.case(&format!("{what}, {} to {port}, {}", method.name(), family.name()), || {
                    let service = Service::sctp(lab.vip(number + 3 * usize::from(closed)).socket(family, 3868));
                    let service = service.all_servers(&lab, family, port, method);
                    service.add(&ds)?;
                    let before = ds.counters()?;
                    let answers = lab.client().sctp(service.address(), FIRST_PORT, ASSOCIATIONS, closed)?;
                    answers.are_even(&["rs1", "rs2"], ASSOCIATIONS as u64 / 2)?;
                    let moved = before.moved(&ds.counters()?);
                    let [inbound, outbound] = [0, 1].map(|direction| {
                        let parts = [OPENING[direction], CLOSING[direction]];
                        amount(&parts[..1 + usize::from(closed)], family)
                    });
                    let outbound = if method.sees_replies() { outbound } else { (0, 0) };
                    moved.exactly(&service.movement(ASSOCIATIONS as i64, inbound, outbound))?;
                    states(&ds.connections()?, &service, if closed { "CLOSED" } else { "ESTABLISHED" })
                });
            }
        }
        cases.finish()
    })
}

/// Demands that all associations of the service are in this state.
fn states(rows: &[Row], service: &Service, state: &str) -> Result<()> {
    let own = service.address().to_string();
    let own: Vec<_> = rows.iter().filter(|row| row.service == own).collect();
    ensure!(own.len() == ASSOCIATIONS, "{ASSOCIATIONS} associations are remembered: {own:?}");
    let other = own.iter().find(|row| row.protocol != "SCTP" || row.state != state);
    other.map_or(Ok(()), |row| Err(anyhow::anyhow!("{row:?}"))).context("an association in another state")
}
