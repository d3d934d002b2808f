//! A real server's services: UDP and SCTP that answer with the server's name and the question, files, and tunnels' ends.
//!
//! Invariant: the answer leaves from the address that was asked ([`crate::asked`]).

use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{asked, decapsulate, files, packet, sctp};

/// No datagram is longer.
const MAX_LEN: usize = 65536;

/// What a real server does.
#[derive(Debug, Args)]
pub(crate) struct Services {
    /// What it calls itself.
    #[arg(long)]
    name: String,
    /// UDP ports to answer on.
    #[arg(long)]
    udp: Vec<u16>,
    /// UDP ports to answer on in fragments, the last one first.
    #[arg(long)]
    udp_reversed: Vec<u16>,
    /// TCP ports of control connections for file transfers.
    #[arg(long)]
    files: Vec<u16>,
    /// SCTP ports to answer on.
    #[arg(long)]
    sctp: Vec<u16>,
    /// Take packets out of tunnels.
    #[arg(long)]
    decapsulate: bool,
}

pub(crate) fn run(services: &Services) -> Result<()> {
    let mut threads = Vec::new();
    let ports = services.udp.iter().map(|port| (*port, false));
    for (port, reversed) in ports.chain(services.udp_reversed.iter().map(|port| (*port, true))) {
        for domain in [Domain::IPV4, Domain::IPV6] {
            let socket = asked::open(domain, Type::DGRAM, None, port);
            let socket = socket.with_context(|| format!("UDP port {port} could not be opened"))?;
            let name = services.name.clone();
            threads.push(thread::spawn(move || answer(&socket, &name, reversed.then_some(port))));
        }
    }
    for port in &services.files {
        let (listener, name) = (files::listen(*port)?, services.name.clone());
        threads.push(thread::spawn(move || files::serve(&listener, &name)));
    }
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = asked::open(domain, Type::RAW, Some(Protocol::from(sctp::PROTOCOL)), 0).context("SCTP")?;
        let server = sctp::Server::new(&services.name, &services.sctp);
        threads.push(thread::spawn(move || server.run(&socket, domain == Domain::IPV4)));
    }
    if services.decapsulate {
        threads.extend(decapsulate::start()?);
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Answers every datagram with the server's name, a space, and the datagram.
fn answer(socket: &Socket, name: &str, reversed_from: Option<u16>) {
    let mut number = 0;
    loop {
        number += 1;
        // A client that went away makes the next call fail; the service goes on.
        if let Err(error) = answer_one(socket, name, reversed_from, number) {
            eprintln!("a datagram was not answered: {error:#}");
        }
    }
}

fn answer_one(socket: &Socket, name: &str, reversed_from: Option<u16>, number: u16) -> Result<()> {
    let mut datagram = vec![0; MAX_LEN];
    let (len, way) = asked::receive(socket, &mut datagram)?;
    let text = format!("{name} ");
    match reversed_from {
        None => way.answer(socket, &[text.as_bytes(), &datagram[..len]]),
        Some(port) => {
            let own = SocketAddr::new(way.asked(), port);
            packet::send_reversed(own, way.from(), &[text.as_bytes(), &datagram[..len]].concat(), number)
        }
    }
}
