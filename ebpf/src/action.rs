//! Verdicts as the kernel understands them.

use core::mem::size_of;
use core::ptr;

use aya_ebpf::bindings::{TC_ACT_SHOT, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use datapath::Verdict;

/// `TCX_NEXT`, and with clsact `TC_ACT_UNSPEC`: go on with the next program, then with the kernel.
const NEXT: i32 = -1;

/// IPv4, as `sys/socket.h` has it.
const AF_INET: u32 = 2;

/// The action for `verdict`.
#[inline(always)]
pub(crate) fn act(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Stack => NEXT,
        Verdict::Drop(_) => TC_ACT_SHOT,
        // SAFETY: takes plain numbers.
        Verdict::Peer(ifindex) => code(unsafe { bpf_redirect_peer(ifindex.get(), 0) }),
        Verdict::Wire(ifindex) => {
            // SAFETY: no parameters (null, length 0) makes the kernel look route and neighbour up.
            code(unsafe { bpf_redirect_neigh(ifindex.get(), ptr::null_mut(), 0, 0) })
        }
        Verdict::Via(ifindex, hop) => {
            let mut params = bpf_redir_neigh {
                nh_family: AF_INET,
                __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                    ipv6_nh: [u32::from_ne_bytes(hop.octets()), 0, 0, 0],
                },
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "twenty bytes"
            )]
            let size = size_of::<bpf_redir_neigh>() as i32;
            // SAFETY: the parameters live until the helper has copied them.
            code(unsafe { bpf_redirect_neigh(ifindex.get(), &raw mut params, size, 0) })
        }
        // SAFETY: takes plain numbers.
        Verdict::Reply(ifindex) => code(unsafe { bpf_redirect(ifindex.get(), 0) }),
    }
}

/// A helper's `long` holds one of the `TC_ACT_*` codes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "TC_ACT_* codes are small")]
fn code(returned: i64) -> i32 {
    returned as i32
}

/// Out of the NIC with Ethernet addresses that are written here, instead of those that the kernel looks up. Azure's fabric answers
/// every question for a neighbour with one address. `None`: another verdict.
#[cfg(feature = "direct-mac")]
#[inline(always)]
pub(crate) fn act_directly(skb: &mut crate::skb::Skb, verdict: Verdict) -> Option<i32> {
    use datapath::{Packet as _, Tables as _};

    let Verdict::Via(nic, _) = verdict else {
        return None;
    };
    let own = skb.maps().config()?.nic_mac;
    skb.write(0, [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc])?;
    skb.write(6, own.octets())?;
    // SAFETY: takes plain numbers.
    Some(code(unsafe { bpf_redirect(nic.get(), 0) }))
}
