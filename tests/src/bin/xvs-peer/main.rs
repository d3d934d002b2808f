//! `xvs-peer`: the ends of the wire that nginx and curl do not play.
//!
//! `serve` runs in a real server: it answers UDP with its name, and opens tunnels (IP in IP, GUE, GRE) with plain
//! sockets, so that no kernel needs tunnel devices. `ask`, `hold`, `udp` and `tunnel` run in a client and print counted
//! answers as one line of JSON.
//!
//! Not here: anything of the product. This program must not share code with what it tests.

mod ask;
mod checksum;
mod decapsulate;
mod hold;
mod http;
mod serve;
mod tunnel;
mod udp;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use clap::Parser;
use xvs_tests::Answers;

#[derive(Debug, Parser)]
#[command(about = "Peers for the laboratory of xvs")]
enum Role {
    /// A real server: says its name to whoever asks by UDP, and opens tunnels.
    Serve {
        /// What it calls itself.
        #[arg(long)]
        name: String,
        /// UDP ports to answer on.
        #[arg(long)]
        udp: Vec<u16>,
        /// Take packets out of tunnels.
        #[arg(long)]
        decapsulate: bool,
    },
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
        #[arg(long, default_value_t = 1)]
        sockets: usize,
        #[arg(long, default_value_t = 1)]
        asks: usize,
        #[arg(long, default_value_t = 32)]
        size: usize,
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
        Role::Serve { name, udp, decapsulate } => return serve::run(&name, &udp, decapsulate),
        Role::Ask { to, parallel, keep_alive } => return ask::run(to, parallel, keep_alive),
        Role::Hold { to, connections } => hold::run(to, connections),
        Role::Udp { to, sockets, asks, size } => udp::run(to, sockets, asks, size)?,
        Role::Tunnel { own, to, server } => tunnel::run(own, to, server)?,
    };
    print(&answers)
}

/// Prints counts as the laboratory reads them.
fn print(answers: &Answers) -> Result<()> {
    println!("{}", serde_json::to_string(answers)?);
    Ok(())
}
