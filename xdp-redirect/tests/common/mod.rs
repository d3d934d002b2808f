//! What both test programs need: the right to test at all, network namespaces, sockets, and a socket's worth of help.
#![allow(dead_code, unreachable_pub)] // each test program uses a part of it

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use xvs_redirect::{InterfaceSpec, Options, Redirect};

/// Loads the program, or says loudly why the test is skipped. In continuous integration (`XVS_CI` set) lacking rights
/// is a failure: a test that never runs guards nothing.
pub fn load_or_skip(options: &Options, interfaces: &[InterfaceSpec]) -> Option<Redirect> {
    match Redirect::load(options, interfaces) {
        Ok(redirect) => Some(redirect),
        Err(error) if std::env::var_os("XVS_CI").is_none() && matches!(error, xvs_redirect::Error::NoPrivilege) => {
            skipped(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Says that a test did not run. Past `eprintln!`, whose words the test harness keeps to itself when a test passes.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    writeln!(std::io::stdout(), "\nSKIPPED: {}: {why}", thread.name().unwrap_or("a test")).ok();
}

/// May this process do what these tests do? Says so loudly if not.
pub fn privileged() -> bool {
    let lo = InterfaceSpec { name: "lo".into(), ifindex: 1, queues: 1 };
    load_or_skip(&Options::default(), &[lo]).is_some()
}

/// An AF_XDP socket bound to nothing: enough to stand in a socket map, not enough to receive.
pub fn unbound_socket() -> OwnedFd {
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Runs a command that must succeed, and answers with what it printed.
pub fn shell(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{errors}");
    text
}

/// A network namespace with a pair of virtual Ethernet devices, `near` and `far`, which the calling thread enters for
/// the rest of its life. Removed on drop, thus also when a test panics.
pub struct Namespace {
    name: String,
    pub near: InterfaceSpec,
}

impl Namespace {
    pub fn enter(queues: u32) -> Namespace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("xvs-redirect-{}-{number}", process::id());
        shell(&format!("ip netns add {name}"));
        // From here on a panic must remove it.
        let mut namespace = Namespace { near: InterfaceSpec { name: "near".into(), ifindex: 0, queues }, name };
        let handle = File::open(format!("/run/netns/{}", namespace.name)).expect("ip made it");
        nix::sched::setns(handle, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");

        let shape = format!("numrxqueues {queues} numtxqueues {queues}");
        shell(&format!("ip link add near {shape} type veth peer name far {shape}"));
        for device in ["near", "far"] {
            // No router solicitations and no duplicate address detection: counters must stand still.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").ok();
            shell(&format!("ip link set {device} up"));
        }
        namespace.near.ifindex = nix::net::if_::if_nametoindex("near").expect("just made");
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Does `ip` show an XDP program on the device?
pub fn shows_xdp(device: &str) -> bool {
    let text = shell(&format!("ip -d link show dev {device}"));
    text.contains("xdp") && text.contains("prog/xdp")
}
