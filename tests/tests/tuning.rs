//! `xvs tune` on real interfaces: what ethtool and the kernel's files say is changed, and afterwards as it was before.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xvs_tests::{Finished, Lab, Namespace, Outcome, binary, story};

/// What could be changed about an interface, in the words of the kernel and of ethtool.
fn portrait(namespace: &Namespace, device: &str) -> Result<String> {
    // One transmit queue alone has no xps_cpus; the rest is there, or `grep` has nothing to say at all.
    let files = format!(
        "cd /sys/class/net/{device} && grep -sH . napi_defer_hard_irqs gro_flush_timeout mtu queues/*/?ps_cpus; [ -e mtu ]"
    );
    let mut all = String::new();
    for words in [&["ethtool", "-k", device][..], &["ethtool", "-l", device], &["sh", "-c", &files]] {
        all += &namespace.run(words)?.ok()?;
    }
    // Not every device has rings and pause frames; then that is the answer.
    for option in ["-g", "-a"] {
        let said = namespace.run(&["ethtool", option, device])?;
        all += &format!("{option}: {:?} {}\n", said.code, said.stdout);
    }
    Ok(all)
}

struct Place<'l> {
    namespace: &'l Namespace,
    xvs: String,
    state: String,
}

impl Place<'_> {
    fn tune(&self, words: &str) -> Result<Finished> {
        let mut all = vec![self.xvs.as_str(), "tune", "--state", &self.state];
        all.extend(words.split(' '));
        self.namespace.run(&all)
    }
}

/// The verdict about an item of the first interface.
fn verdict(told: &str, name: &str) -> Result<String> {
    let told: Value = serde_json::from_str(told).with_context(|| format!("no JSON: {told}"))?;
    let items = told[0]["items"].as_array().context("items")?;
    let item = items.iter().find(|item| item["item"] == name).with_context(|| format!("no item {name}"))?;
    Ok(item["verdict"].as_str().unwrap_or_default().to_owned())
}

fn with_place(steps: impl FnOnce(&Place<'_>) -> Result<()>) -> Result<()> {
    let lab = Lab::one_arm(1)?;
    let namespace = lab.director().namespace();
    namespace
        .ip("link add tune0 numrxqueues 4 numtxqueues 4 type veth peer name tune1 numrxqueues 4 numtxqueues 4\n\
         link set tune0 up\nlink set tune1 up\n")?;
    // A veth begins with all queues that it can have; one is as a machine may be found.
    namespace.run(&["ethtool", "-L", "tune0", "rx", "4", "tx", "4"])?;
    let state = lab.directory().join("tune.state").to_string_lossy().into_owned();
    let xvs = binary("xvs")?.to_string_lossy().into_owned();
    steps(&Place { namespace, xvs, state })
}

/// Items of the interface alone: the machine is not the laboratory's to change.
const ITEMS: &str =
    "--only queues,rings,lro,gro-hw,gro,rx-vlan,rss-fields,rss-spread,pause,interrupts,xps,rps,busy-poll,mtu";

#[test]
fn tuned_and_put_back() -> Outcome {
    story("`xvs tune --apply` changes a real interface, and `--restore` leaves every setting of it as it was", || {
        with_place(|place| {
            let before = portrait(place.namespace, "tune0")?;
            let wishes = format!("tune0 --queues 2 --busy-poll --vlans {ITEMS}");
            let check = place.tune(&format!("{wishes} --json"))?;
            ensure!(check.code == Some(1), "tags would be lost, which is harmful: {check:?}");
            for (name, expected) in [
                ("queues", "could-be-better"),
                ("rx-vlan", "harmful"),
                ("busy-poll", "could-be-better"),
                ("mtu", "good"),
            ] {
                let found = verdict(&check.stdout, name)?;
                ensure!(found == expected, "{name} is {found}, expected {expected}");
            }
            ensure!(portrait(place.namespace, "tune0")? == before, "a check changes nothing");

            let applied = place.tune(&format!("{wishes} --apply"))?;
            ensure!(applied.code == Some(0), "{applied:?}");
            let changed = portrait(place.namespace, "tune0")?;
            for line in ["rx-vlan-offload: off", "napi_defer_hard_irqs:2", "gro_flush_timeout:200000", "RX:\t\t2"] {
                ensure!(changed.contains(line) && !before.contains(line), "{line} is not new in {changed}");
            }
            let again = place.tune(&format!("{wishes} --apply"))?;
            ensure!(again.code == Some(0) && again.stdout.contains("nothing to change"), "{again:?}");
            ensure!(portrait(place.namespace, "tune0")? == changed, "a second time changes nothing");

            let restored = place.tune("--restore")?;
            ensure!(restored.code == Some(0), "{restored:?}");
            let after = portrait(place.namespace, "tune0")?;
            ensure!(after == before, "before:\n{before}\nafter:\n{after}\n{restored:?}");
            let again = place.tune("--restore")?;
            ensure!(again.code == Some(0) && again.stdout.starts_with("nothing to put back: "), "{again:?}");
            Ok(())
        })
    })
}

#[test]
fn changes_of_others_and_devices_that_go() -> Outcome {
    story(
        "a value that somebody changed, and a device that was made anew, are told by `--restore` and left alone",
        || {
            with_place(|place| {
                let applied = place.tune(&format!("tune0 tune1 --queues 2 --busy-poll {ITEMS} --apply"))?;
                ensure!(applied.code == Some(0), "{applied:?}");
                place.namespace.run(&["sh", "-c", "echo 5 > /sys/class/net/tune0/napi_defer_hard_irqs"])?.ok()?;
                let restored = place.tune("tune0 --restore")?;
                let line = "napi_defer_hard_irqs: LEFT ALONE: it is 5 now";
                ensure!(restored.code == Some(1) && restored.stdout.contains(line), "{restored:?}");
                let portrait = portrait(place.namespace, "tune0")?;
                ensure!(portrait.contains("napi_defer_hard_irqs:5") && portrait.contains("RX:\t\t4"), "{portrait}");

                place
                    .namespace
                    .ip("link del tune0\nlink add tune1 numrxqueues 4 numtxqueues 4 type veth peer name tune0\n")?;
                let restored = place.tune("--restore")?;
                ensure!(restored.code == Some(1) && restored.stdout.contains("tune1: queues: GONE"), "{restored:?}");
                let again = place.tune("--restore")?;
                ensure!(again.code == Some(0), "what is gone is told once: {again:?}");
                Ok(())
            })
        },
    )
}

#[test]
fn beside_a_running_director() -> Outcome {
    story("looking at the interfaces of a running director tells what it runs on, and changes nothing", || {
        let lab = Lab::one_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let interface = lab.director().interfaces()[0];
        let before = portrait(lab.director().namespace(), interface)?;
        let told = ds.try_xvs(&["tune", interface, "--json"])?;
        ensure!(matches!(told.code, Some(0 | 1)), "{told:?}");
        ensure!(verdict(&told.stdout, "driver")? == "good", "{told:?}");
        ensure!(verdict(&told.stdout, "mtu")? == "good", "{told:?}");
        ensure!(portrait(lab.director().namespace(), interface)? == before, "a check changes nothing");
        Ok(())
    })
}
