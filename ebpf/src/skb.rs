//! An skb as a [`Packet`]: the only place that touches packet memory.

use core::mem::size_of;
use core::ptr;

use abi::{IfIndex, proto};
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::bpf_l4_csum_replace;
use aya_ebpf::programs::TcContext;
use datapath::{Bytes, ChecksumKind, Packet};

use crate::event::{Context as _, OfSkb};
use crate::lookup::Maps;

/// The frame that the running program was called for.
pub(crate) struct Skb {
    skb: *mut __sk_buff,
}

/// Ethernet, IPv4 and TCP without options.
const HEADERS: u32 = 14 + 20 + 20;
/// Ethernet, IPv4, ICMP, and the quoted IPv4 and TCP headers.
const ICMP_HEADERS: u32 = 14 + 20 + 8 + 20 + 20;
/// Where the IPv4 protocol number is.
const PROTOCOL: usize = 14 + 9;

impl Skb {
    /// The frame of `ctx`, its headers in the linear part, which is all that `bytes` can reach.
    #[inline(always)]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a frame has one owner: the context is not used beside it"
    )]
    pub(crate) fn new(ctx: TcContext) -> Self {
        let skb = Self { skb: ctx.skb.skb };
        // Not a byte more than needed: a pull may copy the head, and TCP's data often has nothing but headers there.
        skb.pull(&ctx, HEADERS);
        if skb.read(PROTOCOL) == Some([proto::ICMP]) {
            skb.pull(&ctx, ICMP_HEADERS);
        }
        skb
    }

    /// Puts the first `wanted` bytes of the frame, or all, into its linear part.
    #[inline(always)]
    fn pull(&self, ctx: &TcContext, wanted: u32) {
        let wanted = if self.length() < wanted {
            self.length()
        } else {
            wanted
        };
        if ctx.data() + (wanted as usize) > ctx.data_end() {
            // A failure leaves the frame as it was; what cannot be read then is left to the stack or dropped.
            let _best_effort = ctx.pull_data(wanted);
        }
    }

    /// The maps, for the frame's decision.
    #[inline(always)]
    pub(crate) fn maps(&self) -> Maps<OfSkb> {
        Maps {
            context: OfSkb(self.skb),
        }
    }

    /// The interface that the program is attached to.
    #[inline(always)]
    pub(crate) fn interface(&self) -> IfIndex {
        OfSkb(self.skb).interface()
    }

    /// `N` bytes of packet memory at `at`, or null when the linear part of the frame is shorter.
    ///
    /// Compared with the end on every access, because that comparison is what the verifier accepts as a proof.
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> *mut [u8; N] {
        // SAFETY: the kernel hands the program a context that is valid while the program runs.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if start + at + N > end {
            return ptr::null_mut();
        }
        (start + at) as *mut [u8; N]
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let bytes = self.bytes::<N>(at);
        if bytes.is_null() {
            return None;
        }
        // SAFETY: not null means that all N bytes lie before the end; an array of bytes needs no alignment.
        Some(unsafe { *bytes })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: as in `bytes`.
        unsafe { (*self.skb).len }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, value: [u8; N]) -> Option<()> {
        let bytes = self.bytes::<N>(at);
        if bytes.is_null() {
            return None;
        }
        // SAFETY: as above; the kernel makes the frame's head private before a program that writes runs.
        unsafe { *bytes = value };
        Some(())
    }

    #[inline(always)]
    fn replace_l4_checksum<const N: usize>(
        &mut self,
        at: usize,
        from: [u8; N],
        to: [u8; N],
        kind: ChecksumKind,
    ) -> Option<()> {
        let mut flags = size_of::<[u8; N]>() as u64;
        if kind.pseudo_header {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if kind.zero_is_none {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let at = u32::try_from(at).ok()?;
        // SAFETY: the context is valid; offset and flags are numbers that the kernel checks.
        let failed = unsafe { bpf_l4_csum_replace(self.skb, at, native(from), native(to), flags) };
        if failed == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `bytes`.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `bytes`.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: as in `bytes`.
        unsafe { (*self.skb).mark }
    }

    #[inline(always)]
    fn set_mark(&mut self, mark: u32) {
        if mark == 0 && cfg!(feature = "keep-mark") {
            return;
        }
        // SAFETY: as in `bytes`; `mark` is one of the fields that a classifier may write.
        unsafe { (*self.skb).mark = mark };
    }

    #[inline(always)]
    fn set_priority(&mut self, priority: u32) {
        // SAFETY: as in `set_mark`.
        unsafe { (*self.skb).priority = priority };
    }
}

/// A field as the kernel's `__be16` or `__be32`: its bytes in memory order, zero-extended.
#[inline(always)]
fn native<const N: usize>(field: [u8; N]) -> u64 {
    match *field.as_slice() {
        [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        _ => 0,
    }
}
