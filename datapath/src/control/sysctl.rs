//! The settings in force: `net.ipv4.vs.*` and xvs's own, by name and value.
//!
//! ```text
//! table    every setting: name, kind, default, effect, does it act here
//! value    what a kind takes
//! defence  what the modes of the defences come to, once a second
//! ```
//!
//! Invariant: every setting of the table has a value of its kind; what acts in the engine has the same value in its
//! switch. Many are set as one: all are right, or nothing changes.

use xvs_engine::switches::Switches;

pub mod defence;
pub mod table;
pub mod value;

use super::protocol::{Assignment, Refusal, RefusalKind, SettingState, Standing};
use crate::config::document::Compat;
use crate::config::problem::{did_you_mean, quote};
use defence::Modes;
use table::{Applies, Setting, TABLE};
use value::Value;

/// The settings in force.
#[derive(Debug)]
pub struct Settings {
    profile: Compat,
    /// In the order of [`TABLE`].
    values: Vec<Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(Compat::default())
    }
}

/// A setting and the value that it is to have: both right.
#[derive(Debug, Clone)]
pub struct Wish {
    setting: &'static Setting,
    value: Value,
}

impl PartialEq for Wish {
    fn eq(&self, other: &Self) -> bool {
        self.setting.name == other.setting.name && self.value == other.value
    }
}

impl Eq for Wish {}

impl Wish {
    /// Reads one.
    ///
    /// # Errors
    /// There is no such setting, or it does not take this value.
    pub fn read(name: &str, value: &str) -> Result<Wish, Refusal> {
        let setting = lookup(name)?;
        let value = setting.kind.read(value).ok_or_else(|| {
            let message = format!("{} does not take {}: it is {}", setting.full_name(), quote(value), setting.kind);
            Refusal::new(RefusalKind::Invalid, message)
        })?;
        Ok(Wish { setting, value })
    }

    /// The setting's name in the table.
    pub fn name(&self) -> &'static str {
        self.setting.name
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The same for the control protocol.
    pub fn assignment(&self) -> Assignment {
        Assignment { name: self.setting.full_name(), value: self.value.to_string() }
    }

    /// A sentence if this asks for what nothing will do: not the default, and without effect here.
    pub fn futile(&self) -> Option<String> {
        let default = self.setting.kind.read(self.setting.default(Compat::Ipvs));
        let why = match self.setting.applies {
            Applies::Kept(why) | Applies::Absent(why) if default.as_ref() != Some(&self.value) => why,
            _ => return None,
        };
        Some(format!("{} is kept and has no effect here. {why}", self.setting.full_name()))
    }
}

impl Settings {
    /// The defaults of a profile.
    pub fn new(profile: Compat) -> Self {
        let value = |setting: &Setting| {
            // A test sees to it that every default is of its kind.
            setting.kind.read(setting.default(profile)).unwrap_or(Value::Number(0))
        };
        Settings { profile, values: TABLE.iter().map(value).collect() }
    }

    /// The value of a setting by its name in the table; none if there is no such setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(TABLE.binary_search_by_key(&name, |setting| setting.name).ok()?)
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name).map_or(0, Value::number)
    }

    /// Brings all values into the switches.
    pub fn act_on(&self, switches: &Switches) {
        for (setting, value) in TABLE.iter().zip(&self.values) {
            if let Applies::Switch(switch) = setting.applies {
                switch(switches).set(u32::try_from(value.number()).unwrap_or_default());
            }
        }
    }

    /// Takes these in, in their order. Of a name that stands there twice the last value counts. What acts in the engine
    /// does so with [`act_on`](Settings::act_on).
    pub fn take(&mut self, wishes: &[Wish]) {
        for Wish { setting, value } in wishes {
            self.write(setting.name, value.clone());
        }
    }

    /// Is it as wished? A defence that waits for pressure is as wished also while it meets it.
    pub fn fulfils(&self, wish: &Wish) -> bool {
        let Some(value) = self.get(wish.setting.name) else { return false };
        let automatic = |value: &Value| matches!(value, Value::Number(1 | 2));
        let is_defence = ["drop_entry", "drop_packet", "secure_tcp"].contains(&wish.setting.name);
        *value == wish.value || (is_defence && automatic(value) && automatic(&wish.value))
    }

    fn write(&mut self, name: &str, value: Value) {
        let at = TABLE.binary_search_by_key(&name, |setting| setting.name);
        if let Some(place) = at.ok().and_then(|at| self.values.get_mut(at)) {
            *place = value;
        }
    }

    /// Are rates made?
    pub fn estimates(&self) -> bool {
        let no_cpu = self.get("est_cpulist").is_some_and(|list| *list == Value::Cpus(String::new()));
        self.number("run_estimation") != 0 && !no_cpu
    }

    /// Looks after the defences, once a second: `free` entries of the connection table are left.
    pub fn defend(&mut self, switches: &Switches, free: u32) {
        let modes = Modes {
            drop_entry: self.number("drop_entry"),
            drop_packet: self.number("drop_packet"),
            secure_tcp: self.number("secure_tcp"),
        };
        let stance = defence::look(modes, self.number("amemthresh"), self.number("am_droprate"), free);
        if stance.modes != modes {
            tracing::warn!(free, ?modes, now = ?stance.modes, "the defences follow the connection table");
        }
        self.write("drop_entry", Value::Number(stance.modes.drop_entry));
        self.write("drop_packet", Value::Number(stance.modes.drop_packet));
        self.write("secure_tcp", Value::Number(stance.modes.secure_tcp));
        switches.drop_rate.set(stance.drop_rate);
        switches.drop_entry_active.set(stance.drop_entry_active.into());
        switches.secure_tcp_active.set(stance.secure_tcp_active.into());
    }

    /// What would bring these back to what they are now.
    pub fn undo(&self, assignments: &[Assignment]) -> Vec<Assignment> {
        let setting = |assignment: &Assignment| table::find(&assignment.name);
        assignments.iter().filter_map(setting).filter_map(|setting| self.assignment(setting)).collect()
    }

    fn assignment(&self, setting: &Setting) -> Option<Assignment> {
        Some(Assignment { name: setting.full_name(), value: self.get(setting.name)?.to_string() })
    }

    /// Settings as they are, for a listing; all of them if none is named.
    ///
    /// # Errors
    /// There is no setting of one of the names.
    pub fn states(&self, names: &[String]) -> Result<Vec<SettingState>, Refusal> {
        let wanted: Vec<&Setting> = if names.is_empty() {
            TABLE.iter().collect()
        } else {
            names.iter().map(|name| lookup(name)).collect::<Result<_, _>>()?
        };
        Ok(wanted.into_iter().filter_map(|setting| self.state(setting)).collect())
    }

    fn state(&self, setting: &Setting) -> Option<SettingState> {
        let (standing, why) = match setting.applies {
            Applies::Switch(_) | Applies::Control => (Standing::Acts, None),
            Applies::Kept(why) => (Standing::Kept, Some(why.to_owned())),
            Applies::Absent(why) => (Standing::Absent, Some(why.to_owned())),
        };
        Some(SettingState {
            name: setting.full_name(),
            value: self.get(setting.name)?.to_string(),
            default: setting.default(self.profile).to_owned(),
            takes: setting.kind.to_string(),
            standing,
            effect: setting.effect.to_owned(),
            why,
        })
    }
}

/// All of these as wishes.
///
/// # Errors
/// Everything that is wrong with them, in one sentence after the other.
pub fn read_all(assignments: &[Assignment]) -> Result<Vec<Wish>, Refusal> {
    let mut wishes = Vec::with_capacity(assignments.len());
    let mut wrong: Vec<Refusal> = Vec::new();
    for Assignment { name, value } in assignments {
        match Wish::read(name, value) {
            Ok(wish) => wishes.push(wish),
            Err(refusal) => wrong.push(refusal),
        }
    }
    let Some(first) = wrong.first() else { return Ok(wishes) };
    let sentences: Vec<&str> = wrong.iter().map(|refusal| refusal.message.as_str()).collect();
    Err(Refusal::new(first.kind, sentences.join("; ")))
}

fn lookup(name: &str) -> Result<&'static Setting, Refusal> {
    table::find(name).ok_or_else(|| {
        let bare = name.replace('/', ".");
        let bare = bare.strip_prefix(table::PREFIX).unwrap_or(&bare);
        let known: Vec<&str> = TABLE.iter().map(|setting| setting.name).collect();
        let hint = did_you_mean(bare, &known);
        let message = format!("there is no setting {}{hint}; `xvs sysctl list --all` tells all", quote(name));
        Refusal::new(RefusalKind::NoSuchSetting, message)
    })
}
