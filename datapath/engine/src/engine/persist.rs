//! Persistence: a client's further connections go where its first one went.
//!
//! A template says where the connections of a client (or of a network of clients) go. While it is there the scheduler is
//! not asked, and neither weight nor threshold of its server is looked at. It lives for the service's timeout after the
//! *last new connection*, whatever packets came since, and while it has children; one that expired with children lives
//! on a minute at a time for good. Its timeout is that of the moment when it was made. (IPVS-REFERENCE 3.5; traps all.)
//!
//! Invariant: called under the service's lock, so a key has one template. Not here: keys ([`ServiceKey::template`]), and
//! how template and children hold each other ([`crate::conn`]).
//!
//! [`ServiceKey::template`]: crate::service::ServiceKey::template

use super::Engine;
use super::open::{Choice, Opening};
use crate::conn::{Conn, Flags, NewConn, Status};
use crate::drop::DropReason;
use crate::flow::{Endpoint, Flow};
use crate::real::{Path, RealId};
use crate::service::{Persistence, Turn};
use crate::time::Now;

impl Engine {
    /// Where the client's template leads; without one the scheduler chooses, and a template remembers it.
    pub(super) fn persist(
        &self,
        turn: &mut Turn<'_>,
        opening: &Opening<'_>,
        persistence: Persistence,
    ) -> Result<Choice, DropReason> {
        let Opening { flow, service, now, .. } = *opening;
        let (key, keeps_port) = service.key.template(flow, persistence.mask);
        let adopted = self.valid_template(&key, now).filter(Conn::adopt);
        let template = match adopted {
            Some(template) => template,
            None => {
                let real = turn.pick(&self.shared.arena, &super::request(flow, opening.hash, now));
                let real = real.ok_or(DropReason::NoServer)?;
                let template = self.make_template(opening, &key, keeps_port, real, persistence.timeout_s)?;
                // Nobody else can have ended it: it is new, and only this service's lock leads to it.
                template.adopt();
                template
            }
        };
        if self.shared.switches.template_renewal.is_on() {
            template.touch(now, persistence.timeout_s);
        } else {
            template.rearm(now);
        }
        let own = self.shared.arena.get(template.real()).endpoint().port;
        let maps = own != 0 && flow.dst.port == service.key.port();
        Ok(Choice { real: template.real(), port: if maps { own } else { flow.dst.port }, parent: Some(template.id()) })
    }

    /// The template of this key, if it may still lead anywhere. One that may not is retired.
    fn valid_template(&self, key: &Flow, now: Now) -> Option<Conn<'_>> {
        let mut template = self.shared.table.template(key)?;
        if template.expires_in(now) == 0 && self.shared.table.lapse(&mut template, now) {
            self.shared.settle(&template);
            self.counters.expired.add(1);
            return None;
        }
        let real = self.shared.arena.get(template.real());
        let quiesced = self.shared.switches.expire_quiescent_template.is_on() && real.weight() == 0;
        if real.is_available() && !quiesced {
            return Some(template);
        }
        template.retire();
        None
    }

    fn make_template(
        &self,
        opening: &Opening<'_>,
        key: &Flow,
        keeps_port: bool,
        id: RealId,
        timeout_s: u32,
    ) -> Result<Conn<'_>, DropReason> {
        let real = self.shared.arena.get(id);
        let endpoint = real.endpoint();
        let new = NewConn {
            flow: *key,
            server: Endpoint::new(endpoint.address, if keeps_port { endpoint.port } else { 0 }),
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
        let template = self.insert(key, |table| table.insert_template(&new, opening.now))?;
        real.bind_template();
        self.counters.templates.add(1);
        Ok(template)
    }
}
