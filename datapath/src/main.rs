//! `xvs`: the director and what people ask of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use xvs::cli::{Cli, Command, Log};
use xvs::config::Desired;
use xvs::control::client::{self, Client};
use xvs::control::protocol::{Action, Answer};
use xvs::{render, replay, run};
use xvs_engine::sched::Builtin;

/// A message for people and an exit code.
struct Failure {
    message: String,
    code: u8,
}

/// The exit code when no director answers, or it refuses.
const NO_DIRECTOR: u8 = 20;
const REFUSED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            // Nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "xvs: {message}");
            ExitCode::from(code)
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let control = cli.control;
    match cli.command {
        Command::Run(options) => {
            start_log(options.log);
            let options = run::Options {
                config: options.config,
                control,
                interfaces: options.interfaces,
                busy_poll: options.busy_poll,
            };
            run::run(&options).map_err(failure)
        }
        Command::Status(output) => ask(control, Action::Status, output.json, |answer| match answer {
            Answer::Status(status) => Some(render::status(status)),
            _ => None,
        }),
        Command::Drops(output) => ask(control, Action::Drops, output.json, |answer| match answer {
            Answer::Drops(drops) => Some(render::drops(drops)),
            _ => None,
        }),
        Command::Explain(explain) => {
            let action = Action::Explain {
                protocol: explain.protocol,
                client: explain.client,
                virtual_address: explain.virtual_address,
            };
            ask(control, action, explain.json, |answer| match answer {
                Answer::Text(text) => Some(format!("{text}\n")),
                _ => None,
            })
        }
        Command::Check { file, json } => check(&file, json),
        Command::Apply { file, dry_run, json } => {
            // Checked here first: problems are told with the file's name, and need no director.
            read(&file)?;
            let document = std::fs::read_to_string(&file)
                .map_err(|source| failure(run::RunError::File { path: file.clone(), source }))?;
            ask(control, Action::Apply { document, dry_run }, json, |answer| match answer {
                Answer::Plan(changes) if changes.is_empty() => Some("nothing to change\n".to_owned()),
                Answer::Plan(changes) => Some(changes.iter().map(|change| format!("{change}\n")).collect()),
                _ => None,
            })
        }
        Command::Replay(options) => {
            let summary = replay::replay(&options).map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })?;
            print(&summary)
        }
    }
}

fn failure(error: run::RunError) -> Failure {
    Failure { code: error.exit_code(), message: error.to_string() }
}

fn read(file: &Path) -> Result<Desired, Failure> {
    let document = run::read_config(file).map_err(failure)?;
    Desired::validate(document, Builtin::NAMES).map_err(|problems| failure(problems.into()))
}

fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let desired = read(file)?;
    let servers: usize = desired.services().iter().map(|service| service.servers.len()).sum();
    let (interfaces, services) = (desired.interfaces().len(), desired.services().len());
    if json {
        #[derive(Serialize)]
        struct Summary {
            interfaces: usize,
            services: usize,
            servers: usize,
        }
        return print_json(&Summary { interfaces, services, servers });
    }
    print(&format!("{}: right; {interfaces} interfaces, {services} services, {servers} real servers\n", file.display()))
}

/// Asks the director and prints its answer.
fn ask(
    control: Option<PathBuf>,
    action: Action,
    json: bool,
    text: impl Fn(&Answer) -> Option<String>,
) -> Result<(), Failure> {
    let path = control.unwrap_or_else(client::socket_path);
    let no_director = |error: client::ClientError| Failure { message: error.to_string(), code: NO_DIRECTOR };
    let mut client = Client::connect(&path).map_err(no_director)?;
    let answer = client.call(action).map_err(no_director)?;
    let answer = answer.map_err(|refusal| Failure { message: refusal.message, code: REFUSED })?;
    if json {
        return print_json(&answer);
    }
    match text(&answer) {
        Some(text) => print(&text),
        None => Err(Failure { message: "the director answered something else than was asked".into(), code: REFUSED }),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure { message: format!("can not write JSON: {error}"), code: REFUSED })?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure { message: format!("can not write: {error}"), code: REFUSED })
}

fn start_log(form: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match form {
        Log::Human => builder.init(),
        Log::Json => builder.json().init(),
    }
}
