//! A real server's UDP service: the answer to every datagram is the server's name, a space, and the datagram.
//!
//! Invariant: the answer leaves from the address that was asked, as any server behind direct routing must do; the
//! kernel tells that address beside the datagram (packet information), and is told it beside the answer.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use socket2::{Domain, Socket, Type};

use crate::decapsulate;

/// No datagram is longer.
const MAX_LEN: usize = 65536;

pub(crate) fn run(name: &str, ports: &[u16], decapsulate: bool) -> Result<()> {
    let mut threads = Vec::new();
    for port in ports {
        for any in [(Ipv4Addr::UNSPECIFIED, *port).into(), (Ipv6Addr::UNSPECIFIED, *port).into()] {
            let socket = open(any).with_context(|| format!("UDP port {port} could not be opened"))?;
            let name = name.to_owned();
            threads.push(thread::spawn(move || answer(&socket, &name)));
        }
    }
    if decapsulate {
        threads.extend(decapsulate::start()?);
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn open(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn answer(socket: &Socket, name: &str) {
    loop {
        // A client that went away makes the next call fail; the service goes on.
        if let Err(error) = answer_one(socket, name) {
            eprintln!("a datagram was not answered: {error:#}");
        }
    }
}

fn answer_one(socket: &Socket, name: &str) -> Result<()> {
    let mut datagram = vec![0; MAX_LEN];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let (len, from, asked) = {
        let mut parts = [IoSliceMut::new(&mut datagram)];
        let fd = socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let asked = message.cmsgs()?.find_map(Asked::read).context("the kernel did not say which address was asked")?;
        (message.bytes, message.address.context("a datagram without a source")?, asked)
    };
    let text = format!("{name} ");
    let parts = [IoSlice::new(text.as_bytes()), IoSlice::new(&datagram[..len])];
    let beside = match &asked {
        Asked::V4(info) => ControlMessage::Ipv4PacketInfo(info),
        Asked::V6(info) => ControlMessage::Ipv6PacketInfo(info),
    };
    sendmsg(socket.as_raw_fd(), &parts, &[beside], MsgFlags::empty(), Some(&from))?;
    Ok(())
}

/// The address that was asked, in the form in which the kernel takes it as the source of the answer.
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Asked {
    fn read(message: ControlMessageOwned) -> Option<Self> {
        match message {
            // The interface is left open: the way back may be another one.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Asked::V4(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_addr, ..info }))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(libc::in6_pktinfo { ipi6_ifindex: 0, ..info })),
            _ => None,
        }
    }
}
