//! A loaded program with a worker's socket, that frames can be tried on, and the full account of each trial.

#![allow(dead_code)] // each test program uses a part of it

use std::os::fd::{AsFd as _, OwnedFd};

use xvs_redirect::{Action, InterfaceSpec, Key, Options, Protocol, Redirect};

use crate::common::{load_or_skip, unbound_socket};
use crate::frames::World;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
/// The loopback device: the kernel lets every frame that is tried on queue 0 arrive there.
pub(crate) const IFINDEX: u32 = 1;

/// The program with everything of both worlds steered, and a worker's socket on queue 0.
pub(crate) fn director() -> Option<(Redirect, OwnedFd)> {
    let lo = InterfaceSpec { name: "lo".into(), ifindex: IFINDEX, queues: 1 };
    let mut redirect = load_or_skip(&Options::default(), &[lo])?;
    for world in [World::v4(), World::v6()] {
        for key in keys(&world) {
            redirect.steer(key).unwrap();
        }
    }
    let socket = unbound_socket();
    redirect.register(IFINDEX, 0, socket.as_fd()).unwrap();
    Some((redirect, socket))
}

fn keys(world: &World) -> Vec<Key> {
    let service = |protocol, address, port| Key::Service { protocol, address, port };
    let reply = |protocol, address, port| Key::Reply { protocol, address, port };
    vec![
        service(Protocol::Tcp, world.vip, 80),
        service(Protocol::Udp, world.vip, 53),
        service(Protocol::Udp, world.vip, 500),
        service(Protocol::Sctp, world.vip, 9899),
        service(Protocol::Tcp, world.vip_any, 0),
        reply(Protocol::Tcp, world.rip, 8080),
        reply(Protocol::Udp, world.rip, 53),
        reply(Protocol::Udp, world.rip, 500),
        reply(Protocol::Sctp, world.rip, 9899),
        reply(Protocol::Tcp, world.rip_any, 0),
        Key::Tunnel { address: world.far, port: 0 },
        Key::Tunnel { address: world.far, port: 6080 },
        Key::Local { address: world.dip },
    ]
}

/// Runs one frame, checks that exactly one counter moved, and answers with its name.
pub(crate) fn outcome(redirect: &Redirect, frame: &[u8]) -> (Action, &'static str) {
    let before = redirect.counters().unwrap();
    let action = redirect.try_frame(IFINDEX, 0, frame).unwrap();
    let after = redirect.counters().unwrap();
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    let [(before, after)] = moved[..] else {
        panic!("one counter must move, not {moved:?}");
    };
    assert_eq!(after.packets - before.packets, 1, "{}", after.name);
    assert_eq!(after.bytes - before.bytes, frame.len() as u64, "{}", after.name);
    (action, after.name)
}

pub(crate) fn expect(redirect: &Redirect, says: &str, frame: &[u8], expected: &str) {
    let (action, name) = outcome(redirect, frame);
    assert_eq!(name, expected, "{says}");
    let wanted = if expected.starts_with("redirected") { Action::Redirected } else { Action::Passed };
    assert_eq!(action, wanted, "{says}");
}

/// A small generator of numbers, the same ones every time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % most
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
