//! A command line into a [`Command`].
//!
//! The first option is the command. Then come its options, taken in order ([`super::draft`]); when all are known, the
//! matrix of commands and options is consulted, then the rules that need several options at once.
//!
//! Invariant: `-E` and `-e` describe the whole service or server, as ipvsadm's do. What is not said is the default, not
//! what was: `-e ... -w 0` alone turns a NAT server into a DR server.
//!
//! Not here: whether the director has the service, the server or the scheduler.

use super::command::{Command, Daemon, Format, Role, Usage, What};
use super::draft::{Draft, TIMEOUT_MAX_S, within};
use super::names::Names;
use super::options::{Dialect, Feature, Meaning, Rule, Verb, rule};
use super::tokens::{Mistake, MistakeKind, Token, Tokens};
use crate::control::protocol::{
    Action, Family, Method, Persistence, Protocol, SchedFlags, ServerSpec, ServiceId, ServiceSpec, Timeouts, Tunnel,
    TunnelChecksum,
};

/// ipvsadm's scheduler when none is named.
const SCHEDULER_DEFAULT: &str = "wlc";

/// ipvsadm's interface for a sync daemon when none is named.
const INTERFACE_DEFAULT: &str = "eth0";

/// Understands the arguments behind the program's name.
pub fn parse(args: &[String], dialect: Dialect, names: &dyn Names) -> Result<Command, Usage> {
    if args.is_empty() {
        return Ok(Command::List { what: What::All, format: Format::default() });
    }
    let mut tokens = Tokens::new(args, dialect);
    let (verb, value) = command(&mut tokens)?;
    let role = match verb {
        // Whatever follows these does not matter, be it right or wrong.
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
        Verb::StartDaemon | Verb::StopDaemon => role(verb, value)?,
        _ => Role::Master,
    };
    let mut draft = Draft::new(names);
    for token in tokens.by_ref() {
        draft.take(token.map_err(bad_option)?)?;
    }
    let plain = tokens.into_plain();
    let wanted = if verb == Verb::Set { 3 } else { 0 };
    if let Some(stray) = plain.get(wanted) {
        return Err(Usage::wrong(format!("`{stray}` belongs to no option")));
    }
    matrix(verb, &draft, dialect)?;
    let action = match verb {
        Verb::AddService => Action::AddService(service(&draft)?),
        Verb::EditService => Action::EditService(service(&draft)?),
        Verb::DeleteService => Action::DeleteService(id(&draft)?),
        Verb::AddServer => Action::AddServer { service: id(&draft)?, server: server(&draft)? },
        Verb::EditServer => Action::EditServer { service: id(&draft)?, server: server(&draft)? },
        Verb::DeleteServer => Action::DeleteServer { service: id(&draft)?, address: address(&draft)? },
        Verb::Clear => Action::Flush,
        Verb::Zero => Action::Zero(draft.target.id()),
        Verb::Set => Action::SetTimeouts(timeouts(&plain)?),
        Verb::List => return list(&draft),
        Verb::Restore => return Ok(Command::Restore),
        Verb::Save => {
            return Ok(Command::Save { numeric: draft.format.numeric, thresholds: draft.has(Feature::Thresholds) });
        }
        Verb::StartDaemon => return Ok(Command::StartDaemon(daemon(&draft, role))),
        Verb::StopDaemon => return Ok(Command::StopDaemon(role)),
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
    };
    Ok(Command::Do(action))
}

fn command<'a>(tokens: &mut Tokens<'a>) -> Result<(Verb, Option<&'a str>), Usage> {
    let sentence = match tokens.next() {
        Some(Ok(Token { entry, value })) => match entry.meaning {
            Meaning::Verb(verb) => return Ok((verb, value)),
            _ => format!("--{} is not a command, and the first option has to be one", entry.long),
        },
        Some(Err(mistake)) => describe(&mistake),
        None => "there is no command".to_owned(),
    };
    Err(Usage::no_command(format!("{sentence}; -h lists the commands: -A, -a, -L and others")))
}

fn describe(mistake: &Mistake) -> String {
    let typed = &mistake.typed;
    match mistake.kind {
        MistakeKind::Unknown => format!("there is no option {typed}"),
        MistakeKind::NoValue => format!("{typed} needs a value"),
        MistakeKind::UnwantedValue => format!("{typed} takes no value"),
    }
}

fn bad_option(mistake: Mistake) -> Usage {
    Usage::bad_option(format!("{}; -h lists the options", describe(&mistake)))
}

fn role(verb: Verb, value: Option<&str>) -> Result<Role, Usage> {
    match value {
        Some("master") => Ok(Role::Master),
        Some("backup") => Ok(Role::Backup),
        _ => Err(Usage::wrong(format!("{} is followed by master or backup", verb.phrase()))),
    }
}

fn timeouts(plain: &[&str]) -> Result<Timeouts, Usage> {
    let [tcp, tcpfin, udp] = plain else {
        return Err(Usage::wrong("--set is followed by three timeouts in seconds, TCP TCPFIN UDP; 0 keeps what is"));
    };
    let seconds = |text| within(text, 0..=TIMEOUT_MAX_S, "--set", "seconds").map(|seconds| seconds as u32);
    Ok(Timeouts { tcp: seconds(tcp)?, tcpfin: seconds(tcpfin)?, udp: seconds(udp)? })
}

/// The matrix of commands and options.
fn matrix(verb: Verb, draft: &Draft<'_>, dialect: Dialect) -> Result<(), Usage> {
    if let Some(stray) = draft.given.iter().find(|feature| rule(verb, **feature, dialect) == Rule::Never) {
        let homes = Verb::ALL.into_iter().filter(|verb| rule(*verb, *stray, dialect) != Rule::Never);
        let homes: Vec<&str> = homes.map(Verb::phrase).collect();
        let (stray, verb, homes) = (stray.phrase(), verb.phrase(), homes.join(", "));
        return Err(Usage::wrong(format!("{stray} does not go with {verb}; it goes with {homes}")));
    }
    for needed in [Feature::Service, Feature::Server] {
        if rule(verb, needed, dialect) == Rule::Must && !draft.has(needed) {
            return Err(Usage::wrong(format!("{} needs {}", verb.phrase(), needed.phrase())));
        }
    }
    let mut exclusive = draft.given.iter().filter(|feature| rule(verb, **feature, dialect) == Rule::One);
    if let (Some(first), Some(second)) = (exclusive.next(), exclusive.next()) {
        let (first, second) = (first.phrase(), second.phrase());
        return Err(Usage::wrong(format!("{first} and {second} are different listings; ask for one of them")));
    }
    Ok(())
}

fn id(draft: &Draft<'_>) -> Result<ServiceId, Usage> {
    draft.target.id().ok_or_else(|| Usage::wrong(format!("say {}", Feature::Service.phrase())))
}

fn address(draft: &Draft<'_>) -> Result<std::net::SocketAddr, Usage> {
    draft.server.ok_or_else(|| Usage::wrong(format!("say {}", Feature::Server.phrase())))
}

fn service(draft: &Draft<'_>) -> Result<ServiceSpec, Usage> {
    let id = id(draft)?;
    if let ServiceId::Address { protocol, address } = id {
        if address.port() == 0 && draft.persistence_s.is_none() {
            return Err(Usage::wrong(format!(
                "the service {} has no port; for all ports of the address it has to be persistent (-p), \
                 else write HOST:PORT",
                address.ip()
            )));
        }
        if draft.has(Feature::Ops) && protocol != Protocol::Udp {
            return Err(Usage::wrong("-o (one packet, one decision) is for UDP services (-u) and marks (-f)"));
        }
    }
    let scheduler = draft.scheduler.unwrap_or(SCHEDULER_DEFAULT);
    Ok(ServiceSpec {
        id,
        scheduler: scheduler.to_owned(),
        flags: sched_flags(scheduler, draft.sched_flags)?,
        persistence: persistence(draft),
        engine: draft.engine.map(str::to_owned),
        one_packet: draft.has(Feature::Ops),
        fallback: None,
        options: None,
    })
}

/// A mask without `-p` is allowed and means nothing.
fn persistence(draft: &Draft<'_>) -> Option<Persistence> {
    let timeout_s = draft.persistence_s?;
    Some(Persistence { timeout_s, mask: draft.target.mask })
}

fn sched_flags(scheduler: &str, text: &str) -> Result<SchedFlags, Usage> {
    let mut flags = SchedFlags::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let (flag, owner) = match word {
            "flag-1" => (&mut flags.one, None),
            "flag-2" => (&mut flags.two, None),
            "flag-3" => (&mut flags.three, None),
            "sh-fallback" => (&mut flags.one, Some("sh")),
            "sh-port" => (&mut flags.two, Some("sh")),
            "mh-fallback" => (&mut flags.one, Some("mh")),
            "mh-port" => (&mut flags.two, Some("mh")),
            _ => {
                return Err(Usage::wrong(format!(
                    "-b `{word}` does not exist: sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2, flag-3"
                )));
            }
        };
        if let Some(owner) = owner.filter(|owner| *owner != scheduler) {
            return Err(Usage::wrong(format!(
                "-b {word} is for the scheduler {owner}, and this command line says {scheduler}: add -s {owner}"
            )));
        }
        *flag = true;
    }
    Ok(flags)
}

fn server(draft: &Draft<'_>) -> Result<ServerSpec, Usage> {
    let mut address = address(draft)?;
    // Packets of DR and TUN servers keep their port, so a port of the server's own would be a lie.
    if draft.target.mark == 0 && draft.method != Method::Nat {
        address.set_port(draft.target.port);
    }
    let tunnelled = matches!(draft.method, Method::Tun(_));
    let same_family = id(draft)?.family() == if address.is_ipv4() { Family::Inet } else { Family::Inet6 };
    if !tunnelled && !same_family {
        return Err(Usage::wrong(
            "the service and the real server are of different IP versions; only tunnelling (-i) can join them",
        ));
    }
    let method = if tunnelled { Method::Tun(tunnel(draft)?) } else { draft.method };
    if let Some(stray) = draft.given.iter().find(|feature| is_tunnel(**feature)).filter(|_| !tunnelled) {
        return Err(Usage::wrong(format!("{} is for tunnelled servers: add -i", stray.phrase())));
    }
    Ok(ServerSpec { address, method, weight: draft.weight, upper: draft.upper, lower: draft.lower, tags: None })
}

fn is_tunnel(feature: Feature) -> bool {
    use Feature as F;
    matches!(feature, F::TunType | F::TunPort | F::TunNocsum | F::TunCsum | F::TunRemcsum)
}

fn tunnel(draft: &Draft<'_>) -> Result<Tunnel, Usage> {
    let kind = draft.tun_type;
    let refused: &[Feature] = match kind {
        "gue" => &[],
        "gre" => &[Feature::TunPort, Feature::TunRemcsum],
        _ => &[Feature::TunPort, Feature::TunNocsum, Feature::TunCsum, Feature::TunRemcsum],
    };
    if let Some(stray) = refused.iter().find(|feature| draft.has(**feature)) {
        return Err(Usage::wrong(format!("{} does not go with --tun-type {kind}", stray.phrase())));
    }
    let choices = [
        (Feature::TunNocsum, TunnelChecksum::None),
        (Feature::TunCsum, TunnelChecksum::Full),
        (Feature::TunRemcsum, TunnelChecksum::Remote),
    ];
    let mut chosen = choices.into_iter().filter(|(feature, _)| draft.has(*feature));
    let checksum = chosen.next().map_or(TunnelChecksum::None, |(_, checksum)| checksum);
    if chosen.next().is_some() {
        return Err(Usage::wrong("choose one of --tun-nocsum, --tun-csum and --tun-remcsum"));
    }
    match kind {
        "gue" if draft.has(Feature::TunPort) => Ok(Tunnel::Gue { port: draft.tun_port, checksum }),
        "gue" => Err(Usage::wrong("--tun-type gue needs --tun-port PORT, the server's UDP port for it")),
        "gre" => Ok(Tunnel::Gre { checksum }),
        _ => Ok(Tunnel::Ipip),
    }
}

fn list(draft: &Draft<'_>) -> Result<Command, Usage> {
    use Feature as F;
    let any = |features: &[Feature]| features.iter().any(|feature| draft.has(*feature));
    if any(&[F::Connection, F::Timeout, F::Daemon]) && any(&[F::Stats, F::Rate, F::Thresholds])
        || any(&[F::Timeout, F::Daemon]) && any(&[F::PersistentConn])
    {
        return Err(Usage::wrong(
            "--stats, --rate, --thresholds and --persistent-conn are columns of services; of the other listings \
             (-c, --timeout, --daemon) only -c takes one of them, --persistent-conn",
        ));
    }
    let what = match draft.target.id() {
        _ if draft.has(F::Connection) => What::Connections,
        Some(id) => What::One(id),
        None if draft.has(F::Timeout) => What::Timeouts,
        None if draft.has(F::Daemon) => What::Daemons,
        None => What::All,
    };
    Ok(Command::List { what, format: Format { columns: draft.columns(), ..draft.format } })
}

fn daemon(draft: &Draft<'_>, role: Role) -> Daemon {
    Daemon {
        role,
        interface: draft.interface.unwrap_or(INTERFACE_DEFAULT).to_owned(),
        sync_id: draft.sync_id,
        max_len: draft.sync_len,
        group: draft.group,
        port: draft.group_port,
        ttl: draft.group_ttl,
    }
}
