//! How the service manager and the operator see the loader: what it may do, that it lives, and how soon it is there.
#![cfg(test)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use lab::libcni::{Verb, outcome};
use lab::{Lab, Node, Pod, at_once, damage_is_mended, eventually, pass};
use nix::sys::signal::Signal;

/// The unit that is told to the operator.
const UNIT: &str = include_str!("../../deploy/azure-vnet-loader.service");
/// As many as Azure allows on a node.
const PODS: u16 = 250;
/// For a start that finds them.
const START: Duration = Duration::from_secs(1);
/// For a leak to be found twice, half a minute apart, on a busy machine.
const TWO_LOOKS: Duration = Duration::from_secs(100);
/// Of one CPU, in percent, while nothing happens.
const IDLE: f64 = 0.5;

/// The same, while the kernel announces more than anybody can hear.
const STORM: f64 = 30.0;

/// What the unit says after `key=`.
fn of_unit(key: &str) -> &str {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.strip_prefix('=')).unwrap()
}

/// The unit's capabilities, as `setpriv` has them.
fn bounding() -> String {
    let names = of_unit("CapabilityBoundingSet").split(' ');
    let added = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("--bounding-set=-all{}", added.collect::<String>())
}

fn reaches_the_internet(lab: &Lab, pod: &Pod) {
    let seen = pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip();
    assert_eq!(seen, lab.node(1).addr());
}

#[test]
fn the_units_capabilities_are_enough_for_all_that_the_loader_does() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", "xdp: guard\n")
        .unwrap();
    for _start in 0..2 {
        let line = ["setpriv", &bounding(), "--no-new-privs"];
        node.loader().start_by(&line).unwrap();
        let pod = node.add_pod("web").unwrap();
        reaches_the_internet(&lab, &pod);
        assert!(damage_is_mended(node, &pod), "{}", node.loader().log());
        reaches_the_internet(&lab, &pod);
        let status = node.status().unwrap();
        assert_eq!(status["warnings"].to_string(), "[]");
        assert_eq!(status["guard"]["mode"], "native");
        assert_eq!(status["attached"].as_array().unwrap().len(), 4);
        pod.delete().unwrap();
        assert!(
            !node.loader().log().contains("ERROR"),
            "{}",
            node.loader().log()
        );
        node.loader().terminate().unwrap();
    }
}

/// `iptables-legacy-save` wants a raw socket, which the unit does not let the loader have.
#[test]
fn with_the_units_rights_a_legacy_table_is_told_and_hides_no_other_filter() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let empty = b"*filter\nCOMMIT\n";
    let legacy = node.feed(&["iptables-legacy-restore", "--noflush"], empty);
    if !legacy.unwrap().status.success() {
        return println!("this kernel has no iptables-legacy");
    }
    let line = ["setpriv", &bounding(), "--no-new-privs"];
    node.loader().start_by(&line).unwrap();
    node.exec(&["vnetctl", "status", "--wait", "--brief"])
        .unwrap();
    let doctor = node.exec(&["vnetctl", "doctor"]).unwrap();
    assert_eq!(doctor, "0 problems, 34 checks\n", "which reads it itself");
    node.loader().terminate().unwrap();
    node.nft("table inet firewall {\n chain forward {\n type filter hook forward priority 0; policy drop;\n ct state established accept\n }\n}\n")
        .unwrap();
    node.loader().start_by(&line).unwrap();
    let seen = eventually(Duration::from_secs(10), || {
        let warnings = node.status().ok()?["warnings"].to_string();
        let words = ["inet firewall", "iptables-legacy-save", "vnetctl doctor"];
        words
            .iter()
            .all(|word| warnings.contains(word))
            .then_some(())
    });
    assert!(seen.is_some(), "{}", node.status().unwrap()["warnings"]);
}

/// The plug-in that frees an address then runs with the loader's rights: few capabilities, and nothing but `/run` to write to (the
/// other directory is the conflist's).
#[test]
fn a_leak_is_freed_with_the_units_rights() {
    assert_eq!(of_unit("ProtectSystem"), "strict");
    assert_eq!(of_unit("ReadWritePaths"), "/run -/etc/cni/net.d");
    let confine = format!(
        "mount --rbind /run /run; mount -t tmpfs none /tmp; \
         cut -d' ' -f5 /proc/self/mountinfo | sort -u | grep -Ev '^/(run|dev|proc|sys|tmp)(/|$)' | \
         while read -r at; do mount -o remount,bind,ro \"$at\"; done; \
         if touch /var/log/azure-vnet.log; then exit 1; fi; exec setpriv {} --no-new-privs \"$0\"",
        bounding()
    );
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.exec(&["mount", "--make-shared", "/"]).unwrap();
    let line = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec"];
    let line = [line.as_slice(), &[&confine]].concat();
    node.loader().start_by(&line).unwrap();
    let [alive, gone] = ["alive", "gone"].map(|name| node.add_pod(name).unwrap());
    let address = gone.addr();
    gone.remove_netns().unwrap();
    let freed = || node.status().unwrap()["leaks_freed"] == 1;
    let done = eventually(TWO_LOOKS, || freed().then_some(()));
    let log = node.loader().log();
    assert!(done.is_some(), "{}\n{log}", node.status().unwrap());
    let lease = format!("/run/azure-vnet/ipam/leases/{address}");
    node.exec(&["sh", "-ec", &format!("! test -e {lease}")])
        .unwrap();
    assert_eq!(node.status().unwrap()["warnings"].to_string(), "[]");
    assert!(!log.contains("ERROR"), "{log}");
    reaches_the_internet(&lab, &alive);
}

#[test]
fn a_loader_says_that_it_lives_for_as_long_as_it_looks_after_the_node() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let socket = "/run/manager.sock";
    let told = node.run(|| Ok(UnixDatagram::bind(socket)?)).unwrap();
    let notify = format!("NOTIFY_SOCKET={socket}");
    let loader = node.start(&["env", &notify, "azure-vnet-loader"]).unwrap();
    let hears = |word: &str, within: Duration| {
        told.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut message = [0; 1024];
        eventually(within, || {
            let length = told.recv(&mut message).ok()?;
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            text.contains(word).then_some(())
        })
    };
    let often = Duration::from_secs(20);
    hears("READY=1", often).expect("it is ready");
    for _ in 0..3 {
        hears("WATCHDOG=1", often).expect("it lives");
    }
    loader.signal(Signal::SIGSTOP).unwrap();
    while hears("WATCHDOG=1", Duration::from_millis(50)).is_some() {}
    assert_eq!(hears("WATCHDOG=1", Duration::from_secs(5)), None);
    loader.signal(Signal::SIGCONT).unwrap();
    hears("WATCHDOG=1", often).expect("it lives again");
    let limit: u64 = of_unit("WatchdogSec").parse().unwrap();
    assert!(limit >= 15, "some looks may take long");
}

#[test]
fn the_unit_is_what_systemd_understands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("azure-vnet-loader.service");
    // The binary is not installed here.
    let program = of_unit("ExecStart");
    fs::write(&path, UNIT.replace(program, "/bin/true")).unwrap();
    let verify = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output();
    let Ok(verify) = verify else {
        println!("no systemd-analyze here: not verified");
        return;
    };
    let told = String::from_utf8_lossy(&verify.stderr).into_owned();
    let ours: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("azure-vnet-loader"))
        .collect();
    assert_eq!(ours, Vec::<&str>::new());
}

fn crowded(lab: &Lab) -> &Node {
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap();
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.new_netns(&format!("pod{number}")).unwrap())
        .collect();
    for some in pods.chunks(10) {
        let (done, _) = at_once(some, |pod| {
            outcome("azure-vnet", &pod.call(&network, Verb::Add)?)
        });
        for done in done {
            done.unwrap();
        }
    }
    node
}

#[test]
#[ignore = "slow: a measurement; cargo xtask test load"]
fn a_start_with_two_hundred_and_fifty_pods_takes_less_than_a_second_and_idling_next_to_nothing() {
    let lab = Lab::new().nodes(1).secondaries(PODS).record(false);
    let lab = lab.build().unwrap();
    let node = crowded(&lab);
    let mut starts = Vec::new();
    for _ in 0..5 {
        node.loader().kill9().unwrap();
        let began = Instant::now();
        node.start_loader().unwrap();
        starts.push(began.elapsed());
    }
    starts.sort();
    println!("start with {PODS} pods: {starts:.0?}");
    // A whole round of all that it does.
    let (long, cpu) = (Duration::from_secs(30), || node.loader().cpu().unwrap());
    pass(Duration::from_secs(5));
    let before = cpu();
    pass(long);
    let spent = cpu().saturating_sub(before);
    let spent = spent.as_secs_f64() / long.as_secs_f64() * 100.0;
    println!("idle with {PODS} pods: {spent:.2} % of a CPU");
    // As many announcements as somebody can make, about what is none of ours.
    let storm = "link add st0 type veth peer name st1\n".to_owned()
        + &"link set st0 mtu 1400\nlink set st0 mtu 1500\n".repeat(5000);
    let (before, began) = (cpu(), Instant::now());
    while began.elapsed() < long / 3 {
        node.ip(&storm).unwrap();
        node.ip("link del st0\n").unwrap();
    }
    let stormy = cpu().saturating_sub(before);
    let stormy = stormy.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!("in a storm of announcements with {PODS} pods: {stormy:.0} % of a CPU");
    assert!(stormy <= STORM, "{stormy} %");
    assert!(starts[2] <= START, "{starts:?}");
    assert!(spent <= IDLE, "{spent} %");
}
