//! Chained plug-ins that nobody asks when a leaked address is freed.

use crate::{ipam, lab, soon};

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// The page's own command takes away what it says may be left.
#[test]
fn the_host_port_of_a_freed_address_is_found_and_removed_as_the_page_says() {
    let lab = lab();
    let node = lab.node(1);
    let mut pod = node.new_netns("web").unwrap();
    *pod.attachment_mut() = pod.attachment().clone().host_port(8081, 80, "tcp");
    pod.add(&node.network().unwrap()).unwrap();
    let id = pod.container_id().to_owned();
    pod.remove_netns().unwrap();
    soon("the leak is freed", || ipam(node, &["gc"]).1.len() == 1);
    let rules = || node.exec(&["iptables-save", "-t", "nat"]).unwrap();
    assert!(rules().contains(&id), "{}", rules());

    let start = PAGE.find("echo '{\"cniVersion\"").unwrap();
    let (command, _) = PAGE[start..].split_once("```").unwrap();
    node.exec(&["sh", "-ec", &command.replace("CONTAINER-ID", &id)])
        .unwrap();
    assert!(!rules().contains(&id), "{}", rules());
}
