//! Every key of azure-vnet's `NetworkConfig` and its type (reference `azure-vnet.md` §1.2): a value of the wrong kind is told
//! even where we have no use for it.

use std::net::{IpAddr, Ipv4Addr};

use crate::document::{Object, WrongKind};
use crate::names;

use crate::error::{NetconfError, unsupported};

const TEXTS: [&str; 14] = [
    "type",
    "master",
    "adapterName",
    "bridge",
    "logLevel",
    "logTarget",
    "infraVnetAddressSpace",
    "ipv6Mode",
    "serviceCidrs",
    "vnetCidrs",
    "cnsurl",
    "executionMode",
    "env",
    "mode",
];
const FLAGS: [&str; 7] = [
    "multiTenancy",
    "enableSnatOnHost",
    "enableExactMatchForPodName",
    "disableHairpinOnHostInterface",
    "disableIPTableLock",
    "disableAsyncDelete",
    ALLOW_NON_KUBERNETES,
];
const TEXT_LISTS: [&str; 2] = ["podNamespaceForDualNetwork", VIA_HOST];
/// Ours, not Azure's.
const ALLOW_NON_KUBERNETES: &str = "allowNonKubernetes";
const VIA_HOST: &str = "ipsToRouteViaHost";
/// In `runtimeConfig.bandwidth`, and as we tell them.
const RATES: [(&str, &str); 2] = [
    ("ingressRate", "runtimeConfig.bandwidth.ingressRate"),
    ("egressRate", "runtimeConfig.bandwidth.egressRate"),
];
const IPAM_TEXTS: [&str; 4] = ["mode", "environment", "addressSpace", "queryInterval"];

/// Keys that Azure's plug-in has for Windows, and those of every plug-in.
const OTHERS: [&str; 10] = [
    "cniVersion",
    "name",
    "ipam",
    "dns",
    "runtimeConfig",
    "capabilities",
    "prevResult",
    "args",
    "windowsSettings",
    "AdditionalArgs",
];
const IPAM_OTHERS: [&str; 3] = ["type", "subnet", "ipAddress"];

/// Every key that `azure-vnet` knows.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    TEXTS
        .into_iter()
        .chain(FLAGS)
        .chain(TEXT_LISTS)
        .chain(OTHERS)
}

/// Every key of `ipam` that `azure-vnet-ipam` knows.
pub(crate) fn known_of_ipam() -> impl Iterator<Item = &'static str> {
    IPAM_TEXTS.into_iter().chain(IPAM_OTHERS)
}

/// Every value has the kind that Azure's plug-in wants.
pub(crate) fn check_kinds(root: Object<'_>) -> Result<(), NetconfError> {
    for key in TEXTS {
        root.text(key)?;
    }
    for key in FLAGS {
        root.flag(key)?;
    }
    for key in TEXT_LISTS {
        root.texts(key)?;
    }
    let bridge = root.text("bridge")?.unwrap_or_default();
    if !bridge.is_empty() && !names::is_interface_name(bridge) {
        return Err(NetconfError::Value {
            key: "bridge",
            value: bridge.escape_debug().to_string(),
            rule: "it must be an interface name",
        });
    }
    Ok(())
}

/// Nothing is asked for that only Azure's plug-in does.
pub(crate) fn refuse_unsupported(root: Object<'_>) -> Result<(), NetconfError> {
    if root.flag("multiTenancy")? == Some(true) {
        return Err(unsupported(
            "multiTenancy",
            "true",
            "it needs Azure's container networking service (CNS)",
        ));
    }
    refuse_limits(root)?;
    match root.text("executionMode")?.unwrap_or_default() {
        "" | "default" => Ok(()),
        other => Err(unsupported(
            "executionMode",
            other,
            "only the default is there",
        )),
    }
}

/// A rate that would not be met. Without one, or with 0, which is how runtimes say "none", there is nothing to refuse.
fn refuse_limits(root: Object<'_>) -> Result<(), NetconfError> {
    let Some(runtime) = root.object("runtimeConfig")? else {
        return Ok(());
    };
    let Some(limits) = runtime.object("bandwidth")? else {
        return Ok(());
    };
    for (key, path) in RATES {
        if let Some(rate) = limits.number(key)?.filter(|rate| *rate != 0.0) {
            return Err(unsupported(
                path,
                &rate.to_string(),
                "azure-vnet limits no bandwidth; take the capability out of its entry in the conflist",
            ));
        }
    }
    Ok(())
}

/// Whether the runtime is asked to hand limits to this plug-in.
pub(crate) fn wants_limits(root: Object<'_>) -> bool {
    let capabilities = root.object("capabilities").ok().flatten();
    capabilities
        .is_some_and(|capabilities| matches!(capabilities.flag("bandwidth"), Ok(Some(true))))
}

/// Whether a runtime need not say which pod it adds, `ctr` and podman for example.
pub(crate) fn allows_non_kubernetes(root: Object<'_>) -> Result<bool, NetconfError> {
    Ok(root.flag(ALLOW_NON_KUBERNETES)? == Some(true))
}

/// `ipsToRouteViaHost`. IPv6 addresses are passed over: there is no IPv6 way to the host.
pub(crate) fn via_host(root: Object<'_>) -> Result<Vec<Ipv4Addr>, NetconfError> {
    let mut addresses = Vec::new();
    for text in root.texts(VIA_HOST)? {
        match text.parse() {
            Ok(IpAddr::V4(address)) => addresses.push(address),
            Ok(IpAddr::V6(_)) => {}
            Err(_) => {
                return Err(NetconfError::Value {
                    key: VIA_HOST,
                    value: text.escape_debug().to_string(),
                    rule: "it must be a list of IP addresses",
                });
            }
        }
    }
    Ok(addresses)
}

/// The same for `ipam`.
pub(crate) fn check_ipam_kinds(ipam: Object<'_>) -> Result<(), WrongKind> {
    for key in IPAM_TEXTS {
        ipam.text(key)?;
    }
    Ok(())
}
