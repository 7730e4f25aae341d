//! A received frame before there is an skb, as [`Bytes`].

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use datapath::Bytes;

use crate::event::OfXdp;
use crate::lookup::Maps;

/// The frame that the running program was called for. Of a frame in several buffers the first one is in reach, which
/// holds all headers.
pub(crate) struct Received {
    ctx: XdpContext,
}

impl Received {
    /// The frame of `ctx`.
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// The maps. There is no skb, and nothing that needs one is asked.
    #[inline(always)]
    pub(crate) fn maps(&self) -> Maps<OfXdp> {
        Maps {
            context: OfXdp(self.ctx.ctx),
        }
    }
}

impl Bytes for Received {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = self.ctx.data();
        if start + at + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: all N bytes lie before the end, which the comparison proves to the verifier, too; an array of bytes needs
        // no alignment.
        Some(unsafe { *((start + at) as *const [u8; N]) })
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a frame is below 4 GiB")]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) as u32 }
    }
}
