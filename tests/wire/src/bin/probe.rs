//! `xvs-probe`: round trips by HTTP over one connection that stays, one after the other, as quantiles.
//!
//! Invariant: every request is answered with status 200 over the same connection, or the program fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use xvs_wire::histogram::Histogram;
use xvs_wire::{pin, say};

/// A round trip that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(about = "Measures round trips by HTTP over one connection")]
struct Options {
    to: SocketAddr,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Pause between two requests, in microseconds.
    #[arg(long, default_value_t = 200)]
    pause: u64,
    /// On this CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Microseconds.
#[derive(Debug, Serialize)]
struct Report {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(cpu) = options.cpu {
        pin(cpu)?;
    }
    let mut connection = TcpStream::connect_timeout(&options.to, PATIENCE)
        .with_context(|| format!("no connection to {}", options.to))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", options.to);
    let mut histogram = Histogram::default();
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut length = None;
    while Instant::now() < end {
        let begun = Instant::now();
        connection.write_all(request.as_bytes())?;
        length = Some(answer(&mut connection, length)?);
        histogram.add(begun.elapsed());
        std::thread::sleep(Duration::from_micros(options.pause));
    }
    let us = |share| histogram.quantile(share).as_secs_f64() * 1e6;
    say(&Report { count: histogram.count(), p50: us(0.5), p99: us(0.99), p999: us(0.999) })
}

/// Reads one answer and gives its length. The server says the same every time, so the first one tells the length.
fn answer(connection: &mut TcpStream, length: Option<usize>) -> Result<usize> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while length.map_or_else(|| whole(&text).is_none(), |length| text.len() < length) {
        let count = connection.read(&mut part).context("no answer came")?;
        ensure!(count > 0, "the server closed the connection");
        text.extend_from_slice(&part[..count]);
    }
    ensure!(text.starts_with(b"HTTP/1.1 200"), "the answer is `{}`", String::from_utf8_lossy(&text));
    Ok(text.len())
}

/// The length of the answer, once it is whole.
fn whole(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    (body.len() >= length).then_some(text.len())
}
