//! Small BPF programs at the traffic-control hooks of an interface: VLAN tags and the choice of queues on any kernel.
//!
//! Invariant: what a filter does is seen on the wire as a switch or a NIC would have done it; the product cannot tell.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;
use crate::namespace::Namespace;

const TAGGER: &str = include_str!("../bpf/tagger.bpf.c");
const SPREADER: &str = include_str!("../bpf/spreader.bpf.c");

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    object: PathBuf,
    /// Directions and the sections of the program for them.
    sections: &'static [(&'static str, &'static str)],
}

impl Filter {
    /// Tags what leaves a host and untags what enters it.
    pub(crate) fn tagger(vlan: u16, directory: &Path) -> Result<Self> {
        let object = compile("tagger", TAGGER, &[format!("-DVLAN={vlan}")], directory)?;
        Ok(Filter { object, sections: &[("egress", "leave"), ("ingress", "enter")] })
    }

    /// Chooses the director's queue for what enters the router; `crossed` at the side of the servers.
    pub(crate) fn spreader(queues: u32, crossed: bool, directory: &Path) -> Result<Self> {
        let cross = u32::from(crossed);
        let defines = [format!("-DQUEUES={queues}"), format!("-DCROSS={cross}")];
        let object = compile(&format!("spreader{cross}"), SPREADER, &defines, directory)?;
        Ok(Filter { object, sections: &[("ingress", "enter")] })
    }

    /// Puts the filter on an interface.
    pub(crate) fn attach(&self, namespace: &Namespace, device: &str) -> Result<()> {
        let object = self.object.to_string_lossy();
        namespace.run(&["tc", "qdisc", "add", "dev", device, "clsact"])?.ok()?;
        for (direction, section) in self.sections {
            let filter = ["tc", "filter", "add", "dev", device, direction, "bpf", "da", "obj", &object, "sec", section];
            namespace.run(&filter)?.ok()?;
        }
        Ok(())
    }
}

fn compile(name: &str, text: &str, defines: &[String], directory: &Path) -> Result<PathBuf> {
    let source = directory.join(format!("{name}.bpf.c"));
    let object = directory.join(format!("{name}.bpf.o"));
    std::fs::write(&source, text).with_context(|| format!("{} could not be written", source.display()))?;
    // Debian keeps <asm/types.h> in a directory of the architecture, which a BPF target does not look at.
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let (from, to) = (source.to_string_lossy(), object.to_string_lossy());
    let mut words = vec!["-O2", "-target", "bpf", &include];
    words.extend(defines.iter().map(String::as_str));
    words.extend(["-c", &from, "-o", &to]);
    run("clang", &words)?.ok()?;
    Ok(object)
}

/// Makes the kernel write VLAN tags into the frames that leave `device`. A veth device would hand them over as metadata,
/// where an XDP program does not see them.
pub(crate) fn tags_in_bytes(namespace: &Namespace, device: &str) -> Result<()> {
    namespace.run(&["ethtool", "-K", device, "txvlan", "off"])?.ok().map(drop)
}
