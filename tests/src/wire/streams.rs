//! Real connections through whoever balances: round trips, new connections, and bulk.
//!
//! With one queue there is one of each thing, on CPU 1. With two there are more connections than queues, since the wire
//! chooses the queue by the connection, and both CPUs.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binaries::binary;

use super::ground::{Ground, cpus};

/// Connections of wrk, for each of its threads.
const CONNECTIONS: u32 = 32;

impl Ground {
    /// Round trips by HTTP over one connection: microseconds of p50, p99 and p99.9.
    pub fn round_trips(&self, seconds: f64) -> Result<[f64; 3]> {
        let program = binary("xvs-probe")?;
        let (to, seconds) = (format!("{}:80", self.vip()), seconds.to_string());
        let words = [program.to_string_lossy().as_ref(), &to, "--seconds", &seconds, "--cpu", "1"].map(str::to_owned);
        let report: Value =
            serde_json::from_str(&self.client().run(&words)?.ok()?).context("the probe said no JSON")?;
        let us = |name: &str| report[name].as_f64().with_context(|| format!("no `{name}` in {report}"));
        Ok([us("p50")?, us("p99")?, us("p999")?])
    }

    /// New connections a second, by wrk: each carries one request.
    pub fn connections(&self, seconds: u32) -> Result<f64> {
        let (threads, connections) = (self.queues().to_string(), (CONNECTIONS * self.queues()).to_string());
        let (time, url) = (format!("{seconds}s"), format!("http://{}/", self.vip()));
        let mut words = vec!["taskset", "--cpu-list", cpus(self.queues()), "wrk", "--threads", &threads];
        words.extend(["--connections", &connections, "--duration", &time, "--header", "Connection: close", &url]);
        let printed = self.client().run(&words)?.ok()?;
        let errors = printed.lines().any(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
        ensure!(!errors, "wrk met errors: {printed}");
        let rate = printed.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        rate.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk said `{printed}`"))
    }

    /// Throughput by iperf3, in bits a second: of one TCP connection, or of four over two queues.
    pub fn throughput(&self, seconds: u32) -> Result<f64> {
        let (seconds, streams) = (seconds.to_string(), if self.queues() > 1 { "4" } else { "1" });
        let mut words = vec!["taskset", "--cpu-list", cpus(self.queues()), "iperf3", "--client", self.vip()];
        words.extend(["--time", &seconds, "--parallel", streams, "--json"]);
        let report: Value = serde_json::from_str(&self.client().run(&words)?.ok()?).context("iperf3 said no JSON")?;
        report["end"]["sum_received"]["bits_per_second"].as_f64().with_context(|| format!("iperf3 said {report}"))
    }
}
