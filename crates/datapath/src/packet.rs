//! What a decision may do with a packet's bytes.

/// A frame to look at, from the first byte of its Ethernet header.
///
/// Offsets are bytes from the start of the frame. Reads and writes are of a size known at compile time, because that
/// is what the verifier can prove in bounds.
pub trait Bytes {
    /// `N` bytes at `at`, or `None` when the frame is shorter.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Length in bytes, Ethernet header included; of a GSO super-packet, the whole.
    fn length(&self) -> u32;
}

/// A frame that may be changed.
pub trait Packet: Bytes {
    /// Overwrites `N` bytes at `at`, or does nothing and returns `None` when the frame is shorter.
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()>;

    /// Updates the TCP or UDP checksum at `at` for a field that changed from `from` to `to` (each two or four bytes,
    /// network byte order, zero-extended).
    ///
    /// Apart from plain writes because only the kernel knows whether the field holds a checksum or, with checksum
    /// offload, the sum of the pseudo header alone.
    fn replace_l4_checksum<const N: usize>(
        &mut self,
        at: usize,
        from: [u8; N],
        to: [u8; N],
        kind: ChecksumKind,
    ) -> Option<()>;

    /// Payload bytes per segment of a GSO super-packet; 0 when it is a single packet.
    fn gso_size(&self) -> u32;

    /// Whether the frame has a VLAN tag, which the kernel keeps beside the bytes (IEEE 802.1Q).
    fn has_vlan_tag(&self) -> bool;

    /// The skb's mark.
    fn mark(&self) -> u32;

    /// Sets the skb's mark.
    fn set_mark(&mut self, mark: u32);

    /// Sets the skb's priority.
    fn set_priority(&mut self, priority: u32);
}

/// What a changed field is to the checksum that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumKind {
    /// The field is part of the pseudo header (an address), not of the segment (a port).
    pub pseudo_header: bool,
    /// UDP: zero means that there is no checksum, RFC 768.
    pub zero_is_none: bool,
}
