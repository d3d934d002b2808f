//! What the engine asks of a post: a worker's side of it, and how it hears of changes.
//!
//! Invariant: a worker holds its own seat only, and for one answer; a misdeed is served by whoever comes next: a
//! candidate's by the live plugin, the live one's by the native scheduler.

use std::sync::atomic::Ordering::Relaxed;

use xvs_engine::real::{Arena, RealId};
use xvs_engine::sched::guest::{Advice, Guest, Opinion, Site};
use xvs_sdk::{Change, Request};

use super::Post;
use super::runner::Runner;
use super::seat::{Seat, Trial, ask, server};

impl Guest for Post {
    #[inline]
    fn is_active(&self) -> bool {
        self.is_active.load(Relaxed)
    }

    fn advise(&self, arena: &Arena, request: &Request) -> Opinion {
        let seat = &mut *self.seat(request.queue);
        let native = Opinion { advice: Advice::Native, version: 0, listens: false };
        if let Some(candidate) = seat.candidate.as_mut().filter(|candidate| candidate.takes(request)) {
            match ask(&mut candidate.runner, &self.trial, arena, request) {
                Ok(advice) => {
                    candidate.tally.one(true, server(advice));
                    seat.picks += 1;
                    let version = candidate.runner.as_ref().map_or(0, |runner| runner.list().1);
                    return Opinion { advice, version, listens: false };
                }
                Err(Some(misdeed)) => self.misbehaved(&self.trial, &misdeed, request.now_ms),
                Err(None) => {}
            }
            // The live one serves it.
        }
        let listens = match &mut seat.candidate {
            Some(candidate) => match candidate.trial {
                Trial::Shadow { .. } => candidate.samples(),
                Trial::Canary { .. } => true,
            },
            None => false,
        };
        let opinion = match ask(&mut seat.live, &self.conduct, arena, request) {
            Ok(advice) => {
                let version = seat.live.as_ref().map_or(0, |runner| runner.list().1);
                Opinion { advice, version, ..native }
            }
            Err(misdeed) => {
                if let Some(misdeed) = misdeed {
                    self.misbehaved(&self.conduct, &misdeed, request.now_ms);
                }
                native
            }
        };
        match opinion.advice {
            // Without a plugin of its own the service is its native scheduler's anyway.
            Advice::Native => seat.fallback += u64::from(seat.live.is_some()),
            _ => seat.picks += 1,
        }
        Opinion { listens, ..opinion }
    }

    fn hear(&self, arena: &Arena, request: &Request, chosen: Option<RealId>) {
        let seat = &mut *self.seat(request.queue);
        let Some(candidate) = &mut seat.candidate else { return };
        if let Trial::Canary { .. } = candidate.trial {
            return candidate.tally.one(false, chosen);
        }
        match ask(&mut candidate.runner, &self.trial, arena, request) {
            // What it leaves to the native scheduler is as that one would have it.
            Ok(Advice::Native) => candidate.tally.both(chosen, chosen),
            Ok(advice) => candidate.tally.both(chosen, server(advice)),
            Err(Some(misdeed)) => self.misbehaved(&self.trial, &misdeed, request.now_ms),
            Err(None) => {}
        }
        // The connection goes where the live one said: that server's counts change, not those of the candidate's choice.
        if let Some(runner) = &mut candidate.runner {
            runner.follows(chosen);
        }
    }

    fn overruled(&self, request: &Request) {
        let seat = &mut *self.seat(request.queue);
        seat.overruled += 1;
    }

    fn changed(&self, site: &Site<'_>, change: Change) {
        let desk = &*self.desk();
        for number in 0..self.seats.len() {
            self.follow(number, |seat| seat.live.as_mut(), &self.conduct, site, desk, change);
            if let Some(candidate) = &mut self.seats[number].take().candidate {
                candidate.tally.make_room(site.members);
            }
            self.follow(number, Seat::candidate, &self.trial, site, desk, change);
        }
    }

    fn preview(&self, site: &Site<'_>, request: &Request) -> Advice {
        let desk = &*self.desk();
        let Some(recipe) = desk.live.as_ref().filter(|_| self.conduct.is_live()) else { return Advice::Native };
        let state = self.seat(request.queue).live.as_mut().and_then(Runner::save);
        let copy = Runner::build(recipe, self.seed(0), site, &desk.facts, state.as_deref(), request.now_ms);
        copy.map_or(Advice::Native, |mut copy| copy.ask(site.arena, request).unwrap_or(Advice::Native))
    }
}
