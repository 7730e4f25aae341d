//! What only the loader writes besides pods: the node's settings, the hash key, the destination classes.

use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;

use abi::{Class, ClassEntry, Config, ConfigFlags, IfIndex, Ip4, MAX_CLASSES, Mac, Secret};
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use hooks::{Abi, ticks};
use ipnet::Ipv4Net;
use tracing::warn;

use crate::classes::Rule;
use crate::config::{Config as Settings, Datapath};
use crate::nic::Node;
use crate::ports::{PortRange, Shares};
use crate::registry::{Registry, RegistryError, map_error};
use crate::routes::NextHops;
use crate::transition::{Step, Table, steps};

/// The mark of fast packets between redirect and NIC egress, where only programs and `ip rule` see it.
///
/// One bit that none of these uses: kube-proxy 0xc000, portmap 0x2000, Azure NPM 0x3000, Cilium 0xf00 and the upper half,
/// Calico the upper half, the transparent modes of the original 0x3 and 0x14d.
const FAST_MARK: u32 = 0x10;

impl Registry {
    /// Writes the node's settings; generation, epoch and the table's fill are kept. Whether the map said something else.
    pub fn configure(
        &mut self,
        node: &Node,
        shares: Shares,
        settings: &Settings,
    ) -> Result<bool, RegistryError> {
        let old = self.config()?;
        let (gateway, subnet, subnet_len) = NextHops::for_programs(node.next_hops);
        let node = &node.nic;
        // Caches may be older than this map.
        let epoch = match old.epoch {
            0 => u32::from_ne_bytes(random()?),
            epoch => epoch,
        };
        let new = Config {
            nic: IfIndex::new(node.nic_ifindex),
            primary: node.primary.into(),
            nic_mac: Mac::new(node.nic_mac.0),
            mtu: u16::try_from(node.mtu).unwrap_or(u16::MAX),
            nat_first: shares.ports.first,
            nat_count: shares.ports.count(),
            nat_quota: shares.per_pod,
            subnet_len,
            fast_mark: FAST_MARK,
            flags: old
                .flags
                .set(ConfigFlags::BLOCK_WIRESERVER, settings.block_wireserver)
                .set(ConfigFlags::STACK, settings.datapath == Datapath::Stack),
            generation: old.generation,
            flows_lost: old.flows_lost,
            gateway,
            subnet,
            epoch,
            ticks: ticks().map_err(RegistryError::Clock)?,
        };
        self.ensure_secret()?;
        if new == old {
            return Ok(false);
        }
        self.write_config(new)?;
        let ports = |config: &Config| (config.nat_first, config.nat_count);
        if old.nat_count != 0 && ports(&new) != ports(&old) {
            let before = PortRange {
                first: old.nat_first,
                last: old.nat_first + (old.nat_count - 1),
            };
            warn!(%before, now = %shares.ports, "other SNAT ports: connections to the Internet that are open break");
        }
        Ok(true)
    }

    /// Whether a miss in `flows` means "stack": it counts as above its high-water mark, or flows have found no room that
    /// nobody has made up for.
    pub(crate) fn flows_full(&self) -> Result<bool, RegistryError> {
        let config = self.config()?;
        Ok(config.flags.contains(ConfigFlags::FLOWS_FULL)
            || config.flows_lost != self.flows_lost()?)
    }

    /// How many flows have found no room in `flows`, ever.
    pub(crate) fn flows_lost(&self) -> Result<u32, RegistryError> {
        self.maps
            .flows_lost
            .get(&0, 0)
            .map_err(map_error("read the count of lost flows", "flows_lost"))
    }

    /// Says whether `flows` is above its high-water mark, and if not, which lost flows have been made up for.
    pub fn set_flows_full(&mut self, full: bool, lost: u32) -> Result<(), RegistryError> {
        let old = self.config()?;
        let mut config = old;
        config.flags = old.flags.set(ConfigFlags::FLOWS_FULL, full);
        if !full {
            config.flows_lost = lost;
        }
        if config == old {
            return Ok(());
        }
        self.write_config(config)
    }

    /// Generations are handed out in turn, so that an address that is used again has another one than before.
    pub(crate) fn next_generation(&mut self) -> Result<u16, RegistryError> {
        let mut config = self.config()?;
        config.generation = config.generation.wrapping_add(1);
        self.write_config(config)?;
        let [low, high, ..] = config.generation.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    /// Makes the programs forget what they have cached: after a pod was added, a pod or a veth was removed, or classes changed.
    pub(crate) fn next_epoch(&mut self) -> Result<(), RegistryError> {
        let mut config = self.config()?;
        config.epoch = config.epoch.wrapping_add(1);
        self.write_config(config)
    }

    fn config(&self) -> Result<Config, RegistryError> {
        Ok(self
            .maps
            .config
            .get(&0, 0)
            .map_err(map_error("read the settings", "config"))?
            .0)
    }

    fn write_config(&mut self, config: Config) -> Result<(), RegistryError> {
        self.maps
            .config
            .set(0, Abi(config), 0)
            .map_err(map_error("write the settings", "config"))
    }

    /// Makes the key of the port hash, once per boot: the map outlives the loader.
    fn ensure_secret(&mut self) -> Result<(), RegistryError> {
        let old = self
            .maps
            .secret
            .get(&0, 0)
            .map_err(map_error("read the hash key", "secret"))?
            .0;
        if old.key != [0; 2] {
            return Ok(());
        }
        let secret = Secret {
            key: [u64::from_ne_bytes(random()?), u64::from_ne_bytes(random()?)],
        };
        self.maps
            .secret
            .set(0, Abi(secret), 0)
            .map_err(map_error("write the hash key", "secret"))
    }

    /// Whether `dst4` has room for what `rules` say beside what it says now.
    pub fn check_classes(&self, rules: &[Rule]) -> Result<(), RegistryError> {
        self.tables(rules).map(drop)
    }

    /// What `dst4` says now and what it shall say, if there is room for both.
    fn tables(&self, rules: &[Rule]) -> Result<(Table, Table), RegistryError> {
        let new: Table = rules.iter().map(|rule| (rule.prefix, rule.class)).collect();
        let old = self.classes()?;
        let added = new.keys().filter(|prefix| !old.contains_key(prefix));
        let most = old.len() + added.count();
        if most > MAX_CLASSES as usize {
            return Err(RegistryError::TooManyClasses { most });
        }
        Ok((old, new))
    }

    /// Makes `dst4` say what `rules` say, so that no destination has another class than before or after on the way. Whether it
    /// said something else.
    pub fn write_classes(&mut self, rules: &[Rule]) -> Result<bool, RegistryError> {
        let (old, new) = self.tables(rules)?;
        if old == new {
            return Ok(false);
        }
        let written = self.write_steps(&old, &new);
        // Even if some could not be written.
        written.and(self.next_epoch())?;
        Ok(true)
    }

    fn write_steps(&mut self, old: &Table, new: &Table) -> Result<(), RegistryError> {
        for step in steps(old, new) {
            match step {
                Step::Put(prefix, class) => {
                    let entry = Abi(ClassEntry::new(class));
                    self.maps
                        .dst4
                        .insert(&key(prefix), entry, 0)
                        .map_err(map_error("write a prefix", "dst4"))?;
                }
                Step::Remove(prefix) => self
                    .maps
                    .dst4
                    .remove(&key(prefix))
                    .map_err(map_error("remove a prefix", "dst4"))?,
            }
        }
        Ok(())
    }

    /// The class that the programs see.
    pub fn class_of(&self, addr: Ipv4Addr) -> Result<Class, RegistryError> {
        match self.maps.dst4.get(&key(addr.into()), 0) {
            Ok(entry) => Ok(entry.0.class()),
            Err(MapError::KeyNotFound) => Ok(Class::Stack),
            Err(error) => Err(map_error("look an address up", "dst4")(error)),
        }
    }

    /// What `dst4` says now.
    fn classes(&self) -> Result<Table, RegistryError> {
        let mut table = Table::new();
        for entry in &self.maps.dst4 {
            let (key, entry) = entry.map_err(map_error("list the prefixes", "dst4"))?;
            let len = u8::try_from(key.prefix_len()).unwrap_or(32).min(32);
            let prefix = Ipv4Net::new_assert(key.data().0.into(), len);
            table.insert(prefix, entry.0.class());
        }
        Ok(table)
    }
}

fn random<const N: usize>() -> Result<[u8; N], RegistryError> {
    let mut bytes = [0; N];
    let mut random = File::open("/dev/urandom").map_err(RegistryError::Random)?;
    random
        .read_exact(&mut bytes)
        .map_err(RegistryError::Random)?;
    Ok(bytes)
}

fn key(prefix: Ipv4Net) -> Key<Abi<Ip4>> {
    Key::new(
        u32::from(prefix.prefix_len()),
        Abi(Ip4::from(prefix.network())),
    )
}
