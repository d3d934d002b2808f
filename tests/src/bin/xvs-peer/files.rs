//! File transfer as FTP does it: a control connection, and a connection of its own for every transfer, opened by the
//! client to a port that the server tells (passive), or by the server's port 20 to one that the client tells (active).
//!
//! What is sent comes back behind the server's name. Invariant: a transfer counts only if the server that has the control
//! connection made it, byte for byte, and the control connection is alive afterwards.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use xvs_tests::Answers;

/// Whatever takes longer has failed.
const LIMIT: Duration = Duration::from_secs(8);

/// The port from which servers open data connections.
const DATA_PORT: u16 = 20;

/// Listens for control connections; the loop of the thread that calls it.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("TCP port {port} could not be opened"))
}

pub(crate) fn serve(listener: &TcpListener, name: &str) {
    for control in listener.incoming().flatten() {
        let name = name.to_owned();
        thread::spawn(move || {
            if let Err(error) = serve_one(&control, &name) {
                eprintln!("files: {error:#}");
            }
        });
    }
}

fn serve_one(mut control: &TcpStream, name: &str) -> Result<()> {
    let (own, client) = (control.local_addr()?.ip(), control.peer_addr()?.ip());
    writeln!(control, "220 {name}")?;
    let mut lines = BufReader::new(control).lines();
    while let Some(line) = lines.next().transpose()? {
        let data = match line.split_once(' ') {
            None if line == "EPSV" => {
                let (listener, port) = listen_on(own)?;
                writeln!(control, "229 {port}")?;
                accept(&listener)?
            }
            Some(("EPRT", port)) => {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(own, DATA_PORT).into())?;
                socket.connect_timeout(&SocketAddr::new(client, port.parse()?).into(), LIMIT)?;
                socket.into()
            }
            _ => bail!("a command that nobody knows: {line}"),
        };
        let mut payload = Vec::new();
        bounded(&data)?.read_to_end(&mut payload)?;
        (&data).write_all(&[format!("{name} ").as_bytes(), &payload].concat())?;
        data.shutdown(Shutdown::Write)?;
        writeln!(control, "226")?;
    }
    Ok(())
}

/// Opens one control connection and makes so many transfers of `size` bytes, one after the other.
pub(crate) fn run(to: SocketAddr, transfers: usize, size: usize, active: bool) -> Result<Answers> {
    let mut answers = Answers::default();
    if let Err(error) = transfer_all(to, transfers, size, active, &mut answers) {
        answers.failed(format!("{error:#}"));
        answers.given_up(transfers.saturating_sub(answers.total() as usize + 1));
    }
    Ok(answers)
}

fn transfer_all(to: SocketAddr, transfers: usize, size: usize, active: bool, answers: &mut Answers) -> Result<()> {
    let control = TcpStream::connect_timeout(&to, LIMIT).context("connect")?;
    let mut replies = BufReader::new(bounded(&control)?);
    let name = reply(&mut replies, "220")?;
    for number in 0..transfers {
        let payload: Vec<u8> = (0..size).map(|index| (index * 31 + index / 251 + number) as u8).collect();
        let data = if active {
            let (listener, port) = listen_on(control.local_addr()?.ip())?;
            writeln!(&control, "EPRT {port}")?;
            let data = accept(&listener).context("accept")?;
            let from = data.peer_addr()?;
            ensure!(from == SocketAddr::new(to.ip(), DATA_PORT), "the data connection came from {from}");
            data
        } else {
            writeln!(&control, "EPSV")?;
            let port = reply(&mut replies, "229")?.parse().context("no port")?;
            TcpStream::connect_timeout(&SocketAddr::new(to.ip(), port), LIMIT).context("connect for data")?
        };
        (&data).write_all(&payload).context("send data")?;
        data.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        bounded(&data)?.read_to_end(&mut back).context("receive data")?;
        let end = back.iter().position(|byte| *byte == b' ').context("data without a name")?;
        let taker = String::from_utf8_lossy(&back[..end]);
        ensure!(taker == name, "{taker} took the data of {name}");
        ensure!(back[end + 1..] == payload, "the data came back changed");
        reply(&mut replies, "226")?;
        answers.answered(&name);
    }
    Ok(())
}

/// The rest of the next line, which must begin with this code.
fn reply(replies: &mut impl BufRead, code: &str) -> Result<String> {
    let mut line = String::new();
    replies.read_line(&mut line).context("control connection")?;
    let rest = line.trim_end().strip_prefix(code).with_context(|| format!("not {code} but `{}`", line.trim_end()))?;
    Ok(rest.trim_start().to_owned())
}

fn bounded(stream: &TcpStream) -> Result<&TcpStream> {
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn listen_on(own: IpAddr) -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((own, 0))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Waits for one connection.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let socket = Socket::from(listener.try_clone()?);
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket.accept()?.0.into())
}
