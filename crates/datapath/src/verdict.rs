//! What happens to a packet.

use abi::{DropReason, IfIndex, Ip4};

/// The outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the packet to the programs behind us and then to the kernel.
    Stack,
    /// Into the pod behind this host veth, past the veth's queues (`bpf_redirect_peer`).
    Peer(IfIndex),
    /// Out of the NIC; the kernel looks up route and neighbour (`bpf_redirect_neigh`).
    Wire(IfIndex),
    /// Out of the NIC to this next hop, whose neighbour entry the kernel looks up.
    Via(IfIndex, Ip4),
    /// Back out of the interface that it came from.
    Reply(IfIndex),
    /// Dropped, and counted already.
    Drop(DropReason),
}
