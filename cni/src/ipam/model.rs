//! The allocator against a model of it: whatever is asked in whatever order, and wherever it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use rpc::{Interface, Key, MacAddr, Pools, Subnet};

use super::allocate::{Wish, plan_add, plan_del};
use super::choose::{COOL_DOWN_MS, Rest};
use super::store::{Change, Store};
use super::{Error, IpamError};

const OWNERS: u8 = 7;
/// Last numbers of the addresses that may be given.
const FREE: [u8; 5] = [5, 6, 7, 8, 9];

#[derive(Clone, Debug)]
enum Step {
    /// `wanted` by last number; `killed` after that many changes.
    Add {
        owner: u8,
        wanted: Option<u8>,
        rest: Rest,
        killed: Option<usize>,
    },
    Del {
        owner: u8,
        killed: Option<usize>,
    },
    Wait {
        ms: u64,
    },
    Reboot,
}

fn step() -> impl Strategy<Value = Step> {
    let owner = 0..OWNERS;
    let killed = || prop_oneof![3 => Just(None), 1 => (0..4_usize).prop_map(Some)];
    let rest = prop_oneof![2 => Just(Rest::Full), 1 => Just(Rest::Waived)];
    let wanted = prop_oneof![4 => Just(None), 1 => (0..11_u8).prop_map(Some)];
    prop_oneof![
        8 => (owner.clone(), wanted, rest, killed())
            .prop_map(|(owner, wanted, rest, killed)| Step::Add { owner, wanted, rest, killed }),
        6 => (owner, killed()).prop_map(|(owner, killed)| Step::Del { owner, killed }),
        3 => (0..COOL_DOWN_MS * 2).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Reboot),
    ]
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn key(owner: u8) -> Key {
    Key {
        network: "azure".into(),
        container_id: format!("c{owner}"),
        ifname: "eth0".into(),
    }
}

/// One subnet whose source lists the gateway and the primary address too.
fn pools() -> Pools {
    let secondary = [1, 4].into_iter().chain(FREE).map(ip).collect();
    Pools {
        boot_id: "any".into(),
        source: "wireserver".into(),
        read_at_ms: 0,
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: MacAddr([2; 6]),
            is_primary: true,
            subnets: vec![Subnet {
                prefix: "10.0.0.0/24".parse().unwrap(),
                primary: Some(ip(4)),
                secondary,
            }],
        }],
    }
}

/// What must be true.
#[derive(Default)]
struct Model {
    now_ms: u64,
    boot: u32,
    /// Given for sure.
    given: BTreeMap<u8, Ipv4Addr>,
    /// Owners whose last call was killed: they may have an address or not.
    unsure: BTreeSet<u8>,
    /// When an address was given back, or may have been.
    released: BTreeMap<Ipv4Addr, u64>,
}

impl Model {
    fn resting(&self) -> usize {
        self.released
            .values()
            .filter(|released| **released + COOL_DOWN_MS > self.now_ms)
            .count()
    }

    /// As far as is known: whoever is unsure may have one.
    fn may_be_exhausted(&self, rest: Rest) -> bool {
        let resting = match rest {
            Rest::Full => self.resting(),
            Rest::Waived => 0,
        };
        self.given.len() + self.unsure.len() + resting >= FREE.len()
    }

    fn was_given(&mut self, owner: u8, address: Ipv4Addr, insisted: bool, rest: Rest) {
        assert!(FREE.map(ip).contains(&address), "{address} is nobody's");
        let others = self.given.iter().filter(|(other, _)| **other != owner);
        assert!(
            others
                .map(|(_, taken)| *taken)
                .all(|taken| taken != address),
            "{address} was given to two"
        );
        if let Some(had) = self.given.get(&owner) {
            assert_eq!(*had, address, "the same owner got another address");
        } else if !insisted && !self.unsure.contains(&owner) {
            let released = self.released.get(&address);
            let has_rested = released.is_none_or(|released| released + COOL_DOWN_MS <= self.now_ms);
            let is_last = rest == Rest::Waived && self.may_be_exhausted(Rest::Full);
            assert!(has_rested || is_last, "{address} had no rest");
        }
        self.unsure.remove(&owner);
        self.given.insert(owner, address);
    }

    fn was_refused(&self, owner: u8, wanted: Option<u8>, rest: Rest, error: &Error) {
        let Error::Ipam(error) = error else {
            panic!("{error}");
        };
        match error {
            IpamError::Exhausted(_) => {
                assert!(self.may_be_exhausted(rest), "an address was lost");
                assert!(!self.given.contains_key(&owner), "the owner had one");
            }
            IpamError::NotFound { address } => {
                assert!(!FREE.map(ip).contains(address));
            }
            IpamError::InUse { address } => {
                assert_eq!(wanted.map(ip), Some(*address));
                assert!(
                    self.given.values().any(|taken| taken == address) || !self.unsure.is_empty()
                );
            }
            IpamError::HasAnother { .. } => {
                assert!(self.given.contains_key(&owner) || self.unsure.contains(&owner));
            }
            IpamError::StillExhausted { .. }
            | IpamError::ExhaustedLately { .. }
            | IpamError::File { .. }
            | IpamError::TakeOver { .. }
            | IpamError::NoPools { .. }
            | IpamError::NoSuchSubnet { .. }
            | IpamError::NoSuchMaster { .. }
            | IpamError::NoLease { .. }
            | IpamError::NotInResult { .. } => panic!("{error}"),
        }
    }
}

/// Does as much as is done before the process is killed. `false`: it was.
fn apply(store: &Store, changes: &[Change], killed: Option<usize>) -> bool {
    let until = killed.unwrap_or(changes.len());
    for change in changes.iter().take(until) {
        store.apply(change).unwrap();
    }
    until >= changes.len() && killed.is_none()
}

fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let open = |boot: u32| Store::open(directory.path(), &format!("boot-{boot}")).unwrap();
    let pools = pools();
    let mut model = Model::default();
    for step in steps {
        let store = open(model.boot);
        match step {
            Step::Wait { ms } => model.now_ms += ms,
            Step::Reboot => {
                model = Model {
                    boot: model.boot + 1,
                    ..Model::default()
                };
            }
            Step::Add {
                owner,
                wanted,
                rest,
                killed,
            } => {
                let wish = Wish {
                    key: key(owner),
                    address: wanted.map(ip),
                    subnet: None,
                    master: None,
                    netns: String::new(),
                    plugin: String::new(),
                };
                match plan_add(&store, &wish, Some(&pools), rest, model.now_ms) {
                    Err(error) => model.was_refused(owner, wanted, rest, &error),
                    Ok(planned) => {
                        let (lease, changes) = planned.unwrap();
                        if apply(&store, &changes, killed) {
                            model.was_given(owner, lease.ip, wanted.is_some(), rest);
                        } else if !model.given.contains_key(&owner) {
                            model.unsure.insert(owner);
                        }
                    }
                }
            }
            Step::Del { owner, killed } => {
                let changes = plan_del(&store, &key(owner), None, model.now_ms).unwrap();
                // What it may have, if it is unsure, only the plan tells.
                let planned = changes.iter().find_map(|change| match change {
                    Change::Mark(address, _) => Some(*address),
                    Change::WriteOwner(_)
                    | Change::WriteLease(_)
                    | Change::Unmark(_)
                    | Change::RemoveLease(_)
                    | Change::RemoveOwner(_) => None,
                });
                if let Some(address) = model.given.get(&owner).copied().or(planned) {
                    model.released.insert(address, model.now_ms);
                }
                if apply(&store, &changes, killed) {
                    model.unsure.remove(&owner);
                } else {
                    model.unsure.insert(owner);
                }
                model.given.remove(&owner);
            }
        }
    }
    everything_comes_back(&open(model.boot), &pools, model.now_ms);
}

/// After a DEL of everybody, nothing is left, and after a rest every address can be had once more, each once.
fn everything_comes_back(store: &Store, pools: &Pools, now_ms: u64) {
    for owner in 0..OWNERS {
        let changes = plan_del(store, &key(owner), None, now_ms).unwrap();
        apply(store, &changes, None);
        assert_eq!(store.lease_of(&key(owner)).unwrap(), None);
    }
    assert!(store.ledger().unwrap().leased.is_empty());
    let mut given = BTreeSet::new();
    for owner in 0..OWNERS {
        let wish = Wish {
            key: key(owner),
            address: None,
            subnet: None,
            master: None,
            netns: String::new(),
            plugin: String::new(),
        };
        if let Ok(planned) = plan_add(store, &wish, Some(pools), Rest::Full, now_ms + COOL_DOWN_MS)
        {
            let (lease, changes) = planned.unwrap();
            apply(store, &changes, None);
            given.insert(lease.ip);
        }
    }
    assert_eq!(given, BTreeSet::from(FREE.map(ip)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_lost_or_given_to_two(steps in prop::collection::vec(step(), 1..60)) {
        run(steps);
    }
}
