//! Steering and unsteering: what is shared, what is counted, what is full. Each step is proved by frames.

mod common;
mod director;
mod frames;

use std::net::IpAddr;

use director::{TCP, UDP, director, expect};
use frames::{Shape, World, ethernet, icmp, ip, transport};
use xvs_redirect::{Key, Protocol};

/// Guards the counting of keys: what two services share stays until both are gone, a fragment's address goes with the
/// last key of it, and what was never steered can be unsteered.
#[test]
fn shared_keys_are_counted() {
    let Some((mut redirect, _socket)) = director() else { return };
    let w = World::v4();
    let frame = |shape: &Shape| ethernet(&[], 0x0800, &ip(w.client, w.vip, TCP, shape, transport(TCP, 1, 80))).bytes;
    let (whole, later) = (frame(&Shape::default()), frame(&Shape::fragment(3, false)));
    let (yes, no) = ("redirected_fragment", "passed_not_steered");
    let key = |port| Key::Service { protocol: Protocol::Tcp, address: w.vip, port };

    redirect.steer(key(80)).unwrap();
    redirect.unsteer(&key(80)).unwrap();
    expect(&redirect, "one of two is left", &whole, "redirected_service");
    redirect.steer(key(443)).unwrap();
    redirect.unsteer(&key(80)).unwrap();
    expect(&redirect, "none is left", &whole, no);
    expect(&redirect, "another port keeps the address", &later, yes);
    redirect.unsteer(&key(443)).unwrap();
    expect(&redirect, "the address is gone", &later, no);
    redirect.unsteer(&key(443)).unwrap();
    redirect.unsteer(&key(80)).unwrap();
    redirect.steer(key(80)).unwrap();
    expect(&redirect, "steered again", &whole, "redirected_service");

    // The VIP of one service may be the real server of another: both kinds live in one entry.
    let reply = Key::Reply { protocol: Protocol::Tcp, address: w.vip, port: 80 };
    let from = ethernet(&[], 0x0800, &ip(w.vip, w.client, TCP, &Shape::fragment(3, false), transport(TCP, 80, 1)));
    redirect.steer(reply).unwrap();
    let second = Key::Reply { protocol: Protocol::Tcp, address: w.vip, port: 81 };
    redirect.steer(second).unwrap();
    redirect.unsteer(&second).unwrap();
    expect(&redirect, "as a destination", &later, yes);
    expect(&redirect, "as a source", &from.bytes, yes);
    redirect.unsteer(&key(80)).unwrap();
    expect(&redirect, "no destination any more", &later, no);
    expect(&redirect, "still a source", &from.bytes, yes);
    redirect.unsteer(&reply).unwrap();
    expect(&redirect, "no source any more", &from.bytes, no);

    // A tunnel's far end may have one tunnel with a port, and one without; a real server is in many services.
    let far: IpAddr = "10.0.0.14".parse().unwrap();
    let error = |protocol, port| {
        let quoted = ip(w.dip, far, protocol, &Shape::default(), transport(UDP, 40000, port));
        ethernet(&[], 0x0800, &ip(w.router, w.dip, w.icmp, &Shape::default(), icmp(3, &quoted))).bytes
    };
    let tunnel = |port| Key::Tunnel { address: far, port };
    expect(&redirect, "no tunnel yet", &error(4, 0), no);
    for key in [tunnel(0), tunnel(0), tunnel(6080)] {
        redirect.steer(key).unwrap();
    }
    redirect.unsteer(&tunnel(0)).unwrap();
    expect(&redirect, "another service has it", &error(47, 0), "redirected_icmp");
    redirect.unsteer(&tunnel(0)).unwrap();
    expect(&redirect, "nobody has it", &error(47, 0), no);
    expect(&redirect, "the one with a port is there", &error(UDP, 6080), "redirected_icmp");
    redirect.unsteer(&tunnel(6080)).unwrap();
    redirect.unsteer(&tunnel(6080)).unwrap();
    expect(&redirect, "no tunnel any more", &error(UDP, 6080), no);

    let check = ethernet(&[], 0x0800, &ip(w.rip, w.dip, TCP, &Shape::default(), transport(TCP, 8080, 1)));
    let local = Key::Local { address: w.dip };
    redirect.steer(local).unwrap();
    expect(&redirect, "local twice is local once", &check.bytes, "passed_local");
    redirect.unsteer(&local).unwrap();
    expect(&redirect, "not local any more", &check.bytes, "redirected_reply");
    redirect.unsteer(&local).unwrap();
}

/// Guards the limit of a map: the error names it, nothing is left half done, and there is room again after an unsteer.
#[test]
fn full_maps_say_so() {
    let Some((mut redirect, _socket)) = director() else { return };
    let local = |number: u32| Key::Local { address: IpAddr::V4((0x0a80_0000 + number).into()) };
    let mut held = 0;
    let error = loop {
        match redirect.steer(local(held)) {
            Ok(()) => held += 1,
            Err(error) => break error,
        }
    };
    let xvs_redirect::Error::MapFull { map: "local", limit } = error else {
        panic!("{error}");
    };
    assert_eq!(held, limit - 2, "two were there before");
    redirect.unsteer(&local(0)).unwrap();
    redirect.steer(local(held)).unwrap();

    let reply = |number: u32| Key::Reply {
        protocol: Protocol::Udp,
        address: IpAddr::V4((0x0b00_0000 + number).into()),
        port: 9,
    };
    let mut held = 0;
    while redirect.steer(reply(held)).is_ok() {
        held += 1;
    }
    assert!(held >= 100_000, "{held} servers are fewer than a large director has");
    // Whichever of the two maps was full, the other must not know the key either.
    let w = World::v4();
    let Key::Reply { address, .. } = reply(held) else { unreachable!() };
    for shape in [Shape::default(), Shape::fragment(3, false)] {
        let packet = ip(address, w.client, UDP, &shape, transport(UDP, 9, 1));
        expect(&redirect, "refused", &ethernet(&[], 0x0800, &packet).bytes, "passed_not_steered");
    }
}
