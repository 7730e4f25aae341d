//! Names under which programs, maps and links are pinned in bpffs.
//!
//! `/sys/fs/bpf/azure-vnet/v<ABI_VERSION>/{maps,programs,links}/`. bpffs refuses names with a dot, and the kernel cuts
//! names of maps and programs after 15 bytes.

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The pin directory, relative to [`BPFFS`], without the version.
pub const DIRECTORY: &str = "azure-vnet";

/// Map names.
pub mod map {
    /// One entry: [`crate::Config`].
    pub const CONFIG: &str = "config";
    /// [`crate::Ip4`] → [`crate::Pod`].
    pub const PODS: &str = "pods";
    /// [`crate::IfIndex`] → [`crate::Veth`].
    pub const VETHS: &str = "veths";
    /// IPv4 prefix → [`crate::ClassEntry`].
    pub const DST4: &str = "dst4";
    /// [`crate::FlowKey`] → [`crate::Flow`].
    pub const FLOWS: &str = "flows";
    /// [`crate::BindingKey`] → [`crate::Binding`].
    pub const SNAT: &str = "snat";
    /// Index of a [`crate::Path`] → [`crate::Counter`].
    pub const STATS: &str = "stats";
    /// Index of a [`crate::DropReason`] → [`crate::Counter`].
    pub const DROPS: &str = "drops";
    /// One entry: [`crate::Secret`].
    pub const SECRET: &str = "secret";
    /// Index of a pod → how many bindings it holds open, `u32`.
    pub const SNAT_OPEN: &str = "snat_open";
    /// One entry: how many flows found no room in `flows`, `u32`.
    pub const FLOWS_LOST: &str = "flows_lost";
    /// [`crate::FragmentKey`] → [`crate::Fragment`].
    pub const FRAGMENTS: &str = "fragments";
    /// IPv4 prefix that `xdp_guard` drops → `u32`, without meaning.
    pub const DENY: &str = "deny";
    /// Index of an address → [`crate::CachedPeer`].
    pub const PEER_CACHE: &str = "peer_cache";
    /// Index of a host veth → [`crate::CachedVeth`].
    pub const VETH_CACHE: &str = "veth_cache";
    /// Index of a flow → [`crate::CachedFlow`].
    pub const FLOW_CACHE: &str = "flow_cache";
    /// Index of a [`crate::Watch`] → the last second of the wish, `u32`; 0 where there is none.
    pub const WATCH: &str = "watch";
    /// CPU → where a listener finds its [`crate::Event`]s: one map for each of the listeners at a time.
    pub const EVENTS: [&str; 4] = ["events0", "events1", "events2", "events3"];
    /// Id of a map in the kernel → [`crate::Layout`]. No program reads it.
    pub const LAYOUTS: &str = "layouts";
    /// Every map of the programs.
    pub const ALL: [&str; 21] = [
        CONFIG, PODS, VETHS, DST4, FLOWS, SNAT, STATS, DROPS, SECRET, SNAT_OPEN, FLOWS_LOST,
        FRAGMENTS, DENY, PEER_CACHE, VETH_CACHE, FLOW_CACHE, WATCH, EVENTS[0], EVENTS[1],
        EVENTS[2], EVENTS[3],
    ];
}

/// Program names.
pub mod program {
    /// Host veth, ingress: what the pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// Host veth, egress: what the kernel sends to the pod.
    pub const TO_POD: &str = "to_pod";
    /// NIC, ingress.
    pub const FROM_WIRE: &str = "from_wire";
    /// NIC, egress.
    pub const TO_WIRE: &str = "to_wire";
    /// NIC, XDP, and only if asked for.
    pub const XDP_GUARD: &str = "xdp_guard";
    /// Every classifier.
    pub const ALL: [&str; 4] = [FROM_POD, TO_POD, FROM_WIRE, TO_WIRE];
}
