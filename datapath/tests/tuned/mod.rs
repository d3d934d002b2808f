//! A made-up machine for `xvs tune`: NICs in memory, and files of /sys and /proc in a directory.
//!
//! Invariant: as it is made, nothing about it could be better; tests spoil what they are about. Like a driver, a NIC
//! forgets its indirection table when the number of queues changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use xvs::kernel::{Feature, Spread};
use xvs::tune::device::{Counts, Device, FOUR_FIELDS, Flow, Pause, Sizes};
use xvs::tune::options::Tune;
use xvs::tune::setting::Machine;
use xvs::tune::tree::Tree;
use xvs::tune::{Outcome, TuneError, run_on};

/// A NIC.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nic {
    pub(crate) index: u32,
    pub(crate) driver: &'static str,
    pub(crate) channels: (Counts, Counts),
    pub(crate) rings: (Sizes, Sizes),
    /// A driver that rounds ring sizes down to a multiple of this.
    pub(crate) ring_step: u32,
    pub(crate) features: BTreeMap<&'static str, Feature>,
    pub(crate) pause: Pause,
    pub(crate) hash: BTreeMap<String, u64>,
    pub(crate) spread: Spread,
    pub(crate) rules: u32,
}

impl Nic {
    pub(crate) fn table(&mut self, queues: u32) {
        self.spread.table = (0..128).map(|at| at % queues).collect();
    }

    pub(crate) fn feature(&mut self, name: &'static str, active: bool, changeable: bool) {
        self.features.insert(name, Feature { active, requested: active, changeable });
    }
}

/// The NICs of the machine, and what drivers refuse.
#[derive(Default)]
pub(crate) struct Nics {
    pub(crate) all: RefCell<BTreeMap<&'static str, Nic>>,
    /// Orders and questions that are refused, with the number of the error.
    pub(crate) refused: RefCell<BTreeMap<&'static str, i32>>,
    /// Orders that were carried out.
    pub(crate) orders: RefCell<Vec<String>>,
    /// Orders until the process dies.
    pub(crate) life: RefCell<Option<usize>>,
}

impl Nics {
    fn get<Answer>(&self, name: &str, question: &str, answer: impl Fn(&Nic) -> Answer) -> io::Result<Answer> {
        self.refusal(question)?;
        self.all.borrow().get(name).map(answer).ok_or(io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn set(&self, name: &str, order: &str, change: impl Fn(&mut Nic)) -> io::Result<()> {
        self.refusal(order)?;
        let mut life = self.life.borrow_mut();
        if let Some(left) = life.as_mut() {
            assert!(*left > 0, "the process dies");
            *left -= 1;
        }
        let mut all = self.all.borrow_mut();
        change(all.get_mut(name).ok_or(io::Error::from_raw_os_error(libc::ENODEV))?);
        self.orders.borrow_mut().push(format!("{order} {name}"));
        Ok(())
    }

    fn refusal(&self, what: &str) -> io::Result<()> {
        self.refused.borrow().get(what).map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(*number)))
    }
}

impl Device for Nics {
    fn index(&self, name: &str) -> io::Result<u32> {
        self.get(name, "index", |nic| nic.index)
    }
    fn driver(&self, name: &str) -> io::Result<String> {
        self.get(name, "driver", |nic| nic.driver.to_owned())
    }
    fn channels(&self, name: &str) -> io::Result<(Counts, Counts)> {
        self.get(name, "channels", |nic| nic.channels)
    }
    fn set_channels(&self, name: &str, counts: Counts) -> io::Result<()> {
        self.set(name, "set channels", |nic| {
            nic.channels.0 = counts;
            nic.table(counts.combined + counts.receive);
        })
    }
    fn rings(&self, name: &str) -> io::Result<(Sizes, Sizes)> {
        self.get(name, "rings", |nic| nic.rings)
    }
    fn set_rings(&self, name: &str, sizes: Sizes) -> io::Result<()> {
        self.set(name, "set rings", |nic| {
            let rounded = |size: u32| size / nic.ring_step * nic.ring_step;
            nic.rings.0 = Sizes { receive: rounded(sizes.receive), transmit: rounded(sizes.transmit) };
        })
    }
    fn features(&self, name: &str) -> io::Result<Vec<(String, Feature)>> {
        self.get(name, "features", |nic| {
            nic.features.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
        })
    }
    fn set_feature(&self, name: &str, feature: &str, on: bool) -> io::Result<()> {
        self.set(name, "set feature", |nic| {
            if let Some(state) = nic.features.get_mut(feature).filter(|state| state.changeable) {
                (state.active, state.requested) = (on, on);
            }
        })
    }
    fn pause(&self, name: &str) -> io::Result<Pause> {
        self.get(name, "pause", |nic| nic.pause)
    }
    fn set_pause(&self, name: &str, pause: Pause) -> io::Result<()> {
        self.set(name, "set pause", |nic| nic.pause = pause)
    }
    fn hash_fields(&self, name: &str, flow: Flow) -> io::Result<u64> {
        let mask = self.get(name, "hash fields", |nic| nic.hash.get(&flow.to_string()).copied())?;
        mask.ok_or(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }
    fn set_hash_fields(&self, name: &str, flow: Flow, mask: u64) -> io::Result<()> {
        self.set(name, "set hash fields", |nic| nic.hash.extend([(flow.to_string(), mask)]))
    }
    fn spread(&self, name: &str) -> io::Result<Spread> {
        self.get(name, "spread", |nic| nic.spread.clone())
    }
    fn set_table(&self, name: &str, table: Option<&[u32]>) -> io::Result<()> {
        self.set(name, "set table", |nic| match table {
            Some(table) => nic.spread.table = table.to_vec(),
            None => nic.table(nic.channels.0.combined + nic.channels.0.receive),
        })
    }
    fn set_transform(&self, name: &str, transform: u8) -> io::Result<()> {
        self.set(name, "set transform", |nic| nic.spread.transform = transform)
    }
    fn rule_count(&self, name: &str) -> io::Result<u32> {
        self.get(name, "rules", |nic| nic.rules)
    }
}

/// The machine: two NICs of four queues, four CPUs.
pub(crate) struct MadeUp {
    pub(crate) nics: Nics,
    pub(crate) root: PathBuf,
}

impl MadeUp {
    pub(crate) fn new() -> MadeUp {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("xvs-tune-{}-{number}", std::process::id()));
        let made = MadeUp { nics: Nics::default(), root };
        for (at, name) in ["e0", "e1"].into_iter().enumerate() {
            made.nics.all.borrow_mut().insert(name, nic(7 + at as u32));
            made.files_of_nic(name, 7 + at as u32, 40 + 10 * at as u32);
        }
        made.files_of_machine();
        made
    }

    fn files_of_nic(&self, name: &str, index: u32, irq: u32) {
        let net = format!("/sys/class/net/{name}");
        for (file, text) in [("ifindex", index.to_string()), ("mtu", "1500".into())] {
            self.file(&format!("{net}/{file}"), &text);
        }
        self.file(&format!("{net}/napi_defer_hard_irqs"), "0");
        self.file(&format!("{net}/gro_flush_timeout"), "0");
        self.file(&format!("{net}/device/local_cpulist"), "0-3");
        self.file(&format!("{net}/device/numa_node"), "0");
        self.file(&format!("{net}/device/msi_irqs/{irq}"), "msix");
        for queue in 0..4 {
            self.file(&format!("{net}/queues/rx-{queue}/rps_cpus"), "0");
            self.file(&format!("{net}/queues/tx-{queue}/xps_cpus"), &format!("{:x}", 1 << queue));
            self.file(&format!("{net}/device/msi_irqs/{}", irq + 1 + queue), "msix");
            self.file(&format!("/proc/irq/{}/smp_affinity_list", irq + 1 + queue), &queue.to_string());
        }
        let mut table = fs::read_to_string(self.place("/proc/interrupts")).unwrap_or_default();
        table += &format!(" {irq}:  1 0 0 0  PCI-MSIX-0000:01:00.0 0-edge  ice-{name}:misc\n");
        for queue in 0..4 {
            let number = irq + 1 + queue;
            table += &format!(" {number}:  1 0 0 0  PCI-MSIX-0000:01:00.0 {number}-edge  ice-{name}-TxRx-{queue}\n");
        }
        self.file("/proc/interrupts", &table);
    }

    fn files_of_machine(&self) {
        let cpu = "/sys/devices/system/cpu";
        for (path, text) in [
            ("/proc/sys/kernel/osrelease", "6.12.1"),
            ("/proc/1/comm", "systemd"),
            ("/proc/meminfo", "MemTotal: 1 kB\nHugePages_Total: 32\nHugePages_Free: 32\nHugepagesize: 2048 kB"),
            ("/proc/sys/vm/nr_hugepages", "32"),
            ("/proc/self/limits", "Limit Soft Hard Units\nMax locked memory  unlimited  unlimited  bytes"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("/sys/devices/system/node/node0/cpulist", "0-3"),
        ] {
            self.file(path, text);
        }
        self.file(&format!("{cpu}/online"), "0-3");
        self.file(&format!("{cpu}/smt/active"), "0");
        self.file(&format!("{cpu}/vulnerabilities/meltdown"), "Mitigation: PTI");
        self.file(&format!("{cpu}/vulnerabilities/mds"), "Vulnerable");
        self.file(&format!("{cpu}/cpu0/cpuidle/state0/name"), "POLL");
        self.file(&format!("{cpu}/cpu0/cpuidle/state1/name"), "C1");
        for (state, latency) in [(0, 0), (1, 2)] {
            self.file(&format!("{cpu}/cpu0/cpuidle/state{state}/latency"), &latency.to_string());
            self.file(&format!("{cpu}/cpu0/cpuidle/state{state}/disable"), "0");
        }
        for at in 0..4 {
            self.file(&format!("{cpu}/cpufreq/policy{at}/scaling_governor"), "performance");
            self.file(
                &format!("{cpu}/cpu{at}/topology/thread_siblings_list"),
                &format!("{}-{}", at / 2 * 2, at / 2 * 2 + 1),
            );
        }
    }

    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().expect("a directory")).expect("made");
        fs::write(place, format!("{text}\n")).expect("written");
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.place(path)).expect(path).trim_end().to_owned()
    }

    pub(crate) fn nic(&self, name: &str, change: impl Fn(&mut Nic)) {
        change(self.nics.all.borrow_mut().get_mut(name).expect("there"));
    }

    pub(crate) fn refuse(&self, what: &'static str, number: i32) {
        self.nics.refused.borrow_mut().insert(what, number);
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Runs `xvs tune` on it, with words as of a command line.
    pub(crate) fn tune(&self, words: &str) -> Result<Outcome, TuneError> {
        let mut options = options(words);
        options.state.get_or_insert_with(|| self.state());
        run_on(&options, &Machine { device: &self.nics, tree: Tree::new(&self.root) })
    }

    /// The same, with JSON as the answer, and the exit code.
    pub(crate) fn told(&self, words: &str) -> (serde_json::Value, u8) {
        let outcome = self.tune(&format!("{words} --json")).expect(words);
        let code = outcome.error.map_or(0, |error| error.exit_code());
        (serde_json::from_str(&outcome.text).expect("JSON"), code)
    }

    /// Everything that a change could touch.
    pub(crate) fn snapshot(&self) -> (BTreeMap<&'static str, Nic>, BTreeMap<PathBuf, String>) {
        let mut files = BTreeMap::new();
        collect(&self.root, &mut files);
        files.remove(&self.state());
        (self.nics.all.borrow().clone(), files)
    }
}

impl Drop for MadeUp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        match entry.file_type().expect("a kind").is_dir() {
            true => collect(&entry.path(), files),
            // The kernel's files have a line's end, whether or not one was written.
            false => {
                let text = fs::read_to_string(entry.path()).expect("text").trim_end().to_owned();
                files.insert(entry.path(), text);
            }
        }
    }
}

fn options(words: &str) -> Tune {
    use clap::Parser;
    let words = ["xvs", "tune"].into_iter().chain(words.split_whitespace());
    match xvs::cli::Cli::try_parse_from(words).expect("a command line").command {
        xvs::cli::Command::Tune(options) => options,
        _ => unreachable!("it says tune"),
    }
}

fn nic(index: u32) -> Nic {
    let combined = |combined| Counts { combined, ..Counts::default() };
    let sizes = |size| Sizes { receive: size, transmit: size };
    let mut nic = Nic {
        index,
        driver: "ice",
        channels: (combined(4), combined(16)),
        rings: (sizes(2048), sizes(8160)),
        ring_step: 1,
        features: BTreeMap::new(),
        pause: Pause { negotiated: true, receive: false, transmit: false },
        hash: ["tcp4", "tcp6", "udp4", "udp6"].map(|flow| (flow.to_owned(), FOUR_FIELDS)).into(),
        spread: Spread { key: (0..40).collect(), ..Spread::default() },
        rules: 0,
    };
    nic.table(4);
    for (name, active) in [("rx-lro", false), ("rx-gro-hw", false), ("rx-gro", true), ("rx-vlan-hw-parse", true)] {
        nic.feature(name, active, true);
    }
    nic
}
