//! The control socket: a Unix socket, mode 0600, one JSON line up and one down.
//!
//! A thread accepts, and one a connection reads and writes; what is asked goes to the controller through a channel, so
//! requests are carried out one after the other. Invariant: a malformed line, a slow reader or a vanished tool harms
//! nobody but itself.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, getsockopt, shutdown, socket};
use nix::sys::stat::{Mode, fchmod};
use serde::Deserialize;

use super::protocol::{Action, Outcome, Refusal, RefusalKind, Request, Response, VERSION};

/// Longest request line in bytes: a configuration file of a large site fits.
const LINE_MAX: u64 = 64 << 20;
/// Tools that may be connected at once.
const CONNECTIONS_MAX: usize = 64;
/// Tools that were refused a connection and have not been hung up on yet.
const REFUSED_MAX: usize = 16;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;
/// How long nobody is let in after that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a tool may take to read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request on its way to the controller, and where its outcome goes.
#[derive(Debug)]
pub struct Call {
    /// What to do.
    pub action: Action,
    /// Who asks, for the log.
    pub who: String,
    /// Where the outcome goes.
    pub reply: Sender<Outcome>,
}

/// The listening socket; when it is dropped, nobody is let in any more and its file goes away.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    /// Device and inode of the file: by now somebody else may have the path.
    file: (u64, u64),
    listener: Arc<UnixListener>,
    open: Arc<AtomicBool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            // It may be gone already; then that was the wish.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living director has it.
    #[error("a director already answers on {0}; stop it, or give this one another path with --control")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there already and is no socket; name another path with --control, or move it away")]
    NotSocket(PathBuf),
    /// The file system would not.
    #[error("can not listen on {path}: {source}; is its directory there and writable?")]
    Io {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Is a director listening here? A socket file that nobody listens on is removed; anything else is left alone.
///
/// # Errors
/// One is, or the path is not free and can not be made free.
pub fn claim(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        // The one sign that nobody listens. Whatever else is wrong, somebody may.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
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
    let listener = Arc::new(bind(path).map_err(failed)?);
    let file = file_of(path).map_err(failed)?;
    let open = Arc::new(AtomicBool::new(true));
    let listening = Listening { path: path.to_owned(), file, listener: listener.clone(), open: open.clone() };
    let accepting = move || accept(&listener, &open, &calls);
    std::thread::Builder::new().name("control".into()).spawn(accepting).map_err(failed)?;
    Ok(listening)
}

/// A listening socket that is its user's alone from the first moment on: the kernel gives the file the mode that the
/// socket has before it gets its name.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    nix::sys::socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

fn accept(listener: &UnixListener, open: &AtomicBool, calls: &Sender<Call>) {
    let connected = Arc::new(AtomicUsize::new(0));
    // Those that were told that there is no room. Closed later, so that they can still send what they came with.
    let mut refused = VecDeque::new();
    loop {
        let accepted = listener.accept();
        if !open.load(Ordering::Relaxed) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // No file descriptor is left, most likely: it would fail again at once.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        if connected.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            let message = format!("{CONNECTIONS_MAX} tools are connected to the director already; try again");
            let outcome = Outcome::Refused(Refusal::new(RefusalKind::Limit, message));
            // A fresh socket has room for a line.
            if respond(&stream, outcome).is_ok() {
                refused.push_back(stream);
            }
            if refused.len() > REFUSED_MAX {
                refused.pop_front();
            }
            continue;
        }
        connected.fetch_add(1, Ordering::Relaxed);
        let (calls, slot) = (calls.clone(), connected.clone());
        let spawned = std::thread::Builder::new().name("control-peer".into()).spawn(move || {
            if let Err(error) = serve(&stream, &calls) {
                tracing::debug!(%error, "a control connection ended");
            }
            slot.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            connected.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &UnixStream, calls: &Sender<Call>) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let who = getsockopt(stream, PeerCredentials).map(|peer| format!("uid {}, pid {}", peer.uid(), peer.pid()))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == LINE_MAX && !line.ends_with(b"\n") {
            let message = format!("the line is longer than {LINE_MAX} bytes");
            respond(stream, Outcome::Refused(Refusal::new(RefusalKind::Malformed, message)))?;
            // Where the next request begins, nobody knows.
            return Ok(());
        }
        respond(stream, answer(&line, &who, calls))?;
    }
}

fn respond(mut stream: &UnixStream, outcome: Outcome) -> io::Result<()> {
    let mut text = serde_json::to_vec(&Response { v: VERSION, outcome })?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// The version, which may be read even where the rest can not.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

fn answer(line: &[u8], who: &str, calls: &Sender<Call>) -> Outcome {
    let refused = |kind, message: String| Outcome::Refused(Refusal::new(kind, message));
    // The version is read first: an older or newer tool's request may not parse otherwise.
    let version = serde_json::from_slice::<Version>(line).ok().map(|version| version.v);
    match version {
        None => {
            return refused(
                RefusalKind::Malformed,
                "the line is no request: it needs a version `v` and an `action`".into(),
            );
        }
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
    let stopped = || refused(RefusalKind::Unsupported, "the director is stopping".into());
    if calls.send(Call { action: request.action, who: who.to_owned(), reply }).is_err() {
        return stopped();
    }
    outcome.recv().unwrap_or_else(|_| stopped())
}
