//! `vnetctl ipam`: who has which address, which ones nobody will give back, and giving those back; the loader does that, too.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use netconf::OnlyIf;
use rpc::RunDirectory;
use serde::Serialize;
use serde_json::{Value, json};

use crate::leaks::{Holding, MAIN, State, holdings};
use crate::plugin;

/// Where the plug-ins are.
pub const BIN: &str = "/opt/cni/bin";
/// The plug-in that gives the addresses.
pub(crate) const IPAM: &str = "azure-vnet-ipam";
/// The interface of pods whose interface nobody remembers.
const IFNAME: &str = "eth0";
/// Their network.
const NETWORK: &str = "azure";
/// A container that nobody remembers at all.
const NOBODY: &str = "nobody";

/// What was done about a leaked address.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Freed {
    /// Which.
    #[serde(flatten)]
    pub holding: Holding,
    /// Whether it is free now; with a dry run, nothing is.
    pub freed: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Every address that is given to somebody.
pub fn show() -> Result<Vec<Holding>> {
    Ok(holdings(&RunDirectory::default())?)
}

/// Those that nobody will give back.
pub fn check() -> Result<Vec<Holding>> {
    let all = show()?.into_iter();
    Ok(all
        .filter(|holding| holding.state == State::Leaked)
        .collect())
}

/// An error when addresses leak.
pub fn verdict(leaked: &[Holding]) -> Result<()> {
    ensure!(
        leaked.is_empty(),
        "{} addresses leak; free them with `vnetctl ipam gc`",
        leaked.len()
    );
    Ok(())
}

/// Frees what leaks, as a runtime would: by DEL. `dry_run`: only tells.
pub fn gc(bin: &Path, dry_run: bool) -> Result<Vec<Freed>> {
    let mut done = Vec::new();
    for holding in check()? {
        let freed = if dry_run {
            Ok(true)
        } else {
            free(bin, &holding)
        };
        let error = match freed {
            Ok(true) => None,
            // It does not leak any more.
            Ok(false) => continue,
            Err(error) => Some(crate::report::one_line(&error)),
        };
        done.push(Freed {
            freed: !dry_run && error.is_none(),
            holding,
            error,
        });
    }
    Ok(done)
}

/// An error when something could not be freed.
pub fn complaint(done: &[Freed]) -> Result<()> {
    let failed = done.iter().filter(|one| one.error.is_some()).count();
    ensure!(
        failed == 0,
        "{failed} of {} addresses could not be freed; see above, and /var/log/azure-vnet-ipam.log",
        done.len()
    );
    Ok(())
}

/// Frees one address for good, whoever had it: for an owner that nobody can ask any more. One that a live pod has is refused.
pub fn free_address(bin: &Path, address: Ipv4Addr) -> Result<Vec<Freed>> {
    let all = show().with_context(|| {
        format!("{address} is not freed; if it cannot be seen from anywhere, see `Free an address by hand` in docs/troubleshooting.md")
    })?;
    let holding = all
        .into_iter()
        .find(|holding| holding.address == address)
        .with_context(|| format!("{address} is given to nobody; see `vnetctl ipam show`"))?;
    let Holding {
        key, pod, netns, ..
    } = &holding;
    match holding.state {
        State::Used => bail!(
            "{address} is in use: pod {pod}, attachment {key}, network namespace {netns}; delete the pod, and its runtime gives the address back"
        ),
        State::Busy => bail!("a call works on {key}, which has {address}; try again"),
        State::Unknown if holding.is_blind => bail!(
            "{address}: {}; if it cannot be seen from anywhere and the pod is gone, run as root: {}",
            holding.why,
            by_hand(bin, &holding)
        ),
        State::Unknown if key.container_id.is_empty() && !holding.is_taken_over => {
            bail!("{address}: {}", holding.why)
        }
        State::Unknown | State::Leaked => ensure!(
            free(bin, &holding)?,
            "{address} has been freed or given anew meanwhile; see `vnetctl ipam show`"
        ),
    }
    Ok(vec![Freed {
        holding,
        freed: true,
        error: None,
    }])
}

/// Whether there was still something to free: the pod may have been deleted, and its address given to another one, since we
/// looked.
pub(crate) fn free(bin: &Path, holding: &Holding) -> Result<bool> {
    let is_still = || {
        let same = |one: &Holding| {
            (one.address, &one.key, one.state) == (holding.address, &holding.key, holding.state)
        };
        anyhow::Ok(show()?.iter().any(same))
    };
    if !is_still()? {
        return Ok(false);
    }
    let plugin = plugin_of(holding);
    del(plugin, bin, holding)?;
    ensure!(
        !is_still()?,
        "{plugin} says that it is done, but the lease is still there"
    );
    // An ADD may have made the attachment anew, which DEL has left alone then.
    let has_it = |one: &Holding| (one.address, &one.key) == (holding.address, &holding.key);
    Ok(!show()?.iter().any(has_it))
}

/// Whose DEL frees it.
fn plugin_of(holding: &Holding) -> &'static str {
    if holding.is_ours { MAIN } else { IPAM }
}

/// Runs the plug-in's DEL.
fn del(name: &str, bin: &Path, holding: &Holding) -> Result<()> {
    let (environment, conf) = deletion(holding);
    // What nobody could tell, nobody need be able to tell now; what was seen must still be so.
    let only_if = if holding.is_gone {
        OnlyIf::Gone
    } else {
        OnlyIf::NotAlive
    };
    let environment = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .chain([(OnlyIf::VARIABLE, only_if.as_str())]);
    plugin::call(bin, name, environment, &conf).map(drop)
}

/// The same as a line for a shell, for who knows better than we whether the pod is gone.
fn by_hand(bin: &Path, holding: &Holding) -> String {
    let (environment, conf) = deletion(holding);
    let variables = environment
        .map(|(key, value)| format!("{key}={value}"))
        .join(" ");
    let (bin, plugin) = (bin.display(), plugin_of(holding));
    format!("echo '{conf}' | {variables} CNI_PATH={bin} {bin}/{plugin}")
}

/// What a DEL gets.
fn deletion(holding: &Holding) -> ([(&'static str, String); 3], Value) {
    let or = |text: &str, default: &str| {
        let text = if text.is_empty() { default } else { text };
        text.to_owned()
    };
    // Its owner may have others, which are in use.
    let only = holding.is_taken_over.then(|| holding.address.to_string());
    let ipam = json!({"type": IPAM, "ipAddress": only.unwrap_or_default()});
    let conf = json!({
        "cniVersion": "1.0.0", "name": or(&holding.key.network, NETWORK), "type": MAIN, "ipam": ipam,
    });
    let environment = [
        ("CNI_COMMAND", "DEL".to_owned()),
        ("CNI_CONTAINERID", or(&holding.key.container_id, NOBODY)),
        ("CNI_IFNAME", or(&holding.key.ifname, IFNAME)),
    ];
    (environment, conf)
}

/// Addresses as text; `wide` is with the whole container ID.
pub fn render(holdings: &[Holding], wide: bool) -> String {
    let mut text = format!(
        "{:<16} {:<8} {:<12} {:<14} {:<8} {:<40} WHY\n",
        "ADDRESS", "STATE", "NETWORK", "CONTAINER", "IFNAME", "POD"
    );
    for holding in holdings {
        line(&mut text, holding, &holding.why, wide);
    }
    text
}

/// What was done, as text.
pub fn render_freed(done: &[Freed]) -> String {
    let mut text = render(&[], false);
    for one in done {
        let why = &one.holding.why;
        let outcome = match &one.error {
            Some(error) => format!("{why}; NOT FREED: {error}"),
            None if one.freed => format!("{why}; freed"),
            None => format!("{why}; would be freed"),
        };
        line(&mut text, &one.holding, &outcome, false);
    }
    text
}

fn line(text: &mut String, holding: &Holding, why: &str, wide: bool) {
    let state = match holding.state {
        State::Used => "used",
        State::Busy => "busy",
        State::Unknown => "unknown",
        State::Leaked => "leaked",
    };
    let key = &holding.key;
    let short: String = key
        .container_id
        .chars()
        .take(if wide { usize::MAX } else { 13 })
        .collect();
    let address = holding.address.to_string();
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "{address:<16} {state:<8} {:<12} {short:<14} {:<8} {:<40} {why}",
        key.network, key.ifname, holding.pod
    );
}
