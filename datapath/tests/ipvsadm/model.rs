//! A director for tests: IPVS's rules about rules, in memory, and no packets.
//!
//! Invariant: it refuses what the kernel refuses (an existing service, an absent server, a threshold below another) and
//! keeps the kernel's order: the newest server first, and one that comes back keeps its counters.
//!
//! Not here: traffic. Tests write the counters that traffic would have left.

use std::net::SocketAddr;

use xvs::control::client::ClientError;
use xvs::control::protocol::{
    Action, Answer, Connection, Method, Outcome, Protocol, Refusal, RefusalKind, Server, ServerSpec, Service,
    ServiceId, ServiceSpec, Services, Stats, Timeouts,
};
use xvs::ipvsadm::run::Director;

const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// The director.
pub(crate) struct Model {
    pub(crate) services: Services,
    pub(crate) connections: Vec<Connection>,
    timeouts: Timeouts,
    /// Deleted servers, which come back with their counters.
    trash: Vec<(ServiceId, Server)>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            services: Services { size: 4096, ..Services::default() },
            connections: Vec::new(),
            timeouts: Timeouts { tcp: 900, tcpfin: 120, udp: 300 },
            trash: Vec::new(),
        }
    }
}

impl Director for Model {
    fn call(&mut self, action: Action) -> Result<Result<Answer, Refusal>, ClientError> {
        Ok(self.carry_out(action).map_err(|kind| Refusal::new(kind, format!("refused: {kind:?}"))))
    }
}

impl Model {
    fn carry_out(&mut self, action: Action) -> Result<Answer, RefusalKind> {
        match action {
            Action::AddService(spec) => {
                known(&spec)?;
                if self.service(spec.id).is_some() {
                    return Err(RefusalKind::ServiceExists);
                }
                self.services.services.push(Service {
                    spec,
                    timeouts: Default::default(),
                    stats: Stats::default(),
                    servers: Vec::new(),
                });
            }
            Action::EditService(spec) => {
                known(&spec)?;
                let service = self.service(spec.id).ok_or(RefusalKind::NoSuchService)?;
                service.spec = spec;
            }
            Action::DeleteService(id) => {
                self.service(id).ok_or(RefusalKind::NoSuchService)?;
                self.services.services.retain(|service| service.spec.id != id);
            }
            Action::Flush => self.services.services.clear(),
            Action::AddServer { service, server } => self.add_server(service, server)?,
            Action::EditServer { service, server } => {
                sane(&server)?;
                self.server(service, server.address)?.spec = server;
            }
            Action::DeleteServer { service, address } => {
                let server = self.server(service, address)?.clone();
                self.trash.push((service, server));
                let service = self.service(service).ok_or(RefusalKind::ServiceNotDefined)?;
                service.servers.retain(|server| server.spec.address != address);
            }
            Action::Zero(id) => {
                if let Some(id) = id {
                    self.service(id).ok_or(RefusalKind::NoSuchService)?;
                }
                for service in
                    self.services.services.iter_mut().filter(|service| id.is_none_or(|id| service.spec.id == id))
                {
                    service.stats = Stats::default();
                    service.servers.iter_mut().for_each(|server| server.stats = Stats::default());
                }
            }
            Action::SetTimeouts(new) => {
                let keep = |new, old| if new == 0 { old } else { new };
                let old = self.timeouts;
                self.timeouts = Timeouts {
                    tcp: keep(new.tcp, old.tcp),
                    tcpfin: keep(new.tcpfin, old.tcpfin),
                    udp: keep(new.udp, old.udp),
                };
            }
            Action::Many(actions) => {
                let outcome = |action| match self.carry_out(action) {
                    Ok(answer) => Outcome::Ok(answer),
                    Err(kind) => Outcome::Refused(Refusal::new(kind, format!("refused: {kind:?}"))),
                };
                return Ok(Answer::Many(actions.into_iter().map(outcome).collect()));
            }
            Action::Services(None) => return Ok(Answer::Services(self.services.clone())),
            Action::Services(Some(id)) => {
                let service = self.service(id).ok_or(RefusalKind::NoSuchService)?.clone();
                return Ok(Answer::Services(Services { size: 4096, services: vec![service], ..Services::default() }));
            }
            Action::Connections => return Ok(Answer::Connections(self.connections.clone())),
            Action::Timeouts => return Ok(Answer::Timeouts(self.timeouts)),
            // What ipvsadm does not know.
            _ => return Err(RefusalKind::Unsupported),
        }
        Ok(Answer::Done)
    }

    fn add_server(&mut self, id: ServiceId, spec: ServerSpec) -> Result<(), RefusalKind> {
        sane(&spec)?;
        let old = self.trash.iter().position(|(service, server)| *service == id && server.spec.address == spec.address);
        let service = self.service(id).ok_or(RefusalKind::ServiceNotDefined)?;
        if service.servers.iter().any(|server| server.spec.address == spec.address) {
            return Err(RefusalKind::ServerExists);
        }
        let same_family = id.family() == ServiceId::Address { protocol: Protocol::Tcp, address: spec.address }.family();
        if !same_family && !matches!(spec.method, Method::Tun(_)) {
            return Err(RefusalKind::Invalid);
        }
        let server = match old {
            Some(index) => Server { spec, ..self.trash.remove(index).1 },
            None => Server {
                spec,
                active: 0,
                inactive: 0,
                persistent: 0,
                overloaded: false,
                path: String::new(),
                stats: Stats::default(),
            },
        };
        self.service(id).ok_or(RefusalKind::ServiceNotDefined)?.servers.insert(0, server);
        Ok(())
    }

    pub(crate) fn service(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.services.services.iter_mut().find(|service| service.spec.id == id)
    }

    fn server(&mut self, id: ServiceId, address: SocketAddr) -> Result<&mut Server, RefusalKind> {
        let service = self.service(id).ok_or(RefusalKind::ServiceNotDefined)?;
        let server = service.servers.iter_mut().find(|server| server.spec.address == address);
        server.ok_or(RefusalKind::NoSuchServer)
    }
}

fn known(spec: &ServiceSpec) -> Result<(), RefusalKind> {
    let engine = spec.engine.as_deref().is_none_or(|engine| engine == "sip");
    let scheduler = SCHEDULERS.contains(&spec.scheduler.as_str());
    if scheduler && engine { Ok(()) } else { Err(RefusalKind::NoSuchScheduler) }
}

fn sane(spec: &ServerSpec) -> Result<(), RefusalKind> {
    if spec.weight < 0 || spec.lower > spec.upper { Err(RefusalKind::OutOfRange) } else { Ok(()) }
}
