//! Colour, on a terminal only.

use std::fmt::Display;
use std::io::{IsTerminal, stdout};

fn paint(code: u8, text: impl Display) -> String {
    let wanted = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// A heading.
pub(crate) fn title(text: impl Display) -> String {
    paint(1, text)
}

/// Something that went well.
pub(crate) fn good(text: impl Display) -> String {
    paint(32, text)
}

/// Something that went wrong.
pub(crate) fn bad(text: impl Display) -> String {
    paint(31, text)
}

/// What is typed.
pub(crate) fn typed(text: impl Display) -> String {
    paint(36, text)
}
