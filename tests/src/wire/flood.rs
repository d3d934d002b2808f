//! A flood: packets of many flows from the client's end, and what came of them.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::binaries::binary;
use crate::process::Process;

use super::contender::Standing;
use super::cpu::{Machine, Spent};
use super::ground::{Ground, SINK_PORT};

/// What packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// UDP.
    Udp,
    /// TCP, SYN.
    Syn,
}

/// What to send.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flood {
    /// What packets.
    pub kind: Kind,
    /// Bytes of a frame without its checksum.
    pub size: u16,
    /// Flows, one after the other.
    pub flows: u32,
    /// The second byte of the sources' addresses: floods with other ones meet no connection of each other.
    pub net: u8,
    /// Packets a second, all CPUs together; as many as go if none.
    pub rate: Option<u64>,
    /// At most so long.
    pub seconds: f64,
    /// At most so many packets of each CPU.
    pub packets: Option<u64>,
}

impl Flood {
    /// UDP of 64 bytes on the wire, of so many flows, for so long, as fast as it goes.
    pub fn udp(flows: u32, seconds: f64) -> Self {
        Flood { kind: Kind::Udp, size: 60, flows, net: 64, rate: None, seconds, packets: None }
    }

    /// The same, each flow once, so gently that nobody is hurt: everyone knows the flows then.
    pub fn first_packets(self) -> Self {
        Flood { rate: Some(60_000), packets: Some(self.flows.into()), seconds: 20.0, ..self }
    }
}

/// What came of a flood.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Flooded {
    /// Packets sent by the generator.
    pub sent: u64,
    /// Packets at the sink.
    pub arrived: u64,
    /// Of them for another host's MAC.
    pub strange: u64,
    /// How long it took.
    pub seconds: f64,
    /// CPU time of the generator, of who balances, and of the kernel's softirq threads.
    pub generator_ns: u64,
    /// See above.
    pub balancer_ns: u64,
    /// The share of user space in the balancer's time.
    pub balancer_user: f64,
    /// See above.
    pub softirq_ns: u64,
    /// Softirq of the whole machine, in seconds by the ticks of the clock. Others' softirq is in it.
    pub machine_softirq_s: f64,
    /// All that the machine's CPUs did, by the ticks of the clock: a little of before and after, and others' work, is in it.
    pub machine_busy_s: f64,
}

impl Flooded {
    /// Packets a second at the sink.
    pub fn rate(&self) -> f64 {
        self.arrived as f64 / self.seconds
    }

    /// CPU time of the balancer's processes for each packet that arrived, in nanoseconds. Whoever is kept from the CPU
    /// spends none, so this tells what a packet costs on a busy machine, too.
    pub fn balancer_ns(&self) -> f64 {
        self.balancer_ns as f64 / self.arrived.max(1) as f64
    }

    /// The share of the machine's busy time that is charged to somebody. The rest is others' work, and softirq that
    /// interrupted an idle CPU, which no process pays for.
    pub fn charged(&self) -> f64 {
        (self.generator_ns + self.balancer_ns + self.softirq_ns) as f64 / 1e9 / self.machine_busy_s.max(0.01)
    }

    /// CPU time of everybody for each packet that arrived, in nanoseconds.
    pub fn cpu_ns(&self) -> f64 {
        (self.generator_ns + self.balancer_ns + self.softirq_ns) as f64 / self.arrived.max(1) as f64
    }
}

impl Ground {
    /// Sends a flood and waits until nothing moves any more.
    pub fn flood(&mut self, standing: &Standing, flood: &Flood) -> Result<Flooded> {
        let before = self.sunk()?;
        let (balancer, softirq) = (Spent::by(&standing.pids())?, Spent::by_softirq_threads()?);
        let machine = Machine::now()?;
        let report = self.generate(flood)?;
        let (balancer, softirq) =
            (Spent::by(&standing.pids())?.since(&balancer), Spent::by_softirq_threads()?.since(&softirq));
        let machine = Machine::now()?.since(&machine);
        let after = self.settled()?;
        let ticks = balancer.user_s + balancer.system_s;
        Ok(Flooded {
            sent: number(&report, "sent")?,
            arrived: after.0 - before.0,
            strange: after.1 - before.1,
            seconds: report["seconds"].as_f64().context("the generator told no time")?,
            generator_ns: number(&report, "cpu_ns")?,
            balancer_ns: balancer.total_ns,
            balancer_user: if ticks > 0.0 { balancer.user_s / ticks } else { 0.0 },
            softirq_ns: softirq.total_ns,
            machine_softirq_s: machine.softirq,
            machine_busy_s: machine.busy(),
        })
    }

    /// Starts a flood that goes on beside something else, and ends by itself or with its value.
    pub fn background(&self, flood: &Flood) -> Result<Process> {
        let words = self.words(flood)?;
        let mut command = self.client().command(&words[0]);
        Process::start("background", command.args(&words[1..]), self.directory())
    }

    fn generate(&self, flood: &Flood) -> Result<Value> {
        let printed = self.client().run(&self.words(flood)?)?.ok()?;
        serde_json::from_str(&printed).with_context(|| format!("the generator said `{printed}`"))
    }

    /// The generator and its options.
    fn words(&self, flood: &Flood) -> Result<Vec<String>> {
        let program = binary("xvs-generator")?;
        let cpus: Vec<_> = if self.queues() > 1 { vec!["0", "1"] } else { vec!["1"] };
        let each = cpus.len() as u64;
        let mut words = vec![program.to_string_lossy().into_owned()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("interface", "eth0".into());
        option("mac", self.director_mac().into());
        option("to", format!("{}:{SINK_PORT}", self.vip()));
        option("kind", if flood.kind == Kind::Udp { "udp".into() } else { "syn".into() });
        option("size", flood.size.to_string());
        option("flows", flood.flows.to_string());
        option("from", format!("10.{}.0.1", flood.net));
        option("seconds", flood.seconds.to_string());
        option("cpus", cpus.join(","));
        if let Some(rate) = flood.rate {
            option("rate", (rate / each).to_string());
        }
        if let Some(packets) = flood.packets {
            option("packets", packets.to_string());
        }
        Ok(words)
    }
}

pub(super) fn number(report: &Value, name: &str) -> Result<u64> {
    report[name].as_u64().with_context(|| format!("no `{name}` in {report}"))
}
