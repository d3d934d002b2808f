//! Why would this packet go there? The steps of the packet path, told to a person.
//!
//! It asks the same tables as [`Engine`](crate::engine::Engine) does, and changes none of them: schedulers answer from
//! a copy of their state. It is a snapshot: the next packet may change what it says.

use std::fmt::Write;
use std::sync::Arc;

use crate::conn::{Conn, Side, state};
use crate::engine::{Shared, request};
use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::hop::HopId;
use crate::real::{Method, Path, RealId};
use crate::route::Target;
use crate::service::{Persistence, Service, ServiceKey};
use crate::snapshot::Snapshot;
use crate::time::Now;

/// Tells what the director would do with the first, or the next, packet of this flow.
pub fn explain(shared: &Shared, snapshot: &Snapshot, flow: &Flow, now: Now) -> String {
    let mut text = Vec::new();
    text.push(format!("{} packet from {} to {}:", flow.protocol, flow.src, flow.dst));
    let narrator = Narrator { shared, snapshot };
    let hash = shared.table.hash(flow);
    match shared.table.lookup(flow, hash).filter(|(conn, _)| conn.expires_in(now) > 0) {
        Some((conn, side)) => narrator.connection(&conn, side, now, &mut text),
        None => narrator.new_connection(flow, now, &mut text),
    }
    text.join("\n")
}

struct Narrator<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
}

impl Narrator<'_> {
    fn connection(&self, conn: &Conn<'_>, side: Side, now: Now, text: &mut Vec<String>) {
        let state = match conn.protocol() {
            protocol @ (Protocol::TCP | Protocol::SCTP) => state::name(protocol, conn.status().state),
            _ => "established by its first packet",
        };
        text.push(format!(
            "  connection: {} -> {} exists, {state}, expires in {} s unless a packet comes",
            conn.client(),
            conn.virtual_endpoint(),
            conn.expires_in(now).div_ceil(1000)
        ));
        if side == Side::Out {
            text.push(format!(
                "  rewrite: it is an answer (NAT): source {} becomes {}, TTL one less, checksums follow",
                conn.server(),
                conn.virtual_endpoint()
            ));
            text.push(format!("  egress: {}", self.path(conn.reply_path())));
            return;
        }
        if !self.shared.arena.get(conn.real()).is_available() {
            text.push(
                "  dropped (server_gone): its real server was removed; add it again, or wait for the timeout".into(),
            );
            return;
        }
        let port = conn.server().port;
        self.forwarding(conn.real(), conn.status().flags.method(), port, conn.virtual_endpoint(), text);
    }

    fn new_connection(&self, flow: &Flow, now: Now, text: &mut Vec<String>) {
        text.extend(self.mark(flow));
        let Some(service) = self.snapshot.service(flow) else {
            let why = match self.snapshot.is_virtual(flow.dst.address) {
                true => {
                    "the VIP is known, this protocol and port are not served: the XDP program leaves it to the kernel"
                }
                false => "no service has this address: the XDP program leaves it to the kernel",
            };
            match self.outward(flow) {
                Some(vip) => text.push(format!(
                    "  outward: a NAT server of {vip} sends it, whose engine (sip) begins a connection: source becomes {vip}"
                )),
                None => text.push(format!("  service: none; {why}")),
            }
            return;
        };
        let native = service.scheduler_name();
        let scheduler = if service.asks_guest() { format!("a plugin (or {native})") } else { native.into() };
        let key = match service.key {
            ServiceKey::Address(protocol, endpoint) => format!("{protocol} {endpoint}"),
            ServiceKey::Mark(mark, Family::Inet) => format!("mark {mark} (inet)"),
            ServiceKey::Mark(mark, Family::Inet6) => format!("mark {mark} (inet6)"),
        };
        text.push(format!("  service: {key}, scheduler {scheduler}; no connection yet"));
        if flow.src.port == 20 {
            text.push("  dropped (source_port_20): LVS never schedules connections from port 20".into());
            return;
        }
        let policy = service.policy();
        let known = policy.persistence.filter(|_| policy.engine.is_none());
        if let Some(template) = known.and_then(|persistence| self.template(service, flow, persistence, now)) {
            let real = template.real();
            text.push(format!(
                "  persistence: the client's template leads to {} for {} s more; the scheduler is not asked",
                self.shared.arena.get(real).endpoint(),
                template.expires_in(now).div_ceil(1000)
            ));
            let own = self.shared.arena.get(real).endpoint().port;
            let maps = own != 0 && flow.dst.port == service.key.port();
            self.forwarding(
                real,
                self.shared.arena.get(real).method(),
                if maps { own } else { flow.dst.port },
                flow.dst,
                text,
            );
            return;
        }
        if policy.engine.is_some() && policy.persistence.is_some() {
            text.push(
                "  persistence: by the Call-ID of the message (sip), which is not known here: a call that has a template goes \
                 where that leads, a message without one is dropped (no_call_id), a new call is scheduled:"
                    .into(),
            );
        }
        if policy.one_packet && flow.protocol == Protocol::UDP {
            text.push("  one-packet scheduling: the next packet may go elsewhere".into());
        }
        let request = request(flow, self.shared.table.hash(flow), now);
        match service.preview(&self.shared.arena, &request) {
            Some(real) => {
                let record = self.shared.arena.get(real);
                let counts = record.counts();
                text.push(format!(
                    "  scheduler: {scheduler} picks {} (weight {}, {} active, {} inactive) among {} servers",
                    record.endpoint(),
                    record.weight(),
                    counts.active,
                    counts.inactive(),
                    service.members().len()
                ));
                let endpoint = record.endpoint();
                let port = if endpoint.port == 0 { flow.dst.port } else { endpoint.port };
                self.forwarding(real, record.method(), port, flow.dst, text);
                if record.method() == Method::Nat {
                    text.push(format!("  answers: source back to {}, {}", flow.dst, self.way_to(flow.src.address)));
                }
            }
            None if self.shared.may_bypass(service, flow) && !self.is_local(flow.dst.address) => {
                self.forwarding(self.shared.arena.nobody(), Method::Bypass, 0, flow.dst, text);
            }
            None => {
                text.push(format!("  dropped (no_server): none of {} servers is usable:", service.members().len()));
                text.extend(service.members().into_iter().map(|real| format!("    {}", self.unusable(real))));
                text.push("  the client is told by an ICMP port unreachable".into());
            }
        }
    }

    /// The template that would lead a new connection, if it still leads anywhere.
    fn template(&self, service: &Service, flow: &Flow, persistence: Persistence, now: Now) -> Option<Conn<'_>> {
        let (key, _) = service.key.template(flow, persistence.mask);
        let template = self.shared.table.template(&key)?;
        let real = self.shared.arena.get(template.real());
        let quiesced = self.shared.switches.expire_quiescent_template.is_on() && real.weight() == 0;
        let lives = template.expires_in(now) > 0 || template.children() > 0;
        (lives && real.is_available() && !quiesced).then_some(template)
    }

    /// Which mark the packet has, by which rule, and what it is good for; nothing where no rule mentions its destination.
    fn mark(&self, flow: &Flow) -> Option<String> {
        let marks = self.snapshot.marks();
        let Some((number, rule)) = marks.rule(flow) else {
            let mentioned = marks.mentions(flow.dst.address);
            return mentioned.then(|| "  mark: none; there are rules for its destination, and none fits".to_owned());
        };
        let leads = self.snapshot.service(flow).is_some_and(|service| matches!(service.key, ServiceKey::Mark(..)));
        let aside = if leads { "" } else { "; no service has this mark, so it counts for nothing" };
        Some(format!("  mark: {} by rule {} ({rule}){aside}", rule.mark, number + 1))
    }

    /// The VIP for which the sender, a real server, may begin a connection.
    fn outward(&self, flow: &Flow) -> Option<Endpoint> {
        if flow.protocol != Protocol::UDP || self.snapshot.is_virtual(flow.dst.address) {
            return None;
        }
        let begins = |service: &&Arc<Service>| service.turn().nat_server(&self.shared.arena, flow.src).is_some();
        let service = self.snapshot.outward().find(begins)?;
        let ServiceKey::Address(_, vip) = service.key else { return None };
        Some(vip)
    }

    fn unusable(&self, id: RealId) -> String {
        let real = self.shared.arena.get(id);
        let why = match (real.weight(), real.is_overloaded()) {
            (0, _) => "weight 0, quiesced".to_owned(),
            (_, true) => format!("{} connections, at its upper threshold {}", real.counts().total, real.thresholds().0),
            _ => "usable".to_owned(),
        };
        format!("{}: {why}", real.endpoint())
    }

    fn forwarding(&self, id: RealId, method: Method, port: u16, vip: Endpoint, text: &mut Vec<String>) {
        let real = self.shared.arena.get(id);
        let server = Endpoint::new(real.endpoint().address, port);
        text.push(match method {
            Method::Nat => {
                format!("  rewrite: NAT: destination {vip} becomes {server}, TTL one less, checksums follow")
            }
            Method::Dr => "  rewrite: DR: only MAC addresses change, TTL one less".to_owned(),
            Method::Bypass => {
                "  bypass: no server was there for it (cache_bypass); it goes to its own destination, TTL one less"
                    .to_owned()
            }
            Method::Tun => match real.source() {
                Some(source) => format!(
                    "  rewrite: TUN: TTL one less, wrapped into {source} -> {} by {} ({} bytes more)",
                    server.address,
                    real.tunnel(),
                    real.tunnel().overhead(server.address.family())
                ),
                None => "  dropped (no_route): the director has no address for the tunnel to start from".to_owned(),
            },
        });
        let egress = if method == Method::Bypass { self.way_to(vip.address) } else { self.path(real.path()) };
        text.push(format!("  egress: {egress}"));
    }

    fn is_local(&self, address: Address) -> bool {
        matches!(self.snapshot.routes().lookup(address), Some(Target::Local))
    }

    fn way_to(&self, address: Address) -> String {
        match self.snapshot.routes().lookup(address) {
            Some(Target::Via { interface, gateway, .. }) => {
                let next = gateway.unwrap_or(address);
                match self.shared.hops.find(interface, next) {
                    Some(hop) => self.path(Path::Hop(hop)),
                    None => format!("by {}, next hop {next}, MAC to be asked for", self.interface(interface)),
                }
            }
            Some(Target::NotServed) => self.path(Path::NotServed),
            Some(Target::Local) => self.path(Path::Local),
            Some(Target::Nowhere) | None => self.path(Path::NoRoute),
        }
    }

    fn interface(&self, id: crate::hop::InterfaceId) -> &str {
        self.snapshot.interface(id).map_or("an unknown interface", |interface| &interface.name)
    }

    fn path(&self, path: Path) -> String {
        match path {
            Path::Hop(id) => self.hop(id),
            Path::NoRoute => "dropped (no_route): there is no route".to_owned(),
            Path::NotServed => "dropped (interface_not_served): by an interface that xvs does not serve".to_owned(),
            Path::Local => "dropped (local_server): the address is the director's own".to_owned(),
        }
    }

    fn hop(&self, id: HopId) -> String {
        let hop = self.shared.hops.get(id);
        let neighbour = self.shared.hops.key(id).map(|(_, neighbour)| neighbour.to_string()).unwrap_or_default();
        let mut text = format!("by {}, next hop {neighbour}", self.interface(hop.interface));
        let mac = match hop.mac {
            Some([a, b, c, d, e, f]) => format!(" at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            None if hop.failed => ", which does not answer: dropped (neighbour_unresolved)".to_owned(),
            None => ", whose MAC is being asked for; the packet waits for it".to_owned(),
        };
        // Writing to a string can not fail.
        let _ = write!(text, "{mac}");
        text
    }
}
