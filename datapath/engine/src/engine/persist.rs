//! Persistence: a client's further connections go where its first one went.
//!
//! A template says where the connections of a client (or of a network of clients) go. While it is there the scheduler is
//! not asked, and neither weight nor threshold of its server is looked at. It lives for the service's timeout after the
//! *last new connection*, whatever packets came since, and while it has children; one that expired with children lives
//! on a minute at a time for good. Its timeout is that of the moment when it was made. (IPVS-REFERENCE 3.5; traps all.)
//!
//! With the engine for SIP each call of a client has its own template: the key is the client's network as always, and
//! the Call-ID besides, as in IPVS. A message without one opens nothing.
//!
//! Invariant: called under the service's lock, so a key has one template (after a guest was asked without it, the key is
//! looked up again). Not here: keys ([`ServiceKey::template`]), and
//! how template and children hold each other ([`crate::conn`]).
//!
//! [`ServiceKey::template`]: crate::service::ServiceKey::template

use super::Engine;
use super::open::{Choice, Opening};
use crate::conn::{Conn, Flags, NewConn, Status};
use crate::drop::DropReason;
use crate::flow::{Endpoint, Flow};
use crate::real::{Path, RealId};
use crate::service::{Persistence, PersistenceEngine, Turn};
use crate::time::Now;
use crate::wire::sip;

/// What a template is known by.
struct Key<'a> {
    flow: Flow,
    keeps_port: bool,
    call: Option<&'a [u8]>,
}

impl<'a> Key<'a> {
    fn of(opening: &Opening<'a>, persistence: Persistence) -> Result<Self, DropReason> {
        let (flow, keeps_port) = opening.service.key.template(opening.flow, persistence.mask);
        let call = match opening.policy.engine {
            Some(PersistenceEngine::Sip) => Some(sip::call_id(opening.payload).ok_or(DropReason::NoCallId)?),
            None => None,
        };
        Ok(Key { flow, keeps_port, call })
    }
}

impl Engine {
    /// Where the client's template leads; without one the scheduler chooses, and a template remembers it.
    pub(super) fn persist(
        &self,
        turn: &mut Turn<'_>,
        opening: &Opening<'_>,
        persistence: Persistence,
    ) -> Result<Choice, DropReason> {
        let Opening { flow, service, now, .. } = *opening;
        let key = Key::of(opening, persistence)?;
        let template = match self.valid_template(&key, now, None) {
            Some(template) => template,
            None => {
                let real = turn.pick(&self.shared.arena, &opening.request());
                let real = real.ok_or_else(|| opening.nobody())?;
                // While a guest was asked, another worker may have led the client elsewhere.
                let other = turn.was_let_go().then(|| self.valid_template(&key, now, None)).flatten();
                match other {
                    Some(template) => template,
                    None => self.make_template(opening, &key, real, persistence.timeout_s)?,
                }
            }
        };
        self.renew(&template, persistence, now);
        let own = self.shared.arena.get(template.real()).endpoint().port;
        let maps = own != 0 && flow.dst.port == service.key.port();
        Ok(Choice { real: template.real(), port: if maps { own } else { flow.dst.port }, parent: Some(template.id()) })
    }

    /// Has the client's template lead to this server, which begins a connection itself. One that leads elsewhere is
    /// retired. The connection is a child of what this gives.
    pub(super) fn persist_to(
        &self,
        opening: &Opening<'_>,
        persistence: Persistence,
        real: RealId,
    ) -> Result<Conn<'_>, DropReason> {
        let key = Key::of(opening, persistence)?;
        let template = match self.valid_template(&key, opening.now, Some(real)) {
            Some(template) => template,
            None => self.make_template(opening, &key, real, persistence.timeout_s)?,
        };
        self.renew(&template, persistence, opening.now);
        Ok(template)
    }

    fn renew(&self, template: &Conn<'_>, persistence: Persistence, now: Now) {
        if self.shared.switches.template_renewal.is_on() {
            template.touch(now, persistence.timeout_s);
        } else {
            template.rearm(now);
        }
    }

    /// The template of this key, with the child counted in, if it may still lead anywhere (to `only` this server, if one
    /// is named). One that may not is retired.
    fn valid_template(&self, key: &Key<'_>, now: Now, only: Option<RealId>) -> Option<Conn<'_>> {
        let table = &self.shared.table;
        let mut template = match key.call {
            Some(call) => table.call_template(&key.flow, call)?,
            None => table.template(&key.flow)?,
        };
        if template.expires_in(now) == 0 && table.lapse(&mut template, now) {
            self.shared.settle(&template);
            self.counters.expired.add(1);
            return None;
        }
        let real = self.shared.arena.get(template.real());
        let quiesced = self.shared.switches.expire_quiescent_template.is_on() && real.weight() == 0;
        if real.is_available() && !quiesced && only.is_none_or(|only| only == template.real()) {
            return Some(template).filter(Conn::adopt);
        }
        template.retire();
        None
    }

    /// Makes the template, with its first child counted in.
    fn make_template(
        &self,
        opening: &Opening<'_>,
        key: &Key<'_>,
        id: RealId,
        timeout_s: u32,
    ) -> Result<Conn<'_>, DropReason> {
        let real = self.shared.arena.get(id);
        let endpoint = real.endpoint();
        let new = NewConn {
            flow: key.flow,
            server: Endpoint::new(endpoint.address, if key.keeps_port { endpoint.port } else { 0 }),
            real: id,
            service: opening.service.number,
            status: Status {
                state: 0,
                flags: Flags::template(real.method()).with(Flags::ONE_PACKET, opening.policy.one_packet),
            },
            timeout_s,
            reply_path: Path::NoRoute,
            class: 0,
            parent: None,
        };
        let template = self.insert(&key.flow, |table| match key.call {
            Some(call) => table.insert_call_template(&new, call, opening.now),
            None => table.insert_template(&new, opening.now),
        })?;
        real.bind_template();
        self.counters.templates.add(1);
        // Nobody else can have ended it: it is new, and only this service's lock leads to it.
        template.adopt();
        Ok(template)
    }
}
