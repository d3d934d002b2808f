//! One virtual machine: qemu's command line, its two serial lines, and its end.
//!
//! The first line is the kernel's console and goes to `target/vm/console.log`. The second belongs to the scenario: each
//! line that it prints is a [`Word`]. A scenario that wants the counts of this side (`MARK`) waits for an answer.
//!
//! Invariant: qemu ends with its value, by its pid, and the scenario has a time limit inside and outside.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::store::Store;

/// Memory, MiB.
const MEMORY: u32 = 2048;

/// Processors.
const CPUS: u32 = 2;

/// How often a wait looks whether it should end.
const PAUSE: Duration = Duration::from_millis(200);

/// What does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accelerator {
    /// qemu itself: everywhere, slow.
    Tcg,
    /// The processor, by /dev/kvm.
    Kvm,
}

/// How the director's interfaces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Device {
    /// virtio-net with the features that zero-copy needs.
    Virtio,
    /// virtio-net as qemu makes it by default, which cannot do zero-copy.
    VirtioPlain,
    /// Intel's igb.
    Igb,
}

/// What a machine is to be.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    /// File of `tests/vm`, and words for it.
    pub(super) scenario: &'a str,
    pub(super) words: Vec<String>,
    pub(super) accelerator: Accelerator,
    pub(super) device: Device,
    /// Which there are: `a` and `b` are the director's, `c` and `d` the far ends of their wires.
    pub(super) interfaces: &'a str,
    /// Pairs of queues of `a` and `b`; more than one take `wires`.
    pub(super) queues: u32,
    /// The namespace with taps.
    pub(super) wires: &'a str,
    /// Which interfaces have a tap; the others are joined inside of qemu, which costs this machine less.
    pub(super) taps: &'a str,
    /// The director's interfaces collect what they send for so long, as a NIC with interrupt moderation reports it.
    pub(super) moderation: Option<Duration>,
    /// qemu's plugin that counts instructions, and its file.
    pub(super) counter: Option<(&'a Path, &'a Path)>,
    pub(super) limit: Duration,
}

/// What a scenario says, a line each.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `MARK name`: wants the counts of this side taken, and waits.
    Mark(String),
    /// `EXIT code`: the scenario's end.
    Exit(i32),
    /// Anything else.
    Line(String),
}

impl Word {
    fn parse(line: &str) -> Self {
        if let Some(name) = line.strip_prefix("MARK ") {
            return Word::Mark(name.trim().to_owned());
        }
        match line.strip_prefix("EXIT ").map(|code| code.trim().parse()) {
            Some(Ok(code)) => Word::Exit(code),
            _ => Word::Line(line.to_owned()),
        }
    }
}

/// A running machine.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    /// What qemu complains of.
    log: PathBuf,
    lines: Receiver<String>,
    deadline: Instant,
    interrupted: Arc<AtomicBool>,
}

impl Machine {
    /// Starts one from the archives of a base and a load.
    pub(super) fn start(store: &Store, archives: [&Path; 2], spec: &Spec<'_>) -> Result<Self> {
        let initrd = store.directory().join("initrd.cpio");
        join(&archives, &initrd).context("the machine's file system cannot be put together")?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone()).context("signals cannot be watched")?;
        }
        let path = store.directory().join("qemu.log");
        let log = File::create(&path).context("no log file for qemu")?;
        let mut command = spec.command(store, &initrd)?;
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("qemu could not be started")?;
        let output = BufReader::new(qemu.stdout.take().context("qemu has no output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Machine { qemu, log: path, lines, deadline: Instant::now() + spec.limit, interrupted })
    }

    /// The next word of the scenario; an error if the machine has ended or time is up.
    pub(super) fn next(&mut self) -> Result<Word> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            match self.lines.recv_timeout(PAUSE) {
                Ok(line) => return Ok(Word::parse(&line)),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine ended before its scenario"),
                Err(RecvTimeoutError::Timeout) if Instant::now() > self.deadline => bail!("the time limit is over"),
                Err(RecvTimeoutError::Timeout) => self.check_accelerator()?,
            }
        }
    }

    /// A /dev/kvm may be there and not be able to run a kernel. qemu stops the machine then, and does not end.
    fn check_accelerator(&self) -> Result<()> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(
            !log.contains("KVM internal error"),
            "the /dev/kvm of this machine cannot run it: use `--accelerator tcg`"
        );
        Ok(())
    }

    /// Lets a scenario that wants a mark go on.
    pub(super) fn go_on(&mut self) -> Result<()> {
        let input = self.qemu.stdin.as_mut().context("qemu has no input")?;
        input.write_all(b"\n").and_then(|()| input.flush()).context("the scenario cannot be answered")
    }

    /// qemu's process, whose threads are the processors.
    pub(super) fn pid(&self) -> u32 {
        self.qemu.id()
    }
}

/// Runs a machine whose scenario line is this terminal.
pub(super) fn interactive(store: &Store, archives: [&Path; 2], spec: &Spec<'_>) -> Result<()> {
    let initrd = store.directory().join("initrd.cpio");
    join(&archives, &initrd).context("the machine's file system cannot be put together")?;
    let status = spec.command(store, &initrd)?.status().context("qemu could not be started")?;
    ensure!(status.success(), "qemu failed ({status})");
    Ok(())
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Accelerator {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        }
    }
}

impl Spec<'_> {
    fn command(&self, store: &Store, initrd: &Path) -> Result<Command> {
        let qemu = store.program("usr/bin/qemu-system-x86_64", "qemu-system-x86_64");
        // `ip netns exec` becomes the program, so its pid is qemu's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.wires]).arg(qemu.get_program()).args(qemu.get_args());
        for directory in store.firmware() {
            command.arg("-L").arg(directory);
        }
        let (accelerator, cpu) = match self.accelerator {
            // Five levels of page tables would be emulated, and cost a fifth.
            Accelerator::Tcg => ("tcg,thread=multi", "max,la57=off"),
            Accelerator::Kvm => ("kvm", "host"),
        };
        let (memory, cpus) = (MEMORY.to_string(), CPUS.to_string());
        command.args(["-M", "q35", "-accel", accelerator, "-cpu", cpu, "-smp", &cpus, "-m", &memory]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-name",
            "xvs,debug-threads=on",
        ]);
        let console = store.directory().join("console.log");
        command.arg("-chardev").arg(format!("file,id=console,path={}", console.display()));
        command.args(["-serial", "chardev:console", "-chardev", "stdio,id=scenario,signal=off"]);
        command.args(["-serial", "chardev:scenario"]);
        command.arg("-kernel").arg(store.image()?).arg("-initrd").arg(initrd);
        command.arg("-append").arg(self.kernel_line());
        for interface in self.interfaces.chars() {
            command.args(self.interface(interface));
        }
        if let Some((plugin, counts)) = self.counter {
            command.arg("-plugin").arg(format!("{},counts={}", plugin.display(), counts.display()));
        }
        Ok(command)
    }

    fn kernel_line(&self) -> String {
        // Times and addresses that repeat; no cure for processors that are not there. A panic ends qemu.
        let quiet = "console=ttyS0 loglevel=5 panic=-1 mitigations=off nokaslr norandmaps nowatchdog net.ifnames=0";
        let words = self.words.join(",");
        format!("{quiet} xvs.scenario={} xvs.words={words} xvs.limit={}", self.scenario, self.limit.as_secs())
    }

    fn interface(&self, letter: char) -> Vec<String> {
        let is_directors = ['a', 'b'].contains(&letter);
        let queues = if is_directors { self.queues } else { 1 };
        let many = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        let network = match self.taps.contains(letter) {
            true => format!("tap,id={letter},ifname={letter},script=no,downscript=no,vhost=off{many}"),
            false => format!("hubport,id={letter},hubid=0"),
        };
        let mac = format!("netdev={letter},mac=52:54:00:00:00:0{letter},romfile=");
        // Packets are whole on the wire: no checksum is left to a device, none is made of several.
        let whole = "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,host_ufo=off";
        let plain = format!("virtio-net-pci,{mac},{whole},csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off");
        let collect =
            self.moderation.map(|pause| format!(",tx=timer,x-txtimer={}", pause.as_nanos())).unwrap_or_default();
        let rings = format!("rx_queue_size=1024{collect}");
        let vectors = 2 * queues + 2;
        let many = if queues > 1 { format!(",mq=on,vectors={vectors}") } else { String::new() };
        let device = match self.device {
            _ if !is_directors => plain,
            // The driver maps memory for the device itself, which zero-copy needs, only behind "an IOMMU". A packet of
            // AF_XDP takes two descriptors; with indirect ones the driver would allocate memory for each packet's.
            Device::Virtio => {
                let zero_copy = "iommu_platform=on,disable-legacy=on,indirect_desc=off";
                format!("virtio-net-pci,{mac},{whole},{rings}{many},{zero_copy}")
            }
            Device::VirtioPlain => format!("virtio-net-pci,{mac},{whole},{rings}{many}"),
            Device::Igb => format!("igb,bus=port-{letter},{mac}"),
        };
        let mut words = Vec::new();
        if self.device == Device::Igb && is_directors {
            let slot = u32::from(letter == 'b') + 1;
            words.extend(["-device".into(), format!("pcie-root-port,id=port-{letter},chassis={slot},slot={slot}")]);
        }
        words.extend(["-netdev".into(), network, "-device".into(), device]);
        words
    }
}

/// Writes files behind each other.
fn join(files: &[&Path], into: &Path) -> io::Result<()> {
    let mut out = File::create(into)?;
    for file in files {
        io::copy(&mut File::open(file)?, &mut out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the words that the scenarios and this side agree on.
    #[test]
    fn a_scenarios_lines_are_words() {
        assert_eq!(Word::parse("MARK begin"), Word::Mark("begin".into()));
        assert_eq!(Word::parse("EXIT 0"), Word::Exit(0));
        assert_eq!(Word::parse("EXIT soon"), Word::Line("EXIT soon".into()));
        assert_eq!(Word::parse("ok: EXIT 1"), Word::Line("ok: EXIT 1".into()));
    }
}
