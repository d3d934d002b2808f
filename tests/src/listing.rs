//! Reads the table that `xvsadm -L -n --stats --exact` prints.
//!
//! Invariant: counters are named `TCP 10.1.0.100:80 conns` or `FWM 7 conns` for a service, and `TCP 10.1.0.100:80 >
//! 10.2.0.11:80 conns` for a server; the five columns are conns, inpkts, outpkts, inbytes and outbytes.

use anyhow::{Context, Result, bail};

use crate::counters::Counters;

const COLUMNS: [&str; 5] = ["conns", "inpkts", "outpkts", "inbytes", "outbytes"];

/// Lines before the first service: the version and the two lines of the heading.
const HEADING: usize = 3;

/// The counters in the text of `xvsadm -L -n --stats --exact`.
pub fn stats_from_listing(text: &str) -> Result<Counters> {
    let mut counters = Counters::default();
    let mut service = String::new();
    for line in text.lines().skip(HEADING) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, values) = match words.as_slice() {
            [] => continue,
            ["FWM", mark, "IPv6", values @ ..] => {
                service = format!("FWM {mark} IPv6");
                (service.clone(), values)
            }
            ["->", server, values @ ..] => (format!("{service} > {server}"), values),
            [protocol, address, values @ ..] => {
                service = format!("{protocol} {address}");
                (service.clone(), values)
            }
            _ => bail!("a line of the listing is not understood: `{line}`"),
        };
        for (index, column) in COLUMNS.iter().enumerate() {
            let value = values.get(index).and_then(|value| value.parse().ok());
            let value = value.with_context(|| format!("column {column} is missing or no number in `{line}`"))?;
            counters.set(format!("{name} {column}"), value);
        }
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_servers_are_read_apart() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
                    -> RemoteAddress:Port\n\
                    TCP  10.1.0.100:80                       2       12        8      900     1200\n  \
                    -> 10.2.0.11:80                        1        6        4      450      600\n  \
                    -> 10.2.0.12:80                        1        6        4      450      600\n";
        let counters = stats_from_listing(text).unwrap();
        assert_eq!(counters.get("TCP 10.1.0.100:80 conns"), 2);
        assert_eq!(counters.get("TCP 10.1.0.100:80 > 10.2.0.12:80 outbytes"), 600);
        let marks = "a\nb\nc\nFWM  7 1 2 3 4 5\nFWM  7 IPv6 6 7 8 9 10\n  -> [fd00:2::11]:0 6 7 8 9 10\n";
        let counters = stats_from_listing(marks).unwrap();
        assert_eq!((counters.get("FWM 7 conns"), counters.get("FWM 7 IPv6 > [fd00:2::11]:0 outbytes")), (1, 10));
        assert!(stats_from_listing("a\nb\nc\nTCP 10.1.0.100:80 1 2 3 4").is_err());
    }
}
