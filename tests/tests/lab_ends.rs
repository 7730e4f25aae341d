//! Does a lab leave anything behind? Neither when it is dropped nor when its process is killed.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lab::{Lab, Pod, keep};

type Result<T = ()> = anyhow::Result<T>;

/// These tests look at the whole process and the whole machine, so one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Network namespaces in use by any thread or descriptor of any process.
fn namespaces() -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc")
        .expect("every Linux has /proc")
        .flatten()
    {
        let path = process.path();
        let tasks = fs::read_dir(path.join("task"))
            .into_iter()
            .flatten()
            .flatten();
        let threads = tasks.map(|task| task.path().join("ns/net"));
        let fds = fs::read_dir(path.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let is_net = |path: &PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("net:["))
        };
        let held = threads.chain(fds.map(|fd| fd.path()).filter(is_net));
        found.extend(held.filter_map(|path| Some(fs::metadata(path).ok()?.ino())));
    }
    found
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").expect("every process has mounts")
}

fn host_netns_files() -> usize {
    fs::read_dir("/run/netns").map_or(0, Iterator::count)
}

/// Cgroups of these network namespaces.
fn cgroups(inodes: &BTreeSet<u64>) -> usize {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let names = inodes.iter().map(|inode| format!("azure-vnet-lab-{inode}"));
    let paths = names.flat_map(|name| places.map(|place| place.join(&name)));
    paths.filter(|path| path.exists()).count()
}

/// Waits until none of the namespaces is in use, none has a cgroup, and none of the processes runs.
fn gone(inodes: &BTreeSet<u64>, pids: &[u32]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    // A zombie has ended; when an orphan is reaped is the machine's business.
    let runs = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while Instant::now() < deadline {
        if namespaces().is_disjoint(inodes) && cgroups(inodes) == 0 && !pids.iter().any(runs) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// As a container is: with namespaces and a cgroup of its own.
const DAEMON: &str = "mkdir -p /sys/fs/cgroup/of/daemon
    setsid unshare --net --mount sleep 1000 >/dev/null 2>&1 & echo $!; echo $! > /sys/fs/cgroup/of/daemon/cgroup.procs";

/// A lab with all that could outlive it: pods, servers, captures, processes and their children.
struct Busy {
    lab: Lab,
    pod: Pod,
    inodes: BTreeSet<u64>,
    pids: Vec<u32>,
}

impl Busy {
    fn new() -> Result<Self> {
        let lab = Lab::new().nodes(2).build()?;
        let node = lab.node(1);
        node.prepare_containers()?;
        let mut inodes = BTreeSet::new();
        for namespace in lab.namespaces() {
            inodes.insert(namespace.net_inode()?);
        }
        let pod = node.new_netns("web")?;
        inodes.insert(pod.net_inode()?);
        // A daemon: its parent has gone, so no parent-death signal will reach it.
        let daemon = node.exec(&["sh", "-c", DAEMON])?;
        // A process of a pod.
        let in_pod = pod.exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"])?;
        let pids = vec![daemon.trim().parse()?, in_pod.trim().parse()?];
        Ok(Self {
            lab,
            pod,
            inodes,
            pids,
        })
    }
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result {
    let _alone = alone();
    let before = (mounts(), host_netns_files());
    let busy = Busy::new()?;
    let node = busy.lab.node(1);
    let sleep = node.start(&["sleep", "1000"])?;
    let capture = node.capture("eth0")?;
    let echo = node.serve_echo(9000)?;
    let stream = busy.lab.node(2).stream(node.addr(), 9000)?;
    assert_eq!(before, (mounts(), host_netns_files()));
    assert!(
        busy.inodes.is_subset(&namespaces()),
        "the scan finds what there is"
    );
    assert_eq!(cgroups(&busy.inodes), 1);
    let pids = [&busy.pids[..], &[sleep.pid()]].concat();
    stream.finish()?;
    drop((sleep, capture, echo, busy.pod, busy.lab));
    assert!(gone(&busy.inodes, &pids));
    assert_eq!(before, (mounts(), host_netns_files()));
    Ok(())
}

#[test]
fn a_lab_ends_what_its_handles_would_hold() -> Result {
    let _alone = alone();
    let busy = Busy::new()?;
    let sleep = busy.lab.node(1).start(&["sleep", "1000"])?;
    drop(busy.lab);
    sleep.wait(Duration::from_secs(5))?;
    assert!(gone(&BTreeSet::new(), &busy.pids));
    Ok(())
}

#[test]
fn a_killed_lab_leaves_nothing() -> Result {
    let _alone = alone();
    let before = (mounts(), host_netns_files());
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(std::result::Result::ok)
        .find(|line| line.contains("victim is up"));
    let line = line.expect("the victim builds its lab");
    let (_, numbers) = line.split_once("up:").unwrap();
    let (pids, inodes) = numbers.split_once(',').unwrap();
    let pids: Vec<u32> = pids
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let inodes = inodes
        .split_whitespace()
        .map(|inode| inode.parse().unwrap())
        .collect();
    assert_eq!(
        pids.len(),
        3,
        "a child, and a daemon each of a node and of a pod"
    );
    assert!(
        !namespaces().is_disjoint(&inodes),
        "the victim's namespaces are seen"
    );

    victim.kill()?;
    victim.wait()?;
    assert!(gone(&inodes, &pids));
    assert_eq!(before, (mounts(), host_netns_files()));
    Ok(())
}

#[test]
fn a_kept_lab_can_be_entered_until_it_is_taken_down() -> Result {
    let _alone = alone();
    let before = (mounts(), host_netns_files());
    let dir = tempfile::tempdir()?;
    let pidfile = dir.path().join("demo.pid");
    assert!(!keep::down(&pidfile)?, "there is none yet");
    assert!(keep::detach(keeper_with("/nowhere/demo.pid".as_ref())?).is_err());
    keep::detach(keeper_with(&pidfile)?)?;
    for line in fs::read_to_string(pidfile.with_extension("entrances"))?.lines() {
        let shown = Command::new("sh")
            .args(["-c", &format!("{line} ip -br link")])
            .output()?;
        assert!(
            shown.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        assert!(String::from_utf8(shown.stdout)?.starts_with("lo"), "{line}");
    }
    assert!(keep::down(&pidfile)?);
    assert!(!pidfile.exists());
    // A number that belongs to another process by now is left alone.
    fs::write(&pidfile, format!("{} 1\n", std::process::id()))?;
    assert!(!keep::down(&pidfile)?);
    assert_eq!(before, (mounts(), host_netns_files()));
    Ok(())
}

fn keeper_with(pidfile: &Path) -> Result<Command> {
    let mut keeper = Command::new(std::env::current_exe()?);
    keeper
        .args(["--exact", "keeper", "--ignored", "--nocapture"])
        .env("PIDFILE", pidfile)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(keeper)
}

#[test]
#[ignore = "run by a_kept_lab_can_be_entered_until_it_is_taken_down in a process of its own"]
fn keeper() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let pod = lab.node(1).new_netns("web")?;
    let pidfile = PathBuf::from(std::env::var_os("PIDFILE").expect("PIDFILE"));
    let entrances = keep::entrances(&lab, &[&pod]).into_iter();
    let lines: Vec<_> = entrances.map(|(_, line)| line).collect();
    fs::write(pidfile.with_extension("entrances"), lines.join("\n"))?;
    keep::keep(lab, &pidfile)
}

#[test]
#[ignore = "run by a_killed_lab_leaves_nothing in a process of its own"]
fn victim() -> Result {
    let busy = Busy::new()?;
    let sleep = busy.lab.node(1).start(&["sleep", "1000"])?;
    let words = |numbers: Vec<String>| numbers.join(" ");
    let inodes = words(busy.inodes.iter().map(u64::to_string).collect());
    let daemons = words(busy.pids.iter().map(u32::to_string).collect());
    println!("victim is up: {} {daemons}, {inodes}", sleep.pid());
    // Until it is killed, or until the test that started it is.
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
