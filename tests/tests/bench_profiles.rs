//! What `tests/bench` has for people with real NICs, as far as it can be tried without any.
//!
//! TRex's profiles are compiled by TRex's own client library, which comes from PyPI, and their packets go through the
//! director's engine by `xvs replay`. Of the script for pktgen this tests what it would write to the kernel and what it
//! refuses; `tests/bench/pktgen/check.sh` runs it, where there is a pktgen.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use xvs_tests::{binary, in_ci, skipped};

const PKTGEN: &str = "pktgen/pktgen.sh";
const MAC: &str = "02:00:00:00:00:01";

fn bench(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(name)
}

/// Runs a command to its end: exit code, standard output, standard error.
fn finished(command: &mut Command) -> Result<(Option<i32>, String, String)> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn pktgen(arguments: &str) -> Result<(Option<i32>, String, String)> {
    finished(Command::new("sh").arg(bench(PKTGEN)).args(arguments.split_whitespace()))
}

/// Guards that pktgen is told what the options say: queues and their CPUs, shares of rate and number, ranges of flows.
#[test]
fn pktgen_is_told_what_the_options_say() -> Result<()> {
    let options = "--clients 198.18.0.1-198.18.0.8 --flows 64 --sport 2000 --cpus 4,5 --pps 1001 --count 11 --size 128";
    let (code, told, _) = pktgen(&format!("--device eth7 --dst-mac {MAC} {options} --checksum --dry-run"))?;
    ensure!(code == Some(0), "exit code {code:?}");
    let queue = |number: u8, cpu: u8, count: u8, rate: u16| {
        format!(
            "kpktgend_{cpu}: add_device eth7@{number}\n\
             count {count}\nclone_skb 0\npkt_size 124\nflag NO_TIMESTAMP\n\
             queue_map_min {number}\nqueue_map_max {number}\nratep {rate}\ndst_mac {MAC}\n\
             dst 198.19.255.10\nsrc_min 198.18.0.1\nflag IPSRC_RND\nsrc_max 198.18.0.9\n\
             udp_dst_min 80\nudp_dst_max 80\nudp_src_min 2000\nudp_src_max 2008\nflag UDPSRC_RND\nflag UDPCSUM\n"
        )
    };
    let due = format!("{}{}pgctrl: start\n", queue(0, 4, 6, 501), queue(1, 5, 5, 500));
    let told = told.replace("eth7@0: ", "").replace("eth7@1: ", "");
    ensure!(told == due, "told:\n{told}\ndue:\n{due}");

    let (_, told, _) = pktgen(&format!("--device eth7 --dst-mac {MAC} --vip 2001:2:0:f::10 --mode receive --dry-run"))?;
    for line in [
        "dst6 2001:2:0:f::10",
        "src6 2001:2::1",
        "pkt_size 78",
        "xmit_mode netif_receive",
        "udp_src_max 17408",
        "flag UDPCSUM",
    ] {
        ensure!(told.lines().any(|told| told == format!("eth7@0: {line}")), "`{line}` is missing:\n{told}");
    }
    Ok(())
}

/// Guards that a mistake on the command line ends with exit code 2 and a line that names it, before anything is sent.
#[test]
fn mistakes_for_pktgen_are_named() -> Result<()> {
    let whole = format!("--device eth7 --dst-mac {MAC} ");
    let mistakes = [
        ("--device eth7", "--dst-mac is missing"),
        ("--dst-mac 02:00:00:00:00:01", "--device is missing"),
        ("--dst-mac 2:0:0:0:0:1", "'2:0:0:0:0:1' is no MAC address"),
        ("--fast", "--fast is no option"),
        ("--vip", "--vip needs a value"),
        ("+ --vip 198.19.256.1", "'198.19.256.1' is no IPv4 address"),
        ("+ --vip 198.19.1", "'198.19.1' is no IPv4 address"),
        ("+ --vip 2001:::1", "'2001:::1' is no IPv6 address"),
        ("+ --vip 2001:2", "'2001:2' is no IPv6 address"),
        ("+ --vip 2001:2::g", "'2001:2::g' is no IPv6 address"),
        ("+ --vport 65536", "65536 is not within 1 to 65535"),
        ("+ --size 63", "63 is not within 64 to 9216"),
        ("+ --size 99999999999999999999", "is not within 64 to 9216"),
        ("+ --size 64 --vip 2001:2::10", "82 is the least here"),
        ("+ --size imix --vip 2001:2::10", "IPv6 needs 82"),
        ("+ --flows 65", "65 is no multiple of the 64 clients"),
        ("+ --flows 6400000", "64 clients have 4128704 flows at most"),
        ("+ --clients 198.18.0.9-198.18.0.1", "ends before it begins"),
        ("+ --clients 198.18.0.9 --vip 2001:2::10", "pktgen varies no IPv6 sources"),
        ("+ --client 2001:2::1", "--client is for IPv6"),
        ("+ --order up", "neither random nor seq"),
        ("+ --order seq", "have a common divisor"),
        ("+ --cpus 1,,2", "is no list such as 0,1,2"),
        ("+ --cpus 1,1", "names a CPU twice"),
        ("+ --cpus 1 --queues 2", "names 1 CPUs for 2 queues"),
        ("+ --queues 8 --pps 7", "cannot be shared out to 8 threads"),
        ("+ --seconds 3 --count 4", "exclude each other"),
        ("+ --mode queue --burst 2", "there are none in --mode queue"),
        ("+ --mode fast", "none of start, queue, receive"),
    ];
    for (arguments, words) in mistakes {
        let (code, told, said) = pktgen(&format!("--dry-run {}", arguments.replace("+ ", &whole)))?;
        ensure!(code == Some(2) && told.is_empty(), "`{arguments}`: exit code {code:?}, told: {told}");
        ensure!(said.contains(words), "`{arguments}`: `{words}` was due: {said}");
    }
    Ok(())
}

/// Guards that TRex's profiles are what their words say, by TRex's own library, and that the director forwards their
/// packets: known and new connections, IPv6, IMIX, SYNs, probes, and answers by NAT.
#[test]
fn profiles_compile_and_their_packets_are_forwarded() -> Result<()> {
    println!("guards: TRex's profiles say what they do, and the director forwards their packets");
    let library = match library() {
        Ok(library) => library,
        Err(error) if in_ci() => return Err(error),
        Err(error) => {
            skipped(
                "TRex's profiles say what they do, and the director forwards their packets",
                &format!("{error:#}."),
            );
            return Ok(());
        }
    };
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trex-packets");
    let mut check = Command::new("python3");
    // The profiles are imported from the source tree; compiled files do not belong there.
    check
        .arg(bench("trex/check.py"))
        .arg("--write")
        .arg(&scratch)
        .env("PYTHONPATH", &library)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, told, said) = finished(&mut check)?;
    ensure!(code == Some(0), "exit code {code:?}\n{told}{said}");
    replayed(&scratch)
}

/// What the director makes of the first packets of each stream.
fn replayed(scratch: &Path) -> Result<()> {
    let service = |address: &str, protocol: &str, method: &str, servers: &[&str]| {
        let head = format!("[[service]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n");
        servers.iter().fold(head, |text, server| {
            format!("{text}[[service.server]]\naddress = \"{server}\"\nmethod = \"{method}\"\n")
        })
    };
    let (old, new) = (["198.19.0.11", "198.19.0.12"], ["2001:2:0:5::11"]);
    let head = "[connections]\ncapacity = 8192\n[[interface]]\nname = \"eth0\"\ngateway_mac = \"02:00:00:00:00:99\"\n";
    let mut site = head.to_owned();
    for protocol in ["udp", "tcp"] {
        site += &service("198.19.255.10:80", protocol, "dr", &old);
        site += &service("[2001:2:0:f::10]:80", protocol, "dr", &new);
    }
    site += &service("198.19.255.10:5000", "udp", "dr", &old);
    fs::write(scratch.join("site.toml"), site)?;
    let nat = service("198.19.255.10:80", "udp", "nat", &["198.19.0.11:8080"]);
    fs::write(scratch.join("nat.toml"), format!("{head}{nat}"))?;

    // In order, every packet is a connection of its own.
    for name in ["udp-seq", "udp-million", "udp6-seq", "syn", "syn-bare", "syn6"] {
        let frames = if name == "syn-bare" { 64 } else { 512 };
        let due = format!("{frames} frames: {frames} sent, 0 dropped; {frames} connections at the end");
        let found = replay(scratch, "site.toml", &[name])?;
        // Drawn at random, a flow may come twice.
        let (found, due) =
            if name == "syn6" { (forwarded(&found), forwarded(&due)) } else { (found.as_str(), due.as_str()) };
        ensure!(found == due, "{name}: {found}");
    }
    let due = "512 frames: 512 sent, 0 dropped; 16 connections at the end";
    let found = replay(scratch, "site.toml", &["udp-few"])?;
    ensure!(found == due, "udp-few: {found}");
    for (name, frames) in [
        ("udp-random", 512),
        ("udp-zero", 512),
        ("imix", 1536),
        ("imix-tunnel", 192),
        ("imix6", 192),
        ("latency", 4608),
        ("latency6", 128),
    ] {
        let found = replay(scratch, "site.toml", &[name])?;
        ensure!(forwarded(&found) == format!("{frames} frames: {frames} sent, 0 dropped"), "{name}: {found}");
    }

    let due = "1024 frames: 1024 sent, 0 dropped; 512 connections at the end";
    let found = replay(scratch, "nat.toml", &["udp-seq", "answers"])?;
    ensure!(found == due, "requests and answers: {found}");
    let due = "512 frames: 0 sent, 512 dropped; 0 connections at the end";
    let found = replay(scratch, "nat.toml", &["answers"])?;
    ensure!(found == due, "answers that nobody asked for: {found}");
    Ok(())
}

/// All but the number of connections.
fn forwarded(summary: &str) -> &str {
    summary.split(';').next().unwrap_or(summary)
}

/// Replays captures one after the other as one.
fn replay(scratch: &Path, config: &str, names: &[&str]) -> Result<String> {
    /// Of a pcap file.
    const HEADER: usize = 24;
    let mut capture = fs::File::create(scratch.join("in"))?;
    for (nth, name) in names.iter().enumerate() {
        let bytes = fs::read(scratch.join(format!("{name}.pcap")))?;
        capture.write_all(if nth == 0 { &bytes } else { &bytes[HEADER..] })?;
    }
    let mut command = Command::new(binary("xvs")?);
    command.arg("replay").arg("--config").arg(scratch.join(config));
    command.arg("--pcap-in").arg(scratch.join("in")).arg("--pcap-out").arg(scratch.join("out"));
    let (code, told, said) = finished(&mut command)?;
    ensure!(code == Some(0), "{names:?}: exit code {code:?}: {said}");
    Ok(told.trim().to_owned())
}

/// Where TRex's client library is: installed from PyPI once for each version.
fn library() -> Result<PathBuf> {
    let wanted = fs::read_to_string(bench("trex/requirements.txt"))?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trex-client");
    let mark = place.join("installed-from.txt");
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) {
        return Ok(place);
    }
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    install.args(["--no-compile", "--root-user-action=ignore"]);
    install.arg("--target").arg(&place).arg("-r").arg(bench("trex/requirements.txt"));
    let (code, _, said) = finished(&mut install).context("python3 not found: the package python3-pip brings it")?;
    if code != Some(0) {
        bail!("TRex's client library cannot be installed from PyPI (python3-pip, network?): {}", said.trim());
    }
    fs::write(mark, wanted)?;
    Ok(place)
}
