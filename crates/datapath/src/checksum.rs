//! The Internet checksum, updated incrementally (RFC 1624, equation 3).
//!
//! Checksums are never byte-swapped: one's complement addition gives the same result in either byte order as long as
//! all words are read the same way, so 16-bit words are taken in network order and put back in network order.

/// A two- or four-byte field, zero-extended: the number whose one's-complement sum the checksum covers.
pub trait Word {
    /// The field as the sum of its 16-bit words, not folded.
    fn sum(self) -> u32;
}

impl Word for [u8; 2] {
    #[inline(always)]
    fn sum(self) -> u32 {
        u32::from(u16::from_be_bytes(self))
    }
}

impl Word for [u8; 4] {
    #[inline(always)]
    fn sum(self) -> u32 {
        let [a, b, c, d] = self;
        [a, b].sum() + [c, d].sum()
    }
}

/// The checksum after one covered field changed from `from` to `to`: HC' = ~(~HC + ~m + m').
///
/// Never yields the wrong one of the two zeros for a header whose checksum was right: like the kernel's
/// `csum_replace4`, the result is 0xffff only if every covered word is zero.
#[inline(always)]
#[must_use]
pub fn replace<const N: usize>(checksum: [u8; 2], from: [u8; N], to: [u8; N]) -> [u8; 2]
where
    [u8; N]: Word,
{
    // ~m summed over the words of m: each 16-bit word w contributes 0xffff - w.
    let words = if N == 4 { 2 } else { 1 };
    let old = words * 0xffff - from.sum();
    let sum = u32::from(!u16::from_be_bytes(checksum)) + old + to.sum();
    (!fold(sum)).to_be_bytes()
}

/// Folds carries back in until none is left. `sum` is a sum of at most six 16-bit words.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    // `twice` fits: `once` is at most 0xffff + 0xf.
    let [_, _, high, low] = twice.to_be_bytes();
    u16::from_be_bytes([high, low])
}
