//! What only the loader writes besides pods: the node's settings, the hash key, the destination classes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

use abi::{ClassEntry, Config, ConfigFlags, IfIndex, Ip4, Mac, Secret};
use aya::maps::lpm_trie::Key;
use hooks::Abi;
use rpc::NodeView;

use crate::classes::Rule;
use crate::config::PortRange;
use crate::registry::{Registry, RegistryError, map_error};

/// The mark of fast packets between redirect and NIC egress, where only programs and `ip rule` see it.
///
/// One bit that none of these uses: kube-proxy 0xc000, portmap 0x2000, Azure NPM 0x3000, Cilium 0xf00 and the upper half,
/// Calico the upper half, the transparent modes of the original 0x3 and 0x14d.
const FAST_MARK: u32 = 0x10;

impl Registry {
    /// Writes the node's settings; the generation and the table's fill are kept.
    pub fn configure(
        &mut self,
        node: &NodeView,
        ports: PortRange,
        block: bool,
    ) -> Result<(), RegistryError> {
        let old = self.config()?;
        self.write_config(Config {
            nic: IfIndex::new(node.nic_ifindex),
            primary: node.primary.into(),
            nic_mac: Mac::new(node.nic_mac.0),
            mtu: u16::try_from(node.mtu).unwrap_or(u16::MAX),
            nat_first: ports.first,
            nat_count: ports.count(),
            nat_quota: ports.count() / 2,
            reserved: 0,
            fast_mark: FAST_MARK,
            flags: old.flags.set(ConfigFlags::BLOCK_WIRESERVER, block),
            generation: old.generation,
            flows_lost: old.flows_lost,
        })?;
        self.ensure_secret()
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
        let mut bytes = [[0; 8]; 2];
        let mut random = File::open("/dev/urandom").map_err(RegistryError::Random)?;
        for word in &mut bytes {
            random.read_exact(word).map_err(RegistryError::Random)?;
        }
        let secret = Secret {
            key: bytes.map(u64::from_ne_bytes),
        };
        self.maps
            .secret
            .set(0, Abi(secret), 0)
            .map_err(map_error("write the hash key", "secret"))
    }

    /// Makes `dst4` say what `rules` say. New prefixes go in before old ones go out, so that no destination is ever
    /// without its class.
    pub fn write_classes(&mut self, rules: &[Rule]) -> Result<(), RegistryError> {
        let mut wanted = BTreeSet::new();
        for rule in rules {
            let addr = Ip4::from(rule.prefix.network());
            let len = u32::from(rule.prefix.prefix_len());
            wanted.insert((len, addr));
            let (key, entry) = (Key::new(len, Abi(addr)), Abi(ClassEntry::new(rule.class)));
            self.maps
                .dst4
                .insert(&key, entry, 0)
                .map_err(map_error("write a prefix", "dst4"))?;
        }
        let keys: Result<Vec<_>, _> = self.maps.dst4.keys().collect();
        for key in keys.map_err(map_error("list the prefixes", "dst4"))? {
            if !wanted.contains(&(key.prefix_len(), key.data().0)) {
                self.maps
                    .dst4
                    .remove(&key)
                    .map_err(map_error("remove a prefix", "dst4"))?;
            }
        }
        Ok(())
    }
}
