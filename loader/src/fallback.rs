//! What the kernel does without our programs: one masquerade rule with the same exclusions, and the same refusals.
//!
//! The stack is always right: everything that the programs leave to it must come out the same, only slower.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use abi::{Class, SOURCE_CHECKED, TUNNEL_MARK};

use crate::bounded::{RunError, run};
use crate::classes::{Rule, WIRESERVER};
use crate::ports::KERNEL_PORTS;

/// Our table's name.
pub(crate) const TABLE: &str = "azure-vnet";

/// The kernel cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// There is no `nft`.
    #[error("run nft: {0}; install nftables")]
    NoNft(io::Error),
    /// nft refuses the rules.
    #[error("install the nftables table `azure-vnet`: {0}")]
    Refused(String),
    /// It stays, for whoever wants it away.
    #[error("look at the nftables table `azure-vnet`, or remove it: {0}")]
    Removal(#[from] RunError),
}

/// What is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Whether the kernel checks the sources of pods' packets, too.
    pub checks_sources: bool,
    /// Whether it is one for a node with pods in a tunnel mode.
    pub tunnels: bool,
    /// The table as nft shows it: what it must look like until the next time.
    listing: String,
}

impl Installed {
    /// Whether the table is still as it was made; somebody may have removed, emptied or extended it.
    pub fn is_whole(&self) -> bool {
        !self.listing.is_empty() && list().is_ok_and(|listing| listing == self.listing)
    }
}

/// What the table has to say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The NIC.
    pub nic: &'a str,
    /// The destination classes, longest prefix first.
    pub rules: &'a [Rule],
    /// Whether pods are kept from the wireserver's secrets.
    pub block_wireserver: bool,
    /// Whether there are pods in a tunnel mode.
    pub tunnels: bool,
}

/// Installs our table, replacing an earlier one in the same transaction. Without the check of sources where the kernel
/// cannot do it.
pub fn install(wanted: &Wanted<'_>) -> Result<Installed, FallbackError> {
    let rest = table(wanted);
    let checks_sources = match run_nft(&format!("{rest}{}", sources())) {
        Ok(()) => true,
        Err(FallbackError::Refused(_)) => {
            run_nft(&rest)?;
            false
        }
        Err(error) => return Err(error),
    };
    Ok(Installed {
        checks_sources,
        tunnels: wanted.tunnels,
        listing: list().map_err(FallbackError::NoNft)?,
    })
}

/// Takes our table away. Nobody waits for an nft that hangs, as with [`is_installed`].
pub fn remove() -> Result<(), FallbackError> {
    run("nft", &["delete", "table", "ip", TABLE])?;
    Ok(())
}

/// Whether our table is there, whatever is in it.
pub fn is_installed() -> Result<bool, FallbackError> {
    match run("nft", &["--stateless", "list", "table", "ip", TABLE]) {
        Ok(_) => Ok(true),
        // Without nft nobody has made it.
        Err(RunError::Failed { .. } | RunError::Start { .. }) => Ok(false),
        Err(error @ RunError::Hangs { .. }) => Err(error.into()),
    }
}

/// Our table without counts; empty when it is not there.
fn list() -> io::Result<String> {
    let list = Command::new("nft")
        .args(["--stateless", "list", "table", "ip", TABLE])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&list.stdout).into_owned())
}

fn run_nft(script: &str) -> Result<(), FallbackError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FallbackError::NoNft)?;
    if let Some(mut stdin) = nft.stdin.take() {
        match stdin.write_all(script.as_bytes()) {
            // It has ended early, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(FallbackError::NoNft)?,
        }
    }
    let done = nft.wait_with_output().map_err(FallbackError::NoNft)?;
    if done.status.success() {
        Ok(())
    } else {
        Err(FallbackError::Refused(
            String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        ))
    }
}

/// The source check of `from_pod`, for as long as somebody has taken that away: the route to the source must lead over the
/// veth that the packet came by. Fast packets never get here, and what `from_pod` has checked is not checked again, because a
/// look-up of a route costs more than everything else here.
fn sources() -> String {
    let (major, minor) = (SOURCE_CHECKED >> 16, SOURCE_CHECKED & 0xffff);
    format!(
        "table ip azure-vnet {{
  chain sources {{
    type filter hook prerouting priority raw; policy accept;
    meta priority {major:x}:{minor:x} accept
    iifname \"azv*\" fib saddr . iif oif missing counter drop
  }}
}}
"
    )
}

/// Takes the mark off answers of translated flows, which must find back to the pod that asked, not to the fabric. Only where
/// there are pods in a tunnel mode: a chain costs every packet that takes the stack.
fn tunnels() -> String {
    let not_tunnel = !TUNNEL_MARK;
    format!(
        "
  chain tunnels {{
    type filter hook prerouting priority dstnat + 5; policy accept;
    meta mark & {TUNNEL_MARK} == {TUNNEL_MARK} ct status dnat,snat meta mark set meta mark & {not_tunnel}
  }}"
    )
}

/// The table as an nft script. What connection tracking does not believe it does not translate either, so it is dropped
/// rather than sent to the Internet with the pod's address. A TCP connection that it has not seen begin would get another
/// port in its midst, and be reset: it is one of the programs', which will be back.
///
/// `iifname "azv*"` needs no set of pods to be kept; postrouting sees the input interface since Linux 5.7. Masquerading
/// comes before `srcnat`, where iptables has its rules: the first chain that translates decides, and another's would give
/// ports that may be those of a binding.
///
/// Every packet that takes the stack goes through `refused` and `sources`, so what most packets are comes first there.
fn table(wanted: &Wanted<'_>) -> String {
    let from_pod_to_wire = format!(
        "iifname \"azv*\" oifname \"{}\" ip daddr != @no_masquerade",
        wanted.nic
    );
    let ranges: Vec<String> = not_masqueraded(wanted.rules)
        .into_iter()
        .map(|(first, last)| format!("{first}-{last}"))
        .collect();
    let elements = if ranges.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }};", ranges.join(", "))
    };
    let (first, last) = (KERNEL_PORTS.first, KERNEL_PORTS.last);
    let refused = refused(wanted).join("\n    ");
    let tunnels = if wanted.tunnels {
        tunnels()
    } else {
        String::new()
    };
    format!(
        "table ip azure-vnet
delete table ip azure-vnet
table ip azure-vnet {{
  set no_masquerade {{ type ipv4_addr; flags interval; {elements} }}
  chain to_primary {{
    meta l4proto {{ tcp, udp }} masquerade to :{first}-{last} random
    masquerade
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    {from_pod_to_wire} goto to_primary
  }}
  chain untranslated {{
    ct state invalid counter drop
    ct state new tcp flags & syn == 0 counter drop
  }}
  chain refused {{
    type filter hook postrouting priority filter; policy accept;
    {refused}
    ct state established,related accept
    {from_pod_to_wire} goto untranslated
  }}{tunnels}
}}
"
    )
}

/// What pods are refused without our programs, too. At postrouting, because a packet whose source route goes over the node
/// gets its next destination only behind the forward hook.
fn refused(wanted: &Wanted<'_>) -> Vec<String> {
    let protected = format!("{WIRESERVER} tcp dport {{ 80, 32526 }}");
    let denied = wanted
        .rules
        .iter()
        .filter(|rule| rule.class == Class::Deny)
        .map(|rule| rule.prefix.to_string());
    let destinations = wanted
        .block_wireserver
        .then_some(protected)
        .into_iter()
        .chain(denied);
    destinations
        .map(|to| format!("ip daddr {to} iifname \"azv*\" counter drop"))
        .collect()
}

/// The ranges whose longest matching rule says "no masquerading", merged and ascending.
fn not_masqueraded(rules: &[Rule]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let end = |rule: &Rule| u64::from(u32::from(rule.prefix.broadcast())) + 1;
    let mut bounds: Vec<u64> = rules
        .iter()
        .flat_map(|rule| [u64::from(u32::from(rule.prefix.network())), end(rule)])
        .collect();
    bounds.sort_unstable();
    bounds.dedup();

    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for pair in bounds.windows(2) {
        let &[first, next] = pair else { continue };
        let Some(addr) = u32::try_from(first).ok().map(Ipv4Addr::from) else {
            continue;
        };
        // `rules` are longest prefix first.
        let excluded = rules
            .iter()
            .find(|rule| rule.prefix.contains(&addr))
            .is_some_and(|rule| !rule.masquerade);
        match ranges.last_mut() {
            Some(last) if excluded && last.1 == first => last.1 = next,
            _ if excluded => ranges.push((first, next)),
            _ => {}
        }
    }
    let addr = |bits: u64| Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX));
    ranges
        .into_iter()
        .map(|(first, next)| (addr(first), addr(next - 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::classes::Why;

    use super::*;

    fn rule(prefix: &str, masquerade: bool) -> Rule {
        Rule {
            prefix: prefix.parse().unwrap(),
            class: Class::Stack,
            masquerade,
            why: Why {
                row: 0,
                text: "",
                file: None,
            },
        }
    }

    #[test]
    fn a_hole_in_an_excluded_range_is_masqueraded() {
        let rules = [
            rule("169.254.169.254/32", true),
            rule("169.254.0.0/16", false),
            rule("169.255.0.0/16", false),
            rule("240.0.0.0/4", false),
            rule("0.0.0.0/0", true),
        ];
        let ranges: Vec<String> = not_masqueraded(&rules)
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        assert_eq!(
            ranges,
            [
                "169.254.0.0-169.254.169.253",
                "169.254.169.255-169.255.255.255",
                "240.0.0.0-255.255.255.255"
            ]
        );
    }
}
