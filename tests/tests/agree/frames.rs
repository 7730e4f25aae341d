//! Frames: random bytes, and headers in which every field is usually right and sometimes not.

use abi::pins::program;
use abi::{Ip4, proto};
use datapath::model::Frame;
use fastrand::Rng;

use crate::world::{
    DENIED, HOST_MAC, INTERNET, OTHER_POD, POD, POD_MAC, PRIMARY, SERVICE, TUNNEL_POD, VNET,
    WIRESERVER,
};

const ADDRESSES: [Ip4; 10] = [
    POD, OTHER_POD, TUNNEL_POD, VNET, INTERNET, INTERNET, PRIMARY, WIRESERVER, DENIED, SERVICE,
];
const PORTS: [u16; 16] = [
    0, 7, 53, 80, 443, 1024, 1025, 1026, 5000, 5001, 5002, 8080, 32_526, 40_000, 40_001, 40_002,
];

pub(crate) struct Shaper {
    rng: Rng,
}

impl Shaper {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
        }
    }

    /// The next frame for `name`. The kernel refuses to run programs on IPv4 frames below 34 bytes, IPv6 below 54 and
    /// others below 14, so shorter ones are for the host's own tests.
    pub(crate) fn frame(&mut self, name: &str) -> Frame {
        let mut bytes = match self.rng.u8(0..20) {
            0 => self.random(),
            1 if name == program::FROM_POD => self.arp(),
            _ => self.ipv4(name),
        };
        if self.one_in(12) {
            let at = self.rng.usize(..bytes.len());
            bytes[at] = self.rng.u8(..);
        }
        if self.one_in(15) {
            bytes.truncate(self.rng.usize(54..120).min(bytes.len()));
        }
        if bytes.len() < 54 {
            bytes.resize(54, 0);
        }
        let mark = if self.one_in(4) {
            0x1000 | u32::from(self.rng.u8(..))
        } else {
            0
        };
        let gso_size = if self.one_in(8) {
            self.pick(&[536, 1448, 1460, 1461, 1500])
        } else {
            0
        };
        Frame {
            mark,
            gso_size,
            ..Frame::new(bytes)
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// `usual`, or once in twenty times something else.
    fn mostly<T: Copy>(&mut self, usual: T, others: &[T]) -> T {
        if self.one_in(20) {
            self.pick(others)
        } else {
            usual
        }
    }

    fn random(&mut self) -> Vec<u8> {
        let len = self.rng.usize(54..200);
        std::iter::repeat_with(|| self.rng.u8(..))
            .take(len)
            .collect()
    }

    fn arp(&mut self) -> Vec<u8> {
        let mut bytes = [0xff; 6].to_vec();
        bytes.extend(POD_MAC.octets());
        bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0]);
        bytes.push(self.mostly(1, &[0, 2, 3]));
        let sender_mac = self.mostly(POD_MAC, &[HOST_MAC]);
        bytes.extend(sender_mac.octets());
        let sender = self.mostly(POD, &[Ip4::UNSPECIFIED, OTHER_POD]);
        bytes.extend(sender.octets());
        bytes.extend([0; 6]);
        let target = self.pick(&ADDRESSES);
        bytes.extend(target.octets());
        bytes.resize(60, 0);
        bytes
    }

    fn ipv4(&mut self, name: &str) -> Vec<u8> {
        let (dst_mac, src_mac) = (
            self.mostly(HOST_MAC, &[POD_MAC]),
            self.mostly(POD_MAC, &[HOST_MAC]),
        );
        let mut bytes = dst_mac.octets().to_vec();
        bytes.extend(src_mac.octets());
        let ethertype: u16 = self.mostly(0x0800, &[0x86dd, 0x8100, 0x88a8]);
        bytes.extend(ethertype.to_be_bytes());

        let ports = [self.pick(&PORTS), self.pick(&PORTS)].map(u16::to_be_bytes);
        let (mut proto, mut l4) = self.transport(ports);
        let (mut src, mut dst) = self.addresses(name);
        let mut fragment: u16 = self.mostly(0x4000, &[0, 0x2000, 0x2001, 0x0100, 0x8000]);
        if self.one_in(20) {
            // A piece of a datagram of a flow that both sides know.
            let (from, to, source, target) = match name {
                program::FROM_POD => (POD, INTERNET, 8080, 443),
                _ => (INTERNET, PRIMARY, 53, 1024_u16),
            };
            (src, dst, proto) = (from, to, proto::UDP);
            l4 = [source, target, 1208, 0].map(u16::to_be_bytes).concat();
            l4.resize(600, 7);
            fragment = self.pick(&[0x2000, 0x2001, 0x00b9]);
        }
        let version_ihl = self.mostly(0x45, &[0x46, 0x4f, 0x44, 0x65]);
        let lie = self.mostly(0, &[1, 40, 60_000]);
        let total_len = u16::try_from(20 + l4.len()).unwrap().wrapping_add(lie);
        let ttl = self.mostly(64, &[0, 1, 2, 255]);
        bytes.extend(ip_header(
            version_ihl,
            total_len,
            fragment,
            ttl,
            proto,
            src,
            dst,
        ));
        bytes.extend(l4);
        bytes
    }

    fn addresses(&mut self, name: &str) -> (Ip4, Ip4) {
        let other = self.pick(&ADDRESSES);
        match name {
            program::FROM_POD => (self.mostly(POD, &[OTHER_POD, VNET]), other),
            program::TO_POD => (other, self.mostly(POD, &[OTHER_POD])),
            program::FROM_WIRE => (
                self.pick(&[INTERNET, INTERNET, VNET, other]),
                self.pick(&[PRIMARY, POD, OTHER_POD, other]),
            ),
            _ => (self.pick(&[POD, OTHER_POD, PRIMARY, other]), other),
        }
    }

    fn transport(&mut self, [src, dst]: [[u8; 2]; 2]) -> (u8, Vec<u8>) {
        let payload = self.pick(&[0, 1, 7, 100, 1400, 1472, 1500]);
        let mut l4 = [src, dst].concat();
        let proto = self.pick(&[
            proto::TCP,
            proto::TCP,
            proto::UDP,
            proto::UDP,
            proto::ICMP,
            132,
        ]);
        match proto {
            proto::TCP => {
                l4.extend([0; 8]);
                let flags = self.pick(&[
                    0x02, 0x02, 0x10, 0x10, 0x12, 0x11, 0x14, 0x04, 0x01, 0x00, 0xff,
                ]);
                l4.extend([
                    0x50,
                    flags,
                    0xff,
                    0xff,
                    self.rng.u8(..),
                    self.rng.u8(..),
                    0,
                    0,
                ]);
            }
            proto::UDP => {
                let random = [self.rng.u8(..), self.rng.u8(..)];
                let sum = self.mostly(random, &[[0, 0]]);
                l4.extend([0, 8]);
                l4.extend(sum);
            }
            _ => {
                let message = self.pick(&[0, 0, 8, 8, 3, 3, 11, 12, 5, 13]);
                l4 = vec![
                    message,
                    0,
                    self.rng.u8(..),
                    self.rng.u8(..),
                    dst[0],
                    dst[1],
                    0,
                    1,
                ];
                if matches!(message, 3 | 5 | 11 | 12) {
                    l4.extend(self.quoted());
                }
            }
        }
        l4.extend(std::iter::repeat_n(0x5a, payload));
        (proto, l4)
    }

    /// The packet that an ICMP error quotes: mostly one that left through a binding.
    fn quoted(&mut self) -> Vec<u8> {
        let proto = self.pick(&[proto::TCP, proto::UDP, proto::ICMP]);
        let proto = self.mostly(proto, &[132]);
        let (src, dst) = (
            self.mostly(PRIMARY, &[POD, VNET]),
            self.mostly(INTERNET, &[VNET]),
        );
        let version_ihl = self.mostly(0x45, &[0x46]);
        let mut quoted = ip_header(version_ihl, 100, 0x4000, 1, proto, src, dst);
        let nat_port: u16 = self.pick(&[1024, 1025, 1026, 5000, 5001, 40_000]);
        let nat_port = nat_port.to_be_bytes();
        if proto == proto::ICMP {
            quoted.extend([8, 0, self.rng.u8(..), self.rng.u8(..)]);
            quoted.extend([nat_port[0], nat_port[1], 0, 1]);
        } else {
            let usual: u16 = if proto == proto::TCP { 443 } else { 53 };
            let remote_port = self.mostly(usual, &[80]).to_be_bytes();
            quoted.extend([nat_port, remote_port].concat());
            let sum = [self.rng.u8(..), self.mostly(1, &[0])];
            quoted.extend([[0, 8], sum].concat());
            let more = self.pick(&[0, 4, 12]);
            quoted.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(more));
        }
        quoted
    }
}

pub(crate) fn ip_header(
    version_ihl: u8,
    total_len: u16,
    fragment: u16,
    ttl: u8,
    proto: u8,
    src: Ip4,
    dst: Ip4,
) -> Vec<u8> {
    let [len_high, len_low] = total_len.to_be_bytes();
    let [fragment_high, fragment_low] = fragment.to_be_bytes();
    let mut header = vec![
        version_ihl,
        0,
        len_high,
        len_low,
        0,
        1,
        fragment_high,
        fragment_low,
        ttl,
        proto,
        0,
        0,
    ];
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [high, low] = (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes();
    (header[10], header[11]) = (high, low);
    header
}
