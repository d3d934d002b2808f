//! nginx as a real server: it says its name, serves large files fast or slowly, and stores what is uploaded.
//!
//! Invariant: an instance of ours keeps every file in its own directory; the system's nginx and its files are not
//! touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::HTTP_PORTS;
use crate::namespace::Namespace;
use crate::process::Process;

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Process,
    pid_file: PathBuf,
}

impl Nginx {
    /// Starts one that calls itself `name`, with its files in `directory`/NAME; `directory`/files is what it serves.
    pub(crate) fn start(name: &str, namespace: &Namespace, directory: &Path) -> Result<Self> {
        Nginx::start_by(namespace.command("nginx"), 1, name, directory)
    }

    /// As [`Nginx::start`], on these CPUs (`0,1`), with a process for each.
    pub(crate) fn start_on(cpus: &str, name: &str, namespace: &Namespace, directory: &Path) -> Result<Self> {
        let mut command = namespace.command("taskset");
        command.args(["--cpu-list", cpus, "nginx"]);
        Nginx::start_by(command, cpus.split(',').count(), name, directory)
    }

    fn start_by(mut command: Command, processes: usize, name: &str, directory: &Path) -> Result<Self> {
        let home = directory.join(name);
        for sub in ["upload", "tmp"] {
            fs::create_dir_all(home.join(sub)).context("a directory for nginx could not be created")?;
        }
        let files = directory.join("files");
        fs::create_dir_all(&files).context("the directory of served files could not be created")?;
        let path = home.join("nginx.conf");
        fs::write(&path, configuration(name, processes, &home, &files))
            .context("nginx's configuration could not be written")?;
        command.arg("-e").arg("stderr").arg("-p").arg(&home).arg("-c").arg(&path);
        let process = Process::start(&format!("{name}-nginx"), &mut command, directory)?;
        Ok(Nginx { _process: process, pid_file: home.join("nginx.pid") })
    }

    /// True once it listens: nginx writes its pid file after that.
    pub(crate) fn is_ready(&self) -> bool {
        fs::metadata(&self.pid_file).is_ok_and(|file| file.len() > 0)
    }
}

fn configuration(name: &str, processes: usize, home: &Path, files: &Path) -> String {
    let listen: String = HTTP_PORTS.iter().map(|port| format!("listen {port}; listen [::]:{port}; ")).collect();
    let (home, files) = (home.display(), files.display());
    format!(
        "user root; worker_processes {processes}; daemon off; pid {home}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000;
  client_max_body_size 0;
  client_body_temp_path {home}/tmp/body;
  proxy_temp_path {home}/tmp/proxy;
  fastcgi_temp_path {home}/tmp/fastcgi;
  uwsgi_temp_path {home}/tmp/uwsgi;
  scgi_temp_path {home}/tmp/scgi;
  server {{
    {listen}
    add_header X-Server {name} always;
    location / {{ default_type text/plain; return 200 \"{name}\\n\"; }}
    location /files/ {{ alias {files}/; }}
    location /slow/ {{ alias {files}/; limit_rate 4m; }}
    location /upload/ {{ root {home}; dav_methods PUT; }}
  }}
}}
"
    )
}
