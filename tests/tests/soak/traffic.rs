//! The load: short connections, kept ones, large downloads and UDP, all at the same time, all counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Context, Result, ensure};
use xvs_tests::{Answers, Client, Load, Service};

use crate::site::Site;
use crate::storm::Blown;

/// Short requests that the torn service has in flight at the same time. A removal breaks so many at most.
const AT_TORN: usize = 2;

/// UDP: sockets of a run, and questions over each.
const UDP_SOCKETS: usize = 64;
const UDP_ASKS: usize = 20;

/// What a load is, for its report and its judge.
struct Part {
    what: &'static str,
    /// The service, as listings name it.
    service: String,
    /// Connections that stay open; none if each request has its own.
    kept: Option<u64>,
}

/// All loads that ask by themselves until they are stopped.
pub(crate) struct Traffic<'a> {
    client: &'a Client,
    site: &'a Site,
    loads: Vec<(Part, Load)>,
    sum: String,
}

/// Requests that we make ourselves, in a thread.
pub(crate) struct Stream<'scope> {
    part: Part,
    thread: ScopedJoinHandle<'scope, Result<Answers>>,
}

/// A load that has ended.
pub(crate) struct Ended {
    part: Part,
    answers: Answers,
}

/// All loads, ended.
pub(crate) struct Verdicts {
    ended: Vec<Ended>,
    torn: String,
}

impl<'a> Traffic<'a> {
    /// Starts them.
    pub(crate) fn start(client: &'a Client, site: &'a Site) -> Result<Self> {
        let part = |what, service: &Service, kept| Part { what, service: service.listed(), kept };
        let mut loads = Vec::new();
        for (what, steady, parallel) in [
            ("NAT, short", &site.nat, 8),
            ("DR, short", &site.dr, 3),
            ("TUN IPv6, short", &site.tun, 3),
            ("drained server, short", &site.drained, 3),
            ("torn server, short", &site.torn, AT_TORN),
        ] {
            let load = client.keep_asking(steady.service.address(), parallel)?;
            loads.push((part(what, &steady.service, None), load));
        }
        for (what, steady, count) in
            [("NAT, kept", &site.nat, 40), ("DR, kept", &site.dr, 10), ("TUN IPv6, kept", &site.tun, 10)]
        {
            let load = client.keep_connections(steady.service.address(), count)?;
            loads.push((part(what, &steady.service, Some(count as u64)), load));
        }
        // The sum of what is downloaded over and over; the first download is one of the connections.
        let sum = client.download(&large(site)).context("the first download")?;
        Ok(Traffic { client, site, loads, sum })
    }

    /// Starts those that are whole programs, one after the other: downloads and UDP.
    pub(crate) fn streams<'scope>(
        &'scope self,
        over: &'scope AtomicBool,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<Stream<'scope>> {
        let part = |what, service: &Service, kept| Part { what, service: service.listed(), kept };
        let downloads = scope.spawn(|| self.downloads(over));
        let udp = scope.spawn(|| self.udp(over));
        vec![
            Stream { part: part("NAT, 100 MB downloads", &self.site.nat.service, None), thread: downloads },
            Stream { part: part("UDP", &self.site.udp.service, None), thread: udp },
        ]
    }

    fn downloads(&self, over: &AtomicBool) -> Result<Answers> {
        // The first one was made at the start.
        let mut answers = Answers::default();
        answers.answered("intact");
        while !over.load(Ordering::Relaxed) {
            match self.client.download(&large(self.site)) {
                Ok(sum) if sum == self.sum => answers.answered("intact"),
                Ok(_) => answers.failed("what came was not what was sent"),
                Err(error) => answers.failed(format!("{error:#}")),
            }
        }
        Ok(answers)
    }

    fn udp(&self, over: &AtomicBool) -> Result<Answers> {
        let mut answers = Answers::default();
        while !over.load(Ordering::Relaxed) {
            answers.merge(&self.client.udp(self.site.udp.service.address(), UDP_SOCKETS, UDP_ASKS, 200)?);
        }
        Ok(answers)
    }

    /// Stops them, prints what each came to, and gives all of it, `streams` included.
    pub(crate) fn stop(self, streams: Vec<Ended>) -> Result<Verdicts> {
        let mut ended = Vec::new();
        for (part, load) in self.loads {
            let answers = load.stop().with_context(|| part.what.to_owned())?;
            ended.push(Ended { part, answers });
        }
        ended.extend(streams);
        for Ended { part, answers } in &ended {
            println!("  {:24} {answers}", part.what);
        }
        Ok(Verdicts { ended, torn: self.site.torn.service.listed() })
    }
}

fn large(site: &Site) -> String {
    format!("http://{}/files/large", site.nat.service.address())
}

impl Stream<'_> {
    /// Waits for its end.
    pub(crate) fn join(self) -> Result<Ended> {
        let joined = self.thread.join().map_err(|_| anyhow::anyhow!("{} panicked", self.part.what))?;
        Ok(Ended { answers: joined.with_context(|| self.part.what.to_owned())?, part: self.part })
    }
}

impl Verdicts {
    /// Every request was answered, but those in flight at a server that was torn away.
    pub(crate) fn judge(&self, blown: &Blown) -> Result<()> {
        for Ended { part, answers } in &self.ended {
            if part.service == self.torn {
                let (failed, most) = (answers.failed_total(), blown.torn * AT_TORN as u64);
                ensure!(failed <= most, "{}: {failed} failed, {most} could: {answers}", part.what);
                ensure!(answers.total() > 100, "{}: it went on all the time: {answers}", part.what);
            } else {
                answers.all_answered().with_context(|| part.what.to_owned())?;
            }
        }
        Ok(())
    }

    /// Connections that clients opened, by service; of UDP and of a service whose requests may fail, none.
    pub(crate) fn opened(&self) -> Vec<(String, u64)> {
        let mut sums: Vec<(String, u64)> = Vec::new();
        for Ended { part, answers } in &self.ended {
            if part.service == self.torn || part.service.starts_with("UDP") {
                continue;
            }
            let opened = part.kept.unwrap_or(answers.total() + answers.failed_total());
            match sums.iter_mut().find(|(service, _)| *service == part.service) {
                Some((_, sum)) => *sum += opened,
                None => sums.push((part.service.clone(), opened)),
            }
        }
        sums
    }
}
