//! The loader as systemd runs it: its unit, unchanged, under a systemd of the node's own, with all that the unit forbids.
#![cfg(test)]

use std::time::Duration;

use lab::{CONFLIST, Lab, METRICS_ON, Node, Process, damage_is_mended, eventually};

const UNIT: &str = include_str!("../../deploy/azure-vnet-loader.service");
const SYSTEMD: &str = "/lib/systemd/systemd";
const LOG: &str = "/run/loader.log";
const LONG: Duration = Duration::from_mins(1);
/// For a leak to be found twice, half a minute apart, on a busy machine.
const TWO_LOOKS: Duration = Duration::from_secs(100);

/// Makes namespaces for systemd in which nothing is the machine's: its own processes, cgroups, name, devices and settings. Of
/// units it finds ours, and the targets that every unit needs.
const ENTER: &str = r#"
echo $$ > /sys/fs/cgroup/cgroup.procs
exec env container=lab unshare --cgroup --uts --pid --fork --kill-child --mount --propagation slave sh -ec '
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount --rbind /run /run
mount -t tmpfs none /mnt
for device in null zero full random urandom tty; do touch /mnt/$device; mount --bind /dev/$device /mnt/$device; done
mkdir /mnt/pts /mnt/shm
mount -t devpts none /mnt/pts
ln -s pts/ptmx /mnt/ptmx
mount -t tmpfs none /mnt/shm
mount --move /mnt /dev
units=/usr/lib/systemd/system
mount -t tmpfs none $units
for target in sysinit basic shutdown network-online; do echo "[Unit]" > $units/$target.target; done
for none in /usr/lib/systemd/system-generators /usr/lib/systemd/system-environment-generators /usr/local/bin; do
  if [ -d $none ]; then mount -t tmpfs none $none; fi
done
touch /usr/local/bin/azure-vnet-loader
mount --bind /opt/azure-vnet/bin/azure-vnet-loader /usr/local/bin/azure-vnet-loader
exec /lib/systemd/systemd --system --unit=azure-vnet-loader.service --log-target=null --show-status=no'
"#;

/// Starts systemd, which starts the loader. `None`: this machine has no systemd.
fn boot(node: &Node) -> Option<Process> {
    node.exec(&["test", "-x", SYSTEMD]).ok()?;
    let etc = "/etc/systemd/system/azure-vnet-loader.service";
    node.write(etc, UNIT).unwrap();
    // There is no journal.
    let log = format!("[Service]\nStandardError=append:{LOG}\n");
    node.write(&format!("{etc}.d/log.conf"), &log).unwrap();
    node.prepare_containers().unwrap();
    node.exec(&["mount", "--make-shared", "/"]).unwrap();
    Some(node.start(&["sh", "-ec", ENTER]).unwrap())
}

/// Talks to systemd, which knows nobody of other namespaces.
fn systemctl(node: &Node, systemd: &Process, words: &str) -> anyhow::Result<String> {
    let parent = systemd.pid();
    let line = format!(
        "exec nsenter -m -p -C -t $(cat /proc/{parent}/task/{parent}/children) systemctl {words}"
    );
    node.exec(&["sh", "-ec", &line])
}

/// Waits until systemd says that the loader is ready, as many starts after the first as are told.
fn is_ready(node: &Node, systemd: &Process, restarts: u32) {
    let is_so = || {
        let show = "show azure-vnet-loader -p ActiveState,NRestarts";
        let told = systemctl(node, systemd, show).ok()?;
        let mut wanted = [
            "ActiveState=active".to_owned(),
            format!("NRestarts={restarts}"),
        ]
        .into_iter();
        wanted
            .all(|line| told.lines().any(|is| is == line))
            .then_some(())
    };
    let ready = eventually(LONG, is_so);
    assert!(ready.is_some(), "{} {}", systemd.log(), log(node));
}

fn log(node: &Node) -> String {
    node.read(LOG).unwrap_or_default()
}

/// The loader's process, as the node sees it.
fn pid(node: &Node) -> u32 {
    let processes = "/sys/fs/cgroup/system.slice/azure-vnet-loader.service/cgroup.procs";
    let all = node.read(processes).unwrap();
    let mut all = all.lines().filter_map(|pid| pid.parse().ok());
    let is_loader = |pid: &u32| {
        let name = node.read(&format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("azure-vnet-load"))
    };
    all.find(is_loader).unwrap()
}

/// That systemd has really forbidden what it was told to: it leaves out what a kernel or an image does not have.
fn is_confined(node: &Node, pid: u32) {
    let status = node.read(&format!("/proc/{pid}/status")).unwrap();
    // CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF; a filter of system calls.
    for line in [
        "CapBnd:\t000000c000001000",
        "CapEff:\t000000c000001000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let there = |line: &str| {
        let enter = format!("exec nsenter -m -t {pid} {line}");
        node.exec(&["sh", "-c", &enter])
    };
    for open in ["/run/x", "/etc/cni/net.d/x", "/tmp/x"] {
        there(&format!("touch {open}")).unwrap();
        there(&format!("rm {open}")).unwrap();
    }
    for closed in ["/etc/x", "/usr/x", "/var/log/x", "/root/x"] {
        let refused = format!("{:?}", there(&format!("touch {closed}")));
        let is = ["Read-only file system", "Permission denied"];
        assert!(is.iter().any(|why| refused.contains(why)), "{refused}");
    }
    // PrivateTmp.
    node.write("/tmp/nodes", "").unwrap();
    assert!(there("test -e /tmp/nodes").is_err());
}

#[test]
#[ignore = "slow: a minute and more; cargo xtask test load"]
fn under_systemd_with_all_that_the_unit_forbids_the_loader_does_its_work() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    // What it writes to /etc for, and what it listens to.
    let conflist = node.read(CONFLIST).unwrap();
    node.exec(&["rm", CONFLIST]).unwrap();
    node.write("/etc/azure-vnet/10-azure.conflist", &conflist)
        .unwrap();
    let settings = "xdp: guard\nconflist: /etc/azure-vnet/10-azure.conflist\n";
    node.write(
        "/etc/azure-vnet/loader.yaml",
        &format!("{settings}{METRICS_ON}"),
    )
    .unwrap();
    let Some(systemd) = boot(node) else {
        return println!("this machine has no systemd: the unit's sandbox is not tried");
    };
    is_ready(node, &systemd, 0);
    is_confined(node, pid(node));
    let written = || node.read(CONFLIST).ok().filter(|text| *text == conflist);
    eventually(LONG, written).unwrap_or_else(|| panic!("{}", log(node)));
    let pod = node.add_pod("web").unwrap();
    let reaches = || {
        let seen = pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip();
        assert_eq!(seen, node.addr());
    };
    reaches();
    assert!(damage_is_mended(node, &pod), "{}", log(node));
    node.scrape().unwrap();
    node.add_pod("gone").unwrap().remove_netns().unwrap();
    systemctl(node, &systemd, "restart azure-vnet-loader").unwrap();
    is_ready(node, &systemd, 0);
    reaches();
    // By the plug-in, which runs with the loader's rights.
    let freed = || (node.status().ok()?["leaks_freed"] == 1).then_some(());
    eventually(TWO_LOOKS, freed).unwrap_or_else(|| panic!("{}", log(node)));
    let status = node.status().unwrap();
    assert_eq!(status["warnings"].to_string(), "[]");
    assert_eq!(status["guard"]["mode"], "native");
    assert_eq!(status["attached"].as_array().unwrap().len(), 4);
    assert!(!log(node).contains("ERROR"), "{}", log(node));
    // One that hangs tells nobody that it lives: systemd ends it, and starts another.
    node.exec(&["kill", "-STOP", &pid(node).to_string()])
        .unwrap();
    is_ready(node, &systemd, 1);
    reaches();
    pod.delete().unwrap();
}
