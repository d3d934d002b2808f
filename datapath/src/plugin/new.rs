//! `xvs plugin new`: a crate with a scheduler that works, to begin from.
//!
//! The crate holds a copy of the SDK, out of this program: it builds without a network and wherever xvs was installed
//! from, and its ABI is the one that this version speaks.
//!
//! Invariant: nothing that exists is written over, and what could not be finished is taken away again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Files of the crate. `{name}`, `{Name}` and `{module}` stand for its name, its type's and the path of its module.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("Cargo.lock", include_str!("template/Cargo.lock.in")),
    (".cargo/config.toml", include_str!("template/config.toml.in")),
    (".gitignore", include_str!("template/gitignore.in")),
    ("README.md", include_str!("template/README.md.in")),
    ("rustfmt.toml", include_str!("template/rustfmt.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
];

macro_rules! sdk {
    ($($file:literal)+) => {
        /// The SDK, as it is in the sources that this program was built from.
        const SDK: &[(&str, &str)] =
            &[$(($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/", $file))),)+];
    };
}

sdk! {
    "Cargo.toml" "src/abi.rs" "src/export.rs" "src/guest.rs" "src/guest_tests.rs" "src/hash.rs" "src/lib.rs"
    "src/log.rs" "src/options.rs" "src/random.rs" "src/reals.rs" "src/request.rs" "src/scheduler.rs" "src/view.rs"
}

/// Most characters of a name: a director loads plugins under no longer one.
const LONGEST: usize = 32;

/// Words that Rust keeps for itself, and names that a crate can not have beside its dependencies.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "xvs-sdk",
    "xvs_sdk",
    "yield",
];

/// Why there is no new crate.
#[derive(Debug, Error)]
pub enum NewError {
    /// The name is none.
    #[error("{name:?} can not be the name of a scheduler: {why}, as in least-loaded")]
    Name {
        /// What was given.
        name: String,
        /// What would be right.
        why: &'static str,
    },
    /// There is something of this name.
    #[error("{} is there already, and nothing is written over it; choose another name, or --dir", .0.display())]
    Exists(PathBuf),
    /// The file system does not do it.
    #[error("{} can not be written: {error}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Makes a crate of this name in a directory, which is made as well if it is not there. What was made.
///
/// # Errors
/// The name is wrong, or there is something of this name, or it can not be written.
pub fn new(name: &str, directory: &Path) -> Result<PathBuf, NewError> {
    check(name)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        |error| NewError::Write { path, error }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let root = directory.join(name);
    match fs::create_dir(&root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(NewError::Exists(root)),
        made => made.map_err(failed(&root))?,
    }
    let written = files(name).try_for_each(|(path, text)| {
        let path = root.join(path);
        let folder = path.parent().unwrap_or(&root);
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(failed(&path))
    });
    if written.is_err() {
        // A half of a crate helps nobody. If this fails as well, the first error is the one to tell.
        let _ = fs::remove_dir_all(&root);
    }
    written.map(|()| root)
}

/// What to do with it, for people.
pub fn next_steps(name: &str, root: &Path) -> String {
    format!(
        "made {root}; what to do with it:\n  cd {root}\n  cargo test\n  \
         cargo build --release --target wasm32-unknown-unknown\n  xvs plugin check {module}\n\
         {root}/README.md says what to install, and what comes next.\n",
        root = root.display(),
        module = module(name),
    )
}

/// Where the compiler leaves the module, within the crate.
fn module(name: &str) -> String {
    format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_"))
}

fn files(name: &str) -> impl Iterator<Item = (String, String)> {
    let (type_name, module) = (type_name(name), module(name));
    let own = TEMPLATE.iter().map({
        let name = name.to_owned();
        move |(path, text)| {
            let text = text.replace("{name}", &name).replace("{Name}", &type_name).replace("{module}", &module);
            ((*path).to_owned(), text)
        }
    });
    own.chain(SDK.iter().map(|(path, text)| (format!("xvs-sdk/{path}"), (*text).to_owned())))
}

/// `least-loaded` is `LeastLoaded`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split(['-', '_']).map(word).collect()
}

fn check(name: &str) -> Result<(), NewError> {
    let wrong = |why| Err(NewError::Name { name: name.to_owned(), why });
    if name.is_empty() || name.len() > LONGEST {
        return wrong("it has 1 to 32 characters");
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return wrong("it begins with a small letter");
    }
    if !name.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '-' || one == '_') {
        return wrong("it is made of small letters, digits, - and _");
    }
    if TAKEN.contains(&name) {
        return wrong("Rust or the SDK has this word for itself; it must be another one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the SDK that is not in the list would be missing in every new crate.
    #[test]
    fn the_sdk_is_whole() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/src");
        let mut there: Vec<String> = fs::read_dir(source)
            .unwrap()
            .map(|entry| format!("src/{}", entry.unwrap().file_name().to_string_lossy()))
            .collect();
        there.sort();
        let listed: Vec<&str> = SDK.iter().map(|(path, _)| *path).filter(|path| path.starts_with("src/")).collect();
        assert_eq!(listed, there);
    }

    /// Names become crates, types and files; every other name is refused, and says why.
    #[test]
    fn names_are_checked() {
        assert_eq!(type_name("least-loaded_2x"), "LeastLoaded2x");
        assert_eq!(module("a-b"), "target/wasm32-unknown-unknown/release/a_b.wasm");
        for right in ["a", "least-loaded", "wlc2", "my_own"] {
            check(right).unwrap();
        }
        for wrong in ["", "2wlc", "-a", "Upper", "a b", "../a", "a/b", "ä", "fn", "test", "xvs-sdk", &"a".repeat(33)] {
            let told = check(wrong).unwrap_err().to_string();
            assert!(told.contains("can not be the name of a scheduler: "), "{told}");
        }
    }

    /// No placeholder may be left, and the braces of Rust are not taken for one.
    #[test]
    fn placeholders_are_filled() {
        for (path, text) in files("least-loaded").filter(|(path, _)| !path.starts_with("xvs-sdk/")) {
            assert!(!["{name}", "{Name}", "{module}"].iter().any(|placeholder| text.contains(placeholder)), "{path}");
        }
        let (_, code) = files("least-loaded").find(|(path, _)| path == "src/lib.rs").unwrap();
        assert!(code.contains("impl Scheduler for LeastLoaded {"));
    }

    /// What exists stays as it is, be it a folder or a file.
    #[test]
    fn nothing_is_written_over() {
        let directory = std::env::temp_dir().join(format!("xvs-new-{}", std::process::id()));
        let root = new("mine", &directory).unwrap();
        fs::write(root.join("src/lib.rs"), "precious").unwrap();
        assert!(matches!(new("mine", &directory), Err(NewError::Exists(_))));
        fs::write(directory.join("file"), "").unwrap();
        assert!(matches!(new("file", &directory), Err(NewError::Exists(_))));
        assert!(matches!(new("mine", &directory.join("file")), Err(NewError::Write { .. })));
        assert_eq!(fs::read_to_string(root.join("src/lib.rs")).unwrap(), "precious");
        fs::remove_dir_all(directory).unwrap();
    }
}
