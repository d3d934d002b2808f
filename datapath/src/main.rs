//! `xvs`: the director and what people ask of it.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use xvs::cli::{Cli, Command, Log, Mark, Status, Sysctl, Timeouts};
use xvs::config::Desired;
use xvs::control::book::check_room;
use xvs::control::client::{self, Client, ClientError};
use xvs::control::protocol::{Action, Answer, PaceView, Standing};
use xvs::control::wanted;
use xvs::ipvsadm::proc::File;
use xvs::plugin::{self, Plugin, PluginError};
use xvs::tune::{self, TuneError};
use xvs::workers::Report;
use xvs::{render, replay, run, simulate};
use xvs_engine::sched::Builtin;

/// A message for people and an exit code.
struct Failure {
    message: String,
    code: u8,
}

/// Exit codes beside those of [`run::RunError`], [`replay::ReplayError`] and [`simulate::SimulateError`]: the director
/// refused; nobody answers; the command line is wrong (EX_USAGE).
const REFUSED: u8 = 1;
const NO_DIRECTOR: u8 = 20;
const USAGE: u8 = 64;
/// The same as of a director that lacks rights.
const NO_PRIVILEGE: u8 = 4;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => dispatch(cli),
        Err(error) if !error.use_stderr() => print(&error.render().to_string()),
        Err(error) => Err(Failure { message: usage(&error), code: USAGE }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            // Nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "xvs: {message}");
            ExitCode::from(code)
        }
    }
}

/// clap's message in one line: what is wrong, what was meant perhaps, and where to read on.
fn usage(error: &clap::Error) -> String {
    use clap::error::ErrorKind;
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "what is to be done? `xvs --help` lists the commands".into();
    }
    let text = error.render().to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<&str> = told.trim_start_matches("error: ").split_whitespace().collect();
    format!("{}; see `{} --help`", words.join(" ").trim_end_matches('.'), asked())
}

/// The command that was meant, as far as its words can be told: `xvs scheduler load`.
fn asked() -> String {
    let whole = Cli::command();
    let mut command = &whole;
    let mut words = vec![command.get_name()];
    for word in std::env::args().skip(1) {
        if let Some(inner) = command.find_subcommand(&word) {
            command = inner;
            words.push(command.get_name());
        }
    }
    words.join(" ")
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
        Command::Status(options) => status(control, &options),
        Command::Drops(output) => ask(control, Action::Drops, output.json, |answer| match answer {
            Answer::Drops(drops) => Some(render::drops(drops)),
            _ => None,
        }),
        Command::Proc { file } => match File::by_name(&file) {
            Some(file) => ask(control, file.question(), false, |answer| file.text(answer)),
            // clap took only names of files.
            None => Ok(()),
        },
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
        Command::Mark(mark) => {
            let (action, json) = match mark {
                Mark::List(output) => (Action::Marks, output.json),
                Mark::Add { rule, first, json } => (Action::AddMark { rule: rule.into(), first }, json),
                Mark::Delete { rule, json } => (Action::DeleteMark(rule.into()), json),
            };
            ask(control, action, json, |answer| match answer {
                Answer::Marks(marks) => Some(render::marks(marks)),
                Answer::Done => Some(String::new()),
                _ => None,
            })
        }
        Command::Scheduler(command) => {
            let usage = |message| Failure { message: format!("{message}; see `xvs scheduler --help`"), code: USAGE };
            let (action, json) = command.action().map_err(usage)?;
            ask(control, Action::Scheduler(action), json, |answer| match answer {
                Answer::Scheduler(answer) => Some(render::schedulers::answer(answer)),
                Answer::Done => Some(String::new()),
                _ => None,
            })
        }
        Command::Sysctl(command) => sysctl(control, command),
        Command::Timeouts(options) => timeouts(control, options),
        Command::Check { file, json } => check(&file, json),
        Command::Apply { file, dry_run, json } => {
            let document = run::read_text(&file).map_err(failure)?;
            // Checked here first: problems are told with the file's name, and need no director.
            validate(&file, &document)?;
            let directory = Some(run::base(Some(&file)).map_err(failure)?);
            ask(control, Action::Apply { document, dry_run, directory }, json, |answer| match answer {
                Answer::Plan(changes) if changes.is_empty() => Some("nothing to change\n".to_owned()),
                Answer::Plan(changes) => Some(changes.iter().map(|change| format!("{change}\n")).collect()),
                _ => None,
            })
        }
        Command::Replay(options) => {
            let summary = replay::replay(&options)
                .map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })?;
            print(&summary)
        }
        Command::Plugin(command) => plugin(&command),
        Command::Simulate(options) => {
            let summary = simulate::simulate(&options)
                .map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })?;
            print(&summary)
        }
        Command::Tune(options) => {
            let failed = |error: TuneError| Failure { code: error.exit_code(), message: error.to_string() };
            let outcome = tune::run(&options).map_err(failed)?;
            print(&outcome.text)?;
            outcome.error.map_or(Ok(()), |error| Err(failed(error)))
        }
    }
}

fn plugin(command: &Plugin) -> Result<(), Failure> {
    let failed = |error: PluginError| Failure { code: error.exit_code(), message: error.to_string() };
    let outcome = plugin::run(command).map_err(failed)?;
    print(&outcome.text)?;
    outcome.error.map_or(Ok(()), |error| Err(failed(error)))
}

fn failure(error: run::RunError) -> Failure {
    Failure { code: error.exit_code(), message: error.to_string() }
}

/// A configuration, if nothing is wrong with it and there is room for its marks.
fn validate(file: &Path, text: &str) -> Result<Desired, Failure> {
    let desired = Desired::read(text, &file.to_string_lossy(), Builtin::NAMES);
    let desired = desired.map_err(|problems| failure(problems.into()))?;
    check_room(desired.marks(), desired.services())
        .map_err(|refusal| failure(run::RunError::Configuration(format!("{}: {}", file.display(), refusal.message))))?;
    note(desired.notes().iter().map(ToString::to_string));
    Ok(desired)
}

fn sysctl(control: Option<PathBuf>, command: Sysctl) -> Result<(), Failure> {
    let lines = |answer: &Answer, values: bool| match answer {
        Answer::Settings(states) => Some(render::settings(states, values)),
        _ => None,
    };
    match command {
        Sysctl::List { all, json } => {
            let mut answer = call(control, Action::Settings(Vec::new()))?;
            if let Answer::Settings(states) = &mut answer
                && json
                && !all
            {
                states.retain(|state| state.standing == Standing::Acts);
            }
            show(&answer, json, |answer| match answer {
                Answer::Settings(states) => Some(render::all_settings(states, all)),
                _ => None,
            })
        }
        Sysctl::Get { names, values } => ask(control, Action::Settings(names), false, |answer| lines(answer, values)),
        Sysctl::Set { assignments, values } => {
            let answer = call(control, Action::Set(assignments))?;
            show(&answer, false, |answer| lines(answer, values))?;
            if let Answer::Settings(states) = &answer {
                note(render::futile(states));
            }
            Ok(())
        }
    }
}

fn timeouts(control: Option<PathBuf>, options: Timeouts) -> Result<(), Failure> {
    let service = options
        .service()
        .map_err(|message| Failure { message: format!("{message}; see `xvs --help`"), code: USAGE })?;
    if !options.set.is_empty() {
        let timeouts = options.set.into_iter().collect();
        call(control.clone(), Action::SetStateTimeouts { service, timeouts, replace: false })?;
    }
    ask(control, Action::StateTimeouts(service), options.json, |answer| match answer {
        Answer::StateTimeouts(sets) => Some(render::timeouts(sets)),
        _ => None,
    })
}

/// `xvs status`, once or again and again.
fn status(control: Option<PathBuf>, options: &Status) -> Result<(), Failure> {
    let pause = Duration::from_secs(options.watch.unwrap_or(1));
    let mut earlier = if options.workers { Some(pace(control.clone())?) } else { None };
    loop {
        let (text, value) = match &earlier {
            None => {
                let answer = call(control.clone(), Action::Status)?;
                let Answer::Status(status) = &answer else { return Err(strange()) };
                (render::status(status), serde_json::to_value(&answer))
            }
            Some(before) => {
                std::thread::sleep(pause);
                let now = pace(control.clone())?;
                let report = Report::between(before, now.clone());
                earlier = Some(now);
                let Some(report) = report else {
                    note(["another director answers now; it is watched from here on".to_owned()]);
                    continue;
                };
                (render::workers::report(&report), serde_json::to_value(&report))
            }
        };
        let value = value.map_err(|error| no_json(&error))?;
        let Some(_) = options.watch else {
            return if options.json { print_json(&value) } else { print(&text) };
        };
        // Somebody may read line by line; an empty line stands between two texts.
        if !write(&if options.json { format!("{value}\n") } else { format!("{text}\n") })? {
            return Ok(());
        }
        if !options.workers {
            std::thread::sleep(pause);
        }
    }
}

fn pace(control: Option<PathBuf>) -> Result<PaceView, Failure> {
    match call(control, Action::Workers)? {
        Answer::Workers(view) => Ok(view),
        _ => Err(strange()),
    }
}

/// Says something on the side that is no failure.
fn note(lines: impl IntoIterator<Item = String>) {
    for line in lines {
        // Nowhere else to say it.
        let _ = writeln!(std::io::stderr(), "xvs: note: {line}");
    }
}

fn check(file: &Path, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Summary<'a> {
        right: bool,
        problems: Vec<&'a str>,
        interfaces: usize,
        services: usize,
        servers: usize,
        schedulers: usize,
    }
    let text = run::read_text(file).map_err(failure)?;
    let checked = validate(file, &text).and_then(|desired| Ok((check_plugins(file, &desired)?, desired)));
    let (schedulers, desired) = match checked {
        Ok(checked) => checked,
        Err(wrong) => {
            if json {
                let problems = wrong.message.lines().collect();
                let (interfaces, services, servers, schedulers) = Default::default();
                print_json(&Summary { right: false, problems, interfaces, services, servers, schedulers })?;
            }
            return Err(wrong);
        }
    };
    let servers: usize = desired.services().iter().map(|service| service.servers.len()).sum();
    let (interfaces, services) = (desired.interfaces().len(), desired.services().len());
    if json {
        let problems = Vec::new();
        return print_json(&Summary { right: true, problems, interfaces, services, servers, schedulers });
    }
    let plugins = if schedulers == 0 { String::new() } else { format!(", {schedulers} scheduler plugins") };
    let file = file.display();
    print(&format!("{file}: right; {interfaces} interfaces, {services} services, {servers} real servers{plugins}\n"))
}

/// Loads the plugins of a configuration, without a director; gives their number.
fn check_plugins(file: &Path, desired: &Desired) -> Result<usize, Failure> {
    let mut desired = desired.clone();
    desired.start_from(&run::base(Some(file)).map_err(failure)?);
    wanted::check(&desired).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", file.display())).collect();
        failure(run::RunError::Configuration(lines.join("\n")))
    })
}

/// Asks the director and prints its answer.
fn ask(
    control: Option<PathBuf>,
    action: Action,
    json: bool,
    text: impl Fn(&Answer) -> Option<String>,
) -> Result<(), Failure> {
    show(&call(control, action)?, json, text)
}

/// Asks the director.
fn call(control: Option<PathBuf>, action: Action) -> Result<Answer, Failure> {
    let path = control.unwrap_or_else(client::socket_path);
    let no_director = |error: ClientError| {
        let code = if matches!(error, ClientError::Permission { .. }) { NO_PRIVILEGE } else { NO_DIRECTOR };
        Failure { message: error.to_string(), code }
    };
    let mut client = Client::connect(&path).map_err(no_director)?;
    let answer = client.call(action).map_err(no_director)?;
    answer.map_err(|refusal| Failure { message: refusal.message, code: REFUSED })
}

/// Prints an answer.
fn show(answer: &Answer, json: bool, text: impl Fn(&Answer) -> Option<String>) -> Result<(), Failure> {
    if json {
        return print_json(answer);
    }
    match text(answer) {
        Some(text) => print(&text),
        None => Err(strange()),
    }
}

fn strange() -> Failure {
    Failure { message: "the director answered something else than was asked".into(), code: REFUSED }
}

fn no_json(error: &serde_json::Error) -> Failure {
    Failure { message: format!("can not write JSON: {error}"), code: REFUSED }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| no_json(&error))?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    write(text).map(|_| ())
}

/// Writes to whoever reads; tells if somebody does.
fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        // Whoever read it has read enough (`| head`).
        return Ok(false);
    }
    written.map(|()| true).map_err(|error| Failure { message: format!("can not write: {error}"), code: REFUSED })
}

fn start_log(form: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log file is no place for colours.
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match form {
        Log::Human => builder.init(),
        Log::Json => builder.json().init(),
    }
}
