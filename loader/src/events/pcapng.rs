//! Packets as Wireshark and tcpdump read them: pcapng (draft-ietf-opsawg-pcapng), one interface, little-endian.

use std::io::{self, Write};
use std::time::Duration;

use abi::Event;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Options of any block, of the section, of the interface, of its statistics and of a packet.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_RESOLUTION: u16 = 9;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
const PACKET_FLAGS: u16 = 2;
/// Ethernet.
const LINK_TYPE: u16 = 1;
/// Timestamps count 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// A file that is being written.
pub(super) struct Pcapng<W> {
    out: W,
}

/// Seen from the pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Received = 1,
    Sent = 2,
}

/// A packet.
pub(super) struct Block<'a> {
    /// Since the epoch.
    pub(super) time: Duration,
    /// Of the whole frame.
    pub(super) length: u32,
    /// Its first bytes.
    pub(super) frame: &'a [u8],
    pub(super) direction: Direction,
    pub(super) comment: &'a str,
}

impl<W: Write> Pcapng<W> {
    /// Section and interface.
    pub(super) fn begin(out: W, interface: &str, description: &str) -> io::Result<Self> {
        let mut file = Self { out };
        // Byte order, version 1.0, and a section of unknown length.
        let mut section = Vec::new();
        section.extend(0x1a2b_3c4d_u32.to_le_bytes());
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        let version = concat!("vnetctl ", env!("CARGO_PKG_VERSION"));
        options(&mut section, &[(APPLICATION, version.as_bytes())]);
        file.block(SECTION, &section)?;

        let mut link = Vec::new();
        link.extend(LINK_TYPE.to_le_bytes());
        link.extend([0, 0]);
        link.extend(Event::SNAP.to_le_bytes());
        let named = [
            (IF_NAME, interface.as_bytes()),
            (IF_DESCRIPTION, description.as_bytes()),
            (IF_RESOLUTION, &[NANOSECONDS]),
        ];
        options(&mut link, &named);
        file.block(INTERFACE, &link)?;
        Ok(file)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, packet: &Block<'_>) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend(timestamp(packet.time));
        body.extend(length(packet.frame));
        body.extend(packet.length.to_le_bytes());
        body.extend(packet.frame);
        pad(&mut body);
        let flags = (packet.direction as u32).to_le_bytes();
        let told = [(COMMENT, packet.comment.as_bytes()), (PACKET_FLAGS, &flags)];
        options(&mut body, &told);
        self.block(PACKET, &body)
    }

    /// Adds how many packets there are, and how many were lost.
    pub(super) fn statistics(&mut self, now: Duration, packets: u64, lost: u64) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend(timestamp(now));
        let told = [
            (RECEIVED, &(packets + lost).to_le_bytes()[..]),
            (DROPPED, &lost.to_le_bytes()[..]),
        ];
        options(&mut body, &told);
        self.block(STATISTICS, &body)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A block says its length at both ends, so that it can be read backwards. It is written at once: a buffer in front of the
    /// file hands on whole blocks only, so that no file ends within one.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let total = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
        let (kind, total) = (kind.to_le_bytes(), total.to_le_bytes());
        self.out.write_all(&[&kind, &total, body, &total].concat())
    }
}

/// The upper half comes first.
fn timestamp(time: Duration) -> [u8; 8] {
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let [a, b, c, d, e, f, g, h] = time.to_le_bytes();
    [e, f, g, h, a, b, c, d]
}

/// Everything begins at a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn options(body: &mut Vec<u8>, options: &[(u16, &[u8])]) {
    for (code, value) in options {
        body.extend(code.to_le_bytes());
        let [low, high, ..] = length(value);
        body.extend([low, high]);
        body.extend(*value);
        pad(body);
    }
    // The end of the options.
    body.extend([0; 4]);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::BufWriter;

    use super::*;

    /// Keeps what each write begins with.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for &mut Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_is_written_ends_with_a_block() {
        let mut writes = Writes::default();
        let buffer = BufWriter::with_capacity(1000, &mut writes);
        let mut file = Pcapng::begin(buffer, "azv1", "a pod").unwrap();
        for length in (0..2000).step_by(37) {
            let packet = Block {
                time: Duration::from_secs(1),
                length,
                frame: &vec![7; length as usize],
                direction: Direction::Sent,
                comment: "to_pod",
            };
            file.packet(&packet).unwrap();
        }
        file.statistics(Duration::from_secs(2), 54, 3).unwrap();
        file.flush().unwrap();
        drop(file);
        assert!(writes.0.len() > 10);
        for mut rest in writes.0.iter().map(Vec::as_slice) {
            while let [_, _, _, _, a, b, c, d, ..] = *rest {
                rest = &rest[u32::from_le_bytes([a, b, c, d]) as usize..];
            }
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
}
