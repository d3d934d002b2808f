//! The control socket: a Unix socket, mode 0600, one JSON line up and one down.
//!
//! A thread accepts, and one a connection reads and writes; what is asked goes to the controller through a channel, so
//! requests are carried out one after the other. Invariant: a malformed line, a slow reader or a vanished tool harms
//! nobody but itself.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::protocol::{Action, Outcome, Refusal, RefusalKind, Request, Response, VERSION};

/// Longest request line in bytes: a configuration file of a large site fits.
const LINE_MAX: u64 = 64 << 20;
/// Tools that may be connected at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a tool may take to read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request on its way to the controller, and where its outcome goes.
#[derive(Debug)]
pub struct Call {
    /// What to do.
    pub action: Action,
    /// Where the outcome goes.
    pub reply: Sender<Outcome>,
}

/// The listening socket; its file goes away when it is dropped.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may be gone already; then that was the wish.
        let _ = fs::remove_file(&self.path);
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living director has it.
    #[error("a director already answers on {0}; stop it, or give this one another path with --control")]
    InUse(PathBuf),
    /// The file system would not.
    #[error("can not listen on {path}: {source}; is its directory there and writable?")]
    Io {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Is a director listening here? A socket file that nobody listens on is removed.
///
/// # Errors
/// One is.
pub fn claim(path: &Path) -> Result<(), SocketError> {
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    if path.exists() {
        fs::remove_file(path).map_err(|source| SocketError::Io { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Starts to listen; requests arrive through the channel.
///
/// # Errors
/// The path can not be used.
pub fn listen(path: &Path, calls: Sender<Call>) -> Result<Listening, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    claim(path)?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let listening = Listening { path: path.to_owned() };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::thread::Builder::new().name("control".into()).spawn(move || accept(&listener, &calls)).map_err(failed)?;
    Ok(listening)
}

fn accept(listener: &UnixListener, calls: &Sender<Call>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue; // closes it
        }
        let (calls, slot) = (calls.clone(), open.clone());
        let spawned = std::thread::Builder::new().name("control-peer".into()).spawn(move || {
            if let Err(error) = serve(&stream, &calls) {
                tracing::debug!(%error, "a control connection ended");
            }
            slot.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &UnixStream, calls: &Sender<Call>) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let outcome = answer(&line, calls);
        let mut text = serde_json::to_vec(&Response { v: VERSION, outcome })?;
        text.push(b'\n');
        writer.write_all(&text)?;
    }
}

fn answer(line: &[u8], calls: &Sender<Call>) -> Outcome {
    let refused = |kind, message: String| Outcome::Refused(Refusal::new(kind, message));
    // The version is read first: an older or newer tool's request may not parse otherwise.
    let version = serde_json::from_slice::<serde_json::Value>(line).ok().and_then(|value| value.get("v")?.as_u64());
    match version {
        None => return refused(RefusalKind::Malformed, "the line is no request: it needs a version `v` and an `action`".into()),
        Some(version) if version != u64::from(VERSION) => {
            let message = format!(
                "the tool speaks version {version} of the control protocol, the director {VERSION}; use the tool that came with it"
            );
            return refused(RefusalKind::Version, message);
        }
        Some(_) => {}
    }
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return refused(RefusalKind::Malformed, format!("the request is not understood: {error}")),
    };
    let (reply, outcome) = bounded(1);
    let stopped = || refused(RefusalKind::Malformed, "the director is stopping".into());
    if calls.send(Call { action: request.action, reply }).is_err() {
        return stopped();
    }
    outcome.recv().unwrap_or_else(|_| stopped())
}
