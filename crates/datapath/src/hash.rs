//! SipHash-1-3 of a pod and a remote end (Aumasson and Bernstein, 2012): keyed, so that nobody outside can predict SNAT ports.

use abi::{Ip4, Port, Secret};

/// Hash of (pod, remote, remote port, protocol).
#[inline(always)]
pub(crate) fn pair_hash(secret: &Secret, pod: Ip4, remote: (Ip4, Port), proto: u8) -> u64 {
    let addresses = u64::from(pod.to_bits()) << 32 | u64::from(remote.0.to_bits());
    let service = u64::from(remote.1.get()) << 16 | u64::from(proto);
    siphash13(secret.key, addresses, service)
}

/// SipHash-1-3 of the two words, which stand for a message of 16 bytes in little-endian order.
#[inline(always)]
fn siphash13(key: [u64; 2], first: u64, second: u64) -> u64 {
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word carries the message length, 16, in its highest byte.
    for word in [first, second, 16 << 56] {
        v = with(v, 3, word);
        v = round(v);
        v = with(v, 0, word);
    }
    v = with(v, 2, 0xff);
    let [a, b, c, d] = round(round(round(v)));
    a ^ b ^ c ^ d
}

#[inline(always)]
fn with(v: [u64; 4], which: u8, word: u64) -> [u64; 4] {
    let [a, b, c, d] = v;
    match which {
        0 => [a ^ word, b, c, d],
        2 => [a, b, c ^ word, d],
        _ => [a, b, c, d ^ word],
    }
}

#[inline(always)]
fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rust's standard library had SipHash-1-3 behind `DefaultHasher` with a zero key since 1.13.
    #[test]
    fn agrees_with_the_standard_library_under_a_zero_key() {
        extern crate std;
        use std::hash::Hasher as _;
        for (first, second) in [(0, 0), (1, 2), (u64::MAX, 0x0123_4567_89ab_cdef)] {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write_u64(first);
            hasher.write_u64(second);
            assert_eq!(siphash13([0; 2], first, second), hasher.finish());
        }
    }
}
