//! From text to [`Document`]: syntax, names of keys, types of values.
//!
//! All mistakes are reported at once, each with its line and column. serde stops at the first one, so each table is
//! read on its own: a key that it does not know, or whose value has the wrong type, is reported, taken out, and the
//! rest is read again. The known keys are asked from the serde types themselves; there is no second list to keep.
//!
//! Invariant: no text makes this panic, and text of more than [`DOCUMENT_MAX`] bytes is not looked at. Nesting is
//! bounded by the `toml` crate.
//! Not here: whether the values make sense together. That is [`Desired::validate`](super::Desired::validate).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::de::value::Error as Nothing;
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::document::{
    ConnectionsTable, DirectorTable, Document, FramesTable, InterfaceTable, MarkTable, NETMASK, SchedulerTable,
    ServerTable, ServiceTable, SettingLine,
};
use super::problem::{PROBLEMS_MAX, Problem, Problems, Source, did_you_mean, either, quote};
use crate::control::timeouts;

/// Bytes of the longest document. A server takes about a hundred bytes, so this holds some tens of thousands of them,
/// and one wrong path (a capture, a core file) is told apart from a configuration before it is parsed.
pub const DOCUMENT_MAX: usize = 4 << 20;

type Value<'t> = Spanned<DeValue<'t>>;

impl Document {
    /// Reads a document. `file` names it in messages; it may be empty.
    ///
    /// The document may still be full of wrong values: see [`Desired::validate`](super::Desired::validate).
    pub fn parse(text: &str, file: &str) -> Result<Document, Vec<Problem>> {
        if text.len() > DOCUMENT_MAX {
            let source = Source::new("", file);
            let mut problems = Problems::new(&source);
            problems.push("", format!("{} bytes are too many: a configuration has {DOCUMENT_MAX} at most", text.len()));
            return problems.or(Document::default());
        }
        let mut source = Source::new(text, file);
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                let mut problems = Problems::new(&source);
                problems.push_at(error.span().map(|span| span.start), "", syntax(error.message()));
                return problems.or(Document::default());
            }
        };
        record(&mut source, "", &root);
        let mut reader = Reader { text, problems: Problems::new(&source) };
        let document = reader.document(root);
        let mut document = reader.problems.or(document)?;
        document.source = source;
        Ok(document)
    }
}

/// Bytes of the longest path whose place is remembered: longer than any of ours, and short enough that a hostile
/// document of many keys under a long name stays a small multiple of its size.
const PATH_MAX: usize = 64;

/// Remembers where each key and each table of a list begins.
fn record(source: &mut Source, path: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        if path.len() > PATH_MAX {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) => record(source, &path, table),
            DeValue::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if let DeValue::Table(table) = value.get_ref() {
                        record(source, &path, table);
                    }
                    source.record(path, value.span().start);
                }
            }
            _ => {}
        }
        source.record(path, key.span().start);
    }
}

/// The path of a key of a table.
fn join(table: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let key = if bare && key.len() <= 64 { key.to_owned() } else { quote(key) };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

struct Reader<'t> {
    text: &'t str,
    problems: Problems<'t>,
}

impl<'t> Reader<'t> {
    fn document(&mut self, mut root: DeTable<'t>) -> Document {
        self.refuse_unknown::<Document>("", &mut root);
        Document {
            director: self.section("director", &mut root),
            connections: self.section("connections", &mut root),
            timeouts: self.timeouts("", &mut root),
            sysctl: self.settings(&mut root),
            frames: self.section("frames", &mut root),
            interface: self.list("", "interface", &mut root, |reader, path, table| reader.table(path, table)),
            scheduler: self.list("", "scheduler", &mut root, |reader, path, table| reader.table(path, table)),
            mark: self.list("", "mark", &mut root, |reader, path, table| reader.table(path, table)),
            service: self.list("", "service", &mut root, Self::service),
            source: Source::default(),
        }
    }

    fn service(&mut self, path: &str, mut table: DeTable<'t>) -> ServiceTable {
        let server = self.list(path, "server", &mut table, Self::server);
        let timeouts = self.timeouts(path, &mut table);
        let options = self.texts(path, "options", &mut table);
        ServiceTable { timeouts, options, server, ..self.table(path, table) }
    }

    fn server(&mut self, path: &str, mut table: DeTable<'t>) -> ServerTable {
        let tags = self.texts(path, "tags", &mut table);
        ServerTable { tags, ..self.table(path, table) }
    }

    /// Names that are free, and for each a text, a number, or true or false: what is written, as text.
    fn texts(&mut self, parent: &str, name: &str, table: &mut DeTable<'t>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        let path = join(parent, name);
        let example = format!("this is a table of names and values, as in {name} = {{ zone = \"a\" }}");
        let table = match table.remove(name).map(Spanned::into_inner) {
            None => return texts,
            Some(DeValue::Table(table)) => table,
            Some(_) => {
                self.problems.push(path, example);
                return texts;
            }
        };
        for (name, value) in table {
            let text = match value.get_ref() {
                DeValue::Float(number) => Some(number.as_str().to_owned()),
                DeValue::Boolean(on) => Some(on.to_string()),
                DeValue::String(_) | DeValue::Integer(_) => setting(value.get_ref()),
                _ => None,
            };
            match text {
                Some(text) => drop(texts.insert(name.get_ref().to_string(), text)),
                None => {
                    let message = "this is text in double quotes, a number of at most 64 bits, true or false";
                    self.problems.push_at(Some(value.span().start), join(&path, name.get_ref()), message);
                }
            }
        }
        texts
    }

    /// `[name]`
    fn section<T: DeserializeOwned + Default>(&mut self, name: &str, root: &mut DeTable<'t>) -> T {
        self.only("", name, root).map_or_else(T::default, |table| self.table(name, table))
    }

    /// The table of this name, of which there is one at most.
    fn only(&mut self, parent: &str, name: &str, table: &mut DeTable<'t>) -> Option<DeTable<'t>> {
        let header = if parent.is_empty() { name.to_owned() } else { format!("service.{name}") };
        let message = match table.remove(name).map(Spanned::into_inner)? {
            DeValue::Table(table) => return Some(table),
            DeValue::Array(_) => format!("there is one such table: write [{header}] in single brackets"),
            _ => format!("this is a table: write [{header}], then a line for each key"),
        };
        self.problems.push(join(parent, name), message);
        None
    }

    /// `[timeouts]`, here or below a service: a number for each name.
    fn timeouts(&mut self, parent: &str, table: &mut DeTable<'t>) -> BTreeMap<String, i64> {
        let mut seconds = BTreeMap::new();
        let Some(mut table) = self.only(parent, "timeouts", table) else { return seconds };
        let path = join(parent, "timeouts");
        self.refuse_strange(&path, &mut table, timeouts::names());
        for (name, value) in table {
            let number = match value.get_ref() {
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            };
            match number {
                Some(number) => drop(seconds.insert(name.get_ref().to_string(), number)),
                None => {
                    let written = self.text.get(value.span()).unwrap_or_default();
                    let message = format!("{} should be a whole number of at most 64 bits", shorten(written));
                    self.problems.push_at(Some(value.span().start), join(&path, name.get_ref()), message);
                }
            }
        }
        seconds
    }

    /// `[sysctl]`: names with dots may be quoted or not, `"xvs.x" = 1` and `xvs.x = 1` are the same.
    fn settings(&mut self, root: &mut DeTable<'t>) -> BTreeMap<String, SettingLine> {
        let mut lines = BTreeMap::new();
        if let Some(table) = self.only("", "sysctl", root) {
            self.settings_below("sysctl", "", table, &mut lines);
        }
        lines
    }

    fn settings_below(
        &mut self,
        path: &str,
        prefix: &str,
        table: DeTable<'t>,
        lines: &mut BTreeMap<String, SettingLine>,
    ) {
        for (key, value) in table {
            let key = key.get_ref();
            let path = join(path, key);
            let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
            match value.into_inner() {
                DeValue::Table(table) => self.settings_below(&path, &name, table, lines),
                value => match setting(&value) {
                    Some(value) => {
                        if lines.insert(name, SettingLine { value, path: path.clone() }).is_some() {
                            self.problems.push(path, "this stands here twice, with and without quotes");
                        }
                    }
                    None => self.problems.push(path, "a setting is a whole number, true or false, or text"),
                },
            }
        }
    }

    /// `[[name]]`, each read by `read`
    fn list<T>(
        &mut self,
        parent: &str,
        name: &str,
        table: &mut DeTable<'t>,
        read: impl Fn(&mut Self, &str, DeTable<'t>) -> T,
    ) -> Vec<T> {
        let path = join(parent, name);
        let header = if parent.is_empty() { name.to_owned() } else { format!("service.{name}") };
        let list = match table.remove(name).map(Spanned::into_inner) {
            None => return Vec::new(),
            Some(DeValue::Array(list)) => list,
            Some(_) => {
                let message = format!("there may be several: write [[{header}]] in double brackets, once for each");
                self.problems.push(path, message);
                return Vec::new();
            }
        };
        let mut tables = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match value.into_inner() {
                DeValue::Table(table) => tables.push(read(self, &path, table)),
                _ => self.problems.push(path, format!("this is not a table: write [[{header}]], once for each")),
            }
        }
        tables
    }

    /// The values of one table. What is wrong is reported and left out.
    fn table<T: DeserializeOwned + Default>(&mut self, path: &str, mut table: DeTable<'t>) -> T {
        self.refuse_unknown::<T>(path, &mut table);
        loop {
            let error = match T::deserialize(Deserializer::from(Spanned::new(0..0, table.clone()))) {
                Ok(value) => return value,
                Err(error) => error,
            };
            let at = error.span().unwrap_or(0..0);
            let holds = |value: &Value<'_>| value.span().start <= at.start && at.end <= value.span().end;
            let culprit = table.iter().find(|(_, value)| holds(value)).map(|(key, _)| key.get_ref().to_string());
            let Some(key) = culprit else {
                // The libraries did not say which key: report the table, give up on it.
                self.problems.push(path, error.message());
                return T::default();
            };
            let written = self.text.get(at.clone()).unwrap_or_default();
            self.problems.push_at(Some(at.start), join(path, &key), wrong_type(error.message(), written));
            table.remove(key.as_str());
        }
    }

    /// Reports the keys that a table of this type does not have, and takes them out.
    fn refuse_unknown<T: DeserializeOwned>(&mut self, path: &str, table: &mut DeTable<'t>) {
        self.refuse_strange(path, table, keys_of::<T>());
    }

    /// Reports the keys that are not among the known ones, and takes them out.
    fn refuse_strange(&mut self, path: &str, table: &mut DeTable<'t>, known: &[&str]) {
        let mut unknown: Vec<_> =
            table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).cloned().collect();
        unknown.sort_by_key(|key| key.span().start);
        for key in unknown {
            let name = key.get_ref();
            // Looking for what was meant is the dear part: not for what is only counted.
            let message =
                if self.problems.len() < PROBLEMS_MAX { unknown_name(path, name, known) } else { String::new() };
            self.problems.push_at(Some(key.span().start), join(path, name), message);
            table.remove(name.as_ref());
        }
    }
}

/// The value of a setting as it would be written to a file below `/proc/sys`; none if it can not be.
fn setting(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Boolean(on) => Some(u8::from(*on).to_string()),
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string()),
        DeValue::Array(list) => {
            let words: Option<Vec<String>> = list.iter().map(|value| setting(value.get_ref())).collect();
            Some(words?.join(" "))
        }
        _ => None,
    }
}

/// What is said about a name that the table at `path` does not have.
fn unknown_name(path: &str, name: &str, known: &[&str]) -> String {
    let kind = if path.is_empty() { "table" } else { "key" };
    let mut hint = did_you_mean(name, known);
    if hint.is_empty() {
        hint = elsewhere(name);
    }
    format!("unknown {kind}{hint}; known here: {}", known.join(", "))
}

/// ` (it belongs to [x])` for a key that another table has.
fn elsewhere(key: &str) -> String {
    let tables = [
        ("[director]", keys_of::<DirectorTable>()),
        ("[connections]", keys_of::<ConnectionsTable>()),
        ("[timeouts]", timeouts::names()),
        ("[frames]", keys_of::<FramesTable>()),
        ("[[interface]]", keys_of::<InterfaceTable>()),
        ("[[scheduler]]", keys_of::<SchedulerTable>()),
        ("[[mark]]", keys_of::<MarkTable>()),
        ("[[service]]", keys_of::<ServiceTable>()),
        ("[[service.server]]", keys_of::<ServerTable>()),
    ];
    let owners: Vec<&str> = tables.iter().filter(|(_, keys)| keys.contains(&key)).map(|(table, _)| *table).collect();
    if owners.is_empty() { String::new() } else { format!(" (it belongs to {})", either(&owners)) }
}

/// The keys of a table, as serde knows them.
fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Ask<'_> {
        type Error = Nothing;

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
            Err(serde::de::Error::custom("only structs have keys"))
        }

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Nothing> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut keys: &'static [&'static str] = &[];
    // The answer is the list; the value is refused on purpose.
    let _ = T::deserialize(Ask(&mut keys));
    keys
}

/// serde's complaint about a value, in our words. A wording that it does not have today passes as it is.
fn wrong_type(message: &str, written: &str) -> String {
    if let Some((_, expected)) = message.rsplit_once("`, expected ").filter(|_| message.starts_with("unknown variant"))
    {
        let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let word = written.trim_matches(['"', '\'']);
        let known: Vec<String> = names.iter().map(|name| quote(name)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return format!("{} is not {}{}", quote(word), either(&known), did_you_mean(word, &names));
    }
    let expected = match (message, message.rsplit_once(", expected ").map(|(_, expected)| expected)) {
        ("integer number overflowed", _) | (_, Some("i64")) => "a whole number of at most 64 bits",
        ("wanted string or table", _) => "a name in double quotes",
        (_, Some("a boolean")) => "true or false",
        (_, Some("a string")) => "text in double quotes",
        (_, Some(NETMASK)) => NETMASK,
        (_, Some("a sequence")) => "a list in square brackets",
        _ => return message.to_owned(),
    };
    format!("{} should be {expected}", if written.is_empty() { "this" } else { shorten(written) })
}

/// What was written, up to its first line break, for a sentence.
fn shorten(written: &str) -> &str {
    let line = written.lines().next().unwrap_or_default();
    line.char_indices().nth(48).map_or(line, |(end, _)| &line[..end])
}

/// The parser's complaint, with what is most often meant where it leaves one guessing.
fn syntax(message: &str) -> String {
    let hint = match message {
        m if m.starts_with("string values must be quoted") => "a value is missing, or it is text without double quotes",
        m if m.starts_with("invalid float") => "this is no number; text and addresses stand in double quotes",
        m if m.starts_with("key with no value") => "a key is followed by = and a value",
        "duplicate key" => {
            "this key or table stands a second time; [[interface]], [[scheduler]], [[mark]], [[service]] and \
                            [[service.server]] repeat in double brackets"
        }
        _ => return format!("not TOML: {message}"),
    };
    format!("not TOML: {hint}")
}
