//! A storm of changes while requests run: what a change does not concern must not notice it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xvs_tests::{Family, Lab, Method, Outcome, Running, Service, story};

/// How many changes make a storm, and the time for one: fifty a second, if the machine keeps up.
const CHANGES: u32 = 400;
const PACE: Duration = Duration::from_millis(20);

/// Changes elsewhere, one after the other, for ever: services come and go, servers are added, edited, drained, removed.
fn gusts(lab: &Lab) -> impl Iterator<Item = String> {
    let other = Service::tcp(lab.vip(1).socket(Family::V4, 80)).scheduler("wlc");
    let six = Service::udp(lab.vip(1).socket(Family::V6, 5353));
    let (rs3, rs4) = (lab.server(3).address(), lab.server(4).address());
    let (rs3, rs4) = (rs3.socket(Family::V4, 80), rs4.socket(Family::V4, 80));
    let rs4_six = lab.server(4).address().socket(Family::V6, 5353);
    let (key, key_six) = (other.key(), six.key());
    let round = [
        format!("-A {key} -s wlc"),
        format!("-a {key} -r {rs3} -m -w 1"),
        format!("-A {key_six} -s rr"),
        format!("-a {key} -r {rs4} -g -w 5"),
        format!("-e {key} -r {rs3} -m -w 7"),
        format!("-a {key_six} -r {rs4_six} -m"),
        format!("-E {key} -s wrr"),
        format!("-e {key} -r {rs4} -g -w 0"),
        format!("-d {key} -r {rs4}"),
        format!("-E {key} -s lc"),
        format!("-d {key_six} -r {rs4_six}"),
        format!("-D {key_six}"),
        format!("-e {key} -r {rs3} -i -w 0"),
        format!("-D {key}"),
    ];
    round.into_iter().cycle()
}

/// One change to the service under load: weights of its two servers go up and down, but not to 0.
fn breeze(service: &Service, lab: &Lab, turn: usize) -> String {
    let server = lab.server(1 + turn % 2).address().socket(Family::V4, 80);
    format!("-e {} -r {server} -m -w {}", service.key(), 1 + turn % 4)
}

fn blow(lab: &Lab, ds: &Running, service: &Service) -> Result<()> {
    let (started, mut gusts) = (Instant::now(), gusts(lab));
    for number in 0..CHANGES {
        let line = match number % 5 {
            4 => breeze(service, lab, number as usize / 5),
            _ => gusts.next().unwrap_or_default(),
        };
        ds.xvsadm(&line)?;
        std::thread::sleep((started + PACE * number).saturating_duration_since(Instant::now()));
    }
    println!("  {CHANGES} changes in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

#[test]
fn no_request_fails_on_servers_that_no_change_concerns() -> Outcome {
    story("fifty changes a second cost no request, fresh or on an old connection, on unaffected servers", || {
        let lab = Lab::two_arm(4)?;
        let ds = lab.director().start(&lab.director().site())?;
        let service = Service::tcp(lab.vip(0).socket(Family::V4, 80))
            .scheduler("wrr")
            .server(lab.server(1).address().socket(Family::V4, 80), Method::Nat, "")
            .server(lab.server(2).address().socket(Family::V4, 80), Method::Nat, "");
        let six = Service::tcp(lab.vip(2).socket(Family::V6, 80));
        let six = six.server(lab.server(3).address().socket(Family::V6, 80), Method::Tun, "");
        service.add(&ds)?;
        six.add(&ds)?;
        let fresh = lab.client().keep_asking(service.address(), 4)?;
        let kept = lab.client().keep_connections(service.address(), 20)?;
        let fresh_six = lab.client().keep_asking(six.address(), 2)?;
        let drops = ds.drops()?;
        blow(&lab, &ds, &service)?;
        for load in [fresh, kept, fresh_six] {
            let answers = load.stop()?;
            println!("  {answers}");
            answers.all_answered()?;
            ensure!(answers.total() > 100, "the load went on all the time");
        }
        drops.moved(&ds.drops()?).exactly::<&str>(&[])
    })
}
