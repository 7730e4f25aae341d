//! Which prefixes cannot be meant together?

use std::path::Path;

use abi::MAX_DENIED;
use ipnet::Ipv4Net;

use super::{Config, key};
use crate::classes::{IMDS, WIRESERVER, not_routed};
use crate::document::{ConfigError, refuse};
use crate::ports::PortRange;

/// Prefixes in one list at most: `dst4` must hold the old and the new ones for a moment.
const MOST_PREFIXES: usize = 256;

impl Config {
    /// The platform's addresses must get through: without them a node has no DNS, no lease and no pods' addresses.
    fn check_denied(&self, path: &Path) -> Result<(), ConfigError> {
        for prefix in &self.deny_cidrs {
            if let Some(vital) = [WIRESERVER, IMDS]
                .iter()
                .find(|addr| prefix.contains(*addr))
            {
                return Err(refuse(
                    path,
                    key::DENY,
                    &prefix.to_string(),
                    &format!("contains {vital}, without which the node does not work"),
                    "leave it out",
                ));
            }
        }
        let (count, most) = (self.deny_cidrs.len(), MAX_DENIED as usize / 2);
        if count > most {
            let (value, why) = (format!("{count} prefixes"), format!("are more than {most}"));
            return Err(refuse(
                path,
                key::DENY,
                &value,
                &why,
                "write wider prefixes",
            ));
        }
        Ok(())
    }

    /// Where packets shall go, answers must come from.
    fn check_denied_answer(&self, path: &Path) -> Result<(), ConfigError> {
        let reached = [
            (key::VNET, &self.vnet_cidrs),
            (key::DIRECT, &self.direct_cidrs),
            (key::SERVICE, &self.service_cidrs),
        ];
        for denied in &self.deny_cidrs {
            for (key, prefixes) in reached {
                let meets = |prefix: &&Ipv4Net| prefix.contains(denied) || denied.contains(*prefix);
                if let Some(prefix) = prefixes.iter().find(meets) {
                    return Err(refuse(
                        path,
                        key::DENY,
                        &denied.to_string(),
                        &format!("overlaps `{key}` {prefix}, whose answers would be dropped"),
                        "take it out, or write the others without it",
                    ));
                }
            }
        }
        Ok(())
    }

    /// A pod's share of the ports that are used.
    pub fn check_share(&self, path: &Path, ports: PortRange) -> Result<(), ConfigError> {
        let count = u32::from(ports.count());
        match self.nat_ports_per_pod {
            Some(share) if share > count => Err(refuse(
                path,
                key::NAT_PORTS_PER_POD,
                &share.to_string(),
                &format!("is more than the {count} of `{}` {ports}", key::NAT_PORTS),
                &format!("write {count} or less, or more ports"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Prefixes that contradict each other.
    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        self.check_denied(path)?;
        self.check_denied_answer(path)?;
        let lists = self.lists();
        for (key, prefixes) in lists {
            if prefixes.len() > MOST_PREFIXES {
                return Err(refuse(
                    path,
                    key,
                    &format!("{} prefixes", prefixes.len()),
                    &format!("are more than {MOST_PREFIXES}"),
                    "write wider prefixes",
                ));
            }
            if let Some((inner, outer)) = overlap(prefixes) {
                return Err(refuse(
                    path,
                    key,
                    &inner.to_string(),
                    &format!("lies in {outer} of the same list"),
                    "take one of the two out",
                ));
            }
        }
        for (key, prefixes) in [
            (key::VNET, &self.vnet_cidrs),
            (key::DIRECT, &self.direct_cidrs),
        ] {
            for prefix in prefixes {
                let services = self.service_cidrs.iter();
                if let Some(service) = services.into_iter().find(|range| range.contains(prefix)) {
                    return Err(refuse(
                        path,
                        key,
                        &prefix.to_string(),
                        &format!(
                            "lies in `{}` {service}, which is left to kube-proxy: it cannot be direct as well",
                            key::SERVICE
                        ),
                        "take it out of one of the two",
                    ));
                }
            }
        }
        self.check_routable(path)
    }

    /// A list that names what no router forwards is a slip.
    fn check_routable(&self, path: &Path) -> Result<(), ConfigError> {
        for (key, prefixes) in self.lists() {
            // ip-masq-agent's users list whole address spaces with holes.
            if key == key::NON_MASQUERADE {
                continue;
            }
            let never = prefixes.iter().find_map(|prefix| {
                let within = not_routed(*prefix)?;
                Some((prefix, within))
            });
            if let Some((prefix, (range, what))) = never {
                return Err(refuse(
                    path,
                    key,
                    &prefix.to_string(),
                    &format!("lies in {range} ({what}), which is always left to the kernel"),
                    "take it out",
                ));
            }
        }
        Ok(())
    }
}

/// A prefix that lies in another one of the list, or is in it twice.
fn overlap(prefixes: &[Ipv4Net]) -> Option<(Ipv4Net, Ipv4Net)> {
    prefixes.iter().enumerate().find_map(|(at, outer)| {
        let mut others = prefixes.iter().enumerate();
        others
            .find(|(other, inner)| *other != at && outer.contains(*inner))
            .map(|(_, inner)| (*inner, *outer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("loader.yaml"), text)
    }

    #[test]
    fn what_is_reached_cannot_be_denied() {
        let denied = "denyCidrs: [198.51.100.0/24]";
        for key in ["vnetCidrs", "directCidrs", "serviceCidrs"] {
            for (prefix, refused) in [
                ("198.51.100.0/24", true),
                ("198.51.100.128/25", true),
                ("198.51.0.0/16", true),
                ("198.51.101.0/24", false),
            ] {
                let parsed = parse(&format!("{{{denied}, {key}: [{prefix}]}}"));
                assert_eq!(parsed.is_err(), refused, "{key}: {prefix}");
                let Err(error) = parsed else { continue };
                let error = error.to_string();
                for word in [
                    "loader.yaml",
                    "denyCidrs",
                    "`198.51.100.0/24` overlaps",
                    key,
                    prefix,
                    "take it out",
                ] {
                    assert!(error.contains(word), "{word}: {error}");
                }
            }
        }
        let private = "nonMasqueradeCIDRs: [198.51.0.0/16]";
        assert!(parse(&format!("{{{denied}, {private}}}")).is_ok());
    }

    #[test]
    fn a_pods_share_is_no_more_than_all_ports() {
        let ports = "1024-2023".parse().unwrap();
        let check = |text: &str| {
            let config = parse(text).unwrap();
            config.check_share(Path::new("loader.yaml"), ports)
        };
        for text in ["", "natPortsPerPod: 1000"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let error = check("natPortsPerPod: 1001").unwrap_err().to_string();
        for word in [
            "loader.yaml",
            "natPortsPerPod",
            "`1001`",
            "1000 of `natPorts` 1024-2023",
            "write 1000 or less",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
