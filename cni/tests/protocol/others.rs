//! Beside plug-ins of others: the reference ones, as Debian packages them, above, below and after ours.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::exec::{Exec, bin, netconf_with};
use crate::full::node;
use crate::loader::Manner;
use crate::sandbox::Sandbox;

const REFERENCE: &str = "/usr/lib/cni";
const ALL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn both() -> String {
    format!("{}:{REFERENCE}", bin())
}

fn reference(name: &str, verb: &str, conf: &Value) -> Exec {
    Exec::new(&format!("{REFERENCE}/{name}"), verb)
        .env("CNI_PATH", both())
        .env("PATH", ALL_PATH)
        .conf(conf)
}

/// What a reference plug-in prints, which ends in no newline.
fn printed(exec: Exec) -> Value {
    let answer = exec.run();
    assert!(answer.status.success(), "{answer}");
    serde_json::from_str(&answer.stdout).unwrap()
}

fn azure(sandbox: &Sandbox, verb: &str, conf: &Value) -> Exec {
    sandbox.azure_vnet(verb).env("CNI_PATH", both()).conf(conf)
}

/// The addresses that host-local has given for the network `azure`.
fn given(data_dir: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(Path::new(data_dir).join("azure")).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("10.")
        })
        .collect()
}

fn host_local(data_dir: &str, subnet: &str) -> Value {
    netconf_with(json!({
        "cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": data_dir},
    }))
}

/// F77: keys of `ipam` that Azure's own plug-in would lose.
#[test]
fn host_local_and_static_give_addresses_below_azure_vnet() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let statics = netconf_with(json!({
        "cniVersion": "1.0.0",
        "ipam": {"type": "static", "addresses": [{"address": "10.240.9.9/24", "gateway": "10.240.9.1"}],
                 "dns": {"nameservers": ["10.0.0.10"]}},
    }));
    for (mut conf, address, gateway) in [
        (
            host_local("/run/hl", "10.240.7.0/24"),
            "10.240.7.2/24",
            "10.240.7.1",
        ),
        (statics, "10.240.9.9/24", "10.240.9.1"),
    ] {
        let result = azure(&sandbox, "ADD", &conf).run().document();
        assert_eq!(result["ips"][0]["address"], address);
        assert_eq!(result["ips"][0]["gateway"], gateway);
        assert!(sandbox.ip_in_pod("-br addr show eth0").contains(address));
        // A repeated ADD does not ask host-local, which would refuse.
        assert_eq!(azure(&sandbox, "ADD", &conf).run().document(), result);
        conf["prevResult"] = result;
        azure(&sandbox, "CHECK", &conf).run().silence();
        azure(&sandbox, "DEL", &conf).run().silence();
        assert_eq!(sandbox.snapshot(), before);
    }
    assert!(given("/run/hl").is_empty());
}

/// Row 70: the address is where it was taken from, whatever the file says by now.
#[test]
fn del_after_a_change_of_ipams_keys_frees_what_add_took() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let then = host_local("/run/then", "10.240.7.0/24");
    for now in [
        host_local("/run/now", "10.240.8.0/24"),
        netconf_with(json!({"ipam": {"type": "azure-vnet-ipam"}})),
        netconf_with(json!({"ipam": {"type": "host-local"}})),
        netconf_with(json!({"ipam": {"type": "azure-cns"}, "mode": "transparent"})),
    ] {
        azure(&sandbox, "ADD", &then).run().document();
        assert_eq!(given("/run/then").len(), 1);
        azure(&sandbox, "DEL", &now).run().silence();
        assert!(given("/run/then").is_empty(), "{now}");
    }
}

/// F76.
#[test]
fn azure_vnet_ipam_gives_addresses_below_bridge_and_ptp() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    for (round, mut conf) in [
        json!({"type": "bridge", "bridge": "cni0", "isGateway": true}),
        json!({"type": "ptp"}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = conf["type"].as_str().unwrap().to_owned();
        conf["cniVersion"] = "1.0.0".into();
        conf["name"] = "azure".into();
        conf["ipam"] = json!({"type": "azure-vnet-ipam"});
        let result = printed(reference(&name, "ADD", &conf));
        let address = format!("10.240.0.{}/16", 5 + round);
        assert_eq!(result["ips"][0]["address"], address);
        assert!(sandbox.ip_in_pod("-br addr show eth0").contains(&address));
        let default = sandbox.ip_in_pod("route show default");
        assert!(default.contains("via 10.240.0.1 dev eth0"), "{default}");
        conf["prevResult"] = result;
        reference(&name, "CHECK", &conf).run().silence();
        reference(&name, "DEL", &conf).run().silence();
        assert_eq!(
            fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count(),
            0
        );
    }
}

/// ADD and DEL of a reference plug-in right after ours, with our result as its `prevResult`.
fn chain(name: &str, keys: &Value) {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.ip("link set lo up");
    let has_oldest = name != "firewall";
    for version in ["0.3.0", "0.4.0", "1.0.0"]
        .iter()
        .skip((!has_oldest).into())
    {
        let ours = netconf_with(json!({"cniVersion": version}));
        let result = sandbox.azure_vnet("ADD").conf(&ours).run().document();
        let mut conf =
            json!({"cniVersion": version, "name": "azure", "type": name, "prevResult": result});
        let fields = conf.as_object_mut().unwrap();
        fields.extend(keys.as_object().unwrap().clone());
        let passed_on = printed(reference(name, "ADD", &conf));
        assert_eq!(passed_on["ips"], result["ips"], "{name} {version}");
        // CRI-O asks at once; what came after us may have changed the pod.
        if *version != "0.3.0" {
            let asked = netconf_with(json!({"cniVersion": version, "prevResult": passed_on}));
            sandbox.azure_vnet("CHECK").conf(&asked).run().silence();
        }
        reference(name, "DEL", &conf).run().silence();
        sandbox.azure_vnet("DEL").conf(&ours).run().silence();
    }
}

/// Row 61, in the versions that they and we speak.
#[test]
fn reference_plugins_after_azure_vnet_take_our_result() {
    let mappings = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    for (name, keys) in [
        (
            "portmap",
            json!({"runtimeConfig": {"portMappings": mappings}, "snat": true}),
        ),
        (
            "tuning",
            json!({"mtu": 1300, "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}),
        ),
        ("firewall", json!({"backend": "iptables"})),
        // Its other direction wants the place of the programs' qdisc.
        (
            "bandwidth",
            json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000}),
        ),
    ] {
        chain(name, &keys);
    }
}

/// Row 61: `sbr` wants the result's gateway to be on the pod's link, but Azure's is the subnet's, and the way 169.254.1.1.
/// Were it there, `sbr` would move the routes into a table for the pod's own address, as it is meant for a second interface.
#[test]
fn sbr_after_azure_vnet_fails_and_would_take_the_only_default_route() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.ip("link set lo up");
    let before = sandbox.snapshot();
    let ours = netconf_with(json!({"cniVersion": "1.0.0"}));
    for gateway_is_on_link in [false, true] {
        let result = azure(&sandbox, "ADD", &ours).run().document();
        let conf =
            json!({"cniVersion": "1.0.0", "name": "azure", "type": "sbr", "prevResult": result});
        if gateway_is_on_link {
            sandbox.ip_in_pod("route add 10.240.0.1 dev eth0");
            let passed_on = printed(reference("sbr", "ADD", &conf));
            assert_eq!(sandbox.ip_in_pod("route show default"), "");
            let asked = netconf_with(json!({"cniVersion": "1.0.0", "prevResult": passed_on}));
            azure(&sandbox, "CHECK", &asked)
                .run()
                .error_saying(105, &["default route"]);
        } else {
            let failed = reference("sbr", "ADD", &conf).run();
            assert!(!failed.status.success());
            let why = "Failed to add default route to 10.240.0.1: network is unreachable";
            assert!(failed.stdout.contains(why), "{failed}");
        }
        reference("sbr", "DEL", &conf).run().silence();
        azure(&sandbox, "DEL", &ours).run().silence();
        assert_eq!(sandbox.snapshot(), before);
    }
}
