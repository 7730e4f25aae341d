//! ADD, up to the programs, which this test has none of: everything before must be undone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exec::netconf_with;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Row 53 at step `attach`, the last one that can be reached without programs.
#[test]
fn what_was_made_before_the_programs_are_missed_is_undone() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    let loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    for mode in ["bridge", "transparent"] {
        let conf = netconf_with(json!({"mode": mode}));
        sandbox.azure_vnet("ADD").conf(&conf).run().error_saying(
            103,
            &["to_pod", "azure-vnet-loader", "failed at step `attach`"],
        );
        assert_eq!(sandbox.snapshot(), before);
        assert_eq!(
            sandbox.interfaces_in(Path::new("/run/netns/pod")),
            BTreeSet::from(["lo".into()])
        );
    }
    assert_eq!(
        loader.requests(),
        ["node", "remove_link", "node", "remove_link"]
    );
    assert_eq!(
        fs::read_dir("/run/azure-vnet/ipam/released")
            .unwrap()
            .count(),
        2
    );
}

#[test]
fn without_a_loader_nothing_is_begun_and_the_remedy_is_told() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let before = sandbox.snapshot();
    let answer = sandbox.azure_vnet("ADD").run();
    answer.error_saying(
        11,
        &[
            "/run/azure-vnet/loader.sock",
            "systemctl status azure-vnet-loader",
        ],
    );
    assert!(answer.took < Duration::from_secs(1));
    assert_eq!(sandbox.snapshot(), before);

    let _hanging = Loader::start(Manner::Hanging);
    let answer = sandbox.azure_vnet("ADD").run();
    answer.error_saying(11, &["/run/azure-vnet/loader.sock", "no answer within 5 s"]);
    assert!(answer.took < Duration::from_secs(6), "{:?}", answer.took);
}

/// Row 50. Whose interface it is nobody knows, so its address must not be freed either.
#[test]
fn an_interface_that_is_there_already_is_left_alone_and_so_is_its_address() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let _loader = Loader::start(Manner::Helpful);
    sandbox.ipam("ADD").env("CNI_IFNAME", "lo").run().document();
    let before = sandbox.snapshot();
    sandbox
        .azure_vnet("ADD")
        .env("CNI_IFNAME", "lo")
        .run()
        .error_saying(100, &["lo", "there already", "failed at step `existing`"]);
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 92: the result that nobody reads is given back, by the IPAM plug-in; for the main one see `full`.
#[test]
fn a_result_that_cannot_be_written_is_taken_back() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let full = || {
        Stdio::from(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    fs::write("/run/conf", crate::exec::netconf().to_string()).unwrap();
    for stdout in [full(), gone()] {
        let mut exec = sandbox.ipam("ADD");
        let status = exec
            .command
            .stdin(fs::File::open("/run/conf").unwrap())
            .stdout(stdout)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(1));
        assert_eq!(
            fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count(),
            0
        );
    }
}

/// A failure of the log never fails a call; what is logged is one JSON line with the time of each step.
#[test]
fn every_call_is_logged_with_its_steps_if_it_can_be() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    sandbox.azure_vnet("ADD").run().error(11);
    sandbox.azure_vnet("DEL").run().silence();
    let log = fs::read_to_string("/var/log/azure-vnet.log").unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["verb"], &lines[0]["error"]["code"]),
        (&json!("ADD"), &json!(11))
    );
    assert_eq!(
        (&lines[1]["verb"], &lines[1]["level"]),
        (&json!("DEL"), &json!("info"))
    );
    assert!(lines[1]["steps_us"]["ipam"].is_u64());

    fs::remove_file("/var/log/azure-vnet-ipam.log").unwrap();
    fs::create_dir("/var/log/azure-vnet-ipam.log").unwrap();
    sandbox.ipam("ADD").run().document();
}
