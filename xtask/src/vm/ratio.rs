//! ratio
use super::{How, Report};
pub(super) fn run(_how: How, _seconds: u32, _methods: &[String], _profile: bool) -> anyhow::Result<Report> {
    anyhow::bail!("not yet")
}
