//! `xvs-peer`: the ends of the wire that nginx and curl do not play.
//!
//! `serve` runs in a real server: it answers UDP and SCTP with its name, transfers files, and opens tunnels (IP in IP, GUE,
//! GRE) with plain sockets, so that no kernel needs tunnel devices or SCTP. The others run in a client and print counted
//! answers as one line of JSON.
//!
//! Not here: anything of the product. This program must not share code with what it tests.

mod ask;
mod asked;
mod checksum;
mod crc32c;
mod decapsulate;
mod dns;
mod files;
mod flow;
mod hold;
mod http;
mod packet;
mod sctp;
mod serve;
mod tunnel;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use xvs_tests::Answers;

#[derive(Debug, Parser)]
#[command(about = "Peers for the laboratory of xvs")]
enum Role {
    /// A real server: says its name to whoever asks, and opens tunnels.
    Serve(serve::Services),
    /// Asks by HTTP until standard input ends; prints the counts after every line that it reads, and at the end.
    Ask {
        to: SocketAddr,
        #[arg(long, default_value_t = 1)]
        parallel: usize,
        /// One connection for all requests of a thread.
        #[arg(long)]
        keep_alive: bool,
    },
    /// Opens many connections, holds them all, and asks once over each.
    Hold {
        to: SocketAddr,
        #[arg(long)]
        connections: usize,
    },
    /// Asks by UDP.
    Udp {
        to: SocketAddr,
        /// Ask from this port and those behind it; else from any.
        #[arg(long)]
        first_port: Option<u16>,
        #[arg(long, default_value_t = 1)]
        sockets: u16,
        #[arg(long, default_value_t = 1)]
        asks: usize,
        #[arg(long, default_value_t = 32)]
        size: usize,
        /// Send every question in fragments, the last one first.
        #[arg(long)]
        reversed: bool,
    },
    /// Sends numbered packets by UDP at an even pace, and counts which come back.
    Flow {
        to: SocketAddr,
        #[arg(long)]
        packets: u64,
        #[arg(long)]
        pace_us: u64,
    },
    /// Asks a DNS server for the text of a name, always from the same port.
    Dns {
        to: SocketAddr,
        #[arg(long)]
        name: String,
        #[arg(long, default_value_t = 1)]
        asks: u16,
    },
    /// Makes file transfers over one control connection.
    Files {
        to: SocketAddr,
        #[arg(long, default_value_t = 1)]
        transfers: usize,
        #[arg(long, default_value_t = 100_000)]
        size: usize,
        /// The server opens the connections for data.
        #[arg(long)]
        active: bool,
    },
    /// Opens SCTP associations and asks over each.
    Sctp {
        to: SocketAddr,
        /// The client's port of the first one; the others have the following ports.
        #[arg(long)]
        first_port: u16,
        #[arg(long, default_value_t = 1)]
        associations: u16,
        /// Close them in order; else they stay open.
        #[arg(long)]
        shut_down: bool,
    },
    /// Asks by UDP through a tunnel that it makes itself.
    Tunnel {
        own: IpAddr,
        to: SocketAddr,
        /// The far end of the tunnel.
        #[arg(long)]
        server: IpAddr,
    },
}

fn main() -> Result<()> {
    let answers = match Role::parse() {
        Role::Serve(services) => return serve::run(&services),
        Role::Ask { to, parallel, keep_alive } => return ask::run(to, parallel, keep_alive),
        Role::Hold { to, connections } => hold::run(to, connections),
        Role::Udp { to, first_port, sockets, asks, size, reversed } => {
            udp::run(to, first_port, sockets, asks, size, reversed)?
        }
        Role::Flow { to, packets, pace_us } => {
            println!("{}", serde_json::to_string(&flow::run(to, packets, Duration::from_micros(pace_us))?)?);
            return Ok(());
        }
        Role::Dns { to, name, asks } => dns::run(to, &name, asks)?,
        Role::Files { to, transfers, size, active } => files::run(to, transfers, size, active)?,
        Role::Sctp { to, first_port, associations, shut_down } => sctp::run(to, first_port, associations, shut_down)?,
        Role::Tunnel { own, to, server } => tunnel::run(own, to, server)?,
    };
    print(&answers)
}

/// Prints counts as the laboratory reads them.
fn print(answers: &Answers) -> Result<()> {
    println!("{}", serde_json::to_string(answers)?);
    Ok(())
}
