//! Reads the table of connections that `xvsadm -L -c -n` prints.
//!
//! Invariant: a line that is not understood is an error, so a story never counts fewer connections than there are.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Lines before the first connection: the title and the names of the columns.
const HEADING: usize = 2;

/// A line of the table: a connection, or a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `TCP`, `UDP`, `SCTP`, or `IP` for a mark's template.
    pub protocol: String,
    /// Time left.
    pub expires: Duration,
    /// `ESTABLISHED` and so on; `NONE` or `ASSURED` for a template.
    pub state: String,
    /// The client: address and port as printed.
    pub client: String,
    /// The service: address and port as printed.
    pub service: String,
    /// The real server: address and port as printed.
    pub server: String,
}

impl Row {
    /// True for a template, which has no port of a client.
    pub fn is_template(&self) -> bool {
        self.client.ends_with(":0")
    }
}

/// The connections in the text of `xvsadm -L -c -n`.
pub(crate) fn rows_from_listing(text: &str) -> Result<Vec<Row>> {
    text.lines().skip(HEADING).filter(|line| !line.trim().is_empty()).map(row).collect()
}

fn row(line: &str) -> Result<Row> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [protocol, expires, state, client, service, server] = words.as_slice() else {
        bail!("a line of the connections is not understood: `{line}`");
    };
    let left = expires.split_once(':').and_then(|(m, s)| Some(m.parse::<u64>().ok()? * 60 + s.parse::<u64>().ok()?));
    Ok(Row {
        protocol: (*protocol).to_owned(),
        expires: Duration::from_secs(left.with_context(|| format!("no time in `{line}`"))?),
        state: (*state).to_owned(),
        client: (*client).to_owned(),
        service: (*service).to_owned(),
        server: (*server).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards what stories read from a listing, and that a line that is not understood is an error.
    #[test]
    fn connections_and_templates_are_told_apart() {
        let text = "IPVS connection entries\n\
                    pro expire state       source             virtual            destination\n\
                    TCP 14:59  ESTABLISHED 10.1.0.2:40000     10.1.0.100:80      10.2.0.11:80\n\
                    TCP 00:40  ASSURED     10.1.0.2:0         10.1.0.100:80      10.2.0.11:80\n";
        let rows = rows_from_listing(text).unwrap();
        assert_eq!((rows[0].expires.as_secs(), rows[0].state.as_str()), (899, "ESTABLISHED"));
        assert_eq!(rows.iter().map(Row::is_template).collect::<Vec<_>>(), [false, true]);
        assert!(rows_from_listing("a\nb\nTCP 00:40 NONE 10.1.0.2:0").is_err());
        assert!(rows_from_listing("a\nb\nTCP soon NONE 10.1.0.2:0 10.1.0.100:80 10.2.0.11:80").is_err());
    }
}
