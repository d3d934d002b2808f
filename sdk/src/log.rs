//! A plugin's word to the operator.

/// Writes a line to the director's log, which shows only so many of them a second. A plugin that calls this must be
/// granted `log` when it is loaded. Natively it does nothing.
pub fn log(text: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::imports::write_log(text);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = text;
}
