//! `xvsadm`: ipvsadm's command line for an xvs director. Called `ipvsadm`, it behaves as ipvsadm does.

use std::process::ExitCode;

use xvs::control::client::socket_path;
use xvs::ipvsadm::names::System;
use xvs::ipvsadm::run::{ControlSocket, World, main as run};

fn main() -> ExitCode {
    // What is not UTF-8 is the name of nothing; it is refused where it stands.
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut world = World {
        stdin: &mut std::io::stdin().lock(),
        stdout: &mut std::io::stdout().lock(),
        stderr: &mut std::io::stderr().lock(),
        names: &System::default(),
        director: &mut ControlSocket::new(socket_path()),
    };
    ExitCode::from(run(&args, &mut world))
}
