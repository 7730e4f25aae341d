//! Names that we make, out of an attachment's key.

use rpc::{Key, MacAddr};
use sha1::{Digest as _, Sha1};

use netconf::{Args, Mode};

/// The names that the host veth may have, best first (reference `azure-vnet.md` §1.5).
///
/// In mode `transparent` the name tells the pod, which Calico relies on. While another attachment has that name, such as a
/// second interface of the same pod or an old sandbox that is not yet deleted, the name that tells the attachment serves. So
/// it does for one of a runtime that does not say which pod it is: a container may be called like a pod.
pub(crate) fn host_veths(mode: Mode, key: &Key, args: &Args) -> Vec<String> {
    let own = veth(&format!(
        "{}{}{}",
        key.network, key.container_id, key.ifname
    ));
    match mode {
        Mode::Transparent if args.require_pod().is_ok() => {
            let pod = format!("{}.{}", args.pod_namespace, args.pod_name);
            vec![veth(&pod), own]
        }
        Mode::Transparent | Mode::Bridge | Mode::Tunnel | Mode::TransparentTunnel => vec![own],
    }
}

/// The fixed Ethernet addresses of the host veth and of the pod's interface: locally administered, derived from the key.
///
/// An address that is set at creation is left alone by udev, and tells the veth of this attachment from any other.
pub(crate) fn macs(key: &Key) -> (MacAddr, MacAddr) {
    let name = key.file_name();
    (mac(&format!("host {name}")), mac(&format!("pod {name}")))
}

/// Whether an interface is called as we call pods'.
pub(crate) fn is_host_veth(name: &str) -> bool {
    name.starts_with(PREFIX)
}

const PREFIX: &str = "azv";

fn veth(seed: &str) -> String {
    let mut name = String::from(PREFIX);
    name.extend(hex(&digest(seed)).chars().take(11));
    name
}

fn mac(seed: &str) -> MacAddr {
    let mut octets = [0; 6];
    for (octet, byte) in octets.iter_mut().zip(digest(seed)) {
        *octet = byte;
    }
    octets[0] = (octets[0] & !0x01) | 0x02;
    MacAddr(octets)
}

fn digest(text: &str) -> [u8; 20] {
    Sha1::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(network: &str, container_id: &str, ifname: &str) -> Key {
        Key {
            network: network.into(),
            container_id: container_id.into(),
            ifname: ifname.into(),
        }
    }

    fn args(text: &str) -> Args {
        Args::parse(text).unwrap()
    }

    #[test]
    fn transparent_hashes_the_pod_as_azure_and_calico_do() {
        let names = host_veths(
            Mode::Transparent,
            &key("azure", "c1", "eth0"),
            &args("K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=metrics-server-77c8679d7d-6ksdh"),
        );
        assert_eq!(names.first().unwrap(), "azvd805fb1b0f8");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn other_modes_hash_the_attachment() {
        let pod = args("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod");
        for mode in [Mode::Bridge, Mode::Tunnel, Mode::TransparentTunnel] {
            let names = host_veths(mode, &key("azure", "c1", "eth0"), &pod);
            // printf azurec1eth0 | sha1sum
            assert_eq!(names, ["azvf251a0acaf4"]);
        }
    }

    #[test]
    fn who_does_not_say_which_pod_it_is_gets_no_pods_name() {
        for text in ["", "K8S_POD_NAME=web", "K8S_POD_NAMESPACE=default"] {
            let names = host_veths(Mode::Transparent, &key("azure", "c1", "eth0"), &args(text));
            assert_eq!(names, ["azvf251a0acaf4"], "{text}");
        }
    }

    proptest! {
        #[test]
        fn different_keys_have_different_file_names_that_the_file_system_takes(
            a in ("[a-z.]{1,3}", "[a-z.]{1,300}", "[a-z.]{1,3}"),
            b in ("[a-z.]{1,3}", "[a-z.]{1,300}", "[a-z.]{1,3}"),
        ) {
            let [one, two] = [&a, &b].map(|(n, c, i)| key(n, c, i));
            prop_assert_eq!(one == two, one.file_name() == two.file_name());
            prop_assert!(one.file_name().len() <= 200);
            let read_off = Key::of_file_name(&one.file_name());
            prop_assert!(read_off.is_none_or(|read_off| read_off == one));
        }

        #[test]
        fn macs_are_unicast_and_locally_administered(id in "[a-z]{1,9}") {
            let (MacAddr(host), MacAddr(pod)) = macs(&key("azure", &id, "eth0"));
            prop_assert_ne!(host, pod);
            for [first, ..] in [host, pod] {
                prop_assert_eq!(first & 0x03, 0x02);
            }
        }
    }
}
