//! What follows when the configuration or the node changes?

use std::net::Ipv4Addr;
use std::slice;

use abi::Class;
use ipnet::Ipv4Net;
use rpc::{ClassView, Classified, Endpoint};
use tracing::{error, info, warn};

use crate::classes::{Inputs, classify, oddities};
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::registry::RegistryError;
use crate::trouble::Topic;
use crate::{conntrack, nic, reconcile, via_host};

impl Daemon {
    /// Reads the configuration again and takes it over. `asked`: somebody wants an answer in the log in any case.
    pub(crate) fn reload(&self, asked: bool) {
        let before = self.configuration.borrow().clone();
        let nic = self.node.borrow().nic.nic.clone();
        let mut after = before.reloaded(&nic);
        if let Err(why) = self.check_classes(&after) {
            after = before.refusing(&after, &why.to_string());
        }
        for why in after.rejected() {
            if asked || !before.rejected().contains(why) {
                warn!(why, "configuration rejected; the earlier one stays");
            }
        }
        if after == before {
            if asked {
                info!("configuration read again: nothing has changed");
            }
            return;
        }
        info!(files = ?after.view().files, rejected = after.rejected().len(), "configuration read again");
        for warning in after.warnings() {
            warn!(warning, "configuration");
        }
        let block_changed = after.config.block_wireserver != before.config.block_wireserver;
        *self.configuration.borrow_mut() = after;
        if let Err(error) = self.configure() {
            error!(%error, "write the settings");
        }
        self.metrics_address
            .send_replace(self.configuration.borrow().config.metrics);
        self.follow_guard();
        if !self.reclassify() && block_changed {
            self.nft.want();
        }
    }

    /// Writes the node's settings. Whether the map said something else.
    pub(crate) fn configure(&self) -> Result<bool, RegistryError> {
        let configuration = self.configuration.borrow();
        self.registry.borrow_mut().configure(
            &self.node.borrow(),
            configuration.shares(),
            &configuration.config,
        )
    }

    /// Recomputes the classes and, when they changed, writes them to `dst4` and the fallback. Whether it did.
    pub(crate) fn reclassify(&self) -> bool {
        let rules = self.with_inputs(&self.configuration.borrow(), classify);
        let rules = via_host::add(rules, &self.via_host.borrow());
        if *self.rules.borrow() == rules {
            return false;
        }
        if let Err(error) = self.registry.borrow_mut().write_classes(&rules) {
            error!(%error, "write the destination classes");
            return false;
        }
        info!(prefixes = rules.len(), "destination classes changed");
        *self.rules.borrow_mut() = rules;
        self.nft.want();
        true
    }

    /// Takes over what the conflist at this ADD says; what no attachment's says any more is forgotten at the next start.
    pub(crate) async fn route_via_host(&self, endpoint: &Endpoint) {
        let known = self.via_host.borrow().clone();
        let wanted = &known | &via_host::addresses(slice::from_ref(endpoint));
        if wanted != known {
            self.via_host.replace(wanted);
            self.reclassify();
            self.nft.settled().await;
        }
    }

    /// What is allowed, and odd.
    pub(crate) fn oddities(&self) -> Vec<String> {
        self.with_inputs(&self.configuration.borrow(), oddities)
    }

    /// Whether the classes of another configuration could be written.
    fn check_classes(&self, configuration: &Configuration) -> Result<(), RegistryError> {
        let rules = self.with_inputs(configuration, classify);
        let rules = via_host::add(rules, &self.via_host.borrow());
        self.registry.borrow().check_classes(&rules)
    }

    fn with_inputs<T>(
        &self,
        configuration: &Configuration,
        use_them: impl FnOnce(Inputs<'_>) -> T,
    ) -> T {
        use_them(Inputs {
            config: &configuration.config,
            masq: &configuration.masq,
            node: &self.node.borrow(),
            pools: self.pools.borrow().as_ref().ok(),
        })
    }

    /// Follows the node's own addresses, its routes and the NIC.
    pub(crate) async fn follow_node(&self) {
        // One look after the other, so that an older one never comes last.
        let _looking = self.looking.lock().await;
        let wanted = self.configuration.borrow().config.nic.clone();
        let node = match nic::discover(wanted.as_deref()).await {
            Ok(node) => node,
            Err(error) => {
                // With the default route went the one that leads out of pods in a tunnel mode.
                self.node.borrow_mut().gateway = None;
                return self.judge(Topic::Nic, Some(error.to_string()));
            }
        };
        let (nic, gateway, next_hops) = (node.nic.clone(), node.gateway, node.next_hops);
        let before = self.node.replace(node);
        let changed = before.nic != nic;
        if changed {
            info!(nic = nic.nic, primary = %nic.primary, mtu = nic.mtu, "the NIC changed");
        }
        if before.next_hops != next_hops {
            info!(?next_hops, "the routes changed");
        }
        if (changed || before.next_hops != next_hops)
            && let Err(error) = self.configure()
        {
            error!(%error, "write the NIC's settings");
        }
        if !self.restore_pins() {
            return;
        }
        // Taken off and put on again, they would miss answers, and the node reset those connections.
        if before.nic.nic_ifindex == nic.nic_ifindex
            && before.nic.nic != nic.nic
            && let Err(error) = hooks::rename(&self.pins, &before.nic.nic, &nic.nic)
        {
            error!(%error, "find the programs of a NIC that got another name");
        }
        // A NIC that was made anew has lost its programs, though their links are still pinned.
        let take_over = || conntrack::take_over_or_fill(&mut self.registry.borrow_mut(), &self.run);
        let attached = if changed {
            reconcile::remove_stale_links(&self.pins, &nic.nic)
                .map_err(Into::into)
                .and_then(|()| reconcile::attach_nic(&self.pins, &nic.nic, take_over))
        } else {
            reconcile::attach_nic_if_needed(&self.pins, &nic.nic, take_over)
        };
        self.hold_pins();
        self.judge(Topic::Nic, attached.err().map(|error| error.to_string()));
        self.follow_guard();
        let stale = self.troubles.borrow().has(Topic::Fallback);
        if !self.reclassify() && (changed || stale) {
            self.nft.want();
        }
        if changed || before.gateway != gateway {
            self.follow_tunnels().await;
        }
    }

    /// The class of each address and where it comes from; of none, the whole table, longest prefix first.
    pub(crate) fn classes(&self, addresses: &[Ipv4Addr]) -> Result<Vec<Classified>, RegistryError> {
        if addresses.is_empty() {
            let rules = self.rules.borrow();
            return Ok(rules.iter().map(|rule| of(None, rule.into())).collect());
        }
        let classes = addresses
            .iter()
            .map(|addr| Ok(of(Some(*addr), self.class(*addr)?)));
        classes.collect()
    }

    fn class(&self, addr: Ipv4Addr) -> Result<ClassView, RegistryError> {
        let registry = self.registry.borrow();
        if registry.registered(addr)?.is_some() {
            let endpoints = reconcile::endpoints(&self.run);
            let pod = endpoints.iter().find(|pod| pod.address.addr() == addr);
            let name = pod.map_or_else(String::new, |pod| {
                format!(" {}/{}", pod.pod_namespace, pod.pod_name)
            });
            return Ok(ClassView {
                prefix: Ipv4Net::from(addr),
                class: "pod".into(),
                row: 1,
                why: format!("pod{name} of this node"),
                file: None,
            });
        }
        let rules = self.rules.borrow();
        let rule = rules.iter().find(|rule| rule.prefix.contains(&addr));
        let mut view = rule.map_or_else(|| no_rule(addr), Into::into);
        // What the programs do is what counts.
        let effective = registry.class_of(addr)?.name();
        if view.class != effective {
            view.why = format!(
                "dst4 does not say {} ({}): restart azure-vnet-loader",
                view.class, view.why
            );
            view.class = effective.into();
        }
        Ok(view)
    }
}

fn of(address: Option<Ipv4Addr>, class: ClassView) -> Classified {
    Classified { address, class }
}

/// Never happens: the last row takes every address.
fn no_rule(addr: Ipv4Addr) -> ClassView {
    ClassView {
        prefix: Ipv4Net::from(addr),
        class: Class::Stack.name().into(),
        row: 0,
        why: "no rule".into(),
        file: None,
    }
}
