//! SNAT bindings: map `snat`, one entry per binding, keyed by what the wire shows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Port};

/// Key of `snat`: the flow as the remote end sees it. ICMP echo: the identifier is `nat_port`, `remote_port` is zero.
#[derive(
    Clone,
    Copy,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[repr(C)]
pub struct BindingKey {
    /// The remote end's address.
    pub remote: Ip4,
    /// The remote end's port.
    pub remote_port: Port,
    /// The port of the primary address that stands for the pod's.
    pub nat_port: Port,
    /// IP protocol number.
    pub proto: u8,
    zero: u8,
    zeros: u16,
}

impl BindingKey {
    /// The key of a flow to `remote` that leaves from `nat_port`.
    #[inline(always)]
    pub const fn new(remote: (Ip4, Port), nat_port: Port, proto: u8) -> Self {
        Self {
            remote: remote.0,
            remote_port: remote.1,
            nat_port,
            proto,
            zero: 0,
            zeros: 0,
        }
    }
}

/// Value of `snat`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Binding {
    /// The pod's address.
    pub pod: Ip4,
    /// The pod's port.
    pub pod_port: Port,
    /// The pod's generation when the binding was made; another one in `pods` means that the binding is dead.
    pub generation: u16,
    /// [`BindingState`] as a number.
    state: u8,
    zero: u8,
    zeros: u16,
    /// Time of the last packet seen, seconds of [`crate::Ticks`], at most one second old.
    pub last_seen: u32,
    #[cfg(feature = "next-layout")]
    padding: [u8; 8],
}

impl Binding {
    /// A binding in `state`.
    #[inline(always)]
    pub const fn new(
        pod: Ip4,
        pod_port: Port,
        generation: u16,
        state: BindingState,
        last_seen: u32,
    ) -> Self {
        Self {
            pod,
            pod_port,
            generation,
            state: state as u8,
            zero: 0,
            zeros: 0,
            last_seen,
            #[cfg(feature = "next-layout")]
            padding: [0; 8],
        }
    }

    /// The state; a number that this build does not know is [`BindingState::Closed`].
    #[inline(always)]
    pub const fn state(self) -> BindingState {
        match self.state {
            0 => BindingState::New,
            1 => BindingState::Established,
            2 => BindingState::FinFromPod,
            3 => BindingState::FinFromRemote,
            5 => BindingState::Reset,
            _ => BindingState::Closed,
        }
    }

    /// Notes that a packet was seen; touches nothing else, because another CPU may be writing the rest.
    #[inline(always)]
    pub const fn see(&mut self, state: BindingState, last_seen: u32) {
        self.state = state as u8;
        self.last_seen = last_seen;
    }
}

/// What has been seen of a binding's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BindingState {
    /// Only the pod has sent.
    New = 0,
    /// The remote end has answered.
    Established = 1,
    /// TCP: the pod has sent FIN.
    FinFromPod = 2,
    /// TCP: the remote end has sent FIN.
    FinFromRemote = 3,
    /// TCP: both have sent FIN.
    Closed = 4,
    /// TCP: one has sent RST; whether the other one believed it, its next segment tells.
    Reset = 5,
}

impl BindingState {
    /// Whether the connection is over, so that the binding does not count as open.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// The word that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::FinFromPod => "fin_from_pod",
            Self::FinFromRemote => "fin_from_remote",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}
