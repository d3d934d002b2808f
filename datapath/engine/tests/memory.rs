//! What a connection takes of the machine's memory, all in.

mod common;

use common::memory::{is_case, measure};
use xvs_engine::flow::Family;
use xvs_engine::real::Method;

/// Guards a director with ten million connections: 128 bytes for each of IPv4 and 192 of IPv6, the index and the place of
/// the answers included, by the kernel's own count of the process's memory. (Each case is this test again, in a process of its own.)
#[test]
fn a_connection_has_its_size() {
    if is_case() {
        return;
    }
    let again = ["--exact", "a_connection_has_its_size", "--nocapture"];
    for (family, most) in [(Family::Inet, 128.0), (Family::Inet6, 192.0)] {
        for method in [Method::Dr, Method::Nat, Method::Tun] {
            let bytes = measure(family, method, 1 << 18, &again);
            println!("{family:?} {method:?}: {bytes:.1} bytes a connection");
            assert!(bytes <= most, "{family:?} {method:?}: {bytes:.1} bytes a connection, {most} are allowed");
            let least = if family == Family::Inet { 64.0 } else { 128.0 };
            assert!(bytes >= least, "{bytes:.1}: an entry alone takes more, so nothing was measured");
        }
    }
}
