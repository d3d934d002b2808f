//! Rules back to text: a configuration file that says what is.
//!
//! Invariant: for rules that `rules.rs` accepts, reading the text again gives the same rules, in the same order.
//! Not here: the director's settings (process, rings, interfaces). They come from a file; this is for the rules, which
//! people also change by command.

use super::desired::ServiceState;
use super::document::{Document, MethodName, Netmask, ServerTable, ServiceTable, TunnelName};
use super::rules::flag_names;
use crate::control::protocol::{
    Mask, Method, Persistence, ServerSpec, ServiceId, ServiceSpec, Tags, Timeouts, Tunnel, TunnelChecksum,
};

/// First line of the text: where it is from and what it is good for.
const HEADER: &str = "# The rules of a director: virtual services and their real servers, in the order of adding.\n";

/// A configuration file with these rules, and with these timeouts if given.
pub fn render(timeouts: Option<&Timeouts>, services: &[ServiceState]) -> String {
    let document = document(timeouts, services);
    // Strings, numbers and tables always have a form in TOML, so the error has no case; were it to get one, an empty
    // file is a document, too, and half a file is not.
    let text = toml::to_string(&document).unwrap_or_default();
    format!("{HEADER}{}{text}", if text.is_empty() { "" } else { "\n" })
}

/// The same as a document, for those who want to change it before it is written.
pub fn document(timeouts: Option<&Timeouts>, services: &[ServiceState]) -> Document {
    let mut document = Document::default();
    if let Some(timeouts) = timeouts {
        let all = [("tcp", timeouts.tcp), ("tcpfin", timeouts.tcpfin), ("udp", timeouts.udp)];
        document.timeouts = all.into_iter().map(|(name, seconds)| (name.to_owned(), seconds.into())).collect();
    }
    document.service = services.iter().map(service).collect();
    document
}

fn service(state: &ServiceState) -> ServiceTable {
    let ServiceSpec { id, scheduler, flags, persistence, engine, one_packet, fallback, options } = &state.spec;
    let flags = flag_names(scheduler, *flags);
    let mut table = ServiceTable {
        scheduler: Some(scheduler.clone()),
        flags: (!flags.is_empty()).then(|| flags.into_iter().map(str::to_owned).collect()),
        persistent: persistence.map(|persistence| persistence.timeout_s.into()),
        netmask: persistence.filter(|persistence| persistence.mask != Mask::full(id.family())).map(netmask),
        engine: engine.clone(),
        one_packet: one_packet.then_some(true),
        fallback: fallback.clone(),
        options: options.clone().unwrap_or_default(),
        timeouts: state.timeouts.iter().map(|(name, &seconds)| (name.clone(), seconds.into())).collect(),
        server: state.servers.iter().map(server).collect(),
        ..ServiceTable::default()
    };
    match id {
        ServiceId::Address { protocol, address } => {
            table.protocol = Some(*protocol);
            table.address = Some(address.to_string());
        }
        ServiceId::Mark { mark, family } => {
            table.mark = Some((*mark).into());
            table.family = Some(*family);
        }
    }
    table
}

fn netmask(persistence: Persistence) -> Netmask {
    match persistence.mask.length() {
        Some(length) => Netmask::Length(length.into()),
        None => Netmask::Dotted(persistence.mask.to_string()),
    }
}

fn server(server: &ServerSpec) -> ServerTable {
    let ServerSpec { address, method, weight, upper, lower, tags } = *server;
    let threshold = |value: u32| (value != 0).then(|| value.into());
    let mut table = ServerTable {
        address: Some(address.to_string()),
        weight: Some(weight),
        upper: threshold(upper),
        lower: threshold(lower),
        tags: tags.iter().flat_map(Tags::pairs).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..ServerTable::default()
    };
    table.method = Some(match method {
        Method::Nat => MethodName::Nat,
        Method::Dr => MethodName::Dr,
        Method::Tun(_) => MethodName::Tun,
    });
    if let Method::Tun(tunnel) = method {
        let (name, port, checksum) = match tunnel {
            Tunnel::Ipip => (TunnelName::Ipip, None, TunnelChecksum::None),
            Tunnel::Gue { port, checksum } => (TunnelName::Gue, Some(port.into()), checksum),
            Tunnel::Gre { checksum } => (TunnelName::Gre, None, checksum),
        };
        table.tunnel = Some(name);
        table.tunnel_port = port;
        table.tunnel_checksum = (checksum != TunnelChecksum::None).then_some(checksum);
    }
    table
}
