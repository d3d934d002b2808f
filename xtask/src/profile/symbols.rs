//! From an address in a program's file to the functions there: the one that the symbol names, and those that the compiler
//! put into it.
//!
//! Invariant: a file that cannot be read, or has no line tables, leads to the name that the tool gave; never to a guess.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use addr2line::Loader;
use object::{Object, ObjectSegment};

/// Loaded files, and what was found before.
#[derive(Default)]
pub(crate) struct Symbols {
    files: HashMap<String, Option<File>>,
    found: HashMap<(String, u64), Vec<String>>,
}

struct File {
    loader: Loader,
    /// File offset, size and address of each segment.
    segments: Vec<(u64, u64, u64)>,
}

impl Symbols {
    /// The functions at an offset of a file, as perf tells places; the outermost first.
    pub(super) fn at_offset(&mut self, file: &str, offset: u64, named: &str) -> Vec<String> {
        let address = self.file(file).and_then(|file| file.address(offset));
        match address {
            Some(address) => self.at_address(file, address, named),
            None => vec![short(named)],
        }
    }

    /// The functions at an address as the file's linker gave it; the outermost first.
    pub(crate) fn at_address(&mut self, file: &str, address: u64, named: &str) -> Vec<String> {
        let key = (file.to_owned(), address);
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let frames = self.file(file).map(|file| file.functions(address)).unwrap_or_default();
        let frames = if frames.is_empty() { vec![short(named)] } else { frames };
        self.found.insert(key, frames.clone());
        frames
    }

    fn file(&mut self, name: &str) -> Option<&File> {
        self.files.entry(name.to_owned()).or_insert_with(|| File::open(Path::new(name))).as_ref()
    }
}

impl File {
    fn open(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let object = object::File::parse(&*bytes).ok()?;
        let segment = |segment: object::Segment<'_, '_>| {
            let (offset, size) = segment.file_range();
            (offset, size, segment.address())
        };
        let segments = object.segments().map(segment).collect();
        Some(File { loader: Loader::new(path).ok()?, segments })
    }

    fn address(&self, wanted: u64) -> Option<u64> {
        let (offset, _, address) =
            self.segments.iter().find(|(offset, size, _)| (*offset..offset + size).contains(&wanted))?;
        Some(wanted - offset + address)
    }

    fn functions(&self, address: u64) -> Vec<String> {
        let Ok(mut frames) = self.loader.find_frames(address) else { return Vec::new() };
        let mut names = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let Some(function) = frame.function else { return Vec::new() };
            let Ok(name) = function.raw_name() else { return Vec::new() };
            names.push(short(&name));
        }
        names.reverse();
        names
    }
}

/// A name as people say it, without the compiler's hash.
pub(super) fn short(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the way from an address to a name, on this very program; and that what is unknown keeps the tool's name.
    #[test]
    fn this_program_is_read() {
        let own = std::env::current_exe().expect("a program").to_string_lossy().into_owned();
        let bytes = fs::read(&own).expect("a file");
        let object = object::File::parse(&*bytes).expect("ELF");
        let symbol = object::Object::symbols(&object)
            .find(|symbol| object::ObjectSymbol::name(symbol).is_ok_and(|name| name.contains("this_program_is_read")))
            .expect("a symbol of this test");
        let address = object::ObjectSymbol::address(&symbol);
        let mut symbols = Symbols::default();
        let found = symbols.at_address(&own, address, "unknown");
        assert!(found.iter().any(|name| name.contains("this_program_is_read")), "{found:?}");
        assert_eq!(symbols.at_offset("/nonexistent", 1, "_ZN3abc3defE"), ["abc::def"]);
    }
}
