//! The files of a replay: the capture that is read, the one that is written, the verdicts.
//!
//! Invariant: what is wrong with a file is told with its name, and with the number of the frame. What is in the frames
//! does not matter here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use serde::Serialize;

use xvs_engine::time::Now;

use super::ReplayError;

/// The first bytes of the other capture format.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Longest frame of a capture: what a 16-bit IP length can say, and more than its link header.
pub(super) const FRAME_MAX: usize = 65_536 + 64;
/// Longest frame that the written capture announces; what tcpdump announces.
const SNAPLEN: u32 = 262_144;
/// A frame of the capture.
pub(super) struct Captured {
    /// When, by the capture's clock.
    pub(super) stamp: Duration,
    /// When, since its first frame.
    pub(super) time: Now,
    /// What was captured.
    pub(super) bytes: Vec<u8>,
}

/// The capture that is read.
pub(super) struct Capture<'a> {
    path: &'a Path,
    reader: PcapReader<BufReader<File>>,
    frame: u64,
    first: Option<Duration>,
}

impl<'a> Capture<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, ReplayError> {
        let mut input = BufReader::new(open(path)?);
        let bad = |what: String| ReplayError::Capture { path: path.to_owned(), frame: 0, what };
        let magic = input.fill_buf().map_err(|source| ReplayError::File { path: path.to_owned(), source })?;
        if magic.starts_with(&PCAPNG) {
            return Err(bad("it is a pcapng file; `editcap -F pcap` makes a pcap file of it".into()));
        }
        let reader = PcapReader::new(input)
            .map_err(|error| bad(format!("it is no pcap file, as `tcpdump -w` writes them ({error})")))?;
        if reader.header().datalink != DataLink::ETHERNET {
            let what = format!("its link type is {:?}; only Ethernet can be replayed", reader.header().datalink);
            return Err(bad(what));
        }
        Ok(Capture { path, reader, frame: 0, first: None })
    }

    pub(super) fn resolution(&self) -> TsResolution {
        self.reader.header().ts_resolution
    }

    pub(super) fn next(&mut self) -> Result<Option<Captured>, ReplayError> {
        let resolution = self.resolution();
        // The raw form: the other one refuses frames that were cut when they were captured (`tcpdump -s`).
        let Some(packet) = self.reader.next_raw_packet() else { return Ok(None) };
        self.frame += 1;
        let bad = |what: String| ReplayError::Capture { path: self.path.to_owned(), frame: self.frame, what };
        let packet = packet.map_err(|error| match error {
            PcapError::IncompleteBuffer => bad("the file ends in the middle of it, or its length is wrong".into()),
            PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bad("the file ends in the middle of it, or its length is wrong".into())
            }
            PcapError::IoError(error) => bad(error.to_string()),
            error => bad(error.to_string()),
        })?;
        if packet.data.len() > FRAME_MAX {
            return Err(bad(format!(
                "it has {} bytes; no Ethernet frame has more than {FRAME_MAX}",
                packet.data.len()
            )));
        }
        let nanoseconds = match resolution {
            TsResolution::MicroSecond => u64::from(packet.ts_frac) * 1000,
            TsResolution::NanoSecond => u64::from(packet.ts_frac),
        };
        let stamp = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(nanoseconds);
        let since = stamp.saturating_sub(*self.first.get_or_insert(stamp));
        let time = Now::from_millis(since.as_millis() as u64);
        Ok(Some(Captured { stamp, time, bytes: packet.data.into_owned() }))
    }
}

/// The capture that is written.
pub(super) struct Output<'a> {
    path: &'a Path,
    writer: PcapWriter<BufWriter<File>>,
}

impl<'a> Output<'a> {
    pub(super) fn create(path: &'a Path, ts_resolution: TsResolution) -> Result<Self, ReplayError> {
        let header =
            PcapHeader { datalink: DataLink::ETHERNET, snaplen: SNAPLEN, ts_resolution, ..PcapHeader::default() };
        let file = BufWriter::new(create(path)?);
        let writer = PcapWriter::with_header(file, header).map_err(|error| pcap_failed(path, error))?;
        Ok(Output { path, writer })
    }

    pub(super) fn write(&mut self, stamp: Duration, bytes: &[u8]) -> Result<(), ReplayError> {
        let packet = PcapPacket::new(stamp, bytes.len() as u32, bytes);
        self.writer.write_packet(&packet).map(drop).map_err(|error| pcap_failed(self.path, error))
    }

    pub(super) fn finish(self) -> Result<(), ReplayError> {
        let path = self.path;
        // Else a full disk would go unnoticed.
        self.writer.into_writer().flush().map_err(|source| ReplayError::File { path: path.to_owned(), source })
    }
}

fn pcap_failed(path: &Path, error: PcapError) -> ReplayError {
    let source = match error {
        PcapError::IoError(source) => source,
        error => io::Error::other(error.to_string()),
    };
    ReplayError::File { path: path.to_owned(), source }
}

/// The verdicts that are written, a JSON line each.
pub(super) struct Lines<'a> {
    path: &'a Path,
    writer: BufWriter<File>,
}

impl<'a> Lines<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self, ReplayError> {
        Ok(Lines { path, writer: BufWriter::new(create(path)?) })
    }

    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<(), ReplayError> {
        serde_json::to_writer(&mut self.writer, line)
            .map_err(io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|source| ReplayError::File { path: self.path.to_owned(), source })
    }

    pub(super) fn finish(mut self) -> Result<(), ReplayError> {
        self.writer.flush().map_err(|source| ReplayError::File { path: self.path.to_owned(), source })
    }
}

fn open(path: &Path) -> Result<File, ReplayError> {
    File::open(path).map_err(|source| ReplayError::File { path: path.to_owned(), source })
}

fn create(path: &Path) -> Result<File, ReplayError> {
    File::create(path).map_err(|source| ReplayError::File { path: path.to_owned(), source })
}
