//! AF_XDP against the kernel: rings on veth pairs in network namespaces of their own, raw sockets at the other ends.
//!
//! Needs root; without it each test says so loudly and passes, unless `XVS_CI` is set.

mod frames;
mod namespace;
mod running;
mod wires;

use std::io::{self, Write};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use xvs::xsk::{self, BindError, Binding, Frames, ZeroCopy};
use xvs_engine::hop::Port;
use xvs_engine::rings::Rings;

use running::Running;
use wires::{SMALL, Turner, Wires, eventually, query};

/// A skip that nobody overlooks, also where the output of passing tests is hidden; and a failure where skipping would
/// be a lie.
fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(env::var_os("XVS_CI").is_none(), "XVS_CI is set, and the tests of AF_XDP need root");
    writeln!(io::stdout(), "\nSKIPPED: the tests of AF_XDP need root").expect("a terminal or a file");
    false
}

/// The frame that comes back for a query.
fn grown(number: u32) -> Vec<u8> {
    let query = query(number);
    [&frames::PEER[..], &frames::DIRECTOR, &[0x88, 0xb5], &[0xee; 40], &query[14..]].concat()
}

/// Guards the way of a frame: received whole, sent from another place in its chunk, the same bytes, none lost or
/// doubled, over hundreds of turns of every ring, with every chunk accounted for at every step.
#[test]
fn thousands_of_frames_come_in_grow_and_go_out() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(1);
    let (_redirect, rings) = wires.served(&SMALL);
    let peer = wires.peer(0);
    let mut turner = Turner::new(rings);
    turner.rings.replenish();
    let mut next = 0;
    for burst in 0..800 {
        let count = burst % 13 + 1;
        (next..next + count).for_each(|number| peer.send(number));
        let mut back = Vec::new();
        eventually("the burst", || {
            turner.receive(16);
            turner.grow(|port| port);
            turner.transmit();
            back.extend(peer.take());
            back.len() >= count as usize
        });
        assert_eq!(back, (next..next + count).map(grown).collect::<Vec<_>>(), "burst {burst}");
        next += count;
    }
    assert!(next > 5000);
    eventually("the last completions", || {
        turner.rings.replenish();
        turner.rings.ledger().tx == 0
    });
    assert_eq!(turner.rings.ledger().free + turner.rings.ledger().fill, 64);
    turner.finish();
}

/// Guards the shared frame memory: what comes in by one device leaves by the other without a copy, both ways at once.
#[test]
fn two_devices_share_one_memory() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let (_redirect, rings) = wires.served(&SMALL);
    let peers = [wires.peer(0), wires.peer(1)];
    let mut turner = Turner::new(rings);
    turner.rings.replenish();
    for burst in 0..200 {
        let numbers: Vec<u32> = (burst * 6..burst * 6 + 6).collect();
        numbers.iter().for_each(|&number| peers[number as usize % 2].send(number));
        let mut back = [Vec::new(), Vec::new()];
        eventually("both bursts", || {
            turner.receive(16);
            turner.grow(|port| Port(1 - port.0));
            turner.transmit();
            (0..2).for_each(|at| back[at].extend(peers[at].take()));
            back.iter().all(|frames| frames.len() >= 3)
        });
        for (at, frames) in back.iter().enumerate() {
            let expected = numbers.iter().filter(|&&number| number as usize % 2 != at).map(|&number| grown(number));
            assert_eq!(*frames, expected.collect::<Vec<_>>(), "burst {burst} at b{at}");
        }
    }
    turner.finish();
}

/// Guards the frames for packets that are cut: reception leaves an eighth of the pool alone, they can be taken and given
/// back, and nothing is taken that is not there.
#[test]
fn some_frames_are_spare() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let (_redirect, mut rings) = wires.served(&SMALL);
    for _ in 0..3 {
        rings.replenish();
        assert_eq!((rings.ledger().free, rings.ledger().fill), (8, 56), "of 64");
        let spare: Vec<_> = std::iter::from_fn(|| rings.spare()).collect();
        assert_eq!((spare.len(), rings.ledger().lent), (8, 8));
        assert!(spare.iter().all(|frame| rings.headroom(frame) == 256 && frame.is_empty()));
        spare.into_iter().for_each(|frame| rings.recycle(frame));
        assert!(rings.ledger().is_balanced());
    }
}

/// Guards a full transmit ring: it takes what it has room for, the rest waits in its order, and goes when there is room.
/// A device that is down and up again goes on where it was.
#[test]
fn a_full_ring_leaves_the_rest_in_the_outbox() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(1);
    let (_redirect, rings) = wires.served(&SMALL);
    let peer = wires.peer(0);
    let mut turner = Turner::new(rings);
    turner.rings.replenish();
    (0..24).for_each(|number| peer.send(number));
    let mut received = 0;
    eventually("all frames", || {
        received += turner.receive(24 - received);
        received == 24
    });
    turner.grow(|port| port);
    wires.here.ip("link set a0 down");
    assert_eq!(turner.transmit(), 16, "the ring has 16 slots");
    for _ in 0..3 {
        turner.rings.replenish();
        assert_eq!((turner.transmit(), turner.outboxes[0].len()), (0, 8));
    }
    wires.here.ip("link set a0 up");
    wires.await_carrier(0);
    let mut back = Vec::new();
    eventually("the rest", || {
        turner.receive(16);
        turner.transmit();
        back.extend(peer.take());
        back.len() >= 24
    });
    assert_eq!(back, (0..24).map(grown).collect::<Vec<_>>());
    turner.finish();
}

/// Guards one device against another one's death: a link that is down holds a share of the chunks and no more, so the
/// other one still receives and sends.
#[test]
fn a_dead_link_does_not_take_all_chunks() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let frames = Frames { tx_ring: 64, ..SMALL };
    let (_redirect, rings) = wires.served(&frames);
    let peer = wires.peer(0);
    let mut turner = Turner::new(rings);
    turner.rings.replenish();
    wires.here.ip("link set a1 down");
    for number in 0..200 {
        peer.send(number);
        turner.receive(16);
        turner.grow(|_| Port(1));
        turner.transmit();
        // What the worker does with a full outbox.
        for frame in turner.outboxes[1].drain(..) {
            turner.rings.recycle(frame);
        }
    }
    assert_eq!(turner.rings.ledger().tx, 16, "a quarter of 64");
    let _old = peer.take();
    peer.send(7);
    let mut back = Vec::new();
    eventually("an echo by the living device", || {
        turner.receive(16);
        turner.grow(|port| port);
        turner.transmit();
        back.extend(peer.take());
        back.contains(&grown(7))
    });
    turner.finish();
}

/// Guards what is told of a socket: veth can not do zero-copy, and the kernel's counts of trouble are its own.
#[test]
fn a_monitor_tells_the_kernels_words() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let (_redirect, rings) = wires.served(&SMALL);
    let peer = wires.peer(0);
    let monitors = rings.monitors().expect("descriptors");
    assert_eq!(monitors.len(), 2);
    for monitor in &monitors {
        assert!(!monitor.is_zero_copy().expect("an answer"));
        assert!(monitor.statistics().expect("an answer").iter().all(|(_, value, help)| *value == 0 && help.len() > 20));
    }
    // No frame was given for reception yet.
    (0..5).for_each(|number| peer.send(number));
    eventually("a count", || {
        let told = monitors[0].statistics().expect("an answer");
        told.iter().any(|(name, value, _)| *name == "rx_fill_ring_empty" && *value > 0)
    });
}

/// Guards a restart: a queue whose sockets were closed can be bound again at once, many times.
#[test]
fn a_queue_is_bound_again_at_once() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        let rings = wires.rings(&SMALL);
        slowest = slowest.max(begun.elapsed());
        drop(rings);
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    println!("the slowest bind took {slowest:?}");
}

/// Guards the errors of binding: each names the device and the cure, and a busy queue is given up in seconds.
#[test]
fn errors_of_binding_name_the_cure() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(1);
    let attempt = |frames: &Frames, interface: &str, queue, zero_copy| {
        let binding = Binding { interface: interface.into(), queue, zero_copy };
        let error = wires.here.enter(|| xsk::bind(frames, &[binding]).map(drop).expect_err("an error"));
        assert!(!error.to_string().contains('\n'), "{error}");
        error.to_string()
    };
    let told = attempt(&SMALL, "none0", 0, ZeroCopy::Auto);
    assert!(told.contains("none0") && told.contains("still there"), "{told}");
    let told = attempt(&SMALL, "a0", 77, ZeroCopy::Auto);
    assert!(told.contains("queue 77 of a0") && told.contains("below"), "{told}");
    let told = attempt(&SMALL, "a0", 0, ZeroCopy::Require);
    assert!(told.contains("zero-copy") && told.contains("zero_copy = \"auto\""), "{told}");
    let told = attempt(&Frames { size: 1000, ..SMALL }, "a0", 0, ZeroCopy::Auto);
    assert!(told.contains("frames"), "{told}");
    let _living = wires.rings(&SMALL);
    let begun = Instant::now();
    let told = attempt(&SMALL, "a0", 0, ZeroCopy::Auto);
    assert!(told.contains("another program"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Guards machines without huge pages: done without if that was allowed, refused with the cure if not.
#[test]
fn huge_pages_are_used_if_there_are_any() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(1);
    let reserved = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    let frames = Frames { huge_pages: true, count: 1024, ..SMALL };
    let rings = wires.rings(&frames);
    let without: u32 = reserved.trim().parse().unwrap_or(0);
    assert!(without > 0 || !rings.has_huge_pages());
    drop(rings);
    if without == 0 {
        let frames = Frames { huge_pages_optional: false, ..frames };
        let error = wires.here.enter(|| xsk::bind(&frames, &wires.bindings()).map(drop).expect_err("an error"));
        assert!(matches!(error, BindError::Memory { .. }), "{error}");
        assert!(error.to_string().contains("nr_hugepages"), "{error}");
    }
}

/// Guards a worker against a device that is taken away under it: rings go on without an error, every chunk stays
/// accounted for, and the socket either says nothing or can be told by its error flags.
#[test]
fn a_device_that_vanishes_leaves_quiet_rings() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let (_redirect, rings) = wires.served(&SMALL);
    let peer = wires.peer(0);
    let mut turner = Turner::new(rings);
    turner.rings.replenish();
    (0..8).for_each(|number| peer.send(number));
    eventually("frames", || turner.receive(8) > 0);
    wires.here.ip("link del a1");
    turner.grow(|_| Port(1));
    for _ in 0..100 {
        turner.transmit();
        turner.receive(8);
    }
    let sockets: Vec<_> = turner.rings.sockets().collect();
    let mut fds = [PollFd::new(sockets[1], PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(100_u8)).expect("polling");
    let told = fds[0].revents().expect("flags");
    assert!(!told.contains(PollFlags::POLLIN), "nothing comes from a device that is gone: {told:?}");
    println!("the socket of a device that is gone polls as {told:?}");
    turner.finish();
}

/// Guards the director against an interface that is taken away while it runs: it lives on, sleeps, tells so in its
/// status and log, carries out changes, and ends in order. Its log is plain JSON.
#[test]
fn a_director_survives_the_loss_of_an_interface() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let running = Running::start(&wires, "json");
    let modes = |status: &Value| -> Vec<String> {
        let interfaces = status["status"]["interfaces"].as_array().cloned().unwrap_or_default();
        interfaces.iter().map(|interface| interface["xdp_mode"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(!modes(&running.xvs(&["status"])).contains(&"gone".to_owned()));
    assert!(wires.here.ip("addr show a0").contains("192.0.2.10/32"));
    wires.here.ip("link set a1 down");
    wires.here.ip("link set a1 up");
    wires.here.ip("link del a1");
    eventually("the loss to be told", || modes(&running.xvs(&["status"]))[1] == "gone");
    let (before, begun) = (running.ticks(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let share = (running.ticks() - before) as f64 / (begun.elapsed().as_secs_f64() * 100.0);
    assert!(share < 0.2, "it uses {share} of a CPU for nothing");
    let document = fs::read_to_string(running.log.replace("/log", "/site.toml")).expect("the file");
    fs::write(running.log.replace("/log", "/more.toml"), document + "weight = 3\n").expect("a file");
    let plan = running.xvs(&["apply", &running.log.replace("/log", "/more.toml")]);
    assert_eq!(plan["plan"].as_array().map(Vec::len), Some(1), "{plan}");
    for words in [&["drops"][..], &["explain", "tcp", "198.51.100.7:1", "192.0.2.10:80"]] {
        assert!(running.xvs(words).is_object());
    }
    let (success, log) = running.stop();
    assert!(success, "{log}");
    assert!(!wires.here.ip("addr show a0").contains("192.0.2.10/32"), "its VIP is gone");
    assert!(log.contains("an interface is gone") && log.contains("edit_server"), "{log}");
    for line in log.lines() {
        let told: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(told["level"].is_string());
    }
}

/// Guards the whole way of settings and timeouts in a running director: from its file at the start, by the controller's
/// own look at the table, and by a file that is applied, which changes what it names.
#[test]
fn a_running_director_has_settings_and_timeouts() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(2);
    let tables = "[sysctl]\ndrop_packet = 1\namemthresh = 2048\nxvs.refuse_nodest = 1\n[timeouts]\nclose_wait = 10\n";
    let running = Running::start_with(&wires, "human", tables);
    let value = |name: &str| {
        let told = running.xvs(&["sysctl", "list", "--all"]);
        let all = told["settings"].as_array().expect("a list").clone();
        let setting = all.iter().find(|setting| setting["name"] == name).expect("it").clone();
        setting["value"].as_str().expect("text").to_owned()
    };
    let timeout = |words: &[&str], state: &str| {
        let told = running.xvs(&[&["timeouts"], words].concat());
        let all = told["state_timeouts"][0]["timeouts"].as_array().expect("a list").clone();
        all.iter().find(|timeout| timeout["state"] == state).expect("it")["seconds"].as_u64().expect("a number")
    };
    assert_eq!(value("xvs.refuse_nodest"), "1");
    assert_eq!(value("net.ipv4.vs.expire_nodest_conn"), "0");
    eventually("the defence", || value("net.ipv4.vs.drop_packet") == "2");
    assert_eq!((timeout(&[], "close_wait"), timeout(&[], "established")), (10, 900));

    let file = running.log.replace("/log", "/next.toml");
    let text = "[sysctl]\ndrop_packet = 1\nsloppy_tcp = true\n[[service]]\naddress = \"192.0.2.10:80\"\n\
                timeouts.established = 60\n[[service.server]]\naddress = \"10.0.0.1:80\"\n";
    fs::write(&file, text).expect("a file");
    let plan = running.xvs(&["apply", &file]);
    assert_eq!(
        plan["plan"].as_array().expect("a plan").iter().filter_map(|step| step.as_str()).collect::<Vec<_>>(),
        [
            "Set: sloppy_tcp 0 to 1.",
            "Set the timeouts of tcp 192.0.2.10:80: established the director's to 60 s.",
            "Set the timeouts: close_wait 10 s to 60 s.",
        ]
    );
    assert_eq!((value("net.ipv4.vs.sloppy_tcp"), value("xvs.refuse_nodest")), ("1".to_owned(), "1".to_owned()));
    assert_eq!((timeout(&["tcp", "192.0.2.10:80"], "established"), timeout(&[], "close_wait")), (60, 60));
    assert_eq!(running.xvs(&["apply", &file])["plan"].as_array().map(Vec::len), Some(0));
    let (ended_well, log) = running.stop();
    assert!(ended_well, "{log}");
}

/// Guards start-up: one that fails half way takes back what it has done, its own VIPs included, and says why.
#[test]
fn a_failed_start_leaves_nothing() {
    if !privileged() {
        return;
    }
    let wires = Wires::new(1);
    let scratch = env::temp_dir().join(format!("xvs-xsk-failed-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a directory");
    let config = scratch.join("site.toml");
    let site = "[connections]\ncapacity = 1024\n[director]\nown_vips = true\n[[interface]]\nname = \"a0\"\nqueues = 1\n\
                [[service]]\naddress = \"192.0.2.10:80\"\n";
    fs::write(&config, site).expect("a file");
    // The directory of the control socket can not be made: found out last.
    let control = "/proc/none/xvs.sock";
    let before = wires.here.ip("addr show a0");
    let output = Command::new("ip")
        .args(["netns", "exec", wires.here.name(), env!("CARGO_BIN_EXE_xvs"), "run", "--control", control, "--config"])
        .arg(&config)
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{stderr}");
    assert!(stderr.contains("changed"), "the rules were in force already: {stderr}");
    assert!(!stderr.contains('\x1b'), "colours in a log file: {stderr}");
    assert!(!wires.here.ip("addr show a0").contains("192.0.2.10"), "its VIP is gone");
    assert_eq!(wires.here.ip("addr show a0").contains("prog/xdp"), before.contains("prog/xdp"));
    let _ = fs::remove_dir_all(&scratch);
}
