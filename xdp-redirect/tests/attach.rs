//! The program on real interfaces: attaching, refusing, leaving nothing behind, and a frame that really arrives.
//!
//! Each test has a network namespace of its own with a veth pair in it.

mod common;

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Namespace, privileged, shell, shows_xdp, unbound_socket};
use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{Xdp, XdpFlags};
use xsk_rs::config::{BindFlags, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{Socket, Umem};
use xvs_redirect::{Action, Active, Error, Key, Mode, Options, Protocol, Redirect};

fn load(namespace: &Namespace, mode: Mode) -> Redirect {
    let options = Options { mode, ..Options::default() };
    Redirect::load(&options, std::slice::from_ref(&namespace.near)).expect("privileged")
}

fn service() -> Key {
    Key::Service { protocol: Protocol::Udp, address: "192.0.2.1".parse().unwrap(), port: 53 }
}

/// A UDP datagram to the address; only the service's own is steered.
fn datagram(destination: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([198, 51, 100, 7], destination, 64)
        .udp(4000, 53)
        .write(&mut frame, b"a question")
        .unwrap();
    frame
}

/// Loads a program that is not ours and passes everything.
fn stranger() -> OwnedFd {
    let program = [
        // r0 = XDP_PASS; exit
        sys::bpf_insn { code: 0xb7, imm: sys::XDP_PASS as i32, ..Default::default() },
        sys::bpf_insn { code: 0x95, ..Default::default() },
    ];
    // SAFETY: the strings and the instructions are valid for the call, which copies them; no options are given.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_XDP,
            c"stranger".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Guards that attaching shows on the interface in both modes, is harmless when repeated, and that detaching and
/// dropping leave nothing there.
#[test]
fn drop_leaves_nothing() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(1);
    let ifindex = namespace.near.ifindex;
    for (mode, active, word) in [
        (Mode::Auto, Active::Native, "xdp "),
        (Mode::Native, Active::Native, "xdp "),
        (Mode::Generic, Active::Generic, "xdpgeneric "),
    ] {
        let mut redirect = load(&namespace, mode);
        assert!(!shows_xdp("near"), "loading must not attach");
        assert_eq!(redirect.attach(ifindex).unwrap(), active);
        assert_eq!(redirect.attach(ifindex).unwrap(), active, "attaching twice is no error");
        assert!(shows_xdp("near"));
        assert!(shell("ip link show dev near").contains(word), "{mode:?}");

        redirect.detach(ifindex).unwrap();
        assert!(!shows_xdp("near"), "detached");
        redirect.detach(ifindex).unwrap();

        redirect.attach(ifindex).unwrap();
        drop(redirect);
        assert!(!shows_xdp("near"), "dropped");
    }
}

/// Guards the fallback: a driver without XDP of its own (loopback has none) gets generic mode if that is allowed, and an
/// error that names the cure if not.
#[test]
fn generic_is_the_fallback() {
    if !privileged() {
        return;
    }
    let mut namespace = Namespace::enter(1);
    namespace.near.name = "lo".into();
    namespace.near.ifindex = nix::net::if_::if_nametoindex("lo").unwrap();

    let error = load(&namespace, Mode::Native).attach(namespace.near.ifindex).unwrap_err();
    assert!(matches!(error, Error::NativeRefused { .. }), "{error}");
    let mut redirect = load(&namespace, Mode::Auto);
    assert_eq!(redirect.attach(namespace.near.ifindex).unwrap(), Active::Generic);
    assert!(shows_xdp("lo"));
}

/// Guards that a program of ours that was left behind is replaced, in either mode, whichever mode is wanted now.
#[test]
fn stale_programs_are_replaced() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(1);
    let ifindex = namespace.near.ifindex;
    for flags in [XdpFlags::DRV_MODE, XdpFlags::SKB_MODE] {
        {
            let earlier = load(&namespace, Mode::Auto);
            // Without a link, as `ip link` attaches: this outlives its director.
            Xdp::new(earlier.program(ifindex).unwrap()).attach(ifindex as i32, flags).unwrap();
        }
        assert!(shows_xdp("near"), "the stale program is there");
        let mut redirect = load(&namespace, Mode::Auto);
        assert_eq!(redirect.attach(ifindex).unwrap(), Active::Native);
        drop(redirect);
        assert!(!shows_xdp("near"));
    }
}

/// Guards that a stranger's program is named in the error and stays where it is.
#[test]
fn strangers_are_left_alone() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(1);
    let ifindex = namespace.near.ifindex;
    let stranger = stranger();
    for flags in [sys::XDP_FLAGS_DRV_MODE, sys::XDP_FLAGS_SKB_MODE] {
        let xdp = Xdp::new(stranger.as_fd());
        xdp.attach(ifindex as i32, XdpFlags::from_bits_retain(flags)).unwrap();
        let error = load(&namespace, Mode::Auto).attach(ifindex).unwrap_err();
        let Error::Busy { interface, program, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((interface.as_str(), program.as_str()), ("near", "stranger"));
        assert!(error.to_string().contains("ip link set dev near xdp off"), "{error}");
        assert!(shows_xdp("near"), "the stranger is still there");
        xdp.detach(ifindex as i32, XdpFlags::from_bits_retain(flags)).unwrap();
    }
}

/// Guards the refusals: an interface that does not exist or was not loaded, a queue that the interface does not have,
/// and a file descriptor that is no AF_XDP socket.
#[test]
fn refusals_have_names() {
    if !privileged() {
        return;
    }
    let mut namespace = Namespace::enter(2);
    let ifindex = namespace.near.ifindex;
    let mut redirect = load(&namespace, Mode::Auto);
    let socket = unbound_socket();

    let error = redirect.register(ifindex, 2, socket.as_fd()).unwrap_err();
    assert!(matches!(error, Error::QueueOutOfRange { queue: 2, queues: 2, .. }), "{error}");
    let error = redirect.unregister(ifindex, 2).unwrap_err();
    assert!(matches!(error, Error::QueueOutOfRange { .. }), "{error}");
    let pipe = std::io::pipe().unwrap();
    let error = redirect.register(ifindex, 0, pipe.0.as_fd()).unwrap_err();
    assert!(matches!(error, Error::NotAnXdpSocket { .. }), "{error}");
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let error = redirect.register(ifindex, 0, tcp.as_fd()).unwrap_err();
    assert!(matches!(error, Error::NotAnXdpSocket { .. }), "{error}");
    let error = redirect.attach(ifindex + 1000).unwrap_err();
    assert!(matches!(error, Error::UnknownInterface { .. }), "{error}");

    redirect.register(ifindex, 1, socket.as_fd()).unwrap();
    redirect.unregister(ifindex, 1).unwrap();
    redirect.unregister(ifindex, 1).unwrap();

    namespace.near.ifindex += 1000;
    let error = load(&namespace, Mode::Auto).attach(namespace.near.ifindex).unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error}");
    assert!(Redirect::load(&Options::default(), &[]).is_err());
}

/// Guards that a frame goes to the socket of its own queue and no other, and that a closed socket frees its slot.
#[test]
fn each_queue_has_its_own_socket() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(2);
    let ifindex = namespace.near.ifindex;
    let mut redirect = load(&namespace, Mode::Native);
    redirect.attach(ifindex).unwrap();
    redirect.steer(service()).unwrap();
    let frame = datagram([192, 0, 2, 1]);

    let socket = unbound_socket();
    redirect.register(ifindex, 1, socket.as_fd()).unwrap();
    assert_eq!(redirect.try_frame(ifindex, 1, &frame).unwrap(), Action::Redirected);
    assert_eq!(redirect.try_frame(ifindex, 0, &frame).unwrap(), Action::Dropped);

    drop(socket);
    // A child that another test is about to start may hold a copy of the descriptor for a moment.
    let deadline = Instant::now() + Duration::from_secs(5);
    while redirect.try_frame(ifindex, 1, &frame).unwrap() != Action::Dropped {
        assert!(Instant::now() < deadline, "the closed socket kept its slot");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Guards that interfaces share what is steered, but neither sockets nor counters.
#[test]
fn interfaces_share_keys_only() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(1);
    let near = namespace.near.ifindex;
    let mut far = namespace.near.clone();
    far.name = "far".into();
    far.ifindex = nix::net::if_::if_nametoindex("far").unwrap();

    let mut redirect = load(&namespace, Mode::Auto);
    redirect.steer(service()).unwrap();
    redirect.add(&far).unwrap();
    redirect.attach(near).unwrap();
    redirect.attach(far.ifindex).unwrap();
    assert!(shows_xdp("near") && shows_xdp("far"));

    let socket = unbound_socket();
    redirect.register(near, 0, socket.as_fd()).unwrap();
    let frame = datagram([192, 0, 2, 1]);
    assert_eq!(redirect.try_frame(near, 0, &frame).unwrap(), Action::Redirected);
    assert_eq!(redirect.try_frame(far.ifindex, 0, &frame).unwrap(), Action::Dropped);
    let moved = |counters: Vec<xvs_redirect::Counter>| -> Vec<(&str, u64)> {
        counters.iter().filter(|counter| counter.packets > 0).map(|counter| (counter.name, counter.packets)).collect()
    };
    assert_eq!(moved(redirect.counters_of(near).unwrap()), [("redirected_service", 1)]);
    assert_eq!(moved(redirect.counters_of(far.ifindex).unwrap()), [("no_worker_dropped", 1)]);
    let sum = moved(redirect.counters().unwrap());
    assert_eq!(sum, [("redirected_service", 1), ("no_worker_dropped", 1)]);

    redirect.remove(near);
    assert!(!shows_xdp("near") && shows_xdp("far"));
    redirect.unsteer(&service()).unwrap();
    assert_eq!(redirect.try_frame(far.ifindex, 0, &frame).unwrap(), Action::Passed);
}

type Rings = (xsk_rs::RxQueue, xsk_rs::TxQueue, xsk_rs::FillQueue, xsk_rs::CompQueue);

/// An AF_XDP socket on a queue of `near`, in copy mode, without the program that libxdp would load.
fn bound_socket(queue: u32) -> ((Umem, Vec<xsk_rs::FrameDesc>), Rings) {
    let (umem, frames) = Umem::new(UmemConfig::default(), NonZeroU32::new(16).unwrap(), false).unwrap();
    let config = SocketConfig::builder()
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY)
        .build();
    // SAFETY: the only socket of this memory, and of this queue.
    let (tx, rx, rings) = unsafe { Socket::new(config, &umem, &"near".parse().unwrap(), queue) }.unwrap();
    let (fill, completion) = rings.unwrap();
    ((umem, frames), (rx, tx, fill, completion))
}

/// Sends a frame out of `far`, so that it arrives at `near`.
fn send(frame: &[u8]) {
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid address of this family.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = nix::net::if_::if_nametoindex("far").unwrap() as i32;
    // SAFETY: frame and address are valid for the call, with the sizes that are stated.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

/// Guards the whole way, in both modes: a frame of a service arrives in the worker's socket byte for byte, from its
/// first byte on; one of another address, sent before it, does not; and the counters say exactly that.
#[test]
fn frames_arrive_unchanged() {
    if !privileged() {
        return;
    }
    for mode in [Mode::Native, Mode::Generic] {
        let namespace = Namespace::enter(1);
        let ifindex = namespace.near.ifindex;
        let mut redirect = load(&namespace, mode);
        redirect.attach(ifindex).unwrap();
        redirect.steer(service()).unwrap();
        let ((umem, mut frames), (mut rx, _tx, mut fill, _completion)) = bound_socket(0);
        // SAFETY: the frames belong to this memory and are handed over once.
        let filled = unsafe { fill.produce(&frames) };
        assert_eq!(filled, frames.len());
        // SAFETY: the socket lives as long as this block.
        let fd = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
        redirect.register(ifindex, 0, fd).unwrap();

        let steered = datagram([192, 0, 2, 1]);
        send(&datagram([192, 0, 2, 9]));
        send(&steered);
        // SAFETY: the descriptors belong to this memory.
        let received = unsafe { rx.poll_and_consume(&mut frames, 2000) }.unwrap();
        assert_eq!(received, 1, "{mode:?}");
        // SAFETY: the frame was received just now, and nothing writes to it.
        let data = unsafe { umem.data(&frames[0]) };
        assert_eq!(data.contents(), steered, "{mode:?}");

        let moved: Vec<_> = redirect
            .counters()
            .unwrap()
            .into_iter()
            .filter(|counter| counter.packets > 0)
            .map(|counter| (counter.name, counter.packets, counter.bytes))
            .collect();
        let bytes = steered.len() as u64;
        assert_eq!(moved, [("redirected_service", 1, bytes), ("passed_not_steered", 1, bytes)]);
    }
}

/// Says to a copy of this program that it is to attach, and to be killed.
const TO_BE_KILLED: &str = "XVS_TEST_TO_BE_KILLED";

/// What `death_leaves_nothing` does in a process of its own: attaches, says so, and waits to be killed.
fn attach_and_wait() {
    let ifindex = nix::net::if_::if_nametoindex("near").expect("inside the namespace of the other process");
    let spec = xvs_redirect::InterfaceSpec { name: "near".into(), ifindex, queues: 1 };
    let mut redirect = Redirect::load(&Options::default(), &[spec]).unwrap();
    redirect.attach(ifindex).unwrap();
    println!("\nattached");
    std::thread::sleep(Duration::from_secs(60));
}

/// Guards that a living director's interface is refused, and that a killed one leaves nothing on it.
#[test]
fn death_leaves_nothing() {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        return attach_and_wait();
    }
    if !privileged() {
        return;
    }
    let namespace = Namespace::enter(1);
    let mut director = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death_leaves_nothing", "--nocapture"])
        .env(TO_BE_KILLED, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(director.stdout.take().unwrap()).lines();
    let attached = lines.map_while(Result::ok).any(|line| line == "attached");
    let shown = attached && shows_xdp("near");
    let refused = load(&namespace, Mode::Auto).attach(namespace.near.ifindex);
    director.kill().unwrap();
    director.wait().unwrap();

    assert!(shown, "the other process attached");
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    assert!(!shows_xdp("near"), "the dead process left its program");
    load(&namespace, Mode::Auto).attach(namespace.near.ifindex).unwrap();
}
