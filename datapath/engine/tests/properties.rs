//! Properties: what holds for any packet, not only for those that somebody thought of.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use common::packet::*;
use common::site::*;
use proptest::collection::vec;
use proptest::prelude::*;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Endpoint;
use xvs_engine::forward::decrement_ttl;
use xvs_engine::forward::icmp::Quote;
use xvs_engine::forward::mss;
use xvs_engine::forward::nat::{self, End};
use xvs_engine::real::Method;
use xvs_engine::wire::{Headers, SctpEvent};

fn methods() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Nat), Just(Method::Dr), Just(Method::Tun)]
}

/// A host's address of a family that is no service's.
fn hosts(v4: bool) -> impl Strategy<Value = SocketAddr> {
    (any::<u64>(), 1024u16..).prop_map(move |(bits, port)| match v4 {
        true => (Ipv4Addr::from(0xc633_6400 | bits as u32 & 0xff), port).into(),
        false => (Ipv6Addr::from(0x2001_0db8_000c << 80 | u128::from(bits)), port).into(),
    })
}

/// A valid packet of a client to the VIP of its family.
fn packets() -> impl Strategy<Value = Ip> {
    let parts = (any::<bool>(), 0u8..3, vec(any::<u8>(), 0..300), 2u8.., any::<u8>());
    let more = (any::<bool>(), any::<u16>(), 0usize..=3, any::<u32>(), 0u8..4);
    (parts, more).prop_flat_map(|((v4, kind, payload, ttl, class), (dont_fragment, id, options, sequence, zero))| {
        hosts(v4).prop_map(move |src| Ip {
            src,
            dst: if v4 { VIP4 } else { VIP6 }.parse().unwrap(),
            ttl,
            class,
            dont_fragment,
            id,
            options: if v4 { vec![1; options * 4] } else { vec![] },
            first_extension: None,
            body: match kind {
                0 => Body::Tcp { flags: SYN, sequence },
                1 => Body::Udp { checksum: !v4 || zero > 0 },
                _ => Body::Sctp { tag: sequence },
            },
            tcp_options: Vec::new(),
            // An association is opened by INIT, whatever follows.
            payload: if kind == 2 { [&[1, 0, 0, 4][..], &payload].concat() } else { payload.clone() },
        })
    })
}

/// Frames that begin like real ones and then do not care.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop_oneof![
        Just(&[0x08, 0, 0x45][..]),
        Just(&[0x08, 0, 0x4f][..]),
        Just(&[0x86, 0xdd, 0x60][..]),
        Just(&[0x81, 0, 0, 1, 0x08, 0, 0x46][..]),
        Just(&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x86, 0xdd, 0x60][..]),
    ];
    let nexts =
        prop_oneof![Just(0u8), Just(1), Just(6), Just(17), Just(43), Just(44), Just(51), Just(58), Just(60), Just(132)];
    (heads, nexts, vec(any::<u8>(), 0..160)).prop_map(|(head, next, mut tail)| {
        let v6 = head.contains(&0xdd);
        let at = if v6 { 5 } else { 8 };
        if let Some(field) = tail.get_mut(at) {
            *field = next;
        }
        let length = (tail.len() + 1).saturating_sub(if v6 { 40 } else { 0 }) as u16;
        let at = if v6 { 3 } else { 1 };
        if tail.len() > at + 2 && tail[0] & 3 != 0 {
            tail[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        [&[2; 12][..], head, &tail].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Parsing never panics, whatever the bytes, and what it vouches for lies inside the frame.
    #[test]
    fn parse_never_panics(noise in vec(any::<u8>(), 0..200), near in near_frames()) {
        for frame in [&noise, &near] {
            if let Ok(headers) = Headers::parse(frame) {
                prop_assert!(headers.l3 < headers.l4 && headers.l4 <= headers.end && headers.end <= frame.len());
                let _ = Quote::read(frame, &headers);
            }
            let _ = Headers::parse_quoted(frame);
            let _ = Headers::parse_quoted(frame.get(14..).unwrap_or_default());
        }
    }

    /// No chunk of an SCTP packet, whatever its type and length, panics or is looked for beyond the packet's end; and what
    /// is read is what a walk over the chunks finds.
    #[test]
    fn chunks_never_panic(kind in prop_oneof![any::<u8>(), 10u8..12], length in prop_oneof![any::<u16>(), 0u16..40],
                          tail in vec(prop_oneof![Just(6u8), any::<u8>()], 0..40), cut in 0usize..56) {
        let chunks = [&[kind, 0][..], &length.to_be_bytes(), &tail].concat();
        let mut ip = sctp(CLIENT4, VIP4, &chunks).bytes();
        ip.truncate(32 + cut.min(chunks.len()));
        let total = ip.len() as u16;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let padded = [&ip[..], &[6; 40]].concat(); // the link's padding is no chunk
        let read = Headers::parse(&from_client(&padded)).unwrap().sctp;
        prop_assert_eq!(read, Headers::parse(&from_client(&ip)).unwrap().sctp);
        let chunks = &ip[32..];
        let second = usize::from(length).div_ceil(4) * 4;
        let aborted = matches!(kind, 10 | 11) && length >= 4 && chunks.len() >= second + 4 && chunks[second] == 6;
        prop_assert_eq!(read.first().is_some(), chunks.len() >= 4);
        if read.first().is_some() {
            prop_assert_eq!(read.event() == Some(SctpEvent::Abort), aborted || kind == 6);
            prop_assert_eq!(read.first() == Some(SctpEvent::Abort), kind == 6);
        }
    }

    /// Parser and oracle agree: what etherparse reads of a whole packet is what the engine reads.
    #[test]
    fn parse_reads_what_was_written(packet in packets()) {
        let headers = Headers::parse(&from_client(&packet.bytes())).unwrap();
        prop_assert_eq!(SocketAddr::from(headers.flow.src), packet.src);
        prop_assert_eq!(SocketAddr::from(headers.flow.dst), packet.dst);
        prop_assert_eq!(headers.ip_len(), packet.bytes().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands among a SYN's options, clamping changes two bytes at most, none to a larger MSS, and the
    /// checksum stays right.
    #[test]
    fn mss_clamping_is_harmless(packet in packets(), noise in vec(any::<u8>(), 0..10),
                                kinds in vec(0u8..5, 0..10), room in 68usize..9000) {
        let tcp_options: Vec<u8> = noise.iter().zip(&kinds).flat_map(|(&byte, &kind)| [kind, byte % 6, byte]).collect();
        let frame = from_client(&Ip { tcp_options, body: Body::Tcp { flags: SYN, sequence: 7 }, ..packet }.bytes());
        let headers = Headers::parse(&frame).unwrap();
        let mut after = frame.clone();
        let clamped = mss::clamp(&mut after, &headers, room);
        prop_assert_eq!(clamped, after != frame);
        prop_assert_eq!(verify(&after), Ok(()));
        let options = headers.l4 + 20;
        let changed: Vec<_> = (options..frame.len()).filter(|&at| frame[at] != after[at]).collect();
        prop_assert!(changed.len() <= 2 && changed.first().is_none_or(|at| after[*at] < frame[*at]), "{changed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// NAT and back restores every byte but two hops of TTL; a UDP packet that came without a checksum keeps the one
    /// that it got.
    #[test]
    fn nat_there_and_back(packet in packets(), v4_server in hosts(true), v6_server in hosts(false)) {
        let server = Endpoint::from(if packet.src.is_ipv4() { v4_server } else { v6_server });
        let vip = Endpoint::from(packet.dst);
        let mut frame = from_client(&packet.bytes());
        for to in [server, vip] {
            let mut headers = Headers::parse(&frame).unwrap();
            decrement_ttl(&mut frame, &headers);
            prop_assert_eq!(nat::rewrite(&mut frame, &mut headers, End::Destination, to), Ok(()));
            prop_assert_eq!(headers.flow.dst, to);
            prop_assert_eq!(&Headers::parse(&frame).unwrap(), &headers);
            prop_assert_eq!(verify(&frame), Ok(()));
        }
        let summed = match packet.body {
            Body::Udp { .. } => Ip { body: Body::Udp { checksum: true }, ..packet.clone() },
            _ => packet.clone(),
        };
        prop_assert_eq!(frame, from_client(&summed.ttl(packet.ttl.wrapping_sub(2)).bytes()));
    }

    /// Every packet that leaves has right checksums and lengths, by every method, there and back, whole or partial;
    /// and is what etherparse would have built.
    #[test]
    fn what_leaves_is_valid(packet in packets(), method in methods(), partial in any::<bool>(), port in 1u16..) {
        let site = Site::with_service(method, port);
        let mut bytes = packet.bytes();
        if partial {
            make_partial(&mut bytes);
        }
        let (verdict, out) = site.forward(&from_client(&bytes));
        prop_assert_eq!(verdict, Verdict::Transmit(SERVERS));
        prop_assert_eq!(verify(&out), Ok(()));
        if method != Method::Nat {
            return Ok(());
        }
        let rip = if packet.src.is_ipv4() { format!("10.0.0.1:{port}") } else { format!("[fd00::1]:{port}") };
        let summed = |packet: &Ip| match packet.body {
            Body::Udp { .. } => Ip { body: Body::Udp { checksum: true }, ..packet.clone() },
            _ => packet.clone(),
        };
        let inside = summed(&packet).to(&rip).ttl(packet.ttl - 1);
        prop_assert_eq!(&out, &to_server(1, &inside.bytes()));
        let answer = Ip { src: rip.parse().unwrap(), dst: packet.src, ..packet.clone() };
        let mut bytes = answer.bytes();
        if partial {
            make_partial(&mut bytes);
        }
        let (verdict, out) = site.forward(&from_server(1, &bytes));
        prop_assert_eq!(verdict, Verdict::Transmit(CLIENTS));
        let outside = Ip { src: packet.dst, ttl: packet.ttl - 1, ..summed(&answer) };
        prop_assert_eq!(&out, &to_client(&outside.bytes()));
    }

    /// No damaged packet, whatever its bytes, may panic the engine, and none that leaves is longer than it can be.
    #[test]
    fn damaged_packets_do_no_harm(packet in packets(), method in methods(), damage in vec((any::<u16>(), any::<u8>()), 1..6)) {
        let site = Site::with_service(method, 8080);
        let _ = site.forward(&from_client(&packet.bytes()));
        let quoted = Ip { src: packet.dst, dst: packet.src, ..packet.clone() }.bytes();
        let (router, vip) = if packet.src.is_ipv4() { ("203.0.113.77", "192.0.2.1") } else { ("2001:db8::77", "2001:db8::1") };
        let error = icmp_error(router, vip, if packet.src.is_ipv4() { [3, 4] } else { [2, 0] }, 1280, &quoted);
        let [first, later] = packet.clone().payload([0; 64]).fragments(40);
        for ip in [packet.bytes(), error.bytes(), first, later] {
            let mut frame = from_client(&ip);
            for &(at, value) in &damage {
                let at = 12 + usize::from(at) % (frame.len() - 12).min(100);
                frame[at] = value;
            }
            let (_, out) = site.forward(&frame);
            prop_assert!(out.len() <= frame.len() + 48);
        }
    }
}

/// A valid packet that is cut off anywhere is dropped with a reason, or is padding's loss: it never panics.
#[test]
fn truncations_do_no_harm() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 8080);
        for (client, vip, router, to) in
            [(CLIENT4, VIP4, "203.0.113.77", "192.0.2.1"), (CLIENT6, VIP6, "2001:db8::77", "2001:db8::1")]
        {
            let segment = tcp(client, vip, SYN).payload(*b"some payload");
            let answer = Ip { src: segment.dst, dst: segment.src, ..segment.clone() };
            let numbers = if to.contains(':') { [1, 4] } else { [3, 3] };
            let error = icmp_error(router, to, numbers, 0, &answer.bytes());
            let datagram = udp(client, vip, &[5; 64]);
            let [first, later] = datagram.fragments(32);
            let association = sctp(client, vip, &[1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            let tags = [[0x88, 0xa8, 0, 1], [0x81, 0, 0, 2]];
            for ip in [segment.bytes(), datagram.bytes(), association.bytes(), error.bytes(), first, later] {
                let whole = frame(FRONT, GATEWAY, &tags, &ip);
                assert!(!matches!(site.forward(&whole).0, Verdict::Drop(_)), "{method:?}");
                for length in 0..whole.len() {
                    let (verdict, _) = site.forward(&whole[..length]);
                    assert!(matches!(verdict, Verdict::Drop(_)), "{method:?}, {length} bytes");
                }
                // Cut off, but with a length that says so: shorter packets in their own right.
                for cut in 0..ip.len() {
                    let mut shorter = ip[..cut].to_vec();
                    match shorter.first().map(|byte| byte >> 4) {
                        Some(4) if cut >= 20 => shorter[2..4].copy_from_slice(&(cut as u16).to_be_bytes()),
                        Some(6) if cut >= 40 => shorter[4..6].copy_from_slice(&(cut as u16 - 40).to_be_bytes()),
                        _ => {}
                    }
                    let _ = site.forward(&frame(FRONT, GATEWAY, &tags, &shorter));
                }
            }
        }
    }
}
