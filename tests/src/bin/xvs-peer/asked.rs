//! Packets that tell which address they were sent to, and answers that leave from it, as any server behind direct routing
//! must send them: the kernel tells that address beside the packet (packet information), and is told it beside the answer.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// A socket of this kind for everybody of this family, which is told what its packets were sent to.
pub(crate) fn open(domain: Domain, kind: Type, protocol: Option<Protocol>, port: u16) -> Result<Socket> {
    let socket = Socket::new(domain, kind, protocol)?;
    let any: SocketAddr = if domain == Domain::IPV6 {
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    if kind == Type::DGRAM {
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&any.into())?;
    }
    Ok(socket)
}

/// Who sent a packet, and to which of our addresses.
pub(crate) struct Way {
    from: SockaddrStorage,
    asked: Asked,
}

/// The address that was asked, in the form in which the kernel takes it as the source of the answer.
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Waits for a packet; gives its length and its way.
pub(crate) fn receive(socket: &Socket, packet: &mut [u8]) -> Result<(usize, Way)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(packet)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let asked = message.cmsgs()?.find_map(Asked::read).context("the kernel did not say which address was asked")?;
    Ok((message.bytes, Way { from: message.address.context("a packet without a source")?, asked }))
}

impl Way {
    /// Sends an answer back.
    pub(crate) fn answer(&self, socket: &Socket, parts: &[&[u8]]) -> Result<()> {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let beside = match &self.asked {
            Asked::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Asked::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        };
        sendmsg(socket.as_raw_fd(), &parts, &[beside], MsgFlags::empty(), Some(&self.from))?;
        Ok(())
    }

    /// Who sent it.
    pub(crate) fn from(&self) -> SocketAddr {
        match (self.from.as_sockaddr_in(), self.from.as_sockaddr_in6()) {
            (Some(v4), _) => (v4.ip(), v4.port()).into(),
            (_, Some(v6)) => (v6.ip(), v6.port()).into(),
            // Sockets of two families only are opened here.
            (None, None) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// What it was sent to.
    pub(crate) fn asked(&self) -> IpAddr {
        match &self.asked {
            Asked::V4(info) => Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into(),
            Asked::V6(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        }
    }
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
