//! All configuration files together: what is in force, and what was refused.

use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;
use rpc::{ConfigView, LOADER_CONFIG};

use crate::config::Config;
use crate::document::{ConfigError, refuse};
use crate::masq::{MASQ_DIRECTORY, Masq};
use crate::ports::{PortRange, PortUses, Shares};

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// loader.yaml.
    pub config: Config,
    /// ip-masq-agent's files.
    pub masq: Masq,
    /// Ports for eBPF SNAT.
    pub ports: PortRange,
    /// What the operator should know about the ports.
    ports_warning: Option<String>,
    /// A `nic` that waits for a restart.
    other_nic: Option<String>,
    /// Why files, as they are now, are not in force.
    rejected: Vec<String>,
}

impl Configuration {
    /// Reads all files. One that is refused refuses all: there is nothing that could stay.
    pub fn load() -> Result<Self, ConfigError> {
        let path = Path::new(LOADER_CONFIG);
        let config = Config::load(path)?;
        let (ports, ports_warning) = config.ports(path, &PortUses::read())?;
        config.check_share(path, ports)?;
        Ok(Self {
            config,
            masq: Masq::load(Path::new(MASQ_DIRECTORY))?,
            ports,
            ports_warning,
            other_nic: None,
            rejected: Vec::new(),
        })
    }

    /// What is in force after the files have changed: each of the two parts as its files say now, or as it was when they
    /// are refused. `nic` is the one that is used.
    #[must_use]
    pub fn reloaded(&self, nic: &str) -> Self {
        let mut next = self.clone();
        next.rejected.clear();
        if let Err(error) = next.take_loader_yaml(nic) {
            next.rejected.push(error.to_string());
        }
        match Masq::load(Path::new(MASQ_DIRECTORY)) {
            Ok(masq) => next.masq = masq,
            Err(error) => next.rejected.push(error.to_string()),
        }
        next
    }

    fn take_loader_yaml(&mut self, nic: &str) -> Result<(), ConfigError> {
        let path = Path::new(LOADER_CONFIG);
        let mut config = Config::load(path)?;
        let mut ports = config.ports(path, &PortUses::read())?;
        // Other ports break connections that have theirs, so they change only when somebody wants them to.
        if config.nat_ports == self.config.nat_ports {
            ports = (self.ports, self.ports_warning.clone());
        }
        config.check_share(path, ports.0)?;
        self.other_nic = None;
        if let Some(name) = &config.nic
            && name != nic
        {
            if if_nametoindex(name.as_str()).is_err() {
                let why = "is no interface of this node";
                return Err(refuse(
                    path,
                    "nic",
                    name,
                    why,
                    "write one that `ip link` shows",
                ));
            }
            self.other_nic = Some(name.clone());
        }
        if config.nic.as_deref() != Some(nic) {
            config.nic.clone_from(&self.config.nic);
        }
        (self.ports, self.ports_warning) = ports;
        self.config = config;
        Ok(())
    }

    /// This configuration, and word of another one whose prefixes cannot be taken over.
    #[must_use]
    pub fn refusing(&self, other: &Self, why: &str) -> Self {
        let path = if other.config == self.config {
            MASQ_DIRECTORY
        } else {
            LOADER_CONFIG
        };
        let lists = other.config.lists();
        let own: usize = lists.iter().map(|(_, prefixes)| prefixes.len()).sum();
        let error = refuse(
            Path::new(path),
            &lists.map(|(key, _)| key).join(", "),
            &format!("{} prefixes", own + other.masq.prefixes.len()),
            &format!("cannot be taken over: {why}"),
            "write wider ones, or change the lists in two steps",
        );
        let mut next = self.clone();
        next.rejected.clone_from(&other.rejected);
        next.rejected.push(error.to_string());
        next
    }

    /// The ports and a pod's share of them: half, unless configured, so that no pod can take all to one remote end. Never
    /// more than half of the table, so that no pod can take that.
    pub fn shares(&self) -> Shares {
        let configured = self.config.nat_ports_per_pod;
        let most = u16::try_from(self.config.sizes.bindings / 2).unwrap_or(u16::MAX);
        Shares {
            ports: self.ports,
            per_pod: configured
                .and_then(|share| u16::try_from(share).ok())
                .unwrap_or(self.ports.count() / 2)
                .min(most)
                .max(1),
        }
    }

    /// Why files, as they are now, are not in force.
    pub fn rejected(&self) -> &[String] {
        &self.rejected
    }

    /// What the operator should know.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.masq.warnings.clone();
        if let Some(nic) = &self.other_nic {
            warnings.push(format!(
                "{LOADER_CONFIG}: nic: `{nic}` takes effect with `systemctl restart azure-vnet-loader`"
            ));
        }
        warnings.extend(self.ports_warning.clone());
        warnings
    }

    /// What SNAT's ports have in common with those that the node has its own use for by now.
    pub(crate) fn clash(&self) -> Option<String> {
        if self.ports_warning.is_some() {
            return None;
        }
        let clash = PortUses::read().clash(self.ports)?;
        Some(format!(
            "SNAT ports {} overlap {clash}, by now: connections may clash; set `natPorts` in loader.yaml",
            self.ports
        ))
    }

    /// For `vnetctl status`.
    pub fn view(&self) -> ConfigView {
        let loader = Path::new(LOADER_CONFIG);
        let loader = loader.exists().then(|| loader.to_owned());
        let files: Vec<PathBuf> = loader.into_iter().chain(self.masq.files.clone()).collect();
        ConfigView {
            files,
            rejected: self.rejected.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_share_is_half_of_the_ports_unless_configured_and_at_most_half_of_the_table() {
        for (yaml, ports, expected) in [
            ("", "1024-29999", 14_488),
            ("", "1024-1024", 1),
            ("natPortsPerPod: 20000", "1024-29999", 20_000),
            ("snatMax: 2048", "1024-29999", 1024),
            ("{snatMax: 2048, natPortsPerPod: 1500}", "1024-29999", 1024),
            ("{snatMax: 2048, natPortsPerPod: 50}", "1024-29999", 50),
        ] {
            let configuration = Configuration {
                config: Config::parse(Path::new(LOADER_CONFIG), yaml).unwrap(),
                masq: Masq::default(),
                ports: ports.parse().unwrap(),
                ports_warning: None,
                other_nic: None,
                rejected: Vec::new(),
            };
            assert_eq!(configuration.shares().per_pod, expected, "{yaml}");
        }
    }
}
