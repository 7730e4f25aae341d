//! Packets as Wireshark and tcpdump read them: pcapng (draft-ietf-opsawg-pcapng), one interface, little-endian.

use std::io::{self, Write};
use std::time::Duration;

use abi::Event;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Options of any block, of the section, of the interface and of a packet.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_RESOLUTION: u16 = 9;
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
        let time = u64::try_from(packet.time.as_nanos()).unwrap_or(u64::MAX);
        let [a, b, c, d, high @ ..] = time.to_le_bytes();
        let mut body = vec![0; 4];
        body.extend(high);
        body.extend([a, b, c, d]);
        body.extend(length(packet.frame));
        body.extend(packet.length.to_le_bytes());
        body.extend(packet.frame);
        pad(&mut body);
        let flags = (packet.direction as u32).to_le_bytes();
        let told = [(COMMENT, packet.comment.as_bytes()), (PACKET_FLAGS, &flags)];
        options(&mut body, &told);
        self.block(PACKET, &body)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A block says its length at both ends, so that it can be read backwards.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let total = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&total.to_le_bytes())
    }
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
