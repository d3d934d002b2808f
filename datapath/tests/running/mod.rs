//! The real director, as a process in a namespace with two wires.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xvs::control::client::Client;

use crate::wires::{Wires, eventually};

/// A running director.
pub(crate) struct Running {
    child: Child,
    control: String,
    pub(crate) log: String,
}

impl Running {
    pub(crate) fn start(wires: &Wires, form: &str) -> Running {
        Running::start_with(wires, form, "")
    }

    /// With these further tables in its file.
    pub(crate) fn start_with(wires: &Wires, form: &str, tables: &str) -> Running {
        Running::start_as(wires, form, "", tables)
    }

    /// With these further lines about the director, and these tables.
    pub(crate) fn start_as(wires: &Wires, form: &str, director: &str, tables: &str) -> Running {
        Running::start_sized(wires, form, director, tables, 1024)
    }

    /// With room for so many connections.
    pub(crate) fn start_sized(wires: &Wires, form: &str, director: &str, tables: &str, capacity: u32) -> Running {
        let scratch = env::temp_dir().join(format!("xvs-xsk-{}-{}", std::process::id(), wires.here.name()));
        fs::create_dir_all(&scratch).expect("a directory");
        let path = |name: &str| scratch.join(name).to_string_lossy().into_owned();
        let (control, log) = (path("xvs.sock"), path("log"));
        fs::write(
            path("site.toml"),
            format!(
                "{tables}[connections]\ncapacity = {capacity}\n[director]\nown_vips = true\n{director}[[interface]]\nname = \"a0\"\nqueues = 1\n\
             [[interface]]\nname = \"a1\"\nqueues = 1\n[[service]]\naddress = \"192.0.2.10:80\"\n\
             [[service.server]]\naddress = \"10.0.0.1:80\"\n"
            ),
        )
        .expect("a file");
        let mut child = Command::new("ip")
            .args(["netns", "exec", wires.here.name(), env!("CARGO_BIN_EXE_xvs"), "run", "--log", form])
            .args(["--config", &path("site.toml"), "--control", &control])
            .stderr(Stdio::from(fs::File::create(&log).expect("a file")))
            .spawn()
            .expect("it starts");
        eventually("the director", || {
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "it ended: {}", fs::read_to_string(&log).expect("the log"));
            UnixStream::connect(&control).is_ok()
        });
        Running { child, control, log }
    }

    /// A connection to its control socket.
    #[allow(dead_code, reason = "most tests use the programs")]
    pub(crate) fn client(&self) -> Client {
        Client::connect(std::path::Path::new(&self.control)).expect("it listens")
    }

    /// The same, for one's own words.
    #[allow(dead_code, reason = "not every test has any")]
    pub(crate) fn socket(&self) -> UnixStream {
        UnixStream::connect(&self.control).expect("it listens")
    }

    pub(crate) fn xvs(&self, words: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
        let output = command.args(words).args(["--json", "--control", &self.control]).output().expect("it runs").stdout;
        serde_json::from_slice(&output).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output)))
    }

    /// An ipvsadm command line; demands success.
    #[allow(dead_code, reason = "not every test types them")]
    pub(crate) fn xvsadm(&self, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xvsadm"));
        let output = command.args(line.split_whitespace()).env("XVS_SOCKET", &self.control).output().expect("it runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// CPU time that it has used, in ticks of ten milliseconds.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it lives");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    }

    /// How long its controller has worked: the processor time of its first thread.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn worked(&self) -> Duration {
        let id = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{id}/task/{id}/schedstat")).expect("it lives");
        Duration::from_nanos(stat.split(' ').next().expect("fields").parse().expect("a number"))
    }

    pub(crate) fn stop(mut self) -> (bool, String) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it lives");
        let mut status = None;
        eventually("its end", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        (status.is_some_and(|status| status.success()), fs::read_to_string(&self.log).expect("the log"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::path::Path::new(&self.log).parent().map(fs::remove_dir_all);
    }
}
