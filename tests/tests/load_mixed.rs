//! A node where pods come, are looked at and go without end, sixteen calls at once: no error, no address twice, nothing left.
#![cfg(test)]

use std::collections::BTreeMap;
use std::env;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use lab::libcni::{Attachment, Network};
use lab::{Deadline, Lab, Node, Pod, at_once, eventually};
use serde_json::Value;

const WORKERS: usize = 16;
/// Namespaces of each worker.
const PLACES: usize = 4;
/// Ours alone: how many the chained portmap bears at once is not the question.
const CONFLIST: &[u8] = br#"{"cniVersion": "1.0.0", "name": "azure", "plugins": [
    {"type": "azure-vnet", "mode": "transparent", "ipam": {"type": "azure-vnet-ipam"}}]}"#;

/// Those who are called, and what for.
struct Scene<'a> {
    node: &'a Node,
    network: Network,
    /// The addresses of all pods that live, and whose they are.
    living: Mutex<BTreeMap<Ipv4Addr, String>>,
}

/// A namespace, and the pod in it while there is one.
struct Place {
    attachment: Attachment,
    result: Option<Value>,
}

/// How often each verb was called.
#[derive(Default)]
struct Count {
    add: usize,
    check: usize,
    del: usize,
}

impl Scene<'_> {
    /// Calls until `end`, then DEL of what lives: ADD into an empty namespace, CHECK or DEL of the pod in another.
    fn work(&self, pods: &[Pod], end: Deadline) -> Count {
        let mut places: Vec<Place> = pods.iter().map(Place::of).collect();
        let (mut rng, mut count) = (Rng::new(), Count::default());
        while !end.passed() {
            let place = rng.choice(&mut places).unwrap();
            match &place.result {
                None => self.add(place, &mut count),
                Some(result) if rng.bool() => {
                    let checked = self.network.check(self.node, &place.attachment, result);
                    checked.unwrap_or_else(|error| panic!("CHECK of {result}: {error:#}"));
                    count.check += 1;
                }
                Some(_) => self.del(place, &mut count),
            }
        }
        for place in &mut places {
            self.del(place, &mut count);
        }
        count
    }

    /// Each time another container.
    fn add(&self, place: &mut Place, count: &mut Count) {
        let id = &mut place.attachment.container_id;
        let stem = id.split('.').next().unwrap_or_default();
        *id = format!("{stem}.{}", count.add);
        let added = self.network.add(self.node, &place.attachment);
        let result = added.unwrap_or_else(|error| panic!("ADD: {error:#}"));
        let id = place.attachment.container_id.clone();
        let other = self.living.lock().unwrap().insert(address(&result), id);
        assert_eq!(other, None, "whose address ADD gave once more: {result}");
        place.result = Some(result);
        count.add += 1;
    }

    fn del(&self, place: &mut Place, count: &mut Count) {
        let Some(result) = place.result.take() else {
            return;
        };
        // Once DEL runs, the address may be another pod's.
        self.living.lock().unwrap().remove(&address(&result));
        let deleted = self
            .network
            .del(self.node, &place.attachment, Some(&result));
        deleted.unwrap_or_else(|error| panic!("DEL of {result}: {error:#}"));
        count.del += 1;
    }
}

impl Place {
    fn of(pod: &Pod) -> Self {
        Self {
            attachment: pod.attachment().clone(),
            result: None,
        }
    }
}

fn address(result: &Value) -> Ipv4Addr {
    let text = result["ips"][0]["address"].as_str().unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

fn sixteen_call_for(time: Duration) {
    let lab = Lab::new().nodes(1).secondaries(1000).record(false);
    let lab = lab.build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let pods: Vec<Pod> = (0..WORKERS * PLACES)
        .map(|number| node.new_netns(&format!("pod{number}")).unwrap())
        .collect();
    let scene = Scene {
        node,
        network: Network::parse(CONFLIST).unwrap(),
        living: Mutex::default(),
    };
    // What the first pod makes the loader open stays open.
    scene.work(&pods[..1], Deadline::after(Duration::from_millis(200)));
    let before = node.snapshot().unwrap();
    let descriptors = node.loader().descriptors().unwrap();

    let end = Deadline::after(time);
    let shares: Vec<&[Pod]> = pods.chunks(PLACES).collect();
    let (counts, took) = at_once(&shares, |pods| scene.work(pods, end));
    let sum = |of: fn(&Count) -> usize| counts.iter().map(of).sum::<usize>();
    let [adds, checks, dels] = [
        sum(|count| count.add),
        sum(|count| count.check),
        sum(|count| count.del),
    ];
    println!(
        "{WORKERS} at once for {took:.0?}: {adds} ADDs, {checks} CHECKs, {dels} DELs, 0 errors, no address twice"
    );
    assert_eq!(adds, dels);
    assert!(
        adds > WORKERS && checks > WORKERS,
        "too slow to show anything"
    );
    assert_eq!(*scene.living.lock().unwrap(), BTreeMap::new());

    // The threads that wait for the kernel to remove the last links end after their DELs.
    let open = || Some(node.loader().descriptors().unwrap()).filter(|now| *now <= descriptors);
    eventually(Duration::from_secs(10), open).expect("as many descriptors of the loader as before");
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}

#[test]
fn sixteen_at_once_add_check_and_delete_for_five_seconds() {
    sixteen_call_for(Duration::from_secs(5));
}

/// `LAB_SECONDS` asks for another time.
#[test]
#[ignore = "slow: ten minutes; cargo xtask test load"]
fn sixteen_at_once_add_check_and_delete_for_ten_minutes() {
    let asked = env::var("LAB_SECONDS").map(|seconds| seconds.parse().unwrap());
    sixteen_call_for(Duration::from_secs(asked.unwrap_or(600)));
}
