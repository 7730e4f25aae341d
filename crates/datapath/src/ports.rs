//! Which ports a flow may get, always in the same order, so that a lost binding is made again identically.
//!
//! The first is the pod's own port, moved by a secret distance of the pod and the remote end: no two ports of a pod come to the same
//! one as long as there are as many to come to. The remote end would refuse the second of them for a minute: a connection that it
//! closed leaves it in TIME-WAIT, and Linux counts its time stamps from another beginning for each port (commit 165573e41f2f), so that they may
//! run backwards.

use abi::{Config, Ip4, Port, Secret};

use crate::hash::pair_hash;

/// Candidate ports per flow. With half of all ports to one remote end in use, 16 candidates fail in 2 of 100,000 cases.
pub const CANDIDATES: u32 = 16;

/// The candidate ports of one flow: its own port when it lies in the range, then a walk through the range from a keyed place.
#[derive(Clone, Copy)]
pub(crate) struct Candidates {
    first: u32,
    count: u32,
    offset: u32,
    /// Where the walk began.
    start: u32,
    step: u32,
    own: Option<Port>,
}

impl Candidates {
    /// `None`: eBPF SNAT is off.
    #[inline(always)]
    pub(crate) fn new(
        config: &Config,
        secret: &Secret,
        pod: (Ip4, Port),
        remote: (Ip4, Port),
        proto: u8,
    ) -> Option<Self> {
        let (first, count) = (u32::from(config.nat_first), u32::from(config.nat_count));
        if count == 0 {
            return None;
        }
        let own = u32::from(pod.1.get());
        let in_range = own >= first && own < first + count;
        let hash = pair_hash(secret, pod.0, remote, proto);
        let offset = (scale(hash & 0xffff_ffff, count) + own) % count;
        // Between a quarter and three quarters of the range, so that few steps lead out of a stretch that somebody has taken
        // port by port, and another for each port, so that two that met do not go on together. Odd, because an even step through an
        // even range stays on ports of one parity, and those may all be taken: Linux gives a pod's connections to one remote end
        // ports of one parity first.
        let mixed = (hash >> 32 ^ u64::from(own)).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
        let step = (count / 4 + scale(mixed, count / 2)) | 1;
        Some(Self {
            first,
            count,
            offset,
            start: offset,
            step,
            own: in_range.then_some(pod.1),
        })
    }

    /// The next candidate. The walk has no end; the caller stops after [`CANDIDATES`].
    #[inline(always)]
    pub(crate) fn next_port(&mut self) -> Port {
        if let Some(own) = self.own.take() {
            return own;
        }
        let [_, _, high, low] = (self.first + self.offset).to_be_bytes();
        self.advance(self.step);
        if self.offset == self.start {
            // A step that shares a factor with the range comes back early: go on beside the ports that it has touched.
            self.advance(1);
            self.start = self.offset;
        }
        Port::new([high, low])
    }

    #[inline(always)]
    fn advance(&mut self, by: u32) {
        self.offset += by;
        if self.offset >= self.count {
            self.offset -= self.count;
        }
    }
}

/// Maps a 32-bit hash evenly onto 0..n without a division (Lemire, 2019).
#[inline(always)]
fn scale(hash: u64, n: u32) -> u32 {
    let [a, b, c, d, ..] = (hash * u64::from(n)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use abi::{ConfigFlags, IfIndex, Mac, Ticks};

    use super::*;

    fn config() -> Config {
        Config {
            nic: IfIndex::new(2),
            primary: Ip4::new([10, 240, 0, 4]),
            nic_mac: Mac::new([0; 6]),
            mtu: 1500,
            nat_first: 1024,
            nat_count: 28_976,
            nat_quota: 14_488,
            subnet_len: 16,
            fast_mark: 0,
            flags: ConfigFlags::NONE,
            generation: 0,
            flows_lost: 0,
            gateway: Ip4::UNSPECIFIED,
            subnet: Ip4::new([10, 240, 0, 0]),
            epoch: 0,
            ticks: Ticks::new(250),
        }
    }

    #[test]
    fn no_flow_depends_on_ports_of_one_parity() {
        let secret = Secret { key: [1, 2] };
        let (pod, remote) = (Ip4::new([10, 240, 1, 10]), Ip4::new([203, 0, 113, 10]));
        for port in 32_768..42_768 {
            let (pod, remote) = ((pod, Port::from_u16(port)), (remote, Port::from_u16(443)));
            let mut walk =
                Candidates::new(&config(), &secret, pod, remote, abi::proto::TCP).unwrap();
            let even = (0..CANDIDATES).filter(|_| walk.next_port().get().is_multiple_of(2));
            assert_eq!(even.count(), 8, "pod port {port}");
        }
    }

    #[test]
    fn no_two_ports_of_a_pod_begin_at_the_same_one() {
        let secret = Secret { key: [1, 2] };
        let remote = (Ip4::new([203, 0, 113, 10]), Port::from_u16(443));
        let first = |pod: [u8; 4], port| {
            let pod = (Ip4::new(pod), Port::from_u16(port));
            let walk = Candidates::new(&config(), &secret, pod, remote, abi::proto::TCP);
            walk.unwrap().next_port()
        };
        // Linux's ephemeral ports.
        let ports = 32_768..=60_999;
        let of_a_pod: BTreeSet<Port> = ports
            .clone()
            .map(|port| first([10, 240, 1, 10], port))
            .collect();
        assert_eq!(of_a_pod.len(), ports.count());
        assert_ne!(
            first([10, 240, 1, 10], 40_000),
            first([10, 240, 1, 11], 40_000)
        );
    }

    #[test]
    fn no_walk_comes_to_a_port_twice_before_it_has_been_everywhere() {
        for count in [1, 2, 3, 4, 12, 16, 36, 100, 28_976] {
            for step in [1, 2, 3, 4, 6, 18, 25, 50] {
                let mut walk = Candidates {
                    first: 1024,
                    count,
                    offset: 0,
                    start: 0,
                    step: step.min(count - 1).max(1),
                    own: None,
                };
                let wanted = CANDIDATES.min(count) as usize;
                let seen: BTreeSet<Port> = (0..wanted).map(|_| walk.next_port()).collect();
                assert_eq!(seen.len(), wanted, "step {step} in {count} ports");
            }
        }
    }
}
