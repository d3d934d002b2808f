//! The tools' end of the control socket.
//!
//! One [`Request`] up, one [`Response`] down, each a line of JSON; a client may call any number of times.
//!
//! Invariant: a call ends within [`TIMEOUT`] of the director's last byte, with an answer, a refusal, or an error that
//! says what the person at the keyboard can do. Nothing that the director sends makes it panic.
//!
//! Not here: what the answers look like on a terminal.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::protocol::{Action, Answer, Outcome, Refusal, Request, Response, SOCKET, SOCKET_ENV, VERSION};

/// How long the director may be silent. Compiling plugins for a new configuration takes it seconds.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest answer. An entry of the connection table takes about 200 bytes, so this is five million of them.
pub const ANSWER_MAX: u64 = 1 << 30;

/// Why there is neither an answer nor a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no xvs director answers on {}: start one with `xvs run`, or set {SOCKET_ENV}", path.display())]
    NoDirector {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error("permission denied on {}: the director obeys its own user only, so try as root", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The director is of another version.
    #[error(
        "the director speaks version {director} of the control protocol and this tool version {VERSION}: \
         use the tool that came with the director"
    )]
    Version {
        /// The director's version.
        director: u64,
    },
    /// It did not answer in time.
    #[error("the director did not answer within {} seconds; its log may say why", TIMEOUT.as_secs())]
    Silent,
    /// It hung up.
    #[error("the director hung up before it answered; its log may say why")]
    HungUp,
    /// It sent something else than an answer.
    #[error("the director's answer cannot be read: {0}")]
    Unreadable(String),
    /// The socket failed.
    #[error("cannot talk to the director on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
}

/// A connection to a director.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// The version, which may be read even where the rest cannot.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

/// The socket to use: what the environment names, else the default.
pub fn socket_path() -> PathBuf {
    std::env::var_os(SOCKET_ENV).filter(|path| !path.is_empty()).map_or_else(|| SOCKET.into(), PathBuf::from)
}

impl Client {
    /// Connects to the director that listens here.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let failed = |source: std::io::Error| match source.kind() {
            // A socket file that was left behind refuses connections.
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NoDirector { path: path.into() },
            ErrorKind::PermissionDenied => ClientError::Permission { path: path.into() },
            _ => ClientError::Io { path: path.into(), source },
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        Ok(Client { stream: BufReader::new(stream), path: path.into() })
    }

    /// Asks the director to do something, and waits for the outcome.
    pub fn call(&mut self, action: Action) -> Result<Result<Answer, Refusal>, ClientError> {
        let mut line = serde_json::to_vec(&Request { v: VERSION, action })
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|error| self.lost(error))?;
        let mut answer = Vec::new();
        let read = self.stream.by_ref().take(ANSWER_MAX).read_until(b'\n', &mut answer);
        read.map_err(|error| self.lost(error))?;
        match (answer.last(), answer.len() as u64) {
            (Some(b'\n'), _) => read_response(&answer),
            (_, ANSWER_MAX..) => Err(ClientError::Unreadable(format!("it is longer than {ANSWER_MAX} bytes"))),
            _ => Err(ClientError::HungUp),
        }
    }

    fn lost(&self, source: std::io::Error) -> ClientError {
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ClientError::HungUp,
            _ => ClientError::Io { path: self.path.clone(), source },
        }
    }
}

fn read_response(line: &[u8]) -> Result<Result<Answer, Refusal>, ClientError> {
    let unreadable = |error: serde_json::Error| ClientError::Unreadable(error.to_string());
    // The version first: a director of another one may well say what we cannot read.
    let Version { v } = serde_json::from_slice(line).map_err(unreadable)?;
    if v != u64::from(VERSION) {
        return Err(ClientError::Version { director: v });
    }
    let response: Response = serde_json::from_slice(line).map_err(unreadable)?;
    Ok(match response.outcome {
        Outcome::Ok(answer) => Ok(answer),
        Outcome::Refused(refusal) => Err(refusal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{RefusalKind, Services};
    use std::os::unix::net::UnixListener;

    /// A director that answers every line with this text and hangs up.
    fn director(name: &str, answer: &'static str) -> (PathBuf, std::thread::JoinHandle<String>) {
        let path = std::env::temp_dir().join(format!("xvs-client-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket in the temporary directory");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            stream.write_all(answer.as_bytes()).expect("a listening client");
            line
        });
        (path, thread)
    }

    fn ask(name: &str, answer: &'static str) -> (Result<Result<Answer, Refusal>, ClientError>, String) {
        let (path, thread) = director(name, answer);
        let outcome = Client::connect(&path).and_then(|mut client| client.call(Action::Services(None)));
        let _ = std::fs::remove_file(&path);
        (outcome, thread.join().expect("the director ends"))
    }

    /// Guards the lines on the wire: these are what tools in other languages write and read.
    #[test]
    fn a_call() {
        let (outcome, asked) = ask("call", "{\"v\":1,\"ok\":{\"services\":{\"size\":4096,\"services\":[]}}}\n");
        assert_eq!(asked, "{\"v\":1,\"action\":{\"services\":null}}\n");
        let expected = Answer::Services(Services { size: 4096, ..Services::default() });
        assert_eq!(outcome.expect("an answer"), Ok(expected));
    }

    /// Guards a refusal on its way.
    #[test]
    fn a_refusal() {
        let line = "{\"v\":1,\"refused\":{\"kind\":\"no_such_service\",\"message\":\"no TCP service\"}}\n";
        let refusal = Refusal::new(RefusalKind::NoSuchService, "no TCP service");
        assert_eq!(ask("refusal", line).0.expect("a refusal"), Err(refusal));
    }

    /// Guards that each failure has its own error, and that an unknown version is told before an unknown answer.
    #[test]
    fn failures() {
        assert!(matches!(ask("version", "{\"v\":9,\"new\":1}\n").0, Err(ClientError::Version { director: 9 })));
        assert!(matches!(ask("nonsense", "hello\n").0, Err(ClientError::Unreadable(_))));
        assert!(matches!(ask("half", "{\"v\":1,\"ok\":\"do").0, Err(ClientError::HungUp)));
        let nobody = Client::connect(Path::new("/nonexistent/xvs.sock"));
        assert!(matches!(nobody, Err(ClientError::NoDirector { .. })));
    }

    /// Guards every action and answer against a shape that JSON cannot carry back.
    #[test]
    fn round_trip() {
        let line = "{\"v\":1,\"action\":{\"add_service\":{\"id\":{\"mark\":{\"mark\":7,\"family\":\"inet6\"}},\
                    \"scheduler\":\"rr\"}}}";
        let request: Request = serde_json::from_str(line).expect("defaults for what is left out");
        let again = serde_json::to_string(&request).expect("plain values");
        assert_eq!(serde_json::from_str::<Request>(&again).expect("what we wrote"), request);
    }
}
