//! What may come on standard input, and what not.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};

use crate::exec::{AZURE_VNET, AZURE_VNET_IPAM, BOTH, Exec, netconf, netconf_with};
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Row 29.
#[test]
fn what_is_no_json_object_is_code_6_for_every_verb() {
    let sandbox = Sandbox::with_pod();
    let whole = netconf().to_string();
    let mut broken: Vec<Vec<u8>> = [
        b"".as_slice(),
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"\xef\xbb\xbf{}",
        b"{\"name\":\"\xff\"}",
        b"\0\0",
        b"{} {}",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    broken.extend(
        (1..whole.len())
            .step_by(7)
            .map(|end| whole.as_bytes()[..end].to_vec()),
    );
    let before = sandbox.snapshot();
    for end in 1..whole.len() {
        let cut = &whole.as_bytes()[..end];
        sandbox.azure_vnet("ADD").stdin(cut).run().error(6);
    }
    for program in BOTH {
        for verb in ["ADD", "DEL", "CHECK"] {
            for stdin in &broken {
                Exec::new(program, verb).stdin(stdin).run().error(6);
            }
        }
    }
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 36: so much may a plug-in map at most, its program and its stacks included.
const ROOM: u64 = 64 << 20;

/// Row 36.
#[test]
fn huge_and_deep_input_is_bounded() {
    let sandbox = Sandbox::with_pod();
    let long = vec![b' '; 64 << 20];
    let deep = "[".repeat(100_000).into_bytes();
    let many = format!("{{\"cniVersion\":9,\"a\":[{}0]}}", "0,".repeat(1_000_000)).into_bytes();
    for stdin in [long, deep, many] {
        for program in BOTH {
            let mut exec = Exec::new(program, "ADD").stdin(&stdin);
            confine(&mut exec.command);
            let answer = exec.run();
            answer.error(6);
            assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
        }
    }
    let large = netconf_with(json!({"comment": "x".repeat(1 << 20)}));
    sandbox.azure_vnet("ADD").conf(&large).run().error(11);
}

/// Row 36: a pipe that is full again whenever something was read from it, and never closed.
#[test]
fn input_without_an_end_is_not_waited_for() {
    let _sandbox = Sandbox::with_pod();
    for program in BOTH {
        for verb in ["ADD", "DEL", "CHECK"] {
            let mut endless = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
            let mut exec = Exec::new(program, verb);
            confine(&mut exec.command);
            let pipe = endless.stdout.take().unwrap();
            let started = Instant::now();
            let output = exec.command.stdin(pipe).output().unwrap();
            let took = started.elapsed();
            drop(exec);
            let fed = endless.wait().unwrap();
            assert_eq!(fed.signal(), Some(libc::SIGPIPE), "who fed it was cut off");
            assert_eq!(output.status.code(), Some(1));
            let object: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(object["code"], 6, "{object}");
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }
}

fn confine(command: &mut Command) {
    // SAFETY: only a system call between fork and exec.
    unsafe { command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_AS, ROOM, ROOM)?)) };
}

/// Rows 30 and 31.
#[test]
fn a_wrong_name_or_version_is_named() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    for (changes, code, words) in [
        (json!({"name": null}), 7, ["name", "missing"]),
        (json!({"name": ""}), 7, ["name", "missing"]),
        (json!({"name": "../x"}), 7, ["name", "../x"]),
        (json!({"name": 5}), 7, ["name", "5"]),
        (json!({"cniVersion": "9.9.9"}), 1, ["9.9.9", "0.1.0, 0.2.0"]),
        (json!({"cniVersion": "abc"}), 1, ["abc", "plugin supports"]),
        (json!({"cniVersion": "1"}), 1, ["config is [1]", "1.1.0"]),
        (
            json!({"cniVersion": "1.0.0-rc1"}),
            1,
            ["1.0.0-rc1", "supports"],
        ),
        (json!({"cniVersion": 1}), 6, ["cniVersion", "string"]),
    ] {
        sandbox
            .azure_vnet("ADD")
            .conf(&netconf_with(changes))
            .run()
            .error_saying(code, &words);
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(loader.requests().is_empty());
}

/// Rows 37 and 38, and what only Azure's own plug-in does: one clear error, nothing executed.
#[test]
fn a_wrong_value_of_ours_is_named_with_its_key() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    let ipam = |key: &str, value: Value| json!({"ipam": {"type": "azure-vnet-ipam", key: value}});
    for (changes, code, words) in [
        (json!({"mode": "l2bridge"}), 7, ["mode", "l2bridge"]),
        (json!({"mode": ["bridge"]}), 7, ["mode", "string"]),
        (json!({"bridge": "$(x)"}), 7, ["bridge", "$(x)"]),
        (json!({"master": 5}), 7, ["master", "5"]),
        (
            json!({"enableSnatOnHost": "yes"}),
            7,
            ["enableSnatOnHost", "yes"],
        ),
        (
            json!({"ipsToRouteViaHost": "1.1.1.1"}),
            7,
            ["ipsToRouteViaHost", "list"],
        ),
        (json!({"ipam": null}), 7, ["ipam.type", "missing"]),
        (json!({"ipam": []}), 7, ["ipam", "object"]),
        (
            ipam("type", "../../bin/true".into()),
            7,
            ["ipam.type", "../../bin/true"],
        ),
        (
            ipam("type", "/bin/true".into()),
            7,
            ["ipam.type", "/bin/true"],
        ),
        (ipam("type", "".into()), 7, ["ipam.type", "file name"]),
        (ipam("type", ".".into()), 7, ["ipam.type", "file name"]),
        (
            ipam("type", "azure-cns".into()),
            2,
            ["ipam.type", "azure-cns"],
        ),
        (
            ipam("environment", "null".into()),
            2,
            ["ipam.environment", "null"],
        ),
        (
            ipam("environment", "ipv6NodeIpam".into()),
            2,
            ["ipam.environment", "ipv6NodeIpam"],
        ),
        (
            ipam("environment", "moon".into()),
            2,
            ["ipam.environment=`moon`", "Invalid configuration"],
        ),
        (
            ipam("subnet", "10.0.0.0/99".into()),
            7,
            ["ipam.subnet", "10.0.0.0/99"],
        ),
        (ipam("ipAddress", "x".into()), 7, ["ipam.ipAddress", "x"]),
        (
            ipam("queryInterval", 10.into()),
            7,
            ["ipam.queryInterval", "string"],
        ),
        (json!({"multiTenancy": true}), 2, ["multiTenancy", "true"]),
        (
            json!({"mode": "transparent-vlan"}),
            2,
            ["mode", "transparent-vlan"],
        ),
        (
            json!({"executionMode": "baremetal"}),
            2,
            ["executionMode", "baremetal"],
        ),
        (
            json!({"runtimeConfig": {"mac": "01:00:00:00:00:00"}}),
            7,
            ["runtimeConfig.mac", "unicast"],
        ),
        (
            json!({"runtimeConfig": {"ips": [5]}}),
            7,
            ["runtimeConfig.ips", "list"],
        ),
    ] {
        sandbox
            .azure_vnet("ADD")
            .conf(&netconf_with(changes))
            .run()
            .error_saying(code, &words);
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(loader.requests().is_empty());
}

/// Row 40, and a place in a chain that would cost the plug-in before its interfaces.
#[test]
fn a_previous_result_must_be_one_and_have_no_interfaces() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    for (changes, code, words) in [
        (
            json!({"prevResult": {"ips": 5}}),
            7,
            ["prevResult", "invalid type"],
        ),
        (
            json!({"prevResult": {"ips": [{"address": "x"}]}}),
            7,
            ["prevResult", "x"],
        ),
        (
            json!({"prevResult": {"interfaces": [{"name": "net0"}], "ips": []}}),
            7,
            ["(net0)", "put azure-vnet first"],
        ),
    ] {
        sandbox
            .azure_vnet("ADD")
            .conf(&netconf_with(changes))
            .run()
            .error_saying(code, &words);
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(loader.requests().is_empty());

    // Under another main plug-in, that is its business.
    sandbox.cache_pools(&[5]);
    let chained = netconf_with(json!({"prevResult": {"interfaces": [{"name": "net0"}]}}));
    sandbox.ipam("ADD").conf(&chained).run().document();
}

/// Rows 32 to 35, and every key of Azure's own configuration.
#[test]
fn what_is_unknown_or_spelt_otherwise_is_fine() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let azure = json!({
        "adapterName": "", "logLevel": "info", "logTarget": "stderr", "infraVnetAddressSpace": "", "ipv6Mode": "",
        "serviceCidrs": "10.0.0.0/16", "vnetCidrs": "", "podNamespaceForDualNetwork": [], "ipsToRouteViaHost": ["169.254.20.10"],
        "multiTenancy": false, "enableSnatOnHost": false, "enableExactMatchForPodName": true,
        "disableHairpinOnHostInterface": false, "disableIPTableLock": true, "disableAsyncDelete": false,
        "cnsurl": "http://localhost:10090", "executionMode": "default", "env": "", "windowsSettings": {"enableLoopbackDSR": true},
        "AdditionalArgs": [{"name": "x", "value": {}}], "dns": {"nameservers": []}, "capabilities": {"portMappings": true},
        "args": {"cni": {}}, "cni.dev/x": 1, "unknown": {"deep": [1, {}]},
        "runtimeConfig": {
            "portMappings": [{"HostPort": 18001, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
            "dns": {"Servers": ["10.0.0.10"], "Searches": [], "Options": ["ndots:5"]},
        },
        "ipam": {"type": "azure-vnet-ipam", "mode": "", "environment": "azure", "addressSpace": "local", "queryInterval": "10",
                 "subnet": "", "ipAddress": ""},
    });
    let shouted = netconf()
        .to_string()
        .replace("\"name\"", "\"NAME\"")
        .replace("cniVersion", "CNIVERSION")
        .replace("ipam\":", "Ipam\":");
    // Of two keys the last counts, as in Go: the first of these would be refused.
    let doubled = netconf()
        .to_string()
        .replacen("{\"bridge\"", "{\"name\":\"../x\",\"bridge\"", 1);
    for conf in [netconf_with(azure).to_string(), shouted, doubled] {
        sandbox
            .azure_vnet("ADD")
            .stdin(conf.as_bytes())
            .run()
            .error_saying(11, &["loader.sock"]);
        let answer = sandbox.ipam("ADD").stdin(conf.as_bytes()).run().document();
        assert_eq!(answer["cniVersion"], "0.3.0");
        assert_eq!(answer["ips"][0]["address"], "10.240.0.5/16");
    }
    let worsened = netconf().to_string();
    for name in ["name", "NAME"] {
        let worsened = format!(
            "{},\"{name}\":\"../x\"}}",
            worsened.strip_suffix('}').unwrap()
        );
        let refused = sandbox.azure_vnet("ADD").stdin(worsened.as_bytes()).run();
        refused.error_saying(7, &["name", "../x"]);
    }
    let unsaid = netconf_with(json!({"cniVersion": null}));
    let answer = sandbox.ipam("ADD").conf(&unsaid).run().document();
    assert_eq!(answer["ip4"]["ip"], "10.240.0.5/16");
    let (sandbox, _loader) = node(Manner::Helpful);
    let answer = sandbox.azure_vnet("ADD").conf(&unsaid).run().document();
    assert_eq!(answer["cniVersion"], "0.2.0");
    assert_eq!(answer["ip4"]["ip"], "10.240.0.5/16");
    sandbox.azure_vnet("DEL").conf(&unsaid).run().silence();
}

/// The mode must be one that Azure has.
#[test]
fn every_mode_of_azure_is_accepted() {
    let sandbox = Sandbox::with_pod();
    for mode in ["", "bridge", "tunnel", "transparent", "transparent-tunnel"] {
        let conf = netconf_with(json!({"mode": mode}));
        sandbox
            .azure_vnet("ADD")
            .conf(&conf)
            .run()
            .error_saying(11, &["loader.sock"]);
    }
}

/// The answer to a broken request is in the version that the request asks for, as far as it can be told.
#[test]
fn an_error_object_has_the_version_of_the_request() {
    let _sandbox = Sandbox::new();
    for (program, conf, version) in [
        (AZURE_VNET, netconf_with(json!({"name": ""})), "0.3.0"),
        (
            AZURE_VNET_IPAM,
            netconf_with(json!({"name": "", "cniVersion": "1.0.0"})),
            "1.0.0",
        ),
        (
            AZURE_VNET,
            netconf_with(json!({"cniVersion": "7"})),
            "1.1.0",
        ),
    ] {
        let answer = Exec::new(program, "ADD").conf(&conf).run();
        let object: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(object["cniVersion"], version);
    }
}
