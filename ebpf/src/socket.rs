//! The node's own sockets.

use abi::{BindingKey, Ip4, proto};
use aya_ebpf::bindings::{
    __sk_buff, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
};
use aya_ebpf::helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};

/// Size of the IPv4 arm of `struct bpf_sock_tuple`: two addresses and two ports.
const TUPLE: u32 = 12;
/// `BPF_F_CURRENT_NETNS`: the namespace of the interface that the program is attached to, which is the node's.
const CURRENT_NETNS: u64 = u64::MAX;

/// Whether what the remote end of `key` sends to `primary` and the binding's port would reach a socket of the node:
/// connected, listening, or bound.
#[inline(always)]
pub(crate) fn exists(skb: *mut __sk_buff, primary: Ip4, key: &BindingKey) -> bool {
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: u32::from_ne_bytes(key.remote.octets()),
                daddr: u32::from_ne_bytes(primary.octets()),
                sport: u16::from_ne_bytes(key.remote_port.bytes()),
                dport: u16::from_ne_bytes(key.nat_port.bytes()),
            },
        },
    };
    // SAFETY: context and tuple are valid for the call, and the size is that of the tuple's IPv4 arm.
    let socket = unsafe {
        match key.proto {
            proto::TCP => bpf_skc_lookup_tcp(skb.cast(), &raw mut tuple, TUPLE, CURRENT_NETNS, 0),
            proto::UDP => bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, TUPLE, CURRENT_NETNS, 0),
            _ => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the look-up gave a reference to the socket, which is given back once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
