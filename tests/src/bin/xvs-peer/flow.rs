//! Sends numbered packets over one socket at an even pace, and waits for the answer to each.
//!
//! The pace is the clock's: a packet that is sent late does not make those behind it late.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xvs_tests::Flow;

use crate::udp;

/// An answer that is not there by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(to: SocketAddr, packets: u64, pace: Duration) -> Result<Flow> {
    let socket = udp::open(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&socket, packets, pace));
        let flow = count(&socket, packets);
        sender.join().unwrap_or_else(|_| anyhow::bail!("the sender panicked"))?;
        Ok(flow)
    })
}

fn send(socket: &UdpSocket, packets: u64, pace: Duration) -> Result<()> {
    let begun = Instant::now();
    for number in 0..packets {
        let due = begun + pace.mul_f64(number as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        socket.send(&number.to_be_bytes()).context("send")?;
    }
    Ok(())
}

fn count(socket: &UdpSocket, packets: u64) -> Flow {
    let mut seen = vec![false; packets as usize];
    let mut flow = Flow { sent: packets, answered: 0, longest_gap_us: 0 };
    let (mut last, mut answer) = (None, [0; 256]);
    while flow.answered < packets {
        let Ok(len) = socket.recv(&mut answer) else { break };
        let now = Instant::now();
        // A name, a blank, the number.
        let number = answer[..len].last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let Some(seen) = number.and_then(|number| seen.get_mut(number as usize)) else { continue };
        flow.answered += u64::from(!std::mem::replace(seen, true));
        let gap = last.replace(now).map_or(Duration::ZERO, |last: Instant| now - last);
        flow.longest_gap_us = flow.longest_gap_us.max(gap.as_micros() as u64);
    }
    flow
}
