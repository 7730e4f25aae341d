//! What each number is called, and what it means.

use abi::Counter;

use super::page::Page;
use super::state::State;

impl State {
    pub(super) fn write(&self, page: &mut Page) {
        self.loader(page);
        self.traffic(page);
        self.tables(page);
        self.snat(page);
        self.addresses(page);
        self.process(page);
    }

    fn loader(&self, page: &mut Page) {
        page.gauges(
            "azure_vnet_build_info",
            "Always 1; which loader runs, and the layout of its maps",
            ["version", "abi"],
            [(
                [
                    env!("CARGO_PKG_VERSION").into(),
                    abi::ABI_VERSION.to_string(),
                ],
                1,
            )],
        );
        page.seconds(
            "azure_vnet_uptime_seconds",
            "Since the loader started",
            self.uptime_s,
        );
        page.gauge(
            "azure_vnet_ready",
            "1 when pods can be added, as /readyz says it; what is wrong with those that are there is azure_vnet_trouble",
            self.is_ready.into(),
        );
        page.gauge(
            "azure_vnet_config_rejected",
            "Configuration files that are refused as they are now; what was in force before still is",
            number(self.rejected),
        );
        page.gauge(
            "azure_vnet_warnings",
            "Warnings that `vnetctl status` shows",
            number(self.warnings),
        );
        page.gauges(
            "azure_vnet_attached_programs",
            "Interfaces on which a program runs; those of the pods as of the last reconciliation, at most 30 s ago",
            ["program"],
            self.attached.iter().map(|(program, on)| ([(*program).into()], *on)),
        );
        page.gauges(
            "azure_vnet_missing_programs",
            "Interfaces on which a program does not run and should; those of the pods as of the last reconciliation, at most 30 s ago",
            ["program"],
            self.missing.iter().map(|(program, on)| ([(*program).into()], *on)),
        );
        page.gauges(
            "azure_vnet_trouble",
            "1 while something is wrong that the loader cannot mend, by what it is about; `vnetctl status` has the words",
            ["topic"],
            self.troubles.iter().map(|(topic, is)| ([topic.name().into()], (*is).into())),
        );
        page.gauges(
            "azure_vnet_foreign_filters",
            "Chains that filter what the node forwards, by whose they are; fast flows pass them by (datapath: stack)",
            ["owner"],
            self.foreign
                .iter()
                .map(|(owner, places)| ([owner.name().into()], number(*places))),
        );
        page.gauge(
            "azure_vnet_datapath_stack",
            "1 with datapath: stack, when all new flows of pods go through the kernel",
            self.is_stack.into(),
        );
        page.counters(
            "azure_vnet_repairs",
            "What was found missing or left over and was mended, by kind",
            ["what"],
            self.repairs
                .iter()
                .map(|(what, times)| ([what.name().into()], *times)),
        );
    }

    fn traffic(&self, page: &mut Page) {
        page.gauge(
            "azure_vnet_pods",
            "Pods that are connected",
            number(self.pods),
        );
        let ways = || {
            self.traffic
                .iter()
                .map(|(path, counted)| (path.name(), counted))
        };
        both(
            page,
            ["azure_vnet_packets", "azure_vnet_bytes"],
            ["Packets", "Bytes, Ethernet headers included,"],
            "of pods by the way they took, seen from the pod; a super-packet (GSO) is one packet",
            ("path", ways().collect()),
        );
        let reasons = || {
            self.drops
                .iter()
                .map(|(reason, counted)| (reason.name(), counted))
        };
        both(
            page,
            ["azure_vnet_dropped_packets", "azure_vnet_dropped_bytes"],
            ["Packets", "Bytes, Ethernet headers included,"],
            "dropped, by reason (docs/drop-reasons.md)",
            ("reason", reasons().collect()),
        );
    }

    fn tables(&self, page: &mut Page) {
        let tables = || self.tables.iter();
        page.gauges(
            "azure_vnet_map_entries",
            "Entries of a table of the programs; of flows and snat as of the last sweep",
            ["map"],
            tables().map(|table| ([table.name.clone()], table.used.into())),
        );
        page.gauges(
            "azure_vnet_map_capacity_entries",
            "Entries that fit into a table of the programs",
            ["map"],
            tables().map(|table| ([table.name.clone()], table.capacity.into())),
        );
        page.gauge(
            "azure_vnet_flows_full",
            "1 while table flows is so full that flows that are not in it take the kernel's path",
            self.flows_full.into(),
        );
        page.counter(
            "azure_vnet_flows_lost",
            "Flows that found no room in table flows, and one for each upgrade that moves a table",
            self.flows_lost.into(),
        );
    }

    fn snat(&self, page: &mut Page) {
        page.gauge(
            "azure_vnet_snat_ports",
            "Ports of the primary address for SNAT; so many connections fit to one remote end",
            self.snat_ports.into(),
        );
        let closing = self.bindings.saturating_sub(self.open);
        page.gauges(
            "azure_vnet_snat_bindings",
            "SNAT bindings as of the last sweep: open, and closing ones that keep their port for a moment",
            ["state"],
            [
                (["open".into()], self.open.into()),
                (["closing".into()], closing.into()),
            ],
        );
        page.gauges(
            "azure_vnet_snat_destination_ports",
            "Ports of open connections to the remote ends that have the most of them, at most ten, as of the last sweep",
            ["address", "port", "protocol"],
            self.destinations.iter().map(|end| {
                let of = [end.address.to_string(), end.port.to_string(), end.protocol.clone()];
                (of, end.ports.into())
            }),
        );
    }

    fn addresses(&self, page: &mut Page) {
        let states = [
            ("used", self.addresses.used),
            ("free", self.addresses.free),
            ("cooling", self.addresses.cooling),
        ];
        page.gauges(
            "azure_vnet_ipam_addresses",
            "Addresses for pods: used, free, and cooling, which were given back less than 30 s ago",
            ["state"],
            states.map(|(state, count)| ([state.to_owned()], count)),
        );
        page.gauge(
            "azure_vnet_ipam_leaked_addresses",
            "Used addresses that look leaked and were not freed, for want of proof or by an error: `vnetctl ipam check`",
            number(self.leaked),
        );
        let pool = self.pool.iter();
        page.gauges(
            "azure_vnet_pool_age_seconds",
            "Since the address pools were read, by the source that told them; absent without pools",
            ["source"],
            pool.map(|pool| ([pool.source.clone()], pool.age_s)),
        );
    }

    fn process(&self, page: &mut Page) {
        page.gauge(
            "process_resident_memory_bytes",
            "Memory of the loader",
            self.process.resident_bytes,
        );
        page.gauge(
            "process_open_fds",
            "Descriptors that the loader has open",
            self.process.open_fds,
        );
        page.seconds_total(
            "process_cpu_seconds",
            "Processor time that the loader has taken",
            self.process.cpu_seconds,
        );
    }
}

/// Packets and bytes of the same things.
fn both(
    page: &mut Page,
    names: [&str; 2],
    units: [&str; 2],
    help: &str,
    (label, counted): (&'static str, Vec<(&str, &Counter)>),
) {
    let get = [
        |counter: &Counter| counter.packets,
        |counter: &Counter| counter.bytes,
    ];
    for ((name, unit), get) in names.into_iter().zip(units).zip(get) {
        let values = counted.iter();
        page.counters(
            name,
            &format!("{unit} {help}"),
            [label],
            values.map(|(of, counter)| ([(*of).to_owned()], get(counter))),
        );
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
