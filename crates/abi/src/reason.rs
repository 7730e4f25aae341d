//! Why a packet was dropped: the one list for the counter, the metric label and `docs/drop-reasons.md`.

/// Index into `drops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The frame is too short for the headers that it claims.
    Malformed = 0,
    /// The host veth is not registered (yet, or any more).
    UnknownVeth = 1,
    /// The source address is not the pod's.
    SourceAddress = 2,
    /// The source Ethernet address is not the pod's.
    SourceMac = 3,
    /// The sender in an ARP packet is not the pod.
    ArpSender = 4,
    /// Neither IPv4 nor ARP, or with a VLAN tag.
    EtherType = 5,
    /// A pod tried the wireserver's protected ports.
    Wireserver = 6,
    /// The destination's class refuses it.
    Denied = 7,
    /// An ICMP redirect from the wire or a pod.
    IcmpRedirect = 8,
    /// `xdp_guard`: a source address that no wire can carry.
    Martian = 9,
    /// `xdp_guard`: a source address of this node itself.
    OwnSource = 10,
    /// `xdp_guard`: the source is in `denyCidrs`.
    DenyList = 11,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::UnknownVeth,
        Self::SourceAddress,
        Self::SourceMac,
        Self::ArpSender,
        Self::EtherType,
        Self::Wireserver,
        Self::Denied,
        Self::IcmpRedirect,
        Self::Martian,
        Self::OwnSource,
        Self::DenyList,
    ];

    /// Entries of `drops`; the rest is reserved.
    pub const CAPACITY: u32 = 32;

    /// Index into `drops`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The word that operators and metrics see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVeth => "unknown_veth",
            Self::SourceAddress => "source_address",
            Self::SourceMac => "source_mac",
            Self::ArpSender => "arp_sender",
            Self::EtherType => "ethertype",
            Self::Wireserver => "wireserver",
            Self::Denied => "denied",
            Self::IcmpRedirect => "icmp_redirect",
            Self::Martian => "martian",
            Self::OwnSource => "own_source",
            Self::DenyList => "deny_list",
        }
    }

    /// One sentence for the operator: what happened and what to do.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Malformed => {
                "The frame is shorter than the headers that it claims to have. Look for a broken sender in the pod, or, with `xdp: guard`, on the wire."
            }
            Self::UnknownVeth => {
                "The host veth is not registered with the loader. Normal for an instant around ADD and DEL; \
                 otherwise check that azure-vnet-loader runs, and delete the pod so that it is made anew."
            }
            Self::SourceAddress => {
                "The pod used a source address that is not its own (spoofing, or a second address set by hand)."
            }
            Self::SourceMac => {
                "The pod used a source Ethernet address that is not its own (spoofing, macvlan in the pod, or a changed MAC)."
            }
            Self::ArpSender => {
                "The pod claimed another address or Ethernet address in an ARP packet."
            }
            Self::EtherType => {
                "The pod sent something that is neither IPv4 nor ARP (IPv6 router solicitations for example), or a VLAN tag. Harmless in small numbers."
            }
            Self::Wireserver => {
                "A pod tried TCP port 80 or 32526 of 168.63.129.16, which can hand out the VM's secrets. \
                 Allow it with `blockWireserver: false` only if you must."
            }
            Self::Denied => "The destination is refused by configuration (`imds: deny`).",
            Self::IcmpRedirect => "An ICMP redirect; pods and fabric have no reason to send one.",
            Self::Martian => {
                "`xdp: guard`: a packet from the wire with a source in 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or 240.0.0.0/4. Forged."
            }
            Self::OwnSource => {
                "`xdp: guard`: a packet from the wire with the node's primary address or one of its pods' as source. Forged, or \
                 sent back by a load balancer or firewall; then turn the guard off."
            }
            Self::DenyList => {
                "`xdp: guard`: a packet from the wire whose source is in `denyCidrs`."
            }
        }
    }
}
