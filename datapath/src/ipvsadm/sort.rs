//! The order of a listing.
//!
//! ipvsadm subtracts 32-bit addresses and looks at the sign, so that of two addresses that are 2^31 or more apart the
//! greater comes first: 192.168.0.1 stands before 10.0.0.1. Such an order is not transitive; what becomes of three
//! addresses depends on the sorting algorithm, too. So this is the merge sort of the C library that ipvsadm runs on,
//! with ipvsadm's comparison: same input, same order.
//!
//! Invariant: the result is a permutation of the input, whatever the comparison says. (The standard library's sort may
//! panic on an order like this one.)

use std::net::IpAddr;

use crate::control::protocol::{Protocol, Server, Service, ServiceId};

/// Services by mark, IP version, protocol, address and port.
pub fn services(list: &[Service]) -> Vec<&Service> {
    merge_sort(list.iter().collect(), &|left, right| compare_services(&left.spec.id, &right.spec.id))
}

/// Servers by address and port.
pub fn servers(list: &[Server]) -> Vec<&Server> {
    merge_sort(list.iter().collect(), &|left, right| {
        let (left, right) = (left.spec.address, right.spec.address);
        // The IP version of the left one decides how much of both is compared.
        let words = if left.is_ipv4() { 1 } else { 4 };
        first_difference(compare_words(left.ip(), right.ip(), words), difference(left.port(), right.port()))
    })
}

fn compare_services(left: &ServiceId, right: &ServiceId) -> i32 {
    let key = |id: &ServiceId| match id {
        ServiceId::Mark { mark, .. } => (*mark, Protocol::Tcp, IpAddr::from([0, 0, 0, 0]), 0),
        ServiceId::Address { protocol, address } => (0, *protocol, address.ip(), address.port()),
    };
    let (left_mark, left_protocol, left_ip, left_port) = key(left);
    let (right_mark, right_protocol, right_ip, right_port) = key(right);
    let steps = [
        left_mark.wrapping_sub(right_mark).cast_signed(),
        left.family() as i32 - right.family() as i32,
        left_protocol as i32 - right_protocol as i32,
        compare_words(left_ip, right_ip, if left_ip.is_ipv4() { 1 } else { 4 }),
        difference(left_port, right_port),
    ];
    steps.into_iter().find(|step| *step != 0).unwrap_or(0)
}

/// The first of the differences between the 32-bit words of two addresses, as a signed number.
fn compare_words(left: IpAddr, right: IpAddr, words: usize) -> i32 {
    let (left, right) = (address_words(left), address_words(right));
    let mut differences = left.iter().zip(right).map(|(left, right)| left.wrapping_sub(right).cast_signed());
    differences.by_ref().take(words).find(|difference| *difference != 0).unwrap_or(0)
}

fn address_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [u32::from(v4), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn difference(left: u16, right: u16) -> i32 {
    i32::from(left) - i32::from(right)
}

fn first_difference(first: i32, second: i32) -> i32 {
    if first != 0 { first } else { second }
}

/// A merge sort that halves downwards and takes from the left unless the right is smaller.
fn merge_sort<T: Copy>(mut list: Vec<T>, compare: &dyn Fn(&T, &T) -> i32) -> Vec<T> {
    if list.len() <= 1 {
        return list;
    }
    let right = merge_sort(list.split_off(list.len() / 2), compare);
    let left = merge_sort(list, compare);
    let (mut l, mut r) = (0, 0);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while l < left.len() && r < right.len() {
        if compare(&left[l], &right[r]) <= 0 {
            merged.push(left[l]);
            l += 1;
        } else {
            merged.push(right[r]);
            r += 1;
        }
    }
    merged.extend_from_slice(&left[l..]);
    merged.extend_from_slice(&right[r..]);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(addresses: &[&str]) -> Vec<String> {
        let spec = |text: &&str| crate::control::protocol::ServerSpec {
            address: text.parse().unwrap_or_else(|_| std::net::SocketAddr::from(([0, 0, 0, 0], 0))),
            method: Default::default(),
            weight: 1,
            upper: 0,
            lower: 0,
            tags: None,
        };
        let server = |text: &&str| Server {
            spec: spec(text),
            active: 0,
            inactive: 0,
            persistent: 0,
            overloaded: false,
            path: String::new(),
            stats: Default::default(),
        };
        let list: Vec<Server> = addresses.iter().map(server).collect();
        servers(&list).into_iter().map(|server| server.spec.address.to_string()).collect()
    }

    /// Guards the signed comparison: addresses 2^31 apart are reversed.
    #[test]
    fn signed_trap() {
        assert_eq!(order(&["10.0.0.1:80", "192.168.0.1:80"]), ["192.168.0.1:80", "10.0.0.1:80"]);
        assert_eq!(order(&["192.168.0.1:80", "10.0.0.1:80"]), ["192.168.0.1:80", "10.0.0.1:80"]);
        assert_eq!(order(&["127.0.0.1:80", "10.0.0.1:80"]), ["10.0.0.1:80", "127.0.0.1:80"]);
        assert_eq!(order(&["10.0.0.1:80", "10.0.0.1:8"]), ["10.0.0.1:8", "10.0.0.1:80"]);
        assert_eq!(order(&["[2001:db8::2]:1", "[2001:db8::1]:1"]), ["[2001:db8::1]:1", "[2001:db8::2]:1"]);
    }

    proptest! {
        /// Guards the sort against losing or repeating an element under an order that is none.
        #[test]
        fn permutation(list: Vec<u32>) {
            let sorted = merge_sort(list.clone(), &|l, r| l.wrapping_sub(*r).cast_signed());
            let (mut a, mut b) = (list, sorted);
            a.sort_unstable();
            b.sort_unstable();
            prop_assert_eq!(a, b);
        }

        /// Guards that it is a sort, and stable, under an order that is one.
        #[test]
        fn sorts(list: Vec<(i16, u8)>) {
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(merge_sort(list, &|l, r| i32::from(l.0) - i32::from(r.0)), expected);
        }
    }
}
