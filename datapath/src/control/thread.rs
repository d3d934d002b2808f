//! A thread of this process as the kernel sees it: where it runs, and what it got of the processor.
//!
//! Source: proc_pid_stat(5), proc_pid_status(5). The worker itself does not ask; the control side does, when it is asked.

use std::fs;

use super::protocol::ThreadView;

/// Milliseconds of a clock tick of /proc: USER_HZ is 100 on all that Rust's Linux targets name.
const TICK_MS: u64 = 10;

/// The thread of this number; none if it has ended.
pub(super) fn view(thread: u64) -> Option<ThreadView> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{name}")).ok();
    parse(&read("stat")?, &read("status")?)
}

fn parse(stat: &str, status: &str) -> Option<ThreadView> {
    // The name in parentheses may hold anything; what follows is numbered from 3 in the manual.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let preempted = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    Some(ThreadView {
        cpu: u32::try_from(field(39)?).ok()?,
        user_ms: field(14)? * TICK_MS,
        system_ms: field(15)? * TICK_MS,
        preempted: preempted.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the positions of the fields, with a name that looks like more of them.
    #[test]
    fn fields_are_found() {
        let stat =
            "7 (a) 1 b) S 1 7 7 0 -1 64 1 0 0 0 250 31 0 0 20 0 9 0 500 1 1 1 1 1 1 1 1 0 0 0 0 0 0 0 17 3 0 0 0";
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t90\nnonvoluntary_ctxt_switches:\t4\n";
        let expected = ThreadView { cpu: 3, user_ms: 2500, system_ms: 310, preempted: 4 };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!(parse("7 (a) S 1", status), None);
    }

    /// Guards against a kernel that writes it otherwise: our own thread is there.
    #[test]
    fn the_kernels_files_are_read() {
        let own = u64::try_from(nix::unistd::gettid().as_raw()).expect("a thread");
        assert!(view(own).is_some());
        assert_eq!(view(u64::MAX), None);
    }
}
