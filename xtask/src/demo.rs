//! `cargo xtask demo`: the product at work in a minute, on this machine, in namespaces of its own.
//!
//! Every command is printed as one would type it. Every number is counted from real requests; a share that is not as
//! expected, or one failed request, makes the demonstration fail.
//!
//! Invariant: when it ends, by itself or by Ctrl-C, nothing is left, unless `--keep` was given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xvs_tests::{Answers, Family, Lab, Method, Plan, Running, Service};

use crate::cargo;
use crate::deps;
use crate::paint::{bad, good, title, typed};

/// Its namespaces are `xvs-demo-client`, `xvs-demo-director`, `xvs-demo-rs1` and so on.
const NAME: &str = "xvs-demo";

/// Requests for the shares of each service.
const REQUESTS: u64 = 40;

/// What a shell exits with after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Set once Ctrl-C was seen.
static INTERRUPT: AtomicBool = AtomicBool::new(false);

/// Requests under change must go on within this time.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn clean() -> Result<()> {
    println!("{} namespaces removed", xvs_tests::clean(NAME));
    Ok(())
}

pub(crate) fn run(keep: bool) -> Result<()> {
    ensure!(xvs_tests::is_root(), "network namespaces need root: type `sudo -E env PATH=$PATH cargo xtask demo`");
    deps::install()?;
    xvs_tests::use_binaries_in(&cargo::build_release()?);
    clean_up_when_interrupted()?;

    println!("\n{}", title("The laboratory: client -- director -- rs1 rs2 rs3 rs4, each in its own namespace"));
    let lab = Plan::two_arm().servers(4).named(NAME).build()?;
    println!(
        "client {}, director {} and {}, real servers {} to {}",
        lab.client().address().v4,
        lab.addresses().director_client_side().v4,
        lab.addresses().director_server_side().v4,
        lab.server(1).address().v4,
        lab.server(4).address().v4,
    );
    println!("{}", typed(format!("# xvs run --interface {}", lab.director().interfaces().join(" --interface "))));
    let ds = lab.director().start_bare()?;

    let demo = Demo { lab: &lab, ds: &ds };
    let shows = demo.shares().and_then(|()| demo.statistics()).and_then(|()| demo.changes_under_load());
    if let Err(error) = shows {
        while INTERRUPT.load(Ordering::Relaxed) {
            // The laboratory is being taken away under us; that thread ends the program.
            std::thread::park();
        }
        println!("{} {error:#}", bad("failed:"));
        println!("the director's log ends:\n{}", last_lines(&ds.log(), 15));
        bail!("the demonstration failed; once more with --keep leaves the laboratory standing");
    }
    if keep {
        print_what_to_type(&lab);
        ds.keep();
        lab.keep();
    }
    Ok(())
}

/// On Ctrl-C the namespaces go, with everything inside, and then this program.
fn clean_up_when_interrupted() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            INTERRUPT.store(true, Ordering::Relaxed);
            println!("\ninterrupted, cleaning up");
            xvs_tests::clean(NAME);
            // The other thread may have been about to make one more.
            xvs_tests::clean(NAME);
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}

/// The parts of the demonstration.
struct Demo<'a> {
    lab: &'a Lab,
    ds: &'a Running,
}

impl Demo<'_> {
    /// The VIP of each method's service.
    fn service(&self, method: Method) -> Service {
        let number = Method::ALL.iter().position(|other| *other == method).unwrap_or_default();
        Service::tcp(self.lab.vip(number).socket(Family::V4, 80))
    }

    fn rip(&self, number: usize) -> std::net::SocketAddr {
        self.lab.server(number).address().socket(Family::V4, 80)
    }

    fn xvsadm(&self, line: &str) -> Result<String> {
        println!("{}", typed(format!("# xvsadm {line}")));
        self.ds.xvsadm(line)
    }

    /// One service a method, each asked by curl, each with its shares beside the expected ones.
    fn shares(&self) -> Result<()> {
        let nat =
            (1..=4).fold(self.service(Method::Nat), |service, n| service.server(self.rip(n), Method::Nat, "-w 1"));
        let dr = self.service(Method::Dr).scheduler("wrr");
        let dr = (1..=4).fold(dr, |service, n| service.server(self.rip(n), Method::Dr, &format!("-w {n}")));
        let tun = self.service(Method::Tun);
        let tun = (1..=2).fold(tun, |service, n| service.server(self.rip(n), Method::Tun, "-w 1"));
        self.share("NAT, round robin over four servers", &nat, &[1, 1, 1, 1])?;
        self.share("DR, weighted round robin, weights 1 to 4", &dr, &[1, 2, 3, 4])?;
        self.share("TUN (IP in IP), round robin over two servers", &tun, &[1, 1])
    }

    fn share(&self, what: &str, service: &Service, weights: &[u64]) -> Result<()> {
        println!("\n{}", title(what));
        for line in service.lines() {
            self.xvsadm(&line)?;
        }
        let url = format!("http://{}/", service.address());
        println!("{}", typed(format!("$ curl {url}    ({REQUESTS} times, each over a new connection)")));
        let answers = self.lab.client().curl_n(&url, REQUESTS as usize)?;
        let mut wrong = 0;
        for (index, weight) in weights.iter().enumerate() {
            let name = self.lab.server(index + 1).name();
            let expected = REQUESTS * weight / weights.iter().sum::<u64>();
            let got = answers.share(name);
            wrong += u32::from(got != expected);
            let mark = if got == expected { good("as expected") } else { bad("NOT as expected") };
            println!("  {name} answered {got:3} times, expected {expected:3}  {mark}");
        }
        answers.all_answered()?;
        ensure!(wrong == 0, "{wrong} shares are not as expected");
        Ok(())
    }

    fn statistics(&self) -> Result<()> {
        println!("\n{}", title("What the director counted"));
        print!("{}", self.xvsadm("-L -n --stats")?);
        Ok(())
    }

    /// A drain and a hot added server while requests go on; every request counts.
    fn changes_under_load(&self) -> Result<()> {
        println!("\n{}", title("Changes while requests go on (a new connection each, four at a time)"));
        let (nat, tun) = (self.service(Method::Nat), self.service(Method::Tun));
        let mut at_nat = self.lab.client().keep_asking(nat.address(), 4)?;
        let mut at_tun = self.lab.client().keep_asking(tun.address(), 4)?;
        report("before", &at_nat.wait_for(200, LIMIT)?);

        self.xvsadm(&format!("-e {} -r {} -m -w 0", nat.key(), self.rip(1)))?;
        // Requests that were under way may still end at rs1.
        let settled = at_nat.wait_for(20, LIMIT)?;
        let drained = at_nat.wait_for(300, LIMIT)?.since(&settled);
        report("rs1 drained", &drained);
        ensure!(drained.share("rs1") == 0, "rs1 got new connections after its weight went to 0");

        self.xvsadm(&format!("-a {} -r {} -i -w 1", tun.key(), self.rip(3)))?;
        let settled = at_tun.wait_for(20, LIMIT)?;
        let added = at_tun.wait_for(300, LIMIT)?.since(&settled);
        report("rs3 added", &added);
        ensure!(added.share("rs3") > 0, "rs3 got no connection after it was added");

        let mut all = at_nat.stop()?;
        all.merge(&at_tun.stop()?);
        let failed = all.failed_total();
        let shown = format!("{failed} of {} requests failed", all.total() + failed);
        println!("  {}", if failed == 0 { good(shown) } else { bad(shown) });
        all.all_answered()
    }
}

fn report(when: &str, answers: &Answers) {
    println!("  {when:12} {answers}");
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn print_what_to_type(lab: &Lab) {
    let socket = lab.director().control();
    let bin = xvs_tests::binary("xvsadm").ok().and_then(|path| Some(path.parent()?.display().to_string()));
    println!("\n{}", title("The laboratory stays. What to type next:"));
    println!("  export XVS_SOCKET={} PATH={}:$PATH", socket.display(), bin.unwrap_or_default());
    println!("  xvsadm -L -n                                                  rules");
    println!("  xvs status                                                    workers, queues, counters");
    println!("  xvs drops                                                     what was dropped, and why");
    println!("  ip netns exec {NAME}-client curl http://10.1.0.100/          a request");
    println!(
        "  ip netns exec {NAME}-rs1 tcpdump -ni eth0                    what rs1 gets (at the director AF_XDP is first)"
    );
    println!("  xvsadm -e -t 10.1.0.100:80 -r 10.2.0.11:80 -m -w 1            undo the drain");
    println!("  cargo xtask demo --clean                                      take it all away");
}
