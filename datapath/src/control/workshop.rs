//! Where files become modules: read, hashed, compiled and checked.
//!
//! That takes from milliseconds to half a second, so it is done on a thread of its own while the controller goes on; what
//! is ready lies on a shelf until the request that needs it is carried out, right after. Where there is no such thread (a
//! rehearsal, the start of the director), it is done on the spot.
//!
//! Invariant: what was on the shelf for one request is used for no other. A file is read once for a request: what was
//! checked is what is used, whatever becomes of the file meanwhile.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use xvs_host::{Host, Limits, Module};

use super::protocol::schedulers::Grants;
use super::protocol::{Refusal, RefusalKind};

/// A module that is wanted.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The file.
    pub file: PathBuf,
    /// What it may import.
    pub grants: Grants,
    /// Modules that it may be, and that need not be compiled again.
    pub known: Vec<Arc<Module>>,
}

/// A module that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The module.
    pub module: Arc<Module>,
    /// The file.
    pub file: PathBuf,
    /// What it may import.
    pub grants: Grants,
    /// When the file was read: seconds since 1970.
    pub read_at_s: u64,
}

/// What became of an order: a module, or a sentence.
pub type Outcome = Result<Made, String>;

/// The machine that modules are made for: one of a process, started when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<Option<Arc<Host>>>>);

impl Machine {
    /// Carries out an order.
    ///
    /// # Errors
    /// A sentence: the file can not be read, or what is wrong with it.
    pub fn make(&self, order: &Order) -> Outcome {
        let Order { file, grants, known } = order;
        let bytes = read(file, Limits::default().module_bytes)?;
        let read_at_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let sha256 = hexadecimal(&bytes);
        let wanted = xvs_host::Grants::from(*grants);
        let same = |module: &&Arc<Module>| module.sha256() == sha256 && module.grants() == wanted;
        let made = |module| Made { module, file: file.clone(), grants: *grants, read_at_s };
        if let Some(module) = known.iter().find(same) {
            return Ok(made(module.clone()));
        }
        let module = self.start()?.load(&bytes, wanted);
        module.map(made).map_err(|rejected| format!("{} is no scheduler: {rejected}", file.display()))
    }

    /// Starts the host, if it does not run yet.
    ///
    /// # Errors
    /// A sentence: why no plugins can run on this machine.
    pub fn start(&self) -> Result<Arc<Host>, String> {
        // Whoever failed to start it has left nothing behind.
        let mut host = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*host {
            return Ok(host.clone());
        }
        let started = Arc::new(Host::new(Limits::default()).map_err(|error| error.to_string())?);
        *host = Some(started.clone());
        Ok(started)
    }
}

/// The bytes of a file that is not larger than a module may be.
fn read(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("can not read {}: {error}", path.display());
    // Opening a pipe would wait for whoever writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > most {
        return Err(format!("{} is larger than a scheduler may be: {most} bytes at most", path.display()));
    }
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Modules for the request at hand.
#[derive(Debug, Default)]
pub struct Workshop {
    machine: Machine,
    shelf: HashMap<(PathBuf, Grants), Outcome>,
}

impl Workshop {
    /// A workshop with this machine.
    pub fn new(machine: Machine) -> Self {
        Workshop { machine, shelf: HashMap::new() }
    }

    /// The machine, for a thread that works ahead.
    pub fn machine(&self) -> Machine {
        self.machine.clone()
    }

    /// Puts what was made ahead on the shelf.
    pub fn stock(&mut self, orders: Vec<Order>, outcomes: Vec<Outcome>) {
        let pairs = orders.into_iter().zip(outcomes);
        self.shelf.extend(pairs.map(|(order, outcome)| ((order.file, order.grants), outcome)));
    }

    /// The request is over.
    pub fn clear(&mut self) {
        self.shelf.clear();
    }

    /// A module: from the shelf, or made now.
    ///
    /// # Errors
    /// The file can not be read, or is no scheduler.
    pub fn get(&mut self, order: Order) -> Result<Made, Refusal> {
        let key = (order.file.clone(), order.grants);
        let outcome = self.shelf.entry(key).or_insert_with(|| self.machine.make(&order));
        outcome.clone().map_err(|message| Refusal::new(RefusalKind::BadPlugin, message))
    }
}
