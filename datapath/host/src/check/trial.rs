//! An instance among made-up servers.
//!
//! Invariant: what it picks gets the connection, as in a director, so that loads move.

use xvs_sdk::Needs;
use xvs_sdk::abi::{self, ROW_USABLE, Row};

use super::made_up::{Chance, Scene};
use crate::fault::Fault;
use crate::instance::Instance;
use crate::module::Module;

/// An instance, its servers, and the flows that come.
pub(crate) struct Trial {
    pub(crate) instance: Instance,
    pub(crate) rows: Vec<Row>,
    pub(crate) scene: Scene,
    pub(crate) may_deny: bool,
    chance: Chance,
    hears: bool,
    used: u64,
}

impl Trial {
    pub(crate) fn begin(
        module: &Module,
        servers: usize,
        options: &str,
        scene: Scene,
        seed: u64,
    ) -> Result<Trial, Fault> {
        let mut instance = module.instantiate(seed)?;
        instance.configure(options)?;
        instance.set_count(servers)?;
        instance.set_now(1_000_000);
        let mut chance = Chance::new(seed);
        let rows: Vec<Row> = (0..servers).map(|index| scene.row(index, servers, &mut chance)).collect();
        for (index, row) in rows.iter().enumerate() {
            instance.write_row(index, row);
            instance.write_facts(index, &scene.facts(index, &mut chance));
        }
        instance.changed(abi::CHANGED_ALL, 0, module.limits().fuel_setup)?;
        let (may_deny, hears) = (module.needs().has(Needs::DENY), module.offers().on_conn);
        Ok(Trial { instance, rows, scene, may_deny, chance, hears, used: 0 })
    }

    /// The next flow's answer. Its server gets the connection; and at times another one loses one.
    pub(crate) fn pick(&mut self, fuel: u64) -> Result<i32, Fault> {
        let flow = self.chance.flow();
        let answer = self.instance.pick(&flow, fuel)?;
        let used = self.instance.fuel_used();
        if let Ok(index) = usize::try_from(answer)
            && index < self.rows.len()
        {
            self.count(index, 1, fuel)?;
        }
        if !self.rows.is_empty() && self.chance.below(3) == 0 {
            let index = self.chance.below(self.rows.len() as u32) as usize;
            if self.rows[index].active > 0 {
                self.count(index, -1, fuel)?;
            }
        }
        self.used = used;
        Ok(answer)
    }

    /// Puts a new instance in the place of the old one, with its state; false if it can not read it.
    pub(crate) fn replace(&mut self, module: &Module, options: &str, state: &[u8]) -> Result<bool, Fault> {
        let mut fresh = Trial::begin(module, self.rows.len(), options, self.scene, 77)?;
        for (index, row) in self.rows.iter().enumerate() {
            fresh.instance.write_row(index, row);
        }
        fresh.instance.changed(abi::CHANGED_ALL, 0, module.limits().fuel_setup)?;
        let read = fresh.instance.restore(state)?;
        self.instance = fresh.instance;
        Ok(read)
    }

    fn count(&mut self, index: usize, delta: i32, fuel: u64) -> Result<(), Fault> {
        let row = &mut self.rows[index];
        row.active = row.active.saturating_add_signed(delta);
        row.total = row.total.saturating_add_signed(delta).max(row.active);
        self.instance.set_counts(index, row.active, row.total, row.flags, row.health);
        if self.hears {
            self.instance.on_conn(index as i32, delta, fuel)?;
        }
        Ok(())
    }

    /// Fuel that the last pick used.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.used
    }

    pub(crate) fn is_usable(&self, index: usize) -> bool {
        self.rows.get(index).is_some_and(|row| row.flags & ROW_USABLE != 0)
    }

    pub(crate) fn has_usable(&self) -> bool {
        self.rows.iter().any(|row| row.flags & ROW_USABLE != 0)
    }
}
