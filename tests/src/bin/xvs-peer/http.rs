//! As much of HTTP/1.1 as it takes to ask nginx for its name.
//!
//! Invariant: an answer counts only if it is complete: status 200, the header with the name, and the whole body.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A connection or an answer that takes longer has failed. It is longer than two retransmissions of a lost SYN.
const LIMIT: Duration = Duration::from_secs(8);

/// No answer that we ask for is longer.
const MAX_LEN: usize = 16 * 1024;

/// A connection to a web server.
pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, LIMIT).context("connect")?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    /// Asks once; gives the name of the server.
    pub(crate) fn ask(&mut self, keep_alive: bool) -> Result<String> {
        let fate = if keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: lab\r\nConnection: {fate}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("send")?;
        let name = self.answer()?;
        if !keep_alive {
            // The server closes; what follows the answer must be the orderly end and not a reset.
            let more = self.stream.read(&mut [0; 1]).context("end of the connection")?;
            ensure!(more == 0, "bytes after the end of the answer");
        }
        Ok(name)
    }

    fn answer(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut part = [0; 2048];
        loop {
            if let Some(name) = complete(&bytes)? {
                return Ok(name);
            }
            ensure!(bytes.len() < MAX_LEN, "the answer does not end");
            match self.stream.read(&mut part).context("receive")? {
                0 => bail!("the connection ended within an answer"),
                len => bytes.extend_from_slice(&part[..len]),
            }
        }
    }
}

/// The name of the server if the answer is complete.
fn complete(bytes: &[u8]) -> Result<Option<String>> {
    let text = std::str::from_utf8(bytes).context("the answer is no text")?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "status {status}");
    let header = |wanted: &str| {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    let len: usize = header("content-length").context("no length")?.parse().context("a wrong length")?;
    ensure!(body.len() <= len, "more bytes than announced");
    if body.len() < len {
        return Ok(None);
    }
    let name = header("x-server").context("no name")?;
    ensure!(body.trim_end() == name, "header and body name different servers");
    Ok(Some(name))
}
